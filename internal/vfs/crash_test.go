package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const crashSeeds = 400

// crashes calls fn with the crash clones of m, one per seed, and returns the
// set of what fn said about them.
func crashes(t *testing.T, m *Mem, fn func(c *Mem) string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(crashSeeds) {
		seen[fn(m.CrashClone(rand.New(rand.NewPCG(seed, 1))))]++
	}
	return seen
}

// read describes a name after a crash: its content, or "-" if it is absent.
func read(t *testing.T, c *Mem, name string) string {
	t.Helper()
	data, err := ReadFile(c, name, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	must(t, err)
	return string(data)
}

func wantOutcomes(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("%q never happened", w)
		}
		delete(seen, w)
	}
	for s, n := range seen {
		t.Errorf("%q happened %d times and is not possible", s, n)
	}
}

func TestCrashKeepsSynced(t *testing.T) {
	m := NewMem()
	must(t, MkdirAll(m, "/a/b", 0o755))
	must(t, WriteFile(m, "/a/b/f", []byte("synced"), 0o600))
	put(t, m, "/a/b/unsynced", "")
	for range 3 { // a clone of a clone keeps it too
		m = m.CrashClone(rand.New(rand.NewPCG(1, 1)))
		wantOutcomes(t, crashes(t, m, func(c *Mem) string { return read(t, c, "/a/b/f") }), "synced")
	}
}

func TestCrashSectors(t *testing.T) {
	m := NewMem()
	must(t, WriteFile(m, "/f", bytes.Repeat([]byte("o"), 3*sectorSize), 0o600))
	f, err := m.OpenRW("/f")
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("N"), sectorSize+1), sectorSize-1)
	must(t, err)
	seen := crashes(t, m, func(c *Mem) string {
		got := read(t, c, "/f")
		if len(got) != 3*sectorSize || strings.Trim(got[2*sectorSize:], "o") != "" {
			t.Errorf("what was not written changed: %d bytes", len(got))
		}
		return got[sectorSize-2:sectorSize+2] + got[2*sectorSize-1:2*sectorSize]
	})
	wantOutcomes(t, seen, "ooooo", "oNooo", "ooNNN", "oNNNN")

	must(t, f.Sync())
	wantOutcomes(t, crashes(t, m, func(c *Mem) string { return read(t, c, "/f")[sectorSize-1:][:2] }), "NN")
	must(t, f.Close())
}

func TestCrashSize(t *testing.T) {
	m := NewMem()
	must(t, WriteFile(m, "/f", []byte("0123456789"), 0o600))
	f, err := m.OpenRW("/f")
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 2*pageSize), 10)
	must(t, err)
	sizes := map[int]bool{}
	crashes(t, m, func(c *Mem) string {
		got := read(t, c, "/f")
		sizes[len(got)] = true
		if !strings.HasPrefix(got, "0123456789") {
			t.Errorf("synced bytes are lost: %.20q", got)
		}
		if strings.Trim(got[10:], "x\x00") != "" {
			t.Error("bytes that nobody wrote")
		}
		return ""
	})
	if !sizes[10] || !sizes[10+2*pageSize] || len(sizes) < 20 {
		t.Errorf("%d sizes seen, expected old, new and many between", len(sizes))
	}
	must(t, f.Truncate(3))
	crashes(t, m, func(c *Mem) string {
		if got := read(t, c, "/f"); len(got) < 3 || len(got) > 10 {
			t.Errorf("size %d after an unsynced truncation, expected 3 to 10", len(got))
		}
		return ""
	})
	must(t, f.Sync())
	wantOutcomes(t, crashes(t, m, func(c *Mem) string { return read(t, c, "/f") }), "012")
	must(t, f.Close())
}

