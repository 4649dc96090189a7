package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
)

const (
	pageSize   = 4096
	sectorSize = 512 // what a disk writes whole or not at all
)

type page [pageSize]byte

// zeroPage stands for reserved pages not yet written. It is never modified.
var zeroPage page

// content is what a file holds, live and as of its last sync. A nil page is a
// hole. A page that both sides share, or zeroPage, is copied before a write; so
// synced pages never change, and clones share them too.
type content struct {
	live, synced     []*page
	size, syncedSize int64
	room             int64        // bytes of live pages
	dirty            map[int]bool // pages the next Sync writes
	lost             map[int]bool // pages that a failed Sync has given up
	sizeLost         bool         // a failed Sync has given up the size
}

func pageOf(pages []*page, i int) *page {
	if i < len(pages) {
		return pages[i]
	}
	return nil
}

// writable returns page i of the live side for writing, or nil if room is short.
func (c *content) writable(i int, free int64) *page {
	for len(c.live) <= i {
		c.live = append(c.live, nil)
	}
	p := c.live[i]
	if p == nil {
		if free < pageSize {
			return nil
		}
		c.room += pageSize
	}
	if p == nil || p == &zeroPage || p == pageOf(c.synced, i) {
		fresh := new(page)
		if p != nil {
			*fresh = *p
		}
		c.live[i], p = fresh, fresh
	}
	c.touch(i)
	return p
}

// touch marks page i for the next Sync.
func (c *content) touch(i int) {
	if c.dirty == nil {
		c.dirty = map[int]bool{}
	}
	c.dirty[i] = true
	delete(c.lost, i)
}

// sync moves the dirty pages and the size to the synced side.
func (c *content) sync() {
	for i := range c.dirty {
		for len(c.synced) <= i {
			c.synced = append(c.synced, nil)
		}
		c.synced[i] = pageOf(c.live, i)
	}
	clear(c.dirty)
	if !c.sizeLost {
		c.syncedSize = c.size
	}
}

// memFile is an open file of a Mem.
type memFile struct {
	m      *Mem
	n      *node
	name   string
	write  bool
	pos    int64
	closed bool
}

// Name is the name the file was opened with, also after it was moved.
func (f *memFile) Name() string { return f.name }

// check returns why an operation is not possible now.
func (f *memFile) check(op string, write bool) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case write && !f.write:
		return pathError(op, f.name, syscall.EBADF)
	case f.n.dir:
		return pathError(op, f.name, syscall.EISDIR)
	}
	return nil
}

// Close ends the use of the file; what was not synced stays unsynced. Later calls
// give fs.ErrClosed.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// Stat describes the file, also one whose names are gone.
func (f *memFile) Stat() (fs.FileInfo, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return nil, pathError("stat", f.name, fs.ErrClosed)
	}
	return infoOf(path.Base(f.name), f.n), nil
}

// Read reads at the position that Read and Write share.
func (f *memFile) Read(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.readAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadAt returns io.EOF with less than len(p) bytes. Holes read as zeros.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.readAt(p, off)
}

