package vault

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The grammar of docs/FORMAT.md once more, in another notation, as the judge of
// the parser: what it cannot say (days that exist, limits of numbers) is in inGrammar.
const (
	hashRule  = `[0-9a-f]{64}`
	dayRule   = `(?P<day>[0-9]{4}/[0-9]{2}/[0-9]{2})`
	classRule = `[a-z][a-z0-9-]{0,31}`
	labelRule = `[a-z0-9-]{1,32}`
	sizeRule  = `(?P<size>0|[1-9][0-9]*)`
	tileRule  = `(?P<tile>[0-9]{3}|x[0-9]{3}(/x[0-9]{3})*/[0-9]{3})(\.p/([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5]))?`
)

var grammar = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`VAULT`,
	`segments/` + dayRule + `/` + hashRule + `\.(gz|zst|idx)\.pgp`,
	`keys/` + dayRule + `/` + classRule + `/` + hashRule + `/` + hashRule + `\.pgp`,
	`keys/holds/` + labelRule + `/` + hashRule + `\.pgp`,
	`register/` + classRule + `/` + hashRule + `\.pgp`,
	`(ledger|copy/` + labelRule + `/log)/(?:` + strings.Join([]string{
		`checkpoint`,
		`tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/` + tileRule,
		`checkpoints/` + sizeRule,
		`cosignatures/` + sizeRule + `/[0-9a-f]{8,64}`,
		`timestamps/` + sizeRule + `\.tsr`,
	}, "|") + `)`,
}, "|") + `)$`)

// inGrammar reports whether a name is one of the layout.
func inGrammar(name string) bool {
	match := grammar.FindStringSubmatch(name)
	if match == nil || strings.HasSuffix(name, "\n") { // $ of other tools forgives one
		return false
	}
	for i, part := range grammar.SubexpNames() {
		value := match[i]
		if value == "" {
			continue
		}
		switch part {
		case "day":
			if _, err := time.Parse("2006/01/02", value); err != nil {
				return false
			}
		case "size":
			if n, err := strconv.ParseUint(value, 10, 64); err != nil || n >= 1<<53 {
				return false
			}
		case "tile":
			if strings.HasPrefix(value, "x000/") { // a leading group of zeros
				return false
			}
			digits := strings.NewReplacer("x", "", "/", "").Replace(value)
			if n, err := strconv.ParseUint(digits, 10, 64); err != nil || n > (1<<53-1)/256 {
				return false
			}
		}
	}
	return true
}

// judge compares the parser with the grammar.
func judge(t *testing.T, name string) bool {
	t.Helper()
	o, err := ParseName(name)
	if want := inGrammar(name); (err == nil) != want {
		t.Errorf("%q: the parser says %v, the grammar %v", name, err, want)
	}
	if err == nil && (makeName(o) != name || o.Name != name) {
		t.Errorf("%q parses as %+v, whose name is %q", name, o, makeName(o))
	}
	return err == nil
}

// TestGrammar judges the names, and each name with something put in, taken out,
// doubled or exchanged at every place.
func TestGrammar(t *testing.T) {
	good, bad := 0, 0
	count := func(name string) {
		if judge(t, name) {
			good++
		} else {
			bad++
		}
	}
	pieces := []string{"/", "//", ".", "..", "/../", "x", "0", "00", "9", "-", "a", "A", "f", " ", "\n", "\r", "\x00", "%2f", "\\", "\xff", "é", ".p/", ".p", "/1", "tile/", "+", "_"}
	if testing.Short() {
		pieces = pieces[:8]
	}
	for _, tt := range names {
		count(tt.name)
		for i := range len(tt.name) + 1 {
			for _, p := range pieces {
				count(tt.name[:i] + p + tt.name[i:])
				if i < len(tt.name) {
					count(tt.name[:i] + p + tt.name[i+1:])
				}
			}
			count(tt.name[:i])
			count(tt.name[i:])
		}
		for _, other := range names {
			a, b := strings.LastIndexByte(tt.name, '/')+1, strings.LastIndexByte(other.name, '/')+1
			count(tt.name[:a] + other.name[b:]) // another's last part
		}
	}
	if good < 1000 || bad < 10000 {
		t.Errorf("%d good names and %d bad ones: the test sees too little", good, bad)
	}
}

