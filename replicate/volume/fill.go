package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/window"
	"logvault/vault"
	"logvault/vault/dir"
)

// Options says what to write, and where.
type Options struct {
	FS vfs.FS
	// From is the vault. Nothing read from it is trusted.
	From vault.Reader
	// Trust pins the ledger's key.
	Trust *ledger.Trust
	// Dir is the volume: an empty directory, or the last volume that was begun.
	Dir string
	// Room is how many bytes a volume may hold.
	Room int64
	// Catalogue is the file of the catalogue; the copies of SHA256SUMS lie beside it.
	Catalogue string
	// Label says where the volume will lie.
	Label string
	// New begins another volume although the last one has room.
	New bool
	Now func() time.Time
}

// Result is what a Fill did.
type Result struct {
	Volume Volume
	Copied int64 // objects that this call wrote
	Left   int64 // objects that need another volume
}

// item is one object to be written.
type item struct {
	name  string
	hash  vault.Hash
	size  int64 // -1: the ledger does not say
	entry int64
}

// limits of what is read into memory, in bytes.
const (
	objectLimit = 256 << 20 // a segment is at most 64 MiB raw
	recordLimit = 16 << 20
	ledgerLimit = 32 << 20
)

// filler is one Fill under way.
type filler struct {
	o     Options
	cat   *Catalogue
	vol   Volume
	tree  *ledger.Tree
	store *dir.Store
	sums  map[string]vault.Hash // of every file on the volume
	items []item
	res   Result
}

// Fill writes to one volume what no earlier one has, until it is full or
// everything is written. Result.Left tells whether another volume is needed.
// Objects that are due are left out. Errors: ErrOtherVolume, ErrForeign,
// vault.ErrNotEmpty, vault.ErrNewer, vfs.ErrLocked, those of the ledger, and of the disks.
func Fill(ctx context.Context, o Options) (Result, error) {
	f := &filler{o: o, sums: map[string]vault.Hash{}}
	if err := vfs.MkdirAll(o.FS, path.Dir(o.Catalogue), 0o700); err != nil {
		return f.res, err
	}
	lock, err := o.FS.Lock(o.Catalogue + ".lock")
	if err != nil {
		return f.res, fmt.Errorf("locking the catalogue of volumes: %w", err)
	}
	defer lock.Close() // it dies with the process anyway
	for _, step := range []func(context.Context) error{f.open, f.plan, f.objects, f.ledger, f.finish} {
		if err := step(ctx); err != nil {
			return f.res, err
		}
	}
	return f.res, nil
}

// open reads the catalogue and the vault, and finds the volume to go on with.
func (f *filler) open(ctx context.Context) (err error) {
	if f.cat, err = Load(f.o.FS, f.o.Catalogue); err != nil {
		return err
	}
	if f.tree, err = ledger.OpenTree(ctx, f.o.From, vault.LedgerPrefix, f.o.Trust); err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	m, _, err := vault.ReadMarker(ctx, f.o.From)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%x", m.ID)
	if len(f.cat.Volumes) == 0 {
		f.cat.Vault, f.cat.Origin = id, m.Origin
	}
	if f.cat.Vault != id || f.cat.Next() > f.tree.Size() {
		return fmt.Errorf("%s: %w: the catalogue is of vault %s, %d entries", f.o.Catalogue, ErrOtherVolume, f.cat.Vault, f.cat.Next())
	}
	f.vol = Volume{Number: len(f.cat.Volumes) + 1, First: f.cat.Next()}
	if n := len(f.cat.Volumes); n > 0 && !f.cat.Volumes[n-1].Full {
		if f.o.New {
			f.cat.Volumes[n-1].Full = true
		} else {
			f.vol = f.cat.Volumes[n-1]
			f.cat.Volumes = f.cat.Volumes[:n-1]
		}
	}
	if err := f.checkHeader(); err != nil {
		return err
	}
	f.store, err = dir.At(f.o.FS, f.o.Dir)
	return err
}

