package ingest

import (
	"context"
	"fmt"
	"net/netip"

	"logvault/vault"
)

// Write takes in data at offset off of a stream generation, which begins with
// its first byte. Extents may come in any order, again, and overlapping: bytes
// that are there already and the same are acknowledged and not stored; others
// never replace them but are archived in the stream's conflict stream, and so
// are bytes for a generation that has ended or for a declared gap.
//
// With sync the bytes (and those they repeat) are on the disk on return.
// Without, they may still be in memory: they reach the file when their group is
// full, or with the next sync of anyone. A client that was only answered
// UNSTABLE sends again when the process was killed, because the write verifier
// changes, so nothing is gained by handing each small extent to the kernel.
//
// client is the sender; the zero Addr says that the sender never repeats itself
// once bytes are sealed, so that nothing is kept to compare with (imports).
// data is not kept and not changed.
// Errors: vault.ErrFull (what was stored before is a repetition when sent
// again), ErrNoStream, ErrSyncFailed.
func (s *Spool) Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if gen < 0 || gen >= maxOffset || off < 0 || off > maxOffset-int64(len(data)) {
		return fmt.Errorf("write to generation %d at %d, %d bytes: expected to end by %d", gen, off, len(data), int64(maxOffset))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := write{s: s, off: off, data: data}
	w.head = extentHead{genKey: genKey{id, gen}, wall: s.cfg.Now(), boot: s.cfg.Boot(), stable: sync, client: client}
	if err := w.store(); err != nil {
		return err
	}
	if err := w.compare(); err != nil {
		return err
	}
	if !sync {
		return s.usable()
	}
	return s.syncTo(s.last())
}

// write is one call of Write at work. Spool.mu is held, except while bytes are
// read back.
type write struct {
	s    *Spool
	head extentHead
	off  int64
	data []byte

	held []part // to compare with bytes that the spool holds
	gone []part // to compare with block MACs
	late spans  // to archive apart
}

// part is the interval [a, b) of a stream.
type part struct{ a, b int64 }

func (w *write) bytes(p part) []byte { return w.data[p.a-w.off : p.b-w.off] }

// store appends the bytes that are new and sorts out the others.
func (w *write) store() error {
	s := w.s
	for off, end := w.off, w.off+int64(len(w.data)); off < end; {
		st := s.table.stream(w.head.stream)
		if st == nil {
			return fmt.Errorf("%w: %s", ErrNoStream, w.head.stream)
		}
		w.head.source = st.Source
		g := st.gen(w.head.gen)
		if g == nil && w.head.gen < st.nextGen {
			w.gone = append(w.gone, part{off, end}) // over and forgotten
			return s.usable()
		}
		p, kind := g.classify(off, end)
		if kind == partNew {
			p.b = min(p.b, p.a+int64(s.extent))
			grown, err := w.append(st, p)
			if err != nil {
				return err
			}
			if !grown {
				continue // reserve let go of mu: look again
			}
		}
		switch kind {
		case partHeld:
			w.held = append(w.held, p)
		case partGone:
			w.gone = append(w.gone, p)
		case partLate:
			w.late.add(p.a, p.b)
		}
		off = p.b
	}
	return s.usable()
}

// partKind tells what a part of a write meets.
type partKind int

const (
	partNew  partKind = iota // nothing: to be stored
	partHeld                 // bytes in the spool
	partGone                 // bytes that were released, or a gap of the ledger
	partLate                 // nothing, in a generation that ended or a hole offered as a gap
)

// classify returns the first part of [off, end) that meets one thing. A nil
// generation is a new one.
func (g *gen) classify(off, end int64) (part, partKind) {
	if g == nil {
		return part{off, end}, partNew
	}
	i := g.data.from(off)
	if i < len(g.data) && g.data[i].off() <= off {
		for ; i+1 < len(g.data) && g.data[i].end() < end && g.data[i+1].off() == g.data[i].end(); i++ {
		}
		return part{off, min(end, g.data[i].end())}, partHeld
	}
	if i < len(g.data) {
		end = min(end, g.data[i].off())
	}
	switch claim := g.claim(); {
	case off < g.sealed:
		return part{off, min(end, g.sealed)}, partGone
	case !g.ended.IsZero():
		return part{off, end}, partLate
	case off < claim:
		return part{off, min(end, claim)}, partLate
	}
	return part{off, end}, partNew
}

// claim returns the end of what the sealer was offered: a hole below it may be
// in the ledger as a gap by now.
func (g *gen) claim() int64 {
	if g.intent != nil {
		return g.intent.Piece.Offset + g.intent.Piece.Span
	}
	if g.offer != nil {
		return g.offer.Offset + g.offer.Span
	}
	return g.sealed
}

