package sftp_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/storetest"
	"logvault/vault"
	"logvault/vault/sftp"
)

// TestConformanceInProcess runs the suite against servers with and without the
// extensions that objects can do without, and looks for files left open.
func TestConformanceInProcess(t *testing.T) {
	for name, extensions := range map[string][]string{"all extensions": allExtensions, "no hard links": {"posix-rename@openssh.com"}} {
		if testing.Short() && name == "no hard links" {
			continue // make seeds runs it
		}
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Place {
				s := startFaulty(t, extensions...)
				t.Cleanup(func() {
					if n := s.handles.Load(); n != 0 {
						t.Errorf("%d files are still open on the server", n)
					}
				})
				return place(t, s.cfg)
			})
		})
	}
}

// TestNoPosixRename: such a server is read, and stores what is never replaced.
func TestNoPosixRename(t *testing.T) {
	s := create(t, startFaulty(t, "hardlink@openssh.com").cfg)
	must(t, put(s, segment("x"), "x"))
	head := vault.CheckpointName(vault.LedgerPrefix)
	err := s.Replace(ctx, head, []byte("head"))
	if err == nil || !strings.Contains(err.Error(), "posix-rename") {
		t.Errorf("Replace: %v, expected it to name the missing extension", err)
	}
	if _, err := s.Stat(ctx, head); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("after a refused Replace: %v", err)
	}
}

// TestEachOperationFails lets each operation of the server fail once, with an
// answer and with a cut line: an object is whole or absent, another's bytes are
// never replaced, and the same call then succeeds.
func TestEachOperationFails(t *testing.T) {
	refused := errors.New("the server does not like it")
	data := strings.Repeat("0123456789abcdef", 5000)
	head := vault.CheckpointName(vault.LedgerPrefix)
	calls := map[string]func(s *sftp.Store) error{
		"Put":     func(s *sftp.Store) error { return put(s, segment(data), data) },
		"Replace": func(s *sftp.Store) error { return s.Replace(ctx, head, []byte("new")) },
		"Remove":  func(s *sftp.Store) error { return s.Remove(ctx, segment("gone")) },
		"Read": func(s *sftp.Store) error {
			got, err := vault.ReadAll(ctx, s, segment("kept"), 99)
			if err == nil && string(got) != "kept" {
				t.Errorf("read %q", got)
			}
			return err
		},
		"List":    func(s *sftp.Store) error { return s.List(ctx, "", func(vault.Info) error { return nil }) },
		"Protect": func(s *sftp.Store) error { _, err := s.Protect(ctx, segment("kept"), time.Time{}); return err },
	}
	for _, extensions := range [][]string{allExtensions, {"posix-rename@openssh.com"}} {
		for name, call := range calls {
			for _, how := range []string{"refused", "cut"} {
				t.Run(fmt.Sprintf("%s, %s, %d extensions", name, how, len(extensions)), func(t *testing.T) {
					server := startFaulty(t, extensions...)
					s := create(t, server.cfg)
					for _, text := range []string{"gone", "kept"} {
						must(t, put(s, segment(text), text))
					}
					must(t, s.Replace(ctx, head, []byte("old")))
					for at := 1; ; at++ {
						n := 0
						var mu sync.Mutex
						server.fail(func(string, string) error {
							mu.Lock()
							defer mu.Unlock()
							if n++; n != at {
								return nil
							}
							if how == "cut" {
								server.cut()
							}
							return refused
						})
						err := call(s)
						server.fail(nil)
						if how == "cut" && err != nil && !errors.Is(err, vault.ErrUnreachable) {
							t.Errorf("operation %d: %v, expected %v", at, err, vault.ErrUnreachable)
						}
						if how == "cut" {
							s.Stat(ctx, vault.MarkerName) // finds the line cut, if the call did not need it any more
						}
						whole(t, s, segment(data), data, "")
						whole(t, s, head, "old", "new")
						whole(t, s, segment("kept"), "kept", "kept")
						if err := call(s); err != nil {
							t.Fatalf("again after operation %d failed: %v", at, err)
						}
						if n < at {
							return // no operation was left to fail
						}
						must(t, s.Remove(ctx, segment(data)))
						must(t, s.Replace(ctx, head, []byte("old")))
						must(t, put(s, segment("gone"), "gone"))
					}
				})
			}
		}
	}
}

