package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"logvault/vault"
)

// plainIndex is the text of an index without tokens, made by hand: two members,
// "x\n" again and again.
func plainIndex(t testing.TB, change func(*Index)) []byte {
	t.Helper()
	const raw = MemberSize + 100
	ix := &Index{
		Meta: Meta{Name: []byte("name"), Source: "proxy-1", Stream: vault.StreamID{1}, Gen: 2, Offset: 3}, Codec: vault.Gzip, Format: "text",
		Raw: raw, Lines: raw / 2, Unparsed: raw / 2, unparsed: 3,
		Members: []Member{{Size: 1000, Lines: MemberSize / 2}, {Size: 50, Lines: 50}},
	}
	if change != nil {
		change(ix)
	}
	return joinIndex(t, appendHeader(nil, ix), []byte{0, 0, 0, 0})
}

// TestEveryFieldOfTheIndex writes each number of the header at and past its
// limits. at is its place, as the comment in index.go has it.
func TestEveryFieldOfTheIndex(t *testing.T) {
	text := plainIndex(t, nil)
	if _, err := ParseIndex(text); err != nil {
		t.Fatal(err)
	}
	const top, lines = math.MaxUint64, (MemberSize + 100) / 2
	members := indexFixed + 1 + len("proxy-1") + 2 + len("name")
	dict := members + 2*memberEntry
	u := func(n ...uint64) []uint64 { return n }
	for _, f := range []struct {
		name      string
		at, size  int
		good, bad []uint64
	}{
		{"version", 8, 4, u(1), u(0, 2, 1<<31, 1<<32-1)},
		{"codec", 12, 1, u(1, 2), u(0, 3, 255)},
		{"format", 13, 1, u(0, 1, 2, 3), u(4, 255)},
		{"members", 14, 2, u(2), u(0, 1, 3, 64, 65, 65535)},
		{"raw", 16, 8, u(MemberSize+1+99, 2*MemberSize), u(0, 1, MemberSize, 2*MemberSize+1, MaxRaw, MaxRaw+1, 1<<63, top)},
		{"lines", 24, 8, u(lines, lines+1), u(0, 1, lines-1, lines+2, MaxRaw+1, 1<<63, top)},
		{"unparsed", 32, 8, u(1, lines), u(0, lines+1, MaxRaw+1, 1<<63, top)},
		{"members unparsed", 40, 8, u(1, 2, 3), u(0, 4, 7, 1<<63, top)},
		{"first event", 48, 8, u(top), u(0, 1, 1<<63, top-1, 253402300800000)},
		{"last event", 56, 8, u(top), u(0, 1, 1<<63, top-1, 253402300800000)},
		{"secret", 64, 8, u(0, top), nil},
		{"stream", 96, 8, u(0, top), nil},
		{"generation", 112, 8, u(0, 1, maxNumber), u(maxNumber+1, 1<<63, top)},
		{"offset", 120, 8, u(0, 1, maxNumber), u(maxNumber+1, 1<<63, top)},
		{"length of the source", 128, 1, u(7), u(0, 6, 8, 63, 64, 255)},
		{"length of the name", members - 6, 2, u(4), u(0, 3, 5, 4096, 4097, 65535)},
		{"size of member 0", members, 4, u(1, 1000, MemberSize+4096), u(0, MemberSize+4097, 1<<31, 1<<32-1)},
		{"LFs of member 0", members + 4, 4, u(MemberSize/2, MemberSize/2-1), u(0, MemberSize/2+1, MemberSize/2-2, MemberSize+1, 1<<32-1)},
		{"lead of member 0", members + 8, 4, u(0), u(1, MemberSize, 1<<32-1)},
		{"size of member 1", members + memberEntry, 4, u(1, 50), u(0, MemberSize+4097, 1<<32-1)},
		{"LFs of member 1", members + memberEntry + 4, 4, u(50, 49), u(0, 48, 51, 101, 1<<32-1)},
		{"lead of member 1", members + memberEntry + 8, 4, u(0, 1, 100), u(101, MemberSize, 1<<32-1)},
		{"size of the dictionary", dict, 4, u(4), u(0, 3, 5, 1<<32-1)},
		{"size of the frame", dict + 4, 4, nil, u(0, 1, 1<<31, 1<<32-1)},
	} {
		for _, value := range append(f.good, f.bad...) {
			changed := bytes.Clone(text)
			full := binary.BigEndian.AppendUint64(nil, value)
			copy(changed[f.at:f.at+f.size], full[8-f.size:])
			_, err := ParseIndex(changed)
			want := bytes.Contains(fmt.Append(nil, f.good, "|"), fmt.Append(nil, value)) && !contains(f.bad, value)
			if (err == nil) != want {
				t.Errorf("%s = %d: %v, want accepted: %v", f.name, value, err, want)
			}
			if err != nil && errors.Is(err, ErrNewer) != (f.name == "version" && value > 1) {
				t.Errorf("%s = %d: %v is of the wrong kind", f.name, value, err)
			}
			if err != nil && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s = %d: %v is of neither kind", f.name, value, err)
			}
		}
	}
}

