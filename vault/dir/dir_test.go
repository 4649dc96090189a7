package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// The powers of a store, apart.
var (
	_ vault.Reader  = (*Store)(nil)
	_ vault.Writer  = (*Store)(nil)
	_ vault.Head    = (*Store)(nil)
	_ vault.Remover = (*Store)(nil)
)

var (
	ctx     = context.Background()
	testDay = vault.Day{Year: 2026, Month: time.November, Day: 21}
	hash    = vault.HashOf([]byte("an object"))

	segment    = vault.SegmentName(testDay, hash, vault.Gzip)
	index      = vault.IndexName(testDay, hash)
	wrap       = vault.WrapName(testDay, "technical", hash, hash)
	checkpoint = vault.CheckpointName(vault.LedgerPrefix)
	tile       = vault.TileName(vault.LedgerPrefix, 0, 1234, vault.TileWidth)
	partial    = vault.TileName(vault.LedgerPrefix, 0, 1234, 5)
)

const root = "/srv/vault"

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

// newVault returns a fresh vault with a marker, all of it durable.
func newVault(t *testing.T, fsys vfs.FS, root string) *Store {
	t.Helper()
	s, err := Create(fsys, root)
	must(t, err)
	must(t, put(s, vault.MarkerName, "marker"))
	return s
}

func put(s *Store, name, data string) error {
	return s.Put(ctx, name, int64(len(data)), strings.NewReader(data))
}

// get returns the content of an object, or "-" if it is absent.
func get(t *testing.T, s *Store, name string) string {
	t.Helper()
	data, err := vault.ReadAll(ctx, s, name, 1<<20)
	if errors.Is(err, vault.ErrNotExist) {
		return "-"
	}
	must(t, err)
	return string(data)
}

func wantContent(t *testing.T, s *Store, name, want string) {
	t.Helper()
	if got := get(t, s, name); got != want {
		t.Errorf("%s holds %.60q, expected %.60q", name, got, want)
	}
}

// list returns the names below a prefix.
func list(t *testing.T, s *Store, prefix string) []string {
	t.Helper()
	var names []string
	must(t, s.List(ctx, prefix, func(i vault.Info) error {
		names = append(names, i.Name)
		return nil
	}))
	return names
}

// foreign makes a file that no store made, and its directories.
func foreign(t *testing.T, fsys vfs.FS, name, data string) {
	t.Helper()
	must(t, vfs.MkdirAll(fsys, path.Dir(name), 0o755))
	must(t, vfs.WriteFile(fsys, name, []byte(data), 0o600))
}

func TestCreateAndOpen(t *testing.T) {
	m := vfs.NewMem()
	must(t, vfs.MkdirAll(m, "/srv", 0o755))
	_, err := Open(m, root)
	wantErr(t, "Open of nothing", err, vault.ErrNoVault)
	if _, err := m.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Open made the root")
	}
	s, err := Create(m, root)
	must(t, err)
	_, err = Create(m, root)
	must(t, err) // the empty directories of an interrupted Create
	must(t, put(s, vault.MarkerName, "marker"))
	_, err = Create(m, root)
	wantErr(t, "Create over a vault", err, vault.ErrNotEmpty)
	s, err = Open(m, root)
	must(t, err)
	wantContent(t, s, vault.MarkerName, "marker")
	if space, err := s.Space(); err != nil || space.Total == 0 {
		t.Errorf("Space = %+v, %v", space, err)
	}
}

func TestCreateRefusesWhatIsThere(t *testing.T) {
	for name, want := range map[string]error{
		"/srv/vault/notes.txt":        vault.ErrNotEmpty,
		"/srv/vault/ledger/x":         vault.ErrNotEmpty,
		"/srv/vault/ledger":           vault.ErrNotEmpty, // a file of that name
		"/srv/vault/lost+found/#1":    nil,
		"/srv/vault/segments/.tmp-12": vault.ErrNotEmpty,
		"/srv/vault":                  syscall.ENOTDIR,
	} {
		m := vfs.NewMem()
		foreign(t, m, name, "x")
		if _, err := Create(m, root); !errors.Is(err, want) {
			t.Errorf("Create with %s: %v, expected %v", name, err, want)
		}
	}
}

