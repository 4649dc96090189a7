package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/segment"
	"logvault/vault"
)

// A batch is appended when it is this long, in pieces or in raw bytes. A crash
// before that costs reading the batch's objects again, and until then the
// source cannot free their room.
const (
	batchPieces = 128
	batchRaw    = 256 << 20
)

// ready is a piece whose objects are stored: only its entries are missing.
type ready struct {
	piece   vault.Piece
	entries [][]byte // the segment or gap entry first
	adds    Result   // what the round's result gains by it
}

// round is the state of one Step.
type round struct {
	*Sealer
	res   Result
	batch []ready
	taken map[vault.StreamID]bool // streams dealt with, one way or another
	errs  []error                 // of single pieces: the round went on
	late  error                   // the last *ledger.CopyError: committed, but the copy is behind
}

// Step does one round: it finishes what is pending, then seals one piece of
// each stream that has one due, or of each that holds whole lines if all is
// set. Call it again until it returns the zero Result or an error. The
// Result counts what was committed, also beside an error. A *ledger.CopyError
// within the error says that the vault's copy of the ledger is behind.
func (s *Sealer) Step(ctx context.Context, all bool) (Result, error) {
	r := &round{Sealer: s, taken: map[vault.StreamID]bool{}}
	err := r.seal(ctx, all)
	if r.res != (Result{}) {
		s.Log.Info("sealed", "segments", r.res.Segments, "gaps", r.res.Gaps, "raw", r.res.Raw, "stored", r.res.Stored)
	}
	return r.res, errors.Join(append(r.errs, err, r.late)...)
}

// seal is Step's work. Its error is the one that ended the round.
//
// The pieces go one after the other, but while one is stored and committed,
// which is waiting for disks, the next is encoded: the next of this round, or
// the one that will be due in the same stream. Nothing of it is written before
// its turn. See ahead.go.
func (r *round) seal(ctx context.Context, all bool) error {
	// An Append that failed may have committed all the same. This is asked in
	// every round: it also tells at once that the vault is away, before work is
	// done that could not be stored.
	if err := r.Ledger.Recover(ctx); err != nil {
		return fmt.Errorf("checking the ledger: %w", err)
	}
	again, err := r.settle(ctx)
	if err != nil {
		return err
	}
	o := vault.DueOptions{Now: r.Now(), All: all, CutBytes: r.CutBytes, SameDay: r.sameDay}
	due, err := r.Source.Due(ctx, o)
	if err != nil {
		return fmt.Errorf("asking what is due: %w", err)
	}
	pieces := slices.DeleteFunc(slices.Concat(again, due), func(p vault.Piece) bool {
		dealt := r.taken[p.Stream]
		r.taken[p.Stream] = true
		return dealt
	})
	r.turnFirst(pieces)
	for i, p := range pieces {
		w := r.take(ctx, p)
		switch {
		case w.err != nil: // it may end the round
		case w.bulky():
			r.drop() // nothing is done ahead: one buffer will do
			r.raw[1-w.slot] = nil
		case i+1 < len(pieces):
			r.beginNext(ctx, pieces[i+1])
		default:
			r.beginAfter(ctx, p, o)
		}
		err = r.finish(ctx, w)
		if w.enc != nil {
			r.Encoder.Recycle(w.enc)
		}
		if alone, ok := errors.AsType[ofPiece](err); ok && ctx.Err() == nil {
			r.skip(p, alone.error)
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("sealing %s: %w", describe(p), err)
			break
		}
	}
	// What is stored is committed, also when a later piece failed.
	if err = errors.Join(err, r.flush(ctx)); err == nil && len(r.errs) == 0 && len(pieces) == 1 {
		r.beginSecond(ctx, o)
	}
	return err
}

// ofPiece marks an error of one piece alone: the round goes on with the others.
type ofPiece struct{ error }

// Unwrap returns the error itself.
func (e ofPiece) Unwrap() error { return e.error }

