package pgp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"logvault/vault"
)

var testTime = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// mustAuditor judges a key after it was made: by gpg while the test runs, or here
// at testTime or before, whatever the clock of this machine says.
func mustAuditor(t *testing.T, public []byte) Auditor {
	t.Helper()
	now := time.Now()
	if now.Before(testTime) {
		now = testTime
	}
	a, err := ParseAuditor(public, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustOpener(t *testing.T, secret []byte) Opener {
	t.Helper()
	o, err := OpenKeyFile(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// auditorPair makes an auditor and the opener of its secret key.
func auditorPair(t *testing.T) (Auditor, Opener) {
	t.Helper()
	pub, sec, err := GenerateAuditor("Test", nil, rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return mustAuditor(t, pub), mustOpener(t, sec)
}

func newPeriod(t *testing.T) *PeriodKey {
	t.Helper()
	k, err := GeneratePeriod(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Destroy)
	return k
}

// openPeriod gives the secret of k through a wrap, as a reader would get it.
func openPeriod(t *testing.T, k *PeriodKey) *Secret {
	t.Helper()
	auditor, opener := auditorPair(t)
	wrap, err := k.Wrap(rand.Reader, []Auditor{auditor})
	if err != nil {
		t.Fatal(err)
	}
	content, err := opener.Open(t.Context(), wrap)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSecret(content)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func encryptTo(t *testing.T, k *PeriodKey, text []byte) []byte {
	t.Helper()
	public, err := ParsePublic(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := public.Encrypt(&out, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(text); err != nil || n != len(text) {
		t.Fatalf("wrote %d of %d: %v", n, len(text), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPeriodKeyRoundTrip(t *testing.T) {
	k := newPeriod(t)
	public, err := ParsePublic(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if public.Hash() != vault.HashOf(k.Public()) {
		t.Error("the hash of a public key is not that of its packets")
	}
	s := openPeriod(t, k)
	if s.PublicHash() != public.Hash() {
		t.Errorf("secret belongs to %v, want %v", s.PublicHash(), public.Hash())
	}
	for _, size := range []int{0, 1, 511, 512, 513, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize + 7} {
		text := bytes.Repeat([]byte{'x'}, size)
		r, err := s.Decrypt(iotest.HalfReader(bytes.NewReader(encryptTo(t, k, text))))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
}

func TestDestroy(t *testing.T) {
	k := newPeriod(t)
	s := openPeriod(t, k)
	memory := k.secret.bytes()
	if !bytes.HasPrefix(memory, []byte{0xc5}) { // tag 5, new format: a secret key
		t.Errorf("secret starts with %x", memory[:1])
	}
	k.Destroy()
	k.Destroy()
	if k.secret != nil {
		t.Error("the secret is still there")
	}
	auditor, _ := auditorPair(t)
	if _, err := k.Wrap(rand.Reader, []Auditor{auditor}); err == nil {
		t.Error("a destroyed key could be wrapped")
	}
	scalar := s.entity.Subkeys[0].PrivateKey
	message := encryptTo(t, k, []byte("x"))
	s.Destroy()
	s.Destroy()
	if _, err := s.Decrypt(bytes.NewReader(message)); err == nil {
		t.Error("a destroyed secret decrypts")
	}
	if _, err := openMessage(bytes.NewReader(message), scalar); err == nil {
		t.Error("the scalar was not overwritten")
	}
}

func TestLockedBuffer(t *testing.T) {
	b, err := newLockedBuffer(8)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("9")); err == nil {
		t.Error("a full buffer took more")
	}
	if string(b.bytes()) != "12345678" {
		t.Errorf("holds %q", b.bytes())
	}
	b.destroy()
	if len(b.bytes()) != 0 {
		t.Error("holds bytes after destroy")
	}
}

func TestWrapRecipients(t *testing.T) {
	k := newPeriod(t)
	a, openA := auditorPair(t)
	b, openB := auditorPair(t)
	_, openC := auditorPair(t)
	wrap, err := k.Wrap(rand.Reader, []Auditor{a, b})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := Recipients(wrap)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(ids, " "), a.KeyID()+" "+b.KeyID(); got != want {
		t.Errorf("recipients %s, want %s", got, want)
	}
	for _, o := range []Opener{openA, openB} {
		if content, err := o.Open(t.Context(), wrap); err != nil || !bytes.Equal(content, k.secret.bytes()) {
			t.Errorf("an auditor got %d bytes, %v", len(content), err)
		}
	}
	if _, err := openC.Open(t.Context(), wrap); !errors.Is(err, ErrWrongKey) {
		t.Errorf("stranger: %v, want ErrWrongKey", err)
	}
	if _, err := k.Wrap(rand.Reader, nil); err == nil {
		t.Error("a wrap to nobody was made")
	}
	if _, err := EncryptTo(rand.Reader, []Auditor{{}}, nil); err == nil {
		t.Error("a zero Auditor was accepted")
	}
}

func TestRecipientsRefusesOtherPackets(t *testing.T) {
	message := encryptTo(t, newPeriod(t), []byte("text"))
	for name, data := range map[string][]byte{
		"empty":           nil,
		"public key":      newPeriod(t).Public(),
		"no PKESK":        {0xd2, 2, 1, 0},
		"trailing byte":   append(bytes.Clone(message), 0),
		"trailing packet": append(bytes.Clone(message), 0xca, 3, 'P', 'G', 'P'),
		"truncated":       message[:len(message)-1],
		"text":            []byte("hello"),
	} {
		if ids, err := Recipients(data); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %v, want ErrDamaged", name, ids, err)
		}
	}
}

func TestDecryptWrongKey(t *testing.T) {
	s := openPeriod(t, newPeriod(t))
	if _, err := s.Decrypt(bytes.NewReader(encryptTo(t, newPeriod(t), nil))); !errors.Is(err, ErrWrongKey) {
		t.Errorf("%v, want ErrWrongKey", err)
	}
}

// pkeskSize is the length of the first packet. Its few redundant bits (the MPI's
// bit count, the top bit of an X25519 point) do not change what is decrypted,
// so only the object's hash finds a flip there.
func pkeskSize(message []byte) int { return 2 + int(message[1]) }

// A flipped, missing or added byte is an error, never a clean end; or the text
// is intact, as far as pkeskSize.
func TestDecryptFindsEveryDamage(t *testing.T) {
	k := newPeriod(t)
	s := openPeriod(t, k)
	text := bytes.Repeat([]byte("0123456789"), 30)
	message := encryptTo(t, k, text)
	read := func(data []byte) ([]byte, error) {
		r, err := s.Decrypt(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	for i := range message {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			flipped := bytes.Clone(message)
			flipped[i] ^= mask
			if got, err := read(flipped); err == nil && (i >= pkeskSize(message) || !bytes.Equal(got, text)) {
				t.Fatalf("byte %d of %d with %#x: not found", i, len(message), mask)
			}
		}
		if _, err := read(message[:i]); err == nil {
			t.Fatalf("cut at %d of %d: not found", i, len(message))
		}
	}
	if _, err := read(append(bytes.Clone(message), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte after the message: %v", err)
	}
	broken := errors.New("disk failed")
	r, err := s.Decrypt(io.MultiReader(bytes.NewReader(message[:len(message)-40]), iotest.ErrReader(broken)))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if !errors.Is(err, broken) {
		t.Errorf("the cause of a read error is lost: %v", err)
	}
}

func TestParsePublicIsStrict(t *testing.T) {
	public := newPeriod(t).Public()
	for i := range public {
		flipped := bytes.Clone(public)
		flipped[i] ^= 0x01
		if p, err := ParsePublic(flipped); err == nil && p.Hash() == vault.HashOf(public) {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
	auditorPub, _, err := GenerateAuditor(periodName, nil, rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":          nil,
		"other time":     binaryKey(t, auditorPub),
		"two keys":       append(bytes.Clone(public), newPeriod(t).Public()...),
		"trailing bytes": append(bytes.Clone(public), 0xca, 3, 'P', 'G', 'P'),
		"too large":      make([]byte, maxPublic+1),
		"secret key":     bytes.Clone(newPeriod(t).secret.bytes()),
	} {
		if _, err := ParsePublic(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOpenSecretRefuses(t *testing.T) {
	k := newPeriod(t)
	_, auditorSecret, err := GenerateAuditor("Test", nil, rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	_, binary, err := readKeys(auditorSecret)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":          nil,
		"public key":     k.Public(),
		"auditor secret": binary,
		"too large":      make([]byte, maxPublic+1),
		"truncated":      k.secret.bytes()[:100],
	} {
		if _, err := OpenSecret(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseAuditorErrors(t *testing.T) {
	pub, sec, err := GenerateAuditor("Test", nil, rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := GenerateAuditor("Other", nil, rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	two := join(binaryKey(t, pub), binaryKey(t, other))
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":      {nil, ErrEmptyKey},
		"text":       {[]byte("not a key\n"), ErrEmptyKey},
		"binary":     {[]byte{0xff, 0, 1, 2}, ErrEmptyKey},
		"truncated":  {pub[:len(pub)/2], ErrEmptyKey},
		"secret":     {sec, ErrSecretKey},
		"signature":  {[]byte("-----BEGIN PGP SIGNATURE-----\n\n=twTO\n-----END PGP SIGNATURE-----\n"), ErrEmptyKey},
		"two keys":   {two, nil},
		"huge":       {make([]byte, maxKey+1), nil},
		"the future": {pub, nil},
	} {
		now := testTime
		if name == "the future" {
			now = testTime.Add(-time.Minute)
		}
		_, err := ParseAuditor(c.data, now)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestOpenKeyFile(t *testing.T) {
	pub, sec, err := GenerateAuditor("Test <t@example.org>", []byte("secret"), rand.Reader, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyFile(pub, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("public key: %v, want ErrNoKey", err)
	}
	if _, err := OpenKeyFile(sec, nil); !errors.Is(err, ErrPassphrase) {
		t.Errorf("no passphrase: %v, want ErrPassphrase", err)
	}
	if _, err := OpenKeyFile(sec, func() ([]byte, error) { return []byte("wrong"), nil }); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v, want ErrPassphrase", err)
	}
	noTerminal := errors.New("no terminal")
	if _, err := OpenKeyFile(sec, func() ([]byte, error) { return nil, noTerminal }); !errors.Is(err, noTerminal) {
		t.Errorf("failing prompt: %v", err)
	}
	asked := 0
	pass := []byte("secret")
	opener, err := OpenKeyFile(sec, func() ([]byte, error) { asked++; return pass, nil })
	if err != nil || asked != 1 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	if !bytes.Equal(pass, make([]byte, 6)) {
		t.Error("the passphrase was not overwritten")
	}
	message, err := EncryptTo(rand.Reader, []Auditor{mustAuditor(t, pub)}, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opener.Open(t.Context(), message); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
	for i := range message {
		flipped := bytes.Clone(message)
		flipped[i] ^= 0x80
		if got, err := opener.Open(t.Context(), flipped); err == nil && (i >= pkeskSize(message) || string(got) != "text") {
			t.Errorf("byte %d flipped: not found", i)
		}
	}
}

// failAfter is a writer and a source of randomness that fails after n bytes.
type failAfter struct{ n int }

var errFailed = errors.New("failed")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFailed
	}
	return len(p), nil
}

func (f *failAfter) Read(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFailed
	}
	return rand.Read(p)
}

func TestEncryptReportsFailures(t *testing.T) {
	public, err := ParsePublic(newPeriod(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 3*pieceSize)
	for _, room := range []int{0, 1, 50, 200, 70000, 140000, len(text)} {
		w, err := public.Encrypt(&failAfter{room}, rand.Reader)
		if err == nil {
			_, err = w.Write(text)
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, errFailed) {
			t.Errorf("a disk full after %d bytes: %v", room, err)
		}
	}
	if _, err := public.Encrypt(io.Discard, &failAfter{31}); !errors.Is(err, errFailed) {
		t.Errorf("no randomness: %v", err)
	}
	w, err := public.Encrypt(io.Discard, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("late")); err == nil {
		t.Error("written after Close")
	}
	if err := w.Close(); err == nil {
		t.Error("closed twice without a word")
	}
}

func FuzzParseKeys(f *testing.F) {
	pub, sec, err := GenerateAuditor("Test", nil, rand.Reader, testTime)
	if err != nil {
		f.Fatal(err)
	}
	k, err := GeneratePeriod(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pub)
	f.Add(sec)
	f.Add(k.Public())
	f.Add(bytes.Clone(k.secret.bytes()))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseAuditor(data, testTime); err == nil && (a.subkey == nil || len(a.KeyID()) != 16) {
			t.Errorf("accepted without a subkey: %+v", a)
		}
		if p, err := ParsePublic(data); err == nil && p.Hash() != vault.HashOf(data) {
			t.Error("accepted under another hash")
		}
		if s, err := OpenSecret(data); err == nil {
			s.Destroy()
		}
		if _, err := OpenKeyFile(data, nil); err != nil {
			return
		}
	})
}

func FuzzMessage(f *testing.F) {
	k, err := GeneratePeriod(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	s, err := OpenSecret(k.secret.bytes())
	if err != nil {
		f.Fatal(err)
	}
	public, err := ParsePublic(k.Public())
	if err != nil {
		f.Fatal(err)
	}
	var message bytes.Buffer
	w, err := public.Encrypt(&message, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write([]byte("text")); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(message.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, err := Recipients(data)
		if err == nil && len(ids) == 0 {
			t.Error("a message without recipients")
		}
		r, err := s.Decrypt(bytes.NewReader(data))
		if err != nil {
			return
		}
		if text, err := io.ReadAll(r); err == nil && string(text) != "text" {
			t.Errorf("forged text %q", text)
		}
	})
}
