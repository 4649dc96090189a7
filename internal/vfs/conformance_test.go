package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestConformance runs one suite over every file system, so that what is tested
// on Mem holds on the real disk.
func TestConformance(t *testing.T) {
	systems := map[string]func(t *testing.T) (FS, string){
		"os": func(t *testing.T) (FS, string) { return OS, t.TempDir() },
		"mem": func(t *testing.T) (FS, string) {
			m := NewMem()
			if err := m.Mkdir("/top", 0o755); err != nil {
				t.Fatal(err)
			}
			return m, "/top"
		},
		"fault": func(t *testing.T) (FS, string) {
			return NewFault(NewMem(), func(Op, string) error { return nil }), "/"
		},
	}
	tests := map[string]func(t *testing.T, fsys FS, dir string){
		"Files":       testFiles,
		"OpenModes":   testOpenModes,
		"SparseWrite": testSparse,
		"Truncate":    testTruncate,
		"Preallocate": testPreallocate,
		"Names":       testNames,
		"NameErrors":  testNameErrors,
		"Link":        testLink,
		"Rename":      testRename,
		"Unlinked":    testUnlinked,
		"Dirs":        testDirs,
		"Stat":        testStat,
		"Flags":       testFlags,
		"Lock":        testLock,
		"Space":       testSpace,
		"Concurrent":  testConcurrent,
		"Random":      testRandom,
		"Durable":     testDurable,
	}
	for system, open := range systems {
		for name, test := range tests {
			t.Run(system+"/"+name, func(t *testing.T) {
				fsys, dir := open(t)
				test(t, fsys, dir)
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, expected %v", what, got, want)
	}
}

// put makes a file with content, unsynced.
func put(t *testing.T, fsys FS, name, data string) {
	t.Helper()
	f, err := fsys.Create(name, 0o644)
	must(t, err)
	_, err = f.Write([]byte(data))
	must(t, err)
	must(t, f.Close())
}

func get(t *testing.T, fsys FS, name string) string {
	t.Helper()
	data, err := ReadFile(fsys, name, 1<<20)
	must(t, err)
	return string(data)
}

func wantContent(t *testing.T, fsys FS, name, want string) {
	t.Helper()
	if got := get(t, fsys, name); got != want {
		t.Errorf("%s holds %.60q, expected %.60q", name, got, want)
	}
}

func testFiles(t *testing.T, fsys FS, dir string) {
	name := dir + "/f"
	f, err := fsys.Create(name, 0o600)
	must(t, err)
	if f.Name() != name {
		t.Errorf("Name is %q, expected %q", f.Name(), name)
	}
	for _, s := range []string{"hello ", "", "world"} {
		n, err := f.Write([]byte(s))
		if n != len(s) || err != nil {
			t.Errorf("Write(%q) = %d, %v", s, n, err)
		}
	}
	_, err = f.WriteAt([]byte("J"), 0)
	must(t, err)
	must(t, f.Sync())
	buf := make([]byte, 20)
	n, err := f.ReadAt(buf, 3)
	if string(buf[:n]) != "lo world" || err != io.EOF {
		t.Errorf("ReadAt past the end = %q, %v; expected the rest and io.EOF", buf[:n], err)
	}
	if n, err := f.ReadAt(buf[:5], 6); string(buf[:n]) != "world" || n != 5 {
		t.Errorf("ReadAt to the end = %q, %v", buf[:n], err)
	}
	if n, err := f.ReadAt(buf, 11); n != 0 || err != io.EOF {
		t.Errorf("ReadAt at the end = %d, %v", n, err)
	}
	if _, err := f.ReadAt(buf, -1); err == nil {
		t.Error("ReadAt at -1 succeeds")
	}
	if _, err := f.WriteAt(buf, -1); err == nil {
		t.Error("WriteAt at -1 succeeds")
	}
	must(t, f.Close())
	wantErr(t, "second Close", f.Close(), fs.ErrClosed)
	_, err = f.Write([]byte("x"))
	wantErr(t, "Write after Close", err, fs.ErrClosed)
	_, err = f.Stat()
	wantErr(t, "Stat after Close", err, fs.ErrClosed)
	if syncing && f.Sync() == nil {
		t.Error("Sync after Close succeeds")
	}

	r, err := fsys.Open(name)
	must(t, err)
	got, err := io.ReadAll(iotestOneByte{r})
	if string(got) != "Jello world" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	must(t, r.Sync()) // a store syncs files that it only reads
	must(t, r.Close())
}

// iotestOneByte reads one byte at a time.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func testOpenModes(t *testing.T, fsys FS, dir string) {
	name := dir + "/f"
	_, err := fsys.Open(name)
	wantErr(t, "Open of nothing", err, fs.ErrNotExist)
	_, err = fsys.OpenRW(name)
	wantErr(t, "OpenRW of nothing", err, fs.ErrNotExist)
	if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat after OpenRW: %v, expected that it made nothing", err)
	}
	put(t, fsys, name, "old")
	_, err = fsys.Create(name, 0o600)
	wantErr(t, "Create of an existing name", err, fs.ErrExist)
	_, err = fsys.Create(dir, 0o600)
	wantErr(t, "Create of a directory's name", err, fs.ErrExist)
	_, err = fsys.OpenRW(dir)
	wantErr(t, "OpenRW of a directory", err, syscall.EISDIR)

	r, err := fsys.Open(name)
	must(t, err)
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("Write to a file opened for reading succeeds")
	}
	if err := r.Truncate(0); err == nil {
		t.Error("Truncate of a file opened for reading succeeds")
	}
	must(t, r.Close())
	w, err := fsys.OpenRW(name)
	must(t, err)
	_, err = w.WriteAt([]byte("new!"), 0)
	must(t, err)
	must(t, w.Close())
	wantContent(t, fsys, name, "new!")

	d, err := fsys.Open(dir)
	must(t, err)
	_, err = d.Read(make([]byte, 1))
	wantErr(t, "Read of a directory", err, syscall.EISDIR)
	must(t, d.Close())
}