// whole fails unless an object holds one of two contents; "" is absent.
func whole(t *testing.T, s *sftp.Store, name, one, other string) {
	t.Helper()
	got, err := vault.ReadAll(ctx, s, name, 1<<20)
	if errors.Is(err, vault.ErrNotExist) && other == "" {
		return
	}
	if err != nil || string(got) != one && string(got) != other {
		t.Errorf("%s holds %.20q (%d bytes), %v", name, got, len(got), err)
	}
}

// TestFullServer: version 3 says "failure" for a full disk; the room tells.
func TestFullServer(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	full := func(ops ...string) func(string, string) error {
		return func(op, _ string) error {
			if op == "StatVFS" || slices.Contains(ops, op) {
				return syscall.ENOSPC
			}
			return nil
		}
	}
	for _, op := range []string{"create", "write", "Mkdir", "Link"} {
		server.fail(full(op, "Rename"))
		if err := put(s, vault.RegisterName("a", vault.HashOf([]byte(op))), op); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk: %v, expected %v", op, err, syscall.ENOSPC)
		}
	}
	server.fail(func(op, _ string) error {
		if op == "create" {
			return errors.New("quota or what else")
		}
		return nil
	})
	if err := put(s, segment("x"), "x"); err == nil || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("another failure with room left: %v", err)
	}
	server.fail(nil)
	if space, err := s.Space(); err != nil || space.Free != 900*4096 || space.Total != 1000*4096 {
		t.Errorf("Space: %+v, %v", space, err)
	}
	must(t, put(s, segment("x"), "x"))
}

// TestStuckServer: sshd answers keep-alives although what reads and writes the
// files does not come back, as from a hard mount that is away. The call fails.
func TestStuckServer(t *testing.T) {
	for _, op := range []string{"Stat", "List", "open", "read", "create", "write", "Link", "Remove"} {
		t.Run(op, func(t *testing.T) {
			// A machine that stands still may break the line before the call comes so far.
			for timeout := 300 * time.Millisecond; ; timeout *= 2 {
				reached, err := stuckAt(t, op, timeout)
				wantErr(t, op+" that does not come back", err, vault.ErrUnreachable)
				if reached || t.Failed() {
					return
				}
			}
		})
	}
}

// stuckAt makes a call on a server on which one operation does not come back. reached
// says that the operation was asked for.
func stuckAt(t *testing.T, op string, timeout time.Duration) (reached bool, err error) {
	t.Helper()
	server := startFaulty(t, allExtensions...)
	must(t, put(create(t, server.cfg), segment("x"), "x"))
	stuck := make(chan struct{})
	t.Cleanup(func() { close(stuck) }) // before the server's own, which waits
	var asked atomic.Bool
	server.fail(func(is, _ string) error {
		if is == op {
			asked.Store(true)
			<-stuck
		}
		return nil
	})
	server.cfg.Timeout = timeout
	s, err := sftp.Open(ctx, server.cfg)
	if err != nil {
		return asked.Load(), err
	}
	t.Cleanup(func() { s.Close() })
	switch op {
	case "List":
		err = s.List(ctx, "", func(vault.Info) error { return nil })
	case "open", "read":
		_, err = vault.ReadAll(ctx, s, segment("x"), 9)
	case "Remove":
		err = s.Remove(ctx, segment("x"))
	default:
		err = put(s, segment("y"), "y")
	}
	return asked.Load(), err
}

// TestSlowBody: a body that comes slowly, as under a bandwidth limit, is no
// broken line: the server is asked for signs of life meanwhile, here for longer
// than it may be silent. Only a machine that stands still for that long breaks the
// line; then the time-out is longer.
func TestSlowBody(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	patient := create(t, server.cfg)
	name := segment("slow")
	var err error
	for timeout := time.Second; timeout < time.Minute; timeout *= 3 {
		if err = putSlowly(t, server, name, "slow", timeout); err == nil {
			whole(t, patient, name, "slow", "slow")
			return
		}
		t.Logf("with %v of silence allowed: %v", timeout, err)
	}
	t.Error(err)
}