func TestCrashNames(t *testing.T) {
	synced := func(t *testing.T) *Mem {
		m := NewMem()
		must(t, m.Mkdir("/d", 0o755))
		must(t, m.SyncDir("/"))
		for _, name := range []string{"/a", "/d/b"} {
			must(t, WriteFile(m, name, []byte(name), 0o600))
		}
		return m
	}
	write := func(t *testing.T, m *Mem, name, data string) {
		f, err := m.Create(name, 0o600)
		must(t, err)
		_, err = f.Write([]byte(data))
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
	}
	// what says a name's content in one letter, in order of look.
	tests := []struct {
		name string
		do   func(t *testing.T, m *Mem)
		look []string
		want []string
	}{
		{"create", func(t *testing.T, m *Mem) { write(t, m, "/n", "N") }, []string{"/n"}, []string{"-", "N"}},
		{"create and sync", func(t *testing.T, m *Mem) {
			write(t, m, "/n", "N")
			must(t, m.SyncDir("/"))
		}, []string{"/n"}, []string{"N"}},
		{"remove", func(t *testing.T, m *Mem) { must(t, m.Remove("/a")) }, []string{"/a"}, []string{"/a", "-"}},
		{"remove and sync", func(t *testing.T, m *Mem) {
			must(t, m.Remove("/a"))
			must(t, m.SyncDir("/"))
		}, []string{"/a"}, []string{"-"}},
		{"rename", func(t *testing.T, m *Mem) { must(t, m.Rename("/a", "/n")) },
			[]string{"/a", "/n"}, []string{"/a -", "- /a"}},
		{"rename over", func(t *testing.T, m *Mem) {
			write(t, m, "/t", "N")
			must(t, m.Rename("/t", "/a"))
		}, []string{"/a", "/t"}, []string{"/a -", "/a N", "N -"}},
		{"rename across, new side synced", func(t *testing.T, m *Mem) {
			must(t, m.Rename("/a", "/d/n"))
			must(t, m.SyncDir("/d"))
		}, []string{"/a", "/d/n"}, []string{"- /a"}},
		{"rename across, old side synced", func(t *testing.T, m *Mem) {
			must(t, m.Rename("/a", "/d/n"))
			must(t, m.SyncDir("/"))
		}, []string{"/a", "/d/n"}, []string{"- /a"}},
		{"new file renamed across, new side synced", func(t *testing.T, m *Mem) {
			write(t, m, "/t", "N")
			must(t, m.Rename("/t", "/t2"))
			must(t, m.Rename("/t2", "/d/n"))
			write(t, m, "/t", "M")
			must(t, m.SyncDir("/d"))
		}, []string{"/t", "/t2", "/d/n"}, []string{"- - N", "M - N"}},
		{"name used again", func(t *testing.T, m *Mem) {
			must(t, m.Rename("/a", "/n"))
			write(t, m, "/a", "N")
		}, []string{"/a", "/n"}, []string{"/a -", "- /a", "N /a"}},
		{"link", func(t *testing.T, m *Mem) {
			write(t, m, "/t", "N")
			must(t, m.Link("/t", "/n"))
			must(t, m.Remove("/t"))
		}, []string{"/t", "/n"}, []string{"- -", "N -", "- N", "N N"}},
		{"file in an unsynced directory", func(t *testing.T, m *Mem) {
			must(t, m.Mkdir("/new", 0o755))
			write(t, m, "/new/f", "N")
			must(t, m.SyncDir("/new"))
		}, []string{"/new/f"}, []string{"-", "N"}},
		{"directory made durable", func(t *testing.T, m *Mem) {
			must(t, MkdirAll(m, "/x/y/z", 0o755))
			must(t, CreateFile(m, "/x/y/z/f", []byte("N"), 0o600))
		}, []string{"/x/y/z/f"}, []string{"N"}},
		{"MkdirAll after a death before its sync", func(t *testing.T, m *Mem) {
			must(t, m.Mkdir("/x", 0o755))
			must(t, MkdirAll(m, "/x", 0o755))
			must(t, CreateFile(m, "/x/f", []byte("N"), 0o600))
		}, []string{"/x/f"}, []string{"N"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := synced(t)
			tt.do(t, m)
			seen := crashes(t, m, func(c *Mem) string {
				var got []string
				for _, name := range tt.look {
					got = append(got, read(t, c, name))
				}
				if read(t, c, "/d/b") != "/d/b" {
					t.Error("a synced name is lost")
				}
				return strings.Join(got, " ")
			})
			wantOutcomes(t, seen, tt.want...)
		})
	}
}

