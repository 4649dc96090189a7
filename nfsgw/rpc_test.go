package nfsgw_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

// raw is a connection below the test client.
func (g *gateway) raw() net.Conn {
	g.t.Helper()
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { nc.Close() })
	return nc
}

// rawCall is a call header; the words after proc are flavour and length of
// credential and verifier, and the arguments.
func rawCall(xid, rpcvers, prog, vers, proc uint32, rest ...uint32) []byte {
	e := new(nfstest.Encoder).U32(0, xid, 0, rpcvers, prog, vers, proc).U32(rest...)
	b := e.Bytes()
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
	return b
}

func readReply(t *testing.T, nc net.Conn) []byte {
	t.Helper()
	var mark [4]byte
	if _, err := io.ReadFull(nc, mark[:]); err != nil {
		t.Fatalf("reading a reply: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
	if _, err := io.ReadFull(nc, b); err != nil {
		t.Fatalf("reading a reply: %v", err)
	}
	return b
}

func closed(t *testing.T, nc net.Conn) {
	t.Helper()
	if n, err := nc.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Error("the connection is still open")
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the connection was not closed")
	}
}

func TestRPCErrors(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	nc := g.raw()
	const nfs, mount = nfstest.NFS, nfstest.Mount
	none := []uint32{0, 0, 0, 0}
	with := func(rest ...uint32) []uint32 { return append(none[:4:4], rest...) }
	accepted := func(rest ...uint32) []uint32 { return append([]uint32{1, 0, 0, 0}, rest...) }
	for _, tc := range []struct {
		name string
		call []byte
		want []uint32 // of the reply, after the xid
	}{
		{"NULL", rawCall(1, 2, nfs, 3, 0, none...), accepted(0)},
		{"MOUNT NULL", rawCall(1, 2, mount, 3, 0, none...), accepted(0)},
		{"RPC version 3", rawCall(1, 3, nfs, 3, 0, none...), []uint32{1, 1, 0, 2, 2}},
		{"unknown program", rawCall(1, 2, 100227, 3, 0, none...), accepted(1)},
		{"NFS version 4", rawCall(1, 2, nfs, 4, 1, none...), accepted(2, 3, 3)},
		{"NFS version 2", rawCall(1, 2, nfs, 2, 1, none...), accepted(2, 3, 3)},
		{"MOUNT version 1", rawCall(1, 2, mount, 1, 1, none...), accepted(2, 3, 3)},
		{"NFS procedure 22", rawCall(1, 2, nfs, 3, 22, none...), accepted(3)},
		{"MOUNT procedure 6", rawCall(1, 2, mount, 3, 6, none...), accepted(3)},
		{"no arguments", rawCall(1, 2, nfs, 3, 1, none...), accepted(4)},
		{"handle longer than the record", rawCall(1, 2, nfs, 3, 1, with(64)...), accepted(4)},
		{"handle of 2 GiB", rawCall(1, 2, nfs, 3, 1, with(1<<31)...), accepted(4)},
		{"WRITE with a count above its data", rawCall(1, 2, nfs, 3, 7, with(0, 0, 0, 5, 0, 4, 0)...), accepted(4)},
		{"WRITE with an unknown stability", rawCall(1, 2, nfs, 3, 7, with(0, 0, 0, 4, 3, 4, 0)...), accepted(4)},
		{"RPCSEC_GSS", rawCall(1, 2, nfs, 3, 0, 6, 0, 0, 0), []uint32{1, 1, 1, 1}},
		{"AUTH_SYS cut short", rawCall(1, 2, nfs, 3, 0, 1, 4, 0, 0, 0), []uint32{1, 1, 1, 1}},
		{"AUTH_SYS with 17 groups", rawCall(1, 2, nfs, 3, 0, append(append([]uint32{1, 88, 0, 0, 0, 0, 17}, make([]uint32, 17)...), 0, 0)...), []uint32{1, 1, 1, 1}},
		{"a verifier", rawCall(1, 2, nfs, 3, 0, 0, 0, 1, 0), []uint32{1, 1, 1, 3}},
		{"credential longer than the record", rawCall(1, 2, nfs, 3, 0, 0, 400, 0, 0), accepted(4)},
		{"empty handle", rawCall(1, 2, nfs, 3, 1, with(0)...), accepted(0, 10001)},
		{"FSSTAT of a bad handle", rawCall(1, 2, nfs, 3, 18, with(0)...), accepted(0, 10001, 0)},
	} {
		if _, err := nc.Write(tc.call); err != nil {
			t.Fatal(err)
		}
		want := new(nfstest.Encoder).U32(1).U32(tc.want...).Bytes()
		if got := readReply(t, nc); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", tc.name, got, want)
		}
	}
}

