package extract

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"logvault/extract/logfmt"
	"logvault/ledger/entry"
	"logvault/vault"
)

// CatRequest selects whole segments, or the lines of one source in a window.
type CatRequest struct {
	// Segments names segments by the 64 hex digits of the object, or by the
	// index of the ledger entry. If set, the other selectors must be empty.
	Segments []string
	Source   vault.Source
	Since    time.Time // first instant
	Until    time.Time // first instant after
	// Case is why: the reference of the case. Required; kept in the register.
	Case string
}

// CatSummary says what Cat wrote.
type CatSummary struct {
	Request   int64 // index of the request entry
	Segments  int64 // opened
	Destroyed int64 // selected, but gone on or after their legal date
	Bytes     int64 // written
}

// ErrNoSegment says that a cat names a segment that the ledger does not have.
var ErrNoSegment = errors.New("no such segment in the ledger")

// validate returns nil if the request says one thing completely.
func (r *CatRequest) validate() error {
	var p problems
	p.text("case", r.Case, true)
	switch {
	case len(r.Segments) > MaxSelectors:
		p.addf("segment: %d values, expected at most %d", len(r.Segments), MaxSelectors)
	case len(r.Segments) > 0 && (r.Source != "" || !r.Since.IsZero() || !r.Until.IsZero()):
		p.addf("segment: expected either segments, or a source with since and until")
	case len(r.Segments) == 0 && (r.Source == "" || r.Since.IsZero() || r.Until.IsZero()):
		p.addf("expected a segment, or a source with since and until")
	case len(r.Segments) == 0 && !r.Until.After(r.Since):
		p.addf("until is not after since")
	}
	return errors.Join(p...)
}

// filter makes the filter of a window; nil for whole segments.
func (r *CatRequest) filter() *filter {
	if len(r.Segments) > 0 {
		return nil
	}
	return &filter{since: r.Since.UTC(), until: r.Until.UTC(), sources: map[vault.Source]bool{r.Source: true}}
}

// taking says which entries the request concerns, and marks the names it meets.
func (r *CatRequest) taking(f *filter, margin time.Duration, met map[string]bool) taking {
	if f != nil {
		t := f.taking(margin)
		t.segment = func(_ int64, s *entry.Segment) bool {
			return f.candidate(s, margin) || f.hasSource(s.Source) && f.overlaps(s.FirstReceived, s.LastReceived, 0, 0)
		}
		return t
	}
	return taking{
		source: func(vault.Source) bool { return true },
		segment: func(i int64, s *entry.Segment) bool {
			found := false
			for _, name := range []string{s.Object.String(), strconv.FormatInt(i, 10)} {
				if _, named := met[name]; named {
					met[name], found = true, true
				}
			}
			return found
		},
	}
}

// Cat writes segments to w in the order source, stream, generation, offset:
// whole ones as they were received, or of a window the lines whose time is in
// it and the lines without a time of segments that were received during it. The
// request is in the ledger before anything is decrypted, and each object's hash
// is checked before its first byte is written. It needs of o what Run needs,
// but no directory, and reads one vault.
func Cat(ctx context.Context, o Options, r CatRequest, w io.Writer) (CatSummary, error) {
	o = o.defaulted()
	if err := r.validate(); err != nil {
		return CatSummary{}, fmt.Errorf("cat: %w", err)
	}
	if err := o.ready(); err != nil {
		return CatSummary{}, err
	}
	tree, err := o.Tree(ctx)
	if err != nil {
		return CatSummary{}, fmt.Errorf("opening the ledger: %w", err)
	}
	f, met := r.filter(), map[string]bool{}
	for _, name := range r.Segments {
		met[name] = false
	}
	found, err := surveyTree(ctx, tree, r.taking(f, o.Margin, met))
	if err != nil {
		return CatSummary{}, fmt.Errorf("reading the ledger: %w", err)
	}
	for _, name := range r.Segments {
		if !met[name] {
			return CatSummary{}, fmt.Errorf("%q: %w, neither as the 64 hex digits of an object nor as an entry's index", name, ErrNoSegment)
		}
	}
	a, err := attempt(ctx, o, &o.Archive, r.record(), entry.RequestCat)
	if err != nil {
		return CatSummary{}, err
	}
	arch := newArchive(o.Archive, o.Opener, found, a.entry.Time)
	defer arch.close()
	out := &countingWriter{w: bufio.NewWriterSize(w, 64<<10)}
	sum := CatSummary{Request: a.index}
	for _, c := range found.candidates {
		if err = ctx.Err(); err == nil {
			err = catSegment(ctx, arch, f, c, out)
		}
		if errors.Is(err, errDestroyed) {
			sum.Destroyed++
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("segment of ledger entry %d: %w", c.index, err)
		}
		sum.Segments++
	}
	if err := out.w.Flush(); err != nil {
		return sum, fmt.Errorf("writing the lines: %w", err)
	}
	sum.Bytes = out.n
	return sum, nil
}

// record is what goes to the register.
func (r *CatRequest) record() catRecord {
	rec := catRecord{Format: catFormat, Version: 1, Case: r.Case, Segments: list(r.Segments), Source: string(r.Source)}
	if len(r.Segments) == 0 {
		rec.Since, rec.Until = formatUTC(r.Since), formatUTC(r.Until)
	}
	return rec
}

// catSegment writes one segment, or its lines in the window.
func catSegment(ctx context.Context, arch *archive, f *filter, c *candidate, w io.Writer) error {
	if f == nil {
		return arch.decode(ctx, c, w)
	}
	ix, err := arch.index(ctx, c)
	if err != nil {
		return err
	}
	received := f.overlaps(c.entry.FirstReceived, c.entry.LastReceived, 0, 0)
	raw, err := arch.raw(ctx, c)
	if err != nil {
		return err
	}
	return splitLines(raw, func(_ int64, line []byte) error {
		var l logfmt.Fields
		take := received
		if logfmt.Parse(format(ix), line, &l) && l.HasTime {
			take = f.within(l.UnixMilli)
		}
		if !take {
			return nil
		}
		_, err := w.Write(line)
		return err
	})
}

// countingWriter counts what is written.
type countingWriter struct {
	w *bufio.Writer
	n int64
}

// Write counts what the writer below has taken, also of a call that fails.
func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