// finish brings one piece to the point where only its entries are missing. Its
// error ends the round unless it is an ofPiece.
func (r *round) finish(ctx context.Context, w *work) error {
	if w.err != nil {
		return w.err
	}
	p, enc := w.piece, w.enc
	if p.Kind == vault.PieceHole {
		return r.gap(ctx, p)
	}
	return r.store(ctx, p, enc, &entry.Segment{Header: r.header(),
		Source: p.Source, Stream: p.Stream, Gen: p.Gen, Offset: p.Offset, Span: p.Span, Prev: p.Prev,
		Closed: p.Closed, Cut: p.Cut, Joined: p.Joined, FirstReceived: p.FirstReceived, LastReceived: p.LastReceived,
		Raw: enc.Raw, Lines: enc.Lines, Root: enc.Root, FirstEvent: enc.FirstEvent, LastEvent: enc.LastEvent,
		Object: enc.Object, Codec: enc.Codec, Size: int64(len(enc.Segment)), Index: enc.IndexHash, IndexSize: int64(len(enc.Index)),
		Key: w.key.index, Class: w.id.class, Day: w.id.day, RetainUntil: w.class.RetainUntil(p.Record)})
}

// skip notes an error of one piece. The piece stays where it is, and is due
// again in the next round.
func (r *round) skip(p vault.Piece, err error) {
	r.errs = append(r.errs, fmt.Errorf("sealing %s: %w", describe(p), err))
}

// rawStep rounds the buffers for pieces' bytes: pieces cut at a size end
// anywhere in their last line, and need not each have another buffer.
const rawStep = 1 << 20

// read returns a piece's bytes, in buf if there is room. A buffer is made to
// measure, so that memory stays at the raw size of segments.
func (r *round) read(ctx context.Context, p vault.Piece, buf []byte) ([]byte, error) {
	if p.Span < 1 || p.Span > segment.MaxRaw {
		return buf, fmt.Errorf("span %d, expected 1 to %d", p.Span, segment.MaxRaw)
	}
	if int64(cap(buf)) < p.Span {
		buf = make([]byte, 0, (p.Span+rawStep-1)&^(rawStep-1))
	}
	raw, err := r.Source.Read(ctx, p, buf)
	if err != nil {
		return buf, err
	}
	if int64(len(raw)) != p.Span {
		return raw, fmt.Errorf("read %d bytes, expected %d", len(raw), p.Span)
	}
	if p.Cut == "" && raw[len(raw)-1] != '\n' {
		return raw, errors.New("last line is not whole, expected LF or a cut mark")
	}
	return raw, nil
}

// store records the intent, then stores the segment and its index. The segment
// goes first: on a full disk the small index would fit again in every round,
// each time as a new orphan.
func (r *round) store(ctx context.Context, p vault.Piece, enc *segment.Encoded, e *entry.Segment) error {
	data, err := r.intend(ctx, p, e)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		name string
		body []byte
	}{{segmentName(e), enc.Segment}, {indexName(e), enc.Index}} {
		if err := r.Objects.Put(ctx, o.name, int64(len(o.body)), bytes.NewReader(o.body)); err != nil {
			return err
		}
		r.Log.Debug("stored", "object", o.name, "size", len(o.body))
	}
	return r.enqueue(ctx, p, e, data)
}

// gap brings a hole to the same point: it has an entry and no object.
func (r *round) gap(ctx context.Context, p vault.Piece) error {
	e := &entry.Gap{Header: r.header(), Source: p.Source, Stream: p.Stream, Gen: p.Gen,
		Offset: p.Offset, Span: p.Span, Prev: p.Prev, Reason: entry.GapHole}
	data, err := r.intend(ctx, p, e)
	if err != nil {
		return err
	}
	return r.enqueue(ctx, p, e, data)
}

// intend encodes a piece's future entry and has the source record it.
func (r *round) intend(ctx context.Context, p vault.Piece, e entry.Entry) ([]byte, error) {
	data, err := entry.Encode(e)
	if err != nil {
		return nil, ofPiece{err}
	}
	in := vault.Intent{Piece: p, Entry: data, Size: r.Ledger.Tree().Size()}
	if err := r.Source.Intend(ctx, in); err != nil {
		return nil, fmt.Errorf("recording the intent: %w", err)
	}
	return data, nil
}

