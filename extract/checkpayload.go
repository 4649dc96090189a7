package extract

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"logvault/extract/logfmt"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

// payload checks manifest, lines and what is derived from them, in one pass over
// the manifest and the lines files.
type payload struct {
	*checker
	request *requestRecord
	index   int64 // of the request entry
	entry   *entry.Request
	filter  *filter
	head    head
	tail    tail // recomputed
	last    *entry.Segment

	table    *table
	tableSum hash.Hash
	tableLen int64

	file   vfs.File // the current lines file
	name   string
	at     int64
	source string
	end    byte // its last byte read
	files  int
	listed []fileRecord
}

// checkPayload checks the request, the manifest, the lines and what follows.
func (c *checker) checkPayload() (bool, error) {
	p := &payload{checker: c, tableSum: sha256.New()}
	on, err := p.checkRequest()
	if err != nil || !on {
		return false, err
	}
	f, err := c.openFile(manifestName)
	if err != nil {
		return false, err
	}
	defer f.Close() // read-only: nothing to lose
	defer p.closeLines()
	text := &contextReader{ctx: p.ctx, r: f}
	var failed error // of the disk, not of the text: a lines file that cannot be read
	stated, err := readManifest(text, p.checkHead, func(r *segmentRecord) error {
		err := p.checkSegment(r)
		if err != nil && !errors.Is(err, errStop) {
			failed = err
		}
		return err
	})
	switch {
	case failed != nil:
		return false, failed
	case text.err != nil:
		return false, fmt.Errorf("reading %s: %w", manifestName, text.err)
	case errors.Is(err, errStop):
		return false, nil
	case errors.Is(err, vault.ErrNewer):
		c.find(CodeNewer, manifestName, "%v", err)
		c.newer = err
		return false, nil
	case err != nil:
		c.find(CodeMalformed, manifestName, "%v", err)
		return false, nil
	}
	p.endLines()
	p.checkTail(&stated)
	return true, p.checkTexts(&stated)
}

// maxMargin bounds the margin of a manifest, in seconds: ten years.
const maxMargin = 10 * 366 * 86400

// errStop ends the manifest after a finding that makes the rest meaningless.
var errStop = errors.New("stopped")

// checkRequest checks that the request is the one that the ledger recorded.
func (p *payload) checkRequest() (bool, error) {
	body, ok, err := p.small(requestName, maxSmall)
	if err != nil || !ok {
		return false, err
	}
	salt, ok, err := p.small(saltName, maxSmall)
	if err != nil || !ok {
		return false, err
	}
	if len(salt) != commitSalt {
		p.differ(CodeMalformed, saltName, "bytes", commitSalt, len(salt))
		return false, nil
	}
	if p.newer = requestVersion(body); p.newer != nil {
		p.find(CodeNewer, requestName, "%v", p.newer)
		return false, nil
	}
	if p.request, err = decodeJSON[*requestRecord](body); err != nil || p.request == nil {
		p.find(CodeMalformed, requestName, "%v", cmp.Or(err, errors.New("null")))
		return false, nil
	}
	if !p.checkVaults() {
		return false, nil
	}
	p.index = -1
	for i, e := range p.entries {
		if _, ok := e.entry.(*entry.Request); ok && (p.index < 0 || i < p.index) {
			p.index = i
		}
	}
	if p.index < 0 {
		p.find(CodeRequest, entriesName, "no request entry")
		return false, nil
	}
	p.entry, _ = use[*entry.Request](p.checker, entriesName, p.index)
	commit := vault.HashOf(append(slices.Clone(salt), body...))
	if p.entry.Commit != commit || p.entry.Kind != entry.RequestExtract {
		p.differ(CodeRequest, requestName, "commitment of an extract in the ledger", p.entry.Commit, commit)
	}
	if p.filter, err = p.request.Scope.scope().compile(); err != nil {
		p.find(CodeMalformed, requestName, "%v", err)
		return false, nil
	}
	p.part.Request = p.index
	return true, p.commitment(salt)
}

