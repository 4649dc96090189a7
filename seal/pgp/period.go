package pgp

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"logvault/vault"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/ecdh"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// periodName is the user id of every period key. GnuPG imports no key without one.
const periodName = "logvault period key"

// PeriodKey is a fresh period key pair. It exists between its generation and
// the read-back of its wrap, no longer. Not for concurrent use.
type PeriodKey struct {
	public []byte
	secret *lockedBuffer // the transferable secret key; nil after Destroy
}

// GeneratePeriod makes a key pair. Call Destroy as soon as the wrap is stored.
func GeneratePeriod(random io.Reader) (*PeriodKey, error) {
	config := keyConfig(random, periodTime)
	entity, err := openpgp.NewEntity(periodName, "", "", config)
	if err != nil {
		return nil, fmt.Errorf("generating a period key: %w", err)
	}
	defer eraseEntity(entity)
	var public bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		return nil, fmt.Errorf("writing a period public key: %w", err)
	}
	secret, err := newLockedBuffer(maxPublic)
	if err != nil {
		return nil, err
	}
	if err := entity.SerializePrivateWithoutSigning(secret, config); err != nil {
		secret.destroy()
		return nil, fmt.Errorf("writing a period secret key: %w", err)
	}
	return &PeriodKey{public: public.Bytes(), secret: secret}, nil
}

// Public returns the public packets, as the `key` entry holds them.
func (k *PeriodKey) Public() []byte { return bytes.Clone(k.public) }

// Wrap encrypts the secret to all of to, which must not be empty.
func (k *PeriodKey) Wrap(random io.Reader, to []Auditor) ([]byte, error) {
	if k.secret == nil {
		return nil, errors.New("wrapping a period key: its secret was destroyed")
	}
	wrap, err := EncryptTo(random, to, k.secret.bytes())
	if err != nil {
		return nil, fmt.Errorf("wrapping a period key: %w", err)
	}
	return wrap, nil
}

// Destroy overwrites the secret. It may be called again.
func (k *PeriodKey) Destroy() {
	if k.secret != nil {
		k.secret.destroy()
		k.secret = nil
	}
}

// eraseEntity overwrites the scalars of an entity's private keys.
func eraseEntity(e *openpgp.Entity) {
	erase := func(k *packet.PrivateKey) {
		if k == nil {
			return
		}
		switch key := k.PrivateKey.(type) {
		case *eddsa.PrivateKey:
			clear(key.D)
		case *ecdh.PrivateKey:
			clear(key.D)
		}
	}
	erase(e.PrivateKey)
	for i := range e.Subkeys {
		erase(e.Subkeys[i].PrivateKey)
	}
}

// PublicKey is the public half of a period key. Safe for concurrent use.
type PublicKey struct {
	hash   vault.Hash
	subkey *packet.PublicKey
}

// ParsePublic parses the public packets of a period key. It accepts only the
// form that GeneratePeriod writes, byte for byte: v4, one user id, one Curve25519
// encryption subkey, the constant creation time, no expiry, valid signatures.
func ParsePublic(packets []byte) (*PublicKey, error) {
	if len(packets) > maxPublic {
		return nil, fmt.Errorf("period public key: %d bytes, expected at most %d", len(packets), maxPublic)
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(packets))
	if err != nil {
		return nil, fmt.Errorf("period public key: %w", err)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("period public key: %d keys, expected 1", len(list))
	}
	if err := checkPeriod(list[0]); err != nil {
		return nil, fmt.Errorf("period public key: %w", err)
	}
	var again bytes.Buffer
	if err := list[0].Serialize(&again); err != nil {
		return nil, fmt.Errorf("period public key: %w", err)
	}
	if !bytes.Equal(again.Bytes(), packets) {
		return nil, errors.New("period public key: not in canonical form")
	}
	return &PublicKey{hash: vault.HashOf(packets), subkey: list[0].Subkeys[0].PublicKey}, nil
}

