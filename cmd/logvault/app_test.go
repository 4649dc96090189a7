package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/ingest"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// machine runs commands on a disk in memory.
type machine struct {
	t    *testing.T
	mem  *vfs.Mem
	fs   vfs.FS
	env  map[string]string
	out  bytes.Buffer
	errs bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, mem: vfs.NewMem(), env: map[string]string{}}
	m.fs = m.mem
	return m
}

// run runs one command line and returns its exit code.
func (m *machine) run(args ...string) int {
	m.out.Reset()
	m.errs.Reset()
	a := &app{in: strings.NewReader(""), out: &m.out, err: &m.errs, fs: m.fs, random: rand.Reader, now: time.Now, boot: vfs.Boottime,
		getenv: func(k string) string { return m.env[k] }}
	code := a.run(context.Background(), append([]string{"logvault"}, args...))
	if twice := repeated(m.errs.String()); twice != "" {
		m.t.Errorf("%v says %q twice in one message\n%s", args, twice, m.errs.String())
	}
	return code
}

// must runs one that has to succeed.
func (m *machine) must(args ...string) {
	m.t.Helper()
	if code := m.run(args...); code != 0 {
		m.t.Fatalf("%v: exit %d\n%s", args, code, m.errs.String())
	}
}

const conf = "--config=/s/logvault.toml"

var initArgs = []string{"init", "--vault", "/v", "--state", "/s", "--auditor", "/k/auditor.pub.asc", "--source", "p=192.0.2.1/32", "--origin", "t.example.org/v", "--recovery-out", "/r"}

// install makes a key, a vault and a state.
func (m *machine) install() {
	m.t.Helper()
	m.must("keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k")
	m.must(initArgs...)
}

