package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/pkg/sftp"

	"logvault/vault"
)

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (info vault.Info, err error) {
	if err := readable(name); err != nil {
		return vault.Info{}, err
	}
	err = s.do(ctx, func(c *sftp.Client) error {
		fi, err := c.Stat(s.path(name))
		if err != nil {
			return s.absent(ctx, c, name, err)
		}
		info, err = regular(name, fi)
		return err
	})
	return info, err
}

func regular(name string, fi os.FileInfo) (vault.Info, error) {
	if !fi.Mode().IsRegular() {
		return vault.Info{}, fmt.Errorf("%s: %s, expected a regular file", name, fi.Mode().Type())
	}
	if fi.Size() < 0 { // unsigned on the wire
		return vault.Info{}, fmt.Errorf("%s: the server tells of a size beyond 2^63", name)
	}
	return vault.Info{Name: name, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// Open opens an object for reading and returns its size. It asks Stat first:
// opening a pipe would stop the server.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := readable(name); err != nil {
		return nil, 0, err
	}
	ses, err := s.ready(ctx)
	if err != nil {
		return nil, 0, err
	}
	r, size, err := s.open(ctx, ses, name)
	if err != nil {
		return nil, 0, s.judge(ses, err)
	}
	return r, size, nil
}

func (s *Store) ready(ctx context.Context) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.connected(ctx)
}

func (s *Store) open(ctx context.Context, ses *session, name string) (io.ReadCloser, int64, error) {
	fi, err := ses.client.Stat(s.path(name))
	if err != nil {
		return nil, 0, s.absent(ctx, ses.client, name, err)
	}
	info, err := regular(name, fi)
	if err != nil {
		return nil, 0, err
	}
	f, err := ses.client.Open(s.path(name))
	if err != nil {
		return nil, 0, s.absent(ctx, ses.client, name, err)
	}
	return &reader{ctx: ctx, store: s, ses: ses, name: name, f: f, size: info.Size}, info.Size, nil
}

// reader reads a file ahead of its reader, with many requests in flight: one
// at a time would make the line's delay the measure of everything.
type reader struct {
	ctx   context.Context
	store *Store
	ses   *session
	name  string
	f     *sftp.File
	size  int64 // as the server told it

	pipe *io.PipeReader // nil until the first Read
	done chan struct{}  // closed when the goroutine behind the pipe has ended
}

// Read starts the transfer when it is first called.
func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.pipe == nil {
		r.start()
	}
	n, err := r.pipe.Read(p)
	if err != nil && err != io.EOF {
		err = r.store.judge(r.ses, fmt.Errorf("reading %s: %w", r.name, err))
	}
	return n, err
}

func (r *reader) start() {
	pr, pw := io.Pipe()
	r.pipe, r.done = pr, make(chan struct{})
	go func() {
		defer close(r.done)
		n, err := r.f.WriteTo(pw)
		if err == nil && n < r.size {
			// The library takes each answer for all that it asked for: what came
			// has holes, and must not pass for the object.
			err = fmt.Errorf("the server answered with fewer bytes than it was asked for: %d of %d", n, r.size)
		}
		if err != nil {
			err = &transferError{err} // io.EOF here would be the end of the object
		}
		pw.CloseWithError(err)
	}()
}

// transferError is an error of a transfer under way, which io.EOF would hide.
type transferError struct{ err error }

// Error returns the text of the transfer's error.
func (e *transferError) Error() string { return e.err.Error() }

// Unwrap returns the transfer's error.
func (e *transferError) Unwrap() error { return e.err }

// Close ends the transfer and waits for it.
func (r *reader) Close() error {
	if r.pipe != nil {
		r.pipe.Close() // never fails
		<-r.done
	}
	return r.f.Close()
}

// List calls fn for each object below the directory prefix, in lexical order of
// names; see the directory store. It asks for directories only, which come with
// the sizes of their files.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	name, ok := strings.CutSuffix(prefix, "/")
	if prefix != "" && (!ok || !fs.ValidPath(name) || name == ".") {
		return fmt.Errorf("listing %.200q: expected a directory name ending in \"/\"", prefix)
	}
	// Absent, as opposed to unreachable, lists nothing.
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := s.list(ctx, name, fn); err != nil && !errors.Is(err, errNoDir) {
		return err
	}
	return nil
}

var errNoDir = errors.New("no such directory")

func (s *Store) readDir(ctx context.Context, dir string) (entries []os.FileInfo, err error) {
	err = s.do(ctx, func(c *sftp.Client) (err error) {
		entries, err = c.ReadDirContext(ctx, s.path(dir))
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoDir
	}
	if err == nil {
		err = plausible(dir, entries)
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", s.path(dir), err)
	}
	// "a.b" sorts before "a/c": directories are ordered as if they ended in "/".
	key := func(e os.FileInfo) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b os.FileInfo) int { return strings.Compare(key(a), key(b)) })
	return entries, nil
}

// longestName bounds the names that a server lists, in bytes, as Linux does: a
// tree without a bottom ends there.
const longestName = 4096

// plausible refuses a list that no directory can have: its names would lead out
// of the directory, or back into it for ever.
func plausible(dir string, entries []os.FileInfo) error {
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
			return fmt.Errorf("the server lists %q, which is no name", name)
		case len(dir)+1+len(name) > longestName:
			return fmt.Errorf("the server lists a name of %d bytes, expected at most %d", len(dir)+1+len(name), longestName)
		case e.Size() < 0:
			return fmt.Errorf("the server tells of a size of %.200q beyond 2^63", name)
		}
	}
	return nil
}

func (s *Store) list(ctx context.Context, dir string, fn func(vault.Info) error) error {
	entries, err := s.readDir(ctx, dir)
	if err != nil {
		return err
	}
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
			if err := fn(vault.Info{Name: name, Size: e.Size(), ModTime: e.ModTime()}); err != nil {
				return err
			}
		}
	}
	return nil
}
