package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// tiles writes the ledger's files that the destination lacks, as recomputed
// from proven hashes and entries. Each is read back.
//
// A crash leaves some of them beyond the destination's checkpoint, where no
// reader looks; the next pass finds the same bytes there or replaces them.
func (p *pass) tiles(ctx context.Context) error {
	if p.src.Size() == p.dst.Size {
		return nil
	}
	err := p.src.Files(ctx, p.dst.Size, func(name string, data []byte) error {
		return p.again(ctx, name, func() error { return p.publish(ctx, name, data) })
	})
	if err != nil && !errors.Is(err, ErrPartial) && !errors.Is(err, ErrChanged) && ctx.Err() == nil {
		return fmt.Errorf("copying the ledger: %w: %w", ErrDamaged, err)
	}
	return err
}

// publish writes a small file, replacing it if its name is mutable, and reads
// it back.
func (p *pass) publish(ctx context.Context, name string, data []byte) (err error) {
	if vault.IsMutable(name) {
		err = p.o.To.Replace(ctx, name, data)
	} else {
		err = p.o.To.Put(ctx, name, int64(len(data)), bytes.NewReader(data))
	}
	if errors.Is(err, vault.ErrConflict) {
		return fmt.Errorf("destination: %w: %s: %w", ErrChanged, name, err)
	}
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	back, err := vault.ReadAll(ctx, p.o.To, name, int64(len(data)))
	if err != nil {
		return fmt.Errorf("destination, read back: %w", err)
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("destination, read back: %w: %s", ErrChanged, name)
	}
	return nil
}

// head replaces the destination's checkpoint: the commit point of the ledger.
// Then the partial tiles that the new ones supersede are removed.
func (p *pass) head(ctx context.Context) error {
	cp := p.src.Checkpoint()
	if cp.Size != p.dst.Size || p.dst.Raw == nil {
		// The destination must be able to prove the head from its own files.
		if _, err := ledger.OpenTreeAt(ctx, p.o.To, vault.LedgerPrefix, cp); err != nil {
			return fmt.Errorf("destination, read back: %w: %w", ErrDamaged, err)
		}
		name := vault.CheckpointName(vault.LedgerPrefix)
		if err := p.again(ctx, name, func() error { return p.publish(ctx, name, p.raw) }); err != nil {
			return err
		}
		p.changed = true
	}
	p.sum.Size, p.sum.Root = cp.Size, cp.Root
	return p.sweep(ctx, cp.Size)
}

// sweep removes superseded partial tiles and bundles.
func (p *pass) sweep(ctx context.Context, size int64) error {
	var old []string
	err := p.o.To.List(ctx, vault.LedgerPrefix+"tile/", func(info vault.Info) error {
		o, err := vault.ParseName(info.Name)
		if err != nil || o.Kind != vault.KindPartialTile && o.Kind != vault.KindPartialBundle {
			return nil // verify judges it
		}
		if hashes := size >> (8 * o.Level); hashes/vault.TileWidth != o.Number || hashes%vault.TileWidth != int64(o.Width) {
			old = append(old, info.Name)
		}
		return nil
	})
	for _, name := range old {
		err = errors.Join(err, p.o.To.RemovePartial(ctx, name))
	}
	if err != nil {
		return fmt.Errorf("destination: removing superseded partial tiles: %w", err)
	}
	return nil
}