// plan lists what the volume must hold, in the order of the ledger, up to what
// has room beside the ledger itself.
func (f *filler) plan(ctx context.Context) error {
	w := window.New()
	err := f.entries(ctx, w.Add)
	if err != nil {
		return err
	}
	size, full := f.overhead(), false
	f.vol.Next = f.tree.Size()
	err = f.entries(ctx, func(i int64, e entry.Entry) error {
		var list []item
		switch e := e.(type) {
		case *entry.Segment:
			if !w.Judge(e, f.o.Now()).Due {
				list = []item{{vault.SegmentName(e.Day, e.Object, e.Codec), e.Object, e.Size, i}, {vault.IndexName(e.Day, e.Index), e.Index, e.IndexSize, i}}
			}
		case *entry.Request:
			if class, ok := w.Class(e.Class); !ok || f.o.Now().Before(class.RetainUntil(e.Time)) {
				list = []item{{vault.RegisterName(e.Class, e.Commit), e.Object, -1, i}}
			}
		}
		if i < f.vol.First || len(list) == 0 {
			return nil
		}
		for _, it := range list {
			n, err := f.sizeOf(ctx, it)
			if err != nil {
				return err
			}
			size += n
		}
		if full = full || size > f.o.Room; full {
			f.vol.Next = min(f.vol.Next, i)
			f.res.Left += int64(len(list))
			return nil
		}
		f.items = append(f.items, list...)
		return nil
	})
	if err == nil && full && len(f.items) == 0 {
		err = fmt.Errorf("a volume of %d bytes has no room for the next object: expected more than %d", f.o.Room, size)
	}
	f.vol.Full = full
	return err
}

// sizeOf is how much room an object takes. Of a record the source tells.
func (f *filler) sizeOf(ctx context.Context, it item) (int64, error) {
	if it.size >= 0 {
		return it.size, nil
	}
	info, err := f.o.From.Stat(ctx, it.name)
	if err != nil {
		return 0, fmt.Errorf("source: %w", err)
	}
	return max(info.Size, 0), nil
}

// overhead bounds what a volume holds beside objects: the ledger twice its
// entries' size, as tiles and heads are far smaller, and the texts.
func (f *filler) overhead() int64 { return 1<<20 + f.tree.Size()*1536 }

// entries calls fn for every entry.
func (f *filler) entries(ctx context.Context, fn func(int64, entry.Entry) error) error {
	return f.tree.Entries(ctx, 0, f.tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := fn(i, e); err != nil {
			return err
		}
		return ctx.Err()
	})
}