// sampleLog makes a log on the real disk, where commands read them.
func sampleLog(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(name, []byte("192.0.2.9 - - [21/Nov/2026:06:00:00 +0000] \"GET /canary HTTP/1.1\" 200 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDiskFull: every command that writes says so, with a hint and exit 3, and
// works when there is room.
func TestDiskFull(t *testing.T) {
	file := sampleLog(t)
	for _, c := range []struct {
		name  string
		free  int64
		setup func(m *machine)
		args  []string
	}{
		{"keygen", 100, func(*machine) {}, []string{"keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k"}},
		{"init", 2000, func(m *machine) { m.must("keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k") }, initArgs},
		{"init, at the spool", 30 << 20, func(m *machine) { m.must("keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k") }, initArgs},
		{"status", 30 << 20, (*machine).install, []string{conf, "status"}},
		{"ingest", 30 << 20, (*machine).install, []string{conf, "ingest", "--source", "p", "--file", file}},
		{"replicate", 1000, (*machine).install, []string{"replicate", "--init", "--from", "/v", "--to", "/v2", "--trust", "/s/trust.toml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			c.setup(m)
			m.mem.SetSpace(vfs.Space{Total: 1 << 40, Free: c.free})
			code := m.run(c.args...)
			if code != codePartial || !strings.Contains(m.errs.String(), "logvault: ") || !strings.Contains(m.errs.String(), "\nhint: ") || !strings.Contains(m.errs.String(), "room") {
				t.Fatalf("exit %d, expected %d\n%s", code, codePartial, m.errs.String())
			}
			t.Log(m.errs.String())
			if c.args[0] != conf {
				return // what was made is to be removed first, as the message says
			}
			m.mem.SetSpace(vfs.Space{Total: 1 << 40, Free: 1 << 40})
			m.must(c.args...)
		})
	}
}

// TestSealOnFullVault: the vault's disk is full and the spool's is not.
func TestSealOnFullVault(t *testing.T) {
	m := newMachine(t)
	m.install()
	full := true
	m.fs = vfs.NewFault(m.mem, func(op vfs.Op, name string) error {
		if full && op == vfs.OpWrite && strings.HasPrefix(name, "/v/segments") {
			return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
		}
		return nil
	})
	file := sampleLog(t)
	for _, args := range [][]string{{conf, "ingest", "--source", "p", "--file", file}, {conf, "seal"}} {
		if code := m.run(args...); code != codePartial || !strings.Contains(m.errs.String(), "hint: the disk is full") {
			t.Errorf("%v: exit %d\n%s", args, code, m.errs.String())
		}
	}
	full = false
	m.must(conf, "seal")
	if !strings.Contains(m.out.String(), "sealed 1 segment,") {
		t.Errorf("%s", m.out.String())
	}
	m.must(conf, "verify")
}

// TestNoPermission: exit 1 and a hint, whatever the command and the place.
func TestNoPermission(t *testing.T) {
	for _, c := range []struct {
		denied string
		args   []string
	}{
		{"/k2", []string{"keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k2"}},
		{"/s2", []string{"init", "--vault", "/v2", "--state", "/s2", "--auditor", "/k/auditor.pub.asc", "--source", "p="}},
		{"/v2", []string{"init", "--vault", "/v2", "--state", "/s2", "--auditor", "/k/auditor.pub.asc", "--source", "p="}},
		{"/s/logvault.toml", []string{conf, "status"}},
		{"/s/lock", []string{conf, "status"}},
		{"/s/keys", []string{conf, "seal"}},
		{"/s/spool", []string{conf, "seal"}},
		{"/s/keys", []string{conf, "serve"}},
		{"/v/", []string{conf, "verify"}},
		{"/v/ledger", []string{conf, "ls"}},
		{"/v2", []string{"replicate", "--init", "--from", "/v", "--to", "/v2", "--trust", "/s/trust.toml"}},
	} {
		m := newMachine(t)
		m.install()
		m.fs = vfs.NewFault(m.mem, func(op vfs.Op, name string) error {
			if strings.HasPrefix(name, c.denied) {
				return &fs.PathError{Op: string(op), Path: name, Err: syscall.EACCES}
			}
			return nil
		})
		if code := m.run(c.args...); code != codeFailure || !strings.Contains(m.errs.String(), "permission denied") || !strings.Contains(m.errs.String(), "hint: run it as the user that owns") {
			t.Errorf("%v without %s: exit %d\n%s", c.args, c.denied, code, m.errs.String())
		}
		if _, err := m.mem.ReadDir("/v2"); err == nil && c.denied == "/s2" {
			t.Error("a vault was made for a state that could not be")
		}
	}
}

// TestInterrupted: a command that is stopped says so and exits 130.
func TestInterrupted(t *testing.T) {
	m := newMachine(t)
	m.install()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a := &app{in: strings.NewReader(""), out: &m.out, err: &m.errs, fs: m.fs, random: rand.Reader, now: time.Now, boot: vfs.Boottime, getenv: func(string) string { return "" }}
	for _, args := range [][]string{{conf, "seal"}, {conf, "verify"}, {conf, "status"}, {conf, "ls"}} {
		m.errs.Reset()
		if code := a.run(ctx, append([]string{"logvault"}, args...)); code != codeInterrupted || m.errs.String() != "logvault: interrupted\n" {
			t.Errorf("%v: exit %d, %q", args, code, m.errs.String())
		}
	}
	// The gateway is ended that way, also while it starts.
	m.errs.Reset()
	if code := a.run(ctx, []string{"logvault", conf, "serve"}); code != codeOK || m.errs.Len() > 0 {
		t.Errorf("serve: exit %d, %q", code, m.errs.String())
	}
	// A pipe that says nothing does not keep it.
	r, w := io.Pipe()
	defer w.Close()
	if n, err := (&interruptible{ctx: ctx, in: r}).Read(make([]byte, 10)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read %d, %v", n, err)
	}
	text := strings.Repeat("a line\n", 2*interruptibleRead/7) + "end"
	got, err := io.ReadAll(&interruptible{ctx: context.Background(), in: strings.NewReader(text)})
	if err != nil || string(got) != text {
		t.Errorf("read %d bytes, %v, expected the %d of the text", len(got), err, len(text))
	}
}

// TestHangupWhileStarting: a reload that is asked for while the spool is replayed
// does not kill the gateway.
func TestHangupWhileStarting(t *testing.T) {
	m := newMachine(t)
	m.install()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := false
	m.fs = vfs.NewFault(m.mem, func(_ vfs.Op, name string) error {
		if !sent && strings.HasPrefix(name, "/s/spool") {
			sent = true
			hangup(t) // ends the tests if nobody listens
			cancel()
		}
		return nil
	})
	a := &app{in: strings.NewReader(""), out: &m.out, err: &m.errs, fs: m.fs, random: rand.Reader, now: time.Now, boot: vfs.Boottime, getenv: func(string) string { return "" }}
	if code := a.run(ctx, []string{"logvault", conf, "serve"}); code != codeOK || !sent {
		t.Errorf("exit %d, signal sent: %v: %s", code, sent, m.errs.String())
	}
}

// hangup sends this process a SIGHUP that has arrived when hangup returns. One to
// the process as a whole may reach another thread later, and on a busy machine
// after the command under test has stopped listening: then it ends the tests.
func hangup(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGHUP)); errno != 0 {
		t.Error(errno)
	}
}

// TestRecoveryKeyIsShown once, whatever is silenced, or written to the file.
func TestRecoveryKeyIsShown(t *testing.T) {
	for _, silence := range []string{"", "--quiet", "--json"} {
		m := newMachine(t)
		m.must("keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k")
		args := []string{"init", "--vault", "/v", "--state", "/s", "--auditor", "/k/auditor.pub.asc", "--source", "p="}
		if silence != "" {
			args = append([]string{silence}, args...)
		}
		m.must(args...)
		if n := strings.Count(m.out.String()+m.errs.String(), "PRIVATE+KEY+"); n != 1 {
			t.Errorf("%s: shown %d times", silence, n)
		}
	}
}

// TestJSON: with --json standard output is JSON lines that name their type.
func TestJSON(t *testing.T) {
	m := newMachine(t)
	file := sampleLog(t)
	m.must("keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k")
	for _, args := range [][]string{
		{"keygen", "--no-passphrase", "--name", "B <b@example.org>", "--out", "/k2"},
		initArgs,
		{conf, "status"}, {conf, "ingest", "--source", "p", "--file", file}, {conf, "ingest", "--source", "p", "--file", file}, {conf, "seal"}, {conf, "ls"}, {conf, "verify"}, {conf, "inspect", "--entry", "0"},
		{"inspect", "--object", "/v/VAULT"}, {"replicate", "--init", "--from", "/v", "--to", "/v2", "--trust", "/s/trust.toml"}, {"version"},
	} {
		m.must(append([]string{"--json"}, args...)...)
		if m.out.Len() == 0 {
			t.Errorf("%v printed nothing", args)
		}
		for line := range strings.Lines(m.out.String()) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil || v["message_type"] == nil && v["type"] == nil {
				t.Errorf("%v: %q: %v", args, line, err)
			}
			if keys := oddKeys(v); len(keys) > 0 {
				t.Errorf("%v: keys %q, expected them like the others: lower_case", args, keys)
			}
		}
		if strings.Contains(m.out.String()+m.errs.String(), "canary") {
			t.Errorf("%v printed a log line", args)
		}
	}
}

