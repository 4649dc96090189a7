package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

func testPiece(off, span int64) *vault.Piece { return &vault.Piece{Offset: off, Span: span} }

func testIntent(off, span int64) *vault.Intent { return &vault.Intent{Piece: *testPiece(off, span)} }

// Writes around the size of an extent come back as they were, killed or closed.
func TestExtentBoundaries(t *testing.T) {
	for _, size := range []int64{4 << 20, 64 << 20} {
		r := newRig(t, func(c *SpoolConfig) { c.FileBytes = size })
		n := int64(r.s.extent)
		if size == 64<<20 && n != maxExtent {
			t.Fatalf("an extent of %d bytes in files of %d", n, size)
		}
		r.add(streamA)
		var want bytes.Buffer
		for i, len := range []int64{0, 1, n - 1, n, n + 1, 2*n + 1, 0, 1} {
			data := bytes.Repeat([]byte{byte('a' + i)}, int(len))
			r.must(r.s.Write(ctx, streamA, 0, int64(want.Len()), data, client, i%2 == 0))
			want.Write(data)
		}
		for _, again := range []func(){func() {}, r.open, r.reopen} {
			r.must(r.s.Sync(ctx))
			again()
			got := make([]byte, want.Len()+1)
			m, err := r.s.ReadAt(ctx, streamA, 0, got, 0)
			if m != want.Len() || err == nil || !bytes.Equal(got[:m], want.Bytes()) {
				t.Fatalf("files of %d: %d bytes, expected %d, %v", size, m, want.Len(), err)
			}
			r.must(wantLive(r.s))
		}
	}
}

// A group exactly full is written and read back; one byte more is refused.
func TestGroupExactlyFull(t *testing.T) {
	for _, size := range []int64{testFile, 4 * maxGroup} {
		r := newRig(t, func(c *SpoolConfig) { c.FileBytes = size })
		room := r.s.groupBytes - recordHead - 4 - 1
		if err := r.s.SetMeta(ctx, vault.KV{Key: "k", Value: make([]byte, room+1)}); err == nil || errors.Is(err, vault.ErrFull) {
			t.Errorf("a record larger than a group: %v", err)
		}
		value := bytes.Repeat([]byte("v"), room)
		r.must(r.s.SetMeta(ctx, vault.KV{Key: "k", Value: value}))
		r.must(r.s.SetMeta(ctx, vault.KV{Key: "l", Value: []byte("next")}))
		r.open()
		got := map[string]string{}
		r.must(r.s.Meta("", func(kv vault.KV) error { got[kv.Key] = string(kv.Value); return nil }))
		if got["k"] != string(value) || got["l"] != "next" || len(got) != 2 || r.s.Stats().Damaged > 0 {
			t.Errorf("files of %d: %d records, %d bytes, expected %d", size, len(got), len(got["k"]), room)
		}
	}
}

// What is kept of released bytes, to the second.
func TestKeptFor(t *testing.T) {
	const size = 300_000
	k := genKey{streamA, 0}
	whole := lines(k, 0, size)
	start := time.Date(2026, 11, 21, 8, 1, 0, 0, time.UTC)
	edge := start.Truncate(quarter).Add(keepFor + quarter).Sub(start) // ticks are quarters of an hour
	for _, tt := range []struct {
		name     string
		wait     time.Duration
		from     netip.Addr
		off, n   int64
		conflict int64
	}{
		{"block, a second before", edge - time.Second, client, 4096, 4096, 0},
		{"block, at the edge", edge, client, 4096, 4096, 1},
		{"first of two blocks short by one byte", 0, client, 4097, 8191, 1},
		{"block and one byte", 0, client, 4096, 4097, 1},
		{"block without one byte", 0, client, 4096, 4095, 1},
		{"two blocks", 0, client, 4096, 8192, 0},
		{"zero client", 0, netip.Addr{}, 4096, 4096, 1},
		{"zero client, tail", 0, netip.Addr{}, size - 1000, 1000, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, quiet)
			r.add(streamA)
			r.must(r.s.Write(ctx, streamA, 0, 0, []byte(whole), tt.from, true))
			r.sealAll()
			r.advance(silence) // no answer is in doubt any more
			r.due(true)
			r.advance(tt.wait - silence)
			r.due(true)
			g := r.s.table.stream(streamA).gen(0)
			if g.freed < size-tailBytes-2*blockSize {
				t.Fatalf("released to %d of %d", g.freed, size)
			}
			r.must(r.s.Write(ctx, streamA, 0, tt.off, []byte(whole[tt.off:tt.off+tt.n]), tt.from, true))
			if got := r.s.Stats().Conflicts; got != tt.conflict {
				t.Errorf("%d conflicts, expected %d", got, tt.conflict)
			}
		})
	}
}

