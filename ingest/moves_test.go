package ingest

import (
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

// crowdGroup leaves no room for 3,000 bytes in the pending group, so that the
// next reserve lets go of mu to write it; do runs meanwhile, once.
func (r *rig) crowdGroup(do func()) {
	r.t.Helper()
	r.must(r.s.Close())
	r.s = nil
	r.onWrite(do)
	r.open()
	r.write(streamB, 0, r.s.Size(streamB, 0), strings.Repeat("b", r.s.groupBytes-2000), false)
}

// While a write waits for room another one brings other bytes for the same
// place, which are answered first: they stay, and the later ones are a conflict.
func TestOvertakenWrite(t *testing.T) {
	first, second := strings.Repeat("1", 3000), strings.Repeat("2", 3000)
	for _, same := range []bool{false, true} {
		r := newRig(t, quiet)
		r.add(streamA)
		r.add(streamB)
		late := second
		if same {
			late = first
		}
		r.crowdGroup(func() { r.write(streamA, 0, 0, first, false) })
		r.write(streamA, 0, 0, late, true)
		r.must(wantLive(r.s))
		r.must(r.s.EndGeneration(ctx, streamA, 0))
		if same {
			r.wantArchive(first, nil)
		} else {
			r.wantArchive(first, []string{second})
		}
	}
}

// While the cleaner waits for room the bytes it is about to carry are released:
// they do not come back.
func TestReleasedWhileCarried(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	r.add(streamB)
	r.write(streamA, 0, 0, lines(genKey{streamA, 0}, 0, 3000), true)
	old := r.s.cur.seq
	r.crowdGroup(func() {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		g := r.s.table.stream(streamA).gen(0)
		g.sealed, g.ended = g.high, r.wall
		r.s.trim(g)
	})
	r.s.mu.Lock()
	f := r.s.row[0]
	err := r.s.carry(f)
	r.s.mu.Unlock()
	r.must(err)
	if f.seq != old || f.live != 0 {
		t.Errorf("file %d has %d live bytes", f.seq, f.live)
	}
	if g := r.s.table.stream(streamA).gen(0); len(g.data) > 0 || g.freed != 3000 {
		t.Errorf("released to %d, holds %v", g.freed, g.data)
	}
	r.must(wantLive(r.s))
}

// What is read while the cleaner moves it, and removes the file it was in, is
// read to the end; the file is closed when its last reader is done.
func TestReadWhileCarried(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	want := lines(genKey{streamA, 0}, 0, 20_000)
	for off := 0; off < len(want); off += 1000 {
		r.write(streamA, 0, int64(off), want[off:off+1000], true)
	}
	r.reopen()
	s := r.s
	s.mu.Lock()
	f, g := s.row[0], s.table.stream(streamA).gen(0)
	rd, err := s.beginRead(g, recExtent, 0, int64(len(want)))
	r.must(err)
	r.must(s.carry(f))
	r.must(s.sweep())
	if !f.gone || f.refs == 0 || s.slots[f.slot] == f || s.row[0] == f {
		t.Errorf("the file is not gone: gone %v, %d readers", f.gone, f.refs)
	}
	s.mu.Unlock()
	var got strings.Builder
	r.must(rd.each(func(_ *extentHead, payload []byte) error { got.Write(payload); return nil }))
	s.mu.Lock()
	rd.done()
	s.mu.Unlock()
	if got.String() != want {
		t.Errorf("%d bytes read, expected %d", got.Len(), len(want))
	}
	if _, err := f.f.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("the file is still open")
	}
	if got := r.drain()[genKey{streamA, 0}]; got != want[:len(got)] || len(got) < 19_000 {
		t.Errorf("%d bytes came out after the move", len(got))
	}
}

// A group of small extents of many streams is read once when it is carried, not
// once for each of them.
func TestCarryReadsOnce(t *testing.T) {
	r := newRig(t, quiet, func(c *SpoolConfig) { c.FileBytes = 1 << 20 })
	var ids []vault.StreamID
	for i := range byte(50) {
		ids = append(ids, vault.StreamID{i, 1})
		r.add(ids[i])
	}
	for off := int64(0); off < 1000; off += 100 {
		for _, id := range ids {
			r.write(id, 0, off, lines(genKey{id, 0}, off, 100), false)
		}
		r.must(r.s.Sync(ctx))
	}
	groups := len(r.groups(r.s.cur))
	reads, r2 := 0, r.on(r.mem)
	r2.cfg.FS = vfs.NewFault(r.mem, func(op vfs.Op, _ string) error {
		if op == vfs.OpRead {
			reads++
		}
		return nil
	})
	r2.open() // carries the file that was not finished
	if runs := r2.s.Stats().Runs; runs != len(ids) {
		t.Errorf("%d runs, expected one of each stream", runs)
	}
	// Head and rest of each group, for the replay and for the cleaner, and some for headers and keys.
	if most := 4*groups + 20; reads > most {
		t.Errorf("%d reads for %d groups, expected at most %d", reads, groups, most)
	}
	for _, id := range ids {
		r2.must(r2.s.EndGeneration(ctx, id, 0))
	}
	for k, text := range r2.drain() {
		if text != lines(k, 0, 1000) {
			t.Errorf("stream %s: %d bytes came out, expected 1000", k.stream, len(text))
		}
	}
}
