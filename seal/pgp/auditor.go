package pgp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

// Auditor is a public key to which wraps and register records are encrypted,
// pinned to one of its encryption subkeys. Make one with ParseAuditor or
// LoadAuditor.
type Auditor struct {
	Fingerprint string    // of the primary key: 40 lower-case hex digits
	Subkey      string    // of the encryption subkey: 40 lower-case hex digits
	UserID      string    // the primary user id
	Expires     time.Time // when the primary key or the subkey expires, whichever is first; zero: never

	subkey *packet.PublicKey
}

// KeyID returns the 16 lower-case hex digits by which messages name the subkey.
func (a Auditor) KeyID() string {
	if len(a.Subkey) < 16 {
		return ""
	}
	return a.Subkey[len(a.Subkey)-16:]
}

// ParseAuditor reads a file with one public key, armored or binary, judges it at
// now and picks its newest usable encryption subkey. The errors say what was
// found and wrap ErrSecretKey, ErrEmptyKey, ErrRevokedKey, ErrExpiredKey,
// ErrWeakKey or ErrNoEncryption. Accepted are v4 keys of RSA with at least
// 3072 bits or of Curve25519 in the form that GnuPG 2.2 knows.
func ParseAuditor(data []byte, now time.Time) (Auditor, error) {
	entity, err := readPublic(data)
	if err != nil {
		return Auditor{}, fmt.Errorf("auditor key: %w", err)
	}
	a := Auditor{Fingerprint: hex.EncodeToString(entity.PrimaryKey.Fingerprint)}
	if a.Expires, err = judgePrimary(entity, now); err != nil {
		return Auditor{}, fmt.Errorf("auditor key %s: %w", a.Fingerprint, err)
	}
	subkey, err := newestSubkey(entity, now)
	if err != nil {
		return Auditor{}, fmt.Errorf("auditor key %s: %w", a.Fingerprint, err)
	}
	a.UserID = entity.PrimaryIdentity().Name
	return a.pin(subkey), nil
}

// LoadAuditor reads a key that ParseAuditor accepted earlier. What has expired
// since is taken as in its last second: an auditor who is away must not stop the
// sealing. Errors are those of ParseAuditor, but for ErrExpiredKey.
func LoadAuditor(data []byte, now time.Time) (Auditor, error) {
	entity, err := readPublic(data)
	if err != nil {
		return Auditor{}, fmt.Errorf("auditor key: %w", err)
	}
	if end := usableUntil(entity); !end.IsZero() && !now.Before(end) {
		now = end.Add(-time.Second)
	}
	return ParseAuditor(data, now)
}

// usableUntil returns when the primary key or the last subkey that can encrypt
// expires, whichever is first; zero for never.
func usableUntil(e *openpgp.Entity) (end time.Time) {
	for i := range e.Subkeys {
		s := &e.Subkeys[i]
		if !encrypts(s) || len(s.Revocations) > 0 || suitable(s.PublicKey) != nil {
			continue
		}
		last := expiry(s.PublicKey, s.Sig)
		if last.IsZero() {
			end = last
			break
		}
		if last.After(end) {
			end = last
		}
	}
	if signature, _ := e.PrimarySelfSignature(); signature != nil {
		if last := expiry(e.PrimaryKey, signature); !last.IsZero() && (end.IsZero() || last.Before(end)) {
			end = last
		}
	}
	return end
}

// pin completes a with a subkey.
func (a Auditor) pin(s *openpgp.Subkey) Auditor {
	a.subkey = s.PublicKey
	a.Subkey = hex.EncodeToString(s.PublicKey.Fingerprint)
	if e := expiry(s.PublicKey, s.Sig); !e.IsZero() && (a.Expires.IsZero() || e.Before(a.Expires)) {
		a.Expires = e
	}
	return a
}

// readKeys reads armored or binary keys. An armored block of a secret key is
// known by its header, a binary one by its packets.
func readKeys(data []byte) (openpgp.EntityList, []byte, error) {
	if len(data) > maxKey {
		return nil, nil, fmt.Errorf("%d bytes, expected at most %d", len(data), maxKey)
	}
	if len(data) > 0 && data[0]&0x80 == 0 { // binary packets start with bit 7 set
		var err error
		if data, err = dearmor(data); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrEmptyKey, err)
		}
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(data))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrEmptyKey, err)
	}
	if len(list) == 0 {
		return nil, nil, ErrEmptyKey
	}
	return list, data, nil
}

