package entry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// schema says once more, independently of members.go, what each type has: the
// members and their kinds. A name with '?' may be absent.
var schema = map[Type]string{
	TypeInit:       "vault:id origin:origin marker:hash key:notekey recovery:notekey",
	TypePolicy:     "classes:classes auditors:fingerprints sources:sources",
	TypeExtend:     "class?:class source?:source stream?:stream since?:early until?:late retain_until:time commit:hash",
	TypeKey:        "class:class day:day public:public public_hash:publichash wrap:hash recipients:fingerprints",
	TypeRewrap:     "key:index wrap:hash recipients:fingerprints",
	TypeSegment:    segmentSchema,
	TypeGap:        "source:source stream:stream gen:index offset:offset span:count prev?:index reason:gapreason",
	TypeConflict:   "source:source stream:stream gen:index offset:offset span:count other:stream other_gen:index",
	TypeOrphan:     "object:hash name:object",
	TypeHold:       "class?:class source?:source stream?:stream since?:early until?:late hold:id commit:hash",
	TypeRelease:    "hold:index commit:hash approver:fingerprint signature:binary",
	TypeRequest:    "commit:hash object:hash class:class kind:requestkind",
	TypeDisclosure: "request:index commit:hash lines:index segments:index",
	TypeRotate:     "old:notekey new:notekey recovery?:notekey by:rotateby signature:binary",
	TypeClock:      "believed:time corrected:time approver:fingerprint signature:binary",
	TypeTimestamp:  "size:index root:hash token:hash stamp:time",
	TypeReplica:    "name:role key:notekey log:notekey retired?:true",
	TypeSummary:    "since:time until:time source?:source segments:index raw:index stored:index lines:index gaps:index conflicts:index",
	TypeCopyInit:   "vault:id origin:origin name:role key:notekey cosigner?:notekey",
	TypeHeld:       "size:index root:hash objects:index bytes:index",
	TypeLock:       "size:index mode:lockmode objects:index until?:time",
	TypeTime:       "clock:time system:time boot:index proof?:hash",
	TypeExpirePlan: "size:index root:hash clock:time plan:hash keys:indexes segments:index bytes:index",
	TypeTombstone:  "plan:index key:index wraps:index segments:index bytes:index",
	TypeFinding:    "code:role level:level object?:object entry?:index",
}

const segmentSchema = "source:source stream:stream gen:index offset:offset span:count raw:positive lines:positive edit?:role prev?:index " +
	"closed?:true cut?:cut joined?:true first_received:time last_received:time first_event:early last_event:late object:hash codec:codec " +
	"size:positive index:hash index_size:positive key:index root:hash class:class day:day retain_until:time"

// slot is a member of the schema.
type slot struct {
	name, kind string
	optional   bool
}

// slotsOf returns the members of a type and those of the header.
func slotsOf(typ Type) []slot {
	slots := []slot{{"time", "time", false}, {"actor", "role", false}}
	for f := range strings.FieldsSeq(schema[typ]) {
		name, kind, _ := strings.Cut(f, ":")
		slots = append(slots, slot{strings.TrimSuffix(name, "?"), kind, strings.HasSuffix(name, "?")})
	}
	return slots
}

// domain lists JSON texts that members of a kind may and may not have. All are
// canonical JSON, so that only the type can refuse them.
type domain struct{ good, bad []string }

// texts quotes strings.
func texts(list ...string) []string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = string(appendText(nil, s))
	}
	return quoted
}

const maxInt = "9007199254740991"