func TestCrashKeepsLinksLinked(t *testing.T) {
	m := NewMem()
	must(t, WriteFile(m, "/a", []byte("one"), 0o600))
	must(t, m.Link("/a", "/b"))
	must(t, m.SyncDir("/"))
	c := m.CrashClone(rand.New(rand.NewPCG(1, 1)))
	f, err := c.OpenRW("/a")
	must(t, err)
	_, err = f.WriteAt([]byte("two"), 0)
	must(t, err)
	wantContent(t, c, "/b", "two")
	wantContent(t, m, "/b", "one") // a clone shares nothing that is written
}

// TestCrashClonesAreApart checks that the original and its clones never see
// each other's writes, though they share pages.
func TestCrashClonesAreApart(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f", 0o600)
	must(t, err)
	must(t, m.SyncDir("/"))
	var clones []*Mem
	var want []string
	for i := range 20 {
		_, err := f.WriteAt([]byte{byte('a' + i)}, int64(i%3)*pageSize)
		must(t, err)
		if i%2 == 0 {
			must(t, f.Sync())
		}
		c := m.CrashClone(rand.New(rand.NewPCG(uint64(i), 0)))
		clones, want = append(clones, c), append(want, read(t, c, "/f"))
	}
	for i, c := range clones {
		if got := read(t, c, "/f"); got != want[i] {
			t.Errorf("clone %d changed after it was made", i)
		}
	}
}

func TestCrashSameSeedSameClone(t *testing.T) {
	m := NewMem()
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 40 {
		f, err := m.Create(fmt.Sprintf("/%d", i), 0o600)
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte("x"), rng.IntN(9000)), int64(rng.IntN(9000)))
		must(t, err)
	}
	dump := func(c *Mem) string {
		var b strings.Builder
		entries, err := c.ReadDir("/")
		must(t, err)
		for _, e := range entries {
			fmt.Fprintf(&b, "%s=%s\n", e.Name(), read(t, c, "/"+e.Name()))
		}
		return b.String()
	}
	distinct := map[string]bool{}
	for seed := range uint64(50) {
		a := dump(m.CrashClone(rand.New(rand.NewPCG(seed, 0))))
		if b := dump(m.CrashClone(rand.New(rand.NewPCG(seed, 0)))); a != b {
			t.Fatalf("seed %d: two clones differ", seed)
		}
		distinct[a] = true
	}
	if len(distinct) < 20 {
		t.Errorf("50 seeds gave %d clones, expected more", len(distinct))
	}
}

// TestFailedSync checks the trap of Linux: after a failed sync the bytes are
// still read, the next sync succeeds, and yet they are not on the disk.
func TestFailedSync(t *testing.T) {
	m := NewMem()
	broken := false
	fsys := NewFault(m, func(op Op, _ string) error {
		if op == OpSync && broken {
			return syscall.EIO
		}
		return nil
	})
	must(t, WriteFile(fsys, "/f", bytes.Repeat([]byte("o"), pageSize+1), 0o600))
	f, err := fsys.OpenRW("/f")
	must(t, err)
	_, err = f.WriteAt([]byte("NN"), pageSize-1) // two pages, and one byte more
	must(t, err)
	_, err = f.WriteAt([]byte("N"), pageSize+1)
	must(t, err)
	broken = true
	wantErr(t, "Sync", f.Sync(), syscall.EIO)
	broken = false
	must(t, f.Sync())
	if got := read(t, m, "/f")[pageSize-1:]; got != "NNN" {
		t.Errorf("reads %q after the failed sync, expected what was written", got)
	}
	look := func(c *Mem) string { return read(t, c, "/f")[pageSize-1:] }
	seen := crashes(t, m, look)
	if seen["NNN"] == crashSeeds || seen["oo"] == 0 {
		t.Errorf("after a crash: %v, expected losses", seen)
	}

	_, err = f.WriteAt([]byte("NNN"), pageSize-1) // written again, it is dirty again
	must(t, err)
	must(t, f.Sync())
	wantOutcomes(t, crashes(t, m, look), "NNN")
}

