package ingest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// Writers that wait for a sync share the next one.
func TestGroupCommit(t *testing.T) {
	const writers = 32
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *SpoolConfig) { c.FileBytes = 1 << 20 })
		r.add(streamA)
		r.must(r.s.Close())
		syncs, next, armed := 0, 0, false
		r.cfg.FS = vfs.NewFault(r.mem, func(op vfs.Op, _ string) error {
			if !armed || op != vfs.OpSync {
				return nil
			}
			if syncs++; syncs == 1 {
				synctest.Wait() // a sync holds no lock: the others fill the next group, and wait
				r.s.mu.Lock()
				next = strings.Count(string(r.s.pend), "waiting")
				r.s.mu.Unlock()
			}
			return nil
		})
		r.open()
		armed = true
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() { r.write(streamA, 0, int64(8*i), "waiting\n", true) })
		}
		wg.Wait()
		if syncs != 2 || next != writers-1 {
			t.Errorf("%d syncs for %d writers, the second for %d; expected 2, for all but one", syncs, writers, next)
		}
		armed = false
		r.wantArchive(strings.Repeat("waiting\n", writers), nil)
	})
}

// A COMMIT without anything unsynced needs no sync.
func TestCommitSyncs(t *testing.T) {
	syncs := 0
	r := newRig(t, func(c *SpoolConfig) {
		c.FS = vfs.NewFault(c.FS, func(op vfs.Op, _ string) error {
			if op == vfs.OpSync {
				syncs++
			}
			return nil
		})
	})
	r.add(streamA)
	for _, tt := range []struct {
		do   func()
		want int
	}{
		{func() { r.write(streamA, 0, 0, "a\n", false) }, 0},
		{func() { r.must(r.s.Commit(ctx, streamA)) }, 1},
		{func() { r.must(r.s.Commit(ctx, streamA)) }, 0},
		{func() { r.must(r.s.Sync(ctx)) }, 0},
		{func() { r.write(streamA, 0, 0, "a\n", true) }, 0}, // a repetition of what is on the disk
		{func() { r.write(streamA, 0, 2, "b\n", false) }, 0},
		{func() { r.write(streamA, 0, 2, "b\n", true) }, 1}, // of what is not
		{func() { r.write(streamA, 0, 4, "c\n", false); r.must(r.s.Sync(ctx)) }, 1},
	} {
		syncs = 0
		tt.do()
		if syncs != tt.want {
			t.Errorf("%d syncs, expected %d", syncs, tt.want)
		}
	}
	if err := r.s.Commit(ctx, streamB); !errors.Is(err, ErrNoStream) {
		t.Errorf("commit of an unknown stream: %v", err)
	}
}

