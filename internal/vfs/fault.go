package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// Op names an operation to the hook of NewFault.
type Op string

// The operations. OpRead and OpWrite stand for the calls with and without an
// offset; OpRename also for RenameNew.
const (
	OpOpen     Op = "open"
	OpOpenRW   Op = "openrw"
	OpCreate   Op = "create"
	OpLink     Op = "link"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
	OpReadDir  Op = "readdir"
	OpStat     Op = "stat"
	OpChmod    Op = "chmod"
	OpFlags    Op = "flags"
	OpSetFlags Op = "setflags"
	OpSyncDir  Op = "syncdir"
	OpLock     Op = "lock"
	OpWrite    Op = "write"
	OpRead     Op = "read"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpPrealloc Op = "prealloc"
)

// NewFault returns base with a hook that is asked before each operation, with
// the name it is about (the new name of a link or rename, the opened name of a
// file). If the hook returns an error, the operation is not carried out and
// fails with it; if the error was made by Executed, it is carried out and
// still fails, as when an answer is lost. The hook may be called concurrently.
//
// A failed Sync on a file of a Mem behaves as on Linux: what was not yet synced
// stays readable, yet no later Sync writes it.
func NewFault(base FS, hook func(op Op, name string) error) FS {
	return &faultFS{base, hook}
}

// Executed marks err so that an operation fails with it after having been carried out.
func Executed(err error) error { return executedError{err} }

type executedError struct{ error }

// Unwrap lets callers see the error that the hook gave.
func (e executedError) Unwrap() error { return e.error }

type faultFS struct {
	base FS
	hook func(op Op, name string) error
}

// do asks the hook and runs the operation accordingly.
func (f *faultFS) do(op Op, name string, run func() error) error {
	err := f.hook(op, name)
	var late executedError
	switch {
	case err == nil:
		return run()
	case errors.As(err, &late):
		if runErr := run(); runErr != nil {
			return runErr
		}
	}
	return err
}

func (f *faultFS) open(op Op, name string, open func() (File, error)) (File, error) {
	var file File
	err := f.do(op, name, func() (err error) {
		file, err = open()
		return err
	})
	if err != nil {
		if file != nil {
			file.Close() // the caller never sees it
		}
		return nil, err
	}
	return &faultFile{file, f}, nil
}

// Open asks about OpOpen. The files of all three ways to open ask the same hook.
func (f *faultFS) Open(name string) (File, error) {
	return f.open(OpOpen, name, func() (File, error) { return f.base.Open(name) })
}

// OpenRW asks about OpOpenRW.
func (f *faultFS) OpenRW(name string) (File, error) {
	return f.open(OpOpenRW, name, func() (File, error) { return f.base.OpenRW(name) })
}

// Create asks about OpCreate.
func (f *faultFS) Create(name string, perm fs.FileMode) (File, error) {
	return f.open(OpCreate, name, func() (File, error) { return f.base.Create(name, perm) })
}

// Link asks about OpLink and newname.
func (f *faultFS) Link(oldname, newname string) error {
	return f.do(OpLink, newname, func() error { return f.base.Link(oldname, newname) })
}

// Rename asks about OpRename and newname.
func (f *faultFS) Rename(oldname, newname string) error {
	return f.do(OpRename, newname, func() error { return f.base.Rename(oldname, newname) })
}

// RenameNew asks about OpRename and newname too: hooks care what happens to a
// name, not by which call.
func (f *faultFS) RenameNew(oldname, newname string) error {
	return f.do(OpRename, newname, func() error { return f.base.RenameNew(oldname, newname) })
}

// Remove asks about OpRemove.
func (f *faultFS) Remove(name string) error {
	return f.do(OpRemove, name, func() error { return f.base.Remove(name) })
}

// Mkdir asks about OpMkdir.
func (f *faultFS) Mkdir(name string, perm fs.FileMode) error {
	return f.do(OpMkdir, name, func() error { return f.base.Mkdir(name, perm) })
}

