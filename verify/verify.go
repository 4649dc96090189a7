// Package verify audits a copy of a vault. (The full text of this comment follows with the implementation.)
package verify

import (
	"context"
	"time"

	"logvault/ledger"
	"logvault/seal/pgp"
	"logvault/vault"
)

// Depth says how much of a vault an audit reads.
type Depth int

// The depths. Each includes the ones before it.
const (
	Chain   Depth = iota // the ledger: signatures, proofs, entries
	Objects              // every stored byte, against its hash in the ledger
	Content              // with a key: what the sealed bytes say
)

// String returns "chain", "objects" or "content".
func (d Depth) String() string {
	switch d {
	case Chain:
		return "chain"
	case Objects:
		return "objects"
	default:
		return "content"
	}
}

// ParseDepth parses what String returns.
func ParseDepth(s string) (Depth, error) { return 0, nil }

// Known is a point of the history that somebody has seen before.
type Known struct {
	Size    int64
	Root    vault.Hash
	HasRoot bool
}

// ParseKnown parses SIZE or SIZE:ROOT, ROOT in 64 hex digits.
func ParseKnown(s string) (*Known, error) { return nil, nil }

// Options says what to audit, and how.
type Options struct {
	Vault       vault.Reader
	Keys        vault.Reader // where keys/ is; nil: in Vault
	WithoutKeys bool         // the copy was made without keys/
	Trust       *ledger.Trust
	Unpinned    bool // Trust was read from the vault itself
	Depth       Depth
	Opener      pgp.Opener
	Against     vault.Reader
	Known       *Known
	Now         time.Time
	Since       time.Time
	Jobs        int
	Progress    func(done, total int64)
	// Settle, if set, is called when objects have no entry yet; it waits a
	// little and returns true to have the ledger read once more.
	Settle func(ctx context.Context, attempt int) bool
}

// Summary is what an audit did.
type Summary struct {
	Depth                    Depth
	Complete                 bool
	Checkpoint               ledger.Checkpoint
	Witnessed                int64
	Entries, Segments, Lines int64
	Objects, Bytes           int64
	Identical                int64
	Notes, Warnings, Errors  int64
}

// Run audits and calls report for each finding, one at a time.
func Run(ctx context.Context, o Options, report func(Finding)) (Summary, error) {
	return Summary{}, nil
}
