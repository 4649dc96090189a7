package nfsgw

import (
	"bytes"
	"cmp"
	"strings"

	"logvault/vault"
)

// maxStreamName bounds a file's path below its root, as the archive keeps it.
const maxStreamName = 4096

// dirName reads a diropargs3: a directory's handle and a name in it.
func (d *decoder) dirName() (h []byte, name string) {
	h = d.opaque(maxHandle)
	return h, string(d.opaque(maxPath))
}

// checkName refuses what cannot be the name of a new or changed entry. Any
// other bytes are a name. What "." and ".." give depends on the procedure (RFC
// 1813): they exist, are directories, or cannot be renamed.
func checkName(name string, dot, dotDot status) status {
	switch {
	case name == ".":
		return dot
	case name == "..":
		return dotDot
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return statusInval
	case len(name) > maxName:
		return statusNameTooLong
	}
	return statusOK
}

func (s *Server) lookup(c *call) bool {
	h, name := c.args.dirName()
	if c.args.bad {
		return false
	}
	var n *node
	dir, st := s.directory(c, h)
	if st == statusOK {
		if n = dir.lookup(name); n == nil {
			st = statusNoEnt
			if len(name) > maxName {
				st = statusNameTooLong
			}
		}
	}
	c.reply.status(st)
	if st == statusOK {
		c.reply.opaque(n.handle[:])
		c.reply.postOpOf(n)
	}
	c.reply.postOpOf(dir)
	return true
}

type createArgs struct {
	handle   []byte
	name     string
	how      uint32
	attrs    setAttr
	verifier []byte
}

func (d *decoder) create() (a createArgs) {
	a.handle, a.name = d.dirName()
	switch a.how = d.u32(); a.how {
	case createUnchecked, createGuarded:
		a.attrs = d.setAttr()
	case createExclusive:
		a.verifier = d.fixed(8)
	default:
		d.bad = true
	}
	return a
}

// create makes a file, or opens one. Opening never truncates by itself: a
// client with an outdated cache sends UNCHECKED for a file that another has
// filled. Only an explicit size of zero does, as in SETATTR.
func (s *Server) create(c *call) bool {
	arg := c.args.create()
	if c.args.bad {
		return false
	}
	return s.makeEntry(c, arg.handle, arg.name, func(dir *node, w *wcc) (*node, status) {
		old := dir.lookup(arg.name)
		if old == nil {
			return s.newFile(c, dir, &arg, w)
		}
		switch {
		case old.kind != typeFile || arg.how == createGuarded:
			return nil, statusExist
		case arg.how == createExclusive && !(old.exclusive && bytes.Equal(old.verifier[:], arg.verifier)):
			return nil, statusExist
		}
		return old, statusOK
	}, func(n *node) status {
		if arg.how != createUnchecked || !arg.attrs.setSize || arg.attrs.size != 0 || n.attrs().size == 0 {
			return statusOK
		}
		var w wcc
		w.node = n
		return s.applyAttrs(c, n, &setAttr{setSize: true}, nil, &w)
	})
}

// makeEntry runs a procedure that makes something in a directory: build under
// the lock of the names, then after, if given, without it.
func (s *Server) makeEntry(c *call, h []byte, name string, build func(*node, *wcc) (*node, status), after func(*node) status) bool {
	var n *node
	var w wcc
	dir, st := s.directory(c, h)
	if st == statusOK {
		w.node = dir
		if st = checkName(name, statusExist, statusExist); st == statusOK {
			dir.tree.names.Lock()
			if st = statusStale; !s.gone(dir) { // removed while the call waited
				if n, st = build(dir, &w); st == statusOK {
					c.made = n.id
				}
			}
			dir.tree.names.Unlock()
		}
		if st == statusOK && after != nil {
			st = after(n)
		}
	}
	dir.snapshot(&w)
	c.reply.status(st)
	if st == statusOK {
		s.replyMade(c, c.made)
	}
	c.reply.wcc(&w)
	return true
}

// gone reports whether a node was removed for good; names is held.
func (s *Server) gone(n *node) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[n.id] != n
}

