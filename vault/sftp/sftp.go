// Package sftp is the SFTP store: a vault in a directory of an SSH account, in
// the layout of the directory store (package dir), so that either kind opens
// what the other made.
//
// It speaks SFTP version 3 as OpenSSH does, with its extensions where the
// server has them:
//
//	hardlink@openssh.com   an object appears under its name whole, or not at
//	                       all, and never over another one
//	fsync@openssh.com      files are durable before they get their names, and
//	                       directories after
//	limits@openssh.com     requests of 255 KiB instead of 32 KiB
//	posix-rename@…         the mutable names of a ledger are replaced atomically
//	statvfs@openssh.com    a full disk is told from another failure
//
// Without hardlink an object gets its name by RENAME, which version 3 forbids
// over an existing name; a server that does it all the same is guarded against
// by a look before, which two writers at one moment would defeat: a vault has
// one. Without fsync nothing but the server's own care makes objects durable.
// Without posix-rename nothing can be replaced, and writing is refused.
//
// The server's host key is always checked against known_hosts; there is no
// switch for it. Log-in is by agent or key file, never by password.
//
// The connection is made when it is needed, kept, and made anew after it broke.
// The call that it broke under fails with vault.ErrUnreachable and may be
// repeated. A server that does not answer for Timeout has a broken connection;
// that what serves the files must answer, not only sshd, keeps a hard mount that
// is away on the server from holding a caller for ever.
//
// What protects objects here is their mode, 0440: against mistakes. The account
// owns the files and can change that, so Protect never reports more.
package sftp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"

	"logvault/internal/vfs"
	"logvault/vault"
)

const (
	dirPerm    = 0o750
	objectPerm = 0o440 // immutable objects
	headPerm   = 0o640 // checkpoints and partial tiles
	tempPrefix = ".tmp-"
	lostFound  = "lost+found"
)

// Config says where a vault is and how to log in there.
type Config struct {
	User string
	Addr string // HOST:PORT
	Root string // absolute path on the server
	// KnownHosts are the files with host keys that are trusted. At least one.
	KnownHosts []string
	// Keys are private key files. With OnlyKeys nothing else is tried and each
	// must be readable; else those that are there are tried after the agent's.
	Keys     []string
	OnlyKeys bool
	// Agent is the socket of an SSH agent, or "".
	Agent string
	// Passphrase returns the passphrase of an encrypted key file. If nil, such
	// a file cannot be used.
	Passphrase func(ctx context.Context, file string) ([]byte, error)
	// Timeout is how long the server may be silent. 0 means a minute.
	Timeout time.Duration
}

// Store is an SFTP store. It implements vault.Store, vault.Protector and
// vault.Remover and is safe for concurrent use.
type Store struct {
	cfg Config

	dialing sync.Mutex // held while a connection is made
	mu      sync.Mutex // guards session
	session *session   // nil: to be made

	dirs  sync.Mutex      // guards known; held while directories are made
	known map[string]bool // directories, relative to the root, whose names are durable
}

// topDirs are the directories that Create makes, as the directory store does.
var topDirs = []string{"ledger", "segments", "keys"}

