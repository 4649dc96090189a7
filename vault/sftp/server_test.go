package sftp_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	pkgsftp "github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"logvault/vault/sftp"
)

// faulty is an SSH server in the test's own process, over the real disk. A test
// may change what it answers. Fields are set before the first connection, but for
// those under mu.
type faulty struct {
	t     *testing.T
	dir   string // where vaults can be
	cfg   sftp.Config
	host  ssh.Signer
	short int // the most bytes that a read is answered with, 0 for no limit

	handles atomic.Int64 // files that the client has open

	mu     sync.Mutex
	before func(op, path string) error                        // asked before each operation
	listed func(dir string, list []os.FileInfo) []os.FileInfo // changes a directory's list
	stat   func(path string, info os.FileInfo) os.FileInfo    // changes what is told of a file
	conns  []net.Conn

	bottomless bool // every directory holds another one
}

// startFaulty starts a server that has the given extensions of OpenSSH's.
func startFaulty(t *testing.T, extensions ...string) *faulty {
	t.Helper()
	must(t, pkgsftp.SetSFTPExtensions(extensions...))
	s := &faulty{t: t, dir: t.TempDir()}
	var client ssh.Signer
	keys := t.TempDir()
	for _, key := range []*ssh.Signer{&s.host, &client} {
		_, secret, err := ed25519.GenerateKey(nil)
		must(t, err)
		*key, err = ssh.NewSignerFromKey(secret)
		must(t, err)
		block, err := ssh.MarshalPrivateKey(secret, "test")
		must(t, err)
		must(t, os.WriteFile(keys+"/key", pem.EncodeToMemory(block), 0o600))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	line := knownhosts.Line([]string{l.Addr().String()}, s.host.PublicKey())
	must(t, os.WriteFile(keys+"/hosts", []byte(line+"\n"), 0o600))
	s.cfg = sftp.Config{User: "logs", Addr: l.Addr().String(), Root: filepath.Join(s.dir, "vault"), KnownHosts: []string{keys + "/hosts"},
		Keys: []string{keys + "/key"}, OnlyKeys: true}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, fs.ErrPermission
		}
		return nil, nil
	}}
	config.AddHostKey(s.host)
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		s.cut()
		running.Wait()
		must(t, pkgsftp.SetSFTPExtensions(allExtensions...))
	})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			running.Go(func() { s.serve(c, config) })
		}
	})
	return s
}

// allExtensions are those that the library's server can.
var allExtensions = []string{"hardlink@openssh.com", "posix-rename@openssh.com", "statvfs@openssh.com"}

func (s *faulty) serve(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return // a client that was refused, or gone
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { ssh.DiscardRequests(requests) }) // keep-alives are answered
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			for r := range requests {
				r.Reply(r.Type == "subsystem", nil)
			}
		})
		running.Go(func() {
			pkgsftp.NewRequestServer(ch, pkgsftp.Handlers{FileGet: s, FilePut: s, FileCmd: s, FileList: s}).Serve()
			ch.Close()
		})
	}
}

// cut breaks all connections.
func (s *faulty) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// fail sets what is asked before each operation; nil: nothing.
func (s *faulty) fail(before func(op, path string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *faulty) ask(op, path string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(op, path)
}

// file is an open file of the server.
type file struct {
	s *faulty
	*os.File
}

func (s *faulty) open(op, path string, flags int) (*file, error) {
	if err := s.ask(op, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, err
	}
	s.handles.Add(1)
	return &file{s, f}, nil
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if err := f.s.ask("read", f.Name()); err != nil {
		return 0, err
	}
	if f.s.short > 0 {
		b = b[:min(len(b), f.s.short)]
	}
	return f.File.ReadAt(b, off)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.s.ask("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *file) Close() error {
	f.s.handles.Add(-1)
	return f.File.Close()
}

// Fileread, Filewrite, Filecmd, Filelist and the others are the server's side of
// the library.
func (s *faulty) Fileread(r *pkgsftp.Request) (io.ReaderAt, error) {
	return s.open("open", r.Filepath, os.O_RDONLY)
}

func (s *faulty) Filewrite(r *pkgsftp.Request) (io.WriterAt, error) {
	return s.open("create", r.Filepath, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}

func (s *faulty) Filecmd(r *pkgsftp.Request) error {
	if err := s.ask(r.Method, r.Filepath); err != nil {
		return err
	}
	switch r.Method {
	case "Setstat":
		if !r.AttrFlags().Permissions {
			return nil
		}
		return os.Chmod(r.Filepath, r.Attributes().FileMode().Perm())
	case "Rename": // version 3: never over a name that exists
		if _, err := os.Lstat(r.Target); err == nil {
			return syscall.EEXIST
		}
		return os.Rename(r.Filepath, r.Target)
	case "Rmdir":
		return syscall.Rmdir(r.Filepath)
	case "Mkdir":
		return os.Mkdir(r.Filepath, 0o755)
	case "Link":
		return os.Link(r.Filepath, r.Target)
	case "Remove":
		return syscall.Unlink(r.Filepath)
	}
	return pkgsftp.ErrSSHFxOpUnsupported
}

func (s *faulty) PosixRename(r *pkgsftp.Request) error {
	if err := s.ask("PosixRename", r.Filepath); err != nil {
		return err
	}
	return os.Rename(r.Filepath, r.Target)
}

func (s *faulty) StatVFS(r *pkgsftp.Request) (*pkgsftp.StatVFS, error) {
	if err := s.ask("StatVFS", r.Filepath); err != nil {
		if err == syscall.ENOSPC {
			return &pkgsftp.StatVFS{Frsize: 4096, Blocks: 1000, Bavail: 10}, nil // a full disk
		}
		return nil, err
	}
	return &pkgsftp.StatVFS{Frsize: 4096, Blocks: 1000, Bavail: 900}, nil
}

func (s *faulty) Filelist(r *pkgsftp.Request) (pkgsftp.ListerAt, error) {
	if err := s.ask(r.Method, r.Filepath); err != nil {
		return nil, err
	}
	s.mu.Lock()
	listed, stat, bottomless := s.listed, s.stat, s.bottomless
	s.mu.Unlock()
	if bottomless && r.Method == "List" && r.Filepath != s.cfg.Root {
		info, err := os.Stat(s.dir)
		return infos{lie{info, "deeper", 0}}, err
	}
	if r.Method != "List" {
		info, err := os.Lstat(r.Filepath)
		if err == nil && stat != nil {
			info = stat(r.Filepath, info)
		}
		return infos{info}, err
	}
	entries, err := os.ReadDir(r.Filepath)
	var list infos
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			list = append(list, info)
		}
	}
	if listed != nil {
		list = listed(r.Filepath, list)
	}
	return list, err
}

func (s *faulty) RealPath(path string) (string, error) { return path, s.ask("RealPath", path) }

// infos is a list of files.
type infos []os.FileInfo

func (l infos) ListAt(to []os.FileInfo, off int64) (int, error) {
	n := copy(to, l[min(off, int64(len(l))):])
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}

// lie is a file with another name or size.
type lie struct {
	os.FileInfo
	name string
	size int64
}

func (l lie) Name() string { return l.name }
func (l lie) Size() int64  { return l.size }
