package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"
	"unsafe"
)

// OS is the real disk.
//
// Sync is fdatasync: it writes the bytes and whatever is needed to find them
// again, which includes a grown size, but not the times. Preallocate is
// fallocate, and writes zeros where the file system has no such call. Lock is
// flock(LOCK_EX|LOCK_NB). A directory on a file system that cannot sync
// directories (some network and FUSE mounts answer EINVAL) counts as synced:
// there is nothing more to be done there, and DESIGN §6.6 does not rely on it.
var OS FS = osFS{}

type osFS struct{}

// Open is open(O_RDONLY). A directory can be opened, but not read.
func (osFS) Open(name string) (File, error) { return openFile(name, os.O_RDONLY, 0) }

// OpenRW is open(O_RDWR); a directory is EISDIR.
func (osFS) OpenRW(name string) (File, error) { return openFile(name, os.O_RDWR, 0) }

// Create is open(O_RDWR|O_CREAT|O_EXCL): a symbolic link is an existing name,
// wherever it points. The umask applies to perm.
func (osFS) Create(name string, perm fs.FileMode) (File, error) {
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}

func openFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Link is link(2). Directories are EPERM, another file system is EXDEV.
func (osFS) Link(oldname, newname string) error { return os.Link(oldname, newname) }

// Rename is rename(2), but an existing directory is never replaced: package os
// gives EEXIST for it.
func (osFS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// RenameNew is renameat2(RENAME_NOREPLACE). EINVAL says that the file system
// lacks it.
func (osFS) RenameNew(oldname, newname string) error {
	const noReplace = 1 // RENAME_NOREPLACE of linux/fs.h
	oldp, err := syscall.BytePtrFromString(oldname)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: oldname, New: newname, Err: err}
	}
	newp, err := syscall.BytePtrFromString(newname)
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: oldname, New: newname, Err: err}
	}
	const atCWD = -0x64 // AT_FDCWD of linux/fcntl.h
	cwd := atCWD
	err = retry(func() error {
		_, _, errno := syscall.Syscall6(sysRenameat2, uintptr(cwd), uintptr(unsafe.Pointer(oldp)),
			uintptr(cwd), uintptr(unsafe.Pointer(newp)), noReplace, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return &os.LinkError{Op: "renameat2", Old: oldname, New: newname, Err: err}
	}
	return nil
}

// Remove is unlink(2) or rmdir(2).
func (osFS) Remove(name string) error { return os.Remove(name) }

// Mkdir is mkdir(2). The umask applies to perm.
func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// ReadDir reads the directory to its end and sorts the names as bytes.
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Stat is stat(2).
func (osFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Chmod is chmod(2). It is not made durable.
func (osFS) Chmod(name string, mode fs.FileMode) error { return os.Chmod(name, mode) }

// SyncDir is fsync(2) on the directory. EINVAL counts as success: see OS.
func (osFS) SyncDir(name string) error {
	d, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close() // opened for reading: nothing to lose
	if !syncing {
		return nil
	}
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// Lock is flock(LOCK_EX|LOCK_NB) on a file that it makes with mode 0600. The
// lock belongs to the open file, so a second Lock in this process fails too.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	f.Close() // holds nothing
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
}

// LockOwn is fsys.Lock(name) if the directory that name is in belongs to this
// process's user. Root could write into another user's directory, and what it
// made there would shut the owner out: fs.ErrPermission, or ErrLocked while the
// owner itself holds the lock. A file system without owners, such as Mem, passes.
func LockOwn(fsys FS, name string) (io.Closer, error) {
	dir := path.Dir(name)
	info, err := fsys.Stat(dir)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return fsys.Lock(name)
	}
	foreign := fmt.Errorf("%s belongs to user %d, this is user %d: %w", dir, st.Uid, os.Geteuid(), fs.ErrPermission)
	if _, err := fsys.Stat(name); err != nil {
		return nil, foreign // Lock would make the file
	}
	lock, err := fsys.Lock(name)
	if err != nil {
		return nil, err
	}
	lock.Close() // nothing was written
	return nil, foreign
}

// Space is statfs(2). Free is what is left to unprivileged users.
func (osFS) Space(name string) (Space, error) {
	var st syscall.Statfs_t
	if err := retry(func() error { return syscall.Statfs(name, &st) }); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return Space{Total: int64(st.Blocks) * unit, Free: int64(st.Bavail) * unit}, nil
}

type osFile struct{ *os.File }

// Sync is fdatasync(2).
func (f osFile) Sync() error {
	if !syncing {
		return nil
	}
	if err := control(f.File, syscall.Fdatasync); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// WriteBack is sync_file_range(SYNC_FILE_RANGE_WRITE). An error in writing out is
// kept by the kernel for the next Sync.
func (f osFile) WriteBack(off, n int64) {
	const writeOut = 2
	if syncing {
		_ = control(f.File, func(fd int) error { return syscall.SyncFileRange(fd, off, n, writeOut) })
	}
}

// Preallocate is fallocate(2), or writes zeros behind the end of the file where
// the file system has no such call.
func (f osFile) Preallocate(size int64) error {
	err := control(f.File, func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, errors.ErrUnsupported) {
		return f.fillZeros(size)
	}
	if err != nil {
		return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// fillZeros extends the file with written zeros up to size.
func (f osFile) fillZeros(size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for off := info.Size(); off < size; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// control runs fn on the descriptor while it is certainly open.
func control(f *os.File, fn func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = rc.Control(func(fd uintptr) {
		opErr = retry(func() error { return fn(int(fd)) })
	})
	if err != nil {
		return fs.ErrClosed // the only cause, under a name that package os keeps to itself
	}
	return opErr
}

// retry repeats a system call that a signal interrupted.
func retry(fn func() error) error {
	for {
		if err := fn(); err != syscall.EINTR {
			return err
		}
	}
}

// Boottime returns the time since the machine started, time asleep included
// (CLOCK_BOOTTIME). Nobody can set it.
func Boottime() time.Duration {
	const clockBoottime = 7
	var ts syscall.Timespec
	// The call fails only for an unknown clock or a bad address.
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("vfs: clock_gettime(CLOCK_BOOTTIME): " + errno.Error())
	}
	return time.Duration(ts.Nano())
}
