package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"

	"logvault/extract/logfmt"
	"logvault/vault"

	"github.com/klauspost/compress/zstd"
)

// wantTokens finds the tokens of a text the slow way: kind, token, members.
func wantTokens(f logfmt.Format, raw []byte) []string {
	sets := map[string]uint64{}
	pos := 0
	for line := range bytes.Lines(raw) {
		var fields logfmt.Fields
		if logfmt.Parse(f, line, &fields) {
			for _, k := range logfmt.Kinds {
				if v := fields.Value(k); v != nil {
					key := fmt.Sprintf("%d %s", k, logfmt.AppendToken(nil, k, v))
					for m := pos / MemberSize; m <= (pos+len(line)-1)/MemberSize; m++ {
						sets[key] |= 1 << m
					}
				}
			}
		}
		pos += len(line)
	}
	var out []string
	for key, set := range sets {
		out = append(out, fmt.Sprint(key, " ", membersOf(set)))
	}
	sort.Strings(out)
	return out
}

func gotTokens(ix *Index) []string {
	var out []string
	allTokens(ix, func(k logfmt.TokenKind, token []byte, members []int) bool {
		out = append(out, fmt.Sprintf("%d %s %v", k, token, members))
		return true
	})
	sort.Strings(out)
	return out
}

func TestIndexHoldsExactlyTheTokens(t *testing.T) {
	k := newTestKey(t)
	for _, lines := range []int{1, 100, 40000} {
		raw := squidLog(lines)
		ix := mustIndex(t, mustEncode(t, newTestEncoder(t, vault.Gzip, 1), raw, k), k)
		if got, want := gotTokens(ix), wantTokens(logfmt.Squid, raw); !slices.Equal(got, want) {
			t.Errorf("%d lines: %d tokens, want %d", lines, len(got), len(want))
		}
	}
	// More tokens than the table first has room for, and longer than any.
	var many strings.Builder
	for n := range 30000 {
		fmt.Fprintf(&many, "1735689600.000 1 c%d TCP_MISS/200 1 GET http://h%d/ - HIER_DIRECT/192.0.2.1 -\n", n, n*7)
	}
	long := strings.Repeat("L", 3000)
	fmt.Fprintf(&many, "1735689600.000 1 %s TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/192.0.2.1 -\n", long)
	ix := mustIndex(t, mustEncode(t, newTestEncoder(t, vault.Zstd, 3), []byte(many.String()), k), k)
	if n := len(gotTokens(ix)); n != 60002 {
		t.Errorf("%d tokens, want 60002", n)
	}
	for n := range 30000 {
		if len(ix.Lookup(logfmt.Host, fmt.Sprintf("h%d", n*7))) == 0 {
			t.Fatalf("host h%d not found", n*7)
		}
	}
	if ix.Lookup(logfmt.Client, long) == nil || ix.Lookup(logfmt.Client, long[:500]) != nil {
		t.Error("an over-long token must be found by its whole text only")
	}
}

func TestLookups(t *testing.T) {
	k := newTestKey(t)
	raw := squidLog(40000)
	enc := mustEncode(t, newTestEncoder(t, vault.Gzip, 1), raw, k)
	ix := mustIndex(t, enc, k)
	needle := bytes.Index(raw, []byte("2001:DB8::7")) / MemberSize
	all := make([]int, len(ix.Members))
	for i := range all {
		all[i] = i
	}
	cidr := netip.MustParsePrefix
	for name, c := range map[string]struct{ got, want []int }{
		"needle":             {ix.Lookup(logfmt.Client, "2001:db8::7"), []int{needle}},
		"needle as logged":   {ix.Lookup(logfmt.Client, "2001:DB8::7"), []int{needle}},
		"other kind":         {ix.Lookup(logfmt.User, "2001:db8::7"), nil},
		"unknown kind":       {ix.Lookup(99, "x"), nil},
		"no such client":     {ix.Lookup(logfmt.Client, "10.0.0.50"), nil},
		"part of a token":    {ix.Lookup(logfmt.Client, "10.0.0."), nil},
		"empty":              {ix.Lookup(logfmt.Client, ""), nil},
		"host in capitals":   {ix.Lookup(logfmt.Host, "HOST1.example.org."), all},
		"user keeps case":    {ix.Lookup(logfmt.User, "USER1"), nil},
		"user":               {ix.Lookup(logfmt.User, "user1"), all},
		"v6 network":         {ix.LookupCIDR(logfmt.Client, cidr("2001:db8::/32")), []int{needle}},
		"v6 address":         {ix.LookupCIDR(logfmt.Client, cidr("2001:db8:0:0::7/128")), []int{needle}},
		"v4 network":         {ix.LookupCIDR(logfmt.Client, cidr("10.0.0.0/26")), all},
		"v4 outside":         {ix.LookupCIDR(logfmt.Client, cidr("10.0.1.0/24")), nil},
		"hosts are no v4":    {ix.LookupCIDR(logfmt.Host, cidr("0.0.0.0/0")), nil},
		"nothing unparsed":   {membersOf(ix.unparsed), nil},
		"CIDR, unknown kind": {ix.LookupCIDR(0, cidr("0.0.0.0/0")), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: members %v, want %v", name, c.got, c.want)
		}
	}
	// What a search does: only the needle's member, and its line is there.
	found := 0
	err := decodeLines(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, ix.Lookup(logfmt.Client, "2001:db8::7"), func(_ int, line int64, text []byte) error {
		if string(text) == squidLine(12345) && line == 12345 {
			found++
		}
		return nil
	})
	if err != nil || found != 1 {
		t.Errorf("found the needle %d times: %v", found, err)
	}
	stopped := 0
	allTokens(ix, func(logfmt.TokenKind, []byte, []int) bool { stopped++; return false })
	if stopped != 1 {
		t.Errorf("allTokens went on %d times after false", stopped)
	}
}

