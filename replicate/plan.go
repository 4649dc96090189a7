package replicate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/retention/window"
	"logvault/vault"
)

const (
	// clockSlack is how far ahead of this machine the source's clock may be.
	clockSlack = 24 * time.Hour
	// writtenSlack is how far behind it may be for an object that is written there
	// again to be noticed.
	writtenSlack = time.Hour
)

// item is one object that the ledger names.
type item struct {
	name  string
	hash  vault.Hash
	size  int64     // -1: the ledger does not say
	limit int64     // the largest size that makes sense
	entry int64     // index of the entry
	key   int64     // index of the period key's entry, -1 for none
	due   bool      // it must be destroyed by now
	until time.Time // how long it may not change or go
	moved bool      // until is later than when it was locked last
}

const (
	wrapLimit     = 1 << 20
	registerLimit = 16 << 20
)

// periodKey is what a pass knows of a key entry.
type periodKey struct {
	class  vault.Class
	day    vault.Day
	public vault.Hash
	wraps  []vault.Hash
	sealed bool // some segment is sealed to it
	live   bool // some of its segments is not due

	until, was time.Time // the latest of its segments', now and at the last lock
}

// scan reads all entries once: dates can be judged only when every hold and
// extension is known.
func (p *pass) scan(ctx context.Context) error {
	p.window, p.was, p.now = window.New(), window.New(), p.o.Now()
	p.keys, p.tokens = make(map[int64]*periodKey), make(map[int64]vault.Hash)
	p.last, p.wasLast, p.prior = p.now, p.judged(), p.priorLevel()
	latest := p.now.Add(clockSlack)
	return p.entries(ctx, func(i int64, e entry.Entry) error {
		if i == 0 {
			if first, ok := e.(*entry.Init); !ok || first.Marker != p.marker {
				return fmt.Errorf("source: %w: the first entry is not the init entry of this marker", ErrDamaged)
			}
		}
		if err := p.window.Add(i, e); err != nil {
			return fmt.Errorf("source: %w: entry %d: %w", ErrDamaged, i, err)
		}
		if i < p.held.Size {
			p.was.Add(i, e) // it was taken in just now
		}
		at := e.Head().Time
		switch e := e.(type) {
		case *entry.Segment:
			at = later(at, e.LastReceived)
		case *entry.Key:
			p.keys[i] = &periodKey{class: e.Class, day: e.Day, public: e.PublicHash, wraps: []vault.Hash{e.Wrap}}
		case *entry.Rewrap:
			if k := p.keys[e.Key]; k != nil {
				k.wraps = append(k.wraps, e.Wrap)
			}
		case *entry.Orphan:
			p.orphans = append(p.orphans, e.Name)
		case *entry.Request:
			p.regs = append(p.regs, p.register(i, e))
		case *entry.Timestamp:
			p.tokens[e.Size] = e.Token
		}
		if at.After(latest) {
			return fmt.Errorf("%w: entry %d tells of %s", ErrClock, i, at.UTC().Format(time.RFC3339))
		}
		return nil
	})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// earlier returns the first of two times; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// register is the record of a request: it has the retention of its class,
// counted from the request. Of a class that no policy states it is kept for good.
func (p *pass) register(i int64, e *entry.Request) item {
	it := item{name: vault.RegisterName(e.Class, e.Commit), hash: e.Object, size: -1, limit: registerLimit, entry: i, key: -1, until: policy.Never}
	if class, ok := p.window.Class(e.Class); ok {
		it.until = class.RetainUntil(e.Time)
		it.due = !p.now.Before(it.until)
	}
	it.until = lockDate(it.until, p.now)
	return it
}

// entries calls fn for every entry of the source.
func (p *pass) entries(ctx context.Context, fn func(i int64, e entry.Entry) error) error {
	var stop error
	err := p.src.Entries(ctx, 0, p.src.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if errors.Is(err, entry.ErrNewer) {
			stop = fmt.Errorf("source: entry %d: %w", i, err)
		} else if err != nil {
			stop = fmt.Errorf("source: %w: entry %d: %w", ErrDamaged, i, err)
		} else {
			stop = fn(i, e)
		}
		return stop
	})
	switch {
	case stop != nil:
		return stop
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("source: %w", broken(ErrDamaged, err))
	}
	return nil
}

