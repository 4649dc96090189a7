package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/window"
	"logvault/vault"
)

// headLimit bounds small signed files: checkpoints, cosignatures, tokens.
const headLimit = 64 << 10

// pass is one pass under way.
type pass struct {
	o     Options
	limit *limiter

	// Set by the read-only steps, in their order.
	raw    []byte       // the source's checkpoint as read, once
	src    *ledger.Tree // the source's ledger
	marker vault.Hash
	dst    ledger.Checkpoint // the destination's head, zero if it has none yet
	held   entry.Held        // the last one of the copy log, zero if none
	locked entry.Lock        // the one that went with it, zero if none
	heldAt int64             // the copy log's size just after it

	pinned   string // the ledger key that the pass began with
	keysRead bool   // the trust knows of all rotations in the source

	now     time.Time      // the moment that all dates of the pass are judged at
	window  *window.Window // of all entries
	was     *window.Window // of those that were held before
	keys    map[int64]*periodKey
	regs    []item
	orphans []string             // objects that the ledger says are nothing
	tokens  map[int64]vault.Hash // SHA-256 of timestamp tokens, by size

	last, wasLast time.Time // the latest date of all, now and at the last lock

	here, there inventory // what destination and source list
	total       int64     // bytes to copy
	busy        bool      // some object is to be copied, read back or protected
	idle        time.Time // the earliest date of those that need nothing, zero if none

	prior vault.Level          // of the last lock
	able  vault.Level          // what the destination can do now
	anew  bool                 // what is protected already must be protected again
	kepts map[string]time.Time // kept heads, cosignatures and tokens at the destination: when written

	mu                     sync.Mutex // guards what is below while objects are copied
	level                  vault.Level
	soonest                time.Time // the earliest date of what is protected
	sum                    Summary
	done                   int64
	changed                bool  // something was written that held should tell of
	heldObjects, heldBytes int64 // all that the destination holds of this head
}

