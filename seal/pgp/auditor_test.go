package pgp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Dates in the life of the keys below, all made by the real gpg under a faked clock.
var (
	made    = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	second  = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) // later subkeys
	judged  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	gpgTime = "20060102T150405"
)

// at returns the option that sets gpg's clock.
func at(t time.Time) string { return "--faked-system-time=" + t.Format(gpgTime) + "!" }

// subkeySpec is a subkey to make.
type subkeySpec struct {
	algorithm string
	made      time.Time
	expires   string
}

// keySpec is a key to make, with commands of --edit-key for afterwards.
type keySpec struct {
	name, algorithm, expires string
	subkeys                  []subkeySpec
	edit                     string
}

// make runs gpg and returns the public key and its fingerprints in order.
func (g gpgHome) make(k keySpec) (public []byte, fingerprints []string) {
	g.t.Helper()
	user := k.name + "@example.org"
	status, _ := g.run(nil, at(made), "--passphrase", "", "--status-fd", "1", "--quick-generate-key", user, k.algorithm, "sign", k.expires)
	_, primary, _ := strings.Cut(strings.TrimSpace(string(status)), "KEY_CREATED P ")
	for _, s := range k.subkeys {
		g.run(nil, at(s.made), "--passphrase", "", "--quick-add-key", primary, s.algorithm, "encr", s.expires)
	}
	if k.edit != "" {
		g.run([]byte(k.edit), at(second.AddDate(0, 1, 0)), "--passphrase", "", "--command-fd", "0", "--edit-key", user)
	}
	list, _ := g.run(nil, "--with-colons", "--with-subkey-fingerprint", "--list-keys", user)
	for line := range strings.Lines(string(list)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			fingerprints = append(fingerprints, strings.ToLower(f[9]))
		}
	}
	public, _ = g.run(nil, "--export", primary)
	return public, fingerprints
}

const revokeSubkey1 = "key 1\nrevkey\ny\n0\n\ny\nsave\n"

