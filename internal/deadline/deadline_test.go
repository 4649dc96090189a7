package deadline

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}()
	return l.Addr().String()
}

// TestSilentPeer reads from a peer that accepts and then says nothing.
func TestSilentPeer(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	c, err := Dial(context.Background(), "tcp", listen(t, func(net.Conn) { <-over }), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a silent peer: %v, expected a deadline", err)
	}
}

// TestUploadKeepsReaderAlive writes for four times the idle time while a read
// waits, as an HTTP client does during an upload: the read must not fail.
func TestUploadKeepsReaderAlive(t *testing.T) {
	const idle = 400 * time.Millisecond
	const pieces = 16
	addr := listen(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, pieces)); err == nil {
			c.Write([]byte("x")) // the reader judges
		}
	})
	c, err := Dial(context.Background(), "tcp", addr, idle)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(c, make([]byte, 1))
		got <- err
	}()
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	for range pieces {
		<-tick.C
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil {
		t.Fatalf("the waiting read: %v", err)
	}
}
