package nfsgw

import (
	"context"
	"errors"

	"logvault/vault"
)

// Each procedure decodes its arguments, returns false if that fails, and
// otherwise appends its whole result, of success or failure, to the reply.

// passing turns an error of the Sink into a status. Want of room is "try
// again", which perform delays. Any other error stops the server, and the call
// gets no answer.
func (s *Server) passing(c *call, err error) status {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, vault.ErrFull):
		c.full = true
		return statusJukebox
	}
	s.fail(err)
	c.dead = true
	return statusServerFault
}

// work is the context for the Sink: a stopping server finishes its calls.
func (c *call) work() context.Context { return context.WithoutCancel(c.conn.ctx) }

func (s *Server) getattr(c *call) bool {
	h := c.args.opaque(maxHandle)
	if c.args.bad {
		return false
	}
	n, st := s.resolve(c, h)
	c.reply.status(st)
	if st == statusOK {
		a := n.attrs()
		c.reply.attr(&a)
	}
	return true
}

// access tells what the modes allow. Reading a file is allowed only if its
// source is: an open for reading fails at once then, rather than a later
// append that wants to read its page.
func (s *Server) access(c *call) bool {
	h, want := c.args.opaque(maxHandle), c.args.u32()
	if c.args.bad {
		return false
	}
	n, st := s.resolve(c, h)
	c.reply.status(st)
	c.reply.postOpOf(n)
	if st == statusOK {
		a := n.attrs()
		c.reply.u32(want & s.allowed(c, n, &a))
	}
	return true
}

func (s *Server) allowed(c *call, n *node, a *attr) uint32 {
	bits := a.mode & 7
	switch {
	case c.cred.uid == 0:
		bits = 6 | a.mode | a.mode>>3 | a.mode>>6 // root runs what anybody may
	case c.cred.uid == a.uid:
		bits = a.mode >> 6
	case c.cred.inGroup(a.gid):
		bits = a.mode >> 3
	}
	if a.kind == typeDir && c.cred.uid == 0 {
		bits = 7
	}
	var ok uint32
	if src := n.tree.source.Load(); bits&4 != 0 && (a.kind == typeDir || src != nil && src.AllowRead) {
		ok |= accessRead
	}
	if bits&2 != 0 {
		ok |= accessModify | accessExtend
		if a.kind == typeDir {
			ok |= accessDelete
		}
	}
	if bits&1 != 0 {
		if a.kind == typeDir {
			ok |= accessLookup
		} else {
			ok |= accessExecute
		}
	}
	return ok
}

func (s *Server) setattr(c *call) bool {
	h, sa := c.args.opaque(maxHandle), c.args.setAttr()
	var guard *int64
	if c.args.flag() {
		guard = new(c.args.time())
	}
	if c.args.bad {
		return false
	}
	var w wcc
	n, st := s.resolve(c, h)
	if st == statusOK {
		w.node = n
		st = s.applyAttrs(c, n, &sa, guard, &w)
	}
	n.snapshot(&w)
	c.reply.status(st)
	c.reply.wcc(&w)
	return true
}

// snapshot fills a wcc that no change has filled: nothing was changed. Of a
// node that there is not, nothing is known.
func (n *node) snapshot(w *wcc) {
	if n == nil || w.known {
		return
	}
	w.post = n.attrs()
	w.known, w.pre = true, w.post.before()
}

// applyAttrs sets attributes durably, if the change time is still that of guard.
// Truncation to zero ends the generation in the same record in which the file
// goes on with the next: a client that sends it again never ends two.
func (s *Server) applyAttrs(c *call, n *node, sa *setAttr, guard *int64, w *wcc) status {
	n.tree.names.Lock()
	defer n.tree.names.Unlock()
	if sa.setSize {
		n.gate.Lock()
		defer n.gate.Unlock()
	}
	a := n.attrs()
	switch {
	case s.gone(n): // its record must not come back
		return statusStale
	case guard != nil && *guard != a.ctime:
		return statusNotSync
	case !sa.setSize:
	case n.kind == typeDir:
		return statusInval
	case sa.size > maxOffset:
		return statusFBig
	case sa.size != 0 && sa.size < a.size:
		return statusAcces
	}
	edit := sa.edit(s.now())
	e := &edits{nodes: []change{{node: n, edit: edit}}}
	if sa.setSize && sa.size != a.size {
		if sa.size == 0 {
			e.streams.End = []vault.Generation{{Stream: n.stream, Gen: n.gen}}
		}
		e.nodes[0].edit = func(m *meta) {
			m.size = int64(sa.size)
			if sa.size == 0 {
				m.gen++
			}
			edit(m)
			if sa.setMtime == timeKeep {
				m.mtime = m.ctime
			}
		}
	}
	return s.passing(c, c.enact(n.tree, e, w))
}

// edit returns the change of everything but the size.
func (sa *setAttr) edit(now int64) func(*meta) {
	return func(m *meta) {
		m.touch(now)
		if sa.setMode {
			m.mode = sa.mode & 0o7777
		}
		if sa.setUID {
			m.uid = sa.uid
		}
		if sa.setGID {
			m.gid = sa.gid
		}
		m.atime = sa.setAtime.pick(m.atime, m.ctime, sa.atime)
		m.mtime = sa.setMtime.pick(m.mtime, m.ctime, sa.mtime)
	}
}

func (h timeHow) pick(keep, server, client int64) int64 {
	switch h {
	case timeServer:
		return server
	case timeClient:
		return client
	}
	return keep
}

func (s *Server) readlink(c *call) bool {
	h := c.args.opaque(maxHandle)
	if c.args.bad {
		return false
	}
	n, st := s.resolve(c, h)
	if st == statusOK {
		st = statusInval // there are no links
	}
	c.reply.status(st)
	c.reply.postOpOf(n)
	return true
}

func (s *Server) fsstat(c *call) bool {
	return s.aboutRoot(c, func(e *encoder, n *node) {
		total, free := s.cfg.Sink.Space()
		e.u64(uint64(max(total, 0)))
		e.u64(uint64(max(free, 0)))
		e.u64(uint64(max(free, 0)))
		e.u64(maxFiles)
		e.u64(n.tree.room())
		e.u64(n.tree.room())
		e.u32(0) // may change at any time
	})
}

func (s *Server) fsinfo(c *call) bool {
	return s.aboutRoot(c, func(e *encoder, _ *node) {
		e.u32(maxRead)
		e.u32(maxRead)
		e.u32(4096)
		e.u32(maxWrite)
		e.u32(maxWrite)
		e.u32(4096)
		e.u32(maxReaddir)
		e.u64(maxOffset)
		e.u32(0) // times are kept to 1 ns
		e.u32(1)
		e.u32(0x08 | 0x10) // PATHCONF is the same everywhere, times can be set; no links
	})
}

func (s *Server) pathconf(c *call) bool {
	return s.aboutRoot(c, func(e *encoder, _ *node) {
		e.u32(1) // links of a file
		e.u32(maxName)
		e.flag(true)  // longer names are refused, not cut
		e.flag(true)  // chown is root's
		e.flag(false) // names are bytes
		e.flag(true)
	})
}

// aboutRoot answers a question that takes a handle and has the attributes
// before the answer proper.
func (s *Server) aboutRoot(c *call, answer func(*encoder, *node)) bool {
	h := c.args.opaque(maxHandle)
	if c.args.bad {
		return false
	}
	n, st := s.resolve(c, h)
	c.reply.status(st)
	c.reply.postOpOf(n)
	if st == statusOK {
		answer(&c.reply, n)
	}
	return true
}
