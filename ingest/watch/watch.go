// Package watch follows the log files of the host that logvault runs on, for
// programs that log locally, and puts what is written to them into the spool:
// every byte once and in order, whatever is renamed, truncated, killed or cut off.
//
// # What a file is
//
// The content makes the identity. A text is the run of bytes that a file holds
// between two truncations; it is one generation of a stream. It is found again by
// device, inode and the SHA-256 of its first bytes (its head: up to 64 KiB, of
// what was announced to the spool), never by its name:
//
//   - renamed (logrotate create, numbered chains, while we run or not): the same
//     inode and head under another name, so the same text;
//   - inode used again: the same inode under another name with another head, so a
//     new stream;
//   - truncated (copytruncate, `: >`, rewritten in place): the head changed or is
//     gone. The generation ends and the next one begins at the file's start. First
//     the copy is looked for, under any name in the watched directories: a file
//     that nobody follows and that begins with the text's head. What it has beyond
//     the last byte that was read is taken in from there, and it is never a new
//     stream. What came between the copy and the truncation is lost by that way of
//     rotating; without a copy, so is what came since the last read. Each
//     truncation is logged and counted, those without a copy apart;
//   - shortened to no less than its head, the rest unchanged: the generation ends,
//     the next one begins where the file now ends. Shortened further it cannot be
//     told from a truncated file, and what is left is archived again;
//   - moved to another file system of the watch: the old inode is gone and a new
//     one has the head, so the same text;
//   - a second copy beside an unchanged file: it may be that of a copytruncate
//     about to happen, so it waits until it is longer than that file or has not
//     grown for a minute. Then it is a new stream: bytes may be archived twice,
//     never not at all.
//
// A head without a whole line is compared with no file but that of the same inode,
// and a copy that is shorter than the head is a file of its own.
//
// Compressed files (gzip, zstd, xz, bzip2, by their magic) do not grow and hold
// what was taken in before: they are ignored, logged once and counted. Symbolic
// links, FIFOs, devices and sockets are ignored. A name that matches a pattern
// makes a file followed; after that it is followed under any name, and through the
// open descriptor after its removal. A stream keeps the name that its file was
// first seen with.
//
// A generation ends when its file was rotated away or removed and is silent for
// 10 minutes, or is silent for a day under its name. When it grows again, the next
// generation begins where that one ended.
//
// # Exactly once
//
// There is no position file: the position is the end of what the spool holds of
// the generation. The order is
//
//	fsync the watched file              | crash: nothing was taken
//	announce: stream, and record in the | crash: the file is known, at position 0
//	  spool's metadata table, durable   |
//	write extents, commit (one sync)    | crash: the spool has a part; go on from its end
//
// The file is synced before anything of it is stored, so that after a power cut
// it holds at least what the spool holds. A generation is ended in one group with
// the record that says where, or with that of the next one: the spool forgets
// generations that are over, and then cannot tell how far they went.
//
// Nothing depends on a clock but the waits above, which use BOOTTIME. inotify only
// wakes: a round looks at all files, and one runs every 10 seconds in any case, so
// that a lost event or a full queue delays and loses nothing. When the spool is
// full a round stops and is tried again: the bytes wait in the files.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"logvault/vault"
)

// The waits of a watcher.
const (
	rescan   = 10 * time.Second   // between rounds that nothing asked for
	retry    = time.Second        // between rounds while something is in trouble
	pace     = time.Second / 4    // from a write to the round that reads it
	settle   = time.Minute        // for how long a second copy must not grow
	idle     = 10 * time.Minute   // silence that closes a file, and ends one that was rotated away
	ended    = 24 * time.Hour     // silence that ends any other
	remember = 7 * 24 * time.Hour // for how long a file that is gone may come back
)

// Sizes in bytes.
const (
	maxHead  = 64 << 10 // of a head
	maxWrite = 1 << 20  // of one write to the spool
	maxTurn  = 8 << 20  // taken from one file before the next has its turn
)

// Sink is what a watcher needs of the spool. Its methods are those of *ingest.Spool.
type Sink interface {
	// Record changes streams and metadata, durably, all or nothing.
	Record(ctx context.Context, c vault.Changes) error
	// Write takes in bytes; they are durable after Commit.
	Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error
	// Commit makes what was written to the stream durable.
	Commit(ctx context.Context, id vault.StreamID) error
	// Contiguous returns the end of what was received without a hole; 0 for a
	// generation that is unknown or was forgotten after its end.
	Contiguous(id vault.StreamID, gen int64) int64
	// Meta calls fn for the metadata whose key begins with prefix.
	Meta(prefix string, fn func(vault.KV) error) error
}

