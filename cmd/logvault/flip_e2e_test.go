//go:build e2e

package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlippedBytes runs the real program against a copy of a vault with one
// byte changed, for every hundredth of all changes (three masks at each byte of each file), and wants
// exit 4 with an error that names the file. Package verify does the same in
// process for every byte.
func TestFlippedBytes(t *testing.T) {
	const every = 100
	vaultDir, trust := smallReplica(t)
	var count, runs int
	err := filepath.WalkDir(vaultDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.Chmod(name, 0o600); err != nil {
			return err
		}
		for at := range data {
			for _, mask := range []byte{0x01, 0x80, 0xFF} {
				if count++; count%every == 0 {
					runs++
					flipAndVerify(t, vaultDir, name, trust, data, at, mask)
				}
			}
		}
		return os.WriteFile(name, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d changes of %d bytes tried", runs, count/3)
	if runs < 100 {
		t.Errorf("only %d changes tried", runs)
	}
}

func flipAndVerify(t *testing.T, vaultDir, name, trust string, data []byte, at int, mask byte) {
	t.Helper()
	bad := bytes.Clone(data)
	bad[at] ^= mask
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("logvault", "verify", "--vault", vaultDir, "--trust", trust)
	out, _ := cmd.CombinedOutput() // the exit code is judged below
	object := filepath.ToSlash(strings.TrimPrefix(name, vaultDir+"/"))
	if code := cmd.ProcessState.ExitCode(); code != codeIntegrity {
		t.Errorf("%s byte %d ^ %#x: exit %d, expected %d\n%s", object, at, mask, code, codeIntegrity, out)
	}
	if !bytes.Contains(out, []byte("error ")) || !bytes.Contains(out, []byte(object)) || bytes.Contains(out, []byte("panic")) {
		t.Errorf("%s byte %d ^ %#x: no error names it:\n%s", object, at, mask, out)
	}
}

// smallReplica makes a replica with every kind of object that there is so far.
func smallReplica(t *testing.T) (vaultDir, trust string) {
	dir := t.TempDir()
	lines := "1795212000.123    180 192.0.2.7 TCP_MISS/200 411 GET http://example.org/a - HIER_DIRECT/203.0.113.5 text/html\n"
	if err := os.WriteFile(filepath.Join(dir, "log"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	const config = "--config=s/logvault.toml"
	for _, args := range [][]string{
		{"keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", "key"},
		{"init", "--vault", "v", "--state", "s", "--auditor", "key/auditor.pub.asc", "--source", "p=", "--recovery-out", "r"},
		{config, "ingest", "--source", "p", "--file", "log"},
		{config, "cat", "--segment", "3", "--case", "T", "--key", "key/auditor.sec.asc"},
		{"replicate", "--init", "--from", "v", "--to", "v2", "--trust", "s/trust.toml"},
		{"verify", "--vault", "v2", "--trust", "v2.state/trust.toml"},
	} {
		cmd := exec.Command("logvault", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("logvault %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return filepath.Join(dir, "v2"), filepath.Join(dir, "v2.state/trust.toml")
}
