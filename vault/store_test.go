package vault

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAll(t *testing.T) {
	ctx := context.Background()
	down := errors.New("store is down")
	tests := []struct {
		what  string
		store oneObject
		limit int64
		want  string
		err   func(error) bool // nil: no error
	}{
		{"whole", oneObject{name: "x", data: "12345", size: 5}, 5, "12345", nil},
		{"empty", oneObject{name: "x"}, 0, "", nil},
		{"absent", oneObject{name: "y"}, 5, "", func(err error) bool { return errors.Is(err, ErrNotExist) }},
		{"unreachable", oneObject{name: "x", err: down}, 5, "", func(err error) bool { return errors.Is(err, down) }},
		{"too large", oneObject{name: "x", data: "12345", size: 5}, 4, "", func(err error) bool {
			var large *TooLargeError
			return errors.As(err, &large) && large.Size == 5 && large.Limit == 4 && large.Name == "x"
		}},
		{"shorter than stated", oneObject{name: "x", data: "1234", size: 5}, 5, "", func(err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) && strings.Contains(err.Error(), "reading x")
		}},
		{"of a negative size", oneObject{name: "x", data: "1", size: -1}, 5, "", func(err error) bool {
			return strings.Contains(err.Error(), "reading x: -1 bytes")
		}},
		// An object that grows meanwhile is cut at its stated size: the hash tells.
		{"longer than stated", oneObject{name: "x", data: "123456", size: 5}, 5, "12345", nil},
	}
	for _, tt := range tests {
		data, err := ReadAll(ctx, tt.store, "x", tt.limit)
		if string(data) != tt.want || (err == nil) != (tt.err == nil) || tt.err != nil && !tt.err(err) {
			t.Errorf("%s: %q, %v", tt.what, data, err)
		}
	}
}

// TestEveryByteOfANameCounts changes each byte of each name: what still parses
// means something else and has that as its one name.
func TestEveryByteOfANameCounts(t *testing.T) {
	parsed := 0
	for _, tt := range names {
		for i := range len(tt.name) {
			for _, bits := range []byte{0x01, 0x02, 0x10, 0x20, 0x80, 0xff} {
				data := []byte(tt.name)
				data[i] ^= bits
				changed := string(data)
				o, err := ParseName(changed)
				if err != nil {
					continue
				}
				parsed++
				tt.want.Name = changed
				if o == tt.want {
					t.Errorf("%q and %q mean the same", tt.name, changed)
				}
				if made := makeName(o); made != changed {
					t.Errorf("%q parses to what is named %q", changed, made)
				}
			}
			if o, err := ParseName(tt.name[:i]); err == nil && makeName(o) != tt.name[:i] {
				t.Errorf("%q, cut short, parses to what is named %q", tt.name[:i], makeName(o))
			}
		}
	}
	if parsed < 1000 {
		t.Errorf("%d changed names parsed: the test sees too little", parsed)
	}
}

// TestEveryByteOfTheMarkerCounts changes each byte of a marker: it is refused,
// or says something else and hashes differently.
func TestEveryByteOfTheMarkerCounts(t *testing.T) {
	refused := 0
	for i := range len(markerText) {
		for _, bits := range []byte{0x01, 0x80, 0xff} {
			data := []byte(markerText)
			data[i] ^= bits
			m, err := ParseMarker(data)
			if err != nil {
				refused++
				if errors.Is(err, ErrNewer) && !strings.HasPrefix(string(data), "logvault-vault v") {
					t.Errorf("byte %d ^ %#x passes for a newer version", i, bits)
				}
			} else if m == testMarker {
				t.Errorf("byte %d ^ %#x changes nothing", i, bits)
			}
		}
	}
	if refused < 2*len(markerText) {
		t.Errorf("%d changes of %d refused, expected most", refused, 3*len(markerText))
	}
}

// TestErrorsSayWhat checks that a refused name says which part and what was expected.
func TestErrorsSayWhat(t *testing.T) {
	for name, want := range map[string]string{
		"segments/2026/11/31/" + hexA + ".gz.pgp":         "2026-11-31",
		"segments/2026/11/21/" + hexA + ".xz.pgp":         "xz.pgp",
		"segments/2026/11/21/" + hexA[2:] + ".gz.pgp":     "62 characters, expected 64",
		"ledger/tile/64/000":                              "expected 0 to 63",
		"ledger/tile/0/000.p/256":                         "expected 1 to 255",
		"copy/NAS/log/checkpoint":                         "expected 1 to 32 of a-z",
		"ledger/cosignatures/1/xyz":                       "expected 8 to 64 lower-case hex",
		"keys/holds/a b/" + hexA + ".pgp":                 "hold",
		"register/9/" + hexA + ".pgp":                     "starting with a letter",
		"keys/2026/11/21/a/" + hexA + "/" + hexB + ".gpg": "layout",
		strings.Repeat("x", 5000):                         "not a name of the vault layout",
	} {
		_, err := ParseName(name)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 600 {
			t.Errorf("ParseName(%.90q): %v, expected it to say %q", name, err, want)
		}
	}
}
