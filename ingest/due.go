package ingest

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"logvault/vault"
)

// When and where a generation is cut into pieces (DESIGN §6.2, §6.7).
const (
	cutBytes  = 32 << 20 // raw bytes of a piece, unless the sealer says otherwise
	maxPiece  = 64 << 20
	longLine  = 16 << 20         // a line is cut there
	smallAge  = time.Hour        // a piece is due at this age if it has smallSize bytes
	smallSize = 256 << 10        //
	maxAge    = 6 * time.Hour    // and at this age whatever its size
	silence   = 10 * time.Minute // then uncommitted bytes are taken as they are
	fullQuiet = time.Minute      // the same in a full spool: its client waits for room, not for us
	holeAge   = 10 * time.Minute // then a hole is a gap
)

// Due returns the pieces to seal now: at most one per stream, the first that is
// not in the ledger, oldest generation first. A piece that was offered is
// offered again, the same, until Release; so is one that was intended before a
// restart. Everything in the pieces is on the disk on return.
//
// A piece is a run of whole lines that were received on one day, or the end of
// a generation, or the start of a line of more than 16 MiB, or a hole that
// nobody filled. Bytes that no COMMIT or FILE_SYNC covers are left out unless
// the stream is silent for 10 minutes, its day or generation is over, or o.All.
// A crowded spool offers what has 256 KiB, and a full one all it has: a client
// that waits for room must not wait for the hour that fills a segment.
func (s *Spool) Due(ctx context.Context, o vault.DueOptions) ([]vault.Piece, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = withDefaults(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.tight, s.full = s.crowded(), !s.roomForFile(forIntake)
	var out []vault.Piece
	var plans []plan
	for _, st := range s.table.order {
		for _, g := range st.gens {
			s.trim(g)
			if p := g.again(); p != nil {
				out = append(out, *p)
				break
			}
			if p := s.plan(st, g, o); p.end > 0 {
				plans = append(plans, p)
				break
			}
		}
	}
	if len(plans) > 0 {
		if err := s.syncTo(s.last()); err != nil {
			return nil, err
		}
	}
	for _, p := range plans {
		piece, err := s.piece(p, o)
		if err != nil {
			return nil, err
		}
		if piece != nil {
			out = append(out, *piece)
		}
	}
	return out, s.tidy()
}

func withDefaults(o vault.DueOptions) vault.DueOptions {
	if o.CutBytes <= 0 {
		o.CutBytes = cutBytes
	}
	o.CutBytes = min(o.CutBytes, maxPiece)
	if o.SameDay == nil {
		o.SameDay = func(vault.Source, time.Time, time.Time) bool { return true }
	}
	return o
}

// again returns the piece that was offered before and not released.
func (g *gen) again() *vault.Piece {
	if g.intent != nil {
		return &g.intent.Piece
	}
	return g.offer
}

// plan says what may be cut from a generation; end 0 is nothing.
type plan struct {
	st       *stream
	g        *gen
	hole     bool
	end      int64   // of what may be sealed
	days     []int64 // offsets where another day begins, in [sealed, end)
	dayOver  bool    // the last of these days is over too
	due      bool    // for another reason than size or the end of a day
	toTheEnd bool    // bytes without LF before end are taken too
}

// plan looks at the tables only: which bytes could be sealed, and why now.
func (s *Spool) plan(st *stream, g *gen, o vault.DueOptions) plan {
	p := plan{st: st, g: g}
	now := s.cfg.Boot()
	i := g.data.from(g.sealed)
	end := g.sealed
	first := i
	for ; i < len(g.data) && g.data[i].off() <= end; i++ {
		if tick := g.data[i].tick(); i > first && st.Recorded.IsZero() && !s.sameDay(o, st.Source, g.data[i-1].tick(), tick) {
			p.days = append(p.days, g.data[i].off())
		}
		end = g.data[i].end()
	}
	hole := i < len(g.data)
	over := !g.ended.IsZero()
	aged := hole && s.holeAged(g, end, now)
	if end == g.sealed {
		switch {
		case hole && (over || aged):
			p.hole, p.end = true, g.data[i].off()
		case !hole && over && end < g.high: // damage took the rest
			p.hole, p.end = true, g.high
		}
		return p
	}
	tick := g.data[first].tick()
	age := s.age(g, tick, o.Now, now)
	p.dayOver = st.Recorded.IsZero() && !o.SameDay(st.Source, s.clock.time(g.data[i-1].tick()), o.Now)
	committed := g.unstable.first(g.sealed, end)
	if o.All || over || p.dayOver || now-g.touched >= silence || s.full && now-g.touched >= fullQuiet {
		committed = end
	} else if n := len(p.days); n > 0 {
		committed = max(committed, p.days[n-1])
	}
	p.toTheEnd = committed == end && (over || aged)
	size := committed - g.sealed
	p.due = o.All || over || aged || s.full || age >= maxAge || (age >= smallAge || s.tight) && size >= smallSize
	if p.due || p.dayOver || len(p.days) > 0 || size >= min(o.CutBytes, longLine) {
		p.end = committed
	}
	if p.end == g.sealed {
		p.end = 0
	}
	return p
}

func (s *Spool) sameDay(o vault.DueOptions, src vault.Source, a, b uint32) bool {
	return a == b || o.SameDay(src, s.clock.time(a), s.clock.time(b))
}

// holeAged notes where the first hole begins and reports whether it is there
// for long.
func (s *Spool) holeAged(g *gen, at int64, now time.Duration) bool {
	if g.holeAt != at {
		g.holeAt, g.hole = at, now
	}
	return now-g.hole >= holeAge
}

// age returns how long the oldest unsealed byte waits: by the wall clock or, if
// that jumped back, by the one that never does.
func (s *Spool) age(g *gen, tick uint32, wall time.Time, now time.Duration) time.Duration {
	if g.oldestAt != g.sealed+1 {
		g.oldestAt, g.oldest = g.sealed+1, now
	}
	return max(wall.Sub(s.clock.time(tick).Add(quarter)), now-g.oldest)
}

// piece cuts a plan into the piece to offer, or nil if there is no place to cut
// yet. It releases mu to read.
func (s *Spool) piece(p plan, o vault.DueOptions) (*vault.Piece, error) {
	g := p.g
	out := &vault.Piece{
		Source: p.st.Source, Stream: p.st.ID, Gen: g.genKey.gen, Offset: g.sealed, Name: p.st.Name,
		Prev: p.st.prev, Joined: g.joined,
	}
	if g.late {
		out.Conflict = &vault.ConflictOf{Stream: p.st.of, Gen: g.ofGen, Offset: g.ofOff}
	}
	end := p.end
	if p.hole {
		out.Kind, out.Joined = vault.PieceHole, false
		if i := g.data.from(g.sealed); i < len(g.data) && g.data[i].off() != end || i == len(g.data) && end < g.high {
			return nil, nil // it was filled while we synced
		}
	} else {
		var err error
		if end, out.Cut, err = s.cut(p, o); err != nil || end == g.sealed {
			return nil, s.unread(err)
		}
	}
	out.Span = end - out.Offset
	g.offer = out // from here on nobody fills the hole
	if err := s.times(g, out); err != nil {
		g.offer = nil
		return nil, s.unread(err)
	}
	if !p.hole && !g.data.covers(out.Offset, end) {
		g.offer = nil
		return nil, nil // damage was found meanwhile
	}
	if out.LastReceived.Before(out.FirstReceived) { // the clock was set back in between
		out.FirstReceived, out.LastReceived = out.LastReceived, out.FirstReceived
	}
	out.Record = p.st.Recorded
	if out.Record.IsZero() {
		out.Record = out.LastReceived
	}
	out.Closed = !g.ended.IsZero() && end == g.high
	return out, nil
}

// cut returns where the piece ends and why: at the last line end before the
// size is reached or the day changes, wherever that is possible.
func (s *Spool) cut(p plan, o vault.DueOptions) (int64, string, error) {
	g := p.g
	start := g.sealed
	for i, stop := range append(p.days, p.end) {
		last := i == len(p.days)
		limit := min(stop, start+o.CutBytes)
		end, full, err := s.lastLine(g, start, limit)
		if err == nil && end == start && limit < min(stop, start+longLine) {
			limit = min(stop, start+longLine) // a line is longer than a piece should be
			end, full, err = s.lastLine(g, start, limit)
		}
		switch {
		case err != nil:
			return 0, "", err
		case end > start && (!last || stop > limit):
			return end, "", nil // the day or the size is full
		case full:
			if end == start {
				return start + longLine, "long", nil
			}
			return end, "", nil
		case last && p.toTheEnd && limit == p.end:
			if end == p.end {
				return end, "", nil
			}
			return p.end, "end", nil
		case last && (p.due || p.dayOver || p.end-start >= o.CutBytes):
			return end, "", nil
		}
	}
	return start, "", nil
}

// lastLine returns the end of the last whole line in [start, limit), start if
// there is none. full says that a line of more than 16 MiB follows it. It looks
// at the end of each 16 MiB only.
func (s *Spool) lastLine(g *gen, start, limit int64) (end int64, full bool, err error) {
	for end = start; end < limit; {
		to := min(limit, end+longLine)
		next, err := s.lastLF(g, end, to)
		if err != nil {
			return 0, false, err
		}
		if next == end {
			return end, to-end == longLine, nil
		}
		end = next
		if to == limit {
			break
		}
	}
	return end, false, nil
}

// lastLF returns the offset after the last LF in [from, to), from if there is none.
func (s *Spool) lastLF(g *gen, from, to int64) (int64, error) {
	const step = 64 << 10
	for hi := to; hi > from; hi -= step {
		lo := max(from, hi-step)
		found := from
		err := s.readHeld(g, recExtent, lo, hi, func(h *extentHead, payload []byte) error {
			if i := bytes.LastIndexByte(payload, '\n'); i >= 0 {
				found = h.off + int64(i) + 1
			}
			return nil
		})
		if err != nil || found > from {
			return found, err
		}
	}
	return from, nil
}

// times fills in when the first and last bytes of a piece were received; for a
// hole, when the bytes after it were, or the end.
func (s *Spool) times(g *gen, p *vault.Piece) error {
	first, last := p.Offset, p.Offset+p.Span-1
	if p.Kind == vault.PieceHole {
		if first, last = last+1, last+1; first == g.high { // no bytes follow
			p.FirstReceived, p.LastReceived = g.ended, g.ended
			return nil
		}
	}
	for _, off := range []int64{first, last} {
		err := s.readHeld(g, recExtent, off, off+1, func(h *extentHead, _ []byte) error {
			p.FirstReceived, p.LastReceived = p.LastReceived, h.wall
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Read appends the bytes of a piece from Due or After to buf[:0] and returns it.
func (s *Spool) Read(ctx context.Context, p vault.Piece, buf []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.unsealed(p)
	if err != nil {
		return nil, err
	}
	// The block that the piece begins in is read from its start, for its MAC.
	start, end := max(p.Offset&^(blockSize-1), g.freed), p.Offset+p.Span
	if held, kind := g.classify(start, end); kind != partHeld || held.b != end {
		start = p.Offset
	}
	macs := pieceMACs{m: newBlockMAC(s.table.secret[:], g.genKey)}
	out, at := buf[:0], start
	err = s.readHeld(g, recExtent, start, end, func(h *extentHead, payload []byte) error {
		if h.off != at {
			return fmt.Errorf("piece at %d lacks offset %d: %w", p.Offset, at, ErrNotHeld)
		}
		at += int64(len(payload))
		if h.client.IsValid() && g.ended.IsZero() {
			macs.add(h.off, payload)
		}
		if skip := p.Offset - h.off; skip > 0 {
			payload = payload[min(skip, int64(len(payload))):]
		}
		out = append(out, payload...)
		return nil
	})
	if err == nil && at != end {
		err = fmt.Errorf("piece at %d ends at %d, expected %d: %w", p.Offset, at, end, ErrNotHeld)
	}
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", p.Stream, err)
	}
	if p.Offset == g.sealed {
		g.fresh = macs.done
	} else {
		g.ahead = macs.done
	}
	return out, nil
}

// unsealed returns the generation of a piece that is offered or yet to come.
func (s *Spool) unsealed(p vault.Piece) (*gen, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	var g *gen
	if st := s.table.stream(p.Stream); st != nil {
		g = st.gen(p.Gen)
	}
	if g == nil {
		return nil, fmt.Errorf("generation %d: %w: %s", p.Gen, ErrNoStream, p.Stream)
	}
	if p.Offset < g.sealed {
		return nil, notOffered(p)
	}
	return g, nil
}

// offered returns the generation of a piece that is offered now.
func (s *Spool) offered(p vault.Piece) (*gen, error) {
	g, err := s.unsealed(p)
	if err != nil {
		return nil, err
	}
	if q := g.again(); q == nil || q.Offset != p.Offset || q.Span != p.Span {
		return nil, notOffered(p)
	}
	return g, nil
}

func notOffered(p vault.Piece) error {
	return fmt.Errorf("stream %s: piece at %d is not offered: %w", p.Stream, p.Offset, ErrNotHeld)
}