func testSparse(t *testing.T, fsys FS, dir string) {
	f, err := fsys.Create(dir+"/f", 0o600)
	must(t, err)
	const at = 3*pageSize + 7
	_, err = f.WriteAt([]byte("end"), at)
	must(t, err)
	_, err = f.WriteAt([]byte("mid"), pageSize-1)
	must(t, err)
	must(t, f.Close())
	want := make([]byte, at+3)
	copy(want[at:], "end")
	copy(want[pageSize-1:], "mid")
	wantContent(t, fsys, dir+"/f", string(want))
}

func testTruncate(t *testing.T, fsys FS, dir string) {
	f, err := fsys.Create(dir+"/f", 0o600)
	must(t, err)
	_, err = f.Write(bytes.Repeat([]byte("x"), 2*pageSize+100))
	must(t, err)
	must(t, f.Sync())
	for _, size := range []int64{2 * pageSize, pageSize + 5, 3, 10, 2*pageSize + 1} {
		must(t, f.Truncate(size))
	}
	must(t, f.Close())
	wantContent(t, fsys, dir+"/f", "xxx"+strings.Repeat("\x00", 2*pageSize-2))
	f, err = fsys.OpenRW(dir + "/f")
	must(t, err)
	wantErr(t, "Truncate to -1", f.Truncate(-1), syscall.EINVAL)
	must(t, f.Close())
}

func testPreallocate(t *testing.T, fsys FS, dir string) {
	f, err := fsys.Create(dir+"/f", 0o600)
	must(t, err)
	_, err = f.Write([]byte("head"))
	must(t, err)
	must(t, f.Preallocate(3*pageSize+1))
	must(t, f.Preallocate(pageSize)) // never shrinks
	_, err = f.WriteAt([]byte("x"), pageSize+1)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	want := make([]byte, 3*pageSize+1)
	copy(want, "head")
	want[pageSize+1] = 'x'
	wantContent(t, fsys, dir+"/f", string(want))
	f, err = fsys.OpenRW(dir + "/f")
	must(t, err)
	wantErr(t, "Preallocate(0)", f.Preallocate(0), syscall.EINVAL)
	must(t, f.Close())
}

func testNames(t *testing.T, fsys FS, dir string) {
	for _, name := range []string{"b", "a", "é", "a.b", "B", "\xff\xfe", strings.Repeat("n", 255)} {
		put(t, fsys, path.Join(dir, name), name)
	}
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		if e.IsDir() || !e.Type().IsRegular() {
			t.Errorf("%q is not listed as a file", e.Name())
		}
		info, err := e.Info()
		must(t, err)
		if info.Size() != int64(len(e.Name())) {
			t.Errorf("%q: size %d", e.Name(), info.Size())
		}
		wantContent(t, fsys, dir+"//./"+e.Name(), e.Name())
	}
	want := []string{"B", "a", "a.b", "b", strings.Repeat("n", 255), "é", "\xff\xfe"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("listed %q, expected %q", got, want)
	}
}

