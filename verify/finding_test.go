package verify

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// document writes docs/FINDINGS.md anew from Codes when LOGVAULT_UPDATE is set.
const document = "../docs/FINDINGS.md"

func render() string {
	var b strings.Builder
	b.WriteString(`# What verify finds

An audit passes if it reports no error and could be done to its end; with
` + "`--strict`" + ` a warning fails it too. Codes are stable: scripts may rely on them.
This table is made from the one in package verify, and a test compares the two.

| code | level | meaning | what to do |
|---|---|---|---|
`)
	for _, c := range Codes {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.Level, c.Meaning, c.Action)
	}
	return b.String()
}

func TestDocument(t *testing.T) {
	if os.Getenv("LOGVAULT_UPDATE") != "" {
		if err := os.WriteFile(document, []byte(render()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != render() {
		t.Errorf("%s differs from Codes: run this test with LOGVAULT_UPDATE=1", document)
	}
}

func TestCodesAreWhole(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range Codes {
		if seen[c.Name] || c.Meaning == "" || c.Action == "" || strings.Contains(c.Meaning+c.Action, "|") {
			t.Errorf("code %+v: named twice, or not explained", c)
		}
		seen[c.Name] = true
	}
}

func TestFindingString(t *testing.T) {
	for _, c := range []struct {
		f    Finding
		want string
	}{
		{Finding{Code: "gap", Level: Warning, Entry: 7, Detail: "5 bytes"}, "warning gap (entry 7): 5 bytes"},
		{Finding{Code: "damaged", Level: Error, Object: "VAULT", Entry: -1, Detail: "SHA-256", Expected: "a", Got: "b"}, "error damaged VAULT: SHA-256: expected a, got b"},
		{Finding{Code: "leftover", Level: Note, Object: "x", Entry: -1, Detail: "d"}, "note leftover x: d"},
	} {
		if got := c.f.String(); got != c.want {
			t.Errorf("%q, expected %q", got, c.want)
		}
	}
}
