package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"logvault/ledger/entry"
	"logvault/vault"
)

// Size limits of a bundle and a tile in bytes.
const (
	maxBundle = vault.TileWidth * (2 + entry.MaxSize)
	maxTile   = vault.TileWidth * len(vault.Hash{})
)

// maxCached is how many proven tiles a Tree keeps: 8 KiB each. A walk in order
// needs one per level.
const maxCached = 64

// Tree is a read view of a log at one checkpoint. What it returns is proven to
// be in the tree with the checkpoint's root. It is safe for concurrent use, and
// stays valid while the log grows: a partial tile that a longer one superseded
// is read from that one.
type Tree struct {
	r      vault.Reader
	prefix string
	cp     Checkpoint
	trust  *Trust // for kept heads and cosignatures in an audit; nil = unknown

	mu     sync.Mutex
	right  *edge                   // the proven right edge without bundle; nil = not read yet
	proven map[tileID][]vault.Hash // proven full tiles
}

type tileID struct {
	level  int
	number int64
}

func newTree(r vault.Reader, prefix string, cp Checkpoint) *Tree {
	return &Tree{r: r, prefix: prefix, cp: cp, proven: make(map[tileID][]vault.Hash)}
}

// OpenTree reads the published checkpoint and verifies it: its signature by
// t.Log or by a key that rotate entries lead to from there (see Keys), its
// origin, and that t's known size and root lie on its chain. Errors
// wrap ErrNoTrust, ErrNoLedger, ErrUnsigned, ErrBehind, ErrForked or the store's.
func OpenTree(ctx context.Context, r vault.Reader, prefix string, t *Trust) (*Tree, error) {
	if t == nil {
		return nil, ErrNoTrust
	}
	raw, err := readCheckpoint(ctx, r, prefix)
	if err != nil {
		return nil, err
	}
	name := vault.CheckpointName(prefix)
	cp, err := ParseCheckpoint(raw, t)
	if errors.Is(err, ErrUnsigned) && !bears(raw, t.Log) {
		head, next, ferr := follow(ctx, r, prefix, raw, t)
		switch {
		case ferr == nil:
			cp, t, err = head, next, nil
		case errors.Is(ferr, errNoRotate): // the first error says what is wrong
		case errors.Is(ferr, ErrUnsigned):
			err = ferr
		default:
			err = fmt.Errorf("%w; %w", err, ferr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if cp.Size < t.KnownSize {
		return nil, fmt.Errorf("%s: size %d, expected at least the known %d: %w", name, cp.Size, t.KnownSize, ErrBehind)
	}
	tree := newTree(r, prefix, cp)
	tree.trust = t
	if t.KnownRoot == "" {
		return tree, nil
	}
	known, err := vault.ParseHash(t.KnownRoot)
	if err != nil {
		return nil, fmt.Errorf("known root: %w", err)
	}
	root, err := tree.RootAt(ctx, t.KnownSize)
	if err != nil {
		return nil, err
	}
	if root != known {
		return nil, fmt.Errorf("%s: root %s at the known size %d, expected %s: %w", name, root, t.KnownSize, known, ErrForked)
	}
	return tree, nil
}

// OpenTreeAt reads the log at a checkpoint that the caller has verified, for
// example a kept head. The log may have grown since.
func OpenTreeAt(_ context.Context, r vault.Reader, prefix string, cp Checkpoint) (*Tree, error) {
	if cp.Size < 0 || cp.Size > entry.MaxInt {
		return nil, fmt.Errorf("checkpoint: size %d, expected 0 to 2^53-1", cp.Size)
	}
	return newTree(r, prefix, cp), nil
}

// Trust returns the trust that the tree was opened with, and the rotations that
// it took; nil for a tree of OpenTreeAt.
func (t *Tree) Trust() *Trust { return t.trust }

// Checkpoint returns the head that the tree was opened at.
func (t *Tree) Checkpoint() Checkpoint { return t.cp }

// Size returns the number of entries.
func (t *Tree) Size() int64 { return t.cp.Size }

// Root returns the root hash.
func (t *Tree) Root() vault.Hash { return t.cp.Root }

// Entry returns entry i.
func (t *Tree) Entry(ctx context.Context, i int64) ([]byte, error) {
	var data []byte
	err := t.Entries(ctx, i, i+1, func(_ int64, d []byte) error {
		data = d
		return nil
	})
	return data, err
}

// Entries calls fn for the entries from … to-1 in order, reading bundle by
// bundle. The data is valid after fn returns too. It stops at fn's first error
// and returns it. A file that does not fit the checkpoint is a *DamageError.
func (t *Tree) Entries(ctx context.Context, from, to int64, fn func(i int64, data []byte) error) error {
	if from < 0 || to < from || to > t.cp.Size {
		return fmt.Errorf("entries %d to %d: beyond the ledger's size %d", from, to, t.cp.Size)
	}
	for from < to {
		number := from / vault.TileWidth
		hashes, err := t.tile(ctx, 0, number)
		if err != nil {
			return err
		}
		list, err := t.bundle(ctx, number)
		if err != nil {
			return err
		}
		first := number * vault.TileWidth
		for ; from < to && from < first+int64(len(list)); from++ {
			data := list[from-first]
			if LeafHash(data) != hashes[from-first] {
				name := vault.BundleName(t.prefix, number, len(list))
				return &DamageError{name, fmt.Sprintf("entry %d hashes to %s, expected %s", from, LeafHash(data), hashes[from-first])}
			}
			if err := fn(from, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// InclusionProof returns the RFC 6962 audit path of entry i.
func (t *Tree) InclusionProof(ctx context.Context, i int64) ([]vault.Hash, error) {
	proof, err := tlog.ProveRecord(t.cp.Size, i, t.hashReader(ctx))
	if err != nil {
		return nil, fmt.Errorf("proving entry %d of %d: %w", i, t.cp.Size, err)
	}
	return fromTlog(proof), nil
}

// ConsistencyProof returns the RFC 6962 proof that the tree of size old is a
// prefix of this one. It is empty for sizes 0 and t.Size().
func (t *Tree) ConsistencyProof(ctx context.Context, old int64) ([]vault.Hash, error) {
	if old == 0 {
		return nil, nil
	}
	proof, err := tlog.ProveTree(t.cp.Size, old, t.hashReader(ctx))
	if err != nil {
		return nil, fmt.Errorf("proving size %d against %d: %w", old, t.cp.Size, err)
	}
	return fromTlog(proof), nil
}

// RootAt returns the root that the log had at a smaller size.
func (t *Tree) RootAt(ctx context.Context, size int64) (vault.Hash, error) {
	if size < 0 || size > t.cp.Size {
		return vault.Hash{}, fmt.Errorf("root at size %d: beyond the ledger's size %d", size, t.cp.Size)
	}
	root, err := tlog.TreeHash(size, t.hashReader(ctx))
	if err != nil {
		return vault.Hash{}, fmt.Errorf("root at size %d: %w", size, err)
	}
	return vault.Hash(root), nil
}

// hashReader gives tlog the proven hashes of complete subtrees.
func (t *Tree) hashReader(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			height := level % 8 // above the tile's own hashes
			perTile := int64(vault.TileWidth >> height)
			hashes, err := t.tile(ctx, level/8, n/perTile)
			if err != nil {
				return nil, err
			}
			lo := n % perTile << height
			if hi := lo + 1<<height; hi <= int64(len(hashes)) {
				out[i] = tlog.Hash(TreeRoot(hashes[lo:hi]))
				continue
			}
			return nil, fmt.Errorf("hash %d of level %d: beyond the ledger's size %d", n, level, t.cp.Size)
		}
		return out, nil
	})
}

// tile returns the proven hashes of a tile: 256, or fewer at the right edge.
func (t *Tree) tile(ctx context.Context, level int, number int64) ([]vault.Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.provenTile(ctx, level, number)
}

// provenTile needs t.mu. A full tile is proven by its parent, up to the right
// edge, which is proven as a whole by the root.
func (t *Tree) provenTile(ctx context.Context, level int, number int64) ([]vault.Hash, error) {
	if err := t.proveEdge(ctx); err != nil {
		return nil, err
	}
	if width(t.cp.Size, level, number) < vault.TileWidth {
		if level < len(t.right.levels) && number == t.cp.Size>>(8*(level+1)) {
			return t.right.levels[level], nil
		}
		return nil, fmt.Errorf("tile %d of level %d: beyond the ledger's size %d", number, level, t.cp.Size)
	}
	id := tileID{level, number}
	if hashes, ok := t.proven[id]; ok {
		return hashes, nil
	}
	parent, err := t.provenTile(ctx, level+1, number/vault.TileWidth)
	if err != nil {
		return nil, err
	}
	hashes, err := t.readTile(ctx, level, number)
	if err != nil {
		return nil, err
	}
	if got, want := TreeRoot(hashes), parent[number%vault.TileWidth]; got != want {
		name := vault.TileName(t.prefix, level, number, vault.TileWidth)
		return nil, &DamageError{name, fmt.Sprintf("hashes to %s, expected %s", got, want)}
	}
	if len(t.proven) >= maxCached {
		clear(t.proven) // a walk soon has its few tiles again
	}
	t.proven[id] = hashes
	return hashes, nil
}

// proveEdge reads the partial tiles, one per level, and checks that together
// they give the root. It needs t.mu.
func (t *Tree) proveEdge(ctx context.Context) error {
	if t.right != nil {
		return nil
	}
	e := &edge{size: t.cp.Size}
	var names []string
	for level := 0; t.cp.Size>>(8*level) > 0; level++ {
		number := t.cp.Size >> (8 * (level + 1))
		w := width(t.cp.Size, level, number)
		var hashes []vault.Hash
		if w > 0 {
			var err error
			if hashes, err = t.readTile(ctx, level, number); err != nil {
				return err
			}
			names = append(names, vault.TileName(t.prefix, level, number, w))
		}
		e.levels = append(e.levels, hashes)
	}
	if got := e.root(); got != t.cp.Root {
		name := vault.CheckpointName(t.prefix)
		if len(names) > 0 {
			name = strings.Join(names, ", ")
		}
		return &DamageError{name, fmt.Sprintf("the right edge gives root %s, expected %s", got, t.cp.Root)}
	}
	t.right = e
	return nil
}

// readTile reads the hashes of a tile, unproven.
func (t *Tree) readTile(ctx context.Context, level int, number int64) ([]vault.Hash, error) {
	f := file{level: level, number: number, width: width(t.cp.Size, level, number)}
	data, name, err := t.read(ctx, f, int64(maxTile))
	if err != nil {
		return nil, err
	}
	if want := f.width * len(vault.Hash{}); len(data) < want || len(data) > want && name == f.name(t.prefix) {
		return nil, &DamageError{name, fmt.Sprintf("%d bytes, expected %d", len(data), want)}
	}
	return tileHashes(data)[:f.width], nil
}

// bundle reads the entries of a bundle, unproven.
func (t *Tree) bundle(ctx context.Context, number int64) ([][]byte, error) {
	f := file{level: bundleLevel, number: number, width: width(t.cp.Size, 0, number)}
	data, name, err := t.read(ctx, f, maxBundle)
	if err != nil {
		return nil, err
	}
	list, rest, err := splitBundle(data, f.width)
	if err != nil {
		return nil, &DamageError{name, err.Error()}
	}
	if len(rest) > 0 && name == f.name(t.prefix) {
		return nil, &DamageError{name, fmt.Sprintf("%d bytes after entry %d, the last", len(rest), f.width)}
	}
	return list, nil
}

// read reads a tile or bundle. A partial one may have been superseded since
// the checkpoint was read: then the full one or a wider one, whose first part
// is the same, is read in its place; and if that was superseded before it could
// be read, again, until no file of the tile is wider. name is the file that was
// read, or the one that should be there.
func (t *Tree) read(ctx context.Context, f file, limit int64) (data []byte, name string, err error) {
	name = f.name(t.prefix)
	data, err = vault.ReadAll(ctx, t.r, name, limit)
	if !errors.Is(err, vault.ErrNotExist) || !f.partial() {
		return data, name, err
	}
	last := f
	for more := true; more; { // widths rise, so it ends
		var lastErr error
		if last, more, lastErr = t.wider(ctx, last); lastErr != nil {
			return nil, name, lastErr
		}
		if !more {
			// The last partial one may have gone because the tile is full now.
			last.width = vault.TileWidth
		}
		data, lastErr = vault.ReadAll(ctx, t.r, last.name(t.prefix), limit)
		if !errors.Is(lastErr, vault.ErrNotExist) {
			return data, last.name(t.prefix), lastErr
		}
	}
	return nil, name, err
}

// wider returns the widest partial file of f's tile, if it is wider than f.
func (t *Tree) wider(ctx context.Context, f file) (widest file, more bool, err error) {
	full := f
	full.width = vault.TileWidth
	widest = f
	err = t.r.List(ctx, full.name(t.prefix)+".p/", func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil {
			widest.width = max(widest.width, o.Width)
		}
		return nil
	})
	return widest, widest.width > f.width, err
}
