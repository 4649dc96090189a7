package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"logvault/internal/vfs"
	"logvault/vault"
)

const (
	fileSuffix    = ".spool"
	keySuffix     = ".key"
	damagedSuffix = ".damaged"
)

// spoolFile is one file of the row and its place in the slot table.
type spoolFile struct {
	groupCipher
	slot  int
	seq   uint64
	f     vfs.File
	names fileNames

	// Of replay.
	proven    uint64 // last group known to have been synced
	badHeader bool   // only the key names the file

	// Guarded by Spool.mu.
	size    int64 // what the file takes on the disk
	live    int64 // bytes that runs refer to
	closed  bool  // its writer ended
	damaged bool  // has a damaged group: never removed, kept aside
	stuck   bool  // a place in it cannot be read: not carried again
	refs    int   // readers at work
	gone    bool  // removed; closed when refs is 0

	// For the footer of the file being written; guarded by Spool.mu.
	metaAt []uint32 // positions of the groups with metadata records
	runs   int      // runs made in this file
	gens   int      // generations with runs here
}

// fileNames are the names of a spool file and its key.
type fileNames struct{ file, key string }

func (c *SpoolConfig) names(seq uint64) fileNames {
	base := fmt.Sprintf("%016x", seq)
	return fileNames{path.Join(c.Dir, base+fileSuffix), path.Join(c.KeyDir, base+keySuffix)}
}

// parseSeq returns the sequence number in the name of a spool file or key.
func parseSeq(name, suffix string) (uint64, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	if !ok || len(base) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(base, 16, 64)
	return seq, err == nil && fmt.Sprintf("%016x", seq) == base
}

// createFile makes spool file h.seq with its key and header, and lets fill write
// the first groups. It is durable on return:
//
//	key: create, write, sync, sync dir  | crash: a key without file, removed at the next start
//	file: create, allocate, write header and groups, sync, sync dir
//	                                    | crash: a file without groups, or one whose groups
//	                                      only repeat the metadata of the files before
//
// vault.ErrFull: no room; nothing is left behind.
func (c *SpoolConfig) createFile(h fileHeader, fill func(*groupWriter) error) (_ *spoolFile, _ *groupWriter, err error) {
	var k fileKey
	if _, err := io.ReadFull(c.Random, k.id[:]); err != nil {
		return nil, nil, fmt.Errorf("drawing a spool file id: %w", err)
	}
	if _, err := io.ReadFull(c.Random, k.key[:]); err != nil {
		return nil, nil, fmt.Errorf("drawing a spool key: %w", err)
	}
	h.id = k.id
	names := c.names(h.seq)
	defer func() {
		if err != nil {
			err = c.unmake(names, err)
		}
	}()
	if err := c.writeKey(names.key, &k); err != nil {
		return nil, nil, err
	}
	cipher, err := newGroupCipher(&k)
	if err != nil {
		return nil, nil, err
	}
	f, err := c.FS.Create(names.file, 0o600)
	if err != nil {
		return nil, nil, err
	}
	sf := &spoolFile{groupCipher: *cipher, seq: h.seq, f: f, names: names, size: c.FileBytes}
	w, err := sf.begin(h, c.groupBytes(), fill)
	if err == nil {
		err = c.FS.SyncDir(c.Dir)
	}
	if err != nil {
		f.Close() // about to be removed
		return nil, nil, err
	}
	return sf, w, nil
}

// begin allocates a new file and writes its header and first groups, synced.
func (sf *spoolFile) begin(h fileHeader, groupBytes int, fill func(*groupWriter) error) (*groupWriter, error) {
	if err := sf.f.Preallocate(sf.size); err != nil {
		return nil, err
	}
	if _, err := sf.f.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	w := &groupWriter{file: sf, pos: sector, number: 1, end: sf.size, max: groupBytes}
	if err := fill(w); err != nil {
		return nil, err
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	return w, sf.f.Sync()
}

func (c *SpoolConfig) writeKey(name string, k *fileKey) error {
	f, err := c.FS.Create(name, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(k.encode())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = c.FS.SyncDir(c.KeyDir)
	}
	return err
}

// isFull reports whether an error of the file system means that it has no room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// removeFile removes a spool file whose bytes are no longer needed, then
// destroys its key: unlink, sync dir; overwrite the key, sync, unlink. A crash
// in between leaves a key without a file, which the next start destroys.
func (c *SpoolConfig) removeFile(names fileNames) error {
	if err := c.unlink(names.file); err != nil {
		return err
	}
	return c.destroyKey(names.key)
}

func (c *SpoolConfig) unlink(name string) error {
	if err := c.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.FS.SyncDir(c.Dir)
}

// unmake takes away a spool file that could not be made, and returns why it
// could not. A file that stays is not just vault.ErrFull: replayed after what the
// file before it gets from here on, its snapshot would set the tables back.
func (c *SpoolConfig) unmake(names fileNames, why error) error {
	if err := c.unlink(names.file); err != nil {
		return fmt.Errorf("%w; taking away what was made of it: %w", why, err)
	}
	if err := c.destroyKey(names.key); err != nil { // needs room too: the next start does it
		c.Log.Debug("left-over key of a spool file that was not made", "err", err)
	}
	if isFull(why) {
		return fmt.Errorf("making a spool file: %w: %w", vault.ErrFull, why)
	}
	return why
}

func (c *SpoolConfig) destroyKey(name string) error {
	f, err := c.FS.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, keySize), 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return c.FS.Remove(name)
}

