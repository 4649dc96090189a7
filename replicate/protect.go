package replicate

import (
	"context"
	"fmt"
	"time"

	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/vault"
)

// lockModes are the words of a lock entry for the levels; none has no word.
var lockModes = map[vault.Level]string{vault.LevelMode: entry.LockMode, vault.LevelFlag: entry.LockImmutable, vault.LevelLock: entry.LockObject}

// lockDate is until when an object that lives to the effective date is locked.
// A hold without an end has no date: it is locked to the end of the month after
// the present one, and again by later passes, so that a release frees it soon;
// for no less, though, than without the hold.
func lockDate(effective, now time.Time) time.Time {
	if effective.Before(policy.Never) {
		return effective
	}
	y, m, _ := now.UTC().Date()
	return time.Date(y, m+2, 1, 0, 0, 0, 0, time.UTC)
}

// ledgerDate is until when files without a date of their own are locked: the
// marker, full tiles, kept heads, cosignatures and tokens. They are needed as
// long as anything that the ledger names; the turn of a year makes them be locked
// again once a year and not with every new segment.
func ledgerDate(last time.Time) time.Time {
	return time.Date(last.UTC().Year()+1, time.January, 1, 0, 0, 0, 0, time.UTC)
}

// dated judges the dates of a segment entry.
func (p *pass) dated(i int64, s *entry.Segment) item {
	verdict := p.window.Judge(s, p.now)
	it := item{entry: i, key: s.Key, due: verdict.Due, until: later(lockDate(verdict.Effective, p.now), verdict.Dated)}
	p.last = later(p.last, it.until)
	var was time.Time
	if i < p.held.Size && p.prior == vault.LevelLock {
		then := p.was.Judge(s, p.judged())
		was = later(lockDate(then.Effective, p.judged()), then.Dated)
		it.moved = it.until.After(was)
		p.wasLast = later(p.wasLast, was)
	}
	if k := p.keys[s.Key]; k != nil {
		k.sealed, k.live = true, k.live || !it.due
		k.until, k.was = later(k.until, it.until), later(k.was, was)
	}
	return it
}

// judged is the moment that the last pass on record judged its dates at: the lock
// entry tells. It may be long before the held entry, which ends a pass.
func (p *pass) judged() time.Time {
	if p.locked.Time.IsZero() {
		return p.held.Time
	}
	return p.locked.Time
}

// priorLevel is the level that the last lock entry tells of.
func (p *pass) priorLevel() vault.Level {
	for level, mode := range lockModes {
		if mode == p.locked.Mode {
			return level
		}
	}
	return vault.LevelNone
}

// probe protects the marker, to learn what the destination can do now. If it can
// do more than at the last lock everything is protected anew; so it is after
// every pass that ended with flags, which root can take away.
func (p *pass) probe(ctx context.Context) error {
	level, err := p.protect(ctx, vault.MarkerName, ledgerDate(p.last))
	if err != nil {
		return err
	}
	p.able = level
	p.anew = p.prior == vault.LevelFlag || p.prior.Weaker(level)
	return nil
}

// protect makes one object immutable and takes its level into account.
func (p *pass) protect(ctx context.Context, name string, until time.Time) (vault.Level, error) {
	level := vault.LevelNone
	if store, ok := p.o.To.(vault.Protector); ok {
		err := p.again(ctx, name, func() (err error) {
			level, err = store.Protect(ctx, name, until)
			return err
		})
		if err != nil {
			return level, fmt.Errorf("destination: protecting: %w", err)
		}
	}
	p.reached(level, until)
	return level, nil
}

// reached takes in the level of one object. The pass reports the weakest.
func (p *pass) reached(level vault.Level, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.level == "" || level.Weaker(p.level) {
		p.level = level
	}
	p.soonest = earlier(p.soonest, until)
}

// undated protects what has no date of its own and has come since the last lock:
// full tiles and bundles of the ledger, which the kept head covers, and of the
// copy log, kept heads, cosignatures and tokens. This copy's cosignature of the
// head is always newer than the held entry that it follows.
func (p *pass) undated(ctx context.Context) error {
	until := ledgerDate(p.last)
	moved := p.prior == vault.LevelLock && until.After(ledgerDate(p.wasLast))
	p.changed = p.changed || moved
	all := p.anew || moved
	from, fromCopy := p.held.Size, p.heldAt
	if all {
		from, fromCopy = 0, 0
	}
	return p.parallel(ctx, func(do func(func([]byte) error) error) error {
		one := func(name string) error {
			return do(func([]byte) error {
				_, err := p.protect(ctx, name, until)
				return err
			})
		}
		if err := fullTiles(vault.LedgerPrefix, from, p.src.Size(), one); err != nil {
			return err
		}
		if p.o.Copy != nil {
			if err := fullTiles(p.o.Copy.Prefix(), fromCopy, p.o.Copy.Checkpoint().Size, one); err != nil {
				return err
			}
		}
		for name, written := range p.kepts {
			if all || written.After(p.held.Time) {
				if err := one(name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// fullTiles calls fn for the tiles and bundles that became full while a log grew
// from one size to another.
func fullTiles(prefix string, from, to int64, fn func(name string) error) error {
	for n := from / vault.TileWidth; n < to/vault.TileWidth; n++ {
		if err := fn(vault.BundleName(prefix, n, vault.TileWidth)); err != nil {
			return err
		}
	}
	for level := 0; to>>(8*(level+1)) > 0; level++ {
		for n := from >> (8 * (level + 1)); n < to>>(8*(level+1)); n++ {
			if err := fn(vault.TileName(prefix, level, n, vault.TileWidth)); err != nil {
				return err
			}
		}
	}
	return nil
}

// versions removes what a bucket keeps of the names that change: checkpoints and
// partial tiles, of the ledger and of the copy log. Objects have no versions to
// remove, and could not be replaced unnoticed.
func (p *pass) versions(ctx context.Context) error {
	store, ok := p.o.To.(vault.Versioned)
	if !ok {
		return nil
	}
	names := mutable(vault.LedgerPrefix, p.src.Size())
	if p.o.Copy != nil {
		names = append(names, mutable(p.o.Copy.Prefix(), p.o.Copy.Checkpoint().Size)...)
	}
	for _, name := range names {
		if err := p.again(ctx, name, func() error { return store.RemoveVersions(ctx, name) }); err != nil {
			return fmt.Errorf("destination: removing superseded versions: %w", err)
		}
	}
	return nil
}

// mutable lists the names of a log of a size that are replaced when it grows.
func mutable(prefix string, size int64) []string {
	names := []string{vault.CheckpointName(prefix)}
	if w := int(size % vault.TileWidth); w > 0 {
		names = append(names, vault.BundleName(prefix, size/vault.TileWidth, w))
	}
	for level := 0; size>>(8*level) > 0; level++ {
		if w := int(size >> (8 * level) % vault.TileWidth); w > 0 {
			names = append(names, vault.TileName(prefix, level, size>>(8*(level+1)), w))
		}
	}
	return names
}
