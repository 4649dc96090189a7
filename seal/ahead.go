package seal

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"logvault/retention/policy"
	"logvault/seal/segment"
	"logvault/vault"
)

// Pieces pass through three stages: fetch finds the key and reads the bytes,
// begin encodes, and the round then stores and commits. While a piece is
// stored and committed, which is mostly waiting for disks, the next is encoded,
// and where one stream alone is busy, the one after it is read and encoded as
// soon as the encoder is free, so that slow disks seldom let the cores idle. The
// first two stages write nothing (but a new period key), and what they did is
// checked again when the piece is due, and dropped if it no longer fits.
//
// Text that hardly compresses is no log. Its objects are as large as its bytes,
// and nothing is done ahead beside it, so that memory has a bound that is not
// many times the size of a segment.

// work is a piece in these stages.
type work struct {
	piece vault.Piece
	class policy.Class
	id    keyID
	key   periodKey
	slot  int // which of the sealer's buffers holds the bytes
	enc   *segment.Encoded
	err   error         // ends the round unless it is an ofPiece
	done  chan struct{} // closed when enc or err is there; nil: not begun
}

// bulky reports whether the encoded piece is large for its text.
func (w *work) bulky() bool {
	return w.enc != nil && int64(len(w.enc.Segment)) > w.enc.Raw/2
}

// fetch makes a piece ready to be encoded. A hole has no key and no bytes.
func (r *round) fetch(ctx context.Context, p vault.Piece) *work {
	w := &work{piece: p}
	if r.ahead != nil {
		w.slot = 1 - r.ahead.slot
	}
	if p.Kind == vault.PieceHole {
		return w
	}
	if w.err = r.findKey(ctx, w); w.err != nil {
		return w
	}
	var err error
	if r.raw[w.slot], err = r.read(ctx, p, r.raw[w.slot]); err != nil {
		w.err = ofPiece{err}
	}
	return w
}

// findKey sets the class, the day and the key of a piece of data.
func (r *round) findKey(ctx context.Context, w *work) (err error) {
	if w.class, err = r.class(w.piece.Source); err != nil {
		return ofPiece{err}
	}
	if w.piece.Record.IsZero() {
		return ofPiece{errors.New("no record date to count its retention from")}
	}
	y, m, d := w.class.DestructionDay(w.piece.Record)
	w.id = keyID{vault.Class(w.class.Name), vault.Day{Year: y, Month: m, Day: d}}
	w.key, err = r.periodKey(ctx, w.id)
	return err
}

// errNotBegun says that work ahead was dropped before it was begun.
var errNotBegun = errors.New("not begun beside the piece before it")

// begin starts to encode fetched work, once the work before it, if any, is done:
// there is one encoder. It does so in a goroutine that only computes, and that
// take or Rest joins: it may go on between two calls of Step, so that the cores
// do not wait for what the caller and the source do meanwhile.
func (r *round) begin(ctx context.Context, w, before *work) *work {
	w.done = make(chan struct{})
	if w.err != nil || w.piece.Kind == vault.PieceHole {
		close(w.done)
		return w
	}
	p, raw := w.piece, r.raw[w.slot]
	go func() {
		defer close(w.done)
		if before != nil {
			if <-before.done; before.err != nil || before.bulky() {
				w.err = errNotBegun
				return
			}
		}
		meta := segment.Meta{Name: p.Name, Source: p.Source, Stream: p.Stream, Gen: p.Gen, Offset: p.Offset}
		var err error
		if w.enc, err = r.Encoder.Encode(ctx, raw, meta, w.key.public); err != nil {
			w.err = ofPiece{err}
		}
	}()
	return w
}

// take returns the encoded work on p: what was begun ahead, or what is begun now.
func (r *round) take(ctx context.Context, p vault.Piece) *work {
	w := r.ahead
	if w != nil {
		<-w.done
	}
	if w == nil || !r.fits(ctx, w, p) {
		r.drop()
		w = r.begin(ctx, r.fetch(ctx, p), nil)
		<-w.done
	}
	r.ahead, r.after = r.after, nil
	w.piece = p
	return w
}

// drop waits for what was begun ahead and forgets it.
func (s *Sealer) drop() {
	for _, w := range []*work{s.ahead, s.after} {
		if w == nil {
			continue
		}
		if <-w.done; w.enc != nil {
			s.Encoder.Recycle(w.enc)
		}
	}
	s.ahead, s.after = nil, nil
}

// fits reports whether work that was done ahead is what p needs now. The bytes
// of a place in a generation never change; its name, class and key may.
func (r *round) fits(ctx context.Context, w *work, p vault.Piece) bool {
	q := w.piece
	if w.err != nil || p.Kind != q.Kind || p.Source != q.Source || p.Stream != q.Stream || p.Gen != q.Gen ||
		p.Offset != q.Offset || p.Span != q.Span || p.Cut != q.Cut || !bytes.Equal(p.Name, q.Name) {
		return false
	}
	now := work{piece: p}
	if p.Kind != vault.PieceHole && r.findKey(ctx, &now) != nil {
		return false
	}
	w.class = now.class // its period may have changed where its day did not
	return now.id == w.id && now.key.index == w.key.index
}

// beginNext begins p, unless that is what was begun ahead already.
func (r *round) beginNext(ctx context.Context, p vault.Piece) {
	if w := r.ahead; w != nil {
		if w.follows(p.Stream, p.Gen, p.Offset) {
			return
		}
		r.drop()
	}
	r.ahead = r.begin(ctx, r.fetch(ctx, p), nil)
}

// beginAfter begins the piece after p in its stream, if it is known already.
// What fails here fails again, and is reported, in that piece's turn.
func (r *round) beginAfter(ctx context.Context, p vault.Piece, o vault.DueOptions) {
	if w := r.ahead; w != nil {
		if w.follows(p.Stream, p.Gen, p.Offset+p.Span) {
			return
		}
		r.drop()
	}
	if next, err := r.Source.After(ctx, p, o); err == nil && next != nil {
		r.ahead = r.begin(ctx, r.fetch(ctx, *next), nil)
	}
}

// follows reports whether the work is on the piece that begins at this place.
func (w *work) follows(id vault.StreamID, gen, off int64) bool {
	return w.piece.Stream == id && w.piece.Gen == gen && w.piece.Offset == off
}

// beginSecond begins the piece after the one that was begun ahead. It is for the
// end of a round of one stream, which will be alone in the next one too, and for
// when the source was told of the piece before: it knows one piece ahead of that.
func (r *round) beginSecond(ctx context.Context, o vault.DueOptions) {
	if r.ahead == nil || r.after != nil {
		return
	}
	if next, err := r.Source.After(ctx, r.ahead.piece, o); err == nil && next != nil {
		r.after = r.begin(ctx, r.fetch(ctx, *next), r.ahead)
	}
}

// turnFirst moves the piece that was begun ahead to the front: another one in
// its place would cost the work.
func (r *round) turnFirst(pieces []vault.Piece) {
	if r.ahead == nil {
		return
	}
	i := slices.IndexFunc(pieces, func(p vault.Piece) bool { return r.ahead.follows(p.Stream, p.Gen, p.Offset) })
	if i > 0 {
		p := pieces[i]
		copy(pieces[1:], pieces[:i])
		pieces[0] = p
	}
}