// newFile makes a file with a new stream; names is held.
func (s *Server) newFile(c *call, dir *node, arg *createArgs, w *wcc) (*node, status) {
	path := dir.path(arg.name)
	if len(path) > maxStreamName {
		return nil, statusNameTooLong
	}
	stream, err := vault.NewStreamID(s.cfg.Random)
	if err != nil {
		return nil, s.passing(c, err)
	}
	m := s.newMeta(c, dir, typeFile, 0o644, arg.name, &arg.attrs)
	m.stream, m.written = stream, s.now()
	if arg.how == createExclusive {
		m.exclusive = true
		copy(m.verifier[:], arg.verifier)
	}
	if arg.attrs.setSize && arg.attrs.size <= maxOffset {
		m.size = int64(arg.attrs.size)
	}
	return s.addNode(c, dir, m, []vault.StreamInfo{{ID: stream, Source: dir.tree.name, Name: path}}, w)
}

// newMeta is the state of a new node that the caller owns.
func (s *Server) newMeta(c *call, dir *node, kind, mode uint32, name string, sa *setAttr) meta {
	m := meta{kind: kind, root: dir.root, parent: dir.id, mode: mode, uid: c.cred.uid, gid: c.cred.gid, name: name}
	now := s.now()
	m.atime, m.mtime, m.ctime = now, now, now-1 // edit adds 1
	sa.edit(now)(&m)
	return m
}

// addNode makes a node durable and visible, with its directory's new time.
func (s *Server) addNode(c *call, dir *node, m meta, add []vault.StreamInfo, w *wcc) (*node, status) {
	if dir.tree.room() == 0 {
		if s.namesLog.allow(s.cfg.Now()) {
			s.cfg.Log.Error("nfs source has too many files: no more are made", "source", dir.tree.name, "files", maxFiles)
		}
		return nil, statusNoSpc
	}
	n, err := s.newNode(dir.tree, m)
	if err != nil {
		return nil, s.passing(c, err)
	}
	s.remember(n) // before it is visible by name: a handle must resolve
	c.made = n.id
	err = c.enact(dir.tree, &edits{
		nodes:   []change{{node: n, edit: func(*meta) {}, up: dir}, {node: dir, edit: modifyAt(m.ctime)}},
		streams: vault.Changes{Add: add},
	}, w)
	if err != nil {
		s.forget([]*node{n})
	}
	return n, s.passing(c, err)
}

func modifyAt(now int64) func(*meta) { return func(m *meta) { m.modify(now) } }

func (s *Server) mkdir(c *call) bool {
	h, name := c.args.dirName()
	sa := c.args.setAttr()
	if c.args.bad {
		return false
	}
	return s.makeEntry(c, h, name, func(dir *node, w *wcc) (*node, status) {
		if dir.lookup(name) != nil {
			return nil, statusExist
		}
		return s.addNode(c, dir, s.newMeta(c, dir, typeDir, 0o755, name, &sa), nil, w)
	}, nil)
}

// symlink, mknod and link are refused with PERM, for which every client has a
// word; NOTSUPP shows as "Unknown error 524".
func (s *Server) symlink(c *call) bool {
	h, _ := c.args.dirName()
	c.args.setAttr()
	c.args.opaque(maxRecord)
	return s.refuseIn(c, h)
}

func (s *Server) mknod(c *call) bool {
	h, _ := c.args.dirName() // what follows depends on the kind; nothing of it matters
	return s.refuseIn(c, h)
}

func (s *Server) refuseIn(c *call, h []byte) bool {
	if c.args.bad {
		return false
	}
	var w wcc
	dir, st := s.directory(c, h)
	if st == statusOK {
		st = statusPerm
	}
	dir.snapshot(&w)
	c.reply.status(st)
	c.reply.wcc(&w)
	return true
}

func (s *Server) link(c *call) bool {
	h := c.args.opaque(maxHandle)
	dirHandle, _ := c.args.dirName()
	if c.args.bad {
		return false
	}
	var w wcc
	n, st := s.resolve(c, h)
	dir, dirStatus := s.directory(c, dirHandle)
	if st == statusOK {
		st = cmp.Or(dirStatus, statusPerm)
	}
	dir.snapshot(&w)
	c.reply.status(st)
	c.reply.postOpOf(n)
	c.reply.wcc(&w)
	return true
}