// putSlowly stores an object whose body waits for four signs of life, of which
// there are three within the timeout.
func putSlowly(t *testing.T, server *faulty, name, data string, timeout time.Duration) error {
	t.Helper()
	cfg := server.cfg
	cfg.Timeout = timeout
	signs := make(chan struct{}, 1000)
	server.fail(func(op, _ string) error {
		if op == "RealPath" {
			signs <- struct{}{}
		}
		return nil
	})
	defer server.fail(nil)
	s, err := sftp.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close() // broken, or done with
	return s.Put(ctx, name, int64(len(data)), &slowly{signs, 4, 4 * timeout, strings.NewReader(data)})
}

// slowly is a body that waits for signs of life, for so long.
type slowly struct {
	signs  <-chan struct{}
	wanted int
	limit  time.Duration
	io.Reader
}

func (s *slowly) Read(p []byte) (int, error) {
	over := time.NewTimer(s.limit)
	defer over.Stop()
	for ; s.wanted > 0; s.wanted-- {
		select {
		case <-s.signs:
		case <-over.C:
			return 0, errors.New("no sign of life")
		}
	}
	return s.Reader.Read(p)
}

// TestLyingServer: names and sizes that cannot be are an error, never a panic or
// a walk without end.
func TestLyingServer(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	must(t, put(s, segment("x"), "x"))
	for _, name := range []string{"x/..", "..", ".", "", "/", "x/.", "../..", "a\x00b"} {
		server.mu.Lock()
		server.listed = func(dir string, list []os.FileInfo) []os.FileInfo {
			if filepath.Base(dir) != "segments" {
				return list
			}
			info, err := os.Stat(dir)
			must(t, err)
			return append(list, lie{info, name, 0})
		}
		server.mu.Unlock()
		n := 0
		err := s.List(ctx, "", func(i vault.Info) error {
			if n++; n > 100 || !fs.ValidPath(i.Name) {
				return fmt.Errorf("object %d is %q", n, i.Name)
			}
			return nil
		})
		// "." and ".." are what every directory holds.
		if known := name == "." || name == ".."; (err == nil) != known {
			t.Errorf("a directory that holds %q: %v", name, err)
		}
	}
	server.mu.Lock()
	server.listed = func(dir string, list []os.FileInfo) []os.FileInfo { return list[:min(1, len(list))] }
	server.mu.Unlock()
	for _, size := range []int64{-1, -1 << 63} {
		server.mu.Lock()
		server.stat = func(path string, info os.FileInfo) os.FileInfo { return lie{info, info.Name(), size} }
		server.mu.Unlock()
		if data, err := vault.ReadAll(ctx, s, segment("x"), 99); err == nil {
			t.Errorf("a file of %d bytes holds %q", size, data)
		}
		if info, err := s.Stat(ctx, vault.MarkerName); err == nil {
			t.Errorf("a file of %d bytes: %+v", size, info)
		}
	}
	server.mu.Lock()
	server.stat, server.listed = nil, func(dir string, list []os.FileInfo) []os.FileInfo {
		for i, info := range list {
			if !info.IsDir() {
				list[i] = lie{info, info.Name(), -5}
			}
		}
		return list
	}
	server.mu.Unlock()
	if err := s.List(ctx, "", func(i vault.Info) error { return nil }); err == nil {
		t.Error("files of -5 bytes were listed")
	}
}

// TestBottomlessServer lists directories in directories without end.
func TestBottomlessServer(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	server.mu.Lock()
	server.bottomless = true
	server.mu.Unlock()
	if err := s.List(ctx, "segments/", func(vault.Info) error { return nil }); err == nil {
		t.Error("a tree without a bottom was listed to its end")
	}
}

// TestShortReads: a server that answers reads with less than was asked would make
// holes, which the store must not pass on as the object.
func TestShortReads(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	data := strings.Repeat("0123456789abcdef", 20_000)
	must(t, put(s, segment(data), data))
	server.short = 1000
	s.Close()
	rc, size, err := s.Open(ctx, segment(data))
	must(t, err)
	got, err := io.ReadAll(rc)
	must(t, rc.Close())
	if err == nil && string(got) != data || err != nil && !strings.Contains(err.Error(), "fewer bytes") {
		t.Errorf("%d of %d bytes, %v, expected all of them or a complaint about the server", len(got), size, err)
	}
	// A comparison must not take the holes for a conflict either.
	if err := put(s, segment(data), data); errors.Is(err, vault.ErrConflict) {
		t.Errorf("Put of the same: %v", err)
	}
}
