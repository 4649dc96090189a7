package nfsgw_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

func TestWriteAndCommit(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh, err := c.Create(root, "access.log")
	if err != nil {
		t.Fatal(err)
	}
	f := c.Open(fh)
	want := bytes.Repeat([]byte("one line of a log\n"), 50_000)
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 77_777)
		if err := f.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := sink.crash().content("access.log", 0); !bytes.Equal(got, want) {
		t.Fatalf("after COMMIT %d durable bytes, expected %d", len(got), len(want))
	}
	a, err := c.Getattr(fh)
	if err != nil || a.Size != uint64(len(want)) {
		t.Fatalf("size %d, error %v, expected %d", a.Size, err, len(want))
	}
	if err := g.close(); err != nil {
		t.Fatalf("clean stop: %v", err)
	}
}

func TestTruncation(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	write := func(off uint64, s string) {
		t.Helper()
		if _, err := c.Write(fh, off, []byte(s), nfstest.FileSync); err != nil {
			t.Fatal(err)
		}
	}
	size := func(want uint64) {
		t.Helper()
		if a := must[nfstest.Attr](t)(c.Getattr(fh)); a.Size != want {
			t.Errorf("size %d, expected %d", a.Size, want)
		}
	}
	wantStatus(t, "truncation of an empty file", c.Truncate(fh, 0), 0)
	write(0, "first")
	wantStatus(t, "truncation to the middle", c.Truncate(fh, 2), nfstest.Acces)
	size(5)
	wantStatus(t, "truncation to the present size", c.Truncate(fh, 5), 0)
	wantStatus(t, "truncation to nothing", c.Truncate(fh, 0), 0)
	size(0)
	write(0, "2nd")
	size(3)
	wantStatus(t, "extension", c.Truncate(fh, 10), 0)
	size(10)
	wantStatus(t, "size out of range", c.Truncate(fh, 1<<63), nfstest.FBig)
	must[nfstest.Handle](t)(c.CreateAs(root, "f", false, nfstest.SetAttr{Size: nfstest.New[uint64](0)}))
	size(0)
	write(0, "third")
	_, err := c.Write(fh, 1<<53-3, []byte("abc"), nfstest.FileSync)
	wantStatus(t, "write beyond the end of numbers", err, nfstest.FBig)
	for gen, want := range []string{"first", "2nd", "third"} {
		if got := sink.crash().content("f", int64(gen)); string(got) != want {
			t.Errorf("generation %d: archived %q, expected %q", gen, got, want)
		}
	}
	wantStatus(t, "truncation of a directory", c.Truncate(root, 0), nfstest.Inval)
}

func TestSetattr(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	set := nfstest.SetAttr{
		Mode: nfstest.New[uint32](0o100600), UID: nfstest.New[uint32](13), GID: nfstest.New[uint32](14),
		Atime: nfstest.New[int64](1e18 + 5), Mtime: nfstest.New[int64](1e18 + 7),
	}
	before := must[nfstest.Attr](t)(c.Getattr(fh))
	stale := before.Ctime - 1
	_, err := c.Setattr(fh, set, &stale)
	wantStatus(t, "guard with another time", err, nfstest.NotSync)
	w, err := c.Setattr(fh, set, &before.Ctime)
	wantStatus(t, "guard with the time we sent", err, 0)
	check := func(a nfstest.Attr) {
		t.Helper()
		if a.Mode != 0o600 || a.UID != 13 || a.GID != 14 || a.Atime != 1e18+5 || a.Mtime != 1e18+7 || a.Ctime <= before.Ctime {
			t.Errorf("attributes %+v", a)
		}
	}
	check(*w.Post)
	g2 := start(t, testConfig(sink.crash()))
	c2, _ := g2.mount()
	check(must[nfstest.Attr](t)(c2.Getattr(fh)))
}

