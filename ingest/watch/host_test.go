package watch

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// disk is a host's file system in memory. It uses inodes again, lowest first, as
// ext4 does, and at a power cut loses what was not synced.
type disk struct {
	mu     sync.Mutex
	device uint64
	names  map[string]*inode // of files, by absolute path
	dirs   map[string]bool
	used   map[uint64]*inode
	tick   int64
	hook   func(op, name string) error // asked before each operation, may be nil
}

type inode struct {
	d       *disk
	id      Identity
	data    []byte
	synced  int
	changed int64
	names   int
	open    int
	special bool // no regular file
}

func newDisk(dirs ...string) *disk {
	d := &disk{device: 1, names: map[string]*inode{}, dirs: map[string]bool{}, used: map[uint64]*inode{}}
	for _, dir := range dirs {
		d.dirs[dir] = true
	}
	return d
}

func (d *disk) ask(op, name string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op, name)
}

func (d *disk) touch(n *inode) { d.tick++; n.changed = d.tick }

// append writes to the end of a file, which it makes if absent.
func (d *disk) append(name, data string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		ino := uint64(1)
		for d.used[ino] != nil {
			ino++
		}
		n = &inode{d: d, id: Identity{d.device, ino}, names: 1}
		d.used[ino], d.names[name] = n, n
	}
	n.data = append(n.data, data...)
	d.touch(n)
}

// held is what a process that keeps a file open writes to it, whatever its name.
func (d *disk) held(n *inode, data string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.data = append(n.data, data...)
	d.touch(n)
}

func (d *disk) file(name string) *inode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names[name]
}

func (d *disk) rename(from, to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[from]
	if n == nil {
		panic(from + " is absent")
	}
	delete(d.names, from)
	d.unlink(to)
	d.names[to] = n
	d.touch(n)
}

func (d *disk) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unlink(name)
}

func (d *disk) unlink(name string) {
	if n := d.names[name]; n != nil {
		delete(d.names, name)
		n.names--
		d.touch(n)
		d.release(n)
	}
}

func (d *disk) release(n *inode) {
	if n.names == 0 && n.open == 0 {
		delete(d.used, n.id.Inode)
	}
}

func (d *disk) copy(from, to string) {
	d.remove(to)
	d.append(to, string(d.file(from).data))
}

// truncate is durable at once.
func (d *disk) truncate(name string, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	n.data = n.data[:size:size]
	n.synced = min(n.synced, size)
	d.touch(n)
}

// power cuts the power: of each file the synced bytes are left, and a random part
// of what follows. Files without a name are gone.
func (d *disk) power(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ino := range slices.Sorted(maps.Keys(d.used)) { // what a seed makes of it must not depend on the order of a map
		n := d.used[ino]
		n.open = 0
		if n.names == 0 {
			delete(d.used, ino)
			continue
		}
		keep := n.synced + rng.IntN(len(n.data)-n.synced+1)
		n.data, n.synced = bytes.Clone(n.data[:keep]), keep
	}
}

// reboot gives the device another number.
func (d *disk) reboot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.device++
	for _, n := range d.used {
		n.id.Device = d.device
	}
}

// OpenDir implements Host.
func (d *disk) OpenDir(name string) (Dir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.ask("opendir", name); err != nil {
		return nil, err
	}
	if !d.dirs[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return &diskDir{d, name}, nil
}

type diskDir struct {
	d    *disk
	name string
}

func (d *diskDir) Close() error            { return nil }
func (d *diskDir) Device() (uint64, error) { return d.d.device, nil }

func (d *diskDir) List(name string) ([]Entry, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	dir := path.Join(d.name, name)
	if err := d.d.ask("list", dir); err != nil {
		return nil, err
	}
	if !d.d.dirs[dir] {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOENT}
	}
	var all []Entry
	for p := range d.d.dirs {
		if rel, ok := strings.CutPrefix(p, dir+"/"); ok && !strings.Contains(rel, "/") {
			all = append(all, Entry{Name: rel, Dir: true})
		}
	}
	for p, n := range d.d.names {
		if rel, ok := strings.CutPrefix(p, dir+"/"); ok && !strings.Contains(rel, "/") && !n.special {
			all = append(all, Entry{Name: rel, Info: n.info()})
		}
	}
	return all, nil
}

func (d *diskDir) Open(name string) (File, error) {
	d.d.mu.Lock()
	defer d.d.mu.Unlock()
	full := path.Join(d.name, name)
	if err := d.d.ask("open", full); err != nil {
		return nil, err
	}
	n := d.d.names[full]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: full, Err: syscall.ENOENT}
	}
	if n.special {
		return nil, errNotRegular
	}
	n.open++
	return &diskFile{inode: n, name: full}, nil
}

type diskFile struct {
	*inode
	name   string
	closed bool
}

func (f *diskFile) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed {
		panic(f.name + " is closed twice")
	}
	f.closed = true
	if f.open > 0 { // a power cut closed it already
		f.open--
		f.d.release(f.inode)
	}
	return nil
}

func (n *inode) info() Info {
	return Info{ID: n.id, Size: int64(len(n.data)), Changed: n.changed, Regular: true}
}

func (f *diskFile) Stat() (Info, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.info(), f.d.ask("stat", f.name)
}

func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.ask("sync", f.name); err != nil {
		return err
	}
	f.synced = len(f.data)
	return nil
}

func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed {
		panic(f.name + " is read after its close")
	}
	if err := f.d.ask("read", f.name); err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
