package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"logvault/internal/vfs"
	"logvault/vault"
)

// sizes are around the buffer size, where streaming goes wrong if it does.
var sizes = []int{0, 1, bufferSize - 1, bufferSize, bufferSize + 1, 3*bufferSize + 17}

func TestPut(t *testing.T) {
	for _, size := range sizes {
		m := vfs.NewMem()
		s := newVault(t, m, root)
		data := strings.Repeat("x", size)
		for range 2 {
			must(t, s.Put(ctx, segment, int64(size), iotest.DataErrReader(strings.NewReader(data))))
			must(t, s.Put(ctx, segment, int64(size), iotest.HalfReader(strings.NewReader(data))))
		}
		wantContent(t, s, segment, data)
		for _, other := range []string{data + "x", data + strings.Repeat("y", bufferSize), "y" + data, strings.Replace(data, "x", "y", 1), data[:size/2]} {
			if other != data {
				wantErr(t, "Put of other bytes", put(s, segment, other), vault.ErrConflict)
			}
		}
		if size > 0 {
			wantErr(t, "Put of another last byte", put(s, segment, data[1:]+"y"), vault.ErrConflict)
		}
		wantContent(t, s, segment, data)
		wantNoTemps(t, m)
	}
}

// wantNoTemps checks that no temporary file is left.
func wantNoTemps(t *testing.T, fsys vfs.FS) {
	t.Helper()
	for _, dir := range []string{"", "ledger", "segments", "keys"} {
		entries, err := fsys.ReadDir(path.Join(root, dir))
		must(t, err)
		for _, e := range entries {
			if isTemp(e.Name()) {
				t.Errorf("%s is left in %q", e.Name(), dir)
			}
		}
	}
}

func TestPutWrongSize(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	must(t, put(s, index, "12345"))
	for _, name := range []string{segment, index} { // a new name, and one that exists
		before := get(t, s, name)
		for _, tt := range []struct {
			size int64
			body string
		}{{-1, ""}, {4, "12345"}, {6, "12345"}, {0, "12345"}, {5, ""}, {5, "1234512345"}} {
			err := s.Put(ctx, name, tt.size, strings.NewReader(tt.body))
			if err == nil || errors.Is(err, vault.ErrConflict) {
				t.Errorf("Put of %q as %d bytes: %v, expected a complaint about the size", tt.body, tt.size, err)
			}
			wantContent(t, s, name, before)
		}
		broken := io.MultiReader(strings.NewReader("123"), iotest.ErrReader(syscall.ECONNRESET))
		wantErr(t, "Put of a failing body", s.Put(ctx, name, 5, broken), syscall.ECONNRESET)
		wantErr(t, "Put of a body that fails at its end", s.Put(ctx, name, 3, io.MultiReader(
			strings.NewReader("123"), iotest.ErrReader(syscall.ECONNRESET))), syscall.ECONNRESET)
		wantContent(t, s, name, before)
	}
	wantNoTemps(t, m)
}

func TestWrongNames(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	before := list(t, s, "")
	for _, name := range []string{
		"", "..", "../x", "/etc/passwd", "x", "segments/x", "segments/2026/11/21/../../x.gz.pgp", "ledger/.tmp-1",
		"ledger/", "VAULT/x", segment + "/x", segment + "\x00",
	} {
		for op, err := range map[string]error{
			"Put": put(s, name, "x"), "Replace": s.Replace(ctx, name, []byte("x")), "Remove": s.Remove(ctx, name),
			"RemovePartial": s.RemovePartial(ctx, name), "RemoveTail": s.RemoveTail(ctx, name),
		} {
			if err == nil {
				t.Errorf("%s(%q) succeeds", op, name)
			}
		}
	}
	for _, name := range []string{checkpoint, partial} {
		if put(s, name, "x") == nil {
			t.Errorf("Put of the mutable %s succeeds", name)
		}
	}
	for _, name := range []string{vault.MarkerName, segment, tile, vault.KeptCheckpointName(vault.LedgerPrefix, 1)} {
		if s.Replace(ctx, name, []byte("x")) == nil {
			t.Errorf("Replace of the immutable %s succeeds", name)
		}
	}
	for _, name := range []string{vault.MarkerName, checkpoint, tile, partial, vault.KeptCheckpointName(vault.LedgerPrefix, 1)} {
		if s.Remove(ctx, name) == nil {
			t.Errorf("Remove of %s succeeds", name)
		}
	}
	for _, name := range []string{vault.MarkerName, checkpoint, tile, segment} {
		if s.RemovePartial(ctx, name) == nil {
			t.Errorf("RemovePartial of %s succeeds", name)
		}
	}
	if after := list(t, s, ""); !slices.Equal(before, after) {
		t.Errorf("refused calls changed %q to %q", before, after)
	}
}