func TestRead(t *testing.T) {
	sink := newMemSink()
	cfg := testConfig(sink)
	g := start(t, cfg)
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	data := bytes.Repeat([]byte("0123456789"), 60_000)
	if _, err := c.Write(fh, 0, data, nfstest.Unstable); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for eof := false; !eof; {
		var b []byte
		var err error
		if b, eof, err = c.Read(fh, uint64(len(got)), 1<<20); err != nil || len(b) == 0 {
			t.Fatalf("read at %d: %d bytes, %v", len(got), len(b), err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, other than the %d written", len(got), len(data))
	}
	if b, eof, err := c.Read(fh, 1<<40, 10); len(b) != 0 || !eof || err != nil {
		t.Errorf("read after the end: %d bytes, eof %t, %v", len(b), eof, err)
	}
	if n := must[uint32](t)(c.Access(fh, 0x3f)); n&1 == 0 {
		t.Errorf("access %#x: reading not allowed", n)
	}
	cfg.Sources[0].AllowRead = false
	g.srv.SetSources(cfg.Sources)
	_, _, err := c.Read(fh, 0, 10)
	wantStatus(t, "read without allow_read", err, nfstest.Acces)
	if n := must[uint32](t)(c.Access(fh, 0x3f)); n&1 != 0 || n&0xc != 0xc {
		t.Errorf("access %#x: expected writing, not reading", n)
	}
	if n := must[uint32](t)(c.Access(root, 0x3f)); n&3 != 3 {
		t.Errorf("access %#x: expected to list the directory", n)
	}
}

// TestRestart: handles survive, the verifier changes, and a client that keeps
// to the protocol loses nothing of what it wrote.
func TestRestart(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c := g.dial(nfstest.Options{Reconnect: true, Depth: 8})
	root := must[nfstest.Handle](t)(c.Mount("/"))
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	f := c.Open(fh)
	line := func(i int) []byte { return fmt.Appendf(nil, "line %06d of the log\n", i) }
	var want []byte
	for i := range 1000 {
		if i == 400 {
			if err := f.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 700 { // power cut: what was not committed is gone
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := g.close(); err != nil {
				t.Fatal(err)
			}
			sink = sink.crash()
			if n := len(sink.content("f", 0)); n != 400*len(line(0)) {
				t.Fatalf("%d bytes after the crash, expected 400 lines", n)
			}
			g = startAt(t, testConfig(sink), g.addr)
		}
		want = append(want, line(i)...)
		if err := f.Write(line(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if f.Rewritten == 0 {
		t.Error("nothing was written again: the verifier did not change")
	}
	if got := sink.crash().content("f", 0); !bytes.Equal(got, want) {
		t.Errorf("durable after COMMIT: %d bytes, expected %d", len(got), len(want))
	}
}

// TestSizeAndTimeAfterRestart: a clean stop keeps the times; after a crash a
// file that grew since is as long as the sink says, and no older.
func TestSizeAndTimeAfterRestart(t *testing.T) {
	sink := newMemSink()
	var clock fakeClock
	config := func(sink *memSink) nfsgw.Config {
		cfg := testConfig(sink)
		cfg.Now = clock.now
		return cfg
	}
	g := start(t, config(sink))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	last, err := c.Write(fh, 0, []byte("12345"), nfstest.FileSync)
	if err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Second)
	g2 := start(t, config(sink.crash()))
	c2, _ := g2.mount()
	if a := must[nfstest.Attr](t)(c2.Getattr(fh)); a.Size != 5 || a.Mtime <= last.Wcc.Post.Mtime {
		t.Errorf("after a crash: size %d, time %d ns later", a.Size, a.Mtime-last.Wcc.Post.Mtime)
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Second)
	g3 := start(t, config(sink.crash()))
	c3, _ := g3.mount()
	if a := must[nfstest.Attr](t)(c3.Getattr(fh)); a != *last.Wcc.Post {
		t.Errorf("after a clean stop: %+v, expected %+v", a, *last.Wcc.Post)
	}
}

// TestFull: no room is a wait, never an error, and everything arrives.
func TestFull(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c := g.dial(nfstest.Options{Patience: time.Millisecond})
	root := must[nfstest.Handle](t)(c.Mount("/"))
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	sink.setFull(true)
	done := make(chan error, 3)
	go func() {
		_, err := c.Write(fh, 0, []byte("abc"), nfstest.FileSync)
		done <- err
	}()
	go func() {
		_, err := c.Create(root, "g")
		done <- err
	}()
	go func() { done <- c.Truncate(fh, 100) }()
	for g.srv.Stats().Full < 10 {
		select {
		case err := <-done:
			t.Fatalf("answered while full: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	sink.setFull(false)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := sink.crash().content("f", 0); string(got) != "abc" {
		t.Errorf("durable %q", got)
	}
}

// TestSinkFails: after a failed sync nothing is answered and Serve returns the error.
func TestSinkFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*nfstest.Client, nfstest.Handle, nfstest.Handle) error
	}{
		{"WRITE", func(c *nfstest.Client, _, fh nfstest.Handle) error {
			_, err := c.Write(fh, 0, []byte("abc"), nfstest.FileSync)
			return err
		}},
		{"COMMIT", func(c *nfstest.Client, _, fh nfstest.Handle) error {
			_, err := c.Commit(fh)
			return err
		}},
		{"CREATE", func(c *nfstest.Client, root, _ nfstest.Handle) error {
			_, err := c.Create(root, "new")
			return err
		}},
		{"REMOVE", func(c *nfstest.Client, root, _ nfstest.Handle) error {
			_, err := c.Remove(root, "f")
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sink := newMemSink()
			g := start(t, testConfig(sink))
			c, root := g.mount()
			fh := must[nfstest.Handle](t)(c.Create(root, "f"))
			sink.breakDisk()
			err := tc.do(c, root, fh)
			var status nfstest.Status
			if err == nil || errors.As(err, &status) {
				t.Errorf("answered: %v", err)
			}
			if err := <-g.err; !errors.Is(err, errDisk) {
				t.Errorf("Serve returned %v, expected the sink's error", err)
			}
			g.once.Do(func() {}) // it has ended
		})
	}
}

// TestReloadWithoutASource: a client whose source is taken out of the
// configuration hears nothing, keeps its data, and goes on with its handles when
// the source is back.
func TestReloadWithoutASource(t *testing.T) {
	sink := newMemSink()
	cfg := testConfig(sink)
	g := start(t, cfg)
	c := g.dial(nfstest.Options{Reconnect: true, Backoff: time.Millisecond})
	root := must[nfstest.Handle](t)(c.Mount("/"))
	f := c.Open(must[nfstest.Handle](t)(c.Create(root, "f")))
	if err := errors.Join(f.Write([]byte("one\n")), f.Commit()); err != nil {
		t.Fatal(err)
	}
	g.srv.SetSources(nil)
	done := make(chan error, 1)
	go func() { done <- errors.Join(f.Write([]byte("two\n")), f.Commit()) }()
	for g.srv.Stats().Refused == 0 {
		select {
		case err := <-done:
			t.Fatalf("answered without a source: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	g.srv.SetSources(cfg.Sources)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := sink.crash().content("f", 0); string(got) != "one\ntwo\n" {
		t.Errorf("durable %q", got)
	}
}
