package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"

	"logvault/internal/vfs"
	"logvault/vault"
)

// buffers holds copy buffers.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Put stores size bytes of body under name, create-exclusive; see vault.Writer.
// It refuses the mutable names of a ledger.
//
//	create(temp) write… chmod(temp, 0440) fdatasync(temp) close [open(temp) read… close]
//	[mkdir(dir) syncdir(parent)…] link(temp, name) unlink(temp) syncdir(dir)
//
// PutChecked reads the temporary file in between. The link is the commit point. A crash before it leaves a temporary file, a
// crash after it the whole object, whose name the sync of the directory makes
// durable. A crash between the two may leave a name that is seen but not yet
// durable: a Put that finds the same bytes syncs file and directory again.
func (s *Store) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	return s.PutChecked(ctx, name, size, body, nil)
}

// PutChecked is Put for a caller who reads the stored bytes first; see vault.Checker.
func (s *Store) PutChecked(ctx context.Context, name string, size int64, body io.Reader, check func(stored io.Reader) error) error {
	if _, err := vault.CheckPut(name, size); err != nil {
		return err
	}
	body = vault.Exactly(ctx, body, size)
	err := s.putSame(name, size, body)
	switch {
	case err == nil:
		err = s.check(s.path(name), check)
	case errors.Is(err, vault.ErrNotExist):
		err = s.putNew(name, size, body, check)
	}
	if err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	return nil
}

// putNew writes the object to a temporary file and publishes it.
func (s *Store) putNew(name string, size int64, body io.Reader, check func(io.Reader) error) error {
	temp, err := s.writeTemp(name, objectPerm, body)
	if err != nil {
		return err
	}
	if err = s.check(temp, check); err == nil {
		err = s.publish(name, func(newname string) error { return vfs.Publish(s.fsys, temp, newname) })
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		// Somebody else stored the name since we looked.
		err = s.compareTemp(name, size, temp)
	}
	s.discard(temp)
	return err
}

// check shows a stored file to whoever wants to see it.
func (s *Store) check(file string, check func(io.Reader) error) error {
	if check == nil {
		return nil // Put
	}
	f, err := s.fsys.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing to lose
	return check(f)
}

func (s *Store) compareTemp(name string, size int64, temp string) error {
	f, err := s.fsys.Open(temp)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing to lose
	return s.putSame(name, size, f)
}

// putSame succeeds if name holds exactly the bytes of body, and makes them
// durable. It returns vault.ErrNotExist before it has read anything of body,
// and vault.ErrConflict if the bytes differ.
func (s *Store) putSame(name string, size int64, body io.Reader) error {
	f, stored, err := s.open(name)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing to lose
	same, err := vault.Same(f, body)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: %d bytes are stored, %d other bytes were offered", vault.ErrConflict, stored, size)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return s.publish(name, func(string) error { return nil })
}

// Replace atomically gives a mutable name new content; see vault.Head.
//
//	create(temp) write chmod(temp, 0640) fdatasync(temp) close
//	[mkdir(dir) syncdir(parent)…] rename(temp, name) syncdir(dir)
//
// The rename is the commit point: a crash leaves the old content or the new.
// An error may leave either.
func (s *Store) Replace(ctx context.Context, name string, data []byte) error {
	if err := vault.CheckReplace(name); err != nil {
		return err
	}
	body := vault.Exactly(ctx, bytes.NewReader(data), int64(len(data)))
	temp, err := s.writeTemp(name, headPerm, body)
	if err == nil {
		err = s.publish(name, func(newname string) error { return s.fsys.Rename(temp, newname) })
		if err != nil {
			s.discard(temp)
		}
	}
	if err != nil {
		return fmt.Errorf("replacing %s: %w", name, err)
	}
	return nil
}

