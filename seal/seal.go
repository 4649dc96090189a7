// Package seal turns received bytes into segments of the vault and entries of
// the ledger.
//
// A Sealer takes pieces (runs of whole lines of one stream) from a Source,
// which is the spool, and moves them on in this order (DESIGN §5). Each row has
// one commit point, and what a crash leaves is finished by the next Step with
// the same code that finishes a failed round:
//
//	step                               a crash after it leaves
//	1 period key: wrap stored and      a wrap that no entry names: its secret is
//	  read back                        gone, it is never used
//	2 `key` entry in the ledger        a usable key, found again in the ledger
//	3 segment and index encoded,       an intent without objects: the piece is
//	  Source.Intend                    encoded anew
//	4 segment stored, index stored     intent and objects: both are read back;
//	                                   matching, the intended entry is appended,
//	                                   else what is there becomes an `orphan`
//	                                   and the piece is encoded anew
//	5 ledger entries appended          intent and entry: found in the ledger
//	6 Source.Release                   nothing; if the release is lost, as 5
//
// So every piece stands in the ledger exactly once, and every object that this
// package stored is named by a segment or an orphan entry. The intent holds the
// complete future entry and the size of the ledger at the time, so that looking
// it up costs only the entries since.
//
// The pieces of a round are appended together, many entries under one signed
// checkpoint. A piece whose retention is over already is sealed like any other:
// it was received, and what then happens to it must be on record.
//
// # Period keys
//
// Segments are encrypted to a period key: one key pair per retention class and
// destruction day, sometimes more than one. The secret is in memory from its
// making until its wrap, encrypted to all auditors, has been read back; then it
// is overwritten. Public keys are taken from the ledger only, also right after
// they were written to it, so that what is sealed can be traced to a signed
// entry. A process that seals must not dump core: its command sets
// PR_SET_DUMPABLE and RLIMIT_CORE to 0 before it makes a Sealer.
//
// # Errors
//
// An error of the vault or the ledger ends the round. Nothing is lost by it:
// the source keeps the bytes until Release, and the next Step goes on. An error
// of one piece alone (its source has no class, its bytes cannot be read) leaves
// that piece where it is, and the round goes on with the others.
package seal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"logvault/ledger"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
)

// Source is where pieces come from: the spool. The Sealer calls it from one
// goroutine at a time.
type Source interface {
	// Due returns the pieces to seal now: at most one per stream, the next one in
	// the order of its generations and bytes. A piece of data spans at least one
	// byte and ends at an LF unless it is marked with a cut; its lines are of one
	// record day. Its Conflict names where byte 0 of its generation stands in the
	// original. A piece stays due until it is released.
	Due(ctx context.Context, o vault.DueOptions) ([]vault.Piece, error)
	// After returns the piece that will be due when p, from Due or After, is
	// released, if that is certain already, else nil. It does not make it due; its
	// Prev and its received times are not known yet, but its record day is.
	After(ctx context.Context, p vault.Piece, o vault.DueOptions) (*vault.Piece, error)
	// Read returns the Span bytes of a piece from Due or After, appended to buf[:0].
	Read(ctx context.Context, p vault.Piece, buf []byte) ([]byte, error)
	// Intend records an intent. It is durable on return. It replaces an earlier
	// intent for the same piece.
	Intend(ctx context.Context, in vault.Intent) error
	// Release says that p stands in the ledger at index. It ends p's intent and
	// makes the next piece of its stream due. It need not be durable on
	// return: after a crash the intent is pending again, and released again.
	Release(ctx context.Context, p vault.Piece, index int64) error
	// Pending returns the intents not yet released: those of a process that ended,
	// and those of rounds that failed in this one.
	Pending() []vault.Intent
}

// Ledger is what the sealer needs of the main ledger. Others may append to it
// at the same time.
type Ledger interface {
	// Append is ledger.Log.Append. A *ledger.CopyError means that the entries are
	// committed, and only the copy in the vault is behind.
	Append(ctx context.Context, entries ...[]byte) (first int64, err error)
	// Recover is ledger.Log.Recover. After it returns nil, Tree has all that was
	// ever committed, also by an Append that failed.
	Recover(ctx context.Context) error
	// Tree is the ledger at its present size, with all entries that Append returned.
	Tree() *ledger.Tree
}

// Store is where objects go: it adds and reads, and cannot remove.
type Store interface {
	vault.Reader
	vault.Writer
}

// Config is what a Sealer works with. All members are required unless they say
// otherwise.
type Config struct {
	Source  Source
	Ledger  Ledger
	Objects Store // also of wraps
	Encoder *segment.Encoder
	// Auditors are those that period keys are wrapped to: the policy's, at least one.
	Auditors []pgp.Auditor
	// ClassOf tells the retention class of a source.
	ClassOf func(vault.Source) (policy.Class, bool)
	Now     func() time.Time
	Random  io.Reader
	Log     *slog.Logger
	// Actor is the role that entries are written under.
	Actor string
	// CutBytes is the raw size at which a piece is cut. Zero: 32 MiB.
	CutBytes int64
}

// defaultCut is the raw size of a full segment in bytes (DESIGN §6.2).
const defaultCut = 32 << 20

// Sealer seals what its source has due. It is not safe for concurrent use.
// Between calls of Step one goroutine of it may still encode what comes next: it
// only computes, and the next Step or Rest joins it.
type Sealer struct {
	Config
	keys  keyring
	raw   [2][]byte // of the piece being encoded and of the one after it; reused
	ahead *work     // the piece whose turn comes next, being encoded
	after *work     // the piece after that, read, and encoded next
}

// Rest waits for what is being encoded ahead, forgets it and lets go of the
// buffers, which are as large as a few segments. It is for times when nothing is
// due; the next Step makes them again.
func (s *Sealer) Rest() {
	s.drop()
	s.raw = [2][]byte{}
	s.Encoder.Rest()
}

// Result says what a Step brought into the ledger. The zero Result means that
// nothing was due.
type Result struct {
	Segments int
	Gaps     int
	Raw      int64 // bytes of log text
	Stored   int64 // bytes of segments and indexes
}

// New returns a Sealer. What an earlier process left unfinished is taken up by
// the first Step.
func New(ctx context.Context, c Config) (*Sealer, error) {
	if len(c.Auditors) == 0 {
		return nil, errors.New("sealing: no auditor, expected at least one")
	}
	if c.CutBytes == 0 {
		c.CutBytes = defaultCut
	}
	size := c.Ledger.Tree().Size()
	for _, in := range c.Source.Pending() {
		if in.Size > size {
			return nil, fmt.Errorf("spool intends an entry for a ledger of %d entries, but the ledger has %d: %w", in.Size, size, ledger.ErrBehind)
		}
	}
	return &Sealer{Config: c, keys: keyring{last: map[keyID]periodKey{}, from: size, to: size}}, nil
}