// FuzzGrammar lets the fuzzer look for a name on which parser and grammar differ.
func FuzzGrammar(f *testing.F) {
	for _, tt := range names {
		f.Add(tt.name)
	}
	f.Add("ledger/tile/0/x000/001")
	f.Add("ledger/checkpoints/9007199254740992")
	f.Add("copy/-/log/tile/63/x001/x234/067.p/255")
	f.Fuzz(func(t *testing.T, name string) { judge(t, name) })
}

// randomObject draws an object of a kind.
func randomObject(rng *rand.Rand, k Kind) Object {
	const labels = "abcdefghijklmnopqrstuvwxyz0123456789-"
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = labels[rng.IntN(len(labels))]
		}
		return string(b)
	}
	hash := func() Hash { return HashOf([]byte(text(8))) }
	o := Object{Kind: k}
	switch k {
	case KindSegment:
		o.Codec = []Codec{Gzip, Zstd}[rng.IntN(2)]
		fallthrough
	case KindIndex:
		o.Day, o.Hash = DayOf(time.Unix(rng.Int64N(8e9), 0).UTC()), hash()
	case KindWrap:
		o.Day, o.Class = DayOf(time.Unix(rng.Int64N(8e9), 0).UTC()), Class("c"+text(rng.IntN(32)))
		o.Key, o.Hash = hash(), hash()
	case KindHoldKey:
		o.Hold, o.Hash = text(1+rng.IntN(32)), hash()
	case KindRegister:
		o.Class, o.Hash = Class("c"+text(rng.IntN(32))), hash()
	case KindMarker:
		return o
	}
	if k < KindCheckpoint || k == KindRegister {
		return o
	}
	if rng.IntN(2) == 0 {
		o.Copy = text(1 + rng.IntN(32))
	}
	number := rng.Int64N(int64(1) << rng.IntN(54)) // of every length
	switch k {
	case KindTile, KindPartialTile:
		o.Level = rng.IntN(64)
		fallthrough
	case KindBundle, KindPartialBundle:
		o.Number, o.Width = number>>8, TileWidth
		if k == KindPartialTile || k == KindPartialBundle {
			o.Width = 1 + rng.IntN(255)
		}
	case KindCosignature:
		o.KeyID = hex.EncodeToString([]byte(text(4 + rng.IntN(29))))
		fallthrough
	case KindKeptCheckpoint, KindTimestamp:
		o.Size = number
	}
	return o
}

// TestNamesOfRandomObjects makes the name of every kind of object and parses it back.
func TestNamesOfRandomObjects(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	meant := map[string]Object{}
	for k := KindMarker; k <= KindRegister; k++ {
		for range 500 {
			want := randomObject(rng, k)
			want.Name = makeName(want)
			got, err := ParseName(want.Name)
			if err != nil || got != want {
				t.Fatalf("seed %d: %s parses as %+v, %v; made of %+v", seed, want.Name, got, err, want)
			}
			if other, ok := meant[want.Name]; ok && other != want {
				t.Fatalf("seed %d: %+v and %+v have one name", seed, want, other)
			}
			meant[want.Name] = want
			if !inGrammar(want.Name) {
				t.Fatalf("seed %d: the grammar does not know %s", seed, want.Name)
			}
		}
	}
}