// ReadDir asks about OpReadDir. A call that fails after it was carried out still
// returns what it read.
func (f *faultFS) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = f.do(OpReadDir, name, func() (err error) {
		list, err = f.base.ReadDir(name)
		return err
	})
	return list, err
}

// Stat asks about OpStat.
func (f *faultFS) Stat(name string) (info fs.FileInfo, err error) {
	err = f.do(OpStat, name, func() (err error) {
		info, err = f.base.Stat(name)
		return err
	})
	return info, err
}

// Chmod asks about OpChmod.
func (f *faultFS) Chmod(name string, mode fs.FileMode) error {
	return f.do(OpChmod, name, func() error { return f.base.Chmod(name, mode) })
}

// Flags asks about OpFlags.
func (f *faultFS) Flags(name string) (flags Flags, err error) {
	err = f.do(OpFlags, name, func() (err error) {
		flags, err = f.base.Flags(name)
		return err
	})
	return flags, err
}

// SetFlags asks about OpSetFlags.
func (f *faultFS) SetFlags(name string, set, clear Flags) error {
	return f.do(OpSetFlags, name, func() error { return f.base.SetFlags(name, set, clear) })
}

// SyncDir asks about OpSyncDir.
func (f *faultFS) SyncDir(name string) error {
	return f.do(OpSyncDir, name, func() error { return f.base.SyncDir(name) })
}

// Lock asks about OpLock. A lock that was taken and is reported as failed is let
// go, since the caller has nothing to close.
func (f *faultFS) Lock(name string) (c io.Closer, err error) {
	err = f.do(OpLock, name, func() (err error) {
		c, err = f.base.Lock(name)
		return err
	})
	if err != nil && c != nil {
		c.Close() // the caller never sees it
	}
	return c, err
}

// Space asks nobody: a hook fails what moves or reads data.
func (f *faultFS) Space(name string) (Space, error) { return f.base.Space(name) }

// faultFile asks the hook of its file system before each operation on the file.
type faultFile struct {
	File
	fs *faultFS
}

func (f *faultFile) count(op Op, run func() (int, error)) (n int, err error) {
	err = f.fs.do(op, f.Name(), func() (err error) {
		n, err = run()
		return err
	})
	return n, err
}

// Read asks about OpRead.
func (f *faultFile) Read(p []byte) (int, error) {
	return f.count(OpRead, func() (int, error) { return f.File.Read(p) })
}

// ReadAt asks about OpRead.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	return f.count(OpRead, func() (int, error) { return f.File.ReadAt(p, off) })
}

// Write asks about OpWrite. A failed call that was carried out returns how much
// it wrote beside its error.
func (f *faultFile) Write(p []byte) (int, error) {
	return f.count(OpWrite, func() (int, error) { return f.File.Write(p) })
}

// WriteAt is like Write.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.count(OpWrite, func() (int, error) { return f.File.WriteAt(p, off) })
}

// Sync asks about OpSync. If it is not carried out, the unsynced bytes of a file
// of a Mem are lost to later syncs; see NewFault.
func (f *faultFile) Sync() error {
	ran := false
	err := f.fs.do(OpSync, f.Name(), func() error {
		ran = true
		return f.File.Sync()
	})
	if !ran {
		f.failSync()
	}
	return err
}

func (f *faultFile) failSync() {
	if m, ok := f.File.(interface{ failSync() }); ok {
		m.failSync()
	}
}

// Truncate asks about OpTruncate.
func (f *faultFile) Truncate(size int64) error {
	return f.fs.do(OpTruncate, f.Name(), func() error { return f.File.Truncate(size) })
}

// Preallocate asks about OpPrealloc.
func (f *faultFile) Preallocate(size int64) error {
	return f.fs.do(OpPrealloc, f.Name(), func() error { return f.File.Preallocate(size) })
}

// Stat asks about OpStat.
func (f *faultFile) Stat() (info fs.FileInfo, err error) {
	err = f.fs.do(OpStat, f.Name(), func() (err error) {
		info, err = f.File.Stat()
		return err
	})
	return info, err
}