func TestOpenSaysWhatIsThere(t *testing.T) {
	tests := []struct {
		make string // a file below /srv, or a directory if it ends in "/"
		says string // "" if there is a vault
	}{
		{"/srv/", "does not exist"},
		{"/srv/vault/", "is it mounted?"},
		{"/srv/vault", "not a directory"},
		{"/srv/vault/other", "neither VAULT nor ledger nor segments"},
		{"/srv/vault/keys/", "neither VAULT nor ledger nor segments"},
		{"/srv/vault/VAULT", ""},
		{"/srv/vault/ledger/", ""},
		{"/srv/vault/segments/", ""},
	}
	for _, tt := range tests {
		m := vfs.NewMem()
		if name, isDir := strings.CutSuffix(tt.make, "/"); isDir {
			must(t, vfs.MkdirAll(m, name, 0o755))
		} else {
			foreign(t, m, tt.make, "x")
		}
		_, err := Open(m, root)
		if tt.says == "" {
			must(t, err)
			continue
		}
		wantErr(t, tt.make, err, vault.ErrNoVault)
		if err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), root)) {
			t.Errorf("%s: message %q, expected %q, and the root left to the caller", tt.make, err, tt.says)
		}
	}
}

// TestLostMountIsNamed: when the root goes away later, nobody else names it.
func TestLostMountIsNamed(t *testing.T) {
	m := vfs.NewMem()
	s, err := Create(m, root)
	must(t, err)
	for _, d := range topDirs {
		must(t, m.Remove(root+"/"+d))
	}
	err = s.List(t.Context(), "segments/", func(vault.Info) error { return nil })
	if !errors.Is(err, vault.ErrNoVault) || !strings.HasPrefix(err.Error(), root+": no vault here: the directory is empty") {
		t.Errorf("listing: %v", err)
	}
}

func TestAt(t *testing.T) {
	m := vfs.NewMem()
	_, err := At(m, "/state")
	wantErr(t, "At of nothing", err, vault.ErrNoVault)
	must(t, vfs.MkdirAll(m, "/state", 0o755))
	s, err := At(m, "/state")
	must(t, err)
	must(t, s.Replace(ctx, checkpoint, []byte("head")))
	wantContent(t, s, checkpoint, "head")
}

// TestLostMount checks that a vault whose mount went away is an error for every
// operation, is never mistaken for absent objects, and gets nothing written.
func TestLostMount(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	must(t, put(s, segment, "old"))
	must(t, s.Replace(ctx, checkpoint, []byte("head")))
	for what, lose := range map[string]func(){
		"empty":  func() { must(t, m.Rename(root, "/mounted")); must(t, m.Mkdir(root, 0o755)) },
		"absent": func() { must(t, m.Rename(root, "/mounted")) },
	} {
		lose()
		errs := map[string]error{
			"Put again":   put(s, segment, "old"),
			"Put":         put(s, index, "new"),
			"Put wrap":    put(s, wrap, "new"),
			"Replace":     s.Replace(ctx, checkpoint, []byte("new")),
			"Remove":      s.Remove(ctx, segment),
			"List all":    s.List(ctx, "", func(vault.Info) error { return nil }),
			"List prefix": s.List(ctx, "segments/", func(vault.Info) error { return nil }),
			"RemoveTail":  s.RemoveTail(ctx, tile),
		}
		_, errs["Stat"] = s.Stat(ctx, segment)
		_, _, errs["Open"] = s.Open(ctx, segment)
		for op, err := range errs {
			wantErr(t, what+" "+op, err, vault.ErrNoVault)
			if errors.Is(err, vault.ErrNotExist) {
				t.Errorf("%s %s: says that the object is absent: %v", what, op, err)
			}
		}
		if entries, err := m.ReadDir(root); len(entries) > 0 {
			t.Errorf("%s: %v was made under the mount point (%v)", what, entries, err)
		} else if err == nil {
			must(t, m.Remove(root))
		}
		must(t, m.Rename("/mounted", root))
		wantContent(t, s, segment, "old")
		must(t, put(s, index, "new")) // it came back: all goes on
		must(t, s.Remove(ctx, index))
	}
}

