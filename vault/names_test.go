package vault

import (
	"strings"
	"testing"
	"time"
)

var (
	hashA = HashOf([]byte("a"))
	hashB = HashOf([]byte("b"))
	day   = Day{2026, time.November, 21}
)

const (
	hexA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	hexB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
)

// makeName makes the name of a parsed object anew, as the check that each thing
// has one name.
func makeName(o Object) string {
	prefix := o.LogPrefix()
	switch o.Kind {
	case KindMarker:
		return MarkerName
	case KindSegment:
		return SegmentName(o.Day, o.Hash, o.Codec)
	case KindIndex:
		return IndexName(o.Day, o.Hash)
	case KindWrap:
		return WrapName(o.Day, o.Class, o.Key, o.Hash)
	case KindHoldKey:
		return HoldKeyName(o.Hold, o.Hash)
	case KindRegister:
		return RegisterName(o.Class, o.Hash)
	case KindCheckpoint:
		return CheckpointName(prefix)
	case KindTile, KindPartialTile:
		return TileName(prefix, o.Level, o.Number, o.Width)
	case KindBundle, KindPartialBundle:
		return BundleName(prefix, o.Number, o.Width)
	case KindKeptCheckpoint:
		return KeptCheckpointName(prefix, o.Size)
	case KindCosignature:
		return CosignatureName(prefix, o.Size, o.KeyID)
	case KindTimestamp:
		return TimestampName(prefix, o.Size)
	}
	return "no kind"
}

// names are the layout's names, written out, with what they mean.
var names = []struct {
	name    string
	want    Object
	mutable bool
	partial bool
}{
	{"VAULT", Object{Kind: KindMarker}, false, false},
	{"segments/2026/11/21/" + hexA + ".gz.pgp", Object{Kind: KindSegment, Day: day, Hash: hashA, Codec: Gzip}, false, false},
	{"segments/2026/11/21/" + hexA + ".zst.pgp", Object{Kind: KindSegment, Day: day, Hash: hashA, Codec: Zstd}, false, false},
	{"segments/2024/02/29/" + hexA + ".idx.pgp", Object{Kind: KindIndex, Day: Day{2024, 2, 29}, Hash: hashA}, false, false},
	{"keys/2026/11/21/technical/" + hexA + "/" + hexB + ".pgp",
		Object{Kind: KindWrap, Day: day, Class: "technical", Key: hashA, Hash: hashB}, false, false},
	{"keys/holds/7-b/" + hexB + ".pgp", Object{Kind: KindHoldKey, Hold: "7-b", Hash: hashB}, false, false},
	{"register/requests/" + hexA + ".pgp", Object{Kind: KindRegister, Class: "requests", Hash: hashA}, false, false},
	{"ledger/checkpoint", Object{Kind: KindCheckpoint}, true, false},
	{"ledger/tile/0/000", Object{Kind: KindTile, Width: 256}, false, false},
	{"ledger/tile/0/x001/234", Object{Kind: KindTile, Number: 1234, Width: 256}, false, false},
	{"ledger/tile/63/x001/x234/067", Object{Kind: KindTile, Level: 63, Number: 1234067, Width: 256}, false, false},
	{"ledger/tile/1/x001/234.p/1", Object{Kind: KindPartialTile, Level: 1, Number: 1234, Width: 1}, true, true},
	{"ledger/tile/entries/x001/234", Object{Kind: KindBundle, Number: 1234, Width: 256}, false, false},
	{"ledger/tile/entries/x001/234.p/255", Object{Kind: KindPartialBundle, Number: 1234, Width: 255}, true, true},
	{"ledger/tile/entries/x035/x184/x372/x088/831", Object{Kind: KindBundle, Number: maxSize >> 8, Width: 256}, false, false},
	{"ledger/checkpoints/0", Object{Kind: KindKeptCheckpoint}, false, false},
	{"ledger/checkpoints/9007199254740991", Object{Kind: KindKeptCheckpoint, Size: maxSize}, false, false},
	{"ledger/cosignatures/12/0123abcd", Object{Kind: KindCosignature, Size: 12, KeyID: "0123abcd"}, false, false},
	{"ledger/timestamps/12.tsr", Object{Kind: KindTimestamp, Size: 12}, false, false},
	{"copy/nas-2/log/checkpoint", Object{Kind: KindCheckpoint, Copy: "nas-2"}, true, false},
	{"copy/nas-2/log/tile/entries/000.p/5", Object{Kind: KindPartialBundle, Copy: "nas-2", Width: 5}, true, true},
	{"copy/nas-2/log/tile/2/000", Object{Kind: KindTile, Copy: "nas-2", Level: 2, Width: 256}, false, false},
	{"copy/0123456789abcdef0123456789abcdef/log/timestamps/1.tsr",
		Object{Kind: KindTimestamp, Copy: "0123456789abcdef0123456789abcdef", Size: 1}, false, false},
}

