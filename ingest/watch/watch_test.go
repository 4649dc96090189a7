package watch

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

func TestFollow(t *testing.T) {
	r := newRig(t, "*.log")
	r.host.append("/log/a.log", "one\n")
	r.host.append("/log/other.txt", "not chosen\n")
	r.quiet()
	r.host.append("/log/a.log", "two\nthr")
	r.quiet()
	r.restart()
	r.host.append("/log/a.log", "ee\n")
	r.host.append("/log/b.log", "first\n")
	r.quiet()
	r.expect("/log/a.log: one\ntwo\nthree\n", "/log/b.log: first\n")
	r.wantStats(Stats{})
}

// TestLarge takes a file that needs many writes, turns and files of the spool.
func TestLarge(t *testing.T) {
	r := newRig(t, "*")
	text := lines("a", 0, 600_000)
	r.host.append("/log/a.log", text)
	more, trouble, err := r.w.Round(ctx)
	if !more || trouble != nil || err != nil || r.w.Stats().Bytes != maxTurn {
		t.Fatalf("first round: more %v, trouble %v, error %v, %d bytes, expected %d", more, trouble, err, r.w.Stats().Bytes, maxTurn)
	}
	r.quiet()
	r.expect("/log/a.log: " + text)
}

// Texts of the rotations; the head is longer than what is compared.
var (
	a, b, c = lines("a", 0, 40), lines("b", 0, 30), lines("c", 0, 20)
	head    = lines("h", 0, 3000)
)

// rotation is what may happen to a file, and what must come of it. step lets the
// watcher look.
type rotation struct {
	name     string
	patterns string
	do       func(r *rig, step func())
	want     []string
	stats    Stats
}

