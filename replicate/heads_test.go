package replicate_test

import (
	"bytes"
	"path"
	"strings"
	"testing"

	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
)

// TestForgedHeads: what the source keeps beside its tiles is copied only if it
// proves itself. What is newer than the head of the pass is left to the next one,
// and is no alarm.
func TestForgedHeads(t *testing.T) {
	w := source(t, 79)
	first := newReplica(t, w)
	first.options = func(o *replicate.Options) { o.CosignBack = w.Vault }
	first.must(w.Vault)
	honest := load(t, w.Vault)
	head, line := honest.Find("ledger/checkpoints/"), honest.Find("ledger/cosignatures/")
	size := w.Log.Checkpoint().Size
	flip := func(name string) []byte {
		data := bytes.Clone(honest[name])
		data[len(data)/2] ^= 1
		return data
	}
	for what, tt := range map[string]struct {
		name     string
		data     []byte
		rejected int64
	}{
		"head altered":               {head, flip(head), 1},
		"head of another size":       {vault.KeptCheckpointName(vault.LedgerPrefix, size-1), honest[head], 1},
		"head of nothing":            {vault.KeptCheckpointName(vault.LedgerPrefix, 1), nil, 1},
		"head too large":             {vault.KeptCheckpointName(vault.LedgerPrefix, 1), make([]byte, 1<<20), 1},
		"cosignature altered":        {line, flip(line), 1},
		"cosignature of another":     {strings.Replace(line, path.Base(line), "00000000", 1), honest[line], 1},
		"cosignature of another day": {vault.CosignatureName(vault.LedgerPrefix, 1, path.Base(line)), honest[line], 1},
		"a name that is none":        {"ledger/cosignatures/../../etc/passwd", honest[line], 1},
		"an odd name":                {"ledger/checkpoints/007", honest[head], 1},
		"a head that is newer":       {vault.KeptCheckpointName(vault.LedgerPrefix, size+1), honest[head], 0},
		"a token that is newer":      {vault.TimestampName(vault.LedgerPrefix, 1), []byte("token"), 0},
	} {
		r := newReplica(t, w)
		from := honest.Clone()
		from[tt.name] = tt.data
		sum := r.must(from)
		if sum.Rejected != tt.rejected {
			t.Errorf("%s: %d rejected, expected %d", what, sum.Rejected, tt.rejected)
		}
		if got, there := r.files()[tt.name]; there && !bytes.Equal(got, honest[tt.name]) {
			t.Errorf("%s: %s was copied", what, tt.name)
		}
	}
}

// TestForgedToken: a token is the one that the ledger names.
func TestForgedToken(t *testing.T) {
	w := source(t, 80)
	token := []byte("a token")
	r := newReplica(t, w)
	r.append(w, &entry.Timestamp{Header: w.Header(), Size: 2, Root: vault.HashOf([]byte("root")), Stamp: w.Clock, Token: vault.HashOf(token)})
	name := vault.TimestampName(vault.LedgerPrefix, 2)
	from := load(t, w.Vault)
	from[name] = []byte("another")
	if sum := r.must(from); sum.Rejected != 1 || r.files()[name] != nil {
		t.Errorf("another token: %d rejected, %q there", sum.Rejected, r.files()[name])
	}
	from[name] = token
	if sum := r.must(from); sum.Rejected != 0 || !bytes.Equal(r.files()[name], token) {
		t.Errorf("the token: %d rejected, %q there", sum.Rejected, r.files()[name])
	}
	// One whose entry is not written yet can only be of a later head.
	from[vault.TimestampName(vault.LedgerPrefix, 1)] = token
	if sum := r.must(from); sum.Rejected != 1 {
		t.Errorf("a token that the ledger passed over: %d rejected, expected 1", sum.Rejected)
	}
}
