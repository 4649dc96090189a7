package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// keyID says what a period key is for: a retention class and a destruction day.
type keyID struct {
	class vault.Class
	day   vault.Day
}

// String is how errors name it.
func (id keyID) String() string { return fmt.Sprintf("class %s, day %s", id.class, id.day) }

// periodKey is the public half of a period key, as its ledger entry has it.
type periodKey struct {
	index  int64 // of the key entry
	public *pgp.PublicKey
	wrap   string // object name of the first wrap
	sound  bool   // the wrap was read back by this process
}

// keyring holds the period keys found in a stretch of the ledger. It grows
// downwards on demand, and upwards by what others and failed rounds appended.
type keyring struct {
	last     map[keyID]periodKey // the newest of each, within [from, to)
	from, to int64
}

// scanStep is how many entries are read at once on the way down: one bundle.
const scanStep = vault.TileWidth

// maxWrap bounds a wrap that is read back, in bytes. A wrap takes some hundred
// bytes and as many again per auditor.
const maxWrap = 1 << 20

// periodKey returns the key to seal with: the last one for id in the ledger,
// or a new one.
func (r *round) periodKey(ctx context.Context, id keyID) (periodKey, error) {
	if k, ok := r.keys.last[id]; ok && k.sound {
		return k, nil
	}
	k, err := r.resumeKey(ctx, id)
	if err != nil {
		return periodKey{}, fmt.Errorf("looking for the period key of %s: %w", id, err)
	}
	if k.sound {
		return k, nil
	}
	if k, err = r.newKey(ctx, id); err != nil {
		return periodKey{}, fmt.Errorf("making a period key for %s: %w", id, err)
	}
	return k, nil
}

// resumeKey returns the last key for id in the ledger if its wrap is intact. A
// key without its wrap is no use: nobody could read what it seals.
//
// Only if the vault has a wrap for id is the ledger searched, so that the first
// piece of a day does not read all of it. A store that hides wraps makes us
// draw another key, which is allowed; it cannot make us use one.
func (r *round) resumeKey(ctx context.Context, id keyID) (periodKey, error) {
	errOne := errors.New("there is one")
	err := r.Objects.List(ctx, wrapPrefix(id), func(vault.Info) error { return errOne })
	if err == nil {
		return periodKey{}, nil
	}
	if !errors.Is(err, errOne) {
		return periodKey{}, err
	}
	if err := r.keys.find(ctx, r.Ledger.Tree(), id); err != nil {
		return periodKey{}, err
	}
	k, ok := r.keys.last[id]
	if !ok {
		return periodKey{}, nil
	}
	stored, err := vault.ReadAll(ctx, r.Objects, k.wrap, maxWrap)
	if err != nil && !errors.Is(err, vault.ErrNotExist) {
		return periodKey{}, err
	}
	o, perr := vault.ParseName(k.wrap)
	if perr != nil {
		return periodKey{}, perr
	}
	if err != nil || vault.HashOf(stored) != o.Hash {
		r.Log.Warn("period key without its wrap, making another", "entry", k.index, "object", k.wrap)
		return periodKey{}, nil
	}
	k.sound = true
	r.keys.last[id] = k
	return k, nil
}

// wrapPrefix is the directory of all wraps for id: keys/2026/11/21/<class>/.
func wrapPrefix(id keyID) string {
	name := vault.WrapName(id.day, id.class, vault.Hash{}, vault.Hash{})
	return path.Dir(path.Dir(name)) + "/"
}

// find extends the keyring up to the ledger's size, and down until it holds a
// key for id or the whole ledger.
func (k *keyring) find(ctx context.Context, tree *ledger.Tree, id keyID) error {
	if err := k.scan(ctx, tree, k.to, tree.Size()); err != nil {
		return err
	}
	k.to = tree.Size()
	for _, ok := k.last[id]; !ok && k.from > 0; _, ok = k.last[id] {
		from := (k.from - 1) / scanStep * scanStep
		if err := k.scan(ctx, tree, from, k.from); err != nil {
			return err
		}
		k.from = from
	}
	return nil
}

// scan takes the keys of the entries from (included) to to (excluded).
func (k *keyring) scan(ctx context.Context, tree *ledger.Tree, from, to int64) error {
	if from == to {
		return nil
	}
	return tree.Entries(ctx, from, to, func(i int64, data []byte) error {
		// Most entries are no keys: look before the strict parser does. The
		// canonical form spells this member in one way only.
		if !bytes.Contains(data, []byte(`"type":"key"`)) {
			return nil
		}
		return k.take(i, data)
	})
}

