package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

// recorder notes the calls that change or sync something.
type recorder struct {
	calls []string
}

func (r *recorder) hook(op vfs.Op, name string) error {
	switch op {
	case vfs.OpOpen, vfs.OpRead, vfs.OpReadDir, vfs.OpStat:
		return nil
	}
	name = strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
	if isTemp(path.Base(name)) {
		name = "temp"
	}
	r.calls = append(r.calls, strings.TrimSpace(string(op)+" "+name))
	return nil
}

// TestSystemCalls holds the sequences that the comments state, and with them the
// price: one sync of a file and one of a directory for each operation.
func TestSystemCalls(t *testing.T) {
	m := world(t, checkpoint, "origin\n0\nroot\n\n")
	var r recorder
	s, err := Open(vfs.NewFault(m, r.hook), root)
	must(t, err)
	foreign(t, m, root+"/keys/.tmp-5", "left")
	const day = "segments/2026/11/21"
	dirs := []string{
		"mkdir segments", "syncdir", "mkdir segments/2026", "syncdir segments",
		"mkdir segments/2026/11", "syncdir segments/2026", "mkdir " + day, "syncdir segments/2026/11",
	}
	write := func(verb, name string) []string {
		return []string{"create temp", "write temp", "chmod temp", "sync temp", verb + " " + name}
	}
	tests := []struct {
		what string
		do   func() error
		want []string
	}{
		{"first Put in a process", func() error { return put(s, segment, body) }, slices.Concat(dirs[:2], write("link", segment)[:4],
			dirs[2:], []string{"link " + segment, "remove temp", "syncdir " + day})},
		{"Put", func() error { return put(s, vault.SegmentName(testDay, vault.HashOf(nil), vault.Zstd), body) },
			append(write("link", vault.SegmentName(testDay, vault.HashOf(nil), vault.Zstd)), "remove temp", "syncdir "+day)},
		{"Put of the same", func() error { return put(s, segment, body) }, []string{"sync " + segment, "syncdir " + day}},
		{"first Replace in a process", func() error { return s.Replace(ctx, checkpoint, []byte("origin\n0\nroot\n\n")) },
			slices.Concat([]string{"mkdir ledger", "syncdir"}, write("rename", checkpoint), []string{"syncdir ledger"})},
		{"Replace", func() error { return s.Replace(ctx, checkpoint, []byte("origin\n0\nroot\n\n")) },
			append(write("rename", checkpoint), "syncdir ledger")},
		{"RemovePartial", func() error { return s.RemovePartial(ctx, partial) },
			[]string{"remove " + partial, "remove " + path.Dir(partial)}},
		{"RemoveTail", func() error { return s.RemoveTail(ctx, tile) }, []string{"remove " + tile}},
		{"Remove", func() error { return s.Remove(ctx, segment) },
			[]string{"remove " + segment, "syncdir " + day, "remove " + day}},
		{"Sweep", func() error { _, err := s.Sweep(ctx); return err }, []string{"remove temp"}},
	}
	for _, tt := range tests {
		r.calls = nil
		must(t, tt.do())
		if !slices.Equal(r.calls, tt.want) {
			t.Errorf("%s calls\n%s\nexpected\n%s", tt.what, strings.Join(r.calls, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

// FuzzNamesStayBelowRoot gives any name to every operation and checks that no
// call of the disk leaves the root, and that nothing panics.
func FuzzNamesStayBelowRoot(f *testing.F) {
	for _, name := range []string{
		segment, wrap, checkpoint, tile, partial, "", ".", "..", "../x", "/", "/etc/passwd", "ledger/../../x", "ledger/",
		"a//b", "x\x00y", ".tmp-1", "ledger/.tmp-1", strings.Repeat("a/", 300), strings.Repeat("a", 300),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m := vfs.NewMem()
		must(t, vfs.MkdirAll(m, root+"/ledger", 0o755))
		s, err := Open(vfs.NewFault(m, func(op vfs.Op, touched string) error {
			if touched != root && !strings.HasPrefix(touched, root+"/") {
				t.Errorf("name %q: %s %s", name, op, touched)
			}
			return nil
		}), root)
		must(t, err)
		calls := []func() error{
			func() error { return put(s, name, "x") },
			func() error { return s.Replace(ctx, name, []byte("x")) },
			func() error { _, err := s.Stat(ctx, name); return err },
			func() error { _, _, err := s.Open(ctx, name); return err },
			func() error { return s.List(ctx, name, func(vault.Info) error { return nil }) },
			func() error { return s.RemovePartial(ctx, name) },
			func() error { return s.RemoveTail(ctx, name) },
			func() error { return s.Remove(ctx, name) },
		}
		_, invalid := vault.ParseName(name)
		for i, call := range calls {
			reading := i >= 2 && i <= 4
			if err := call(); err == nil && invalid != nil && !reading {
				t.Errorf("name %q: call %d succeeds though the name is not of the layout", name, i)
			}
		}
	})
}

// TestReplaceIsAtomicToReaders reads a checkpoint while it is being replaced, until
// each of two readers has met some replacements, whoever is the faster.
func TestReplaceIsAtomicToReaders(t *testing.T) {
	for _, fsys := range []vfs.FS{vfs.NewMem(), vfs.OS} {
		place := root
		if fsys == vfs.OS {
			place = path.Join(t.TempDir(), "vault")
		}
		s := newVault(t, fsys, place)
		content := func(i int) []byte { return slices.Repeat([]byte{byte('a' + i%26)}, 1000+i) }
		must(t, s.Replace(ctx, checkpoint, content(0)))
		var readers sync.WaitGroup
		var reading atomic.Int64
		for range 2 {
			reading.Add(1)
			readers.Go(func() {
				defer reading.Add(-1)
				for changes, last := 0, 0; changes < 10 && !t.Failed(); {
					data, err := vault.ReadAll(ctx, s, checkpoint, 1<<20)
					if err != nil {
						t.Error(err)
						return
					}
					i := len(data) - 1000
					if i < 0 || !slices.Equal(data, content(i)) {
						t.Errorf("%d mixed bytes", len(data))
						return
					}
					if i != last {
						changes, last = changes+1, i
					}
				}
			})
		}
		for i := 0; reading.Load() > 0; i++ {
			must(t, s.Replace(ctx, checkpoint, content(i%60)))
		}
		readers.Wait()
	}
}

// TestListDuringRemoval lists while objects and their directories go away.
func TestListDuringRemoval(t *testing.T) {
	m := vfs.NewMem()
	writer := newVault(t, m, root)
	var objects []string
	for i := range 6 {
		d := testDay
		d.Day = 1 + i/2
		objects = append(objects, vault.SegmentName(d, vault.HashOf([]byte{byte(i)}), vault.Gzip))
		must(t, put(writer, objects[i], "x"))
	}
	s, err := Open(m, root)
	must(t, err)
	var seen []string
	must(t, s.List(ctx, "segments/", func(i vault.Info) error {
		if len(seen) == 0 {
			for _, name := range objects[2:] {
				must(t, writer.Remove(ctx, name))
			}
		}
		seen = append(seen, i.Name)
		return nil
	}))
	if !slices.Equal(seen, sorted(objects[:2])) {
		t.Errorf("listed %q, expected the two that stayed", seen)
	}
}

// TestPutCancelled stops a Put in the middle of its body.
func TestPutCancelled(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	stopping, cancel := context.WithCancel(ctx)
	reads := 0
	body := readerFunc(func(p []byte) (int, error) {
		if reads++; reads == 3 {
			cancel()
		}
		return len(p), nil
	})
	wantErr(t, "Put", s.Put(stopping, segment, 100*bufferSize, body), context.Canceled)
	if reads != 3 {
		t.Errorf("%d reads, expected to stop after 3", reads)
	}
	wantContent(t, s, segment, "-")
	wantNoTemps(t, m)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestRandomHistory runs random operations with random failures, crashes now and
// then, and compares with a plain map of what must be there.
func TestRandomHistory(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		m := vfs.NewMem()
		newVault(t, m, root)
		want := map[string]string{}   // content, "-" for absent
		unsure := map[string]string{} // what a failed operation may have made of it
		names := []string{segment, index, wrap, checkpoint, partial}
		for range 60 {
			if rng.IntN(10) == 0 {
				m = m.CrashClone(rng)
			}
			s, err := Open(vfs.NewFault(m, func(vfs.Op, string) error {
				if rng.IntN(60) == 0 {
					return syscall.EIO
				}
				return nil
			}), root)
			if errors.Is(err, syscall.EIO) {
				continue
			}
			must(t, err)
			name := names[rng.IntN(len(names))]
			to := fmt.Sprint(name, " ", rng.IntN(2))
			switch {
			case vault.IsMutable(name):
				err = s.Replace(ctx, name, []byte(to))
			case rng.IntN(3) == 0:
				to, err = "-", s.Remove(ctx, name)
			default:
				err = put(s, name, to)
			}
			reader, openErr := Open(m, root)
			must(t, openErr)
			got := get(t, reader, name)
			switch before := orAbsent(want, name); {
			case err == nil && got != to:
				t.Fatalf("seed %d: %s holds %q, expected %q", seed, name, got, to)
			case err == nil:
				want[name] = to
				delete(unsure, name)
			case errors.Is(err, vault.ErrConflict) && got != to:
			case !errors.Is(err, syscall.EIO):
				t.Fatalf("seed %d: %v", seed, err)
			case got != before && got != to && got != unsure[name]:
				t.Fatalf("seed %d: after an error %s holds %q, expected %q or %q", seed, name, got, before, to)
			default:
				want[name], unsure[name] = before, got
				if got == before {
					unsure[name] = to
				}
			}
		}
	}
}

func orAbsent(m map[string]string, name string) string {
	if s, ok := m[name]; ok {
		return s
	}
	return "-"
}

// TestSweepErrors checks that Sweep reports what it cannot read or remove.
func TestSweepErrors(t *testing.T) {
	for _, bad := range []vfs.Op{vfs.OpReadDir, vfs.OpRemove} {
		m := vfs.NewMem()
		newVault(t, m, root)
		foreign(t, m, root+"/ledger/.tmp-1", "left")
		s, err := Open(vfs.NewFault(m, func(op vfs.Op, name string) error {
			if op == bad && strings.HasPrefix(name, root+"/ledger") {
				return fs.ErrPermission
			}
			return nil
		}), root)
		must(t, err)
		n, err := s.Sweep(ctx)
		wantErr(t, "Sweep", err, fs.ErrPermission)
		if n != 0 {
			t.Errorf("%d swept", n)
		}
	}
}
