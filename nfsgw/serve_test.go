package nfsgw

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// getattrThenWrite are two calls in one piece, of which the second must wait.
func (w *workbench) getattrThenWrite(size int) []byte {
	e := encoder{}
	e.opaque(w.file.handle[:])
	getattr := fragment(true, record(progNFS, procGetattr, e.b))
	e.b = append(e.b, words(0, 0, uint32(size), unstable)...)
	e.opaque(make([]byte, size))
	return append(getattr, fragment(true, record(progNFS, procWrite, e.b))...)
}

// TestRepliesDoNotWait: the answer to a call leaves while the next one has to
// wait for its turn, or for room.
func TestRepliesDoNotWait(t *testing.T) {
	for name, hold := range map[string]func(*peer) (release func()){
		"as many calls as may run": func(p *peer) func() {
			for range peerCalls {
				p.slots <- struct{}{}
			}
			return func() { <-p.slots }
		},
		"bytes of the peer": func(p *peer) func() {
			n := int(p.budget.size) - bufferClasses[0]
			p.budget.take(n)
			return func() { p.budget.give(n) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkbench(t)
			nc, done := w.connect(t)
			if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			w.s.connMu.Lock()
			p := w.s.peers[w.c.peer]
			w.s.connMu.Unlock()
			release := hold(p)
			if _, err := nc.Write(w.getattrThenWrite(4 << 10)); err != nil {
				t.Fatal(err)
			}
			readOne := func(what string) {
				var mark [4]byte
				if _, err := io.ReadFull(nc, mark[:]); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(mark[:])&^lastFragment)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			readOne("GETATTR, which had its turn")
			release()
			readOne("WRITE, after its wait")
			nc.Close()
			<-done
		})
	}
}

// stopAtDeadline is a connection whose server stops while the deadline of a
// reply is set.
type stopAtDeadline struct {
	net.Conn
	stop     func()
	deadline time.Time
}

func (s *stopAtDeadline) SetReadDeadline(time.Time) error { return nil }
func (s *stopAtDeadline) SetWriteDeadline(at time.Time) error {
	if stop := s.stop; stop != nil {
		s.stop = nil
		stop()
	}
	s.deadline = at
	return nil
}
func (s *stopAtDeadline) Write(b []byte) (int, error) { return len(b), nil }

// TestStopDuringAReply: a peer that takes no reply holds up a stop for as long as
// is left then, also if the reply was on its way when the stop began.
func TestStopDuringAReply(t *testing.T) {
	w := newWorkbench(t)
	ctx, cancel := context.WithCancel(t.Context())
	nc := &stopAtDeadline{}
	c := w.s.newConn(ctx, nc, w.c.peer)
	nc.stop = func() {
		cancel()
		c.hangUp()
	}
	if err := c.writeOut([]byte("reply")); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(nc.deadline); left > w.s.timeouts.stop {
		t.Errorf("the peer has %v to take the reply, expected at most %v", left, w.s.timeouts.stop)
	}
}

// exhausted is a listener that has no descriptors a few times, and then nothing.
type exhausted struct {
	net.Listener
	fails  int
	once   sync.Once
	closed chan struct{}
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.fails--; e.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	<-e.closed
	return nil, net.ErrClosed
}

func (e *exhausted) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

// TestAcceptFailureIsSaidOnce: want of descriptors does not fill the log, nor end
// the server; the listener's own end does.
func TestAcceptFailureIsSaidOnce(t *testing.T) {
	w := newWorkbench(t)
	var text bytes.Buffer
	w.s.cfg.Log = slog.New(slog.NewTextHandler(&text, nil))
	at := time.Now()
	w.s.cfg.Now = func() time.Time { return at } // all three are within the seconds of one message
	l := &exhausted{fails: 3, closed: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- w.s.Serve(t.Context(), l) }()
	l.Close()
	if err := <-ended; err == nil || strings.Count(text.String(), "accept failed") != 1 {
		t.Errorf("Serve returned %v and logged:\n%s", err, text.String())
	}
}

// TestQuietLog: one message in ten seconds, also after the clock was set back.
func TestQuietLog(t *testing.T) {
	var q quietLog
	now := time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second, false}, {10 * time.Second, true}, {-time.Millisecond, false}, {-24 * time.Hour, true}, {time.Second, false}} {
		now = now.Add(step.after)
		if got := q.allow(now); got != step.want {
			t.Errorf("after %v more: %t, expected %t", step.after, got, step.want)
		}
	}
}
