package nfsgw_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

func TestMountPaths(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	d, _, err := c.Mkdir(root, "d")
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := c.Mkdir(d, "e")
	if err != nil {
		t.Fatal(err)
	}
	must[nfstest.Handle](t)(c.Create(root, "f"))
	for path, want := range map[string]nfstest.Handle{
		"/": root, "//": root, "/proxy": root, "/proxy/": root, "/d": d, "/proxy/d": d, "/d/e": e, "/proxy/d/./e/": e, "/..": root,
	} {
		if got, err := c.Mount(path); err != nil || string(got) != string(want) {
			t.Errorf("mount %s: %v, or another handle", path, err)
		}
	}
	for path, want := range map[string]nfstest.Status{
		"": nfstest.Inval, "proxy": nfstest.Inval, "/none": nfstest.NoEnt, "/f": nfstest.NotDir, "/f/x": nfstest.NotDir, "/\x00": nfstest.Inval,
	} {
		_, err := c.Mount(path)
		wantStatus(t, "mount "+path, err, want)
	}
	if _, err := c.Mount("/" + strings.Repeat("x", 2000)); err == nil {
		t.Error("a path of 2000 bytes is accepted")
	}
}

// TestMountList: DUMP shows the peer's own mounts, until it unmounts.
func TestMountList(t *testing.T) {
	g := start(t, twoSources(newMemSink()))
	a, b := g.from("127.0.1.1")(nfstest.Options{}), g.from("127.0.1.2")(nfstest.Options{})
	dump := func(c *nfstest.Client) (list []string) {
		t.Helper()
		body, err := c.Call(nfstest.Mount, 2, &nfstest.Encoder{})
		if err != nil {
			t.Fatal(err)
		}
		d := nfstest.NewDecoder(body)
		for d.U32() == 1 {
			list = append(list, string(d.Opaque())+" "+string(d.Opaque()))
		}
		if err := d.Err(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		return list
	}
	for _, path := range []string{"/", "/a", "/wide"} {
		must[nfstest.Handle](t)(a.Mount(path))
	}
	must[nfstest.Handle](t)(b.Mount("/"))
	if got := dump(a); !slices.Equal(got, []string{"127.0.1.1 /", "127.0.1.1 /a", "127.0.1.1 /wide"}) {
		t.Errorf("mounts %q", got)
	}
	if err := a.Unmount("/a"); err != nil {
		t.Fatal(err)
	}
	if got := dump(a); len(got) != 2 {
		t.Errorf("after UMNT: %q", got)
	}
	if _, err := a.Call(nfstest.Mount, 4, &nfstest.Encoder{}); err != nil {
		t.Fatal(err)
	}
	if got := dump(a); len(got) != 0 {
		t.Errorf("after UMNTALL: %q", got)
	}
	if got := dump(b); len(got) != 1 {
		t.Errorf("UMNTALL of another client took its mount: %q", got)
	}
}

// TestLimits: what FSINFO and FSSTAT say is what is so.
func TestLimits(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	fi := must[nfstest.FSInfo](t)(c.Fsinfo(root))
	if fi.WtMax != 1<<20 || fi.WtPref != 1<<20 || fi.MaxFileSize != 1<<53-1 {
		t.Errorf("FSINFO %+v", fi)
	}
	total, free, err := c.Fsstat(root)
	if err != nil || total != 1<<40 || free != 1<<39 {
		t.Errorf("FSSTAT %d total, %d free, %v", total, free, err)
	}
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	if w, err := c.Write(fh, 0, make([]byte, fi.WtMax), nfstest.FileSync); err != nil || w.Count != fi.WtMax {
		t.Errorf("WRITE of the largest size: %d taken, %v", w.Count, err)
	}
	if b, _, err := c.Read(fh, 0, fi.RtMax); err != nil || len(b) != int(fi.RtMax) {
		t.Errorf("READ of the largest size: %d bytes, %v", len(b), err)
	}
}

// TestDeafClient sends calls and reads no answers. It costs a bounded number of
// bytes, holds up nobody else, and does not hold up the stop.
func TestDeafClient(t *testing.T) {
	srv, err := nfsgw.New(testConfig(newMemSink()))
	if err != nil {
		t.Fatal(err)
	}
	nfsgw.SetTimeouts(srv, time.Hour, time.Hour, time.Hour) // none of them ends the connection
	nfsgw.SetStopTimeout(srv, time.Millisecond)             // it will take nothing
	g := serveOn(t, srv, "127.0.0.1:0")
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	if _, err := c.Write(fh, 0, make([]byte, 60<<10), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	deaf := g.raw()
	call := new(nfstest.Encoder).Raw(rawCall(1, 2, nfstest.NFS, 3, 6, 0, 0, 0, 0)).Opaque(fh).U64(0).U32(60 << 10).Bytes()
	copy(call, new(nfstest.Encoder).U32(uint32(len(call)-4)|1<<31).Bytes())
	// Until both directions are full: the gateway keeps all the replies that it may
	// keep, and takes no byte for a while.
	rest := call
	until(t, "a gateway that reads no more", func() bool {
		if err := deaf.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := deaf.Write(rest)
		if rest = rest[n:]; len(rest) == 0 {
			rest = call
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return err != nil && nfsgw.Unsent(g.srv) > nfsgw.ReplyBacklog
	})
	if n := nfsgw.Unsent(g.srv); n > nfsgw.ReplyBacklog+72<<10 {
		t.Errorf("%d bytes of replies are kept", n)
	}
	if err := c.Null(); err != nil {
		t.Errorf("another client: %v", err)
	}
	if _, err := c.ReadDir(root); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
}

// TestExportList reads EXPORT as showmount -e does: each path with the
// addresses that may mount it; another source's are not shown.
func TestExportList(t *testing.T) {
	g := start(t, twoSources(newMemSink()))
	export := func(ip string) (list []string) {
		t.Helper()
		body, err := g.from(ip)(nfstest.Options{}).Call(nfstest.Mount, 5, &nfstest.Encoder{})
		if err != nil {
			t.Fatal(err)
		}
		d := nfstest.NewDecoder(body)
		for d.U32() == 1 {
			line := string(d.Opaque())
			for d.U32() == 1 {
				line += " " + string(d.Opaque())
			}
			list = append(list, line)
		}
		if err := d.Err(); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := export("127.0.1.1"); !slices.Equal(got, []string{"/ 127.0.1.1/32", "/wide 127.0.1.0/24", "/a 127.0.1.1/32"}) {
		t.Errorf("exports to a: %q", got)
	}
	if got := export("127.0.1.9"); !slices.Equal(got, []string{"/ 127.0.1.0/24", "/wide 127.0.1.0/24"}) {
		t.Errorf("exports to another of wide: %q", got)
	}
}

// TestMountListIsBounded: one peer cannot fill the list that others are in.
func TestMountListIsBounded(t *testing.T) {
	g := start(t, twoSources(newMemSink()))
	a, b := g.from("127.0.1.1")(nfstest.Options{}), g.from("127.0.1.2")(nfstest.Options{})
	for i := range 200 {
		must[nfstest.Handle](t)(a.Mount(strings.Repeat("/", i+1)))
	}
	must[nfstest.Handle](t)(b.Mount("/b"))
	count := func(c *nfstest.Client) (n int) {
		t.Helper()
		body, err := c.Call(nfstest.Mount, 2, &nfstest.Encoder{})
		if err != nil {
			t.Fatal(err)
		}
		for d := nfstest.NewDecoder(body); d.U32() == 1; n++ {
			d.Opaque()
			d.Opaque()
		}
		return n
	}
	if count(a) != 64 || count(b) != 1 {
		t.Errorf("%d and %d mounts listed, expected 64 and 1", count(a), count(b))
	}
}

// TestReaddirLimits: no answer is larger than maxcount, names take at most
// dircount unless one alone is larger, and every cookie leads on.
func TestReaddirLimits(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	for i := range 40 {
		must[nfstest.Handle](t)(c.Create(root, strings.Repeat("n", 1+i*6)+"x"))
	}
	for _, plus := range []bool{false, true} {
		for maxcount := uint32(100); maxcount < 5000; maxcount += 61 {
			for _, dircount := range []uint32{1, 600, 1 << 20} {
				seen := map[string]bool{}
				for cookie, eof := uint64(0), false; !eof; {
					args := new(nfstest.Encoder).Opaque(root).U64(cookie).U64(0)
					proc := uint32(16)
					if plus {
						proc = 17
						args.U32(dircount)
					}
					body, err := c.Call(nfstest.NFS, proc, args.U32(maxcount))
					if err != nil {
						t.Fatal(err)
					}
					if len(body)-4 > int(maxcount) {
						t.Fatalf("plus %t: result of %d bytes, at most %d asked for", plus, len(body)-4, maxcount)
					}
					d := nfstest.NewDecoder(body)
					if st := d.U32(); st != 0 {
						if nfstest.Status(st) != nfstest.TooSmall || maxcount > 600 {
							t.Fatalf("plus %t, %d bytes: status %d", plus, maxcount, st)
						}
						break
					}
					d.Fixed(4 + 84 + 8)
					names, entries := 0, 0
					for d.U32() == 1 {
						d.U64()
						name := string(d.Opaque())
						cookie = d.U64()
						if plus {
							d.Fixed(4 + 84 + 4 + 4 + 32)
						}
						names += 4 + 8 + 4 + (len(name)+3)&^3 + 8
						entries++
						if seen[name] {
							t.Fatalf("%q twice", name)
						}
						seen[name] = true
					}
					if plus && names > int(dircount) && entries > 1 {
						t.Fatalf("%d bytes of names in %d entries, at most %d asked for", names, entries, dircount)
					}
					if eof = d.U32() == 1; d.Err() != nil || !eof && entries == 0 {
						t.Fatalf("plus %t: %v, %d entries", plus, d.Err(), entries)
					}
				}
				if maxcount > 600 && len(seen) != 42 {
					t.Fatalf("plus %t, %d bytes: %d entries", plus, maxcount, len(seen))
				}
			}
		}
	}
}