// oddKeys are the keys of a JSON value that are not in lower case.
func oddKeys(v any) (odd []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if k != strings.ToLower(k) {
				odd = append(odd, k)
			}
			odd = append(odd, oddKeys(inner)...)
		}
	case []any:
		for _, inner := range v {
			odd = append(odd, oddKeys(inner)...)
		}
	}
	return odd
}

// TestQuiet: with --quiet success says nothing on standard error.
func TestQuiet(t *testing.T) {
	m := newMachine(t)
	file := sampleLog(t)
	for _, args := range [][]string{
		{"keygen", "--no-passphrase", "--name", "A <a@example.org>", "--out", "/k"}, initArgs, {conf, "ingest", "--source", "p", "--file", file},
		{conf, "seal"}, {conf, "status"}, {conf, "ls"}, {conf, "verify"}, {conf, "cat", "--segment", "3", "--case", "C", "--key", "/k/auditor.sec.asc"},
		{"replicate", "--init", "--from", "/v", "--to", "/v2", "--trust", "/s/trust.toml"},
	} {
		m.must(append([]string{"--quiet"}, args...)...)
		if m.errs.Len() > 0 {
			t.Errorf("%v: %s", args, m.errs.String())
		}
	}
}

// TestExitCodes: the table of CLI.md. An error that wraps two causes has the
// code of the more serious one.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, codeOK},
		{errors.New("anything"), codeFailure},
		{usagef("x"), codeUsage},
		{syscall.ENOSPC, codePartial},
		{&ledger.CopyError{Err: syscall.EIO}, codePartial},
		{fmt.Errorf("%w: %w", ingest.ErrSyncFailed, syscall.EIO), codeFailure},
		{fmt.Errorf("%w: %w", ingest.ErrSyncFailed, syscall.ENOSPC), codeFailure},
		{gateway.ErrStopping, codePartial},
		{&gateway.UnknownSourceError{Name: "x"}, codeUsage},
		{&gateway.DueError{}, codeRefused},
		{fmt.Errorf("%w: %w", gateway.ErrNoState, fs.ErrNotExist), codeNoVault},
		{vault.ErrNewer, codeFailure},
		{vfs.ErrLocked, codeLocked},
		{syscall.EADDRINUSE, codeFailure},
		{&gateway.RemoteError{Message: "x", Code: 5, Hint: "h"}, 5},
		{context.Canceled, codeInterrupted},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit %d, expected %d", c.err, got, c.code)
		}
	}
	if code, text := judge(&gateway.RemoteError{Message: "x", Code: 5, Hint: "h"}); code != 5 || text != "h" {
		t.Errorf("a remote error: %d, %q", code, text)
	}
	for _, o := range outcomes {
		if o.hint == "" && o.code != codeInterrupted {
			t.Errorf("%v has no hint", o.is)
		}
	}
}

