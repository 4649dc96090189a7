package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

func TestLocal(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "a.log"), []byte("text"), 0o600))
	must(os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "sub", "b.log"), nil, 0o600))
	must(os.WriteFile(filepath.Join(outside, "secret.log"), []byte("secret"), 0o600))
	must(os.Symlink(filepath.Join(outside, "secret.log"), filepath.Join(dir, "link.log")))
	must(os.Symlink("a.log", filepath.Join(dir, "inner.log")))
	must(os.Symlink(outside, filepath.Join(dir, "linked")))
	must(syscall.Mkfifo(filepath.Join(dir, "fifo.log"), 0o600))

	d, err := Local{}.OpenDir(dir)
	must(err)
	defer d.Close()
	list, err := d.List(".")
	must(err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	if want := []string{"a.log", "sub"}; !slices.Equal(names, want) {
		t.Errorf("listed %q, expected %q", names, want)
	}
	for _, name := range []string{"link.log", "linked/secret.log", "../" + filepath.Base(outside) + "/secret.log", "fifo.log", "sub", "absent"} {
		if f, err := d.Open(name); err == nil {
			f.Close()
			t.Errorf("opened %s", name)
		}
	}
	f, err := d.Open("a.log")
	must(err)
	defer f.Close()
	info, err := f.Stat()
	device, derr := d.Device()
	must(errors.Join(err, derr, f.Sync()))
	if !info.Regular || info.Size != 4 || info.ID.Inode == 0 || info.ID.Device != device || info.Changed == 0 {
		t.Errorf("described as %+v on device %d", info, device)
	}
	buf := make([]byte, 8)
	if n, err := f.ReadAt(buf, 1); n != 3 || err != io.EOF || string(buf[:n]) != "ext" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if _, err := (Local{}).OpenDir(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent directory: %v", err)
	}
}

// reports collects what Run reports.
type reports struct {
	mu   sync.Mutex
	last error
	n    int
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.n = err, r.n+1
}

func (r *reports) get() (error, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.n
}

// TestRun watches a real directory: inotify wakes it, for regular rounds do not
// come, also in a directory that was made later, and in one that took the place
// of another.
func TestRun(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "log")
	r.must(os.Mkdir(dir, 0o700))
	r.watch = []Watch{{Source: "web1", Directory: dir, Patterns: []string{"*.log", "*/*.log"}}}
	r.restart()
	r.w.cfg.Host, r.w.rescan = Local{}, time.Hour
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var heard reports
	ended := make(chan error, 1)
	go func() { ended <- r.w.Run(ctx, heard.add) }()
	want := 0
	put := func(name, text string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		r.must(err)
		_, err = f.WriteString(text)
		r.must(errors.Join(err, f.Close()))
		want += len(text)
		wait(t, fmt.Sprintf("%d bytes", want), func() bool { return r.w.Stats().Bytes == int64(want) })
	}
	put("a.log", "one\n")
	put("a.log", "two\n")
	r.must(os.Rename(filepath.Join(dir, "a.log"), filepath.Join(dir, "a.log.1")))
	put("a.log.1", "late\n")
	put("a.log", "new\n")
	r.must(os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	put("sub/b.log", "below\n")
	r.must(os.Rename(dir, dir+"-off"))
	wait(t, "the missing directory", func() bool { err, _ := heard.get(); return errors.Is(err, fs.ErrNotExist) })
	r.must(os.Rename(dir+"-off", dir))
	wait(t, "no trouble", func() bool { err, _ := heard.get(); return err == nil })
	put("a.log", "back\n")
	stop()
	r.must(<-ended)
	var got []string
	for _, s := range r.texts() {
		got = append(got, strings.TrimPrefix(s, dir))
	}
	if want := []string{"/a.log: new\nback\n", "/a.log: one\ntwo\nlate\n", "/sub/b.log: below\n"}; !slices.Equal(got, want) {
		t.Errorf("archived %q, expected %q", got, want)
	}
}

// TestNotifierWaits: an overflow of the queue makes a round at once, and without
// inotify rounds go on.
func TestNotifierWaits(t *testing.T) {
	n, err := newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	begin := time.Now()
	go func() { n.w.Errors <- fsnotify.ErrEventOverflow }() // taken by wait
	n.wait(ctx, time.Hour)
	var none *notifier
	none.begin()
	none.wait(ctx, time.Millisecond)
	over, cancel := context.WithCancel(ctx)
	cancel()
	none.wait(over, time.Hour)
	if d := time.Since(begin); none.trouble() != nil || d > time.Minute {
		t.Errorf("waited %v, trouble %v", d, none.trouble())
	}
}

// TestRunEnds with the spool's error.
func TestRunEnds(t *testing.T) {
	r := newRig(t, "*")
	r.host.append("/log/a.log", "a\n")
	r.must(r.spool.Close())
	if err := r.w.Run(ctx, func(error) {}); err == nil {
		t.Error("it ended without the error of a closed spool")
	}
}

func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	beat := time.NewTicker(5 * time.Millisecond)
	defer beat.Stop()
	for !cond() {
		if <-beat.C; time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
