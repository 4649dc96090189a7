package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"logvault/ledger/entry"
	"logvault/vault"
)

// Log is the one writer of a log. It is safe for concurrent use; appends wait
// for each other.
type Log struct {
	cfg    Config
	signer note.Signer
	trust  *Trust // the signer's own key

	mu        sync.Mutex // holds everything below
	stopped   error      // sticky: ErrStopped
	cp        Checkpoint // the last head known to be published in the record
	signed    Checkpoint // the last head signed; another than cp if its publication failed
	published time.Time  // when cp was
	right     *edge      // of cp; nil after an error: to be read again by load

	copied    int64   // size of the copy's checkpoint
	copiedRaw []byte  // the copy's checkpoint as last seen; nil = not compared yet
	copyDirty bool    // the copy may hold left-overs of an earlier attempt
	recent    []file  // the last batch, still to be copied
	heads     []int64 // kept heads that the copy may lack
}

func newLog(cfg Config) (*Log, error) {
	key, err := parseSignerKey(cfg.SignerKey)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(cfg.SignerKey)
	if err != nil {
		return nil, fmt.Errorf("ledger key: %w", err)
	}
	if err := checkKeyName(cfg.Origin); err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	return &Log{cfg: cfg, signer: signer, trust: &Trust{Log: key.vkey(), Origin: cfg.Origin}}, nil
}

// stores returns the record and, if there is one, the copy.
func (l *Log) stores() []Store {
	if l.cfg.Copy == nil {
		return []Store{l.cfg.Record}
	}
	return []Store{l.cfg.Record, l.cfg.Copy}
}

// Prefix returns the prefix that the log's files have.
func (l *Log) Prefix() string { return l.cfg.Prefix }

// Checkpoint returns the last head known to be published in the record.
func (l *Log) Checkpoint() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cp
}

// Tree returns a read view of the record at Checkpoint.
func (l *Log) Tree() *Tree {
	t := newTree(l.cfg.Record, l.cfg.Prefix, l.Checkpoint())
	t.trust = l.trust
	return t
}

// Append commits entries, at most MaxBatch, as one batch with one checkpoint
// and returns the index of the first. When it returns nil they are durable in
// the record and copied to the vault; with a *CopyError they are durable in the
// record and the index is valid. The next Append then finishes the copy first,
// and commits nothing while that fails. With ErrBehind, ErrForked, ErrStopped
// or an error for the entries themselves nothing was written.
//
// After another error the batch is committed wholly or not at all, and which
// is not known: a store may fail after its work is done. Call Recover and look
// for the entries from the old size on before trying again.
func (l *Log) Append(ctx context.Context, entries ...[]byte) (first int64, err error) {
	if len(entries) > MaxBatch {
		return -1, fmt.Errorf("appending %d entries: expected at most %d", len(entries), MaxBatch)
	}
	for i, data := range entries {
		if err := entry.Check(data); err != nil {
			return -1, fmt.Errorf("appending entry %d of the batch: %w", i, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return -1, err
	}
	first = l.right.size
	if len(entries) == 0 {
		return first, nil
	}
	// The copy may lag by one batch, not more: that bounds what one machine
	// alone holds, and where left-overs can be.
	if err := l.copyOut(ctx); err != nil {
		return -1, fmt.Errorf("copying what is committed to the vault: %w", err)
	}
	if err := l.commit(ctx, entries); err != nil {
		l.right = nil
		// Tell at once what the record holds now, if it can be told. If not,
		// the next call tries again.
		_ = l.load(context.WithoutCancel(ctx))
		return -1, fmt.Errorf("appending to the ledger: %w", err)
	}
	if err := l.copyOut(ctx); err != nil {
		return first, &CopyError{err}
	}
	return first, nil
}

// Recover makes the log usable again after a failed call: it reads the right
// edge again from the published checkpoint. Without a failure it only checks
// the record and the vault as Append does.
func (l *Log) Recover(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready(ctx)
}

// SyncCopy brings the copy up to date, for example after the NAS came back.
// Errors are those of the fence (ErrBehind, ErrForked) or a *CopyError.
func (l *Log) SyncCopy(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return err
	}
	if err := l.copyOut(ctx); err != nil {
		return &CopyError{err}
	}
	return nil
}

// KeepHead keeps the current head: its tiles never go away, and whoever saw it
// can be answered. The head before the first append of a UTC day is kept by
// itself.
func (l *Log) KeepHead(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(ctx); err != nil {
		return err
	}
	if err := l.keep(ctx); err != nil {
		return err
	}
	if err := l.copyOut(ctx); err != nil {
		return &CopyError{err}
	}
	return nil
}

// ready makes sure that the log may be written to: the right edge is known, no
// other writer published in the record, and the copy is equal or behind.
func (l *Log) ready(ctx context.Context) error {
	if l.stopped != nil {
		return l.stopped
	}
	if l.right == nil {
		if err := l.load(ctx); err != nil {
			return err
		}
	}
	raw, err := readCheckpoint(ctx, l.cfg.Record, l.cfg.Prefix)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, l.cp.Raw) {
		return l.stop()
	}
	return l.fence(ctx)
}