// TestAuditorKeysOfGnuPG judges what people may bring. want is the error; without
// one, or if the key only expired since, pinned is which subkey is chosen, counted
// from 1, and expires when.
func TestAuditorKeysOfGnuPG(t *testing.T) {
	gpg := newGPG(t)
	cv := func(at time.Time, expires string) subkeySpec { return subkeySpec{"cv25519", at, expires} }
	never := cv(made, "never")
	for _, c := range []struct {
		key     keySpec
		at      time.Time
		want    error
		pinned  int
		expires time.Time
	}{
		{keySpec{"plain", "ed25519", "never", []subkeySpec{never}, ""}, judged, nil, 1, time.Time{}},
		{keySpec{"atonce", "ed25519", "never", []subkeySpec{never}, ""}, made, nil, 1, time.Time{}},
		{keySpec{"rsa3072", "rsa3072", "never", []subkeySpec{never}, ""}, judged, nil, 1, time.Time{}},
		{keySpec{"rsa2048", "rsa2048", "never", []subkeySpec{never}, ""}, judged, ErrWeakKey, 0, time.Time{}},
		{keySpec{"dsa", "dsa1024", "never", []subkeySpec{never}, ""}, judged, ErrWeakKey, 0, time.Time{}},
		{keySpec{"elgamal", "ed25519", "never", []subkeySpec{{"elg1024", made, "never"}}, ""}, judged, ErrWeakKey, 0, time.Time{}},
		{keySpec{"p256", "nistp256", "never", []subkeySpec{never}, ""}, judged, ErrWeakKey, 0, time.Time{}},
		{keySpec{"p384sub", "ed25519", "never", []subkeySpec{{"nistp384", made, "never"}}, ""}, judged, ErrWeakKey, 0, time.Time{}},
		{keySpec{"signonly", "ed25519", "never", nil, ""}, judged, ErrNoEncryption, 0, time.Time{}},
		{keySpec{"expired", "ed25519", "1y", []subkeySpec{never}, ""}, judged, ErrExpiredKey, 1, made.AddDate(0, 0, 365)},
		{keySpec{"expiring2", "ed25519", "1095d", []subkeySpec{cv(made, "800d")}, ""}, judged, nil, 1, made.AddDate(0, 0, 800)},
		{keySpec{"lastsecond", "ed25519", "365d", []subkeySpec{never}, ""}, made.AddDate(0, 0, 365).Add(-time.Second), nil, 1, made.AddDate(0, 0, 365)},
		{keySpec{"firstsecond", "ed25519", "365d", []subkeySpec{never}, ""}, made.AddDate(0, 0, 365), ErrExpiredKey, 1, made.AddDate(0, 0, 365)},
		{keySpec{"expiredsub", "ed25519", "never", []subkeySpec{cv(made, "1y")}, ""}, judged, ErrExpiredKey, 1, made.AddDate(0, 0, 365)},
		{keySpec{"bothexpired", "ed25519", "never", []subkeySpec{cv(made, "600d"), cv(second, "30d")}, ""}, judged, ErrExpiredKey, 1, made.AddDate(0, 0, 600)},
		{keySpec{"expiredandrevoked", "ed25519", "never", []subkeySpec{never, cv(second, "30d")}, revokeSubkey1}, judged, errAny, 2, second.AddDate(0, 0, 30)},
		{keySpec{"revokedsub", "ed25519", "never", []subkeySpec{never}, revokeSubkey1}, judged, ErrRevokedKey, 0, time.Time{}},
		{keySpec{"two", "ed25519", "never", []subkeySpec{never, cv(second, "never")}, ""}, judged, nil, 2, time.Time{}},
		{keySpec{"twooneexpired", "ed25519", "never", []subkeySpec{never, cv(second, "30d")}, ""}, judged, nil, 1, time.Time{}},
		{keySpec{"twoonerevoked", "ed25519", "never", []subkeySpec{cv(second, "never"), never}, revokeSubkey1}, judged, nil, 2, time.Time{}},
		{keySpec{"twooneweak", "ed25519", "never", []subkeySpec{never, {"nistp256", second, "never"}}, ""}, judged, nil, 1, time.Time{}},
		{keySpec{"future", "ed25519", "never", []subkeySpec{cv(second, "never")}, ""}, second.Add(-time.Second), errAny, 0, time.Time{}},
		{keySpec{"twoonefuture", "ed25519", "never", []subkeySpec{never, cv(second, "never")}, ""}, second.Add(-time.Second), nil, 1, time.Time{}},
	} {
		public, fingerprints := gpg.make(c.key)
		a, err := ParseAuditor(public, c.at)
		again, lerr := LoadAuditor(public, c.at)
		switch {
		case c.want == nil && again.Subkey != a.Subkey:
			t.Errorf("%s: loaded with the subkey %s, %v, want %s", c.key.name, again.Subkey, lerr, a.Subkey)
		case c.want != nil && (err == nil || c.want != errAny && !errors.Is(err, c.want)):
			t.Errorf("%s: %+v, %v, want %v", c.key.name, a, err, c.want)
		case c.want != nil: // what was good once is loaded all the same
			a, err = again, lerr
		}
		if c.pinned == 0 {
			if err == nil {
				t.Errorf("%s: loaded %+v", c.key.name, a)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.key.name, err)
			continue
		}
		if a.Fingerprint != fingerprints[0] || a.Subkey != fingerprints[c.pinned] || !a.Expires.Equal(c.expires) || a.UserID != c.key.name+"@example.org" {
			t.Errorf("%s: %+v, want subkey %d of %v until %v", c.key.name, a, c.pinned, fingerprints, c.expires)
		}
		checkWrapOpens(t, gpg, a, c.key.name)
	}
}

// errAny stands for an error without a name of its own.
var errAny = errors.New("any error")

