package verify_test

import (
	"maps"
	"testing"

	"logvault/ledger"
	"logvault/vault"
	"logvault/verify"
)

// TestUnpinnedCopyLogExcusesNothing: only a replica may hold objects that no
// entry names yet. Whoever can write to a primary can put a copy log of his own
// beside it; were that believed, what he inserts, or what is left after the
// ledger was rolled back, would be a warning and the audit would pass.
func TestUnpinnedCopyLogExcusesNothing(t *testing.T) {
	s := theSample()
	o := s.options()
	files := maps.Clone(s.files)
	inserted := []byte("no entry names it")
	name := vault.SegmentName(vault.Day{Year: 2027, Month: 9, Day: 23}, vault.HashOf(inserted), vault.Gzip)
	files[name] = inserted
	o.Vault = files
	list, _ := audit(t, o)
	expect(t, list, "in-transit", verify.Warning, name)

	trust := &ledger.Trust{Log: s.trust.Log, Recovery: s.trust.Recovery, Origin: s.trust.Origin}
	o.Trust = trust
	list, sum := audit(t, o)
	expect(t, list, "unexpected", verify.Error, name)
	if sum.Errors == 0 {
		t.Error("the audit passed")
	}
}
