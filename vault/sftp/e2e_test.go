//go:build e2e

package sftp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/storetest"
	"logvault/fixtures/testserver"
	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/vault/sftp"
)

func config(s *testserver.SSHD, root string) sftp.Config {
	return sftp.Config{User: s.User, Addr: s.Addr, Root: root, KnownHosts: []string{s.KnownHosts}, Keys: []string{s.Key}, OnlyKeys: true}
}

// TestConformance runs the suite against OpenSSH's sshd.
func TestConformance(t *testing.T) {
	s := testserver.StartSSHD(t)
	storetest.Run(t, func(t *testing.T) storetest.Place {
		return place(t, config(s, t.TempDir()+"/vault"))
	})
}

// TestSameAsDirectory: what one kind of store made the other opens, with the
// modes that are promised, and the level says no more than that.
func TestSameAsDirectory(t *testing.T) {
	server := testserver.StartSSHD(t)
	root := filepath.Join(server.Dir, "vault")
	s := create(t, config(server, root))
	name := segment("x")
	must(t, put(s, name, "x"))
	must(t, s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), []byte("head")))
	d, err := dir.Open(vfs.OS, root)
	must(t, err)
	if data, err := vault.ReadAll(ctx, d, name, 9); string(data) != "x" || err != nil {
		t.Errorf("the directory store reads %q, %v", data, err)
	}
	info, err := os.Stat(filepath.Join(root, name))
	must(t, err)
	if info.Mode().Perm() != 0o440 {
		t.Errorf("mode %o, expected 0440", info.Mode().Perm())
	}
	must(t, os.Chmod(filepath.Join(root, name), 0o644))
	level, err := s.Protect(ctx, name, time.Now().Add(time.Hour))
	if level != vault.LevelMode || err != nil {
		t.Errorf("Protect: %s, %v", level, err)
	}
	if info, err = os.Stat(filepath.Join(root, name)); err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("after Protect: %v, %v", info.Mode(), err)
	}
	if _, err := s.Protect(ctx, segment("absent"), time.Time{}); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("Protect of what is absent: %v", err)
	}
	if space, err := s.Space(); err != nil || space.Total == 0 {
		t.Errorf("Space: %+v, %v", space, err)
	}
	must(t, os.WriteFile(filepath.Join(root, "segments", ".tmp-00"), nil, 0o600))
	if n, err := s.Sweep(ctx); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
}

// TestLostMount: a vault whose mount went away on the server is never mistaken
// for absent objects, and gets nothing written.
func TestLostMount(t *testing.T) {
	server := testserver.StartSSHD(t)
	root := filepath.Join(server.Dir, "vault")
	s := create(t, config(server, root))
	must(t, put(s, segment("x"), "x"))
	must(t, os.Rename(root, root+".away"))
	must(t, os.Mkdir(root, 0o755))
	_, _, err := s.Open(ctx, segment("x"))
	wantErr(t, "Open", err, vault.ErrNoVault)
	wantErr(t, "Put", put(s, segment("y"), "y"), vault.ErrNoVault)
	wantErr(t, "Put to a directory not yet made", put(s, vault.RegisterName("a", vault.HashOf(nil)), "y"), vault.ErrNoVault)
	wantErr(t, "Replace", s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), nil), vault.ErrNoVault)
	wantErr(t, "List", s.List(ctx, "", func(vault.Info) error { return nil }), vault.ErrNoVault)
	wantErr(t, "Remove", s.Remove(ctx, segment("x")), vault.ErrNoVault)
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("the mount point holds %v, %v", entries, err)
	}
	must(t, os.Remove(root))
	must(t, os.Rename(root+".away", root))
	must(t, put(s, segment("y"), "y"))
}

// TestFullDisk: OpenSSH calls a full disk a failure; the store tells it apart.
func TestFullDisk(t *testing.T) {
	server := testserver.StartSSHD(t)
	root := filepath.Join(server.Dir, "small")
	must(t, os.Mkdir(root, 0o755))
	must(t, syscall.Mount("tmpfs", root, "tmpfs", 0, "size=2m"))
	t.Cleanup(func() { syscall.Unmount(root, syscall.MNT_DETACH) })
	s := create(t, config(server, filepath.Join(root, "vault")))
	large := strings.Repeat("x", 4<<20)
	wantErr(t, "Put on a full disk", put(s, segment(large), large), syscall.ENOSPC)
	must(t, put(s, segment("x"), "x")) // the temporary file went
}

