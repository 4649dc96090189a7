package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"logvault/ledger"
	"logvault/vault"
)

// Standing is a store that can protect what it holds and tell its level.
type Standing interface {
	Dest
	vault.Protector
	// Level tells how an object is protected now, without changing it.
	Level(ctx context.Context, name string) (vault.Level, error)
}

// StandingOptions says what to protect where it stands.
type StandingOptions struct {
	Vault Standing
	Trust *ledger.Trust
	Jobs  int // at once; 0 means 8
	Now   func() time.Time
	Log   *slog.Logger
}

// StandingSummary is what Protect did.
type StandingSummary struct {
	// Objects are protected at Level or better, Fresh of them since this run.
	Objects, Fresh int64
	// Level is the weakest of all.
	Level vault.Level
	// Size is the ledger's.
	Size int64
}

// Protect makes immutable what stands in a vault, for a copy that another
// machine pushes: it is run with the right to set flags, on the machine that has
// the disk, and knows no secret. Only what the ledger names is protected, after
// it was read and hashed, so that nobody can have rubbish made immutable; what
// has its flag already is not read again. Objects that are due are left alone.
func Protect(ctx context.Context, o StandingOptions) (StandingSummary, error) {
	if o.Vault == nil || o.Trust == nil || o.Now == nil || o.Log == nil {
		return StandingSummary{}, errors.New("replicate: vault, trust, clock or log not given")
	}
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	p := &pass{o: Options{From: o.Vault, To: o.Vault, Trust: o.Trust, Jobs: o.Jobs, Attempts: 1, Now: o.Now, Log: o.Log}, anew: true}
	s := &standing{pass: p, store: o.Vault}
	err := p.steps(ctx, p.source, p.scan, s.objects, s.heads, p.undated)
	if err == nil {
		_, err = p.protect(ctx, vault.MarkerName, ledgerDate(p.last))
	}
	s.sum.Level = p.level
	if p.src != nil { // else it was refused
		s.sum.Size = p.src.Size()
	}
	return s.sum, err
}

// standing is one run of Protect.
type standing struct {
	*pass
	store Standing
	sum   StandingSummary
}

// objects protects the objects of the ledger that are here.
func (s *standing) objects(ctx context.Context) error {
	return s.parallel(ctx, func(do func(func([]byte) error) error) error {
		return s.items(ctx, func(it item) error {
			level, err := s.store.Level(ctx, it.name)
			switch {
			case it.due || errors.Is(err, vault.ErrNotExist):
				return nil // verify tells what is missing
			case err != nil:
				return err
			}
			s.sum.Objects++
			if level == vault.LevelFlag {
				s.reached(level, it.until)
				return nil
			}
			s.sum.Fresh++
			return do(func(buf []byte) error {
				if err := s.rehash(ctx, s.store, it, nil, buf); err != nil {
					return err
				}
				_, err := s.protect(ctx, it.name, it.until)
				return err
			})
		})
	})
}

// heads takes the inventory of kept files that prove to be genuine; the others
// are told and left as they are.
func (s *standing) heads(ctx context.Context) error {
	s.kepts = make(map[string]time.Time)
	for _, dir := range []string{"checkpoints/", "cosignatures/", "timestamps/"} {
		err := s.store.List(ctx, vault.LedgerPrefix+dir, func(info vault.Info) error {
			o, err := vault.ParseName(info.Name)
			if err == nil {
				var data []byte
				if data, err = vault.ReadAll(ctx, s.store, o.Name, headLimit); err == nil {
					err = s.proves(ctx, o, data)
				}
			}
			if err != nil {
				s.o.Log.Warn("not protected", "object", info.Name, "error", err)
				return nil
			}
			s.kepts[o.Name] = info.ModTime
			return nil
		})
		if err != nil {
			return fmt.Errorf("listing %s: %w", dir, err)
		}
	}
	return nil
}