// items calls fn for every object that the ledger names: segments and indexes
// first, because only they tell which period keys still live.
func (p *pass) items(ctx context.Context, fn func(item) error) error {
	err := p.entries(ctx, func(i int64, e entry.Entry) error {
		s, ok := e.(*entry.Segment)
		if !ok {
			return nil
		}
		it := p.dated(i, s)
		it.name, it.hash, it.size, it.limit = vault.SegmentName(s.Day, s.Object, s.Codec), s.Object, s.Size, s.Size
		if err := fn(it); err != nil {
			return err
		}
		it.name, it.hash, it.size, it.limit = vault.IndexName(s.Day, s.Index), s.Index, s.IndexSize, s.IndexSize
		return fn(it)
	})
	if err != nil {
		return err
	}
	if !p.o.WithoutKeys {
		if err := p.wraps(fn); err != nil {
			return err
		}
	}
	for _, r := range p.regs {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// wraps calls fn for every wrap of a period key: it lives as long as any segment
// that is sealed to the key, or as its day says if there is none yet.
func (p *pass) wraps(fn func(item) error) error {
	for _, i := range slices.Sorted(maps.Keys(p.keys)) {
		k := p.keys[i]
		it := item{size: -1, limit: wrapLimit, entry: i, key: i, due: k.sealed && !k.live, until: k.until, moved: p.prior == vault.LevelLock && k.until.After(k.was)}
		if !k.sealed {
			it.until = k.day.Start(time.UTC).AddDate(0, 0, 1)
			it.due = !p.now.Before(it.until)
		}
		for _, w := range k.wraps {
			it.name, it.hash = vault.WrapName(k.day, k.class, k.public, w), w
			if err := fn(it); err != nil {
				return err
			}
		}
	}
	return nil
}

// inventory is what a store lists, sorted by the hash of the name: 40 bytes an
// object, however long the names.
type inventory []listed

type listed struct {
	name    [16]byte // the first half of the name's SHA-256
	size    int64
	written int64 // unix nanoseconds
	named   bool  // some entry names it
}

func nameKey(name string) (key [16]byte) {
	h := vault.HashOf([]byte(name))
	copy(key[:], h[:])
	return key
}

func (v inventory) find(name string) *listed {
	key := nameKey(name)
	i, ok := slices.BinarySearchFunc(v, key, func(l listed, key [16]byte) int { return slices.Compare(l.name[:], key[:]) })
	if !ok {
		return nil
	}
	return &v[i]
}

// list takes the inventory of a store: lists instead of reading.
func (p *pass) list(ctx context.Context, r vault.Reader) (inventory, error) {
	var v inventory
	for _, prefix := range []string{"segments/", "keys/", "register/"} {
		if prefix == "keys/" && p.o.WithoutKeys {
			continue
		}
		err := r.List(ctx, prefix, func(info vault.Info) error {
			v = append(v, listed{name: nameKey(info.Name), size: info.Size, written: info.ModTime.UnixNano()})
			return ctx.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", prefix, err)
		}
	}
	slices.SortFunc(v, func(x, y listed) int { return slices.Compare(x.name[:], y.name[:]) })
	return v, nil
}

func (p *pass) lists(ctx context.Context) (err error) {
	if p.here, err = p.list(ctx, p.o.To); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if p.there, err = p.list(ctx, p.o.From); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return nil
}

// check refuses the pass before anything is written if the source lacks or has
// altered what it must have, or the destination holds something else under a
// name. It also counts what there is to copy.
func (p *pass) check(ctx context.Context) error {
	tombs := tombstones{p: p}
	err := p.parallel(ctx, func(do func(func([]byte) error) error) error {
		return p.items(ctx, func(it item) error {
			here, there := p.here.find(it.name), p.there.find(it.name)
			if err := p.compare(ctx, it, here, there, &tombs); err != nil {
				return err
			}
			p.tally(it, here, there)
			if it.due || here == nil || there == nil || !p.rewritten(here, there) {
				return nil
			}
			return do(func(buf []byte) error { return p.recheck(ctx, it, there, buf) })
		})
	})
	if err != nil {
		return err
	}
	for _, name := range p.orphans {
		if there := p.there.find(name); there != nil {
			there.named = true // the ledger says that it is nothing
		}
	}
	for i := range p.there {
		if !p.there[i].named {
			p.sum.Unrecorded++
		}
	}
	if p.sum.Unrecorded > 0 {
		p.o.Log.Warn("source objects without an entry are not copied", "objects", p.sum.Unrecorded)
	}
	return nil
}

// compare judges one object by what the two sides list.
func (p *pass) compare(ctx context.Context, it item, here, there *listed, tombs *tombstones) error {
	if here != nil {
		here.named = true
	}
	if there != nil {
		there.named = true
	}
	if err := sizes(it, here, there); err != nil {
		return err
	}
	if there != nil {
		return nil
	}
	if !it.due {
		if gone, err := tombs.has(ctx, it.key); err != nil || !gone {
			return errors.Join(fmt.Errorf("source: %w: %s, named by entry %d", ErrMissing, it.name, it.entry), err)
		}
	}
	p.sum.Missing++
	return nil
}

// recheck reads an object again at the source, where it was written again.
func (p *pass) recheck(ctx context.Context, it item, there *listed, buf []byte) error {
	err := p.again(ctx, it.name, func() error { return p.rehash(ctx, p.o.From, it, p.limit, buf) })
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = p.changed || there.written < p.now.UnixNano()
	return nil
}

// rewritten reports whether an object was written at the source after it was copied
// from there: an immutable one is not. The clocks of two machines may differ, and
// a vault may have been restored, so its bytes decide, until a pass that has seen
// them is on record.
func (p *pass) rewritten(here, there *listed) bool {
	return there.written > here.written && time.Unix(0, there.written).After(p.judged().Add(-writtenSlack))
}

// sizes compares what is listed with what the entry says.
func sizes(it item, here, there *listed) error {
	for _, side := range []struct {
		name string
		l    *listed
	}{{"destination", here}, {"source", there}} {
		if side.l == nil {
			continue
		}
		if it.size >= 0 && side.l.size != it.size || side.l.size > it.limit {
			return fmt.Errorf("%s: %w: %s has %d bytes, expected %d", side.name, ErrChanged, it.name, side.l.size, it.limit)
		}
	}
	return nil
}

// tally counts an item as present, due or to be copied, and notes whether there is
// anything to do for it.
func (p *pass) tally(it item, here, there *listed) {
	switch {
	case it.due || here == nil && there == nil:
	case here != nil && p.settled(it, here) && !it.moved:
		p.idle = earlier(p.idle, it.until)
	default:
		p.busy = true
	}
	switch {
	case here != nil:
		p.sum.Present++
		p.heldObjects++
		p.heldBytes += here.size
	case it.due:
		p.sum.Due++
	case there != nil:
		p.total += there.size
	}
}

// tombstones reads the source's copy logs, when first asked: which period keys
// and their segments were destroyed there. Only logs under a pinned key count.
type tombstones struct {
	p    *pass
	read bool
	keys map[int64]bool
}

func (t *tombstones) has(ctx context.Context, key int64) (bool, error) {
	if key < 0 {
		return false, nil
	}
	if !t.read {
		t.read, t.keys = true, make(map[int64]bool)
		for _, k := range t.p.o.Trust.Copies {
			if err := t.add(ctx, k.Name); err != nil {
				return false, err
			}
		}
	}
	return t.keys[key], nil
}

// add takes in the log of one copy, if the source has it.
func (t *tombstones) add(ctx context.Context, name string) error {
	trust, prefix := t.p.o.Trust.CopyLog(name), vault.CopyLogPrefix(name)
	if trust == nil {
		return nil // a cosigner's key
	}
	if _, err := t.p.o.From.Stat(ctx, vault.CheckpointName(prefix)); errors.Is(err, vault.ErrNotExist) {
		return nil
	}
	tree, err := ledger.OpenTree(ctx, t.p.o.From, prefix, trust)
	if err != nil {
		return fmt.Errorf("copy log of %s: %w", name, err)
	}
	return tree.Entries(ctx, 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("copy log of %s: entry %d: %w", name, i, err)
		}
		if tomb, ok := e.(*entry.Tombstone); ok {
			t.keys[tomb.Key] = true
		}
		return nil
	})
}
