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

// against compares an object with the same one of the other copy, by reading
// its bytes there too.
func (w *worker) against(ctx context.Context, name string, j job, want vault.Hash, size int64, here outcome) {
	got, n, err := hashObject(ctx, w.a.o.Against, name, size, w.buf, func(int64) {})
	switch {
	case errors.Is(err, vault.ErrNotExist):
		if here != absent && !j.due {
			w.a.find(codeAgainstMissing, name, j.index, "the other copy does not hold it")
		}
	case err != nil:
		if ctx.Err() == nil {
			w.a.find(codeUnreadable, name, j.index, against+err.Error())
		}
	case got != want || n != size:
		w.a.differ(codeAgainstDiffers, name, j.index, against+"SHA-256", want.String(), got.String())
	case here == intact:
		w.a.mu.Lock()
		w.a.sum.Identical++
		w.a.mu.Unlock()
	}
}
