package vfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
)

// TestMemAgreesWithOS makes the same random calls on the real disk and on a Mem:
// every result and every error must be the same, and so must the trees that are
// left. What is tested on Mem is then tested for the real disk too. At the end
// everything is synced, and then a crash of the Mem may change nothing.
func TestMemAgreesWithOS(t *testing.T) {
	seeds := uint64(120)
	if testing.Short() {
		seeds = 30
	}
	said := map[string]int{}
	for seed := range seeds {
		m := NewMem()
		must(t, m.Mkdir("/top", 0o755))
		real, mem := newActor(OS, t.TempDir()), newActor(m, "/top")
		must(t, OS.Chmod(real.root, 0o755)) // whatever the umask says
		rngR, rngM := rand.New(rand.NewPCG(seed, 9)), rand.New(rand.NewPCG(seed, 9))
		var log []string
		for range 250 {
			call, want := real.step(rngR)
			_, got := mem.step(rngM)
			log = append(log, call+" = "+want)
			if got != want {
				t.Fatalf("seed %d: %s is %s on the real disk, %s on Mem, after\n%s", seed, call, want, got, strings.Join(log[max(0, len(log)-30):], "\n"))
			}
			op, _, _ := strings.Cut(call, " ")
			said[op+" "+want[strings.LastIndexByte(want, '|')+1:]]++
		}
		want := real.tree(t, "")
		if got := mem.tree(t, ""); got != want {
			t.Fatalf("seed %d: the trees differ: real\n%s\nMem\n%s", seed, want, got)
		}
		must(t, m.SyncDir("/"))
		mem.syncAll(t, "")
		for crash := range uint64(4) {
			clone := newActor(m.CrashClone(rand.New(rand.NewPCG(crash, seed))), "/top")
			if got := clone.tree(t, ""); got != want {
				t.Fatalf("seed %d: all is synced, and crash %d leaves\n%s\nexpected\n%s", seed, crash, got, want)
			}
		}
		real.closeAll()
		mem.closeAll()
	}
	// The walk must have come past what matters, or it shows nothing.
	for _, want := range []string{
		"create ok", "create file exists", "create no such file or directory", "create not a directory",
		"open ok", "openrw is a directory", "write ok", "write bad file descriptor", "read EOF", "read ok", "read is a directory",
		"link ok", "link file exists", "link operation not permitted", "rename ok", "rename file exists", "rename not a directory", "rename invalid argument",
		"renamenew ok", "renamenew file exists", "remove ok", "remove directory not empty", "mkdir ok", "mkdir file exists",
		"truncate ok", "truncate invalid argument", "prealloc ok", "prealloc invalid argument", "close closed", "write closed",
		"lock ok", "lock locked", "chmod ok", "syncdir ok", "sync ok", "readdir not a directory",
	} {
		if said[want] == 0 {
			t.Errorf("%q never happened", want)
		}
	}
}

// actor makes calls on one file system and puts what they answer into words.
type actor struct {
	fsys  FS
	root  string
	files []File
	locks map[string]io.Closer
}

func newActor(fsys FS, root string) *actor {
	return &actor{fsys: fsys, root: root, locks: map[string]io.Closer{}}
}

// agreeNames are few, so that calls meet; the last two are beside each other's way.
var agreeNames = []string{"a", "b", "d", "e", "d/a", "d/b", "d/d", "e/a", "d/d/a", "a/x", "."}

// step makes one random call and returns what it was and what it said: what it
// gave and, behind the last bar, the class of its error.
func (a *actor) step(rng *rand.Rand) (call, said string) {
	name, other := agreeNames[rng.IntN(len(agreeNames))], agreeNames[rng.IntN(len(agreeNames))]
	at, at2 := path.Join(a.root, name), path.Join(a.root, other)
	switch k := rng.IntN(40); {
	case k < 4:
		return "create " + name, a.open(a.fsys.Create(at, 0o700))
	case k < 6:
		return "open " + name, a.open(a.fsys.Open(at))
	case k < 8:
		return "openrw " + name, a.open(a.fsys.OpenRW(at))
	case k < 10:
		return "link " + name + " " + other, class(a.fsys.Link(at, at2))
	case k < 12:
		return "rename " + name + " " + other, class(a.fsys.Rename(at, at2))
	case k < 13:
		return "renamenew " + name + " " + other, class(a.fsys.RenameNew(at, at2))
	case k < 15:
		if name == "." {
			return "none", "ok" // it would end the walk
		}
		return "remove " + name, class(a.fsys.Remove(at))
	case k < 17:
		return "mkdir " + name, class(a.fsys.Mkdir(at, 0o700))
	case k < 18:
		return "chmod " + name, class(a.fsys.Chmod(at, []fs.FileMode{0o700, 0o750, 0o711}[rng.IntN(3)]))
	case k < 19:
		return "syncdir " + name, class(a.fsys.SyncDir(at))
	case k < 20:
		return "readdir " + name, a.list(at)
	case k < 21:
		return "stat " + name, a.stat(a.fsys.Stat(at))
	case k < 23:
		return a.lock(name, at)
	}
	if len(a.files) == 0 {
		return "none", "ok"
	}
	i := rng.IntN(len(a.files))
	call, said = a.onFile(rng, a.files[i])
	if strings.HasPrefix(call, "close") && rng.IntN(3) > 0 {
		a.files = append(a.files[:i], a.files[i+1:]...) // else it is used after its end
	}
	return call, said
}

