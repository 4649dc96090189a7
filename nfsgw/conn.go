package nfsgw

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

const (
	readBuffer    = 32 << 10
	replyBacklog  = 256 << 10 // unsent reply bytes before calls wait for the peer
	keepOutBuffer = 64 << 10
)

// timeouts of a connection.
type timeouts struct {
	idle   time.Duration // between records; the Linux client hangs up after 5 minutes
	record time.Duration // from the first byte of a record to its last: a peer must not hold its memory longer
	reply  time.Duration // for the peer to take what it was answered
	stop   time.Duration // the same when the server stops
}

var defaultTimeouts = timeouts{idle: 15 * time.Minute, record: 2 * time.Minute, reply: time.Minute, stop: 2 * time.Second}

// conn is one client connection. One goroutine, the reader, reads records and
// runs quick calls; the others run on goroutines of their own, as many as its
// peer may have. Whoever has a reply appends it to out, and one of them at
// a time writes out what has gathered: replies that become ready together
// (after one sync of the Sink) leave in one write.
type conn struct {
	server *Server
	nc     net.Conn
	peer   netip.Addr
	share  *peer           // what all connections of the peer share; set by join
	ctx    context.Context // done when the server stops
	r      *bufio.Reader
	due    time.Time // when the record must be there, while the reader is within one
	calls  sync.WaitGroup

	mu      sync.Mutex
	drained sync.Cond // flushing ended, or out was taken
	out     []byte    // whole replies, unsent
	spare   []byte    // the other half of the double buffer
	writing bool      // somebody is writing
	broken  bool      // the peer is gone; replies are dropped
}

func (s *Server) newConn(ctx context.Context, nc net.Conn, peer netip.Addr) *conn {
	c := &conn{server: s, nc: nc, peer: peer, ctx: ctx}
	c.drained.L = &c.mu
	c.r = bufio.NewReaderSize(socket{c}, readBuffer)
	return c
}

// socket is the reading side. Before a read that may block, the gathered
// replies are sent, and the time-out is set. (Before the reader waits for
// anything else they are sent too, see take and readCalls.)
type socket struct{ c *conn }

// Read implements io.Reader.
func (k socket) Read(p []byte) (int, error) {
	k.c.flush()
	due := k.c.due
	if due.IsZero() {
		due = time.Now().Add(k.c.server.timeouts.idle)
	}
	if err := k.c.nc.SetReadDeadline(due); err != nil {
		return 0, err
	}
	if k.c.ctx.Err() != nil { // after the deadline is set: hangUp sets a past one
		return 0, net.ErrClosed
	}
	return k.c.nc.Read(p)
}

// take and give make the connection the meter of its records.
func (c *conn) take(n int) {
	for _, b := range [...]*budget{c.share.budget, c.server.budget} {
		if !b.tryTake(n) {
			c.flush() // replies do not wait for room
			b.take(n)
		}
	}
	c.due = time.Now().Add(c.server.timeouts.record)
}

func (c *conn) give(n int) {
	c.server.budget.give(n)
	c.share.budget.give(n)
}

// serve runs the connection to its end. All its calls have ended on return.
func (c *conn) serve() {
	err := c.readCalls()
	if errors.Is(err, errRecord) { // counted before the peer can see the end
		s := c.server
		s.stats.malformed.Add(1)
		if s.recordLog.allow(s.cfg.Now()) {
			s.cfg.Log.Warn("nfs connection closed", "error", err, "malformed", s.stats.malformed.Load())
		}
	}
	c.calls.Wait()
	c.flush()
	c.abort()
}

func (c *conn) readCalls() error {
	for {
		c.due = time.Time{}
		record, err := readRecord(c.r, &c.server.buffers, c)
		if err != nil {
			return err
		}
		cl := newCall(c, record)
		p, ok := cl.parse()
		switch {
		case !ok:
			c.server.stats.garbage.Add(1)
			if cl.dead { // not a call: out of step
				cl.release()
				return io.ErrUnexpectedEOF
			}
			c.send(cl)
			cl.release()
		case p.quick:
			c.run(cl, p)
		default:
			select {
			case c.share.slots <- struct{}{}:
			default:
				c.flush() // replies do not wait for a slot
				c.share.slots <- struct{}{}
			}
			c.calls.Go(func() {
				defer func() { <-c.share.slots }()
				if p.large {
					c.share.reads <- struct{}{}
					defer func() { <-c.share.reads }()
				}
				c.run(cl, p)
				c.flush()
			})
		}
	}
}

// run performs a call and sends its reply. A fault in a call closes its
// connection and is counted; it is the last resort, not a way to report errors.
func (c *conn) run(cl *call, p *procedure) {
	s := c.server
	defer func() {
		if v := recover(); v != nil {
			s.stats.panics.Add(1)
			s.cfg.Log.Error("nfs call failed", "program", cl.program, "procedure", cl.proc, "fault", v, "stack", string(debug.Stack()))
			c.abort()
		}
		cl.release()
	}()
	s.stats.calls.Add(1)
	s.perform(cl, p)
	if !cl.dead {
		c.send(cl)
	}
}

// send gathers a reply for the next write.
func (c *conn) send(cl *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > replyBacklog && !c.broken {
		if !c.writing {
			c.write()
			continue
		}
		c.drained.Wait()
	}
	if !c.broken {
		c.out = append(c.out, cl.seal()...)
	}
}

// flush writes the gathered replies, unless somebody is at it already, who
// then writes these too.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writing {
		c.write()
	}
}

// write sends out until it is empty; mu is held on entry and return, but not
// while writing. After an error the connection is closed and replies are dropped:
// the client asks again on its next one.
func (c *conn) write() {
	c.writing = true
	for len(c.out) > 0 && !c.broken {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.drained.Broadcast()
		c.mu.Unlock()
		err := c.writeOut(b)
		c.mu.Lock()
		if cap(b) <= keepOutBuffer {
			c.spare = b
		}
		if err != nil {
			c.broken, c.out = true, nil
			c.abort()
		}
	}
	c.writing = false
	c.drained.Broadcast()
}

func (c *conn) writeOut(b []byte) error {
	select {
	case <-c.server.failed:
		return c.server.failure // nothing is answered any more
	default:
	}
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.server.timeouts.reply)); err != nil {
		return err
	}
	if c.ctx.Err() != nil { // after the deadline is set: hangUp sets a nearer one
		if err := c.nc.SetWriteDeadline(time.Now().Add(c.server.timeouts.stop)); err != nil {
			return err
		}
	}
	_, err := c.nc.Write(b)
	return err
}

// abort closes the connection under its users, who then see an error. Closing
// twice is harmless, and there is nobody to tell of an error.
func (c *conn) abort() { _ = c.nc.Close() }

// hangUp makes the reader stop; calls that run are finished, and answered if
// the peer takes the answers in time.
func (c *conn) hangUp() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // an error here means that it is closed
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.server.timeouts.stop))
}
