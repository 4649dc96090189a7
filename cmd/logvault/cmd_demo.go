package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/fixtures/loggen"
	"logvault/vault"
)

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show the whole story on this machine, with nothing configured",
		Description: describe("Makes auditors' keys, a vault and a gateway on loopback, writes sample logs through NFS, seals them, audits them,\n"+
			"replicates them, gets the lines back from both copies with stock gpg and zcat, answers one lawful request, and\n"+
			"rebuilds gateway and vault from the copy after both are lost.\n"+
			"Each step is a command of this program or of the system, printed as it is run. Needs gpg and zcat.",
			"logvault demo --dir /tmp/logvault-demo --keep", codeIntegrity),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "work in the absent or empty directory `DIR` (default: a temporary one)"},
			&cli.BoolFlag{Name: "keep", Usage: "keep the directory"},
		},
		Action: a.demo,
	}
}

// demo is one run of the story.
type demo struct {
	app   *app
	dir   string
	self  string // this program
	began time.Time
	serve *exec.Cmd
	nfs   string // the gateway's address
	logs  []*demoLog
}

// demoLog is a sample log and what must come back.
type demoLog struct {
	name   string
	format string
	bytes  int64
	stats  loggen.Stats
	data   []byte
	want   [sha256.Size]byte
}

// The client that the demo's request asks for: RFC 5737 keeps the address free.
const (
	demoClient = "192.0.2.77"
	demoLines  = 42
)

func (a *app) demo(c *cli.Context) (err error) {
	d := &demo{app: a, began: a.now()}
	if d.self, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	for _, tool := range []string{"gpg", "zcat"} {
		if _, err := exec.LookPath(tool); err != nil {
			return &codedError{codeFailure, "apt-get install gnupg gzip", fmt.Errorf("the demo checks with stock tools: %w", err)}
		}
	}
	if d.dir, err = demoDir(c.String("dir")); err != nil {
		return err
	}
	if !c.Bool("keep") {
		defer os.RemoveAll(d.dir)
	}
	defer d.stop()
	d.say("$ cd %s", d.dir)
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"Two auditors make their keys. The secret halves never reach the gateway.", d.keys},
		{"The administrator creates the vault and the gateway's state.", d.init},
		{"The gateway runs; a proxy mounts its export and writes its logs through NFS.", d.write},
		{"What was received is sealed: compressed, encrypted, chained in the ledger.", d.seal},
		{"An auditor checks every byte, without any key.", d.audit},
		{"The second NAS pulls a copy and vouches for it.", d.replicate},
		{"The lines come back from both copies with stock gpg and zcat alone.", d.stock},
		{"A lawful request is answered with exactly what it asks for.", d.extract},
		{"The gateway and the first NAS burn down. The second NAS and the recovery key bring both back.", d.restore},
	}
	for i, s := range steps {
		d.say("\n%d. %s", i+1, s.title)
		if err := s.run(c.Context); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	d.say("\nDone in %.1f s.", a.now().Sub(d.began).Seconds())
	if c.Bool("keep") {
		d.say("Everything is in %s; the commands above work as printed.", d.dir)
	}
	return nil
}

func demoDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "logvault-demo-")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(abs)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s: %w", abs, vault.ErrNotEmpty)
	}
	return abs, err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.app.out, format+"\n", args...) }