// openFile opens an existing spool file with its key. The header may be damaged
// or missing; the key names the file too.
func (c *SpoolConfig) openFile(seq uint64) (*spoolFile, error) {
	names := c.names(seq)
	raw, err := vfs.ReadFile(c.FS, names.key, keySize)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyMissing, names.key, err)
	}
	k, err := parseKey(raw)
	if errors.Is(err, vault.ErrNewer) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyMissing, names.key, err)
	}
	cipher, err := newGroupCipher(&k)
	if err != nil {
		return nil, err
	}
	f, err := c.FS.Open(names.file)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close() // read-only
		return nil, err
	}
	return &spoolFile{groupCipher: *cipher, seq: seq, f: f, names: names, size: info.Size(), closed: true}, nil
}

// readGroup reads and decrypts the group at pos into buf, growing it. It
// returns the group's head, its records and the position after it.
// errDamaged: no intact group is there.
func (sf *spoolFile) readGroup(pos int64, buf []byte) (groupHeader, []byte, []byte, error) {
	buf = grow(buf, groupHead)
	if n, err := sf.f.ReadAt(buf[:groupHead], pos); n < groupHead {
		return groupHeader{}, nil, buf, sf.readError(pos, err)
	}
	h, ok := parseGroupHeader(buf)
	if !ok {
		return h, nil, buf, sf.readError(pos, errDamaged)
	}
	whole := groupHead + int(h.length) + tagSize
	buf = grow(buf, whole)
	if n, err := sf.f.ReadAt(buf[groupHead:whole], pos+groupHead); n < whole-groupHead {
		return h, nil, buf, sf.readError(pos, err)
	}
	plain, err := sf.open(buf[:whole])
	if err != nil {
		return h, nil, buf, sf.readError(pos, err)
	}
	return h, plain, buf, nil
}

// readError says where a group was not readable. The end of the file is damage
// too: a group that should be there is not.
func (sf *spoolFile) readError(pos int64, err error) error {
	if err == io.EOF {
		err = errDamaged
	}
	return fmt.Errorf("%s: group at %d: %w", sf.names.file, pos, err)
}

// grow returns buf with room for n bytes, keeping what it holds.
func grow(buf []byte, n int) []byte {
	if cap(buf) < n {
		buf = append(make([]byte, 0, n+n/4), buf...)
	}
	return buf[:max(n, len(buf))]
}

// groupWriter writes groups into a file that nobody else writes to now: the
// first groups of a new file, the footer of an old one.
type groupWriter struct {
	file   *spoolFile
	pos    int64
	end    int64 // of the room
	number uint64
	proven uint64
	max    int // record bytes per group
	buf    []byte
	meta   bool // the groups hold metadata records
}

// add appends a record, which write produces, to the current group.
func (w *groupWriter) add(write func([]byte) []byte) error {
	if len(w.buf) == 0 {
		w.buf = append(w.buf, make([]byte, groupHead)...)
	}
	start := len(w.buf)
	w.buf = write(w.buf)
	if len(w.buf)-groupHead <= w.max || start == groupHead {
		return nil
	}
	next := append([]byte(nil), w.buf[start:]...)
	w.buf = w.buf[:start]
	if err := w.flush(); err != nil {
		return err
	}
	w.buf = append(append(w.buf, make([]byte, groupHead)...), next...)
	return nil
}

// errNoRoom says that the groups do not fit the file.
var errNoRoom = errors.New("no room in the spool file")

// flush writes the current group, if it holds anything.
func (w *groupWriter) flush() error {
	if len(w.buf) <= groupHead {
		return nil
	}
	size := diskSize(len(w.buf) - groupHead)
	if w.pos+size > w.end {
		return errNoRoom
	}
	w.buf = slices.Grow(w.buf, tagSize)
	b := w.file.seal(w.buf, w.number, w.proven)
	if _, err := w.file.f.WriteAt(b, w.pos); err != nil {
		return err
	}
	if w.meta {
		w.file.metaAt = append(w.file.metaAt, uint32(w.pos))
	}
	w.pos += size
	w.number++
	w.buf = w.buf[:0]
	return nil
}

// encodeTrailer is the pointer to the footer that ends a closed file.
func encodeTrailer(pos int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(trailerMagic), uint64(pos))
}

// footerAt returns the position of a closed file's footer, or 0.
func (sf *spoolFile) footerAt() int64 {
	b := make([]byte, trailerSize)
	if sf.size < sector+trailerSize {
		return 0
	}
	if n, _ := sf.f.ReadAt(b, sf.size-trailerSize); n < trailerSize || string(b[:8]) != trailerMagic {
		return 0 // unreadable or absent: the file is read in full
	}
	pos := int64(binary.BigEndian.Uint64(b[8:]))
	if pos < sector || pos%sector != 0 || pos >= sf.size {
		return 0
	}
	return pos
}
