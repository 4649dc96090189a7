package extract

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"logvault/ledger"
	"logvault/seal/segment"
	"logvault/vault"
)

// The files of a bundle.
const (
	readmeName      = "README.txt"
	scriptName      = "check.py"
	attestationName = "attestation.txt"
	sumsName        = "SHA256SUMS"
	manifestName    = "manifest.json"
	tableName       = "lines.csv"
	requestName     = "request.json"
	saltName        = "request.salt"
	linesDir        = "lines"
	ledgerDir       = "ledger"
	checkpointName  = "ledger/checkpoint"
	entriesName     = "ledger/entries.jsonl"
	proofsName      = "ledger/proofs.jsonl"
)

// bundle writes what one vault answers, segment by segment: a whole bundle, or
// a part of one. SHA256SUMS and what else vouches for the whole is Run's.
type bundle struct {
	f     *filter
	out   folder
	a     *attempted
	found *survey
	arch  *archive

	progress func(done int64)

	manifest     *manifestWriter
	manifestFile *outFile
	commit       hash.Hash // over the request's salt and the manifest
	table        *table
	tableFile    *outFile

	lines       *outFile // the current lines file, nil before the first
	linesSource string
	linesEnd    byte // the last byte written to it
	linesFiles  int
	head        head
	tail        tail
}

