package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/CONFIG.md anew")

const referenceFile = "../../docs/CONFIG.md"

// TestReference keeps docs/CONFIG.md equal to the comments of the structs.
func TestReference(t *testing.T) {
	want := reference(t)
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/CONFIG.md is not what the structs say: run go test ./internal/config -run TestReference -update")
	}
	if n := strings.Count(want, "\n| `"); n > 40 {
		t.Errorf("%d keys, expected at most 40", n)
	}
}

// reference renders the comments of the structs as a table per TOML table.
func reference(t *testing.T) string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]*ast.StructType{}
	about := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			spec := g.Specs[0].(*ast.TypeSpec)
			if s, ok := spec.Type.(*ast.StructType); ok {
				docs[spec.Name.Name], about[spec.Name.Name] = s, oneLine(g.Doc.Text())
			}
		}
	}
	var b strings.Builder
	b.WriteString("# logvault.toml\n\nThis page is made from the comments of internal/config. An unknown key is an error with its line.\n`SIGHUP` makes `serve` read `[[source]]` and `[[class]]` anew; the rest needs a restart.\n")
	for _, table := range []struct{ name, typ string }{{"", "Config"}, {"[nfs]", "NFS"}, {"[seal]", "Seal"}, {"[spool]", "Spool"}, {"[[source]]", "Source"}, {"[[class]]", "Class"}, {"[[watch]]", "Watch"}, {"[timestamp]", "Timestamp"}, {"[[witness]]", "Witness"}, {"[[copy]]", "Copy"}} {
		title := table.name
		if title == "" {
			title = "Top level"
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | meaning |\n|---|---|\n", title, about[table.typ])
		for _, f := range docs[table.typ].Fields.List {
			if f.Doc == nil {
				continue
			}
			tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("toml")
			key, _, _ := strings.Cut(tag, ",")
			fmt.Fprintf(&b, "| `%s` | %s |\n", key, oneLine(f.Doc.Text()))
		}
	}
	return b.String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
