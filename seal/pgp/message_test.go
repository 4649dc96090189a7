package pgp

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestWrapForManyAuditors wraps one secret to RSA, Curve25519 made here and by
// gpg, and a key that prefers AES-128. Each opens it with the real agent and with
// an exported key; the message names all, in order.
func TestWrapForManyAuditors(t *testing.T) {
	gpg := newGPG(t)
	var auditors []Auditor
	var openers []Opener
	for _, k := range []struct{ name, algorithm, subkey string }{{"rsa", "rsa3072", "cv25519"}, {"curve", "ed25519", "cv25519"}, {"aes128", "ed25519", "cv25519"}} {
		public, _ := gpg.generate(k.name+"@example.org", k.algorithm, k.subkey, "never")
		if k.name == "aes128" {
			gpg.run([]byte("setpref AES SHA256 Uncompressed\ny\nsave\n"), "--passphrase", "", "--command-fd", "0", "--edit-key", k.name)
			public, _ = gpg.run(nil, "--export", k.name)
		}
		secret, _ := gpg.run(nil, "--passphrase", "", "--export-secret-keys", k.name)
		auditors, openers = append(auditors, mustAuditor(t, public)), append(openers, mustOpener(t, secret))
	}
	ours, opener := auditorPair(t)
	auditors, openers = append(auditors, ours), append(openers, opener)
	period := newPeriod(t)
	wrap, err := period.Wrap(rand.Reader, auditors)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := Recipients(wrap)
	if err != nil || len(ids) != len(auditors) {
		t.Fatalf("recipients %v, %v", ids, err)
	}
	for i, a := range auditors {
		if ids[i] != a.KeyID() {
			t.Errorf("recipient %d is %s, want %s", i, ids[i], a.KeyID())
		}
		if text, err := openers[i].Open(t.Context(), wrap); err != nil || !bytes.Equal(text, period.secret.bytes()) {
			t.Errorf("auditor %d: %d bytes, %v", i, len(text), err)
		}
	}
	if got := gpg.decrypt(wrap, "--passphrase", ""); !bytes.Equal(got, period.secret.bytes()) {
		t.Errorf("gpg decrypts %d bytes", len(got))
	}
	if text, err := LocalGPG(gpg.dir).Open(t.Context(), wrap); err != nil || !bytes.Equal(text, period.secret.bytes()) {
		t.Errorf("local gpg: %d bytes, %v", len(text), err)
	}
	checkStockWrap(t, gpg, openers[1], period.secret.bytes())
	checkSubkeyExport(t, gpg, wrap)
}

// checkStockWrap: an auditor may add a wrap with stock gpg, compressed and with
// the cipher that gpg likes.
func checkStockWrap(t *testing.T, gpg gpgHome, opener Opener, secret []byte) {
	t.Helper()
	for _, options := range [][]string{{"--compress-algo", "zip"}, {"--compress-algo", "none", "--cipher-algo", "AES"}} {
		theirs, _ := gpg.run(secret, append(options, "--trust-model", "always", "--recipient", "curve@example.org", "--encrypt")...)
		if text, err := opener.Open(t.Context(), theirs); err != nil || !bytes.Equal(text, secret) {
			t.Errorf("gpg %v: %d bytes, %v", options, len(text), err)
		}
	}
}

// checkSubkeyExport: an auditor who keeps the primary key offline exports the
// subkeys only, and that is enough.
func checkSubkeyExport(t *testing.T, gpg gpgHome, wrap []byte) {
	t.Helper()
	for _, user := range []string{"curve@example.org", "rsa@example.org"} {
		secret, _ := gpg.run(nil, "--passphrase", "", "--export-secret-subkeys", user)
		opener, err := OpenKeyFile(secret, nil)
		if err != nil {
			t.Errorf("%s, subkeys only: %v", user, err)
			continue
		}
		if _, err := opener.Open(t.Context(), wrap); err != nil {
			t.Errorf("%s, subkeys only: %v", user, err)
		}
	}
}

