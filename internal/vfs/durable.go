package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// tempSuffix marks the unfinished file of WriteFile and CreateFile. A crash may
// leave one behind; the next call for the same name replaces it.
const tempSuffix = ".tmp"

// MkdirAll makes the directory name and its missing parents, durably.
//
//	mkdir(dir) syncdir(parent)      for each missing one, from the top
//
// A crash leaves a shorter path. The deepest directory that exists already is
// made durable too, since an earlier call may have died before its sync; if its
// parent may not be read, this process did not make it and it is left alone.
func MkdirAll(fsys FS, name string, perm fs.FileMode) error {
	name = path.Clean(name)
	var missing []string
	for {
		info, err := fsys.Stat(name)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s: exists and is not a directory", name)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || name == path.Dir(name) {
			return err
		}
		missing = append(missing, name)
		name = path.Dir(name)
	}
	if name != path.Dir(name) {
		if err := fsys.SyncDir(path.Dir(name)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		dir := missing[i]
		if err := fsys.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := fsys.SyncDir(path.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// ReadFile reads a whole file of at most limit bytes. A longer one is an error.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading: nothing to lose
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: longer than the %d bytes expected at most", name, limit)
	}
	return data, nil
}

// WriteFile durably gives name the content data, replacing what was there.
//
//	create(name.tmp) write fdatasync close rename(name.tmp, name) syncdir
//
// The rename is the commit point: a crash leaves the old content or the new.
// Callers for one name do not overlap.
func WriteFile(fsys FS, name string, data []byte, perm fs.FileMode) error {
	temp := name + tempSuffix
	if err := writeTemp(fsys, temp, data, perm); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// CreateFile durably makes the file name with the content data. If the name
// exists, whatever its content, the error wraps fs.ErrExist.
//
//	create(name.tmp) write fdatasync close link(name.tmp, name) unlink(name.tmp) syncdir
//
// The link is the commit point: a crash leaves the whole file or none.
// Callers for one name do not overlap.
func CreateFile(fsys FS, name string, data []byte, perm fs.FileMode) error {
	temp := name + tempSuffix
	if err := writeTemp(fsys, temp, data, perm); err != nil {
		return err
	}
	if err := Publish(fsys, temp, name); err != nil {
		fsys.Remove(temp) // the cause is reported; a leftover is replaced by the next call
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// Publish moves a finished file to a name that must not exist yet, else
// fs.ErrExist: by link and unlink, or on a file system without links by an
// exclusive rename. It syncs nothing. The old name may stay behind.
func Publish(fsys FS, oldname, newname string) error {
	err := fsys.Link(oldname, newname)
	switch {
	case err == nil:
		fsys.Remove(oldname) // a second name of a whole file does no harm; the next writer replaces it
		return nil
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported):
		// FAT answers EPERM, CIFS and FUSE answer ENOTSUP or ENOSYS.
		if err2 := fsys.RenameNew(oldname, newname); err2 != nil {
			return fmt.Errorf("%w (after %w)", err2, err)
		}
		return nil
	}
	return err
}

// writeTemp writes and syncs a file, removing an older unfinished one first.
func writeTemp(fsys FS, temp string, data []byte, perm fs.FileMode) error {
	f, err := fsys.Create(temp, perm)
	if errors.Is(err, fs.ErrExist) {
		if err = fsys.Remove(temp); err == nil {
			f, err = fsys.Create(temp, perm)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		fsys.Remove(temp) // the cause is reported; a leftover is replaced by the next call
	}
	return err
}
