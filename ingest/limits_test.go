package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// The table of metadata must always fit one file: what makes it grow is refused
// before, and the spool goes on, through restarts too.
func TestTableTooLarge(t *testing.T) {
	grow := map[string]func(r *rig, i int) error{
		"metadata": func(r *rig, i int) error {
			return r.s.SetMeta(ctx, vault.KV{Key: fmt.Sprint("k", i), Value: make([]byte, 500)})
		},
		"streams": func(r *rig, i int) error {
			return r.s.AddStream(ctx, vault.StreamInfo{ID: vault.StreamID{9, byte(i >> 8), byte(i)}, Source: "proxy1", Name: make([]byte, 300)})
		},
		"conflicts": func(r *rig, i int) error {
			return r.s.Write(ctx, streamA, 0, 0, fmt.Appendf(nil, "%04d", i), client, true)
		},
		"generations": func(r *rig, i int) error {
			return r.s.Write(ctx, streamA, int64(i), 0, []byte("a\n"), client, true)
		},
	}
	for name, do := range grow {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, quiet)
			r.add(streamA)
			r.write(streamA, 0, 0, "one\n", true)
			var err error
			n := 0
			for ; err == nil && n < 5000; n++ {
				err = do(r, n)
			}
			if !errors.Is(err, vault.ErrFull) {
				t.Fatalf("after %d: %v, expected full", n, err)
			}
			for range 3 {
				r.open()
				r.reopen()
			}
			r.write(streamA, 0, 4, "two\n", true)
			// Room for what makes it smaller, and for sealing.
			r.must(r.s.SetMeta(ctx, vault.KV{Key: "k0"}))
			r.must(r.s.Record(ctx, vault.Changes{ // as a removal does, which frees some in time
				End: []vault.Generation{{Stream: streamA}},
				Set: []vault.KV{{Key: "answer", Value: make([]byte, 52)}},
			}))
			r.must(r.s.SetMeta(ctx, vault.KV{Key: "answer"}))
			if p := r.due(true); len(p) == 0 || r.seal(p[0], 1) == "" {
				t.Errorf("nothing can be sealed: %+v", p)
			}
			switch name {
			case "metadata":
				for i := range n {
					r.must(r.s.SetMeta(ctx, vault.KV{Key: fmt.Sprint("k", i)}))
				}
			case "conflicts":
				for i := range n {
					r.must(do(r, i)) // repetitions need no room
				}
				return
			default:
				return
			}
			if err := r.s.SetMeta(ctx, vault.KV{Key: "new", Value: []byte("v")}); err != nil {
				t.Errorf("after it shrank: %v", err)
			}
		})
	}
}

// onWrite calls do, once, while a group is on its way to the disk and mu is free.
func (r *rig) onWrite(do func()) {
	armed := true
	r.cfg.FS = vfs.NewFault(r.mem, func(op vfs.Op, name string) error {
		if armed && op == vfs.OpWrite && r.s != nil && strings.HasSuffix(name, fileSuffix) {
			armed = false
			do()
		}
		return nil
	})
}

// Two callers close at once: the files end once.
func TestCloseTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.add(streamA)
		r.must(r.s.Close())
		r.s = nil
		other := make(chan error, 1)
		r.onWrite(func() {
			go func() { other <- r.s.Close() }()
			synctest.Wait() // the other waits for this write
		})
		r.open()
		r.write(streamA, 0, 0, "pending\n", false)
		r.must(r.s.Close())
		r.must(<-other)
		r.must(r.s.Close())
		r.open()
		if st := r.s.Stats(); st.Torn+st.Damaged > 0 || r.s.Size(streamA, 0) != 8 {
			t.Errorf("%d bytes, stats %+v", r.s.Size(streamA, 0), st)
		}
	})
}

