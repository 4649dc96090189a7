// Package entry holds the typed entries of the ledger and their one text form.
//
// An entry is a JSON object in the canonical form of RFC 8785, restricted so
// that every value has exactly one spelling and every reader sees the same one:
//
//   - UTF-8 without white space between tokens, at most MaxSize bytes, at most
//     four levels of objects and arrays, members sorted by name, none twice;
//   - member names of a-z, 0-9 and '_', starting with a letter, so that the
//     UTF-16 order of RFC 8785 is the order of the bytes;
//   - numbers are integers 0 … 2^53-1; no fraction, exponent, sign or null;
//   - strings hold no control characters, so that only \" and \\ are escaped;
//   - times are 2006-01-02T15:04:05.000Z, hashes and ids lower-case hex,
//     binary values standard base64 with padding;
//   - a value that does not apply is an absent member: never null, "" or false.
//
// Each entry has the members v (1: SHA-256, Ed25519, RFC 6962, this form),
// type, time and actor (a role such as "gateway", never a login), and may have
// crit: the names of members that a reader must know to act on the entry. An
// unknown v, type or critical member is ErrNewer, which is not damage: the
// chain of a ledger verifies whatever its entries say. Other unknown members
// are kept, and written back by Encode.
//
//	{"actor":"gateway","marker":"9f2c…","origin":"logs.example/main",…,"time":"2026-11-21T06:32:16.000Z","type":"init","v":1,…}
//
// Entries never hold file names, case numbers, reasons or who asked. Such a
// record lives encrypted in register/; the entry has its commit, the
// SHA-256(32-byte salt ‖ record).
//
// One function per type lists its members, in members.go; Encode and Decode
// both run it, so that they cannot disagree.
package entry

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/vault"
)

// MaxSize is the size limit of an encoded entry in bytes. A tlog-tiles bundle
// gives each entry a 16-bit length.
const MaxSize = 65535

// MaxInt is the largest integer of an entry: the largest that every JSON
// reader holds exactly.
const MaxInt = 1<<53 - 1

// Errors that callers branch on.
var (
	// ErrNotCanonical says that the bytes are not in the canonical form.
	ErrNotCanonical = errors.New("not a canonical entry")
	// ErrNewer says that the entry is well formed but needs a newer reader.
	ErrNewer = vault.ErrNewer
	// ErrTooLarge says that the entry exceeds MaxSize.
	ErrTooLarge = errors.New("entry too large")
)

// FieldError says that a member of a canonical entry has a value that its type
// does not allow. Encode and Decode report the same errors.
type FieldError struct {
	Type   Type
	Member string // the JSON name; "" is the entry as a whole
	Err    error
}

// Error names the type and the member.
func (e *FieldError) Error() string {
	if e.Member == "" {
		return fmt.Sprintf("%s entry: %v", e.Type, e.Err)
	}
	return fmt.Sprintf("%s entry, member %s: %v", e.Type, e.Member, e.Err)
}

// Unwrap returns what is wrong with the value.
func (e *FieldError) Unwrap() error { return e.Err }

// Type is the value of the member "type".
type Type string

// The types of the main ledger: what was archived and decided.
const (
	TypeInit       Type = "init"
	TypePolicy     Type = "policy"
	TypeExtend     Type = "extend"
	TypeKey        Type = "key"
	TypeRewrap     Type = "rewrap"
	TypeSegment    Type = "segment"
	TypeGap        Type = "gap"
	TypeConflict   Type = "conflict"
	TypeOrphan     Type = "orphan"
	TypeHold       Type = "hold"
	TypeRelease    Type = "release"
	TypeRequest    Type = "request"
	TypeDisclosure Type = "disclosure"
	TypeRotate     Type = "rotate"
	TypeClock      Type = "clock"
	TypeTimestamp  Type = "timestamp"
	TypeReplica    Type = "replica"
	TypeSummary    Type = "summary"
)

// The types of a copy log: what one copy did.
const (
	TypeCopyInit   Type = "copy-init"
	TypeHeld       Type = "held"
	TypeLock       Type = "lock"
	TypeTime       Type = "time"
	TypeExpirePlan Type = "expire-plan"
	TypeTombstone  Type = "tombstone"
	TypeFinding    Type = "finding"
)

// Header holds the members that every entry has. The member v is always 1 and
// the member type follows from the Go type.
type Header struct {
	Time  time.Time // when it was written, by the writer's clock; to the millisecond
	Actor string    // the role that wrote it: a-z, 0-9 and '-', 1 to 32 characters
	Crit  []string  // members that a reader must know, sorted; nil = none

	extra []member // members that this version does not know
}

