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
	"slices"
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
				c.close(way[0], way[1])
			}()
		}
	}
}

func (c *cutter) close(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
		delete(c.conns, conn)
	}
}

// cut breaks all connections there are, and tells whether there was one.
func (c *cutter) cut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
	defer clear(c.conns)
	return len(c.conns) > 0
}

// hunted is a copy whose passes are killed and cut off until one ends well.
type hunted struct {
	dir   string   // working directory, with the vault v and its trust file
	args  []string // without the destination
	to    func(name string) string
	line  *cutter
	every time.Duration // from one blow to the next, on average

	name   string // of the copy, and the begin of its state's
	copied map[string]bool
	began  int // copies begun, in all runs
	kills  int // of this copy
	cuts   int
}

const huntJobs = 4

var copyLine = regexp.MustCompile(`msg=(copying|copied) object=(\S+)`)

// run copies until one copy was hit often enough, and returns its summary. On a
// fast machine a copy may be there before: then the next one is hit more often.
func (h *hunted) run(t *testing.T) map[string]any {
	t.Helper()
	for n := range 10 {
		h.name, h.copied, h.began, h.kills, h.cuts = fmt.Sprintf("copy%d", n), map[string]bool{}, 0, 0, 0
		sum := h.copy(t)
		t.Logf("%d kills, %d cuts, one every %v, %d objects, %d copies begun", h.kills, h.cuts, h.every, len(h.copied), h.began)
		if extra := h.began - len(h.copied); extra > huntJobs*(h.kills+h.cuts) {
			t.Errorf("%d objects were copied again, expected at most %d in flight at each of %d kills and %d cuts", extra, huntJobs, h.kills, h.cuts)
		}
		if h.kills >= 3 && h.cuts >= 3 {
			return sum
		}
		h.every /= 2
	}
	t.Fatal("each copy was there before it was hit")
	return nil
}

// copy makes passes until one ends well and returns its summary. On a slow machine
// a pass may be hit before it has copied anything: then the next one lives longer.
func (h *hunted) copy(t *testing.T) map[string]any {
	t.Helper()
	for range 1000 {
		before := len(h.copied)
		if sum := h.pass(t); sum != nil {
			return sum
		}
		if len(h.copied) == before {
			h.every += h.every / 4
		}
	}
	t.Fatal("no pass came to its end")
	return nil
}

// state is where the copy keeps its own.
func (h *hunted) state() string { return h.name + ".own" }

// pass makes one pass, which is cut off a few times and then killed.
func (h *hunted) pass(t *testing.T) (sum map[string]any) {
	t.Helper()
	args := append(slices.Clone(h.args), "--to", h.to(h.name), "--json", "--verbose", "--state", h.state(), "--jobs", strconv.Itoa(huntJobs))
	if _, err := os.Stat(filepath.Join(h.dir, h.state(), "trust.toml")); err != nil {
		args = append(args, "--init", "--trust", "v.trust.toml")
	}
	cmd := exec.Command("logvault", args...)
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
	lives := 1 + rand.IntN(3)
	for waiting := true; waiting; {
		select {
		case err = <-ended:
			waiting = false
		case <-time.After(h.every/2 + rand.N(h.every)):
			if lives--; lives <= 0 {
				cmd.Process.Kill() // it may have ended just now
			} else if h.line.cut() {
				h.cuts++
			}
		}
	}
	text := h.read(t)
	switch code := cmd.ProcessState.ExitCode(); {
	case err == nil:
		if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
	case !cmd.ProcessState.Exited():
		h.kills++
	case code != codePartial:
		t.Fatalf("exit %d, expected %d: %s", code, codePartial, text)
	}
	return sum
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
	h := &hunted{dir: dir, args: append([]string{"replicate", "--from", from}, rate...), to: func(name string) string { return name }, line: line, every: every}
	sum := h.run(t)
	if sum["immutability"] != "mode" || sum["cosigned"] != true {
		t.Errorf("summary %v, expected mode and a cosignature", sum)
	}
	after := sums(t, filepath.Join(dir, h.name))
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
	logvault(t, dir, 0, "verify", "--vault", h.name, "--trust", h.state()+"/trust.toml")
	if text := logvault(t, dir, 0, "replicate", "--from", from, "--to", h.name, "--state", h.state()); !strings.Contains(text, "replicated 0 objects") {
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
	to := func(addr, name string) string { return "s3://" + addr + "/locked/" + name + "?tls=off" }
	h := &hunted{dir: dir, args: append([]string{"replicate", "--from", "v"}, rate...), to: func(name string) string { return to(line.addr(), name) }, line: line, every: every}
	sum := h.run(t)
	if sum["immutability"] != "objectlock" || sum["cosigned"] != true {
		t.Errorf("summary %v, expected objectlock and a cosignature", sum)
	}
	logvault(t, dir, 0, "verify", "--vault", to(server.Endpoint, h.name), "--trust", h.state()+"/trust.toml", "--against", "v")
	if text := logvault(t, dir, 0, "replicate", "--from", "v", "--to", to(server.Endpoint, h.name), "--state", h.state()); !strings.Contains(text, "replicated 0 objects") ||
		!strings.Contains(text, "immutability: objectlock") {
		t.Errorf("the next pass: %s", text)
	}
	for o := range c.ListObjects(context.Background(), "locked", minio.ListObjectsOptions{Prefix: h.name + "/", Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if !o.IsLatest || o.IsDeleteMarker {
			t.Errorf("%s: version %s stays (delete marker: %v)", o.Key, o.VersionID, o.IsDeleteMarker)
		}
	}
}
