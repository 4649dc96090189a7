package segment

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"

	"logvault/extract/logfmt"
)

// tokenTable collects distinct tokens and the members that hold them. It is an
// open hash table over one arena, kept between segments, so that a line that
// brings no new token allocates nothing. Not for concurrent use.
type tokenTable struct {
	seed    maphash.Seed
	slots   []slot // a power of two long
	entries []tokenEntry
	arena   []byte
}

// slot repeats the hash, so that other tokens are passed over without a look at
// their entries.
type slot struct {
	hash  uint32
	entry uint32 // 0 = free, else 1 + index
}

type tokenEntry struct {
	start   uint32 // in the arena
	size    uint16
	kind    logfmt.TokenKind
	hash    uint32
	members uint64
}

const initialSlots = 1 << 14

func newTokenTable() *tokenTable {
	return &tokenTable{seed: maphash.MakeSeed(), slots: make([]slot, initialSlots)}
}

// reset empties the table and keeps its memory.
func (t *tokenTable) reset() {
	clear(t.slots)
	t.entries, t.arena = t.entries[:0], t.arena[:0]
}

// add notes that the members hold a value of kind k, which must not be empty.
func (t *tokenTable) add(k logfmt.TokenKind, value []byte, members uint64) {
	// A value that equals a token is its own indexed spelling, unless it ends in
	// a dot. So nearly all values are found before they are copied.
	i, hash := t.find(k, value)
	if t.slots[i].entry == 0 || value[len(value)-1] == '.' {
		start := len(t.arena)
		t.arena = appendToken(t.arena, k, value)
		token := t.arena[start:]
		if i, hash = t.find(k, token); t.slots[i].entry != 0 {
			t.arena = t.arena[:start]
		} else {
			t.entries = append(t.entries, tokenEntry{uint32(start), uint16(len(token)), k, hash, 0})
			t.slots[i] = slot{hash, uint32(len(t.entries))}
		}
	}
	t.entries[t.slots[i].entry-1].members |= members
	if 2*len(t.entries) > len(t.slots) {
		t.grow()
	}
}

// find returns the slot that holds a token, or the free one where it belongs.
func (t *tokenTable) find(k logfmt.TokenKind, token []byte) (i, hash uint32) {
	hash = uint32(maphash.Bytes(t.seed, token)) ^ uint32(k)*0x9e3779b9
	mask := uint32(len(t.slots) - 1)
	for i = hash & mask; ; i = (i + 1) & mask {
		at := t.slots[i]
		if at.entry == 0 {
			return i, hash
		}
		if at.hash != hash {
			continue
		}
		if e := &t.entries[at.entry-1]; e.kind == k && bytes.Equal(t.token(e), token) {
			return i, hash
		}
	}
}

// appendToken appends the indexed spelling of a value, cut to maxToken bytes.
func appendToken(dst []byte, k logfmt.TokenKind, value []byte) []byte {
	start := len(dst)
	dst = logfmt.AppendToken(dst, k, value)
	return dst[:min(len(dst), start+maxToken)]
}

func (t *tokenTable) token(e *tokenEntry) []byte {
	return t.arena[e.start : e.start+uint32(e.size)]
}

// grow doubles the table, which is then at most a quarter full.
func (t *tokenTable) grow() {
	t.slots = make([]slot, 2*len(t.slots))
	mask := uint32(len(t.slots) - 1)
	for n := range t.entries {
		hash := t.entries[n].hash
		i := hash & mask
		for t.slots[i].entry != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = slot{hash, uint32(n + 1)}
	}
}

// sort orders the entries by kind and token. The table takes no more after it.
func (t *tokenTable) sort() {
	slices.SortFunc(t.entries, func(a, b tokenEntry) int {
		if c := cmp.Compare(a.kind, b.kind); c != 0 {
			return c
		}
		return bytes.Compare(t.token(&a), t.token(&b))
	})
}

// mergeTokens calls fn for each distinct token of sorted tables, in order.
func mergeTokens(tables []*tokenTable, fn func(k logfmt.TokenKind, token []byte, members uint64)) {
	next := make([]int, len(tables))
	for {
		var kind logfmt.TokenKind
		var least []byte
		for i, t := range tables {
			if next[i] == len(t.entries) {
				continue
			}
			e := &t.entries[next[i]]
			if kind == 0 || e.kind < kind || e.kind == kind && bytes.Compare(t.token(e), least) < 0 {
				kind, least = e.kind, t.token(e)
			}
		}
		if kind == 0 {
			return
		}
		var members uint64
		for i, t := range tables {
			if next[i] == len(t.entries) {
				continue
			}
			if e := &t.entries[next[i]]; e.kind == kind && bytes.Equal(t.token(e), least) {
				members |= e.members
				next[i]++
			}
		}
		fn(kind, least, members)
	}
}
