//go:build e2e

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"logvault/fixtures/testserver"
)

// TestRestoreRemote destroys a primary and its state, and rebuilds them from a
// bucket and from an SFTP account. Then it loses the state of a gateway whose
// vault is in the bucket.
func TestRestoreRemote(t *testing.T) {
	s := newS3Site(t)
	sshd := testserver.StartSSHD(t)
	copies := map[string]string{"bucket": s.base + "copy", "account": "sftp://" + sshd.User + "@" + sshd.Addr + sshd.Dir + "/copy?known_hosts=" + sshd.KnownHosts + "&key=" + sshd.Key}
	s.log("one.log", 200)
	s.run("init", "--vault", "v", "--state", "s", "--auditor", "key/auditor.pub.asc", "--origin", "gw.example/vault", "--source", "proxy=", "--recovery-out", "rec.key")
	s.run("--config=s/logvault.toml", "ingest", "--source", "proxy", "--file", "one.log")
	for name, url := range copies {
		s.run("replicate", "--init", "--name", name, "--from", "v", "--to", url, "--state", name, "--trust", "s/trust.toml")
	}
	for _, gone := range []string{"v", "s"} {
		if err := os.RemoveAll(filepath.Join(s.dir, gone)); err != nil {
			t.Fatal(err)
		}
	}
	state := []string{"--recovery-key", "rec.key", "--auditor", "key/auditor.pub.asc", "--listen", "127.0.0.1:0"}
	s.log("two.log", 100)
	for name, url := range copies {
		out := s.run(append([]string{"restore", "--from", url, "--to", name + ".v", "--trust", name + "/trust.toml", "--state", name + ".s"}, state...)...)
		if !strings.Contains(out, "PASSED") {
			t.Errorf("%s: %s", name, out)
		}
		config := "--config=" + name + ".s/logvault.toml"
		s.run(config, "ingest", "--source", "proxy", "--file", "two.log")
		if out := s.run(config, "verify", "--depth", "content", "--key", "key/auditor.sec.asc", "--strict"); !strings.Contains(out, "2 segments with 300 lines") {
			t.Errorf("%s: %s", name, out)
		}
	}

	gw := s.gateway("g3")
	s.run(gw, "ingest", "--source", "proxy", "--file", "one.log")
	trust := filepath.Join(s.dir, "g3.trust")
	if err := os.Rename(filepath.Join(s.dir, "g3", "trust.toml"), trust); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "g3")); err != nil {
		t.Fatal(err)
	}
	s.run("recover", "--from-vault", "--vault", s.base+"g3", "--trust", trust, "--state", "g3", "--recovery-key", "g3.recovery",
		"--auditor", "key/auditor.pub.asc", "--source", "proxy=127.0.0.0/8", "--listen", "127.0.0.1:0")
	s.run(gw, "ingest", "--source", "proxy", "--file", "two.log")
	if out := s.run(gw, "verify", "--strict"); !strings.Contains(out, "2 segments with 300 lines") {
		t.Errorf("a vault in a bucket: %s", out)
	}
}

// TestResidualVersions looks for keys in a bucket that keeps versions: one that
// was deleted, and so hidden, is found all the same.
func TestResidualVersions(t *testing.T) {
	s := newS3Site(t)
	s.log("one.log", 50)
	gw := s.gateway("g")
	s.run(gw, "ingest", "--source", "proxy", "--file", "one.log")
	if out := s.run(gw, "verify", "--depth", "chain", "--residual", s.base+"g"); strings.Contains(out, "warning residual") {
		t.Errorf("nothing is hidden yet: %s", out)
	}
	hidden := 0
	for o := range s.api.ListObjectsIter(context.Background(), s3Bucket, minio.ListObjectsOptions{Prefix: "g/keys/", Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if err := s.api.RemoveObject(context.Background(), s3Bucket, o.Key, minio.RemoveObjectOptions{}); err != nil { // leaves a delete marker
			t.Fatal(err)
		}
		hidden++
	}
	out := s.run(gw, "verify", "--depth", "chain", "--residual", s.base+"g")
	if hidden != 1 || strings.Count(out, "warning residual") != hidden || !strings.Contains(out, "?version=") {
		t.Errorf("%d wraps hidden: %s", hidden, out)
	}
}