// Many writers, readers and the sealer at once.
func TestConcurrent(t *testing.T) {
	const streams, size, step = 6, 120_000, 700
	r := newRig(t)
	for i := range streams {
		r.add(vault.StreamID{byte(i + 1)})
	}
	var wg sync.WaitGroup
	for i := range streams {
		k := genKey{vault.StreamID{byte(i + 1)}, 0}
		for lane := range 2 { // two connections of one client, interleaved and overlapping
			wg.Go(func() {
				p := make([]byte, 300)
				for off := int64(lane * step); off < size; off += 2 * step {
					n := min(step+100, size-off)
					if err := r.s.Write(ctx, k.stream, 0, off, text(k, off, n, 0), client, off%3 == 0); err != nil {
						t.Error(err)
						return
					}
					if _, err := r.s.ReadAt(ctx, k.stream, 0, p, max(0, off-1000)); err != nil && !errors.Is(err, ErrNotHeld) && err.Error() != "EOF" {
						t.Error(err)
					}
					if off%11 == 0 {
						r.must(r.s.Commit(ctx, k.stream))
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	got := map[genKey]string{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, p := range r.due(true) {
			got[genKey{p.Stream, p.Gen}] += r.seal(p, 1)
		}
		r.s.Stats()
	}
	for i := range streams {
		r.must(r.s.EndGeneration(ctx, vault.StreamID{byte(i + 1)}, 0))
	}
	for k, rest := range r.drain() {
		got[k] += rest
	}
	for i := range streams {
		k := genKey{vault.StreamID{byte(i + 1)}, 0}
		if got[k] != lines(k, 0, size) {
			t.Errorf("stream %d: %d bytes, expected %d", i, len(got[k]), size)
		}
	}
	if n := r.s.Stats().Conflicts; n != 0 {
		t.Errorf("%d conflicts", n)
	}
}

// A full spool says so, loses nothing, and frees itself through the sealer.
func TestFull(t *testing.T) {
	r := newRig(t, func(c *SpoolConfig) { c.MaxBytes = 6 * c.FileBytes })
	r.add(streamA)
	k := genKey{streamA, 0}
	off := int64(0)
	fill := func() {
		t.Helper()
		for {
			err := r.s.Write(ctx, streamA, 0, off, text(k, off, 5000, 0), client, true)
			if errors.Is(err, vault.ErrFull) {
				return
			}
			r.must(err)
			if off += 5000; off > 1<<24 {
				t.Fatal("the spool never fills")
			}
		}
	}
	fill()
	if total, free := r.s.Space(); total != 6*testFile || free > 7000 {
		t.Errorf("full: %d of %d bytes free", free, total)
	}
	if err := r.s.SetMeta(ctx, vault.KV{Key: "k", Value: make([]byte, 20_000)}); !errors.Is(err, vault.ErrFull) {
		t.Errorf("metadata in a full spool: %v", err)
	}
	r.open() // killed
	var got strings.Builder
	for round := range 5 {
		for {
			p := r.due(true)
			if len(p) == 0 {
				break
			}
			got.WriteString(r.seal(p[0], 1))
		}
		before := off
		r.advance(2 * time.Second)
		fill()
		if off-before < 2*testFile {
			t.Fatalf("round %d: only %d bytes taken after sealing", round, off-before)
		}
	}
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	got.WriteString(r.drain()[k])
	if got.String() != lines(k, 0, off) {
		t.Errorf("%d bytes came out, expected %d", got.Len(), off)
	}
}

// The disk is full before the spool is: the same, and nothing is left behind.
func TestDiskFull(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "before\n", true)
	r.mem.SetSpace(vfs.Space{Total: 1 << 30, Free: 0})
	files := len(r.files())
	var err error
	off := int64(7)
	for ; err == nil; off += 1000 {
		err = r.s.Write(ctx, streamA, 0, off, make([]byte, 1000), client, true)
	}
	if !errors.Is(err, vault.ErrFull) || len(r.files()) != files {
		t.Fatalf("%v, %d files, expected %d", err, len(r.files()), files)
	}
	for _, p := range r.due(true) {
		if r.seal(p, 1) != "before\n" {
			t.Error("the sealer got other bytes")
		}
	}
	r.mem.SetSpace(vfs.Space{Total: 1 << 30, Free: 1 << 29})
	r.advance(2 * time.Second)
	r.write(streamA, 0, off-1000, "\nafter\n", true)
}

// The cleaner carries what lives in nearly empty files forward; old files go,
// also by the hour.
func TestCleaner(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.add(streamB)
	small := "a line that nobody seals\n"
	a, b := genKey{streamA, 0}, genKey{streamB, 0}
	kept, off := int64(0), int64(0)
	for i := range 40 {
		if i%10 == 0 {
			r.write(streamA, 0, kept, small, true)
			kept += int64(len(small))
		}
		r.write(streamB, 0, off, lines(b, off, 15_000), true)
		off += 15_000
		for _, p := range r.due(true) {
			if p.Stream == streamB {
				r.seal(p, int64(i))
			}
		}
	}
	if n := len(r.s.row); n > 4 {
		t.Errorf("%d files for 64 KiB of live bytes", n)
	}
	r.open()
	if n := len(r.s.row); n > 4 {
		t.Errorf("%d files after a restart", n)
	}
	if got := r.drain()[a]; got != strings.Repeat(small, 4) {
		t.Errorf("carried bytes came out as %q", got)
	}
	r.must(r.s.EndGeneration(ctx, streamB, 0))
	r.drain()
	seq := r.s.cur.seq
	r.advance(2 * time.Hour)
	r.due(true)
	if r.s.cur.seq == seq || len(r.s.row) > 2 {
		t.Errorf("an old file is still there: %d files, current %d", len(r.s.row), r.s.cur.seq)
	}
}

// A big table of metadata is not written into each new file, and is never lost.
func TestSnapshots(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	for i := range 40 {
		r.must(r.s.SetMeta(ctx, vault.KV{Key: fmt.Sprint("k", i), Value: make([]byte, 300)}))
	}
	k, off := genKey{streamA, 0}, int64(0)
	snapshots, last := 0, r.s.snapshotSeq
	for first := r.s.cur.seq; r.s.cur.seq < first+40; off += 10_000 {
		r.write(streamA, 0, off, lines(k, off, 10_000), false)
		if r.s.snapshotSeq != last {
			snapshots, last = snapshots+1, r.s.snapshotSeq
		}
		for _, p := range r.due(true) {
			r.seal(p, 1)
		}
	}
	if snapshots < 2 || snapshots > 3 {
		t.Errorf("%d snapshots in 40 files, expected one in 16", snapshots)
	}
	r.must(r.s.SetMeta(ctx, vault.KV{Key: "k0"}))
	for range 2 {
		r.open()
		n := 0
		r.must(r.s.Meta("k", func(vault.KV) error { n++; return nil }))
		if n != 39 {
			t.Fatalf("%d metadata records, expected 39", n)
		}
	}
}

// What the extent table costs.
func TestRuns(t *testing.T) {
	for _, tt := range []struct {
		name          string
		streams, size int
		perExtent     float64 // runs, at most
	}{
		{"one stream of lines", 1, 200, 0.01},
		{"two streams of lines in turn", 2, 200, 0.01},
		{"fifty streams of lines in turn", 50, 200, 0.3},
		{"extents of 8 KiB", 1, 8192, 0.2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *SpoolConfig) { c.FileBytes = 4 << 20 })
			extents := 0
			for i := range tt.streams {
				r.add(vault.StreamID{byte(i)})
			}
			for off := 0; off < 4<<20/tt.streams; off += tt.size {
				for i := range tt.streams {
					k := genKey{vault.StreamID{byte(i)}, 0}
					r.must(r.s.Write(ctx, k.stream, 0, int64(off), make([]byte, tt.size), client, false))
					extents++
				}
			}
			got := float64(r.s.Stats().Runs) / float64(extents)
			t.Logf("%d extents: %.2f bytes of table each", extents, 16*got)
			if got > tt.perExtent {
				t.Errorf("%.3f runs per extent, expected at most %.3f", got, tt.perExtent)
			}
		})
	}
}

func TestRunPacking(t *testing.T) {
	for _, x := range [][5]int64{{0, 1, 0, 512, 0}, {maxOffset - maxRun, maxRun, maxSlot, maxFile - sector, maxTick}, {1 << 40, 1 << 20, 7, 64 << 20, 1 << 19}} {
		r := makeRun(x[0], x[1], int(x[2]), x[3], uint32(x[4]))
		if r.off() != x[0] || r.len() != x[1] || r.slot() != int(x[2]) || r.pos() != x[3] || int64(r.tick()) != x[4] {
			t.Errorf("%v packs as %d %d %d %d %d", x, r.off(), r.len(), r.slot(), r.pos(), r.tick())
		}
	}
}

func TestContiguous(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "one\n", true)
	r.write(streamA, 0, 8, "three\n", true)
	r.write(streamA, 0, 4, "tw", true)
	if got, size := r.s.Contiguous(streamA, 0), r.s.Size(streamA, 0); got != 6 || size != 14 {
		t.Errorf("contiguous to %d of %d", got, size)
	}
	r.write(streamA, 0, 6, "o\n", true)
	r.sealAll()
	if got := r.s.Contiguous(streamA, 0); got != 14 {
		t.Errorf("contiguous to %d", got)
	}
	if got := r.s.Contiguous(streamB, 0) + r.s.Contiguous(streamA, 5) + r.s.Size(streamB, 0); got != 0 {
		t.Errorf("unknown generations: %d", got)
	}
}

// Close while writers are at work: what they were answered for is there, and
// the files are whole. Each round closes after some more writes, until that
// often enough caught writers.
func TestCloseUnderLoad(t *testing.T) {
	caught := 0
	for round := 0; caught < 20; round++ {
		if round == 1000 {
			t.Fatalf("of %d closes only %d met a writer", round, caught)
		}
		if closeUnderLoad(t, int64(1+round*37%1500)) {
			caught++
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// closeUnderLoad closes a spool after so many writes and tells whether that met
// a writer at work.
func closeUnderLoad(t *testing.T, writes int64) bool {
	r := newRig(t)
	r.add(streamA)
	r.add(streamB)
	var wg sync.WaitGroup
	var done atomic.Int64
	var caught atomic.Bool
	now := make(chan struct{})
	var acked [2]int64
	for i, id := range []vault.StreamID{streamA, streamB} {
		wg.Go(func() {
			k := genKey{id, 0}
			for off := int64(0); off < 300_000; off += 100 {
				sync := off%300 == 0
				if err := r.s.Write(ctx, id, 0, off, text(k, off, 100, 0), client, sync); err != nil {
					if caught.Store(true); !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				if sync {
					acked[i] = off + 100
				}
				if done.Add(1) == writes {
					close(now)
				}
			}
		})
	}
	<-now
	r.must(r.s.Close())
	wg.Wait()
	if err := r.s.Sync(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("sync after close: %v", err)
	}
	r.open()
	if st := r.s.Stats(); st.Torn+st.Damaged > 0 {
		t.Fatalf("stats %+v", st)
	}
	for i, id := range []vault.StreamID{streamA, streamB} {
		if size := r.s.Size(id, 0); size < acked[i] {
			t.Errorf("%d bytes, %d were acknowledged", size, acked[i])
		}
		r.must(r.s.EndGeneration(ctx, id, 0))
	}
	got := r.drain()
	for _, id := range []vault.StreamID{streamA, streamB} {
		k := genKey{id, 0}
		if size := r.s.Size(id, 0); got[k] != lines(k, 0, size) {
			t.Errorf("%d bytes came out of %d", len(got[k]), size)
		}
	}
	return caught.Load()
}
