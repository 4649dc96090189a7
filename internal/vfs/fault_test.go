package vfs

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

var errInjected = errors.New("injected")

// TestFaultEachOp fails each operation alone, not carried out and carried out.
func TestFaultEachOp(t *testing.T) {
	type world struct {
		mem  *Mem
		fsys FS
		file File
	}
	absent := func(name string) func(world) bool {
		return func(w world) bool {
			_, err := w.mem.Stat(name)
			return errors.Is(err, fs.ErrNotExist)
		}
	}
	not := func(fn func(world) bool) func(world) bool { return func(w world) bool { return !fn(w) } }
	content := func(want string) func(world) bool {
		return func(w world) bool { return get(t, w.mem, "/f") == want }
	}
	tests := []struct {
		op   Op
		name string
		run  func(w world) error
		done func(w world) bool // nil if the operation leaves no trace
	}{
		{OpOpen, "/f", func(w world) error { _, err := w.fsys.Open("/f"); return err }, nil},
		{OpOpenRW, "/f", func(w world) error { _, err := w.fsys.OpenRW("/f"); return err }, nil},
		{OpCreate, "/n", func(w world) error { _, err := w.fsys.Create("/n", 0o600); return err }, not(absent("/n"))},
		{OpLink, "/n", func(w world) error { return w.fsys.Link("/f", "/n") }, not(absent("/n"))},
		{OpRename, "/n", func(w world) error { return w.fsys.Rename("/f", "/n") }, absent("/f")},
		{OpRename, "/n", func(w world) error { return w.fsys.RenameNew("/f", "/n") }, absent("/f")},
		{OpRemove, "/f", func(w world) error { return w.fsys.Remove("/f") }, absent("/f")},
		{OpMkdir, "/n", func(w world) error { return w.fsys.Mkdir("/n", 0o700) }, not(absent("/n"))},
		{OpReadDir, "/", func(w world) error { _, err := w.fsys.ReadDir("/"); return err }, nil},
		{OpStat, "/f", func(w world) error { _, err := w.fsys.Stat("/f"); return err }, nil},
		{OpStat, "/f", func(w world) error { _, err := w.file.Stat(); return err }, nil},
		{OpChmod, "/f", func(w world) error { return w.fsys.Chmod("/f", 0o440) }, func(w world) bool {
			info, err := w.mem.Stat("/f")
			return err == nil && info.Mode() == 0o440
		}},
		{OpFlags, "/f", func(w world) error { _, err := w.fsys.Flags("/f"); return err }, nil},
		{OpSetFlags, "/f", func(w world) error { return w.fsys.SetFlags("/f", FlagImmutable, 0) }, func(w world) bool {
			flags, err := w.mem.Flags("/f")
			return err == nil && flags == FlagImmutable
		}},
		{OpSyncDir, "/", func(w world) error { return w.fsys.SyncDir("/") }, func(w world) bool { return w.mem.root.durable["f"] != nil }},
		{OpLock, "/l", func(w world) error { _, err := w.fsys.Lock("/l"); return err }, nil},
		{OpWrite, "/f", func(w world) error { _, err := w.file.Write([]byte("X")); return err }, content("Xata")},
		{OpWrite, "/f", func(w world) error { _, err := w.file.WriteAt([]byte("X"), 1); return err }, content("dXta")},
		{OpRead, "/f", func(w world) error { _, err := w.file.Read(make([]byte, 1)); return err }, nil},
		{OpRead, "/f", func(w world) error { _, err := w.file.ReadAt(make([]byte, 1), 0); return err }, nil},
		{OpSync, "/f", func(w world) error { return w.file.Sync() }, func(w world) bool {
			return w.mem.root.names["f"].file.syncedSize == 4
		}},
		{OpTruncate, "/f", func(w world) error { return w.file.Truncate(2) }, content("da")},
		{OpPrealloc, "/f", func(w world) error { return w.file.Preallocate(5) }, content("data\x00")},
	}
	for _, tt := range tests {
		for _, executed := range []bool{false, true} {
			m := NewMem()
			put(t, m, "/f", "data")
			armed := false
			fsys := NewFault(m, func(op Op, name string) error {
				if !armed {
					return nil
				}
				if op != tt.op || name != tt.name {
					t.Errorf("hook asked about %s %s, expected %s %s", op, name, tt.op, tt.name)
				}
				if executed {
					return Executed(errInjected)
				}
				return errInjected
			})
			file, err := fsys.OpenRW("/f")
			must(t, err)
			armed = true
			w := world{m, fsys, file}
			wantErr(t, string(tt.op), tt.run(w), errInjected)
			if tt.done != nil && tt.done(w) != executed {
				t.Errorf("%s with executed %v: done is %v", tt.op, executed, tt.done(w))
			}
			armed = false
			if tt.op != OpLock {
				continue
			}
			l, err := fsys.Lock("/l") // a lock taken for nobody is let go
			must(t, err)
			must(t, l.Close())
		}
	}
}

func TestFaultExecutedReportsTheRealError(t *testing.T) {
	fsys := NewFault(NewMem(), func(Op, string) error { return Executed(errInjected) })
	wantErr(t, "Remove of nothing", fsys.Remove("/none"), fs.ErrNotExist)
}

// TestFaultNested checks that a failed sync loses pages through two wrappers.
func TestFaultNested(t *testing.T) {
	m := NewMem()
	pass := func(Op, string) error { return nil }
	fsys := NewFault(NewFault(m, pass), func(op Op, _ string) error {
		if op == OpSync {
			return syscall.EIO
		}
		return nil
	})
	f, err := fsys.Create("/f", 0o600)
	must(t, err)
	_, err = f.Write([]byte("x"))
	must(t, err)
	wantErr(t, "Sync", f.Sync(), syscall.EIO)
	if c := &m.root.names["f"].file; len(c.lost) != 1 || len(c.dirty) != 0 || !c.sizeLost {
		t.Errorf("lost %v, dirty %v, size lost %v", c.lost, c.dirty, c.sizeLost)
	}
}

// TestPublishWithoutLinks runs Publish on file systems that lack calls.
func TestPublishWithoutLinks(t *testing.T) {
	for _, errno := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS} {
		m := NewMem()
		fsys := NewFault(m, func(op Op, _ string) error {
			if op == OpLink {
				return errno
			}
			return nil
		})
		put(t, fsys, "/t", "one")
		must(t, Publish(fsys, "/t", "/n"))
		wantContent(t, fsys, "/n", "one")
		put(t, fsys, "/t2", "two")
		wantErr(t, "second Publish", Publish(fsys, "/t2", "/n"), fs.ErrExist)
		wantContent(t, fsys, "/n", "one")
	}
	neither := NewFault(NewMem(), func(op Op, _ string) error {
		switch op {
		case OpLink:
			return syscall.EPERM
		case OpRename:
			return syscall.EINVAL
		}
		return nil
	})
	put(t, neither, "/t", "one")
	err := Publish(neither, "/t", "/n")
	wantErr(t, "Publish without link and rename", err, syscall.EINVAL)
	wantErr(t, "its cause", err, syscall.EPERM)
	other := NewFault(NewMem(), func(op Op, _ string) error {
		if op == OpLink {
			return syscall.EIO
		}
		return nil
	})
	put(t, other, "/t", "one")
	wantErr(t, "Publish with a failing disk", Publish(other, "/t", "/n"), syscall.EIO)
}
