package extract

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"logvault/seal/segment"
	"logvault/vault"
)

// Version is the version of a bundle of one vault, docs/FORMAT-bundle.md.
const Version = 1

// bundleFormat is the format that a manifest names first.
const bundleFormat = "logvault-bundle"

// maxRecord bounds one line of the manifest: all disclosed lines of one segment
// with their salts, about 30 bytes each.
const maxRecord = 256 << 20

// The manifest is one JSON object, laid out so that it can be written and read
// segment by segment: the first line holds format, version and head, then comes
// one line per segment, then one line with the tail. Each line's bytes are what
// encoding/json makes of the structures below, so a manifest has one spelling.
//
//	{"format":"logvault-bundle","version":1,"head":{...},"searched":[
//	{"entry":7,...},
//	{"entry":9,...}
//	],"tail":{...}}
const (
	manifestMagic  = `{"format":"` + bundleFormat + `","version":`
	manifestHead   = `,"head":`
	manifestSearch = `,"searched":[`
	manifestTail   = `],"tail":`
	manifestEnd    = `}`
)

// head is what was asked.
type head struct {
	Origin        string      `json:"origin"`
	Scope         scopeRecord `json:"scope"`
	MarginSeconds int64       `json:"margin_seconds"`
}

// scopeRecord is a Scope with its window in UTC.
type scopeRecord struct {
	Since  string   `json:"since"`
	Until  string   `json:"until"`
	Zone   string   `json:"zone"`
	Client []string `json:"client"`
	Port   []int    `json:"port"`
	User   []string `json:"user"`
	Host   []string `json:"host"`
	Source []string `json:"source"`
	Regexp []string `json:"regexp"`
}

// segmentRecord is one segment that could hold a line of the scope.
type segmentRecord struct {
	Entry  int64  `json:"entry"`
	Source string `json:"source"`
	Stream string `json:"stream"`
	Gen    int64  `json:"gen"`
	Offset int64  `json:"offset"`
	Object string `json:"object"`
	Lines  int64  `json:"lines"`
	// State is one of the states below.
	State string `json:"state"`
	// Format is the log format that its lines were read with.
	Format string `json:"format"`
	// Unparsed counts lines that are not of that format.
	Unparsed int64 `json:"unparsed"`
	// Undecided counts lines that a regular expression selects, and that are
	// kept back because they may have been received outside the window.
	Undecided int64       `json:"undecided"`
	Disclosed *disclosure `json:"disclosed,omitempty"`
}

// The states of a segment in a manifest.
const (
	stateIndex     = "index"     // its sealed index shows that no line fits
	stateText      = "text"      // its lines were read
	stateDestroyed = "destroyed" // key or object is gone, on or after its legal date
)

// disclosure says where the disclosed lines of a segment stand in the bundle
// and proves that they stood in the segment.
type disclosure struct {
	File string `json:"file"`
	At   int64  `json:"at"`   // byte offset in File
	Size int64  `json:"size"` // bytes
	// Lines holds the line numbers in the segment, from 0, ascending.
	Lines []int64 `json:"lines"`
	// Salts holds 16 bytes for each of Lines; Leaves and Nodes 32 bytes for
	// each hash, in the order of segment.LineProof. All base64.
	Salts  []byte `json:"salts"`
	Leaves []byte `json:"leaves"`
	Nodes  []byte `json:"nodes"`
}

// tail is the statement of completeness.
type tail struct {
	Lines     int64 `json:"lines"`
	Searched  int64 `json:"searched"`
	Destroyed int64 `json:"destroyed"`
	Unparsed  int64 `json:"unparsed"`
	Undecided int64 `json:"undecided"`
	// Gaps and Conflicts of the sources and the time searched.
	Gaps      []noteRecord `json:"gaps"`
	Conflicts []noteRecord `json:"conflicts"`
	// SilentSources are the sources of the scope without any candidate segment.
	SilentSources []string `json:"silent_sources"`
	// Unread are entries of the ledger that this release does not understand.
	Unread []int64      `json:"unread"`
	Files  []fileRecord `json:"files"`
}

// noteRecord repeats a gap or conflict entry.
type noteRecord struct {
	Entry  int64  `json:"entry"`
	Source string `json:"source"`
	Stream string `json:"stream"`
	Gen    int64  `json:"gen"`
	Offset int64  `json:"offset"`
	Span   int64  `json:"span"`
	Reason string `json:"reason"`
}

// fileRecord pins a payload file.
type fileRecord struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const saltSize = 16

// setProof stores a line proof.
func (d *disclosure) setProof(p *segment.LineProof) {
	for _, l := range p.Lines {
		d.Lines = append(d.Lines, l.Line)
		d.Salts = append(d.Salts, l.Salt...)
	}
	d.Leaves, d.Nodes = joinHashes(p.Leaves), joinHashes(p.Nodes)
}

// proof is the inverse of setProof.
func (d *disclosure) proof() (*segment.LineProof, error) {
	if len(d.Salts) != saltSize*len(d.Lines) {
		return nil, fmt.Errorf("%d bytes of salts, expected %d for each of %d lines", len(d.Salts), saltSize, len(d.Lines))
	}
	p := &segment.LineProof{Lines: make([]segment.LineSalt, len(d.Lines))}
	for i, line := range d.Lines {
		p.Lines[i] = segment.LineSalt{Line: line, Salt: d.Salts[i*saltSize : (i+1)*saltSize]}
	}
	var err error
	if p.Leaves, err = splitHashes(d.Leaves); err == nil {
		p.Nodes, err = splitHashes(d.Nodes)
	}
	return p, err
}