func testNameErrors(t *testing.T, fsys FS, dir string) {
	put(t, fsys, dir+"/file", "")
	file, none := dir+"/file/x", dir+"/none/x"
	_, err := fsys.Create(dir+"/nul\x00", 0o600)
	wantErr(t, "NUL in a name", err, syscall.EINVAL)
	for _, c := range []struct {
		name string
		want error
	}{{file, syscall.ENOTDIR}, {none, fs.ErrNotExist}} {
		_, err := fsys.Create(c.name, 0o600)
		wantErr(t, "Create "+c.name, err, c.want)
		_, err = fsys.Open(c.name)
		wantErr(t, "Open "+c.name, err, c.want)
		_, err = fsys.Stat(c.name)
		wantErr(t, "Stat "+c.name, err, c.want)
		_, err = fsys.Lock(c.name)
		wantErr(t, "Lock "+c.name, err, c.want)
		wantErr(t, "Mkdir "+c.name, fsys.Mkdir(c.name, 0o755), c.want)
		wantErr(t, "Remove "+c.name, fsys.Remove(c.name), c.want)
		wantErr(t, "Chmod "+c.name, fsys.Chmod(c.name, 0o600), c.want)
		wantErr(t, "Link to "+c.name, fsys.Link(dir+"/file", c.name), c.want)
		wantErr(t, "Link of "+c.name, fsys.Link(c.name, dir+"/new"), c.want)
		wantErr(t, "Rename to "+c.name, fsys.Rename(dir+"/file", c.name), c.want)
		wantErr(t, "Rename of "+c.name, fsys.Rename(c.name, dir+"/new"), c.want)
		wantErr(t, "RenameNew of "+c.name, fsys.RenameNew(c.name, dir+"/new"), c.want)
		wantErr(t, "SyncDir of "+c.name, fsys.SyncDir(c.name), c.want)
		_, err = fsys.ReadDir(c.name)
		wantErr(t, "ReadDir of "+c.name, err, c.want)
		_, err = fsys.Space(c.name)
		wantErr(t, "Space of "+c.name, err, c.want)
	}
	_, err = fsys.ReadDir(dir + "/file")
	wantErr(t, "ReadDir of a file", err, syscall.ENOTDIR)
}

func testLink(t *testing.T, fsys FS, dir string) {
	put(t, fsys, dir+"/a", "one")
	must(t, fsys.Link(dir+"/a", dir+"/b"))
	wantErr(t, "Link to an existing name", fsys.Link(dir+"/a", dir+"/b"), fs.ErrExist)
	f, err := fsys.OpenRW(dir + "/a")
	must(t, err)
	_, err = f.WriteAt([]byte("two"), 0)
	must(t, err)
	must(t, f.Close())
	wantContent(t, fsys, dir+"/b", "two")
	must(t, fsys.Remove(dir+"/a"))
	wantContent(t, fsys, dir+"/b", "two")
	must(t, fsys.Mkdir(dir+"/d", 0o755))
	if err := fsys.Link(dir+"/d", dir+"/e"); err == nil {
		t.Error("Link of a directory succeeds")
	}
}

func testRename(t *testing.T, fsys FS, dir string) {
	a, b, c := dir+"/a", dir+"/b", dir+"/c"
	put(t, fsys, a, "one")
	put(t, fsys, b, "two")
	wantErr(t, "RenameNew over a name", fsys.RenameNew(a, b), fs.ErrExist)
	wantContent(t, fsys, b, "two")
	must(t, fsys.RenameNew(a, c))
	wantContent(t, fsys, c, "one")
	must(t, fsys.Rename(c, b))
	wantContent(t, fsys, b, "one")
	_, err := fsys.Stat(c)
	wantErr(t, "Stat of a moved name", err, fs.ErrNotExist)
	must(t, fsys.Rename(b, b))
	must(t, fsys.Link(b, c))
	must(t, fsys.Rename(b, c)) // two names of one file: nothing happens
	wantContent(t, fsys, b, "one")

	must(t, fsys.Mkdir(dir+"/d", 0o755))
	must(t, fsys.Mkdir(dir+"/empty", 0o755))
	put(t, fsys, dir+"/d/f", "in d")
	wantErr(t, "Rename of a file over a directory", fsys.Rename(b, dir+"/d"), fs.ErrExist)
	wantErr(t, "Rename of a directory over a file", fsys.Rename(dir+"/d", b), syscall.ENOTDIR)
	wantErr(t, "Rename of a directory over another", fsys.Rename(dir+"/d", dir+"/empty"), fs.ErrExist)
	wantErr(t, "Rename of a directory into itself", fsys.Rename(dir+"/d", dir+"/d/x"), syscall.EINVAL)
	must(t, fsys.Rename(dir+"/d", dir+"/moved"))
	wantContent(t, fsys, dir+"/moved/f", "in d")
}

