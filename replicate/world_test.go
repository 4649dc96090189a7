package replicate_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/vault"
	"logvault/vault/dir"
)

const copyName = "nas2"

var quiet = slog.New(slog.DiscardHandler)

var origin = testvault.Origin + "/copy/" + copyName

// source makes a vault with two streams and a record.
func source(t testing.TB, seed uint64) *testvault.World {
	t.Helper()
	w, err := testvault.New(seed)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, err := range []error{
		w.Seal(ctx, 1, "first line\nsecond line\n"),
		w.Seal(ctx, 2, "text of another stream\n"),
		w.Register(ctx, "salt and who asked"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// replica is a destination with its own disk and its copy state.
type replica struct {
	testing.TB
	disk    *vfs.Mem
	trust   ledger.Trust
	now     time.Time // under mu while a pass runs: its workers ask for the time
	mu      sync.Mutex
	logKey  string
	logV    string
	cosign  string
	cosignV string

	// before is asked before each operation of the disk.
	before func(op vfs.Op, name string) error
	// options, if set, changes the options of a pass.
	options func(*replicate.Options)
}

// newReplica initialises a copy of w.
func newReplica(t testing.TB, w *testvault.World) *replica {
	t.Helper()
	r := &replica{TB: t, disk: vfs.NewMem(), trust: *w.Trust, now: w.Clock.Add(time.Minute)}
	r.disk.SetClock(func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.now
	})
	var err error
	if r.logKey, r.logV, err = ledger.GenerateKey(testvault.Random(60), origin); err != nil {
		t.Fatal(err)
	}
	if r.cosign, r.cosignV, err = ledger.NewCosigner(testvault.Random(61), origin); err != nil {
		t.Fatal(err)
	}
	r.trust.Copies = append(r.trust.Copies, ledger.TrustKey{Name: copyName, Key: r.logV})
	r.trust.Witnesses = append(r.trust.Witnesses, ledger.TrustKey{Name: origin, Key: r.cosignV})
	if _, err := dir.Create(r.disk, "/copy"); err != nil {
		t.Fatal(err)
	}
	if err := replicate.Init(context.Background(), r.initOptions(w.Vault)); err != nil {
		t.Fatal(err)
	}
	return r
}

// initOptions begin the copy.
func (r *replica) initOptions(from vault.Reader) replicate.InitOptions {
	r.Helper()
	to := r.store()
	return replicate.InitOptions{From: from, To: to, Trust: &r.trust, Log: r.logConfig(to), Name: copyName, Key: r.logV, Cosigner: r.cosignV, Actor: "replica", Now: r.clock}
}

func (r *replica) logConfig(to *dir.Store) ledger.Config {
	return ledger.Config{Prefix: vault.CopyLogPrefix(copyName), Origin: origin, SignerKey: r.logKey, Record: to, Now: r.clock}
}

func (r *replica) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(time.Millisecond)
	return r.now
}

// store is the destination, through the faults.
func (r *replica) store() *dir.Store {
	r.Helper()
	disk := vfs.NewFault(r.disk, func(op vfs.Op, name string) error {
		if r.before == nil {
			return nil
		}
		return r.before(op, name)
	})
	to, err := dir.At(disk, "/copy")
	if err != nil {
		r.Fatal(err)
	}
	return to
}

// open opens destination and copy log as a start of the command does.
func (r *replica) open() (*dir.Store, *ledger.Log) {
	r.Helper()
	to := r.store()
	log, err := ledger.Open(context.Background(), r.logConfig(to))
	if err != nil {
		r.Fatal(err)
	}
	return to, log
}

// pass makes one pass.
func (r *replica) pass(from vault.Reader) (replicate.Summary, error) {
	r.Helper()
	to, log := r.open()
	o := r.passOptions(from, to, log)
	if r.options != nil {
		r.options(&o)
	}
	return run(o)
}

// passOptions are the options of a pass on what open returned.
func (r *replica) passOptions(from vault.Reader, to replicate.Dest, log *ledger.Log) replicate.Options {
	return replicate.Options{From: from, To: to, Trust: &r.trust, Copy: log, CosignKey: r.cosign, Actor: "replica", Jobs: 2,
		Now: r.clock, Sleep: func(context.Context, time.Duration) error { return nil }, Log: quiet}
}

func run(o replicate.Options) (replicate.Summary, error) {
	return replicate.Run(context.Background(), o)
}

// must makes a pass that succeeds.
func (r *replica) must(from vault.Reader) replicate.Summary {
	r.Helper()
	sum, err := r.pass(from)
	if err != nil {
		r.Fatalf("pass: %v", err)
	}
	return sum
}

// files are the destination's files.
func (r *replica) files() testvault.Files {
	r.Helper()
	to, err := dir.At(r.disk, "/copy")
	if err != nil {
		r.Fatal(err)
	}
	return load(r, to)
}

func load(t testing.TB, from vault.Reader) testvault.Files {
	t.Helper()
	f, err := testvault.Load(context.Background(), from)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// tree opens the destination's ledger: nil if it has none yet.
func (r *replica) tree() *ledger.Tree {
	r.Helper()
	tree, err := ledger.OpenTree(context.Background(), r.files(), vault.LedgerPrefix, &r.trust)
	if errors.Is(err, ledger.ErrNoLedger) {
		return nil
	}
	if err != nil {
		r.Fatal(err)
	}
	return tree
}
