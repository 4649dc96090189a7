package entry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

var update = flag.Bool("update", false, "write testdata/entries.jsonl anew; only for a type that no release has written")

const golden = "testdata/entries.jsonl"

// Keys and ids of the samples.
const (
	otherKey    = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
	fingerprint = "0123456789abcdef0123456789abcdef01234567"
)

// noteKey returns the verifier key of that name: sum.golang.org's under another.
func noteKey(name string) string {
	_, key64, _ := strings.Cut(strings.TrimPrefix(otherKey, "sum.golang.org+"), "+")
	key, err := base64.StdEncoding.DecodeString(key64)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return fmt.Sprintf("%s+%x+%s", name, sum[:4], key64)
}

func hash(b byte) vault.Hash { return vault.HashOf([]byte{b}) }

// samples returns an entry of each type with all members set, and some with
// none of the optional ones.
func samples() []Entry {
	at := time.Date(2026, 11, 21, 6, 32, 16, 123e6, time.UTC)
	head := Header{Time: at, Actor: "gateway"}
	stream := vault.StreamID{1, 2, 3}
	day := vault.Day{Year: 2027, Month: 11, Day: 22}
	scope := Scope{Class: "technical", Source: "proxy-1", Stream: &stream, Since: at, Until: at.Add(time.Hour)}
	full := &Segment{
		Header: Header{Time: at, Actor: "gateway", Crit: []string{"edit"}}, Source: "proxy-1", Stream: stream, Gen: 1, Offset: 100, Span: 50, Raw: 40, Lines: 2,
		Edit: "drop-query-1", Prev: 7, Closed: true, Cut: CutEnd, Joined: true,
		FirstReceived: at, LastReceived: at.Add(time.Second), FirstEvent: at.Add(-time.Hour), LastEvent: at,
		Object: hash(1), Codec: vault.Zstd, Size: 300, Index: hash(2), IndexSize: 200, Key: 2, Root: hash(3),
		Class: "technical", Day: day, RetainUntil: at.AddDate(1, 0, 1),
	}
	plain := *full
	plain.Header = head
	plain.Edit, plain.Raw, plain.Prev, plain.Closed, plain.Cut, plain.Joined = "", 50, -1, false, "", false
	plain.FirstEvent, plain.LastEvent, plain.Codec = time.Time{}, time.Time{}, vault.Gzip
	public := []byte("public key packets")
	return []Entry{
		&Init{head, "00112233445566778899aabbccddeeff", "logs.example/main", hash(1), noteKey("logs.example/main"), noteKey("recovery")},
		&Policy{
			head, []PolicyClass{
				{Name: "backup", Period: "P30D", Zone: "UTC"},
				{"technical", "P1Y", "P1M", "Europe/Paris", "décret 2021-1362, \"art. 6\"", "2027-01-01"},
			},
			[]string{fingerprint}, []PolicySource{{"proxy-1", "technical"}, {"proxy-2", "technical"}},
		},
		&Extend{head, scope, at.AddDate(2, 0, 0), hash(4)},
		&Key{head, "technical", day, public, vault.HashOf(public), hash(5), []string{fingerprint}},
		&Rewrap{head, 2, hash(6), []string{fingerprint}},
		full, &plain,
		&Gap{head, "proxy-1", stream, 1, 150, 10, 8, GapHole},
		&Gap{head, "proxy-1", stream, 0, 0, 10, -1, GapLost},
		&Conflict{head, "proxy-1", stream, 1, 20, 5, vault.StreamID{9}, 0},
		&Orphan{head, hash(7), "segments/2027/11/22/" + hash(7).String() + ".gz.pgp"},
		&Hold{head, scope, "ffeeddccbbaa99887766554433221100", hash(8)},
		&Hold{head, Scope{}, "ffeeddccbbaa99887766554433221100", hash(8)},
		&Release{head, 11, hash(9), fingerprint, []byte{1, 2, 3}},
		&Request{head, hash(10), hash(18), "technical", RequestExtract},
		&Disclosure{head, 14, hash(11), 12, 3},
		&Rotate{head, noteKey("logs.example/main"), noteKey("logs.example/next"), noteKey("recovery"), RotateRecovery, []byte{4}},
		&Clock{head, at, at.Add(time.Minute), fingerprint, []byte{5}},
		&Timestamp{head, 17, hash(12), hash(13), at},
		&Replica{head, "nas-2", noteKey("nas-2"), noteKey("nas-2/log"), true},
		&Summary{head, at.Add(-time.Hour), at, "proxy-1", 1, 2, 3, 4, 5, 6},
		&CopyInit{head, "00112233445566778899aabbccddeeff", "logs.example/main", "nas-2", noteKey("nas-2/log"), ""},
		&Held{head, 20, hash(14), 21, 22},
		&Lock{head, 20, LockImmutable, 21, at},
		&ClockReading{head, at, at, 123456, hash(15)},
		&ExpirePlan{head, 20, hash(16), at, hash(17), []int64{2, 5}, 6, 7},
		&Tombstone{head, 3, 2, 1, 6, 7},
		&Finding{head, "changed", FindingError, "keys/x", 12},
		&Finding{head, "gap", FindingWarning, "", -1},
		&CopyInit{head, "00112233445566778899aabbccddeeff", "logs.example/main", "nas-3", noteKey("nas-3/log"), noteKey("nas-3")},
	}
}

