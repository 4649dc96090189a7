//go:build e2e

package witness_test

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"time"

	"logvault/fixtures/testserver"
	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/witness"
	"logvault/vault"
	"logvault/verify"
)

const witnessName = "witness.example/w1"

// TestTransparencyDev has the witness of transparency-dev cosign a ledger that
// grows. An audit with its key pinned accepts that, and the witness refuses what
// a thief of the ledger's key may sign: a ledger rolled back, or forked.
func TestTransparencyDev(t *testing.T) {
	w, err := testvault.New(1)
	if err != nil {
		t.Fatal(err)
	}
	// The same secret under both algorithms: the witness takes a plain note key.
	skey, _, err := ledger.GenerateKey(testvault.Random(80), witnessName)
	if err != nil {
		t.Fatal(err)
	}
	_, vkey, err := ledger.NewCosigner(testvault.Random(80), witnessName)
	if err != nil {
		t.Fatal(err)
	}
	url := testserver.Witness(t, skey, w.Trust.Origin, w.Trust.Log)
	client := &witness.Witness{URL: url, Key: vkey, HTTP: &http.Client{Timeout: 5 * time.Minute}}
	w.Trust.Witnesses = []ledger.TrustKey{{Name: "w1", Key: vkey}}
	w.Trust.Quorum = 1

	early := w.Log.Tree()
	var last int64
	for i, hint := range []int64{0, 0, 1, -1} { // nothing known, then wrong, wrong and right
		if hint < 0 {
			hint = last
		}
		tree := w.Log.Tree()
		c, err := client.Cosign(ctx, tree, hint)
		if err != nil {
			t.Fatalf("head %d: %v", i, err)
		}
		for name, data := range map[string][]byte{
			vault.KeptCheckpointName(vault.LedgerPrefix, tree.Size()):       tree.Checkpoint().Raw,
			vault.CosignatureName(vault.LedgerPrefix, tree.Size(), c.KeyID): c.Line,
		} {
			if err := w.Vault.Put(ctx, name, int64(len(data)), bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		accepted(t, w, tree.Size())
		last = tree.Size()
		for range 100 { // so that there is something to prove
			if err := w.Seal(ctx, 1, "a line\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err = client.Cosign(ctx, early, 0)
	wantErr(t, "rolled back", err, witness.ErrAhead)

	twin, err := testvault.New(1)
	if err != nil {
		t.Fatal(err)
	}
	for twin.Log.Tree().Size() <= last {
		if err := twin.Seal(ctx, 2, "another history\n"); err != nil {
			t.Fatal(err)
		}
	}
	if twin.Trust.Log != w.Trust.Log {
		t.Fatal("the twin has another key")
	}
	_, err = client.Cosign(ctx, twin.Log.Tree(), last)
	wantErr(t, "forked", err, witness.ErrForked)

	stranger, err := testvault.New(2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Cosign(ctx, stranger.Log.Tree(), 0); err == nil || errors.Is(err, witness.ErrInvalid) {
		t.Errorf("another key: error %v", err)
	}
}

// accepted fails unless an audit counts the cosignature.
func accepted(t *testing.T, w *testvault.World, size int64) {
	t.Helper()
	files, err := testvault.Load(ctx, w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := verify.Run(ctx, verify.Options{Vault: files, Trust: w.Trust, Depth: verify.Chain, Now: w.Now()}, func(f verify.Finding) {
		if f.Level != verify.Note {
			t.Errorf("size %d: %v", size, f)
		}
	})
	if err != nil || sum.Witnessed != size {
		t.Errorf("witnessed %d, expected %d: %v", sum.Witnessed, size, err)
	}
}
