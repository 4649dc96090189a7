package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
)

// unfinishedSuffix, after the path of a vault, names the file that stands beside
// it while it is being restored. It is a lock, and empty.
const unfinishedSuffix = ".restoring"

// RestoreOptions says from which replica a destroyed primary is rebuilt.
type RestoreOptions struct {
	Env
	// From is the replica. Nothing read from it is trusted.
	From vault.Reader
	// Vault is the directory of the new primary: absent, empty, or left by a
	// restore that was interrupted.
	Vault string
	// Trust pins the ledger's key. What the replica destroyed before counts only
	// if the key of its copy log is among Trust.Copies.
	Trust *ledger.Trust
	// WithoutKeys says that the replica was made without keys/.
	WithoutKeys bool
	Jobs        int   // as in replicate.Options
	Rate        int64 // as in replicate.Options
	Progress    func(done, total int64)
	Sleep       func(ctx context.Context, d time.Duration) error // as in replicate.Options
}

// Restore is a vault being rebuilt.
type Restore struct {
	o     RestoreOptions
	store vault.Store
	lock  io.Closer
}

// BeginRestore opens or makes the place of the new vault, for Run. A place that
// holds anything is refused with vault.ErrNotEmpty, unless it is what an
// interrupted restore left. The caller closes the Restore.
//
//	make the vault's directories | make VAULT.restoring, sync its directory | objects, ledger | remove VAULT.restoring
//
// A crash before the second step leaves empty directories, which count as empty;
// after it, a place that the next restore goes on with.
func BeginRestore(ctx context.Context, o RestoreOptions) (*Restore, error) {
	r := &Restore{o: o}
	r.o.Vault = path.Clean(o.Vault)
	_, err := o.FS.Stat(r.unfinished())
	switch {
	case err == nil:
		if r.store, err = o.Stores.Open(ctx, r.o.Vault); err != nil {
			return nil, fmt.Errorf("going on with the restore that %s tells of (remove that file too if you removed the vault): %w", r.unfinished(), err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err = vfs.MkdirAll(o.FS, path.Dir(r.o.Vault), 0o750); err != nil {
			return nil, fmt.Errorf("restoring: %w", err)
		}
		if r.store, err = o.Stores.Create(ctx, r.o.Vault); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if r.lock, err = o.FS.Lock(r.unfinished()); err != nil {
		return nil, fmt.Errorf("locking %s: %w", r.unfinished(), err)
	}
	if err := o.FS.SyncDir(path.Dir(r.o.Vault)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Restore) unfinished() string { return r.o.Vault + unfinishedSuffix }

// Run copies what the replica's ledger names and the vault lacks. Every object
// is hashed on its way and again where it arrived. Errors are those of
// replicate.Run; what was copied stays, and the next Restore goes on from there.
func (r *Restore) Run(ctx context.Context) (replicate.Summary, error) {
	if _, err := r.store.Sweep(ctx); err != nil { // the lock is held: they are of a killed restore
		r.o.Log.Warn("temporary files of an interrupted restore stay", "err", err)
	}
	if err := r.marker(ctx); err != nil {
		return replicate.Summary{}, err
	}
	return replicate.Run(ctx, replicate.Options{From: r.o.From, To: r.store, Trust: r.o.Trust, WithoutKeys: r.o.WithoutKeys,
		Jobs: r.o.Jobs, Rate: r.o.Rate, Now: r.o.Now, Log: r.o.Log, Progress: r.o.Progress, Sleep: r.o.Sleep})
}

// marker stores the replica's VAULT, which the first entry must name.
func (r *Restore) marker(ctx context.Context) error {
	tree, err := ledger.OpenTree(ctx, r.o.From, vault.LedgerPrefix, r.o.Trust)
	if err != nil {
		return fmt.Errorf("opening the replica's ledger: %w", err)
	}
	data, err := tree.Entry(ctx, 0)
	if err != nil {
		return fmt.Errorf("reading the replica's ledger: %w", err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		return fmt.Errorf("the replica's first entry: %w", err)
	}
	marker, err := vault.ReadAll(ctx, r.o.From, vault.MarkerName, 4096)
	if err != nil {
		return fmt.Errorf("the replica's marker: %w", err)
	}
	first, ok := e.(*entry.Init)
	if !ok || first.Marker != vault.HashOf(marker) {
		return fmt.Errorf("the replica's %s: %w: it is not the one that the first entry names", vault.MarkerName, replicate.ErrChanged)
	}
	err = r.store.Put(ctx, vault.MarkerName, int64(len(marker)), bytes.NewReader(marker))
	if errors.Is(err, vault.ErrConflict) {
		return fmt.Errorf("%s: %w", r.o.Vault, replicate.ErrOtherVault)
	}
	return err
}

// Store is the vault as far as it is restored.
func (r *Restore) Store() vault.Store { return r.store }

// Finish declares the vault restored: from now on its place counts as not empty.
func (r *Restore) Finish() error {
	err := r.o.FS.Remove(r.unfinished())
	if err == nil {
		err = r.o.FS.SyncDir(path.Dir(r.o.Vault))
	}
	if err != nil {
		return fmt.Errorf("ending the restore: %w", err)
	}
	return nil
}

// Close releases the place. An unfinished restore stays one.
func (r *Restore) Close() error { return r.lock.Close() }