func TestReadErrors(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	foreign(t, m, "/srv/secret", "outside")
	for _, name := range []string{
		"", ".", "..", "/", "../secret", "segments/../../secret", "/srv/secret", "segments/", "segments//x", "./VAULT",
		"ledger/.tmp-1", ".tmp-1",
	} {
		_, _, err := s.Open(ctx, name)
		if err == nil || errors.Is(err, vault.ErrNotExist) {
			t.Errorf("Open(%q): %v, expected that the name is refused", name, err)
		}
		if _, err := s.Stat(ctx, name); err == nil || errors.Is(err, vault.ErrNotExist) {
			t.Errorf("Stat(%q): %v, expected that the name is refused", name, err)
		}
	}
	_, _, err := s.Open(ctx, segment)
	wantErr(t, "Open of an absent object", err, vault.ErrNotExist)
	_, err = s.Stat(ctx, segment)
	wantErr(t, "Stat of an absent object", err, vault.ErrNotExist)
	if _, _, err := s.Open(ctx, "segments"); err == nil || errors.Is(err, vault.ErrNotExist) {
		t.Errorf("Open of a directory: %v", err)
	}

	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = s.Open(stopped, vault.MarkerName)
	wantErr(t, "Open", err, context.Canceled)
	_, err = s.Stat(stopped, vault.MarkerName)
	wantErr(t, "Stat", err, context.Canceled)
	wantErr(t, "List", s.List(stopped, "", func(vault.Info) error { return nil }), context.Canceled)
	wantErr(t, "Put", s.Put(stopped, segment, 1, strings.NewReader("x")), context.Canceled)
	wantErr(t, "Replace", s.Replace(stopped, checkpoint, []byte("x")), context.Canceled)
	wantErr(t, "Remove", s.Remove(stopped, segment), context.Canceled)
	wantErr(t, "RemovePartial", s.RemovePartial(stopped, partial), context.Canceled)
	wantErr(t, "RemoveTail", s.RemoveTail(stopped, tile), context.Canceled)
	foreign(t, m, root+"/.tmp-7", "")
	_, err = s.Sweep(stopped)
	wantErr(t, "Sweep", err, context.Canceled)
}

func TestList(t *testing.T) {
	m := vfs.NewMem()
	s := newVault(t, m, root)
	// In lexical order of whole names, which is not that of a walk: '.' < '/'.
	want := []string{
		"VAULT",
		"ledger/a-b",
		"ledger/a.b/c",
		"ledger/a/b",
		"ledger/a/b.c",
		"ledger/a0",
		"ledger/checkpoint",
		"ledger/tile/0/000.p/5",
		"segments/2026/11/21/x",
		"strange \n\xff name",
	}
	for _, name := range want[1:] {
		foreign(t, m, path.Join(root, name), name)
	}
	for _, hidden := range []string{"lost+found/#1", ".tmp-1", "ledger/.tmp-22", "segments/2026/.tmp-3"} {
		foreign(t, m, path.Join(root, hidden), "hidden")
	}
	if !slices.IsSorted(want) {
		t.Fatal("the test is wrong")
	}
	if got := list(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("listed %q,\nexpected %q", got, want)
	}
	if got := list(t, s, "ledger/a/"); !slices.Equal(got, want[3:5]) {
		t.Errorf("listed %q below ledger/a/", got)
	}
	if got := list(t, s, "register/"); len(got) != 0 {
		t.Errorf("listed %q in an absent directory", got)
	}
	for _, prefix := range []string{"ledger", "/", "../", "./", "ledger/../", "ledger//"} {
		if err := s.List(ctx, prefix, func(vault.Info) error { return nil }); err == nil {
			t.Errorf("List(%q) succeeds", prefix)
		}
	}
	if err := s.List(ctx, "VAULT/", func(vault.Info) error { return nil }); err == nil {
		t.Error("List of a file succeeds")
	}
	seen, stop := 0, errors.New("enough")
	err := s.List(ctx, "", func(i vault.Info) error {
		seen++
		if info, err := s.Stat(ctx, i.Name); err != nil || info != i {
			t.Errorf("listed %+v, Stat gives %+v, %v", i, info, err)
		}
		if seen == 3 {
			return stop
		}
		return nil
	})
	if err != stop || seen != 3 {
		t.Errorf("List stopped after %d objects with %v", seen, err)
	}
}