// Moments at which the sealer's view changes, to the second.
func TestMoments(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration
		do    func(r *rig)
		want  string // a second before and at the moment
	}{
		{"hole", holeAge, func(r *rig) {
			r.write(streamA, 0, 5, "later\n", true)
			r.due(false)
		}, "|0+5 hole"},
		{"silence", silence, func(r *rig) {
			r.write(streamA, 0, 0, "uncommitted\n", false)
			r.must(r.s.Sync(ctx))
			r.due(false)
			r.s.table.stream(streamA).gen(0).oldest -= maxAge // and old enough to be due
		}, "|0+12"},
		{"age", maxAge, func(r *rig) {
			r.write(streamA, 0, 0, "old\n", true)
			r.due(false)
		}, "|0+4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			tt.do(r)
			r.boot += tt.after - time.Second
			before := describe(r.due(false))
			r.boot += time.Second
			if got := before + "|" + describe(r.due(false)); got != tt.want {
				t.Errorf("due %q, expected %q", got, tt.want)
			}
		})
	}
	// A generation that is over is remembered for a day.
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "a\n", true)
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.drain()
	r.wall = r.wall.Add(keepFor)
	if r.due(true); r.s.table.stream(streamA).gen(0) == nil {
		t.Error("forgotten within the day")
	}
	r.wall, r.boot = r.wall.Add(time.Second), r.boot+time.Minute // how often it is looked for
	if r.due(true); r.s.table.stream(streamA).gen(0) != nil {
		t.Error("not forgotten after the day")
	}
}

// The wall clock jumps; every byte comes out once and in order, and what is
// repeated is known.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -30 * 24 * time.Hour, -60 * 365 * 24 * time.Hour, time.Hour, 400 * 24 * time.Hour, 60 * 365 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			k := genKey{streamA, 0}
			var got strings.Builder
			const step = 3000
			for i := range int64(20) {
				if i == 7 || i == 14 {
					r.wall = r.wall.Add(jump)
					jump = -jump
				}
				r.write(streamA, 0, i*step, lines(k, i*step, step), i%3 > 0)
				r.write(streamA, 0, i*step, lines(k, i*step, step), true)
				if i%5 == 4 {
					for _, p := range r.due(true) {
						if p.LastReceived.Before(p.FirstReceived) || p.Record.IsZero() {
							t.Errorf("piece %+v", p)
						}
						got.WriteString(r.seal(p, i))
					}
				}
				if i == 10 {
					r.reopen()
				}
			}
			if n := r.s.Stats().Conflicts; n != 0 {
				t.Errorf("%d conflicts", n)
			}
			r.must(r.s.EndGeneration(ctx, streamA, 0))
			got.WriteString(r.drain()[k])
			if got.String() != lines(k, 0, 20*step) {
				t.Errorf("%d bytes came out, expected %d", got.Len(), 20*step)
			}
		})
	}
}

// A key is destroyed in the order that leaves no file without its key, and no
// key readable that was given up: file gone for good, key overwritten and
// synced, key gone.
func TestKeyDestroyed(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, lines(genKey{streamA, 0}, 0, 3000), true)
	names := r.s.cur.names
	r.must(r.s.Close())
	var ops []string
	rng := rand.New(rand.NewPCG(4, 4))
	r.cfg.FS = vfs.NewFault(r.mem, func(op vfs.Op, name string) error {
		if name != names.file && name != names.key && !(op == vfs.OpSyncDir && name == "/spool" && len(ops) == 1) {
			return nil
		}
		if op == vfs.OpOpen || op == vfs.OpRead || op == vfs.OpStat {
			return nil
		}
		ops = append(ops, fmt.Sprint(op, " ", path.Base(name)))
		if op == vfs.OpRemove && name == names.key {
			for range 8 { // durably
				data, err := vfs.ReadFile(r.mem.CrashClone(rng), name, keySize)
				r.must(err)
				if !bytes.Equal(data, make([]byte, keySize)) {
					t.Errorf("the key may survive: %x", data)
				}
				if _, err := r.mem.CrashClone(rng).Stat(names.file); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the file may come back without its key: %v", err)
				}
			}
		}
		return nil
	})
	r.open()
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.drain()
	file, key := path.Base(names.file), path.Base(names.key)
	want := []string{"remove " + file, "syncdir spool", "openrw " + key, "write " + key, "sync " + key, "remove " + key}
	if !slices.Equal(ops, want) {
		t.Errorf("operations %q, expected %q", ops, want)
	}
}

// A key whose file is gone, as a crash between the two steps leaves it, is
// destroyed at the next start; that of a file kept aside is not.
func TestKeyWithoutFile(t *testing.T) {
	r, _ := smallSpool(t, true)
	seq := r.s.cur.seq
	r.must(r.mem.Rename(r.cfg.names(1).file, r.cfg.names(1).file+damagedSuffix))
	r.must(r.cfg.writeKey(r.cfg.names(seq+5).key, &fileKey{}))
	r.open()
	files := r.files()
	if files[r.cfg.names(seq+5).key] != nil || files[r.cfg.names(1).key] == nil {
		t.Errorf("keys: left over %v, of the file kept aside %v", files[r.cfg.names(seq+5).key] != nil, files[r.cfg.names(1).key] != nil)
	}
	if r.s.cur.seq <= seq+5 || r.s.Stats().Damaged != 1 {
		t.Errorf("file %d after key %d, %d damaged", r.s.cur.seq, seq+5, r.s.Stats().Damaged)
	}
}
