package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory for tests. It behaves like OS and keeps apart
// what was synced, so that CrashClone can tell what a crash would leave.
// Permission bits are kept but not enforced. Relative and absolute names mean
// the same; "/" always exists. It is safe for concurrent use.
//
// Bytes: each file has its live content and the content of its last sync, as
// pages shared between the two until written. Names: each directory has its
// live entries and its durable ones; between them stands the list of changes
// not yet synced, in the order they were made.
type Mem struct {
	mu      sync.Mutex // guards everything below, and all nodes and open files
	root    *node
	pending []*change // in order; some may be done
	made    int       // changes ever made
	done    int       // changes in pending that are done
	locked  map[*node]bool
	space   Space // as set; space.Free counts when used was usedAtSet
	used    int64 // bytes of pages of named files
	setAt   int64 // used at the time of SetSpace
	now     func() time.Time
}

// node is a file or a directory.
type node struct {
	dir     bool
	mode    fs.FileMode
	modTime time.Time
	flags   Flags
	nlink   int // live names of a file
	file    content
	names   map[string]*node // live entries of a directory
	durable map[string]*node // entries that a crash keeps
	changes []*change        // of a directory's entries, in order; some may be done
}

// dentry is the place of one name.
type dentry struct {
	dir  *node
	name string
}

// change is one unsynced operation on names: each dentry gets its new node, or
// nil for none. A rename changes two at once and a crash never splits it.
type change struct {
	at   [2]dentry // at[1].dir is nil if there is one only
	to   [2]*node
	seq  int
	done bool // it is durable
}

// NewMem returns an empty file system with 1 TiB of free space.
func NewMem() *Mem {
	const size = 1 << 40
	return &Mem{root: newDir(0o755), locked: map[*node]bool{}, space: Space{Total: size, Free: size}, now: time.Now}
}

// SetClock gives the clock that files get their times of modification from, the
// real one at first. It is called with the file system locked.
func (m *Mem) SetClock(now func() time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = now
}

func newDir(perm fs.FileMode) *node {
	return &node{
		dir: true, mode: fs.ModeDir | perm.Perm(), modTime: time.Now(),
		names: map[string]*node{}, durable: map[string]*node{},
	}
}

// SetSpace sets the size of the file system and the room left in it now.
// Only the content of files takes room.
func (m *Mem) SetSpace(s Space) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space, m.setAt = s, m.used
}

// Space returns the size set by SetSpace and the room left.
func (m *Mem) Space(name string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return Space{}, pathError("statfs", name, err)
	}
	return Space{Total: m.space.Total, Free: max(0, m.free())}, nil
}

func (m *Mem) free() int64 { return m.space.Free - (m.used - m.setAt) }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func linkError(op, oldname, newname string, err error) error {
	return &os.LinkError{Op: op, Old: oldname, New: newname, Err: err}
}