func contains(list []uint64, n uint64) bool {
	for _, m := range list {
		if m == n {
			return true
		}
	}
	return false
}

// TestFieldsThatMustFit: numbers that are good alone and wrong together.
func TestFieldsThatMustFit(t *testing.T) {
	events := func(first, last int64) func(*Index) {
		return func(ix *Index) {
			ix.FirstEvent, ix.LastEvent = unixMilli(first), unixMilli(last)
		}
	}
	for name, c := range map[string]struct {
		change func(*Index)
		ok     bool
	}{
		"events":                    {events(1000, 2000), true},
		"one event":                 {events(1000, 1000), true},
		"events of year 9999":       {events(1000, 253402300799999), true},
		"events turned round":       {events(2000, 1000), false},
		"first event only":          {func(ix *Index) { ix.FirstEvent = unixMilli(1000) }, false},
		"last event only":           {func(ix *Index) { ix.LastEvent = unixMilli(1000) }, false},
		"nothing unparsed":          {func(ix *Index) { ix.Unparsed, ix.unparsed = 0, 0 }, true},
		"unparsed in no member":     {func(ix *Index) { ix.unparsed = 0 }, false},
		"unparsed members, no line": {func(ix *Index) { ix.Unparsed = 0 }, false},
		"an unfinished last line":   {func(ix *Index) { ix.Lines++ }, true},
		"two unfinished lines":      {func(ix *Index) { ix.Lines += 2 }, false},
		"one line over both": {func(ix *Index) {
			ix.Members[0].Lines, ix.Members[1].Lines, ix.Members[1].Lead, ix.Lines, ix.Unparsed = 0, 0, 100, 1, 1
		}, true},
		"its lead is not whole": {func(ix *Index) {
			ix.Members[0].Lines, ix.Members[1].Lines, ix.Members[1].Lead, ix.Lines, ix.Unparsed = 0, 0, 99, 1, 1
		}, false},
		"a member too few":      {func(ix *Index) { ix.Members = ix.Members[:1]; ix.unparsed = 1 }, false},
		"a member too many":     {func(ix *Index) { ix.Members = append(ix.Members, Member{Size: 1}) }, false},
		"an empty name":         {func(ix *Index) { ix.Name = nil }, true},
		"the longest name":      {func(ix *Index) { ix.Name = make([]byte, maxName) }, true},
		"a name too long":       {func(ix *Index) { ix.Name = make([]byte, maxName+1) }, false},
		"the longest source":    {func(ix *Index) { ix.Source = vault.Source(strings.Repeat("a", 63)) }, true},
		"a source too long":     {func(ix *Index) { ix.Source = vault.Source(strings.Repeat("a", 64)) }, false},
		"no source":             {func(ix *Index) { ix.Source = "" }, false},
		"a source with a slash": {func(ix *Index) { ix.Source = "a/b" }, false},
		"zstd":                  {func(ix *Index) { ix.Codec = vault.Zstd }, true},
	} {
		if _, err := ParseIndex(plainIndex(t, c.change)); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want accepted: %v", name, err, c.ok)
		}
	}
}

