package vault

import "time"

// PieceKind tells what a Piece covers.
type PieceKind int

// The kinds of a piece.
const (
	PieceData PieceKind = iota // received bytes
	PieceHole                  // bytes that never came: a gap entry, no object
)

// String returns "data" or "hole".
func (k PieceKind) String() string {
	if k == PieceHole {
		return "hole"
	}
	return "data"
}

// ConflictOf names the bytes that a conflicting piece disagrees with.
type ConflictOf struct {
	Stream StreamID
	Gen    int64
	Offset int64
}

// Piece is a run of one stream generation that the intake offers for sealing.
// Offset and Span are in received bytes.
type Piece struct {
	Kind   PieceKind
	Source Source
	Stream StreamID
	Gen    int64
	Offset int64
	Span   int64
	Name   []byte // the file's path as the source knows it

	// FirstReceived and LastReceived are the wall times of the first and last
	// bytes. Record is the date that retention counts from.
	FirstReceived, LastReceived time.Time
	Record                      time.Time

	// Conflict is set when this generation holds bytes that arrived over other
	// bytes already received.
	Conflict *ConflictOf

	// Cut is "" if the piece ends at a line end, "end" if the generation ended
	// without one, "long" if a line was too long. Joined says that the piece
	// continues a line cut "long". Closed says that nothing follows it.
	Cut    string
	Joined bool
	Closed bool

	// Prev is the ledger index of this stream's previous segment or gap entry, or -1.
	Prev int64
}

// Intent is the intake's durable record that a piece is about to be stored. It
// holds the complete future ledger entry, so that after a crash the same object
// gets the same entry.
type Intent struct {
	Piece Piece
	Entry []byte
	Size  int64 // the ledger's size when the intent was made
}

// DueOptions says what the sealer wants now.
type DueOptions struct {
	Now time.Time
	// All asks for everything whole-lined, also young and uncommitted bytes.
	All bool
	// CutBytes is the raw size at which a piece is cut, 0 for the default of 32 MiB.
	CutBytes int64
	// SameDay reports whether records of the source at a and b fall on the same
	// day in the time zone of its class. A piece never spans two.
	SameDay func(src Source, a, b time.Time) bool
}
