// Package vault names what logvault stores and where.
//
// A vault is one copy of an archive: segments, sealed indexes, wraps of period
// keys and the ledger that chains them, under the same object names on a
// directory, an SFTP account or a bucket. This package holds
//
//   - the nouns that every other package shares (Hash, Day, Class, Source,
//     StreamID): small comparable values with one text form each;
//   - the object names of docs/FORMAT.md, made and parsed here only;
//   - the marker file VAULT, which identifies a vault but is never a source of trust;
//   - the store contracts, one per power: Reader, Writer, Head and Remover.
//     A package is handed only the power it needs, so that for example verify
//     cannot delete by construction.
//
// The stores themselves live below: vault/dir is the directory store.
package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// Hash is a SHA-256 digest. Its text form is 64 lower-case hex digits.
type Hash [sha256.Size]byte

// HashOf returns the SHA-256 of data.
func HashOf(data []byte) Hash { return sha256.Sum256(data) }

// String returns the lower-case hex form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero value, which stands for "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseHash parses exactly 64 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if err := parseHex(h[:], s); err != nil {
		return Hash{}, fmt.Errorf("hash %q: %w", s, err)
	}
	return h, nil
}

// StreamID identifies the file that a source writes, for life: 128 random bits
// made when the file is first seen. Together with a generation number it names
// one append-only run of bytes. Its text form is 32 lower-case hex digits.
type StreamID [16]byte

// NewStreamID draws a stream id from random.
func NewStreamID(random io.Reader) (StreamID, error) {
	var id StreamID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return StreamID{}, fmt.Errorf("drawing a stream id: %w", err)
	}
	return id, nil
}

// String returns the lower-case hex form.
func (id StreamID) String() string { return hex.EncodeToString(id[:]) }

// ParseStreamID parses exactly 32 lower-case hex digits.
func ParseStreamID(s string) (StreamID, error) {
	var id StreamID
	if err := parseHex(id[:], s); err != nil {
		return StreamID{}, fmt.Errorf("stream id %q: %w", s, err)
	}
	return id, nil
}

// parseHex fills dst from lower-case hex digits and accepts no other spelling,
// so that a value has one text form.
func parseHex(dst []byte, s string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%d characters, expected %d", len(s), 2*len(dst))
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errors.New("not lower-case hex")
		}
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

// Class names a retention class, such as "technical": 1 to 32 characters of
// a-z, 0-9 and '-', starting with a letter.
type Class string

// Valid returns nil if c is a class name, else an error that says what is wrong.
func (c Class) Valid() error {
	if len(c) == 0 || len(c) > 32 {
		return fmt.Errorf("class %q: %d characters, expected 1 to 32", string(c), len(c))
	}
	for i := range len(c) {
		letter := c[i] >= 'a' && c[i] <= 'z'
		if !letter && (i == 0 || c[i] != '-' && (c[i] < '0' || c[i] > '9')) {
			return fmt.Errorf("class %q: expected a-z, 0-9 and '-', starting with a letter", string(c))
		}
	}
	return nil
}

// Source is the configured name of a proxy (one client identity): 1 to 63
// characters of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit.
type Source string

// Valid returns nil if s is a source name, else an error that says what is wrong.
func (s Source) Valid() error {
	if len(s) == 0 || len(s) > 63 {
		return fmt.Errorf("source %q: %d characters, expected 1 to 63", string(s), len(s))
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("source %q: expected letters, digits, '.', '_' and '-', starting with a letter or digit", string(s))
		}
	}
	return nil
}

// Day is a civil date. In an object name it is the destruction day fixed at
// sealing: a label that never moves.
type Day struct {
	Year  int
	Month time.Month
	Day   int
}

// DayOf returns the civil date of t in t's own location.
func DayOf(t time.Time) Day {
	y, m, d := t.Date()
	return Day{y, m, d}
}

// ParseDay parses the form 2006-01-02.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse("2006-01-02", s)
	if err != nil {
		return Day{}, fmt.Errorf("day %q: expected YYYY-MM-DD", s)
	}
	return DayOf(t), nil
}

// String returns the form 2006-01-02.
func (d Day) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// Start returns 00:00 of the day in loc.
func (d Day) Start(loc *time.Location) time.Time {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, loc)
}

// Compare returns -1, 0 or 1 as d is before, equal to or after e.
func (d Day) Compare(e Day) int { return d.Start(time.UTC).Compare(e.Start(time.UTC)) }

// Codec names a segment's compression: gzip members or zstd frames.
type Codec string

// The codecs of format version 1.
const (
	Gzip Codec = "gz"
	Zstd Codec = "zst"
)

// KV is a record of the intake's metadata table. A nil Value deletes the key.
type KV struct {
	Key   string
	Value []byte
}

// StreamInfo describes a stream to the intake.
type StreamInfo struct {
	ID     StreamID
	Source Source
	Name   []byte // the file's path as the source knows it, bytes as received

	// Recorded is the date that retention counts from, for imports of older
	// files. Zero means that the received times count.
	Recorded time.Time
}

// Generation names one generation of a stream.
type Generation struct {
	Stream StreamID
	Gen    int64
}

// Changes are changes of the intake's tables that are made together: all of
// them are durable, or none. They are made in the order of the fields.
type Changes struct {
	Add    []StreamInfo // streams made known; what is known stays as it is
	Rename []StreamInfo // ID and Name: what later pieces of a stream are archived under
	End    []Generation // generations that the client is done with; again changes nothing
	Over   []StreamID   // streams that get no bytes any more: forgotten when all they have is sealed
	Set    []KV
}

// ErrFull says that the intake has no room or is overloaded for now. It is a
// passing state: the caller waits and tries again, and reports no loss.
var ErrFull = errors.New("intake is full for now")
