package extract

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// candidate is a segment that may hold lines of the scope.
type candidate struct {
	index int64 // of its ledger entry
	data  []byte
	entry *entry.Segment
}

func (c *candidate) name() string {
	return vault.SegmentName(c.entry.Day, c.entry.Object, c.entry.Codec)
}

// note is a gap or conflict entry that belongs to the statement of completeness.
type note struct {
	data     []byte
	record   noteRecord
	conflict bool
	recorded time.Time // when the entry was written
	prev     int64     // of a gap: the entry before it in its stream
}

// survey is what the ledger alone says about a scope. Nothing is decrypted.
type survey struct {
	candidates []*candidate // by source, stream, generation, offset
	keys       map[int64]*entry.Key
	wraps      map[int64][]vault.Hash // later wraps, by key entry
	gaps       []*note
	conflicts  []*note
	silent     []string // selected sources without a candidate, sorted
	unread     []int64  // entries that this release does not understand

	sources map[vault.Source]bool // all selected sources, true with a candidate
	prevs   map[int64]bool        // the candidates' indices and those before them in their streams
}

// taking says which segments a survey is after, and which other entries count.
type taking struct {
	source  func(vault.Source) bool
	segment func(index int64, s *entry.Segment) bool
	// since and until bound the entries that tell of gaps and conflicts.
	since, until time.Time
	// named are the sources that the scope names; the ledger may not know them.
	named map[vault.Source]bool
}

// surveyTree reads the entries of a proven tree once.
func surveyTree(ctx context.Context, tree *ledger.Tree, t taking) (*survey, error) {
	v := &survey{
		keys:    map[int64]*entry.Key{},
		wraps:   map[int64][]vault.Hash{},
		sources: map[vault.Source]bool{},
		prevs:   map[int64]bool{},
	}
	for name := range t.named {
		v.sources[name] = false
	}
	var notes []*note
	err := tree.Entries(ctx, 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		switch {
		case errors.Is(err, entry.ErrNewer):
			v.unread = append(v.unread, i)
			return nil
		case err != nil:
			return fmt.Errorf("ledger entry %d: %w", i, err)
		}
		if n := v.add(t, i, data, e); n != nil {
			notes = append(notes, n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.finish(t, notes)
	return v, nil
}

// add files one entry. It returns gaps and conflicts, which can be judged only
// when all candidates are known.
func (v *survey) add(t taking, i int64, data []byte, e entry.Entry) *note {
	switch e := e.(type) {
	case *entry.Policy:
		for _, s := range e.Sources {
			v.source(t, s.Name, false)
		}
	case *entry.Key:
		v.keys[i] = e
	case *entry.Rewrap:
		v.wraps[e.Key] = append(v.wraps[e.Key], e.Wrap)
	case *entry.Segment:
		take := t.source(e.Source) && t.segment(i, e)
		v.source(t, e.Source, take)
		if take {
			v.candidates = append(v.candidates, &candidate{i, bytes.Clone(data), e})
			v.prevs[i], v.prevs[e.Prev] = true, true
		}
	case *entry.Gap, *entry.Conflict:
		if n := noteOf(i, e); t.source(vault.Source(n.record.Source)) {
			n.data = bytes.Clone(data)
			return n
		}
	}
	return nil
}

// source files a source that the ledger names.
func (v *survey) source(t taking, s vault.Source, seen bool) {
	if t.source(s) {
		v.sources[s] = v.sources[s] || seen
	}
}

// finish sorts the candidates and keeps the notes that touch them or the time
// searched.
func (v *survey) finish(t taking, notes []*note) {
	slices.SortFunc(v.candidates, func(a, b *candidate) int { return compareSegments(a.entry, b.entry) })
	for _, n := range notes {
		near := !n.recorded.Before(t.since) && n.recorded.Before(t.until)
		switch {
		case n.conflict && near:
			v.conflicts = append(v.conflicts, n)
		case !n.conflict && (near || v.prevs[n.record.Entry] || n.prev >= 0 && v.prevs[n.prev]):
			v.gaps = append(v.gaps, n)
		}
	}
	for s, seen := range v.sources {
		if !seen {
			v.silent = append(v.silent, string(s))
		}
	}
	slices.Sort(v.silent)
}

// compareSegments orders by source, stream, generation, offset. One entry at
// most stands at each place of a ledger that verifies.
func compareSegments(a, b *entry.Segment) int {
	return cmp.Or(
		cmp.Compare(a.Source, b.Source),
		bytes.Compare(a.Stream[:], b.Stream[:]),
		cmp.Compare(a.Gen, b.Gen),
		cmp.Compare(a.Offset, b.Offset))
}

// noteOf makes the note of a gap or conflict entry, nil for any other.
func noteOf(i int64, e entry.Entry) *note {
	switch e := e.(type) {
	case *entry.Gap:
		r := noteRecord{i, string(e.Source), e.Stream.String(), e.Gen, e.Offset, e.Span, e.Reason}
		return &note{record: r, recorded: e.Time, prev: e.Prev}
	case *entry.Conflict:
		r := noteRecord{i, string(e.Source), e.Stream.String(), e.Gen, e.Offset, e.Span, "conflict"}
		return &note{record: r, recorded: e.Time, prev: -1, conflict: true}
	}
	return nil
}
