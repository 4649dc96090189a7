package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"time"

	"logvault/extract/logfmt"
	"logvault/seal/pgp"
	"logvault/vault"

	"github.com/klauspost/compress/zstd"
)

// The text of a sealed index, version 1. Numbers are big-endian.
//
//	  0    8  magic "LVINDEX\n"
//	  8    4  version, 1
//	 12    1  codec: 1 gz, 2 zst
//	 13    1  format: 0 text, 1 squid, 2 common, 3 combined
//	 14    2  number of members n, 1 to 64
//	 16    8  raw bytes, 1 to 64 MiB
//	 24    8  lines
//	 32    8  unparsed lines
//	 40    8  set of members with unparsed lines: bit i for member i
//	 48    8  first event time, ms since 1970 UTC; -1 none
//	 56    8  last event time, likewise
//	 64   32  line secret
//	 96   16  stream id
//	112    8  generation
//	120    8  offset
//	128    1  length of the source's name, then the name
//	       2  length of the stream's name, then the name
//	   12 n   per member: compressed size, LFs, lead, 4 bytes each
//	       4  length of the dictionary
//	       4  length of its zstd frame, then the frame, which ends the text
//
// The dictionary is a row of unsigned LEB128 numbers ("varints") and bytes:
// first four counts, of the tokens of the kinds client, port, user and host;
// then, for all tokens in that order, sorted by bytes within a kind, how many
// bytes a token shares with the one before it (0 for the first of a kind) and
// how many follow; then those following bytes of all tokens; then for each
// token the set of members that hold it, as a varint with bit i for member i.
//
// A decoder accepts one encoding only: shortest varints, ascending tokens, the
// longest shared prefix, no bits beyond n. What it cannot pin down is the
// spelling of the zstd frame.
const (
	indexMagic   = "LVINDEX\n"
	indexVersion = 1
	indexFixed   = 128 // bytes before the source's name
	memberEntry  = 12
)

var (
	codecCodes  = []vault.Codec{1: vault.Gzip, 2: vault.Zstd}
	formatCodes = []logfmt.Format{0: logfmt.Text, 1: logfmt.Squid, 2: logfmt.Common, 3: logfmt.Combined}
)

// maxDictionary bounds the dictionary of a text of raw bytes. Tokens are parts
// of lines that hold at least 30 other bytes, and need up to 14 bytes beside
// their own, at most three per line.
func maxDictionary(raw int64) int64 { return 2*raw + 4096 }

// maxIndex bounds the whole text of an index: an incompressible dictionary
// grows in zstd by less than a part in a thousand.
const maxIndex = 2*MaxRaw + MaxRaw/256 + 64<<10

// dictionary holds the tokens of one kind, sorted.
type dictionary struct {
	text    []byte   // all tokens, one after the other
	ends    []uint32 // where each ends in text
	members []uint64 // which members hold each
}

func (d *dictionary) token(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = d.ends[i-1]
	}
	return d.text[start:d.ends[i]]
}

// indexWriter builds the text of an index. Its buffers are kept. Not for
// concurrent use.
type indexWriter struct {
	zstd    *zstd.Encoder
	counts  [len(logfmt.Kinds)]uint64
	last    []byte // the token before
	lengths []byte // the three parts of the dictionary behind the counts
	bytes   []byte
	sets    []byte
	text    []byte
}

func newIndexWriter() (*indexWriter, error) {
	// Window 1 MiB: dictionaries are smaller, and a reader needs no more memory.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(MemberSize))
	if err != nil {
		return nil, err
	}
	return &indexWriter{zstd: z}, nil
}

func (w *indexWriter) begin() {
	clear(w.counts[:])
	w.last, w.lengths, w.bytes, w.sets = w.last[:0], w.lengths[:0], w.bytes[:0], w.sets[:0]
}

// addToken takes the tokens in the order of the dictionary.
func (w *indexWriter) addToken(k logfmt.TokenKind, token []byte, members uint64) {
	kind := k - logfmt.Client
	if w.counts[kind] == 0 {
		w.last = w.last[:0]
	}
	w.counts[kind]++
	shared := sharedPrefix(w.last, token)
	w.lengths = binary.AppendUvarint(w.lengths, uint64(shared))
	w.lengths = binary.AppendUvarint(w.lengths, uint64(len(token)-shared))
	w.bytes = append(w.bytes, token[shared:]...)
	w.sets = binary.AppendUvarint(w.sets, members)
	w.last = append(w.last[:0], token...)
}

func sharedPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// finish returns the text of ix with the tokens added since begin, valid until
// the next call.
func (w *indexWriter) finish(ix *Index) []byte {
	var dict []byte
	for _, n := range w.counts {
		dict = binary.AppendUvarint(dict, n)
	}
	dict = append(append(append(dict, w.lengths...), w.bytes...), w.sets...)
	b := appendHeader(w.text[:0], ix)
	b = binary.BigEndian.AppendUint32(b, uint32(len(dict)))
	at := len(b)
	b = w.zstd.EncodeAll(dict, append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	w.text = b
	return b
}

// appendHeader appends everything before the dictionary.
func appendHeader(b []byte, ix *Index) []byte {
	be := binary.BigEndian
	b = append(b, indexMagic...)
	b = be.AppendUint32(b, indexVersion)
	b = append(b, codeOf(codecCodes, ix.Codec), codeOf(formatCodes, logfmt.Format(ix.Format)))
	b = be.AppendUint16(b, uint16(len(ix.Members)))
	for _, n := range []uint64{uint64(ix.Raw), uint64(ix.Lines), uint64(ix.Unparsed), ix.unparsed, eventMilli(ix.FirstEvent), eventMilli(ix.LastEvent)} {
		b = be.AppendUint64(b, n)
	}
	b = append(b, ix.Secret[:]...)
	b = append(b, ix.Stream[:]...)
	b = be.AppendUint64(b, uint64(ix.Gen))
	b = be.AppendUint64(b, uint64(ix.Offset))
	b = append(append(b, byte(len(ix.Source))), ix.Source...)
	b = append(be.AppendUint16(b, uint16(len(ix.Name))), ix.Name...)
	for _, m := range ix.Members {
		b = be.AppendUint32(b, uint32(m.Size))
		b = be.AppendUint32(b, uint32(m.Lines))
		b = be.AppendUint32(b, uint32(m.Lead))
	}
	return b
}

func eventMilli(t time.Time) uint64 {
	ms := int64(-1)
	if !t.IsZero() {
		ms = t.UnixMilli()
	}
	return uint64(ms)
}

// codeOf returns the place of a value in its table. The encoder only has values
// of the tables.
func codeOf[T comparable](table []T, value T) byte {
	for i, v := range table {
		if v == value {
			return byte(i)
		}
	}
	panic(fmt.Sprintf("segment: %v has no code in the index format", value))
}

// DecodeIndex opens and parses a sealed index. The errors wrap ErrNewer,
// ErrCorrupt or those of the pgp package. It is parsed only once its integrity
// has been checked.
func DecodeIndex(r io.Reader, s *pgp.Secret) (*Index, error) {
	sealed, err := s.Decrypt(r)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(sealed, maxIndex+1))
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	ix, err := ParseIndex(text)
	clear(text) // it holds the line secret
	return ix, err
}

// ParseIndex parses the text of an index, as gpg prints it. It keeps no
// reference to text.
func ParseIndex(text []byte) (*Index, error) {
	if len(text) > maxIndex {
		return nil, fmt.Errorf("index: %w", corrupt("more than %d bytes", maxIndex))
	}
	if len(text) < len(indexMagic)+4 || string(text[:len(indexMagic)]) != indexMagic {
		return nil, fmt.Errorf("index: %w", corrupt("does not start with %q", indexMagic))
	}
	if v := binary.BigEndian.Uint32(text[len(indexMagic):]); v > indexVersion {
		return nil, fmt.Errorf("index: version %d, expected %d: %w", v, indexVersion, ErrNewer)
	} else if v < indexVersion {
		return nil, fmt.Errorf("index: %w", corrupt("version %d", v))
	}
	p := &parser{data: text[len(indexMagic)+4:]}
	ix := p.header()
	p.members(ix)
	dict := p.dictionaryText(ix)
	if p.err == nil {
		d := &parser{data: dict}
		d.dictionaries(ix)
		p.err = d.err
	}
	if p.err != nil {
		return nil, fmt.Errorf("index: %w", p.err)
	}
	return ix, nil
}

