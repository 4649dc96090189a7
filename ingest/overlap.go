package ingest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"logvault/vault"
)

// blockSize is the unit of what is remembered of released bytes: an 8-byte MAC
// per block of 4 KiB, the page that a client extends its writes to.
const (
	blockSize = 4096
	macSize   = 8
)

// compare proves that the overlapping parts repeat what is stored, and archives
// apart what it cannot prove.
func (w *write) compare() error {
	for _, p := range w.held {
		if err := w.compareHeld(p); err != nil {
			return err
		}
	}
	for _, p := range w.gone {
		if err := w.compareGone(p); err != nil {
			return err
		}
	}
	for _, p := range w.late {
		if err := w.archive(part{p[0], p[1]}); err != nil {
			return err
		}
	}
	return nil
}

// compareHeld compares a part with bytes of the spool, extent by extent, so that
// what repeats a conflict is cut where the conflict was.
func (w *write) compareHeld(p part) error {
	seen := p.a
	g := w.gen()
	if g == nil {
		w.late.add(p.a, p.b)
		return nil
	}
	err := w.s.readHeld(g, recExtent, p.a, p.b, func(h *extentHead, payload []byte) error {
		if h.off > seen {
			w.late.add(seen, h.off)
		}
		seen = h.off + int64(len(payload))
		if !bytes.Equal(payload, w.bytes(part{h.off, seen})) {
			w.late.add(h.off, seen)
		}
		return nil
	})
	if err := w.s.unread(err); err != nil {
		return err
	}
	if seen < p.b {
		w.late.add(seen, p.b) // not readable, or released meanwhile: not proven
	}
	return nil
}

// gen returns the generation that is written to, nil if it was forgotten.
func (w *write) gen() *gen {
	if st := w.s.table.stream(w.head.stream); st != nil {
		return st.gen(w.head.gen)
	}
	return nil
}

// compareGone compares a part with the MACs of released blocks. Only whole
// blocks can be proven.
func (w *write) compareGone(p part) error {
	g := w.gen()
	for b := p.a; b < p.b; {
		block := b / blockSize
		end := min(p.b, (block+1)*blockSize)
		same := false
		if g != nil && b%blockSize == 0 && end-b == blockSize {
			var err error
			if same, err = w.sameBlock(g, block, w.bytes(part{b, end})); err != nil {
				return err
			}
		}
		if !same {
			w.late.add(b, end)
		}
		b = end
	}
	return nil
}

// sameBlock reports whether data has the MAC that is remembered for a block.
func (w *write) sameBlock(g *gen, block int64, data []byte) (bool, error) {
	var got []byte
	err := w.s.readHeld(g, recDigest, block*macSize, (block+1)*macSize, func(h *extentHead, payload []byte) error {
		got = append(got, payload...)
		return nil
	})
	if err := w.s.unread(err); err != nil {
		return false, err
	}
	m := newBlockMAC(w.s.table.secret[:], g.genKey)
	return hmac.Equal(got, m.sum(block, data)), nil
}

// archive stores a part as one closed generation of the stream's conflict
// stream, unless the same bytes were archived for the same place before.
func (w *write) archive(p part) error {
	for ; p.b-p.a > int64(w.s.extent); p.a += int64(w.s.extent) {
		if err := w.archiveExtent(part{p.a, p.a + int64(w.s.extent)}); err != nil {
			return err
		}
	}
	return w.archiveExtent(p)
}

func (w *write) archiveExtent(p part) error {
	s, data := w.s, w.bytes(p)
	var other *stream
	for moves := ^s.moves; moves != s.moves; { // the stream may be forgotten while mu is released
		var err error
		if other, err = w.conflictStream(); err != nil {
			return err
		}
		moves = s.moves
		if err := s.reserve(extentSize(other.Source, len(data))+genBytes, forIntake); err != nil {
			return err
		}
	}
	mac := conflictMAC(s.table.secret[:], data)
	if other.holdsConflict(w.head.gen, p, mac) {
		return nil
	}
	if err := s.mayGrow(genBytes); err != nil {
		return err
	}
	g := other.addGen(other.newest())
	h := w.head
	h.genKey, h.off = g.genKey, 0
	s.appendExtent(g, recExtent, &h, data)
	g.ended, g.late, g.ofGen, g.ofOff, g.mac = s.cfg.Now(), true, w.head.gen, p.a, mac
	g.unstable = nil
	s.appendMeta(g.genRecord.append)
	s.conflicts++
	s.cfg.Log.Warn("conflicting or late bytes archived apart", "stream", w.head.stream, "gen", w.head.gen, "offset", p.a, "bytes", len(data))
	return nil
}