func testUnlinked(t *testing.T, fsys FS, dir string) {
	put(t, fsys, dir+"/f", "still")
	f, err := fsys.OpenRW(dir + "/f")
	must(t, err)
	must(t, fsys.Remove(dir+"/f"))
	_, err = f.WriteAt([]byte(" here"), 5)
	must(t, err)
	got, err := io.ReadAll(f)
	if string(got) != "still here" || err != nil {
		t.Errorf("read %q, %v from an open file without a name", got, err)
	}
	must(t, f.Close())
}

func testDirs(t *testing.T, fsys FS, dir string) {
	must(t, fsys.Mkdir(dir+"/d", 0o700))
	wantErr(t, "second Mkdir", fsys.Mkdir(dir+"/d", 0o700), fs.ErrExist)
	put(t, fsys, dir+"/d/f", "")
	wantErr(t, "Remove of a full directory", fsys.Remove(dir+"/d"), syscall.ENOTEMPTY)
	must(t, fsys.SyncDir(dir+"/d"))
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "d" || !entries[0].IsDir() {
		t.Errorf("listed %v, expected directory d", entries)
	}
	must(t, fsys.Remove(dir+"/d/f"))
	must(t, fsys.Remove(dir+"/d"))
	wantErr(t, "Remove of nothing", fsys.Remove(dir+"/d"), fs.ErrNotExist)
}

func testStat(t *testing.T, fsys FS, dir string) {
	put(t, fsys, dir+"/f", "12345")
	must(t, fsys.Chmod(dir+"/f", 0o440))
	info, err := fsys.Stat(dir + "/f")
	must(t, err)
	if info.Name() != "f" || info.Size() != 5 || info.Mode() != 0o440 || info.IsDir() || info.ModTime().IsZero() {
		t.Errorf("Stat of a file: %s %d %s %s", info.Name(), info.Size(), info.Mode(), info.ModTime())
	}
	info, err = fsys.Stat(dir)
	must(t, err)
	if !info.IsDir() || !info.Mode().IsDir() {
		t.Errorf("Stat of a directory: mode %s", info.Mode())
	}
	f, err := fsys.Open(dir + "/f")
	must(t, err)
	info, err = f.Stat()
	must(t, err)
	if info.Name() != "f" || info.Size() != 5 {
		t.Errorf("File.Stat: %s %d", info.Name(), info.Size())
	}
	must(t, f.Close())
}

// testFlags needs a process that may set flags and a disk that has them; where
// the real one has not, it must say which of the two is missing.
func testFlags(t *testing.T, fsys FS, dir string) {
	put(t, fsys, dir+"/f", "12345")
	must(t, fsys.Mkdir(dir+"/d", 0o755))
	put(t, fsys, dir+"/d/kept", "k")
	if err := fsys.SetFlags(dir+"/f", FlagImmutable, 0); err != nil {
		if fsys != OS || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		t.Logf("this machine: %v", err)
		return
	}
	t.Cleanup(func() { fsys.SetFlags(dir+"/f", 0, FlagImmutable); fsys.SetFlags(dir+"/d", 0, FlagAppend) })
	must(t, fsys.SetFlags(dir+"/d", FlagAppend, 0))
	for name, want := range map[string]Flags{"/f": FlagImmutable, "/d": FlagAppend, "/d/kept": 0} {
		if got, err := fsys.Flags(dir + name); err != nil || got != want {
			t.Errorf("flags of %s: %x, %v, expected %x", name, got, err, want)
		}
	}
	put(t, fsys, dir+"/d/new", "n")
	put(t, fsys, dir+"/g", "g")
	_, err := fsys.OpenRW(dir + "/f")
	for what, err := range map[string]error{
		"OpenRW": err, "Chmod": fsys.Chmod(dir+"/f", 0o600), "Link": fsys.Link(dir+"/f", dir+"/h"), "Remove": fsys.Remove(dir + "/f"),
		"Rename": fsys.Rename(dir+"/f", dir+"/h"), "Rename over": fsys.Rename(dir+"/g", dir+"/f"),
		"Remove below": fsys.Remove(dir + "/d/kept"), "Rename below": fsys.Rename(dir+"/d/kept", dir+"/h"),
		"Rename over, below": fsys.Rename(dir+"/g", dir+"/d/kept"), "Rename of the directory": fsys.Rename(dir+"/d", dir+"/e"),
	} {
		wantErr(t, what, err, fs.ErrPermission)
	}
	must(t, fsys.SetFlags(dir+"/f", 0, FlagImmutable))
	must(t, fsys.SetFlags(dir+"/d", 0, FlagAppend))
	must(t, fsys.Remove(dir+"/f"))
	must(t, fsys.Remove(dir+"/d/kept"))
	_, err = fsys.Flags(dir + "/f")
	wantErr(t, "Flags of nothing", err, fs.ErrNotExist)
	wantErr(t, "SetFlags of nothing", fsys.SetFlags(dir+"/f", FlagImmutable, 0), fs.ErrNotExist)
}

