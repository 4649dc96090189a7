package ledger

import (
	"context"
)

// Files calls fn for each tile and bundle that a copy of this log needs to grow
// from size from to t.Size(): bundles first, then tiles from the leaves up. The
// names have the prefix. The data is made anew from proven entries and hashes,
// never passed on as read, so a copy built from it is as good as the signature.
// It stops at fn's first error and returns it. A file that does not fit the
// checkpoint is a *DamageError.
func (t *Tree) Files(ctx context.Context, from int64, fn func(name string, data []byte) error) error {
	for _, f := range changed(from, t.cp.Size) {
		data, err := t.file(ctx, f)
		if err != nil {
			return err
		}
		if err := fn(f.name(t.prefix), data); err != nil {
			return err
		}
	}
	return nil
}

// file makes the content of a tile or bundle.
func (t *Tree) file(ctx context.Context, f file) ([]byte, error) {
	if f.level != bundleLevel {
		hashes, err := t.tile(ctx, f.level, f.number)
		if err != nil {
			return nil, err
		}
		return tileData(hashes), nil
	}
	var data []byte
	first := f.number << 8
	err := t.Entries(ctx, first, first+int64(f.width), func(_ int64, e []byte) error {
		data = appendEntry(data, e)
		return nil
	})
	return data, err
}