// onFile makes a call on an open file.
func (a *actor) onFile(rng *rand.Rand, f File) (call, said string) {
	off, size := rng.Int64N(3*pageSize), rng.IntN(2*pageSize)
	data := bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, size)
	switch rng.IntN(9) {
	case 0:
		n, err := f.Write(data)
		return fmt.Sprintf("write %d", size), fmt.Sprintf("%d|%s", n, class(err))
	case 1:
		n, err := f.WriteAt(data, off)
		return fmt.Sprintf("write %d at %d", size, off), fmt.Sprintf("%d|%s", n, class(err))
	case 2:
		n, err := io.ReadFull(f, data)
		return fmt.Sprintf("read %d", size), fmt.Sprintf("%d %.8x|%s", n, sha256.Sum256(data[:n]), class(err))
	case 3:
		n, err := f.ReadAt(data, off)
		return fmt.Sprintf("read %d at %d", size, off), fmt.Sprintf("%d %.8x|%s", n, sha256.Sum256(data[:n]), class(err))
	case 4:
		off -= pageSize / 4
		return fmt.Sprintf("truncate %d", off), class(f.Truncate(off))
	case 5:
		off -= pageSize / 4
		return fmt.Sprintf("prealloc %d", off), class(f.Preallocate(off))
	case 6:
		return "fstat", a.stat(f.Stat())
	case 7:
		if rng.IntN(4) > 0 {
			return "none", "ok" // the real one is slow
		}
		return "sync", class(f.Sync())
	}
	return "close", class(f.Close())
}

func (a *actor) open(f File, err error) string {
	if err == nil {
		a.files = append(a.files, f)
	}
	return class(err)
}

// lock takes a lock, or lets it go if it is held already and the draw says so.
func (a *actor) lock(name, at string) (call, said string) {
	l, err := a.fsys.Lock(at)
	if errors.Is(err, ErrLocked) && a.locks[name] != nil {
		said = class(a.locks[name].Close()) + "|" + class(err)
		delete(a.locks, name)
		return "lock " + name, said
	}
	if err == nil {
		a.locks[name] = l
	}
	return "lock " + name, class(err)
}

func (a *actor) list(at string) string {
	entries, err := a.fsys.ReadDir(at)
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s:%v ", e.Name(), e.IsDir())
	}
	return b.String() + "|" + class(err)
}

func (a *actor) stat(info fs.FileInfo, err error) string {
	switch {
	case err != nil:
		return class(err)
	case info.IsDir(): // a directory's size is the file system's affair
		return fmt.Sprintf("%s|ok", info.Mode())
	}
	return fmt.Sprintf("%s %d|ok", info.Mode(), info.Size())
}

// tree writes out everything below a name.
func (a *actor) tree(t *testing.T, name string) string {
	t.Helper()
	entries, err := a.fsys.ReadDir(path.Join(a.root, name))
	must(t, err)
	var b strings.Builder
	for _, e := range entries {
		below := path.Join(name, e.Name())
		if e.IsDir() {
			fmt.Fprintf(&b, "%s/\n%s", below, a.tree(t, below))
			continue
		}
		info, err := e.Info()
		must(t, err)
		fmt.Fprintf(&b, "%s %s %x\n", below, info.Mode(), sha256.Sum256([]byte(get(t, a.fsys, path.Join(a.root, below)))))
	}
	return b.String()
}

// syncAll makes everything durable.
func (a *actor) syncAll(t *testing.T, name string) {
	t.Helper()
	at := path.Join(a.root, name)
	must(t, a.fsys.SyncDir(at))
	entries, err := a.fsys.ReadDir(at)
	must(t, err)
	for _, e := range entries {
		if below := path.Join(name, e.Name()); e.IsDir() {
			a.syncAll(t, below)
		} else {
			f, err := a.fsys.Open(path.Join(a.root, below))
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
		}
	}
}

func (a *actor) closeAll() {
	for _, f := range a.files {
		f.Close() // some are closed already
	}
	for _, l := range a.locks {
		l.Close() // frees the descriptor
	}
}

// class names what a caller can tell an error by.
func class(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fs.ErrClosed):
		return "closed"
	case errors.Is(err, ErrLocked):
		return "locked"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "EOF"
	}
	return err.Error()
}
