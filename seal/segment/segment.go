// Package segment encodes and decodes segments and their sealed indexes. It is
// the only user of the compression library. The byte layouts are those of
// docs/FORMAT.md.
//
// A segment is an OpenPGP message to a period key; inside are the raw bytes as
// gzip members, or zstd frames, of exactly 1 MiB raw each (the last shorter)
// and nothing else, so that
//
//	gpg -d SEGMENT | zcat
//
// prints the lines, and so that the members can be compressed on all cores and
// opened one by one.
//
// The line tree is the digest of the stored text. Line i, from 0, runs up to and
// including its LF; only the last may lack one. With a 32-byte secret drawn for
// each encoding,
//
//	salt_i  = AES-256(secret, i as 16 bytes, big-endian)
//	leaf_i  = SHA-256(0x00 ‖ salt_i ‖ line_i)
//	block_k = SHA-256(0x02 ‖ leaf_16k ‖ … ‖ leaf_16k+15)     the last may be shorter
//
// and the root is that of the RFC 6962 tree over the blocks, with nodes
// SHA-256(0x01 ‖ left ‖ right). A LineProof shows that some lines stand under a
// root and discloses only their salts: without its salt, a leaf says nothing
// about its line, however few values the line could have.
//
// The sealed index is a second message to the same key. It holds the line
// secret, where the members are, and every token worth searching with the set of
// members that hold it.
package segment

import (
	"errors"
	"fmt"
	"time"

	"logvault/extract/logfmt"
	"logvault/vault"
)

// Limits of format version 1.
const (
	MemberSize = 1 << 20             // raw bytes of every member but the last
	MaxRaw     = 64 << 20            // raw bytes of a segment
	maxMembers = MaxRaw / MemberSize // so that a set of members is one 64-bit word
	maxName    = 4096                // bytes of a stream's name
	maxToken   = 1024                // bytes of a token; longer ones are cut to this
	maxNumber  = 1<<53 - 1           // of generations and offsets, as in the ledger
)

// Errors that callers branch on.
var (
	// ErrNewer says that an index was written by a newer logvault.
	ErrNewer = vault.ErrNewer
	// ErrCorrupt says that decrypted data is not of the form described above.
	ErrCorrupt = errors.New("corrupt")
	// ErrProof says that a line proof does not lead to the root.
	ErrProof = errors.New("line proof does not hold")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// Meta says where a segment's bytes come from. It is stored in the index.
type Meta struct {
	Name   []byte // the file's name as the source knows it, at most 4096 bytes
	Source vault.Source
	Stream vault.StreamID
	Gen    int64 // generation of the stream
	Offset int64 // of the first byte in the generation
}

func (m *Meta) validate() error {
	if err := m.Source.Valid(); err != nil {
		return err
	}
	if len(m.Name) > maxName {
		return fmt.Errorf("stream name: %d bytes, expected at most %d", len(m.Name), maxName)
	}
	if m.Gen < 0 || m.Gen > maxNumber || m.Offset < 0 || m.Offset > maxNumber {
		return fmt.Errorf("generation %d, offset %d: expected 0 to 2^53-1", m.Gen, m.Offset)
	}
	return nil
}

// Encoded is an encoded segment with its index. Who is done with it may give it
// back with Recycle.
type Encoded struct {
	Segment   []byte     // the object
	Index     []byte     // the sealed index
	Object    vault.Hash // SHA-256 of Segment
	IndexHash vault.Hash // SHA-256 of Index
	Codec     vault.Codec
	Raw       int64      // bytes encoded
	Lines     int64      // lines, an unfinished last one included
	Root      vault.Hash // of the line tree

	// FirstEvent and LastEvent are the earliest and the latest time logged in a
	// parsed line, zero if there is none.
	FirstEvent, LastEvent time.Time

	Format string // as detected: a logfmt.Format

	objects *objects // what Segment and Index are the bytes of
}

// Member describes one gzip member or zstd frame.
type Member struct {
	Offset, Size       int64 // of the compressed member, in the compressed text
	RawOffset, RawSize int64 // of its text, in the raw text

	// FirstLine is the number of the line that the first byte belongs to.
	FirstLine int64
	// Lines counts the LFs in the member.
	Lines int64
	// Lead counts the bytes at the start that continue FirstLine from the
	// member before; 0 if FirstLine starts here. The next line starts behind them.
	Lead int64
}

// Index is an opened index.
type Index struct {
	Meta
	Codec  vault.Codec
	Format string // a logfmt.Format
	Raw    int64
	Lines  int64
	// Unparsed counts the lines that are not of Format and have no tokens; with
	// the format "text", all lines.
	Unparsed int64
	// FirstEvent and LastEvent are as in Encoded, in UTC.
	FirstEvent, LastEvent time.Time
	Secret                [32]byte // of the line tree
	Members               []Member

	unparsed uint64 // members that hold unparsed lines
	tokens   [len(logfmt.Kinds)]dictionary
}

// memberCount returns the number of members of a raw text.
func memberCount(raw int64) int { return int((raw + MemberSize - 1) / MemberSize) }
