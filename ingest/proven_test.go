package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

// A sync that begins while a group is on its way to the disk proves what was
// written before, not that group.
func TestSyncDuringFlush(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.must(r.s.Close())
	r.s = nil
	written, proven := uint64(0), uint64(0)
	r.onWrite(func() {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		written = r.s.number - 2 // the pending group, and the one on its way
		r.must(r.s.sync())
		proven = r.s.proven
	})
	r.open()
	r.write(streamA, 0, 0, "a\n", false)
	r.flushOnly()
	if written == 0 || proven != written {
		t.Errorf("group %d is proven, %d was written", proven, written)
	}
}

// The header of the next file proves the end of the one before, whose own
// groups cannot, when a crash left it without footer.
func TestProvenByNextFile(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	first := r.s.cur
	for off := int64(0); r.s.cur == first; off += 5000 {
		r.write(streamA, 0, off, lines(genKey{streamA, 0}, off, 5000), true)
	}
	f, err := r.cfg.openFile(first.seq)
	r.must(err)
	footer, last := f.footerAt(), int64(0)
	for _, at := range r.groups(f) {
		if at >= footer {
			r.lose(f, at)
		} else {
			last = at
		}
	}
	r.flip(f.names.file, f.size-trailerSize, 0xff)
	r.flip(f.names.file, last+groupHead, 1)
	r.open()
	if st := r.s.Stats(); st.Damaged != 1 || st.Torn != 0 || len(st.DamagedStreams) != 1 {
		t.Errorf("stats %+v", st)
	}
}

// What Due offers is on the disk, whatever a power cut takes.
func TestDueIsDurable(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "one\ntwo\n", false)
	p := r.due(true)
	for range 16 {
		c := r.on(r.mem.CrashClone(rng))
		c.open()
		if got := c.s.Contiguous(streamA, 0); len(p) != 1 || got < p[0].Offset+p[0].Span {
			t.Fatalf("%d bytes on the disk, offered %s", got, describe(p))
		}
	}
}

// A snapshot that lacks a group replaces nothing: what the files before it hold
// stays.
func TestSnapshotWithHole(t *testing.T) {
	const keys = 5 // two to a group: a snapshot of three groups
	for lost := range 3 {
		r := newRig(t, quiet, func(c *SpoolConfig) { c.FileBytes = 160 << 10 })
		for i := range keys {
			r.must(r.s.SetMeta(ctx, vault.KV{Key: fmt.Sprint("k", i), Value: make([]byte, 15_500)}))
		}
		before := r.files()
		r.open()
		f := r.s.cur
		r.lose(f, r.groups(f)[lost])
		for name, data := range before { // as if the start had not come to removing them
			if _, err := r.mem.Stat(name); err != nil {
				r.must(vfs.WriteFile(r.mem, name, data, 0o600))
			}
		}
		r.open()
		n := 0
		r.must(r.s.Meta("k", func(vault.KV) error { n++; return nil }))
		if n != keys {
			t.Errorf("group %d lost: %d keys, expected %d", lost, n, keys)
		}
	}
}