func TestBadRecordsCloseTheConnection(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	for name, b := range map[string][]byte{
		"2 GiB":       {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1},
		"empty":       {0x80, 0, 0, 0},
		"a reply":     {0x80, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0},
		"three bytes": {0x80, 0, 0, 3, 1, 2, 3},
	} {
		nc := g.raw()
		if _, err := nc.Write(b); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { closed(t, nc) })
	}
	if st := g.srv.Stats(); st.Malformed != 2 || st.Garbage != 2 {
		t.Errorf("counted %d malformed, %d garbage, expected 2 and 2", st.Malformed, st.Garbage)
	}
}

// TestPipelinedInPieces sends 3,000 GETATTRs in one stream that is cut into
// fragments and TCP segments at random places. All are answered OK.
func TestPipelinedInPieces(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	_, root := g.mount()
	rng := rand.New(rand.NewPCG(5, 6))
	nc := g.raw()
	const n = 3000
	go func() {
		var b []byte
		for xid := range uint32(n) {
			call := rawCall(xid, 2, nfstest.NFS, 3, 1, 0, 0, 0, 0)
			call = new(nfstest.Encoder).Raw(call[4:]).Opaque(root).Bytes()
			for cut := 1 + rng.IntN(2*len(call)); cut < len(call); cut = 1 + rng.IntN(2*len(call)) {
				b = binary.BigEndian.AppendUint32(b, uint32(cut))
				b = append(b, call[:cut]...)
				call = call[cut:]
			}
			b = binary.BigEndian.AppendUint32(b, uint32(len(call))|1<<31)
			b = append(b, call...)
		}
		for len(b) > 0 {
			k := min(1+rng.IntN(5000), len(b))
			if _, err := nc.Write(b[:k]); err != nil {
				t.Error(err)
				return
			}
			b = b[k:]
		}
	}()
	seen := make(map[uint32]bool)
	for range n {
		r := readReply(t, nc)
		if len(r) != 24+4+84 || !bytes.Equal(r[20:28], make([]byte, 8)) {
			t.Fatalf("reply %x", r)
		}
		seen[binary.BigEndian.Uint32(r)] = true
	}
	if len(seen) != n {
		t.Errorf("%d different xids answered, expected %d", len(seen), n)
	}
}

// TestRepeatedCalls: a call sent again, as after a lost connection, has the
// answer of the first time; a new call with the same xid has its own.
func TestRepeatedCalls(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	must[nfstest.Handle](t)(c.Create(root, "f"))
	call := func(proc uint32, e *nfstest.Encoder) []byte {
		nc := g.raw()
		b := append(rawCall(7, 2, nfstest.NFS, 3, proc, 0, 0, 0, 0), e.Bytes()...)
		binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
		if _, err := nc.Write(b); err != nil {
			t.Fatal(err)
		}
		return readReply(t, nc)
	}
	dirName := func(name string) *nfstest.Encoder {
		return new(nfstest.Encoder).Opaque(root).Opaque([]byte(name))
	}
	status := func(r []byte) uint32 { return binary.BigEndian.Uint32(r[24:]) }
	rename := func(from, to string) *nfstest.Encoder {
		return dirName(from).Opaque(root).Opaque([]byte(to))
	}
	for _, tc := range []struct {
		name string
		proc uint32
		args func() *nfstest.Encoder
	}{
		{"RENAME", 14, func() *nfstest.Encoder { return rename("f", "g") }},
		{"REMOVE", 12, func() *nfstest.Encoder { return dirName("g") }},
		{"MKDIR", 9, func() *nfstest.Encoder { return dirName("d").U32(0, 0, 0, 0, 0, 0) }},
		{"RMDIR", 13, func() *nfstest.Encoder { return dirName("d") }},
		{"CREATE", 8, func() *nfstest.Encoder { return dirName("h").U32(1, 0, 0, 0, 0, 0, 0) }},
	} {
		first, second := call(tc.proc, tc.args()), call(tc.proc, tc.args())
		if status(first) != 0 || status(second) != 0 || len(first) != len(second) {
			t.Errorf("%s: first %x, repeated %x", tc.name, first, second)
		}
		if tc.proc == 8 || tc.proc == 9 {
			if !bytes.Equal(first[24:24+4+4+4+32], second[24:24+4+4+4+32]) {
				t.Errorf("%s: another handle when repeated", tc.name)
			}
		}
	}
	if r := call(14, rename("h", "i")); status(r) != 0 {
		t.Errorf("another call with the same xid: status %d", status(r))
	}
	if n := g.srv.Stats().Duplicates; n != 5 {
		t.Errorf("%d duplicates counted, expected 5", n)
	}
}

