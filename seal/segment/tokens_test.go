package segment

import (
	"math/rand/v2"
	"strings"
	"testing"

	"logvault/extract/logfmt"
)

// TestTokenTable compares the table with a map, on values that are spelled in
// many ways: in capitals, with dots at the end, longer than a token.
func TestTokenTable(t *testing.T) {
	type key struct {
		kind  logfmt.TokenKind
		token string
	}
	random := rand.New(rand.NewPCG(3, 4))
	parts := []string{"a", "A", ".", "..", "bc", "Bc", strings.Repeat("x", maxToken-1), strings.Repeat("x", maxToken)}
	tables := []*tokenTable{newTokenTable(), newTokenTable()}
	want := map[key]uint64{}
	for i := range 60_000 {
		var value []byte
		for range 1 + random.IntN(4) {
			value = append(value, parts[random.IntN(len(parts))]...)
		}
		if random.IntN(2) == 0 { // enough to make the table grow
			value = append(value, byte('0'+i%10), byte('0'+i/10%10), byte('0'+i/100%10), byte('0'+i/1000%10), byte('0'+i/10000))
		}
		k := logfmt.Kinds[random.IntN(len(logfmt.Kinds))]
		members := uint64(1) << random.IntN(64)
		tables[random.IntN(2)].add(k, value, members)
		want[key{k, string(appendToken(nil, k, value))}] |= members
	}
	if len(tables[0].slots) == initialSlots {
		t.Errorf("%d tokens: the table did not grow", len(tables[0].entries))
	}
	for _, table := range tables {
		table.sort()
	}
	last, n := key{}, 0
	mergeTokens(tables, func(k logfmt.TokenKind, token []byte, members uint64) {
		at := key{k, string(token)}
		if n++; at.kind < last.kind || at.kind == last.kind && at.token <= last.token {
			t.Errorf("%v %.20q after %v %.20q", at.kind, at.token, last.kind, last.token)
		}
		if last = at; members != want[at] {
			t.Errorf("%v %.20q: members %x, expected %x", at.kind, at.token, members, want[at])
		}
	})
	if n != len(want) {
		t.Errorf("%d tokens, expected %d", n, len(want))
	}
}