func joinHashes(list []vault.Hash) []byte {
	out := make([]byte, 0, len(list)*len(vault.Hash{}))
	for _, h := range list {
		out = append(out, h[:]...)
	}
	return out
}

func splitHashes(b []byte) ([]vault.Hash, error) {
	const size = len(vault.Hash{})
	if len(b)%size != 0 {
		return nil, fmt.Errorf("%d bytes of hashes, expected a multiple of %d", len(b), size)
	}
	list := make([]vault.Hash, len(b)/size)
	for i := range list {
		copy(list[i][:], b[i*size:])
	}
	return list, nil
}

// manifestWriter writes a manifest as it grows.
type manifestWriter struct {
	w     io.Writer
	count int64
	err   error // sticky
}

func newManifestWriter(w io.Writer, h head) *manifestWriter {
	m := &manifestWriter{w: w}
	m.text(manifestMagic + strconv.Itoa(Version) + manifestHead)
	m.json(h)
	m.text(manifestSearch)
	return m
}

func (m *manifestWriter) add(r *segmentRecord) error {
	if m.count++; m.count > 1 {
		m.text(",")
	}
	m.text("\n")
	m.json(r)
	return m.err
}

func (m *manifestWriter) finish(t tail) error {
	m.text("\n" + manifestTail)
	m.json(t)
	m.text(manifestEnd + "\n")
	return m.err
}

func (m *manifestWriter) text(s string) {
	if m.err == nil {
		_, m.err = io.WriteString(m.w, s)
	}
}

func (m *manifestWriter) json(v any) {
	data, err := encodeJSON(v)
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("a manifest record of %d bytes, expected at most %d: narrow the request", len(data), maxRecord)
	}
	if m.err == nil && err != nil {
		m.err = err
	}
	m.text(string(data))
}

// encodeJSON is json.Marshal without the escaping for HTML and without the LF.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeJSON accepts exactly what encodeJSON makes of a T.
func decodeJSON[T any](data []byte) (v T, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, err
	}
	again, err := encodeJSON(v)
	if err == nil && !bytes.Equal(again, data) {
		err = errors.New("not in canonical form")
	}
	return v, err
}

// readManifest reads a manifest: head once, then each segment, in order. It
// fails with vault.ErrNewer for an unknown version, and for any other deviation from
// what manifestWriter writes.
func readManifest(r io.Reader, onHead func(head) error, each func(*segmentRecord) error) (tail, error) {
	br := bufio.NewReader(r)
	first, err := readRecord(br, maxRecord)
	if err != nil {
		return tail{}, fmt.Errorf("manifest head: %w", err)
	}
	h, err := parseHead(first)
	if err != nil {
		return tail{}, err
	}
	if err := onHead(h); err != nil {
		return tail{}, err
	}
	more := false // whether a comma promised another segment
	for n := 0; ; n++ {
		line, err := readRecord(br, maxRecord)
		if err != nil {
			return tail{}, fmt.Errorf("manifest record %d: %w", n, err)
		}
		if rest, ok := bytes.CutPrefix(line, []byte(manifestTail)); ok && !more {
			return parseTail(rest, br)
		}
		if n > 0 && !more {
			return tail{}, fmt.Errorf("manifest record %d: no comma before it", n)
		}
		line, more = bytes.CutSuffix(line, []byte(","))
		rec, err := decodeJSON[*segmentRecord](line)
		if err == nil && rec == nil {
			err = errors.New("null")
		}
		if err != nil {
			return tail{}, fmt.Errorf("manifest record %d: %w", n, err)
		}
		if err := each(rec); err != nil {
			return tail{}, err
		}
	}
}

// readRecord reads one line of at most limit bytes, without its LF.
func readRecord(br *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit+1, err != nil && len(line) > limit:
			return nil, fmt.Errorf("longer than %d bytes", limit)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

func parseHead(line []byte) (head, error) {
	rest, ok := bytes.CutPrefix(line, []byte(manifestMagic))
	if !ok {
		return head{}, fmt.Errorf("manifest head: %q, expected %q", clip(line), manifestMagic)
	}
	version, rest, ok := cutVersion(rest)
	if !ok {
		return head{}, fmt.Errorf("manifest head: no version in %q", clip(line))
	}
	if version != Version {
		return head{}, fmt.Errorf("manifest version %d, expected %d: %w", version, Version, vault.ErrNewer)
	}
	rest, ok = bytes.CutPrefix(rest, []byte(manifestHead))
	if ok {
		rest, ok = bytes.CutSuffix(rest, []byte(manifestSearch))
	}
	if !ok {
		return head{}, errors.New("manifest head: not of the layout")
	}
	h, err := decodeJSON[head](rest)
	if err != nil {
		return head{}, fmt.Errorf("manifest head: %w", err)
	}
	return h, nil
}

// cutVersion cuts the version off what follows manifestMagic: a number from 1, in
// at most six digits.
func cutVersion(b []byte) (version int, rest []byte, ok bool) {
	rest = bytes.TrimLeft(b, "0123456789")
	digits := b[:len(b)-len(rest)]
	if len(digits) == 0 || len(digits) > 6 || digits[0] == '0' {
		return 0, nil, false
	}
	version, err := strconv.Atoi(string(digits))
	return version, rest, err == nil
}

func parseTail(rest []byte, br *bufio.Reader) (tail, error) {
	rest, ok := bytes.CutSuffix(rest, []byte(manifestEnd))
	if !ok {
		return tail{}, errors.New("manifest tail: not of the layout")
	}
	t, err := decodeJSON[tail](rest)
	if err != nil {
		return tail{}, fmt.Errorf("manifest tail: %w", err)
	}
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		return tail{}, errors.New("manifest: data after its end")
	}
	return t, nil
}

// clip shortens hostile bytes for an error message.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