// checkVaults checks that the request was put to the vaults whose answers are
// here, no more and no fewer.
func (p *payload) checkVaults() bool {
	version := jointRequest
	if p.whole() {
		version = singleRequest
	}
	r := p.request
	switch {
	case r.Format != requestFormat || r.Version != singleRequest && r.Version != jointRequest || (r.Version == jointRequest) != (len(r.Vaults) > 0):
		p.differ(CodeMalformed, requestName, "format", fmt.Sprint(requestFormat, " ", version), fmt.Sprint(r.Format, " ", r.Version))
		return false
	case !slices.Equal(r.Vaults, p.vaults):
		p.differ(CodeMissing, requestName, "ledgers that the request was put to, of which there are answers", fmt.Sprintf("%q", r.Vaults), fmt.Sprintf("%q", p.vaults))
	}
	return true
}

// requestVersion returns an error that wraps vault.ErrNewer for a request.json
// of a version after the known ones, which need not be readable otherwise.
func requestVersion(body []byte) error {
	var head struct {
		Format  string
		Version int64
	}
	if json.Unmarshal(body, &head) != nil || head.Format != requestFormat || head.Version <= jointRequest {
		return nil
	}
	return fmt.Errorf("%s version %d, expected %d or %d: %w", requestName, head.Version, singleRequest, jointRequest, vault.ErrNewer)
}

// commitment computes what the disclosure entry must hold.
func (p *payload) commitment(salt []byte) error {
	f, err := p.openFile(manifestName)
	if err != nil {
		return err
	}
	defer f.Close() // read-only: nothing to lose
	plain, salted := sha256.New(), sha256.New()
	salted.Write(salt)
	if _, err := io.Copy(io.MultiWriter(plain, salted), &contextReader{ctx: p.ctx, r: f}); err != nil {
		return fmt.Errorf("reading %s: %w", manifestName, err)
	}
	p.part.Payload, p.part.Commit = vault.Hash(plain.Sum(nil)), vault.Hash(salted.Sum(nil))
	return nil
}

// checkHead checks that the manifest answers that request, from that ledger.
func (p *payload) checkHead(h head) error {
	p.head = h
	want, err := encodeJSON(p.request.Scope)
	if err != nil {
		return err
	}
	got, err := encodeJSON(h.Scope)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, got) {
		p.differ(CodeRequest, manifestName, "scope", string(want), string(got))
		return errStop
	}
	if h.Origin != p.cp.Origin {
		p.differ(CodeMismatch, manifestName, "origin", p.cp.Origin, h.Origin)
	}
	if h.MarginSeconds < 0 || h.MarginSeconds > maxMargin {
		p.differ(CodeMalformed, manifestName, "margin in seconds", fmt.Sprintf("0 to %d", maxMargin), h.MarginSeconds)
		return errStop
	}
	p.table, err = newTable(io.MultiWriter(p.tableSum, (*counter)(&p.tableLen)), p.filter.zone)
	return err
}

// counter counts bytes.
type counter int64

// Write counts bytes and drops them. It cannot fail.
func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// checkSegment checks one segment of the manifest.
func (p *payload) checkSegment(r *segmentRecord) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if len(p.findings) > maxFindings {
		return errStop
	}
	p.tail.count(r)
	object := fmt.Sprintf("%s entry %d", manifestName, r.Entry)
	s, ok := use[*entry.Segment](p.checker, object, r.Entry)
	if !ok {
		return errStop
	}
	want := newSegmentRecord(&candidate{index: r.Entry, entry: s})
	want.State, want.Format, want.Unparsed, want.Undecided, want.Disclosed = r.State, r.Format, r.Unparsed, r.Undecided, r.Disclosed
	if *want != *r {
		p.find(CodeMismatch, object, "says other than its ledger entry")
	}
	if p.last != nil && compareSegments(p.last, s) >= 0 {
		p.find(CodeMalformed, object, "not in the order of source, stream, generation, offset")
	}
	p.last = s
	if !p.filter.candidate(s, time.Duration(p.head.MarginSeconds)*time.Second) {
		p.find(CodeOutOfScope, object, "segment outside the scope")
	}
	p.checkState(object, r, s)
	if r.Disclosed == nil {
		return nil
	}
	return p.checkLines(object, r, s)
}