// kept copies what the source keeps beside its tiles, as far as it verifies.
func (p *pass) kept(ctx context.Context) error {
	for _, dir := range []string{"checkpoints/", "cosignatures/", "timestamps/"} {
		var names []vault.Object
		err := p.o.From.List(ctx, vault.LedgerPrefix+dir, func(info vault.Info) error {
			o, err := vault.ParseName(info.Name)
			if err != nil {
				p.reject(info.Name, err)
				return nil
			}
			names = append(names, o)
			return nil
		})
		if err != nil {
			return fmt.Errorf("source: listing %s: %w", dir, err)
		}
		for _, o := range names {
			if err := p.keep(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) reject(name string, err error) {
	p.sum.Rejected++
	p.o.Log.Warn("not copied", "object", name, "error", err)
}

// keep copies one kept file. What does not verify is rejected and told, since
// it harms nobody but whoever relied on it.
func (p *pass) keep(ctx context.Context, o vault.Object) error {
	if _, err := p.o.To.Stat(ctx, o.Name); err == nil {
		return nil
	} else if !errors.Is(err, vault.ErrNotExist) {
		return fmt.Errorf("destination: %w", err)
	}
	data, err := vault.ReadAll(ctx, p.o.From, o.Name, headLimit)
	if err == nil {
		err = p.proves(ctx, o, data)
	}
	if err != nil {
		p.reject(o.Name, err)
		return nil
	}
	if err := p.again(ctx, o.Name, func() error { return p.publish(ctx, o.Name, data) }); err != nil {
		return err
	}
	p.changed = true
	return nil
}

// proves checks a kept file against the source's tree.
func (p *pass) proves(ctx context.Context, o vault.Object, data []byte) error {
	if o.Kind == vault.KindTimestamp {
		if want, got := p.tokens[o.Size], vault.HashOf(data); got != want {
			return fmt.Errorf("token: SHA-256 %s, the ledger has %s", got, want)
		}
		return nil
	}
	if o.Size > p.src.Size() {
		return fmt.Errorf("head of size %d in a ledger of size %d", o.Size, p.src.Size())
	}
	root, err := p.src.RootAt(ctx, o.Size)
	if err != nil {
		return err
	}
	if o.Kind == vault.KindKeptCheckpoint {
		cp, err := p.parseHead(ctx, data)
		if err == nil && (cp.Size != o.Size || cp.Root != root) {
			err = fmt.Errorf("%w: kept head of size %d", ErrForked, cp.Size)
		}
		return err
	}
	for _, k := range slices.Concat(p.o.Trust.Copies, p.o.Trust.Witnesses) {
		if f := strings.SplitN(k.Key, "+", 3); len(f) == 3 && f[1] == o.KeyID {
			_, err := ledger.VerifyCosignature(ledger.Checkpoint{Origin: p.src.Checkpoint().Origin, Size: o.Size, Root: root}, data, k.Key)
			return err
		}
	}
	return errors.New("cosignature by a key that is not pinned")
}

// vouch says that all is held: first in the copy log, then by a cosignature of
// the head. A crash between the two leaves the cosignature to the next pass.
func (p *pass) vouch(ctx context.Context) error {
	if p.o.Copy == nil {
		return nil
	}
	cp := p.src.Checkpoint()
	if p.changed || p.held.Size != cp.Size {
		e := &entry.Held{Header: entry.Header{Time: p.o.Now(), Actor: p.o.Actor}, Size: cp.Size, Root: cp.Root, Objects: p.heldObjects, Bytes: p.heldBytes}
		data, err := entry.Encode(e)
		if err != nil {
			return fmt.Errorf("copy log: %w", err)
		}
		if _, err := p.o.Copy.Append(ctx, data); err != nil {
			return fmt.Errorf("copy log: %w", err)
		}
	}
	line, keyID, err := ledger.Cosign(cp, p.o.CosignKey, p.o.Now())
	if err != nil {
		return fmt.Errorf("cosigning: %w", err)
	}
	name := vault.CosignatureName(vault.LedgerPrefix, cp.Size, keyID)
	_, err = p.o.To.Stat(ctx, name)
	if errors.Is(err, vault.ErrNotExist) {
		err = p.cosigned(ctx, name, line)
	}
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	p.sum.Cosigned = true
	return nil
}

// cosigned keeps the head and then the cosignature over it.
func (p *pass) cosigned(ctx context.Context, name string, line []byte) error {
	head := vault.KeptCheckpointName(vault.LedgerPrefix, p.src.Size())
	if _, err := p.o.To.Stat(ctx, head); errors.Is(err, vault.ErrNotExist) {
		if err := p.again(ctx, head, func() error { return p.publish(ctx, head, p.raw) }); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return p.again(ctx, name, func() error { return p.publish(ctx, name, line) })
}
