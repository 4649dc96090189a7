package segment

import (
	"bytes"
	"math/bits"
	"net/netip"
	"sort"

	"logvault/extract/logfmt"
)

// A lookup returns, in ascending order, the members that hold lines with a
// token. A line that touches several members counts for each, so the lines can
// be read whole from the result. Lines that could not be parsed have no tokens.

// Lookup returns the members with exactly this token. It is spelled as in the
// log: letter case of clients and hosts and a host's last dot do not matter.
func (ix *Index) Lookup(k logfmt.TokenKind, token string) []int {
	d, want := ix.dictionary(k), appendToken(nil, k, []byte(token))
	if i := d.search(want); i < len(d.ends) && bytes.Equal(d.token(i), want) {
		return membersOf(d.members[i])
	}
	return nil
}

// LookupCIDR returns the members with a token that is an IP address in p,
// whatever its spelling. IPv4 addresses mapped into IPv6 count as IPv4, zones
// are ignored. A single address is a prefix of its full length.
func (ix *Index) LookupCIDR(k logfmt.TokenKind, p netip.Prefix) []int {
	d := ix.dictionary(k)
	var set uint64
	for i := range d.ends {
		addr, err := netip.ParseAddr(string(d.token(i)))
		if err == nil && p.Contains(addr.Unmap().WithZone("")) {
			set |= d.members[i]
		}
	}
	return membersOf(set)
}

// dictionary returns the tokens of a kind; an unknown kind has none.
func (ix *Index) dictionary(k logfmt.TokenKind) *dictionary {
	if k < logfmt.Client || int(k-logfmt.Client) >= len(ix.tokens) {
		return new(dictionary)
	}
	return &ix.tokens[k-logfmt.Client]
}

// search returns the place of the first token that is not before want.
func (d *dictionary) search(want []byte) int {
	return sort.Search(len(d.ends), func(i int) bool { return bytes.Compare(d.token(i), want) >= 0 })
}

func membersOf(set uint64) []int {
	if set == 0 {
		return nil
	}
	members := make([]int, 0, bits.OnesCount64(set))
	for ; set != 0; set &= set - 1 {
		members = append(members, bits.TrailingZeros64(set))
	}
	return members
}
