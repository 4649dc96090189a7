package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// find is the one file below a directory whose name ends like that.
func (m *machine) find(dir, suffix string) string {
	m.t.Helper()
	list, err := m.mem.ReadDir(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range list {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if found := m.find(name, suffix); found != "" {
				return found
			}
		} else if strings.HasSuffix(name, suffix) {
			return name
		}
	}
	return ""
}

func (m *machine) read(name string) []byte {
	m.t.Helper()
	data, err := vfs.ReadFile(m.mem, name, 1<<20)
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

func (m *machine) overwrite(name string, data []byte) {
	m.t.Helper()
	if err := errors.Join(m.mem.Remove(name), vfs.CreateFile(m.mem, name, data, 0o440)); err != nil {
		m.t.Fatal(err)
	}
}

// TestKeysExport: the archive has every wrap as the vault has it, with its sum. A
// wrap that is changed or too early gone is refused, and then no file is left.
func TestKeysExport(t *testing.T) {
	m := newMachine(t)
	m.twoCopies()
	export := []string{"keys", "export", "--vault", "/v", "--trust", "/s/trust.toml", "--out"}
	m.must(append(export, "/keys.tar")...)
	wrap := m.find("/v/keys", ".pgp")
	whole := m.read(wrap)
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(m.read("/keys.tar"))); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		data, rerr := io.ReadAll(r)
		if err := errors.Join(err, rerr); err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(data)
	}
	name := strings.TrimPrefix(wrap, "/v/")
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, []string{"README.txt", "SHA256SUMS", name}) ||
		files[name] != string(whole) || files["SHA256SUMS"] != vault.HashOf(whole).String()+"  "+name+"\n" {
		t.Errorf("it holds %q, sums %q", got, files["SHA256SUMS"])
	}

	refused := func(what string, code int, says string, args ...string) {
		t.Helper()
		if got := m.run(args...); got != code || !strings.Contains(m.errs.String(), says) {
			t.Errorf("%s: exit %d, expected %d and %q\n%s", what, got, code, says, m.errs.String())
		}
		if fileExists(m.mem, "/new.tar") {
			t.Errorf("%s: a file was written", what)
		}
	}
	again := append(slices.Clone(export), "/new.tar")
	refused("a file that is there", codeRefused, "exists", append(slices.Clone(export), "/keys.tar")...)
	refused("two vaults", codeUsage, "2 vaults, expected one", append(slices.Clone(again), "--vault", "/v2")...)
	refused("no trust", codeIntegrity, "unpinned", "keys", "export", "--vault", "/v", "--out", "/new.tar")
	refused("no vault", codeNoVault, "no vault here", "keys", "export", "--vault", "/gone", "--trust", "/s/trust.toml", "--out", "/new.tar")
	changed := bytes.Clone(whole)
	changed[len(changed)/2] ^= 1
	m.overwrite(wrap, changed)
	refused("a changed wrap", codeIntegrity, "is not the one that the ledger names", again...)
	if err := m.mem.Remove(wrap); err != nil {
		t.Fatal(err)
	}
	refused("an absent wrap", codeIntegrity, name, again...)

	// When its day is over, a wrap is gone by right.
	now := time.Now().AddDate(1, 0, 5)
	a := &app{in: strings.NewReader(""), out: &m.out, err: &m.errs, fs: m.mem, now: func() time.Time { return now }, getenv: func(string) string { return "" }}
	m.out.Reset()
	if code := a.run(t.Context(), append([]string{"logvault"}, again...)); code != codeOK || !strings.HasPrefix(m.out.String(), "0 wraps ") {
		t.Errorf("after its day: exit %d, %s%s", code, m.out.String(), m.errs.String())
	}
}

// TestInspectObject: what a file of a vault is, whether it is whole, and which
// keys open it; of a file that is none of a vault, that.
func TestInspectObject(t *testing.T) {
	m := newMachine(t)
	m.twoCopies()
	segment := m.find("/v/segments", ".gz.pgp")
	m.overwrite("/v2"+strings.TrimPrefix(segment, "/v"), append(m.read(segment), 0))
	if err := vfs.CreateFile(m.mem, "/note.txt", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := vfs.CreateFile(m.mem, "/note.pgp", []byte("no message"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{
		segment: {"kind:            segment\n", "name:            " + segment[len("/v/"):] + "\n", "intact:          true\n", "destruction day: 20", "opens with keys: ["},
		"/v2" + strings.TrimPrefix(segment, "/v"): {"intact:          false\n"},
		m.find("/v/keys", ".pgp"):                 {"kind:            wrap\n", "class:           technical\n"},
		"/v/VAULT":                                {"text:            logvault-vault v1"},
		"/v/ledger/checkpoint":                    {"text:            t.example.org/v\n"},
		"/note.txt":                               {"kind:            not named as a vault's object\n"},
		"/note.pgp":                               {"problem: "},
	} {
		m.must("inspect", "--object", file)
		for _, w := range want {
			if !strings.Contains(m.out.String(), w) {
				t.Errorf("%s: expected %q in\n%s", file, w, m.out.String())
			}
		}
	}
	for args, says := range map[string]string{
		"inspect --object /v":                         "is not a file",
		"inspect --entry x --vault /v":                "expected a number from 0",
		"inspect --entry -1 --vault /v":               "expected a number from 0",
		"inspect --entry 99 --vault /v":               "the ledger of /v has 4 entries",
		"inspect --bundle /v":                         "needs --trust",
		"inspect --entry 0 --object /v/VAULT":         "give one of",
		"cat --case C --segment 0 --source p " + conf: "give either --segment, or --source",
	} {
		if code := m.run(strings.Fields(args)...); code != codeUsage || !strings.Contains(m.errs.String(), says) {
			t.Errorf("%s: exit %d, expected %q\n%s", args, code, says, m.errs.String())
		}
	}
}
