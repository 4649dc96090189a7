package ledger_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// spareKey returns a note key pair under the ledger's name, the recovery key if n is 0.
func spareKey(t testing.TB, n byte) keyPair {
	t.Helper()
	name := testOrigin
	if n == 0 {
		name += "/recovery"
	}
	skey, vkey, err := ledger.GenerateKey(rand.NewChaCha8([32]byte{9, n}), name)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{skey, vkey}
}

// firstEntry is the init entry of the test ledger.
func firstEntry(t testing.TB) []byte {
	t.Helper()
	data, err := entry.Encode(&entry.Init{Header: entry.Header{Time: time.Unix(1, 0), Actor: "admin"}, Vault: strings.Repeat("0", 32),
		Origin: testOrigin, Marker: vault.HashOf(nil), Key: testKey(t).vkey, Recovery: spareKey(t, 0).vkey})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// newRotatable creates a ledger with an init entry and two more.
func newRotatable(t testing.TB) (*ledger.Log, ledger.Config) {
	t.Helper()
	l, cfg := newLog(t)
	if _, err := l.Append(ctx, firstEntry(t), testEntry("a"), testEntry("b")); err != nil {
		t.Fatal(err)
	}
	return l, cfg
}

// fullTrust is trust with the recovery key.
func fullTrust(t testing.TB) *ledger.Trust {
	tr := trust(t)
	tr.Recovery = spareKey(t, 0).vkey
	return tr
}

// rotate makes spareKey(n) the ledger's key.
func rotate(t testing.TB, cfg *ledger.Config, n byte, by string) ledger.Rotation {
	t.Helper()
	cfg.SignerKey = spareKey(t, n).skey
	l, r, err := ledger.Rotate(ctx, *cfg, ledger.RotateOptions{Trust: fullTrust(t), By: by, Actor: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Checkpoint().Size != r.Index+1 {
		t.Fatalf("size %d after the rotate entry %d", l.Checkpoint().Size, r.Index)
	}
	if _, err := l.Append(ctx, testEntry(fmt.Sprint("under key ", n))); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRotate(t *testing.T) {
	for by, key := range map[string]string{entry.RotateLog: testKey(t).skey, entry.RotateRecovery: spareKey(t, 0).skey} {
		_, cfg := newRotatable(t)
		r := rotate(t, &cfg, 1, key)
		if r.Index != 3 || r.By != by || r.Old != testKey(t).vkey || r.New != spareKey(t, 1).vkey {
			t.Errorf("%s: rotation %+v", by, r)
		}
		rotate(t, &cfg, 2, spareKey(t, 1).skey)
		// A reader that pins any of the three keys reads the same history.
		for i, pinned := range []string{testKey(t).vkey, spareKey(t, 1).vkey, spareKey(t, 2).vkey} {
			tr := fullTrust(t)
			tr.Log = pinned
			tree, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, tr)
			if err != nil {
				t.Fatalf("%s: pinned key %d: %v", by, i, err)
			}
			if tree.Trust().Log != spareKey(t, 2).vkey || tree.Size() != 7 {
				t.Errorf("%s: pinned key %d: size %d, signed by %s", by, i, tree.Size(), tree.Trust().Log)
			}
			if got := problems(t, tree); len(got) > 0 {
				t.Errorf("%s: pinned key %d: %+v", by, i, got)
			}
			for _, size := range []int64{3, 5} {
				raw, err := vault.ReadAll(ctx, cfg.Copy, vault.KeptCheckpointName(vault.LedgerPrefix, size), 1<<16)
				if err != nil {
					t.Fatal(err)
				}
				if cp, err := tree.Head(ctx, raw); err != nil || cp.Size != size {
					t.Errorf("%s: pinned key %d: kept head %d: %v", by, i, cp.Size, err)
				}
			}
			if got := len(tree.Trust().Rotations()); i < 2 && got != 2 {
				t.Errorf("%s: pinned key %d: %d rotations", by, i, got)
			}
		}
		// The last heads of the old keys are kept, and verify as theirs.
		for _, size := range []int64{3, 5} {
			if _, err := cfg.Copy.Stat(ctx, vault.KeptCheckpointName(vault.LedgerPrefix, size)); err != nil {
				t.Errorf("%s: %v", by, err)
			}
		}
		if _, err := ledger.Open(ctx, cfg); err != nil {
			t.Errorf("%s: opening under the new key: %v", by, err)
		}
		old := cfg
		old.SignerKey = testKey(t).skey
		_, err := ledger.Open(ctx, old)
		wantError(t, "opening under the old key", err, ledger.ErrUnsigned)
	}
}

// TestRotateBareKey: whoever pins the old key alone follows what that key
// signed and nothing that the recovery key did.
func TestRotateBareKey(t *testing.T) {
	_, cfg := newRotatable(t)
	rotate(t, &cfg, 1, testKey(t).skey)
	if _, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, trust(t)); err != nil {
		t.Errorf("a rotation by the old key: %v", err)
	}
	_, cfg = newRotatable(t)
	rotate(t, &cfg, 1, spareKey(t, 0).skey)
	_, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, trust(t))
	wantError(t, "a rotation by the recovery key", err, ledger.ErrUnsigned)
	if err != nil && !strings.Contains(err.Error(), "recovery key that is not pinned") {
		t.Errorf("error %v", err)
	}
}

// TestRotateTwice: after a crash behind the commit point the same call only opens.
func TestRotateTwice(t *testing.T) {
	_, cfg := newRotatable(t)
	want := rotate(t, &cfg, 1, spareKey(t, 0).skey)
	l, got, err := ledger.Rotate(ctx, cfg, ledger.RotateOptions{Trust: fullTrust(t), By: spareKey(t, 0).skey, Actor: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	if got != want || l.Checkpoint().Size != 5 {
		t.Errorf("rotation %+v at size %d, expected %+v at size 5", got, l.Checkpoint().Size, want)
	}
}

// TestRotateKnownHead: the trust file knows a head, which must be on the chain.
func TestRotateKnownHead(t *testing.T) {
	for _, known := range []int64{0, 2, 3} {
		l, cfg := newRotatable(t)
		root, err := l.Tree().RootAt(ctx, known)
		if err != nil {
			t.Fatal(err)
		}
		cfg.SignerKey = spareKey(t, 1).skey
		o := ledger.RotateOptions{Trust: fullTrust(t), By: spareKey(t, 0).skey, Actor: "admin"}
		o.Trust.KnownSize, o.Trust.KnownRoot = known, vault.HashOf([]byte("another")).String()
		_, _, err = ledger.Rotate(ctx, cfg, o)
		wantError(t, "another root", err, ledger.ErrForked)
		o.Trust.KnownRoot = root.String()
		if _, _, err := ledger.Rotate(ctx, cfg, o); err != nil {
			t.Errorf("known size %d: %v", known, err)
		}
	}
}

// TestRotateCopyLater: a vault whose head is still by the old key is behind and no fork.
func TestRotateCopyLater(t *testing.T) {
	_, cfg := newRotatable(t)
	copied := cfg.Copy
	cfg.Copy = nil
	rotate(t, &cfg, 1, spareKey(t, 0).skey)
	cfg.Copy = copied
	if _, err := ledger.Open(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	tree, err := ledger.OpenTree(ctx, copied, vault.LedgerPrefix, fullTrust(t))
	if err != nil || tree.Size() != 5 {
		t.Fatalf("the vault's ledger: %v", err)
	}
}

// TestRotateRefused: who may not rotate cannot.
func TestRotateRefused(t *testing.T) {
	_, cfg := newRotatable(t)
	cfg.SignerKey = spareKey(t, 1).skey
	for what, o := range map[string]ledger.RotateOptions{
		"a stranger's key":    {Trust: fullTrust(t), By: spareKey(t, 7).skey, Actor: "admin"},
		"not a key":           {Trust: fullTrust(t), By: "x", Actor: "admin"},
		"no trust":            {By: testKey(t).skey, Actor: "admin"},
		"recovery not pinned": {Trust: trust(t), By: spareKey(t, 0).skey, Actor: "admin"},
		// The log's key may be stolen; it must not take the recovery key's place.
		"the log's key names a recovery key": {Trust: fullTrust(t), By: testKey(t).skey, Recovery: spareKey(t, 8).vkey, Actor: "admin"},
		"no actor":                           {Trust: fullTrust(t), By: testKey(t).skey},
	} {
		if _, _, err := ledger.Rotate(ctx, cfg, o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if tree := openTree(t, cfg.Record); tree.Size() != 3 {
		t.Errorf("size %d after refusals, expected 3", tree.Size())
	}
	empty, cfg := newLog(t)
	cfg.SignerKey = spareKey(t, 1).skey
	_, _, err := ledger.Rotate(ctx, cfg, ledger.RotateOptions{Trust: fullTrust(t), By: testKey(t).skey, Actor: "admin"})
	wantError(t, "an empty log", err, ledger.ErrNoLedger)
	grow(t, empty, 1)
}

// TestRotateForged: rotate entries that a thief of the log's key, or of nothing,
// puts into a history that he signs himself.
func TestRotateForged(t *testing.T) {
	thief := spareKey(t, 5)
	for what, forge := range map[string]func(e *entry.Rotate){
		"unsigned":            func(*entry.Rotate) {},
		"another key's end":   func(e *entry.Rotate) { e.Old = spareKey(t, 4).vkey },
		"by recovery":         func(e *entry.Rotate) { e.By = entry.RotateRecovery },
		"a recovery key, too": func(e *entry.Rotate) { e.Recovery = thief.vkey },
	} {
		l, cfg := newRotatable(t)
		e := &entry.Rotate{Header: entry.Header{Time: time.Unix(2, 0), Actor: "admin"}, Old: testKey(t).vkey, New: thief.vkey, By: entry.RotateLog, Signature: make([]byte, 64)}
		forge(e)
		data, err := entry.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.NewKeys(testKey(t).vkey, spareKey(t, 0).vkey).Add(3, data); err == nil {
			t.Errorf("%s: added", what)
		}
		if _, err := l.Append(ctx, data); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Copy.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), resign(t, openTree(t, cfg.Copy), thief)); err != nil {
			t.Fatal(err)
		}
		_, err = ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, fullTrust(t))
		wantError(t, what, err, ledger.ErrUnsigned)
	}
}

// resign signs a history's head with another key.
func resign(t testing.TB, tree *ledger.Tree, key keyPair) []byte {
	t.Helper()
	cfg := memConfig(t, vfs.NewMem())
	cfg.Copy, cfg.SignerKey = nil, key.skey
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		_, err := l.Append(ctx, data)
		return err
	})
	if err != nil || l.Checkpoint().Root != tree.Root() {
		t.Fatalf("root %s, expected %s: %v", l.Checkpoint().Root, tree.Root(), err)
	}
	return l.Checkpoint().Raw
}

// TestOldKeyAfterRotation: a head that the old key signs behind the rotation is
// refused by whoever knows of it, even on the chain.
func TestOldKeyAfterRotation(t *testing.T) {
	_, cfg := newRotatable(t)
	rotate(t, &cfg, 1, testKey(t).skey)
	tree, err := ledger.OpenTree(ctx, cfg.Copy, vault.LedgerPrefix, fullTrust(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = ledger.ParseCheckpoint(resign(t, tree, testKey(t)), tree.Trust())
	wantError(t, "the old key after its end", err, ledger.ErrUnsigned)
	if _, err = ledger.ParseCheckpoint(tree.Checkpoint().Raw, tree.Trust()); err != nil {
		t.Errorf("the new key: %v", err)
	}
}

// TestRotateCrash cuts the power at every operation of a rotation. Then the same
// call gives a ledger with exactly one rotate entry, whole on both sides.
func TestRotateCrash(t *testing.T) {
	t.Parallel()
	seeds, step := uint64(5), 1
	if testing.Short() {
		seeds, step = 1, 4
	}
	for seed := range seeds {
		for at := int(seed); ; at += step {
			rng := rand.New(rand.NewPCG(seed, uint64(at)))
			disk := &machine{state: vfs.NewMem(), nas: vfs.NewMem(), left: 1 << 30}
			prepare(t, disk.state, disk.nas)
			l, err := ledger.Create(ctx, disk.config(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(ctx, firstEntry(t), testEntry("a")); err != nil {
				t.Fatal(err)
			}
			o := ledger.RotateOptions{Trust: fullTrust(t), By: spareKey(t, 0).skey, Actor: "admin"}
			disk.left = at
			cfg := disk.config(t)
			cfg.SignerKey = spareKey(t, 1).skey
			_, _, err = ledger.Rotate(ctx, cfg, o)
			if err == nil {
				if at < 50 {
					t.Fatalf("only %d operations", at)
				}
				break
			}
			if !errors.Is(err, errDead) {
				t.Fatalf("seed %d, operation %d: %v", seed, at, err)
			}
			disk.cut(rng)
			disk.left = 1 << 30
			cfg = disk.config(t)
			cfg.SignerKey = spareKey(t, 1).skey
			l, r, err := ledger.Rotate(ctx, cfg, o)
			if err != nil {
				t.Fatalf("seed %d, operation %d: again: %v", seed, at, err)
			}
			if r.Index != 2 || l.Checkpoint().Size != 3 {
				t.Fatalf("seed %d, operation %d: rotation %+v at size %d", seed, at, r, l.Checkpoint().Size)
			}
			for _, store := range []ledger.Store{cfg.Record, cfg.Copy} {
				tree, err := ledger.OpenTree(ctx, store, vault.LedgerPrefix, fullTrust(t))
				if err != nil {
					t.Fatalf("seed %d, operation %d: %v", seed, at, err)
				}
				if got := problems(t, tree); len(got) > 0 {
					t.Fatalf("seed %d, operation %d: %+v", seed, at, got)
				}
			}
		}
	}
}
