package nfsgw

import "strings"

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
		if st = checkName(name); st == statusOK {
			dir.tree.names.Lock()
			st = s.removeFrom(c, dir, name, kind, &w)
			dir.tree.names.Unlock()
		}
		if !w.known {
			dir.snapshot(&w)
		}
	}
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
	now := s.tick()
	changes := []change{{node: dir, edit: modifyAt(now)}}
	drop := dir.tree.forgettable(now)
	if kind == typeDir {
		drop = append(drop, n)
	} else {
		gone, st := s.bury(c, n, now)
		if st != statusOK {
			dir.tree.unforget(drop)
			return st
		}
		changes = append(changes, gone)
	}
	err := dir.tree.commit(c.work(), s, changes, drop, w)
	if err != nil {
		if kind == typeDir {
			drop = drop[:len(drop)-1]
		}
		dir.tree.unforget(drop)
	}
	return s.passing(c, err)
}

// unforget puts removed files back that could not be forgotten.
func (t *tree) unforget(nodes []*node) {
	t.mu.Lock()
	t.removed = append(nodes[:len(nodes):len(nodes)], t.removed...)
	t.mu.Unlock()
}

// bury ends a file's generation and returns the change that takes its name
// away and keeps its id. A crash before the change is stored leaves a named
// file with an ended generation; the client, unanswered, removes it again.
func (s *Server) bury(c *call, n *node, now int64) (change, status) {
	n.gate.Lock()
	err := s.cfg.Sink.EndGeneration(c.work(), n.stream, n.generation())
	n.gate.Unlock()
	if err != nil {
		return change{}, s.passing(c, err)
	}
	return change{node: n, edit: func(m *meta) {
		m.removed = true
		m.touch(now)
	}}, statusOK
}

func (s *Server) rename(c *call) bool {
	fromHandle, fromName := c.args.dirName()
	toHandle, toName := c.args.dirName()
	if c.args.bad {
		return false
	}
	var fw, tw wcc
	from, st := s.directory(c, fromHandle)
	if st == statusOK {
		var to *node
		if to, st = s.directory(c, toHandle); st == statusOK {
			fw.node, tw.node = from, to
			st = s.renameChecked(c, from, fromName, to, toName, &fw, &tw)
			if !fw.known {
				from.snapshot(&fw)
				to.snapshot(&tw)
			}
		}
	}
	c.reply.status(st)
	c.reply.wcc(&fw)
	c.reply.wcc(&tw)
	return true
}

func (s *Server) renameChecked(c *call, from *node, fromName string, to *node, toName string, fw, tw *wcc) status {
	if st := max(checkName(fromName), checkName(toName)); st != statusOK {
		return st
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
// held. The stream's name in the archive follows, except to a silly name. Of
// the files below a renamed directory the archive keeps the old paths.
func (s *Server) move(c *call, n, target, from, to *node, name string, fw, tw *wcc) status {
	if n.kind == typeFile && !strings.HasPrefix(name, silly) {
		path := to.path(name)
		if len(path) > maxStreamName {
			return statusNameTooLong
		}
		if err := s.cfg.Sink.RenameStream(c.work(), n.stream, path); err != nil {
			return s.passing(c, err)
		}
	}
	now := s.tick()
	var changes []change
	var drop []*node
	switch {
	case target == nil:
	case target.kind == typeDir:
		drop = append(drop, target)
	default:
		gone, st := s.bury(c, target, now)
		if st != statusOK {
			return st
		}
		changes = append(changes, gone)
	}
	changes = append(changes,
		change{node: n, up: to, edit: func(m *meta) {
			m.name, m.parent = name, to.id
			m.touch(now)
		}},
		change{node: from, edit: modifyAt(now)})
	if to != from {
		changes = append(changes, change{node: to, edit: modifyAt(now)})
	}
	return s.passing(c, n.tree.commit(c.work(), s, changes, drop, fw, tw))
}
