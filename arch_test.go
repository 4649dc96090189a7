package logvault_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "logvault"

// arrows is the architecture: which packages of this module a package may
// import. Arrows point down only; "*" is everything but cmd and fixtures. A package that is
// not in the table fails the test, a row without a package does not.
var arrows = map[string][]string{
	"cmd/logvault":     {"*", "fixtures/loggen"},
	"internal/gateway": {"*"},

	"internal/config":  {"internal/vfs", "ledger", "ledger/tsa", "retention/policy", "vault"},
	"nfsgw":            {"vault"},
	"ingest":           {"internal/vfs", "vault"},
	"ingest/watch":     {"vault"},
	"seal":             {"ledger", "ledger/entry", "retention/policy", "seal/pgp", "seal/segment", "vault"},
	"seal/segment":     {"extract/logfmt", "seal/pgp", "vault"},
	"seal/pgp":         {"vault"},
	"replicate":        {"ledger", "ledger/entry", "retention/policy", "retention/window", "seal/pgp", "vault"},
	"replicate/volume": {"internal/vfs", "ledger", "ledger/entry", "retention/window", "vault", "vault/dir"},
	"verify":           {"ledger", "ledger/entry", "ledger/tsa", "retention/policy", "retention/window", "seal/pgp", "seal/segment", "vault"},
	"extract":          {"extract/logfmt", "internal/vfs", "ledger", "ledger/entry", "seal/pgp", "seal/segment", "vault"},
	"retention":        {"ledger", "ledger/entry", "retention/policy", "retention/window", "vault"},

	"retention/window": {"ledger/entry", "retention/policy", "vault"},
	"ledger":           {"ledger/entry", "vault"},
	"ledger/entry":     {"vault"},
	"ledger/tsa":       {},
	"ledger/witness":   {"ledger"},
	"vault/dir":        {"internal/vfs", "vault"},
	"vault/sftp":       {"internal/deadline", "internal/vfs", "vault"},
	"vault/s3":         {"internal/deadline", "vault"},
	"vault/location":   {"internal/vfs", "vault", "vault/dir", "vault/s3", "vault/sftp"},
	"vault":            {},
	"retention/policy": {},
	"extract/logfmt":   {},
	"internal/vfs":     {},

	"internal/deadline": {},

	"fixtures":                     {},
	"fixtures/bigvault":            {"fixtures/testvault", "internal/config", "ledger/entry", "vault"},
	"fixtures/golden":              {},
	"fixtures/loggen":              {},
	"fixtures/nfstest":             {},
	"fixtures/storetest":           {"vault"},
	"fixtures/testserver":          {},
	"fixtures/nfs-guest":           {}, // tests only, with the tag e2e
	"fixtures/nfs-guest/content":   {},
	"fixtures/nfs-guest/guesttool": {"fixtures/nfs-guest/content"},
	"fixtures/testtsa":             {},
	"fixtures/testwitness":         {"ledger", "vault"},
	"fixtures/cmd/bench":           {"fixtures/bigvault", "fixtures/loggen", "fixtures/nfstest"},
	"fixtures/cmd/bigvault":        {"fixtures/bigvault"},
	"fixtures/cmd/crash":           {"fixtures/nfstest"},
	"fixtures/cmd/loggen":          {"fixtures/loggen"},
	"fixtures/testvault": {"internal/vfs", "ledger", "ledger/entry", "retention/policy", "seal", "seal/pgp", "seal/segment",
		"vault", "vault/dir"},
}

// testArrows is what the tests of every package may import besides.
var testArrows = []string{"internal/vfs", "vault/dir", "fixtures/..."}

// testArrowsOf is what the tests of one package may import besides: what really
// stands behind an interface it declares, or judges what it leaves.
var testArrowsOf = map[string][]string{
	"nfsgw":          {"ingest"},          // the spool is the Sink
	"ingest/watch":   {"ingest"},          // likewise
	"seal":           {"ingest"},          // and the Source
	"ledger/witness": {"vault", "verify"}, // an audit judges what was cosigned
	"replicate":      {"verify"},          // what a crash leaves of a copy is judged by the audit

	"fixtures/bigvault": {"verify"}, // judges what it makes
	"fixtures/golden":   {"*"},      // everything reads them
}

