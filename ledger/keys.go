package ledger

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"logvault/ledger/entry"
	"logvault/vault"
)

// Trust is what a reader knows about a ledger from outside: the content of a
// trust file. Nothing read from a vault can take its place.
type Trust struct {
	Log       string     `toml:"log"`                 // verifier key that must sign the checkpoint
	Recovery  string     `toml:"recovery"`            // verifier key that may name the next Log when that is lost
	Origin    string     `toml:"origin"`              // first line of the checkpoints
	Copies    []TrustKey `toml:"copies,omitempty"`    // cosignature/v1 keys of the copies
	Witnesses []TrustKey `toml:"witnesses,omitempty"` // cosignature/v1 keys of witnesses
	Quorum    int        `toml:"quorum"`              // how many keys of copies and witnesses must have cosigned
	KnownSize int64      `toml:"known_size"`          // a size that the ledger had already
	KnownRoot string     `toml:"known_root"`          // its root in hex, "" = not known
	TSA       *TrustTSA  `toml:"tsa,omitempty"`

	rotations []Rotation // followed to reach Log; see Following
}

// TrustKey is a named verifier key.
type TrustKey struct {
	Name string `toml:"name"`
	Key  string `toml:"key"`
}

// TrustTSA is what a reader pins of time-stamping authorities.
type TrustTSA struct {
	Roots  string `toml:"roots,multiline"`  // root certificates in PEM
	Policy string `toml:"policy,omitempty"` // object identifier that tokens must bear, "" = any
}

// Valid returns nil if the keys are verifier keys and the quorum can be reached.
func (t *Trust) Valid() error {
	if _, _, err := t.verifiers(0); err != nil {
		return err
	}
	if _, err := plainKey(t.Recovery); t.Recovery != "" && err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	keys := make(map[string]bool)
	for _, k := range slices.Concat(t.Copies, t.Witnesses) {
		if _, err := newCosignVerifier(k.Key); err == nil {
			keys[k.Key] = true
		}
	}
	if t.Quorum < 0 || t.Quorum > len(keys) {
		return fmt.Errorf("quorum is %d, expected 0 to %d, the number of cosignature keys", t.Quorum, len(keys))
	}
	return nil
}

// GenerateKey makes an Ed25519 key pair in the text form of notes. The name
// must hold no white space and no '+'; for a ledger key it is the origin.
func GenerateKey(random io.Reader, name string) (skey, vkey string, err error) {
	return newKey(random, name, algEd25519)
}

func newKey(random io.Reader, name string, alg byte) (skey, vkey string, err error) {
	if err := checkKeyName(name); err != nil {
		return "", "", err
	}
	secret := make([]byte, 1+ed25519.SeedSize)
	secret[0] = alg
	if _, err := io.ReadFull(random, secret[1:]); err != nil {
		return "", "", fmt.Errorf("drawing a note key: %w", err)
	}
	k := signerKey{name: name, alg: alg, key: ed25519.NewKeyFromSeed(secret[1:])}
	return fmt.Sprintf("PRIVATE+KEY+%s+%s+%s", name, k.id(), base64.StdEncoding.EncodeToString(secret)), k.vkey(), nil
}

// VerifierKey returns the verifier key that belongs to a signer key of
// GenerateKey or NewCosigner.
func VerifierKey(skey string) (string, error) {
	key, err := parseSignerKey(skey)
	if err != nil {
		return "", err
	}
	return key.vkey(), nil
}

func checkKeyName(name string) error {
	if name == "" || strings.ContainsAny(name, "+ \t\r\n") {
		return fmt.Errorf("key name %q: expected a word without '+'", name)
	}
	return nil
}

// signerKey is a parsed signer key of either algorithm.
type signerKey struct {
	name string
	alg  byte
	key  ed25519.PrivateKey
}