// stop refuses every later call. The right edge in memory is worth nothing now.
func (l *Log) stop() error {
	l.stopped = fmt.Errorf("%s: %w", vault.CheckpointName(l.cfg.Prefix), ErrStopped)
	l.right = nil
	return l.stopped
}

// commit writes a batch to the record. After an error the caller drops l.right.
//
// Put and Replace are each temp, write, fsync, link or rename, fsync of the
// directory. The order is bundles, tiles, checkpoint; the rename of the
// checkpoint is the commit point. A crash before it leaves files beyond the
// published size, which load removes; after it, superseded partial files, which
// load removes too.
func (l *Log) commit(ctx context.Context, entries [][]byte) error {
	if err := l.keepYesterday(ctx); err != nil {
		return err
	}
	next := l.right.clone()
	files := next.grow(entries)
	for _, f := range files {
		if err := l.write(ctx, l.cfg.Record, f); err != nil {
			return err
		}
	}
	cp, err := l.sign(next.size, next.root())
	if err != nil {
		return err
	}
	l.signed = cp
	if err := l.cfg.Record.Replace(ctx, vault.CheckpointName(l.cfg.Prefix), cp.Raw); err != nil {
		return err
	}
	old := l.cp.Size
	l.cp, l.published, l.right, l.recent = cp, l.cfg.Now(), next, files
	if err := l.removePartials(ctx, l.cfg.Record, superseded(old, cp.Size)); err != nil {
		// The batch stands. The left-overs go when load runs, before the next one.
		l.right = nil
	}
	return nil
}

// keepYesterday keeps the current head if it is the last of a day gone by.
func (l *Log) keepYesterday(ctx context.Context) error {
	day := func(t time.Time) vault.Day { return vault.DayOf(t.UTC()) }
	if l.cp.Size == 0 || day(l.published).Compare(day(l.cfg.Now())) >= 0 {
		return nil
	}
	return l.keep(ctx)
}

// keep puts the current head among the kept ones of the record.
func (l *Log) keep(ctx context.Context) error {
	name := vault.KeptCheckpointName(l.cfg.Prefix, l.cp.Size)
	if err := l.cfg.Record.Put(ctx, name, int64(len(l.cp.Raw)), bytes.NewReader(l.cp.Raw)); err != nil {
		return fmt.Errorf("keeping the head: %w", err)
	}
	if !slices.Contains(l.heads, l.cp.Size) {
		l.heads = append(l.heads, l.cp.Size)
	}
	return nil
}

func (l *Log) write(ctx context.Context, s Store, f file) error {
	name := f.name(l.cfg.Prefix)
	if f.partial() {
		return s.Replace(ctx, name, f.data)
	}
	return s.Put(ctx, name, int64(len(f.data)), bytes.NewReader(f.data))
}

func (l *Log) removePartials(ctx context.Context, s Store, files []file) error {
	for _, f := range files {
		if err := s.RemovePartial(ctx, f.name(l.cfg.Prefix)); err != nil {
			return err
		}
	}
	return nil
}

// sign makes a head. Ed25519 signatures are deterministic: the same tree has
// one signed note.
func (l *Log) sign(size int64, root vault.Hash) (Checkpoint, error) {
	cp := Checkpoint{Origin: l.cfg.Origin, Size: size, Root: root}
	raw, err := note.Sign(&note.Note{Text: cp.body()}, l.signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("signing the checkpoint: %w", err)
	}
	return ParseCheckpoint(raw, l.trust)
}

