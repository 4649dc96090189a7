package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNewer says that a stored thing has a format version this program does not
// know. It is never reported as damage.
var ErrNewer = errors.New("written by a newer logvault")

const (
	markerMagic   = "logvault-vault "
	markerVersion = "v1"
	maxMarker     = 1 << 10 // bytes
	maxOrigin     = 255     // bytes
)

// Marker is the content of the file VAULT. It says which vault a place holds.
// Its SHA-256 stands in the ledger's init entry; by itself it proves nothing.
//
// The text form is three lines, each ended by LF, in this order:
//
//	logvault-vault v1
//	id 000102030405060708090a0b0c0d0e0f
//	origin logs.example.org/vault
type Marker struct {
	ID     [16]byte
	Origin string // the ledger's origin line
}

// Encode returns the text form. ParseMarker refuses it if the origin is not valid.
func (m Marker) Encode() []byte {
	return fmt.Appendf(nil, "%s%s\nid %x\norigin %s\n", markerMagic, markerVersion, m.ID, m.Origin)
}

// ParseMarker parses the text form and accepts no other spelling of it. Text
// that begins like a marker of another version gives an error that wraps ErrNewer.
func ParseMarker(data []byte) (Marker, error) {
	if len(data) > maxMarker {
		return Marker{}, fmt.Errorf("marker: %d bytes, expected at most %d", len(data), maxMarker)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	version, ok := strings.CutPrefix(first, markerMagic)
	if !ok {
		return Marker{}, fmt.Errorf("marker: first line %.40q, expected %q", first, markerMagic+markerVersion)
	}
	if n, err := parseNumber(strings.TrimPrefix(version, "v"), maxSize); err == nil && n > 1 && version[0] == 'v' {
		return Marker{}, fmt.Errorf("marker: version %q, expected %q: %w", version, markerVersion, ErrNewer)
	}
	if version != markerVersion {
		return Marker{}, fmt.Errorf("marker: version %.20q, expected %q", version, markerVersion)
	}
	id, rest, _ := strings.Cut(rest, "\n")
	origin, _, _ := strings.Cut(rest, "\n")
	m := Marker{Origin: strings.TrimPrefix(origin, "origin ")}
	if err := parseHex(m.ID[:], strings.TrimPrefix(id, "id ")); err != nil {
		return Marker{}, fmt.Errorf("marker: id: %w", err)
	}
	if err := validOrigin(m.Origin); err != nil {
		return Marker{}, fmt.Errorf("marker: %w", err)
	}
	if !bytes.Equal(m.Encode(), data) {
		return Marker{}, errors.New("marker: not in the exact form of version 1")
	}
	return m, nil
}

// validOrigin checks an origin against what a signed note takes as a key name.
func validOrigin(s string) error {
	if len(s) == 0 || len(s) > maxOrigin {
		return fmt.Errorf("origin: %d bytes, expected 1 to %d", len(s), maxOrigin)
	}
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' }
	if !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("origin %q: expected UTF-8 without spaces, controls and '+'", s)
	}
	return nil
}

// ReadMarker reads and parses the marker of the vault behind r and returns it
// with its SHA-256. An absent marker gives an error that wraps ErrNoVault.
func ReadMarker(ctx context.Context, r Reader) (Marker, Hash, error) {
	data, err := ReadAll(ctx, r, MarkerName, maxMarker)
	if errors.Is(err, ErrNotExist) {
		return Marker{}, Hash{}, fmt.Errorf("%w: %w", ErrNoVault, err)
	}
	if err != nil {
		return Marker{}, Hash{}, err
	}
	m, err := ParseMarker(data)
	if err != nil {
		return Marker{}, Hash{}, fmt.Errorf("%s: %w", MarkerName, err)
	}
	return m, HashOf(data), nil
}
