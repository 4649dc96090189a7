//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testserver"
	"logvault/fixtures/testtsa"
	"logvault/fixtures/testvault"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
)

// TestOutside runs a gateway with a witness of transparency-dev and a
// time-stamping authority. An audit with a quorum of that witness passes, strictly;
// a vault and state that are put back to an earlier day are found by the witness.
func TestOutside(t *testing.T) {
	dir := t.TempDir()
	const cfg = "--config=s/logvault.toml"
	logvault(t, dir, codeOK, "keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", "key")
	logvault(t, dir, codeOK, "init", "--vault", "v", "--state", "s", "--auditor", "key/auditor.pub.asc", "--source", "file=", "--listen", "127.0.0.1:0", "--recovery-out", "r")
	pinOutside(t, dir)

	_, end := serveIn(t, dir, cfg)
	seen := awaitOutside(t, dir, cfg, func(s outsideStatus) bool { return s.size("witness w1") > 0 && s.size("time-stamp") > 0 })
	end()
	early := filepath.Join(dir, "early")
	for _, name := range []string{"v", "s"} {
		if err := os.CopyFS(filepath.Join(early, name), os.DirFS(filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.log"), []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	logvault(t, dir, codeOK, cfg, "ingest", "--source", "file", "--file", "a.log")

	// What came since is witnessed once it was asked again, as after a start.
	out := logvault(t, dir, codeOK, "verify", "--vault", "v", "--trust", "s/trust.toml")
	if !strings.Contains(out, "not-cosigned") || !strings.Contains(out, "not witnessed") || !strings.Contains(out, "time-stamped: the first") {
		t.Errorf("verify: %s", out)
	}
	_, end = serveIn(t, dir, cfg)
	awaitOutside(t, dir, cfg, func(s outsideStatus) bool { // the vault has it after the record, of which the status tells
		kept, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("v/ledger/cosignatures/%d/*", s.LedgerSize)))
		return err == nil && len(kept) == 1 && s.size("witness w1") == s.LedgerSize && s.LedgerSize > seen.LedgerSize
	})
	end()
	out = logvault(t, dir, codeOK, "verify", "--strict", "--vault", "v", "--trust", "s/trust.toml")
	if strings.Contains(out, "not witnessed") {
		t.Errorf("verify: %s", out)
	}

	for _, name := range []string{"v", "s"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(early, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	serveIn(t, dir, cfg)
	awaitOutside(t, dir, cfg, func(s outsideStatus) bool { return strings.Contains(s.Trouble, "longer history") })
}

// pinOutside starts both and puts them into the two files of the state.
func pinOutside(t *testing.T, dir string) {
	t.Helper()
	skey, _, err := ledger.GenerateKey(testvault.Random(80), "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	_, vkey, err := ledger.NewCosigner(testvault.Random(80), "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := testtsa.New(time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(authority)
	t.Cleanup(server.Close)
	file := filepath.Join(dir, "s/trust.toml")
	trust, err := config.LoadTrust(vfs.OS, file)
	if err != nil {
		t.Fatal(err)
	}
	trust.Witnesses = append(trust.Witnesses, ledger.TrustKey{Name: "w1", Key: vkey})
	trust.Quorum, trust.TSA = 1, &ledger.TrustTSA{Roots: authority.Roots, Policy: testtsa.Policy}
	text, err := config.EncodeTrust(trust)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := os.OpenFile(filepath.Join(dir, "s/logvault.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	url := testserver.Witness(t, skey, trust.Origin, trust.Log)
	if _, err := fmt.Fprintf(conf, "\n[timestamp]\nurl = %q\n\n[[witness]]\nname = \"w1\"\nurl = %q\n", server.URL, url); err != nil {
		t.Fatal(err)
	}
}

// outsideStatus is the part of `status --json` that this test looks at.
type outsideStatus struct {
	LedgerSize int64  `json:"ledger_size"`
	Trouble    string `json:"trouble"`
	Outside    []struct {
		Name string `json:"name"`
		Size int64  `json:"size"`
	} `json:"outside"`
}

func (s outsideStatus) size(name string) int64 {
	for _, o := range s.Outside {
		if o.Name == name {
			return o.Size
		}
	}
	return -1
}

// awaitOutside asks for the status until it is as wanted. It has the patience for
// a gateway that must ask outside again: that waits for some minutes.
func awaitOutside(t *testing.T, dir, cfg string, want func(outsideStatus) bool) outsideStatus {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last string
	for limit := time.Now().Add(10 * time.Minute); time.Now().Before(limit); <-tick.C {
		last = logvault(t, dir, codeOK, cfg, "status", "--json")
		var s outsideStatus
		if err := json.Unmarshal([]byte(last), &s); err != nil {
			t.Fatalf("%v in %s", err, last)
		}
		if want(s) {
			return s
		}
	}
	t.Fatalf("status did not come to what was waited for: %s", last)
	return outsideStatus{}
}
