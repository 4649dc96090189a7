// Package segment encodes and decodes segments and their sealed indexes.
package segment

import (
	"context"
	"io"
	"net/netip"
	"time"

	"logvault/extract/logfmt"
	"logvault/seal/pgp"
	"logvault/vault"
)

type Options struct {
	Codec   vault.Codec
	Level   int // 1 to 9; 0 = stored
	Workers int // 0 = all cores
	Random  io.Reader
}

type Encoder struct{}

func NewEncoder(o Options) (*Encoder, error) { panic("being written") }

type Meta struct {
	Name        []byte
	Source      vault.Source
	Stream      vault.StreamID
	Gen, Offset int64
}

func (e *Encoder) Encode(ctx context.Context, raw []byte, m Meta, to *pgp.PublicKey) (*Encoded, error) {
	panic("being written")
}

type Encoded struct {
	Segment, Index        []byte
	Object, IndexHash     vault.Hash
	Codec                 vault.Codec
	Raw, Lines            int64
	Root                  vault.Hash
	FirstEvent, LastEvent time.Time
	Format                string
}

type Member struct {
	Offset    int64 // in the compressed text
	RawOffset int64
	RawSize   int64
	FirstLine int64 // the line that the member's first byte belongs to
	Lines     int64 // lines with at least one byte in the member
}

type Index struct {
	Lines                 int64
	FirstEvent, LastEvent time.Time
	Format                string
	Secret                [32]byte
	Members               []Member
	Name                  []byte
	Source                vault.Source
	Stream                vault.StreamID
	Gen, Offset           int64
}

func DecodeIndex(r io.Reader, s *pgp.Secret) (*Index, error)           { panic("being written") }
func (ix *Index) Lookup(k logfmt.TokenKind, token string) []int        { panic("being written") }
func (ix *Index) LookupPrefix(k logfmt.TokenKind, prefix string) []int { panic("being written") }
func (ix *Index) LookupCIDR(k logfmt.TokenKind, p netip.Prefix) []int  { panic("being written") }
func (ix *Index) Tokens(fn func(k logfmt.TokenKind, token []byte, members []int) bool) {
	panic("being written")
}

func Decode(w io.Writer, r io.Reader, s *pgp.Secret, c vault.Codec) (int64, error) {
	panic("being written")
}
func DecodeMembers(r io.Reader, s *pgp.Secret, c vault.Codec, ix *Index, members []int, fn func(member int, raw []byte) error) error {
	panic("being written")
}
func LineRoot(secret [32]byte, raw io.Reader) (root vault.Hash, lines int64, err error) {
	panic("being written")
}

type LineSalt struct {
	Line int64
	Salt []byte
}
type LineProof struct {
	Lines  []LineSalt
	Leaves []vault.Hash
	Nodes  []vault.Hash
}

func ProveLines(secret [32]byte, raw io.Reader, lines []int64) (*LineProof, error) {
	panic("being written")
}
func (p *LineProof) Verify(root vault.Hash, lineCount int64, disclosed map[int64][]byte) error {
	panic("being written")
}
func OpenPlain(r io.Reader, name string) (io.ReadCloser, error) { panic("being written") }
