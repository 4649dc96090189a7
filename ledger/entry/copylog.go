package entry

import (
	"time"

	"logvault/vault"
)

// CopyInit is the first entry of a copy log.
type CopyInit struct {
	Header
	Vault  string // the vault's id, 32 hex digits
	Origin string // the origin of the main ledger
	Name   string // of the copy: a-z, 0-9 and '-', 1 to 32 characters
	Key    string // the copy log's key as a note verifier key
	// Cosigner is the copy's cosignature/v1 verifier key, or "". Trust comes from
	// a trust file; this lets a reader without one tell damage from a signature.
	Cosigner string
}

// Held says that this copy read back every object not yet due of a head.
type Held struct {
	Header
	Size    int64      // of the main ledger's head
	Root    vault.Hash // of that head
	Objects int64
	Bytes   int64
}

// Lock says how this copy protects what it holds.
type Lock struct {
	Header
	Size    int64  // of the main ledger's head up to which objects are locked
	Mode    string // LockMode, LockImmutable or LockObject
	Objects int64
	Until   time.Time // earliest end of the locks; zero = none
}

// The values of Lock.Mode.
const (
	LockMode      = "mode"        // permission bits
	LockImmutable = "immutable"   // the file system's immutable flag
	LockObject    = "object-lock" // S3 Object Lock in compliance mode
)

// ClockReading (type "time") anchors this copy's compliance clock.
type ClockReading struct {
	Header
	Clock  time.Time  // the compliance clock
	System time.Time  // the system clock at the same moment
	Boot   int64      // milliseconds of CLOCK_BOOTTIME at the same moment
	Proof  vault.Hash // of the external proof that corrected it; zero = none
}

// ExpirePlan announces a destruction before its first step.
type ExpirePlan struct {
	Header
	Size     int64      // of the main ledger's head the plan was made from
	Root     vault.Hash // of that head
	Clock    time.Time  // trusted now
	Plan     vault.Hash // SHA-256 of the plan in full
	Keys     []int64    // indexes of the key entries whose wraps go, rising
	Segments int64
	Bytes    int64
}

// Tombstone records a finished destruction.
type Tombstone struct {
	Header
	Plan     int64 // index of the expire-plan entry in this copy log
	Key      int64 // index of the key entry in the main ledger
	Wraps    int64
	Segments int64
	Bytes    int64
}

// Finding records what an audit of this copy found.
type Finding struct {
	Header
	Code   string // as verify names it
	Level  string // FindingNote, FindingWarning or FindingError
	Object string // object name, or ""
	Entry  int64  // index in the main ledger, -1 = none
}

// The values of Finding.Level.
const (
	FindingNote    = "note"
	FindingWarning = "warning"
	FindingError   = "error"
)
