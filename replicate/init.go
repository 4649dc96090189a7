package replicate

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// InitOptions says which copy to begin.
type InitOptions struct {
	From  vault.Reader
	To    Dest          // a vault without content
	Trust *ledger.Trust // pins the key that the copy will accept for life
	Log   ledger.Config // of the copy's own log, whose record is To
	Name  string        // of the copy
	Key   string        // the copy log's verifier key
	// Cosigner is the verifier key that the copy will cosign with.
	Cosigner string
	Actor    string // role written into the copy log
	Now      func() time.Time
}

// Init begins a copy: it checks that the source is the vault of the pinned key,
// stores its marker, creates the copy log and appends copy-init to it. It may be
// repeated after a crash, with the same keys, and goes on where it was; a copy
// log that began otherwise is refused.
func Init(ctx context.Context, o InitOptions) error {
	if o.From == nil || o.To == nil || o.Trust == nil || o.Now == nil {
		return errors.New("replicate: source, destination, trust or clock not given")
	}
	p := &pass{o: Options{From: o.From, To: o.To, Trust: o.Trust}}
	if err := p.source(ctx); err != nil {
		return err
	}
	begin, marker, err := p.copyInit(ctx, o)
	if err != nil {
		return err
	}
	if err := o.To.Put(ctx, vault.MarkerName, int64(len(marker)), bytes.NewReader(marker)); err != nil {
		if errors.Is(err, vault.ErrConflict) {
			return fmt.Errorf("%w: %w", ErrOtherVault, err)
		}
		return fmt.Errorf("destination: %w", err)
	}
	log, err := ledger.Create(ctx, o.Log)
	if errors.Is(err, ledger.ErrExists) {
		log, err = ledger.Open(ctx, o.Log)
	}
	if err == nil && log.Checkpoint().Size > 0 {
		return begun(ctx, log, begin)
	}
	if err == nil {
		var data []byte
		if data, err = entry.Encode(begin); err == nil {
			_, err = log.Append(ctx, data)
		}
	}
	if err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}

// copyInit makes the copy log's first entry from what the source proves, and
// returns the marker's bytes too.
func (p *pass) copyInit(ctx context.Context, o InitOptions) (*entry.CopyInit, []byte, error) {
	data, err := p.src.Entry(ctx, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("source: %w", broken(ErrDamaged, err))
	}
	e, err := entry.Decode(data)
	if err != nil {
		return nil, nil, fmt.Errorf("source: %w: %w", ErrDamaged, err)
	}
	first, ok := e.(*entry.Init)
	if !ok || first.Marker != p.marker {
		return nil, nil, fmt.Errorf("source: %w: the first entry is not the init entry of this marker", ErrDamaged)
	}
	marker, err := vault.ReadAll(ctx, o.From, vault.MarkerName, headLimit)
	if err != nil {
		return nil, nil, fmt.Errorf("source: %w", err)
	}
	m, err := vault.ParseMarker(marker)
	if err != nil || vault.HashOf(marker) != p.marker {
		return nil, nil, fmt.Errorf("source: %w: %s: %w", ErrChanged, vault.MarkerName, err)
	}
	return &entry.CopyInit{Header: entry.Header{Time: o.Now(), Actor: o.Actor}, Vault: hex.EncodeToString(m.ID[:]), Origin: first.Origin,
		Name: o.Name, Key: o.Key, Cosigner: o.Cosigner}, marker, nil
}

// begun reports whether a copy log begins as it is to begin, whenever that was.
func begun(ctx context.Context, log *ledger.Log, want *entry.CopyInit) error {
	data, err := log.Tree().Entry(ctx, 0)
	if err != nil {
		return fmt.Errorf("copy log: %w", broken(ErrDamaged, err))
	}
	e, err := entry.Decode(data)
	if err != nil {
		return fmt.Errorf("copy log: %w: %w", ErrDamaged, err)
	}
	is, ok := e.(*entry.CopyInit)
	if !ok || is.Vault != want.Vault || is.Origin != want.Origin || is.Name != want.Name || is.Key != want.Key || is.Cosigner != want.Cosigner {
		return fmt.Errorf("copy log: %w: it began as another copy", vault.ErrNotEmpty)
	}
	return nil
}
