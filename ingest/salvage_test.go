package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

// quiet is a spool whose alarms are expected.
func quiet(c *SpoolConfig) { c.Log = slog.New(slog.DiscardHandler) }

// groups lists the groups of a file as they lie on the disk.
func (r *rig) groups(f *spoolFile) (at []int64) {
	r.t.Helper()
	_, err := f.scan(func(pos int64, _ groupHeader, _ []byte) error { at = append(at, pos); return nil })
	r.must(err)
	return at
}

// breakGroup damages the n-th group of the current file, from the end if negative.
func (r *rig) breakGroup(n int) {
	r.t.Helper()
	f := r.s.cur
	at := r.groups(f)
	if n < 0 {
		n += len(at)
	}
	r.flip(f.names.file, at[n]+groupHead, 0x40)
}

// wantLive checks that files count exactly what the tables refer to, and that
// the tables are in order.
func wantLive(s *Spool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := map[int]int64{}
	for _, st := range s.table.order {
		for _, g := range st.gens {
			for kind, t := range map[recordKind]runs{recExtent: g.data, recDigest: g.macs} {
				var end int64
				for _, r := range t {
					if r.off() < end || r.len() == 0 {
						return fmt.Errorf("stream %s generation %d kind %d: run at %d+%d, the one before ends at %d",
							st.ID, g.genKey.gen, kind, r.off(), r.len(), end)
					}
					end = r.end()
					live[r.slot()] += r.len()
				}
			}
			if g.freed > g.sealed || g.sealed > g.high || len(g.data) > 0 && g.data[len(g.data)-1].end() > g.high {
				return fmt.Errorf("generation %d: freed %d, sealed %d, high %d, data %d runs", g.genKey.gen, g.freed, g.sealed, g.high, len(g.data))
			}
			if got := g.data.first(g.freed); g.freed < g.sealed && got < g.freed {
				return fmt.Errorf("generation %d: holds offset %d, released to %d", g.genKey.gen, got, g.freed)
			}
		}
	}
	for _, f := range s.row {
		if s.slots[f.slot] != f || f.live != live[f.slot] {
			return fmt.Errorf("file %d counts %d live bytes, the tables refer to %d", f.seq, f.live, live[f.slot])
		}
		delete(live, f.slot)
	}
	if len(live) > 0 {
		return fmt.Errorf("runs of files that are gone: %v", live)
	}
	return nil
}

// first returns where the table begins, the limit of a stream if it is empty.
func (t runs) first(off int64) int64 {
	if len(t) == 0 {
		return max(off, maxOffset)
	}
	return t[0].off()
}

// Damage in the file that is being written takes only what lay in the damaged
// group: what waits in memory, or is on its way to the disk, is not lost.
func TestDamageInCurrentFile(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pending func(r *rig)
	}{
		{"nothing pending", func(*rig) {}},
		{"bytes pending", func(r *rig) { r.write(streamB, 0, 4, "bbb\n", false) }},
		{"bytes pending, merged with written ones", func(r *rig) {
			r.write(streamB, 0, 4, "bbb\n", true)
			r.write(streamB, 0, 8, "ccc\n", false)
			r.write(streamA, 0, 4, "aaaa\n", false)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, quiet)
			r.add(streamA)
			r.add(streamB)
			r.write(streamA, 0, 0, "one\n", true)
			r.write(streamB, 0, 0, "two\n", true)
			r.breakGroup(-2)
			tt.pending(r)
			sizeA, sizeB := r.s.Size(streamA, 0), r.s.Size(streamB, 0)
			if _, err := r.s.ReadAt(ctx, streamA, 0, make([]byte, 4), 0); !errors.Is(err, errDamaged) {
				t.Fatalf("reading damaged bytes: %v", err)
			}
			r.must(wantLive(r.s))
			p := make([]byte, sizeB)
			if n, err := r.s.ReadAt(ctx, streamB, 0, p, 0); int64(n) != sizeB {
				t.Errorf("%d bytes of the other stream, expected %d: %v", n, sizeB, err)
			}
			if a := r.s.table.stream(streamA).gen(0); a.data.covers(0, 1) || sizeA > 4 && !a.data.covers(4, sizeA) {
				t.Errorf("stream A holds %v of %d", a.data, sizeA)
			}
			if st := r.s.Stats(); st.Damaged != 1 || len(st.DamagedStreams) != 1 || st.DamagedStreams[0] != streamA {
				t.Errorf("stats %+v", st)
			}
			r.must(r.s.Commit(ctx, streamB))
			r.reopen()
			n, err := r.s.ReadAt(ctx, streamB, 0, p, 0)
			if int64(n) != sizeB || !strings.HasPrefix(string(p), "two\n") {
				t.Errorf("after a restart: %q, %v", p[:n], err)
			}
		})
	}
}

// The tail of a generation that ended is lost to damage: the ledger gets a gap
// there, and the generation is over.
func TestDamagedTailIsGap(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			r := newRig(t, quiet)
			r.add(streamA)
			r.write(streamA, 0, 0, "one\n", true)
			r.write(streamA, 0, 4, "two\n", true)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
			r.write(streamA, 1, 0, "next\n", true)
			r.breakGroup(-3) // "two"
			if restart {
				r.open()
			}
			var got strings.Builder
			for n := range int64(10) {
				for _, p := range r.due(true) {
					if p.FirstReceived.IsZero() || p.LastReceived.IsZero() || p.Record.IsZero() {
						t.Errorf("piece without times: %+v", p)
					}
					if p.Kind == vault.PieceHole {
						fmt.Fprintf(&got, "<%d+%d closed=%v>", p.Offset, p.Span, p.Closed)
					} else if text, err := r.s.Read(ctx, p, nil); err == nil {
						got.Write(text)
					} else if errors.Is(err, errDamaged) {
						continue
					} else {
						t.Fatal(err)
					}
					r.must(r.s.Release(ctx, p, n))
				}
			}
			if want := "one\n<4+4 closed=true>next\n"; got.String() != want {
				t.Errorf("sealed %q, expected %q", got.String(), want)
			}
			r.advance(25 * time.Hour)
			r.due(true)
			r.due(true)
			if r.s.table.stream(streamA).gen(0) != nil {
				t.Error("the generation is never forgotten")
			}
		})
	}
}

