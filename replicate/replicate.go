// Package replicate copies a vault to a second place, so that the copy can be
// trusted without trusting the vault it came from.
//
// A pass pulls: it runs beside the destination, reads the source as a hostile
// stranger's and decides by its own clock and its own copy of the ledger. It
//
//  1. checks the source checkpoint under the pinned key, and that it continues
//     every head this copy has accepted before;
//  2. reads all entries, recomputing every leaf, and derives what must be held;
//  3. lists both sides and refuses the pass if the source lacks or has altered
//     what it must still have; so far nothing has been written;
//  4. copies the missing objects in parallel, each hashed on its way and read
//     back and hashed again from the destination before it counts, and makes
//     each immutable as far as the store can, until its date;
//  5. copies the ledger: bundles and tiles as recomputed, never as read, and
//     the checkpoint last;
//  6. copies kept heads, cosignatures and timestamps that verify;
//  7. keeps the head, protects what has no date of its own, appends lock and held
//     to the copy log, then stores its cosignature of the head: "I hold every
//     object of this head that is not yet due";
//  8. removes what a bucket keeps of the names that change.
//
// Steps 1 to 3 write nothing. While a machine or a line is away they, and each
// object of step 4, are tried again, with waits that double up to an hour.
//
// # What a crash leaves
//
// Steps 4 to 7 only add, in an order in which every prefix is a good copy of
// the destination's own checkpoint: before step 5 objects that its checkpoint
// does not name yet (verify says in-transit), within step 5 tiles beyond it,
// after step 5 a copy that is whole but not vouched for. The next pass finds
// what is there by listing, and copies no finished object again. What is newer
// than the last held entry, by its entry or by when it was written, may not have
// been read back or protected: the next pass does both, but for what Options.Memory
// has.
//
// # Levels
//
// A pass reports the weakest level over all that must be protected, as it was
// checked: none, mode, flag or objectlock. Modes and locks are checked when they
// are set and again when the store can do more, or a date has moved; flags, which
// root can take away, on every pass. Protect does the same without copying, for a
// copy that is pushed to by a machine that has no such right.
//
// # What never happens
//
// A pass has no power to remove an object and does not want it: deletions never
// propagate, each copy expires by itself. It replaces nothing but the
// checkpoint and partial tiles. An object that is due is not copied.
//
// # What a pass does not see
//
// Objects held already are compared by listing: name and size on both sides,
// and their bytes at the source again if they were written there after they
// were copied, and less than an hour before the last pass on record or since. A
// byte that rots silently is found by verify, not by replicate.
package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"logvault/ledger"
	"logvault/vault"
)

// Why a pass is refused or ends. After any of the refusals but ErrPartial the
// destination's ledger is what it was before the pass.
var (
	// ErrUnsigned says that the source's checkpoint is not by the pinned key.
	ErrUnsigned = errors.New("source checkpoint is not signed by the pinned key")
	// ErrShrunk says that the source's ledger is shorter than one seen before.
	ErrShrunk = errors.New("source ledger is shorter than what was seen before")
	// ErrForked says that the source's ledger does not contain a head seen before.
	ErrForked = errors.New("source ledger does not continue what was seen before")
	// ErrChanged says that an object has other bytes than the ledger names.
	ErrChanged = errors.New("object differs from what the ledger says")
	// ErrMissing says that the source lacks an object that is not due.
	ErrMissing = errors.New("object is missing before its date")
	// ErrClock says that the source received data later than tomorrow by the
	// clock of this machine: one of the two clocks is wrong.
	ErrClock = errors.New("times are more than a day ahead of this machine's clock")
	// ErrRotated says that the recovery key named another ledger key, which
	// nobody has accepted for this copy yet: see Options.AcceptRotation.
	ErrRotated = errors.New("the ledger key was replaced with the recovery key")
	// ErrOtherVault says that the destination is a copy of another vault.
	ErrOtherVault = errors.New("destination is a copy of another vault")
	// ErrDamaged says that a ledger cannot be read to its end, or that the
	// destination's own ledger or copy log contradicts itself.
	ErrDamaged = errors.New("ledger is damaged")
	// ErrPartial says that the pass ended early for a reason that may pass, such
	// as a full disk or a NAS that is away. What was copied stays; run it again.
	ErrPartial = errors.New("the pass is not complete")
)

// Dest is the place that a pass writes to. It gives no power to remove objects.
type Dest interface {
	vault.Reader
	vault.Writer
	vault.Head
}