// TestHelp: every command explains itself, with an example and its exit codes.
func TestHelp(t *testing.T) {
	m := newMachine(t)
	for _, cmd := range (&app{}).commands() {
		m.must(cmd.Name, "--help")
		for _, want := range []string{"Example:", "Exit codes:", "130  interrupted", "--json"} {
			if !strings.Contains(m.out.String(), want) {
				t.Errorf("%s --help does not say %q", cmd.Name, want)
			}
		}
		for _, f := range cmd.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				t.Errorf("%s: --%s has no usage text", cmd.Name, f.Names()[0])
			}
		}
		if m.errs.Len() > 0 {
			t.Errorf("%s --help talks: %s", cmd.Name, m.errs.String())
		}
	}
}

func TestParseTime(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 0, 30, 0, 0, time.UTC) // 01:30 in Paris
	for text, want := range map[string]string{
		"2026-11-01T10:00:00Z": "2026-11-01T10:00:00Z", "2026-11-01T10:00:00+02:00": "2026-11-01T08:00:00Z", "2026-11-01 10:00": "2026-11-01T09:00:00Z",
		"2026-07-01": "2026-06-30T22:00:00Z", "2026-11-01 10:00:05": "2026-11-01T09:00:05Z", "yesterday": "2026-11-19T23:00:00Z", "today": "2026-11-20T23:00:00Z",
		"now": "2026-11-21T00:30:00Z", "-2h": "2026-11-20T22:30:00Z", "-90m": "2026-11-20T23:00:00Z",
	} {
		if got, ok := parseTimeText(text, paris, now); !ok || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v %t, expected %s", text, got.UTC(), ok, want)
		}
	}
	for _, text := range []string{"", "-", "tomorrow", "2026-13-01", "10:00", "2026-11-01T10:00:00", "-2 days"} {
		if got, ok := parseTimeText(text, paris, now); ok && text != "2026-11-01T10:00:00" {
			t.Errorf("%q: %v", text, got)
		}
	}
}