// A conflict as large as an extent gets is archived whatever the stream's name,
// also if the name grows while the conflict waits for room.
func TestConflictOfLongName(t *testing.T) {
	long := bytes.Repeat([]byte("n"), maxName)
	for _, during := range []bool{false, true} {
		t.Run(fmt.Sprintf("during=%v", during), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, quiet, func(c *SpoolConfig) { c.FileBytes = 4 * maxGroup })
				r.add(streamA)
				r.add(streamB)
				n := r.s.extent
				r.write(streamA, 0, 0, strings.Repeat("a", n), true)
				renamed := make(chan error, 1)
				rename := func() { renamed <- r.rename(streamA, long) }
				if during {
					r.must(r.s.Close())
					r.s = nil
					r.onWrite(func() { go rename(); synctest.Wait() })
					r.open()
					r.write(streamB, 0, 0, strings.Repeat("b", maxGroup-n-1024), false)
				} else {
					rename()
				}
				r.write(streamA, 0, 0, strings.Repeat("A", n), true)
				r.must(<-renamed)
				r.open()
				if st := r.s.Stats(); st.Damaged+st.Torn > 0 || len(r.s.table.order) != 3 {
					t.Fatalf("%d streams, stats %+v", len(r.s.table.order), st)
				}
				other := r.s.table.stream(r.s.table.stream(streamA).conflict)
				if got := r.drain()[genKey{other.ID, 0}]; got != strings.Repeat("A", n) {
					t.Errorf("conflict of %d bytes, expected %d", len(got), n)
				}
			})
		})
	}
}

// Numbers that the format cannot hold are refused before they are written.
func TestLimits(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	for _, w := range [][3]int64{{-1, 0, 1}, {0, -1, 1}, {maxOffset, 0, 1}, {math.MaxInt64, 0, 1}, {0, maxOffset, 1}, {0, math.MaxInt64, 1}, {0, maxOffset - 7, 8}} {
		if err := r.s.Write(ctx, streamA, w[0], w[1], make([]byte, w[2]), client, true); err == nil {
			t.Errorf("write of %d bytes to generation %d at %d was taken", w[2], w[0], w[1])
		}
	}
	for _, gen := range []int64{-1, maxOffset, math.MaxInt64} {
		if err := r.s.EndGeneration(ctx, streamA, gen); err == nil {
			t.Errorf("generation %d was ended", gen)
		}
	}
	long := make([]byte, maxName+1)
	for _, err := range []error{
		r.s.AddStream(ctx, vault.StreamInfo{ID: streamB, Source: "proxy1", Name: long}),
		r.s.AddStream(ctx, vault.StreamInfo{ID: streamB, Source: "no good"}),
		r.s.AddStream(ctx, vault.StreamInfo{ID: streamA, Source: "proxy2"}),
		r.rename(streamA, long),
		r.rename(streamB, nil),
		r.s.SetMeta(ctx, vault.KV{Key: string(long)}),
		r.s.SetMeta(ctx, vault.KV{Key: "k", Value: make([]byte, maxGroup)}),
		r.s.Intend(ctx, vault.Intent{Entry: make([]byte, maxEntry+1)}),
		r.s.Release(ctx, vault.Piece{Stream: streamB}, 1),
	} {
		if err == nil || errors.Is(err, ErrSyncFailed) {
			t.Errorf("%v", err)
		}
	}
	r.write(streamA, maxOffset-1, maxOffset-8, "at last\n", true)
	r.must(r.s.EndGeneration(ctx, streamA, maxOffset-1))
	for range 2 {
		r.reopen()
		if got := r.s.Size(streamA, maxOffset-1); got != maxOffset {
			t.Fatalf("size %d", got)
		}
	}
	r.open()
	got := r.drain()
	if text := got[genKey{streamA, maxOffset - 1}]; text != fmt.Sprintf("<hole %d>at last\n", int64(maxOffset-8)) || len(got) != 1 {
		t.Errorf("sealed %q", text)
	}
	r.advance(25 * time.Hour)
	r.due(true)
	r.due(true)
	r.reopen()
	if g := r.s.table.stream(streamA).gens; len(g) != 0 {
		t.Errorf("%d generations left", len(g))
	}
}
