package ingest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// state is what can be observed of a spool.
type state struct {
	streams map[vault.StreamID]streamState
	gens    map[genKey]genState
	meta    map[string]string
	pending []vault.Intent
}

type streamState struct {
	streamRecord
	over bool
}

type genState struct {
	genRecord
	end      int64 // Contiguous
	data     map[int64]byte
	unstable map[int64]bool
}

// observe reads everything.
func observe(s *Spool) (state, error) {
	st := state{map[vault.StreamID]streamState{}, map[genKey]genState{}, map[string]string{}, s.Pending()}
	err := s.Meta("", func(kv vault.KV) error { st.meta[kv.Key] = string(kv.Value); return nil })
	for _, x := range slices.Clone(s.table.order) {
		st.streams[x.ID] = streamState{x.streamRecord, x.over}
		for _, g := range slices.Clone(x.gens) {
			gs := genState{g.genRecord, s.Contiguous(x.ID, g.genKey.gen), map[int64]byte{}, map[int64]bool{}}
			for _, r := range slices.Clone(g.data) {
				p := make([]byte, r.len())
				n, rerr := s.ReadAt(ctx, x.ID, g.genKey.gen, p, r.off())
				if rerr != nil && rerr != io.EOF || int64(n) < r.len() {
					err = errors.Join(err, fmt.Errorf("%d of %d bytes at %d: %w", n, r.len(), r.off(), rerr))
				}
				for i, c := range p {
					gs.data[r.off()+int64(i)] = c
				}
			}
			for _, u := range g.unstable {
				for off := u[0]; off < u[1]; off++ {
					gs.unstable[off] = true
				}
			}
			st.gens[g.genKey] = gs
		}
	}
	return st, err
}

// same compares the states before and after a restart. What was released
// without a record may be back; after a kill more may pass for uncommitted.
func (a state) same(b state, clean bool) error {
	for id, x := range a.streams {
		if y := b.streams[id]; fmt.Sprint(x) != fmt.Sprint(y) {
			return fmt.Errorf("stream %+v was %+v", y, x)
		}
	}
	if len(a.streams) != len(b.streams) || len(a.gens) != len(b.gens) || !maps.Equal(a.meta, b.meta) {
		return fmt.Errorf("%d streams, %d generations, metadata %v; was %d, %d, %v",
			len(b.streams), len(b.gens), b.meta, len(a.streams), len(a.gens), a.meta)
	}
	if fmt.Sprintf("%+v", a.pending) != fmt.Sprintf("%+v", b.pending) {
		return fmt.Errorf("pending %+v, was %+v", b.pending, a.pending)
	}
	for k, x := range a.gens {
		y := b.gens[k]
		freed := x.freed
		if y.freed > freed {
			return fmt.Errorf("generation %v released to %d, was %d", k, y.freed, x.freed)
		}
		x.freed, x.ended, y.ended = y.freed, x.ended.UTC(), y.ended.UTC()
		if x.genRecord != y.genRecord || x.end != y.end {
			return fmt.Errorf("generation %+v to %d, was %+v to %d", y.genRecord, y.end, x.genRecord, x.end)
		}
		for off := freed; off < x.high; off++ {
			c, held := x.data[off]
			if d, still := y.data[off]; c != d || held != still {
				return fmt.Errorf("generation %v offset %d: %q %v, was %q %v", k, off, d, still, c, held)
			}
			if now, was := y.unstable[off], x.unstable[off]; was && !now && x.ended.IsZero() || clean && now && !was && x.ended.IsZero() {
				return fmt.Errorf("generation %v offset %d: uncommitted %v, was %v", k, off, now, was)
			}
		}
	}
	return nil
}