func (f *memFile) readAt(p []byte, off int64) (int, error) {
	if err := f.check("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("readat", f.name, fmt.Errorf("negative offset: %w", fs.ErrInvalid))
	}
	if len(p) == 0 {
		return 0, nil
	}
	c := &f.n.file
	n := 0
	for n < len(p) && off < c.size {
		in := int(off % pageSize)
		want := int(min(int64(len(p)-n), int64(pageSize-in), c.size-off))
		if pg := pageOf(c.live, int(off/pageSize)); pg != nil {
			copy(p[n:n+want], pg[in:])
		} else {
			clear(p[n : n+want])
		}
		n += want
		off += int64(want)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write writes at the position that Read and Write share. With short room it
// writes the pages that fit and gives ENOSPC.
func (f *memFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n, err := f.writeAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

// WriteAt is like Write, at off. Only pages that have no room yet take some.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.writeAt(p, off)
}

func (f *memFile) writeAt(p []byte, off int64) (int, error) {
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("writeat", f.name, fmt.Errorf("negative offset: %w", fs.ErrInvalid))
	}
	c := &f.n.file
	before := c.room
	defer func() { f.account(before) }()
	n := 0
	for n < len(p) {
		in := int(off % pageSize)
		pg := c.writable(int(off/pageSize), f.m.free()-(c.room-before))
		if pg == nil {
			return n, pathError("write", f.name, syscall.ENOSPC)
		}
		k := copy(pg[in:], p[n:])
		n += k
		off += int64(k)
		c.resize(max(c.size, off))
		// Writing back bytes beyond the old size takes the new one along.
		c.sizeLost = c.sizeLost && off <= c.syncedSize
	}
	return n, nil
}

// resize sets the size, which is then no longer one that a failed Sync gave up.
func (c *content) resize(size int64) {
	if size != c.size {
		c.size, c.sizeLost = size, false
	}
}

// account books the change of room of a named file and touches its time.
func (f *memFile) account(before int64) {
	if f.n.nlink > 0 {
		f.m.used += f.n.file.room - before
	}
	f.n.modTime = f.m.now()
}

// Sync makes the bytes and the size durable, except what a failed Sync lost. It
// works on a file opened for reading too.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("sync", f.name, fs.ErrClosed)
	}
	f.n.file.sync()
	return nil
}

// WriteBack does nothing: what a crash leaves of unsynced bytes is random anyway.
func (f *memFile) WriteBack(off, n int64) {}

// failSync is what Linux does when writing back fails: the pages stay in the
// cache as if clean, so that reads find them and no later sync writes them.
func (f *memFile) failSync() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	c := &f.n.file
	if c.lost == nil {
		c.lost = map[int]bool{}
	}
	for i := range c.dirty {
		c.lost[i] = true
	}
	clear(c.dirty)
	c.sizeLost = c.size != c.syncedSize
}

// Truncate gives back the room of the pages behind size; a longer file takes none.
func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check("truncate", true)
	if errors.Is(err, syscall.EBADF) || err == nil && size < 0 {
		err = pathError("truncate", f.name, syscall.EINVAL) // ftruncate(2) says no other
	}
	if err != nil {
		return err
	}
	c := &f.n.file
	before := c.room
	keep := int((size + pageSize - 1) / pageSize)
	for i := keep; i < len(c.live); i++ {
		if c.live[i] == nil {
			continue
		}
		if c.live[i] != &zeroPage || pageOf(c.synced, i) != nil {
			c.touch(i)
		}
		c.live[i] = nil
		c.room -= pageSize
	}
	c.live = c.live[:min(keep, len(c.live))]
	if in := size % pageSize; in != 0 && size < c.size && pageOf(c.live, keep-1) != nil {
		clear(c.writable(keep-1, 0)[in:]) // it exists, so it takes no room
	}
	c.resize(size)
	f.account(before)
	return nil
}

// Preallocate takes the room of all pages up to size or, with ENOSPC, none.
func (f *memFile) Preallocate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.check("fallocate", true)
	if size <= 0 && !f.closed {
		err = pathError("fallocate", f.name, syscall.EINVAL)
	}
	if err != nil {
		return err
	}
	c := &f.n.file
	before, pages := c.room, int((size+pageSize-1)/pageSize)
	need := int64(0)
	for i := range pages {
		if pageOf(c.live, i) == nil {
			need += pageSize
		}
	}
	if need > f.m.free() {
		return pathError("fallocate", f.name, syscall.ENOSPC)
	}
	if pages > len(c.live) {
		c.live = append(c.live, make([]*page, pages-len(c.live))...)
	}
	for i := range pages {
		if c.live[i] == nil {
			c.live[i] = &zeroPage
		}
	}
	c.room += need
	c.resize(max(c.size, size))
	f.account(before)
	return nil
}
