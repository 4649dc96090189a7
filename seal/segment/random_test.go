package segment

import (
	"bytes"
	"cmp"
	stdgzip "compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
	"logvault/vault"
)

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// world draws log lines of a format from small sets, so that tokens repeat.
type world struct {
	rng    *mrand.Rand
	format logfmt.Format
}

func (w *world) pick(list ...string) string { return list[w.rng.IntN(len(list))] }

func (w *world) client() string {
	n := w.rng.IntN(1 + w.rng.IntN(400)) // small numbers are frequent
	switch w.rng.IntN(8) {
	case 0:
		return fmt.Sprintf("2001:db8:%x::%X", n%4, n)
	case 1:
		return fmt.Sprintf("PC-%d.campus.example", n)
	case 2:
		return fmt.Sprintf("::ffff:10.1.%d.%d", n%4, n%250)
	case 3:
		return fmt.Sprintf("[2001:db8::%x]:%d", n, 1024+n)
	}
	return fmt.Sprintf("10.%d.%d.%d", n%3, n%7, n%251)
}

func (w *world) line() string {
	if w.rng.IntN(60) == 0 {
		return w.pick("\n", "\r\n", "garbage\n", "\x00\xff\n", "1735689600.000 cut", "10.0.0.1 - - [10/Oct") + "\n"
	}
	host := w.pick("a.example", "B.example", "b.example.", "shop.b.example", "[2001:db8::9]", "192.0.2.7", "h"+fmt.Sprint(w.rng.IntN(300)))
	path := strings.Repeat("p", w.rng.IntN(60))
	if w.rng.IntN(2000) == 0 {
		path = strings.Repeat("long/", 60_000+w.rng.IntN(200_000)) // over a member's end, or a whole member
	}
	user := w.pick("-", "-", "-", "alice", "Bob", "b%20b", fmt.Sprint("u", w.rng.IntN(30)))
	end := w.pick("\n", "\n", "\n", "\r\n")
	if w.format == logfmt.Squid {
		return fmt.Sprintf("%d.%03d %5d %s TCP_MISS/200 %d GET http://%s/%s %s HIER_DIRECT/192.0.2.1 text/html%s",
			1735689600+w.rng.IntN(1000), w.rng.IntN(1000), w.rng.IntN(999), w.client(), w.rng.IntN(9999), host, path, user, end)
	}
	stamp := time.Unix(int64(1735689600+w.rng.IntN(1000)), 0).In(time.FixedZone("", 3600*(w.rng.IntN(5)-2))).Format("02/Jan/2006:15:04:05 -0700")
	line := fmt.Sprintf(`%s - %s [%s] "GET http://%s/%s HTTP/1.1" 200 %d`, w.client(), user, stamp, host, path, w.rng.IntN(9999))
	if w.format == logfmt.Combined {
		line += ` "http://ref.example/" "Mozilla/5.0"`
	}
	return line + end
}

// log draws lines up to about size bytes; the last one may lack its LF.
func (w *world) log(size int) []byte {
	var b bytes.Buffer
	for b.Len() < size {
		b.WriteString(w.line())
	}
	if w.rng.IntN(2) == 0 {
		return bytes.TrimRight(b.Bytes(), "\r\n")
	}
	return b.Bytes()
}

// found is one line of a search.
type found struct {
	line int64
	text string
}

// occurrences says where a token really stands: found by parsing every line.
type occurrences struct {
	members uint64
	lines   []found
}

// readAll finds all tokens of a text, by kind.
func readAll(f logfmt.Format, raw []byte) map[logfmt.TokenKind]map[string]*occurrences {
	all := map[logfmt.TokenKind]map[string]*occurrences{}
	var fields logfmt.Fields
	pos, n := 0, int64(0)
	for line := range bytes.Lines(raw) {
		parsed := logfmt.Parse(f, line, &fields)
		for _, k := range logfmt.Kinds {
			if !parsed || fields.Value(k) == nil {
				continue
			}
			if all[k] == nil {
				all[k] = map[string]*occurrences{}
			}
			token := string(logfmt.AppendToken(nil, k, fields.Value(k)))
			if all[k][token] == nil {
				all[k][token] = new(occurrences)
			}
			o := all[k][token]
			o.lines = append(o.lines, found{n, string(line)})
			for m := pos / MemberSize; m <= (pos+len(line)-1)/MemberSize; m++ {
				o.members |= 1 << m
			}
		}
		pos += len(line)
		n++
	}
	return all
}