// What can be observed of a spool is the same after a clean stop and after a
// kill, twice in a row, over random histories.
func TestReplayIsTheSame(t *testing.T) {
	for seed := range uint64(defaultSeeds / 15) {
		m := newModel(1000 + seed)
		m.cfg.FS = m.mem
		if err := errors.Join(m.cfg.create(ctx), m.restart()); err != nil {
			t.Fatal(err)
		}
		for i := range 120 {
			if err := m.step(); err != nil && !errors.Is(err, vault.ErrFull) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if i%15 != 14 {
				continue
			}
			if err := m.s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			for _, clean := range []bool{m.rng.IntN(2) == 0, true, false} {
				before, err := observe(m.s)
				if err == nil && clean {
					err = m.s.Close()
				}
				if err == nil {
					err = m.restart()
				}
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				after, err := observe(m.s)
				if err = errors.Join(err, before.same(after, clean), wantLive(m.s)); err != nil {
					t.Fatalf("seed %d step %d clean=%v: %v", seed, i, clean, err)
				}
			}
			if err := m.recover(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// A snapshot replayed into an empty table is the table, and the one that is
// written from it has the same records.
func TestSnapshotRoundTrip(t *testing.T) {
	for seed := range uint64(20) {
		m := newModel(seed)
		m.cfg.FS = m.mem
		if err := errors.Join(m.cfg.create(ctx), m.restart()); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			if err := m.step(); err != nil && !errors.Is(err, vault.ErrFull) {
				t.Fatal(err)
			}
		}
		records := func(from *table) (out []string, all []byte) {
			f, w, err := m.cfg.createFile(fileHeader{seq: 1 << 40}, from.snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(f.metaAt))*sector > w.pos || from.snapshotSize() < w.pos-4*sector*int64(1+len(f.metaAt)) {
				t.Errorf("a snapshot of %d bytes in %d groups, estimated at %d", w.pos, len(f.metaAt), from.snapshotSize())
			}
			_, err = f.scan(func(_ int64, _ groupHeader, plain []byte) error {
				all = append(all, plain...)
				return eachRecord(plain, func(kind recordKind, body []byte) error {
					out = append(out, fmt.Sprintf("%d %x", kind, body))
					return nil
				})
			})
			if err = errors.Join(err, f.f.Close(), m.cfg.removeFile(f.names)); err != nil {
				t.Fatal(err)
			}
			slices.Sort(out)
			return out, all
		}
		want, plain := records(m.s.table)
		again := newTable()
		again.setKV(vault.KV{Key: "not in the snapshot", Value: []byte("v")})
		for range 2 { // twice is once
			if err := eachRecord(plain, again.apply); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := records(again); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d records became %d\n%s", seed, len(want), len(got), strings.Join(got, "\n"))
		}
		// Half a snapshot is none.
		half := newTable()
		half.setKV(vault.KV{Key: "stays", Value: []byte("v")})
		if err := eachRecord(plain[:len(plain)-recordHead], half.apply); err != nil {
			t.Fatal(err)
		}
		if len(half.order) > 0 || string(half.kv["stays"]) != "v" || len(half.kv) != 1 {
			t.Errorf("half a snapshot was taken: %d streams, %d keys", len(half.order), len(half.kv))
		}
	}
}

// Adopting a snapshot keeps the runs of what it knows and drops the others.
func TestAdopt(t *testing.T) {
	old, snap := newTable(), newTable()
	a := old.addStream(vault.StreamInfo{ID: streamA, Name: []byte("old")})
	old.addStream(vault.StreamInfo{ID: streamB}).addGen(0)
	kept, gone := a.addGen(1), a.addGen(2)
	kept.data, gone.data = runs{makeRun(0, 9, 0, sector, 0)}, runs{makeRun(0, 7, 0, sector, 0)}
	kept.unstable = spans{{1, 2}}
	kept.intent = testIntent(0, 1)
	s := snap.addStream(vault.StreamInfo{ID: streamA, Name: []byte("new")})
	s.addGen(1).genRecord = genRecord{genKey: genKey{streamA, 1}, sealed: 3, high: 9}
	s.addGen(4).intent = testIntent(0, 5)
	old.adopt(snap)
	st := old.stream(streamA)
	if len(old.order) != 1 || string(st.Name) != "new" || len(st.gens) != 2 || old.stream(streamB) != nil {
		t.Fatalf("%d streams, %q, %d generations", len(old.order), st.Name, len(st.gens))
	}
	g := st.gen(1)
	if g.sealed != 3 || len(g.data) != 1 || len(g.unstable) != 1 || g.intent != nil || st.gen(4).intent == nil {
		t.Errorf("generation %+v", g)
	}
}

// A full spool is started again and again, and each start but the last is cut
// off anywhere: it stays a bounded number of files, and nothing is lost.
func TestStartAgainAndAgain(t *testing.T) {
	for seed := range uint64(defaultSeeds / 15) {
		r := newRig(t, quiet, func(c *SpoolConfig) { c.FileBytes = 64 << 10; c.MaxBytes = 6 * c.FileBytes })
		rng := rand.New(rand.NewPCG(seed, 9))
		r.add(streamA)
		k := genKey{streamA, 0}
		off := int64(0)
		for {
			n := 1 + rng.Int64N(9000)
			err := r.s.Write(ctx, streamA, 0, off, text(k, off, n, 0), client, true)
			if errors.Is(err, vault.ErrFull) {
				break
			}
			r.must(err)
			off += n
		}
		for range 12 {
			fuse := rng.IntN(60)
			var cut *vfs.Mem
			r.cfg.FS = vfs.NewFault(r.mem, func(vfs.Op, string) error {
				if fuse--; fuse >= 0 {
					return nil
				}
				if cut == nil {
					cut = r.mem.CrashClone(rng)
				}
				return errPower
			})
			if _, err := r.cfg.open(ctx); err != nil && cut == nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if cut == nil {
				cut = r.mem.CrashClone(rng) // started, and killed then
			}
			r.mem = cut
		}
		r.cfg.FS = r.mem
		r.open()
		if st := r.s.Stats(); st.Bytes > r.cfg.MaxBytes+2*r.cfg.FileBytes || st.Damaged > 0 {
			t.Errorf("seed %d: stats %+v", seed, st)
		}
		r.advance(2 * time.Second)
		r.must(r.s.EndGeneration(ctx, streamA, 0))
		if got := r.drain()[k]; got != lines(k, 0, off) {
			t.Fatalf("seed %d: %d bytes came out, expected %d", seed, len(got), off)
		}
		r.advance(2 * time.Hour)
		r.due(true)
		if st := r.s.Stats(); st.Bytes > 2*r.cfg.FileBytes {
			t.Errorf("seed %d: an empty spool takes %d bytes", seed, st.Bytes)
		}
	}
}
