package extract

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onDisk copies /answer to a real directory.
func (r *rig) onDisk() string {
	r.Helper()
	dir := r.TB.(*testing.T).TempDir()
	for name, data := range r.files("/answer") {
		path := filepath.Join(dir, name)
		r.must(os.MkdirAll(filepath.Dir(path), 0o700))
		r.must(os.WriteFile(path, data, 0o600))
	}
	return dir
}

// stock runs a command of README.txt in a bundle.
func stock(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestStockTools checks a bundle as README.txt says, without logvault.
func TestStockTools(t *testing.T) {
	r := small(t)
	dir := r.onDisk()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sha256sum", "--strict", "-c", sumsName}, "manifest.json: OK"},
		{[]string{"python3", scriptName, r.vkey}, "OK: 4 lines, each proven"},
		{[]string{"python3", "-m", "json.tool", manifestName}, `"format": "logvault-bundle"`},
	} {
		if out, err := stock(t, dir, c.args...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s\nexpected %q", strings.Join(c.args, " "), err, out, c.want)
		}
	}
}

// TestStockToolsRefuse checks that the script finds what logvault finds.
func TestStockToolsRefuse(t *testing.T) {
	r := small(t)
	for _, c := range []struct{ file, old, new, want string }{
		{"lines/1-proxy1.log", "alice", "malic", "do not lead to the root"},
		{"lines/1-proxy1.log", "\n", "\n\n", "wrong number of lines"},
		{"lines/2-proxy2.log", "text/html\n", "text/html\nmore\n", "no segment accounts for"},
		{entriesName, "proxy1", "proxy9", "is not in the ledger"},
		{requestName, "Martin", "Mantin", "is not the request"},
		{checkpointName, "\n", "0\n", ""},
		{manifestName, `"lines":[1,`, `"lines":[2,`, "do not lead to the root"},
	} {
		dir := r.onDisk()
		path := filepath.Join(dir, c.file)
		data, err := os.ReadFile(path)
		r.must(err)
		bad := strings.Replace(string(data), c.old, c.new, 1)
		if bad == string(data) {
			t.Fatalf("%s holds no %q", c.file, c.old)
		}
		r.must(os.WriteFile(path, []byte(bad), 0o600))
		if out, err := stock(t, dir, "python3", scriptName, r.vkey); err == nil || !strings.Contains(out, c.want) || strings.Contains(out, "OK:") {
			t.Errorf("%s changed: %v\n%s\nexpected %q", c.file, err, out, c.want)
		}
	}
	dir := r.onDisk()
	other := newRig(t).vkey
	if out, err := stock(t, dir, "python3", scriptName, other); err == nil {
		t.Errorf("another key: accepted\n%s", out)
	}
}

// TestWorkedExample runs the commands of docs/FORMAT-bundle.md.
func TestWorkedExample(t *testing.T) {
	text, err := os.ReadFile("../docs/FORMAT-bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMP", t.TempDir())
	t.Setenv("LC_ALL", "C")
	blocks := strings.Split(string(text), "```sh\n")
	if len(blocks) != 5 {
		t.Fatalf("%d blocks of commands, expected 4", len(blocks)-1)
	}
	for _, block := range blocks[1:] {
		commands, rest, _ := strings.Cut(block, "```\n```\n")
		want, _, ok := strings.Cut(rest, "```\n")
		if !ok {
			t.Fatalf("no output after\n%s", commands)
		}
		if out, err := stock(t, "testdata/bundle-v1", "sh", "-c", commands); err != nil || out != want {
			t.Errorf("%s: %v\n%s\nexpected\n%s", commands, err, out, want)
		}
	}
}