// append stores a new part as one extent. False: mu was released before there
// was room, nothing is stored.
func (w *write) append(st *stream, p part) (bool, error) {
	s := w.s
	before := s.moves
	if err := s.reserve(extentSize(st.Source, int(p.b-p.a)), forIntake); err != nil {
		return false, err
	}
	if s.moves != before {
		return false, nil
	}
	if st.gen(w.head.gen) == nil {
		if err := s.mayGrow(genBytes); err != nil {
			return false, err
		}
	}
	g := st.addGen(w.head.gen)
	h := w.head
	h.off = p.a
	s.appendExtent(g, recExtent, &h, w.bytes(p))
	g.touched = h.boot
	return true, nil
}

// appendExtent adds received bytes or block MACs to the pending group and the
// tables. reserve made room.
func (s *Spool) appendExtent(g *gen, kind recordKind, h *extentHead, payload []byte) {
	s.pend = h.append(s.pend, kind, payload)
	at := place{file: s.cur, pos: s.pos, lsn: s.lsn}
	s.place(g, kind, h, int64(len(payload)), at)
}

// place is where an extent is: a group of a file.
type place struct {
	file *spoolFile
	pos  int64
	lsn  uint64 // groups that follow each other in a file have numbers that do
}

// place enters an extent into the tables. An extent that is there already has
// moved: the later place counts.
func (s *Spool) place(g *gen, kind recordKind, h *extentHead, n int64, at place) {
	t := &g.data
	if kind == recDigest {
		t = &g.macs
	}
	t.cut(h.off, h.off+n, s.dead)
	at.file.live += n
	tick := s.clock.tick(h.wall)
	if g.lastFile != at.file {
		g.lastFile = at.file
		at.file.gens += 2
	}
	if kind == recExtent {
		g.high = max(g.high, h.off+n)
		if !h.stable {
			g.unstable.add(h.off, h.off+n)
		}
	}
	if i := t.from(h.off) - 1; i >= 0 {
		r := (*t)[i]
		joins := r.end() == h.off && g.lastEnd == h.off && r.slot() == at.file.slot && r.tick() == tick
		near := at.lsn-g.lastLSN <= 1 && at.pos-r.pos() < mergeSpan
		if kind == recExtent && joins && near && r.len()+n <= maxRun {
			(*t)[i] = makeRun(r.off(), r.len()+n, r.slot(), r.pos(), tick)
			g.lastLSN, g.lastEnd = at.lsn, h.off+n
			return
		}
	}
	t.put(makeRun(h.off, n, at.file.slot, at.pos, tick))
	at.file.runs++
	if kind == recExtent {
		g.lastLSN, g.lastEnd = at.lsn, h.off+n
	}
}

// dead takes bytes off the live count of a file.
func (s *Spool) dead(slot int, n int64) { s.slots[slot].live -= n }

// Commit makes everything of the stream that was written before the call
// durable, with a sync that starts after the call unless all of it was synced
// before. One sync serves all who wait.
func (s *Spool) Commit(ctx context.Context, id vault.StreamID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.stream(id)
	if st == nil {
		return fmt.Errorf("%w: %s", ErrNoStream, id)
	}
	for _, g := range st.gens {
		if u := g.unstable.first(g.freed, g.high); u < g.high {
			g.doubt, g.doubtAt = u, s.cfg.Boot()
		}
		g.unstable = nil // bytes that come during the sync are added to a new set
	}
	if err := s.syncTo(s.last()); err != nil {
		return err
	}
	for _, g := range st.gens {
		s.trim(g)
	}
	return nil
}

// Sync makes everything written before the call durable. It commits nothing:
// clients may still send it again.
func (s *Spool) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.syncTo(s.last())
}

// Size returns the end of the furthest byte of a generation, released bytes
// included; 0 for one that is unknown.
func (s *Spool) Size(id vault.StreamID, gen int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.table.stream(id); st != nil {
		if g := st.gen(gen); g != nil {
			return g.high
		}
	}
	return 0
}

// Contiguous returns where the first hole of a generation begins: everything
// below was received or is a gap of the ledger. It differs from Size when bytes
// came out of order, and after a crash: of groups that were never synced a later
// one may have reached the disk and an earlier one not.
func (s *Spool) Contiguous(id vault.StreamID, gen int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.stream(id)
	if st == nil || st.gen(gen) == nil {
		return 0
	}
	g := st.gen(gen)
	end := g.sealed
	for i := g.data.from(end); i < len(g.data) && g.data[i].off() <= end; i++ {
		end = g.data[i].end()
	}
	return end
}