// load reads the right edge from the published checkpoint and makes the record
// hold what that checkpoint covers and nothing else near it. It is the one way
// into memory: at Open and after an error.
func (l *Log) load(ctx context.Context) error {
	tree, err := l.loadTree(ctx)
	if err != nil {
		return err
	}
	cp := tree.cp
	right, err := tree.edge(ctx)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	name := vault.CheckpointName(l.cfg.Prefix)
	info, err := l.cfg.Record.Stat(ctx, name)
	if err != nil {
		return err
	}
	l.cp, l.signed, l.published, l.recent = cp, cp, info.ModTime, nil
	if l.heads, err = l.listHeads(ctx); err != nil {
		return err
	}
	// Publishing sets the file's time, from which the head's day is known.
	if err := l.keepYesterday(ctx); err != nil {
		return err
	}
	// The rename that published the checkpoint may not be durable yet. Were it
	// copied to the vault, or built on, and then lost, the vault would be ahead
	// of its record.
	if err := l.cfg.Record.Replace(ctx, name, cp.Raw); err != nil {
		return err
	}
	if err := l.clean(ctx, l.cfg.Record, cp.Size, true); err != nil {
		return err
	}
	l.right, l.copiedRaw, l.copyDirty = right, nil, true
	return nil
}

// loadTree reads and verifies the record's checkpoint.
func (l *Log) loadTree(ctx context.Context) (*Tree, error) {
	trust := *l.trust
	trust.KnownSize, trust.KnownRoot = l.cfg.KnownSize, ""
	tree, err := OpenTree(ctx, l.cfg.Record, l.cfg.Prefix, &trust)
	if errors.Is(err, ErrNoLedger) {
		if err := checkNoTiles(ctx, l.cfg.Record, l.cfg.Prefix, ErrNoLedger); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if tree.trust.Log != l.trust.Log {
		return nil, fmt.Errorf("opening the ledger: %w: its key was rotated to %s", ErrUnsigned, tree.trust.Log)
	}
	first := l.cp.Raw == nil
	if !first && !bytes.Equal(tree.cp.Raw, l.cp.Raw) && !bytes.Equal(tree.cp.Raw, l.signed.Raw) {
		return nil, l.stop()
	}
	return tree, nil
}

// edge returns the proven right edge with the partial bundle.
func (t *Tree) edge(ctx context.Context) (*edge, error) {
	t.mu.Lock()
	err := t.proveEdge(ctx)
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e := t.right.clone()
	from := t.cp.Size - t.cp.Size%vault.TileWidth
	err = t.Entries(ctx, from, t.cp.Size, func(_ int64, data []byte) error {
		e.bundle = appendEntry(e.bundle, data)
		return nil
	})
	return e, err
}

// listHeads lists the record's kept heads.
func (l *Log) listHeads(ctx context.Context) ([]int64, error) {
	var sizes []int64
	err := l.cfg.Record.List(ctx, l.cfg.Prefix+"checkpoints/", func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil && o.Kind == vault.KindKeptCheckpoint {
			sizes = append(sizes, o.Size)
		}
		return nil
	})
	slices.Sort(sizes)
	return sizes, err
}

// clean removes what an interrupted batch left near the right edge of a tree of
// the given size: partial files that the tree does not have and, with tails,
// full files that it does not cover. A batch reaches at most MaxBatch entries
// either way.
func (l *Log) clean(ctx context.Context, s Store, size int64, tails bool) error {
	return l.cleanRange(ctx, s, size, max(0, size-MaxBatch), size+MaxBatch, tails)
}

func (l *Log) cleanRange(ctx context.Context, s Store, size, lo, hi int64, tails bool) error {
	for level := bundleLevel; ; level++ {
		f := file{level: level}
		shift := 8 * (f.tileLevel() + 1)
		if f.tileLevel() > 0 && hi>>(shift-8) == 0 {
			return nil
		}
		for f.number = lo >> shift; f.number <= hi>>shift; f.number++ {
			f.width = vault.TileWidth
			full := f.name(l.cfg.Prefix)
			w := width(size, f.tileLevel(), f.number)
			if tails && w < vault.TileWidth {
				if err := s.RemoveTail(ctx, full); err != nil {
					return err
				}
			}
			if err := l.cleanPartials(ctx, s, full+".p/", w); err != nil {
				return err
			}
		}
	}
}

// cleanPartials removes the partial files of one tile but that of width keep.
func (l *Log) cleanPartials(ctx context.Context, s Store, dir string, keep int) error {
	var names []string
	err := s.List(ctx, dir, func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil && o.Width != keep {
			names = append(names, i.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.RemovePartial(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