// take adopts the public key of a key entry, read from the ledger at index i.
// An entry that is of another type, or of a newer version and so not for this
// one to judge, is none.
func (k *keyring) take(i int64, data []byte) error {
	e, err := entry.Decode(data)
	if errors.Is(err, entry.ErrNewer) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ledger entry %d: %w", i, err)
	}
	key, ok := e.(*entry.Key)
	if !ok {
		return nil
	}
	public, err := pgp.ParsePublic(key.Public) // Decode has checked its hash
	if err != nil {
		return fmt.Errorf("ledger entry %d: %w", i, err)
	}
	id := keyID{key.Class, key.Day}
	if have, ok := k.last[id]; !ok || have.index < i {
		wrap := vault.WrapName(key.Day, key.Class, key.PublicHash, key.Wrap)
		k.last[id] = periodKey{index: i, public: public, wrap: wrap}
	}
	return nil
}

// newKey makes a period key, in this order:
//
//	generate                 crash: nothing is left
//	Put the wrap             crash: an orphan wrap; the secret is gone, the key unused
//	read it back, check it   the same
//	overwrite the secret
//	append the key entry     crash: usable; resumeKey finds it
//	read the entry back      the public key comes from the ledger, as ever
func (r *round) newKey(ctx context.Context, id keyID) (periodKey, error) {
	e, err := r.wrapNewKey(ctx, id)
	if err != nil {
		return periodKey{}, err
	}
	data, err := entry.Encode(e)
	if err != nil {
		return periodKey{}, err
	}
	index, err := r.append(ctx, data)
	if err != nil {
		return periodKey{}, err
	}
	published, err := r.Ledger.Tree().Entry(ctx, index)
	if err != nil {
		return periodKey{}, fmt.Errorf("reading back ledger entry %d: %w", index, err)
	}
	if !bytes.Equal(published, data) {
		return periodKey{}, fmt.Errorf("ledger entry %d is not the key entry just appended", index)
	}
	if err := r.keys.take(index, published); err != nil {
		return periodKey{}, err
	}
	k := r.keys.last[id]
	k.sound = true
	r.keys.last[id] = k
	r.Log.Info("new period key", "class", string(id.class), "day", id.day.String(), "entry", index)
	return k, nil
}

// wrapNewKey draws a key pair, stores the wrap of its secret and returns the
// future key entry. The secret lives only within this function.
func (r *round) wrapNewKey(ctx context.Context, id keyID) (*entry.Key, error) {
	secret, err := pgp.GeneratePeriod(r.Random)
	if err != nil {
		return nil, err
	}
	defer secret.Destroy()
	wrap, err := secret.Wrap(r.Random, r.Auditors)
	if err != nil {
		return nil, err
	}
	public := secret.Public()
	e := &entry.Key{Header: r.header(), Class: id.class, Day: id.day,
		Public: public, PublicHash: vault.HashOf(public), Wrap: vault.HashOf(wrap)}
	for _, a := range r.Auditors {
		e.Recipients = append(e.Recipients, a.Fingerprint)
	}
	slices.Sort(e.Recipients)
	name := vault.WrapName(id.day, id.class, e.PublicHash, e.Wrap)
	if err := r.Objects.Put(ctx, name, int64(len(wrap)), bytes.NewReader(wrap)); err != nil {
		return nil, err
	}
	stored, err := vault.ReadAll(ctx, r.Objects, name, maxWrap)
	if err != nil {
		return nil, fmt.Errorf("reading back the wrap: %w", err)
	}
	if got := vault.HashOf(stored); got != e.Wrap {
		return nil, fmt.Errorf("%s: read back %d bytes with SHA-256 %s, expected %d with %s", name, len(stored), got, len(wrap), e.Wrap)
	}
	return e, r.checkRecipients(name, stored)
}

// checkRecipients parses a wrap and compares whom it is encrypted to with the
// auditors, by their encryption subkeys.
func (r *round) checkRecipients(name string, wrap []byte) error {
	got, err := pgp.Recipients(wrap)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var want []string
	for _, a := range r.Auditors {
		want = append(want, a.KeyID())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: encrypted to %v, expected the auditors' subkeys %v", name, got, want)
	}
	return nil
}