// TestLogin tries what can be wrong, or unusual, with keys.
func TestLogin(t *testing.T) {
	server := testserver.StartSSHD(t)
	good := config(server, filepath.Join(server.Dir, "vault"))
	create(t, good)
	keys := t.TempDir()
	unknown, encrypted, hosts := filepath.Join(keys, "unknown"), filepath.Join(keys, "encrypted"), filepath.Join(keys, "hosts")
	testserver.KeyGen(t, unknown, "")
	testserver.KeyGen(t, encrypted, "")
	for _, suffix := range []string{"", ".pub"} { // the key that the server accepts, under a passphrase
		data, err := os.ReadFile(server.Key + suffix)
		must(t, err)
		must(t, os.WriteFile(encrypted+suffix, data, 0o600))
	}
	out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", encrypted).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server.Trust(t, hosts, unknown+".pub")
	must(t, os.WriteFile(filepath.Join(keys, "none"), nil, 0o600))
	phrase := func(text string) func(context.Context, string) ([]byte, error) {
		return func(context.Context, string) ([]byte, error) { return []byte(text), nil }
	}
	for what, tt := range map[string]struct {
		change func(*sftp.Config)
		want   error
		says   string
	}{
		"a key file":              {func(*sftp.Config) {}, nil, ""},
		"an unknown key":          {func(c *sftp.Config) { c.Keys = []string{unknown} }, fs.ErrPermission, "accepts none of 1 keys"},
		"an absent key file":      {func(c *sftp.Config) { c.Keys = []string{keys + "/no"} }, fs.ErrNotExist, "reading a key"},
		"no key at all":           {func(c *sftp.Config) { c.Keys, c.OnlyKeys = nil, false }, fs.ErrPermission, "no key to log in with"},
		"one of several keys":     {func(c *sftp.Config) { c.Keys, c.OnlyKeys = []string{keys + "/no", unknown, server.Key}, false }, nil, ""},
		"no passphrase":           {func(c *sftp.Config) { c.Keys = []string{encrypted} }, fs.ErrPermission, "encrypted"},
		"a wrong passphrase":      {func(c *sftp.Config) { c.Keys, c.Passphrase = []string{encrypted}, phrase("another") }, fs.ErrPermission, encrypted},
		"a passphrase":            {func(c *sftp.Config) { c.Keys, c.Passphrase = []string{encrypted}, phrase("a passphrase") }, nil, ""},
		"a host that is unknown":  {func(c *sftp.Config) { c.KnownHosts = []string{keys + "/none"} }, sftp.ErrHostKey, "not in the known hosts"},
		"a host of another key":   {func(c *sftp.Config) { c.KnownHosts = []string{hosts} }, sftp.ErrHostKey, "expected SHA256:"},
		"no server at that port":  {func(c *sftp.Config) { c.Addr = "127.0.0.1:1" }, vault.ErrUnreachable, ""},
		"a server that is no SSH": {func(c *sftp.Config) { c.Addr, c.Timeout = silent(t), 300*time.Millisecond }, vault.ErrUnreachable, ""},
	} {
		cfg := good
		tt.change(&cfg)
		s, err := sftp.Open(ctx, cfg)
		if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, expected %v and %q", what, err, tt.want, tt.says)
		}
		if err == nil {
			s.Close()
		} else if strings.Contains(err.Error(), "passphrase\"") || strings.Contains(err.Error(), "another key") {
			t.Errorf("%s: the error tells a passphrase: %v", what, err)
		}
	}
}