// checkWrapOpens: what is encrypted to a pinned subkey, gpg opens with it, and
// the message names that subkey and no other.
func checkWrapOpens(t *testing.T, gpg gpgHome, a Auditor, text string) {
	t.Helper()
	message, err := EncryptTo(rand.Reader, []Auditor{a}, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := Recipients(message)
	if err != nil || len(ids) != 1 || ids[0] != a.KeyID() || !strings.HasSuffix(a.Subkey, ids[0]) {
		t.Errorf("%s: recipients %v, %v, want %s", text, ids, err, a.KeyID())
	}
	if got := gpg.decrypt(message, "--passphrase", ""); string(got) != text {
		t.Errorf("%s: gpg decrypts %q", text, got)
	}
}

// TestUserIDs: the primary user id is shown; a revoked one does not count.
func TestUserIDs(t *testing.T) {
	gpg := newGPG(t)
	public, _ := gpg.make(keySpec{"first", "ed25519", "never", []subkeySpec{{"cv25519", made, "never"}},
		"adduid\nSecond Person\nsecond@example.org\n\nuid 1\nrevuid\ny\n0\n\ny\nsave\n"})
	if a, err := ParseAuditor(public, judged); err != nil || a.UserID != "Second Person <second@example.org>" {
		t.Errorf("%q, %v, want the second user id", a.UserID, err)
	}
	public, _ = gpg.make(keySpec{"ärger", "ed25519", "never", []subkeySpec{{"cv25519", made, "never"}}, ""})
	if a, err := ParseAuditor(public, judged); err != nil || a.UserID != "ärger@example.org" {
		t.Errorf("%q, %v", a.UserID, err)
	}
}

// v6Key makes a key of RFC 9580, which GnuPG 2.2 cannot read.
func v6Key(t *testing.T) []byte {
	t.Helper()
	config := keyConfig(rand.Reader, made)
	config.V6Keys, config.Algorithm = true, packet.PubKeyAlgoEd25519
	entity, err := openpgp.NewEntity("v6", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := entity.Serialize(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestOneKeyPerFile: go-crypto passes over keys that it cannot read, and over
// armored blocks behind the first. Both once left out an auditor without a word.
func TestOneKeyPerFile(t *testing.T) {
	pub, sec, err := GenerateAuditor("One", nil, rand.Reader, made)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := GenerateAuditor("Other", nil, rand.Reader, made)
	if err != nil {
		t.Fatal(err)
	}
	one, two, v6 := binaryKey(t, pub), binaryKey(t, other), v6Key(t)
	v5 := bytes.Clone(two)
	v5[2] = 5 // behind tag and length
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"armored, then armored":          {join(pub, other), errAny},
		"the same twice":                 {join(pub, pub), errAny},
		"text between":                   {join(pub, []byte("\nand now\n\n"), other), errAny},
		"armored public, then secret":    {join(pub, sec), ErrSecretKey},
		"armored secret, then public":    {join(sec, pub), ErrSecretKey},
		"armored, then a cut block":      {join(pub, other[:len(other)/2]), ErrEmptyKey},
		"armored, then a signature":      {join(pub, []byte("-----BEGIN PGP SIGNATURE-----\n\n=twTO\n-----END PGP SIGNATURE-----\n")), ErrEmptyKey},
		"binary, then binary":            {join(one, two), errAny},
		"binary, then cut":               {join(one, two[:len(two)-9]), errAny},
		"binary, then a v6 key":          {join(one, v6), errAny},
		"a v6 key, then binary":          {join(v6, one), errAny},
		"binary, then a v5 key":          {join(one, v5), errAny},
		"binary, then one byte":          {join(one, []byte{0x99}), ErrEmptyKey},
		"binary, then text":              {join(one, []byte("hello\n")), ErrEmptyKey},
		"binary, then a length too much": {join(one, []byte{0xcd, 0xff, 0xff, 0xff, 0xff, 0xff}), ErrEmptyKey},
		"a v6 key":                       {v6, ErrWeakKey},
		"a v5 key":                       {v5, errAny},
		"cut behind the user id":         {one[:len(one)-8], errAny},
	} {
		a, err := ParseAuditor(c.data, judged)
		if err == nil || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, a, err, c.want)
		}
		if err == nil {
			continue
		}
		if _, err := LoadAuditor(c.data, judged); err == nil {
			t.Errorf("%s: LoadAuditor accepts it", name)
		}
	}
	for name, data := range map[string][]byte{
		"text around":     join([]byte("My key:\n\n"), pub, []byte("\nBest regards\n")),
		"CRLF":            bytes.ReplaceAll(pub, []byte("\n"), []byte("\r\n")),
		"armor headers":   bytes.Replace(pub, []byte("BLOCK-----\n\n"), []byte("BLOCK-----\nVersion: GnuPG v2\nComment: x\n\n"), 1),
		"without the CRC": dropCRC(pub),
		"binary":          one,
	} {
		a, err := ParseAuditor(data, judged)
		if err != nil || a.Fingerprint != mustAuditor(t, pub).Fingerprint {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func binaryKey(t *testing.T, armored []byte) []byte {
	t.Helper()
	binary, err := dearmor(armored)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// dropCRC takes the line out that starts with '='.
func dropCRC(armored []byte) []byte {
	var out []byte
	for line := range bytes.Lines(armored) {
		if line[0] != '=' {
			out = append(out, line...)
		}
	}
	return out
}

// TestEveryByteOfAKey: a key with one byte changed, or cut, is refused, or is
// still one whose pinned subkey the original self-signature covers.
func TestEveryByteOfAKey(t *testing.T) {
	pub, _, err := GenerateAuditor("One", nil, rand.Reader, made)
	if err != nil {
		t.Fatal(err)
	}
	good, bin := mustAuditor(t, pub), binaryKey(t, pub)
	accepted := 0
	for i := range bin {
		for _, mask := range []byte{0x01, 0x40, 0xff} {
			data := bytes.Clone(bin)
			data[i] ^= mask
			a, err := ParseAuditor(data, judged)
			if err != nil {
				continue
			}
			accepted++
			if a.Fingerprint != good.Fingerprint || a.Subkey != good.Subkey || a.UserID != good.UserID || !a.Expires.IsZero() {
				t.Fatalf("byte %d with %#x: accepted as %+v", i, mask, a)
			}
		}
		if a, err := ParseAuditor(bin[:i], judged); err == nil {
			t.Fatalf("cut at %d of %d: accepted as %+v", i, len(bin), a)
		}
	}
	if limit := len(bin) / 4; accepted > limit {
		t.Errorf("%d changes do not matter, expected at most %d (unhashed parts of signatures)", accepted, limit)
	}
}

// TestGeneratedUserIDs: what GenerateAuditor makes, ParseAuditor reads back, or
// it says why it cannot be.
func TestGeneratedUserIDs(t *testing.T) {
	for user, ok := range map[string]bool{
		"Anna": true, "Anna <a@example.org>": true, "Änna & Co, \"x\"": true, "a@example.org": true,
		"Anna <a@example.org> <b@example.org>": false, "Anna (comment)": false, "Anna <": false,
	} {
		pub, _, err := GenerateAuditor(user, nil, rand.Reader, made)
		if (err == nil) != ok {
			t.Errorf("%q: %v, want success: %v", user, err, ok)
		}
		if err != nil {
			continue
		}
		if a, err := ParseAuditor(pub, made); err != nil || a.UserID != user {
			t.Errorf("%q: reads back as %q, %v", user, a.UserID, err)
		}
	}
	if _, _, err := GenerateAuditor("x", nil, &failAfter{10}, made); !errors.Is(err, errFailed) {
		t.Errorf("no randomness: %v", err)
	}
	if got := fmt.Sprint(Auditor{}.KeyID()); got != "" {
		t.Errorf("a zero Auditor has key id %q", got)
	}
}
