package deadline

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// listen serves one connection on loopback until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for { // until l is closed
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// dial connects with a short idle time, a longer one if this machine takes longer
// to connect.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	for idle := 20 * time.Millisecond; ; idle *= 2 {
		c, err := Dial(context.Background(), "tcp", addr, idle)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if slow, ok := errors.AsType[net.Error](err); !ok || !slow.Timeout() || idle > time.Minute {
			t.Fatal(err)
		}
	}
}

// TestSilentPeer reads from a peer that accepts and then says nothing.
func TestSilentPeer(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	c := dial(t, listen(t, func(net.Conn) { <-over }))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a silent peer: %v, expected a deadline", err)
	}
}

// TestDeafPeer writes to a peer that reads nothing.
func TestDeafPeer(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	c := dial(t, listen(t, func(net.Conn) { <-over }))
	var err error
	for sent := 0; err == nil && sent < 1<<30; sent += 1 << 20 { // past the kernel's buffers
		_, err = c.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a deaf peer: %v, expected a deadline", err)
	}
}

// TestDialAndTalk: a connection that was dialled carries both ways.
func TestDialAndTalk(t *testing.T) {
	c, err := Dial(context.Background(), "tcp", listen(t, func(c net.Conn) { io.Copy(c, c) }), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestIdle moves one byte every idle/2, one way at a time, for many times the
// idle time, while a read waits, as an HTTP client does during an upload. What
// waits must not fail, until nothing moved for exactly idle. The clock is that of
// the bubble.
func TestIdle(t *testing.T) {
	const idle = time.Minute
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := Wrap(ours, idle)
		defer c.Close()
		defer theirs.Close()
		got := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(c, make([]byte, 2))
			got <- err
		}()
		go io.Copy(io.Discard, theirs) // ends with the pipe
		for range 16 {
			time.Sleep(idle / 2)
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatalf("an upload: %v", err)
			}
		}
		time.Sleep(idle - time.Nanosecond)
		if _, err := theirs.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		last := time.Now()
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the waiting read: %v, expected a deadline", err)
		}
		if waited := time.Since(last); waited != idle {
			t.Errorf("the read failed %v after the last byte, expected %v", waited, idle)
		}
	})
}