// Watch is one directory to watch.
type Watch struct {
	Source    vault.Source
	Directory string // absolute
	// Patterns choose files by their path below Directory, as path.Match does:
	// '*' does not cross a '/', so "*/access.log" is one level down. One that
	// path.Match refuses chooses nothing.
	Patterns []string
}

// matches tells whether a file is to be followed.
func (w Watch) matches(name string) bool {
	return slices.ContainsFunc(w.Patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

// leads tells whether a directory can hold what a pattern chooses.
func (w Watch) leads(dir string) bool {
	depth := strings.Count(dir, "/") + 1
	return slices.ContainsFunc(w.Patterns, func(p string) bool {
		parts := strings.Split(p, "/")
		if len(parts) <= depth {
			return false
		}
		ok, _ := path.Match(path.Join(parts[:depth]...), dir)
		return ok
	})
}

// Config is what a Watcher depends on.
type Config struct {
	Sink    Sink
	Host    Host // the disk with the watched files; Local in the program
	Watches []Watch
	Random  io.Reader
	Boot    func() time.Duration // CLOCK_BOOTTIME
	Log     *slog.Logger
}

// Stats counts what a watcher has done since it was made.
type Stats struct {
	Files      int   `json:"files"`      // followed now
	Bytes      int64 `json:"bytes"`      // taken in
	Truncated  int   `json:"truncated"`  // files that were truncated or rewritten
	Uncopied   int   `json:"uncopied"`   // of these, without a copy: what had not been read is lost
	Vanished   int   `json:"vanished"`   // files gone before they were read to their end in this process
	Compressed int   `json:"compressed"` // files ignored because they are compressed
	Unreadable int   `json:"unreadable"` // files and directories that the last round could not read
}

// Watcher follows the files of its watches. Its methods but Stats are for one
// goroutine.
type Watcher struct {
	cfg     Config
	sources []*follower
	buf     []byte        // of one write
	rescan  time.Duration // the constant; a test that must not need these rounds has longer ones

	mu    sync.Mutex
	stats Stats // guarded by mu
}

// New reads from the spool's metadata what is followed already. It touches no
// watched file.
func New(cfg Config) (*Watcher, error) {
	w := &Watcher{cfg: cfg, buf: make([]byte, maxWrite), rescan: rescan}
	bySource := map[vault.Source]*follower{}
	for _, one := range cfg.Watches {
		f := bySource[one.Source]
		if f == nil {
			f = &follower{w: w, source: one.Source, byID: map[Identity]*text{}, ignored: map[Identity]int64{}, suspects: map[Identity]suspect{},
				log: cfg.Log.With("source", string(one.Source))}
			bySource[one.Source] = f
			w.sources = append(w.sources, f)
		}
		f.watches = append(f.watches, one)
	}
	for _, f := range w.sources {
		if err := f.load(); err != nil {
			return nil, fmt.Errorf("watching for source %s: %w", f.source, err)
		}
	}
	return w, nil
}

// Stats describes the watcher now.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

func (w *Watcher) count(change func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.stats)
}

// Round looks at all watched files once and takes in what is new, at most 8 MiB
// per file; more says that some have more. trouble is what a person should look
// at while the watcher goes on: files that cannot be read, a full spool. An err
// is final: the spool failed or ctx is done.
func (w *Watcher) Round(ctx context.Context) (more bool, trouble, err error) {
	files, unreadable := 0, 0
	for _, f := range w.sources {
		again, err := f.round(ctx)
		files += len(f.byID)
		unreadable += len(f.problems)
		trouble = errors.Join(append([]error{trouble}, f.problems...)...)
		switch {
		case errors.Is(err, vault.ErrFull):
			trouble = errors.Join(trouble, fmt.Errorf("watched files wait: %w", err))
		case err != nil:
			return false, trouble, fmt.Errorf("watching for source %s: %w", f.source, err)
		}
		more = more || again
	}
	w.count(func(s *Stats) { s.Files, s.Unreadable = files, unreadable })
	return more, trouble, nil
}

// Close closes the watched files.
func (w *Watcher) Close() {
	for _, f := range w.sources {
		for _, t := range f.texts {
			t.close()
		}
	}
}