func TestNames(t *testing.T) {
	kinds := map[Kind]bool{}
	for _, tt := range names {
		tt.want.Name = tt.name
		got, err := ParseName(tt.name)
		if err != nil || got != tt.want {
			t.Errorf("ParseName(%q) = %+v, %v; expected %+v", tt.name, got, err, tt.want)
		}
		if made := makeName(tt.want); made != tt.name {
			t.Errorf("made %q, expected %q", made, tt.name)
		}
		if IsMutable(tt.name) != tt.mutable || IsPartial(tt.name) != tt.partial {
			t.Errorf("%s: mutable %v, partial %v", tt.name, IsMutable(tt.name), IsPartial(tt.name))
		}
		kinds[got.Kind] = true
	}
	for k := KindMarker; k <= KindRegister; k++ {
		if !kinds[k] {
			t.Errorf("no name of kind %q is tested", k)
		}
	}
}

func TestNamesRefused(t *testing.T) {
	for _, name := range []string{
		"", "/", ".", "..", "vault", "VAULT/", "/VAULT", "VAULT\x00", "ledger", "ledger/", "segments/2026",
		"../segments/2026/11/21/" + hexA + ".gz.pgp",
		"segments/../../11/21/" + hexA + ".gz.pgp",
		"segments//2026/11/21/" + hexA + ".gz.pgp",
		"segments/2026/11/21/" + hexA + ".gz.pgp/",
		"segments/2026/11/21/" + strings.ToUpper(hexA) + ".gz.pgp",
		"segments/2026/11/21/" + hexA[1:] + ".gz.pgp",
		"segments/2026/11/21/" + hexA + ".xz.pgp",
		"segments/2026/11/21/" + hexA + ".pgp",
		"segments/2026/11/21/" + hexA,
		"segments/2026/02/29/" + hexA + ".gz.pgp", // no such day
		"segments/2026/13/01/" + hexA + ".gz.pgp",
		"segments/2026/1/21/" + hexA + ".gz.pgp",
		"segments/026/11/21/" + hexA + ".gz.pgp",
		"segments/20260/11/21/" + hexA + ".gz.pgp",
		"keys/2026/11/21/Technical/" + hexA + "/" + hexB + ".pgp",
		"keys/2026/11/21//" + hexA + "/" + hexB + ".pgp",
		"keys/2026/11/21/../" + hexA + "/" + hexB + ".pgp",
		"keys/2026/11/21/technical/" + hexA + "/" + hexB,
		"keys/2026/11/21/technical/x/" + hexB + ".pgp",
		"keys/2026/11/32/technical/" + hexA + "/" + hexB + ".pgp",
		"keys/holds/A/" + hexB + ".pgp", "keys/holds//" + hexB + ".pgp", "keys/holds/a/" + hexB,
		"register/x y/" + hexA + ".pgp", "register/" + hexA + ".pgp", "register/a/b.pgp",
		"ledger/Checkpoint", "ledger/checkpoint/1", "ledger/checkpoint.tmp",
		"ledger/tile/0", "ledger/tile/0/", "ledger/tile/00/000", "ledger/tile/64/000", "ledger/tile/-1/000", "ledger/tile/x/000",
		"ledger/tile/0/0", "ledger/tile/0/0000", "ledger/tile/0/x000/001", "ledger/tile/0/001/002", "ledger/tile/0/x001",
		"ledger/tile/0/x001/x002", "ledger/tile/0/xx01/002", "ledger/tile/0/+01", "ledger/tile/0/x001/-02",
		"ledger/tile/0/000.p", "ledger/tile/0/000.p/0", "ledger/tile/0/000.p/256", "ledger/tile/0/000.p/01", "ledger/tile/0/000.p/1/2",
		"ledger/tile/0/000.p.p/1", "ledger/tile/0/.p/1", "ledger/tile/0/x001.p/002",
		"ledger/tile/entries", "ledger/tile/entries/", "ledger/tile/entries/x035/x184/x372/x088/832",
		"ledger/tile/entries/x999/x999/x999/x999/x999/x999/999",
		"ledger/checkpoints/", "ledger/checkpoints/01", "ledger/checkpoints/-1", "ledger/checkpoints/9007199254740992",
		"ledger/checkpoints/18446744073709551616",
		"ledger/cosignatures/1", "ledger/cosignatures/1/", "ledger/cosignatures/1/0123abc", "ledger/cosignatures/1/0123ABCD",
		"ledger/cosignatures/x/0123abcd", "ledger/cosignatures/1/" + hexA + "0",
		"ledger/timestamps/1", "ledger/timestamps/x.tsr", "ledger/timestamps/.tsr",
		"copy/nas/log", "copy/nas/checkpoint", "copy/nas/log/", "copy//log/checkpoint", "copy/NAS/log/checkpoint",
		"copy/../log/checkpoint", "copy/0123456789abcdef0123456789abcdef0/log/checkpoint", "copy/nas/logs/checkpoint",
	} {
		if o, err := ParseName(name); err == nil {
			t.Errorf("ParseName(%q) = %+v, expected an error", name, o)
		}
		if IsMutable(name) || IsPartial(name) {
			t.Errorf("%q is mutable or partial", name)
		}
	}
}

