package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"logvault/ledger"
	"logvault/vault"
)

// maxExtras bounds the names without an entry that are remembered and reported
// one by one.
const maxExtras = 10_000

// account looks at every name of the vault: each must be accounted for.
//
// A gateway stores an object before it appends the entry, so names without an
// entry are looked up again in the newest checkpoint before they are judged.
func (a *audit) account(ctx context.Context) {
	extras := a.extras(ctx)
	for attempt := 1; len(extras) > 0 && ctx.Err() == nil; attempt++ {
		extras = a.recorded(ctx, extras)
		if len(extras) == 0 || a.o.Settle == nil || !a.o.Settle(ctx, attempt) {
			break
		}
	}
	w := worker{a: a, buf: make([]byte, bufferSize)}
	for _, o := range extras {
		if ctx.Err() == nil {
			w.extra(ctx, o)
		}
	}
}

// extras lists the objects that no entry names, and reports the names that are
// none. Ledger files were looked at with the ledger.
func (a *audit) extras(ctx context.Context) []vault.Object {
	var extras []vault.Object
	more := 0
	err := a.o.Vault.List(ctx, "", func(info vault.Info) error {
		if strings.HasPrefix(info.Name, vault.LedgerPrefix) || strings.HasPrefix(info.Name, "copy/") {
			return nil
		}
		o, err := vault.ParseName(info.Name)
		switch {
		case err != nil:
			a.find(codeUnexpected, info.Name, -1, err.Error())
		case o.Kind == vault.KindMarker || a.hist.names(o) || a.hist.orphans[o.Name] != nil:
		case len(extras) < maxExtras:
			extras = append(extras, o)
		default:
			more++
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.incomplete("", "listing the vault: "+err.Error())
	}
	if more > 0 {
		a.find(codeUnexpected, "", -1, fmt.Sprintf("%d more names without an entry", more))
	}
	return extras
}

// recorded returns those of extras that the newest checkpoint does not name either.
func (a *audit) recorded(ctx context.Context, extras []vault.Object) []vault.Object {
	tree, err := openAt(ctx, a.o.Vault, vault.LedgerPrefix, a.o.Trust)
	if err != nil {
		a.find(codeUnsigned, checkpointName, -1, "read again at the end: "+err.Error())
		return extras
	}
	old := a.tree.Checkpoint()
	if tree.Size() <= a.hist.next {
		if tree.Size() < old.Size {
			a.contains(ctx, checkpointName, "read again at the end", tree.Size(), tree.Root(), true)
		}
		return extras
	}
	if err := continues(ctx, tree, old); err != nil {
		a.find(codeForked, checkpointName, -1, "read again at the end: "+err.Error())
		return extras
	}
	a.tree = tree
	if !a.hist.scan(ctx, tree, a.hist.next) {
		return extras
	}
	return slices.DeleteFunc(extras, func(o vault.Object) bool { return a.hist.names(o) || a.hist.orphans[o.Name] != nil })
}

var errFork = errors.New("the newer checkpoint does not continue this one")

// continues checks that tree contains the head old.
func continues(ctx context.Context, tree *ledger.Tree, old ledger.Checkpoint) error {
	root, err := tree.RootAt(ctx, old.Size)
	if err == nil && root != old.Root {
		err = errFork
	}
	return err
}

// extra judges an object that no entry names. It is an error, but for what an
// interrupted program leaves: a replica may be ahead of its own checkpoint, and
// a gateway killed between storing a wrap or a record and appending its entry
// leaves one that only the auditors can open and nobody uses.
func (w *worker) extra(ctx context.Context, o vault.Object) {
	const unnamed = "no entry names it"
	named := o.Kind != vault.KindRegister && o.Kind != vault.KindHoldKey // after the hash of its bytes
	if named && w.check(ctx, o.Name, -1, o.Hash, -1, false) != intact {
		return
	}
	switch {
	case o.Kind == vault.KindHoldKey:
		w.a.find(codeUnexpected, o.Name, -1, unnamed)
	case w.a.replica:
		w.a.find(codeInTransit, o.Name, -1, unnamed+" yet")
	case o.Kind == vault.KindSegment || o.Kind == vault.KindIndex:
		w.a.find(codeUnexpected, o.Name, -1, unnamed)
	default:
		who, err := readers(ctx, w.a.o.Vault, o.Name)
		if err != nil || !w.a.readers[list(who)] {
			w.a.find(codeUnexpected, o.Name, -1, unnamed+", and it is not for the auditors of this vault")
			return
		}
		w.a.find(codeOrphan, o.Name, -1, unnamed+": left by a crash, used by nothing")
	}
}
