// Package vfs is the only door to the disk for everything that must survive a
// crash: the spool, the ledger and the directory store.
//
// It exists so that durability can be tested. There are three file systems
// behind the one interface: OS, the real one; Mem, in memory, which keeps apart
// what was synced and can be cloned as a crash would leave it; and Fault, a
// wrapper that fails chosen operations.
//
// The model of a disk is the pessimistic one of POSIX: bytes written to a file
// survive a crash only after File.Sync; names (create, link, rename, remove)
// survive only after SyncDir of their directory; what was not synced may
// survive wholly, partly or not at all, in any order. A failed Sync leaves the
// state of the unsynced bytes unknown, and a later successful Sync of the same
// file proves nothing.
package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// ErrLocked says that another process (or another holder in this one) has the lock.
var ErrLocked = errors.New("locked by another process")

// File is an open file. Reads and writes at offsets may be concurrent.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes durable, and its size as far as needed to
	// read them back (fdatasync). After an error the file must not be trusted
	// or synced again.
	Sync() error
	// WriteBack asks the system to begin writing out n bytes at off, so that a
	// later Sync has less to wait for. It is a hint: it waits for nothing and
	// says nothing about durability.
	WriteBack(off, n int64)
	// Preallocate reserves size bytes from the start of the file and extends
	// it with zeros. ENOSPC is reported here rather than by a later write.
	Preallocate(size int64) error
	// Truncate sets the size.
	Truncate(size int64) error
	// Stat describes the file.
	Stat() (fs.FileInfo, error)
	// Name is the name the file was opened with.
	Name() string
}

// Flags are attributes of a file or directory that bind root too, until they
// are cleared; linux/fs.h gives them their values.
type Flags uint32

// The flags that logvault uses.
const (
	FlagImmutable Flags = 0x10 // no write, link, rename, removal or change of mode
	FlagAppend    Flags = 0x20 // of a directory: names can be made, but not moved or removed
)

// Space is the room of a file system in bytes, for unprivileged writers.
type Space struct {
	Total, Free int64
}

// FS is a file system. Names are slash-separated paths as the operating system
// takes them. Errors wrap fs.ErrNotExist, fs.ErrExist and fs.ErrPermission.
// Implementations are safe for concurrent use.
type FS interface {
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing. It never creates.
	OpenRW(name string) (File, error)
	// Create makes a new file for reading and writing; an existing name is
	// fs.ErrExist. The name is durable only after SyncDir.
	Create(name string, perm fs.FileMode) (File, error)
	// Link gives the file a second name; an existing newname is fs.ErrExist.
	Link(oldname, newname string) error
	// Rename moves a name, replacing newname atomically.
	Rename(oldname, newname string) error
	// RenameNew moves a name that must not exist yet, else fs.ErrExist. It is
	// for file systems without links; some have neither.
	RenameNew(oldname, newname string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// Mkdir makes one directory; an existing name is fs.ErrExist.
	Mkdir(name string, perm fs.FileMode) error
	// ReadDir lists a directory in lexical order.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat describes a name, following symbolic links.
	Stat(name string) (fs.FileInfo, error)
	// Chmod sets the permission bits.
	Chmod(name string, mode fs.FileMode) error
	// Flags tells which of the flags below a file or directory has. A file
	// system without flags gives errors.ErrUnsupported.
	Flags(name string) (Flags, error)
	// SetFlags sets some flags, clears others and keeps all the rest, also those
	// unknown here. It needs CAP_LINUX_IMMUTABLE, else fs.ErrPermission.
	SetFlags(name string, set, clear Flags) error
	// SyncDir makes the names within a directory durable: all that were made,
	// moved or removed there before the call.
	SyncDir(name string) error
	// Lock takes an exclusive advisory lock on a file, which it creates if
	// absent, without waiting: ErrLocked if it is held. Close releases it.
	// The lock dies with the process.
	Lock(name string) (io.Closer, error)
	// Space tells the room of the file system that holds name.
	Space(name string) (Space, error)
}
