package ingest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
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
	KeyDir string // one key per spool file, 0600; better on another disk than Dir
	Random io.Reader
	Now    func() time.Time     // wall clock
	Boot   func() time.Duration // CLOCK_BOOTTIME: never steps, counts suspend
	Log    *slog.Logger
	// MaxBytes bounds the space of the files in Dir; 0 means what the disk holds.
	MaxBytes int64
	// FileBytes is the size of one file, 64 MiB if 0; at most 128 MiB.
	FileBytes int64
}

// Stats describes a spool at one moment.
type Stats struct {
	Bytes          int64     // space of the files in use
	Free           int64     // room left for intake
	Unsealed       int64     // received bytes not yet released by the sealer
	OldestUnsealed time.Time // receipt of the oldest such byte, to a quarter of an hour; zero: none
	Streams        int
	Conflicts      int64            // conflicting or late extents archived since the spool was opened
	Torn           int64            // groups of an unfinished write dropped at the start: nothing acknowledged
	Damaged        int64            // files kept aside because acknowledged bytes in them are damaged
	DamagedStreams []vault.StreamID // streams that may have lost bytes in those files
}

// CreateSpool makes an empty spool.
func CreateSpool(ctx context.Context, cfg SpoolConfig) error { return errUnbuilt }

// OpenSpool replays an existing spool.
func OpenSpool(ctx context.Context, cfg SpoolConfig) (*Spool, error) { return nil, errUnbuilt }

var errUnbuilt = errors.New("under construction")

// Spool is the durable encrypted intake. Safe for concurrent use.
type Spool struct{}

func (s *Spool) AddStream(ctx context.Context, info vault.StreamInfo) error { return errUnbuilt }
func (s *Spool) RenameStream(ctx context.Context, id vault.StreamID, name []byte) error {
	return errUnbuilt
}
func (s *Spool) Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error {
	return errUnbuilt
}
func (s *Spool) Commit(ctx context.Context, id vault.StreamID) error { return errUnbuilt }
func (s *Spool) Sync(ctx context.Context) error                      { return errUnbuilt }
func (s *Spool) EndGeneration(ctx context.Context, id vault.StreamID, gen int64) error {
	return errUnbuilt
}
func (s *Spool) Size(id vault.StreamID, gen int64) int64 { return 0 }
func (s *Spool) ReadAt(ctx context.Context, id vault.StreamID, gen int64, p []byte, off int64) (int, error) {
	return 0, errUnbuilt
}
func (s *Spool) SetMeta(ctx context.Context, kvs ...vault.KV) error { return errUnbuilt }
func (s *Spool) Meta(prefix string, fn func(vault.KV) error) error  { return errUnbuilt }
func (s *Spool) Due(ctx context.Context, o vault.DueOptions) ([]vault.Piece, error) {
	return nil, errUnbuilt
}
func (s *Spool) Read(ctx context.Context, p vault.Piece, buf []byte) ([]byte, error) {
	return nil, errUnbuilt
}
func (s *Spool) Intend(ctx context.Context, in vault.Intent) error             { return errUnbuilt }
func (s *Spool) Release(ctx context.Context, p vault.Piece, index int64) error { return errUnbuilt }
func (s *Spool) Pending() []vault.Intent                                       { return nil }
func (s *Spool) Stats() Stats                                                  { return Stats{} }
func (s *Spool) Space() (total, free int64)                                    { return 0, 0 }
func (s *Spool) Close() error                                                  { return errUnbuilt }
