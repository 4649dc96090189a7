package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
		return fmt.Errorf("copying the ledger: %w", broken(ErrDamaged, err))
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
	p.kepts = make(map[string]time.Time)
	for _, dir := range []string{"checkpoints/", "cosignatures/", "timestamps/"} {
		err := p.o.To.List(ctx, vault.LedgerPrefix+dir, func(info vault.Info) error {
			p.kepts[info.Name] = info.ModTime
			return nil
		})
		if err != nil {
			return fmt.Errorf("destination: listing %s: %w", dir, err)
		}
		var names []vault.Object
		err = p.o.From.List(ctx, vault.LedgerPrefix+dir, func(info vault.Info) error {
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
	if _, here := p.kepts[o.Name]; here {
		return nil
	}
	if p.newer(o) {
		p.o.Log.Debug("left to the next pass", "object", o.Name)
		return nil
	}
	var data []byte
	err := again(ctx, &p.o, o.Name, passing, func() (err error) {
		if data, err = vault.ReadAll(ctx, p.o.From, o.Name, headLimit); err == nil {
			err = p.proves(ctx, o, data)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrPartial) || ctx.Err() != nil:
		return err // a line that breaks proves nothing
	case err != nil:
		p.reject(o.Name, err)
		return nil
	}
	return p.keepHere(ctx, o.Name, data)
}

// newer reports whether a kept file is of a later head than that of the pass: the
// source goes on while a pass is under way. A token is in the vault before its
// entry, but only after the entries of all earlier tokens.
func (p *pass) newer(o vault.Object) bool {
	if o.Kind != vault.KindTimestamp {
		return o.Size > p.src.Size()
	}
	for named := range p.tokens {
		if named >= o.Size {
			return false
		}
	}
	return true
}

// keepHere stores a kept file at the destination, which is protected later.
func (p *pass) keepHere(ctx context.Context, name string, data []byte) error {
	if err := p.again(ctx, name, func() error { return p.publish(ctx, name, data) }); err != nil {
		return err
	}
	p.kepts[name], p.changed = p.o.Now(), true
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

// vouch says that all is held and how it is protected: first in the copy log,
// then by a cosignature of the head. The head is kept before, so that it covers
// the full tiles that are protected. A crash leaves the rest to the next pass,
// which finds what is newer than the last held entry.
func (p *pass) vouch(ctx context.Context) error {
	cp := p.src.Checkpoint()
	head := vault.KeptCheckpointName(vault.LedgerPrefix, cp.Size)
	if _, here := p.kepts[head]; !here && p.o.Copy != nil {
		if err := p.keepHere(ctx, head, p.raw); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
	}
	if err := p.undated(ctx); err != nil {
		return err
	}
	if p.o.Copy == nil {
		return nil
	}
	mode := lockModes[p.level]
	if p.changed || p.held.Size != cp.Size || p.locked.Mode != mode {
		if err := p.record(ctx, cp, mode); err != nil {
			return fmt.Errorf("copy log: %w", err)
		}
	}
	line, keyID, err := ledger.Cosign(cp, p.o.CosignKey, p.o.Now())
	if err != nil {
		return fmt.Errorf("cosigning: %w", err)
	}
	name := vault.CosignatureName(vault.LedgerPrefix, cp.Size, keyID)
	if _, here := p.kepts[name]; !here {
		if err := p.keepHere(ctx, name, line); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
		if _, err := p.protect(ctx, name, ledgerDate(p.last)); err != nil {
			return err
		}
	}
	p.sum.Cosigned = true
	p.cosignBack(ctx, head, name, line)
	return nil
}

// record appends lock and held to the copy log, in one batch. The time of lock is
// the moment that dates were judged at, for the next pass to compare with.
func (p *pass) record(ctx context.Context, cp ledger.Checkpoint, mode string) error {
	header := entry.Header{Time: p.o.Now(), Actor: p.o.Actor}
	list := []entry.Entry{&entry.Held{Header: header, Size: cp.Size, Root: cp.Root, Objects: p.heldObjects, Bytes: p.heldBytes}}
	if mode != "" {
		lock := &entry.Lock{Header: entry.Header{Time: p.now, Actor: p.o.Actor}, Size: cp.Size, Mode: mode, Objects: p.heldObjects}
		if p.level == vault.LevelLock {
			lock.Until = p.soonest
		}
		list = append([]entry.Entry{lock}, list...)
	}
	var batch [][]byte
	for _, e := range list {
		data, err := entry.Encode(e)
		if err != nil {
			return err
		}
		batch = append(batch, data)
	}
	_, err := p.o.Copy.Append(ctx, batch...)
	return err
}

// cosignBack gives the source the head and the cosignature, where it takes them.
// Nothing depends on it: whoever needs them can read them at this copy.
func (p *pass) cosignBack(ctx context.Context, head, name string, line []byte) {
	if p.o.CosignBack == nil {
		return
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{head, p.raw}, {name, line}} {
		if _, err := p.o.From.Stat(ctx, f.name); err == nil {
			continue
		}
		if err := p.o.CosignBack.Put(ctx, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			p.o.Log.Warn("the cosignature did not reach the source", "object", f.name, "error", err)
			return
		}
	}
}
