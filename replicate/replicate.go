// Package replicate copies a vault to a second place. (The full text of this comment follows with the implementation.)
package replicate

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"logvault/ledger"
	"logvault/vault"
)

// Why a pass is refused. None of them changes the destination.
var (
	ErrUnsigned   = errors.New("source checkpoint is not signed by the pinned key")
	ErrShrunk     = errors.New("source ledger is shorter than what this copy holds")
	ErrForked     = errors.New("source ledger is not a continuation of what this copy holds")
	ErrChanged    = errors.New("object differs from what the ledger says")
	ErrMissing    = errors.New("source object is missing before its date")
	ErrClock      = errors.New("source times are ahead of this machine's clock")
	ErrOtherVault = errors.New("destination is a copy of another vault")
	ErrDamaged    = errors.New("ledger is damaged")
	// ErrPartial says that the pass did not finish for a passing reason; run it again later.
	ErrPartial = errors.New("pass is not complete")
)

// Dest is the place that a pass writes to.
type Dest interface {
	vault.Reader
	vault.Writer
	vault.Head
}

// Options says what to copy, and how.
type Options struct {
	From        vault.Reader
	To          Dest
	Trust       *ledger.Trust
	Copy        *ledger.Log // the copy's own log
	CosignKey   string      // skey of the copy's cosigner
	Actor       string      // role id written into the copy log
	Jobs        int
	Rate        int64 // bytes per second, 0: no limit
	Attempts    int   // tries of one object after passing errors, 0: 5
	Now         func() time.Time
	Sleep       func(ctx context.Context, d time.Duration) error
	WithoutKeys bool
	Log         *slog.Logger
	Progress    func(done, total int64)
}

// Summary is what a pass did.
type Summary struct {
	Size          int64
	Root          vault.Hash
	Copied, Bytes int64
	Present       int64
	Missing, Due  int64
	Unrecorded    int64
	Cosigned      bool
	Immutability  string
}

// InitOptions says which copy to begin.
type InitOptions struct {
	From  vault.Reader
	To    Dest
	Trust *ledger.Trust
	Copy  *ledger.Log
	Name  string // of the copy
	Key   string // vkey of the copy's cosigner
	Actor string
	Now   func() time.Time
}

// Init begins a copy: the marker and the copy log's first entry.
func Init(ctx context.Context, o InitOptions) error { return nil }

// Run makes one pass.
func Run(ctx context.Context, o Options) (Summary, error) { return Summary{}, nil }