// allocated returns how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestHostileLengths: what an index or a segment announces is no reason to
// allocate it. 24 MiB is what two zstd decoders and their windows may need.
func TestHostileLengths(t *testing.T) {
	k := newTestKey(t)
	good := plainIndex(t, nil)
	header := good[:indexFixed+1+len("proxy-1")+2+len("name")+2*memberEntry]
	varint := func(n uint64) string { return string(binary.AppendUvarint(nil, n)) }
	frame := func(announced uint64) []byte { // a zstd frame with a content size and an empty block
		b := binary.LittleEndian.AppendUint64([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, announced)
		return append(b, 1, 0, 0)
	}
	raw := func(frame []byte, size uint32) []byte {
		b := binary.BigEndian.AppendUint32(bytes.Clone(header), size)
		return append(binary.BigEndian.AppendUint32(b, uint32(len(frame))), frame...)
	}
	for name, text := range map[string][]byte{
		"dictionary of 128 MiB announced":  raw(joinIndex(t, nil, make([]byte, 100))[8:], 2*MemberSize),
		"frame with content of 2^63 bytes": raw(frame(1<<63), 4096),
		"frame with content of 64 MiB":     raw(frame(64<<20), 4096),
		"2^60 tokens":                      joinIndex(t, header, []byte(varint(1<<60)+"\x00\x00\x00"+strings.Repeat("\x00", 100))),
		"2^32 tokens":                      joinIndex(t, header, []byte(varint(1<<32)+"\x00\x00\x00"+strings.Repeat("\x00", 100))),
		"tokens that grow from nothing":    joinIndex(t, header, growingTokens(6000)),
		"a million tokens of zeros":        joinIndex(t, header, append([]byte(varint(400_000)+"\x00\x00\x00"), make([]byte, 1_200_000)...)),
	} {
		used := allocated(func() {
			if _, err := ParseIndex(text); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v, want ErrCorrupt", name, err)
			}
		})
		if used > 24<<20 {
			t.Errorf("%s: %d bytes allocated for %d of input", name, used, len(text))
		}
	}
	for name, c := range map[string]struct {
		text  []byte
		codec vault.Codec
	}{
		"zstd content of 2^62 bytes": {frame(1 << 62), vault.Zstd},
		"zstd content of 1 GiB":      {frame(1 << 30), vault.Zstd},
		"gzip name without end":      {append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte("n"), 100_000)...), vault.Gzip},
	} {
		message := seal(t, k, c.text)
		used := allocated(func() {
			if _, err := Decode(io.Discard, bytes.NewReader(message), k.secret, c.codec); err == nil {
				t.Errorf("%s: decoded", name)
			}
		})
		if used > 24<<20 {
			t.Errorf("%s: %d bytes allocated for %d of input", name, used, len(message))
		}
	}
}

// growingTokens is a dictionary of n tokens that share all of the one before and
// add a byte, up to the longest: kilobytes that stand for megabytes.
func growingTokens(n int) []byte {
	counts := binary.AppendUvarint(nil, uint64(n))
	var lengths, text, sets []byte
	last := 0
	for i := range n {
		shared := last
		if last == maxToken { // the next one differs early
			shared = 0
		}
		lengths = binary.AppendUvarint(binary.AppendUvarint(lengths, uint64(shared)), 1)
		text = append(text, byte(1+i/maxToken))
		sets = append(sets, 1)
		last = shared + 1
	}
	return bytes.Join([][]byte{counts, {0, 0, 0}, lengths, text, sets}, nil)
}

// TestHostileLeads: an index of the right key may lie about where lines begin.
// The lines then are wrong, and nothing else.
func TestHostileLeads(t *testing.T) {
	k := newTestKey(t)
	raw := bytes.Repeat([]byte("0123456789abcde\n"), 3*MemberSize/16)
	enc := mustEncode(t, newTestEncoder(t, vault.Gzip, 1), raw, k)
	for _, lead := range []int64{0, 1, 16, 17, MemberSize - 1, MemberSize} {
		for _, members := range [][]int{{0, 1, 2}, {1}, {0, 2}, {2}} {
			ix := mustIndex(t, enc, k)
			ix.Members[1].Lead, ix.Members[2].Lead = lead, lead
			var size int
			err := decodeLines(bytes.NewReader(enc.Segment), k.secret, enc.Codec, ix, members, func(_ int, _ int64, text []byte) error {
				if len(text) == 0 {
					t.Error("an empty line")
				}
				size += len(text)
				return nil
			})
			if err != nil || size > len(members)*MemberSize {
				t.Errorf("lead %d, members %v: %d bytes, %v", lead, members, size, err)
			}
		}
	}
}