// source opens the source under the pinned key.
func (p *pass) source(ctx context.Context) error {
	_, hash, err := vault.ReadMarker(ctx, p.o.From)
	if errors.Is(err, vault.ErrNotExist) {
		return fmt.Errorf("source: %w: no %s there", vault.ErrNoVault, vault.MarkerName)
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	p.marker = hash
	trust := *p.o.Trust // whose known head is compared later, with the others
	trust.KnownSize, trust.KnownRoot = 0, ""
	p.src, err = ledger.OpenTree(ctx, p.o.From, vault.LedgerPrefix, &trust)
	switch {
	case passing(err):
		return fmt.Errorf("source: %w", err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	p.raw, p.pinned = p.src.Checkpoint().Raw, p.o.Trust.Log
	p.follow(p.src.Trust())
	return nil
}

// follow takes over the ledger keys that rotate entries of the source lead to.
func (p *pass) follow(trust *ledger.Trust) {
	followed := *trust
	followed.KnownSize, followed.KnownRoot = p.o.Trust.KnownSize, p.o.Trust.KnownRoot
	p.o.Trust = &followed
}

// parseHead verifies a head that may be older than the last rotation. What the
// pinned key signed is in order without reading the source's entries for it.
func (p *pass) parseHead(ctx context.Context, raw []byte) (ledger.Checkpoint, error) {
	cp, err := ledger.ParseCheckpoint(raw, p.o.Trust)
	if !errors.Is(err, ledger.ErrUnsigned) || p.keysRead {
		return cp, err
	}
	p.keysRead = true
	keys, kerr := p.src.Keys(ctx)
	if kerr != nil {
		return cp, fmt.Errorf("%w; reading the ledger's keys: %w", err, kerr)
	}
	trust, kerr := p.o.Trust.Following(keys)
	if kerr != nil {
		return cp, err
	}
	p.follow(trust)
	return ledger.ParseCheckpoint(raw, p.o.Trust)
}

// rotated refuses a key that the recovery key put in the place of the pinned
// one, until a person has typed the hash of the entry that says so: whoever
// found the recovery key must not be able to take over the copies as well. Once
// this copy has held a head that covers the entry, it was accepted.
func (p *pass) rotated(context.Context) error {
	if p.o.Copy == nil {
		return nil // whoever restores has the recovery key in hand, and no copy to lose
	}
	from := slices.IndexFunc(p.o.Trust.Rotations(), func(r ledger.Rotation) bool { return r.Old == p.pinned })
	if from < 0 {
		return nil
	}
	for _, r := range p.o.Trust.Rotations()[from:] {
		if r.By == entry.RotateRecovery && r.Index >= p.held.Size && r.Hash != p.o.AcceptRotation {
			return fmt.Errorf("%w: entry %d, hash %s, new key %s", ErrRotated, r.Index, r.Hash, r.New)
		}
	}
	return nil
}

// destination reads what this copy has accepted so far, from two places: its
// checkpoint and its own copy log.
func (p *pass) destination(ctx context.Context) error {
	_, hash, err := vault.ReadMarker(ctx, p.o.To)
	if errors.Is(err, vault.ErrNotExist) {
		return fmt.Errorf("destination: %w: no %s there", vault.ErrNoVault, vault.MarkerName)
	}
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if hash != p.marker {
		return fmt.Errorf("%w: marker %s, the source's is %s", ErrOtherVault, hash, p.marker)
	}
	if err := p.lastHeld(ctx); err != nil {
		return err
	}
	raw, err := vault.ReadAll(ctx, p.o.To, vault.CheckpointName(vault.LedgerPrefix), headLimit)
	switch {
	case errors.Is(err, vault.ErrNotExist): // before the first pass
	case err != nil:
		return fmt.Errorf("destination: %w", err)
	default:
		if p.dst, err = p.parseHead(ctx, raw); err != nil {
			return fmt.Errorf("destination: %w: %w", ErrDamaged, err)
		}
	}
	if p.dst.Size < p.held.Size {
		return fmt.Errorf("destination: %w: its head is at size %d, but the copy log held size %d", ErrDamaged, p.dst.Size, p.held.Size)
	}
	return nil
}

// lastHeld finds the last held entry of the copy log and the lock entry that was
// appended with it, just before.
func (p *pass) lastHeld(ctx context.Context) error {
	if p.o.Copy == nil {
		return nil
	}
	log := p.o.Copy.Tree()
	for i := log.Size() - 1; i >= 0; i-- {
		data, err := log.Entry(ctx, i)
		if err != nil {
			return fmt.Errorf("copy log: %w", broken(ErrDamaged, err))
		}
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("copy log: entry %d: %w: %w", i, ErrDamaged, err)
		}
		switch e := e.(type) {
		case *entry.Held:
			if p.heldAt > 0 {
				return nil // an older one: no lock went with the last
			}
			p.held, p.heldAt = *e, i+1
		case *entry.Lock:
			if p.heldAt > 0 {
				p.locked = *e
				return nil
			}
		}
	}
	if log.Size() == 0 {
		return fmt.Errorf("copy log: %w: it is empty, the copy was not initialised", vault.ErrNoVault)
	}
	return nil
}

// grown refuses a source that does not contain every head seen before.
func (p *pass) grown(ctx context.Context) error {
	heads := []seen{
		{what: "this copy's head", size: p.dst.Size, root: p.dst.Root},
		{what: "the head held by the copy log", size: p.held.Size, root: p.held.Root},
	}
	if t := p.o.Trust; t.KnownSize > 0 {
		s := seen{what: "the known head of the trust file", size: t.KnownSize, any: t.KnownRoot == ""}
		if !s.any {
			root, err := vault.ParseHash(t.KnownRoot)
			if err != nil {
				return fmt.Errorf("known root of the trust file: %w", err)
			}
			s.root = root
		}
		heads = append(heads, s)
	}
	for _, s := range heads {
		if s.size > p.src.Size() {
			return fmt.Errorf("%w: %v, the source is at size %d", ErrShrunk, s, p.src.Size())
		}
		if s.any || s.size == 0 {
			continue
		}
		root, err := p.src.RootAt(ctx, s.size)
		if err != nil {
			return fmt.Errorf("source: root at size %d: %w", s.size, broken(ErrDamaged, err))
		}
		if root != s.root {
			return fmt.Errorf("%w: %v has root %s, the source has root %s there", ErrForked, s, s.root, root)
		}
	}
	return nil
}
