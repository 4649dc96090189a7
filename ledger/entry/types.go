package entry

import (
	"time"

	"logvault/vault"
)

// Init is the first entry of a main ledger.
type Init struct {
	Header
	Vault    string     // the vault's id, 32 hex digits
	Origin   string     // the origin line of the checkpoints
	Marker   vault.Hash // SHA-256 of the file VAULT
	Key      string     // the ledger key as a note verifier key
	Recovery string     // the offline recovery key as a note verifier key
}

// Policy states the retention classes, the auditors and the sources from here
// on. It replaces the one before; what is sealed keeps the date it was given.
type Policy struct {
	Header
	Classes  []PolicyClass  // sorted by name, at least one
	Auditors []string       // fingerprints of primary keys, 40 hex digits, sorted, at least one
	Sources  []PolicySource // sorted by name
}

// PolicyClass is a retention class as a policy states it.
type PolicyClass struct {
	Name       vault.Class
	Period     string // calendar duration such as "P1Y" or "P1Y6M10D"
	Grace      string // the same, or ""
	Zone       string // IANA name of the zone whose civil dates count
	Basis      string // the legal basis in words, or ""
	ValidUntil string // last civil date of the basis, 2006-01-02, or ""
}

// PolicySource gives a source its retention class.
type PolicySource struct {
	Name  vault.Source
	Class vault.Class
}

// Scope says which segments a hold or an extension touches: those that match
// every member that is set.
type Scope struct {
	Class  vault.Class     // "" = any
	Source vault.Source    // "" = any
	Stream *vault.StreamID // nil = any
	Since  time.Time       // records at or after; zero = from the first
	Until  time.Time       // records before; zero = to the last
}

// Extend lengthens the retention of what is sealed already.
type Extend struct {
	Header
	Scope
	RetainUntil time.Time
	Commit      vault.Hash // of the reason in register/
}

// Key introduces a period key. Only after it is in a published checkpoint may
// a segment be sealed to the key.
type Key struct {
	Header
	Class      vault.Class
	Day        vault.Day  // the destruction day
	Public     []byte     // the public key packets
	PublicHash vault.Hash // SHA-256 of Public
	Wrap       vault.Hash // SHA-256 of the first wrap
	Recipients []string   // full fingerprints of the auditors' primary keys, sorted
}

// Rewrap says that a period key's secret was wrapped once more.
type Rewrap struct {
	Header
	Key        int64 // index of the key entry
	Wrap       vault.Hash
	Recipients []string // as in Key
}

// Segment chains a sealed segment. For one stream generation the offset is the
// offset + span of the entry at Prev, so that continuity and a missing tail show.
type Segment struct {
	Header
	Source                      vault.Source
	Stream                      vault.StreamID
	Gen                         int64
	Offset                      int64
	Span                        int64 // received bytes covered
	Raw                         int64 // bytes of stored text; Span unless Edit is set
	Lines                       int64
	Edit                        string // name of the minimisation profile, "" = none
	Prev                        int64  // index of this stream's previous segment or gap entry, -1 = none
	Closed                      bool   // the generation ends here
	Cut                         string // "", or why the segment does not end at an LF: CutEnd, CutLong
	Joined                      bool   // continues a line that the previous segment cut
	FirstReceived, LastReceived time.Time
	FirstEvent, LastEvent       time.Time // of the lines' own times; zero = none found
	Object                      vault.Hash
	Codec                       vault.Codec
	Size                        int64 // bytes of the object
	Index                       vault.Hash
	IndexSize                   int64
	Key                         int64 // index of the key entry
	Root                        vault.Hash
	Class                       vault.Class
	Day                         vault.Day // the destruction day of the object's name
	RetainUntil                 time.Time
}

// The values of Segment.Cut.
const (
	CutEnd  = "end"  // the generation ended without LF
	CutLong = "long" // the line is longer than the limit
)

// Gap says that bytes of a stream never came, or are lost.
type Gap struct {
	Header
	Source vault.Source
	Stream vault.StreamID
	Gen    int64
	Offset int64
	Span   int64
	Prev   int64  // as in Segment
	Reason string // GapHole or GapLost
}

// The values of Gap.Reason.
const (
	GapHole = "hole" // never received
	GapLost = "lost" // received, and damaged before it was sealed
)

// Conflict says that bytes came twice with different content. Both are kept:
// the second ones in a stream of their own, from offset 0.
type Conflict struct {
	Header
	Source   vault.Source
	Stream   vault.StreamID // the original
	Gen      int64
	Offset   int64
	Span     int64
	Other    vault.StreamID // the stream of the other bytes
	OtherGen int64
}

// Orphan names an object that no other entry will ever name: what a crash left.
type Orphan struct {
	Header
	Object vault.Hash
	Name   string // object name
}

// Hold suspends expiry for a scope.
type Hold struct {
	Header
	Scope
	Hold   string     // the hold's id, 32 hex digits
	Commit vault.Hash // of the order in register/
}

// Release ends a hold.
type Release struct {
	Header
	Hold      int64      // index of the hold entry
	Commit    vault.Hash // of the reason in register/
	Approver  string     // full fingerprint of the approver's OpenPGP key
	Signature []byte     // detached OpenPGP signature of this entry without the member signature
}

// Request records that a disclosure was asked for, before anything is decrypted.
type Request struct {
	Header
	Commit vault.Hash // of the request in register/
	Object vault.Hash // SHA-256 of its file in register/, so that it is checked without a key
	Class  vault.Class
	Kind   string // RequestExtract or RequestCat
}

// The values of Request.Kind.
const (
	RequestExtract = "extract"
	RequestCat     = "cat"
)

// Disclosure records what a request was answered with.
type Disclosure struct {
	Header
	Request  int64      // index of the request entry
	Commit   vault.Hash // of the bundle's manifest
	Lines    int64
	Segments int64 // segments searched
}

// Rotate names the ledger key that signs every checkpoint that covers it. Its
// own signature, by the key named in By, is what makes that key the next one.
type Rotate struct {
	Header
	Old, New  string // note verifier keys
	Recovery  string // the next recovery key, or "" = the same as before
	By        string // RotateLog or RotateRecovery
	Signature []byte // Ed25519 signature, by that key, of this entry without the member signature
}

// The values of Rotate.By.
const (
	RotateLog      = "log"
	RotateRecovery = "recovery"
)

// Clock corrects the clock that entries and dates are taken from.
type Clock struct {
	Header
	Believed  time.Time // what the clock said
	Corrected time.Time // what it was at the same moment
	Approver  string    // as in Release
	Signature []byte    // as in Release
}

// Timestamp records an RFC 3161 token over a head of this ledger.
type Timestamp struct {
	Header
	Size  int64      // of the head
	Root  vault.Hash // of the head
	Token vault.Hash // SHA-256 of ledger/timestamps/<size>.tsr
	Stamp time.Time  // the token's time
}

// Replica introduces a copy, or retires it.
type Replica struct {
	Header
	Name    string // of the copy, as in copy/<name>/
	Key     string // its cosignature/v1 verifier key
	Log     string // its copy log's verifier key
	Retired bool
}

// Summary counts what a span of time brought, for readers without keys.
type Summary struct {
	Header
	Since, Until time.Time
	Source       vault.Source // "" = all
	Segments     int64
	Raw          int64
	Stored       int64
	Lines        int64
	Gaps         int64
	Conflicts    int64
}