// armorBegin starts the first line of an armored block.
const armorBegin = "-----BEGIN PGP "

// dearmor returns the packets of all armored blocks in data, one after the
// other: a second key in the file must not be passed over.
func dearmor(data []byte) ([]byte, error) {
	at := bytes.Index(data, []byte(armorBegin))
	if at < 0 {
		return nil, errors.New("neither armored nor binary OpenPGP")
	}
	var packets []byte
	for at >= 0 {
		data = data[at:]
		at = bytes.Index(data[len(armorBegin):], []byte(armorBegin))
		text := data
		if at >= 0 {
			at += len(armorBegin)
			text = data[:at]
		}
		block, err := armor.Decode(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("damaged armor: %w", err)
		}
		if block.Type != openpgp.PublicKeyType && block.Type != openpgp.PrivateKeyType {
			return nil, fmt.Errorf("it is a %s", block.Type)
		}
		binary, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("damaged armor: %w", err)
		}
		packets = append(packets, binary...)
	}
	return packets, nil
}

// checkOneKey refuses packets of more than one key, and bytes that are no
// packets. go-crypto passes over keys that it cannot read if one is good, which
// would leave out an auditor without a word.
func checkOneKey(packets []byte) error {
	reader := packet.NewOpaqueReader(bytes.NewReader(packets))
	keys := 0
	for {
		p, err := reader.Next()
		switch {
		case err == io.EOF && keys > 1:
			return fmt.Errorf("%d keys, expected one key per file", keys)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%w: damaged packets: %w", ErrEmptyKey, err)
		case p.Tag == tagSecretKey || p.Tag == tagSecretSubkey:
			return ErrSecretKey
		case p.Tag == tagPublicKey:
			keys++
		}
	}
}

// Packet tags of keys.
const tagSecretKey, tagPublicKey, tagSecretSubkey = 5, 6, 7

func readPublic(data []byte) (*openpgp.Entity, error) {
	list, binary, err := readKeys(data)
	if err != nil {
		return nil, err
	}
	if err := checkOneKey(binary); err != nil {
		return nil, err
	}
	return list[0], nil
}

// judgePrimary returns when the primary key expires, or why it cannot be used.
func judgePrimary(e *openpgp.Entity, now time.Time) (time.Time, error) {
	if len(e.Revocations) > 0 {
		return time.Time{}, ErrRevokedKey
	}
	if err := suitable(e.PrimaryKey); err != nil {
		return time.Time{}, err
	}
	signature, identity := e.PrimarySelfSignature()
	if signature == nil || identity == nil {
		return time.Time{}, errors.New("no user id with a valid signature")
	}
	if identity.Revoked(now) {
		return time.Time{}, fmt.Errorf("user id: %w", ErrRevokedKey)
	}
	if e.PrimaryKey.CreationTime.After(now) {
		return time.Time{}, fmt.Errorf("created %s, after now: check the clock", date(e.PrimaryKey.CreationTime))
	}
	end := expiry(e.PrimaryKey, signature)
	if !end.IsZero() && !now.Before(end) {
		return time.Time{}, fmt.Errorf("%w on %s", ErrExpiredKey, date(end))
	}
	return end, nil
}

// newestSubkey picks the most recently bound subkey that can encrypt now. If
// there is none, the error names the reason of the last one that was close.
func newestSubkey(e *openpgp.Entity, now time.Time) (*openpgp.Subkey, error) {
	var best *openpgp.Subkey
	reason := ErrNoEncryption
	for i := range e.Subkeys {
		s := &e.Subkeys[i]
		if !encrypts(s) {
			continue
		}
		end := expiry(s.PublicKey, s.Sig)
		switch err := suitable(s.PublicKey); {
		case len(s.Revocations) > 0:
			reason = fmt.Errorf("encryption subkey: %w", ErrRevokedKey)
		case s.PublicKey.CreationTime.After(now):
			reason = fmt.Errorf("encryption subkey created %s, after now: check the clock", date(s.PublicKey.CreationTime))
		case !end.IsZero() && !now.Before(end):
			reason = fmt.Errorf("encryption subkey: %w on %s", ErrExpiredKey, date(end))
		case err != nil:
			reason = fmt.Errorf("encryption subkey: %w", err)
		case best == nil || s.Sig.CreationTime.After(best.Sig.CreationTime):
			best = s
		}
	}
	if best == nil {
		return nil, reason
	}
	return best, nil
}

