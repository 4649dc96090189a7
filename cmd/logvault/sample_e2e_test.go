//go:build e2e

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/loggen"
	"logvault/seal/segment"
)

// TestSample sends a large log through NFS and through ingest, and compares what
// comes back from each by SHA-256. LOGVAULT_SAMPLE names a real log (plain, .gz
// or .zst); without it a generated one of the same size is used.
func TestSample(t *testing.T) {
	text := sample(t)
	want := sha256.Sum256(text)
	dir := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("logvault", args...)
		var errs bytes.Buffer
		cmd.Dir, cmd.Stderr = dir, &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("logvault %s: %v\n%s", strings.Join(args, " "), err, errs.String())
		}
		return out
	}
	const config = "--config=s/logvault.toml"
	run("keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", "key")
	run("init", "--vault", "v", "--state", "s", "--auditor", "key/auditor.pub.asc", "--source", "nfs=127.0.0.1", "--source", "file=", "--listen", "127.0.0.1:0", "--recovery-out", "r")
	toml := filepath.Join(dir, "s/logvault.toml")
	conf, err := os.ReadFile(toml)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(toml, bytes.Replace(conf, []byte("secure = true"), []byte("secure = false"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sample.log"), text, 0o600); err != nil {
		t.Fatal(err)
	}

	addr, end := serveIn(t, dir, config)
	if err := writeNFS(addr, "/nfs", "access.log", text); err != nil {
		t.Fatal(err)
	}
	run(config, "seal")
	run(config, "ingest", "--source", "file", "--file", "sample.log")
	size := len(run(config, "ls", "--json"))
	run(config, "ingest", "--source", "file", "--file", "sample.log")
	if again := len(run(config, "ls", "--json")); again != size {
		t.Error("the same file was stored twice")
	}
	end()
	for _, source := range []string{"nfs", "file"} {
		args := []string{config, "cat", "--quiet", "--case", "T", "--key", "key/auditor.sec.asc"}
		for line := range strings.Lines(string(run(config, "ls", "--json", "--source", source))) {
			_, rest, _ := strings.Cut(line, `"entry":`)
			entry, _, _ := strings.Cut(rest, ",")
			args = append(args, "--segment", entry)
		}
		if got := sha256.Sum256(run(args...)); got != want {
			t.Errorf("%s: sha256 %x came back, expected %x", source, got, want)
		}
	}
	t.Logf("%d bytes with sha256 %x came back from both ways in", len(text), want)
}

// serveIn runs the gateway in dir and returns its address and a way to end it.
func serveIn(t *testing.T, dir, config string) (addr string, end func()) {
	cmd := exec.Command("logvault", config, "--quiet", "serve")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Signal(os.Interrupt) // it ended already when the test failed
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(line, "nfs=")
	addr, _, _ = strings.Cut(rest, " ")
	return addr, end
}

func sample(t *testing.T) []byte {
	name := os.Getenv("LOGVAULT_SAMPLE")
	if name == "" {
		var buf bytes.Buffer
		o := loggen.Options{Format: "combined", Bytes: 39 << 20, Seed: 1, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Rate: 400, Clients: 9000, Hosts: 2000}
		if _, err := loggen.Generate(&buf, o); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := segment.OpenPlain(f, name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