// enqueue adds a piece whose objects are stored to the batch. The conflict
// entry goes into the same batch as its segment, so that one is never
// committed without the other.
func (r *round) enqueue(ctx context.Context, p vault.Piece, e entry.Entry, data []byte) error {
	w := ready{piece: p, entries: [][]byte{data}, adds: addsOf(e)}
	if c := p.Conflict; c != nil {
		conflict, err := entry.Encode(&entry.Conflict{Header: r.header(), Source: p.Source,
			Stream: c.Stream, Gen: c.Gen, Offset: c.Offset + p.Offset, Span: p.Span, Other: p.Stream, OtherGen: p.Gen})
		if err != nil {
			return ofPiece{err}
		}
		w.entries = append(w.entries, conflict)
	}
	r.batch = append(r.batch, w)
	var raw int64
	for _, w := range r.batch {
		raw += w.adds.Raw
	}
	if len(r.batch) >= batchPieces || raw >= batchRaw {
		return r.flush(ctx)
	}
	return nil
}

// flush appends the batch to the ledger, which is the commit point of all its
// pieces, and releases them. After an error the batch is forgotten: its intents
// are pending, and the next Step looks in the ledger for what became of them.
func (r *round) flush(ctx context.Context) error {
	batch := r.batch
	r.batch = nil
	if len(batch) == 0 {
		return nil
	}
	var entries [][]byte
	for _, w := range batch {
		entries = append(entries, w.entries...)
	}
	index, err := r.append(ctx, entries...)
	if err != nil {
		return err
	}
	for _, w := range batch {
		if err := r.release(ctx, w.piece, index, w.adds); err != nil {
			return err
		}
		index += int64(len(w.entries))
	}
	return nil
}

// release ends a piece whose entry stands in the ledger at index.
func (r *round) release(ctx context.Context, p vault.Piece, index int64, adds Result) error {
	if err := r.Source.Release(ctx, p, index); err != nil {
		return fmt.Errorf("releasing %s: %w", describe(p), err)
	}
	r.res.Segments += adds.Segments
	r.res.Gaps += adds.Gaps
	r.res.Raw += adds.Raw
	r.res.Stored += adds.Stored
	return nil
}

// append appends to the ledger. A copy that is behind is noted, not returned:
// the ledger of record has the entries, and that is what counts.
func (r *round) append(ctx context.Context, entries ...[]byte) (first int64, err error) {
	first, err = r.Ledger.Append(ctx, entries...)
	if late, ok := errors.AsType[*ledger.CopyError](err); ok {
		r.late = late
		return first, nil
	}
	if err != nil {
		return 0, fmt.Errorf("appending %d entries to the ledger: %w", len(entries), err)
	}
	return first, nil
}

// addsOf is what an entry adds to a Result.
func addsOf(e entry.Entry) Result {
	if e, ok := e.(*entry.Segment); ok {
		return Result{Segments: 1, Raw: e.Raw, Stored: e.Size + e.IndexSize}
	}
	return Result{Gaps: 1}
}

func (s *Sealer) header() entry.Header {
	return entry.Header{Time: s.Now(), Actor: s.Actor}
}

// class returns the retention class of a source.
func (s *Sealer) class(src vault.Source) (policy.Class, error) {
	c, ok := s.ClassOf(src)
	if !ok {
		return policy.Class{}, fmt.Errorf("source %s has no retention class", src)
	}
	return c, c.Valid()
}

// sameDay is what the source asks so that no piece spans two days. The days of
// a source without a class, which is not sealed, are those of UTC.
func (s *Sealer) sameDay(src vault.Source, a, b time.Time) bool {
	zone := time.UTC
	if c, err := s.class(src); err == nil {
		zone = c.Zone
	}
	return vault.DayOf(a.In(zone)) == vault.DayOf(b.In(zone))
}

// describe names a piece in errors, without its file name.
func describe(p vault.Piece) string {
	return fmt.Sprintf("%s of stream %s generation %d, bytes %d to %d", p.Kind, p.Stream, p.Gen, p.Offset, p.Offset+p.Span)
}

func segmentName(e *entry.Segment) string { return vault.SegmentName(e.Day, e.Object, e.Codec) }
func indexName(e *entry.Segment) string   { return vault.IndexName(e.Day, e.Index) }