func testLock(t *testing.T, fsys FS, dir string) {
	name := dir + "/lock"
	l, err := fsys.Lock(name)
	must(t, err)
	_, err = fsys.Lock(name)
	wantErr(t, "second Lock", err, ErrLocked)
	must(t, l.Close())
	wantErr(t, "second Close of a lock", l.Close(), fs.ErrClosed)
	l, err = fsys.Lock(name)
	must(t, err)
	must(t, l.Close())
	_, err = fsys.Lock(dir)
	wantErr(t, "Lock of a directory", err, syscall.EISDIR)
}

func testSpace(t *testing.T, fsys FS, dir string) {
	s, err := fsys.Space(dir)
	must(t, err)
	var st syscall.Statfs_t
	if fsys == OS && syscall.Statfs(dir, &st) == nil && st.Blocks == 0 { // as on a ramfs
		if s != (Space{}) {
			t.Errorf("Space = %+v of a file system that does not tell its size", s)
		}
		return
	}
	if s.Total <= 0 || s.Free < 0 || s.Free > s.Total {
		t.Errorf("Space = %+v", s)
	}
}

func testConcurrent(t *testing.T, fsys FS, dir string) {
	const writers, blocks, block = 4, 20, 1000
	f, err := fsys.Create(dir+"/f", 0o600)
	must(t, err)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for b := range blocks {
				data := bytes.Repeat([]byte{byte('a' + w)}, block)
				if _, err := f.WriteAt(data, int64((b*writers+w)*block)); err != nil {
					t.Error(err)
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
				}
				name := fmt.Sprintf("%s/%d-%d", dir, w, b)
				if err := WriteFile(fsys, name, data, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, f.Close())
	got := get(t, fsys, dir+"/f")
	for i := range writers * blocks {
		if want := strings.Repeat(string(rune('a'+i%writers)), block); got[i*block:(i+1)*block] != want {
			t.Fatalf("block %d is wrong", i)
		}
	}
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	if len(entries) != 1+writers*blocks {
		t.Errorf("%d names, expected %d", len(entries), 1+writers*blocks)
	}
}

// testRandom compares random writes, truncations and reads with a byte slice.
func testRandom(t *testing.T, fsys FS, dir string) {
	const seed, limit = 7, 5 * pageSize
	rng := rand.New(rand.NewPCG(seed, 0))
	f, err := fsys.Create(dir+"/f", 0o600)
	must(t, err)
	var want []byte
	resize := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for i := range 400 {
		off, n := rng.IntN(limit), rng.IntN(2*pageSize)
		switch rng.IntN(6) {
		case 0:
			must(t, f.Truncate(int64(off)))
			resize(off)
			want = want[:off:off]
		case 1:
			must(t, f.Preallocate(int64(off+1)))
			resize(off + 1)
		case 2:
			must(t, f.Sync())
		default:
			data := bytes.Repeat([]byte{byte(i)}, n)
			_, err := f.WriteAt(data, int64(off))
			must(t, err)
			if n > 0 {
				resize(off + n)
				copy(want[off:], data)
			}
		}
		got, err := ReadFile(fsys, dir+"/f", 1<<20)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: content differs after step %d (%d bytes, expected %d)", seed, i, len(got), len(want))
		}
	}
	must(t, f.Close())
}
