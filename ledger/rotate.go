package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"logvault/ledger/entry"
	"logvault/vault"
)

// Rotation is a rotate entry with its place: from the head that first covers it
// on, the log is signed by New.
type Rotation struct {
	Index    int64      // of the entry
	Hash     vault.Hash // leaf hash of the entry: what a person types to accept it
	Old, New string     // verifier keys
	By       string     // entry.RotateLog or entry.RotateRecovery
	Recovery string     // the recovery key from here on, "" = as before
}

// Keys is the succession of a log's signing keys: those of its first entry, and
// what its rotate entries made of them. A head of size s is signed by the key
// that the last rotate entry below s names.
//
// A rotate entry is signed by the key that it ends or, when that is lost or
// stolen, by the recovery key. Only the recovery key names its own successor:
// else a thief of the log's key would take away what the owner answers with.
type Keys struct {
	log, recovery string
	rotations     []Rotation
	by            []string // the key that signed each of them
}

// NewKeys begins a succession with the verifier keys of a log's first entry;
// recovery is "" for a log without one.
func NewKeys(log, recovery string) *Keys { return &Keys{log: log, recovery: recovery} }

// Add takes in the rotate entry of index i, in the order of the log. It fails,
// and changes nothing, if the entry does not continue the succession.
func (k *Keys) Add(i int64, data []byte) error {
	e, err := decodeRotate(data)
	if err != nil {
		return err
	}
	by := k.log
	if e.By == entry.RotateRecovery {
		by = k.recovery
	}
	switch {
	case e.Old != k.log:
		return fmt.Errorf("ends the key %s, but the log is signed by %s", e.Old, k.log)
	case by == "":
		return errors.New("signed by a recovery key, but the log has none")
	case e.Recovery != "" && e.By != entry.RotateRecovery:
		return errors.New("names a recovery key without being signed by the one before")
	}
	msg, err := entry.Unsigned(data)
	if err != nil {
		return err
	}
	pub, err := plainKey(by)
	if err != nil {
		return err
	}
	if !ed25519.Verify(pub, msg, e.Signature) {
		return fmt.Errorf("not signed by %s", by)
	}
	if _, err := plainKey(e.New); err != nil {
		return err
	}
	k.rotations = append(k.rotations, Rotation{Index: i, Hash: LeafHash(data), Old: e.Old, New: e.New, By: e.By, Recovery: e.Recovery})
	k.by = append(k.by, by)
	k.log = e.New
	if e.Recovery != "" {
		k.recovery = e.Recovery
	}
	return nil
}

// Rotations returns what was added, in order.
func (k *Keys) Rotations() []Rotation { return slices.Clone(k.rotations) }

// errNoRotate says that a pinned key is none of a ledger's.
var errNoRotate = errors.New("no rotate entry leads on from")

// Following returns t with the key that signs now, so that ParseCheckpoint
// accepts each head by the key of its time. t may pin any key of the
// succession. From that key on, what a recovery key signed is followed only if
// t pins that recovery key, or one that named it. Errors wrap ErrUnsigned.
func (t *Trust) Following(k *Keys) (*Trust, error) {
	pinned := slices.IndexFunc(k.rotations, func(r Rotation) bool { return r.Old == t.Log })
	if pinned < 0 && t.Log != k.log {
		return nil, fmt.Errorf("%w: %w the key %s", ErrUnsigned, errNoRotate, t.Log)
	}
	next := *t
	next.Log, next.rotations = k.log, k.Rotations()
	if pinned < 0 {
		return &next, nil
	}
	for i, r := range k.rotations[pinned:] {
		if r.By == entry.RotateRecovery && k.by[pinned+i] != next.Recovery {
			return nil, fmt.Errorf("%w: entry %d rotates to the key %s by a recovery key that is not pinned", ErrUnsigned, r.Index, r.New)
		}
		if r.Recovery != "" {
			next.Recovery = r.Recovery
		}
	}
	return &next, nil
}

// Rotations returns the rotate entries that t has followed, in order.
func (t *Trust) Rotations() []Rotation { return slices.Clone(t.rotations) }