// Head returns the header.
func (h *Header) Head() *Header { return h }

// Entry is one of the entry types of this package, as a pointer.
type Entry interface {
	Type() Type
	Head() *Header
	members(*codec)
}

// newEntry returns an empty entry of a type, or nil for an unknown one.
func newEntry(t Type) Entry {
	switch t {
	case TypeInit:
		return new(Init)
	case TypePolicy:
		return new(Policy)
	case TypeExtend:
		return new(Extend)
	case TypeKey:
		return new(Key)
	case TypeRewrap:
		return new(Rewrap)
	case TypeSegment:
		return new(Segment)
	case TypeGap:
		return new(Gap)
	case TypeConflict:
		return new(Conflict)
	case TypeOrphan:
		return new(Orphan)
	case TypeHold:
		return new(Hold)
	case TypeRelease:
		return new(Release)
	case TypeRequest:
		return new(Request)
	case TypeDisclosure:
		return new(Disclosure)
	case TypeRotate:
		return new(Rotate)
	case TypeClock:
		return new(Clock)
	case TypeTimestamp:
		return new(Timestamp)
	case TypeReplica:
		return new(Replica)
	case TypeSummary:
		return new(Summary)
	}
	return newCopyEntry(t)
}

// newCopyEntry is newEntry for the types of a copy log.
func newCopyEntry(t Type) Entry {
	switch t {
	case TypeCopyInit:
		return new(CopyInit)
	case TypeHeld:
		return new(Held)
	case TypeLock:
		return new(Lock)
	case TypeTime:
		return new(ClockReading)
	case TypeExpirePlan:
		return new(ExpirePlan)
	case TypeTombstone:
		return new(Tombstone)
	case TypeFinding:
		return new(Finding)
	}
	return nil
}

// Check returns nil if data is in the canonical form, whatever it says, else
// an error that wraps ErrNotCanonical or ErrTooLarge. It is what the ledger
// asks of an entry before it is written for ever.
func Check(data []byte) error {
	_, err := parse(data)
	return err
}

// Encode returns the canonical form of e. Times are cut to the millisecond. It
// fails with a *FieldError for a value that Decode would refuse, and with
// ErrTooLarge.
func Encode(e Entry) ([]byte, error) {
	c := &codec{typ: e.Type()}
	version, typ := int64(1), string(e.Type())
	c.integer("v", &version)
	c.text("type", &typ, nil)
	c.header(e.Head())
	e.members(c)
	c.takeExtra(e.Head())
	if c.err != nil {
		return nil, c.err
	}
	data := appendObject(nil, c.out)
	if _, err := parse(data); err != nil {
		return nil, &FieldError{Type: e.Type(), Err: err}
	}
	return data, nil
}

// Unsigned returns the canonical form of an encoded entry without its member
// signature: what the signature of a rotate, release or clock entry is over.
func Unsigned(data []byte) ([]byte, error) {
	all, err := parse(data)
	if err != nil {
		return nil, err
	}
	return appendObject(nil, slices.DeleteFunc(all, func(m member) bool { return m.name == "signature" })), nil
}

// Decode parses an entry strictly: for every data that it accepts, Encode
// gives back the same bytes. Its errors wrap ErrNotCanonical or ErrTooLarge
// (not an entry of any version), ErrNewer (an entry of a newer version), or are
// a *FieldError.
func Decode(data []byte) (Entry, error) {
	in, err := parse(data)
	if err != nil {
		return nil, err
	}
	c := &codec{in: in, decoding: true}
	var version int64
	var typ string
	c.integer("v", &version)
	c.text("type", &typ, nil)
	if c.err != nil {
		return nil, c.err
	}
	if version != 1 {
		return nil, fmt.Errorf("entry version %d, expected 1: %w", version, ErrNewer)
	}
	e := newEntry(Type(typ))
	if e == nil {
		return nil, fmt.Errorf("entry type %q: %w", typ, ErrNewer)
	}
	c.typ = Type(typ)
	c.header(e.Head())
	e.members(c)
	if err := c.checkCrit(e.Head().Crit); err != nil {
		return nil, err
	}
	if c.err != nil {
		return nil, c.err
	}
	if len(c.in) > 0 {
		e.Head().extra = c.in
	}
	return e, nil
}