// fences gives each third-party library its one place. A library that is not in
// the table fails the test. Places with the suffix " (tests)" are for tests only.
var fences = map[string][]string{
	"github.com/ProtonMail/go-crypto":    {"seal/pgp"},
	"github.com/klauspost/compress":      {"seal/segment"},
	"github.com/klauspost/pgzip":         {"seal/segment"},
	"golang.org/x/mod/sumdb":             {"ledger"},
	"github.com/digitorus/pkcs7":         {"ledger/tsa"},
	"github.com/digitorus/timestamp":     {"ledger/tsa", "fixtures/testtsa", "ledger/tsa (tests)"},
	"github.com/cespare/xxhash/v2":       {"ingest"},
	"github.com/fsnotify/fsnotify":       {"ingest/watch"},
	"github.com/minio/minio-go/v7":       {"vault/s3", "cmd/logvault (tests)"},
	"github.com/pkg/sftp":                {"vault/sftp"},
	"golang.org/x/crypto":                {"vault/sftp"},
	"github.com/pelletier/go-toml/v2":    {"internal/config"},
	"github.com/urfave/cli/v2":           {"cmd/logvault"},
	"github.com/schollz/progressbar/v3":  {"cmd/logvault"},
	"github.com/willscott/go-nfs":        {"nfsgw (tests)"},
	"github.com/willscott/go-nfs-client": {"cmd/logvault", "fixtures/...", "nfsgw (tests)"},
	"github.com/rogpeppe/go-internal":    {"cmd/logvault (tests)"},
	"github.com/go-git/go-billy/v5":      {"nfsgw (tests)"},
}

// readers are the packages that must not be able to delete from a vault.
var readers = []string{"verify", "extract", "replicate"}

// pkg is what go list tells about a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
}

func listPackages(t *testing.T) map[string]pkg {
	t.Helper()
	// -e: a package that does not compile still has its imports checked.
	// -tags e2e: the tests against real counterparts are held to the tables too.
	out, err := exec.Command("go", "list", "-e", "-tags", "e2e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("go list output: %v", err)
		}
		if name := strings.TrimPrefix(p.ImportPath, module+"/"); name != module {
			pkgs[name] = p
		}
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list found %d packages, expected the whole tree", len(pkgs))
	}
	return pkgs
}

// allows reports whether a list of patterns allows a package.
func allows(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "*" {
			return !strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "fixtures/")
		}
		below, isTree := strings.CutSuffix(p, "/...")
		return p == name || isTree && (name == below || strings.HasPrefix(name, below+"/"))
	})
}

// checkImport returns what is wrong with one import, or "".
func checkImport(name, imported string, inTest bool) string {
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		allowed := arrows[name]
		if inTest {
			allowed = slices.Concat([]string{name}, testArrows, testArrowsOf[name], allowed)
		}
		if !allows(allowed, own) {
			return "imports " + own + ", which the architecture does not allow"
		}
		return ""
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	for lib, places := range fences {
		if imported != lib && !strings.HasPrefix(imported, lib+"/") {
			continue
		}
		if allows(places, name) || inTest && allows(places, name+" (tests)") {
			return ""
		}
		return "imports " + imported + ", which belongs to " + strings.Join(places, ", ")
	}
	return "imports " + imported + ", a library without a place in the table"
}

func TestArrows(t *testing.T) {
	for name, p := range listPackages(t) {
		if _, ok := arrows[name]; !ok {
			t.Errorf("%s: no row in the table of the architecture", name)
			continue
		}
		for _, imported := range p.Imports {
			if problem := checkImport(name, imported, false); problem != "" {
				t.Errorf("%s %s", name, problem)
			}
		}
		for _, imported := range append(p.TestImports, p.XTestImports...) {
			if problem := checkImport(name, imported, true); problem != "" {
				t.Errorf("tests of %s: %s", name, problem)
			}
		}
	}
}

