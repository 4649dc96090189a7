package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"logvault/internal/vfs"
)

// twoCopies makes the vaults /v and /v2: copies of one ledger with one segment.
func (m *machine) twoCopies() {
	m.t.Helper()
	m.install()
	m.must(conf, "ingest", "--source", "p", "--file", sampleLog(m.t))
	m.must("replicate", "--init", "--from", "/v", "--to", "/v2", "--trust", "/s/trust.toml")
}

// fails lets the calls that match fail with err.
func (m *machine) fails(err error, match func(op vfs.Op, name string) bool) {
	m.fs = vfs.NewFault(m.mem, func(op vfs.Op, name string) error {
		if match(op, name) {
			return &fs.PathError{Op: string(op), Path: name, Err: err}
		}
		return nil
	})
}

// TestSeveral: the reading commands go on with the other vaults when one cannot
// be read, wherever it stands in the row and whenever that shows, say what is
// wrong with it, and end with the exit code of the worst.
func TestSeveral(t *testing.T) {
	m := newMachine(t)
	m.twoCopies()
	trust := []string{"--trust", "/s/trust.toml"}
	never := func(vfs.Op, string) bool { return false }
	for _, c := range []struct {
		name  string
		args  []string
		err   error
		match func(op vfs.Op, name string) bool
		code  int
		out   string // of the vault that is there
		errs  []string
	}{
		{"ls, the first is absent", []string{"ls", "--vault", "/gone", "--vault", "/v", "--vault", "/v2"}, nil, never, codeNoVault,
			"  2       ", []string{"PROBLEM /gone: no vault here", "logvault: 1 of 3 vaults: /gone: no vault here: the path does not exist\n", "hint: is the NAS mounted"}},
		{"verify, the first is absent", []string{"verify", "--vault", "/gone", "--vault", "/v"}, nil, never, codeNoVault,
			"PASSED /v ", []string{"PROBLEM /gone: no vault here", "logvault: 1 of 2 vaults: "}},
		{"inspect, the first is absent", []string{"inspect", "--entry", "0", "--vault", "/gone", "--vault", "/v"}, nil, never, codeNoVault,
			`"type": "init"`, []string{"PROBLEM /gone: no vault here", "logvault: 1 of 2 vaults: "}},
		{"ls, two are away", []string{"ls", "--vault", "/gone", "--vault", "/v", "--vault", "/v2"},
			syscall.EIO, func(_ vfs.Op, name string) bool { return strings.HasPrefix(name, "/v2/") }, codeNoVault,
			"  1       ", []string{"PROBLEM /gone: no vault here", "PROBLEM /v2: ", "logvault: 2 of 3 vaults: "}},
		{"ls, objects cannot be looked for", []string{"ls", "--vault", "/v2", "--vault", "/v"},
			syscall.EIO, func(op vfs.Op, name string) bool { return op == vfs.OpStat && strings.HasPrefix(name, "/v2/segments/") }, codePartial,
			"  1       ", []string{"PROBLEM looking for segments in /v2", "logvault: 1 of 2 vaults: "}},
		{"ls, the only one", []string{"ls", "--vault", "/v"},
			syscall.EIO, func(op vfs.Op, name string) bool { return op == vfs.OpStat && strings.HasPrefix(name, "/v/segments/") }, codePartial,
			"  0       ", []string{"logvault: looking for segments in /v"}},
		{"verify, an audit that fails and one that cannot be made", []string{"verify", "--vault", "/gone", "--vault", "/v2", "--vault", "/v"},
			syscall.EIO, func(op vfs.Op, name string) bool { return strings.HasPrefix(name, "/v2/segments/") }, codeIntegrity,
			"PASSED /v ", []string{"PROBLEM /gone: no vault here", "logvault: 2 of 3 vaults: the audit failed", "hint: docs/FINDINGS.md"}},
	} {
		m.fails(c.err, c.match)
		if code := m.run(append(c.args, trust...)...); code != c.code || !strings.Contains(m.out.String(), c.out) {
			t.Errorf("%s: exit %d, expected %d and %q in\n%s%s", c.name, code, c.code, c.out, m.out.String(), m.errs.String())
		}
		for _, want := range c.errs {
			if !strings.Contains(m.errs.String(), want) {
				t.Errorf("%s: expected %q in\n%s", c.name, want, m.errs.String())
			}
		}
	}
}

// TestSeveralJSON: with --json the problem stands on standard output, once for
// each vault; with one vault only the command's end tells it.
func TestSeveralJSON(t *testing.T) {
	m := newMachine(t)
	m.twoCopies()
	for args, want := range map[string]int{
		"verify --vault /gone --vault /v --vault /lost": 2,
		"ls --vault /v --vault /gone":                   1,
		"verify --vault /gone":                          0,
	} {
		if code := m.run(append(strings.Fields("--json "+args), "--trust", "/s/trust.toml")...); code != codeNoVault {
			t.Errorf("%s: exit %d", args, code)
		}
		problems := 0
		for line := range bytes.Lines(m.out.Bytes()) {
			var v struct {
				Type    string `json:"message_type"`
				Vault   string
				Problem string
			}
			if err := json.Unmarshal(line, &v); err != nil {
				t.Errorf("%s: %q: %v", args, line, err)
			}
			if v.Type == "problem" && v.Vault != "/v" && strings.Contains(v.Problem, "no vault here") {
				problems++
			}
		}
		if problems != want || strings.Contains(m.errs.String(), "PROBLEM") {
			t.Errorf("%s: %d problems, expected %d\n%s%s", args, problems, want, m.out.String(), m.errs.String())
		}
	}
}

// TestSeveralKnown: a point that the history must contain is checked once, before
// anything is read; a kept checkpoint against each vault's own key.
func TestSeveralKnown(t *testing.T) {
	m := newMachine(t)
	m.twoCopies()
	args := []string{"verify", "--vault", "/v", "--vault", "/v2", "--trust", "/s/trust.toml", "--known"}
	for _, known := range []string{"nonsense", ""} { // "" is what a lost note gives
		code := m.run(append(args, known)...)
		if code != codeUsage || !strings.Contains(m.errs.String(), "expected SIZE or SIZE:ROOT, or a file") || strings.Contains(m.errs.String(), "vaults") || m.out.Len() > 0 {
			t.Errorf("--known %q: exit %d\n%s%s", known, code, m.out.String(), m.errs.String())
		}
	}
	m.must(append(args, "2")...)
	m.must(append(args, "/v2/ledger/checkpoint")...)
	if n := strings.Count(m.out.String(), "PASSED"); n != 2 {
		t.Errorf("%d passed\n%s", n, m.out.String())
	}
}