// reencode turns a parsed index back into bytes, with the dictionary not compressed.
func reencode(ix *Index) (header, dict []byte) {
	w := new(indexWriter)
	w.begin()
	allTokens(ix, func(k logfmt.TokenKind, token []byte, members []int) bool {
		var set uint64
		for _, m := range members {
			set |= 1 << m
		}
		w.addToken(k, token, set)
		return true
	})
	for _, n := range w.counts {
		dict = binary.AppendUvarint(dict, n)
	}
	return appendHeader(nil, ix), bytes.Join([][]byte{dict, w.lengths, w.bytes, w.sets}, nil)
}

// splitIndex returns the header and the decompressed dictionary of an index.
func splitIndex(t testing.TB, text []byte, ix *Index) (header, dict []byte) {
	t.Helper()
	size := indexFixed + 1 + len(ix.Source) + 2 + len(ix.Name) + memberEntry*len(ix.Members)
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dict, err = d.DecodeAll(text[size+8:], nil)
	if err != nil {
		t.Fatal(err)
	}
	return text[:size], dict
}

func joinIndex(t testing.TB, header, dict []byte) []byte {
	t.Helper()
	w, err := newIndexWriter()
	if err != nil {
		t.Fatal(err)
	}
	frame := w.zstd.EncodeAll(dict, nil)
	b := binary.BigEndian.AppendUint32(bytes.Clone(header), uint32(len(dict)))
	return append(binary.BigEndian.AppendUint32(b, uint32(len(frame))), frame...)
}

// smallIndex is the text of a real index with two members and all tokens.
func smallIndex(t testing.TB) []byte {
	t.Helper()
	k := newTestKey(t)
	raw := append(squidLog(40), bytes.Repeat([]byte("x\n"), MemberSize/2)...)
	enc := mustEncode(t, newTestEncoder(t, vault.Gzip, 1), raw, k)
	return decryptText(t, enc.Index, k)
}

func TestIndexIsNotMalleable(t *testing.T) {
	text := smallIndex(t)
	ix, err := ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	header, dict := splitIndex(t, text, ix)
	if h, d := reencode(ix); !bytes.Equal(h, header) || !bytes.Equal(d, dict) {
		t.Fatal("parsed and written again, the index differs")
	}
	for i := range len(header) {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			flipped := bytes.Clone(text)
			flipped[i] ^= mask
			checkCanonical(t, flipped, fmt.Sprintf("header byte %d", i))
		}
	}
	for i := range dict {
		if testing.Short() && i%5 != 0 {
			continue
		}
		flipped := bytes.Clone(dict)
		flipped[i] ^= 0x01
		checkCanonical(t, joinIndex(t, header, flipped), fmt.Sprintf("dictionary byte %d", i))
	}
	for cut := range len(text) {
		if _, err := ParseIndex(text[:cut]); err == nil {
			t.Fatalf("cut at %d of %d: accepted", cut, len(text))
		}
	}
	if _, err := ParseIndex(append(bytes.Clone(text), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
}

// checkCanonical: what parses is written again as the same bytes.
func checkCanonical(t *testing.T, text []byte, what string) {
	t.Helper()
	ix, err := ParseIndex(text)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Fatalf("%s: an error of neither kind: %v", what, err)
		}
		return
	}
	header, dict := splitIndex(t, text, ix)
	if h, d := reencode(ix); !bytes.Equal(h, header) || !bytes.Equal(d, dict) {
		t.Fatalf("%s: accepted, but written again it differs", what)
	}
}

