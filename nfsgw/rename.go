package nfsgw

import (
	"bytes"
	"cmp"
	"strings"

	"logvault/vault"
)

// silly is the prefix that the Linux client gives to a file that is removed
// while it is open: a name for the client's own use, not one to archive.
const silly = ".nfs"

func (s *Server) remove(c *call) bool { return s.removeEntry(c, typeFile) }
func (s *Server) rmdir(c *call) bool  { return s.removeEntry(c, typeDir) }

func (s *Server) removeEntry(c *call, kind uint32) bool {
	h, name := c.args.dirName()
	if c.args.bad {
		return false
	}
	var w wcc
	dir, st := s.directory(c, h)
	if st == statusOK {
		w.node = dir
		dot, dotDot := statusIsDir, statusIsDir
		if kind == typeDir {
			dot, dotDot = statusInval, statusExist
		}
		if st = checkName(name, dot, dotDot); st == statusOK {
			dir.tree.names.Lock()
			st = s.removeFrom(c, dir, name, kind, &w)
			dir.tree.names.Unlock()
		}
	}
	dir.snapshot(&w)
	c.reply.status(st)
	c.reply.wcc(&w)
	return true
}

// removeFrom takes a name away; names is held.
func (s *Server) removeFrom(c *call, dir *node, name string, kind uint32, w *wcc) status {
	n := dir.lookup(name)
	switch {
	case n == nil:
		return statusNoEnt
	case n.kind != kind && kind == typeFile:
		return statusIsDir
	case n.kind != kind:
		return statusNotDir
	case len(n.children) > 0:
		return statusNotEmpty
	}
	now := s.now()
	e := &edits{nodes: []change{{node: dir, edit: modifyAt(now)}}, drop: s.forgettable(dir.tree, now, dropPerRemove)}
	late := len(e.drop)
	if kind == typeDir {
		e.drop = append(e.drop, n)
	} else {
		defer e.bury(n, now)()
	}
	err := c.enact(dir.tree, e, w)
	if err != nil {
		dir.tree.unforget(e.drop[:late])
	}
	return s.passing(c, err)
}

// unforget puts removed files back that could not be forgotten.
func (t *tree) unforget(nodes []*node) {
	t.mu.Lock()
	t.removed = append(nodes[:len(nodes):len(nodes)], t.removed...)
	t.mu.Unlock()
}

// bury adds the end of a file's generation, and that its name goes and its id
// stays. No WRITE runs until the returned function is called.
func (e *edits) bury(n *node, now int64) (done func()) {
	n.gate.Lock()
	e.streams.End = append(e.streams.End, vault.Generation{Stream: n.stream, Gen: n.gen})
	e.nodes = append(e.nodes, change{node: n, edit: func(m *meta) {
		m.removed = true
		m.touch(now)
	}})
	return n.gate.Unlock
}

func (s *Server) rename(c *call) bool {
	fromHandle, fromName := c.args.dirName()
	toHandle, toName := c.args.dirName()
	if c.args.bad {
		return false
	}
	var fw, tw wcc
	from, st := s.directory(c, fromHandle)
	to, toStatus := s.directory(c, toHandle)
	fw.node, tw.node = from, to
	if st = cmp.Or(st, toStatus); st == statusOK {
		st = s.renameChecked(c, from, fromName, to, toName, &fw, &tw)
	}
	from.snapshot(&fw)
	to.snapshot(&tw)
	c.reply.status(st)
	c.reply.wcc(&fw)
	c.reply.wcc(&tw)
	return true
}

func (s *Server) renameChecked(c *call, from *node, fromName string, to *node, toName string, fw, tw *wcc) status {
	for _, name := range []string{fromName, toName} {
		if st := checkName(name, statusInval, statusInval); st != statusOK {
			return st
		}
	}
	if from.tree != to.tree {
		return statusXDev
	}
	from.tree.names.Lock()
	defer from.tree.names.Unlock()
	n, target := from.lookup(fromName), to.lookup(toName)
	switch {
	case n == nil:
		return statusNoEnt
	case s.gone(to):
		return statusStale
	case n == target:
		return statusOK
	case n.kind == typeDir && n.contains(to):
		return statusInval
	}
	if target != nil {
		switch {
		case n.kind == typeDir && target.kind != typeDir:
			return statusNotDir
		case n.kind != typeDir && target.kind == typeDir:
			return statusIsDir
		case len(target.children) > 0:
			return statusNotEmpty
		}
	}
	return s.move(c, n, target, from, to, toName, fw, tw)
}

// contains reports whether d is n or below it; names is held.
func (n *node) contains(d *node) bool {
	for ; d != nil; d = d.up {
		if d == n {
			return true
		}
	}
	return false
}

// move gives n its new name, and takes it from target if that is set; names is
// held. The names in the archive follow, that of n and those of all files below.
func (s *Server) move(c *call, n, target, from, to *node, name string, fw, tw *wcc) status {
	moved, st := archived(n, to, name)
	if st != statusOK {
		return st
	}
	// What does not fit into one record goes ahead. A crash in between leaves files
	// with the new name in the archive and the old one here; the client asks again.
	for len(moved) > renameBatch {
		if err := s.cfg.Sink.Record(c.work(), vault.Changes{Rename: moved[:renameBatch]}); err != nil {
			return s.passing(c, err)
		}
		moved = moved[renameBatch:]
	}
	now := s.now()
	e := &edits{streams: vault.Changes{Rename: moved}}
	switch {
	case target == nil:
	case target.kind == typeDir:
		e.drop = append(e.drop, target)
	default:
		defer e.bury(target, now)()
	}
	e.nodes = append(e.nodes,
		change{node: n, up: to, edit: func(m *meta) {
			m.name, m.parent = name, to.id
			m.touch(now)
		}},
		change{node: from, edit: modifyAt(now)})
	if to != from {
		e.nodes = append(e.nodes, change{node: to, edit: modifyAt(now)})
	}
	return s.passing(c, c.enact(n.tree, e, fw, tw))
}

// renameBatch is the number of names in one record: at most 128 of 4 KiB.
const renameBatch = 128

// archived returns the names in the archive of n and of all files below it when
// n is called name in directory to; names is held. Of a file that gets a silly
// name the old one stays.
func archived(n, to *node, name string) (all []vault.StreamInfo, st status) {
	var walk func(n *node, path []byte) status
	walk = func(n *node, path []byte) status {
		switch {
		case n.kind == typeFile && strings.HasPrefix(string(path[bytes.LastIndexByte(path, '/')+1:]), silly):
			return statusOK
		case len(path) > maxStreamName:
			return statusNameTooLong
		case n.kind == typeFile:
			all = append(all, vault.StreamInfo{ID: n.stream, Name: path})
			return statusOK
		}
		for _, child := range n.order {
			if st := walk(child, append(append(bytes.Clone(path), '/'), child.name...)); st != statusOK {
				return st
			}
		}
		return statusOK
	}
	st = walk(n, to.path(name))
	return all, st
}
