package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/note"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// signNote signs any text as the test ledger.
func signNote(t testing.TB, text string) []byte {
	t.Helper()
	signer, err := note.NewSigner(testKey(t).skey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const emptyRoot = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

func TestParseCheckpoint(t *testing.T) {
	body := testOrigin + "\n0\n" + emptyRoot + "\n"
	good := signNote(t, body)
	cp, err := ledger.ParseCheckpoint(good, trust(t))
	if err != nil {
		t.Fatal(err)
	}
	if cp.Origin != testOrigin || cp.Size != 0 || cp.Root != vault.HashOf(nil) || !bytes.Equal(cp.Raw, good) || cp.Cosigners != nil {
		t.Errorf("parsed %+v", cp)
	}
	_, sig, _ := strings.Cut(string(good), "\n\n")
	for name, raw := range map[string]string{
		"empty":                "",
		"unsigned":             body,
		"no signature line":    body + "\n",
		"no last LF":           strings.TrimSuffix(string(good), "\n"),
		"LF at the end":        string(good) + "\n",
		"CRLF":                 strings.ReplaceAll(string(good), "\n", "\r\n"),
		"signature twice":      string(good) + sig,
		"other text":           strings.Replace(string(good), "\n0\n", "\n1\n", 1),
		"leading zero":         string(signNote(t, testOrigin+"\n00\n"+emptyRoot+"\n")),
		"negative":             string(signNote(t, testOrigin+"\n-1\n"+emptyRoot+"\n")),
		"plus":                 string(signNote(t, testOrigin+"\n+1\n"+emptyRoot+"\n")),
		"huge":                 string(signNote(t, testOrigin+"\n9007199254740992\n"+emptyRoot+"\n")),
		"extension line":       string(signNote(t, body+"more\n")),
		"two lines":            string(signNote(t, testOrigin+"\n0\n")),
		"short root":           string(signNote(t, testOrigin+"\n0\nAAAA\n")),
		"loose root":           string(signNote(t, testOrigin+"\n0\n"+strings.Replace(emptyRoot, "uFU=", "uFV=", 1)+"\n")),
		"another origin":       string(signNote(t, "logs.example/other\n0\n"+emptyRoot+"\n")),
		"empty origin":         string(signNote(t, "\n0\n"+emptyRoot+"\n")),
		"unknown junk line":    string(good) + "junk\n",
		"unknown loose base64": string(good) + "— x AAAAAAB=\n",
	} {
		if _, err := ledger.ParseCheckpoint([]byte(raw), trust(t)); !errors.Is(err, ledger.ErrUnsigned) {
			t.Errorf("%s: error %v, expected ErrUnsigned", name, err)
		}
	}
	// A signature by an unknown key does no harm, and is no help.
	if cp, err := ledger.ParseCheckpoint([]byte(string(good)+"— x AAAAAAA=\n"), trust(t)); err != nil || cp.Cosigners != nil {
		t.Errorf("with an unknown signature: %+v, %v", cp, err)
	}
	// Trust that says nothing: fail closed.
	for name, tr := range map[string]*ledger.Trust{"nil": nil, "empty": {}, "no origin": {Log: testKey(t).vkey}} {
		_, err := ledger.ParseCheckpoint(good, tr)
		wantError(t, name, err, ledger.ErrNoTrust)
	}
	if _, err := ledger.ParseCheckpoint(good, &ledger.Trust{Log: "x", Origin: testOrigin}); err == nil {
		t.Error("a malformed key: no error")
	}
	stranger := trust(t)
	if _, stranger.Log, err = ledger.GenerateKey(rand.NewChaCha8([32]byte{3}), testOrigin); err != nil {
		t.Fatal(err)
	}
	_, err = ledger.ParseCheckpoint(good, stranger)
	wantError(t, "another key of the same name", err, ledger.ErrUnsigned)
	// Whoever wrote the head chose the names of its signers: no terminal obeys them.
	_, err = ledger.ParseCheckpoint([]byte(body+"\n— \u009b2J\u202e AAAAAAA=\n"), trust(t))
	wantError(t, "a signer with control characters", err, ledger.ErrUnsigned)
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) || !strings.Contains(err.Error(), "2J") {
		t.Errorf("the error %q, expected the signer's name, quoted", err)
	}
}

// FuzzParseCheckpoint: a checkpoint that verifies has one spelling.
func FuzzParseCheckpoint(f *testing.F) {
	good := signNote(f, testOrigin+"\n0\n"+emptyRoot+"\n")
	f.Add(good)
	f.Add([]byte(string(good) + "— x AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cp, err := ledger.ParseCheckpoint(raw, trust(t))
		if err != nil {
			return
		}
		again := fmt.Sprintf("%s\n%d\n%s\n\n", cp.Origin, cp.Size, base64.StdEncoding.EncodeToString(cp.Root[:]))
		for line := range strings.Lines(string(raw[min(len(again), len(raw)):])) {
			name, sig, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
			blob, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(sig, "\n"))
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			again += "— " + name + " " + base64.StdEncoding.EncodeToString(blob) + "\n"
		}
		if again != string(raw) {
			t.Fatalf("%q encodes to %q", raw, again)
		}
	})
}

func cosigner(t testing.TB, name string) keyPair {
	t.Helper()
	var seed [32]byte
	copy(seed[:], name)
	skey, vkey, err := ledger.NewCosigner(rand.NewChaCha8(seed), name)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{skey, vkey}
}

