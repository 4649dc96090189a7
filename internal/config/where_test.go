package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// whole uses every key there is, one on a line.
const whole = `# a comment
version = 1
origin = "logs.example.org/vault"
vault = "/srv/vault"
state = "/var/lib/logvault"
auditors = [
  "0123456789abcdef0123456789abcdef01234567",
]

[nfs]
listen = ":2049"
secure = true

[seal]
codec = "gz"
level = 6
cut = "32MiB"

[spool]
max = "16GiB"

[[class]]
name = "technical"
period = "P1Y"
grace = "P2D"
zone = "Europe/Paris"
basis = "a law"
valid_until = "2030-01-01"

[[class]]
name = "short"
period = "P6M"
zone = "UTC"
basis = "another law"

[[source]]
name = "squid1"
clients = ["192.0.2.10"]
class = "technical"
allow_read = true

[[source]]
name = "squid2"
clients = ["192.0.2.11"]
class = "short"

[timestamp]
url = "https://tsa.example.org/tsr"

[[witness]]
name = "w1"
url = "https://w1.example.org"

[[watch]]
source = "squid1"
directory = "/var/log/squid"
patterns = ["access.log*"]

[[copy]]
name = "lyon"
place = "/srv/copy"
media = "disk"
site = "lyon"

[[copy]]
name = "safe"
volumes = "/srv/volumes.json"
`

// TestWrongFields puts a wrong value under each key in turn: the error names the
// file, the line, what is wrong and, where it can, what is expected.
func TestWrongFields(t *testing.T) {
	if _, err := Parse("logvault.toml", []byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`version = 1`, `version = 2`, "version is 2"},
		{`version = 1`, `version = "1"`, ""},
		{`origin = "logs.example.org/vault"`, `origin = "a b"`, "origin"},
		{`vault = "/srv/vault"`, `vault = "srv/vault"`, "absolute path or a URL"},
		{`state = "/var/lib/logvault"`, `state = "~/logvault"`, "absolute"},
		{`listen = ":2049"`, `listen = "2049"`, "ADDRESS:PORT"},
		{`listen = ":2049"`, `listen = "127.0.0.1:nfs"`, "ADDRESS:PORT"},
		{`listen = ":2049"`, `listen = "127.0.0.1:70000"`, "ADDRESS:PORT"},
		{`secure = true`, `secure = "yes"`, ""},
		{`codec = "gz"`, `codec = "xz"`, "gz or zst"},
		{`level = 6`, `level = 10`, "1 to 9"},
		{`cut = "32MiB"`, `cut = "65MiB"`, "8MiB to 64MiB"},
		{`cut = "32MiB"`, `cut = "32MB"`, "whole number"},
		{`max = "16GiB"`, `max = "1MiB"`, "256MiB"},
		{`name = "technical"`, `name = "Technical"`, "class"},
		{`period = "P1Y"`, `period = "1Y"`, `class "technical"`},
		{`grace = "P2D"`, `grace = "2 days"`, "grace"},
		{`zone = "Europe/Paris"`, `zone = "Europe/Nice"`, "unknown"},
		{`basis = "a law"`, `basis = ""`, "legal text"},
		{`valid_until = "2030-01-01"`, `valid_until = "2030-02-30"`, "valid_until"},
		{`name = "short"`, `name = "technical"`, "appears twice"},
		{`zone = "UTC"`, `zone = "Local"`, `class "short"`},
		{`name = "squid1"`, `name = "squid/1"`, "source"},
		{`name = "squid2"`, `name = "squid1"`, "appears twice"},
		{`clients = ["192.0.2.11"]`, `clients = ["192.0.2.11/33"]`, `source "squid2"`},
		{`class = "short"`, `class = "shrt"`, `class "shrt"`},
		{`allow_read = true`, `allow_raed = true`, `unknown key "source.allow_raed"`},
		{`url = "https://tsa.example.org/tsr"`, `url = "tsa.example.org"`, "https://HOST"},
		{`name = "w1"`, `name = ""`, "expected a name"},
		{`url = "https://w1.example.org"`, `url = "https://u:p@w1.example.org"`, "password"},
		{`source = "squid1"`, `source = "squid9"`, "not defined"},
		{`directory = "/var/log/squid"`, `directory = "/var/lib/logvault/spool"`, "logvault writes itself"},
		{`patterns = ["access.log*"]`, `patterns = ["../x"]`, "below the directory"},
		{`name = "lyon"`, `name = ""`, "no name"},
		{`place = "/srv/copy"`, `place = "srv/copy"`, "absolute path or a URL"},
		{`name = "safe"`, `name = "lyon"`, "appears twice"},
		{`volumes = "/srv/volumes.json"`, `volumes = "volumes.json"`, "absolute path of a catalogue"},
	} {
		text := strings.Replace(whole, c.old, c.new, 1)
		before, _, ok := strings.Cut(whole, c.old)
		if !ok {
			t.Fatalf("%q is not in the document", c.old)
		}
		_, err := Parse("logvault.toml", []byte(text))
		wrong, ok := errors.AsType[*Error](err)
		line := 1 + strings.Count(before, "\n")
		if !ok || wrong.Line != line || !strings.Contains(wrong.Detail, c.want) || !strings.HasPrefix(err.Error(), fmt.Sprintf("logvault.toml:%d: ", line)) {
			t.Errorf("%s: %v, expected line %d and %q", c.new, err, line, c.want)
		}
	}
}

