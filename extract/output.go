package extract

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"logvault/internal/vfs"
	"logvault/vault"
)

// output is the directory of a bundle while it is written.
//
// Each file is written once, hashed as it is written, and synced when it is
// closed. SHA256SUMS comes last, after the sync of the directories, so a bundle
// that has it is whole; one without it is what a crash left and is no answer.
// Until then discard takes back everything.
type output struct {
	fs   vfs.FS
	dir  string
	made []string // what discard removes, in order of creation
	dirs []string // made by mkdir
	sums []fileRecord
}

// folder is where files of a bundle go: its root, or one part of it.
type folder struct {
	out    *output
	prefix string // of the names: empty, or a folder and a slash
}

// openOutput makes dir, or takes it if it is empty. It refuses any other with an
// error that wraps vault.ErrNotEmpty: two answers must never mix.
func openOutput(fsys vfs.FS, dir string) (*output, error) {
	o := &output{fs: fsys, dir: dir}
	err := fsys.Mkdir(dir, 0o700)
	o.note(dir, err)
	if err == nil {
		return o, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(fmt.Errorf("making the bundle directory: %w", err), o.discard())
	}
	list, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the bundle directory: %w", err)
	}
	if len(list) > 0 {
		return nil, fmt.Errorf("bundle directory %s holds %q: %w", dir, list[0].Name(), vault.ErrNotEmpty)
	}
	return o, nil
}

// root is the folder of the bundle itself.
func (o *output) root() folder { return folder{out: o} }

// mkdir makes a folder in a folder and returns it.
func (d folder) mkdir(name string) (folder, error) {
	path := d.path(name)
	err := d.out.fs.Mkdir(path, 0o700)
	d.out.note(path, err)
	if err != nil {
		return folder{}, fmt.Errorf("making %s: %w", path, err)
	}
	d.out.dirs = append(d.out.dirs, path)
	return folder{d.out, d.prefix + name + "/"}, nil
}

func (d folder) path(name string) string {
	return filepath.Join(d.out.dir, filepath.FromSlash(d.prefix+name))
}

// note keeps a name for discard. A call that failed may have made it all the
// same, unless it says that somebody else did.
func (o *output) note(path string, err error) {
	if !errors.Is(err, fs.ErrExist) {
		o.made = append(o.made, path)
	}
}

// outFile is a bundle file that is being written.
type outFile struct {
	folder
	name string // in the folder
	file vfs.File
	buf  *bufio.Writer
	hash hash.Hash
	size int64
}

// create makes a file of the bundle, readable by its owner only.
func (d folder) create(name string) (*outFile, error) {
	path := d.path(name)
	f, err := d.out.fs.Create(path, 0o600)
	d.out.note(path, err)
	if err != nil {
		return nil, fmt.Errorf("creating %s: %w", path, err)
	}
	return &outFile{folder: d, name: name, file: f, buf: bufio.NewWriterSize(f, 64<<10), hash: sha256.New()}, nil
}

// Write implements io.Writer.
func (f *outFile) Write(p []byte) (int, error) {
	n, err := f.buf.Write(p)
	f.hash.Write(p[:n])
	f.size += int64(n)
	return n, err
}

// finish makes the file durable, records its hash, and returns it under its
// name in the folder.
// write… → fdatasync → close; the name is synced by output.finish.
func (f *outFile) finish() (fileRecord, error) {
	err := f.buf.Flush()
	if err == nil {
		err = f.file.Sync()
	}
	if err := errors.Join(err, f.file.Close()); err != nil {
		return fileRecord{}, fmt.Errorf("writing %s: %w", f.name, err)
	}
	r := fileRecord{f.name, f.size, fmt.Sprintf("%x", f.hash.Sum(nil))}
	f.out.sums = append(f.out.sums, fileRecord{f.prefix + r.Name, r.Size, r.SHA256})
	return r, nil
}

// abandon closes a file that discard will remove. It does nothing on nil.
func (f *outFile) abandon() {
	if f != nil {
		_ = f.file.Close() // a second close, or a file that is given up: its error says nothing
	}
}

// write writes a whole small file.
func (d folder) write(name string, data []byte) error {
	f, err := d.create(name)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.abandon()
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.finish()
	return err
}

// finish writes SHA256SUMS, the commit point of the directory.
// syncdir of each directory → SHA256SUMS: write, fdatasync, close → syncdir.
func (o *output) finish() error {
	slices.SortFunc(o.sums, func(a, b fileRecord) int { return cmp.Compare(a.Name, b.Name) })
	var text strings.Builder
	for _, f := range o.sums {
		fmt.Fprintf(&text, "%s  %s\n", f.SHA256, f.Name)
	}
	for _, d := range append([]string{o.dir}, o.dirs...) {
		if err := o.fs.SyncDir(d); err != nil {
			return fmt.Errorf("syncing %s: %w", d, err)
		}
	}
	if err := o.root().write(sumsName, []byte(text.String())); err != nil {
		return err
	}
	for _, d := range []string{o.dir, filepath.Dir(o.dir)} {
		if err := o.fs.SyncDir(d); err != nil {
			return fmt.Errorf("syncing %s: %w", d, err)
		}
	}
	return nil
}

// discard removes what was made, the last first, so that no disclosed line
// stays behind without an answer. It removes nothing else.
func (o *output) discard() error {
	var errs []error
	for _, name := range slices.Backward(o.made) {
		if err := o.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the unfinished bundle: %w", err)
	}
	return nil
}

var _ io.Writer = (*outFile)(nil)