func TestNoSpace(t *testing.T) {
	m := NewMem()
	free := func() int64 {
		s, err := m.Space("/")
		must(t, err)
		return s.Free
	}
	put(t, m, "/old", strings.Repeat("x", 3*pageSize))
	m.SetSpace(Space{Total: 100 * pageSize, Free: 4 * pageSize})
	f, err := m.Create("/f", 0o600)
	must(t, err)
	wantErr(t, "Preallocate beyond the space", f.Preallocate(5*pageSize), syscall.ENOSPC)
	if free() != 4*pageSize {
		t.Errorf("%d bytes free after a refused Preallocate", free())
	}
	must(t, f.Preallocate(3*pageSize))
	n, err := f.Write(make([]byte, 4*pageSize+10))
	if n != 4*pageSize {
		t.Errorf("wrote %d bytes, expected to fill the space", n)
	}
	wantErr(t, "Write beyond the space", err, syscall.ENOSPC)
	if free() != 0 {
		t.Errorf("%d bytes free, expected none", free())
	}
	_, err = f.WriteAt([]byte("over"), 0) // over what is there: takes no room
	must(t, err)
	must(t, m.Link("/old", "/second"))
	must(t, m.Remove("/old"))
	if free() != 0 {
		t.Error("a file with a name left gave its room back")
	}
	must(t, m.Remove("/second"))
	if free() != 3*pageSize {
		t.Errorf("%d bytes free after Remove, expected 3 pages", free())
	}
	must(t, f.Truncate(1))
	if free() != 6*pageSize {
		t.Errorf("%d bytes free after Truncate, expected 6 pages", free())
	}
	must(t, m.SyncDir("/"))
	must(t, f.Sync())
	c := m.CrashClone(rand.New(rand.NewPCG(1, 1)))
	if s, err := c.Space("/"); err != nil || s.Free != 6*pageSize || s.Total != 100*pageSize {
		t.Errorf("clone has %+v, %v", s, err)
	}
	m.SetSpace(Space{Total: 10, Free: 1 << 40})
	must(t, f.Preallocate(1<<30)) // costs no memory
}

// TestWriteFileCrash fails WriteFile and CreateFile at every operation, that one
// alone or all from there on: a crash leaves old or new, and new once they have
// returned nil.
func TestWriteFileCrash(t *testing.T) {
	const name = "/d/f"
	writers := map[string]func(FS) error{
		"WriteFile":  func(fsys FS) error { return WriteFile(fsys, name, []byte("new"), 0o600) },
		"CreateFile": func(fsys FS) error { return CreateFile(fsys, name, []byte("new"), 0o600) },
	}
	for writer, write := range writers {
		for _, alone := range []bool{true, false} {
			for stop := 1; ; stop++ {
				m, old := NewMem(), "-"
				must(t, MkdirAll(m, "/d", 0o755))
				if writer == "WriteFile" {
					old = "old"
					must(t, WriteFile(m, name, []byte(old), 0o600))
				}
				ops, failed := 0, Op("")
				err := write(NewFault(m, func(op Op, _ string) error {
					ops++
					if ops == stop || ops > stop && !alone {
						failed = op
						return syscall.EIO
					}
					return nil
				}))
				want := []string{old, "new"}
				if err == nil {
					want = want[1:]
				} else {
					wantErr(t, writer, err, syscall.EIO)
				}
				for got := range crashes(t, m, func(c *Mem) string { return read(t, c, name) }) {
					if !slices.Contains(want, got) {
						t.Errorf("%s with a failing %s leaves %q", writer, failed, got)
					}
				}
				if failed == "" {
					if stop < 6 {
						t.Errorf("%s took %d operations", writer, stop-1)
					}
					break
				}
				if err == nil && failed != OpRemove {
					t.Errorf("%s succeeds with a failing %s", writer, failed)
				}
				// A retry succeeds, unless CreateFile had got as far as its link.
				if err := write(m); writer == "WriteFile" || !errors.Is(err, fs.ErrExist) {
					must(t, err)
				}
				wantContent(t, m, name, "new")
			}
		}
	}
}
