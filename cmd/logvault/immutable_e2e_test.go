//go:build e2e

package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/bigvault"
	"logvault/fixtures/testserver"
	"logvault/internal/vfs"
	"logvault/vault/dir"
)

// sftpAccount is who a primary logs in as on the second NAS.
const sftpAccount = "nobody"

// mounted makes a file system in a file and mounts it, until the test ends.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run("truncate", "-s", "512M", image)
	run("mkfs."+kind, "-q", image)
	run("mount", "-o", "loop", image, point)
	t.Cleanup(func() { run("umount", point) })
	return point
}

// reachable lets other accounts through the directories of the test.
func reachable(t *testing.T, name string) {
	t.Helper()
	for d := name; d != os.TempDir() && d != "/"; d = path.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImmutableAgainstTheAccount: a primary pushes over SFTP, a root job on the
// NAS sets the flags. Then nothing that the account can ask of sshd alters,
// removes or moves an object; the next push still works, and root's Remover too.
func TestImmutableAgainstTheAccount(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) { immutableOn(t, kind) })
	}
}

func immutableOn(t *testing.T, kind string) {
	nas := mounted(t, kind)
	account, err := user.Lookup(sftpAccount)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	home := filepath.Join(nas, "home")
	for _, err := range []error{os.Mkdir(home, 0o755), os.Chown(home, uid, gid)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sshd := testserver.StartSSHD(t, "ForceCommand internal-sftp", "AllowUsers "+sftpAccount)
	sshd.User = sftpAccount
	reachable(t, filepath.Dir(sshd.Key))
	work := t.TempDir()
	if err := bigvault.Make(t.Context(), bigvault.Options{Dir: filepath.Join(work, "v"), Objects: 12, Size: 100 << 10, Seed: 2, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	push := []string{"replicate", "--from", "v", "--to", sftpURL(t, sshd, sshd.Addr, home+"/copy"), "--state", "state"}
	if text := logvault(t, work, 0, append(push, "--init", "--trust", "v.trust.toml")...); !strings.Contains(text, "immutability: mode") {
		t.Errorf("push: %s", text)
	}
	copied := filepath.Join(home, "copy")
	before := sums(t, copied)
	objects := objectsOf(t, copied)

	// Without flags the account may do it: the attacks below are real ones.
	if !sftpDoes(t, sshd, "rename "+path.Join(copied, objects[0])+" "+path.Join(copied, "x")) || !sftpDoes(t, sshd, "rename "+path.Join(copied, "x")+" "+path.Join(copied, objects[0])) {
		t.Fatal("the account cannot even move an unprotected object")
	}
	protect := []string{"replicate", "--protect", "--to", copied, "--trust", "v.trust.toml"}
	if text := logvault(t, work, 0, protect...); !strings.Contains(text, "immutability: flag") {
		t.Fatalf("protect: %s", text)
	}
	if text := logvault(t, work, 0, protect...); !strings.Contains(text, " 0 of them new; immutability: flag") {
		t.Errorf("protect again: %s", text)
	}
	attack(t, sshd, copied, objects)
	if after := sums(t, copied); len(after) != len(before) {
		t.Errorf("%d files, then %d", len(before), len(after))
	} else {
		for name, sum := range before {
			if after[name] != sum {
				t.Errorf("%s was altered", name)
			}
		}
	}
	// The pushing side cannot see flags, and does not claim them.
	if text := logvault(t, work, 0, push...); !strings.Contains(text, "replicated 0 objects") || !strings.Contains(text, "immutability: mode") {
		t.Errorf("push after protect: %s", text)
	}
	logvault(t, work, 0, "verify", "--vault", copied, "--trust", "v.trust.toml")
	removeAll(t, copied, objects)
}

// objectsOf lists segments, wraps and a kept head.
func objectsOf(t *testing.T, root string) (names []string) {
	t.Helper()
	for name := range sums(t, root) {
		if strings.HasPrefix(name, "segments/") || strings.HasPrefix(name, "keys/") {
			names = append(names, name)
		}
	}
	if len(names) < 20 {
		t.Fatalf("%d objects", len(names))
	}
	return names
}

// attack tries what SFTP offers on one object of each kind and on the path to it.
func attack(t *testing.T, sshd *testserver.SSHD, root string, objects []string) {
	t.Helper()
	local := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(local, []byte("other bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range append(objects, "VAULT") {
		kind, _, _ := strings.Cut(name, "/")
		if seen[kind] {
			continue
		}
		seen[kind] = true
		at := path.Join(root, name)
		tries := []string{"rm " + at, "rename " + at + " " + at + ".x", "put " + local + " " + at, "chmod 600 " + at, "put " + local + " " + root + ".other\nrename " + root + ".other " + at}
		for d := path.Dir(at); d != root && len(d) > len(root); d = path.Dir(d) {
			tries = append(tries, "rename "+d+" "+d+"-gone", "rmdir "+d)
		}
		for _, try := range tries {
			if sftpDoes(t, sshd, try) {
				t.Errorf("the account can: %s", strings.ReplaceAll(try, root, ""))
			}
		}
	}
}

// sftpDoes runs OpenSSH's sftp and reports whether every command worked.
func sftpDoes(t *testing.T, sshd *testserver.SSHD, commands string) bool {
	t.Helper()
	host, port, _ := net.SplitHostPort(sshd.Addr)
	cmd := exec.Command("sftp", "-q", "-b", "-", "-F", "none", "-P", port, "-i", sshd.Key, "-o", "UserKnownHostsFile="+sshd.KnownHosts, sshd.User+"@"+host)
	cmd.Stdin = strings.NewReader(commands + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("sftp: %v\n%s", err, out)
	}
	return err == nil
}

// removeAll is what an expiry by root does.
func removeAll(t *testing.T, root string, objects []string) {
	t.Helper()
	store, err := dir.Open(vfs.OS, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range objects {
		if err := store.Remove(context.Background(), name); err != nil {
			t.Error(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(root, "segments", "*")); err != nil || len(left) > 0 {
		t.Errorf("left after the removal: %v, %v", left, err)
	}
}
