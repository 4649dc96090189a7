package extract

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/ledger"
)

var update = flag.Bool("update", false, "make testdata/bundle-v1 anew; only before its version is released")

// TestGolden checks a bundle that an earlier build wrote: bundles are evidence
// for years, so version 1 must go on checking without a finding.
func TestGolden(t *testing.T) {
	const dir, key = "testdata/bundle-v1", "testdata/bundle-v1.vkey"
	if *update {
		r := small(t)
		r.must(os.RemoveAll(dir))
		for name, data := range r.files("/answer") {
			r.must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			r.must(os.WriteFile(filepath.Join(dir, name), data, 0o644))
		}
		r.must(os.WriteFile(key, []byte(r.vkey+"\n"), 0o644))
	}
	vkey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := CheckBundle(context.Background(), vfs.OS, dir, &ledger.Trust{Log: strings.TrimSpace(string(vkey)), Origin: "logs.example/main"})
	if err != nil || len(rep.Findings) > 0 {
		t.Fatalf("%v, findings %v", err, rep.Findings)
	}
	if rep.Lines != 4 || rep.Segments != 3 || rep.Summary.Gaps != 1 {
		t.Errorf("got %+v, expected 4 lines of 3 segments and a gap", rep)
	}
}
