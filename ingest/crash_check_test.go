package ingest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/vault"
)

// seal takes what is due, as the sealer does, and stops anywhere.
func (m *model) seal(all bool) error {
	pieces, err := m.s.Due(ctx, vault.DueOptions{Now: m.wall, All: all, CutBytes: 20000, SameDay: sameUTCDay})
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if err := m.sealPiece(p); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) sealPiece(p vault.Piece) error {
	var data []byte
	if p.Kind == vault.PieceData {
		var err error
		if data, err = m.s.Read(ctx, p, nil); err != nil {
			return err
		}
	}
	in := vault.Intent{Piece: p, Entry: fmt.Appendf(nil, "entry at %d", p.Offset), Size: int64(len(m.ledger))}
	if err := m.s.Intend(ctx, in); err != nil {
		return err
	}
	m.ledger = append(m.ledger, sealed{p, slices.Clone(data)})
	return m.s.Release(ctx, p, int64(len(m.ledger)-1))
}

// finish lets the clients commit, ends all generations, seals the rest and
// compares the ledger with what was acknowledged.
func (m *model) finish() error {
	m.fuse = -1
	for id, g := range m.gen {
		if err := m.commit(id); err != nil {
			return err
		}
		if err := m.untilRoom(func() error { return m.s.EndGeneration(ctx, id, g) }); err != nil {
			return err
		}
	}
	for {
		before := len(m.ledger)
		if err := m.seal(true); err != nil {
			return err
		}
		if len(m.ledger) == before {
			break
		}
	}
	if st := m.s.Stats(); st.Damaged > 0 {
		return fmt.Errorf("a power cut was taken for damage: %+v", st)
	}
	if err := m.check(); err != nil {
		return err
	}
	return m.forgotten()
}

// forgotten checks that two days later, and through a restart, the streams that
// are over are gone, with their conflicts, and no others.
func (m *model) forgotten() error {
	m.advance(50 * time.Hour)
	for range 2 { // the clock may go back once
		if err := m.seal(true); err != nil {
			return err
		}
		m.boot += time.Hour
	}
	for range 2 {
		for _, id := range m.over {
			if st := m.s.table.stream(id); st != nil {
				return fmt.Errorf("stream %s is over and still there: %+v", id, st)
			}
		}
		for _, st := range m.s.table.order {
			if _, live := m.gen[st.ID]; !live && m.s.table.stream(st.of) == nil {
				return fmt.Errorf("stream %s is of nobody", st.ID)
			}
		}
		if err := m.s.Close(); err != nil {
			return err
		}
		if err := m.restart(); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) untilRoom(do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if !errors.Is(err, vault.ErrFull) || try == 5 {
			return err
		}
		if err := m.seal(true); err != nil {
			return err
		}
		m.advance(2 * time.Second)
	}
}

// check compares the ledger with the acknowledged writes.
func (m *model) check() error {
	type place struct {
		genKey
		off int64
	}
	prev := map[vault.StreamID]int64{}
	next := map[genKey]int64{}
	main := map[place]byte{}
	apart := map[place][]byte{}
	for i, e := range m.ledger {
		p := e.piece
		k := genKey{p.Stream, p.Gen}
		if last, ok := prev[p.Stream]; ok && p.Prev != last || !ok && p.Prev != -1 {
			return fmt.Errorf("entry %d: prev %d, expected %d", i, p.Prev, last)
		}
		prev[p.Stream] = int64(i)
		if p.Offset != next[k] {
			return fmt.Errorf("entry %d: offset %d, expected %d", i, p.Offset, next[k])
		}
		next[k] += p.Span
		if p.Kind == vault.PieceData && int64(len(e.text)) != p.Span {
			return fmt.Errorf("entry %d: %d bytes, expected %d", i, len(e.text), p.Span)
		}
		for j, c := range e.text {
			if p.Conflict != nil {
				at := place{genKey{p.Conflict.Stream, p.Conflict.Gen}, p.Conflict.Offset + int64(j)}
				apart[at] = append(apart[at], c)
				m.conflicts++
			} else {
				main[place{k, p.Offset + int64(j)}] = c
			}
		}
	}
	for _, w := range m.sent {
		if !w.durable {
			continue
		}
		for j, c := range w.data {
			at := place{w.key, w.off + int64(j)}
			if got, ok := main[at]; (!ok || got != c) && !slices.Contains(apart[at], c) {
				return fmt.Errorf("stream %s gen %d offset %d: acknowledged byte %q is nowhere (in its place: %q, %v)", at.stream, at.gen, at.off, c, got, ok)
			}
		}
	}
	return nil
}
