// Package ledger is the append-only log that chains everything a vault holds.
//
// A log is a C2SP tlog-tiles log (https://c2sp.org/tlog-tiles) under a prefix
// of a vault store:
//
//	checkpoint                     the signed head: a note of three lines
//	tile/<L>/<N>[.p/<W>]           hash tiles of height 8: W hashes of 32 bytes
//	tile/entries/<N>[.p/<W>]       bundles: W entries, each a 16-bit big-endian length and its bytes
//	checkpoints/<size>             kept heads: the last of each UTC day, and those somebody outside saw
//	cosignatures/<size>/<key id>   a cosignature/v1 line over the head of that size
//
// and a checkpoint reads
//
//	logs.example/main
//	1234
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
//	— logs.example/main Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//
// Tiles and proofs are those of RFC 6962. Entries are opaque here but for their
// canonical form (package entry): the chain verifies whatever they say.
//
// # Writing
//
// A Log has one writer. It commits to a record, the gateway's own disk, and
// then copies to the vault. Append writes bundles, then tiles, then the
// checkpoint, each durable before the next; the checkpoint is the commit point.
// What a crash leaves:
//
//   - before the checkpoint: full tiles and bundles beyond the published size,
//     and partial ones of another width. Open removes them, from the names near
//     the right edge where a batch of at most MaxBatch can have left them.
//   - after it: superseded partial tiles. Open removes them, likewise.
//   - a checkpoint whose rename is visible but not durable. Open publishes it
//     again before anything is built on it or copied.
//
// After any error of the record the memory of the right edge is dropped and
// read again, by the code of Open, from the checkpoint that is published.
//
// # Fencing
//
// Before each batch the vault's checkpoint must be the record's or one of its
// past. If it is ahead or off the chain, this state is older than its vault or
// another gateway writes there, and nothing is appended. So a restored state
// directory or a cloned machine cannot fork a ledger that has reached the vault.
//
// # Reading
//
// A Tree reads any copy of a log and trusts none of it: every hash is proven
// against the root of a checkpoint whose signature was checked with a pinned key.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"logvault/vault"
)

// MaxBatch is the largest number of entries of one Append. It bounds what a
// crash can leave beyond the checkpoint, and so what Open looks for.
const MaxBatch = 1024

// Errors that callers branch on.
var (
	// ErrBehind says that the record is shorter than what its vault, or a
	// pinned size, has seen.
	ErrBehind = errors.New("this state is older than its vault, or another gateway writes here")
	// ErrForked says that two heads of one log do not lie on one chain.
	ErrForked = errors.New("the ledger is forked: two heads are not on one chain")
	// ErrStopped says that the published checkpoint is not the one this
	// writer published. It stays until the log is opened again.
	ErrStopped = errors.New("another writer published a checkpoint")
	// ErrUnsigned says that a checkpoint has no valid signature by the trusted key.
	ErrUnsigned = errors.New("checkpoint not signed by the ledger key")
	// ErrNoLedger says that there is no checkpoint.
	ErrNoLedger = errors.New("no ledger here")
	// ErrExists says that Create found a ledger.
	ErrExists = errors.New("a ledger exists here")
	// ErrNoTrust says that no trust was given. Verification fails closed.
	ErrNoTrust = errors.New("no trusted keys given")
)

// DamageError says that a stored file of a log is not what the signed
// checkpoint commits to.
type DamageError struct {
	Name   string // object name
	Detail string // what was expected and what was found
}

// Error names the file and what is wrong with it.
func (e *DamageError) Error() string { return fmt.Sprintf("%s: %s", e.Name, e.Detail) }

// CopyError says that entries were committed to the record but not, or not
// wholly, copied to the vault. The next Append or SyncCopy copies them.
type CopyError struct{ Err error }

// Error says that the entries stand.
func (e *CopyError) Error() string { return "committed, but not copied to the vault: " + e.Err.Error() }

// Unwrap returns the store's error.
func (e *CopyError) Unwrap() error { return e.Err }

// Store is what a log is kept in.
type Store interface {
	vault.Reader
	vault.Writer
	vault.Head
}

// Config says where a log is and who signs it.
type Config struct {
	Prefix    string           // vault.LedgerPrefix, or one of vault.CopyLogPrefix
	Origin    string           // the first line of its checkpoints
	SignerKey string           // note signer key, as GenerateKey makes it
	Record    Store            // the ledger of record: the commit point
	Copy      Store            // the vault it is copied to; nil = none
	Now       func() time.Time // for the day of kept heads
	KnownSize int64            // Open refuses a smaller checkpoint
}

// Checkpoint is a verified head of a log.
type Checkpoint struct {
	Origin    string
	Size      int64
	Root      vault.Hash
	Raw       []byte   // the signed note as published
	Cosigners []string // names of the trusted keys, other than the log's, with a valid signature on it
}

// Create starts an empty log: a signed checkpoint of size 0 in the record, then
// in the copy. It fails with ErrExists if either holds a checkpoint or tiles.
// A crash between the two leaves a log that Open completes.
func Create(ctx context.Context, cfg Config) (*Log, error) {
	l, err := newLog(cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range l.stores() {
		if err := checkVacant(ctx, s, cfg.Prefix); err != nil {
			return nil, err
		}
	}
	cp, err := l.sign(0, TreeRoot(nil))
	if err != nil {
		return nil, err
	}
	for _, s := range l.stores() {
		if err := s.Replace(ctx, vault.CheckpointName(cfg.Prefix), cp.Raw); err != nil {
			return nil, fmt.Errorf("publishing the first checkpoint: %w", err)
		}
	}
	return Open(ctx, cfg)
}

// Open opens an existing log, removes what a crash left and brings the copy up
// to date. Its cost does not depend on the size of the log: it reads the right
// edge, one tile per level. Errors: ErrNoLedger, ErrUnsigned, ErrBehind,
// ErrForked, a *DamageError of the right edge, a *CopyError, or of the store.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := newLog(cfg)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	if err := l.fence(ctx); err != nil {
		return nil, err
	}
	if err := l.copyOut(ctx); err != nil {
		return nil, &CopyError{err}
	}
	return l, nil
}

// checkVacant returns nil if there is no checkpoint and no tile under prefix.
func checkVacant(ctx context.Context, r vault.Reader, prefix string) error {
	name := vault.CheckpointName(prefix)
	if _, err := r.Stat(ctx, name); err == nil {
		return fmt.Errorf("%s: %w", name, ErrExists)
	} else if !errors.Is(err, vault.ErrNotExist) {
		return err
	}
	return checkNoTiles(ctx, r, prefix, ErrExists)
}

// checkNoTiles returns found, with a name, if there is a tile under prefix.
func checkNoTiles(ctx context.Context, r vault.Reader, prefix string, found error) error {
	return r.List(ctx, prefix+"tile/", func(i vault.Info) error {
		return fmt.Errorf("%s: tiles without a checkpoint: %w", i.Name, found)
	})
}