// Memory remembers which objects of the destination were brought to their end,
// so that a pass which is killed need not be repeated from its beginning.
// Forgetting is safe. A pass never makes two calls at once.
type Memory interface {
	// Recall returns how an object was left: read back, and protected like this.
	Recall(vault.Hash) (Reached, bool)
	// Remember takes note of it.
	Remember(vault.Hash, Reached) error
}

// Reached is a level of protection and until when it lasts, where it ends.
type Reached struct {
	Level vault.Level
	Until time.Time
}

// Options says what to copy, and how.
type Options struct {
	// From is the source. Nothing read from it is trusted.
	From vault.Reader
	// To is the destination that Init began.
	To Dest
	// Trust pins the ledger key. Its known size and root are points that the
	// source must contain. Trust.Copies holds the keys of the source's copy logs.
	Trust *ledger.Trust
	// Copy is the copy's own log, opened for appending; its key is the copy's. Nil
	// is a destination that vouches for nothing: a primary that is being rebuilt.
	Copy *ledger.Log
	// CosignKey signs the heads that the copy holds in full.
	CosignKey string
	// Actor is the role written into the copy log.
	Actor string
	// Jobs is how many objects are copied at once; 0 means 8.
	Jobs int
	// AcceptRotation is the hash, typed by a person, of the one rotate entry that
	// may replace the pinned key by order of the recovery key.
	AcceptRotation vault.Hash
	// Rate limits the bytes read from the source per second; 0 means no limit.
	Rate int64
	// Attempts is how often one object is tried when passing errors come,
	// waiting 1, 2, 4 … seconds, at most an hour, in between; 0 means 5.
	Attempts int
	// Now is this machine's clock.
	Now func() time.Time
	// Sleep waits; nil waits really.
	Sleep func(ctx context.Context, d time.Duration) error
	// WithoutKeys leaves out keys/: the copy cannot be read, by nobody, once
	// the wraps elsewhere are destroyed.
	WithoutKeys bool
	// Memory, if set, is what lost passes remembered since the last whole one.
	Memory Memory
	// CosignBack, if set, is the source as a place that takes the head and this
	// copy's cosignature of it. A failure is logged and counts for nothing.
	CosignBack vault.Writer
	// Log receives one Debug record per object and one Info record per pass.
	Log *slog.Logger
	// Progress, if set, is called as bytes arrive, of total to copy. It is never
	// called by two goroutines at once.
	Progress func(done, total int64)
}

// Summary is what a pass did.
type Summary struct {
	// Size and Root are the head that the copy holds now.
	Size int64
	Root vault.Hash
	// Copied objects and Bytes are new; Present ones were there already.
	Copied, Bytes, Present int64
	// Due objects were not copied because they must be destroyed; Missing ones are
	// absent at the source, rightly.
	Due, Missing int64
	// Unrecorded objects at the source have no entry, and Rejected heads or
	// cosignatures do not verify: they were not copied. Look at the source.
	Unrecorded, Rejected int64
	// Cosigned: the head bears this copy's cosignature.
	Cosigned bool
	// Trust is what to pin after a pass without error: the given trust, with the
	// ledger key that accepted rotations lead to.
	Trust *ledger.Trust
	// Immutability is the weakest level of all that the destination must protect,
	// as it was checked; "" if the pass ended before.
	Immutability vault.Level
}

// Run makes one pass. It is idempotent, and may be repeated after any error.
// The summary counts what was done also when an error is returned.
func Run(ctx context.Context, o Options) (Summary, error) {
	if o.From == nil || o.To == nil || o.Trust == nil || o.Now == nil || o.Log == nil {
		return Summary{}, errors.New("replicate: source, destination, trust, clock or log not given")
	}
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	var p *pass
	err := again(ctx, &o, "the plan", passing, func() error {
		p = &pass{o: o, limit: newLimiter(o.Rate, o.Now, o.Sleep)}
		return p.steps(ctx, p.source, p.destination, p.rotated, p.grown, p.scan, p.lists, p.check)
	})
	if err == nil {
		err = p.steps(ctx, p.objects, p.tiles, p.head, p.kept, p.vouch, p.versions)
	}
	p.sum.Immutability = p.level
	if err == nil {
		p.sum.Trust = p.o.Trust
		o.Log.Info("replicated", "size", p.sum.Size, "copied", p.sum.Copied, "bytes", p.sum.Bytes, "present", p.sum.Present)
	}
	return p.sum, err
}

func (p *pass) steps(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// seen is a head that was accepted before, and by whom it is remembered.
type seen struct {
	what string
	size int64
	root vault.Hash
	any  bool // the root is not known
}

// String names the head in errors.
func (s seen) String() string { return fmt.Sprintf("%s at size %d", s.what, s.size) }