// TestArrowsAreChecked shows that the check can fail.
func TestArrowsAreChecked(t *testing.T) {
	tests := []struct {
		name, imported string
		inTest, ok     bool
	}{
		{"vault", "fmt", false, true},
		{"vault", "logvault/ledger", false, false},
		{"verify", "logvault/vault/dir", false, false},
		{"verify", "logvault/vault/dir", true, true},
		{"verify", "logvault/fixtures/loggen", true, true},
		{"verify", "logvault/retention", false, false},
		{"nfsgw", "logvault/ingest", true, true},
		{"nfsgw", "logvault/ingest", false, false},
		{"internal/gateway", "logvault/verify", false, true},
		{"internal/gateway", "logvault/cmd/logvault", false, false},
		{"internal/gateway", "logvault/fixtures/loggen", false, false},
		{"seal/pgp", "github.com/ProtonMail/go-crypto/openpgp", false, true},
		{"seal", "github.com/ProtonMail/go-crypto/openpgp", false, false},
		{"ledger", "golang.org/x/mod/sumdb/tlog", false, true},
		{"nfsgw", "github.com/willscott/go-nfs", true, true},
		{"nfsgw", "github.com/willscott/go-nfs", false, false},
		{"fixtures/loggen", "github.com/willscott/go-nfs-client/nfs", false, true},
		{"verify", "golang.org/x/sys/unix", false, false},
	}
	for _, tt := range tests {
		if problem := checkImport(tt.name, tt.imported, tt.inTest); (problem == "") != tt.ok {
			t.Errorf("%s importing %s (test %v): %q, expected ok = %v", tt.name, tt.imported, tt.inTest, problem, tt.ok)
		}
	}
}

// TestNoCycleInArrows checks the table itself: arrows that all point down have no cycle.
func TestNoCycleInArrows(t *testing.T) {
	state := map[string]int{} // 1 = being visited, 2 = done
	var visit func(name string)
	visit = func(name string) {
		state[name] = 1
		for _, next := range arrows[name] {
			switch {
			case next == "*":
			case state[next] == 1:
				t.Errorf("the table has a cycle through %s and %s", name, next)
			case state[next] == 0:
				visit(next)
			}
		}
		state[name] = 2
	}
	for name := range arrows {
		if state[name] == 0 {
			visit(name)
		}
	}
}

// TestReadersCannotDelete checks that the packages that read vaults neither
// name vault.Remover nor ask for a Remove method by another name. What they may
// import leaves no other way to a store.
func TestReadersCannotDelete(t *testing.T) {
	pkgs := listPackages(t)
	for _, name := range readers {
		p := pkgs[name]
		if len(p.GoFiles) == 0 {
			t.Errorf("%s: no files, the check sees nothing", name)
		}
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range removers(f) {
				t.Errorf("%s/%s: %s", name, file, problem)
			}
		}
	}
}

// removers returns the ways in which a file reaches for a store's Remove.
func removers(f *ast.File) (problems []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if n.Name == "Remover" {
				problems = append(problems, "names Remover")
			}
		case *ast.InterfaceType:
			for _, m := range n.Methods.List {
				if len(m.Names) == 1 && m.Names[0].Name == "Remove" {
					problems = append(problems, "declares an interface with Remove")
				}
			}
		}
		return true
	})
	return problems
}

func TestRemoversAreFound(t *testing.T) {
	for src, want := range map[string]int{
		"package p; func f(r vault.Reader) { r.Stat() }":                           0,
		"package p; func f(r vault.Reader) { r.(vault.Remover).Remove() }":         1,
		"package p; func f(r any) { r.(interface{ Remove(n string) }).Remove(n) }": 1,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := removers(f); len(got) != want {
			t.Errorf("%s: found %q, expected %d", src, got, want)
		}
	}
}

// TestFolderNames refuses folders that say nothing about what is in them.
func TestFolderNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "shared", "base"}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case strings.HasPrefix(d.Name(), ".") && path != ".":
			return filepath.SkipDir
		case slices.Contains(vague, d.Name()):
			t.Errorf("%s: a folder is named after what it holds", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
