package watch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// Identity tells files apart while they exist. A device may get another number at
// a restart, and the inode of a removed file is used again: see the head.
type Identity struct{ Device, Inode uint64 }

// Info describes an open file.
type Info struct {
	ID      Identity
	Size    int64
	Changed int64 // differs, as a rule, after each change of the file (its ctime)
	Regular bool
}

// Entry is one name in a directory.
type Entry struct {
	Name string // without the directory
	Dir  bool   // a directory, not a link to one
	Info        // of the name itself, links not followed
}

// Host is the disk with the watched files. It is a parameter so that tests can
// rotate, kill and cut the power.
type Host interface {
	// OpenDir opens a watched directory; it may be reached through links.
	OpenDir(name string) (Dir, error)
}

// Dir is a watched directory. No name leads out of it.
type Dir interface {
	// Device is that of the file system.
	Device() (uint64, error)
	// List lists the directories and regular files below; "." is the directory itself.
	List(name string) ([]Entry, error)
	// Open opens a regular file to read. It never waits. A link that took the
	// place of a file may be followed, within the directory.
	Open(name string) (File, error)
	Close() error
}

// File is a watched file.
type File interface {
	io.ReaderAt
	io.Closer
	// Sync makes what others wrote to the file durable (fsync needs no right to write).
	Sync() error
	Stat() (Info, error)
}

// errNotRegular says that a name is not, or no longer, that of a regular file.
var errNotRegular = errors.New("not a regular file")

// Local is the real disk.
type Local struct{}

// OpenDir implements Host.
func (Local) OpenDir(name string) (Dir, error) {
	r, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return localDir{r}, nil
}

type localDir struct{ root *os.Root }

// Close implements Dir.
func (d localDir) Close() error { return d.root.Close() }

// Device implements Dir.
func (d localDir) Device() (uint64, error) {
	info, err := d.root.Stat(".")
	if err != nil {
		return 0, err
	}
	return infoOf(info).ID.Device, nil
}

// List implements Dir.
func (d localDir) List(name string) ([]Entry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read-only
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, n := range names {
		info, err := d.root.Lstat(path.Join(name, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() || info.IsDir() {
			all = append(all, Entry{Name: n, Dir: info.IsDir(), Info: infoOf(info)})
		}
	}
	return all, nil
}

// Open implements Dir.
func (d localDir) Open(name string) (File, error) {
	// O_NONBLOCK: a FIFO that took the file's place must not make us wait.
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := localFile{f}
	info, err := file.Stat()
	if err == nil && !info.Regular {
		err = fmt.Errorf("%s: %w", name, errNotRegular)
	}
	if err != nil {
		f.Close() // read-only
		return nil, err
	}
	return file, nil
}

type localFile struct{ *os.File }

// Stat implements File.
func (f localFile) Stat() (Info, error) {
	info, err := f.File.Stat()
	if err != nil {
		return Info{}, err
	}
	return infoOf(info), nil
}

func infoOf(info fs.FileInfo) Info {
	i := Info{Size: info.Size(), Regular: info.Mode().IsRegular()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		i.ID, i.Changed = Identity{uint64(st.Dev), st.Ino}, st.Ctim.Nano()
	}
	return i
}
