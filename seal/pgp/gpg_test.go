package pgp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// gpgHome is a throw-away GNUPGHOME. Its path is short because the agent's
// socket lives in it.
type gpgHome struct {
	t   *testing.T
	dir string
}

func newGPG(t *testing.T) gpgHome {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lvg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("gpgconf", "--homedir", dir, "--kill", "all").CombinedOutput(); err != nil {
			t.Errorf("stopping the agent: %v: %s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return gpgHome{t, dir}
}

// try runs gpg with stdin and returns stdout and stderr. Without gpg the test fails.
func (g gpgHome) try(stdin []byte, args ...string) (stdout []byte, stderr string, err error) {
	g.t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", g.dir, "--batch", "--no-tty", "--pinentry-mode", "loopback"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err = cmd.Run()
	return out.Bytes(), talk.String(), err
}

func (g gpgHome) run(stdin []byte, args ...string) ([]byte, string) {
	g.t.Helper()
	out, talk, err := g.try(stdin, args...)
	if err != nil {
		g.t.Fatalf("gpg %v: %v\n%s", args, err, talk)
	}
	return out, talk
}

// decrypt returns the text of a message and checks that its cipher is AES-256.
func (g gpgHome) decrypt(message []byte, args ...string) []byte {
	g.t.Helper()
	out, talk := g.run(message, append(args, "--show-session-key", "--decrypt")...)
	if !strings.Contains(talk, "session key: '9:") {
		g.t.Errorf("gpg did not report cipher 9 (AES-256):\n%s", talk)
	}
	return out
}

// generate makes a key with gpg itself and returns it exported, public and secret.
func (g gpgHome) generate(user, algorithm, usage, expire string) (public, secret []byte) {
	g.t.Helper()
	g.run(nil, "--passphrase", "", "--quick-generate-key", user, algorithm, "sign", expire)
	if usage != "" {
		out, _ := g.run(nil, "--with-colons", "--list-keys", user)
		g.run(nil, "--passphrase", "", "--quick-add-key", fingerprintOf(g.t, out), usage, "encr", expire)
	}
	public, _ = g.run(nil, "--armor", "--export", user)
	secret, _ = g.run(nil, "--passphrase", "", "--export-secret-keys", user)
	return public, secret
}

func fingerprintOf(t *testing.T, colons []byte) string {
	t.Helper()
	for line := range strings.Lines(string(colons)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	t.Fatalf("no fingerprint in %s", colons)
	return ""
}

func TestGnuPGReadsSegmentsAndWraps(t *testing.T) {
	gpg := newGPG(t)
	pub, sec, err := GenerateAuditor("Auditor One, Ltd. <one@example.org>", nil, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	gpg.run(sec, "--import")
	auditor := mustAuditor(t, pub)
	if auditor.UserID != "Auditor One, Ltd. <one@example.org>" {
		t.Errorf("user id %q", auditor.UserID)
	}
	period, err := GeneratePeriod(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer period.Destroy()
	wrap, err := period.Wrap(rand.Reader, []Auditor{auditor})
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("a line of a log\n"), 20000) // several pieces
	message := encryptTo(t, period, text)

	// A stranger: the wrap gives the period key, which goes into a home of its own.
	secret := gpg.decrypt(wrap)
	periodHome := newGPG(t)
	periodHome.run(secret, "--import")
	if got := periodHome.decrypt(message); !bytes.Equal(got, text) {
		t.Errorf("gpg decrypted %d bytes, want %d equal ones", len(got), len(text))
	}
	out, _ := periodHome.run(nil, "--with-colons", "--list-keys")
	if s := string(out); !strings.Contains(s, ":255:22:") || !strings.Contains(s, ":255:18:") || !strings.Contains(s, ":1577836800::") {
		t.Errorf("expected algorithms 22 and 18, made at 1577836800, without expiry:\n%s", s)
	}
}

// An auditor's preferences must not lower the cipher (DESIGN §6.5).
func TestAES128PreferenceIsNotFollowed(t *testing.T) {
	gpg := newGPG(t)
	gpg.generate("old@example.org", "ed25519", "cv25519", "never")
	gpg.run([]byte("setpref AES SHA256 Uncompressed\ny\nsave\n"), "--passphrase", "", "--command-fd", "0", "--edit-key", "old@example.org")
	pub, _ := gpg.run(nil, "--export", "old@example.org")
	period, err := GeneratePeriod(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer period.Destroy()
	auditor := mustAuditor(t, pub)
	wrap, err := period.Wrap(rand.Reader, []Auditor{auditor})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := OpenSecret(gpg.decrypt(wrap, "--passphrase", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Destroy()
	// gpg itself would use AES-128 for this recipient: the preference is really there.
	theirs, _ := gpg.run([]byte("x"), "--trust-model", "always", "--recipient", "old@example.org", "--encrypt")
	if _, talk := gpg.run(theirs, "--passphrase", "", "--show-session-key", "--decrypt"); !strings.Contains(talk, "session key: '7:") {
		t.Errorf("the test key does not prefer AES-128:\n%s", talk)
	}
}

func TestGnuPGUsesGeneratedAuditorWithPassphrase(t *testing.T) {
	gpg := newGPG(t)
	pub, sec, err := GenerateAuditor("Auditor Two", []byte("open sesame"), rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	gpg.run(sec, "--passphrase", "open sesame", "--import")
	message, err := EncryptTo(rand.Reader, []Auditor{mustAuditor(t, pub)}, []byte("register record"))
	if err != nil {
		t.Fatal(err)
	}
	if got := gpg.decrypt(message, "--passphrase", "open sesame"); string(got) != "register record" {
		t.Errorf("got %q", got)
	}
	agentForgets := exec.Command("gpgconf", "--homedir", gpg.dir, "--reload", "gpg-agent")
	if out, err := agentForgets.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, _, err := gpg.try(message, "--passphrase", "wrong", "--decrypt"); err == nil {
		t.Error("gpg decrypted with a wrong passphrase: the secret key is not protected")
	}
}

func TestLocalGPG(t *testing.T) {
	gpg := newGPG(t)
	rsaPub, rsaSec := gpg.generate("rsa@example.org", "rsa3072", "rsa3072", "never")
	message, err := EncryptTo(rand.Reader, []Auditor{mustAuditor(t, rsaPub)}, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for name, opener := range map[string]Opener{"gpg": LocalGPG(gpg.dir), "file": mustOpener(t, rsaSec)} {
		got, err := opener.Open(t.Context(), message)
		if err != nil || string(got) != "text" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := LocalGPG(newGPG(t).dir).Open(t.Context(), message); !errors.Is(err, ErrNoKey) {
		t.Errorf("empty keyring: %v, want ErrNoKey", err)
	}
	damagedMessage := bytes.Clone(message)
	damagedMessage[len(damagedMessage)-30] ^= 1
	if text, err := LocalGPG(gpg.dir).Open(t.Context(), damagedMessage); err == nil {
		t.Errorf("damaged message gave %q", text)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LocalGPG(gpg.dir).Open(cancelled, message); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := LocalGPG(gpg.dir).Open(t.Context(), message); !errors.Is(err, ErrNoKey) || !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without gpg: %v, want ErrNoKey and exec.ErrNotFound", err)
	}
}

// Each kind of key that people might bring, made by the real gpg.
func TestParseAuditorJudgesGnuPGKeys(t *testing.T) {
	gpg := newGPG(t)
	now := time.Now().Add(time.Hour) // the keys are made while the test runs
	for _, c := range []struct {
		name, algorithm, subkey, expire string
		at                              time.Time
		want                            error
	}{
		{"good25519", "ed25519", "cv25519", "never", now, nil},
		{"expiring", "ed25519", "cv25519", "1y", now, nil},
		{"expired", "ed25519", "cv25519", "1y", now.AddDate(2, 0, 0), ErrExpiredKey},
		{"weakrsa", "rsa2048", "rsa2048", "never", now, ErrWeakKey},
		{"weaksubkey", "ed25519", "rsa2048", "never", now, ErrWeakKey},
		{"nistcurve", "nistp256", "nistp256", "never", now, ErrWeakKey},
		{"signonly", "ed25519", "", "never", now, ErrNoEncryption},
	} {
		user := c.name + "@example.org"
		public, secret := gpg.generate(user, c.algorithm, c.subkey, c.expire)
		a, err := ParseAuditor(public, c.at)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && (a.UserID != user || len(a.Fingerprint) != 40 || len(a.Subkey) != 40 || a.Expires.IsZero() != (c.expire == "never")) {
			t.Errorf("%s: %+v", c.name, a)
		}
		if _, err := ParseAuditor(secret, c.at); !errors.Is(err, ErrSecretKey) {
			t.Errorf("%s, secret: %v, want ErrSecretKey", c.name, err)
		}
		if c.name == "expired" {
			checkStillUsable(t, gpg, public)
		}
	}
	revokeAndParse(t, gpg, "good25519@example.org", now)
}

// checkStillUsable: a key that was accepted is pinned; a later expiry does not
// stop the wrapping.
func checkStillUsable(t *testing.T, gpg gpgHome, public []byte) {
	t.Helper()
	a := mustAuditor(t, public)
	again, err := LoadAuditor(public, a.Expires.AddDate(3, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if again.Fingerprint != a.Fingerprint || again.Subkey != a.Subkey || !again.Expires.Equal(a.Expires) || again.UserID != a.UserID || again.KeyID() != a.KeyID() {
		t.Errorf("loaded %+v, want %+v", again, a)
	}
	message, err := EncryptTo(rand.Reader, []Auditor{again}, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if got := gpg.decrypt(message, "--passphrase", ""); string(got) != "x" {
		t.Errorf("got %q", got)
	}
}

func revokeAndParse(t *testing.T, gpg gpgHome, user string, now time.Time) {
	t.Helper()
	out, _ := gpg.run(nil, "--with-colons", "--list-keys", user)
	certificate, err := os.ReadFile(gpg.dir + "/openpgp-revocs.d/" + fingerprintOf(t, out) + ".rev")
	if err != nil {
		t.Fatal(err)
	}
	// gpg disarms the certificate it makes in advance with a colon.
	gpg.run(bytes.Replace(certificate, []byte(":-----BEGIN"), []byte("-----BEGIN"), 1), "--import")
	revokedKey, _ := gpg.run(nil, "--export", user)
	if _, err := ParseAuditor(revokedKey, now); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("revoked: %v, want ErrRevokedKey", err)
	}
}
