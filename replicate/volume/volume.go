// Package volume writes a vault to removable disks and tapes, so that a copy can
// lie in a safe: offline volumes, each of which explains and proves itself.
//
// A volume is a directory, usually the root of a disk:
//
//	VOLUME        what it is: text, version first
//	VAULT         the marker of the vault
//	segments/…    segments and their indexes, as in the vault
//	register/…    records of requests, as in the vault
//	ledger/…      the whole ledger as of the last pass: bundles, tiles, checkpoint
//	README.txt    how to check it with stock tools
//	SHA256SUMS    of every other file; written last: without it the volume is not finished
//
// Never keys/: what a volume holds dies with the period keys elsewhere, so no
// disk in a safe outlives the law. Objects follow the order of the ledger; each
// volume has those of a run of entries, so that every object is on one volume.
//
// The catalogue says which volume has which entries and where it lies. It is
// JSON, kept where the program that fills runs, with a copy of each volume's
// SHA256SUMS beside it, in which an object's name can be looked up.
//
// # What a crash leaves
//
//	VOLUME, objects, ledger, README.txt, each durable | SHA256SUMS | copy of it, catalogue
//
// Before SHA256SUMS the volume is unfinished, and the next Fill with the same
// directory goes on: what is there is read and hashed, not written again. Before
// the catalogue the volume is finished and not known: Fill takes it up likewise.
// A Fill that goes on with a finished volume removes SHA256SUMS first, so that it
// never names files that were replaced since.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

// Version is the version of volumes and of their catalogue.
const Version = 1

// The names that stand beside those of a vault on a volume.
const (
	headerName = "VOLUME"
	readmeName = "README.txt"
	sumsName   = "SHA256SUMS"
)

// ErrOtherVolume says that a directory holds another volume than the one to be
// filled: of another vault, a full one, or one that the catalogue does not know.
var ErrOtherVolume = errors.New("another volume is here")

// ErrForeign says that a file named VOLUME is none of logvault's: somebody else's
// disk is mounted.
var ErrForeign = errors.New("not a file of logvault")

// Volume is what the catalogue knows of one volume.
type Volume struct {
	Number  int       `json:"number"` // from 1
	Label   string    `json:"label"`  // where it lies, in a person's words
	First   int64     `json:"first_entry"`
	Next    int64     `json:"next_entry"` // it has the objects of the entries First … Next-1
	Size    int64     `json:"ledger_size"`
	Objects int64     `json:"objects"`
	Bytes   int64     `json:"bytes"`
	Full    bool      `json:"full"` // the next object did not fit
	Sums    string    `json:"sums"` // SHA-256 of its SHA256SUMS
	Made    time.Time `json:"made"`
}

// Catalogue says which volume holds what.
type Catalogue struct {
	Version int      `json:"version"`
	Vault   string   `json:"vault"` // id, 32 hex digits
	Origin  string   `json:"origin"`
	Volumes []Volume `json:"volumes"`
}

// catalogueLimit bounds a catalogue in bytes: some ten thousand volumes.
const catalogueLimit = 4 << 20

// Parse reads a catalogue strictly. A later version wraps vault.ErrNewer.
func Parse(data []byte) (*Catalogue, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("catalogue of volumes: %w", err)
	}
	if v.Version > Version {
		return nil, fmt.Errorf("catalogue of volumes: version %d, expected %d: %w", v.Version, Version, vault.ErrNewer)
	}
	c := new(Catalogue)
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("catalogue of volumes: %w", err)
	}
	if c.Version != Version {
		return nil, fmt.Errorf("catalogue of volumes: version %d, expected %d", c.Version, Version)
	}
	next := int64(0)
	for i, v := range c.Volumes {
		if v.Number != i+1 || v.First != next || v.Next < v.First || v.Size < v.Next || v.Size > entry.MaxInt || v.Objects < 0 || v.Bytes < 0 {
			return nil, fmt.Errorf("catalogue of volumes: volume %d does not continue the one before", i+1)
		}
		if _, err := vault.ParseHash(v.Sums); err != nil {
			return nil, fmt.Errorf("catalogue of volumes: volume %d: %w", i+1, err)
		}
		next = v.Next
	}
	return c, nil
}

// Load reads a catalogue. An absent one is empty.
func Load(fsys vfs.FS, file string) (*Catalogue, error) {
	data, err := vfs.ReadFile(fsys, file, catalogueLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return &Catalogue{Version: Version}, nil
	}
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// save writes the catalogue, whole or not at all.
func (c *Catalogue) save(fsys vfs.FS, file string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return vfs.WriteFile(fsys, file, append(data, '\n'), 0o644)
}

// Next is the first entry whose objects are on no finished volume.
func (c *Catalogue) Next() int64 {
	if n := len(c.Volumes); n > 0 {
		return c.Volumes[n-1].Next
	}
	return 0
}

// header is the text of VOLUME.
func (f *filler) header() string {
	return fmt.Sprintf("logvault-volume v%d\nvault %s\norigin %s\nnumber %d\n", Version, f.cat.Vault, f.cat.Origin, f.vol.Number)
}

// readHeader reads VOLUME as far as one can reach: a longer file is none.
func (f *filler) readHeader(name string) ([]byte, error) {
	file, err := f.o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() // read-only: nothing to lose
	return io.ReadAll(io.LimitReader(file, 4096))
}

// checkHeader finds out what the directory is: the volume to go on with, or empty.
func (f *filler) checkHeader() error {
	name := path.Join(f.o.Dir, headerName)
	data, err := f.readHeader(name)
	if errors.Is(err, fs.ErrNotExist) {
		list, err := f.o.FS.ReadDir(f.o.Dir)
		if err != nil {
			return fmt.Errorf("volume: %w", err)
		}
		for _, e := range list {
			if e.Name() != "lost+found" && e.Name() != headerName+".tmp" {
				return fmt.Errorf("%s: %w: it holds %q and is no volume", f.o.Dir, vault.ErrNotEmpty, e.Name())
			}
		}
		if f.vol.Sums != "" {
			return fmt.Errorf("%s: %w: it is empty, and volume %d (%s) has room; is it mounted? --new-volume begins another", f.o.Dir, ErrOtherVolume, f.vol.Number, f.vol.Label)
		}
		return vfs.CreateFile(f.o.FS, name, []byte(f.header()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	v, named := strings.CutPrefix(first, "logvault-volume v")
	n, err := strconv.ParseUint(v, 10, 31)
	switch {
	case !named || err != nil:
		return fmt.Errorf("%s: %w: it begins with %.40q, expected \"logvault-volume v%d\"", name, ErrForeign, first, Version)
	case n > Version:
		return fmt.Errorf("%s: version %d, expected %d: %w", name, n, Version, vault.ErrNewer)
	case string(data) != f.header():
		return fmt.Errorf("%s: %w: it says %q, expected %q; mount an empty disk, or that one", name, ErrOtherVolume, data, f.header())
	}
	return nil
}