// encrypts reports whether a subkey is meant for encryption.
func encrypts(s *openpgp.Subkey) bool {
	return s.PublicKey.PubKeyAlgo.CanEncrypt() && s.Sig.FlagsValid && (s.Sig.FlagEncryptStorage || s.Sig.FlagEncryptCommunications)
}

// minRSA is the least acceptable length of an RSA modulus, in bits.
const minRSA = 3072

// suitable checks version, algorithm and strength of one key or subkey.
func suitable(k *packet.PublicKey) error {
	if k.Version != 4 {
		return fmt.Errorf("%w: version %d, expected 4, which GnuPG 2.2 reads", ErrWeakKey, k.Version)
	}
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoRSA:
		bits, err := k.BitLength()
		if err != nil {
			return fmt.Errorf("%w: %v", ErrWeakKey, err)
		}
		if bits < minRSA {
			return fmt.Errorf("%w: RSA with %d bits, expected at least %d", ErrWeakKey, bits, minRSA)
		}
		return nil
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoECDH:
		if curve, err := k.Curve(); err == nil && curve == packet.Curve25519 {
			return nil
		}
	}
	return fmt.Errorf("%w: algorithm %d, expected RSA (1) with at least %d bits or Curve25519 (18, 22)", ErrWeakKey, k.PubKeyAlgo, minRSA)
}

// expiry returns when k expires by its binding signature, zero for never.
func expiry(k *packet.PublicKey, signature *packet.Signature) time.Time {
	if signature.KeyLifetimeSecs == nil || *signature.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return k.CreationTime.Add(time.Duration(*signature.KeyLifetimeSecs) * time.Second).UTC()
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02") }

// GenerateAuditor makes a Curve25519 key pair that never expires, both halves
// armored. userID is a name or "Name <address>", without other brackets. With a passphrase the secret
// half is encrypted under it (AES-256, iterated and salted SHA-256); with none
// it is in clear. GnuPG 2.2 imports and uses both.
func GenerateAuditor(userID string, passphrase []byte, random io.Reader, now time.Time) (pub, sec []byte, err error) {
	name, address := userID, ""
	if before, after, ok := strings.Cut(userID, " <"); ok && strings.HasSuffix(after, ">") {
		name, address = before, strings.TrimSuffix(after, ">")
	}
	config := keyConfig(random, now)
	config.S2KConfig = &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, S2KCount: 16 << 20}
	entity, err := openpgp.NewEntity(name, "", address, config)
	if err != nil {
		return nil, nil, fmt.Errorf("generating an auditor key: %w", err)
	}
	defer eraseEntity(entity)
	var public, secret bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		return nil, nil, fmt.Errorf("writing an auditor public key: %w", err)
	}
	if len(passphrase) > 0 {
		if err := entity.EncryptPrivateKeys(passphrase, config); err != nil {
			return nil, nil, fmt.Errorf("encrypting an auditor secret key: %w", err)
		}
	}
	if err := entity.SerializePrivateWithoutSigning(&secret, config); err != nil {
		return nil, nil, fmt.Errorf("writing an auditor secret key: %w", err)
	}
	defer clear(secret.Bytes())
	if pub, err = armored(openpgp.PublicKeyType, public.Bytes()); err != nil {
		return nil, nil, err
	}
	if sec, err = armored(openpgp.PrivateKeyType, secret.Bytes()); err != nil {
		return nil, nil, err
	}
	return pub, sec, nil
}

func armored(blockType string, data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, blockType, nil)
	if err != nil {
		return nil, fmt.Errorf("armoring: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("armoring: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("armoring: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
