package config

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testtsa"
	"logvault/internal/vfs"
	"logvault/ledger"
)

func TestTrust(t *testing.T) {
	_, vkey, err := ledger.GenerateKey(rand.NewChaCha8([32]byte{1}), "logs.example.org/vault")
	if err != nil {
		t.Fatal(err)
	}
	m := vfs.NewMem()
	if err := vfs.MkdirAll(m, "/t", 0o700); err != nil {
		t.Fatal(err)
	}
	want := &ledger.Trust{Log: vkey, KnownSize: 7, Copies: []ledger.TrustKey{{Name: "replica", Key: vkey}}}
	text, err := EncodeTrust(want)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/t/trust.toml": string(text), "/t/vkey": vkey + "\n", "/t/empty": "", "/t/bad": "log = 1\n", "/t/unknown": "log = \"x\"\nlgo = \"y\"\n"}
	for name, data := range files {
		if err := vfs.CreateFile(m, name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadTrust(m, "/t/trust.toml")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EncodeTrust(got); err != nil || string(again) != string(text) {
		t.Errorf("trust.toml: %+v, %v, expected %+v", got, err, want)
	}
	for _, arg := range []string{vkey, "/t/vkey"} {
		if got, err := LoadTrust(m, arg); err != nil || got.Log != vkey {
			t.Errorf("%s: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"/t/empty", "/t/bad", "/t/unknown", "/t/nosuch"} {
		if _, err := LoadTrust(m, arg); err == nil {
			t.Errorf("%s: expected an error", arg)
		}
	}
	if _, err := EncodeTrust(&ledger.Trust{}); err == nil {
		t.Error("trust without a key was encoded")
	}
}

// TestTrustValidity: what a trust file cannot mean is an error that names it.
func TestTrustValidity(t *testing.T) {
	_, log, err := ledger.GenerateKey(rand.NewChaCha8([32]byte{1}), "logs.example.org/vault")
	if err != nil {
		t.Fatal(err)
	}
	_, cosigner, err := ledger.NewCosigner(rand.NewChaCha8([32]byte{2}), "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := testtsa.New(time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	witnesses := fmt.Sprintf("[[witnesses]]\nname = \"w1\"\nkey = %q\n", cosigner)
	roots := "[tsa]\nroots = \"\"\"\n" + authority.Roots + "\"\"\"\n"
	for _, tt := range []struct{ what, text, want string }{
		{"good", "log = \"LOG\"\nquorum = 1\n" + witnesses + roots, ""},
		{"policy", "log = \"LOG\"\n" + roots + "policy = \"1.2.3\"\n", ""},
		{"no cosigner but the ledger", "log = \"LOG\"\nquorum = 1\n[[copies]]\nname = \"a\"\nkey = \"LOG\"\n", "quorum is 1, expected 0 to 0"},
		{"one witness twice", "log = \"LOG\"\nquorum = 2\n" + witnesses + witnesses, "quorum is 2, expected 0 to 1"},
		{"negative quorum", "log = \"LOG\"\nquorum = -1\n", "quorum"},
		{"a witness key that is none", "log = \"LOG\"\n[[witnesses]]\nname = \"w1\"\nkey = \"x\"\n", "w1"},
		{"a recovery key that is none", "log = \"LOG\"\nrecovery = \"x\"\n", "recovery"},
		{"a ledger key that is none", "log = \"x\"\n", "ledger key"},
		{"no root", "log = \"LOG\"\n[tsa]\nroots = \"\"\n", "tsa"},
		{"a policy that is none", "log = \"LOG\"\n" + roots + "policy = \"x\"\n", "tsa"},
	} {
		m := vfs.NewMem()
		if err := vfs.CreateFile(m, "/trust.toml", []byte(strings.ReplaceAll(tt.text, "LOG", log)), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadTrust(m, "/trust.toml")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, expected %q", tt.what, err, tt.want)
		}
		if err != nil {
			continue
		}
		text, err := EncodeTrust(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(m, "/trust.toml", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if again, err := LoadTrust(m, "/trust.toml"); err != nil || again.TSA.Roots != got.TSA.Roots {
			t.Errorf("%s: written and read again: %v\n%s", tt.what, err, text)
		}
	}
	if _, err := WitnessKey(&ledger.Trust{Witnesses: []ledger.TrustKey{{Name: "w1", Key: cosigner}}}, "w2"); err == nil {
		t.Error("a key was found for a witness that has none")
	}
	if got, err := WitnessKey(&ledger.Trust{Witnesses: []ledger.TrustKey{{Name: "w1", Key: cosigner}}}, "w1"); err != nil || got != cosigner {
		t.Errorf("key %q: %v", got, err)
	}
}

func TestOutside(t *testing.T) {
	for text, want := range map[string]string{
		"[timestamp]\nurl = \"http://tsa.example/\"\n":                       "",
		"[[witness]]\nname = \"w\"\nurl = \"https://witness.example/log\"\n": "",
		"[timestamp]\n": "timestamp: url",
		"[timestamp]\nurl = \"ftp://tsa.example/\"\n":                                              "timestamp: url",
		"[timestamp]\nurl = \"https://me:secret@tsa.example/\"\n":                                  "password",
		"[timestamp]\nurl = \"http:///\"\n":                                                        "timestamp: url",
		"[timestamp]\nurl = \":\"\n":                                                               "timestamp: ",
		"[[witness]]\nurl = \"https://witness.example/\"\n":                                        "name",
		"[[witness]]\nname = \"w\"\n":                                                              "url",
		"[[witness]]\nname=\"w\"\nurl=\"http://a/\"\n[[witness]]\nname=\"w\"\nurl=\"http://b/\"\n": "once",
	} {
		_, err := Parse("c.toml", []byte(good+text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, expected %q", text, err, want)
		}
	}
}

// FuzzLoadTrust: whatever is taken for a trust file can be written and read
// again, and pins a ledger key.
func FuzzLoadTrust(f *testing.F) {
	_, log, err := ledger.GenerateKey(rand.NewChaCha8([32]byte{1}), "logs.example.org/vault")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(log)
	f.Add(fmt.Sprintf("log = %q\nquorum = 0\n", log))
	f.Add("log = \"\"\n[tsa]\nroots = \"\"\"\n-----BEGIN CERTIFICATE-----\n\"\"\"\n[[witnesses]]\nname = \"x\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		m := vfs.NewMem()
		if err := vfs.CreateFile(m, "/t", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadTrust(m, "/t")
		if err != nil {
			return
		}
		again, err := EncodeTrust(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(m, "/t", again, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadTrust(m, "/t"); err != nil {
			t.Errorf("%v in\n%s", err, again)
		}
	})
}