func TestPutConcurrent(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0 // guarded by mu
	for i := range 8 {
		wg.Go(func() {
			err := put(s, segment, fmt.Sprint("version ", i%2)) // one name, two contents
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, vault.ErrConflict) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			h := vault.HashOf([]byte{byte(i)})
			if err := put(s, vault.WrapName(testDay, "technical", h, h), "wrap"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 4 {
		t.Errorf("%d calls succeeded, expected the 4 of one content", won)
	}
	if got := list(t, s, "keys/"); len(got) != 8 {
		t.Errorf("%d wraps, expected 8", len(got))
	}
	wantNoTemps(t, m)
}

// TestPutRace lets another process store the name between look and link.
func TestPutRace(t *testing.T) {
	for _, other := range []string{"mine", "other"} {
		m := vfs.NewMem()
		newVault(t, m, root)
		s, err := Open(vfs.NewFault(m, func(op vfs.Op, name string) error {
			if op == vfs.OpLink {
				foreign(t, m, name, other)
			}
			return nil
		}), root)
		must(t, err)
		err = put(s, segment, "mine")
		if other == "mine" {
			must(t, err)
		} else {
			wantErr(t, "Put", err, vault.ErrConflict)
		}
		wantContent(t, s, segment, other)
		wantNoTemps(t, m)
	}
}

// TestDirectoriesRemovedBehind removes directories that the store believes in.
func TestDirectoriesRemovedBehind(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	must(t, s.Replace(ctx, vault.CheckpointName(vault.CopyLogPrefix("b")), []byte("head")))
	must(t, put(s, segment, "x"))
	must(t, s.Remove(ctx, segment))
	must(t, put(s, segment, "y"))
	other, err := Open(m, root)
	must(t, err)
	must(t, other.Remove(ctx, segment))
	must(t, put(s, segment, "z"))
	wantContent(t, s, segment, "z")
	for _, name := range []string{"copy/b/log/checkpoint", "copy/b/log", "copy/b", "copy"} {
		must(t, m.Remove(path.Join(root, name)))
	}
	must(t, s.Replace(ctx, vault.CheckpointName(vault.CopyLogPrefix("b")), []byte("new")))
	wantContent(t, s, "copy/b/log/checkpoint", "new")
}

func TestRemovePartialAndTail(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	if err := s.RemoveTail(ctx, tile); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("RemoveTail without a checkpoint: %v", err)
	}
	head := func(size int) {
		must(t, s.Replace(ctx, checkpoint, fmt.Appendf(nil, "origin\n%d\nroot\n\n", size)))
	}
	four := vault.TileName(vault.LedgerPrefix, 0, 1234, 4)
	for _, name := range []string{four, partial} {
		must(t, s.Replace(ctx, name, []byte(name)))
	}
	must(t, put(s, tile, "full"))
	must(t, s.RemovePartial(ctx, four))
	must(t, s.RemovePartial(ctx, four)) // absent is success
	wantContent(t, s, four, "-")
	wantContent(t, s, partial, partial)
	must(t, s.RemovePartial(ctx, partial))
	if _, err := m.Stat(path.Join(root, path.Dir(partial))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty directory of the partial tiles is left: %v", err)
	}
	must(t, s.Replace(ctx, partial, []byte("again")))
	wantContent(t, s, partial, "again")

	head(1235 * 256)
	if s.RemoveTail(ctx, tile) == nil || s.RemoveTail(ctx, partial) == nil || s.RemoveTail(ctx, checkpoint) == nil {
		t.Error("RemoveTail of what the checkpoint covers succeeds")
	}
	wantContent(t, s, tile, "full")
	head(1235*256 - 1)
	must(t, s.RemoveTail(ctx, tile))
	must(t, s.RemoveTail(ctx, tile)) // absent is success
	wantContent(t, s, tile, "-")
	must(t, s.Replace(ctx, checkpoint, []byte("rubbish")))
	if s.RemoveTail(ctx, tile) == nil {
		t.Error("RemoveTail with a bad checkpoint succeeds")
	}
}

func TestSweep(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	temps := []string{".tmp-1", "ledger/.tmp-2", "segments/.tmp-1", "segments/.tmp-99", "copy/.tmp-1"}
	for _, name := range temps {
		foreign(t, m, path.Join(root, name), "left")
	}
	foreign(t, m, root+"/lost+found/.tmp-1", "not ours")
	must(t, m.Mkdir(root+"/.tmp-dir", 0o755))
	must(t, put(s, segment, "x")) // passes over numbers in use
	n, err := s.Sweep(ctx)
	if n != len(temps) || err != nil {
		t.Errorf("Sweep = %d, %v; expected %d", n, err, len(temps))
	}
	if n, err := s.Sweep(ctx); n != 0 || err != nil {
		t.Errorf("second Sweep = %d, %v", n, err)
	}
	wantContent(t, s, segment, "x")
	if _, err := m.Stat(root + "/lost+found/.tmp-1"); err != nil {
		t.Error(err)
	}
}

// TestDiskWithoutModesAndLinks runs on a disk like CIFS or FAT.
func TestDiskWithoutModesAndLinks(t *testing.T) {
	for _, errno := range []error{syscall.EPERM, syscall.ENOTSUP} {
		m := vfs.NewMem()
		fsys := vfs.NewFault(m, func(op vfs.Op, _ string) error {
			if op == vfs.OpLink || op == vfs.OpChmod {
				return errno
			}
			return nil
		})
		s := newVault(t, fsys, root)
		must(t, put(s, segment, "x"))
		must(t, put(s, segment, "x"))
		wantErr(t, "Put of other bytes", put(s, segment, "y"), vault.ErrConflict)
		must(t, s.Replace(ctx, checkpoint, []byte("x")))
		wantContent(t, s, segment, "x")
		wantNoTemps(t, m)
	}
}

func TestDiskFull(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	must(t, s.Replace(ctx, checkpoint, []byte("old")))
	m.SetSpace(vfs.Space{Total: 1 << 20, Free: 100 << 10})
	big := strings.Repeat("x", 200<<10)
	wantErr(t, "Put on a full disk", put(s, segment, big), syscall.ENOSPC)
	wantContent(t, s, segment, "-")
	wantNoTemps(t, m)
	must(t, put(s, index, big[:90<<10])) // the room of the failed try is back
	wantErr(t, "Replace on a full disk", s.Replace(ctx, checkpoint, []byte(big)), syscall.ENOSPC)
	wantContent(t, s, checkpoint, "old")
	m.SetSpace(vfs.Space{Total: 1 << 20, Free: 1 << 20})
	must(t, put(s, segment, big))
}

// TestPutMemory checks that Put streams: a body far larger than any buffer is
// read in small pieces.
func TestPutMemory(t *testing.T) {
	s := newVault(t, vfs.NewMem(), root)
	body := &watchReader{r: bytes.NewReader(make([]byte, 4<<20))}
	must(t, s.Put(ctx, segment, 4<<20, body))
	if body.most > bufferSize {
		t.Errorf("read %d bytes at once, expected at most %d", body.most, bufferSize)
	}
}

type watchReader struct {
	r    io.Reader
	most int
}

func (w *watchReader) Read(p []byte) (int, error) {
	w.most = max(w.most, len(p))
	return w.r.Read(p)
}

// TestPutChecked: what the check refuses gets no name and leaves nothing; what
// was there is shown too.
func TestPutChecked(t *testing.T) {
	m := world(t, checkpoint, "origin\n0\nroot\n\n")
	s, err := Open(m, root)
	must(t, err)
	bad := errors.New("bad")
	var seen []string
	store := func(verdict error) error {
		return s.PutChecked(ctx, segment, int64(len(body)), strings.NewReader(body), func(stored io.Reader) error {
			data, err := io.ReadAll(stored)
			must(t, err)
			if _, err := s.Stat(ctx, segment); len(seen) < 2 && !errors.Is(err, vault.ErrNotExist) {
				t.Errorf("named before it was checked: %v", err)
			}
			seen = append(seen, string(data))
			return verdict
		})
	}
	if err := store(bad); !errors.Is(err, bad) {
		t.Errorf("error %v, expected the check's", err)
	}
	wantNoTemps(t, m)
	if _, err := s.Stat(ctx, segment); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("refused, but there: %v", err)
	}
	must(t, store(nil))
	if err := store(bad); !errors.Is(err, bad) {
		t.Errorf("a second time: error %v, expected the check's", err)
	}
	if !slices.Equal(seen, []string{body, body, body}) {
		t.Errorf("shown %q", seen)
	}
}
