//go:build e2e

package ledger_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault/dir"
)

// TestTesseraFsck asks another implementation: Tessera's fsck must accept a
// ledger of 10,000 entries and refuse it after one flipped byte. It is built
// outside this module, so that Tessera is no dependency of ours.
func TestTesseraFsck(t *testing.T) {
	bin := t.TempDir()
	install := exec.Command("go", "install", "github.com/transparency-dev/tessera/cmd/fsck@v1.0.4")
	install.Dir = bin
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("building fsck: %v\n%s", err, out)
	}
	for _, size := range []int{1, 256, 10_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "state"), 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := memConfig(t, vfs.NewMem())
			var err error
			if cfg.Copy, err = dir.Create(vfs.OS, filepath.Join(root, "vault")); err != nil {
				t.Fatal(err)
			}
			l, err := ledger.Create(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			grow(t, l, size)
			files := filepath.Join(root, "vault", "ledger")
			if out, ok := fsck(t, filepath.Join(bin, "fsck"), files); !ok {
				t.Fatalf("fsck refuses a good ledger:\n%s", out)
			}
			for _, name := range firstFiles(t, filepath.Join(files, "tile")) {
				flip(t, name)
				if out, ok := fsck(t, filepath.Join(bin, "fsck"), files); ok {
					t.Errorf("fsck accepts a flipped byte in %s:\n%s", name, out)
				}
				flip(t, name)
			}
			if out, ok := fsck(t, filepath.Join(bin, "fsck"), files); !ok {
				t.Fatalf("fsck refuses the ledger as it was:\n%s", out)
			}
		})
	}
}

// fsck runs the tool and reads its words: it exits 0 whatever it finds.
func fsck(t *testing.T, tool, files string) (out string, ok bool) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(testKey(t).vkey), 0o600); err != nil {
		t.Fatal(err)
	}
	const patience = 10 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "-ui=false", "-logtostderr", "-N", "64",
		"-storage_url", "file://"+files+"/", "-public_key", key, "-origin", testOrigin)
	raw, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("fsck did not end in %v:\n%s", patience, raw)
	}
	out = string(raw)
	good := strings.Contains(out, "Successfully fsck'd")
	return out, err == nil && good && !strings.Contains(out, "failed")
}

// firstFiles returns one file of each directory below root.
func firstFiles(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !seen[filepath.Dir(name)] {
			seen[filepath.Dir(name)] = true
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("files below %s: %v, %v", root, names, err)
	}
	return names
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