// at returns the key that signs heads of a size.
func (t *Trust) at(size int64) string {
	for _, r := range t.rotations {
		if size <= r.Index {
			return r.Old
		}
	}
	return t.Log
}

// RotateOptions says who makes a log's next key the one that signs.
type RotateOptions struct {
	// Trust pins the key that signs now, or an earlier one, and the recovery key.
	Trust *Trust
	// By is the signer key that authorises it: the log's present one or, when
	// that is lost, the recovery key.
	By string
	// Recovery is the verifier key of the next recovery key, "" = the same.
	Recovery string
	// Actor is the role written into the entry.
	Actor string
}

// Rotate makes cfg.SignerKey the key of an existing log: it keeps the last head
// of the old key, appends a rotate entry and signs the head that covers it with
// the new key, which is the commit point. The log is returned as Open does, with
// the errors of Append. If the log is signed by cfg.SignerKey already, as after
// a crash behind the commit point, it is only opened.
func Rotate(ctx context.Context, cfg Config, o RotateOptions) (*Log, Rotation, error) {
	l, err := newLog(cfg)
	if err != nil {
		return nil, Rotation{}, err
	}
	tree, err := OpenTree(ctx, cfg.Record, cfg.Prefix, o.Trust)
	if err != nil {
		return nil, Rotation{}, fmt.Errorf("rotating the key: %w", err)
	}
	if tree.Size() == 0 {
		return nil, Rotation{}, fmt.Errorf("rotating the key: %w: the log has no first entry", ErrNoLedger)
	}
	if tree.trust.Log == l.trust.Log {
		return reopenRotated(ctx, cfg, tree.trust)
	}
	data, err := o.entry(cfg, tree.trust, l.trust.Log)
	if err != nil {
		return nil, Rotation{}, fmt.Errorf("rotating the key: %w", err)
	}
	next := l.trust
	l.trust = tree.trust
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readyToRotate(ctx); err != nil {
		return nil, Rotation{}, err
	}
	index := l.cp.Size
	l.trust = next
	if err := l.commit(ctx, [][]byte{data}); err != nil {
		return nil, Rotation{}, fmt.Errorf("appending to the ledger: %w", err)
	}
	r := Rotation{Index: index, Hash: LeafHash(data), Old: tree.trust.Log, New: next.Log, By: o.by(tree.trust), Recovery: o.Recovery}
	if err := l.copyOut(ctx); err != nil {
		return l, r, &CopyError{err}
	}
	return l, r, nil
}

// readyToRotate is Open under the old key, with its last head kept.
func (l *Log) readyToRotate(ctx context.Context) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	if err := l.fence(ctx); err != nil {
		return err
	}
	if err := l.keep(ctx); err != nil {
		return err
	}
	return l.copyOut(ctx)
}

// reopenRotated opens a log whose last rotation is to its own key.
func reopenRotated(ctx context.Context, cfg Config, t *Trust) (*Log, Rotation, error) {
	var last Rotation
	if n := len(t.rotations); n > 0 {
		last = t.rotations[n-1]
	}
	l, err := Open(ctx, cfg)
	return l, last, err
}

// by tells which of the two keys o.By is, "" for neither.
func (o *RotateOptions) by(t *Trust) string {
	key, err := parseSignerKey(o.By)
	switch {
	case err != nil:
		return ""
	case key.vkey() == t.Log:
		return entry.RotateLog
	case key.vkey() == t.Recovery:
		return entry.RotateRecovery
	}
	return ""
}

// entry makes the signed rotate entry, and checks it as a reader will.
func (o *RotateOptions) entry(cfg Config, t *Trust, next string) ([]byte, error) {
	key, err := parseSignerKey(o.By)
	if err != nil {
		return nil, err
	}
	e := &entry.Rotate{Header: entry.Header{Time: cfg.Now(), Actor: o.Actor}, Old: t.Log, New: next, Recovery: o.Recovery, By: o.by(t), Signature: []byte{0}}
	if e.By == "" {
		return nil, fmt.Errorf("%w: the key %s is neither the ledger's nor its recovery key", ErrUnsigned, key.vkey())
	}
	data, err := entry.Encode(e)
	if err != nil {
		return nil, err
	}
	msg, err := entry.Unsigned(data)
	if err != nil {
		return nil, err
	}
	e.Signature = ed25519.Sign(key.key, msg)
	if data, err = entry.Encode(e); err != nil {
		return nil, err
	}
	return data, NewKeys(t.Log, t.Recovery).Add(0, data)
}