// TestBothHalvesInOneFile: a public key beside the secret one does no harm.
func TestBothHalvesInOneFile(t *testing.T) {
	pub, sec, err := GenerateAuditor("One", nil, rand.Reader, made)
	if err != nil {
		t.Fatal(err)
	}
	message, err := EncryptTo(rand.Reader, []Auditor{mustAuditor(t, pub)}, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"secret first": join(sec, pub), "public first": join(pub, sec)} {
		opener, err := OpenKeyFile(data, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := opener.Open(t.Context(), message); err != nil || string(text) != "text" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if _, err := OpenKeyFile(join(pub, pub), nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("public twice: %v, want ErrNoKey", err)
	}
}

// forge builds a message to a period key out of parts, right or wrong.
type forge struct {
	cipher  packet.CipherFunction
	inner   []byte // the packets inside, before the MDC
	mdc     func([]byte) []byte
	version byte
	outer   func(pkesk, sealed []byte) []byte
}

// literalOf is a literal packet with a definite length.
func literalOf(text string) []byte {
	return append([]byte{headLiteral, byte(6 + len(text)), 'b', 0, 0, 0, 0, 0}, text...)
}

func (f forge) message(t *testing.T, to *packet.PublicKey) []byte {
	t.Helper()
	session := make([]byte, f.cipher.KeySize())
	var pkesk bytes.Buffer
	if err := packet.SerializeEncryptedKeyAEAD(&pkesk, to, f.cipher, false, session, &packet.Config{Rand: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	prefix := make([]byte, 18)
	plain := append(append(bytes.Clone(prefix), f.inner...), headMDC, sha1.Size)
	sum := sha1.Sum(plain)
	plain = append(plain, sum[:]...)
	if f.mdc != nil {
		plain = f.mdc(plain)
	}
	block, err := aes.NewCipher(session)
	if err != nil {
		t.Fatal(err)
	}
	c := &cfbWriter{block: block, used: 16}
	c.encrypt(plain)
	sealed := append([]byte{headSEIPD, 0xff}, binary.BigEndian.AppendUint32(nil, uint32(1+len(plain)))...)
	sealed = append(append(sealed, f.version), plain...)
	if f.outer != nil {
		return f.outer(pkesk.Bytes(), sealed)
	}
	return join(pkesk.Bytes(), sealed)
}

// TestForgedMessages: what a holder of the public key can make, and Decrypt must
// refuse, because its form is not the one that this package writes.
func TestForgedMessages(t *testing.T) {
	k := newPeriod(t)
	s := openPeriod(t, k)
	to := s.entity.Subkeys[0].PublicKey
	good := forge{cipher: packet.CipherAES256, inner: literalOf("text"), version: 1}
	for name, c := range map[string]struct {
		change func(*forge)
		ok     bool
	}{
		"good":                {func(*forge) {}, true},
		"AES-128":             {func(f *forge) { f.cipher = packet.CipherAES128 }, false},
		"AES-192":             {func(f *forge) { f.cipher = packet.CipherAES192 }, false},
		"SEIPD version 2":     {func(f *forge) { f.version = 2 }, false},
		"SEIPD version 0":     {func(f *forge) { f.version = 0 }, false},
		"no literal":          {func(f *forge) { f.inner = nil }, false},
		"two literals":        {func(f *forge) { f.inner = join(f.inner, f.inner) }, false},
		"marker inside":       {func(f *forge) { f.inner = join([]byte{0xca, 3, 'P', 'G', 'P'}, f.inner) }, false},
		"literal too long":    {func(f *forge) { f.inner[1]++ }, false},
		"literal of 4 GiB":    {func(f *forge) { f.inner = join([]byte{headLiteral, 0xff, 0xff, 0xff, 0xff, 0xff}, f.inner[2:]) }, false},
		"compressed":          {func(f *forge) { f.inner = join([]byte{0xc8, byte(1 + len(f.inner)), 0}, f.inner) }, false},
		"no MDC":              {func(f *forge) { f.mdc = func(p []byte) []byte { return p[:len(p)-22] } }, false},
		"MDC of another text": {func(f *forge) { f.mdc = func(p []byte) []byte { p[len(p)-1] ^= 1; return p } }, false},
		"MDC cut":             {func(f *forge) { f.mdc = func(p []byte) []byte { return p[:len(p)-1] } }, false},
		"byte after the MDC":  {func(f *forge) { f.mdc = func(p []byte) []byte { return append(p, 0) } }, false},
		"text under an old MDC": {func(f *forge) {
			f.mdc = func(p []byte) []byte { return bytes.Replace(p, []byte("text"), []byte("test"), 1) }
		}, false},
		"no PKESK":       {func(f *forge) { f.outer = func(_, sealed []byte) []byte { return sealed } }, false},
		"PKESK alone":    {func(f *forge) { f.outer = func(pkesk, _ []byte) []byte { return pkesk } }, false},
		"PKESK behind":   {func(f *forge) { f.outer = func(pkesk, sealed []byte) []byte { return join(sealed, pkesk) } }, false},
		"message twice":  {func(f *forge) { f.outer = func(p, s []byte) []byte { return join(p, s, p, s) } }, false},
		"literal behind": {func(f *forge) { f.outer = func(p, s []byte) []byte { return join(p, s, literalOf("x")) } }, false},
		"literal alone":  {func(f *forge) { f.outer = func(_, _ []byte) []byte { return literalOf("text") } }, false},
		"unprotected (tag 9)": {func(f *forge) {
			f.outer = func(p, s []byte) []byte { return join(p, []byte{0xc9}, s[1:6], s[7:]) }
		}, false},
		"PKESK of 4 GiB": {func(f *forge) {
			f.outer = func(p, s []byte) []byte { return join(p[:1], []byte{0xff, 0xff, 0xff, 0xff, 0xff}, p[2:], s) }
		}, false},
		"SEIPD of 4 GiB": {func(f *forge) {
			f.outer = func(p, s []byte) []byte { return join(p, s[:2], []byte{0xff, 0xff, 0xff, 0xff}, s[6:]) }
		}, false},
		"SEIPD one too long": {func(f *forge) {
			f.outer = func(p, s []byte) []byte { s[5]++; return join(p, s) }
		}, false},
		"SEIPD one too short": {func(f *forge) {
			f.outer = func(p, s []byte) []byte { s[5]--; return join(p, s) }
		}, false},
		"SEIPD of no bytes": {func(f *forge) { f.outer = func(p, s []byte) []byte { return join(p, []byte{headSEIPD, 0}) } }, false},
	} {
		f := good
		f.inner = bytes.Clone(good.inner)
		c.change(&f)
		message := f.message(t, to)
		r, err := s.Decrypt(iotest.OneByteReader(bytes.NewReader(message)))
		var text []byte
		if err == nil {
			text, err = io.ReadAll(r)
		}
		if c.ok && (err != nil || string(text) != "text") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		if !c.ok && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %q, %v, want ErrDamaged", name, text, err)
		}
	}
}

// TestHostileLengthsCostNoMemory: a length that a packet announces is no reason
// to allocate it.
func TestHostileLengthsCostNoMemory(t *testing.T) {
	secret := openPeriod(t, newPeriod(t))
	_, opener := auditorPair(t)
	for name, data := range map[string][]byte{
		"PKESK":            {0xc1, 0xff, 0xff, 0xff, 0xff, 0xff, 3},
		"SEIPD":            {0xd2, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"partial of 1 GiB": {0xd2, 0xe0 | 30, 1},
		"public key":       {0xc6, 0xff, 0xff, 0xff, 0xff, 0xff, 4},
		"old format":       {0x9a, 0xff, 0xff, 0xff, 0xff, 4},
		"user id":          {0xcd, 0xff, 0x7f, 0xff, 0xff, 0xff, 'x'},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, errs := Recipients(data)
		_, err := ParseAuditor(data, judged)
		_, errPublic := ParsePublic(data)
		_, errSecret := OpenSecret(data)
		_, errOpen := opener.Open(t.Context(), data)
		r, errDecrypt := secret.Decrypt(bytes.NewReader(data))
		if errDecrypt == nil {
			_, errDecrypt = io.Copy(io.Discard, r)
		}
		runtime.ReadMemStats(&after)
		for _, err := range []error{errs, err, errPublic, errSecret, errOpen, errDecrypt} {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: %d bytes allocated for %d of input", name, used, len(data))
		}
	}
}

// TestPassphrases: of an exported key of gpg itself, asked for once, and not for
// a key without one.
func TestPassphrases(t *testing.T) {
	gpg := newGPG(t)
	// The agent would make each derivation last 100 ms.
	if err := os.WriteFile(gpg.dir+"/gpg-agent.conf", []byte("s2k-count 65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gpg.run(nil, "--passphrase", "sésame", "--quick-generate-key", "p@example.org", "ed25519", "sign", "never")
	list, _ := gpg.run(nil, "--with-colons", "--list-keys")
	gpg.run(nil, "--passphrase", "sésame", "--quick-add-key", fingerprintOf(t, list), "cv25519", "encr", "never")
	public, _ := gpg.run(nil, "--export")
	secret, _ := gpg.run(nil, "--passphrase", "sésame", "--armor", "--export-secret-keys")
	message, err := EncryptTo(rand.Reader, []Auditor{mustAuditor(t, public)}, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for pass, want := range map[string]error{"sésame": nil, "sesame": ErrPassphrase, "": ErrPassphrase, "sésame\n": ErrPassphrase, strings.Repeat("x", 1<<16): ErrPassphrase} {
		asked := 0
		opener, err := OpenKeyFile(secret, func() ([]byte, error) { asked++; return []byte(pass), nil })
		if !errors.Is(err, want) || asked != 1 {
			t.Errorf("%.20q: %v after %d questions, want %v", pass, err, asked, want)
		}
		if err != nil {
			continue
		}
		if text, err := opener.Open(t.Context(), message); err != nil || string(text) != "text" {
			t.Errorf("%.20q: %q, %v", pass, text, err)
		}
	}
	_, open, err := GenerateAuditor("Open", nil, rand.Reader, made)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyFile(open, func() ([]byte, error) { t.Error("asked for a passphrase that the key has not"); return nil, nil }); err != nil {
		t.Error(err)
	}
}
