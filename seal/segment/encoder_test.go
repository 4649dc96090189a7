package segment

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
	"logvault/vault"
)

// Texts around every boundary: members, blocks, lines that straddle or fill members.
func boundaryTexts() map[string][]byte {
	texts := map[string][]byte{
		"one LF":               []byte("\n"),
		"one byte":             []byte("x"),
		"CR, NUL, not UTF-8":   []byte("a\r\n\x00\xff\n\r\r\n\n"),
		"line over 3 members":  []byte("a\n" + strings.Repeat("x", 3*MemberSize) + "\nb\n"),
		"line ends at member":  []byte(strings.Repeat("x", MemberSize-1) + "\nnext\n"),
		"line starts at end":   []byte(strings.Repeat("x", MemberSize-2) + "\nnext\n"),
		"exactly two members":  bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopq\n"), 2*MemberSize/64),
		"no LF in two members": bytes.Repeat([]byte{'x'}, 2*MemberSize),
		"short lines":          bytes.Repeat([]byte("x\n\n"), 40_000),
		"log":                  squidLog(25000),
		"log, cut":             squidLog(25000)[:MemberSize+99],
	}
	for _, lines := range []int{15, 16, 17, 31, 32, 33} {
		texts[fmt.Sprintf("%d lines", lines)] = bytes.Repeat([]byte("line\n"), lines)
	}
	return texts
}

func TestRoundTrip(t *testing.T) {
	k := newTestKey(t)
	for _, o := range []struct {
		codec vault.Codec
		level int
	}{{vault.Gzip, defaultLevel(vault.Gzip)}, {vault.Gzip, 0}, {vault.Zstd, defaultLevel(vault.Zstd)}} {
		e := newTestEncoder(t, o.codec, o.level)
		for name, raw := range boundaryTexts() {
			limit := 5 * MemberSize / 2
			if o.codec == vault.Gzip && o.level == 0 {
				limit = MemberSize // the members are the same at every level
			}
			if testing.Short() && (bytes.Count(raw, []byte("\n")) > 50_000 || len(raw) > limit) {
				continue
			}
			t.Run(fmt.Sprintf("%s-%d/%s", o.codec, o.level, name), func(t *testing.T) { checkRoundTrip(t, e, raw, k) })
		}
	}
}

func checkRoundTrip(t *testing.T, e *Encoder, raw []byte, k testKey) {
	enc := mustEncode(t, e, raw, k)
	var text bytes.Buffer
	if n, err := Decode(&text, bytes.NewReader(enc.Segment), k.secret, enc.Codec); err != nil || n != int64(len(raw)) || !bytes.Equal(text.Bytes(), raw) {
		t.Fatalf("decoded %d bytes of %d: %v", n, len(raw), err)
	}
	ix := mustIndex(t, enc, k)
	if ix.Raw != int64(len(raw)) || enc.Raw != ix.Raw || ix.Lines != enc.Lines || ix.Codec != enc.Codec || ix.Format != enc.Format ||
		!ix.FirstEvent.Equal(enc.FirstEvent) || !ix.LastEvent.Equal(enc.LastEvent) {
		t.Errorf("index %+v does not fit segment %+v", ix, enc)
	}
	if string(ix.Name) != string(testMeta.Name) || ix.Source != testMeta.Source || ix.Stream != testMeta.Stream || ix.Gen != testMeta.Gen || ix.Offset != testMeta.Offset {
		t.Errorf("index says %+v, want %+v", ix.Meta, testMeta)
	}
	// The parallel computation against the sequential one and the naive one.
	root, lines, err := LineRoot(ix.Secret, bytes.NewReader(raw))
	if err != nil || root != enc.Root || lines != enc.Lines {
		t.Errorf("line root %v of %d lines, %v; the encoder says %v of %d", root, lines, err, enc.Root, enc.Lines)
	}
	if naive, n := naiveRoot(t, ix.Secret, raw); naive != root || n != lines {
		t.Errorf("naive root %v of %d lines, want %v of %d", naive, n, root, lines)
	}
	checkMembers(t, enc, ix, raw, k)
	if enc.Lines < 100_000 { // it renders every line of every subset
		checkLinesOfMembers(t, enc, ix, raw, k)
	}
}

// checkMembers decodes each member alone and compares what the index says of it.
func checkMembers(t *testing.T, enc *Encoded, ix *Index, raw []byte, k testKey) {
	t.Helper()
	for i, m := range ix.Members {
		want := raw[m.RawOffset : m.RawOffset+m.RawSize]
		err := decodeMembers(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, []int{i}, func(got int, text []byte) error {
			if got != i || !bytes.Equal(text, want) {
				t.Errorf("member %d: got member %d with other bytes", i, got)
			}
			return nil
		})
		if err != nil {
			t.Errorf("member %d: %v", i, err)
		}
		before := raw[:m.RawOffset]
		lead := int64(0)
		if len(before) > 0 && before[len(before)-1] != '\n' {
			lead = int64(lineLength(want))
		}
		if m.FirstLine != int64(bytes.Count(before, []byte("\n"))) || m.Lines != int64(bytes.Count(want, []byte("\n"))) || m.Lead != lead {
			t.Errorf("member %d: %+v, want lead %d", i, m, lead)
		}
	}
	all := make([]int, len(ix.Members))
	for i := range all {
		all[i] = i
	}
	var text []byte
	if err := decodeMembers(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, all, func(_ int, part []byte) error {
		text = append(text, part...)
		return nil
	}); err != nil || !bytes.Equal(text, raw) {
		t.Errorf("all members: %v", err)
	}
}