// objects writes what is planned and not there. What is there is hashed. A volume
// that was finished is not, from here on.
func (f *filler) objects(ctx context.Context) error {
	if err := f.o.FS.Remove(path.Join(f.o.Dir, sumsName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume: %w", err)
	}
	if err := f.o.FS.SyncDir(f.o.Dir); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	marker, err := vault.ReadAll(ctx, f.o.From, vault.MarkerName, 4096)
	if err != nil {
		return err
	}
	if err := f.put(ctx, vault.MarkerName, marker); err != nil {
		return err
	}
	f.vol.Objects, f.vol.Bytes = 0, 0
	for _, it := range f.items {
		if err := f.object(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) object(ctx context.Context, it item) error {
	limit := min(it.size, objectLimit)
	if limit < 0 {
		limit = recordLimit
	}
	data, err := vault.ReadAll(ctx, f.store, it.name, limit)
	if err != nil || vault.HashOf(data) != it.hash {
		if err != nil && !errors.Is(err, vault.ErrNotExist) {
			return fmt.Errorf("volume: %w", err)
		}
		if data, err = vault.ReadAll(ctx, f.o.From, it.name, limit); err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if got := vault.HashOf(data); got != it.hash {
			return &ledger.DamageError{Name: it.name, Detail: fmt.Sprintf("SHA-256 %s, expected %s", got, it.hash)}
		}
		if err := f.put(ctx, it.name, data); err != nil {
			return err
		}
		f.res.Copied++
	}
	f.sums[it.name] = it.hash
	f.vol.Objects++
	f.vol.Bytes += int64(len(data))
	return ctx.Err()
}

// put writes an immutable file and reads it back.
func (f *filler) put(ctx context.Context, name string, data []byte) error {
	if err := f.store.Put(ctx, name, int64(len(data)), bytes.NewReader(data)); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	return f.readBack(ctx, name, data)
}

func (f *filler) readBack(ctx context.Context, name string, data []byte) error {
	back, err := vault.ReadAll(ctx, f.store, name, int64(len(data)))
	if err != nil {
		return fmt.Errorf("volume, read back: %w", err)
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("volume, read back: %w", &ledger.DamageError{Name: name, Detail: "holds other bytes than were written"})
	}
	f.sums[name] = vault.HashOf(data)
	return nil
}

// ledger writes the whole ledger as recomputed, the checkpoint last, and what is
// kept beside it as it is: readers check that by itself.
func (f *filler) ledger(ctx context.Context) error {
	write := func(name string, data []byte) error {
		if !vault.IsMutable(name) {
			return f.put(ctx, name, data)
		}
		if err := f.store.Replace(ctx, name, data); err != nil {
			return fmt.Errorf("volume: %w", err)
		}
		return f.readBack(ctx, name, data)
	}
	if err := f.tree.Files(ctx, 0, write); err != nil {
		return err
	}
	for _, kept := range []string{"checkpoints/", "cosignatures/", "timestamps/"} {
		var names []string
		err := f.o.From.List(ctx, vault.LedgerPrefix+kept, func(i vault.Info) error {
			if o, err := vault.ParseName(i.Name); err == nil && o.Size <= f.tree.Size() {
				names = append(names, i.Name)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		for _, name := range names {
			data, err := vault.ReadAll(ctx, f.o.From, name, ledgerLimit)
			if err != nil {
				return fmt.Errorf("source: %w", err)
			}
			if err := f.put(ctx, name, data); err != nil {
				return err
			}
		}
	}
	if err := write(vault.CheckpointName(vault.LedgerPrefix), f.tree.Checkpoint().Raw); err != nil {
		return err
	}
	return f.dropOld(ctx)
}

// dropOld removes partial tiles of an earlier pass to the same volume.
func (f *filler) dropOld(ctx context.Context) error {
	var old []string
	err := f.store.List(ctx, vault.LedgerPrefix+"tile/", func(i vault.Info) error {
		if _, ok := f.sums[i.Name]; !ok && vault.IsMutable(i.Name) {
			old = append(old, i.Name)
		}
		return nil
	})
	for _, name := range old {
		if err == nil {
			err = f.store.RemovePartial(ctx, name)
		}
	}
	return err
}

// finish writes the texts, SHA256SUMS last, and then the catalogue.
func (f *filler) finish(ctx context.Context) error {
	f.vol.Label, f.vol.Made = f.o.Label, f.o.Now().UTC().Truncate(time.Second)
	f.vol.Size = f.tree.Size()
	texts := map[string]string{headerName: f.header(), readmeName: f.readme()}
	for name, text := range texts {
		f.sums[name] = vault.HashOf([]byte(text))
	}
	if err := vfs.WriteFile(f.o.FS, path.Join(f.o.Dir, readmeName), []byte(texts[readmeName]), 0o644); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	if _, err := f.store.Sweep(ctx); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	// A disk that went away left a directory that takes files as well.
	if _, err := f.o.FS.Stat(path.Join(f.o.Dir, headerName)); err != nil {
		return fmt.Errorf("%s: %w: it is not mounted any more: %w", f.o.Dir, ErrOtherVolume, err)
	}
	var b strings.Builder
	names := make([]string, 0, len(f.sums))
	for name := range f.sums {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%s  %s\n", f.sums[name], name)
	}
	f.vol.Sums = vault.HashOf([]byte(b.String())).String()
	if err := vfs.WriteFile(f.o.FS, path.Join(f.o.Dir, sumsName), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	if err := vfs.WriteFile(f.o.FS, fmt.Sprintf("%s.%d.%s", f.o.Catalogue, f.vol.Number, sumsName), []byte(b.String()), 0o644); err != nil {
		return err
	}
	f.cat.Volumes = append(f.cat.Volumes, f.vol)
	f.res.Volume = f.vol
	return f.cat.save(f.o.FS, f.o.Catalogue)
}

// readme explains the volume to whoever finds it.
func (f *filler) readme() string {
	return fmt.Sprintf(`This is volume %d of a log archive made by logvault.

    archive   %s (vault %s)
    written   %s
    holds     %d objects, %d bytes, of the ledger's entries %d to %d
    ledger    %d entries, root %s

Check that it is whole, in this directory:

    sha256sum --check --quiet SHA256SUMS
    sha256sum SHA256SUMS            # must be what the catalogue says

What is here is encrypted. The keys are not here, on purpose: when they are
destroyed on the legal date, this disk becomes unreadable with them.

Read it: copy segments/ and register/ of all volumes, and VAULT and ledger/ of
the newest, into one directory, add keys/ of a vault or of an export for the
safe, and use that directory as a vault (logvault verify, logvault restore).
Without logvault: docs/FORMAT.md of the project says how, with gpg and zcat.
`, f.vol.Number, f.cat.Origin, f.cat.Vault, f.o.Now().UTC().Format(time.RFC3339), f.vol.Objects, f.vol.Bytes, f.vol.First, f.vol.Next-1, f.tree.Size(), f.tree.Root())
}