func TestNewerIndexIsItsOwnError(t *testing.T) {
	text := smallIndex(t)
	binary.BigEndian.PutUint32(text[8:], 2)
	if _, err := ParseIndex(text); !errors.Is(err, ErrNewer) || errors.Is(err, ErrCorrupt) {
		t.Errorf("version 2: %v, want ErrNewer", err)
	}
	binary.BigEndian.PutUint32(text[8:], 0)
	if _, err := ParseIndex(text); !errors.Is(err, ErrCorrupt) {
		t.Errorf("version 0: %v, want ErrCorrupt", err)
	}
}

// Hand-made dictionaries that say the same in another way, or too much.
func TestDictionaryIsStrict(t *testing.T) {
	text := smallIndex(t)
	ix, err := ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	header, _ := splitIndex(t, text, ix)
	long := string(binary.AppendUvarint(nil, maxToken+1))
	for name, c := range map[string]struct {
		dict string
		ok   bool
	}{
		"no tokens":             {"\x00\x00\x00\x00", true},
		"one":                   {"\x01\x00\x00\x00" + "\x00\x01" + "a" + "\x01", true},
		"two":                   {"\x02\x00\x00\x00" + "\x00\x02\x01\x01" + "abc" + "\x01\x03", true},
		"shares too little":     {"\x02\x00\x00\x00" + "\x00\x02\x00\x02" + "abac" + "\x01\x03", false},
		"shares too much":       {"\x02\x00\x00\x00" + "\x00\x01\x02\x01" + "ab" + "\x01\x03", false},
		"first shares":          {"\x01\x00\x00\x00" + "\x01\x01" + "a" + "\x01", false},
		"same twice":            {"\x02\x00\x00\x00" + "\x00\x01\x01\x00" + "a" + "\x01\x01", false},
		"descending":            {"\x02\x00\x00\x00" + "\x00\x01\x00\x01" + "ba" + "\x01\x01", false},
		"kinds apart":           {"\x01\x00\x01\x00" + "\x00\x01\x00\x01" + "ba" + "\x01\x01", true},
		"kinds share":           {"\x01\x00\x01\x00" + "\x00\x01\x01\x01" + "ba" + "\x01\x01", false},
		"empty token":           {"\x01\x00\x00\x00" + "\x00\x00" + "\x01", false},
		"no member":             {"\x01\x00\x00\x00" + "\x00\x01" + "a" + "\x00", false},
		"member 2 of 2":         {"\x01\x00\x00\x00" + "\x00\x01" + "a" + "\x04", false},
		"long varint":           {"\x01\x00\x00\x00" + "\x00\x01" + "a" + "\x81\x00", false},
		"varint over 64 bits":   {"\x01\x00\x00\x00" + "\x00\x01" + "a" + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", false},
		"trailing":              {"\x00\x00\x00\x00\x00", false},
		"suffix missing":        {"\x01\x00\x00\x00" + "\x00\x05" + "a" + "\x01", false},
		"set missing":           {"\x01\x00\x00\x00" + "\x00\x01" + "ab", false},
		"count without tokens":  {"\xff\xff\xff\xff\x0f\x00\x00\x00", false},
		"counts without tokens": {"\x02\x02\x02\x02" + "123456789", false},
		"token too long":        {"\x01\x00\x00\x00" + "\x00" + long + strings.Repeat("x", maxToken+1) + "\x01", false},
		"overflowing lengths":   {"\x01\x00\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02" + "a" + "\x01", false},
	} {
		joined := joinIndex(t, header, []byte(c.dict))
		if _, err := ParseIndex(joined); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want accepted: %v", name, err, c.ok)
		}
	}
}

// A dictionary that decompresses to more than it says is stopped there, not
// after all of it.
func TestDictionaryBomb(t *testing.T) {
	text := smallIndex(t)
	ix, err := ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	header, _ := splitIndex(t, text, ix)
	bomb := joinIndex(t, header, make([]byte, 200<<20))
	binary.BigEndian.PutUint32(bomb[len(header):], 4096)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseIndex(bomb); !errors.Is(err, ErrCorrupt) {
				b.Fatalf("bomb: %v", err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 16<<20 {
		t.Errorf("a bomb of 200 MiB made the parser allocate %d bytes", allocated)
	}
}

func FuzzParseIndex(f *testing.F) {
	text := smallIndex(f)
	ix, err := ParseIndex(text)
	if err != nil {
		f.Fatal(err)
	}
	header, dict := splitIndex(f, text, ix)
	f.Add(header, dict)
	f.Add(header, []byte{0, 0, 0, 0})
	f.Add([]byte(indexMagic), []byte{})
	f.Fuzz(func(t *testing.T, header, dict []byte) {
		checkCanonical(t, joinIndex(t, header, dict), "fuzzed")
		// And what is not a frame at all.
		if _, err := ParseIndex(append(bytes.Clone(header), dict...)); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Errorf("an error of neither kind: %v", err)
		}
	})
}