var rotations = []rotation{
	{"rename and create", "access.log", func(r *rig, step func()) {
		r.host.append("/log/access.log", a)
		step()
		r.host.rename("/log/access.log", "/log/access.log.1")
		step()
		r.host.append("/log/access.log.1", "late\n") // the writer was not told yet
		r.host.append("/log/access.log", b)
		step()
	}, []string{"/log/access.log: " + a + "late\n", "/log/access.log: " + b}, Stats{}},
	{"a chain", "access.log", func(r *rig, step func()) {
		for i, text := range []string{a, b, c} {
			r.host.append("/log/access.log", text)
			step()
			if i > 0 {
				r.host.rename("/log/access.log.1", "/log/access.log.2")
			}
			r.host.rename("/log/access.log", "/log/access.log.1")
			step()
			if i == 1 {
				r.host.remove("/log/access.log.2") // its inode is used again
			}
		}
	}, []string{"/log/access.log: " + a, "/log/access.log: " + b, "/log/access.log: " + c}, Stats{}},
	{"copytruncate, the copy not chosen", "access.log", func(r *rig, step func()) {
		r.host.append("/log/access.log", a)
		step()
		r.host.append("/log/access.log", "unread\n")
		r.host.copy("/log/access.log", "/log/access.log.1")
		r.host.truncate("/log/access.log", 0)
		step()
		r.host.append("/log/access.log", b)
		step()
	}, []string{"/log/access.log: " + a + "unread\n|" + b}, Stats{Truncated: 1}},
	{"copytruncate, the copy chosen and seen first", "*", func(r *rig, step func()) {
		r.host.append("/log/access.log", head)
		step()
		r.host.copy("/log/access.log", "/log/access.log.1")
		step()
		r.host.append("/log/access.log", "lost to the copy\n")
		step()
		r.host.truncate("/log/access.log", 0)
		r.host.append("/log/access.log", b)
		step()
		r.host.rename("/log/access.log.1", "/log/access.log.2")
		r.host.copy("/log/access.log", "/log/access.log.1")
		r.host.truncate("/log/access.log", 0)
		step()
		r.pass(2 * settle)
		step()
	}, []string{"/log/access.log: " + head + "lost to the copy\n|" + b}, Stats{Truncated: 2}},
	{"truncated and longer than before when seen", "access.log", func(r *rig, step func()) {
		r.host.append("/log/access.log", c)
		step()
		r.host.truncate("/log/access.log", 0)
		r.host.append("/log/access.log", a+b)
		step()
	}, []string{"/log/access.log: " + c + "|" + a + b}, Stats{Truncated: 1, Uncopied: 1}},
	{"emptied", "access.log", func(r *rig, step func()) {
		for _, text := range []string{a, b, c} {
			r.host.append("/log/access.log", text)
			step()
			r.host.truncate("/log/access.log", 0)
			step()
		}
	}, []string{"/log/access.log: " + a + "|" + b + "|" + c}, Stats{Truncated: 3, Uncopied: 3}},
	{"cut off at the end", "access.log", func(r *rig, step func()) {
		r.host.append("/log/access.log", head+a)
		step()
		r.host.truncate("/log/access.log", len(head))
		step()
		r.host.append("/log/access.log", b)
		step()
	}, []string{"/log/access.log: " + head + a + "|" + b}, Stats{Truncated: 1}},
	{"cut off within what is compared", "access.log", func(r *rig, step func()) {
		r.host.append("/log/access.log", a+b)
		step()
		r.host.truncate("/log/access.log", len(a))
		step()
	}, []string{"/log/access.log: " + a + b + "|" + a}, Stats{Truncated: 1, Uncopied: 1}},
	{"moved to another file system", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", a)
		step()
		r.host.copy("/log/a.log", "/log/b.log")
		r.host.remove("/log/a.log")
		step()
		r.host.append("/log/b.log", b)
		step()
		step()
	}, []string{"/log/a.log: " + a + b}, Stats{}},
	{"a copy that stays", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", a)
		step()
		r.host.copy("/log/a.log", "/log/b.log")
		step()
		r.pass(settle - 1)
		step()
		if n := len(r.texts()); n != 1 {
			r.t.Errorf("%d streams before the copy has settled, expected 1", n)
		}
		r.pass(1)
		step()
		r.host.append("/log/a.log", c)
		r.host.append("/log/b.log", b)
		step()
	}, []string{"/log/a.log: " + a + c, "/log/b.log: " + a + b}, Stats{}},
	{"files that begin alike", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", "# header\n")
		step()
		r.host.rename("/log/a.log", "/log/a.log.1")
		r.host.append("/log/a.log", "# header\n")
		step() // may be a copy
		for _, text := range []string{"x\n", "y\n"} {
			r.host.append("/log/a.log", text)
			step()
		}
	}, []string{"/log/a.log: # header\n", "/log/a.log: # header\nx\ny\n"}, Stats{}},
	{"compressed", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", a)
		step()
		r.host.append("/log/a.log", "end\n")
		r.host.rename("/log/a.log", "/log/a.log.1")
		r.host.append("/log/a.log.1.gz", "\x1f\x8b\x08compressed\n")
		r.host.remove("/log/a.log.1")
		r.host.append("/log/x.zst", "\x28\xb5\x2f\xfd...")
		step()
	}, []string{"/log/a.log: " + a + "end\n"}, Stats{Compressed: 2}},
	{"compressed while we look", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log.1", a)
		step()
		r.host.append("/log/a.log.1.gz", "") // gzip has made it and writes when it has enough
		step()
		r.host.append("/log/a.log.1.gz", "\x1f\x8b\x08compressed\n")
		step()
		r.host.append("/log/a.log.1.gz", "more\n")
		r.host.remove("/log/a.log.1")
		step()
	}, []string{"/log/a.log.1: " + a}, Stats{Compressed: 1}},
	{"a log with the inode of a compressed file", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", a)
		r.host.append("/log/a.log.7.gz", "\x1f\x8b\x08compressed\n")
		step()
		r.host.rename("/log/a.log", "/log/a.log.1")
		r.host.remove("/log/a.log.7.gz")
		r.host.append("/log/a.log", c)
		step()
	}, []string{"/log/a.log: " + a, "/log/a.log: " + c}, Stats{Compressed: 1}},
	{"hard link", "*", func(r *rig, step func()) {
		r.host.append("/log/a.log", a)
		r.host.mu.Lock()
		r.host.names["/log/b.log"] = r.host.names["/log/a.log"]
		r.host.mu.Unlock()
		step()
	}, []string{"/log/a.log: " + a}, Stats{}},
}

func TestRotations(t *testing.T) {
	for _, tt := range rotations {
		for _, restart := range []bool{false, true} {
			name := tt.name
			if restart {
				name += ", each step in another process"
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t, tt.patterns)
				tt.do(r, func() {
					if restart && !strings.HasPrefix(tt.name, "compressed") && tt.name != "a copy that stays" { // these end in a memory that a restart loses
						r.restart()
					}
					r.quiet()
				})
				if tt.name == "hard link" && len(r.texts()) == 1 {
					return // the name is either
				}
				r.expect(tt.want...)
				if !restart {
					r.wantStats(tt.stats)
				}
			})
		}
	}
}

