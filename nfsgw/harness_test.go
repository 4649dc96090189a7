package nfsgw_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

// gateway is a server on a loopback port.
type gateway struct {
	t    testing.TB
	srv  *nfsgw.Server
	addr string
	stop context.CancelFunc
	err  chan error
	once sync.Once
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func testConfig(sink nfsgw.Sink) nfsgw.Config {
	return nfsgw.Config{
		Sink: sink, Key: [32]byte{1, 2, 3}, Random: rand.Reader, Now: time.Now,
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sources: []nfsgw.Source{{Name: "proxy", Clients: []netip.Prefix{loopback}, AllowRead: true}},
	}
}

// patience is how long a test waits for what must happen before it calls that a
// failure: nothing is measured by it.
const patience = time.Minute

// until waits for a state that comes without an event.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); runtime.Gosched() {
		if time.Since(begin) > patience {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// start runs a gateway until the test ends or close is called.
func start(t testing.TB, cfg nfsgw.Config) *gateway {
	t.Helper()
	return startAt(t, cfg, "127.0.0.1:0")
}

func startAt(t testing.TB, cfg nfsgw.Config, addr string) *gateway {
	t.Helper()
	srv, err := nfsgw.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	nfsgw.SetFullDelay(srv, time.Millisecond)
	return serveOn(t, srv, addr)
}

// serveOn runs a server until the test ends or close is called.
func serveOn(t testing.TB, srv *nfsgw.Server, addr string) *gateway {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	for begin := time.Now(); errors.Is(err, syscall.EADDRINUSE) && time.Since(begin) < patience; {
		time.Sleep(time.Millisecond) // somebody's connection has got the port of a server that starts again
		l, err = net.Listen("tcp", addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &gateway{t: t, srv: srv, addr: l.Addr().String(), stop: stop, err: make(chan error, 1)}
	go func() { g.err <- srv.Serve(ctx, l) }()
	t.Cleanup(func() { g.close() })
	return g
}

// close stops the gateway and returns Serve's error.
func (g *gateway) close() (err error) {
	g.once.Do(func() {
		g.stop()
		err = <-g.err
	})
	return err
}

func (g *gateway) dial(o nfstest.Options) *nfstest.Client {
	g.t.Helper()
	o.Addr = g.addr
	c, err := nfstest.Dial(context.Background(), o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// mount dials and mounts "/".
func (g *gateway) mount() (*nfstest.Client, nfstest.Handle) {
	g.t.Helper()
	c := g.dial(nfstest.Options{})
	root, err := c.Mount("/")
	if err != nil {
		g.t.Fatal(err)
	}
	return c, root
}
