package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"logvault/vault"
)

// errNoRename says that a server lacks what a whole vault needs.
var errNoRename = errors.New("the server has no posix-rename@openssh.com: it can be read, not written")

// bodyError is an error of the body of a Put: not of the line.
type bodyError struct{ err error }

// Error returns the text of the body's error.
func (e *bodyError) Error() string { return e.err.Error() }

// Unwrap returns the body's error.
func (e *bodyError) Unwrap() error { return e.err }

type bodyReader struct{ r io.Reader }

// Read reads the body and marks its errors.
func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// Put stores size bytes of body under name, create-exclusive; see vault.Writer.
//
//	open(temp, create|exclusive) write… fsetstat(temp, 0440) fsync(temp) close
//	[mkdir(dir) fsync(parent)…] hardlink(temp, name) remove(temp) fsync(dir)
//
// The hardlink is the commit point. A crash of this machine, the line or the
// server before it leaves a temporary file, which Sweep removes; one after it
// the whole object, and perhaps the temporary file as its second name. A name
// that was seen but not yet durable is made so by the next Put of it.
func (s *Store) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	if _, err := vault.CheckPut(name, size); err != nil {
		return err
	}
	body = bodyReader{vault.Exactly(ctx, body, size)}
	err := s.do(ctx, func(c *sftp.Client) error {
		_, err := c.Stat(s.path(name))
		switch {
		case err == nil:
			return s.putSame(ctx, c, name, size, body)
		case errors.Is(err, fs.ErrNotExist):
			return s.putNew(ctx, c, name, size, body)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	return nil
}

// putNew writes the object to a temporary file and publishes it.
func (s *Store) putNew(ctx context.Context, c *sftp.Client, name string, size int64, body io.Reader) error {
	temp, err := s.writeTemp(ctx, c, name, objectPerm, size, body)
	if err != nil {
		return err
	}
	defer c.Remove(temp) // what stays behind is swept
	err = s.publish(ctx, c, name, func(newname string) error { return link(c, temp, newname) })
	if errors.Is(err, fs.ErrExist) {
		// Somebody else stored the name since we looked.
		f, err := c.Open(temp)
		if err != nil {
			return err
		}
		defer f.Close() // opened for reading: nothing to lose
		return s.putSame(ctx, c, name, size, f)
	}
	return err
}

// link gives the finished file its name, unless that exists: fs.ErrExist.
func link(c *sftp.Client, temp, newname string) error {
	var err error
	if _, ok := c.HasExtension("hardlink@openssh.com"); ok {
		if err = c.Link(temp, newname); err == nil {
			return nil
		}
	}
	// Version 3 has no word for a name that exists, nor for a file system
	// without links: a look tells the first, RENAME helps with the second.
	if _, serr := c.Lstat(newname); serr == nil {
		return fs.ErrExist
	} else if !errors.Is(serr, fs.ErrNotExist) || errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, serr)
	}
	rerr := c.Rename(temp, newname)
	if rerr == nil {
		return nil
	}
	if _, serr := c.Lstat(newname); serr == nil {
		return fs.ErrExist // since the look before
	}
	return errors.Join(err, rerr)
}

// putSame succeeds if name holds exactly the bytes of body, and makes them
// durable; vault.ErrConflict if they differ.
func (s *Store) putSame(ctx context.Context, c *sftp.Client, name string, size int64, body io.Reader) error {
	f, err := c.Open(s.path(name))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	stored := &reader{ctx: ctx, store: s, name: name, f: f, size: info.Size()}
	stored.start()
	defer stored.Close() // opened for reading: nothing to lose
	same, err := vault.Same(stored.pipe, body)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: %d other bytes were offered", vault.ErrConflict, size)
	}
	if err := answered(f.Sync()); err != nil {
		return err
	}
	return s.publish(ctx, c, name, func(string) error { return nil })
}