func TestListErrors(t *testing.T) {
	m := vfs.NewMem()
	newVault(t, m, root)
	foreign(t, m, root+"/ledger/d/f", "")
	s, err := Open(vfs.NewFault(m, func(op vfs.Op, name string) error {
		if op == vfs.OpReadDir && name == root+"/ledger/d" {
			return syscall.EIO
		}
		return nil
	}), root)
	must(t, err)
	wantErr(t, "List over a bad directory", s.List(ctx, "", func(vault.Info) error { return nil }), syscall.EIO)
}

// TestRealDisk runs the main operations on a real directory, with the special
// files that only a real one can hold.
func TestRealDisk(t *testing.T) {
	root := path.Join(t.TempDir(), "new", "vault")
	s := newVault(t, vfs.OS, root)
	must(t, put(s, segment, "object"))
	must(t, put(s, segment, "object"))
	wantErr(t, "Put of other bytes", put(s, segment, "OBJECT"), vault.ErrConflict)
	must(t, s.Replace(ctx, checkpoint, []byte("one")))
	must(t, s.Replace(ctx, checkpoint, []byte("two")))
	wantContent(t, s, checkpoint, "two")
	for name, want := range map[string]fs.FileMode{segment: 0o440, checkpoint: 0o640} {
		info, err := os.Stat(path.Join(root, name))
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %s, expected %s", name, info.Mode(), want)
		}
	}
	must(t, syscall.Mkfifo(path.Join(root, index), 0o600))
	must(t, os.Symlink(root, path.Join(root, "ledger", "loop")))
	if _, _, err := s.Open(ctx, index); err == nil {
		t.Error("a pipe was opened as an object")
	}
	if err := put(s, index, "x"); err == nil {
		t.Error("Put over a pipe succeeds")
	}
	if got, want := list(t, s, ""), []string{"VAULT", checkpoint, "ledger/loop", segment, index}; !slices.Equal(got, sorted(want)) {
		t.Errorf("listed %q, expected %q", got, sorted(want))
	}
	must(t, s.Remove(ctx, segment))
	must(t, s.Remove(ctx, index))
	if _, err := os.Stat(path.Join(root, "segments/2026")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory is left: %v", err)
	}
	wantContent(t, s, segment, "-")
	_, size, err := s.Open(ctx, vault.MarkerName)
	if size != int64(len("marker")) || err != nil {
		t.Errorf("Open = %d, %v", size, err)
	}
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }

// TestOpenStreams checks that an opened object is read from its start to its end.
func TestOpenStreams(t *testing.T) {
	s := newVault(t, vfs.NewMem(), root)
	want := strings.Repeat("0123456789", 30000)
	must(t, put(s, segment, want))
	rc, size, err := s.Open(ctx, segment)
	must(t, err)
	got, err := io.ReadAll(rc)
	must(t, err)
	must(t, rc.Close())
	if size != int64(len(want)) || string(got) != want {
		t.Errorf("read %d bytes of %d, expected %d", len(got), size, len(want))
	}
}