// TestGolden holds the bytes of each type fixed: a release must read what the
// ones before it wrote.
func TestGolden(t *testing.T) {
	var lines []byte
	types := make(map[Type]bool)
	for _, e := range samples() {
		data, err := Encode(e)
		if err != nil {
			t.Fatalf("%s: %v", e.Type(), err)
		}
		types[e.Type()] = true
		lines = append(append(lines, data...), '\n')
	}
	if *update {
		if err := os.WriteFile(golden, lines, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lines, want) {
		t.Errorf("encoded entries differ from %s:\n%s", golden, lines)
	}
	i := 0
	for line := range bytes.Lines(want) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		e, err := Decode(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !reflect.DeepEqual(e, samples()[i]) {
			t.Errorf("decoded %+v, expected %+v", e, samples()[i])
		}
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
		i++
	}
	if len(types) != 25 {
		t.Errorf("samples of %d types, expected all 25", len(types))
	}
}

// TestEncodeTime: times are cut to the millisecond and written in UTC.
func TestEncodeTime(t *testing.T) {
	paris := time.FixedZone("", 3600)
	e := &Held{Header: Header{Time: time.Date(2026, 1, 1, 0, 30, 0, 1999999, paris), Actor: "copy"}, Root: hash(1)}
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"time":"2025-12-31T23:30:00.001Z"`; !strings.Contains(string(data), want) {
		t.Errorf("%s: expected %s", data, want)
	}
}

// base is the held entry that the tables below spoil.
const base = `{"actor":"copy","bytes":1,"objects":2,"root":"ROOT","size":3,"time":"2026-01-01T00:00:00.000Z","type":"held","v":1}`

func held() string { return strings.Replace(base, "ROOT", hash(1).String(), 1) }

func TestNotCanonical(t *testing.T) {
	if _, err := Decode([]byte(held())); err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string {
		s := strings.Replace(held(), old, new, 1)
		if s == held() {
			t.Fatalf("%q is not in the base entry", old)
		}
		return s
	}
	for name, data := range map[string]string{
		"empty":                "",
		"not an object":        `[1]`,
		"text":                 `"x"`,
		"leading space":        " " + held(),
		"trailing LF":          held() + "\n",
		"trailing object":      held() + "{}",
		"space after colon":    swap(`"size":3`, `"size": 3`),
		"space after comma":    swap(`,"size"`, `, "size"`),
		"wrong order":          swap(`"bytes":1,"objects":2`, `"objects":2,"bytes":1`),
		"duplicate":            swap(`"bytes":1`, `"bytes":1,"bytes":1`),
		"null":                 swap(`"size":3`, `"size":null`),
		"float":                swap(`"size":3`, `"size":3.0`),
		"exponent":             swap(`"size":3`, `"size":3e0`),
		"negative":             swap(`"size":3`, `"size":-3`),
		"minus zero":           swap(`"size":3`, `"size":-0`),
		"leading zero":         swap(`"size":3`, `"size":03`),
		"2^53":                 swap(`"size":3`, `"size":9007199254740992`),
		"huge":                 swap(`"size":3`, `"size":99999999999999999999999`),
		"solidus escaped":      swap(`"copy"`, `"co\/py"`),
		"letter escaped":       swap(`"copy"`, `"c\u006fpy"`),
		"control escaped":      swap(`"copy"`, `"c\u0007py"`),
		"newline escaped":      swap(`"copy"`, `"c\npy"`),
		"raw control":          swap(`"copy"`, "\"c\x07py\""),
		"raw newline":          swap(`"copy"`, "\"c\npy\""),
		"raw DEL":              swap(`"copy"`, "\"c\x7fpy\""),
		"raw C1":               swap(`"copy"`, "\"c\u0085py\""),
		"not UTF-8":            swap(`"copy"`, "\"c\xffpy\""),
		"surrogate":            swap(`"copy"`, "\"c\xed\xa0\x80py\""),
		"overlong":             swap(`"copy"`, "\"c\xc0\x80py\""),
		"unterminated":         held()[:len(held())-1],
		"cut in a string":      held()[:20],
		"cut in a word":        `{"a":tru`,
		"wrong word":           `{"a":trux}`,
		"capital name":         `{"A":1}`,
		"empty name":           `{"":1}`,
		"name with digit":      `{"1a":1}`,
		"escaped name":         `{"\u0061":1}`,
		"trailing comma":       `{"a":1,}`,
		"array trailing comma": `{"a":[1,]}`,
		"no comma":             `{"a":1"b":2}`,
		"no colon":             `{"a"1}`,
		"colon for comma":      `{"a":[1:2]}`,
		"depth 5":              `{"a":[[[[]]]]}`,
		"depth 5 of objects":   `{"a":{"a":{"a":{"a":{}}}}}`,
		"NUL at the end":       held()[:len(held())-1] + "\x00",
	} {
		if _, err := Decode([]byte(data)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %q: error %v, expected ErrNotCanonical", name, data, err)
		}
		if err := Check([]byte(data)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: Check gives %v, expected ErrNotCanonical", name, err)
		}
	}
	for _, data := range []string{`{}`, `{"a":[[[]]]}`, `{"a":{"a":{"a":{}}}}`, `{"a":9007199254740991}`, "{\"a\":\"\\\"\\\\é\u2028\"}", `{"a":[true,false,0,"",[],{}]}`} {
		if err := Check([]byte(data)); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	fit := fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", MaxSize-8))
	if err := Check(fit); err != nil {
		t.Errorf("%d bytes: %v", len(fit), err)
	}
	over := fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", MaxSize-7))
	if err := Check(over); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes: error %v, expected ErrTooLarge", len(over), err)
	}
	plan := samples()[25].(*ExpirePlan)
	for i := range int64(40_000) {
		plan.Keys = append(plan.Keys, 1000+i)
	}
	if _, err := Encode(plan); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encoding a large plan: %v, expected ErrTooLarge", err)
	}
}

func TestNewer(t *testing.T) {
	for name, swap := range map[string][2]string{
		"version":         {`"v":1`, `"v":2`},
		"type":            {`"held"`, `"holo"`},
		"critical member": {`"objects":2`, `"crit":["extra"],"extra":"x","objects":2`},
	} {
		data := strings.Replace(held(), swap[0], swap[1], 1)
		if _, err := Decode([]byte(data)); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: error %v, expected ErrNewer", name, err)
		}
		if err := Check([]byte(data)); err != nil {
			t.Errorf("%s: Check gives %v, but the chain must verify", name, err)
		}
	}
	// A member that is not critical is kept.
	data := strings.Replace(held(), `"objects":2`, `"extra":[{"a":true}],"objects":2`, 1)
	e, err := Decode([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Encode(e); err != nil || string(again) != data {
		t.Errorf("encoded again: %s, %v; expected %s", again, err, data)
	}
}

// TestFieldErrors spoils one member of a sample at a time, both ways where the
// struct can hold the bad value.
func TestFieldErrors(t *testing.T) {
	for _, c := range []struct {
		typ      Type
		member   string
		old, new string // in the encoded sample
	}{
		{TypeHeld, "size", `"size":20,`, ``},
		{TypeHeld, "size", `"size":20`, `"size":"20"`},
		{TypeHeld, "actor", `"gateway"`, `"Gateway"`},
		{TypeHeld, "actor", `"gateway"`, `""`},
		{TypeHeld, "time", `16.123Z`, `16.123456Z`},
		{TypeHeld, "time", `16.123Z`, `16Z`},
		{TypeHeld, "time", `16.123Z`, `16.123+00:00`},
		{TypeHeld, "time", `16.123Z`, `16,123Z`},
		{TypeHeld, "time", `2026-11-21`, `2026-13-21`},
		{TypeHeld, "time", `2026-11-21`, `0000-11-21`},
		{TypeHeld, "root", hash(14).String(), strings.ToUpper(hash(14).String())},
		{TypeHeld, "root", hash(14).String(), strings.Repeat("0", 64)},
		{TypeHeld, "root", hash(14).String(), "00"},
		{TypeHeld, "crit", `"bytes":22`, `"bytes":22,"crit":[]`},
		{TypeHeld, "crit", `"bytes":22`, `"bytes":22,"crit":["no_such"]`},
		{TypeHeld, "crit", `"bytes":22`, `"bytes":22,"crit":["size","root"]`},
		{TypeHeld, "crit", `"bytes":22`, `"bytes":22,"crit":[1]`},
		{TypeSegment, "span", `"span":50`, `"span":0`},
		{TypeSegment, "span", `"offset":100`, `"offset":9007199254740990`},
		{TypeSegment, "raw", `"edit":"drop-query-1",`, ``},
		{TypeSegment, "closed", `"closed":true`, `"closed":false`},
		{TypeSegment, "cut", `"cut":"end"`, `"cut":"mid"`},
		{TypeSegment, "cut", `"cut":"end"`, `"cut":""`},
		{TypeSegment, "codec", `"zst"`, `"lz4"`},
		{TypeSegment, "day", `"2027-11-22"`, `"2027-11-31"`},
		{TypeSegment, "edit", `"drop-query-1"`, `""`},
		{TypeSegment, "last_event", `"last_event":"2026-11-21T06:32:16.123Z",`, ``},
		{TypeSegment, "last_event", `"last_event":"2026`, `"last_event":"2025`},
		{TypeSegment, "source", `"proxy-1"`, `"proxy 1"`},
		{TypeSegment, "stream", `"01020300`, `"0102030`},
		{TypeSegment, "prev", `"prev":7`, `"prev":"7"`},
		{TypeInit, "vault", `"00112233`, `"0011223`},
		{TypeInit, "origin", `"origin":"logs.example/main"`, `"origin":"logs example"`},
		{TypeInit, "key", `"key":"logs.example/main+`, `"key":"logs.example/main+0`},
		{TypeInit, "key", `"key":"logs.example/main+`, `"key":"logs.example/other+`},
		{TypePolicy, "classes.period", `"P1Y"`, `"1Y"`},
		{TypePolicy, "classes.period", `"P1Y"`, `"P"`},
		{TypePolicy, "classes.period", `"P1Y"`, `"P0Y"`},
		{TypePolicy, "classes.period", `"P1Y"`, `"P1D1Y"`},
		{TypePolicy, "classes.period", `"P1Y"`, `"P1W"`},
		{TypePolicy, "classes.zone", `"Europe/Paris"`, `"Europe Paris"`},
		{TypePolicy, "classes.valid_until", `"2027-01-01"`, `"2027-1-1"`},
		{TypePolicy, "classes.more", `"name":"backup"`, `"more":1,"name":"backup"`},
		{TypePolicy, "classes.name", `"name":"backup",`, ``},
		{TypePolicy, "classes", `"backup"`, `"zulu"`},
		{TypePolicy, "sources", `"proxy-2"`, `"proxy-1"`},
		{TypePolicy, "sources", `{"class":"technical","name":"proxy-2"}`, `7`},
		{TypePolicy, "auditors", `["` + fingerprint + `"]`, `[]`},
		{TypePolicy, "auditors", fingerprint, "xyz"},
		{TypeKey, "public", `"public":"c`, `"public":"*`},
		{TypeKey, "public_hash", `"public":"c`, `"public":"d`},
		{TypeKey, "recipients", `["` + fingerprint + `"]`, `"` + fingerprint + `"`},
		{TypeHold, "until", `"until":"2026`, `"until":"2025`},
		{TypeOrphan, "name", `"segments/`, `"../`},
		{TypeOrphan, "name", `"segments/`, `"segments//`},
		{TypeExpirePlan, "keys", `[2,5]`, `[5,2]`},
		{TypeExpirePlan, "keys", `[2,5]`, `[]`},
		{TypeExpirePlan, "keys", `[2,5]`, `["2"]`},
		{TypeExpirePlan, "keys", `[2,5]`, `2`},
		{TypeFinding, "object", `"keys/x"`, `""`},
		{TypeFinding, "level", `"error"`, `"fatal"`},
	} {
		i := slices.IndexFunc(samples(), func(e Entry) bool { return e.Type() == c.typ })
		good, err := Encode(samples()[i])
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(bad, good) {
			t.Errorf("%s.%s: %q is not in %s", c.typ, c.member, c.old, good)
		}
		var f *FieldError
		if _, err := Decode(bad); !errors.As(err, &f) || f.Type != c.typ || f.Member != c.member {
			t.Errorf("%s with %s: error %v, expected one for member %s", c.typ, c.new, err, c.member)
		}
	}
}

// TestEncodeRefuses gives Encode structs that no entry can say.
func TestEncodeRefuses(t *testing.T) {
	spoil := func(i int, f func(Entry)) Entry {
		e := samples()[i]
		f(e)
		return e
	}
	for member, e := range map[string]Entry{
		"time":           spoil(0, func(e Entry) { e.Head().Time = time.Time{} }),
		"actor":          spoil(0, func(e Entry) { e.Head().Actor = "j.doe" }),
		"crit":           spoil(0, func(e Entry) { e.Head().Crit = []string{"absent"} }),
		"marker":         spoil(0, func(e Entry) { e.(*Init).Marker = vault.Hash{} }),
		"classes.basis":  spoil(1, func(e Entry) { e.(*Policy).Classes[1].Basis = "a\x00b" }),
		"classes":        spoil(1, func(e Entry) { e.(*Policy).Classes = nil }),
		"auditors":       spoil(1, func(e Entry) { e.(*Policy).Auditors = []string{fingerprint, fingerprint} }),
		"public":         spoil(3, func(e Entry) { e.(*Key).Public = nil }),
		"recipients":     spoil(3, func(e Entry) { e.(*Key).Recipients = nil }),
		"day":            spoil(5, func(e Entry) { e.(*Segment).Day = vault.Day{Year: 2026, Month: 2, Day: 30} }),
		"gen":            spoil(5, func(e Entry) { e.(*Segment).Gen = -1 }),
		"size":           spoil(5, func(e Entry) { e.(*Segment).Size = 1 << 53 }),
		"prev":           spoil(5, func(e Entry) { e.(*Segment).Prev = -2 }),
		"first_received": spoil(5, func(e Entry) { e.(*Segment).FirstReceived = time.Time{} }),
		"keys":           spoil(25, func(e Entry) { e.(*ExpirePlan).Keys = []int64{-1} }),
		"retain_until":   spoil(2, func(e Entry) { e.(*Extend).RetainUntil = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }),
	} {
		var f *FieldError
		if data, err := Encode(e); !errors.As(err, &f) || f.Member != member {
			t.Errorf("%s: %s, error %v, expected one for the member", member, data, err)
		}
	}
}

// FuzzDecode: what decodes encodes to the same bytes, and Check agrees.
func FuzzDecode(f *testing.F) {
	for _, e := range samples() {
		data, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"actor":"a","crit":["x"],"time":"2026-01-01T00:00:00.000Z","type":"held","v":1,"x":{"y":[true]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Decode(data)
		if err != nil {
			return
		}
		if err := Check(data); err != nil {
			t.Fatalf("decoded, but Check says: %v", err)
		}
		again, err := Encode(e)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%s encodes to %s", data, again)
		}
	})
}

// FuzzCheck: what is canonical is JSON, and is what the canonical form of its
// parsed value is.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(held()))
	f.Add([]byte(`{"a":"\"\\é","b":[true,{"c":9007199254740991}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := parse(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is not JSON", data)
		}
		if again := appendObject(nil, members); !bytes.Equal(again, data) {
			t.Fatalf("%q encodes to %q", data, again)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	data, err := Encode(samples()[5])
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := Check(data); err != nil {
			b.Fatal(err)
		}
	}
}

// TestUnsigned: the signature is over every byte of the entry but its own member.
func TestUnsigned(t *testing.T) {
	for _, in := range []string{
		`{"actor":"admin","signature":"AA==","time":"x","v":1}`,
		`{"actor":"admin","time":"x","v":1}`,
	} {
		got, err := Unsigned([]byte(in))
		if err != nil || string(got) != `{"actor":"admin","time":"x","v":1}` {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	if _, err := Unsigned([]byte(`{"v": 1}`)); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("not canonical: error %v", err)
	}
}
