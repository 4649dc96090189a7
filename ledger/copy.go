package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"logvault/vault"
)

// fence compares the copy's checkpoint with the record's chain. Equal, or the
// head of a prefix: go on. Ahead: ErrBehind. Off the chain: ErrForked. A copy
// without a checkpoint is in order only while the record is empty: later it is
// a vault that was emptied or another place mounted over it.
func (l *Log) fence(ctx context.Context) error {
	if l.cfg.Copy == nil {
		return nil
	}
	name := vault.CheckpointName(l.cfg.Prefix)
	raw, err := readCheckpoint(ctx, l.cfg.Copy, l.cfg.Prefix)
	if errors.Is(err, ErrNoLedger) && l.cp.Size == 0 {
		l.copied, l.copiedRaw = 0, nil
		return checkNoTiles(ctx, l.cfg.Copy, l.cfg.Prefix, ErrForked)
	}
	if err != nil {
		return fmt.Errorf("comparing with the vault: %w", err)
	}
	if l.copiedRaw != nil && bytes.Equal(raw, l.copiedRaw) {
		return nil
	}
	cp, err := ParseCheckpoint(raw, l.trust)
	if errors.Is(err, ErrUnsigned) {
		cp, err = l.formerHead(ctx, raw, err)
	}
	if err != nil {
		return fmt.Errorf("the vault's %s: %w", name, err)
	}
	if cp.Size > l.cp.Size {
		return fmt.Errorf("the vault's %s: size %d, the record has %d: %w", name, cp.Size, l.cp.Size, ErrBehind)
	}
	root, err := newTree(l.cfg.Record, l.cfg.Prefix, l.cp).RootAt(ctx, cp.Size)
	if err != nil {
		return err
	}
	if root != cp.Root {
		return fmt.Errorf("the vault's %s: root %s at size %d, the record has %s: %w", name, cp.Root, cp.Size, root, ErrForked)
	}
	l.copied, l.copiedRaw = cp.Size, raw
	return nil
}

// formerHead accepts a head that the copy was left with when a rotation stood in
// the record already: the first rotate entry that the copy lacks names its key.
// why is returned if there is none.
func (l *Log) formerHead(ctx context.Context, raw []byte, why error) (Checkpoint, error) {
	head, err := parseNote(raw)
	if err != nil || head.Size >= l.cp.Size {
		return Checkpoint{}, why
	}
	trust := *l.trust
	trust.Log = ""
	err = newTree(l.cfg.Record, l.cfg.Prefix, l.cp).Entries(ctx, head.Size, l.cp.Size, func(_ int64, data []byte) error {
		if trust.Log != "" || !isRotate(data) {
			return nil
		}
		e, err := decodeRotate(data)
		if err == nil {
			trust.Log = e.Old
		}
		return err
	})
	if err != nil || trust.Log == "" {
		return Checkpoint{}, errors.Join(why, err)
	}
	return ParseCheckpoint(raw, &trust)
}

// copyOut brings the copy from l.copied, which fence has set, to the record's
// head: kept heads, bundles and tiles, then the checkpoint, then superseded
// partial files go. A crash leaves files beyond the copy's checkpoint with the
// content that the record has for them, and left-over partial files, which the
// next call removes.
func (l *Log) copyOut(ctx context.Context) error {
	if l.cfg.Copy == nil || bytes.Equal(l.copiedRaw, l.cp.Raw) && len(l.heads) == 0 && !l.copyDirty {
		return nil
	}
	from, dirty := l.copied, l.copyDirty
	l.copyDirty = true // until it is known to be well
	if err := l.copyHeads(ctx, from); err != nil {
		return err
	}
	if !bytes.Equal(l.copiedRaw, l.cp.Raw) {
		if err := l.copyTiles(ctx, from); err != nil {
			return err
		}
		if err := l.cfg.Copy.Replace(ctx, vault.CheckpointName(l.cfg.Prefix), l.cp.Raw); err != nil {
			return err
		}
		l.copied, l.copiedRaw, l.recent = l.cp.Size, l.cp.Raw, nil
	}
	if dirty {
		// An earlier attempt, for any size near these, may have left partial files.
		lo, hi := max(0, from-MaxBatch), l.cp.Size+MaxBatch
		if err := l.cleanRange(ctx, l.cfg.Copy, l.cp.Size, lo, hi, false); err != nil {
			return err
		}
	} else if err := l.removePartials(ctx, l.cfg.Copy, superseded(from, l.cp.Size)); err != nil {
		return err
	}
	l.copyDirty = false
	return nil
}

// copyHeads copies the kept heads that the copy may lack. A head is kept and
// copied before the log grows beyond it, so the copy has those below its size.
func (l *Log) copyHeads(ctx context.Context, from int64) error {
	for _, size := range l.heads {
		if size < from {
			continue
		}
		name := vault.KeptCheckpointName(l.cfg.Prefix, size)
		raw, err := vault.ReadAll(ctx, l.cfg.Record, name, maxCheckpoint)
		if err != nil {
			return err
		}
		if err := l.cfg.Copy.Put(ctx, name, int64(len(raw)), bytes.NewReader(raw)); err != nil {
			return err
		}
	}
	l.heads = nil
	return nil
}

// copyTiles copies the bundles and tiles that lie between two sizes. The last
// batch is at hand; what an earlier failure left out is read from the record.
func (l *Log) copyTiles(ctx context.Context, from int64) error {
	recent := make(map[string]file, len(l.recent))
	for _, f := range l.recent {
		recent[f.name(l.cfg.Prefix)] = f
	}
	for _, f := range changed(from, l.cp.Size) {
		name := f.name(l.cfg.Prefix)
		if r, ok := recent[name]; ok {
			f = r
		} else {
			data, err := vault.ReadAll(ctx, l.cfg.Record, name, maxBundle)
			if err != nil {
				return err
			}
			f.data = data
		}
		err := l.write(ctx, l.cfg.Copy, f)
		if errors.Is(err, vault.ErrConflict) {
			// Other bytes, beyond what the copy's checkpoint covers: left by a
			// record that lost, with its disk, what it had begun to copy.
			if err = l.cfg.Copy.RemoveTail(ctx, name); err == nil {
				err = l.write(ctx, l.cfg.Copy, f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
