package ingest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

var (
	crashSeeds = flag.Int("crash.seeds", defaultSeeds, "seeds of the crash test")
	crashFirst = flag.Uint64("crash.first", 1, "first seed of the crash test")
	crashOps   = flag.Int("crash.ops", 60, "operations per seed")
)

// TestCrash runs a spool under a model of its clients and of the sealer, cuts
// the power (or fails one operation) at random points, and checks at the end
// that every byte that was acknowledged as durable came out: once and in order
// in its generation, or archived in the conflict stream.
func TestCrash(t *testing.T) {
	var crashes, conflicts, full, over atomic.Int64
	workers := 2
	next := make(chan uint64)
	done := make(chan error)
	for range workers {
		go func() {
			var err error
			for seed := range next {
				if err != nil {
					continue
				}
				m := newModel(seed)
				ops := *crashOps
				if seed%10 == 0 {
					ops *= 5 // long enough to fill the spool
					m.cfg.MaxBytes = 5 * m.cfg.FileBytes
				}
				if err = m.run(ops); err != nil {
					err = fmt.Errorf("seed %d: %w (repeat: go test -run TestCrash -crash.first %d -crash.seeds 1)", seed, err, seed)
				}
				crashes.Add(int64(m.crashes))
				conflicts.Add(int64(m.conflicts))
				full.Add(int64(m.full))
				over.Add(int64(len(m.over)))
			}
			done <- err
		}()
	}
	for i := range *crashSeeds {
		next <- *crashFirst + uint64(i)
	}
	close(next)
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d seeds: %d crashes, %d conflicts, %d times full, %d streams over", *crashSeeds, crashes.Load(), conflicts.Load(), full.Load(), over.Load())
	if !t.Failed() && *crashSeeds >= 200 && (crashes.Load() == 0 || conflicts.Load() == 0 || full.Load() == 0 || over.Load() == 0) {
		t.Error("the model did not reach what it is for")
	}
}

// TestFaults is the same with single operations of the disk that fail, carried
// out or not, instead of power cuts: the process stops, the power fails, the new
// process replays, the clients send again.
func TestFaults(t *testing.T) {
	ops := []vfs.Op{vfs.OpOpen, vfs.OpOpenRW, vfs.OpCreate, vfs.OpRemove, vfs.OpReadDir, vfs.OpSyncDir,
		vfs.OpWrite, vfs.OpRead, vfs.OpSync, vfs.OpTruncate, vfs.OpPrealloc}
	for _, op := range ops {
		for _, err := range []error{syscall.EIO, vfs.Executed(syscall.EIO), syscall.ENOSPC} {
			t.Run(fmt.Sprintf("%s %T %v", op, err, err), func(t *testing.T) {
				var crashes int
				for seed := range uint64(faultSeeds) {
					m := newModel(seed)
					m.failOp, m.failWith = op, err
					if err := m.run(40); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					crashes += m.crashes
				}
				t.Logf("%d crashes", crashes)
			})
		}
	}
}

// model is the world around a spool: what its clients sent and were told, and
// the ledger.
type model struct {
	rng   *rand.Rand
	mem   *vfs.Mem
	s     *Spool
	cfg   SpoolConfig
	wall  time.Time
	boot  time.Duration
	fuse  int      // operations of the disk until it goes off, <0: never
	cut   *vfs.Mem // the disk as the power cut left it
	blown bool

	failOp   vfs.Op // instead of a power cut, one operation of this kind fails
	failWith error
	failed   bool

	slots  [3]vault.StreamID        // of the streams that clients write to
	gen    map[vault.StreamID]int64 // the generation that they write to
	over   []vault.StreamID         // streams that are given up
	sent   []*sent
	ledger []sealed
	meta   map[string]string // durable
	maybe  map[string]string // set, not answered

	crashes, conflicts, full int
}

// sent is one WRITE of a client.
type sent struct {
	key     genKey
	off     int64
	data    []byte
	variant int // 0: what an honest client sends
	durable bool
}

// sealed is an entry of the ledger.
type sealed struct {
	piece vault.Piece
	text  []byte
}

var errPower = errors.New("power cut")

