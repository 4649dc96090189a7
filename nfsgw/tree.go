package nfsgw

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"logvault/vault"
)

const (
	// keepRemoved is how long a removed file's id stays valid after the removal
	// or the last late write.
	keepRemoved = 30 * 24 * time.Hour
	// maxRemoved bounds the removed files that are kept, over all sources, of
	// which each may have the same share, or minRemoved: who removes more loses
	// the oldest early.
	maxRemoved = 1 << 15
	minRemoved = 256
	// maxFiles bounds the names of one source, and with them the memory and the
	// room in the Sink's table that it can take. That is no passing state.
	maxFiles = 1 << 14
)

// dropPerRemove bounds the forgotten ids per removal.
const dropPerRemove = 4

// tree is the files of one source.
//
// Two locks, taken in this order. names serialises the changes of names and is
// held while they become durable; mu guards memory and is held briefly. The
// parent, name and removed fields of nodes, and directories, are changed with
// both held, so either suffices to read them. All other fields of meta are
// read and changed under mu.
type tree struct {
	name   vault.Source
	root   *node
	source atomic.Pointer[Source] // nil while the source is not configured

	names   sync.Mutex
	mu      sync.Mutex
	removed []*node // removed files, oldest first
	files   int     // nodes with a name, less the root
}

// node is a file or directory. It has one name: there are no hard links.
type node struct {
	id     uint64
	handle handle
	tree   *tree
	meta         // kind, root and stream never change; see tree for the rest
	up     *node // the parent directory; nil of a root. Changes with parent

	// gate is held shared by each WRITE and alone by the end of a generation,
	// so that a WRITE is wholly before or after a truncation.
	gate      sync.RWMutex
	dead      bool  // forgotten, its stream too; under gate
	dirty     bool  // written since its record was stored; under tree.mu
	removedAt int64 // when its last days began; under tree.mu

	// Of a directory.
	children map[string]*node
	order    []*node // children by id: the order of READDIR
	subdirs  int
}

// attr returns the attributes; tree.mu is held.
func (n *node) attr() attr {
	a := attr{
		kind: n.kind, mode: n.mode, nlink: 1, uid: n.uid, gid: n.gid,
		size: uint64(n.size), fsid: n.root, id: n.id,
		atime: n.atime, mtime: n.mtime, ctime: n.ctime,
	}
	if n.kind == typeDir {
		a.nlink = uint32(2 + n.subdirs)
		a.size = 4096
	} else if n.removed {
		a.nlink = 0
	}
	return a
}

// attrs returns the attributes.
func (n *node) attrs() attr {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	return n.attr()
}

// lookup returns the entry of a directory, also for "." and "..".
func (n *node) lookup(name string) *node {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	switch name {
	case ".":
		return n
	case "..":
		return n.parentNode()
	}
	return n.children[name]
}

// parentNode returns the directory above; of a root, itself. tree.mu or names is held.
func (n *node) parentNode() *node {
	if n.parent == 0 {
		return n
	}
	return n.up
}

// path returns the path below the root of a name in directory d, for the
// archive; names is held.
func (d *node) path(name string) []byte {
	elems := []string{name}
	for ; d.parent != 0; d = d.up {
		elems = append(elems, d.name)
	}
	slices.Reverse(elems)
	return []byte(strings.Join(elems, "/"))
}

// change is an edit of one node's durable state. edit runs twice, on a copy to
// be stored and then on the node, because WRITEs go on in between; it must
// depend on nothing but its argument.
type change struct {
	node *node
	edit func(*meta)
	up   *node // new parent directory, if the edit moves the node
}

// edits are the changes of one call.
type edits struct {
	nodes   []change
	drop    []*node       // forgotten for good, files with their streams
	streams vault.Changes // Set is filled in by enact
}

// enact makes the changes of a call, with the answer that goes with them.
func (c *call) enact(t *tree, e *edits, watch ...*wcc) error {
	if c.entry != nil {
		e.streams.Set = append(e.streams.Set, c.entry.record(c.made))
	}
	err := c.conn.server.enact(c.work(), t, e, watch...)
	if err == nil && c.entry != nil {
		c.conn.server.replies.wasStored(c.entry)
	}
	return err
}

// enact stores the changes, all or none, then makes them visible, and fills
// the watched wccs. On error nothing has changed. The caller holds names if
// names change.
//
//	one record of the Sink   | crash before: nothing has happened, and the client asks again
//	                         | crash after: all has, and who asks again has the first answer
func (s *Server) enact(ctx context.Context, t *tree, e *edits, watch ...*wcc) error {
	c := &e.streams
	t.mu.Lock()
	for _, ch := range e.nodes {
		m := ch.node.meta
		ch.edit(&m)
		c.Set = append(c.Set, vault.KV{Key: metaKey(ch.node.id), Value: m.encode()})
	}
	t.mu.Unlock()
	for _, n := range e.drop {
		c.Set = append(c.Set, vault.KV{Key: metaKey(n.id)})
		if n.kind == typeFile {
			n.setDead(true) // from here on nothing is written to its stream
			c.End = append(c.End, vault.Generation{Stream: n.stream, Gen: n.gen})
			c.Over = append(c.Over, n.stream)
		}
	}
	if err := s.cfg.Sink.Record(ctx, *c); err != nil {
		for _, n := range e.drop {
			n.setDead(false)
		}
		return err
	}
	t.mu.Lock()
	for _, w := range watch {
		a := w.node.attr()
		w.known, w.pre = true, a.before()
	}
	for _, n := range e.drop {
		n.unlinkFrom(n.up, n.name)
	}
	for _, ch := range e.nodes {
		ch.apply()
	}
	for _, w := range watch {
		w.post = w.node.attr()
	}
	t.mu.Unlock()
	s.forget(e.drop)
	return nil
}