// TestMissingFields takes each required line away: the error stands at the table
// that lacks it, or has no line where the file has none for it.
func TestMissingFields(t *testing.T) {
	for line, table := range map[string]string{
		"version = 1\n":                            "",
		"origin = \"logs.example.org/vault\"\n":    "",
		"vault = \"/srv/vault\"\n":                 "",
		"state = \"/var/lib/logvault\"\n":          "",
		"name = \"technical\"\n":                   "[[class]]",
		"period = \"P1Y\"\n":                       "[[class]]",
		"zone = \"Europe/Paris\"\n":                "[[class]]",
		"basis = \"a law\"\n":                      "[[class]]",
		"name = \"squid1\"\n":                      "[[source]]",
		"url = \"https://tsa.example.org/tsr\"\n":  "[timestamp]",
		"name = \"w1\"\n":                          "[[witness]]",
		"url = \"https://w1.example.org\"\n":       "[[witness]]",
		"source = \"squid1\"\n":                    "[[watch]]",
		"directory = \"/var/log/squid\"\n":         "[[watch]]",
		"patterns = [\"access.log*\"]\n":           "[[watch]]",
		"name = \"lyon\"\n":                        "[[copy]]",
		"class = \"technical\"\nallow_read = true": "[[source]]", // two classes: there is no default
	} {
		text := strings.Replace(whole, line, "", 1)
		if text == whole {
			t.Fatalf("%q is not in the document", line)
		}
		want := 0
		if table != "" {
			want = 1 + strings.Count(text[:strings.Index(text, table)], "\n")
		}
		_, err := Parse("x", []byte(text))
		if wrong, ok := errors.AsType[*Error](err); !ok || wrong.Line != want {
			t.Errorf("without %q: %v, expected line %d", line, err, want)
		}
	}
}

// TestLinesOfOtherForms: dotted keys and inline tables are found as far as they go.
func TestLinesOfOtherForms(t *testing.T) {
	for text, want := range map[string]map[string]int{
		"a.b = 1\n\"c d\".e = 2\n":                          {"a.b": 1, "c d.e": 2},
		"x = {y = 1,\n z = 2}\n[t.u]\nv = 1\n":              {"x": 1, "t.u": 3, "t.u.v": 4},
		"[[s]]\n\n[[s]]\nn = 1\n[s.in]\nk = 1\n[[o]]\n":     {"s.0": 1, "s.1": 3, "s.1.n": 4, "s.in": 5, "s.in.k": 6, "o.0": 7},
		"m = '''\n[[s]]\nn = 1\n'''\nafter = [\n 1,\n 2]\n": {"m": 1, "after": 5},
		"": {},
	} {
		if got := keyLines([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, expected %v", text, got, want)
		}
	}
	if got := lineOf([]byte("x = {y = 1}"), at("x.y.z", errors.New("e"))); got != 1 {
		t.Errorf("a key within an inline table: line %d", got)
	}
	if got := lineOf([]byte("x = 1"), errors.New("e")); got != 0 {
		t.Errorf("an error without a key: line %d", got)
	}
}

func TestAt(t *testing.T) {
	base := errors.New("e")
	for _, c := range []struct {
		err  error
		want string
	}{
		{at("a", base), "a"},
		{at("a", fmt.Errorf("more: %w", at("b.c", base))), "b.c"},
		{at("a.1", at(".name", base)), "a.1.name"},
	} {
		f, ok := errors.AsType[*fieldError](c.err)
		if !ok || f.key != c.want || !errors.Is(c.err, base) {
			t.Errorf("%v has the key %q, expected %q", c.err, f.key, c.want)
		}
	}
	if at("a", nil) != nil {
		t.Error("no error got a key")
	}
}