// Open opens the existing vault in cfg.Root. If there is none of VAULT, ledger
// and segments the error wraps vault.ErrNoVault;
// the caller names the place.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := newStore(cfg)
	if err := s.do(ctx, func(c *sftp.Client) error { return s.look(ctx, c) }); err != nil {
		s.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

// Create makes the directories of a new vault in cfg.Root, which it makes if
// only its last part is absent. A root that holds anything gives an error that
// wraps vault.ErrNotEmpty; the empty directories of an interrupted Create and
// lost+found do not count. The marker is for the caller to Put.
// The caller names the place in an error.
func Create(ctx context.Context, cfg Config) (*Store, error) {
	s := newStore(cfg)
	if err := s.create(ctx); err != nil {
		s.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

func newStore(cfg Config) *Store {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	return &Store{cfg: cfg, known: map[string]bool{}}
}

func (s *Store) create(ctx context.Context) error {
	return s.do(ctx, func(c *sftp.Client) error {
		entries, err := c.ReadDirContext(ctx, s.cfg.Root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.at(s.cfg.Root, err)
		}
		for _, e := range entries {
			if e.Name() == lostFound {
				continue
			}
			if e.IsDir() && slices.Contains(topDirs, e.Name()) {
				below, err := c.ReadDirContext(ctx, s.path(e.Name()))
				if err != nil {
					return s.at(s.path(e.Name()), err)
				}
				if len(below) == 0 {
					continue
				}
			}
			return fmt.Errorf("%w: it holds %q", vault.ErrNotEmpty, e.Name())
		}
		if err := mkdir(c, s.cfg.Root); err != nil {
			return s.at(s.cfg.Root, err)
		}
		for _, d := range topDirs {
			if err := mkdir(c, s.path(d)); err != nil {
				return s.at(s.path(d), err)
			}
		}
		return errors.Join(syncDir(c, path.Dir(s.cfg.Root)), syncDir(c, s.cfg.Root))
	})
}

// Close ends the connection.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil
	}
	err := s.session.close()
	s.session = nil
	return err
}

func (s *Store) path(name string) string { return path.Join(s.cfg.Root, name) }

// at names the path that an error is about: the library does not.
func (s *Store) at(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// alive returns nil if the root looks like a vault.
func (s *Store) alive(ctx context.Context) error {
	return s.do(ctx, func(c *sftp.Client) error { return s.looksAlive(ctx, c) })
}

func (s *Store) looksAlive(ctx context.Context, c *sftp.Client) error {
	err := s.look(ctx, c)
	if errors.Is(err, vault.ErrNoVault) { // the others name a path
		err = s.at(s.cfg.Root, err)
	}
	return err
}

// look is looksAlive, but a root that is not a vault is not named.
func (s *Store) look(ctx context.Context, c *sftp.Client) error {
	for _, name := range []string{vault.MarkerName, "ledger", "segments"} {
		_, err := c.Stat(s.path(name))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return s.at(s.path(name), err)
		}
	}
	entries, err := c.ReadDirContext(ctx, s.cfg.Root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the path does not exist or is no directory", vault.ErrNoVault)
	case err != nil:
		return s.at(s.cfg.Root, err)
	case len(entries) == 0:
		return fmt.Errorf("%w: the directory is empty; is it mounted there?", vault.ErrNoVault)
	}
	return fmt.Errorf("%w: neither VAULT nor ledger nor segments in it", vault.ErrNoVault)
}

// absent turns a missing file into vault.ErrNotExist, but only if the vault
// itself is still there.
func (s *Store) absent(ctx context.Context, c *sftp.Client, name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return s.at(name, err)
	}
	if err := s.looksAlive(ctx, c); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", name, vault.ErrNotExist)
}

// Space tells the room of the file system below the root.
func (s *Store) Space() (space vfs.Space, err error) {
	err = s.do(context.Background(), func(c *sftp.Client) error {
		space, err = room(c, s.cfg.Root)
		return err
	})
	return space, err
}

func room(c *sftp.Client, dir string) (vfs.Space, error) {
	st, err := c.StatVFS(dir)
	if err != nil {
		return vfs.Space{}, fmt.Errorf("asking for the room of %s: %w", dir, err)
	}
	return vfs.Space{Total: int64(st.Frsize * st.Blocks), Free: int64(st.Frsize * st.Bavail)}, nil
}

// full explains a failed write: version 3 has no word for a full disk, and
// OpenSSH says "failure". Less than 1 MiB of room is taken for the cause.
func (s *Store) full(c *sftp.Client, err error) error {
	status, ok := errors.AsType[*sftp.StatusError](err)
	if !ok || status.FxCode() != sftp.ErrSSHFxFailure {
		return err
	}
	space, serr := room(c, s.cfg.Root)
	if serr != nil || space.Free >= 1<<20 {
		return err
	}
	return fmt.Errorf("%w (the server says %w)", syscall.ENOSPC, err)
}

// mkdir makes a directory that may exist. Version 3 has no word for one that
// does, so its presence is what counts.
func mkdir(c *sftp.Client, dir string) error {
	err := c.Mkdir(dir)
	if err == nil {
		return c.Chmod(dir, dirPerm)
	}
	if info, serr := c.Stat(dir); serr == nil && info.IsDir() {
		return nil
	}
	return err
}

// syncDir makes the names in a directory durable where the server can. OpenSSH
// opens a directory for reading as open(2) does, and its fsync then works.
func syncDir(c *sftp.Client, dir string) error {
	f, err := c.Open(dir)
	if err != nil {
		return answered(err)
	}
	err = answered(f.Sync())
	return errors.Join(err, answered(f.Close()))
}

// answered drops the errors that a server answered with and keeps those of a
// broken line: what it cannot sync it need not.
func answered(err error) error {
	if broken(err) {
		return err
	}
	return nil
}

// tempName draws the path of a temporary file in the top-level directory of
// name, which may be a file system of its own.
func (s *Store) tempName(name string) string {
	top, _, inDir := strings.Cut(name, "/")
	if !inDir {
		top = ""
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	return s.path(path.Join(top, tempPrefix+hex.EncodeToString(b[:])))
}

func isTemp(base string) bool { return strings.HasPrefix(base, tempPrefix) }

// readable checks a name from outside for reading, as the directory store does.
func readable(name string) error {
	if !fs.ValidPath(name) || name == "." || isTemp(path.Base(name)) {
		return fmt.Errorf("%.200q: not an object name", name)
	}
	return nil
}

var _ interface {
	vault.Store
	vault.Protector
	vault.Remover
	io.Closer
} = (*Store)(nil)
