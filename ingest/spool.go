package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// Errors of the spool that callers branch on. vault.ErrFull is the other one.
var (
	// ErrSyncFailed says that a write or sync of the spool's disk failed. What
	// the disk holds is unknown from then on, so every later call returns it and
	// the process must stop: the new process replays what is really there, and
	// clients send again what was not acknowledged.
	ErrSyncFailed = errors.New("spool disk failed, stop the process")
	// ErrNoStream says that a stream was never added.
	ErrNoStream = errors.New("unknown stream")
	// ErrNoSpool says that the directory holds no spool: absent, empty or not mounted.
	ErrNoSpool = errors.New("no spool here")
	// ErrKeyMissing says that a spool file's key is absent or damaged, so that
	// acknowledged bytes cannot be read.
	ErrKeyMissing = errors.New("spool key missing")
	// ErrNotHeld says that the spool no longer holds, or never had, the bytes asked for.
	ErrNotHeld = errors.New("bytes are not in the spool")
	// ErrClosed says that the spool was closed.
	ErrClosed = errors.New("spool is closed")
)

// SpoolConfig says where a spool lives and what it depends on.
type SpoolConfig struct {
	FS     vfs.FS
	Dir    string // spool files
	KeyDir string // one key per spool file, 0600; not below Dir
	Random io.Reader
	Now    func() time.Time     // wall clock
	Boot   func() time.Duration // CLOCK_BOOTTIME: never steps, counts suspend
	Log    *slog.Logger
	// MaxBytes bounds the space of the files in Dir, at least 4 files, of which 2
	// are kept for the records of sealing; in need these may take 2 more. 0 means
	// what the disk holds.
	MaxBytes int64
	// FileBytes is the size of one file, 4 to 128 MiB; 64 MiB if 0.
	FileBytes int64
}

// Stats describes a spool at one moment.
type Stats struct {
	Bytes          int64            `json:"bytes"`                    // space of the files in use
	Free           int64            `json:"free_bytes"`               // room left for intake
	Unsealed       int64            `json:"unsealed_bytes"`           // received bytes not yet released by the sealer
	OldestUnsealed time.Time        `json:"oldest_unsealed,omitzero"` // receipt of the oldest such byte, to a quarter of an hour; zero: none
	Streams        int              `json:"streams"`                  // ever added
	Conflicts      int64            `json:"conflicts"`                // conflicting or late extents archived since the spool was opened
	Torn           int64            `json:"torn"`                     // groups of an unfinished write dropped at the start: nothing acknowledged
	Damaged        int64            `json:"damaged"`                  // files kept aside or still in use because bytes in them are damaged
	DamagedStreams []vault.StreamID `json:"damaged_streams,omitzero"` // streams that may have lost bytes in those files
	Runs           int              `json:"runs"`                     // entries of the extent table, 16 bytes each
	Table          int64            `json:"table_bytes"`              // bytes of the table of metadata: names, streams, imports
	TableLimit     int64            `json:"table_limit_bytes"`        // beyond that nothing new is taken in
}

// Spool is the durable encrypted intake of all streams. It is safe for
// concurrent use; Due, Read, Intend and Release are called by one sealer at a
// time. It has no goroutine of its own.
type Spool struct {
	cfg        SpoolConfig
	clock      tickClock
	groupBytes int // record bytes of a group
	extent     int // payload bytes of an extent

	mu    sync.Mutex
	moved *sync.Cond // on mu: a flush or sync ended, or the spool failed

	// Guarded by mu.
	err    error // sticky
	closed bool
	moves  uint64 // times that mu was released and taken again within a call
	table  *table
	slots  []*spoolFile // by slot; nil: free
	row    []*spoolFile // in order, the last is cur

	cur            *spoolFile
	pos            int64  // of the pending group
	writtenPos     int64  // groups of cur below it were handed to the file
	number         uint64 // of the pending group
	proven         uint64 // last group of cur that is synced
	pend, spare    []byte // groupHead bytes and records; the group in flight has no spare
	pendMeta       bool   // pend holds metadata records
	lsn            uint64 // number of the pending group across files
	written        uint64 // last group handed to its file
	synced         uint64 // last group on the disk
	flushing       bool
	syncing        bool
	born           time.Duration // boot time when cur was made
	head           int           // groups that cur began with
	nextSeq        uint64
	snapshotSeq    uint64 // file with the newest snapshot
	sinceSnapshot  int    // files begun since
	fullUntil      time.Duration
	cleaning       bool
	forgotAt       time.Duration // boot time when forgetOld last saw all
	tight          bool          // the spool was crowded when the sealer last called
	full           bool          // and had no room for one more file of intake
	tableBytes     int64         // of a snapshot of the table, at most
	tableFull      bool
	conflicts      int64
	torn           int64
	aside          int64 // damaged files kept aside
	damagedStreams map[vault.StreamID]bool
}

// markerName marks the directory of a spool, so that a lost mount is not taken
// for an empty one.
const markerName = "SPOOL"

const marker = "logvault-spool v1\n"

// withDefaults checks cfg and fills in defaults.
func (c SpoolConfig) withDefaults() (SpoolConfig, error) {
	if c.FileBytes == 0 {
		c.FileBytes = 64 << 20
	}
	if c.FileBytes < 4<<20 || c.FileBytes > maxFile || c.FileBytes%sector != 0 {
		return c, fmt.Errorf("spool file size %d: expected a multiple of %d from 4 MiB to 128 MiB", c.FileBytes, sector)
	}
	if c.MaxBytes > 0 && c.MaxBytes < 4*c.FileBytes {
		return c, fmt.Errorf("spool size %d: expected at least %d", c.MaxBytes, 4*c.FileBytes)
	}
	return c, nil
}

