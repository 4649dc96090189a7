// Package pgp is the OpenPGP of logvault: period keys, the wraps that hold
// their secrets, auditors' keys, and the messages between them. It is the only
// user of go-crypto.
//
// Everything it writes is RFC 4880 as GnuPG 2.2 reads it, and nothing else:
//
//   - Keys are v4: an EdDSA primary (algorithm 22) that only certifies and an
//     ECDH Curve25519 subkey (18) that only encrypts. Period keys carry the
//     constant creation time 2020-01-01T00:00:00Z and no expiry, because GnuPG
//     refuses a key "from the future", be it by minutes, and because what ends a
//     period is the destruction of the wraps, not a date in the key.
//   - Messages are one or more v3 PKESK packets and one SEIPD v1 packet (CFB with
//     an MDC) around one binary literal packet without name or date. No
//     compression, no signature.
//   - The cipher is AES-256, always. It is not negotiated: the packets are put
//     together here, because go-crypto's Encrypt falls back to AES-128 through a
//     recipient's preferences even when configured for AES-256.
//
// A wrap is a message to the auditors whose text is the period's transferable
// secret key. `gpg -d WRAP | gpg --import` in a throw-away GNUPGHOME gives a
// stranger the key that opens the segments.
//
// Secrets: the serialised period secret lives in locked memory and is
// overwritten by Destroy, as are the two scalars in go-crypto's key structures.
// Not covered: copies that go-crypto and the standard library make while they
// generate, serialise and use a key (big-endian and MPI encodings, session
// keys, AES round keys). They stay on the garbage-collected heap until reused.
// The process must therefore also switch off core dumps and should run
// without swap.
package pgp

import (
	"crypto"
	"errors"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Errors that callers branch on. They are wrapped with what was found and what
// was expected.
var (
	ErrSecretKey    = errors.New("this is a secret key, which must never reach the gateway")
	ErrEmptyKey     = errors.New("no OpenPGP key found")
	ErrExpiredKey   = errors.New("key has expired")
	ErrRevokedKey   = errors.New("key is revoked")
	ErrWeakKey      = errors.New("key is too weak or of an unsuitable kind")
	ErrNoEncryption = errors.New("key has no encryption subkey")
	ErrWrongKey     = errors.New("message is encrypted to other keys")
	ErrNoKey        = errors.New("no secret key to decrypt with")
	ErrPassphrase   = errors.New("wrong passphrase")
	ErrDamaged      = errors.New("OpenPGP message is damaged")
)

// Limits on what is read. A wrap with twenty auditors has less than 10 KiB.
const (
	maxKey     = 1 << 20  // a public or secret key file
	maxMessage = 64 << 20 // what an Opener decrypts, before and after
	maxPublic  = 4 << 10  // the public packets of a period key
)

// pieceSize is the partial length that packets are written in, and how much is
// read at once.
const pieceSize = 64 << 10

// periodTime is the creation time of every period key and its signatures.
var periodTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// keyConfig is the configuration under which keys are generated at a given time.
func keyConfig(random io.Reader, now time.Time) *packet.Config {
	return &packet.Config{
		Rand:          random,
		Time:          func() time.Time { return now },
		Algorithm:     packet.PubKeyAlgoEdDSA,
		Curve:         packet.Curve25519,
		DefaultHash:   crypto.SHA256,
		DefaultCipher: packet.CipherAES256,
		// Signatures are made once per key: no salt notation that old readers list as unknown.
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false),
	}
}