// follow is tried when a checkpoint is not by the pinned key: it may be by one
// that rotate entries lead to. It reads all entries of the log. Nothing in them
// is proven before the checkpoint is, so the rotate entries must bear their own
// signatures, from the pinned key on.
func follow(ctx context.Context, r vault.Reader, prefix string, raw []byte, t *Trust) (Checkpoint, *Trust, error) {
	claimed, err := parseNote(raw)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	keys, err := newTree(r, prefix, claimed).Keys(ctx)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	next, err := t.Following(keys)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	cp, err := ParseCheckpoint(raw, next)
	return cp, next, err
}

// bears reports whether a note has a signature line, valid or not, by a key.
func bears(raw []byte, vkey string) bool {
	return slices.ContainsFunc(signers(raw), func(key string) bool { return strings.HasPrefix(vkey, key+"+") })
}

// signers are the keys, as NAME+HASH, that a note has signature lines by, valid or not.
func signers(raw []byte) (all []string) {
	_, sigs, _ := strings.Cut(string(raw), "\n\n")
	for line := range strings.SplitAfterSeq(sigs, "\n") {
		if sig, err := parseSignatureLine(line); err == nil {
			all = append(all, fmt.Sprintf("%s+%08x", sig.name, sig.hash))
		}
	}
	return all
}

// Keys reads the log's succession of keys from all its entries.
func (t *Tree) Keys(ctx context.Context) (*Keys, error) {
	var keys *Keys
	err := t.Entries(ctx, 0, t.cp.Size, func(i int64, data []byte) error {
		if i == 0 {
			first, err := firstTrust(data, t.cp.Origin)
			if err != nil {
				return err
			}
			keys = NewKeys(first.Log, first.Recovery)
		}
		if !isRotate(data) {
			return nil
		}
		if err := keys.Add(i, data); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		return nil
	})
	if err == nil && keys == nil {
		err = errors.New("no first entry")
	}
	return keys, err
}

// Head verifies a signed head of this log, of whichever time, by the key that
// signed then. For one that the tree's own trust does not know it reads all
// entries. Errors are those of ParseCheckpoint.
func (t *Tree) Head(ctx context.Context, raw []byte) (Checkpoint, error) {
	if t.trust == nil {
		return Checkpoint{}, ErrNoTrust
	}
	cp, err := ParseCheckpoint(raw, t.trust)
	if !errors.Is(err, ErrUnsigned) {
		return cp, err
	}
	keys, kerr := t.Keys(ctx)
	if kerr != nil {
		return cp, fmt.Errorf("%w; reading the log's keys: %w", err, kerr)
	}
	trust, kerr := t.trust.Following(keys)
	if kerr != nil {
		return cp, err
	}
	return ParseCheckpoint(raw, trust)
}

// isRotate tells a rotate entry from others without decoding it: the canonical
// form spells the member in one way, and inside a string it would be escaped.
func isRotate(data []byte) bool { return bytes.Contains(data, []byte(`"type":"rotate"`)) }

func decodeRotate(data []byte) (*entry.Rotate, error) {
	e, err := entry.Decode(data)
	if err != nil {
		return nil, err
	}
	r, ok := e.(*entry.Rotate)
	if !ok {
		return nil, fmt.Errorf("type %q, expected %q", e.Type(), entry.TypeRotate)
	}
	return r, nil
}

// plainKey returns the public key of a verifier key that signs notes.
func plainKey(vkey string) (ed25519.PublicKey, error) {
	part := strings.SplitN(vkey, "+", 3)
	if len(part) == 3 {
		key, err := base64.StdEncoding.Strict().DecodeString(part[2])
		if err == nil && len(key) == 1+ed25519.PublicKeySize && key[0] == algEd25519 && part[1] == fmt.Sprintf("%08x", keyHash(part[0], key)) {
			return key[1:], nil
		}
	}
	return nil, fmt.Errorf("verifier key %q: expected an Ed25519 key", vkey)
}