// split returns the parts of a name, none for the root.
func split(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// find returns the node of a name.
func (m *Mem) find(name string) (*node, error) { return m.walk(split(name)) }

func (m *Mem) walk(parts []string) (*node, error) {
	n := m.root
	for _, part := range parts {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		next, ok := n.names[part]
		if !ok {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, nil
}

// place returns the dentry of a name, whose directory must exist.
func (m *Mem) place(name string) (dentry, error) {
	if strings.ContainsRune(name, 0) {
		return dentry{}, syscall.EINVAL
	}
	parts := split(name)
	if len(parts) == 0 {
		return dentry{}, syscall.EEXIST
	}
	dir, err := m.walk(parts[:len(parts)-1])
	if err != nil {
		return dentry{}, err
	}
	if !dir.dir {
		return dentry{}, syscall.ENOTDIR
	}
	return dentry{dir, parts[len(parts)-1]}, nil
}

// apply carries out a change of names and remembers it as unsynced.
func (m *Mem) apply(c change) {
	m.made++
	c.seq = m.made
	c.each(func(at dentry, to *node) {
		if old := at.dir.names[at.name]; old != nil {
			m.unlink(old)
		}
		if to != nil {
			m.link(to)
		}
		setEntry(at.dir.names, at.name, to)
		at.dir.modTime = m.now()
		at.dir.changes = append(at.dir.changes, &c)
	})
	m.pending = append(m.pending, &c)
}

// link and unlink count the names of a node, and its room while it has any.
func (m *Mem) link(n *node) {
	n.nlink++
	if n.nlink == 1 {
		m.used += n.file.room
	}
}

func (m *Mem) unlink(n *node) {
	n.nlink--
	if n.nlink == 0 {
		m.used -= n.file.room
	}
}

// Open opens an existing file for reading.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenRW opens an existing file for reading and writing.
func (m *Mem) OpenRW(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err == nil && n.dir && write {
		err = syscall.EISDIR
	} else if err == nil && write && n.flags != 0 {
		err = syscall.EPERM
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &memFile{m: m, n: n, name: name, write: write}, nil
}

// Create makes a new file for reading and writing.
func (m *Mem) Create(name string, perm fs.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.create(name, perm)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &memFile{m: m, n: n, name: name, write: true}, nil
}

func (m *Mem) create(name string, perm fs.FileMode) (*node, error) {
	at, err := m.place(name)
	if err != nil {
		return nil, err
	}
	if at.dir.names[at.name] != nil {
		return nil, syscall.EEXIST
	}
	n := &node{mode: perm.Perm(), modTime: m.now()}
	m.apply(change{at: [2]dentry{at}, to: [2]*node{n}})
	return n, nil
}

// Mkdir makes one directory.
func (m *Mem) Mkdir(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.place(name)
	if err == nil && at.dir.names[at.name] != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	m.apply(change{at: [2]dentry{at}, to: [2]*node{newDir(perm)}})
	return nil
}

// Link gives a file a second name.
func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(oldname)
	if err != nil {
		return linkError("link", oldname, newname, err)
	}
	at, err := m.place(newname)
	switch {
	case err != nil:
	case at.dir.names[at.name] != nil:
		err = syscall.EEXIST
	case n.dir || n.flags != 0:
		err = syscall.EPERM
	}
	if err != nil {
		return linkError("link", oldname, newname, err)
	}
	m.apply(change{at: [2]dentry{at}, to: [2]*node{n}})
	return nil
}

// Rename moves a name, replacing newname atomically.
func (m *Mem) Rename(oldname, newname string) error { return m.rename(oldname, newname, true) }

// RenameNew moves a name that must not exist yet.
func (m *Mem) RenameNew(oldname, newname string) error { return m.rename(oldname, newname, false) }

func (m *Mem) rename(oldname, newname string, replace bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, err := m.place(oldname)
	if err != nil {
		return linkError("rename", oldname, newname, err)
	}
	to, err := m.place(newname)
	if err != nil {
		return linkError("rename", oldname, newname, err)
	}
	n, old := from.dir.names[from.name], to.dir.names[to.name]
	switch {
	case n == nil:
		err = syscall.ENOENT
	case old != nil && !replace:
		err = syscall.EEXIST
	case old != nil && old.dir:
		err = syscall.EEXIST // package os never replaces a directory
	case n.dir && slices.Contains(m.nodesOf(newname), n):
		err = syscall.EINVAL // into itself
	case old != nil && !old.dir && n.dir:
		err = syscall.ENOTDIR
	case from.fixed() || old != nil && to.fixed():
		err = syscall.EPERM
	}
	if err != nil {
		return linkError("rename", oldname, newname, err)
	}
	if n != old { // POSIX: two names of one file, nothing happens
		m.apply(change{at: [2]dentry{from, to}, to: [2]*node{nil, n}})
	}
	return nil
}

// nodesOf returns the nodes along a name, as far as they exist.
func (m *Mem) nodesOf(name string) []*node {
	var nodes []*node
	parts := split(name)
	for i := range parts {
		n, err := m.walk(parts[:i+1])
		if err != nil {
			break
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// Remove removes a file or an empty directory.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.place(name)
	if err == nil {
		n := at.dir.names[at.name]
		switch {
		case n == nil:
			err = syscall.ENOENT
		case at.fixed():
			err = syscall.EPERM
		case n.dir && len(n.names) > 0:
			err = syscall.ENOTEMPTY
		}
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	m.apply(change{at: [2]dentry{at}})
	return nil
}

// ReadDir lists a directory in lexical order.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	list := make([]fs.DirEntry, 0, len(n.names))
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		list = append(list, fs.FileInfoToDirEntry(infoOf(name, n.names[name])))
	}
	return list, nil
}

// Stat describes a name.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return infoOf(path.Base(name), n), nil
}

// Chmod sets the permission bits. They survive a crash at once.
func (m *Mem) Chmod(name string, mode fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err == nil && n.flags != 0 {
		err = syscall.EPERM
	}
	if err != nil {
		return pathError("chmod", name, err)
	}
	n.mode = n.mode&^fs.ModePerm | mode.Perm()
	return nil
}

// Flags tells the flags of a file or directory.
func (m *Mem) Flags(name string) (Flags, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return 0, pathError("flags", name, err)
	}
	return n.flags, nil
}

// SetFlags sets and clears flags, as for a process that has the capability. They
// survive a crash at once.
func (m *Mem) SetFlags(name string, set, clear Flags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return pathError("flags", name, err)
	}
	n.flags = n.flags&^clear | set
	return nil
}

// fixed reports whether flags forbid that an existing name is moved, replaced
// or removed.
func (d dentry) fixed() bool {
	n := d.dir.names[d.name]
	return d.dir.flags != 0 || n != nil && n.flags != 0
}

// SyncDir makes the names within a directory durable.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.find(name)
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return pathError("open", name, err)
	}
	m.commit(dir)
	return nil
}

// Lock takes an exclusive lock on a file, which it creates if absent.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		n, err = m.create(name, 0o600)
	}
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if m.locked[n] {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	m.locked[n] = true
	return &memLock{m: m, n: n}, nil
}

type memLock struct {
	m *Mem
	n *node // nil once closed
}

// Close lets the lock go. The second call gives fs.ErrClosed.
func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.n == nil {
		return fs.ErrClosed
	}
	delete(l.m.locked, l.n)
	l.n = nil
	return nil
}

// memInfo is the fs.FileInfo of a node at one moment.
type memInfo struct {
	name    string
	size    int64
	mode    fs.FileMode
	modTime time.Time
}

func infoOf(name string, n *node) memInfo {
	return memInfo{name: name, size: n.file.size, mode: n.mode, modTime: n.modTime}
}

// Name is the last part of the name that was asked for.
func (i memInfo) Name() string { return i.name }

// Size is in bytes; 0 for a directory.
func (i memInfo) Size() int64 { return i.size }

// Mode is the type and permission bits.
func (i memInfo) Mode() fs.FileMode { return i.mode }

// ModTime is when the content or, of a directory, a name last changed, by the
// Mem's clock.
func (i memInfo) ModTime() time.Time { return i.modTime }

// IsDir reports whether it is a directory.
func (i memInfo) IsDir() bool { return i.mode.IsDir() }

// Sys is nil: there is no system below.
func (i memInfo) Sys() any { return nil }