// checkPeriod checks the properties that make an entity a period key.
func checkPeriod(e *openpgp.Entity) error {
	signature, identity := e.PrimarySelfSignature()
	if signature == nil || identity == nil || identity.Name != periodName || len(e.Identities) != 1 {
		return fmt.Errorf("expected the one user id %q with a valid signature", periodName)
	}
	if len(e.Subkeys) != 1 {
		return fmt.Errorf("%d subkeys, expected 1", len(e.Subkeys))
	}
	primary, subkey := e.PrimaryKey, e.Subkeys[0]
	for _, k := range []*packet.PublicKey{primary, subkey.PublicKey} {
		if err := suitable(k); err != nil {
			return err
		}
		if !k.CreationTime.Equal(periodTime) {
			return fmt.Errorf("created %v, expected %v", k.CreationTime.UTC(), periodTime)
		}
	}
	if subkey.PublicKey.PubKeyAlgo != packet.PubKeyAlgoECDH || !subkey.Sig.FlagEncryptStorage {
		return ErrNoEncryption
	}
	if len(e.Revocations)+len(subkey.Revocations)+len(identity.Revocations) > 0 {
		return ErrRevokedKey
	}
	for _, s := range []*packet.Signature{signature, subkey.Sig} {
		if s.KeyLifetimeSecs != nil && *s.KeyLifetimeSecs != 0 || s.SigLifetimeSecs != nil && *s.SigLifetimeSecs != 0 {
			return errors.New("has an expiry date, expected none")
		}
	}
	return nil
}

// Hash returns the SHA-256 of the public packets, which names the key.
func (p *PublicKey) Hash() vault.Hash { return p.hash }

// Encrypt starts a message to p. What is written to the result is encrypted to
// w in pieces of 64 KiB; the message is complete when Close has returned nil.
// w is not closed. The writer is not for concurrent use.
func (p *PublicKey) Encrypt(w io.Writer, random io.Reader) (io.WriteCloser, error) {
	return newMessage(w, random, []*packet.PublicKey{p.subkey})
}

// Secret is an opened period secret. Not for concurrent use with Destroy.
type Secret struct {
	entity *openpgp.Entity
	hash   vault.Hash
}

// OpenSecret parses the text of a wrap, as an Opener returned it. The caller
// should overwrite wrapContent afterwards.
func OpenSecret(wrapContent []byte) (*Secret, error) {
	if len(wrapContent) > maxPublic {
		return nil, fmt.Errorf("period secret: %d bytes, expected at most %d", len(wrapContent), maxPublic)
	}
	list, err := openpgp.ReadKeyRing(bytes.NewReader(wrapContent))
	if err != nil {
		return nil, fmt.Errorf("period secret: %w", err)
	}
	if len(list) != 1 || list[0].PrivateKey == nil {
		return nil, fmt.Errorf("period secret: %d keys, expected 1 secret key", len(list))
	}
	entity := list[0]
	if err := checkPeriod(entity); err != nil {
		return nil, fmt.Errorf("period secret: %w", err)
	}
	if k := entity.Subkeys[0].PrivateKey; k == nil || k.Encrypted || k.Dummy() {
		return nil, errors.New("period secret: its encryption subkey has no readable secret")
	}
	var public bytes.Buffer
	if err := entity.Serialize(&public); err != nil {
		return nil, fmt.Errorf("period secret: %w", err)
	}
	return &Secret{entity: entity, hash: vault.HashOf(public.Bytes())}, nil
}

// PublicHash returns the hash of the public key that s belongs to. A caller
// compares it with the ledger's `key` entry: a wrap could hold any key.
func (s *Secret) PublicHash() vault.Hash { return s.hash }

// Decrypt reads a message that PublicKey.Encrypt wrote. It accepts that form
// only: AES-256, SEIPD v1, one literal packet, nothing after it. A message to
// another key gives ErrWrongKey.
//
// The text is released as it is decrypted, before its MDC has been seen. Only an
// io.EOF from the reader says that the message was whole; any damage gives an
// error that wraps ErrDamaged instead. So compare the object's hash with the
// ledger before a decrypted line goes anywhere.
func (s *Secret) Decrypt(r io.Reader) (io.Reader, error) {
	if s.entity == nil {
		return nil, errors.New("period secret was destroyed")
	}
	return openMessage(r, s.entity.Subkeys[0].PrivateKey)
}

// Destroy overwrites the secret scalars. It may be called again.
func (s *Secret) Destroy() {
	if s.entity != nil {
		eraseEntity(s.entity)
		s.entity = nil
	}
}