// Values that several kinds share.
var (
	notHex  = []string{"", "0", "g", "0x12", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0"}
	names32 = []string{"a", "nas-2", "a-", "z0", strings.Repeat("a", 32)}
	noNames = []string{"", "A", "aB", "0a", "-a", "a_b", "a b", "a.b", "é", "a/b", strings.Repeat("a", 33)}
)

// domains has every kind of the schema.
func domains() map[string]domain {
	repeat := strings.Repeat
	oneOf := func(list ...string) domain {
		return domain{texts(list...), texts("", "other", strings.ToUpper(list[0]), list[0]+" ", " "+list[0], list[0][1:])}
	}
	hexes := func(n int, zero bool) domain {
		d := domain{texts(repeat("0", n-1)+"1", repeat("f", n), repeat("a9", n/2)), texts(slices.Concat(notHex,
			[]string{repeat("0", n-1), repeat("1", n+1), repeat("F", n), repeat("0", n-1) + "g", " " + repeat("0", n-1), repeat("é", n/2)})...)}
		zeros := texts(repeat("0", n))
		if zero {
			d.good = append(d.good, zeros...)
		} else {
			d.bad = append(d.bad, zeros...)
		}
		return d
	}
	fpr := func(b string) string { return `"` + repeat(b, 40) + `"` }
	class := func(body string) string {
		return fmt.Sprintf(`[{"name":"a","period":"P1Y","zone":"UTC"},{%s}]`, body)
	}
	raw := func(list ...string) []string { return list }
	early := domain{texts("0001-01-01T00:00:00.001Z", "2000-02-29T23:59:59.999Z", "2026-06-30T12:00:00.000Z"), badTimes()}
	d := map[string]domain{
		"id":          hexes(32, true),
		"stream":      hexes(32, true),
		"hash":        hexes(64, false),
		"fingerprint": hexes(40, true),
		"early":       early,
		"late":        {texts("2026-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"), badTimes()},
		"time":        {texts("0001-01-01T00:00:00.001Z", "2024-02-29T00:00:00.000Z", "9999-12-31T23:59:59.999Z"), badTimes()},
		"day":         {texts("0001-01-01", "2024-02-29", "9999-12-31"), texts("", "0000-01-01", "2023-02-29", "2026-1-1", "2026-01-00", "2026-13-01", "2026-01-01 ", "2026/01/01", "20260101", "10000-01-01", "-001-01-01")},
		"index":       {raw("0", "1", maxInt), raw(`"1"`)},
		"offset":      {raw("0", "1", "4503599627370496"), raw(`"1"`)},
		"count":       {raw("1", "50", "1000000"), raw("0")},
		"positive":    {raw("1", maxInt), raw("0")},
		"true":        {raw("true"), raw("false")},
		"indexes":     {raw("[0]", "[0,1]", "[5,"+maxInt+"]"), raw("[]", "[1,0]", "[1,1]", `["1"]`, "[[1]]", "[true]", `[1,{}]`)},
		"binary":      {texts("AA==", "AAA=", "AAAA", b64(8192)), texts("", "A", "AA", "AA=", "AAA", "AB==", "AAB=", "AA==AA==", "A-A=", "A_A=", "=", "====", " AAA=", b64(8193))},
		"role":        {texts(names32...), texts(noNames...)},
		"class":       {texts(names32...), texts(noNames...)},
		"source":      {texts("a", "Proxy_1.example-x", "0", repeat("a", 63)), texts("", ".a", "-a", "_a", "a b", "a/b", "é", "a+b", repeat("a", 64))},
		"origin":      {texts("logs.example/main", "é", repeat("a", 255)), texts("", "a b", "a+b", "\u2003", repeat("a", 256))},
		"notekey":     {texts(noteKey("a"), noteKey("logs.example/x")), texts("", "a", "a+b", "a+b+c", noteKey("a")+"=", " "+noteKey("a"), noteKey("a")[1:], strings.Replace(noteKey("a"), "+A", "+B", 1))},
		"object":      {texts("VAULT", "a/b", ".a/..b", repeat("a", 512)), texts("", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", `a\b`, repeat("a", 513))},
		"gapreason":   oneOf("hole", "lost"),
		"requestkind": oneOf("extract", "cat"),
		"rotateby":    oneOf("log", "recovery"),
		"lockmode":    oneOf("mode", "immutable", "object-lock"),
		"level":       oneOf("note", "warning", "error"),
		"cut":         oneOf("end", "long"),
		"codec":       oneOf("gz", "zst"),
		"fingerprints": {
			raw("["+fpr("a")+"]", "["+fpr("0")+","+fpr("1")+","+fpr("f")+"]"),
			raw("[]", "["+fpr("b")+","+fpr("a")+"]", "["+fpr("a")+","+fpr("a")+"]", `["a"]`, "["+fpr("A")+"]", "[1]", "[["+fpr("a")+"]]"),
		},
		"classes": {
			raw(`[{"name":"a","period":"P1Y","zone":"UTC"}]`, class(`"basis":"`+repeat("x", 1024)+`","grace":"P9999D","name":"b","period":"P1M2D","valid_until":"9999-12-31","zone":"Etc/GMT+1"`)),
			raw("[]", "[[]]", "[1]", class(`"name":"a","period":"P1Y","zone":"UTC"`), class(`"name":"0","period":"P1Y","zone":"UTC"`), class(`"name":"b","period":"P0Y","zone":"UTC"`),
				class(`"name":"b","period":"P1Y","zone":""`), class(`"name":"b","period":"P1Y"`), class(`"name":"b","zone":"UTC"`), class(`"period":"P1Y","zone":"UTC"`), class(""),
				class(`"name":"b","period":"P1Y","x":1,"zone":"UTC"`), class(`"basis":"","name":"b","period":"P1Y","zone":"UTC"`), class(`"basis":"`+repeat("x", 1025)+`","name":"b","period":"P1Y","zone":"UTC"`),
				class(`"grace":"","name":"b","period":"P1Y","zone":"UTC"`), class(`"name":"b","period":"P1Y","valid_until":"2023-02-29","zone":"UTC"`)),
		},
		"sources": {
			raw("[]", `[{"class":"a","name":"P"}]`, `[{"class":"b","name":"P"},{"class":"a","name":"p"}]`),
			raw(`[{"class":"a","name":"p"},{"class":"a","name":"P"}]`, `[{"class":"a","name":"p"},{"class":"b","name":"p"}]`, `[{"class":"A","name":"p"}]`, `[{"name":"p"}]`, `[{"class":"a"}]`, `[{}]`, `["p"]`),
		},
	}
	d["public"] = domain{texts(samplePublic), d["binary"].bad}
	d["publichash"] = domain{texts(samplePublicHash), d["hash"].bad}
	return d
}

// The public key of the sample and its hash, which must fit each other.
const (
	samplePublic     = "cHVibGljIGtleSBwYWNrZXRz"
	samplePublicHash = "6a0853ddda55a077724b9fb46a3efcce90fae6107e28277f7e13e3e8f222eea3"
)

func b64(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

func badTimes() []string {
	return texts("", "0001-01-01T00:00:00.000Z", "0000-12-31T23:59:59.999Z", "2023-02-29T00:00:00.000Z", "2024-01-01T24:00:00.000Z", "2024-01-01T00:00:60.000Z",
		"2024-01-01T00:00:00Z", "2024-01-01T00:00:00.0Z", "2024-01-01T00:00:00.000000Z", "2024-01-01T00:00:00.000z", "2024-01-01t00:00:00.000Z", "2024-01-01T00:00:00.000",
		"2024-01-01T00:00:00.000+00:00", "2024-01-01 00:00:00.000Z", "10000-01-01T00:00:00.000Z", "2024-1-01T00:00:00.000Z", "2024-01-01T00:00:00,000Z", "1704067200")
}

// fullEntry returns an entry of a type with all members, as raw JSON by name.
func fullEntry(typ Type, kinds map[string]domain) map[string]string {
	e := map[string]string{"v": "1", "type": `"` + string(typ) + `"`}
	for _, s := range slotsOf(typ) {
		e[s.name] = kinds[s.kind].good[0]
	}
	return e
}

// spell joins raw members in their order.
func spell(e map[string]string) []byte {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		parts = append(parts, `"`+name+`":`+e[name])
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

// mustRoundTrip decodes data, which must encode to the same bytes and decode to
// the same value again.
func mustRoundTrip(t *testing.T, data []byte) Entry {
	t.Helper()
	e, err := Decode(data)
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	again, err := Encode(e)
	if err != nil || !bytes.Equal(again, data) {
		t.Fatalf("%s encodes to %s, %v", data, again, err)
	}
	twice, err := Decode(again)
	if err != nil || !reflect.DeepEqual(twice, e) {
		t.Fatalf("%s decodes to %+v, then to %+v, %v", data, e, twice, err)
	}
	return e
}

// TestSchemaIsComplete: the table above names every type and the members of the
// golden entries, no more and no less.
func TestSchemaIsComplete(t *testing.T) {
	lines, _ := goldenLines(t)
	seen := map[Type]map[string]bool{}
	for _, line := range lines {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(line, &members); err != nil {
			t.Fatal(err)
		}
		typ := Type(strings.Trim(string(members["type"]), `"`))
		if seen[typ] == nil {
			seen[typ] = map[string]bool{}
		}
		for name := range members {
			seen[typ][name] = true
		}
	}
	for typ := range schema {
		want := map[string]bool{"v": true, "type": true}
		for _, s := range slotsOf(typ) {
			want[s.name] = true
		}
		delete(seen[typ], "crit")
		if !maps.Equal(seen[typ], want) {
			t.Errorf("%s: golden members %v, the schema has %v", typ, slices.Sorted(maps.Keys(seen[typ])), slices.Sorted(maps.Keys(want)))
		}
		delete(seen, typ)
	}
	if len(seen) > 0 {
		t.Errorf("golden types without a schema: %v", seen)
	}
}

// TestEveryValueOfEveryMember puts each good and each bad value of a member's
// kind into an entry of each type.
func TestEveryValueOfEveryMember(t *testing.T) {
	kinds := domains()
	for typ := range schema {
		mustRoundTrip(t, spell(fullEntry(typ, kinds)))
		for _, s := range slotsOf(typ) {
			d, ok := kinds[s.kind]
			if !ok {
				t.Fatalf("kind %s has no domain", s.kind)
			}
			for _, good := range d.good {
				e := fullEntry(typ, kinds)
				e[s.name] = good
				mustRoundTrip(t, spell(e))
			}
			for _, bad := range d.bad {
				e := fullEntry(typ, kinds)
				e[s.name] = bad
				checkRefused(t, typ, s.name, spell(e))
			}
			e := fullEntry(typ, kinds)
			delete(e, s.name)
			switch {
			case s.optional:
				mustRoundTrip(t, spell(e))
			case s.name == "first_event": // alone, the last one has no sense
				checkRefused(t, typ, "last_event", spell(e))
			default:
				checkRefused(t, typ, s.name, spell(e))
			}
		}
	}
}

// checkRefused: data is canonical, and its member, or a member of that, is what is wrong.
func checkRefused(t *testing.T, typ Type, name string, data []byte) {
	t.Helper()
	if err := Check(data); err != nil {
		t.Errorf("the test's own value is not canonical: %.200s: %v", data, err)
	}
	_, err := Decode(data)
	var f *FieldError
	if !errors.As(err, &f) || f.Type != typ || f.Member != name && !strings.HasPrefix(f.Member, name+".") {
		t.Errorf("%s.%s: error %v, expected one for the member in %.300s", typ, name, err, data)
	}
}

// TestRandomEntries draws entries of each type from the schema, with unknown
// members among them, and takes each through Decode and Encode.
func TestRandomEntries(t *testing.T) {
	rng, kinds := rand.New(rand.NewPCG(1, 2)), domains()
	for typ := range schema {
		for range 200 {
			e := map[string]string{"v": "1", "type": `"` + string(typ) + `"`}
			for _, s := range slotsOf(typ) {
				if good := kinds[s.kind].good; !s.optional || rng.IntN(2) == 0 {
					e[s.name] = good[rng.IntN(len(good))]
				}
			}
			if typ == TypeSegment && e["edit"] == "" {
				e["raw"] = e["span"]
			}
			crit := slices.Sorted(maps.Keys(e))
			unknown := map[string]string{"aa": "[]", "m_0": `{"a":[{"b":true}]}`, "zz": `"\\\""`, "zzz": maxInt}
			for name, value := range unknown {
				if rng.IntN(3) == 0 {
					e[name] = value
				}
			}
			if rng.IntN(3) == 0 {
				n := rng.IntN(len(crit))
				e["crit"] = `["` + strings.Join(crit[n:min(n+3, len(crit))], `","`) + `"]`
			}
			mustRoundTrip(t, spell(e))
		}
	}
}

// TestEveryFieldIsEncoded changes each field of each sample: the bytes change,
// or Encode refuses. A field that members forgets would be lost without a word.
func TestEveryFieldIsEncoded(t *testing.T) {
	for i, sample := range samples() {
		before, err := Encode(sample)
		if err != nil {
			t.Fatal(err)
		}
		var paths [][]int
		for _, f := range reflect.VisibleFields(reflect.TypeOf(sample).Elem()) {
			if f.IsExported() && !f.Anonymous {
				paths = append(paths, f.Index)
			}
		}
		for _, path := range paths {
			e := samples()[i]
			field := reflect.ValueOf(e).Elem().FieldByIndex(path)
			changeField(t, field)
			after, err := Encode(e)
			if err == nil && bytes.Equal(after, before) {
				t.Errorf("%s: a change of %s does not show", e.Type(), reflect.TypeOf(e).Elem().FieldByIndex(path).Name)
			}
		}
	}
}

// changeField gives a field another value of its type.
func changeField(t *testing.T, f reflect.Value) {
	t.Helper()
	switch f.Kind() {
	case reflect.String:
		f.SetString(f.String() + "x")
	case reflect.Int64:
		f.SetInt(f.Int() + 1)
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Slice, reflect.Pointer:
		if f.IsZero() {
			f.Set(reflect.New(f.Type()).Elem())
			if f.Kind() == reflect.Slice {
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			} else {
				f.Set(reflect.New(f.Type().Elem()))
			}
			return
		}
		f.SetZero()
	case reflect.Array:
		f.Index(0).SetUint(f.Index(0).Uint() ^ 1)
	case reflect.Struct:
		if at, ok := f.Interface().(time.Time); ok {
			if at.IsZero() {
				at = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
			}
			f.Set(reflect.ValueOf(at.Add(time.Hour)))
			return
		}
		f.FieldByName("Day").SetInt(f.FieldByName("Day").Int() - 1)
	default:
		t.Fatalf("no way to change a %s", f.Kind())
	}
}