func newModel(seed uint64) *model {
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 77)), mem: vfs.NewMem(), fuse: -1,
		wall: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC), boot: time.Hour,
		slots: [3]vault.StreamID{{1}, {2}, {3}}, gen: map[vault.StreamID]int64{}, meta: map[string]string{}, maybe: map[string]string{},
	}
	m.cfg = SpoolConfig{
		Dir: "/spool", KeyDir: "/keys", Random: randomFrom(seed), Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return m.wall }, Boot: func() time.Duration { return m.boot },
		FileBytes: 64 << 10, MaxBytes: int64(6+m.rng.IntN(8)) * 64 << 10,
	}
	return m
}

// hook is asked before each operation of the disk. When the fuse is burnt it
// keeps the disk as a power cut would leave it now and fails this operation;
// from then on nothing works.
func (m *model) hook(op vfs.Op, _ string) error {
	if m.blown {
		return errPower
	}
	if m.fuse < 0 || m.failOp != "" && op != m.failOp {
		return nil
	}
	if m.fuse--; m.fuse >= 0 {
		return nil
	}
	if m.failOp != "" {
		m.failed = true
		return m.failWith
	}
	m.blown = true
	m.cut = m.mem.CrashClone(m.rng)
	return errPower
}

func (m *model) run(ops int) error {
	m.cfg.FS = m.mem
	if err := m.cfg.create(ctx); err != nil {
		return err
	}
	if err := m.restart(); err != nil {
		return err
	}
	for range ops {
		m.fuse = -1
		if m.rng.IntN(6) == 0 {
			m.fuse = m.rng.IntN(25)
			if m.failOp != "" {
				m.fuse = m.rng.IntN(3)
			}
		}
		err := m.step()
		if err == nil && !m.blown {
			err = wantLive(m.s)
		}
		switch {
		case errors.Is(err, vault.ErrFull) && m.s != nil: // else a start had no room
			m.full++
			m.fuse = -1
			m.advance(2 * time.Second) // then making a file is tried again
			err = m.seal(true)
		case err != nil && m.failed: // the process stops, and then the power fails
			err = m.stop(err)
		case err != nil && m.blown:
			err = m.crash()
		case err == nil && m.blown: // the operation did not need the disk operation that failed
			err = m.crash()
		}
		if err != nil {
			return err
		}
	}
	return m.finish()
}

// stop is what the process does after an error: nothing more. Once a sync
// failed, the spool takes nothing any more.
func (m *model) stop(err error) error {
	m.failed, m.fuse = false, -1
	if errors.Is(err, ErrSyncFailed) && m.s != nil {
		for id := range m.gen {
			if err := m.s.Write(ctx, id, 0, 0, []byte("x"), client, true); !errors.Is(err, ErrSyncFailed) {
				return fmt.Errorf("a write after a failed sync: %w", err)
			}
			if err := m.s.Commit(ctx, id); !errors.Is(err, ErrSyncFailed) {
				return fmt.Errorf("a commit after a failed sync: %w", err)
			}
		}
	}
	m.cut = m.mem.CrashClone(m.rng)
	return m.crash()
}

// crash goes on with what the power cut left.
func (m *model) crash() error {
	m.crashes++
	for try := 0; ; try++ {
		m.mem, m.blown, m.fuse = m.cut, false, -1
		if try == 0 && m.rng.IntN(3) == 0 {
			m.fuse = m.rng.IntN(40) // and again during the start
		}
		m.advance(time.Duration(m.rng.IntN(90)) * time.Minute)
		err := m.restart()
		if err == nil && !m.blown {
			m.fuse = -1
			break
		}
		if m.failed {
			m.failed, m.cut = false, m.mem.CrashClone(m.rng)
			continue
		}
		if !m.blown {
			return fmt.Errorf("restart: %w", err)
		}
	}
	return m.recover()
}

func (m *model) restart() (err error) {
	m.cfg.FS = vfs.NewFault(m.mem, m.hook)
	m.s, err = m.cfg.open(ctx)
	return err
}