// TestEveryByteOfNouns puts each byte first, last and alone where a class, a
// source, a copy's name, a hash and a stream id have one.
func TestEveryByteOfNouns(t *testing.T) {
	class, source, label := regexp.MustCompile(`^[a-z][a-z0-9-]*$`), regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`), regexp.MustCompile(`^[a-z0-9-]+$`)
	for i := range 3 * 256 {
		s := []string{"a" + string([]byte{byte(i)}), string([]byte{byte(i)}) + "a", string([]byte{byte(i)})}[i>>8]
		if got, want := Class(s).Valid() == nil, class.MatchString(s); got != want {
			t.Errorf("class %q: valid %v", s, got)
		}
		if got, want := Source(s).Valid() == nil, source.MatchString(s); got != want {
			t.Errorf("source %q: valid %v", s, got)
		}
		_, err := ParseName("copy/" + s + "/log/checkpoint")
		if want := label.MatchString(s); (err == nil) != want {
			t.Errorf("copy %q: %v", s, err)
		}
	}
	isHex := regexp.MustCompile(`^[0-9a-f]$`)
	for i := range 256 {
		for _, at := range []int{0, 17, 31} {
			h, id := []byte(hexA), []byte(hexA[:32])
			h[at+32], id[at] = byte(i), byte(i)
			want := isHex.Match([]byte{byte(i)})
			hash, err := ParseHash(string(h))
			if (err == nil) != want || want && hash.String() != string(h) {
				t.Errorf("hash %q: %v", h, err)
			}
			stream, err := ParseStreamID(string(id))
			if (err == nil) != want || want && stream.String() != string(id) {
				t.Errorf("stream id %q: %v", id, err)
			}
		}
	}
}

// TestDays goes through a century: each day has one text, which parses back,
// and comes after the one before.
func TestDays(t *testing.T) {
	before := Day{1999, 12, 31}
	for at := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC); at.Year() <= 2100; at = at.AddDate(0, 0, 1) {
		d := DayOf(at)
		back, err := ParseDay(d.String())
		if err != nil || back != d || d.String() != at.Format(time.DateOnly) {
			t.Fatalf("%s: %s, %v", at, back, err)
		}
		if before.Compare(d) != -1 || d.Compare(before) != 1 {
			t.Fatalf("%s does not come after %s", d, before)
		}
		before = d
	}
	for y := 1900; y < 2300; y++ { // days that do not exist
		leap := y%4 == 0 && (y%100 != 0 || y%400 == 0)
		if _, err := ParseDay(fmt.Sprintf("%d-02-29", y)); (err == nil) != leap {
			t.Errorf("29 February %d: %v", y, err)
		}
	}
	for _, s := range []string{"2026-00-01", "2026-01-00", "2026-04-31", "2026-13-01", "10000-01-01", "-001-01-01", "2026-11-21T00:00:00Z", "2026-11-2 ", "2026-11-21\n", "２０２６-11-21"} {
		if d, err := ParseDay(s); err == nil {
			t.Errorf("ParseDay(%q) = %s", s, d)
		}
	}
}

// TestMarkerVersions gives the first line many versions: 1 is known, a greater
// number is newer, anything else is no version.
func TestMarkerVersions(t *testing.T) {
	newer := regexp.MustCompile(`^v([2-9]|[1-9][0-9]{1,14})$`)
	for _, v := range []string{"v2", "v3", "v9", "v10", "v99", "v123456", "v999999999999999", "v1", "v0", "v00", "v01", "v+2", "v-2", "v2.0", "v2 ", " v2", "v2\r", "V2", "2", "", "v", "vv2", "v2x", "v0x2",
		"v99999999999999999999", "v²", "v\x00", "v2\x00"} {
		for _, rest := range []string{"", "\n", "\nid x\norigin y\n", "\n" + markerText} {
			m, err := ParseMarker([]byte(markerMagic + v + rest))
			if err == nil {
				t.Errorf("version %q, then %.20q: parses as %+v", v, rest, m)
			}
			if got, want := errors.Is(err, ErrNewer), newer.MatchString(v); got != want {
				t.Errorf("version %q, then %.20q: %v; newer %v", v, rest, err, want)
			}
		}
	}
}