// groupBytes returns the record bytes of a group: maxGroup, less in small files.
func (c *SpoolConfig) groupBytes() int { return int(min(maxGroup, c.FileBytes/4)) }

// CreateSpool makes an empty spool in cfg.Dir and cfg.KeyDir, which it makes if
// absent. vault.ErrNotEmpty: one of them holds something.
//
//	make directories, sync their parents; write the marker last | crash before: ErrNoSpool, create again
func CreateSpool(ctx context.Context, cfg SpoolConfig) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	return cfg.create(ctx)
}

func (c *SpoolConfig) create(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, dir := range []string{c.Dir, c.KeyDir} {
		if err := vfs.MkdirAll(c.FS, dir, 0o700); err != nil {
			return fmt.Errorf("creating the spool: %w", err)
		}
		entries, err := c.FS.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("creating the spool: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("creating the spool in %s: %w", dir, vault.ErrNotEmpty)
		}
	}
	if err := vfs.CreateFile(c.FS, path.Join(c.Dir, markerName), []byte(marker), 0o600); err != nil {
		return fmt.Errorf("creating the spool: %w", err)
	}
	return nil
}

// OpenSpool replays an existing spool and returns it ready for intake: every
// byte that was acknowledged is in it, and what was written but not proven to be
// on the disk has been written again and synced. The caller makes sure that no
// other process has the spool open.
// Errors: ErrNoSpool, ErrKeyMissing, vault.ErrNewer, vault.ErrFull (no room for
// the file that a start needs).
func OpenSpool(ctx context.Context, cfg SpoolConfig) (*Spool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return cfg.open(ctx)
}

func (c *SpoolConfig) open(ctx context.Context) (*Spool, error) {
	raw, err := vfs.ReadFile(c.FS, path.Join(c.Dir, markerName), 4096)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoSpool, c.Dir, err)
	}
	if string(raw) != marker {
		return nil, fmt.Errorf("spool marker %q, expected %q: %w", raw, marker, vault.ErrNewer)
	}
	s := &Spool{
		cfg: *c, clock: newTickClock(c.Now()), groupBytes: c.groupBytes(), table: newTable(),
		lsn: 1, nextSeq: 1, damagedStreams: map[vault.StreamID]bool{},
	}
	s.extent = min(maxExtent, s.groupBytes/2)
	if s.groupBytes > 256<<10 {
		s.extent = min(maxExtent, s.groupBytes-64<<10)
	}
	s.moved = sync.NewCond(&s.mu)
	s.pend = make([]byte, groupHead, groupHead+s.groupBytes+tagSize)
	s.spare = make([]byte, groupHead, groupHead+s.groupBytes+tagSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(ctx); err != nil {
		for _, f := range s.row {
			f.f.Close() // nothing of ours is at stake: the error is what counts
		}
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	return s, nil
}

// Close ends the spool: everything is synced, and the current file ends with a
// snapshot and a footer, so that the next start need not read it. After
// ErrSyncFailed it only closes the files and returns that error.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for s.err == nil && (len(s.pend) > groupHead || s.flushing || s.syncing) {
		s.flushOrWait() // the footer must not name a group that is not written
	}
	if s.closed {
		return nil // by another call meanwhile
	}
	err := s.err
	if err == nil {
		err = s.finishCur()
	}
	s.closed = true
	s.moved.Broadcast()
	for _, f := range s.row {
		if f.refs > 0 {
			f.gone = true // its last reader closes it
		} else if cerr := f.f.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}
	return err
}

// finishCur ends the current file with a snapshot and a footer.
func (s *Spool) finishCur() error {
	w := s.footerWriter()
	if s.table.snapshotSize()*2 < w.end-w.pos {
		if err := s.table.snapshot(w); err != nil {
			return s.fail(err)
		}
	}
	if err := w.file.f.Sync(); err != nil {
		return s.fail(err)
	}
	w.proven = w.number - 1
	if err := s.finish(w); err != nil {
		return s.fail(err)
	}
	return nil
}

// Stats describes the spool now.
func (s *Spool) Stats() Stats {
	_, free := s.Space()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Bytes: s.used(), Free: free, Streams: len(s.table.order), Conflicts: s.conflicts, Torn: s.torn, Damaged: s.aside}
	st.Table, st.TableLimit = s.table.snapshotSize(), s.tableLimit()
	oldest := uint32(maxTick)
	for _, x := range s.table.order {
		for _, g := range x.gens {
			st.Runs += len(g.data) + len(g.macs)
			for _, r := range g.data[g.data.from(g.sealed):] {
				st.Unsealed += r.end() - max(r.off(), g.sealed)
				oldest = min(oldest, r.tick())
			}
		}
	}
	if st.Unsealed > 0 {
		st.OldestUnsealed = s.clock.time(oldest)
	}
	for _, f := range s.row {
		if f.damaged {
			st.Damaged++
		}
	}
	for _, x := range s.table.order {
		if s.damagedStreams[x.ID] {
			st.DamagedStreams = append(st.DamagedStreams, x.ID)
		}
	}
	return st
}

// Space returns the room of the spool in bytes: all, and what intake may still take.
func (s *Spool) Space() (total, free int64) {
	disk, err := s.cfg.FS.Space(s.cfg.Dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	used, reserve := s.used(), spareFiles*s.cfg.FileBytes
	total, free = disk.Total, disk.Free-reserve
	if err != nil {
		total, free = 0, 0
	}
	if m := s.cfg.MaxBytes; m > 0 {
		total = min(total, m)
		free = min(free, m-used-reserve)
	}
	if s.closed {
		return total, 0
	}
	free = max(0, free)
	return total, free - free%s.cfg.FileBytes + max(0, s.room(forIntake)-s.pos)
}
