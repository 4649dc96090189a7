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

var update = flag.Bool("update", false, "make testdata/bundle-v1 and bundle-v2 anew; only before the version is released")

// TestGolden checks bundles that an earlier build wrote: bundles are evidence
// for years, so each version must go on checking without a finding.
func TestGolden(t *testing.T) {
	if *update {
		t.Run("update", writeGolden)
	}
	for _, c := range []struct {
		dir, keys              string
		origins                []string
		lines, segments, parts int64
	}{
		{"testdata/bundle-v1", "testdata/bundle-v1.vkey", []string{"logs.example/main"}, 4, 3, 1},
		{"testdata/bundle-v2", "testdata/bundle-v2.vkeys", []string{"gw1.example/vault", "gw2.example/vault"}, 6, 2, 2},
	} {
		text, err := os.ReadFile(c.keys)
		if err != nil {
			t.Fatal(err)
		}
		var trusts []*ledger.Trust
		for i, key := range strings.Fields(string(text)) {
			trusts = append(trusts, &ledger.Trust{Log: key, Origin: c.origins[i]})
		}
		rep, err := CheckBundle(context.Background(), vfs.OS, c.dir, trusts...)
		if err != nil || len(rep.Findings) > 0 {
			t.Fatalf("%s: %v, findings %v", c.dir, err, rep.Findings)
		}
		if rep.Lines != c.lines || rep.Segments != c.segments || int64(len(rep.Parts)) != c.parts {
			t.Errorf("%s: got %+v, expected %d lines of %d segments in %d parts", c.dir, rep, c.lines, c.segments, c.parts)
		}
	}
}

// writeGolden writes what is not there: what is, was released.
func writeGolden(t *testing.T) {
	one, two := small(t), newPair(t)
	two.answered()
	for _, g := range []struct {
		dir, keys, text string
		files           map[string][]byte
	}{
		{"testdata/bundle-v1", "testdata/bundle-v1.vkey", one.vkey + "\n", one.files("/answer")},
		{"testdata/bundle-v2", "testdata/bundle-v2.vkeys", two.vkey + "\n" + two.other.vkey + "\n", two.files("/answer")},
	} {
		if _, err := os.Stat(g.dir); err == nil {
			continue
		}
		for name, data := range g.files {
			one.must(os.MkdirAll(filepath.Dir(filepath.Join(g.dir, name)), 0o755))
			one.must(os.WriteFile(filepath.Join(g.dir, name), data, 0o644))
		}
		one.must(os.WriteFile(g.keys, []byte(g.text), 0o644))
	}
}