// silent accepts connections and never says a word.
func silent(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestAgent logs in with a key that only an agent has.
func TestAgent(t *testing.T) {
	server := testserver.StartSSHD(t)
	cfg := config(server, filepath.Join(server.Dir, "vault"))
	create(t, cfg)
	t.Chdir(t.TempDir())
	const socket = "agent" // a path of at most 107 bytes, wherever TMPDIR is
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	must(t, agent.Start())
	t.Cleanup(func() {
		agent.Process.Kill() // it does not end by itself
		agent.Wait()
	})
	add := func() error {
		cmd := exec.Command("ssh-add", "-q", server.Key)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		return cmd.Run()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * time.Minute); add() != nil; <-tick.C {
		if time.Now().After(limit) {
			t.Fatal("the agent takes no key")
		}
	}
	cfg.Keys, cfg.OnlyKeys, cfg.Agent = nil, false, socket
	s, err := sftp.Open(ctx, cfg)
	must(t, err)
	must(t, s.Close())
}

// proxy lets a test cut or stop a line.
type proxy struct {
	addr   string
	mu     sync.Mutex
	conns  []net.Conn
	frozen atomic.Bool
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{addr: l.Addr().String()}
	t.Cleanup(func() { l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			go p.copy(c, s)
			go p.copy(s, c)
		}
	}()
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if p.frozen.Load() {
			continue // swallowed: the peer hears nothing more
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// mend lets lines be whole again. What was swallowed cannot be made good: the next
// connection is a new one.
func (p *proxy) mend() {
	p.frozen.Store(false)
	p.cut()
}

// TestCutLine cuts the line under each operation: the error is a passing one,
// the same call then succeeds, and what was begun is whole or absent. A line that
// only stands still is noticed after the time-out, which is short here: where the
// machine itself stands still for as long, all is done again with a longer one.
func TestCutLine(t *testing.T) {
	server := testserver.StartSSHD(t)
	p := newProxy(t, server.Addr)
	cfg := config(server, filepath.Join(server.Dir, "vault"))
	hosts, err := os.ReadFile(server.KnownHosts)
	must(t, err)
	_, key, _ := strings.Cut(string(hosts), " ")
	host, port, _ := net.SplitHostPort(p.addr)
	proxied := filepath.Join(t.TempDir(), "hosts")
	must(t, os.WriteFile(proxied, fmt.Appendf(nil, "[%s]:%s %s", host, port, key), 0o600))
	large := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	must(t, put(create(t, cfg), segment(large), large))
	cfg.Addr, cfg.KnownHosts = p.addr, []string{proxied}
	for cfg.Timeout = 2 * time.Second; ; cfg.Timeout *= 4 {
		err := cutLine(t, p, cfg, large)
		if !errors.Is(err, errStood) || cfg.Timeout > time.Minute {
			must(t, err)
			return
		}
		t.Logf("with %v of silence allowed: %v", cfg.Timeout, err)
	}
}

// errStood says that a whole line was given up.
var errStood = errors.New("the line was whole")

// cutLine loses the line under each operation on a vault that holds the large
// object.
func cutLine(t *testing.T, p *proxy, cfg sftp.Config, large string) error {
	t.Helper()
	stood := func(what string, err error) error {
		if errors.Is(err, vault.ErrUnreachable) {
			return fmt.Errorf("%s: %w: %w", what, errStood, err)
		}
		return err
	}
	s, err := sftp.Open(ctx, cfg)
	if err != nil {
		return stood("connecting", err)
	}
	defer s.Close() // broken, or done with
	for what, lose := range map[string]func(){"cut": p.cut, "frozen": func() { p.frozen.Store(true) }} {
		ops := map[string]func() error{
			"Stat":    func() error { _, err := s.Stat(ctx, vault.MarkerName); return err },
			"List":    func() error { return s.List(ctx, "", func(vault.Info) error { return nil }) },
			"Put":     func() error { return put(s, segment(what), what) },
			"Replace": func() error { return s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), []byte("head")) },
			"Protect": func() error { _, err := s.Protect(ctx, vault.MarkerName, time.Time{}); return err },
		}
		for name, op := range ops {
			lose()
			wantErr(t, name+" with the line "+what, op(), vault.ErrUnreachable)
			p.mend()
			if err := op(); err != nil {
				return stood(name+" after the line was "+what, err)
			}
		}
		rc, _, err := s.Open(ctx, segment(large))
		if err == nil {
			_, err = io.ReadFull(rc, make([]byte, 1000))
		}
		if err != nil {
			return stood("reading before the line was "+what, err)
		}
		lose()
		_, err = io.Copy(io.Discard, struct{ io.Reader }{rc})
		if err != nil { // all of it may have been on its way
			wantErr(t, "reading with the line "+what, err, vault.ErrUnreachable)
		}
		rc.Close() // the line is gone
		p.mend()
		data, err := vault.ReadAll(ctx, s, segment(large), 1<<22)
		for again := 0; errors.Is(err, vault.ErrUnreachable) && again < 2; again++ {
			data, err = vault.ReadAll(ctx, s, segment(large), 1<<22)
		}
		if err != nil {
			return stood("reading after the line was "+what, err)
		}
		if string(data) != large {
			t.Errorf("reading after the line was %s: %d bytes", what, len(data))
		}
	}
	return nil
}