// lose takes a group off the disk, as when the power went before it was synced.
func (r *rig) lose(f *spoolFile, at int64) {
	r.t.Helper()
	h, _, _, err := f.readGroup(at, nil)
	r.must(err)
	w, err := r.mem.OpenRW(f.names.file)
	r.must(err)
	_, err = w.WriteAt(make([]byte, diskSize(int(h.length))), at)
	r.must(err)
	r.must(w.Sync())
	r.must(w.Close())
}

// flushOnly hands the pending group to the file, unsynced, as a full one is.
func (r *rig) flushOnly() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.flush()
}

// Of the groups that no sync covered one is lost and a later one is not: what
// the later one says of the generation's length must not hide that bytes before
// it never arrived.
func TestLostGroupBeforeRecord(t *testing.T) {
	ends := map[string]func(r *rig){
		"generation end": func(r *rig) { r.must(r.s.EndGeneration(ctx, streamA, 0)) },
		"release": func(r *rig) {
			p := vault.Piece{Stream: streamA, Offset: 0, Span: 4}
			r.must(r.s.Release(ctx, p, 3))
			r.must(r.s.Sync(ctx))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			r.write(streamA, 0, 0, "one\n", true)
			p := r.due(true)
			r.read(p[0])
			r.must(r.s.Intend(ctx, vault.Intent{Piece: p[0]}))
			r.write(streamA, 0, 4, "two\n", false)
			r.flushOnly()
			end(r)
			f := r.s.cur
			at := r.groups(f)
			r.lose(f, at[len(at)-2])
			r.open()
			if st := r.s.Stats(); st.Damaged > 0 {
				t.Fatalf("stats %+v", st)
			}
			if size, have := r.s.Size(streamA, 0), r.s.Contiguous(streamA, 0); size != 4 || have != 4 {
				t.Errorf("size %d, contiguous to %d, expected 4", size, have)
			}
			if name == "release" { // the client goes on where the spool ends
				r.write(streamA, 0, r.s.Size(streamA, 0), "two\n", true)
				r.must(r.s.EndGeneration(ctx, streamA, 0))
				if got := r.drain()[genKey{streamA, 0}]; got != "two\n" {
					t.Errorf("sealed %q", got)
				}
				return
			}
			if got := r.drain()[genKey{streamA, 0}]; got != "one\n" {
				t.Errorf("sealed %q", got)
			}
			r.advance(25 * time.Hour)
			r.due(true)
			r.due(true)
			if g := r.s.table.stream(streamA).gen(0); g != nil {
				t.Errorf("the generation is never over: %+v", g.genRecord)
			}
		})
	}
}

// A group that was never acknowledged is lost between two that are intact, and
// the bytes of those follow each other: no damage.
func TestLostGroupBetween(t *testing.T) {
	for _, kind := range []string{"zeros", "torn"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, quiet)
			r.add(streamA)
			r.add(streamB)
			r.write(streamA, 0, 0, "one\n", false)
			r.flushOnly()
			r.write(streamB, 0, 0, "other\n", false)
			r.flushOnly()
			r.write(streamA, 0, 4, "two\n", false)
			r.flushOnly()
			f := r.s.cur
			at := r.groups(f)
			if at = at[len(at)-2:]; kind == "zeros" {
				r.lose(f, at[0])
			} else {
				r.flip(f.names.file, at[0]+groupHead, 1)
			}
			r.open()
			if st := r.s.Stats(); st.Damaged > 0 || len(st.DamagedStreams) > 0 {
				t.Errorf("a power cut was taken for damage: %+v", st)
			}
			r.must(wantLive(r.s))
			if got := r.drain()[genKey{streamA, 0}]; got != "one\ntwo\n" {
				t.Errorf("sealed %q", got)
			}
		})
	}
}

// The position in a trailer points into the footer: a part of the footer must
// not pass for all of it.
func TestTrailerIntoFooter(t *testing.T) {
	const extents = 1800 // with holes between: enough for a footer of two groups
	r := newRig(t, quiet, func(c *SpoolConfig) { c.FileBytes = 256 << 10 })
	r.add(streamA)
	for i := range int64(extents) {
		r.write(streamA, 0, 2*i, "x", false)
	}
	r.must(r.s.Close())
	f, err := r.cfg.openFile(r.s.cur.seq)
	r.must(err)
	var inFooter []int64
	for _, at := range r.groups(f) {
		if at > f.footerAt() {
			inFooter = append(inFooter, at)
		}
	}
	if f.footerAt() == 0 || len(inFooter) == 0 {
		t.Fatalf("the footer has one group or none: %d of %v", f.footerAt(), r.groups(f))
	}
	for _, at := range append(inFooter, f.footerAt()) {
		c := r.on(r.mem.CrashClone(rand.New(rand.NewPCG(1, 1))))
		w, err := c.mem.OpenRW(f.names.file)
		r.must(err)
		_, err = w.WriteAt(encodeTrailer(at), f.size-trailerSize)
		r.must(err)
		r.must(w.Close())
		c.open()
		if st := c.s.Stats(); st.Unsealed != extents {
			t.Errorf("trailer at %d: %d bytes, expected %d", at, st.Unsealed, extents)
		}
		r.must(wantLive(c.s))
	}
}