// checkState checks that state, format and counts go together.
func (p *payload) checkState(object string, r *segmentRecord, s *entry.Segment) {
	counts := r.Unparsed >= 0 && r.Undecided >= 0 && r.Unparsed <= r.Lines && r.Undecided <= r.Unparsed
	known := slices.Contains([]logfmt.Format{logfmt.Squid, logfmt.Common, logfmt.Combined, logfmt.Text}, logfmt.Format(r.Format))
	switch r.State {
	case stateText:
	case stateIndex:
		counts = counts && r.Undecided == 0 && r.Disclosed == nil
	case stateDestroyed:
		known = r.Format == ""
		counts = counts && r.Unparsed == 0 && r.Undecided == 0 && r.Disclosed == nil
		if p.entry.Time.Before(s.RetainUntil) {
			p.differ(CodeMismatch, object, "destroyed before its date", formatUTC(s.RetainUntil), formatUTC(p.entry.Time))
		}
	default:
		p.find(CodeMalformed, object, "unknown state %q", clip([]byte(r.State)))
		return
	}
	if !known || !counts {
		p.find(CodeMalformed, object, "format and counts do not go with state %q", r.State)
	}
}

// checkLines reads the lines of one segment, proves them, applies the scope and
// makes their rows of the table.
func (p *payload) checkLines(object string, r *segmentRecord, s *entry.Segment) error {
	text, ok, err := p.read(object, r)
	if err != nil || !ok {
		return cmp.Or(err, errStop)
	}
	d := r.Disclosed
	disclosed := make(map[int64][]byte, len(d.Lines))
	var lines [][]byte
	_ = splitLines(text, func(n int64, line []byte) error { // fn never fails
		lines = append(lines, line)
		if n < int64(len(d.Lines)) {
			disclosed[d.Lines[n]] = line
		}
		return nil
	})
	if len(lines) != len(d.Lines) || len(disclosed) != len(lines) || len(lines) == 0 {
		p.differ(CodeNotProven, object, "lines in "+d.File, len(d.Lines), len(lines))
		return errStop
	}
	proof, err := d.proof()
	if err == nil {
		err = proof.Verify(s.Root, s.Lines, disclosed)
	}
	if err != nil {
		p.find(CodeNotProven, object, "%v", err)
	}
	for i, line := range lines {
		j := p.filter.judge(s, logfmt.Format(r.Format), line)
		if j.verdict != inside {
			p.find(CodeOutOfScope, object, "line %d of the segment does not fit the request", d.Lines[i])
		}
		if err := p.table.add(r, d.File, d.Lines[i], &j); err != nil {
			return err
		}
	}
	return nil
}

// read reads the bytes that a segment disclosed, which continue the current
// lines file or begin the next one, as bundle.linesFile decides.
func (p *payload) read(object string, r *segmentRecord) ([]byte, bool, error) {
	d := r.Disclosed
	if p.file == nil || p.source != r.Source || p.end != '\n' {
		p.endLines()
		p.files++
		p.name, p.at, p.source = linesName(p.files, r.Source), 0, r.Source
		if _, listed := p.sums[p.name]; listed {
			f, err := p.openFile(p.name)
			if err != nil {
				return nil, false, err
			}
			p.file = f
		}
	}
	if d.File != p.name || d.At != p.at || d.Size <= 0 || d.Size > maxRaw || d.Size > p.sizes[p.name]-p.at || p.file == nil {
		p.differ(CodeMismatch, object, "place of its lines", fmt.Sprintf("%s from byte %d", p.name, p.at),
			fmt.Sprintf("%s from byte %d, %d bytes", d.File, d.At, d.Size))
		return nil, false, nil
	}
	text := make([]byte, d.Size)
	if _, err := io.ReadFull(p.file, text); err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", p.name, err)
	}
	p.at += d.Size
	p.end = text[len(text)-1]
	return text, true, nil
}

// endLines ends the current lines file, which must be used up.
func (p *payload) endLines() {
	if p.file == nil {
		return
	}
	if p.at != p.sizes[p.name] {
		p.differ(CodeMismatch, p.name, "bytes that the manifest accounts for", p.sizes[p.name], p.at)
	}
	p.listed = append(p.listed, fileRecord{p.name, p.at, p.sums[p.name]})
	p.closeLines()
}

func (p *payload) closeLines() {
	if p.file != nil {
		_ = p.file.Close() // read-only: nothing to lose
		p.file = nil
	}
}