// TestNamesRoundTrip makes tile names over many numbers and widths.
func TestNamesRoundTrip(t *testing.T) {
	for _, number := range []int64{0, 1, 9, 10, 999, 1000, 1001, 999999, 1000000, 1 << 40, maxSize >> 8} {
		for width := 1; width <= TileWidth; width++ {
			for _, name := range []string{
				TileName(LedgerPrefix, int(number%64), number, width), BundleName(CopyLogPrefix("b"), number, width),
			} {
				o, err := ParseName(name)
				if err != nil {
					t.Fatal(err)
				}
				if o.Number != number || o.Width != width || makeName(o) != name || IsPartial(name) != (width < TileWidth) {
					t.Fatalf("%s parses as %+v", name, o)
				}
			}
		}
	}
}

// FuzzParseName checks that a name that parses is the one name of what it means
// and stays below the root.
func FuzzParseName(f *testing.F) {
	for _, tt := range names {
		f.Add(tt.name)
	}
	f.Add("ledger/tile/0/x001/234.p/")
	f.Add("segments/0000/01/01/" + hexA + ".gz.pgp")
	f.Fuzz(func(t *testing.T, name string) {
		o, err := ParseName(name)
		if err != nil {
			return
		}
		if made := makeName(o); made != name || o.Name != name {
			t.Errorf("%q parses as %+v, whose name is %q", name, o, made)
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "" || strings.HasPrefix(part, ".") {
				t.Errorf("%q has the part %q", name, part)
			}
		}
	})
}

func TestKindString(t *testing.T) {
	seen := map[string]bool{}
	for k := KindMarker; k <= KindRegister; k++ {
		if s := k.String(); s == "" || seen[s] {
			t.Errorf("kind %d is called %q", int(k), s)
		} else {
			seen[s] = true
		}
	}
	if Kind(0).String() != "kind 0" || Kind(99).String() != "kind 99" {
		t.Errorf("unknown kinds are called %q and %q", Kind(0), Kind(99))
	}
}

