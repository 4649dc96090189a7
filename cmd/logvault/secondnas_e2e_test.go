//go:build e2e

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumentedUnits has systemd judge the units of the pages. Only the
// program's path is another one: it is not installed here.
func TestDocumentedUnits(t *testing.T) {
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, page := range []string{"../README.md", "MOUNTING.md", "SECOND-NAS.md"} {
		for _, b := range fenced(t, page, "systemd") {
			name := filepath.Join(dir, b.name)
			text := strings.ReplaceAll(b.text, "/usr/local/bin/logvault", "/bin/true")
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, name)
		}
	}
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// TestDocumentedAccounts has sshd judge the accounts of SECOND-NAS.md.
func TestDocumentedAccounts(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	for _, b := range fenced(t, "SECOND-NAS.md", "sshd") {
		file := filepath.Join(dir, "sshd_config")
		if err := os.WriteFile(file, []byte("HostKey "+key+"\n"+b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		user, _, _ := strings.Cut(strings.TrimPrefix(b.text, "Match User "), "\n")
		out, err := exec.Command(sshd, "-T", "-f", file, "-C", "user="+user+",host=h,addr=192.0.2.1").CombinedOutput()
		for _, want := range []string{"forcecommand internal-sftp", "permittty no", "allowtcpforwarding no", "passwordauthentication no"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("sshd -T: %v, expected %q for %s in\n%s", err, want, user, out)
			}
		}
	}
}