// writeTemp makes a synced temporary file with the content of body.
func (s *Store) writeTemp(name string, perm fs.FileMode, body io.Reader) (temp string, err error) {
	f, temp, err := s.createTemp(name)
	if err != nil {
		return "", err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{body}, buf[:])
	if err == nil {
		err = s.chmod(temp, perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.discard(temp)
		return "", err
	}
	return temp, nil
}

// createTemp makes a temporary file in the top-level directory of name, which
// may be a file system of its own. Numbers that an earlier process left are
// passed over.
func (s *Store) createTemp(name string) (vfs.File, string, error) {
	top, _, inDir := strings.Cut(name, "/")
	if !inDir {
		top = ""
	}
	if err := s.ensureDir(top); err != nil {
		return nil, "", err
	}
	again := true
	for {
		temp := s.path(path.Join(top, tempPrefix+strconv.FormatUint(s.temps.Add(1), 10)))
		f, err := s.fsys.Create(temp, headPerm)
		switch {
		case err == nil:
			return f, temp, nil
		case errors.Is(err, fs.ErrNotExist) && again:
			again = false // the directory was removed: make it again, once
			s.forget()
			if err := s.ensureDir(top); err != nil {
				return nil, "", err
			}
		case !errors.Is(err, fs.ErrExist):
			return nil, "", err
		}
	}
}

// chmod sets the mode. It is a guard against accidents, not a promise: file
// systems without such modes (FAT, CIFS) refuse, and that is accepted.
func (s *Store) chmod(temp string, perm fs.FileMode) error {
	err := s.fsys.Chmod(temp, perm)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// discard removes a temporary file after a failure. If that fails too, Sweep
// will do it; the first error is the one to report.
func (s *Store) discard(temp string) { s.fsys.Remove(temp) }

// publish makes the directory of name, calls move with the full path, and syncs
// the directory. If the directory was removed behind our back it tries once more.
func (s *Store) publish(name string, move func(newname string) error) error {
	dir := path.Dir(name)
	if dir == "." {
		dir = ""
	}
	for again := true; ; again = false {
		if err := s.ensureDir(dir); err != nil {
			return err
		}
		err := move(s.path(name))
		if errors.Is(err, fs.ErrNotExist) && again {
			s.forget()
			continue
		}
		if err != nil {
			return err
		}
		return s.fsys.SyncDir(s.path(dir))
	}
}

// ensureDir makes the directory dir, relative to the root, and its missing
// parents, and makes their names durable: also of those that exist already,
// once per process, since an earlier one may have died before its sync.
// A top-level directory is made only in a root that is alive.
func (s *Store) ensureDir(dir string) error {
	if dir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ensureLocked(dir)
}

func (s *Store) ensureLocked(dir string) error {
	if s.known[dir] {
		return nil
	}
	parent := path.Dir(dir)
	if parent == "." {
		parent = ""
		if err := s.alive(); err != nil {
			return err
		}
	} else if err := s.ensureLocked(parent); err != nil {
		return err
	}
	if err := s.fsys.Mkdir(s.path(dir), dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.fsys.SyncDir(s.path(parent)); err != nil {
		return err
	}
	s.known[dir] = true
	return nil
}

// forget drops what is known about directories.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
}

// RemovePartial removes a superseded partial tile or bundle, and its directory
// with the last one; see vault.Head.
//
//	unlink(name) rmdir(dir)
//
// Nothing is synced: a partial that comes back after a crash is harmless.
func (s *Store) RemovePartial(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := vault.CheckRemovePartial(name); err != nil {
		return err
	}
	if err := s.fsys.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	s.prune(path.Dir(name), 1)
	return nil
}

// RemoveTail removes a full tile or bundle beyond the published checkpoint of
// its log; see vault.Head.
//
//	unlink(name)
//
// Nothing is synced: a tail that comes back after a crash is removed again.
func (s *Store) RemoveTail(ctx context.Context, name string) error {
	if err := vault.CheckRemoveTail(ctx, s, name); err != nil {
		return err
	}
	if err := s.fsys.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

// Remove removes an object durably; see vault.Remover. It refuses the marker
// and everything of a log.
//
//	unlink(name) syncdir(dir) rmdir(dir)…
//
// Flags that Protect set are cleared first, which needs its capability. The sync
// is the commit point. It is done for an absent name too, which an
// earlier call may have unlinked just before a crash. Directories left empty go
// after it; one that comes back is harmless.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := vault.CheckRemove(name); err != nil {
		return err
	}
	if err := s.remove(name); err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

func (s *Store) remove(name string) error {
	err := s.unlink(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = s.fsys.SyncDir(s.path(path.Dir(name)))
	if errors.Is(err, fs.ErrNotExist) {
		// The directory went too, which happens only after its sync.
		return s.alive()
	}
	if err != nil {
		return err
	}
	s.prune(path.Dir(name), strings.Count(name, "/")-1)
	return nil
}

// prune removes up to levels directories that are empty, from dir upwards. It
// stops at the first that is not; any other failure only leaves one behind.
func (s *Store) prune(dir string, levels int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; levels > 0; levels-- {
		if s.unlink(dir) != nil {
			return
		}
		delete(s.known, dir)
		dir = path.Dir(dir)
	}
}

// Sweep removes the temporary files that crashed writers left, and returns how
// many. Only the vault's one writer calls it, before it writes.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	entries, err := s.fsys.ReadDir(s.root)
	if err != nil {
		return 0, fmt.Errorf("sweeping: %w", err)
	}
	swept := 0
	dirs := []string{""}
	for _, e := range entries {
		if e.IsDir() && e.Name() != lostFound {
			dirs = append(dirs, e.Name())
		}
	}
	for _, dir := range dirs {
		n, err := s.sweepDir(ctx, dir)
		swept += n
		if err != nil {
			return swept, fmt.Errorf("sweeping: %w", err)
		}
	}
	return swept, nil
}

func (s *Store) sweepDir(ctx context.Context, dir string) (int, error) {
	entries, err := s.fsys.ReadDir(s.path(dir))
	if err != nil {
		return 0, err
	}
	swept := 0
	for _, e := range entries {
		if !isTemp(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return swept, err
		}
		if err := s.fsys.Remove(s.path(path.Join(dir, e.Name()))); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}
