package nfsgw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"logvault/vault"
)

// load reads the names from the Sink and puts the trees together.
func (s *Server) load() error {
	err := s.cfg.Sink.Meta(metaPrefix, func(kv vault.KV) error {
		id, m, err := decodeMeta(kv)
		if err != nil {
			return err
		}
		s.nodes[id] = s.makeNode(id, nil, m)
		return nil
	})
	if err != nil {
		return fmt.Errorf("loading the names: %w", err)
	}
	if err := s.loadReplies(); err != nil {
		return fmt.Errorf("loading the answers: %w", err)
	}
	for _, n := range s.nodes {
		if n.parent == 0 {
			name := vault.Source(n.name)
			if s.trees[name] != nil {
				return fmt.Errorf("loading the names: source %q has two roots, %016x and %016x", n.name, s.trees[name].root.id, n.id)
			}
			s.trees[name] = &tree{name: name, root: n}
			n.tree = s.trees[name]
		}
	}
	now := s.now()
	for _, n := range s.nodes {
		if err := s.adopt(n, now); err != nil {
			return fmt.Errorf("loading the names: %w", err)
		}
	}
	for _, t := range s.trees {
		slices.SortFunc(t.removed, func(a, b *node) int { return cmp.Compare(a.removedAt, b.removedAt) })
	}
	return s.reachable()
}

func (s *Server) loadReplies() error {
	var found []*replyEntry
	err := s.cfg.Sink.Meta(replyPrefix, func(kv vault.KV) error {
		e, err := decodeReply(kv)
		found = append(found, e)
		return err
	})
	if err == nil {
		s.replies.restore(found)
	}
	return err
}

// adopt puts a loaded node into its tree and, if it was written to after its
// record was stored, brings its size and times up to date.
func (s *Server) adopt(n *node, now int64) error {
	root := s.nodes[n.root]
	if root == nil || root.parent != 0 {
		return fmt.Errorf("node %016x: no root %016x", n.id, n.root)
	}
	n.tree = root.tree
	if n.kind == typeFile {
		if size := s.cfg.Sink.Size(n.stream, n.gen); size > n.size {
			n.size = size
			n.modify(now)
			n.written, n.dirty = max(n.written, now), true
		}
	}
	if n.removed {
		n.removedAt = n.ctime
		n.tree.removed = append(n.tree.removed, n)
		return nil
	}
	if n.parent == 0 {
		return nil
	}
	n.up = s.nodes[n.parent]
	if n.up == nil || n.up.kind != typeDir || n.up.root != n.root {
		return fmt.Errorf("node %016x: no directory %016x in its tree", n.id, n.parent)
	}
	if other := n.up.children[n.name]; other != nil {
		return fmt.Errorf("nodes %016x and %016x have one name in directory %016x", n.id, other.id, n.parent)
	}
	n.link()
	return nil
}

// reachable checks that no directory is below itself, so that every walk
// towards the root ends.
func (s *Server) reachable() error {
	for _, n := range s.nodes {
		d, steps := n.up, 0
		for ; d != nil && d.parent != 0; d = d.up {
			if steps++; steps > len(s.nodes) {
				return fmt.Errorf("loading the names: node %016x is below itself", n.id)
			}
		}
	}
	return nil
}

// saveBatch is the number of records stored at once by save: small enough for
// any Sink's unit of storage.
const saveBatch = 256

// save stores the sizes and times of the files written to, which are kept in
// memory only until a clean stop. After a crash, and a stop without room for them,
// load finds those that grew by their size.
func (s *Server) save(ctx context.Context) error {
	var kvs []vault.KV
	s.mu.RLock()
	for _, n := range s.nodes {
		n.tree.mu.Lock()
		if n.dirty {
			kvs = append(kvs, vault.KV{Key: metaKey(n.id), Value: n.encode()})
			n.dirty = false
		}
		n.tree.mu.Unlock()
	}
	s.mu.RUnlock()
	for batch := range slices.Chunk(kvs, saveBatch) {
		err := s.cfg.Sink.Record(ctx, vault.Changes{Set: batch})
		if errors.Is(err, vault.ErrFull) {
			s.cfg.Log.Warn("no room for the nfs file times: they are those of the next start", "files", len(kvs))
			return nil
		}
		if err != nil {
			return fmt.Errorf("storing the file times: %w", err)
		}
	}
	return nil
}