func (n *node) setDead(dead bool) {
	n.gate.Lock()
	n.dead = dead
	n.gate.Unlock()
}

// apply edits the node and puts it where its name now is. names and mu are
// held. It edits in place: kind, root and stream are read without a lock.
func (ch *change) apply() {
	n := ch.node
	up, name, removed := n.up, n.name, n.removed
	ch.edit(&n.meta)
	switch {
	case removed: // it has no name
	case n.removed:
		n.unlinkFrom(up, name)
		n.removedAt = n.ctime
		n.tree.removed = append(n.tree.removed, n)
	case ch.up != nil || n.name != name:
		n.unlinkFrom(up, name)
		if ch.up != nil {
			n.up = ch.up
		}
		n.link()
	}
}

// link adds the node to its parent directory; mu is held.
func (n *node) link() {
	d := n.up
	d.children[n.name] = n
	n.tree.files++
	i, _ := slices.BinarySearchFunc(d.order, n.id, byID)
	d.order = slices.Insert(d.order, i, n)
	if n.kind == typeDir {
		d.subdirs++
	}
}

// unlinkFrom takes the node out of a directory, if it is there under the name; mu is held.
func (n *node) unlinkFrom(d *node, name string) {
	if d == nil || d.children[name] != n {
		return
	}
	delete(d.children, name)
	n.tree.files--
	if i, ok := slices.BinarySearchFunc(d.order, n.id, byID); ok {
		d.order = slices.Delete(d.order, i, i+1)
	}
	if n.kind == typeDir {
		d.subdirs--
	}
}

func byID(n *node, id uint64) int { return cmp.Compare(n.id, id) }

// forgettable takes removed files whose time is over, or that are too many, off
// the list; names is held.
func (s *Server) forgettable(t *tree, now int64, atMost int) []*node {
	s.mu.RLock()
	share := max(minRemoved, maxRemoved/len(s.trees))
	s.mu.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*node
	limit := now - int64(keepRemoved)
	for len(t.removed) > 0 && len(out) < atMost {
		n := t.removed[0]
		over, ahead := n.removedAt < limit, n.removedAt > now
		if !over && !ahead && len(t.removed) <= share {
			break
		}
		t.removed = t.removed[1:]
		if over && n.written >= limit || ahead { // written late, or removed while the clock was wrong
			n.removedAt = min(max(n.removedAt, n.written), now) // its days begin anew
			t.removed = append(t.removed, n)
			continue
		}
		out = append(out, n)
	}
	return out
}

// room returns the number of names that the tree may still get.
func (t *tree) room() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint64(max(0, maxFiles-t.files))
}

func (t *tree) removedCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.removed)
}

// newNode draws a file id that no node has, not even a removed one. 63 random
// bits also keep ids apart that were given out after a state directory was
// copied and before it was restored. Ids below 2^32 are left out: READDIR
// cookies 0 to 2 mean something else.
func (s *Server) newNode(t *tree, m meta) (*node, error) {
	var b [8]byte
	for {
		if _, err := io.ReadFull(s.cfg.Random, b[:]); err != nil {
			return nil, fmt.Errorf("drawing a file id: %w", err)
		}
		id := binary.BigEndian.Uint64(b[:]) >> 1
		s.mu.RLock()
		_, taken := s.nodes[id]
		s.mu.RUnlock()
		if id < 1<<32 || taken {
			continue
		}
		return s.makeNode(id, t, m), nil
	}
}

func (s *Server) makeNode(id uint64, t *tree, m meta) *node {
	n := &node{id: id, handle: s.handles.make(id), tree: t, meta: m}
	if m.kind == typeDir {
		n.children = make(map[string]*node)
	}
	return n
}

func (s *Server) remember(n *node) {
	s.mu.Lock()
	s.nodes[n.id] = n
	s.mu.Unlock()
}

func (s *Server) forget(nodes []*node) {
	if len(nodes) == 0 {
		return
	}
	s.mu.Lock()
	for _, n := range nodes {
		delete(s.nodes, n.id)
	}
	s.mu.Unlock()
}

// treeOf returns the tree of a source, which it makes on the first mount.
func (s *Server) treeOf(ctx context.Context, name vault.Source) (*tree, error) {
	s.mu.RLock()
	t := s.trees[name]
	s.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	s.rootMu.Lock()
	defer s.rootMu.Unlock()
	s.mu.RLock()
	t = s.trees[name]
	s.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	now := s.now()
	t = &tree{name: name}
	root, err := s.newNode(t, meta{kind: typeDir, mode: 0o755, atime: now, mtime: now, ctime: now, name: string(name)})
	if err != nil {
		return nil, err
	}
	root.root = root.id
	t.root = root
	if err := s.cfg.Sink.Record(ctx, vault.Changes{Set: []vault.KV{{Key: metaKey(root.id), Value: root.encode()}}}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees[name] = t
	s.nodes[root.id] = root
	t.source.Store(findSource(*s.sources.Load(), name))
	return t, nil
}