// grep finds the lines with a token that match accepts, and the members that
// they touch.
func grep(tokens map[string]*occurrences, match func(token string) bool) (members []int, lines []found) {
	var set uint64
	for token, o := range tokens {
		if match(token) {
			set |= o.members
			lines = append(lines, o.lines...)
		}
	}
	slices.SortFunc(lines, func(a, b found) int { return cmp.Compare(a.line, b.line) })
	return membersOf(set), lines
}

// TestSearchesAgainstGrep compares lookups on random logs of every format with a
// search of every line: the same members, and in them all the lines.
func TestSearchesAgainstGrep(t *testing.T) {
	k := newTestKey(t)
	for seed, format := range []logfmt.Format{logfmt.Squid, logfmt.Common, logfmt.Combined} {
		w := &world{rng: mrand.New(mrand.NewPCG(uint64(seed), 9)), format: format}
		raw := w.log(2*MemberSize + w.rng.IntN(MemberSize))
		e, err := NewEncoder(Options{Codec: []vault.Codec{vault.Gzip, vault.Zstd}[seed%2], Level: 1, Workers: 1 + seed, Random: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		enc := mustEncode(t, e, raw, k)
		ix := mustIndex(t, enc, k)
		if ix.Format != string(format) || ix.Check(bytes.NewReader(raw)) != nil {
			t.Fatalf("%s: format %s, check: %v", format, ix.Format, ix.Check(bytes.NewReader(raw)))
		}
		if got, want := gotTokens(ix), wantTokens(format, raw); !slices.Equal(got, want) {
			t.Fatalf("%s: %d tokens, want %d", format, len(got), len(want))
		}
		all := readAll(format, raw)
		for n, q := range queries(w, ix) {
			want, lines := grep(all[q.kind], q.match)
			if !slices.Equal(q.got, want) {
				t.Errorf("%s: %s %s: members %v, want %v", format, q.kind, q.text, q.got, want)
			}
			if n%40 == 0 {
				checkSearch(t, enc, ix, k, q, lines)
			}
		}
	}
}

// query is a lookup with its answer and what it means for one token.
type query struct {
	kind  logfmt.TokenKind
	text  string
	got   []int
	match func(token string) bool
}

// queries draws lookups of all sorts, of tokens that are there and that are not.
func queries(w *world, ix *Index) []query {
	var all []query
	allTokens(ix, func(k logfmt.TokenKind, token []byte, _ []int) bool {
		s := string(token)
		if w.rng.IntN(12) == 0 {
			all = append(all, query{k, s, ix.Lookup(k, s), func(x string) bool { return x == s }})
		}
		if addr, err := netip.ParseAddr(s); err == nil && w.rng.IntN(6) == 0 {
			addr = addr.Unmap()
			p := netip.PrefixFrom(addr, w.rng.IntN(addr.BitLen()+1)).Masked()
			all = append(all, query{k, p.String(), ix.LookupCIDR(k, p), func(x string) bool {
				a, err := netip.ParseAddr(x)
				return err == nil && p.Contains(a.Unmap())
			}})
		}
		return true
	})
	for _, k := range logfmt.Kinds {
		for _, s := range []string{"", "no such", "10.", "zzzz", "\xff", "-"} {
			all = append(all, query{k, s, ix.Lookup(k, s), func(x string) bool { return x == s && s != "" }})
		}
	}
	return all
}

// checkSearch opens the members of a lookup and finds the same lines as grep.
func checkSearch(t *testing.T, enc *Encoded, ix *Index, k testKey, q query, want []found) {
	t.Helper()
	var got []found
	var fields logfmt.Fields
	err := decodeLines(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, q.got, func(_ int, line int64, text []byte) error {
		if logfmt.Parse(logfmt.Format(ix.Format), text, &fields) && fields.Value(q.kind) != nil && q.match(string(logfmt.AppendToken(nil, q.kind, fields.Value(q.kind)))) {
			got = append(got, found{line, string(text)})
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s %s: found %d lines, want %d: %v", q.kind, q.text, len(got), len(want), err)
	}
}

// TestLengthsAroundMembers: texts of exactly, one less and one more than whole
// members, of lines that sit on the boundary in every way.
func TestLengthsAroundMembers(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Zstd, 1)
	check := func(name string, raw []byte) {
		t.Helper()
		enc := mustEncode(t, e, raw, k)
		ix := mustIndex(t, enc, k)
		root, lines, err := LineRoot(ix.Secret, bytes.NewReader(raw))
		if err != nil || root != enc.Root || lines != enc.Lines || ix.Lines != lines {
			t.Errorf("%s: root %v of %d lines, %v; the encoder says %v of %d", name, root, lines, err, enc.Root, enc.Lines)
		}
		if err := ix.Check(bytes.NewReader(raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkMembers(t, enc, ix, raw, k)
	}
	for _, members := range []int{1, 2} {
		for delta := -1; delta <= 1; delta++ {
			size := members*MemberSize + delta
			for name, pattern := range map[string]string{"no LF": "x", "only LFs": "\n", "CRLF": "line\r\n", "NUL": "\x00\x00\x00\n", "lines of 1 KiB": strings.Repeat("k", 1023) + "\n"} {
				raw := bytes.Repeat([]byte(pattern), size/len(pattern)+1)[:size]
				if len(pattern) < 10 && pattern != "x" && (testing.Short() || members > 1 || pattern == "\n" && delta < 1) {
					continue // up to a million lines each time
				}
				check(fmt.Sprintf("%d%+d %s", members, delta, name), raw)
			}
		}
	}
	long := append(append([]byte("first\n"), bytes.Repeat([]byte("3"), 3*MemberSize)...), "\nlast without LF"...)
	check("line of 3 MiB", long)
	ends := bytes.Repeat([]byte("e"), 2*MemberSize)
	ends[MemberSize-1], ends[2*MemberSize-1] = '\n', '\n'
	check("lines that end with their members", ends)
	ends[MemberSize-1], ends[MemberSize] = 'e', '\n'
	check("LF first in a member", ends)
}

// TestEveryLevel: what each level writes, Decode and the standard library read.
func TestEveryLevel(t *testing.T) {
	k := newTestKey(t)
	raw := squidLog(2000)
	smallest := len(raw)
	for level := 0; level <= 9; level++ {
		enc := mustEncode(t, newTestEncoder(t, vault.Gzip, level), raw, k)
		if _, err := Decode(io.Discard, bytes.NewReader(enc.Segment), k.secret, enc.Codec); err != nil {
			t.Errorf("gzip %d: %v", level, err)
		}
		members := decryptText(t, enc.Segment, k)
		r, err := stdgzip.NewReader(bytes.NewReader(members))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || !bytes.Equal(text, raw) {
			t.Errorf("gzip %d: compress/gzip reads %d bytes, %v", level, len(text), err)
		}
		if stored := len(members) > len(raw); stored != (level == 0) {
			t.Errorf("gzip %d: %d bytes for %d", level, len(members), len(raw))
		}
		smallest = min(smallest, len(members))
	}
	if smallest > len(raw)/3 {
		t.Errorf("the best level makes %d bytes of %d", smallest, len(raw))
	}
	for _, level := range []int{1, 3, 7, 11, 22} {
		enc := mustEncode(t, newTestEncoder(t, vault.Zstd, level), raw, k)
		var text bytes.Buffer
		if _, err := Decode(&text, bytes.NewReader(enc.Segment), k.secret, enc.Codec); err != nil || !bytes.Equal(text.Bytes(), raw) {
			t.Errorf("zstd %d: %d bytes, %v", level, text.Len(), err)
		}
	}
	// Bytes that do not compress grow by little, also in the index's bound.
	noise := make([]byte, MemberSize)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Codec: vault.Gzip, Level: 0}, {Codec: vault.Gzip, Level: 9}, {Codec: vault.Zstd, Level: 3}} {
		ix := mustIndex(t, mustEncode(t, newTestEncoder(t, o.Codec, o.Level), noise, k), k)
		if ix.Members[0].Size > MemberSize+4096 {
			t.Errorf("%s %d: noise takes %d bytes", o.Codec, o.Level, ix.Members[0].Size)
		}
	}
}

// failingCompressor fails at its n-th member.
type failingCompressor struct {
	compressor
	left *int
}

func (f failingCompressor) compress(dst, text []byte) ([]byte, error) {
	if *f.left--; *f.left < 0 {
		return dst, errBroken
	}
	return f.compressor.compress(dst, text)
}

// cancelOnRead is randomness that cancels a context at its n-th read.
type cancelOnRead struct {
	n      int
	cancel context.CancelFunc
}

func (c *cancelOnRead) Read(p []byte) (int, error) {
	if c.n--; c.n == 0 {
		c.cancel()
	}
	return rand.Read(p)
}

// TestEncoderIsCleanAfterAnything: whatever the call before was, another text or
// one that failed or was cancelled anywhere, the next is as that of a new encoder.
func TestEncoderIsCleanAfterAnything(t *testing.T) {
	k := newTestKey(t)
	e, err := NewEncoder(Options{Codec: vault.Gzip, Level: 1, Workers: 1, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	good := e.workers[0].compressor
	before := map[string]func() error{
		"another format": func() error {
			_, err := e.Encode(t.Context(), (&world{mrand.New(mrand.NewPCG(1, 1)), logfmt.Combined}).log(MemberSize/2), testMeta, k.public)
			return err
		},
		"a text":      func() error { _, err := e.Encode(t.Context(), []byte("\n"), testMeta, k.public); return err },
		"bad meta":    func() error { _, err := e.Encode(t.Context(), []byte("x\n"), Meta{}, k.public); return err },
		"no raw text": func() error { _, err := e.Encode(t.Context(), nil, testMeta, k.public); return err },
	}
	big := squidLog(25_000) // three members
	for n := range 3 {
		before[fmt.Sprintf("member %d fails", n)] = func() error {
			left := n
			e.workers[0].compressor = failingCompressor{good, &left}
			defer func() { e.workers[0].compressor = good }()
			_, err := e.Encode(t.Context(), big, testMeta, k.public)
			if !errors.Is(err, errBroken) {
				t.Errorf("member %d: %v, want the compressor's error", n, err)
			}
			return err
		}
	}
	for n := 1; n <= 6; n++ {
		before[fmt.Sprintf("cancelled at read %d", n)] = func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e.options.Random = &cancelOnRead{n, cancel}
			defer func() { e.options.Random = rand.Reader }()
			_, err := e.Encode(ctx, big, testMeta, k.public)
			return err
		}
	}
	raw := squidLog(300)
	want := wantTokens(logfmt.Squid, raw)
	for name, call := range before {
		outcome := call()
		if len(e.free) != cap(e.free) {
			t.Fatalf("%s: %d of %d buffers came back", name, len(e.free), cap(e.free))
		}
		enc := mustEncode(t, e, raw, k)
		ix := mustIndex(t, enc, k)
		if err := ix.Check(bytes.NewReader(raw)); err != nil || !slices.Equal(gotTokens(ix), want) || ix.Unparsed != 0 {
			t.Errorf("after %s (%v): %v, %d tokens, want %d, %d unparsed", name, outcome, err, len(gotTokens(ix)), len(want), ix.Unparsed)
		}
		if root, lines, err := LineRoot(ix.Secret, bytes.NewReader(raw)); err != nil || root != enc.Root || lines != 300 {
			t.Errorf("after %s (%v): another line root of %d lines, %v", name, outcome, lines, err)
		}
	}
}
