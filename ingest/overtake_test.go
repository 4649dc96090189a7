package ingest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

// A spool from a backup is told what its ledger has had since. What the ledger
// lacks is due, with the right place and predecessor, and nothing else is.
func TestOvertake(t *testing.T) {
	const text = "one\ntwo\nthree\nfour\n" // 4, 8, 14, 19
	tests := []struct {
		name  string
		ahead Ahead
		left  int64
		due   string // text that is still due of generation 0
		prev  int64
		size  int64
	}{
		{"nothing of it", Ahead{Prev: -1}, 0, "two\nthree\nfour\n", 7, 19},
		{"no more than the spool knew", Ahead{Prev: 7, Next: 1, Gens: []SealedPart{{Gen: 0, End: 4}}}, 0, "two\nthree\nfour\n", 7, 19},
		{"a part", Ahead{Prev: 12, Next: 1, Gens: []SealedPart{{Gen: 0, End: 14}}}, 10, "four\n", 12, 19},
		{"all", Ahead{Prev: 12, Next: 1, Gens: []SealedPart{{Gen: 0, End: 19, Closed: true}}}, 15, "", 12, 19},
		{"more than the spool ever had", Ahead{Prev: 13, Next: 3, Gens: []SealedPart{{Gen: 0, End: 100, Closed: true}, {Gen: 2, End: 50}}}, 15, "", 13, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			r.write(streamA, 0, 0, text[:4], true)
			r.seal(r.due(true)[0], 7)
			r.write(streamA, 0, 4, text[4:], true)
			p := r.due(true)[0]
			r.must(r.s.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("entry"), Size: 8}))
			for range 2 { // again it changes nothing
				left, err := r.s.Overtake(ctx, func(vault.StreamID) Ahead { return tt.ahead })
				r.must(err)
				if left != tt.left {
					t.Errorf("%d bytes left the spool, expected %d", left, tt.left)
				}
				tt.left = 0
				r.reopen()
			}
			if got := r.s.Size(streamA, 0); got != tt.size {
				t.Errorf("size %d, expected %d", got, tt.size)
			}
			if pending := r.s.Pending(); len(pending) > 0 != (tt.due == text[4:]) {
				t.Errorf("intents %v", pending)
			}
			due := r.due(true)
			if (tt.due == "") != (len(due) == 0) {
				t.Fatalf("due %v, expected %q", due, tt.due)
			}
			if len(due) > 0 {
				if got := r.read(due[0]); got != tt.due || due[0].Prev != tt.prev || due[0].Offset != int64(len(text)-len(tt.due)) {
					t.Errorf("due %q after entry %d at %d, expected %q after %d", got, due[0].Prev, due[0].Offset, tt.due, tt.prev)
				}
				r.seal(due[0], 99)
			}
			// What comes next for a generation that is over is kept apart; a new one is taken.
			next := max(tt.ahead.Next, 1)
			r.write(streamA, next, 0, "after\n", true)
			got := map[int64]string{}
			for k, text := range r.drain() {
				if k.stream == streamA {
					got[k.gen] = text
				}
			}
			if want := (map[int64]string{next: "after\n"}); !maps.Equal(got, want) {
				t.Errorf("due later %v, expected %v", got, want)
			}
		})
	}
}

// TestOvertakeCrash kills it before each operation of the disk. What is left is
// overtaken again, and then the same is due.
func TestOvertakeCrash(t *testing.T) {
	ahead := func(id vault.StreamID) Ahead {
		return Ahead{Prev: 3, Next: 1, Gens: []SealedPart{{Gen: 0, End: 4}}}
	}
	for at := 0; ; at++ {
		n, dead := 0, errors.New("killed")
		armed := false
		r := newRig(t, func(c *SpoolConfig) {
			c.FS = vfs.NewFault(c.FS, func(vfs.Op, string) error {
				if n++; armed && n > at {
					return dead
				}
				return nil
			})
		})
		for _, id := range []vault.StreamID{streamA, streamB} {
			r.add(id)
			r.write(id, 0, 0, "one\ntwo\n", true)
		}
		n, armed = 0, true
		_, err := r.s.Overtake(ctx, ahead)
		r.cfg.FS = r.mem.CrashClone(rand.New(rand.NewPCG(1, uint64(at))))
		r.open()
		if _, err := r.s.Overtake(ctx, ahead); err != nil {
			t.Fatal(err)
		}
		got, want := r.drain(), map[genKey]string{{streamA, 0}: "two\n", {streamB, 0}: "two\n"}
		if !maps.Equal(got, want) {
			t.Fatalf("crash before operation %d: %v due, expected %v", at, got, want)
		}
		if err == nil {
			return
		}
	}
}
