package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var testMarker = Marker{ID: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Origin: "logs.example.org/vault"}

const markerText = "logvault-vault v1\nid 000102030405060708090a0b0c0d0e0f\norigin logs.example.org/vault\n"

func TestMarker(t *testing.T) {
	if got := string(testMarker.Encode()); got != markerText {
		t.Errorf("encoded %q", got)
	}
	if m, err := ParseMarker([]byte(markerText)); m != testMarker || err != nil {
		t.Errorf("parsed %+v, %v", m, err)
	}
}

func TestMarkerRefused(t *testing.T) {
	change := func(old, new string) string { return strings.Replace(markerText, old, new, 1) }
	tests := []struct {
		text  string
		newer bool
	}{
		{"", false},
		{"\n", false},
		{"logvault-vault", false},
		{"something else\n", false},
		{change("v1", "v2"), true},
		{"logvault-vault v2\nwhatever comes then\x00", true},
		{change("v1", "v10"), true},
		{change("v1", "v0"), false},
		{change("v1", "w2"), false},
		{change("v1", "2"), false},
		{change("v1", "v"), false},
		{change("v1", ""), false},
		{change("v1", "v02"), false},
		{change("v1\n", "v1\r\n"), false},
		{change("id ", ""), false},
		{change("id ", "ID "), false},
		{change("0f\n", "0F\n"), false},
		{change("0f\n", "\n"), false},
		{change("origin logs.example.org/vault", "origin "), false},
		{change("origin ", ""), false},
		{change("logs", "lo gs"), false},
		{change("logs", "lo+gs"), false},
		{change("logs", "lo\x00gs"), false},
		{change("logs", "lo\xffgs"), false},
		{change("logs", strings.Repeat("l", 255)), false},
		{markerText + "\n", false},
		{markerText[:len(markerText)-1], false},
		{change("logs", strings.Repeat("l", 2000)), false},
	}
	for _, tt := range tests {
		m, err := ParseMarker([]byte(tt.text))
		if err == nil || errors.Is(err, ErrNewer) != tt.newer {
			t.Errorf("ParseMarker(%.90q) = %+v, %v; expected an error, newer %v", tt.text, m, err, tt.newer)
		}
	}
}

// FuzzParseMarker checks that what parses has exactly one spelling.
func FuzzParseMarker(f *testing.F) {
	f.Add([]byte(markerText))
	f.Add([]byte("logvault-vault v2\n"))
	f.Add([]byte(strings.Replace(markerText, "origin ", "origin é", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMarker(data)
		if err == nil && !bytes.Equal(m.Encode(), data) {
			t.Errorf("%q parses and encodes to %q", data, m.Encode())
		}
	})
}

// oneObject is a Reader that holds at most one object. It claims size bytes.
type oneObject struct {
	name, data string
	size       int64
	err        error
}

func (o oneObject) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	if o.err != nil || name != o.name {
		return nil, 0, errors.Join(o.err, fmt.Errorf("%s: %w", name, ErrNotExist))
	}
	return io.NopCloser(strings.NewReader(o.data)), o.size, nil
}

func (o oneObject) Stat(context.Context, string) (Info, error) { return Info{}, ErrNotExist }

func (o oneObject) List(context.Context, string, func(Info) error) error { return nil }

func TestReadMarker(t *testing.T) {
	ctx := context.Background()
	full := int64(len(markerText))
	m, h, err := ReadMarker(ctx, oneObject{name: MarkerName, data: markerText, size: full})
	if m != testMarker || h != HashOf([]byte(markerText)) || err != nil {
		t.Errorf("ReadMarker = %+v, %s, %v", m, h, err)
	}
	if _, _, err := ReadMarker(ctx, oneObject{}); !errors.Is(err, ErrNoVault) || !errors.Is(err, ErrNotExist) {
		t.Errorf("without a marker: %v", err)
	}
	if _, _, err := ReadMarker(ctx, oneObject{name: MarkerName, data: "x", size: 1}); err == nil || errors.Is(err, ErrNoVault) {
		t.Errorf("with a bad marker: %v", err)
	}
	var large *TooLargeError
	if _, _, err := ReadMarker(ctx, oneObject{name: MarkerName, data: "x", size: 1 << 20}); !errors.As(err, &large) {
		t.Errorf("with a huge marker: %v", err)
	}
	if _, _, err := ReadMarker(ctx, oneObject{name: MarkerName, data: markerText, size: full + 1}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("with a marker shorter than stated: %v", err)
	}
}