// TestInodeReuse removes a file while nobody looks; another one gets its inode.
func TestInodeReuse(t *testing.T) {
	r := newRig(t, "*.log")
	r.host.append("/log/a.log", lines("a", 0, 10))
	r.quiet()
	r.kill()
	r.host.remove("/log/a.log")
	r.host.append("/log/b.log", lines("b", 0, 30))
	r.must(r.start())
	r.quiet()
	r.restart()
	r.host.append("/log/b.log", "end\n")
	r.quiet()
	r.expect("/log/a.log: "+lines("a", 0, 10), "/log/b.log: "+lines("b", 0, 30)+"end\n")
}

// TestNewDeviceNumber restarts the machine: the disk has another number.
func TestNewDeviceNumber(t *testing.T) {
	r := newRig(t, "*")
	r.host.append("/log/a.log", "a\n")
	r.host.append("/log/b.log", "b\n")
	r.quiet()
	r.kill()
	r.host.reboot()
	r.host.append("/log/a.log", "more\n")
	r.must(r.start())
	r.quiet()
	r.restart()
	r.quiet()
	r.expect("/log/a.log: a\nmore\n", "/log/b.log: b\n")
}

// TestRemoved reads a removed file to its end, also what is written after.
func TestRemoved(t *testing.T) {
	r := newRig(t, "*")
	r.host.append("/log/a.log", "a\n")
	r.quiet()
	n := r.host.file("/log/a.log")
	r.host.held(n, "b\n")
	r.host.remove("/log/a.log")
	r.quiet()
	r.host.held(n, "c\n")
	r.quiet()
	r.expect("/log/a.log: a\nb\nc\n")
	r.pass(idle)
	r.quiet()
	if n.open != 0 {
		t.Error("a removed file is still open after 10 minutes of silence")
	}
	r.quiet()
	r.pass(remember)
	r.quiet()
	if len(r.w.sources[0].texts) != 0 || r.records() != 0 {
		t.Errorf("%d files in memory, %d records, a week after the only one was removed", len(r.w.sources[0].texts), r.records())
	}
	r.wantStats(Stats{})
}

func (r *rig) records() (n int) {
	r.must(r.spool.Meta("watch/", func(vault.KV) error { n++; return nil }))
	return n
}

// TestVanished removes a file while nobody looks.
func TestVanished(t *testing.T) {
	r := newRig(t, "*")
	r.host.append("/log/a.log", "a\n")
	r.quiet()
	r.kill()
	r.host.append("/log/a.log", "never read\n")
	r.host.remove("/log/a.log")
	r.must(r.start())
	for range 3 {
		r.quiet()
		r.pass(idle)
	}
	r.expect("/log/a.log: a\n")
	r.wantStats(Stats{Vanished: 1})
	if !strings.Contains(r.log.String(), "gone") {
		t.Errorf("not a word in the log: %s", r.log.String())
	}
}

// TestUnmounted takes the directory away, or leaves an empty mount point, for
// longer than anything is remembered.
func TestUnmounted(t *testing.T) {
	for _, empty := range []bool{false, true} {
		r := newRig(t, "*")
		r.host.append("/log/a.log", "a\n")
		r.quiet()
		r.pass(idle)
		r.quiet() // closes it
		mounted := r.host
		r.host = newDisk()
		r.host.device = 99
		r.host.dirs["/log"] = empty
		r.restart()
		if trouble := r.rounds(); empty != (trouble == nil) || !empty && !errors.Is(trouble, fs.ErrNotExist) {
			t.Errorf("empty %v: trouble is %v", empty, trouble)
		}
		for range 4 {
			r.pass(remember)
			r.rounds()
		}
		r.host = mounted
		r.restart()
		r.host.append("/log/a.log", "b\n")
		r.quiet()
		r.expect("/log/a.log: a\nb\n")
	}
}

// TestSilence ends generations that are silent, and goes on after them.
func TestSilence(t *testing.T) {
	r := newRig(t, "a.log")
	r.host.append("/log/a.log", "a\n")
	r.quiet()
	n := r.host.file("/log/a.log")
	r.pass(idle)
	r.quiet()
	if n.open != 0 {
		t.Error("a silent file is open")
	}
	r.host.append("/log/a.log", "b\n")
	r.quiet()
	r.host.rename("/log/a.log", "/log/a.log.1")
	r.quiet()
	r.pass(idle)
	r.quiet()
	r.expect("/log/a.log: a\nb\n")
	r.host.append("/log/a.log.1", "c\n") // who wrote it was not told to open a new one
	r.quiet()
	r.restart()
	r.host.append("/log/a.log.1", "d\n")
	r.quiet()
	r.expect("/log/a.log: a\nb\n|c\nd\n")
	r.host.append("/log/a.log", "e\n")
	r.quiet()
	r.pass(ended)
	r.quiet()
	r.must(r.seal()) // and the spool forgets the generations that are over
	r.restart()
	r.host.append("/log/a.log", "f\n")
	r.quiet()
	r.restart()
	r.quiet()
	r.expect("/log/a.log: a\nb\n|c\nd\n", "/log/a.log: e\n|f\n")
}

