package sftp_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"logvault/vault"
	"logvault/vault/sftp"
)

// keyFile writes a new private key, under a passphrase unless that is "".
func keyFile(t *testing.T, secret ed25519.PrivateKey, passphrase string) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(secret, "test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(secret, "test", []byte(passphrase))
	}
	must(t, err)
	file := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return file
}

// clientKey reads back the key that a server accepts.
func clientKey(t *testing.T, s *faulty) ed25519.PrivateKey {
	t.Helper()
	data, err := os.ReadFile(s.cfg.Keys[0])
	must(t, err)
	key, err := ssh.ParseRawPrivateKey(data)
	must(t, err)
	return *key.(*ed25519.PrivateKey)
}

// hostsFile writes a known_hosts file with these lines.
func hostsFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	must(t, os.WriteFile(file, []byte(strings.Join(append(lines, ""), "\n")), 0o600))
	return file
}

// TestLogInInProcess tries what can be wrong, or unusual, with keys and hosts.
func TestLogInInProcess(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	create(t, server.cfg)
	mine := clientKey(t, server)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	stranger, err := ssh.NewSignerFromKey(other)
	must(t, err)
	encrypted, unknown := keyFile(t, mine, "the passphrase"), keyFile(t, other, "")
	rubbish := filepath.Join(t.TempDir(), "rubbish")
	must(t, os.WriteFile(rubbish, []byte("no key at all\n"), 0o600))
	phrase := func(text string) func(context.Context, string) ([]byte, error) {
		return func(context.Context, string) ([]byte, error) { return []byte(text), nil }
	}
	addr, known := server.cfg.Addr, knownhosts.Line([]string{server.cfg.Addr}, server.host.PublicKey())
	for what, tt := range map[string]struct {
		change func(*sftp.Config)
		want   error
		says   string
	}{
		"all right":             {func(*sftp.Config) {}, nil, ""},
		"an unknown key":        {func(c *sftp.Config) { c.Keys = []string{unknown} }, fs.ErrPermission, "accepts none of 1 keys"},
		"an absent key file":    {func(c *sftp.Config) { c.Keys = []string{"/nowhere/key"} }, fs.ErrNotExist, "reading a key"},
		"a file that is no key": {func(c *sftp.Config) { c.Keys = []string{rubbish} }, fs.ErrPermission, rubbish},
		"no key at all":         {func(c *sftp.Config) { c.Keys, c.OnlyKeys = nil, false }, fs.ErrPermission, "no key to log in with"},
		"bad ones beside a good": {func(c *sftp.Config) {
			c.Keys, c.OnlyKeys = append([]string{"/nowhere", rubbish, unknown}, c.Keys...), false
		}, nil, ""},
		"only bad ones":           {func(c *sftp.Config) { c.Keys, c.OnlyKeys = []string{"/nowhere", rubbish}, false }, fs.ErrPermission, rubbish},
		"nobody has a passphrase": {func(c *sftp.Config) { c.Keys = []string{encrypted} }, fs.ErrPermission, "encrypted"},
		"a wrong passphrase":      {func(c *sftp.Config) { c.Keys, c.Passphrase = []string{encrypted}, phrase("wrong one") }, fs.ErrPermission, encrypted},
		"the passphrase":          {func(c *sftp.Config) { c.Keys, c.Passphrase = []string{encrypted}, phrase("the passphrase") }, nil, ""},
		"nobody typed it":         {func(c *sftp.Config) { c.Keys, c.Passphrase = []string{encrypted}, tired }, errTired, encrypted},
		"a host that is unknown":  {func(c *sftp.Config) { c.KnownHosts = []string{hostsFile(t)} }, sftp.ErrHostKey, "not in the known hosts"},
		"a host of another key": {func(c *sftp.Config) {
			c.KnownHosts = []string{hostsFile(t, knownhosts.Line([]string{addr}, stranger.PublicKey()))}
		}, sftp.ErrHostKey, "expected SHA256:"},
		"a revoked host": {func(c *sftp.Config) { c.KnownHosts = []string{hostsFile(t, "@revoked "+known)} }, sftp.ErrHostKey, ""},
		"one of several host keys": {func(c *sftp.Config) {
			c.KnownHosts = []string{hostsFile(t, knownhosts.Line([]string{"else:22"}, stranger.PublicKey()), known)}
		}, nil, ""},
		"broken known hosts": {func(c *sftp.Config) { c.KnownHosts = []string{hostsFile(t, "what is this")} }, nil, "known hosts"},
		"absent known hosts": {func(c *sftp.Config) { c.KnownHosts = []string{"/nowhere"} }, fs.ErrNotExist, "known hosts"},
		"no server":          {func(c *sftp.Config) { c.Addr = "127.0.0.1:1" }, vault.ErrUnreachable, ""},
	} {
		cfg := server.cfg
		tt.change(&cfg)
		s, err := sftp.Open(ctx, cfg)
		if (err == nil) != (tt.want == nil && tt.says == "") || tt.want != nil && !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, expected %v and %q", what, err, tt.want, tt.says)
		}
		if err == nil {
			must(t, s.Close())
		} else if strings.Contains(err.Error(), "wrong one") {
			t.Errorf("%s: the error tells the passphrase: %v", what, err)
		}
	}
}

