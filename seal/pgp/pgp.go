// Package pgp is the OpenPGP of logvault: period keys, wraps, auditors' keys.
package pgp

import (
	"context"
	"errors"
	"io"
	"time"

	"logvault/vault"
)

// Errors that callers branch on.
var (
	ErrSecretKey    = errors.New("secret key given")
	ErrEmptyKey     = errors.New("no key found")
	ErrExpiredKey   = errors.New("key has expired")
	ErrRevokedKey   = errors.New("key is revoked")
	ErrWeakKey      = errors.New("key is too weak")
	ErrNoEncryption = errors.New("key has no encryption subkey")
	ErrWrongKey     = errors.New("message is not for this key")
	ErrNoKey        = errors.New("no secret key")
)

// Auditor is a public key that wraps are encrypted to.
type Auditor struct {
	Fingerprint string // 40 lower-case hex digits, primary key
	Subkey      string // 40 lower-case hex digits, encryption subkey
	UserID      string
	Expires     time.Time // zero: never
}

// ParseAuditor reads one public key, armored or binary, and judges it at now.
func ParseAuditor(data []byte, now time.Time) (Auditor, error) { panic("being written") }

// Armored returns the public key, armored, to be kept and parsed again.
func (a Auditor) Armored() ([]byte, error) { panic("being written") }

// KeyID returns the 16 hex digits by which a message names the encryption subkey.
func (a Auditor) KeyID() string { panic("being written") }

// GenerateAuditor makes an auditor's key pair, armored.
func GenerateAuditor(userID string, passphrase []byte, random io.Reader, now time.Time) (pub, sec []byte, err error) {
	panic("being written")
}

// PeriodKey is a fresh period key pair; its secret is in locked memory until Destroy.
type PeriodKey struct{}

func GeneratePeriod(random io.Reader) (*PeriodKey, error)                { panic("being written") }
func (k *PeriodKey) Public() []byte                                      { panic("being written") }
func (k *PeriodKey) Wrap(random io.Reader, to []Auditor) ([]byte, error) { panic("being written") }
func (k *PeriodKey) Destroy()                                            { panic("being written") }

// PublicKey is the public half of a period key.
type PublicKey struct{}

func ParsePublic(packets []byte) (*PublicKey, error) { panic("being written") }
func (p *PublicKey) Hash() vault.Hash                { panic("being written") }
func (p *PublicKey) Encrypt(w io.Writer, random io.Reader) (io.WriteCloser, error) {
	panic("being written")
}

// Recipients returns the key ids (16 hex digits) that a message is encrypted to.
func Recipients(message []byte) ([]string, error) { panic("being written") }

// EncryptTo encrypts data to auditors.
func EncryptTo(random io.Reader, to []Auditor, data []byte) ([]byte, error) { panic("being written") }

// Opener decrypts messages addressed to an auditor.
type Opener interface {
	Open(ctx context.Context, message []byte) ([]byte, error)
}

// OpenKeyFile reads an exported secret key.
func OpenKeyFile(data []byte, passphrase func() ([]byte, error)) (Opener, error) {
	panic("being written")
}

// LocalGPG opens with the machine's gpg.
func LocalGPG(home string) Opener { panic("being written") }

// Secret is an opened period secret.
type Secret struct{}

func OpenSecret(wrapContent []byte) (*Secret, error)     { panic("being written") }
func (s *Secret) Decrypt(r io.Reader) (io.Reader, error) { panic("being written") }
func (s *Secret) PublicHash() vault.Hash                 { panic("being written") }
func (s *Secret) Destroy()                               { panic("being written") }