// from dials from a loopback address of its own.
func (g *gateway) from(ip string) func(nfstest.Options) *nfstest.Client {
	return func(o nfstest.Options) *nfstest.Client {
		g.t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		o.Dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", g.addr) }
		return g.dial(o)
	}
}

func twoSources(sink nfsgw.Sink) nfsgw.Config {
	cfg := testConfig(sink)
	cfg.Sources = []nfsgw.Source{
		{Name: "wide", Clients: []netip.Prefix{netip.MustParsePrefix("127.0.1.0/24")}},
		{Name: "a", Clients: []netip.Prefix{netip.MustParsePrefix("127.0.1.1/32")}, AllowRead: true},
		{Name: "b", Clients: []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.1.2/128")}, AllowRead: true},
	}
	return cfg
}

// TestSourcesAreApart: a source can do nothing with another's files, whatever
// handle it has.
func TestSourcesAreApart(t *testing.T) {
	g := start(t, twoSources(newMemSink()))
	ca, cb := g.from("127.0.1.1")(nfstest.Options{}), g.from("127.0.1.2")(nfstest.Options{})
	h := must[nfstest.Handle](t)
	ra, rb := h(ca.Mount("/")), h(cb.Mount("/"))
	if string(ra) == string(rb) {
		t.Fatal("two sources have one root")
	}
	if named := h(ca.Mount("/a")); string(named) != string(ra) {
		t.Error("/a is not the root of the source a")
	}
	if wide := h(ca.Mount("/wide")); string(wide) == string(ra) {
		t.Error("/wide is the root of the source a")
	}
	_, err := ca.Mount("/b")
	wantStatus(t, "mount of another source", err, nfstest.Acces)
	_, err = ca.Mount("/nothing")
	wantStatus(t, "mount of no source", err, nfstest.NoEnt)

	fa, fb := h(ca.Create(ra, "access.log")), h(cb.Create(rb, "access.log"))
	if string(fa) == string(fb) {
		t.Fatal("two sources share a file")
	}
	for what, do := range map[string]func() error{
		"GETATTR":             func() error { _, err := cb.Getattr(fa); return err },
		"SETATTR":             func() error { return cb.Truncate(fa, 0) },
		"LOOKUP":              func() error { _, _, err := cb.Lookup(ra, "access.log"); return err },
		"ACCESS":              func() error { _, err := cb.Access(fa, 0x3f); return err },
		"READ":                func() error { _, _, err := cb.Read(fa, 0, 10); return err },
		"WRITE":               func() error { _, err := cb.Write(fa, 0, []byte("x"), nfstest.FileSync); return err },
		"COMMIT":              func() error { _, err := cb.Commit(fa); return err },
		"CREATE":              func() error { _, err := cb.Create(ra, "x"); return err },
		"MKDIR":               func() error { _, _, err := cb.Mkdir(ra, "x"); return err },
		"REMOVE":              func() error { _, err := cb.Remove(ra, "access.log"); return err },
		"RMDIR":               func() error { _, err := cb.Rmdir(ra, "access.log"); return err },
		"RENAME":              func() error { _, _, err := cb.Rename(ra, "access.log", ra, "x"); return err },
		"RENAME from its own": func() error { _, _, err := cb.Rename(rb, "access.log", ra, "x"); return err },
		"RENAME to its own":   func() error { _, _, err := cb.Rename(ra, "access.log", rb, "x"); return err },
		"READDIR":             func() error { _, err := cb.ReadDir(ra); return err },
		"FSINFO":              func() error { _, err := cb.Fsinfo(ra); return err },
		"FSSTAT":              func() error { _, _, err := cb.Fsstat(ra); return err },
	} {
		wantStatus(t, what+" with another's handle", do(), nfstest.Acces)
	}
	if n := g.srv.Stats().Foreign; n != 18 { // one RENAME has two
		t.Errorf("%d foreign handles counted, expected 18", n)
	}
	// One client that is two sources cannot move files between them.
	wide := h(ca.Mount("/wide"))
	_, _, err = ca.Rename(ra, "access.log", wide, "x")
	wantStatus(t, "RENAME between sources", err, nfstest.XDev)
	if got, err := ca.Exports(); err != nil || len(got) != 3 {
		t.Errorf("exports %q, %v: expected /, /wide and /a", got, err)
	}
}

// TestForgedHandles: no bit of a handle can be changed.
func TestForgedHandles(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	for bit := range 8 * len(root) {
		h := bytes.Clone(root)
		h[bit/8] ^= 1 << (bit % 8)
		if _, err := c.Getattr(h); err == nil {
			t.Errorf("bit %d changed: accepted", bit)
		}
	}
	for _, n := range []int{0, 31, 33, 64} {
		_, err := c.Getattr(make([]byte, n))
		wantStatus(t, "handle of a wrong length", err, nfstest.BadHandle)
	}
	if n := g.srv.Stats().Forged; n != 256+4 {
		t.Errorf("%d forged handles counted, expected 260", n)
	}
	cfg := testConfig(newMemSink())
	cfg.Key[5]++
	g2 := start(t, cfg)
	c2, _ := g2.mount()
	_, err := c2.Getattr(root)
	wantStatus(t, "handle of another gateway", err, nfstest.Stale)
}

// TestStrangers: a peer that no source lists is told so when it mounts, and
// gets nothing else; a source taken away loses its connections.
func TestStrangers(t *testing.T) {
	g := start(t, twoSources(newMemSink()))
	stranger := g.from("127.0.2.1")(nfstest.Options{})
	if err := stranger.Null(); err != nil {
		t.Errorf("NULL: %v", err)
	}
	_, err := stranger.Mount("/")
	wantStatus(t, "mount by a stranger", err, nfstest.Acces)
	if _, err := stranger.Exports(); err == nil {
		t.Error("a stranger may list the exports")
	}
	if st := g.srv.Stats(); st.Refused != 1 || st.Denied != 1 || st.Conns != 0 {
		t.Errorf("stats %+v", st)
	}
	known := g.from("127.0.1.2")(nfstest.Options{})
	root := must[nfstest.Handle](t)(known.Mount("/"))
	g.srv.SetSources(twoSources(nil).Sources[1:2])
	if _, err := known.Getattr(root); err == nil {
		t.Error("a source that was taken away is still served")
	}
}

func TestSecurePorts(t *testing.T) {
	cfg := testConfig(newMemSink())
	cfg.Secure = true
	g := start(t, cfg)
	_, err := g.dial(nfstest.Options{}).Mount("/")
	wantStatus(t, "mount from an unprivileged port", err, nfstest.Acces)
}

func TestTooManyConnections(t *testing.T) {
	cfg := testConfig(newMemSink())
	cfg.MaxConns = 2
	g := start(t, cfg)
	a, _ := g.mount()
	b, _ := g.mount()
	c := g.dial(nfstest.Options{})
	if err := c.Null(); err == nil {
		t.Error("a third connection is served")
	}
	if a.Null() != nil || b.Null() != nil {
		t.Error("the first two are not served any more")
	}
}
