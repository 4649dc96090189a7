//go:build e2e

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"logvault/fixtures/testserver"
)

// s3Site is a bucket on MinIO and a directory for what gateways keep locally.
type s3Site struct {
	t    *testing.T
	dir  string
	base string // of the vaults' URLs
	api  *minio.Client
}

const s3Bucket = "logs"

func newS3Site(t *testing.T) *s3Site {
	t.Helper()
	server := testserver.MinIO(t)
	server.Env(t)
	api, err := minio.New(server.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	// With Object Lock, and so with versions: what a site that follows the guide has.
	if err := api.MakeBucket(context.Background(), s3Bucket, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
		t.Fatal(err)
	}
	s := &s3Site{t: t, dir: t.TempDir(), base: "s3://" + server.Endpoint + "/" + s3Bucket + "/", api: api}
	s.run("keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", "key")
	return s
}

func (s *s3Site) command(args ...string) *exec.Cmd {
	cmd := exec.Command("logvault", args...)
	cmd.Dir = s.dir
	return cmd
}

func (s *s3Site) run(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("logvault %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// gateway makes a gateway that seals into the bucket.
func (s *s3Site) gateway(name string) (config string) {
	s.t.Helper()
	s.run("init", "--vault", s.base+name, "--state", name, "--auditor", "key/auditor.pub.asc", "--origin", name+".example/vault",
		"--source", "proxy=127.0.0.0/8", "--listen", "127.0.0.1:0", "--recovery-out", name+".recovery")
	return "--config=" + name + "/logvault.toml"
}

// log writes n lines of a proxy to a file.
func (s *s3Site) log(name string, n int) {
	s.t.Helper()
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "1795212%03d.%03d    180 192.0.2.%d TCP_MISS/200 411 GET http://example.org/%s/%x - HIER_DIRECT/203.0.113.5 text/html\n", i/1000%1000, i%1000, i%250, name, rand.Uint64())
	}
	if err := os.WriteFile(filepath.Join(s.dir, name), b.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestGatewaysSealIntoABucket is the story of a site that outgrew one machine:
// two gateways under two prefixes of one bucket, and readers of both.
func TestGatewaysSealIntoABucket(t *testing.T) {
	s := newS3Site(t)
	one, two := s.gateway("gw1"), s.gateway("gw2")
	s.log("first", 2000)
	s.log("second", 1000)
	s.run(one, "ingest", "--source", "proxy", "--file", "first")
	s.serving(one, func() { // through serve, like a proxy's lines
		s.run(one, "ingest", "--source", "proxy", "--file", "second")
		s.run(one, "seal")
		if out := s.run(one, "status"); !strings.Contains(out, s.base+"gw1") {
			t.Errorf("status does not name the vault:\n%s", out)
		}
	})
	s.run(two, "ingest", "--source", "proxy", "--file", "first")

	both := []string{"--vault", s.base + "gw1", "--vault", s.base + "gw2", "--trust", "gw1/trust.toml", "--trust", "gw2/trust.toml"}
	if out := s.run(append([]string{"ls"}, both...)...); !strings.Contains(out, "3 segments, 5000 lines") {
		t.Errorf("ls of both:\n%s", out)
	}
	s.run(append([]string{"verify", "--depth", "content", "--key", "key/auditor.sec.asc"}, both...)...)
	s.run("verify", "--vault", s.base+"gw2", "--trust", "gw2/ledger.vkey")
	if out := s.run(one, "cat", "--source", "proxy", "--since", "2020-01-01", "--until", "2040-01-01", "--tz", "UTC", "--key", "key/auditor.sec.asc", "--case", "T"); strings.Count(out, "example.org/") != 3000 {
		t.Errorf("cat prints %d lines, expected 3000", strings.Count(out, "example.org/"))
	}
	s.extract(one)
	s.oneVersionEach("gw1/ledger/")

	// A replica of it on a disk, and back into another prefix.
	s.run("replicate", "--init", "--from", s.base+"gw1", "--to", "copy", "--trust", "gw1/trust.toml")
	s.run("verify", "--vault", "copy", "--trust", "copy.state/trust.toml")

	s.refused(5, "--config", "none", "init", "--vault", s.base+"gw1", "--state", "gw3", "--auditor", "key/auditor.pub.asc", "--source", "p=")
	s.refused(10, "ls", "--vault", s.base+"nothing", "--trust", "gw1/trust.toml")
	s.refused(2, "ls", "--vault", "s3://key:secret@127.0.0.1/logs", "--trust", "gw1/trust.toml")
	s.refused(4, "verify", "--vault", s.base+"gw1", "--trust", "gw2/trust.toml")
}

// TestGatewaySealsOverSFTP: the same over an SSH account, whose files are then a
// vault for the directory store.
func TestGatewaySealsOverSFTP(t *testing.T) {
	server := testserver.StartSSHD(t)
	s := &s3Site{t: t, dir: t.TempDir(), base: "sftp://" + server.User + "@" + server.Addr + server.Dir + "/"}
	options := "?known_hosts=" + server.KnownHosts + "&key=" + server.Key
	s.run("keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", "key")
	s.run("init", "--vault", s.base+"gw"+options, "--state", "gw", "--auditor", "key/auditor.pub.asc", "--source", "proxy=", "--recovery-out", "recovery")
	s.log("first", 2000)
	s.run("--config=gw/logvault.toml", "ingest", "--source", "proxy", "--file", "first")
	s.run("verify", "--vault", s.base+"gw"+options, "--vault", filepath.Join(server.Dir, "gw"), "--trust", "gw/trust.toml", "--depth", "content", "--key", "key/auditor.sec.asc")
	if out := s.run("--config=gw/logvault.toml", "ls"); !strings.Contains(out, "2000 lines") {
		t.Errorf("ls:\n%s", out)
	}
	s.refused(1, "ls", "--vault", s.base+"gw?known_hosts=/dev/null&key="+server.Key, "--trust", "gw/trust.toml")
	s.refused(10, "ls", "--vault", s.base+"nothing"+options, "--trust", "gw/trust.toml")
	s.refused(3, "ls", "--vault", "sftp://root@127.0.0.1:1/x"+options, "--trust", "gw/trust.toml")
}

// refused wants an exit code.
func (s *s3Site) refused(code int, args ...string) {
	s.t.Helper()
	cmd := s.command(args...)
	out, _ := cmd.CombinedOutput() // the code is judged
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("logvault %s: exit %d, expected %d\n%s", strings.Join(args, " "), got, code, out)
	}
	if bytes.Contains(out, []byte("key:secret")) {
		s.t.Errorf("the message tells a password:\n%s", out)
	}
}

// serving runs serve while f runs, and wants a clean stop.
func (s *s3Site) serving(config string, f func()) {
	s.t.Helper()
	serve := s.command(config, "serve")
	var talk bytes.Buffer
	serve.Stderr = &talk
	out, err := serve.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		s.t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the ready line
		s.t.Fatalf("serve says nothing: %v\n%s", err, talk.String())
	}
	f()
	if err := serve.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	if err := serve.Wait(); err != nil && serve.ProcessState.ExitCode() != 0 {
		s.t.Errorf("serve: %v\n%s", err, talk.String())
	}
}

// killedAfter runs the binary and kills it after wait: false if it had ended. It
// tells how long it ran.
func (s *s3Site) killedAfter(wait time.Duration, args ...string) (killed bool, ran time.Duration) {
	s.t.Helper()
	cmd := s.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	kill := time.AfterFunc(wait, func() { cmd.Process.Kill() }) // it may have ended
	err := cmd.Wait()
	ran = time.Since(begun)
	kill.Stop()
	if err != nil && cmd.ProcessState.ExitCode() != -1 {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return err != nil, ran
}

// extract answers a request from the bucket.
func (s *s3Site) extract(config string) {
	s.t.Helper()
	text := `authority = "Tribunal judiciaire de Demoville"
officer = "OPJ Jeanne Exemple"
reference = "PV 2026/0042"
article = "CPP 77-1-1"
ground = "1"
received_at = "2026-11-20T10:00:00+01:00"
[scope]
since = "2026-11-20T00:00:00Z"
until = "2026-11-25T00:00:00Z"
zone = "Europe/Paris"
client = ["192.0.2.7"]
`
	if err := os.WriteFile(filepath.Join(s.dir, "request.toml"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run(config, "extract", "--request", "request.toml", "--key", "key/auditor.sec.asc", "--out", "bundle")
	s.run("check-bundle", "--bundle", "bundle", "--trust", "gw1/ledger.vkey")
}

// oneVersionEach wants no superseded versions of what a ledger replaces.
func (s *s3Site) oneVersionEach(prefix string) {
	s.t.Helper()
	seen := map[string]int{}
	for v := range s.api.ListObjectsIter(context.Background(), s3Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
		if v.Err != nil {
			s.t.Fatal(v.Err)
		}
		seen[v.Key]++
	}
	for key, n := range seen {
		if n != 1 {
			s.t.Errorf("%s has %d versions, expected 1", key, n)
		}
	}
	if len(seen) < 3 {
		s.t.Errorf("%d objects under %s: the test sees too little", len(seen), prefix)
	}
}

// TestKilledWhileSealingIntoABucket kills imports at random moments of the time
// that one takes undisturbed: each line is there once, and nothing else is.
func TestKilledWhileSealingIntoABucket(t *testing.T) {
	s := newS3Site(t)
	config := s.gateway("gw")
	const lines, wanted = 60_000, 10 // some 6 MB a file
	s.log("log0", lines)
	begun := time.Now()
	s.run(config, "ingest", "--source", "proxy", "--file", "log0")
	whole := time.Since(begun)
	kills, files := 0, 1
	for ; kills < wanted; files++ { // an import that outruns its kill is another file's turn
		if files > 100 {
			t.Fatalf("%d kills hit in %d files of %v", kills, files, whole)
		}
		name := fmt.Sprintf("log%d", files)
		s.log(name, lines)
		for try := range 4 {
			killed, ran := s.killedAfter(rand.N(whole), config, "ingest", "--source", "proxy", "--file", name)
			if !killed {
				if try == 0 {
					whole = ran // the machine has become faster
				}
				break
			}
			kills++
		}
		s.run(config, "ingest", "--source", "proxy", "--file", name)
	}
	t.Logf("%d files of %v", files, whole)
	s.run(config, "seal")
	s.run("verify", "--depth", "content", "--key", "key/auditor.sec.asc", "--vault", s.base+"gw", "--trust", "gw/trust.toml")
	out := s.run(config, "cat", "--source", "proxy", "--since", "2020-01-01", "--until", "2040-01-01", "--tz", "UTC", "--key", "key/auditor.sec.asc", "--case", "T")
	seen := map[string]bool{}
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "example.org/") {
			if seen[line] {
				t.Fatalf("twice: %s", line)
			}
			seen[line] = true
		}
	}
	if len(seen) != lines*files {
		t.Errorf("%d lines, expected %d", len(seen), lines*files)
	}
	s.oneVersionEach("gw/ledger/")
}