func TestIsTail(t *testing.T) {
	checkpoint := func(size string) []byte { return []byte("origin\n" + size + "\nroot\n\n— sig\n") }
	tests := []struct {
		name string
		size string
		want bool
	}{
		{BundleName(LedgerPrefix, 0, 256), "256", false},
		{BundleName(LedgerPrefix, 0, 256), "255", true},
		{BundleName(LedgerPrefix, 1, 256), "256", true},
		{TileName(LedgerPrefix, 0, 2, 256), "768", false},
		{TileName(LedgerPrefix, 0, 2, 256), "767", true},
		{TileName(LedgerPrefix, 1, 0, 256), "65536", false},
		{TileName(LedgerPrefix, 1, 0, 256), "65535", true},
		{TileName(LedgerPrefix, 63, 1, 256), "9007199254740991", true},
		{TileName(CopyLogPrefix("b"), 0, 0, 256), "0", true},
		{TileName(LedgerPrefix, 0, 9, 255), "0", false}, // partial: RemovePartial's
		{CheckpointName(LedgerPrefix), "0", false},
		{MarkerName, "0", false},
	}
	for _, tt := range tests {
		if got, err := IsTail(tt.name, checkpoint(tt.size)); got != tt.want || err != nil {
			t.Errorf("IsTail(%s, size %s) = %v, %v; expected %v", tt.name, tt.size, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "origin", "origin\n", "origin\n1", "origin\n-1\n", "origin\nx\n", "origin\n9007199254740992\n", "origin\n+1\n", "origin\n01\n", "origin\n1 \n", "origin\n1\r\n"} {
		if got, err := IsTail(BundleName(LedgerPrefix, 0, 256), []byte(bad)); got || err == nil {
			t.Errorf("IsTail with checkpoint %q = %v, %v; expected an error", bad, got, err)
		}
	}
	if got, err := IsTail("../x", checkpoint("0")); got || err == nil {
		t.Errorf("IsTail of a foreign name = %v, %v", got, err)
	}
}

func TestHashText(t *testing.T) {
	if hashA.String() != hexA || (Hash{}).String() != strings.Repeat("0", 64) {
		t.Errorf("hash text is %s", hashA)
	}
	if !(Hash{}).IsZero() || hashA.IsZero() {
		t.Error("IsZero is wrong")
	}
	if h, err := ParseHash(hexA); h != hashA || err != nil {
		t.Errorf("ParseHash = %v, %v", h, err)
	}
	for _, bad := range []string{"", hexA[1:], hexA + "0", strings.ToUpper(hexA), strings.Replace(hexA, "c", "g", 1)} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("ParseHash(%q) succeeds", bad)
		}
	}
}

func TestStreamID(t *testing.T) {
	id, err := NewStreamID(strings.NewReader("0123456789abcdef"))
	if err != nil || id.String() != "30313233343536373839616263646566" {
		t.Errorf("NewStreamID = %s, %v", id, err)
	}
	if back, err := ParseStreamID(id.String()); back != id || err != nil {
		t.Errorf("ParseStreamID = %s, %v", back, err)
	}
	for _, bad := range []string{"", id.String()[1:], "3031323334353637383961626364656F"} {
		if _, err := ParseStreamID(bad); err == nil {
			t.Errorf("ParseStreamID(%q) succeeds", bad)
		}
	}
	if _, err := NewStreamID(strings.NewReader("short")); err == nil {
		t.Error("NewStreamID with little randomness succeeds")
	}
}

func TestClassAndSource(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string][2]bool{ // valid as class, as source
		"":          {false, false},
		"a":         {true, true},
		"technical": {true, true}, "a-1": {true, true},
		"1a": {false, true}, "-a": {false, false}, ".a": {false, false}, "_a": {false, false},
		"A": {false, true}, "a.b": {false, true}, "a_b": {false, true}, "a b": {false, false},
		"a/b": {false, false}, "é": {false, false}, "a\x00": {false, false},
		long[:32]: {true, true}, long[:33]: {false, true}, long: {false, true}, long + "a": {false, false},
	} {
		class, source := Class(name).Valid() == nil, Source(name).Valid() == nil
		if class != want[0] || source != want[1] {
			t.Errorf("%q: valid class %v, source %v; expected %v", name, class, source, want)
		}
	}
}

func TestDay(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC)
	if d := DayOf(at.In(paris)); d != day || d.String() != "2026-11-21" {
		t.Errorf("day in Paris is %s", d)
	}
	if d := DayOf(at); d.Compare(day) != -1 || day.Compare(d) != 1 || d.Compare(d) != 0 {
		t.Error("Compare is wrong")
	}
	if s := day.Start(paris).UTC(); !s.Equal(time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("the day starts at %s", s)
	}
	if d, err := ParseDay("2026-11-21"); d != day || err != nil {
		t.Errorf("ParseDay = %s, %v", d, err)
	}
	for _, bad := range []string{"", "2026-11-31", "2026-1-02", "26-11-21", "2026/11/21", "2026-11-21 "} {
		if _, err := ParseDay(bad); err == nil {
			t.Errorf("ParseDay(%q) succeeds", bad)
		}
	}
}

func TestPieceKind(t *testing.T) {
	if PieceData.String() != "data" || PieceHole.String() != "hole" {
		t.Errorf("kinds are called %s and %s", PieceData, PieceHole)
	}
}

func TestErrorTexts(t *testing.T) {
	tooLarge := &TooLargeError{Name: "x", Size: 2, Limit: 1}
	if got := tooLarge.Error(); got != "x: 2 bytes, expected at most 1" {
		t.Error(got)
	}
}