// newBundle starts the files that grow with the search.
func newBundle(o *Options, f *filter, out folder, t *target, r *requestRecord) (*bundle, error) {
	b := &bundle{
		f: f, out: out, a: t.a, found: t.found, commit: sha256.New(), progress: t.progress,
		arch: newArchive(t.Archive, o.Opener, t.found, t.a.entry.Time),
		head: head{
			Origin:        t.origin,
			Scope:         r.Scope,
			MarginSeconds: int64(o.Margin.Seconds()),
		},
	}
	if err := b.start(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bundle) start() (err error) {
	for _, dir := range []string{linesDir, ledgerDir} {
		if _, err := b.out.mkdir(dir); err != nil {
			return err
		}
	}
	if b.manifestFile, err = b.out.create(manifestName); err != nil {
		return err
	}
	b.commit.Write(b.a.salt)
	b.manifest = newManifestWriter(io.MultiWriter(b.manifestFile, b.commit), b.head)
	if b.tableFile, err = b.out.create(tableName); err != nil {
		return err
	}
	b.table, err = newTable(b.tableFile, b.f.zone)
	return err
}

// close releases keys and files. After complete it only destroys keys.
func (b *bundle) close() {
	b.arch.close()
	b.manifestFile.abandon()
	b.tableFile.abandon()
	b.lines.abandon()
}

// search goes through the candidates.
func (b *bundle) search(ctx context.Context, sum *Summary) error {
	var done int64
	for _, c := range b.found.candidates {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := b.segment(ctx, c)
		if err != nil {
			return fmt.Errorf("segment of ledger entry %d: %w", c.index, err)
		}
		if err := b.manifest.add(rec); err != nil {
			return fmt.Errorf("writing %s: %w", manifestName, err)
		}
		b.tail.count(rec)
		if rec.State == stateText {
			sum.Opened++
		}
		if rec.Disclosed != nil {
			sum.Matching++
		}
		done += c.entry.Size
		b.progress(done)
	}
	return nil
}

// count adds a segment to the totals.
func (t *tail) count(r *segmentRecord) {
	t.Searched++
	t.Unparsed += r.Unparsed
	t.Undecided += r.Undecided
	if r.State == stateDestroyed {
		t.Destroyed++
	}
	if r.Disclosed != nil {
		t.Lines += int64(len(r.Disclosed.Lines))
	}
}

// newSegmentRecord repeats what the entry says of a segment.
func newSegmentRecord(c *candidate) *segmentRecord {
	return &segmentRecord{
		Entry: c.index, Source: string(c.entry.Source), Stream: c.entry.Stream.String(),
		Gen: c.entry.Gen, Offset: c.entry.Offset, Object: c.entry.Object.String(), Lines: c.entry.Lines,
	}
}

// segment searches one candidate.
func (b *bundle) segment(ctx context.Context, c *candidate) (*segmentRecord, error) {
	rec := newSegmentRecord(c)
	ix, err := b.arch.index(ctx, c)
	var raw []byte
	if err == nil {
		rec.State, rec.Format, rec.Unparsed = stateIndex, ix.Format, ix.Unparsed
		if !b.f.mayMatch(ix, format(ix)) {
			return rec, nil
		}
		rec.State, rec.Unparsed = stateText, 0
		raw, err = b.arch.raw(ctx, c)
	}
	if errors.Is(err, errDestroyed) {
		rec.State, rec.Format, rec.Unparsed = stateDestroyed, "", 0
		return rec, nil
	}
	if err != nil {
		return nil, err
	}
	hits := b.hits(c, ix, raw, rec)
	if len(hits) == 0 {
		return rec, nil
	}
	return rec, b.disclose(c, ix, raw, hits, rec)
}

// hit is a line to disclose.
type hit struct {
	number int64
	line   []byte // slice of the segment's text
}

// hits filters the lines of a segment and counts the others.
func (b *bundle) hits(c *candidate, ix *segment.Index, raw []byte, rec *segmentRecord) []hit {
	var hits []hit
	_ = splitLines(raw, func(number int64, line []byte) error { // fn never fails
		j := b.f.judge(c.entry, format(ix), line)
		if !j.parsed {
			rec.Unparsed++
		}
		switch j.verdict {
		case inside:
			hits = append(hits, hit{number, line})
		case undecided:
			rec.Undecided++
		}
		return nil
	})
	return hits
}

// disclose proves the lines against the signed entry, then writes them.
func (b *bundle) disclose(c *candidate, ix *segment.Index, raw []byte, hits []hit, rec *segmentRecord) error {
	numbers := make([]int64, len(hits))
	disclosed := make(map[int64][]byte, len(hits))
	for i, h := range hits {
		numbers[i], disclosed[h.number] = h.number, h.line
	}
	proof, err := segment.ProveLines(ix.Secret, bytes.NewReader(raw), numbers)
	if err != nil {
		return fmt.Errorf("proving %d lines: %w", len(hits), err)
	}
	if err := proof.Verify(c.entry.Root, c.entry.Lines, disclosed); err != nil {
		return &IntegrityError{c.name(), c.index, "lines under the root that the entry names", err.Error()}
	}
	if err := b.linesFile(rec.Source); err != nil {
		return err
	}
	rec.Disclosed = &disclosure{File: b.lines.name, At: b.lines.size}
	rec.Disclosed.setProof(proof)
	for _, h := range hits {
		if _, err := b.lines.Write(h.line); err != nil {
			return fmt.Errorf("writing %s: %w", b.lines.name, err)
		}
		j := b.f.judge(c.entry, format(ix), h.line)
		if err := b.table.add(rec, b.lines.name, h.number, &j); err != nil {
			return fmt.Errorf("writing %s: %w", tableName, err)
		}
		b.linesEnd = h.line[len(h.line)-1]
	}
	rec.Disclosed.Size = b.lines.size - rec.Disclosed.At
	return nil
}

// linesFile opens the lines file that the next lines of a source go to: a new
// one for each source, and after a line without LF, which the next line would
// otherwise continue.
func (b *bundle) linesFile(source string) error {
	if b.lines != nil && b.linesSource == source && b.linesEnd == '\n' {
		return nil
	}
	if err := b.finishLines(); err != nil {
		return err
	}
	b.linesFiles++
	var err error
	b.lines, err = b.out.create(linesName(b.linesFiles, source))
	b.linesSource, b.linesEnd = source, '\n'
	return err
}

// linesName names the nth lines file.
func linesName(n int, source string) string { return fmt.Sprintf("%s/%d-%s.log", linesDir, n, source) }

// finishLines closes the current lines file, if there is one.
func (b *bundle) finishLines() error {
	if b.lines == nil {
		return nil
	}
	r, err := b.lines.finish()
	b.lines = nil
	b.tail.Files = append(b.tail.Files, r)
	return err
}

// complete writes the rest of the files and returns the commitment of the
// manifest: SHA-256(request's salt ‖ manifest). Without the salt the hash of an
// empty answer would let any holder of the ledger guess who was asked about.
func (b *bundle) complete(ctx context.Context, r *requestRecord, sum *Summary) (vault.Hash, error) {
	if err := b.finishPayload(sum); err != nil {
		return vault.Hash{}, err
	}
	if err := b.writeLedger(ctx); err != nil {
		return vault.Hash{}, err
	}
	body, err := encodeJSON(r)
	if err != nil {
		return vault.Hash{}, err
	}
	cp := b.a.tree.Checkpoint()
	for _, f := range []struct {
		name string
		data []byte
	}{
		{requestName, body},
		{saltName, b.a.salt},
		{attestationName, attestation(r, &b.head, &b.tail, b.a.index, b.a.entry, &cp)},
		{scriptName, []byte(checkScript)},
	} {
		if err := b.out.write(f.name, f.data); err != nil {
			return vault.Hash{}, err
		}
	}
	return vault.Hash(b.commit.Sum(nil)), nil
}

// finishPayload completes lines, table and manifest.
func (b *bundle) finishPayload(sum *Summary) error {
	if err := b.finishLines(); err != nil {
		return err
	}
	if err := b.table.flush(); err != nil {
		return fmt.Errorf("writing %s: %w", tableName, err)
	}
	r, err := b.tableFile.finish()
	b.tableFile = nil
	if err != nil {
		return err
	}
	t := &b.tail
	t.Files = append(t.Files, r)
	t.Gaps, t.Conflicts = records(b.found.gaps), records(b.found.conflicts)
	t.SilentSources, t.Unread = list(b.found.silent), list(b.found.unread)
	if err := b.manifest.finish(*t); err != nil {
		return fmt.Errorf("writing %s: %w", manifestName, err)
	}
	r, err = b.manifestFile.finish()
	b.manifestFile = nil
	if err != nil {
		return err
	}
	sum.Payload, err = vault.ParseHash(r.SHA256)
	sum.Lines, sum.Searched, sum.Destroyed = t.Lines, t.Searched, t.Destroyed
	sum.Unparsed, sum.Undecided, sum.Silent = t.Unparsed, t.Undecided, t.SilentSources
	sum.Gaps, sum.Conflicts, sum.Unread = len(t.Gaps), len(t.Conflicts), len(t.Unread)
	return err
}

func records(notes []*note) []noteRecord {
	out := make([]noteRecord, len(notes))
	for i, n := range notes {
		out[i] = n.record
	}
	return out
}

// proofRecord is one line of proofs.jsonl: the RFC 6962 inclusion proof of the
// entry on the same line of entries.jsonl.
type proofRecord struct {
	Index int64    `json:"index"`
	Proof []string `json:"proof"`
}

// writeLedger writes the checkpoint, and each entry that the bundle speaks of
// with its inclusion proof, by index.
func (b *bundle) writeLedger(ctx context.Context) error {
	type indexed struct {
		index int64
		data  []byte
	}
	entries := []indexed{{b.a.index, b.a.data}}
	for _, c := range b.found.candidates {
		entries = append(entries, indexed{c.index, c.data})
	}
	for _, n := range slices.Concat(b.found.gaps, b.found.conflicts) {
		entries = append(entries, indexed{n.record.Entry, n.data})
	}
	slices.SortFunc(entries, func(a, b indexed) int { return cmp.Compare(a.index, b.index) })
	if err := b.out.write(checkpointName, b.a.tree.Checkpoint().Raw); err != nil {
		return err
	}
	ef, err := b.out.create(entriesName)
	if err != nil {
		return err
	}
	pf, err := b.out.create(proofsName)
	if err != nil {
		ef.abandon()
		return err
	}
	for _, e := range entries {
		if err = writeProven(ctx, b.a.tree, ef, pf, e.index, e.data); err != nil {
			break
		}
	}
	if err != nil {
		ef.abandon()
		pf.abandon()
		return err
	}
	_, err = ef.finish()
	_, err2 := pf.finish()
	return errors.Join(err, err2)
}

// writeProven writes one entry and its proof. A canonical entry has no LF.
func writeProven(ctx context.Context, tree *ledger.Tree, entries, proofs io.Writer, index int64, data []byte) error {
	hashes, err := tree.InclusionProof(ctx, index)
	if err != nil {
		return fmt.Errorf("proving ledger entry %d: %w", index, err)
	}
	p := proofRecord{Index: index, Proof: make([]string, len(hashes))}
	for i, h := range hashes {
		p.Proof[i] = h.String()
	}
	line, err := encodeJSON(p)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(entries, "%s\n", data); err != nil {
		return fmt.Errorf("writing %s: %w", entriesName, err)
	}
	if _, err := fmt.Fprintf(proofs, "%s\n", line); err != nil {
		return fmt.Errorf("writing %s: %w", proofsName, err)
	}
	return nil
}