// recover is what follows a start: the sealer finishes what it intended, the
// clients send again what was not acknowledged as durable, in any order.
func (m *model) recover() error {
	for k, v := range m.maybe { // a group is there or not: read which
		got := ""
		m.s.Meta(k, func(kv vault.KV) error { got = string(kv.Value); return nil })
		if got != v && got != m.meta[k] {
			return fmt.Errorf("metadata %s is %q, expected %q or %q", k, got, v, m.meta[k])
		}
		m.meta[k] = got
	}
	clear(m.maybe)
	for i, id := range m.slots {
		if m.meta[overKey(id)] != "" { // by a call that had no answer
			m.gaveUp(i)
		}
	}
	for k, v := range m.meta {
		got := ""
		m.s.Meta(k, func(kv vault.KV) error { got = string(kv.Value); return nil })
		if got != v {
			return fmt.Errorf("metadata %s is %q, expected %q", k, got, v)
		}
	}
	for _, in := range m.s.Pending() {
		i := slices.IndexFunc(m.ledger, func(e sealed) bool {
			return e.piece.Stream == in.Piece.Stream && e.piece.Gen == in.Piece.Gen && e.piece.Offset == in.Piece.Offset
		})
		if i < 0 {
			if err := m.sealPiece(in.Piece); err != nil {
				return fmt.Errorf("sealing the pending %+v: %w", in.Piece, err)
			}
		} else if err := m.s.Release(ctx, in.Piece, int64(i)); err != nil {
			return err
		}
	}
	again := slices.DeleteFunc(slices.Clone(m.sent), func(w *sent) bool { return w.durable })
	m.rng.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
	for _, w := range again {
		if err := m.send(w, m.rng.IntN(2) == 0); err != nil {
			return err
		}
	}
	return nil
}

// send writes until there is room.
func (m *model) send(w *sent, sync bool) error {
	for try := 0; ; try++ {
		err := m.s.Write(ctx, w.key.stream, w.key.gen, w.off, w.data, client, sync)
		if errors.Is(err, vault.ErrFull) && try < 5 {
			m.full++
			for before := -1; before < len(m.ledger); {
				before = len(m.ledger)
				if err := m.seal(true); err != nil {
					return err
				}
			}
			m.advance(2 * time.Second)
			continue
		}
		if err == nil && sync {
			w.durable = true
		}
		return err
	}
}

func (m *model) advance(d time.Duration) {
	m.boot += d
	m.wall = m.wall.Add(d)
	if m.rng.IntN(20) == 0 {
		m.wall = m.wall.Add(-time.Duration(m.rng.IntN(7200)) * time.Second) // the clock was set back
	}
}

// content is the byte that an honest client has at an offset.
func content(k genKey, off int64, variant int) byte {
	x := (uint64(off)*2654435761 + uint64(k.stream[0])*97 + uint64(k.gen)*1009 + uint64(variant)*31) * 0x9E3779B97F4A7C15 >> 40
	if x%53 == 0 {
		return '\n'
	}
	return 'a' + byte(x%26)
}

func text(k genKey, off, n int64, variant int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = content(k, off+int64(i), variant)
	}
	return b
}

func (m *model) step() error {
	slot := m.rng.IntN(len(m.slots))
	id := m.slots[slot]
	g, known := m.gen[id]
	if !known {
		if err := m.s.AddStream(ctx, vault.StreamInfo{ID: id, Source: "proxy1", Name: []byte("access.log")}); err != nil {
			return err
		}
		m.gen[id] = 0
	}
	switch n := m.rng.IntN(100); {
	case n < 60:
		return m.stepWrite(genKey{id, g})
	case n < 70:
		return m.commit(id)
	case n < 75:
		err := m.s.EndGeneration(ctx, id, g)
		if err == nil {
			m.gen[id]++
			m.markDurable(func(w *sent) bool { return w.key == genKey{id, g} })
		}
		return err
	case n < 76:
		return m.giveUp(slot)
	case n < 80:
		k, v := fmt.Sprint("k", m.rng.IntN(4)), fmt.Sprint(m.rng.Uint32())
		m.maybe[k] = v
		err := m.s.SetMeta(ctx, vault.KV{Key: k, Value: []byte(v)})
		if err == nil {
			m.meta[k] = v
		}
		if err == nil || errors.Is(err, vault.ErrFull) {
			delete(m.maybe, k)
		}
		return err
	case n < 84:
		m.advance(time.Duration(m.rng.IntN(200)) * time.Minute)
		return m.s.Sync(ctx)
	case n < 86:
		if err := m.s.Close(); err != nil {
			return err
		}
		if err := m.restart(); err != nil {
			return err
		}
		return m.recover()
	case n < 88:
		m.advance(26 * time.Hour)
		return nil
	default:
		return m.seal(m.rng.IntN(2) == 0)
	}
}

func overKey(id vault.StreamID) string { return fmt.Sprintf("over %x", id[:2]) }

