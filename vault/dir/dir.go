// Package dir is the directory store: a vault, or the state directory's ledger,
// as plain files below a root.
//
// Every object is a file of mode 0440 under its object name. Files appear under
// their names whole or not at all: they are written under a temporary name,
// synced, and then linked (objects) or renamed (the few mutable ledger names).
// Temporary files are called ".tmp-" and a number, stand in the root or in one
// of its immediate directories, and are never listed; Sweep removes what a
// crash left of them.
//
// The directory must be on a file system where a synced file and a synced
// directory survive a power cut. Links are used where they exist; FAT, CIFS
// and some FUSE mounts have none, there an exclusive rename does the same.
//
// Three verbs, never mixed up: Create makes a new vault and refuses a place
// that holds anything; Open takes an existing vault and makes nothing; At takes
// any existing directory. A vault whose root stops looking like one (a lost
// mount) gets no new top-level directories, so nothing is written under the
// mount point.
//
// Nothing read is trusted: names that come from outside are checked before they
// touch the disk, contents are checked by the callers against the ledger.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"logvault/internal/vfs"
	"logvault/vault"
)

const (
	dirPerm    = 0o750
	objectPerm = 0o440 // immutable objects
	headPerm   = 0o640 // checkpoints and partial tiles
	tempPrefix = ".tmp-"
	lostFound  = "lost+found" // the file system's own, in the root of a mount
	bufferSize = 64 << 10
)

// Store is a directory store. It implements vault.Reader, vault.Writer,
// vault.Head, vault.Protector and vault.Remover and is safe for concurrent use.
type Store struct {
	fsys    vfs.FS
	root    string
	isVault bool // opened by Create or Open: the root must go on looking like a vault

	setFlags bool // set by UseFlags

	temps atomic.Uint64 // the number of the last temporary file

	mu    sync.Mutex      // guards known; held while directories are made
	known map[string]bool // directories, relative to root, whose names are durable
}

// topDirs are the directories that Create makes. Two of them tell a vault from
// an empty mount point.
var topDirs = []string{"ledger", "segments", "keys"}

// Create makes the directories of a new vault in root, which it makes if absent.
// A root that holds anything gives an error that wraps vault.ErrNotEmpty; the
// empty directories of an interrupted Create and lost+found do not count. The
// marker is for the caller to Put, when the rest is ready. The caller names
// the place in an error.
func Create(fsys vfs.FS, root string) (*Store, error) {
	entries, err := fsys.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == lostFound {
			continue
		}
		if e.IsDir() && slices.Contains(topDirs, e.Name()) {
			below, err := fsys.ReadDir(path.Join(root, e.Name()))
			if err != nil {
				return nil, err
			}
			if len(below) == 0 {
				continue
			}
		}
		return nil, fmt.Errorf("%w: it holds %q", vault.ErrNotEmpty, e.Name())
	}
	for _, d := range topDirs {
		if err := vfs.MkdirAll(fsys, path.Join(root, d), dirPerm); err != nil {
			return nil, err
		}
	}
	return newStore(fsys, root, true), nil
}

// Open opens the existing vault in root. If there is none of VAULT, ledger and
// segments, the error wraps vault.ErrNoVault and says what is there instead;
// the caller names the place.
func Open(fsys vfs.FS, root string) (*Store, error) {
	s := newStore(fsys, root, true)
	if err := s.look(); err != nil {
		return nil, err
	}
	return s, nil
}

// At opens the existing directory root, which need not be a vault.
func At(fsys vfs.FS, root string) (*Store, error) {
	s := newStore(fsys, root, false)
	if err := s.alive(); err != nil {
		return nil, err
	}
	return s, nil
}

func newStore(fsys vfs.FS, root string, isVault bool) *Store {
	return &Store{fsys: fsys, root: root, isVault: isVault, known: map[string]bool{}}
}

// alive returns nil if root is a directory and, for a vault, looks like one.
func (s *Store) alive() error {
	err := s.look()
	if errors.Is(err, vault.ErrNoVault) { // the others name a path
		err = fmt.Errorf("%s: %w", s.root, err)
	}
	return err
}

