package verify

import (
	"context"
	"fmt"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/ledger/tsa"
	"logvault/vault"
)

// token is what a timestamp entry says of a kept token.
type token struct {
	entry int64
	hash  vault.Hash
	stamp time.Time
	seen  bool // the file is there
}

// timestamp takes in a timestamp entry.
func (h *history) timestamp(i int64, e *entry.Timestamp) {
	switch {
	case e.Size > i:
		h.wrong(i, "time-stamp of the head of size %d, which is not an earlier one", e.Size)
		return
	case h.tokens[e.Size] != nil:
		h.wrong(i, "time-stamp of the head of size %d, of which entry %d has one", e.Size, h.tokens[e.Size].entry)
		return
	}
	h.tokens[e.Size] = &token{entry: i, hash: e.Token, stamp: e.Stamp}
	h.stamped = max(h.stamped, e.Size)
}

// pinAuthorities takes the roots of the trust file. Without any, tokens are
// compared with the ledger only.
func (a *audit) pinAuthorities() {
	if a.o.Trust.TSA == nil {
		return
	}
	var err error
	if a.authorities, err = tsa.NewTrust(a.o.Trust.TSA.Roots, a.o.Trust.TSA.Policy); err != nil {
		a.incomplete("", "time-stamping roots of the trust file: "+err.Error())
	}
}

// token looks at a kept token: that the ledger names its bytes, and that a pinned
// authority stamped the head that the ledger had at its size.
func (a *audit) token(ctx context.Context, o vault.Object, raw []byte) {
	t := a.hist.tokens[o.Size]
	if t == nil {
		a.unnamedToken(ctx, o, raw)
		return
	}
	t.seen = true
	if got := vault.HashOf(raw); got != t.hash {
		a.differ(codeDamaged, o.Name, t.entry, "time-stamp token", t.hash.String(), got.String())
		return
	}
	if a.authorities == nil {
		return // tokens tells
	}
	head, at, err := a.checkToken(ctx, o, raw)
	if err != nil {
		a.find(codeBadTimestamp, o.Name, t.entry, err.Error())
		return
	}
	if at = at.Truncate(time.Millisecond); !at.Equal(t.stamp) {
		a.differ(codeBadTimestamp, o.Name, t.entry, "time of the token", stamp(t.stamp), stamp(at))
		return
	}
	if a.stampedHead(ctx, o, head, at) && o.Size > a.sum.Stamped {
		a.sum.Stamped, a.sum.StampedAt = o.Size, at
	}
}

// unnamedToken judges a token without an entry. A gateway that was killed before
// it appended the entry leaves one, newer than all others, and appends it at its
// next start.
func (a *audit) unnamedToken(ctx context.Context, o vault.Object, raw []byte) {
	if a.authorities != nil && o.Size > a.hist.stamped {
		if _, _, err := a.checkToken(ctx, o, raw); err == nil {
			a.find(codeInTransit, o.Name, -1, "no timestamp entry names this token yet")
			return
		}
	}
	a.find(codeUnexpected, o.Name, -1, "no timestamp entry names this token")
}

// checkToken has a token judged over the kept head of its size.
func (a *audit) checkToken(ctx context.Context, o vault.Object, raw []byte) (head []byte, at time.Time, err error) {
	head, err = vault.ReadAll(ctx, a.o.Vault, vault.KeptCheckpointName(vault.LedgerPrefix, o.Size), headLimit)
	if err != nil {
		return nil, at, fmt.Errorf("the head that the token is for: %w", err)
	}
	at, err = a.authorities.Check(raw, head)
	return head, at, err
}

// stampedHead checks that a stamped head is a point of this history, and that
// its last entry is not dated after the stamp.
func (a *audit) stampedHead(ctx context.Context, o vault.Object, head []byte, at time.Time) bool {
	cp, err := ledger.ParseCheckpoint(head, a.o.Trust)
	if err != nil || cp.Size != o.Size || cp.Size > a.tree.Size() {
		return false // the audit of the files has named the head
	}
	if root, err := a.tree.RootAt(ctx, cp.Size); err != nil || root != cp.Root {
		return false // likewise
	}
	data, err := a.tree.Entry(ctx, cp.Size-1)
	if err != nil {
		return false
	}
	if e, err := entry.Decode(data); err == nil && e.Head().Time.After(at.Add(clockSlack)) {
		a.differ(codeTimeOrder, o.Name, cp.Size-1, "dated after a time-stamp that covers it", "not after "+stamp(at), stamp(e.Head().Time))
	}
	return true
}

// tokens reports the time-stamps that are missing, and that some were not judged.
// A replica gets tokens after the checkpoint, and says in its copy log when it
// has them.
func (a *audit) tokens() {
	for size, t := range a.hist.tokens {
		name := vault.TimestampName(vault.LedgerPrefix, size)
		switch {
		case t.seen:
		case a.replica && t.entry >= a.held:
			a.find(codeInTransit, name, t.entry, "the token of a time-stamp, not copied yet")
		default:
			a.find(codeMissing, name, t.entry, "the token of a time-stamp")
		}
	}
	if n := len(a.hist.tokens); n > 0 && a.o.Trust.TSA == nil {
		a.find(codeTimestampUnpinned, "", -1, fmt.Sprintf("%d time-stamps", n))
	}
}
