package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/willscott/go-nfs-client/nfs"
	"github.com/willscott/go-nfs-client/nfs/rpc"

	"logvault/vault"
)

// writeNFS mounts an export with an NFSv3 client and writes one file as a proxy
// would: directory, create, sequential writes, commit at close.
func writeNFS(addr, export, name string, data []byte) (err error) {
	conn, err := dialNFS(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	auth := rpc.NewAuthUnix("proxy1", uint32(os.Getuid()), uint32(os.Getgid())).Auth()
	target, err := (&nfs.Mount{Client: conn}).Mount(export, auth)
	if err != nil {
		return fmt.Errorf("mounting %s: %w", export, err)
	}
	if dir := filepath.Dir(name); dir != "." {
		if _, err := target.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return fmt.Errorf("mkdir %s: %w", dir, err)
		}
	}
	f, err := target.OpenFile(name, 0o644)
	if err != nil {
		return err
	}
	defer closeInto(f, &err) // COMMIT: after it the bytes are durable
	for chunk := data; len(chunk) > 0; {
		n, err := f.Write(chunk[:min(len(chunk), 256<<10)])
		if err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	return nil
}

// dialNFS connects. The client library draws its own port at random, and it may
// be in use.
func dialNFS(addr string) (conn *rpc.Client, err error) {
	for range 16 {
		if conn, err = rpc.DialTCP("tcp", addr, false); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return conn, err
}

// stock gets every line back from both copies with gpg and zcat alone, in the
// order that ls gives, and compares them with what the proxy wrote.
func (d *demo) stock(ctx context.Context) error {
	for _, copy := range []string{"nas1", "nas2"} {
		home := d.path(copy + ".gnupg")
		if err := os.Mkdir(home, 0o700); err != nil {
			return err
		}
		g := &stockGPG{ctx: ctx, home: home}
		err := d.stockCopy(ctx, g, d.path(copy))
		g.end()
		if err != nil {
			return fmt.Errorf("%s: %w", copy, err)
		}
	}
	return nil
}

func (d *demo) stockCopy(ctx context.Context, g *stockGPG, root string) error {
	say := func(format string, name string) {
		rel, err := filepath.Rel(d.dir, name)
		if err != nil {
			rel = name
		}
		d.say("   $ "+format, shorten(rel))
	}
	d.say("   $ export GNUPGHOME=%s", filepath.Base(g.home))
	say("gpg --import %s", d.path("alice", "auditor.sec.asc"))
	if _, err := g.run(nil, "--import", d.path("alice", "auditor.sec.asc")); err != nil {
		return err
	}
	wraps, err := filepath.Glob(filepath.Join(root, "keys/*/*/*/*/*/*.pgp"))
	if err != nil {
		return err
	}
	for _, w := range wraps {
		say("gpg --decrypt %s | gpg --import", w)
		secret, err := g.run(nil, "--decrypt", w)
		if err != nil {
			return err
		}
		if _, err := g.run(secret, "--import"); err != nil {
			return err
		}
	}
	segments, err := d.segments(ctx, root)
	if err != nil {
		return err
	}
	texts := map[string]*bytes.Buffer{}
	for _, s := range segments {
		say("gpg --decrypt %s | zcat", filepath.Join(root, s.Object))
		packed, err := g.run(nil, "--decrypt", filepath.Join(root, s.Object))
		if err != nil {
			return err
		}
		if texts[s.Stream] == nil {
			texts[s.Stream] = new(bytes.Buffer)
		}
		zcat := exec.CommandContext(ctx, "zcat")
		zcat.Stdin, zcat.Stdout = bytes.NewReader(packed), texts[s.Stream]
		if err := zcat.Run(); err != nil {
			return fmt.Errorf("zcat: %w", err)
		}
	}
	return d.compare(texts)
}

// compare finds each log that was written among the streams that came back.
func (d *demo) compare(texts map[string]*bytes.Buffer) error {
	if len(texts) != len(d.logs) {
		return fmt.Errorf("%d streams came back, expected %d", len(texts), len(d.logs))
	}
	for _, l := range d.logs {
		found := false
		for _, t := range texts {
			found = found || sha256.Sum256(t.Bytes()) == l.want
		}
		if !found {
			return fmt.Errorf("%s did not come back byte for byte", l.name)
		}
		d.say("     %s came back byte for byte: sha256 %s", l.name, vault.Hash(l.want))
	}
	return nil
}

// segments asks `logvault ls` for the order of the segments of each stream.
func (d *demo) segments(ctx context.Context, root string) ([]listed, error) {
	out, err := exec.CommandContext(ctx, d.self, "ls", "--json", "--vault", root, "--trust", d.path("state", "trust.toml")).Output()
	if err != nil {
		return nil, fmt.Errorf("logvault ls: %w", err)
	}
	var all []listed
	for line := range strings.Lines(string(out)) {
		var l listed
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// shorten abbreviates the hashes in a printed path.
func shorten(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		if base, ext, _ := strings.Cut(p, "."); len(base) == 64 {
			parts[i] = strings.TrimSuffix(base[:8]+"*."+ext, ".")
		}
	}
	return strings.Join(parts, "/")
}

// stockGPG runs the system's gpg in a throw-away home.
type stockGPG struct {
	ctx  context.Context
	home string
}

func (g *stockGPG) run(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(g.ctx, "gpg", append([]string{"--homedir", g.home, "--batch", "--quiet", "--no-tty", "--trust-model", "always"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gpg %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// end stops the agent that gpg started for the home.
func (g *stockGPG) end() {
	_ = exec.Command("gpgconf", "--homedir", g.home, "--kill", "all").Run() // it may not have started
}