// public returns what a verifier key encodes: the algorithm and the public key.
func (k signerKey) public() []byte {
	return append([]byte{k.alg}, k.key.Public().(ed25519.PublicKey)...)
}

// id returns the key hash in hex.
func (k signerKey) id() string { return fmt.Sprintf("%08x", keyHash(k.name, k.public())) }

func (k signerKey) vkey() string {
	return k.name + "+" + k.id() + "+" + base64.StdEncoding.EncodeToString(k.public())
}

// parseSignerKey parses PRIVATE+KEY+<name>+<hash>+<base64(algorithm ‖ seed)>.
// Its errors do not quote the key.
func parseSignerKey(skey string) (signerKey, error) {
	part := strings.SplitN(skey, "+", 5)
	if len(part) != 5 || part[0] != "PRIVATE" || part[1] != "KEY" {
		return signerKey{}, errors.New("malformed signer key")
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(part[4])
	if err != nil || len(secret) != 1+ed25519.SeedSize {
		return signerKey{}, errors.New("malformed signer key")
	}
	k := signerKey{name: part[2], alg: secret[0], key: ed25519.NewKeyFromSeed(secret[1:])}
	if k.id() != part[3] {
		return signerKey{}, errors.New("signer key whose hash does not fit")
	}
	return k, nil
}

// verifiers returns the verifier of the log's heads of a size, and with it those
// of all cosignature keys. Copies may also be listed with the note keys of their
// own logs; these do not count as cosigners.
func (t *Trust) verifiers(size int64) (log note.Verifier, all []note.Verifier, err error) {
	vkey := t.at(size)
	if log, err = note.NewVerifier(vkey); err != nil {
		return nil, nil, fmt.Errorf("ledger key %q: %w", vkey, err)
	}
	all = []note.Verifier{log}
	for _, k := range slices.Concat(t.Copies, t.Witnesses) {
		v, err := newCosignVerifier(k.Key)
		if err == nil {
			all = append(all, v)
		} else if _, noteErr := note.NewVerifier(k.Key); noteErr != nil {
			return nil, nil, fmt.Errorf("key of %s: %w", k.Name, err)
		}
	}
	return log, all, nil
}

// UnpinnedTrust reads the keys from the log's own first entry. Whoever can
// write the vault can write that entry, so this serves display only, and what
// is found with it must be reported as unpinned.
func UnpinnedTrust(ctx context.Context, r vault.Reader, prefix string) (*Trust, error) {
	raw, err := readCheckpoint(ctx, r, prefix)
	if err != nil {
		return nil, err
	}
	body, err := parseNote(raw)
	if err != nil {
		return nil, err
	}
	if body.Size == 0 {
		return nil, fmt.Errorf("%s: no first entry to read keys from", prefix)
	}
	t := newTree(r, prefix, Checkpoint{Size: body.Size})
	list, err := t.bundle(ctx, 0)
	if err != nil {
		return nil, err
	}
	return firstTrust(list[0], body.Origin)
}

// firstTrust returns what a log's first entry says. A copy log's does not say
// the log's origin.
func firstTrust(data []byte, origin string) (*Trust, error) {
	first, err := entry.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("first entry: %w", err)
	}
	switch e := first.(type) {
	case *entry.Init:
		return &Trust{Log: e.Key, Recovery: e.Recovery, Origin: e.Origin}, nil
	case *entry.CopyInit:
		return &Trust{Log: e.Key, Origin: origin}, nil
	}
	return nil, fmt.Errorf("first entry: type %q, expected %q or %q", first.Type(), entry.TypeInit, entry.TypeCopyInit)
}

// cosigner returns the cosignature key with the given id, or "".
func (t *Trust) cosigner(keyID string) string {
	for _, k := range slices.Concat(t.Copies, t.Witnesses) {
		if v, err := newCosignVerifier(k.Key); err == nil && fmt.Sprintf("%08x", v.hash) == keyID {
			return k.Key
		}
	}
	return ""
}
