//go:build e2e

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"logvault/fixtures/bigvault"
	"logvault/fixtures/testserver"
)

// cutter is a TCP line between a client and a server that can be cut.
type cutter struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, target: target, conns: map[net.Conn]bool{}}
	go c.serve()
	t.Cleanup(func() { l.Close(); c.cut() })
	return c
}

func (c *cutter) addr() string { return c.l.Addr().String() }

func (c *cutter) serve() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.target)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.conns[in], c.conns[out] = true, true
		c.mu.Unlock()
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				io.Copy(way[1], way[0]) // a cut is what this is for
				way[0].Close()
				way[1].Close()
			}()
		}
	}
}

// cut breaks all connections there are.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

// hunted is a copy whose passes are killed and cut off until one ends well.
type hunted struct {
	dir   string // working directory, with the vault v and its trust file
	args  []string
	state string
	line  *cutter
	every time.Duration

	copied      map[string]bool
	began       int // copies begun, in all runs
	kills, cuts int
}

const huntJobs = 4

var copyLine = regexp.MustCompile(`msg=(copying|copied) object=(\S+)`)

// run makes passes until one ends well and returns its summary.
func (h *hunted) run(t *testing.T) map[string]any {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		if sum := h.pass(t, rng); sum != nil {
			t.Logf("%d kills, %d cuts, %d objects, %d copies begun", h.kills, h.cuts, len(h.copied), h.began)
			if extra := h.began - len(h.copied); extra > huntJobs*(h.kills+h.cuts) {
				t.Errorf("%d objects were copied again, expected at most %d in flight at each of %d kills and %d cuts", extra, huntJobs, h.kills, h.cuts)
			}
			if h.kills < 3 || h.cuts < 3 {
				t.Errorf("%d kills and %d cuts: the run was too short to prove anything", h.kills, h.cuts)
			}
			return sum
		}
	}
	t.Fatal("no pass came to its end")
	return nil
}

