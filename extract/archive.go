package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"logvault/extract/logfmt"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
)

// Limits on what is read whole into memory, in bytes.
const (
	maxRaw    = segment.MaxRaw                 // the text of a segment
	maxObject = 2*maxRaw + maxRaw/128 + 64<<10 // a stored segment or index, whichever may be larger
	maxWrap   = 1 << 20
)

// errDestroyed says that a key or an object is absent on or after its legal date.
var errDestroyed = errors.New("destroyed on its legal date")

// IntegrityError says that the vault does not hold what its ledger says. Another
// copy may.
type IntegrityError struct {
	Object        string // object name
	Entry         int64  // the ledger entry that names it
	Expected, Got string
}

// Error names the object, the entry that announces it, and what was found instead.
func (e *IntegrityError) Error() string {
	return fmt.Sprintf("%s (ledger entry %d): expected %s, got %s", e.Object, e.Entry, e.Expected, e.Got)
}

// archive reads segments in clear. It holds opened period keys until close.
//
// Objects are read whole before anything is decrypted: go-crypto releases
// plaintext before it has checked it, so only bytes whose hash is the one of
// the signed entry may reach it, and a file read twice could change in between.
type archive struct {
	objects      vault.Reader
	opener       pgp.Opener
	now          time.Time
	found        *survey
	secrets      map[int64]*pgp.Secret // by index of the key entry
	object, text bytes.Buffer          // reused from segment to segment
}

// newArchive opens keys for a request that was recorded at now. What is due
// then may be gone; the time of the entry lets a check of the bundle say the same.
func newArchive(a Archive, opener pgp.Opener, found *survey, now time.Time) *archive {
	return &archive{objects: a.Vault, opener: opener, now: now, found: found, secrets: map[int64]*pgp.Secret{}}
}

// close destroys the opened period keys.
func (a *archive) close() {
	for _, s := range a.secrets {
		s.Destroy()
	}
}

