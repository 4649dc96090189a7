package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Errors that callers of a store branch on.
var (
	// ErrNotExist says that the named object is absent. It is never returned
	// for a store that cannot be reached.
	ErrNotExist = errors.New("object does not exist")
	// ErrConflict says that Put found other bytes under the name.
	ErrConflict = errors.New("object exists with other content")
	// ErrNoVault says that there is no vault at the place: absent, empty or not mounted.
	ErrNoVault = errors.New("no vault here")
	// ErrUnreachable says that the machine or the line to a store is down. It
	// passes: what was begun may be tried again.
	ErrUnreachable = errors.New("the store does not answer")
	// ErrUnfit says that a place is set up in a way that no vault can live with.
	// A person must change that; trying again is of no use.
	ErrUnfit = errors.New("not fit for a vault")
	// ErrNotEmpty says that a place for a new vault holds something already.
	ErrNotEmpty = errors.New("not empty")
)

// Info describes a stored object.
type Info struct {
	Name    string
	Size    int64
	ModTime time.Time
}

// Reader reads the objects of one vault. Implementations are safe for
// concurrent use. Nothing read is trusted: callers check it against the ledger.
type Reader interface {
	// Open opens an object for sequential reading and returns its size in bytes.
	// An absent object gives an error that wraps ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, int64, error)
	// Stat describes an object without reading it, or wraps ErrNotExist.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for each object whose name starts with the directory
	// prefix ("" or a name ending in "/"), in lexical order of names.
	// Temporary files of unfinished writes are not objects and are not listed.
	// An absent prefix lists nothing. It stops at fn's first error and returns it.
	List(ctx context.Context, prefix string, fn func(Info) error) error
}

// Writer adds immutable objects. Implementations are safe for concurrent use.
type Writer interface {
	// Put stores size bytes of body under name, create-exclusive. When it
	// returns nil the object is durable under its name and whole. If the name
	// exists with the same bytes, Put succeeds; with other bytes it fails with
	// ErrConflict and changes nothing. After any other error the object is
	// absent or whole, never partial, and Put may be tried again.
	Put(ctx context.Context, name string, size int64, body io.Reader) error
}

// Checker is a Writer that can show an object's stored bytes before it gives
// them their name.
type Checker interface {
	// PutChecked is Put, but the object appears only after check has read what
	// was stored, durable and whole, and found it good. Else the object stays
	// absent, or what it was, and check's error is returned.
	PutChecked(ctx context.Context, name string, size int64, body io.Reader, check func(stored io.Reader) error) error
}

// Head replaces the few mutable names of a ledger. One writer at a time.
type Head interface {
	// Replace atomically and durably gives name new content. It refuses names
	// for which IsMutable is false.
	Replace(ctx context.Context, name string, data []byte) error
	// RemovePartial removes a partial tile or bundle that a longer one has
	// superseded. It refuses names that are not partial tiles. An absent name
	// is success. The removal need not be durable: a partial that comes back
	// is harmless.
	RemovePartial(ctx context.Context, name string) error
	// RemoveTail removes a full tile or bundle that the published checkpoint
	// of its log does not cover (IsTail): what a crash left of a batch that
	// was never committed, in the way of the next one. It reads that
	// checkpoint and refuses every other name. An absent name is success. The
	// removal need not be durable: a tail that comes back is removed again.
	RemoveTail(ctx context.Context, name string) error
}

// Store is a whole vault as the one program that writes it holds it. It gives
// no power to remove objects.
type Store interface {
	Reader
	Writer
	Head
	// Sweep removes what unfinished writes of crashed processes left, and
	// returns how many. Only the vault's one writer calls it, before it writes.
	Sweep(ctx context.Context) (int, error)
}

// Level is how well a store keeps its objects from being changed or removed,
// as it was checked, not as it was asked for.
type Level string

// The levels, weakest first.
const (
	LevelNone Level = "none"       // whoever may write there may change everything
	LevelMode Level = "mode"       // no write permission: against mistakes, not against the owner
	LevelFlag Level = "flag"       // FS_IMMUTABLE: against everybody but root of that machine
	LevelLock Level = "objectlock" // S3 Object Lock in COMPLIANCE mode: against everybody, until the date
)

// levels is the order of the levels.
var levels = []Level{LevelNone, LevelMode, LevelFlag, LevelLock}

// Weaker reports whether l protects less than other. An unknown level is weaker
// than every known one, also than LevelNone.
func (l Level) Weaker(other Level) bool {
	return slices.Index(levels, l) < slices.Index(levels, other)
}

// Protector is a store that can make its objects immutable.
type Protector interface {
	// Protect makes a stored object immutable, until the given time where the
	// store knows times and else until a Remover takes it away, checks the
	// result and returns the level that holds now. It may be repeated, and
	// never shortens or weakens what is there.
	Protect(ctx context.Context, name string, until time.Time) (Level, error)
}

// Versioned is a store that may keep what was overwritten or deleted.
type Versioned interface {
	// RemoveVersions removes for good the superseded versions of a mutable
	// name (IsMutable), by version id, and refuses every other name.
	RemoveVersions(ctx context.Context, name string) error
}

// Remover removes objects. Only package retention is handed one.
type Remover interface {
	// Remove removes an object durably. An absent object is success.
	Remove(ctx context.Context, name string) error
}

// ReadAll reads a whole object of at most limit bytes. A longer one is a
// *TooLargeError, of which nothing is read; one that ends before the size it was
// opened with wraps io.ErrUnexpectedEOF. Of an object that grew meanwhile it gives
// the size it had at first.
func ReadAll(ctx context.Context, r Reader, name string, limit int64) ([]byte, error) {
	rc, size, err := r.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer rc.Close() // read-only: nothing to lose
	if size < 0 {    // what a server did not tell, or told wrongly
		return nil, fmt.Errorf("reading %s: %d bytes, expected 0 or more", name, size)
	}
	if size < 0 || size > limit {
		return nil, &TooLargeError{Name: name, Size: size, Limit: limit}
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(rc, data); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}