// Replace atomically gives a mutable name new content; see vault.Head.
//
//	open(temp, create|exclusive) write fsetstat(temp, 0640) fsync(temp) close
//	[mkdir(dir) fsync(parent)…] posix-rename(temp, name) fsync(dir)
//
// The rename is the commit point: a crash leaves the old content or the new.
// An error may leave either.
func (s *Store) Replace(ctx context.Context, name string, data []byte) error {
	if err := vault.CheckReplace(name); err != nil {
		return err
	}
	err := s.do(ctx, func(c *sftp.Client) error {
		if _, ok := c.HasExtension("posix-rename@openssh.com"); !ok {
			return errNoRename
		}
		temp, err := s.writeTemp(ctx, c, name, headPerm, int64(len(data)), bodyReader{vault.Exactly(ctx, bytes.NewReader(data), int64(len(data)))})
		if err != nil {
			return err
		}
		err = s.publish(ctx, c, name, func(newname string) error { return c.PosixRename(temp, newname) })
		if err != nil {
			c.Remove(temp) // the cause is reported; what stays behind is swept
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("replacing %s: %w", name, err)
	}
	return nil
}

// writeTemp makes a synced temporary file with the content of body.
func (s *Store) writeTemp(ctx context.Context, c *sftp.Client, name string, perm fs.FileMode, size int64, body io.Reader) (temp string, err error) {
	temp = s.tempName(name)
	f, err := s.createTemp(ctx, c, temp)
	if err != nil {
		return "", err
	}
	err = fill(f, size, body)
	if err == nil {
		err = answered(f.Chmod(perm)) // a guard against accidents: not every file system has modes
	}
	if err == nil {
		if _, ok := c.HasExtension("fsync@openssh.com"); ok {
			err = f.Sync()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = s.full(c, err) // while the file still takes its room
		c.Remove(temp)       // what stays behind is swept
		return "", err
	}
	return temp, nil
}

// fill writes the body, with many requests in flight, and demands its end.
func fill(f *sftp.File, size int64, body io.Reader) error {
	n, err := f.ReadFrom(&io.LimitedReader{R: body, N: size})
	if err == nil && n < size {
		err = &bodyError{io.ErrUnexpectedEOF}
	}
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(body, make([]byte, 1)); err != io.EOF {
		return err
	}
	return nil
}

// createTemp makes a temporary file. If its directory was removed behind our
// back it is made again, once.
func (s *Store) createTemp(ctx context.Context, c *sftp.Client, temp string) (*sftp.File, error) {
	top := strings.Trim(strings.TrimPrefix(path.Dir(temp), s.cfg.Root), "/")
	for again := true; ; again = false {
		if err := s.ensureDir(ctx, c, top); err != nil {
			return nil, err
		}
		f, err := c.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || !again {
			return nil, s.full(c, s.at(temp, err))
		}
		s.forget()
	}
}

// publish makes the directory of name, calls move with the full path, and makes
// the directory's names durable. If the directory was removed behind our back
// it tries once more.
func (s *Store) publish(ctx context.Context, c *sftp.Client, name string, move func(newname string) error) error {
	dir := path.Dir(name)
	if dir == "." {
		dir = ""
	}
	for again := true; ; again = false {
		if err := s.ensureDir(ctx, c, dir); err != nil {
			return err
		}
		err := move(s.path(name))
		if errors.Is(err, fs.ErrNotExist) && again {
			s.forget()
			continue
		}
		if err != nil {
			return s.full(c, err)
		}
		return syncDir(c, s.path(dir))
	}
}

// ensureDir makes the directory dir, relative to the root, and its missing
// parents, and makes their names durable, once per process. A top-level
// directory is made only in a root that is alive: a lost mount gets none.
func (s *Store) ensureDir(ctx context.Context, c *sftp.Client, dir string) error {
	s.dirs.Lock()
	defer s.dirs.Unlock()
	return s.ensureLocked(ctx, c, dir)
}

func (s *Store) ensureLocked(ctx context.Context, c *sftp.Client, dir string) error {
	if dir == "" || s.known[dir] {
		return nil
	}
	parent := path.Dir(dir)
	if parent == "." {
		parent = ""
		if err := s.looksAlive(ctx, c); err != nil {
			return err
		}
	} else if err := s.ensureLocked(ctx, c, parent); err != nil {
		return err
	}
	if err := mkdir(c, s.path(dir)); err != nil {
		return s.full(c, s.at(dir, err))
	}
	if err := syncDir(c, s.path(parent)); err != nil {
		return err
	}
	s.known[dir] = true
	return nil
}

// forget drops what is known about directories.
func (s *Store) forget() {
	s.dirs.Lock()
	defer s.dirs.Unlock()
	clear(s.known)
}

// RemovePartial removes a superseded partial tile or bundle, and its directory
// with the last one; see vault.Head.
//
//	remove(name) rmdir(dir)
//
// Nothing is synced: a partial that comes back after a crash is harmless.
func (s *Store) RemovePartial(ctx context.Context, name string) error {
	if err := vault.CheckRemovePartial(name); err != nil {
		return err
	}
	return s.remove(ctx, name, func(c *sftp.Client) error {
		s.prune(c, path.Dir(name), 1)
		return nil
	})
}

// RemoveTail removes a full tile or bundle beyond the published checkpoint of
// its log; see vault.Head. Nothing is synced: it is removed again if it comes back.
func (s *Store) RemoveTail(ctx context.Context, name string) error {
	if err := vault.CheckRemoveTail(ctx, s, name); err != nil {
		return err
	}
	return s.remove(ctx, name, func(*sftp.Client) error { return nil })
}

// Remove removes an object durably; see vault.Remover.
//
//	remove(name) fsync(dir) rmdir(dir)…
//
// The fsync is the commit point, where the server has it. It is done for an
// absent name too, which an earlier call may have removed just before a crash.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := vault.CheckRemove(name); err != nil {
		return err
	}
	return s.remove(ctx, name, func(c *sftp.Client) error {
		if err := syncDir(c, s.path(path.Dir(name))); err != nil {
			return err
		}
		s.prune(c, path.Dir(name), strings.Count(name, "/")-1)
		return nil
	})
}

// remove removes a name that may be absent, unless the vault is absent.
func (s *Store) remove(ctx context.Context, name string, then func(*sftp.Client) error) error {
	err := s.do(ctx, func(c *sftp.Client) error {
		if err := c.Remove(s.path(name)); err != nil {
			if err := s.absent(ctx, c, name, err); !errors.Is(err, vault.ErrNotExist) {
				return err
			}
		}
		return then(c)
	})
	if err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

// prune removes up to levels directories that are empty, from dir upwards. It
// stops at the first that is not; any other failure only leaves one behind.
func (s *Store) prune(c *sftp.Client, dir string, levels int) {
	s.dirs.Lock()
	defer s.dirs.Unlock()
	for ; levels > 0; levels-- {
		if c.RemoveDirectory(s.path(dir)) != nil {
			return
		}
		delete(s.known, dir)
		dir = path.Dir(dir)
	}
}

// Sweep removes the temporary files that crashed writers left, and returns how
// many. Only the vault's one writer calls it, before it writes.
func (s *Store) Sweep(ctx context.Context) (swept int, err error) {
	err = s.do(ctx, func(c *sftp.Client) error {
		dirs := []string{""}
		entries, err := c.ReadDirContext(ctx, s.cfg.Root)
		if err != nil {
			return s.at(s.cfg.Root, err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != lostFound {
				dirs = append(dirs, e.Name())
			}
		}
		for _, dir := range dirs {
			n, err := s.sweepDir(ctx, c, dir)
			swept += n
			if err != nil {
				return s.at(s.path(dir), err)
			}
		}
		return nil
	})
	if err != nil {
		return swept, fmt.Errorf("sweeping: %w", err)
	}
	return swept, nil
}

func (s *Store) sweepDir(ctx context.Context, c *sftp.Client, dir string) (swept int, err error) {
	entries, err := c.ReadDirContext(ctx, s.path(dir))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !isTemp(e.Name()) || !e.Mode().IsRegular() {
			continue
		}
		if err := c.Remove(s.path(path.Join(dir, e.Name()))); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}

// Protect takes the write permissions of an object away, looks at the result
// and returns vault.LevelMode, or vault.LevelNone where the server's file
// system keeps no modes. Nothing more can be seen, or done, over SFTP.
func (s *Store) Protect(ctx context.Context, name string, _ time.Time) (level vault.Level, err error) {
	if err := readable(name); err != nil {
		return vault.LevelNone, err
	}
	level = vault.LevelNone
	err = s.do(ctx, func(c *sftp.Client) error {
		info, err := c.Stat(s.path(name))
		if err == nil && info.Mode().Perm()&0o222 != 0 {
			if err := answered(c.Chmod(s.path(name), objectPerm)); err != nil {
				return err
			}
			info, err = c.Stat(s.path(name))
		}
		if err != nil {
			return s.absent(ctx, c, name, err)
		}
		if info.Mode().Perm()&0o222 == 0 {
			level = vault.LevelMode
		}
		return nil
	})
	if err != nil {
		return vault.LevelNone, fmt.Errorf("protecting %s: %w", name, err)
	}
	return level, nil
}
