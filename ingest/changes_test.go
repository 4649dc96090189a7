package ingest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// The changes of one call are made together: what is wrong with one of them
// leaves all undone, and so does a power cut at any operation of the disk.
func TestChangesAreOne(t *testing.T) {
	all := vault.Changes{
		Add:    []vault.StreamInfo{{ID: streamB, Source: "proxy1", Name: []byte("b")}},
		Rename: []vault.StreamInfo{{ID: streamA, Name: []byte("renamed")}},
		End:    []vault.Generation{{Stream: streamA, Gen: 0}},
		Set:    []vault.KV{{Key: "k", Value: []byte("v")}},
	}
	made := func(s *Spool) (n int) {
		if s.table.stream(streamB) != nil {
			n++
		}
		st := s.table.stream(streamA)
		if string(st.Name) == "renamed" {
			n++
		}
		if g := st.gen(0); !g.ended.IsZero() {
			n++
		}
		if string(s.table.kv["k"]) == "v" {
			n++
		}
		return n
	}
	t.Run("refused", func(t *testing.T) {
		for what, spoil := range map[string]func(*vault.Changes){
			"rename of an unknown stream": func(c *vault.Changes) { c.Rename = append(c.Rename, vault.StreamInfo{ID: vault.StreamID{7}}) },
			"end of an unknown stream":    func(c *vault.Changes) { c.End = append(c.End, vault.Generation{Stream: vault.StreamID{7}}) },
			"another source":              func(c *vault.Changes) { c.Add = append(c.Add, vault.StreamInfo{ID: streamA, Source: "other"}) },
			"a negative generation":       func(c *vault.Changes) { c.End = append(c.End, vault.Generation{Stream: streamA, Gen: -1}) },
			"a name too long":             func(c *vault.Changes) { c.Rename[0].Name = make([]byte, maxName+1) },
			"a table too large": func(c *vault.Changes) {
				c.End = nil
				c.Set = append(c.Set, vault.KV{Key: "x", Value: make([]byte, 3<<20)})
			},
		} {
			r := newRig(t, quiet)
			r.add(streamA)
			r.write(streamA, 0, 0, "one\n", true)
			c := all
			c.Rename = append([]vault.StreamInfo(nil), all.Rename...)
			spoil(&c)
			if err := r.s.Record(ctx, c); err == nil {
				t.Errorf("%s: accepted", what)
			}
			if n := made(r.s); n != 0 {
				t.Errorf("%s: %d of the changes made", what, n)
			}
		}
	})
	for cut := 0; ; cut++ {
		r := newRig(t, quiet)
		r.add(streamA)
		r.write(streamA, 0, 0, "one\n", true)
		r.must(r.s.Close())
		ops, dead := 0, errors.New("power is off")
		r.cfg.FS = vfs.NewFault(r.mem, func(vfs.Op, string) error {
			if ops++; ops > cut {
				return dead
			}
			return nil
		})
		s, err := r.cfg.open(ctx)
		if err == nil {
			err = s.Record(ctx, all)
		}
		answered := err == nil
		r.cfg.FS, r.s = r.mem.CrashClone(rand.New(rand.NewPCG(uint64(cut), 1))), nil
		r.open()
		if n := made(r.s); n != 0 && n != 4 || answered && n != 4 {
			t.Fatalf("cut after %d operations, answered %t: %d of 4 changes made", cut, answered, n)
		}
		if answered {
			break
		}
	}
}

// A stream that is over is forgotten, with its conflicts, when all of it is
// sealed and a day has passed, and not before; through restarts of both kinds.
func TestStreamOver(t *testing.T) {
	r := newRig(t, quiet)
	for _, id := range []vault.StreamID{streamA, streamB} {
		r.add(id)
		r.write(id, 0, 0, "one\n", true)
	}
	r.write(streamA, 0, 0, "two\n", true) // a conflict
	r.must(r.s.Record(ctx, vault.Changes{
		End:  []vault.Generation{{Stream: streamA}, {Stream: streamB}},
		Over: []vault.StreamID{streamA, {9}},
	}))
	count := func(what string, want int) {
		t.Helper()
		for range 2 {
			if got := r.s.Stats().Streams; got != want {
				t.Errorf("%s: %d streams, expected %d", what, got, want)
			}
			r.reopen()
		}
		r.open() // as after a kill
	}
	count("unsealed", 3)
	for n := int64(1); ; n++ {
		p := r.due(true)
		if len(p) == 0 {
			break
		}
		r.seal(p[0], n)
	}
	count("sealed", 3)
	r.advance(25 * time.Hour)
	r.due(true)
	count("a day later", 1)
	if err := r.s.Write(ctx, streamA, 0, 0, []byte("x"), client, true); !errors.Is(err, ErrNoStream) {
		t.Errorf("write to a stream that is forgotten: %v", err)
	}
	r.write(streamB, 1, 0, "goes on\n", true)
}

// Without an end in sight, the table stays small if streams are given up.
func TestTableStaysSmall(t *testing.T) {
	r := newRig(t, quiet)
	for i := range 3000 {
		id := vault.StreamID{byte(i >> 8), byte(i), 1}
		r.must(r.s.AddStream(ctx, vault.StreamInfo{ID: id, Source: "proxy1", Name: fmt.Appendf(nil, "%0100d", i)}))
		r.write(id, 0, 0, "line\n", true)
		r.must(r.s.Record(ctx, vault.Changes{End: []vault.Generation{{Stream: id}}, Over: []vault.StreamID{id}}))
		if i%50 == 49 {
			for n, p := range r.due(true) {
				r.seal(p, int64(i+n))
			}
			r.advance(25 * time.Hour)
		}
	}
	if st := r.s.Stats(); st.Streams > 150 {
		t.Errorf("%d streams kept", st.Streams)
	}
}