// secret opens the period key of a key entry, by any of its wraps.
func (a *archive) secret(ctx context.Context, c *candidate) (*pgp.Secret, error) {
	index := c.entry.Key
	if s := a.secrets[index]; s != nil {
		return s, nil
	}
	key := a.found.keys[index]
	if key == nil {
		return nil, &IntegrityError{"ledger", c.index, fmt.Sprintf("a key entry at index %d", index), "none"}
	}
	var missing, failed error // a wrap that is absent; one that does not open
	for _, hash := range append([]vault.Hash{key.Wrap}, a.found.wraps[index]...) {
		name := vault.WrapName(key.Day, key.Class, key.PublicHash, hash)
		s, err := a.openWrap(ctx, key, index, name, hash)
		switch {
		case err == nil:
			a.secrets[index] = s
			return s, nil
		case errors.Is(err, vault.ErrNotExist):
			missing = &IntegrityError{name, index, "the wrap of the period key", "no such object"}
		default:
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, a.absent(c, missing)
}

// openWrap reads, checks and opens one wrap.
func (a *archive) openWrap(ctx context.Context, key *entry.Key, index int64, name string, want vault.Hash) (*pgp.Secret, error) {
	message, err := vault.ReadAll(ctx, a.objects, name, maxWrap)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if got := vault.HashOf(message); got != want {
		return nil, &IntegrityError{name, index, want.String(), got.String()}
	}
	s, err := a.unwrap(ctx, key, message)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	return s, nil
}

// unwrap opens one wrap and checks that it holds the secret of the key entry.
func (a *archive) unwrap(ctx context.Context, key *entry.Key, message []byte) (*pgp.Secret, error) {
	content, err := a.opener.Open(ctx, message)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	s, err := pgp.OpenSecret(content)
	if err != nil {
		return nil, err
	}
	if got := s.PublicHash(); got != key.PublicHash {
		s.Destroy()
		return nil, fmt.Errorf("wrap holds the secret of key %v, expected %v", got, key.PublicHash)
	}
	return s, nil
}

// absent turns a missing object into errDestroyed once its legal date has come.
func (a *archive) absent(c *candidate, missing error) error {
	if !a.now.Before(c.entry.RetainUntil) {
		return errDestroyed
	}
	return missing
}

// read reads an object of a segment entry and checks its size and hash. The
// bytes are valid until the next read.
func (a *archive) read(ctx context.Context, c *candidate, name string, want vault.Hash, size int64) ([]byte, error) {
	rc, got, err := a.objects.Open(ctx, name)
	if errors.Is(err, vault.ErrNotExist) {
		return nil, a.absent(c, &IntegrityError{name, c.index, "an object", "no such object"})
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	defer rc.Close() // read-only: nothing to lose
	if got != size || size > maxObject {
		return nil, &IntegrityError{name, c.index, fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d bytes", got)}
	}
	a.object.Reset()
	a.object.Grow(int(size) + bytes.MinRead) // ReadFrom wants that much to see the end
	if _, err := a.object.ReadFrom(rc); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if hash := vault.HashOf(a.object.Bytes()); hash != want {
		return nil, &IntegrityError{name, c.index, want.String(), hash.String()}
	}
	return a.object.Bytes(), nil
}

// index opens the sealed index of a segment.
func (a *archive) index(ctx context.Context, c *candidate) (*segment.Index, error) {
	s, err := a.secret(ctx, c)
	if err != nil {
		return nil, err
	}
	name := vault.IndexName(c.entry.Day, c.entry.Index)
	data, err := a.read(ctx, c, name, c.entry.Index, c.entry.IndexSize)
	if err != nil {
		return nil, err
	}
	ix, err := segment.DecodeIndex(bytes.NewReader(data), s)
	if err != nil {
		return nil, fmt.Errorf("decoding %s: %w", name, err)
	}
	if ix.Lines != c.entry.Lines {
		return nil, &IntegrityError{name, c.index, fmt.Sprintf("%d lines", c.entry.Lines), fmt.Sprintf("%d lines", ix.Lines)}
	}
	return ix, nil
}

// raw returns the text of a segment, valid until the next call.
func (a *archive) raw(ctx context.Context, c *candidate) ([]byte, error) {
	limit := min(c.entry.Raw, maxRaw)
	a.text.Reset()
	a.text.Grow(int(limit))
	if err := a.decode(ctx, c, &cappedBuffer{&a.text, limit}); err != nil {
		return nil, err
	}
	if got := int64(a.text.Len()); got != c.entry.Raw {
		return nil, &IntegrityError{c.name(), c.index, fmt.Sprintf("%d bytes of text", c.entry.Raw), fmt.Sprintf("%d", got)}
	}
	return a.text.Bytes(), nil
}

// decode writes the text of a segment to w, after its object's hash was checked.
func (a *archive) decode(ctx context.Context, c *candidate, w io.Writer) error {
	s, err := a.secret(ctx, c)
	if err != nil {
		return err
	}
	data, err := a.read(ctx, c, c.name(), c.entry.Object, c.entry.Size)
	if err != nil {
		return err
	}
	if _, err := segment.Decode(w, bytes.NewReader(data), s, c.entry.Codec); err != nil {
		return fmt.Errorf("decoding %s: %w", c.name(), err)
	}
	return nil
}

// cappedBuffer refuses more text than the entry announces.
type cappedBuffer struct {
	buf   *bytes.Buffer
	limit int64
}

// Write takes all of p or, if that would exceed the limit, nothing.
func (b *cappedBuffer) Write(p []byte) (int, error) {
	if int64(b.buf.Len()+len(p)) > b.limit {
		return 0, fmt.Errorf("more than %d bytes of text", b.limit)
	}
	return b.buf.Write(p)
}

// splitLines calls fn for each line of a text with its number and its line end.
// A last line may lack the LF. It stops at fn's first error.
func splitLines(text []byte, fn func(number int64, line []byte) error) error {
	for number := int64(0); len(text) > 0; number++ {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 {
			end = len(text)
		}
		if err := fn(number, text[:end]); err != nil {
			return err
		}
		text = text[end:]
	}
	return nil
}

// format is the log format of an index as logfmt knows it.
func format(ix *segment.Index) logfmt.Format { return logfmt.Format(ix.Format) }
