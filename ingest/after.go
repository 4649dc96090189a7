package ingest

import (
	"context"
	"errors"

	"logvault/vault"
)

// After returns the piece that Due will offer when p is released, if that is
// certain already: a full piece of committed bytes that were received on the
// same day. Else it returns nil. p is a piece from Due, or from After. Nothing
// is offered by it, and the times and Prev are still those of p; but Read may be
// called with it, so that its bytes can be encoded while p is being stored.
func (s *Spool) After(ctx context.Context, p vault.Piece, o vault.DueOptions) (*vault.Piece, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = withDefaults(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.unsealed(p)
	if errors.Is(err, ErrNotHeld) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	start := p.Offset + p.Span
	limit := start + o.CutBytes
	// One byte more than a piece: where a generation ends, other rules hold.
	if p.Kind != vault.PieceData || p.Cut != "" || !g.data.covers(start, limit+1) || g.unstable.first(start, limit) < limit ||
		!s.oneDay(s.table.stream(p.Stream), g, o, start-1, limit) {
		return nil, nil
	}
	end, full, err := s.lastLine(g, start, limit)
	if err != nil || full || end == start {
		return nil, s.unread(err)
	}
	p.Offset, p.Span = start, end-start
	p.Joined, p.Closed = false, false
	return &p, nil
}

// oneDay reports whether [from, to) of g was received on one day.
func (s *Spool) oneDay(st *stream, g *gen, o vault.DueOptions, from, to int64) bool {
	if !st.Recorded.IsZero() {
		return true
	}
	first := g.data.from(from)
	for i := first + 1; i < len(g.data) && g.data[i].off() < to; i++ {
		if !s.sameDay(o, st.Source, g.data[i-1].tick(), g.data[i].tick()) {
			return false
		}
	}
	return true
}
