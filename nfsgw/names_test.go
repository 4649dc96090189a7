package nfsgw_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
)

// wantStatus fails unless err is the status; 0 means no error.
func wantStatus(t *testing.T, what string, err error, want nfstest.Status) {
	t.Helper()
	if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
		t.Errorf("%s: got %v, expected status %d", what, err, want)
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestCreate(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	h := must[nfstest.Handle](t)

	a := h(c.Create(root, "a"))
	if _, err := c.Write(a, 0, []byte("abc"), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	if again := h(c.Create(root, "a")); string(again) != string(a) {
		t.Error("UNCHECKED on an existing file gives another handle")
	}
	if at := must[nfstest.Attr](t)(c.Getattr(a)); at.Size != 3 {
		t.Errorf("UNCHECKED cut an existing file to %d bytes", at.Size)
	}
	_, err := c.CreateAs(root, "a", true, nfstest.SetAttr{})
	wantStatus(t, "GUARDED on an existing file", err, nfstest.Exist)

	v := nfstest.Verifier{1, 2, 3}
	x := h(c.CreateExclusive(root, "x", v))
	if again := h(c.CreateExclusive(root, "x", v)); string(again) != string(x) {
		t.Error("EXCLUSIVE repeated gives another handle")
	}
	_, err = c.CreateExclusive(root, "x", nfstest.Verifier{9})
	wantStatus(t, "EXCLUSIVE with another verifier", err, nfstest.Exist)
	_, err = c.CreateExclusive(root, "a", nfstest.Verifier{})
	wantStatus(t, "EXCLUSIVE on a file that was not made so", err, nfstest.Exist)

	if _, _, err := c.Mkdir(root, "d"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Create(root, "d")
	wantStatus(t, "CREATE on a directory", err, nfstest.Exist)
	_, _, err = c.Mkdir(root, "d")
	wantStatus(t, "MKDIR on a directory", err, nfstest.Exist)
	_, err = c.Create(a, "b")
	wantStatus(t, "CREATE in a file", err, nfstest.NotDir)
	for name, want := range map[string]nfstest.Status{
		"": nfstest.Inval, ".": nfstest.Exist, "..": nfstest.Exist, "a/b": nfstest.Inval, "a\x00": nfstest.Inval,
		strings.Repeat("n", 256): nfstest.NameTooLong, strings.Repeat("n", 255): 0, "\xff\xfe\n\r": 0,
	} {
		_, err := c.Create(root, name)
		wantStatus(t, fmt.Sprintf("CREATE %.20q", name), err, want)
	}
}

func TestRefusedKinds(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	status := func(proc uint32, e *nfstest.Encoder) nfstest.Status {
		body, err := c.Call(nfstest.NFS, proc, e)
		if err != nil {
			t.Fatal(err)
		}
		return nfstest.Status(nfstest.NewDecoder(body).U32())
	}
	dirName := func() *nfstest.Encoder { return new(nfstest.Encoder).Opaque(root).Opaque([]byte("l")) }
	none := []uint32{0, 0, 0, 0, 0, 0}
	if st := status(10, dirName().U32(none...).Opaque([]byte("target"))); st != nfstest.Perm {
		t.Errorf("SYMLINK: status %d", st)
	}
	if st := status(11, dirName().U32(7).U32(none...)); st != nfstest.Perm {
		t.Errorf("MKNOD: status %d", st)
	}
	if st := status(15, new(nfstest.Encoder).Opaque(fh).Opaque(root).Opaque([]byte("l"))); st != nfstest.Perm {
		t.Errorf("LINK: status %d", st)
	}
	if st := status(5, new(nfstest.Encoder).Opaque(fh)); st != nfstest.Inval {
		t.Errorf("READLINK: status %d", st)
	}
}

func TestRemove(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	dh, _, err := c.Mkdir(root, "d")
	if err != nil {
		t.Fatal(err)
	}
	must[nfstest.Handle](t)(c.Create(dh, "in"))
	_, err = c.Remove(root, "d")
	wantStatus(t, "REMOVE of a directory", err, nfstest.IsDir)
	_, err = c.Rmdir(root, "f")
	wantStatus(t, "RMDIR of a file", err, nfstest.NotDir)
	_, err = c.Rmdir(root, "d")
	wantStatus(t, "RMDIR of a full directory", err, nfstest.NotEmpty)
	_, err = c.Remove(root, "none")
	wantStatus(t, "REMOVE of nothing", err, nfstest.NoEnt)
	_, err = c.Remove(dh, "in")
	wantStatus(t, "REMOVE", err, 0)
	_, err = c.Rmdir(root, "d")
	wantStatus(t, "RMDIR", err, 0)
	_, err = c.Create(dh, "late")
	wantStatus(t, "CREATE in a removed directory", err, nfstest.Stale)

	// A removed file keeps its id: what comes late is archived.
	if _, err := c.Write(fh, 0, []byte("early "), nfstest.Unstable); err != nil {
		t.Fatal(err)
	}
	_, err = c.Remove(root, "f")
	wantStatus(t, "REMOVE", err, 0)
	if _, err := c.Write(fh, 6, []byte("late"), nfstest.FileSync); err != nil {
		t.Fatalf("late write: %v", err)
	}
	if got := sink.content("f", 0); string(got) != "early late" {
		t.Errorf("archived %q", got)
	}
	if a := must[nfstest.Attr](t)(c.Getattr(fh)); a.Nlink != 0 {
		t.Errorf("removed file has %d links", a.Nlink)
	}
	if again := must[nfstest.Handle](t)(c.Create(root, "f")); string(again) == string(fh) {
		t.Error("a new file has the handle of a removed one")
	}
}

func TestRename(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	h := must[nfstest.Handle](t)
	fh := h(c.Create(root, "access.log"))
	d1, _, _ := c.Mkdir(root, "d1")
	d2, _, _ := c.Mkdir(d1, "d2")
	rename := func(fd nfstest.Handle, from string, td nfstest.Handle, to string) error {
		_, _, err := c.Rename(fd, from, td, to)
		return err
	}
	wantStatus(t, "rename", rename(root, "access.log", d2, "access.log.1"), 0)
	if _, err := c.Write(fh, 0, []byte("after"), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	if got := sink.content("d1/d2/access.log.1", 0); string(got) != "after" {
		t.Errorf("archived %q", got)
	}
	if got, _, err := c.Lookup(d2, "access.log.1"); err != nil || string(got) != string(fh) {
		t.Errorf("lookup of the new name: %v", err)
	}
	_, _, err := c.Lookup(root, "access.log")
	wantStatus(t, "lookup of the old name", err, nfstest.NoEnt)

	// A silly name is the client's own affair: the archive keeps the old one.
	wantStatus(t, "silly rename", rename(d2, "access.log.1", d2, ".nfs0001"), 0)
	if got := sink.content("d1/d2/access.log.1", 0); got == nil {
		t.Error("the archive's name followed a silly rename")
	}

	other := h(c.Create(root, "other"))
	if _, err := c.Write(other, 0, []byte("kept"), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	h(c.Create(root, "new"))
	wantStatus(t, "rename over a file", rename(root, "new", root, "other"), 0)
	if _, err := c.Write(other, 4, []byte(" too"), nfstest.FileSync); err != nil {
		t.Fatalf("write to a file renamed over: %v", err)
	}
	wantStatus(t, "rename of nothing", rename(root, "none", root, "x"), nfstest.NoEnt)
	wantStatus(t, "rename to itself", rename(root, "other", root, "other"), 0)
	wantStatus(t, "file over a directory", rename(root, "other", root, "d1"), nfstest.IsDir)
	wantStatus(t, "directory over a file", rename(root, "d1", root, "other"), nfstest.NotDir)
	wantStatus(t, "directory into itself", rename(root, "d1", d2, "x"), nfstest.Inval)
	_, _, _ = c.Mkdir(root, "full")
	fullDir, _, _ := c.Lookup(root, "full")
	h(c.Create(fullDir, "f"))
	wantStatus(t, "directory over a full one", rename(root, "d1", root, "full"), nfstest.NotEmpty)
	_, _, _ = c.Mkdir(root, "empty")
	wantStatus(t, "directory over an empty one", rename(root, "full", root, "empty"), 0)
	up, _, err := c.Lookup(d2, "..")
	if err != nil || string(up) != string(d1) {
		t.Errorf("..: %v", err)
	}
	if a := must[nfstest.Attr](t)(c.Getattr(root)); a.Nlink != 4 {
		t.Errorf("root has %d links, expected 4 for two subdirectories", a.Nlink)
	}
}

// TestWcc: the state after each change of ours is the state before the next
// one, and times strictly increase, even when the clock stands still.
func TestWcc(t *testing.T) {
	cfg := testConfig(newMemSink())
	stand := cfg.Now()
	cfg.Now = func() time.Time { return stand }
	g := start(t, cfg)
	c, root := g.mount()
	last := must[nfstest.Attr](t)(c.Getattr(root))
	check := func(what string, w nfstest.Wcc, err error) {
		t.Helper()
		switch {
		case err != nil || w.Pre == nil || w.Post == nil:
			t.Fatalf("%s: %v, wcc %v", what, err, w)
		case w.Pre.Mtime != last.Mtime || w.Pre.Ctime != last.Ctime || w.Pre.Size != last.Size:
			t.Errorf("%s: before %+v, expected %+v", what, *w.Pre, last)
		case w.Post.Mtime <= last.Mtime || w.Post.Ctime <= last.Ctime:
			t.Errorf("%s: the time did not increase", what)
		}
		last = *w.Post
	}
	_, w, err := c.Mkdir(root, "d")
	check("MKDIR", w, err)
	w, err = c.Rmdir(root, "d")
	check("RMDIR", w, err)
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	last = must[nfstest.Attr](t)(c.Getattr(root))
	w, _, err = c.Rename(root, "f", root, "g")
	check("RENAME", w, err)
	w, err = c.Remove(root, "g")
	check("REMOVE", w, err)

	last = must[nfstest.Attr](t)(c.Getattr(fh))
	for i := range 3 {
		res, err := c.Write(fh, uint64(i), []byte("x"), nfstest.Unstable)
		check("WRITE", res.Wcc, err)
	}
	res, err := c.Write(fh, 0, nil, nfstest.Unstable)
	if err != nil || res.Wcc.Post.Mtime != last.Mtime {
		t.Errorf("WRITE of nothing: %v, or the time changed", err)
	}
}

// TestReaddirUnderChurn: every entry that is there from begin to end is listed
// exactly once, whatever else is made and removed meanwhile.
func TestReaddirUnderChurn(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	const n = 500
	var want []string
	for i := range n {
		name := fmt.Sprintf("stay%04d", i)
		want = append(want, name)
		must[nfstest.Handle](t)(c.Create(root, name))
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	other, _ := g.mount()
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("go%d", i%50)
			if _, err := other.Create(root, name); err != nil {
				t.Error(err)
				return
			}
			if _, err := other.Remove(root, name); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		list, err := c.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			if strings.HasPrefix(e.Name, "stay") {
				got = append(got, e.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("listed %d entries, expected %d", len(got), n)
		}
	}
	close(stop)
	churn.Wait()
}

func TestReaddirPages(t *testing.T) {
	g := start(t, testConfig(newMemSink()))
	c, root := g.mount()
	d, _, err := c.Mkdir(root, "d")
	if err != nil {
		t.Fatal(err)
	}
	must[nfstest.Handle](t)(c.Create(d, "f"))
	for _, plus := range []bool{false, true} {
		for _, maxcount := range []uint32{280, 512, 4096} {
			var names []string
			for cookie, eof := uint64(0), false; !eof; {
				var page []nfstest.Entry
				page, eof, err = c.ReaddirPage(d, cookie, plus, 4096, maxcount)
				if err != nil {
					t.Fatalf("plus %t, %d bytes: %v", plus, maxcount, err)
				}
				for _, e := range page {
					names = append(names, e.Name)
					cookie = e.Cookie
					if e.FileID == 0 || plus && (e.Attr == nil || e.Attr.FileID != e.FileID || len(e.Handle) != 32) {
						t.Errorf("entry %+v", e)
					}
				}
			}
			if !slices.Equal(names, []string{".", "..", "f"}) {
				t.Errorf("plus %t, %d bytes: %q", plus, maxcount, names)
			}
		}
		_, _, err = c.ReaddirPage(d, 0, plus, 4096, 100)
		wantStatus(t, "page too small for an entry", err, nfstest.TooSmall)
	}
	_, _, err = c.ReaddirPage(d, rand.Uint64()>>1, true, 4096, 4096) // a cookie of an entry that is no more
	wantStatus(t, "unknown cookie", err, 0)
}

// TestNamesAreDurable: after each reply a power cut changes nothing.
func TestNamesAreDurable(t *testing.T) {
	sink := newMemSink()
	cfg := testConfig(sink)
	g := start(t, cfg)
	c, root := g.mount()
	survives := func(what string, want ...string) {
		t.Helper()
		cut := testConfig(sink.crash())
		g2 := start(t, cut)
		c2, root2 := g2.mount()
		if string(root2) != string(root) {
			t.Fatalf("%s: another root handle after a crash", what)
		}
		list, err := c2.ReadDir(root)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var names []string
		for _, e := range list[2:] {
			names = append(names, e.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: after a crash %q, expected %q", what, names, want)
		}
		if err := g2.close(); err != nil {
			t.Error(err)
		}
	}
	must[nfstest.Handle](t)(c.Create(root, "a"))
	survives("CREATE", "a")
	_, _, err := c.Mkdir(root, "d")
	wantStatus(t, "MKDIR", err, 0)
	survives("MKDIR", "a", "d")
	_, _, err = c.Rename(root, "a", root, "b")
	wantStatus(t, "RENAME", err, 0)
	survives("RENAME", "b", "d")
	must[nfstest.Handle](t)(c.Create(root, "c"))
	_, _, err = c.Rename(root, "b", root, "c")
	wantStatus(t, "RENAME over", err, 0)
	survives("RENAME over", "c", "d")
	_, err = c.Remove(root, "c")
	wantStatus(t, "REMOVE", err, 0)
	survives("REMOVE", "d")
	_, err = c.Rmdir(root, "d")
	wantStatus(t, "RMDIR", err, 0)
	survives("RMDIR")
}

// TestRenameOfADirectory: the files below it, at any depth and in any number,
// have the new path in the archive; silly names keep theirs; a path that would
// be too long refuses the rename as a whole.
func TestRenameOfADirectory(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	mkdir := func(dir nfstest.Handle, name string) nfstest.Handle {
		t.Helper()
		d, _, err := c.Mkdir(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	h := must[nfstest.Handle](t)
	a := mkdir(root, "a")
	b := mkdir(a, "b")
	want := map[string]bool{"other": true, "c/open": true}
	h(c.Create(root, "other"))
	h(c.Create(a, "open"))
	if _, _, err := c.Rename(a, "open", a, ".nfs000000000000abcd00000001"); err != nil {
		t.Fatal(err)
	}
	delete(want, "c/open")
	want["a/open"] = true
	for i := range 300 {
		name := fmt.Sprint("f", i)
		h(c.Create(b, name))
		want["c/b/"+name] = true
	}
	archived := func() map[string]bool {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		names := map[string]bool{}
		for _, st := range sink.streams {
			names[string(st.info.Name)] = true
		}
		return names
	}
	if _, _, err := c.Rename(root, "a", root, "c"); err != nil {
		t.Fatal(err)
	}
	if got := archived(); !maps.Equal(got, want) {
		t.Errorf("%d names archived, expected %d: %v", len(got), len(want), got)
	}
	deep := root
	for range 15 {
		deep = mkdir(deep, strings.Repeat("d", 255))
	}
	h(c.Create(b, strings.Repeat("n", 255)))
	want["c/b/"+strings.Repeat("n", 255)] = true
	_, _, err := c.Rename(root, "c", deep, "c")
	wantStatus(t, "rename that makes a path too long", err, nfstest.NameTooLong)
	if got := archived(); !maps.Equal(got, want) {
		t.Error("a refused rename changed names in the archive")
	}
}
