package ingest

import (
	"context"

	"logvault/vault"
)

// Ahead is how far a ledger has a stream.
type Ahead struct {
	Prev int64        // index of the stream's last segment or gap entry, -1: none
	Next int64        // a generation that the ledger does not have, nor any after it
	Gens []SealedPart // those that it has
}

// SealedPart is how far a ledger has a generation.
type SealedPart struct {
	Gen    int64
	End    int64 // offset after its last byte or gap
	Closed bool  // nothing follows
	Joined bool  // the last line goes on
}

// Overtake tells a spool that is older than its ledger, such as one from a
// backup, how far the ledger has each stream, so that nothing is sealed twice:
// what it has leaves the spool, with the intents for it; what it lacks stays and
// is due. It returns how many bytes left. Again it changes nothing. Only
// `recover` calls it, before anything is written to the spool or sealed.
//
//	per stream: its records, fdatasync   | crash before: as it was, or a part is done;
//	                                     | after: done for this stream
func (s *Spool) Overtake(ctx context.Context, ledger func(vault.StreamID) Ahead) (left int64, err error) {
	s.mu.Lock()
	var all []*stream
	all = append(all, s.table.order...)
	s.mu.Unlock()
	for _, st := range all {
		n, err := s.overtakeOne(ctx, st, ledger(st.ID))
		left += n
		if err != nil {
			return left, err
		}
	}
	return left, nil
}

func (s *Spool) overtakeOne(ctx context.Context, st *stream, to Ahead) (left int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reserve(512+len(st.Name), forRecords); err != nil {
		return 0, err
	}
	st.prev, st.nextGen = max(st.prev, to.Prev), max(st.nextGen, to.Next)
	s.appendMeta(st.streamRecord.append)
	for _, p := range to.Gens { // years of them: only what the spool knows is written
		g := st.gen(p.Gen)
		if g == nil {
			continue
		}
		if err := s.reserve(512, forRecords); err != nil {
			return left, err
		}
		left += s.pass(g, p)
	}
	return left, s.syncTo(s.last())
}

// pass moves a generation forward to where the ledger has it. mu is held.
func (s *Spool) pass(g *gen, p SealedPart) (left int64) {
	if g.intent != nil && g.intent.Piece.Offset < p.End {
		g.intent = nil
		s.appendMeta(func(b []byte) []byte { return appendForget(b, recDone, g.genKey) })
	}
	if p.End > g.sealed {
		for _, r := range g.data[g.data.from(g.sealed):] {
			left += max(0, min(r.end(), p.End)-max(r.off(), g.sealed))
		}
		g.data.cut(g.freed, p.End, s.dead)
		g.unstable.removeBelow(p.End)
		g.sealed, g.freed, g.high, g.joined = p.End, p.End, max(g.high, p.End), p.Joined
		g.offer, g.fresh, g.ahead = nil, blockMACs{}, blockMACs{}
	}
	if p.Closed && g.ended.IsZero() {
		g.ended, g.unstable = s.cfg.Now(), nil
	}
	s.appendMeta(g.genRecord.append)
	return left
}