func TestDirectories(t *testing.T) {
	r := newRig(t, "*/access.log", "top.log", "x/*/deep*")
	for _, dir := range []string{"/log/site1", "/log/site2", "/log/x", "/log/x/y", "/log/x/y/z"} {
		r.host.dirs[dir] = true
	}
	for _, name := range []string{"top.log", "access.log", "site1/access.log", "site1/error.log", "x/access.log", "x/y/deep.log", "x/y/access.log", "x/y/z/deep.log"} {
		r.host.append("/log/"+name, name+"\n")
	}
	r.host.append("/log/site2/access.log", "fifo")
	r.host.file("/log/site2/access.log").special = true
	r.quiet()
	r.expect("/log/top.log: top.log\n", "/log/site1/access.log: site1/access.log\n", "/log/x/access.log: x/access.log\n", "/log/x/y/deep.log: x/y/deep.log\n")
}

// TestUnreadable goes on with the others, says so, and tries again.
func TestUnreadable(t *testing.T) {
	for _, op := range []string{"open", "stat", "read", "sync"} {
		r := newRig(t, "*")
		r.host.append("/log/a.log", "a\n")
		r.host.append("/log/b.log", "b\n")
		r.host.hook = func(o, name string) error {
			if o == op && name == "/log/b.log" {
				return syscall.EACCES
			}
			return nil
		}
		trouble := r.rounds()
		if !errors.Is(trouble, syscall.EACCES) || !strings.Contains(trouble.Error(), "/log/b.log") || r.w.Stats().Unreadable != 1 {
			t.Errorf("%s fails: trouble %v, counted %+v", op, trouble, r.w.Stats())
		}
		r.host.hook = nil
		r.quiet()
		r.quiet()
		r.expect("/log/a.log: a\n", "/log/b.log: b\n")
		r.wantStats(Stats{})
	}
	r := newRig(t, "*", "sub/*")
	r.host.dirs["/log/sub"] = true
	r.host.append("/log/a.log", "a\n")
	r.host.hook = func(o, name string) error {
		if o == "list" && name == "/log/sub" {
			return syscall.EIO
		}
		return nil
	}
	if trouble := r.rounds(); !errors.Is(trouble, syscall.EIO) {
		t.Errorf("a directory that cannot be listed: trouble %v", trouble)
	}
	r.expect("/log/a.log: a\n")
}

// TestFull waits while the spool has no room.
func TestFull(t *testing.T) {
	r := newRig(t, "*")
	r.kill()
	r.max = 16 << 20
	r.must(r.start())
	text := lines("a", 0, 500_000)
	r.host.append("/log/a.log", text)
	trouble := r.rounds()
	if !errors.Is(trouble, vault.ErrFull) {
		t.Fatalf("trouble is %v, expected a full spool", trouble)
	}
	for i := 0; trouble != nil && i < 100; i++ {
		r.must(r.seal())
		if i%3 == 0 {
			r.restart()
		}
		trouble = r.rounds()
	}
	r.quiet()
	r.expect("/log/a.log: " + text)
}

// TestSpoolFails makes the error of the spool final.
func TestSpoolFails(t *testing.T) {
	r := newRig(t, "*")
	r.host.append("/log/a.log", "a\n")
	r.hook = func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	}
	if _, err := r.step(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("error is %v, expected that of the spool's disk", err)
	}
}

// TestTwoWatches follows a file once per source, whichever watch finds it.
func TestTwoWatches(t *testing.T) {
	r := newRig(t, "*.log")
	r.watch = append(r.watch, Watch{Source: "web1", Directory: "/log", Patterns: []string{"a*"}}, Watch{Source: "lb1", Directory: "/log", Patterns: []string{"b.log"}})
	r.restart()
	r.host.append("/log/a.log", "a\n")
	r.host.append("/log/b.log", "b\n")
	r.quiet()
	r.restart()
	r.quiet()
	r.expect("/log/a.log: a\n", "/log/b.log: b\n", "/log/b.log: b\n")
}
