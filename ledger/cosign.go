package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// The algorithm bytes of note keys.
const (
	algEd25519  = 1 // plain note signatures: the log's own
	algCosignV1 = 4 // timestamped cosignatures: https://c2sp.org/tlog-cosignature
)

// NewCosigner makes a cosignature/v1 key pair in the text form of notes.
func NewCosigner(random io.Reader, name string) (skey, vkey string, err error) {
	return newKey(random, name, algCosignV1)
}

// Cosign signs a head: "I have seen it, at this time". The line is what
// ledger/cosignatures/<size>/<key id> holds, a note signature line with its LF:
//
//	— <name> base64(4-byte key hash ‖ 8-byte seconds ‖ 64-byte Ed25519 signature)
//
// and may also be added to the checkpoint itself.
func Cosign(cp Checkpoint, skey string, now time.Time) (line []byte, keyID string, err error) {
	k, err := parseSignerKey(skey)
	if err != nil {
		return nil, "", err
	}
	if k.alg != algCosignV1 {
		return nil, "", fmt.Errorf("cosigning with %s: algorithm %d, expected %d", k.name, k.alg, algCosignV1)
	}
	if now.Unix() < 0 {
		return nil, "", fmt.Errorf("cosigning at %v: before 1970", now)
	}
	blob := binary.BigEndian.AppendUint32(nil, keyHash(k.name, k.public()))
	blob = binary.BigEndian.AppendUint64(blob, uint64(now.Unix()))
	blob = append(blob, ed25519.Sign(k.key, cosignMessage(uint64(now.Unix()), cp.body()))...)
	return []byte("— " + k.name + " " + base64.StdEncoding.EncodeToString(blob) + "\n"), k.id(), nil
}

// VerifyCosignature checks one line of Cosign's form against a verifier key
// and returns the time that it states. The line has one spelling only.
func VerifyCosignature(cp Checkpoint, line []byte, vkey string) (time.Time, error) {
	v, err := newCosignVerifier(vkey)
	if err != nil {
		return time.Time{}, err
	}
	sig, err := parseSignatureLine(string(line))
	if err != nil {
		return time.Time{}, fmt.Errorf("cosignature: %w", err)
	}
	if sig.name != v.name || sig.hash != v.hash {
		return time.Time{}, fmt.Errorf("cosignature by %s+%08x, expected %s+%08x", sig.name, sig.hash, v.name, v.hash)
	}
	if !v.Verify([]byte(cp.body()), sig.bytes) {
		return time.Time{}, fmt.Errorf("cosignature by %s+%08x over size %d: invalid", v.name, v.hash, cp.Size)
	}
	return time.Unix(int64(binary.BigEndian.Uint64(sig.bytes)), 0).UTC(), nil
}

// cosignVerifier is a note.Verifier for cosignature/v1.
type cosignVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

var _ note.Verifier = (*cosignVerifier)(nil)

func newCosignVerifier(vkey string) (*cosignVerifier, error) {
	part := strings.SplitN(vkey, "+", 3)
	if len(part) != 3 || checkKeyName(part[0]) != nil {
		return nil, fmt.Errorf("verifier key %q: malformed", vkey)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(part[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignV1 {
		return nil, fmt.Errorf("verifier key %q: expected a cosignature/v1 key", vkey)
	}
	v := &cosignVerifier{name: part[0], hash: keyHash(part[0], key), key: key[1:]}
	if part[1] != fmt.Sprintf("%08x", v.hash) {
		return nil, fmt.Errorf("verifier key %q: key hash %08x expected", vkey, v.hash)
	}
	return v, nil
}

// Name returns the key's name.
func (v *cosignVerifier) Name() string { return v.name }

// KeyHash returns the key's hash.
func (v *cosignVerifier) KeyHash() uint32 { return v.hash }

// Verify reports whether sig, time and signature, is a cosignature of body.
func (v *cosignVerifier) Verify(body, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(v.key, cosignMessage(binary.BigEndian.Uint64(sig), string(body)), sig[8:])
}

func cosignMessage(unix uint64, body string) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", unix, body)
}

// keyHash identifies a key in a note; key is the algorithm byte and the public key.
func keyHash(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:])
}

// signatureLine is a parsed line of a note's signatures.
type signatureLine struct {
	name  string
	hash  uint32
	bytes []byte // after the key hash
}

// parseSignatureLine parses one line with its LF. It accepts only standard
// base64 with canonical padding bits, which x/mod/note does not insist on:
// otherwise one signature would have many spellings.
func parseSignatureLine(line string) (signatureLine, error) {
	rest, ok := strings.CutPrefix(line, "— ")
	body, okLF := strings.CutSuffix(rest, "\n")
	name, blob64, okName := strings.Cut(body, " ")
	if !ok || !okLF || !okName || checkKeyName(name) != nil || strings.ContainsAny(blob64, "\r\n") {
		return signatureLine{}, errors.New("malformed signature line")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(blob64)
	if err != nil || len(blob) < 5 {
		return signatureLine{}, errors.New("signature line: not a key hash and signature in base64")
	}
	return signatureLine{name, binary.BigEndian.Uint32(blob), blob[4:]}, nil
}
