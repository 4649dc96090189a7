package nfsgw_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

// rawFrom is raw from a loopback address of its own.
func (g *gateway) rawFrom(ip string) net.Conn {
	g.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	nc, err := d.DialContext(context.Background(), "tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { nc.Close() })
	return nc
}

// conversation is a few calls, and what they are answered: a GETATTR, a WRITE
// of 100 bytes in two fragments, a COMMIT.
func conversation(fh nfstest.Handle) (calls []byte) {
	call := func(xid, proc uint32, args *nfstest.Encoder) []byte {
		b := append(rawCall(xid, 2, nfstest.NFS, 3, proc, 0, 0, 0, 0), args.Bytes()...)
		binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
		return b
	}
	h := func() *nfstest.Encoder { return new(nfstest.Encoder).Opaque(fh) }
	write := call(2, 7, h().U64(0).U32(100, 0).Opaque(bytes.Repeat([]byte("x"), 100)))
	calls = append(calls, call(1, 1, h())...)
	calls = binary.BigEndian.AppendUint32(calls, 50)
	calls = append(calls, write[4:54]...)
	calls = binary.BigEndian.AppendUint32(calls, uint32(len(write)-54)|1<<31)
	calls = append(calls, write[54:]...)
	return append(calls, call(3, 21, h().U32(0, 0, 0))...)
}

// wantConversation reads the three replies, in any order.
func wantConversation(t *testing.T, nc net.Conn, what string) {
	t.Helper()
	for range 3 {
		r := readReply(t, nc)
		if !bytes.Equal(r[20:28], make([]byte, 8)) {
			t.Fatalf("%s: reply %x", what, r)
		}
	}
}

// TestSplitAtEveryByte sends the same calls in two TCP segments, cut at each
// byte, and byte by byte.
func TestSplitAtEveryByte(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	calls := conversation(fh)
	nc := g.raw() // without delay: each Write is a segment
	for cut := 1; cut < len(calls); cut++ {
		for _, part := range [][]byte{calls[:cut], calls[cut:]} {
			if _, err := nc.Write(part); err != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
		wantConversation(t, nc, fmt.Sprintf("cut at %d", cut))
	}
	for i := range calls {
		if _, err := nc.Write(calls[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	wantConversation(t, nc, "byte by byte")
	if st := g.srv.Stats(); st.Garbage+st.Malformed != 0 {
		t.Errorf("counted %d garbage, %d malformed", st.Garbage, st.Malformed)
	}
}

// TestTimeouts: who says nothing, who does not end a record, also by sending a
// byte now and then, and who takes no replies, is hung up on.
func TestTimeouts(t *testing.T) {
	const short, long = 50 * time.Millisecond, time.Minute
	begin := func(t *testing.T, idle, record, reply time.Duration) (*gateway, nfstest.Handle) {
		sink := newMemSink()
		before := start(t, testConfig(sink)) // which has the time to make a file
		c, root := before.mount()
		fh := must[nfstest.Handle](t)(c.Create(root, "f"))
		if err := before.close(); err != nil {
			t.Fatal(err)
		}
		srv, err := nfsgw.New(testConfig(sink))
		if err != nil {
			t.Fatal(err)
		}
		nfsgw.SetTimeouts(srv, idle, record, reply)
		return serveOn(t, srv, "127.0.0.1:0"), fh
	}
	t.Run("idle", func(t *testing.T) {
		g, fh := begin(t, short, long, long)
		closed(t, g.raw())
		answered := int64(0)
		until(t, "calls that are there in time", func() bool {
			nc := g.raw()
			_, err := nc.Write(conversation(fh))
			if err == nil {
				answered, err = io.Copy(io.Discard, nc) // to the end
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("not closed after the last answer")
			}
			return answered > 0
		})
	})
	t.Run("half a record", func(t *testing.T) {
		g, fh := begin(t, long, short, long)
		nc := g.raw()
		if _, err := nc.Write(conversation(fh)[:60]); err != nil {
			t.Fatal(err)
		}
		closed(t, nc)
	})
	t.Run("crumbs", func(t *testing.T) {
		g, _ := begin(t, long, 4*short, long)
		nc := g.raw()
		if _, err := nc.Write([]byte{0x80, 0x10, 0, 0}); err != nil { // a megabyte to come
			t.Fatal(err)
		}
		for begin := time.Now(); ; {
			if _, err := nc.Write([]byte{0}); err != nil {
				break
			}
			if time.Since(begin) > patience {
				t.Fatal("a record is fed in crumbs for ever")
			}
			time.Sleep(short / 5) // what a peer does that keeps below every time-out per byte
		}
		until(t, "its memory given back", func() bool { return nfsgw.Held(g.srv) == 0 })
	})
	t.Run("no reply taken", func(t *testing.T) {
		g, fh := begin(t, long, long, short)
		nc := g.raw()
		calls := conversation(fh)
		for err := error(nil); err == nil; {
			_, err = nc.Write(calls) // fills both directions, then it is closed
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("not closed")
			}
		}
		until(t, "its memory given back", func() bool { return g.srv.Stats().Conns == 0 && nfsgw.Held(g.srv) == 0 })
	})
}

// TestOnePeerLeavesRoomForOthers: a listed peer that opens all the connections
// it can and stalls in the middle of a large record on each holds up nobody else.
func TestOnePeerLeavesRoomForOthers(t *testing.T) {
	cfg := testConfig(newMemSink())
	cfg.InFlight = 16 << 20
	g := start(t, cfg)
	for i := range nfsgw.PeerConns {
		nc := g.rawFrom("127.0.0.2")
		if _, err := nc.Write([]byte{0x00, 0x10, 0, 0, 'x'}); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	until(t, "all taken that they get", func() bool {
		return g.srv.Stats().Conns == nfsgw.PeerConns && nfsgw.Held(g.srv) >= 5*nfsgw.MaxRecord
	})
	closed(t, g.rawFrom("127.0.0.2"))
	if st := g.srv.Stats(); st.Refused != 1 {
		t.Errorf("%d connections refused, expected one above the limit", st.Refused)
	}
	c := g.from("127.0.0.3")(nfstest.Options{})
	root := must[nfstest.Handle](t)(c.Mount("/"))
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	f := c.Open(fh)
	for range 32 {
		if err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if held := nfsgw.Held(g.srv); held > 7<<20 {
		t.Errorf("the stalled peer holds %d of 16 MiB", held)
	}
}

// TestConnectionsLeakNothing opens and drops 1,000 connections in every state:
// silent, in the middle of a mark, a record or a fragment, with calls under way
// and replies unread, closed and half closed. No goroutine, no descriptor, no
// memory stays.
func TestConnectionsLeakNothing(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	calls := conversation(fh)
	settle := func(goroutinesWere int) (goroutines, files int, heap uint64) {
		t.Helper()
		last := g.dial(nfstest.Options{}) // accepted after all others
		if err := errors.Join(last.Null(), last.Close()); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for g.srv.Stats().Conns > 1 || nfsgw.Held(g.srv) != 0 || runtime.NumGoroutine() > goroutinesWere {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections, %d bytes held, %d goroutines; expected 1, 0, %d",
					g.srv.Stats().Conns, nfsgw.Held(g.srv), runtime.NumGoroutine(), goroutinesWere)
			}
			runtime.Gosched()
		}
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(fds), m.HeapAlloc
	}
	round := func() {
		for i := range 1000 {
			nc, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Write(calls[:i*len(calls)/1000]); err != nil {
				t.Fatal(err)
			}
			switch i % 4 {
			case 0: // with a reset, which drops the replies
				if err := nc.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
			case 1: // half closed: the server answers what it has, and ends
				if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, nc); err != nil {
					t.Fatalf("connection %d, half closed: %v", i, err)
				}
			}
			nc.Close()
		}
	}
	before := runtime.NumGoroutine()
	round()
	goroutines, files, heap := settle(before)
	round()
	goroutines2, files2, heap2 := settle(before)
	if files2 > files || heap2 > heap+1<<20 {
		t.Errorf("after 1,000 connections more: %d descriptors (were %d), %d bytes of heap (%d)", files2, files, heap2, heap)
	}
	t.Logf("goroutines %d, %d; descriptors %d, %d; heap %d, %d", goroutines, goroutines2, files, files2, heap, heap2)
}

// TestMappedAddresses: an IPv4 client of a listener for both is the source that
// lists its IPv4 address, in either notation, and no other is.
func TestMappedAddresses(t *testing.T) {
	cfg := testConfig(newMemSink())
	cfg.Sources = []nfsgw.Source{
		{Name: "plain", Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}},
		{Name: "mapped", Clients: []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.3/128")}},
		{Name: "six", Clients: []netip.Prefix{netip.MustParsePrefix("::1/128")}},
	}
	srv, err := nfsgw.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]string{"127.0.0.2": "/plain", "127.0.0.3": "/mapped", "127.0.0.4": "", "::1": "/six"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
	} else {
		t.Logf("no client over IPv6 on this machine: %v", err)
		delete(clients, "::1")
	}
	g := serveOn(t, srv, "[::]:0")
	_, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		t.Fatal(err)
	}
	for ip, want := range clients {
		to := "127.0.0.1"
		if ip == "::1" {
			to = "::1"
		}
		g.addr = net.JoinHostPort(to, port)
		c := g.from(ip)(nfstest.Options{})
		if want == "" {
			_, err := c.Mount("/")
			wantStatus(t, "mount from "+ip, err, nfstest.Acces)
			continue
		}
		list, err := c.Exports()
		if err != nil || len(list) != 2 || list[1] != want {
			t.Errorf("from %s: exports %q, %v; expected / and %s", ip, list, err, want)
		}
	}
}
