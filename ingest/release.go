package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"logvault/vault"
)

const (
	tailBytes  = 64 << 10       // kept of a live generation below what is sealed
	keepFor    = 24 * time.Hour // uncommitted bytes, block MACs and ended generations
	maxEntry   = 64 << 10       // of the ledger
	macsRecord = 4 << 10        // bytes of MACs per extent: those of 2 MiB
)

// Intend records durably that a piece is about to be stored under the given
// ledger entry. From then on, also after a restart, Due offers exactly this
// piece until Release. Intending a piece again replaces the entry.
func (s *Spool) Intend(ctx context.Context, in vault.Intent) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(in.Entry) > maxEntry {
		return fmt.Errorf("intent: entry of %d bytes, expected at most %d", len(in.Entry), maxEntry)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reserve(512+len(in.Entry)+len(in.Piece.Name), forRecords); err != nil {
		return fmt.Errorf("intent: %w", err)
	}
	g, err := s.offered(in.Piece)
	if err != nil {
		return fmt.Errorf("intent: %w", err)
	}
	in.Entry = slices.Clone(in.Entry)
	g.intent, g.offer = &in, nil
	s.appendMeta(func(b []byte) []byte { return appendIntent(b, &in) })
	return s.syncTo(s.last())
}

// Pending returns the intents that are not released, stream by stream.
func (s *Spool) Pending() []vault.Intent {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []vault.Intent
	for _, st := range s.table.order {
		for _, g := range st.gens {
			if g.intent != nil {
				out = append(out, *g.intent)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b vault.Intent) int {
		return strings.Compare(string(a.Piece.Stream[:]), string(b.Piece.Stream[:]))
	})
	return out
}

// Release says that a piece is in the ledger at index. Its bytes are given up,
// except for what must stay to recognise repetitions: the last 64 KiB, what is
// not committed and what the latest COMMIT covered, while the generation is
// live, and the MACs of the rest for 24 hours. Releasing again changes nothing.
//
// The record need not be durable on return: after a crash the intent is pending
// again, found in the ledger and released again. No file is removed before the
// records that make it unnecessary are on the disk.
func (s *Spool) Release(ctx context.Context, p vault.Piece, index int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.stream(p.Stream)
	if st == nil {
		return fmt.Errorf("release: %w: %s", ErrNoStream, p.Stream)
	}
	for need := 0; need < 1024+len(st.Name); { // it may be renamed while we wait
		need = 1024 + len(st.Name)
		if err := s.reserve(need, forRecords); err != nil {
			return fmt.Errorf("release: %w", err)
		}
	}
	g := st.gen(p.Gen)
	if g == nil || p.Offset+p.Span <= g.sealed {
		return nil
	}
	if p.Offset != g.sealed || p.Offset+p.Span > g.high {
		return fmt.Errorf("release: stream %s: piece from %d to %d, expected from %d to at most %d",
			p.Stream, p.Offset, p.Offset+p.Span, g.sealed, g.high)
	}
	fresh := g.fresh
	s.tight = s.crowded()
	g.sealed, g.joined, st.prev = p.Offset+p.Span, p.Cut == "long", index
	g.intent, g.offer, g.fresh, g.ahead = nil, nil, g.ahead, blockMACs{}
	s.trim(g)
	s.appendMeta(func(b []byte) []byte { return appendForget(b, recDone, g.genKey) })
	s.appendMeta(st.streamRecord.append)
	s.appendMeta(g.genRecord.append)
	if err := s.keepMACs(g, fresh); err != nil {
		return err
	}
	return s.tidy()
}

// trim gives up the bytes of g that are sealed and no longer needed to
// recognise repetitions. mu is held.
func (s *Spool) trim(g *gen) {
	keep, old := g.sealed, s.clock.tick(s.cfg.Now().Add(-keepFor))
	if g.ended.IsZero() {
		keep = max(0, g.sealed-tailBytes)
		if i := g.data.from(g.sealed - 1); s.tight || i < len(g.data) && g.data[i].tick() < old {
			// A client that appends repeats at most the page it appends to.
			keep = g.sealed
		}
		// In a crowded spool what is sealed makes room for what the client waits
		// to write before it commits; the block MACs stay.
		if u := g.unstable.first(g.freed, keep); u < keep && !s.tight {
			if i := g.data.from(u); i < len(g.data) && g.data[i].tick() >= old {
				keep = u
			}
		}
		// If we die now, the client that had no answer sends again what its last
		// COMMIT covered, in writes that need not begin or end at a page.
		if g.doubt < keep && !s.tight && s.cfg.Boot()-g.doubtAt < silence {
			keep = max(g.doubt, g.freed)
		}
		keep &^= blockSize - 1
	}
	if keep > g.freed {
		g.data.cut(g.freed, keep, s.dead)
		g.unstable.removeBelow(keep)
		g.freed = keep
	}
	for len(g.macs) > 0 && (g.macs[0].tick() < old || !g.ended.IsZero()) {
		g.macs.cut(g.macs[0].off(), g.macs[0].end(), s.dead)
	}
}

// keepMACs stores the MACs of a released piece: a five-hundredth of what the
// release gives back, so they may use the reserve. They are a convenience for
// repetitions: when there is no room, the repetition will be a conflict.
func (s *Spool) keepMACs(g *gen, b blockMACs) error {
	for len(b.macs) > 0 && g.ended.IsZero() {
		n := min(len(b.macs), macsRecord, s.extent)
		if err := s.reserve(extentSize("", n), forRecords); err != nil {
			return orFull(err)
		}
		h := extentHead{genKey: g.genKey, off: b.first * macSize, wall: s.cfg.Now(), boot: g.touched, stable: true}
		s.appendExtent(g, recDigest, &h, b.macs[:n])
		b.first, b.macs = b.first+int64(n/macSize), b.macs[n:]
	}
	return nil
}

// orFull drops an error that says no more than that there is no room.
func orFull(err error) error {
	if errors.Is(err, vault.ErrFull) {
		return nil
	}
	return err
}
