package verify_test

import (
	"context"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger/entry"
	"logvault/verify"
)

func TestAgainst(t *testing.T) {
	ctx := context.Background()
	short := newSample(60) // has a pinned copy log that held this size
	long := newSample(60)
	if err := long.world.Seal(ctx, 1, "one more\n"); err != nil {
		t.Fatal(err)
	}
	longer, err := testvault.Load(ctx, long.world.Vault)
	if err != nil {
		t.Fatal(err)
	}
	fork := newSample(60)
	for range 2 {
		if err := fork.world.Append(ctx, &entry.Summary{Header: fork.world.Header(), Since: testvault.Start, Until: fork.world.Clock}); err != nil {
			t.Fatal(err)
		}
	}
	forked, err := testvault.Load(ctx, fork.world.Vault)
	if err != nil {
		t.Fatal(err)
	}
	run := func(ours, other testvault.Files) ([]verify.Finding, verify.Summary) {
		o := short.options()
		o.Vault, o.Against, o.Now = ours, other, long.world.Now()
		return audit(t, o)
	}

	list, sum := run(short.files, short.files.Clone())
	clean(t, list)
	if sum.Compared.Identical != 8 {
		t.Errorf("%d identical, expected 8", sum.Compared.Identical)
	}

	list, _ = run(short.files, longer) // a replica that has not been told yet
	expect(t, list, "behind", verify.Warning, "ledger/checkpoint")
	if hasLevel(list, verify.Error) {
		t.Errorf("expected no error:%s", lines(list))
	}

	rolled := short.files.Clone() // a primary has no copy log to excuse it
	for name := range rolled {
		if len(name) > 5 && name[:5] == "copy/" {
			delete(rolled, name)
		}
	}
	list, _ = run(rolled, longer)
	expect(t, list, "rolled-back", verify.Error, "ledger/checkpoint")

	list, _ = run(longer, forked)
	expect(t, list, "forked", verify.Error, "ledger/checkpoint")
	list, _ = run(forked, longer)
	expect(t, list, "forked", verify.Error, "ledger/checkpoint")

	list, sum = run(longer, short.files) // the other one is behind: its head is ours
	expect(t, list, "against-missing", verify.Warning, "segments/")
	if hasLevel(list, verify.Error) || sum.Compared.Identical != 8 {
		t.Errorf("%d identical, expected 8, and no error:%s", sum.Compared.Identical, lines(list))
	}

	bad := short.files.Clone()
	name := bad.Find(".gz.pgp")
	bad[name][3] ^= 1
	list, _ = run(short.files, bad)
	expect(t, list, "against-differing", verify.Error, name)

	list, sum = run(short.files, testvault.Files{})
	expect(t, list, "unsigned", verify.Error, "ledger/checkpoint")
	if sum.Complete {
		t.Error("complete, though nothing was compared")
	}
}

// TestRolledBack removes the last entries of a ledger and puts the checkpoint
// of that time back, as it was or signed anew by the stolen key.
func TestRolledBack(t *testing.T) {
	ctx := context.Background()
	old := newSample(61)
	now := newSample(61)
	if err := now.world.Seal(ctx, 1, "to be forgotten\n"); err != nil {
		t.Fatal(err)
	}
	head := now.world.Log.Checkpoint()
	o := old.options()
	list, _ := audit(t, o)
	clean(t, list) // by itself nobody can tell

	o.Known = &verify.Known{Size: head.Size, Root: head.Root, HasRoot: true}
	list, _ = audit(t, o)
	expect(t, list, "rolled-back", verify.Error, "ledger/checkpoint")

	// Grown again with other entries, past the known size.
	for range 3 {
		if err := old.world.Append(ctx, &entry.Summary{Header: old.world.Header(), Since: testvault.Start, Until: old.world.Clock}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if o.Vault, err = testvault.Load(ctx, old.world.Vault); err != nil {
		t.Fatal(err)
	}
	list, _ = audit(t, o)
	expect(t, list, "forked", verify.Error, "ledger/checkpoint")

	trust := *old.trust
	trust.KnownSize, trust.KnownRoot = head.Size, head.Root.String()
	o.Known, o.Trust = nil, &trust
	list, _ = audit(t, o)
	expect(t, list, "forked", verify.Error, "ledger/checkpoint")
}