// giveUp ends a stream for good, with a record that says so, as a file that is
// gone does.
func (m *model) giveUp(slot int) error {
	id := m.slots[slot]
	m.maybe[overKey(id)] = "yes"
	err := m.s.Record(ctx, vault.Changes{
		End:  []vault.Generation{{Stream: id, Gen: m.gen[id]}},
		Over: []vault.StreamID{id},
		Set:  []vault.KV{{Key: overKey(id), Value: []byte("yes")}},
	})
	if err == nil {
		m.markDurable(func(w *sent) bool { return w.key.stream == id })
		m.meta[overKey(id)] = "yes"
		m.gaveUp(slot)
	}
	if err == nil || errors.Is(err, vault.ErrFull) {
		delete(m.maybe, overKey(id))
	}
	return err
}

// gaveUp gives the clients of a slot another stream. Nobody sends again what the
// one before was not acknowledged.
func (m *model) gaveUp(slot int) {
	id := m.slots[slot]
	m.sent = slices.DeleteFunc(m.sent, func(w *sent) bool { return w.key.stream == id && !w.durable })
	delete(m.gen, id)
	m.over = append(m.over, id)
	m.slots[slot][1]++
}

func (m *model) stepWrite(k genKey) error {
	size := m.s.Size(k.stream, k.gen)
	n := 1 + int64(m.rng.IntN(300))
	if m.rng.IntN(4) == 0 {
		n = 1 + int64(m.rng.IntN(12000))
	}
	off, variant := size, 0
	switch m.rng.IntN(10) {
	case 0, 1: // ahead, leaving a hole
		off += int64(m.rng.IntN(2000))
	case 2, 3, 4: // from the start of the page, as clients append
		off = size &^ (blockSize - 1)
	case 5: // anywhere, again or into a hole
		off = m.rng.Int64N(size + 1)
	case 6: // other bytes
		off, variant = m.rng.Int64N(size+1), 1+m.rng.IntN(3)
	case 7: // late
		if k.gen > 0 {
			k.gen = m.rng.Int64N(k.gen)
			off = m.rng.Int64N(5000)
		}
	}
	w := &sent{key: k, off: off, data: text(k, off, n, variant), variant: variant}
	expect, err := m.expect(w)
	if err != nil {
		return err
	}
	m.sent = append(m.sent, w)
	before, full := m.s.Stats().Conflicts, m.full
	err = m.send(w, m.rng.IntN(2) == 0)
	if err == nil && m.full == full {
		if err := expect(m.s.Stats().Conflicts - before); err != nil {
			return err
		}
		if m.rng.IntN(4) == 0 { // the answer was lost
			before := m.s.Stats().Conflicts
			err = m.send(w, m.rng.IntN(2) == 0)
			if got := m.s.Stats().Conflicts - before; err == nil && m.full == full && got != 0 {
				return fmt.Errorf("the same write twice in a row: %d conflicts", got)
			}
		}
	}
	if errors.Is(err, vault.ErrFull) {
		m.sent = m.sent[:len(m.sent)-1] // the client was told nothing; it may try later
	}
	return err
}

// expect looks what a write meets and returns a check of the conflicts that it
// makes: none if it repeats what the spool holds, one at least if it differs
// from that and was never sent before.
func (m *model) expect(w *sent) (func(conflicts int64) error, error) {
	held := make([]byte, len(w.data))
	n, err := m.s.ReadAt(ctx, w.key.stream, w.key.gen, held, w.off)
	if err != nil && err != io.EOF && !errors.Is(err, ErrNotHeld) {
		return nil, err
	}
	known := slices.ContainsFunc(m.sent, func(x *sent) bool {
		return x.key == w.key && x.variant == w.variant && x.off < w.off+int64(len(w.data)) && w.off < x.off+int64(len(x.data))
	})
	return func(conflicts int64) error {
		switch {
		case n == len(held) && bytes.Equal(held, w.data) && conflicts != 0:
			return fmt.Errorf("%d conflicts for a repetition of %d bytes at %d", conflicts, n, w.off)
		case !bytes.Equal(held[:n], w.data[:n]) && conflicts == 0 && !known:
			return fmt.Errorf("no conflict for %d other bytes at %d", n, w.off)
		}
		return nil
	}, nil
}

func (m *model) commit(id vault.StreamID) error {
	err := m.s.Commit(ctx, id)
	if err == nil {
		m.markDurable(func(w *sent) bool { return w.key.stream == id })
	}
	return err
}

func (m *model) markDurable(match func(*sent) bool) {
	for _, w := range m.sent {
		w.durable = w.durable || match(w)
	}
}
