package nfsgw

import (
	"slices"
)

// Cookies of READDIR: 1 is ".", 2 is "..", any other the id of the entry.
// Entries come in the order of their ids, so that a cookie stays good
// whatever is made and removed in between, even its own entry. The cookie
// verifier is constant.
const (
	cookieDot    = 1
	cookieDotDot = 2
)

type readdirArgs struct {
	handle   []byte
	cookie   uint64
	dircount uint32 // of READDIRPLUS: bytes of names
	maxcount uint32 // bytes of the result
}

func (d *decoder) readdir(plus bool) (a readdirArgs) {
	a.handle = d.opaque(maxHandle)
	a.cookie = d.u64()
	d.fixed(8) // verifier
	a.dircount = maxReaddir
	if plus {
		a.dircount = d.u32()
	}
	a.maxcount = d.u32()
	return a
}

func (s *Server) readdir(c *call) bool     { return s.list(c, false) }
func (s *Server) readdirplus(c *call) bool { return s.list(c, true) }

func (s *Server) list(c *call, plus bool) bool {
	arg := c.args.readdir(plus)
	if c.args.bad {
		return false
	}
	dir, st := s.directory(c, arg.handle)
	if st != statusOK {
		c.reply.status(st)
		c.reply.postOpOf(dir)
		return true
	}
	t := dir.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	start := len(c.reply.b)
	a := dir.attr()
	c.reply.status(statusOK)
	c.reply.postOp(&a)
	c.reply.u64(0) // cookie verifier
	l := listing{
		e: &c.reply, plus: plus,
		end:   start + int(min(arg.maxcount, maxReaddir)) - 8, // less the end mark and eof
		names: int(min(arg.dircount, maxReaddir)),
	}
	eof := l.entries(dir, arg.cookie)
	if l.count == 0 && !eof {
		c.reply.b = c.reply.b[:start]
		c.reply.status(statusTooSmall)
		c.reply.postOp(&a)
		return true
	}
	c.reply.flag(false)
	c.reply.flag(eof)
	return true
}

// listing fills a reply with entries.
type listing struct {
	e     *encoder
	plus  bool
	end   int // the reply must not be longer
	names int // bytes left for ids, names and cookies
	count int
}

// entries adds those after the cookie and reports whether that was all.
func (l *listing) entries(dir *node, cookie uint64) bool {
	if cookie < cookieDot && !l.add(dir, ".", cookieDot) {
		return false
	}
	if cookie < cookieDotDot && !l.add(dir.parentNode(), "..", cookieDotDot) {
		return false
	}
	i, found := slices.BinarySearchFunc(dir.order, cookie, byID)
	if found {
		i++
	}
	for _, n := range dir.order[i:] {
		if !l.add(n, n.name, n.id) {
			return false
		}
	}
	return true
}

// add appends an entry if there is room for it.
func (l *listing) add(n *node, name string, cookie uint64) bool {
	size := 4 + 8 + 4 + len(name) + padding(len(name)) + 8
	names := l.names - size
	if l.plus {
		size += 4 + 84 + 4 + 4 + handleSize
	}
	if len(l.e.b)+size > l.end || names < 0 && l.count > 0 {
		return false
	}
	l.names = names
	l.count++
	l.e.flag(true)
	l.e.u64(n.id)
	l.e.string(name)
	l.e.u64(cookie)
	if l.plus {
		a := n.attr()
		l.e.postOp(&a)
		l.e.flag(true)
		l.e.opaque(n.handle[:])
	}
	return true
}