var errTired = errors.New("nobody is there")

func tired(context.Context, string) ([]byte, error) { return nil, errTired }

// TestAgentInProcess logs in with a key that only an agent has, and goes on where
// the agent is gone, unless a key file was named.
func TestAgentInProcess(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	create(t, server.cfg)
	ring := agent.NewKeyring()
	must(t, ring.Add(agent.AddedKey{PrivateKey: clientKey(t, server)}))
	t.Chdir(t.TempDir())
	const socket = "agent" // a path of at most 107 bytes, wherever TMPDIR is
	l, err := net.Listen("unix", socket)
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			agent.ServeAgent(ring, c)
			c.Close()
		}
	})
	only := server.cfg
	only.Agent, only.Keys, only.OnlyKeys = socket, nil, false
	s, err := sftp.Open(ctx, only)
	must(t, err)
	must(t, s.Close())
	named := server.cfg
	named.Agent, named.Keys = socket, []string{"/nowhere"}
	_, err = sftp.Open(ctx, named)
	wantErr(t, "a key file that is named, beside an agent", err, fs.ErrNotExist)
	l.Close()
	running.Wait()
	_, err = sftp.Open(ctx, only)
	wantErr(t, "an agent that is gone", err, fs.ErrPermission)
	only.Keys = server.cfg.Keys
	s, err = sftp.Open(ctx, only)
	must(t, err)
	must(t, s.Close())
}

// TestCancelled: a caller who has given up gets that for an answer, and the
// connection serves the others.
func TestCancelled(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	gone, cancel := context.WithCancel(ctx)
	rc, _, err := s.Open(gone, vault.MarkerName)
	must(t, err)
	cancel()
	_, err = rc.Read(make([]byte, 9))
	wantErr(t, "reading on", err, context.Canceled)
	must(t, rc.Close())
	_, err = s.Stat(gone, vault.MarkerName)
	wantErr(t, "Stat", err, context.Canceled)
	_, err = sftp.Open(gone, server.cfg)
	wantErr(t, "Open", err, context.Canceled)
	server.mu.Lock()
	n := len(server.conns)
	server.mu.Unlock()
	if n != 1 {
		t.Errorf("%d connections, expected the first to be kept", n)
	}
	whole(t, s, vault.MarkerName, "marker", "marker")
}

// TestClosed: a store that was closed connects again when it is asked.
func TestClosed(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	for range 2 {
		must(t, s.Close())
	}
	whole(t, s, vault.MarkerName, "marker", "marker")
}

// TestLostMountInProcess: a vault whose mount went away on the server is never
// mistaken for absent objects, and gets nothing written.
func TestLostMountInProcess(t *testing.T) {
	server := startFaulty(t, allExtensions...)
	s := create(t, server.cfg)
	must(t, put(s, segment("x"), "x"))
	must(t, os.Rename(server.cfg.Root, server.cfg.Root+".away"))
	for _, what := range []string{"no directory", "an empty one", "another's"} {
		switch what {
		case "an empty one":
			must(t, os.Mkdir(server.cfg.Root, 0o755))
		case "another's":
			must(t, os.WriteFile(filepath.Join(server.cfg.Root, "readme"), nil, 0o600))
		}
		_, _, err := s.Open(ctx, segment("x"))
		wantErr(t, "Open, "+what, err, vault.ErrNoVault)
		wantErr(t, "Put, "+what, put(s, segment("y"), "y"), vault.ErrNoVault)
		wantErr(t, "Put to a new directory, "+what, put(s, vault.RegisterName("a", vault.HashOf(nil)), "y"), vault.ErrNoVault)
		wantErr(t, "Replace, "+what, s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), nil), vault.ErrNoVault)
		wantErr(t, "List, "+what, s.List(ctx, "", func(vault.Info) error { return nil }), vault.ErrNoVault)
		wantErr(t, "Remove, "+what, s.Remove(ctx, segment("x")), vault.ErrNoVault)
	}
	if entries, err := os.ReadDir(server.cfg.Root); err != nil || len(entries) != 1 {
		t.Errorf("the mount point holds %v, %v", entries, err)
	}
	must(t, os.RemoveAll(server.cfg.Root))
	must(t, os.Rename(server.cfg.Root+".away", server.cfg.Root))
	must(t, put(s, segment("y"), "y"))
}