// TestCosignature checks the line against the text of C2SP tlog-cosignature
// with nothing but Ed25519.
func TestCosignature(t *testing.T) {
	cp, err := ledger.ParseCheckpoint(signNote(t, testOrigin+"\n0\n"+emptyRoot+"\n"), trust(t))
	if err != nil {
		t.Fatal(err)
	}
	nas := cosigner(t, "nas-2")
	at := time.Date(2026, 11, 21, 6, 32, 16, 999, time.UTC)
	line, id, err := ledger.Cosign(cp, nas.skey, at)
	if err != nil {
		t.Fatal(err)
	}
	part := strings.Split(nas.vkey, "+")
	key, err := base64.StdEncoding.DecodeString(strings.Join(part[2:], "+"))
	if err != nil || key[0] != 4 || len(key) != 33 || part[1] != id {
		t.Fatalf("verifier key %s, id %s, %v", nas.vkey, id, err)
	}
	blob, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(string(line), "— nas-2 "), "\n"))
	if err != nil || len(blob) != 4+8+64 || fmt.Sprintf("%x", blob[:4]) != id {
		t.Fatalf("line %q, %v", line, err)
	}
	if got := binary.BigEndian.Uint64(blob[4:]); got != uint64(at.Unix()) {
		t.Errorf("time %d, expected %d", got, at.Unix())
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n0\n%s\n", at.Unix(), testOrigin, emptyRoot)
	if !ed25519.Verify(key[1:], []byte(message), blob[12:]) {
		t.Error("the signature is not over the text that the specification gives")
	}
	if got, err := ledger.VerifyCosignature(cp, line, nas.vkey); err != nil || !got.Equal(at.Truncate(time.Second)) {
		t.Errorf("verified: %v, %v", got, err)
	}
	both := trust(t)
	both.Copies = []ledger.TrustKey{{Name: "nas-2", Key: nas.vkey}}
	if cp, err := ledger.ParseCheckpoint(append(bytes.Clone(cp.Raw), line...), both); err != nil || len(cp.Cosigners) != 1 || cp.Cosigners[0] != "nas-2" {
		t.Errorf("cosigned checkpoint: %+v, %v", cp, err)
	}
	other := cp
	other.Size = 1
	for what, err := range map[string]error{
		"another head":    second(ledger.VerifyCosignature(other, line, nas.vkey)),
		"another key":     second(ledger.VerifyCosignature(cp, line, cosigner(t, "nas-3").vkey)),
		"the log's key":   second(ledger.VerifyCosignature(cp, line, testKey(t).vkey)),
		"no line":         second(ledger.VerifyCosignature(cp, nil, nas.vkey)),
		"two lines":       second(ledger.VerifyCosignature(cp, append(bytes.Clone(line), line...), nas.vkey)),
		"no LF":           second(ledger.VerifyCosignature(cp, line[:len(line)-1], nas.vkey)),
		"a bad key":       second(ledger.VerifyCosignature(cp, line, "nas-2+00000000+"+part[2])),
		"not a key":       second(ledger.VerifyCosignature(cp, line, "nas-2")),
		"with log key":    third(ledger.Cosign(cp, testKey(t).skey, at)),
		"with no key":     third(ledger.Cosign(cp, "x", at)),
		"before 1970":     third(ledger.Cosign(cp, nas.skey, time.Unix(-1, 0))),
		"a name of words": third(ledger.NewCosigner(rand.NewChaCha8([32]byte{}), "a b")),
		"no randomness":   third(ledger.NewCosigner(bytes.NewReader(nil), "a")),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	for i := range line {
		bad := bytes.Clone(line)
		bad[i] ^= 1
		if _, err := ledger.VerifyCosignature(cp, bad, nas.vkey); err == nil {
			t.Errorf("verifies with byte %d changed: %q", i, bad)
		}
	}
	if vkey, err := ledger.VerifierKey(nas.skey); err != nil || vkey != nas.vkey {
		t.Errorf("verifier key %s, %v; expected %s", vkey, err, nas.vkey)
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

// TestKnownSize: a pinned size and root catch a rolled-back or forked log.
func TestKnownSize(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 300)
	root, err := l.Tree().RootAt(ctx, 260)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size int64
		root string
		want error
	}{
		{300, "", nil},
		{260, root.String(), nil},
		{301, "", ledger.ErrBehind},
		{260, vault.HashOf([]byte("x")).String(), ledger.ErrForked},
	} {
		tr := trust(t)
		tr.KnownSize, tr.KnownRoot = c.size, c.root
		_, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, tr)
		wantError(t, fmt.Sprint(c.size, c.root), err, c.want)
	}
	_, err = ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, nil)
	wantError(t, "no trust", err, ledger.ErrNoTrust)
	_, err = ledger.OpenTree(ctx, cfg.Copy, vault.CopyLogPrefix("none"), trust(t))
	wantError(t, "no log", err, ledger.ErrNoLedger)
}

func TestUnpinnedTrust(t *testing.T) {
	l, cfg := newLog(t)
	if _, err := ledger.UnpinnedTrust(ctx, cfg.Copy, vault.LedgerPrefix); err == nil {
		t.Error("keys of an empty log: no error")
	}
	data, err := entry.Encode(&entry.Init{
		Header: entry.Header{Time: time.Unix(1, 0), Actor: "gateway"}, Vault: strings.Repeat("0", 32), Origin: testOrigin,
		Marker: vault.HashOf(nil), Key: testKey(t).vkey, Recovery: testKey(t).vkey,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ctx, data); err != nil {
		t.Fatal(err)
	}
	tr, err := ledger.UnpinnedTrust(ctx, cfg.Copy, vault.LedgerPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if tr.CopyLog("nas-2") != nil {
		t.Error("a copy log's key out of nothing")
	}
	if _, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, tr); err != nil {
		t.Error(err)
	}
	other, cfg := newLog(t)
	grow(t, other, 1)
	if _, err := ledger.UnpinnedTrust(ctx, cfg.Copy, vault.LedgerPrefix); err == nil {
		t.Error("keys of a log that begins otherwise: no error")
	}
}