// look is alive, but a root that is not a vault is not named.
func (s *Store) look() error {
	info, err := s.fsys.Stat(s.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the path does not exist", vault.ErrNoVault)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%w: not a directory", vault.ErrNoVault)
	case !s.isVault:
		return nil
	}
	for _, name := range []string{vault.MarkerName, "ledger", "segments"} {
		_, err := s.fsys.Stat(s.path(name))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	entries, err := s.fsys.ReadDir(s.root)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%w: the directory is empty; is it mounted?", vault.ErrNoVault)
	}
	return fmt.Errorf("%w: neither VAULT nor ledger nor segments in it", vault.ErrNoVault)
}

// Space tells the room of the file system below the root.
func (s *Store) Space() (vfs.Space, error) { return s.fsys.Space(s.root) }

func (s *Store) path(name string) string { return path.Join(s.root, name) }

// readable checks a name from outside for reading. It need not be of the
// layout, so that an audit can look at foreign files, but it stays below the root.
func (s *Store) readable(name string) error {
	if !fs.ValidPath(name) || name == "." || isTemp(path.Base(name)) {
		return fmt.Errorf("%.200q: not an object name", name)
	}
	return nil
}

func isTemp(base string) bool { return strings.HasPrefix(base, tempPrefix) }

// absent turns a missing file into vault.ErrNotExist, but only if the store
// itself is still there.
func (s *Store) absent(name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.alive(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", name, vault.ErrNotExist)
}

// Open opens an object for reading and returns its size.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	f, size, err := s.open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

// open asks Stat first: opening a pipe would wait for its other end.
func (s *Store) open(name string) (vfs.File, int64, error) {
	if _, err := s.stat(name); err != nil {
		return nil, 0, err
	}
	f, err := s.fsys.Open(s.path(name))
	if err != nil {
		return nil, 0, s.absent(name, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close() // the cause is reported
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (vault.Info, error) {
	if err := ctx.Err(); err != nil {
		return vault.Info{}, err
	}
	return s.stat(name)
}

func (s *Store) stat(name string) (vault.Info, error) {
	if err := s.readable(name); err != nil {
		return vault.Info{}, err
	}
	info, err := s.fsys.Stat(s.path(name))
	if err != nil {
		return vault.Info{}, s.absent(name, err)
	}
	if !info.Mode().IsRegular() {
		return vault.Info{}, fmt.Errorf("%s: %s, expected a regular file", name, info.Mode().Type())
	}
	return vault.Info{Name: name, Size: info.Size(), ModTime: info.ModTime()}, nil
}

// List calls fn for each object below the directory prefix, in lexical order of
// names. Foreign files are listed as well, so that nothing hides from an audit;
// special files and symbolic links are listed and not followed.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	name, ok := strings.CutSuffix(prefix, "/")
	if prefix != "" && (!ok || !fs.ValidPath(name) || name == ".") {
		return fmt.Errorf("listing %.200q: expected a directory name ending in \"/\"", prefix)
	}
	// Absent, as opposed to unreachable, lists nothing.
	if err := s.alive(); err != nil {
		return err
	}
	if err := s.list(ctx, name, fn); err != nil && !errors.Is(err, errNoDir) {
		return err
	}
	return nil
}

var errNoDir = errors.New("no such directory")

func (s *Store) list(ctx context.Context, dir string, fn func(vault.Info) error) error {
	entries, err := s.fsys.ReadDir(s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return errNoDir
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", path.Join(s.root, dir), err)
	}
	// "a.b" sorts before "a/c": directories are ordered as if they ended in "/".
	key := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(key(a), key(b)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		switch {
		case isTemp(e.Name()) || dir == "" && e.Name() == lostFound:
		case e.IsDir():
			// One removed meanwhile has nothing to list.
			if err := s.list(ctx, name, fn); err != nil && !errors.Is(err, errNoDir) {
				return err
			}
		default:
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return fmt.Errorf("listing %s: %w", path.Join(s.root, dir), err)
			}
			if err := fn(vault.Info{Name: name, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
				return err
			}
		}
	}
	return nil
}
