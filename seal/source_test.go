package seal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"

	"logvault/vault"
)

// run names a stream generation.
type run struct {
	stream vault.StreamID
	gen    int64
}

func runOf(p vault.Piece) run { return run{p.Stream, p.Gen} }

// part is a piece together with its bytes (none for a hole).
type part struct {
	piece vault.Piece
	text  []byte
}

// memSource is a Source in memory that keeps the contract and no more: intents
// are durable at once, releases only with the next intent. It fails a test's
// assumption loudly rather than quietly when the sealer breaks the contract.
type memSource struct {
	parts map[vault.StreamID][]part // all generations of a stream, one after the other
	order []vault.StreamID

	state    sourceState
	durable  sourceState // at the last Intend
	released []release   // since then; a crash keeps the first few of them

	before func(op string) error // asked before each operation that changes the state
}

type release struct {
	stream vault.StreamID
	index  int64
}

type sourceState struct {
	next    map[vault.StreamID]int   // parts released
	prev    map[vault.StreamID]int64 // ledger index of the last of them
	intents map[vault.StreamID]vault.Intent
}

func (s sourceState) clone() sourceState {
	return sourceState{maps.Clone(s.next), maps.Clone(s.prev), maps.Clone(s.intents)}
}

func (s sourceState) release(r release) {
	s.next[r.stream]++
	s.prev[r.stream] = r.index
	delete(s.intents, r.stream)
}

func newMemSource(parts ...part) *memSource {
	s := &memSource{parts: map[vault.StreamID][]part{}, before: func(string) error { return nil },
		state: sourceState{map[vault.StreamID]int{}, map[vault.StreamID]int64{}, map[vault.StreamID]vault.Intent{}}}
	s.add(parts...)
	s.durable = s.state.clone()
	return s
}

// add receives more.
func (s *memSource) add(parts ...part) {
	for _, p := range parts {
		id := p.piece.Stream
		if len(s.parts[id]) == 0 {
			s.order = append(s.order, id)
		}
		s.parts[id] = append(s.parts[id], p)
	}
}

// crashClone is the source as a crash at this moment could leave it.
func (s *memSource) crashClone(rng *rand.Rand) *memSource {
	c := &memSource{parts: s.parts, order: s.order, before: func(string) error { return nil }, state: s.durable.clone()}
	for _, r := range s.released[:rng.IntN(len(s.released)+1)] {
		c.state.release(r)
	}
	c.durable = c.state.clone()
	return c
}

func (s *memSource) Due(_ context.Context, o vault.DueOptions) ([]vault.Piece, error) {
	if err := s.before("due"); err != nil {
		return nil, err
	}
	var due []vault.Piece
	for _, id := range s.order {
		n := s.state.next[id]
		if n == len(s.parts[id]) {
			continue
		}
		p := s.parts[id][n].piece
		if !o.SameDay(p.Source, p.Record, p.Record) {
			return nil, errors.New("a moment is not on its own day")
		}
		p.Prev = -1
		if n > 0 {
			p.Prev = s.state.prev[id]
		}
		due = append(due, p)
	}
	return due, nil
}

// After knows all that is to come.
func (s *memSource) After(_ context.Context, p vault.Piece, _ vault.DueOptions) (*vault.Piece, error) {
	n := s.index(p) + 1
	if n == len(s.parts[p.Stream]) {
		return nil, nil
	}
	next := s.parts[p.Stream][n].piece
	next.Prev = -1
	return &next, nil
}

func (s *memSource) Read(_ context.Context, p vault.Piece, buf []byte) ([]byte, error) {
	if err := s.before("read"); err != nil {
		return nil, err
	}
	return append(buf[:0], s.parts[p.Stream][s.index(p)].text...), nil
}

// index returns where p stands among the parts not yet released.
func (s *memSource) index(p vault.Piece) int {
	for n := s.state.next[p.Stream]; n < len(s.parts[p.Stream]); n++ {
		if q := s.parts[p.Stream][n].piece; q.Gen == p.Gen && q.Offset == p.Offset && q.Span == p.Span {
			return n
		}
	}
	panic(describe(p) + " was never offered or is released")
}

// at returns the next part of p's stream, which p must be.
func (s *memSource) at(p vault.Piece) part {
	id := p.Stream
	n := s.state.next[id]
	if n == len(s.parts[id]) || s.parts[id][n].piece.Gen != p.Gen || s.parts[id][n].piece.Offset != p.Offset || s.parts[id][n].piece.Span != p.Span {
		panic(fmt.Sprintf("%s is not the next piece of its stream", describe(p)))
	}
	return s.parts[id][n]
}

func (s *memSource) Intend(_ context.Context, in vault.Intent) error {
	if err := s.before("intend"); err != nil {
		return err
	}
	s.at(in.Piece)
	s.state.intents[in.Piece.Stream] = in
	s.durable, s.released = s.state.clone(), nil
	return nil
}

func (s *memSource) Release(_ context.Context, p vault.Piece, index int64) error {
	if err := s.before("release"); err != nil {
		return err
	}
	s.at(p)
	if _, ok := s.state.intents[p.Stream]; !ok {
		panic(describe(p) + " is released without an intent")
	}
	r := release{p.Stream, index}
	s.state.release(r)
	s.released = append(s.released, r)
	return nil
}

func (s *memSource) Pending() []vault.Intent {
	var all []vault.Intent
	for _, id := range s.order {
		if in, ok := s.state.intents[id]; ok {
			all = append(all, in)
		}
	}
	return all
}

// left returns how many parts are not released.
func (s *memSource) left() int {
	n := 0
	for id, parts := range s.parts {
		n += len(parts) - s.state.next[id]
	}
	return n
}
