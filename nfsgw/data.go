package nfsgw

import (
	"errors"
	"io"
)

// maxOffset is the highest end of a file: the ledger's numbers end there.
const maxOffset = 1<<53 - 1

type writeArgs struct {
	handle []byte
	offset uint64
	how    uint32
	data   []byte
}

func (d *decoder) write() (w writeArgs) {
	w.handle = d.opaque(maxHandle)
	w.offset = d.u64()
	count := d.u32()
	w.how = d.u32()
	w.data = d.opaque(maxRecord)
	if count > uint32(len(w.data)) || w.how > fileSync {
		d.bad = true
		return writeArgs{}
	}
	w.data = w.data[:count]
	return w
}

// write stores a WRITE: first the Sink, then the attributes, so that no size
// is ever shown whose bytes are not taken.
func (s *Server) write(c *call) bool {
	arg := c.args.write()
	if c.args.bad {
		return false
	}
	var w wcc
	n, st := s.file(c, arg.handle)
	switch {
	case st != statusOK:
	case arg.offset > maxOffset-uint64(len(arg.data)):
		st = statusFBig
	default:
		st = s.store(c, n, &arg, &w)
	}
	n.snapshot(&w)
	c.reply.status(st)
	c.reply.wcc(&w)
	if st != statusOK {
		return true
	}
	s.stats.writes.Add(1)
	s.stats.bytes.Add(int64(len(arg.data)))
	c.reply.u32(uint32(len(arg.data)))
	if arg.how == unstable {
		c.reply.u32(unstable)
	} else {
		c.reply.u32(fileSync)
	}
	c.reply.b = append(c.reply.b, s.verifier[:]...)
	return true
}

func (s *Server) store(c *call, n *node, arg *writeArgs, w *wcc) status {
	if len(arg.data) == 0 {
		return statusOK
	}
	n.gate.RLock()
	if n.dead {
		n.gate.RUnlock()
		return statusStale
	}
	gen := n.generation()
	err := s.cfg.Sink.Write(c.work(), n.stream, gen, int64(arg.offset), arg.data, c.conn.peer, arg.how != unstable)
	if err == nil {
		n.wrote(int64(arg.offset)+int64(len(arg.data)), s.now(), w)
	}
	n.gate.RUnlock()
	return s.passing(c, err)
}

func (n *node) generation() int64 {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	return n.gen
}

// wrote accounts for stored bytes up to end.
func (n *node) wrote(end, now int64, w *wcc) {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	a := n.attr()
	w.known, w.pre = true, a.before()
	n.size = max(n.size, end)
	n.modify(now)
	n.written, n.dirty = max(n.written, now), true
	w.post = n.attr()
}

func (s *Server) commit(c *call) bool {
	h := c.args.opaque(maxHandle)
	c.args.u64() // offset and count: a commit is always of the whole file
	c.args.u32()
	if c.args.bad {
		return false
	}
	var w wcc
	n, st := s.file(c, h)
	if st == statusOK {
		n.gate.RLock()
		if st = statusStale; !n.dead {
			st = s.passing(c, s.cfg.Sink.Commit(c.work(), n.stream))
		}
		n.gate.RUnlock()
	}
	n.snapshot(&w)
	c.reply.status(st)
	c.reply.wcc(&w)
	if st == statusOK {
		s.stats.commits.Add(1)
		c.reply.b = append(c.reply.b, s.verifier[:]...)
	}
	return true
}

// read gives back bytes that are still in the spool, to a source that may
// read. What has left it is as unreadable as what may not be read: a copy
// fails, and logrotate then does not truncate.
func (s *Server) read(c *call) bool {
	h, offset, count := c.args.opaque(maxHandle), c.args.u64(), c.args.u32()
	if c.args.bad {
		return false
	}
	n, st := s.file(c, h)
	if st != statusOK {
		c.reply.status(st)
		c.reply.postOpOf(n)
		return true
	}
	a, gen := n.attrs(), n.generation()
	src := n.tree.source.Load()
	if src == nil || !src.AllowRead {
		c.reply.status(statusAcces)
		c.reply.postOp(&a)
		return true
	}
	want := min(count, maxRead)
	if offset >= a.size {
		want = 0
	} else {
		want = uint32(min(uint64(want), a.size-offset))
	}
	return s.readInto(c, n, gen, offset, want, &a)
}

// readInto appends the reply with want bytes, which are within the file.
func (s *Server) readInto(c *call, n *node, gen int64, offset uint64, want uint32, a *attr) bool {
	start := len(c.reply.b)
	c.reply.status(statusOK)
	c.reply.postOp(a)
	head := len(c.reply.b)
	c.reply.u32(0) // count, eof and length are filled in below
	c.reply.u32(0)
	c.reply.u32(0)
	data := len(c.reply.b)
	c.reply.b = append(c.reply.b, make([]byte, want)...)
	got := 0
	if want > 0 {
		var err error
		got, err = s.cfg.Sink.ReadAt(c.work(), n.stream, gen, c.reply.b[data:], int64(offset))
		if err != nil && !errors.Is(err, io.EOF) {
			c.reply.b = c.reply.b[:start]
			c.reply.status(statusAcces)
			c.reply.postOp(a)
			return true
		}
		if got == 0 { // a hole, or the size was raised: zeros, as on any disk
			clear(c.reply.b[data:])
			got = int(want)
		}
	}
	fields := encoder{c.reply.b[head:head]}
	fields.u32(uint32(got))
	fields.flag(offset+uint64(got) >= a.size)
	fields.u32(uint32(got))
	c.reply.b = c.reply.b[:data+got]
	c.reply.pad(got)
	return true
}
