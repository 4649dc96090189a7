package ingest

import (
	"fmt"
	"slices"
	"time"

	"logvault/vault"
)

// table is what the spool knows of its streams, and the metadata of others.
// Guarded by Spool.mu.
type table struct {
	streams map[vault.StreamID]*stream
	order   []*stream // as they were added
	kv      map[string][]byte
	secret  [32]byte // key of the block MACs

	// staged is the snapshot being replayed, nil outside of one.
	staged *table
}

func newTable() *table {
	return &table{streams: map[vault.StreamID]*stream{}, kv: map[string][]byte{}}
}

// stream is one file of a source, for life.
type stream struct {
	streamRecord
	over bool   // gets no bytes any more: forgotten with its last generation
	gens []*gen // by number
}

// gen is one generation of a stream.
type gen struct {
	genRecord
	data     runs          // bytes held, sealed or not
	macs     runs          // MACs of released blocks: 8 bytes of block n are at 8n
	unstable spans         // received, not yet covered by COMMIT or FILE_SYNC
	doubt    int64         // from here on COMMIT was answered, perhaps to nobody
	doubtAt  time.Duration // boot time of that answer, or of our start
	intent   *vault.Intent
	offer    *vault.Piece // offered by Due, not released
	fresh    blockMACs    // of the offered piece, made by Read
	ahead    blockMACs    // of the piece after it, if that was read already

	lastLSN  uint64        // group of the last extent, to merge runs
	lastEnd  int64         // end of the last extent
	lastFile *spoolFile    // where it went
	touched  time.Duration // boot time of the last write
	oldestAt int64         // sealed+1 when oldest was noted
	oldest   time.Duration // boot time since when the byte at sealed waits
	holeAt   int64         // where the first hole begins
	hole     time.Duration // boot time since when it does
}

// stream returns a stream, or nil.
func (t *table) stream(id vault.StreamID) *stream { return t.streams[id] }

// addStream adds a stream that is not in the table.
func (t *table) addStream(info vault.StreamInfo) *stream {
	st := &stream{streamRecord: streamRecord{StreamInfo: info, prev: -1}}
	t.streams[info.ID] = st
	t.order = append(t.order, st)
	return st
}

// gen returns a generation, or nil.
func (st *stream) gen(n int64) *gen {
	i, ok := st.find(n)
	if !ok {
		return nil
	}
	return st.gens[i]
}

func (st *stream) find(n int64) (int, bool) {
	return slices.BinarySearchFunc(st.gens, n, func(g *gen, n int64) int { return int(g.genKey.gen - n) })
}

// addGen returns generation n, which it adds if absent.
func (st *stream) addGen(n int64) *gen {
	i, ok := st.find(n)
	if !ok {
		g := &gen{genRecord: genRecord{genKey: genKey{st.ID, n}}, holeAt: -1}
		st.gens = slices.Insert(st.gens, i, g)
	}
	return st.gens[i]
}

// dropGen forgets generation n.
func (st *stream) dropGen(n int64) {
	if i, ok := st.find(n); ok {
		st.gens = slices.Delete(st.gens, i, i+1)
	}
	st.nextGen = max(st.nextGen, n+1)
}

// newest returns the number that a new generation gets.
func (st *stream) newest() int64 {
	if n := len(st.gens); n > 0 {
		return max(st.nextGen, st.gens[n-1].genKey.gen+1)
	}
	return st.nextGen
}

// apply replays one metadata record. Records set absolute values: applying one
// again changes nothing.
func (t *table) apply(kind recordKind, body []byte) error {
	switch kind {
	case recSnapBegin:
		t.staged = newTable()
		return nil
	case recSnapEnd:
		if t.staged != nil {
			t.adopt(t.staged)
		}
		t.staged = nil
		return nil
	}
	if t.staged != nil {
		return t.staged.set(kind, body)
	}
	return t.set(kind, body)
}

func (t *table) set(kind recordKind, body []byte) error {
	switch kind {
	case recStream:
		r, err := parseStream(body)
		if err != nil {
			return err
		}
		st := t.streams[r.ID]
		if st == nil {
			st = t.addStream(r.StreamInfo)
		}
		st.streamRecord = r
	case recGen:
		r, err := parseGen(body)
		if err != nil {
			return err
		}
		if st := t.streams[r.stream]; st != nil {
			st.addGen(r.gen).genRecord = r
		}
	case recOver:
		d := decoder{b: body}
		if st := t.streams[d.stream()]; st != nil {
			st.over = true
		}
		return d.end("over")
	case recForget, recDone:
		k, err := parseGenKey(body)
		if err != nil {
			return err
		}
		t.forget(kind, k)
	case recSet, recUnset:
		kv, err := parseKV(kind, body)
		if err != nil {
			return err
		}
		t.setKV(kv)
	case recIntent:
		in, err := parseIntent(body)
		if err != nil {
			return err
		}
		if st := t.streams[in.Piece.Stream]; st != nil {
			st.addGen(in.Piece.Gen).intent = in
		}
	case recSecret:
		if len(body) != len(t.secret) {
			return fmt.Errorf("spool secret: %d bytes, expected %d: %w", len(body), len(t.secret), errDamaged)
		}
		t.secret = [32]byte(body)
	default:
		return fmt.Errorf("spool record of kind %d: %w", kind, errDamaged)
	}
	return nil
}

