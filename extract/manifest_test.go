package extract

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"logvault/vault"
)

// sample is a manifest with n segments.
func sample(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	r := valid()
	f, err := r.Scope.compile()
	if err != nil {
		t.Fatal(err)
	}
	m := newManifestWriter(&b, head{Origin: "logs.example/main", Scope: newScopeRecord(&r.Scope, f), MarginSeconds: 86400})
	for i := range n {
		rec := &segmentRecord{Entry: int64(i), Source: "proxy1", Stream: strings.Repeat("0", 32), State: stateText, Format: "squid",
			Object: vault.HashOf([]byte{byte(i)}).String(), Lines: 3,
			Disclosed: &disclosure{File: linesName(1, "proxy1"), Size: 9, Lines: []int64{2}, Salts: make([]byte, saltSize), Leaves: make([]byte, 64), Nodes: []byte{}}}
		if err := m.add(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.finish(tail{Gaps: []noteRecord{}, Conflicts: []noteRecord{}, SilentSources: []string{"b<&>"}, Unread: []int64{}, Files: []fileRecord{}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rewrite reads a manifest and writes what it read.
func rewrite(data []byte) ([]byte, int, error) {
	var b bytes.Buffer
	var m *manifestWriter
	n := 0
	t, err := readManifest(bytes.NewReader(data), func(h head) error {
		m = newManifestWriter(&b, h)
		return m.err
	}, func(r *segmentRecord) error {
		n++
		return m.add(r)
	})
	if err != nil {
		return nil, n, err
	}
	err = m.finish(t)
	return b.Bytes(), n, err
}

func TestManifestRoundTrip(t *testing.T) {
	for n := range 4 {
		data := sample(t, n)
		again, got, err := rewrite(data)
		if err != nil {
			t.Fatalf("%d segments: %v\n%s", n, err, data)
		}
		if got != n || !bytes.Equal(again, data) {
			t.Errorf("%d segments: read %d, and wrote\n%s\nexpected\n%s", n, got, again, data)
		}
	}
}

// TestManifestEveryByte checks that no changed byte leaves a manifest that
// reads as another spelling of the same.
func TestManifestEveryByte(t *testing.T) {
	data := sample(t, 2)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x01
		if again, _, err := rewrite(bad); err == nil && !bytes.Equal(again, bad) {
			t.Fatalf("byte %d: accepted %q, which is not its own spelling", i, clip(bad[i:]))
		}
	}
	for i := range data {
		if _, _, err := rewrite(data[:i]); err == nil {
			t.Fatalf("accepted the first %d of %d bytes", i, len(data))
		}
	}
}

func TestManifestNewer(t *testing.T) {
	data := bytes.Replace(sample(t, 1), []byte(`"version":1`), []byte(`"version":2`), 1)
	if _, _, err := rewrite(data); !errors.Is(err, vault.ErrNewer) {
		t.Fatalf("got %v, expected vault.ErrNewer", err)
	}
	data = bytes.Replace(data, []byte(`"version":2`), []byte(`"version":`), 1)
	if _, _, err := rewrite(data); err == nil || errors.Is(err, vault.ErrNewer) {
		t.Fatalf("no version: got %v, expected damage", err)
	}
}

func TestManifestRefuses(t *testing.T) {
	good := string(sample(t, 2))
	for name, bad := range map[string]string{
		"nothing":        "",
		"other JSON":     "{}\n",
		"extra data":     good + "x",
		"no comma":       strings.Replace(good, "},\n{", "}\n{", 1),
		"dangling comma": strings.Replace(good, "}\n],\"tail", "},\n],\"tail", 1),
		"unknown member": strings.Replace(good, `"gen":`, `"generation":`, 1),
		"space":          strings.Replace(good, `"gen":`, `"gen": `, 1),
		"twice":          strings.Replace(good, `"gen":0`, `"gen":0,"gen":0`, 1),
		"null":           strings.Replace(good, "],\"tail", "null\n],\"tail", 1),
		"case":           strings.Replace(good, `"gen":`, `"Gen":`, 1),
	} {
		if bad == good {
			t.Fatalf("%s: changed nothing", name)
		}
		if _, _, err := rewrite([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestProofSizes(t *testing.T) {
	for name, d := range map[string]disclosure{
		"salts":  {Lines: []int64{1}, Salts: make([]byte, 15)},
		"leaves": {Leaves: make([]byte, 31)},
		"nodes":  {Nodes: make([]byte, 33)},
	} {
		if _, err := d.proof(); err == nil {
			t.Errorf("%s of a wrong size: accepted", name)
		}
	}
}

// FuzzManifest checks that what is accepted has one spelling.
func FuzzManifest(f *testing.F) {
	for n := range 3 {
		f.Add(sample(f, n))
	}
	f.Add([]byte(manifestMagic))
	f.Add([]byte(manifestMagic + "1" + manifestHead + manifestSearch + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		again, _, err := rewrite(data)
		if err == nil && !bytes.Equal(again, data) {
			t.Fatalf("accepted, and wrote other bytes: %q", again)
		}
	})
}
