package verify

import (
	"context"
	"errors"
	"fmt"

	"logvault/vault"
)

// against is how findings name the copy that ours is compared with.
const against = "other copy: "

// compareHeads compares the histories of the two copies. Either must contain
// the other. If the other is longer, then ours has been rolled back, unless it
// is a replica whose own pinned log has not promised more than it has: then it
// is only behind.
func (a *audit) compareHeads(ctx context.Context) {
	other, err := openAt(ctx, a.o.Against, vault.LedgerPrefix, a.o.Trust)
	if err != nil {
		a.find(codeUnsigned, checkpointName, -1, against+err.Error())
		a.o.Against = nil
		a.incomplete("", "the copies were not compared")
		return
	}
	ours := a.tree.Checkpoint()
	if other.Size() <= ours.Size {
		a.contains(ctx, checkpointName, "head of the other copy", other.Size(), other.Root(), true)
		return
	}
	switch err := continues(ctx, other, ours); {
	case errors.Is(err, errFork):
		a.differ(codeForked, checkpointName, -1, fmt.Sprintf("the other copy's root at our size %d", ours.Size), ours.Root.String(), "another")
	case err != nil:
		a.incomplete(checkpointName, against+err.Error())
	case a.held > 0 && a.held <= ours.Size:
		a.differ(codeBehind, checkpointName, -1, "the other copy has more entries", fmt.Sprint(other.Size()), fmt.Sprint(ours.Size))
	default:
		a.differ(codeRolledBack, checkpointName, -1, "the other copy has more entries", fmt.Sprint(other.Size()), fmt.Sprint(ours.Size))
	}
}

// Comparison counts the objects that the ledger names and that are not due, as
// the two copies hold them.
type Comparison struct {
	Identical    int64 // both hold the same bytes, and those of the ledger
	MissingThere int64 // the other one lacks it
	MissingHere  int64 // only the other one holds it whole
	Differing    int64 // the other one holds other bytes than the ledger names
	Unknown      int64 // names of the other one that no entry of this ledger accounts for
}

// String says it in words.
func (c Comparison) String() string {
	return fmt.Sprintf("%d objects identical, %d missing there, %d missing here, %d differing there, %d unknown here",
		c.Identical, c.MissingThere, c.MissingHere, c.Differing, c.Unknown)
}

// against compares an object with the same one of the other copy, by reading
// its bytes there too. size is -1 if no entry states it.
func (w *worker) against(ctx context.Context, name string, i int64, due bool, want vault.Hash, size int64, here outcome) {
	if w.a.o.Against == nil || ctx.Err() != nil {
		return
	}
	got, n, err := hashObject(ctx, w.a.o.Against, name, limitOf(size), w.buf, func(int64) {})
	count := func(n *int64) {
		w.a.mu.Lock()
		*n++
		w.a.mu.Unlock()
	}
	c := &w.a.sum.Compared
	switch {
	case errors.Is(err, vault.ErrNotExist):
		if here != absent && !due {
			count(&c.MissingThere)
			w.a.find(codeAgainstMissing, name, i, "the other copy does not hold it")
		}
	case err != nil:
		if ctx.Err() == nil {
			w.a.find(codeUnreadable, name, i, against+err.Error())
		}
	case got != want || size >= 0 && n != size:
		count(&c.Differing)
		w.a.differ(codeAgainstDiffers, name, i, against+"SHA-256", want.String(), got.String())
	case here == intact:
		count(&c.Identical)
	case here == absent && !due:
		count(&c.MissingHere) // which is a finding already
	}
}

// hasKeys tells whether the other copy was made with keys/: one for a partner
// was not, and lacks nothing.
func (a *audit) hasKeys(ctx context.Context) bool {
	if a.o.Against == nil {
		return false
	}
	some := errors.New("there are some")
	return errors.Is(a.o.Against.List(ctx, "keys/", func(vault.Info) error { return some }), some)
}

// compareNames looks for objects of the other copy that no entry of this ledger
// accounts for. If its ledger is the longer one, its further entries may.
func (a *audit) compareNames(ctx context.Context) {
	if a.o.Against == nil || ctx.Err() != nil {
		return
	}
	other, err := openAt(ctx, a.o.Against, vault.LedgerPrefix, a.o.Trust)
	for _, prefix := range []string{"segments/", "keys/", "register/"} {
		if err == nil {
			err = a.o.Against.List(ctx, prefix, func(info vault.Info) error {
				o, perr := vault.ParseName(info.Name)
				if perr == nil && (a.hist.names(o) || a.hist.orphans[o.Name] != nil) {
					return ctx.Err()
				}
				a.sum.Compared.Unknown++
				if other.Size() <= a.tree.Size() {
					a.find(codeAgainstUnknown, info.Name, -1, "the other copy holds it, and no entry names it")
				}
				return ctx.Err()
			})
		}
	}
	if err != nil && ctx.Err() == nil {
		a.incomplete("", against+"listing: "+err.Error())
	}
}