func (t *table) forget(kind recordKind, k genKey) {
	st := t.streams[k.stream]
	if st == nil {
		return
	}
	if kind == recForget {
		st.dropGen(k.gen)
	} else if g := st.gen(k.gen); g != nil {
		g.intent = nil
	}
}

// dropOver forgets the streams that are over and have no generation left, and
// with each of them the stream of its conflicts. A crash before the next
// snapshot brings them back until the end of the replay.
func (t *table) dropOver() {
	t.order = slices.DeleteFunc(t.order, func(st *stream) bool {
		over := st.over
		if (st.of != vault.StreamID{}) {
			of := t.streams[st.of]
			over = of == nil || of.over && len(of.gens) == 0
		}
		if !over || len(st.gens) > 0 {
			return false
		}
		if other := t.streams[st.conflict]; other != nil && len(other.gens) > 0 {
			return false // it names the stream that those are about
		}
		delete(t.streams, st.ID)
		return true
	})
}

func (t *table) setKV(kv vault.KV) {
	if kv.Value == nil {
		delete(t.kv, kv.Key)
	} else {
		t.kv[kv.Key] = kv.Value
	}
}

// adopt replaces the table by a whole snapshot. Runs are not part of it: those
// of generations that the snapshot knows stay, the others were released.
func (t *table) adopt(snap *table) {
	for _, st := range t.order {
		to := snap.streams[st.ID]
		if to == nil {
			continue
		}
		for _, g := range st.gens {
			if kept := to.gen(g.genKey.gen); kept != nil {
				rec, intent := kept.genRecord, kept.intent
				*kept = *g
				kept.genRecord, kept.intent = rec, intent
			}
		}
	}
	t.streams, t.order, t.kv, t.secret = snap.streams, snap.order, snap.kv, snap.secret
}

// snapshot writes the whole table as records. Runs follow from the extents.
func (t *table) snapshot(w *groupWriter) error {
	w.meta = true
	add := func(write func([]byte) []byte) error { return w.add(write) }
	mark := func(kind recordKind) error {
		return add(func(b []byte) []byte { return appendRecord(b, kind, func(b []byte) []byte { return b }) })
	}
	if err := mark(recSnapBegin); err != nil {
		return err
	}
	if err := add(t.appendSecret); err != nil {
		return err
	}
	for _, st := range t.order {
		if err := add(st.streamRecord.append); err != nil {
			return err
		}
		if st.over {
			if err := add(st.appendOver); err != nil {
				return err
			}
		}
		for _, g := range st.gens {
			if err := add(g.appendState); err != nil {
				return err
			}
		}
	}
	for k, v := range t.kv {
		if err := add(func(b []byte) []byte { return appendKV(b, vault.KV{Key: k, Value: v}) }); err != nil {
			return err
		}
	}
	if err := mark(recSnapEnd); err != nil {
		return err
	}
	err := w.flush()
	w.meta = false
	return err
}

func (t *table) appendSecret(b []byte) []byte {
	return appendRecord(b, recSecret, func(b []byte) []byte { return append(b, t.secret[:]...) })
}

func (st *stream) appendOver(b []byte) []byte {
	return appendRecord(b, recOver, func(b []byte) []byte { return append(b, st.ID[:]...) })
}

// appendState writes the records of a generation.
func (g *gen) appendState(b []byte) []byte {
	b = g.genRecord.append(b)
	if g.intent != nil {
		b = appendIntent(b, g.intent)
	}
	return b
}

// mayGrow reports whether the table can take n bytes more. A snapshot of it has
// to fit a file, or no file could be begun any more; so half of one is the
// limit, and the other half is for the records of sealing. Who would exceed it
// is told that the spool is full. mu is held.
func (s *Spool) mayGrow(n int) error {
	limit := s.tableLimit()
	if s.tableBytes+int64(n) > limit {
		s.tableBytes = s.table.snapshotSize() // some of what was added replaced other
	}
	full := s.tableBytes+int64(n) > limit
	if full != s.tableFull {
		s.tableFull = full
		s.cfg.Log.Error("spool's table of metadata", "full", full, "bytes", s.tableBytes)
	}
	if full {
		return fmt.Errorf("metadata of %d bytes, expected at most %d: %w", s.tableBytes+int64(n), limit, vault.ErrFull)
	}
	s.tableBytes += int64(n)
	return nil
}

// tableLimit is what a snapshot of the table may take.
func (s *Spool) tableLimit() int64 { return s.cfg.FileBytes / 2 }

// Sizes of a snapshot's records without the names and values in them, at most.
const (
	streamBytes = 168
	genBytes    = 128
	kvBytes     = recordHead + 4
)

// snapshotSize estimates the bytes of a snapshot.
func (t *table) snapshotSize() int64 {
	n := int64(1024)
	for _, st := range t.order {
		n += streamBytes + int64(len(st.Name))
		for _, g := range st.gens {
			n += genBytes
			if g.intent != nil {
				n += 256 + int64(len(g.intent.Entry)+len(g.intent.Piece.Name))
			}
		}
	}
	for k, v := range t.kv {
		n += int64(len(k)+len(v)) + kvBytes
	}
	return n
}
