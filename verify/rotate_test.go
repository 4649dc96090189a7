package verify_test

import (
	"context"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/verify"
)

// rotated is the sample with another ledger key, authorised by the recovery key
// or by the old one, and two heads of the new key.
func rotated(t *testing.T, recovery bool) (s *sample, fresh *ledger.Trust) {
	t.Helper()
	ctx := context.Background()
	s = newSample(3)
	w := s.world
	by := w.Key
	if recovery {
		by = w.RecoveryKey
	}
	r, err := w.Rotate(ctx, by)
	must(err)
	must(w.Log.KeepHead(ctx))
	must(w.Append(ctx, &entry.Summary{Header: w.Header(), Since: testvault.Start, Until: w.Now()}))
	s.files, err = testvault.Load(ctx, w.Vault)
	must(err)
	s.now = w.Now()
	now := *s.trust
	now.Log = r.New
	return s, &now
}

func TestRotated(t *testing.T) {
	for _, recovery := range []bool{false, true} {
		s, fresh := rotated(t, recovery)
		o := s.options()
		o.Trust = fresh
		list, _ := audit(t, o)
		clean(t, list)

		list, sum := audit(t, s.options())
		level := verify.Note
		if recovery {
			level = verify.Warning
		}
		expect(t, list, "rotated", level, "")
		if len(list) != 1 || sum.Errors > 0 {
			t.Errorf("recovery %v: found:%s", recovery, lines(list))
		}

		// A copy that is a head behind, signed by the old key, is compared with it.
		old := newSample(3)
		o = s.options()
		o.Trust, o.Against = fresh, old.files
		list, _ = audit(t, o)
		if has(list, "unsigned", verify.Error, "") || has(list, "forked", verify.Error, "") {
			t.Errorf("recovery %v: against the old copy:%s", recovery, lines(list))
		}

		o = s.options()
		o.Trust = &ledger.Trust{Log: s.trust.Log, Origin: s.trust.Origin, Copies: s.trust.Copies, Witnesses: s.trust.Witnesses}
		list, _ = audit(t, o)
		if got := has(list, "unsigned", verify.Error, ""); got != recovery {
			t.Errorf("recovery %v: pinned to the old key alone:%s", recovery, lines(list))
		}
	}
}

// TestRotateEntries: rotate entries that no key signed are findings, although
// the ledger's own key signed the history that holds them.
func TestRotateEntries(t *testing.T) {
	ctx := context.Background()
	s := newSample(3)
	w := s.world
	_, vkey, err := ledger.GenerateKey(testvault.Random(60), testvault.Origin)
	must(err)
	must(w.Append(ctx, &entry.Rotate{Header: w.Header(), Old: w.Trust.Log, New: vkey, By: entry.RotateLog, Signature: make([]byte, 64)}))
	s.files, err = testvault.Load(ctx, w.Vault)
	must(err)
	s.now = w.Now()
	list, _ := audit(t, s.options())
	expect(t, list, "bad-entry", verify.Error, "")
}

// TestPinnedKeyIsNotOfTheHistory: the pinned key signs the checkpoint, but the
// history says that another key does.
func TestPinnedKeyIsNotOfTheHistory(t *testing.T) {
	ctx := context.Background()
	w, err := testvault.New(4)
	must(err)
	other, err := testvault.New(5)
	must(err)
	data, err := w.Log.Tree().Entry(ctx, 0)
	must(err)
	store, err := dir.Create(other.Disk, "/forged")
	must(err)
	// The key of one ledger signs the first entry of the other.
	log, err := ledger.Create(ctx, ledger.Config{Prefix: vault.LedgerPrefix, Origin: testvault.Origin, SignerKey: other.Key, Record: store, Now: w.Now})
	must(err)
	_, err = log.Append(ctx, data)
	must(err)
	files, err := testvault.Load(ctx, store)
	must(err)
	list, _ := audit(t, verify.Options{Vault: files, Trust: other.Trust, Depth: verify.Chain, Now: w.Now()})
	expect(t, list, "bad-entry", verify.Error, "")
}
