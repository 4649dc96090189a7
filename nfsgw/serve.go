package nfsgw

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Serve accepts connections from l until ctx is done, then finishes the calls
// that run, stores the file times and returns nil. If the Sink fails for good
// it closes everything, answers nothing and returns the Sink's error. It
// closes l. It owns all goroutines it starts; they have ended on return. A
// Server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		select {
		case <-ctx.Done():
			_ = l.Close() // wakes Accept, which reports
			s.eachConn((*conn).hangUp)
		case <-s.failed:
			cancel() // first: a connection that comes now sees it, or is among those below
			_ = l.Close()
			s.eachConn((*conn).abort)
		}
	})
	group.Go(func() { s.tidyLoop(ctx) })
	err := s.accept(ctx, l, &group)
	cancel()
	group.Wait()
	select {
	case <-s.failed:
		return fmt.Errorf("nfs: intake failed: %w", s.failure)
	default:
	}
	if err != nil {
		return err
	}
	return s.save(context.WithoutCancel(ctx))
}

func (s *Server) eachConn(f func(*conn)) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	for c := range s.conns {
		f(c)
	}
}

func (s *Server) accept(ctx context.Context, l net.Listener, group *sync.WaitGroup) error {
	strangers := make(chan struct{}, maxStrangers)
	for {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = nc.Close() // never used
			}
			return nil
		}
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() || isExhausted(err) {
				if s.acceptLog.allow(s.cfg.Now()) {
					s.cfg.Log.Error("nfs accept failed", "error", err)
				}
				s.pause(ctx, acceptPause)
				continue
			}
			return fmt.Errorf("nfs: accepting connections: %w", err)
		}
		s.admit(ctx, nc, group, strangers)
	}
}

// acceptPause is the wait after the process ran out of descriptors.
const acceptPause = 100 * time.Millisecond

// admit starts a connection, or refuses it.
func (s *Server) admit(ctx context.Context, nc net.Conn, group *sync.WaitGroup, strangers chan struct{}) {
	addr, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	peer := addr.Addr().Unmap().WithZone("")
	if err != nil || s.homeOf(peer) == nil || s.cfg.Secure && addr.Port() >= 1024 {
		s.refuse(nc, "peer not listed or port not privileged", group, strangers)
		return
	}
	c := s.newConn(ctx, nc, peer)
	if !s.join(c) {
		s.refuse(nc, "too many connections", nil, nil)
		return
	}
	if s.homeOf(peer) == nil { // SetSources came between
		c.abort()
	}
	group.Go(func() {
		c.serve()
		s.leave(c)
	})
}

const (
	maxStrangers    = 16
	strangerTimeout = 5 * time.Second
	strangerRecord  = 1024
)

// refuse counts a connection and closes it. Up to maxStrangers are first told
// that they may not mount: without that answer mount(8) hangs for minutes.
func (s *Server) refuse(nc net.Conn, why string, group *sync.WaitGroup, strangers chan struct{}) {
	s.stats.refused.Add(1)
	if s.refuseLog.allow(s.cfg.Now()) {
		s.cfg.Log.Warn("nfs connection refused", "why", why, "refused", s.stats.refused.Load())
	}
	select {
	case strangers <- struct{}{}:
		group.Go(func() {
			s.turnAway(nc)
			_ = nc.Close() // nothing was promised to it
			<-strangers
		})
	default:
		_ = nc.Close()
	}
}

// turnAway answers NULL and MNT to a peer that may not use the server, with
// no memory but its own, and returns at anything else.
func (s *Server) turnAway(nc net.Conn) {
	if nc.SetDeadline(time.Now().Add(strangerTimeout)) != nil {
		return
	}
	var space [strangerRecord]byte
	for range 4 { // mount(8) sends two or three calls
		if _, err := io.ReadFull(nc, space[:4]); err != nil {
			return
		}
		mark := binary.BigEndian.Uint32(space[:])
		n := mark &^ lastFragment
		if mark&lastFragment == 0 || n > strangerRecord {
			return
		}
		if _, err := io.ReadFull(nc, space[:n]); err != nil {
			return
		}
		c := call{args: decoder{b: space[:n]}}
		p, ok := c.parse()
		if c.dead || !ok || c.proc != procNull && !(c.program == progMount && c.proc == mountMnt) {
			return
		}
		if c.proc == mountMnt && p != nil && c.program == progMount {
			s.stats.denied.Add(1)
			c.reply.status(statusAcces)
		}
		if _, err := nc.Write(c.seal()); err != nil {
			return
		}
	}
}

// pause waits for d or until the server stops.
func (s *Server) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.failed:
	}
}
