package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/replicate"
	"logvault/verify"
)

// TestRotationByTheLedgerKey is followed, and what is to be pinned then says so.
func TestRotationByTheLedgerKey(t *testing.T) {
	ctx := context.Background()
	w := source(t, 70)
	r := newReplica(t, w)
	r.must(w.Vault)
	rot, err := w.Rotate(ctx, w.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(ctx, 1, "under the next key\n"); err != nil {
		t.Fatal(err)
	}
	sum := r.must(w.Vault)
	if !sum.Cosigned || sum.Trust.Log != rot.New || sum.Trust.KnownSize != r.trust.KnownSize {
		t.Errorf("summary %+v", sum)
	}
	r.trust = *sum.Trust
	if sum := r.must(w.Vault); sum.Rejected > 0 {
		t.Errorf("%d kept heads rejected", sum.Rejected)
	}
	audited(t, r)
}

// TestRotationByTheRecoveryKey needs its hash typed, once.
func TestRotationByTheRecoveryKey(t *testing.T) {
	ctx := context.Background()
	w := source(t, 71)
	r := newReplica(t, w)
	r.must(w.Vault)
	rot, err := w.Rotate(ctx, w.RecoveryKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(ctx, 1, "under the next key\n"); err != nil {
		t.Fatal(err)
	}
	before := r.files()
	_, err = r.pass(w.Vault)
	wantRefused(t, r, before, err)
	r.options = func(o *replicate.Options) { o.AcceptRotation[0] = ^rot.Hash[0] }
	_, err = r.pass(w.Vault)
	wantRefused(t, r, before, err)

	r.options = func(o *replicate.Options) { o.AcceptRotation = rot.Hash }
	sum := r.must(w.Vault)
	if sum.Trust.Log != rot.New {
		t.Errorf("to be pinned: %s, expected %s", sum.Trust.Log, rot.New)
	}
	// Held once is accepted, also by a copy whose trust file was not changed.
	r.options = nil
	r.must(w.Vault)
	r.trust = *sum.Trust
	r.must(w.Vault)
	audited(t, r)
}

// TestTrustFileReplaced: a person has put the new key into the copy's trust
// file before the next pass. The copy's own head is still by the old one.
func TestTrustFileReplaced(t *testing.T) {
	w := source(t, 72)
	r := newReplica(t, w)
	r.must(w.Vault)
	rot, err := w.Rotate(context.Background(), w.RecoveryKey)
	if err != nil {
		t.Fatal(err)
	}
	r.trust.Log = rot.New
	if sum := r.must(w.Vault); !sum.Cosigned || sum.Rejected > 0 {
		t.Errorf("summary %+v", sum)
	}
	audited(t, r)
}

// wantRefused fails unless a pass was refused for an unaccepted rotation and
// changed nothing.
func wantRefused(t *testing.T, r *replica, before testvault.Files, err error) {
	t.Helper()
	if !errors.Is(err, replicate.ErrRotated) {
		t.Errorf("error %v, expected %v", err, replicate.ErrRotated)
	}
	if !maps.EqualFunc(before, r.files(), bytes.Equal) {
		t.Error("a refused pass changed the replica")
	}
}

// audited fails if an audit of the replica under its own trust finds an error.
func audited(t *testing.T, r *replica) {
	t.Helper()
	trust := r.trust
	_, err := verify.Run(context.Background(), verify.Options{Vault: r.files(), Trust: &trust, Depth: verify.Objects, Now: r.now},
		func(f verify.Finding) {
			if f.Level == verify.Error {
				t.Errorf("replica: %v", f)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
}
