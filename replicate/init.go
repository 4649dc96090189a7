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
	Copy  *ledger.Log   // the copy's own log, empty
	Name  string        // of the copy
	Key   string        // the copy log's verifier key
	// Cosigner is the verifier key that the copy will cosign with.
	Cosigner string
	Actor    string // role written into the copy log
	Now      func() time.Time
}

// Init begins a copy: it checks that the source is the vault of the pinned key,
// stores its marker and appends copy-init to the copy log. A crash before the
// entry leaves a marker; Init may then be repeated. Init refuses a copy that
// was begun before.
func Init(ctx context.Context, o InitOptions) error {
	if o.From == nil || o.To == nil || o.Trust == nil || o.Copy == nil || o.Now == nil {
		return errors.New("replicate: source, destination, trust, copy log or clock not given")
	}
	if n := o.Copy.Checkpoint().Size; n != 0 {
		return fmt.Errorf("copy log: %w: it has %d entries", vault.ErrNotEmpty, n)
	}
	p := &pass{o: Options{From: o.From, To: o.To, Trust: o.Trust}}
	if err := p.source(ctx); err != nil {
		return err
	}
	data, err := p.src.Entry(ctx, 0)
	if err != nil {
		return fmt.Errorf("source: %w: %w", ErrDamaged, err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		return fmt.Errorf("source: %w: %w", ErrDamaged, err)
	}
	first, ok := e.(*entry.Init)
	if !ok || first.Marker != p.marker {
		return fmt.Errorf("source: %w: the first entry is not the init entry of this marker", ErrDamaged)
	}
	marker, err := vault.ReadAll(ctx, o.From, vault.MarkerName, headLimit)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	m, err := vault.ParseMarker(marker)
	if err != nil || vault.HashOf(marker) != p.marker {
		return fmt.Errorf("source: %w: %s: %w", ErrChanged, vault.MarkerName, err)
	}
	if err := o.To.Put(ctx, vault.MarkerName, int64(len(marker)), bytes.NewReader(marker)); err != nil {
		if errors.Is(err, vault.ErrConflict) {
			return fmt.Errorf("%w: %w", ErrOtherVault, err)
		}
		return fmt.Errorf("destination: %w", err)
	}
	data, err = entry.Encode(&entry.CopyInit{Header: entry.Header{Time: o.Now(), Actor: o.Actor},
		Vault: hex.EncodeToString(m.ID[:]), Origin: first.Origin, Name: o.Name, Key: o.Key, Cosigner: o.Cosigner})
	if err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	if _, err := o.Copy.Append(ctx, data); err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}