func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// run runs this program in the demo's directory, prints the command and what it says.
func (d *demo) run(ctx context.Context, args ...string) error {
	d.say("   $ logvault %s", quoted(args))
	cmd := exec.CommandContext(ctx, d.self, args...)
	var both bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, &both, &both
	err := cmd.Run()
	for line := range strings.Lines(both.String()) {
		d.say("     %s", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("logvault %s: %w", args[0], err)
	}
	return nil
}

// quoted joins arguments as a shell takes them.
func quoted(args []string) string {
	var all []string
	for _, a := range args {
		if strings.ContainsAny(a, " <>") {
			a = "'" + a + "'"
		}
		all = append(all, a)
	}
	return strings.Join(all, " ")
}

func (d *demo) keys(ctx context.Context) error {
	for _, who := range []string{"alice", "bob"} {
		if err := d.run(ctx, "keygen", "--no-passphrase", "--name", who+" <"+who+"@example.org>", "--out", ""+who+""); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) init(ctx context.Context) error {
	err := d.run(ctx, "init", "--vault", "nas1", "--state", "state", "--origin", "demo.example.org/vault",
		"--auditor", "alice/auditor.pub.asc", "--auditor", "bob/auditor.pub.asc",
		"--source", "proxy1=127.0.0.1,::1", "--listen", "127.0.0.1:0", "--recovery-out", "recovery.key")
	if err != nil {
		return err
	}
	return d.insecure()
}

// insecure lets clients of any port in: the demo may run without root, and its
// NFS client then has no port below 1024.
func (d *demo) insecure() error {
	file := d.path("state", "logvault.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, bytes.Replace(text, []byte("secure = true"), []byte("secure = false"), 1), 0o644)
}

// config is the flag that every later command of the gateway is given.
func (d *demo) config() string { return "--config=state/logvault.toml" }

// start starts the gateway and waits for its ready line.
func (d *demo) start(ctx context.Context) error {
	d.say("   $ logvault %s serve &", d.config())
	d.serve = exec.CommandContext(ctx, d.self, d.config(), "--quiet", "serve")
	d.serve.Dir = d.dir
	d.serve.Stderr = d.app.err
	out, err := d.serve.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.serve.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the gateway did not become ready: %w", err)
	}
	d.say("     %s", strings.TrimSpace(line))
	_, rest, ok := strings.Cut(line, "nfs=")
	d.nfs, _, _ = strings.Cut(rest, " ")
	if !ok {
		return fmt.Errorf("the gateway said %q, expected a ready line", line)
	}
	return nil
}

// stop ends the gateway and reports how it ended.
func (d *demo) stop() {
	if d.serve == nil || d.serve.Process == nil {
		return
	}
	_ = d.serve.Process.Signal(syscall.SIGTERM) // it may have ended already
	if err := d.serve.Wait(); err != nil {
		d.say("   the gateway ended: %v", err)
	}
	d.serve = nil
}

func (d *demo) write(ctx context.Context) error {
	if err := d.start(ctx); err != nil {
		return err
	}
	d.logs = []*demoLog{
		{name: "squid/access.log", format: "squid", bytes: 8 << 20},
		{name: "nginx/access.log", format: "combined", bytes: 4 << 20},
	}
	for i, l := range d.logs {
		var buf bytes.Buffer
		o := loggen.Options{Format: l.format, Bytes: l.bytes, Seed: uint64(i + 1), Start: d.began.Add(-time.Hour), Rate: 400, Clients: 2000, Hosts: 2000,
			Needle: demoClient, NeedleLines: demoLines}
		var err error
		if l.stats, err = loggen.Generate(&buf, o); err != nil {
			return err
		}
		l.data, l.want = buf.Bytes(), sha256.Sum256(buf.Bytes())
		if err := writeNFS(d.nfs, "/proxy1", l.name, l.data); err != nil {
			return fmt.Errorf("writing %s through NFS: %w", l.name, err)
		}
		d.say("     proxy1 wrote %s: %d lines, %s", l.name, l.stats.Lines, bytesText(int64(len(l.data))))
	}
	return nil
}

func (d *demo) seal(ctx context.Context) error {
	if err := d.run(ctx, d.config(), "status"); err != nil {
		return err
	}
	if err := d.run(ctx, d.config(), "seal"); err != nil {
		return err
	}
	return d.run(ctx, d.config(), "ls")
}

func (d *demo) audit(ctx context.Context) error {
	return d.run(ctx, "verify", "--vault", "nas1", "--trust", "state/trust.toml")
}

func (d *demo) replicate(ctx context.Context) error {
	if err := d.run(ctx, "replicate", "--init", "--from", "nas1", "--to", "nas2", "--trust", "state/trust.toml"); err != nil {
		return err
	}
	return d.run(ctx, "verify", "--vault", "nas2", "--trust", "nas2.state/trust.toml", "--against", "nas1")
}

func (d *demo) extract(ctx context.Context) error {
	req := fmt.Sprintf(demoRequest, d.began.UTC().Format(time.RFC3339), d.began.Add(-2*time.Hour).UTC().Format(time.RFC3339), d.began.Add(48*time.Hour).UTC().Format(time.RFC3339), demoClient)
	if err := os.WriteFile(d.path("request.toml"), []byte(req), 0o600); err != nil {
		return err
	}
	if err := d.run(ctx, d.config(), "extract", "--request", "request.toml", "--key", "alice/auditor.sec.asc", "--out", "bundle"); err != nil {
		return err
	}
	if err := d.checkDisclosed(); err != nil {
		return err
	}
	return d.run(ctx, "check-bundle", "--bundle", "bundle", "--trust", "state/ledger.vkey")
}

// restore loses the gateway with its state and the first NAS, and rebuilds both.
// The new gateway takes in a log, and the second NAS accepts its key by its hash.
func (d *demo) restore(ctx context.Context) error {
	if err := d.run(ctx, "replicate", "--from", "nas1", "--to", "nas2"); err != nil {
		return err
	}
	d.stop()
	d.say("   $ rm -r nas1 state")
	for _, gone := range []string{"nas1", "state"} {
		if err := os.RemoveAll(d.path(gone)); err != nil {
			return err
		}
	}
	if err := d.run(ctx, "restore", "--from", "nas2", "--trust", "nas2.state/trust.toml", "--to", "nas1", "--state", "state", "--recovery-key", "recovery.key",
		"--auditor", "alice/auditor.pub.asc", "--auditor", "bob/auditor.pub.asc", "--source", "proxy1=127.0.0.1,::1", "--listen", "127.0.0.1:0"); err != nil {
		return err
	}
	if err := d.insecure(); err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	text := []byte(d.began.UTC().Format(time.RFC3339) + " the proxy goes on after the fire\n")
	if err := writeNFS(d.nfs, "/proxy1", "after/access.log", text); err != nil {
		return fmt.Errorf("writing through the new gateway: %w", err)
	}
	d.say("     proxy1 mounted the export anew and wrote after/access.log: 1 line")
	if err := d.run(ctx, d.config(), "seal"); err != nil {
		return err
	}
	if err := d.run(ctx, "verify", "--vault", "nas1", "--trust", "state/trust.toml", "--depth", "content", "--key", "bob/auditor.sec.asc"); err != nil {
		return err
	}
	hash, err := d.rotation(ctx)
	if err != nil {
		return err
	}
	return d.run(ctx, "replicate", "--from", "nas1", "--to", "nas2", "--accept-rotation", hash)
}

// rotation asks verify for the hash by which a person accepts the new key.
func (d *demo) rotation(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, d.self, "verify", "--json", "--depth", "chain", "--vault", d.path("nas1"), "--trust", d.path("nas2.state", "trust.toml")).Output()
	if err != nil {
		return "", fmt.Errorf("logvault verify: %w", err)
	}
	_, rest, ok := strings.Cut(string(out), "accepted with the hash ")
	if hash, _, _ := strings.Cut(rest, ";"); ok && len(hash) == 64 {
		return hash, nil
	}
	return "", errors.New("verify did not tell of the rotation")
}

const demoRequest = `authority   = "Tribunal judiciaire de Demoville"
officer     = "OPJ Jeanne Exemple"
reference   = "PV 2026/0042"
article     = "CPP 77-1-1"
ground      = "1"
received_at = "%s"

[scope]
since  = "%s"
until  = "%s"
zone   = "Europe/Paris"
client = ["%s"]
`

// checkDisclosed compares the bundle's lines with what grep would have found.
func (d *demo) checkDisclosed() error {
	var want, got int64
	for _, l := range d.logs {
		want += l.stats.Needles
	}
	files, err := filepath.Glob(d.path("bundle", "lines", "*.log"))
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			if !bytes.Contains(line, []byte(demoClient)) {
				return errors.New("the bundle holds a line that was not asked for")
			}
			got++
		}
	}
	if got != want || want == 0 {
		return fmt.Errorf("the bundle holds %d lines, expected %d", got, want)
	}
	d.say("     the bundle holds all %d lines of %s and no other", got, demoClient)
	return nil
}