// checkLinesOfMembers: every subset of members gives exactly the lines that lie
// wholly in it.
func checkLinesOfMembers(t *testing.T, enc *Encoded, ix *Index, raw []byte, k testKey) {
	t.Helper()
	for set := uint64(1); set < 1<<len(ix.Members); set++ {
		var want, got []string
		pos := 0
		for n := 0; pos < len(raw); n++ {
			size := lineLength(raw[pos:])
			first, last := pos/MemberSize, (pos+size-1)/MemberSize
			whole := true
			for m := first; m <= last; m++ {
				whole = whole && set>>m&1 == 1
			}
			if whole {
				want = append(want, fmt.Sprintf("%d %d %d", first, n, size))
			}
			pos += size
		}
		err := decodeLines(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, membersOf(set), func(member int, line int64, text []byte) error {
			got = append(got, fmt.Sprintf("%d %d %d", member, line, len(text)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("members %v: %d lines, want %d", membersOf(set), len(got), len(want))
		}
	}
}

func TestEventsAndUnparsed(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Gzip, 6)
	raw := squidLog(20000)
	broken := append([]byte("not a log line\n"), raw...)
	ix := mustIndex(t, mustEncode(t, e, broken, k), k)
	if ix.Format != string(logfmt.Squid) || ix.Unparsed != 1 || fmt.Sprint(membersOf(ix.unparsed)) != "[0]" {
		t.Errorf("format %s, %d unparsed in %v", ix.Format, ix.Unparsed, membersOf(ix.unparsed))
	}
	if want := time.Unix(1735689600, 0); !ix.FirstEvent.Equal(want) {
		t.Errorf("first event %v, want %v", ix.FirstEvent, want)
	}
	if want := time.Unix(1735689600+1999, 999e6); !ix.LastEvent.Equal(want) {
		t.Errorf("last event %v, want %v", ix.LastEvent, want)
	}
	text := bytes.Repeat([]byte("some text\n"), 200000)
	ix = mustIndex(t, mustEncode(t, e, text, k), k)
	if ix.Format != string(logfmt.Text) || ix.Unparsed != 200000 || fmt.Sprint(membersOf(ix.unparsed)) != "[0 1]" || !ix.FirstEvent.IsZero() {
		t.Errorf("format %s, %d unparsed in %v, first event %v", ix.Format, ix.Unparsed, membersOf(ix.unparsed), ix.FirstEvent)
	}
}

// The largest segment uses all 64 members.
func TestLargestSegment(t *testing.T) {
	k := newTestKey(t)
	raw := bytes.Repeat([]byte("0123456789abcde\n"), MaxRaw/16)
	copy(raw[MaxRaw-200:], "\n10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\n")
	e := newTestEncoder(t, vault.Zstd, 1)
	enc := mustEncode(t, e, raw, k)
	ix := mustIndex(t, enc, k)
	if len(ix.Members) != 64 || len(membersOf(ix.unparsed)) != 64 {
		t.Errorf("%d members, %d with unparsed lines", len(ix.Members), len(membersOf(ix.unparsed)))
	}
	if n, err := Decode(io.Discard, bytes.NewReader(enc.Segment), k.secret, enc.Codec); n != MaxRaw || err != nil {
		t.Errorf("decoded %d bytes: %v", n, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Gzip, 1)
	line := []byte("x\n")
	for name, c := range map[string]struct {
		raw  []byte
		meta Meta
	}{
		"nothing":    {nil, testMeta},
		"too much":   {make([]byte, MaxRaw+1), testMeta},
		"no source":  {line, Meta{}},
		"long name":  {line, Meta{Source: "p", Name: make([]byte, maxName+1)}},
		"negative":   {line, Meta{Source: "p", Gen: -1}},
		"too large":  {line, Meta{Source: "p", Offset: 1 << 53}},
		"bad source": {line, Meta{Source: "a b"}},
	} {
		if _, err := e.Encode(t.Context(), c.raw, c.meta, k.public); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	for _, o := range []Options{
		{Codec: vault.Gzip, Level: 6},
		{Codec: vault.Gzip, Level: 10, Random: rand.Reader},
		{Codec: vault.Gzip, Level: -1, Random: rand.Reader},
		{Codec: vault.Zstd, Level: 0, Random: rand.Reader},
		{Codec: "br", Level: 1, Random: rand.Reader},
	} {
		if _, err := NewEncoder(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// After a cancelled or failed call the encoder has all its buffers and works.
func TestEncoderSurvivesFailures(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Gzip, 1)
	raw := squidLog(60000)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if _, err := e.Encode(cancelled, raw, testMeta, k.public); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
	}
	for range 10 {
		e.options.Random = io.MultiReader(io.LimitReader(rand.Reader, 40)) // enough for the line secret, not for a session key
		if _, err := e.Encode(t.Context(), raw, testMeta, k.public); err == nil {
			t.Fatal("encoded without randomness")
		}
	}
	e.options.Random = rand.Reader
	if len(e.free) != cap(e.free) {
		t.Fatalf("%d of %d buffers came back", len(e.free), cap(e.free))
	}
	enc := mustEncode(t, e, raw, k)
	if n, err := Decode(io.Discard, bytes.NewReader(enc.Segment), k.secret, enc.Codec); err != nil || n != int64(len(raw)) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Two encodings of the same text differ, and so do their line secrets.
func TestEncodingsAreFresh(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Gzip, 1)
	raw := squidLog(100)
	a := mustEncode(t, e, raw, k)
	first, object, root := mustIndex(t, a, k).Secret, a.Object, a.Root
	b := mustEncode(t, e, raw, k)
	if b.Object == object || b.Root == root || mustIndex(t, b, k).Secret == first {
		t.Error("a second encoding repeats something of the first")
	}
}

// A line costs no allocation: what a segment allocates does not grow with its lines.
func TestAllocationsDoNotGrowWithLines(t *testing.T) {
	k := newTestKey(t)
	e := newTestEncoder(t, vault.Gzip, 1)
	allocations := func(raw []byte) float64 {
		return testing.AllocsPerRun(2, func() { mustEncode(t, e, raw, k) })
	}
	few, many := allocations(squidLog(500)), allocations(squidLog(8000))
	if raceEnabled {
		many -= 7500 // the hash's AppendBinary allocates in such a build
	}
	if many > few+200 {
		t.Errorf("500 lines: %v allocations, 8000 lines: %v", few, many)
	}
}

func BenchmarkEncode(b *testing.B) {
	raw := squidLog(150000)
	for _, codec := range []vault.Codec{vault.Gzip, vault.Zstd} {
		b.Run(string(codec), func(b *testing.B) {
			k := newTestKey(b)
			e, err := NewEncoder(Options{Codec: codec, Level: defaultLevel(codec), Random: rand.Reader})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				mustEncode(b, e, raw, k)
			}
		})
	}
}

// The workers' tables must be in order however the workers end: a worker that
// finds nothing left to do races with the end of the segment. Once about 1 in 60
// small segments had an index that could not be parsed.
func TestSmallSegmentsHaveGoodIndexes(t *testing.T) {
	k := newTestKey(t)
	raw := squidLog(40)
	want := wantTokens(logfmt.Squid, raw)
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for _, workers := range []int{1, 2, 3} {
		e, err := NewEncoder(Options{Codec: vault.Gzip, Level: 1, Workers: workers, Random: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		for round := range rounds {
			if got := gotTokens(mustIndex(t, mustEncode(t, e, raw, k), k)); !slices.Equal(got, want) {
				t.Fatalf("%d workers, round %d: %d tokens, want %d", workers, round, len(got), len(want))
			}
		}
	}
}

// TestRecycle says that an object that was not given back stays as it is, that
// one that was given back may be written over, and that one large spare is kept.
func TestRecycle(t *testing.T) {
	k, e := newTestKey(t), newTestEncoder(t, vault.Gzip, 0)
	kept := mustEncode(t, e, squidLog(2000), k)
	given := mustEncode(t, e, squidLog(1000), k)
	e.Recycle(given)
	for range 3 {
		e.Recycle(mustEncode(t, e, squidLog(1500), k))
	}
	if got := vault.HashOf(kept.Segment); got != kept.Object {
		t.Errorf("an object that was not given back has become %s, expected %s", got, kept.Object)
	}
	if vault.HashOf(given.Segment[:cap(given.Segment)][:len(given.Segment)]) == given.Object {
		t.Error("the room of a given object was not used again")
	}
	large := &Encoded{Segment: make([]byte, 0, maxSpare+1), objects: &objects{}}
	before := len(e.spare)
	if e.Recycle(large); before == 0 || len(e.spare) != before {
		t.Errorf("%d spare objects, then %d: expected a large one to be dropped", before, len(e.spare))
	}
	e.Rest()
	if len(e.spare) != 0 {
		t.Errorf("%d spare objects after a rest", len(e.spare))
	}
	checkRoundTrip(t, e, squidLog(500), k)
}

// TestBegin says that every worker of every segment announces itself first.
func TestBegin(t *testing.T) {
	k, began := newTestKey(t), make(chan struct{}, 100)
	e, err := NewEncoder(Options{Codec: vault.Gzip, Level: 1, Workers: 3, Random: rand.Reader, Begin: func() { began <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	for want := 3; want <= 6; want += 3 {
		if mustEncode(t, e, squidLog(100), k); len(began) != want {
			t.Errorf("%d workers announced themselves, expected %d", len(began), want)
		}
	}
}