// parser takes an index apart. Its first error sticks; reads after it give zeros.
type parser struct {
	data []byte
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = corrupt(format, args...)
	}
}

// bytes returns the next n bytes of the data.
func (p *parser) bytes(n int) []byte {
	if p.err != nil {
		return nil
	}
	if n < 0 || n > len(p.data) {
		p.fail("%d bytes missing", n-len(p.data))
		return nil
	}
	b := p.data[:n:n]
	p.data = p.data[n:]
	return b
}

// number reads n bytes, big-endian.
func (p *parser) number(n int) (v uint64) {
	for _, b := range p.bytes(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

// within reads an n-byte number and checks its range.
func (p *parser) within(what string, n int, low, high int64) int64 {
	v := int64(p.number(n))
	if p.err == nil && (v < low || v > high) {
		p.fail("%s %d, expected %d to %d", what, v, low, high)
	}
	return v
}

// varint reads a number in its shortest form.
func (p *parser) varint() uint64 {
	v, n := binary.Uvarint(p.data)
	if p.err == nil && (n <= 0 || n != (max(bits.Len64(v), 1)+6)/7) {
		p.fail("varint that is cut, too long or too large")
	}
	if p.err != nil {
		return 0
	}
	p.data = p.data[n:]
	return v
}

// header parses what comes before the members and makes room for them.
func (p *parser) header() *Index {
	ix := new(Index)
	codec := p.within("codec", 1, 1, int64(len(codecCodes)-1))
	format := p.within("format", 1, 0, int64(len(formatCodes)-1))
	n := p.within("number of members", 2, 1, maxMembers)
	ix.Raw = p.within("raw size", 8, 1, MaxRaw)
	ix.Lines = p.within("number of lines", 8, 1, MaxRaw)
	ix.Unparsed = p.within("unparsed lines", 8, 0, MaxRaw)
	ix.unparsed = p.number(8)
	const latest = 253402300799999 // the end of the year 9999
	first := p.within("first event", 8, -1, latest)
	last := p.within("last event", 8, -1, latest)
	copy(ix.Secret[:], p.bytes(len(ix.Secret)))
	copy(ix.Stream[:], p.bytes(len(ix.Stream)))
	ix.Gen = p.within("generation", 8, 0, maxNumber)
	ix.Meta.Offset = p.within("offset", 8, 0, maxNumber)
	ix.Source = vault.Source(p.bytes(int(p.number(1))))
	ix.Name = bytes.Clone(p.bytes(int(p.number(2))))
	if p.err != nil {
		return ix
	}
	if err := ix.Meta.validate(); err != nil {
		p.fail("%v", err)
	}
	if int(n) != memberCount(ix.Raw) {
		p.fail("%d members for %d bytes, expected %d", n, ix.Raw, memberCount(ix.Raw))
	}
	if (first < 0) != (last < 0) || first > last {
		p.fail("events from %d to %d", first, last)
	}
	if ix.Unparsed > ix.Lines || (ix.Unparsed == 0) != (ix.unparsed == 0) || bits.Len64(ix.unparsed) > int(n) {
		p.fail("%d unparsed lines of %d, in members %b", ix.Unparsed, ix.Lines, ix.unparsed)
	}
	if p.err != nil {
		return ix
	}
	ix.Codec, ix.Format = codecCodes[codec], string(formatCodes[format])
	if first >= 0 {
		ix.FirstEvent, ix.LastEvent = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
	}
	ix.Members = make([]Member, n)
	return ix
}

// members parses the members and checks them against the totals.
func (p *parser) members(ix *Index) {
	var offset, rawOffset, lines int64
	for i := range ix.Members {
		m := &ix.Members[i]
		m.RawOffset, m.RawSize = rawOffset, min(MemberSize, ix.Raw-rawOffset)
		m.Offset, m.FirstLine = offset, lines
		// Stored members are the largest: 5 bytes per 64 KiB and the gzip frame.
		m.Size = p.within("member size", 4, 1, MemberSize+4096)
		m.Lines = p.within("LFs of a member", 4, 0, m.RawSize)
		m.Lead = p.within("lead of a member", 4, 0, m.RawSize)
		if i == 0 && m.Lead != 0 || m.Lines == 0 && m.Lead != 0 && m.Lead != m.RawSize {
			p.fail("lead %d of member %d", m.Lead, i)
		}
		offset, rawOffset, lines = offset+m.Size, rawOffset+m.RawSize, lines+m.Lines
	}
	if unfinished := ix.Lines - lines; p.err == nil && unfinished != 0 && unfinished != 1 {
		p.fail("%d lines with %d LFs", ix.Lines, lines)
	}
}

// dictionaryText decompresses the dictionary. Memory follows what is really
// there, not what a length announces.
func (p *parser) dictionaryText(ix *Index) []byte {
	size := p.within("dictionary size", 4, int64(len(logfmt.Kinds)), maxDictionary(ix.Raw))
	frame := p.bytes(int(p.number(4)))
	if p.err == nil && len(p.data) > 0 {
		p.fail("%d bytes after the dictionary", len(p.data))
	}
	if p.err != nil {
		return nil
	}
	text, err := decompressor(bytes.NewReader(frame), vault.Zstd, MemberSize)
	if err != nil {
		p.fail("dictionary: %v", err)
		return nil
	}
	defer text.Close() // frees memory; the stream's errors come from Read
	dict, err := io.ReadAll(io.LimitReader(text, size+1))
	if err != nil {
		p.fail("dictionary: %v", err)
	} else if int64(len(dict)) != size {
		p.fail("dictionary of another size than %d", size)
	}
	return dict
}

// dictionaries parses the text of the dictionary.
func (p *parser) dictionaries(ix *Index) {
	var counts [len(logfmt.Kinds)]int
	var total int
	for i := range counts {
		n := p.varint()
		// A token takes at least two lengths and a set.
		if n > uint64(len(p.data)/3) {
			p.fail("%d tokens in %d bytes", n, len(p.data))
			return
		}
		counts[i] = int(n)
		total += int(n)
	}
	if total > len(p.data)/3 {
		p.fail("%d tokens in %d bytes", total, len(p.data))
		return
	}
	lengths := make([]struct{ shared, rest int }, total)
	var following int
	for i := range lengths {
		shared, rest := p.varint(), p.varint()
		if shared+rest > maxToken || shared > maxToken || rest == 0 {
			p.fail("token of %d+%d bytes", shared, rest)
			return
		}
		lengths[i].shared, lengths[i].rest = int(shared), int(rest)
		following += int(rest)
	}
	suffixes := &parser{data: p.bytes(following), err: p.err}
	var expanded int64 // tokens are disjoint parts of the text, so they cannot be longer than it
	for kind, n := range counts {
		d := &ix.tokens[kind]
		var last []byte
		for _, l := range lengths[:n] {
			if expanded += int64(l.shared + l.rest); expanded > ix.Raw {
				p.fail("tokens longer than the text")
				return
			}
			if last = p.addToken(d, last, l.shared, suffixes.bytes(l.rest)); p.err != nil {
				return
			}
		}
		lengths = lengths[n:]
	}
	p.sets(ix)
}

// addToken appends the next token to d and returns it.
func (p *parser) addToken(d *dictionary, last []byte, shared int, rest []byte) []byte {
	if shared > len(last) || len(rest) == 0 {
		p.fail("token shares %d bytes with one of %d", shared, len(last))
		return nil
	}
	// Ascending, with the longest shared prefix: the next byte is larger, or
	// the token before ends here.
	if shared < len(last) && rest[0] <= last[shared] {
		p.fail("tokens not ascending")
		return nil
	}
	start := len(d.text)
	d.text = append(append(d.text, last[:shared]...), rest...)
	d.ends = append(d.ends, uint32(len(d.text)))
	return d.text[start:]
}

// sets parses the member sets, which end the dictionary.
func (p *parser) sets(ix *Index) {
	for kind := range ix.tokens {
		d := &ix.tokens[kind]
		for range d.ends {
			set := p.varint()
			if p.err == nil && (set == 0 || bits.Len64(set) > len(ix.Members)) {
				p.fail("token in members %b of %d", set, len(ix.Members))
			}
			if p.err != nil {
				return
			}
			d.members = append(d.members, set)
		}
	}
	if p.err == nil && len(p.data) > 0 {
		p.fail("%d bytes after the dictionary's sets", len(p.data))
	}
}
