// Package deadline makes network connections that cannot hang for ever: one on
// which nothing moved for a given time, in either direction, fails. A protocol
// that may be silent for long sends keep-alives of its own.
//
// Without it a peer that was switched off while it owed an answer would hold a
// cron job until the kernel gives up, after some fifteen minutes, or for ever
// if the machine answers and the server does not.
package deadline

import (
	"context"
	"net"
	"time"
)

// Dial connects within idle and returns a connection that fails with
// os.ErrDeadlineExceeded once nothing was read or written for idle.
func Dial(ctx context.Context, network, addr string, idle time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: idle}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return Wrap(c, idle), nil
}

// Wrap gives a connection the property of those that Dial makes.
func Wrap(c net.Conn, idle time.Duration) net.Conn { return &conn{Conn: c, idle: idle} }

type conn struct {
	net.Conn
	idle time.Duration
}

// Read moves both deadlines before and after: a long answer counts as life for
// a writer that waits, as a long upload does for a reader.
func (c *conn) Read(p []byte) (int, error) { return c.moving(c.Conn.Read, p) }

// Write does likewise.
func (c *conn) Write(p []byte) (int, error) { return c.moving(c.Conn.Write, p) }

func (c *conn) moving(f func([]byte) (int, error), p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	n, err := f(p)
	if n > 0 && err == nil {
		err = c.SetDeadline(time.Now().Add(c.idle))
	}
	return n, err
}