// conflictStream returns the stream that takes the conflicts of the one that is
// written to. A new one is on the disk before it takes any.
func (w *write) conflictStream() (*stream, error) {
	s := w.s
	for need := 0; ; {
		st := s.table.stream(w.head.stream)
		if st == nil {
			return nil, fmt.Errorf("%w: %s", ErrNoStream, w.head.stream)
		}
		if other := s.table.stream(st.conflict); other != nil {
			return other, nil
		}
		if want := 1024 + 2*len(st.Name); need < want { // it may be renamed while we wait
			need = want
			if err := s.reserve(need, forIntake); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.mayGrow(streamBytes + len(st.Name)); err != nil {
			return nil, err
		}
		id, err := vault.NewStreamID(s.cfg.Random)
		if err != nil {
			return nil, err
		}
		info := st.StreamInfo
		info.ID = id
		other := s.table.addStream(info)
		other.of, st.conflict = st.ID, id
		s.appendMeta(other.streamRecord.append)
		s.appendMeta(st.streamRecord.append)
		if err := s.syncTo(s.last()); err != nil {
			return nil, err
		}
	}
}

// holdsConflict reports whether the same bytes are archived for the same place.
func (st *stream) holdsConflict(gen int64, p part, mac [16]byte) bool {
	for _, g := range st.gens {
		if g.late && g.ofGen == gen && g.ofOff == p.a && g.high == p.b-p.a && g.mac == mac {
			return true
		}
	}
	return false
}

// conflictMAC identifies archived bytes for as long as their generation is remembered.
func conflictMAC(secret, data []byte) [16]byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("conflict\n"))
	m.Write(data)
	return [16]byte(m.Sum(nil)[:16])
}

// blockMAC makes the MACs of a generation's blocks: the first 8 bytes of
// HMAC-SHA-256 over stream, generation, block number and bytes.
type blockMAC struct {
	h    hash.Hash
	head [32]byte
	out  [sha256.Size]byte
}

func newBlockMAC(secret []byte, k genKey) *blockMAC {
	m := &blockMAC{h: hmac.New(sha256.New, secret)}
	copy(m.head[:], k.append(nil))
	return m
}

func (m *blockMAC) sum(block int64, data []byte) []byte {
	binary.BigEndian.PutUint64(m.head[24:], uint64(block))
	m.h.Reset()
	m.h.Write(m.head[:])
	m.h.Write(data)
	return m.h.Sum(m.out[:0])[:macSize]
}

// blockMACs are the MACs of consecutive blocks.
type blockMACs struct {
	first int64 // block number
	macs  []byte
}

// pieceMACs makes the MACs of the whole blocks of a piece that is being read.
type pieceMACs struct {
	m    *blockMAC
	part []byte // of the block that at is in
	at   int64
	done blockMACs
}

// add continues with the bytes at off. Blocks that are not whole or do not
// follow the others are left out.
func (p *pieceMACs) add(off int64, data []byte) {
	if off != p.at {
		p.part = p.part[:0]
	}
	p.at = off + int64(len(data))
	if len(p.part) == 0 {
		skip := min(-off&(blockSize-1), int64(len(data)))
		data, off = data[skip:], off+skip
	}
	for len(data) > 0 {
		if len(p.part) == 0 && len(data) >= blockSize {
			p.block(off/blockSize, data[:blockSize])
			data, off = data[blockSize:], off+blockSize
			continue
		}
		n := min(blockSize-len(p.part), len(data))
		p.part = append(p.part, data[:n]...)
		data, off = data[n:], off+int64(n)
		if len(p.part) == blockSize {
			p.block((off-1)/blockSize, p.part)
			p.part = p.part[:0]
		}
	}
}

func (p *pieceMACs) block(n int64, data []byte) {
	next := p.done.first + int64(len(p.done.macs)/macSize)
	if len(p.done.macs) == 0 {
		p.done.first, next = n, n
	}
	if n == next {
		p.done.macs = append(p.done.macs, p.m.sum(n, data)...)
	}
}
