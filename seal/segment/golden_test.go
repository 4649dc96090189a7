package segment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"logvault/extract/logfmt"
	"logvault/seal/pgp"
	"logvault/vault"
)

const (
	goldenDir = "../../fixtures/golden/v1"
	formatDoc = "../../docs/FORMAT-segment.md"

	goldenLines = "6b33724dc5a864ad0e4b713bf81f8ee74fd436ef6dd4070f0ab6d23ea32639fe"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldenDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func goldenSecret(t *testing.T) *pgp.Secret {
	t.Helper()
	opener, err := pgp.OpenKeyFile(golden(t, "TEST-KEY-auditor-secret.asc"), nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := opener.Open(t.Context(), golden(t, "wrap.pgp"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pgp.OpenSecret(content)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pgp.ParsePublic(golden(t, "period-public.pgp"))
	if err != nil || public.Hash() != secret.PublicHash() {
		t.Fatalf("the wrap's key is %v, not that of period-public.pgp: %v", secret.PublicHash(), err)
	}
	return secret
}

// Today's code reads what the first release wrote.
func TestGoldenFiles(t *testing.T) {
	secret := goldenSecret(t)
	for codec, root := range map[vault.Codec]string{
		vault.Gzip: "0ed993cee69bc6ed0e1ede84142059775219fc39f6a461e40ffb9b1998858087",
		vault.Zstd: "f21c11e8902f3c90fe43777ea30bad74fe7241fb8a937580592480aec3b97e98",
	} {
		var text bytes.Buffer
		if _, err := Decode(&text, bytes.NewReader(golden(t, "segment."+string(codec)+".pgp")), secret, codec); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(text.Bytes())); got != goldenLines {
			t.Errorf("%s: lines have SHA-256 %s, want %s", codec, got, goldenLines)
		}
		ix, err := DecodeIndex(bytes.NewReader(golden(t, "segment."+string(codec)+".idx.pgp")), secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, n, err := LineRoot(ix.Secret, &text); err != nil || got.String() != root || n != ix.Lines {
			t.Errorf("%s: root %v of %d lines, %v; want %s of %d", codec, got, n, err, root, ix.Lines)
		}
		if ix.Codec != codec || ix.Lines != 2100 || ix.Unparsed != 1 || ix.Format != string(logfmt.Squid) || ix.Source != "proxy-1" ||
			string(ix.Name) != "squid/access.log" || ix.Gen != 2 || ix.Offset != 4096 || fmt.Sprint(ix.Lookup(logfmt.Client, "2001:db8::7")) != "[1]" {
			t.Errorf("%s: index %+v", codec, ix)
		}
	}
}

// fenced returns the code block of a language in the format document.
func fenced(t *testing.T, language string) string {
	t.Helper()
	doc, err := os.ReadFile(formatDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "```"+language+"\n")
	block, _, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		t.Fatalf("%s has no %s block", formatDoc, language)
	}
	return block
}

// A stranger with gpg, zcat, sha256sum, openssl and python3 follows the document
// word by word. Without one of these tools the test fails.
func TestWorkedExampleWithStockTools(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.py"), []byte(fenced(t, "python")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", fenced(t, "sh"))
	cmd.Dir = dir
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), talk.String())
	}
	if want := fenced(t, "text"); out.String() != want {
		t.Errorf("the commands print\n%s\nthe document says\n%s", out.String(), want)
	}
}

// cipherOf returns the first field of the session key that gpg shows.
func cipherOf(t *testing.T, home, file string) (cipher string, text []byte) {
	t.Helper()
	cmd := exec.Command("gpg", "--homedir", home, "--batch", "--show-session-key", "--decrypt", file)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		t.Fatalf("gpg --decrypt %s: %v\n%s", file, err, talk.String())
	}
	_, rest, _ := strings.Cut(talk.String(), "session key: '")
	cipher, _, _ = strings.Cut(rest, ":")
	return cipher, out.Bytes()
}

// Segment, index and wrap are encrypted with AES-256 (9), read by the real gpg.
func TestGnuPGReportsAES256(t *testing.T) {
	home, err := os.MkdirTemp("/tmp", "lvg") // short: the agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("gpgconf", "--homedir", home, "--kill", "all").CombinedOutput(); err != nil {
			t.Errorf("stopping the agent: %v: %s", err, out)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	load := func(key []byte) {
		cmd := exec.Command("gpg", "--homedir", home, "--batch", "--quiet", "--import")
		cmd.Stdin = bytes.NewReader(key)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gpg --import: %v: %s", err, out)
		}
	}
	load(golden(t, "TEST-KEY-auditor-secret.asc"))
	cipher, period := cipherOf(t, home, filepath.Join(goldenDir, "wrap.pgp"))
	if cipher != "9" {
		t.Errorf("wrap.pgp: cipher %q, want 9", cipher)
	}
	load(period)
	for _, file := range []string{"segment.gz.pgp", "segment.gz.idx.pgp", "segment.zst.pgp", "segment.zst.idx.pgp"} {
		if cipher, _ := cipherOf(t, home, filepath.Join(goldenDir, file)); cipher != "9" {
			t.Errorf("%s: cipher %q, want 9", file, cipher)
		}
	}
}