// pass makes one pass, which is cut off a few times and then killed.
func (h *hunted) pass(t *testing.T, rng *rand.Rand) (sum map[string]any) {
	t.Helper()
	args := h.args
	if _, err := os.Stat(filepath.Join(h.dir, h.state, "trust.toml")); err != nil {
		args = append(args, "--init", "--trust", "v.trust.toml")
	}
	cmd := exec.Command("logvault", append(args, "--json", "--verbose", "--state", h.state, "--jobs", strconv.Itoa(huntJobs))...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout = h.dir, &out
	log, err := os.Create(filepath.Join(h.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	lives, killed := 1+rng.IntN(3), false
	for waiting := true; waiting; {
		select {
		case err = <-ended:
			waiting = false
		case <-time.After(h.every/2 + rand.N(h.every)):
			if lives--; lives > 0 {
				h.line.cut()
				h.cuts++
			} else if !killed {
				killed = true
				h.kills++
				cmd.Process.Kill() // it may have ended just now
			}
		}
	}
	text := h.read(t)
	if err == nil {
		if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		return sum
	}
	if code := cmd.ProcessState.ExitCode(); !killed && code != codePartial {
		t.Fatalf("exit %d, expected %d: %s", code, codePartial, text)
	}
	return nil
}

// read takes in the log of a pass.
func (h *hunted) read(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range copyLine.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[1] == "copied":
			h.copied[m[2]] = true
		case h.copied[m[2]]:
			t.Errorf("%s was copied before and is copied again", m[2])
		default:
			h.began++
		}
	}
	return string(text[max(0, len(text)-2000):])
}

// bigVault makes the vault v in a new directory: 256 MiB, or as many bytes as
// LOGVAULT_E2E_BYTES says. A small one is copied at a limited rate, or it would be
// there before it is hit.
func bigVault(t *testing.T, every time.Duration, limit string) (string, time.Duration, []string) {
	t.Helper()
	size, rate := int64(256<<20), []string{"--limit-rate", limit}
	if s := os.Getenv("LOGVAULT_E2E_BYTES"); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
		every, rate = 3*time.Second, nil
	}
	dir, err := os.MkdirTemp("/var/tmp", "logvault-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const object = 7 << 20
	o := bigvault.Options{Dir: filepath.Join(dir, "v"), Objects: int(size / object), Size: object, Seed: 1, Now: time.Now()}
	if err := bigvault.Make(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return dir, every, rate
}

// sums hashes the files below a directory.
func sums(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, f)
		rel, _ := filepath.Rel(root, name)
		all[rel] = fmt.Sprintf("%x", h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// logvault runs a command in a directory, which must exit with a code.
func logvault(t *testing.T, dir string, code int, args ...string) string {
	t.Helper()
	cmd := exec.Command("logvault", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("logvault %s: exit %d, expected %d (%v)\n%s", strings.Join(args, " "), got, code, err, out)
	}
	return string(out)
}

// sftpURL is a place on a server, reached at addr.
func sftpURL(t *testing.T, s *testserver.SSHD, addr, dir string) string {
	t.Helper()
	via := *s
	via.Addr = addr
	known := filepath.Join(t.TempDir(), "known_hosts")
	via.Trust(t, known, filepath.Join(filepath.Dir(s.Key), "host.pub"))
	return fmt.Sprintf("sftp://%s@%s%s?known_hosts=%s&key=%s", s.User, addr, dir, known, s.Key)
}

// TestPullKilledAndCut pulls over SFTP while the pass is killed and the line cut
// all the time.
func TestPullKilledAndCut(t *testing.T) {
	dir, every, rate := bigVault(t, 500*time.Millisecond, "48MiB")
	sshd := testserver.StartSSHD(t)
	line := newCutter(t, sshd.Addr)
	before := sums(t, filepath.Join(dir, "v"))
	from := sftpURL(t, sshd, line.addr(), filepath.Join(dir, "v"))
	h := &hunted{dir: dir, args: append([]string{"replicate", "--from", from, "--to", "copy"}, rate...), state: "state", line: line, every: every, copied: map[string]bool{}}
	sum := h.run(t)
	if sum["immutability"] != "mode" || sum["cosigned"] != true {
		t.Errorf("summary %v, expected mode and a cosignature", sum)
	}
	after := sums(t, filepath.Join(dir, "copy"))
	maps.DeleteFunc(after, func(name, _ string) bool {
		return strings.HasPrefix(name, "copy/") || strings.HasPrefix(name, "ledger/cosignatures/") || strings.HasPrefix(name, "ledger/checkpoints/")
	})
	if !maps.Equal(before, after) {
		t.Errorf("%d files at the source, %d at the copy: not identical", len(before), len(after))
	}
	// A pull leaves nothing at the primary: no file, no credential.
	if again := sums(t, filepath.Join(dir, "v")); !maps.Equal(before, again) {
		t.Error("the source was changed")
	}
	logvault(t, dir, 0, "verify", "--vault", "copy", "--trust", "state/trust.toml")
	if text := logvault(t, dir, 0, "replicate", "--from", from, "--to", "copy", "--state", "state"); !strings.Contains(text, "replicated 0 objects") {
		t.Errorf("the next pass: %s", text)
	}
}

// TestPushKilledAndCut pushes to a locked bucket in the same way.
func TestPushKilledAndCut(t *testing.T) {
	// Each pass asks the bucket for three seconds whether its locks hold.
	dir, every, rate := bigVault(t, 3*time.Second, "24MiB")
	server := testserver.MinIO(t)
	server.Env(t)
	c, err := minio.New(server.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.MakeBucket(context.Background(), "locked", minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		t.Fatal(err)
	}
	line := newCutter(t, server.Endpoint)
	to := func(addr string) string { return "s3://" + addr + "/locked/copy?tls=off" }
	h := &hunted{dir: dir, args: append([]string{"replicate", "--from", "v", "--to", to(line.addr())}, rate...), state: "state", line: line, every: every, copied: map[string]bool{}}
	sum := h.run(t)
	if sum["immutability"] != "objectlock" || sum["cosigned"] != true {
		t.Errorf("summary %v, expected objectlock and a cosignature", sum)
	}
	logvault(t, dir, 0, "verify", "--vault", to(server.Endpoint), "--trust", "state/trust.toml", "--against", "v")
	if text := logvault(t, dir, 0, "replicate", "--from", "v", "--to", to(server.Endpoint), "--state", "state"); !strings.Contains(text, "replicated 0 objects") ||
		!strings.Contains(text, "immutability: objectlock") {
		t.Errorf("the next pass: %s", text)
	}
	for o := range c.ListObjects(context.Background(), "locked", minio.ListObjectsOptions{Prefix: "copy/", Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if !o.IsLatest || o.IsDeleteMarker {
			t.Errorf("%s: version %s stays (delete marker: %v)", o.Key, o.VersionID, o.IsDeleteMarker)
		}
	}
}
