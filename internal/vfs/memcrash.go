package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// commit makes the unsynced changes of a directory durable, and with them the
// other halves of its renames and the earlier changes of the same names that
// those build on, as a journal would.
func (m *Mem) commit(dir *node) {
	var marked []*change
	var mark func(c *change)
	mark = func(c *change) {
		if c.done {
			return
		}
		c.done = true
		marked = append(marked, c)
		for _, at := range c.at {
			if at.dir == nil || at.dir == dir {
				continue // none, or marked anyway
			}
			for _, earlier := range at.dir.changes {
				if earlier.seq < c.seq && (earlier.at[0] == at || earlier.at[1] == at) {
					mark(earlier)
				}
			}
		}
	}
	for _, c := range dir.changes {
		mark(c)
	}
	dir.changes = nil
	slices.SortFunc(marked, func(a, b *change) int { return a.seq - b.seq })
	for _, c := range marked {
		c.each(func(at dentry, to *node) { setEntry(at.dir.durable, at.name, to) })
	}
	if m.done += len(marked); m.done > len(m.pending)/2 {
		m.pending = slices.DeleteFunc(m.pending, func(c *change) bool { return c.done })
		m.done = 0
	}
}

func (c *change) each(fn func(at dentry, to *node)) {
	for i, at := range c.at {
		if at.dir != nil {
			fn(at, c.to[i])
		}
	}
}

func setEntry(names map[string]*node, name string, to *node) {
	if to == nil {
		delete(names, name)
	} else {
		names[name] = to
	}
}

// CrashClone returns a file system as a crash of the machine at this moment
// could leave it; m itself goes on unharmed. Kept are all synced bytes and
// names. Of the unsynced writes each sector of 512 bytes is there or not, of an
// unsynced size something between old and new. Each unsynced change of a name
// is there or not, whereby a rename is never torn and a change is there only
// with the earlier ones of the same name. How much survives is drawn first, so
// that nothing, everything and all between occur. The same seed on the same
// history gives the same clone. Locks are gone.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := cloner{rng: rng, nodes: map[*node]*node{}, names: map[*node]map[string]*node{}}
	c.chooseNames(m.pending)
	c.share = c.drawShare()
	clone := NewMem()
	clone.now = m.now
	clone.root = c.clone(m.root)
	for _, n := range c.nodes {
		if n.nlink > 0 {
			clone.used += n.file.room
		}
	}
	clone.space, clone.setAt = Space{m.space.Total, m.free() + m.used}, 0
	return clone
}

// cloner carries one crash clone.
type cloner struct {
	rng   *rand.Rand
	share float64                    // chance of an unsynced sector to survive
	nodes map[*node]*node            // original to clone, so that links stay links
	names map[*node]map[string]*node // entries of directories with surviving changes
}

// drawShare draws a chance of survival; one draw in four each is 0 and 1.
func (c *cloner) drawShare() float64 {
	return min(1, max(0, c.rng.Float64()*2-0.5))
}

// chooseNames decides which unsynced changes of names survive.
func (c *cloner) chooseNames(pending []*change) {
	share := c.drawShare()
	dropped := map[dentry]bool{}
	for _, ch := range pending {
		if ch.done {
			continue
		}
		keep := c.rng.Float64() < share
		ch.each(func(at dentry, _ *node) { keep = keep && !dropped[at] })
		ch.each(func(at dentry, to *node) {
			if !keep {
				dropped[at] = true
				return
			}
			if c.names[at.dir] == nil {
				c.names[at.dir] = maps.Clone(at.dir.durable)
			}
			setEntry(c.names[at.dir], at.name, to)
		})
	}
}

// clone copies a node and what is below it, in a fixed order for the sake of rng.
func (c *cloner) clone(n *node) *node {
	if done := c.nodes[n]; done != nil {
		return done
	}
	cl := &node{dir: n.dir, mode: n.mode, modTime: n.modTime, flags: n.flags}
	c.nodes[n] = cl
	if !n.dir {
		cl.file = c.crashed(&n.file)
		return cl
	}
	names := c.names[n]
	if names == nil {
		names = n.durable
	}
	cl.names = make(map[string]*node, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		child := c.clone(names[name])
		child.nlink++
		cl.names[name] = child
	}
	cl.durable = maps.Clone(cl.names)
	return cl
}

// crashed returns what a crash leaves of a file's content.
func (c *cloner) crashed(old *content) content {
	pages := slices.Clone(old.synced)
	unsynced := slices.AppendSeq(slices.Collect(maps.Keys(old.dirty)), maps.Keys(old.lost))
	slices.Sort(unsynced)
	for _, i := range unsynced {
		for len(pages) <= i {
			pages = append(pages, nil)
		}
		pages[i] = c.mix(pages[i], pageOf(old.live, i))
	}
	size := old.syncedSize
	if size != old.size {
		lo, hi := min(size, old.size), max(size, old.size)
		switch c.rng.IntN(3) {
		case 0:
			size = old.size
		case 1:
			size = lo + c.rng.Int64N(hi-lo+1)
		}
	}
	return newContent(pages, size)
}

// mix returns a page with each sector from one side or the other.
func (c *cloner) mix(synced, live *page) *page {
	mixed := new(page)
	if synced != nil {
		*mixed = *synced
	}
	if live == nil {
		live = &zeroPage
	}
	for at := 0; at < pageSize; at += sectorSize {
		if c.rng.Float64() < c.share {
			copy(mixed[at:at+sectorSize], live[at:])
		}
	}
	return mixed
}

// newContent returns synced content; what the pages hold beyond size is gone.
func newContent(pages []*page, size int64) content {
	n := int((size + pageSize - 1) / pageSize)
	pages = pages[:min(n, len(pages))]
	if in := size % pageSize; in != 0 && len(pages) == n && pages[n-1] != nil {
		last := *pages[n-1]
		clear(last[in:])
		pages[n-1] = &last
	}
	c := content{live: slices.Clone(pages), synced: pages, size: size, syncedSize: size}
	for _, p := range pages {
		if p != nil {
			c.room += pageSize
		}
	}
	return c
}
