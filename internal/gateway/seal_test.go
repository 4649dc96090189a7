package gateway

import (
	"path"
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/ledger/entry"
)

// TestSealEndsUnderLoad: `seal` seals what was there when it was asked. It went
// on as long as a proxy kept writing, one entry and two objects for every few
// lines: 1302 segments for 12 MiB in 19 s, measured.
func TestSealEndsUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "one\nthr") // a line that is not whole must not end it early, nor keep it
	w.put(s, 2, "one\n")
	segments, stored := path.Join(w.cfg.Vault, "segments")+"/", 0
	w.fail(func(op vfs.Op, name string) error {
		if op == vfs.OpCreate && strings.HasPrefix(name, segments) {
			if stored++; stored < 100 {
				w.put(s, 2, "more while it is sealing\n")
			}
		}
		return nil
	})
	res, err := s.Seal(ctx)
	if err != nil || res.Segments < 2 || res.Segments > 4 {
		t.Errorf("sealed %+v, %v; expected the 2 streams and at most one more round", res, err)
	}
	if stored == 0 {
		t.Error("nothing was written while it sealed")
	}
	w.fail(nil)
}

// TestSealFinishesBacklog: a stream of several pieces is sealed to its end,
// though each round takes one piece of it.
func TestSealFinishesBacklog(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "one\n")
	for day := range 3 {
		w.advance(24 * 3600e9)
		w.put(s, 2, strings.Repeat("line\n", day+1))
	}
	res, err := s.Seal(ctx)
	if left := s.spool.Stats().Unsealed; err != nil || res.Segments != 4 || left != 0 {
		t.Errorf("sealed %+v, %v; %d bytes left", res, err, left)
	}
	if got := w.count(entry.TypeSegment); got != 4 {
		t.Errorf("%d segments", got)
	}
}

// TestOpenSweeps: what a killed process left under temporary names, whole
// objects among them, goes at the next start. Nothing lists such names, so they
// would outlive every date.
func TestOpenSweeps(t *testing.T) {
	w := newWorld(t)
	w.init()
	left := []string{path.Join(w.cfg.Vault, "segments/.tmp-7"), path.Join(w.cfg.Vault, ".tmp-1"), path.Join(w.cfg.State, "ledger/.tmp-3")}
	for _, name := range left {
		w.must(vfs.CreateFile(w.mem, name, []byte("x"), 0o640))
	}
	w.open()
	for _, name := range left {
		if _, err := w.mem.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}
