// Package location opens the vault that is at a place. A place is what a person
// writes in --vault or in the configuration:
//
//	/path, path or file:///path   a directory (vault/dir)
//
// A place of any other scheme is an *Error. Open and Create are different
// verbs: Open never makes anything, so that a mount that is lost is an error
// and not a fresh empty vault.
package location

import (
	"context"
	"fmt"
	"strings"

	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/vault/dir"
)

// Error says that a place cannot be understood: a mistake of who wrote it.
type Error struct {
	Place  string
	Detail string
}

func (e *Error) Error() string { return fmt.Sprintf("vault %q: %s", e.Place, e.Detail) }

// Opener opens vaults. FS must be set.
type Opener struct {
	FS vfs.FS // the disk of vaults in directories
}

// Open opens an existing vault. Where there is none the error wraps vault.ErrNoVault.
func (o Opener) Open(_ context.Context, place string) (vault.Store, error) {
	path, err := localPath(place)
	if err != nil {
		return nil, err
	}
	s, err := dir.Open(o.FS, path)
	if err != nil {
		return nil, fmt.Errorf("opening the vault %s: %w", place, err)
	}
	return s, nil
}

// Create makes the place of a new vault, which must be absent or empty: else
// the error wraps vault.ErrNotEmpty. The vault begins with its marker, which
// the caller writes.
func (o Opener) Create(_ context.Context, place string) (vault.Store, error) {
	path, err := localPath(place)
	if err != nil {
		return nil, err
	}
	s, err := dir.Create(o.FS, path)
	if err != nil {
		return nil, fmt.Errorf("creating the vault %s: %w", place, err)
	}
	return s, nil
}

// localPath is the path of a directory, or the error for what is none.
func localPath(place string) (string, error) {
	path := strings.TrimPrefix(place, "file://")
	if scheme, _, ok := strings.Cut(path, "://"); ok {
		return "", &Error{place, fmt.Sprintf("%s:// is not known, expected a path or file://", scheme)}
	}
	return path, nil
}
