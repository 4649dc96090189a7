package entry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// optional lists the members that may be absent, by type. Everything else in
// the golden lines is required.
var optional = map[Type][]string{
	TypeExtend:   {"class", "source", "stream", "since", "until"},
	TypeHold:     {"class", "source", "stream", "since", "until"},
	TypeSegment:  {"crit", "prev", "closed", "cut", "joined"},
	TypeGap:      {"prev"},
	TypeRotate:   {"recovery"},
	TypeReplica:  {"retired"},
	TypeSummary:  {"source"},
	TypeLock:     {"until"},
	TypeCopyInit: {"cosigner"},
	TypeTime:     {"proof"},
	TypeFinding:  {"object", "entry"},
}

// goldenLines returns the golden entries, parsed without their schema.
func goldenLines(t *testing.T) (lines [][]byte, parsed [][]member) {
	t.Helper()
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		members, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		lines, parsed = append(lines, line), append(parsed, members)
	}
	return lines, parsed
}

// typeOf returns the member type.
func typeOf(members []member) Type {
	i := slices.IndexFunc(members, func(m member) bool { return m.name == "type" })
	return Type(members[i].val.text)
}

// TestMissingMembers leaves out each member of each golden entry.
func TestMissingMembers(t *testing.T) {
	_, parsed := goldenLines(t)
	for _, members := range parsed {
		typ := typeOf(members)
		for i, m := range members {
			data := appendObject(nil, slices.Concat(members[:i], members[i+1:]))
			_, err := Decode(data)
			if slices.Contains(optional[typ], m.name) {
				if err != nil {
					t.Errorf("%s without %s: %v", typ, m.name, err)
				}
				continue
			}
			var f *FieldError
			if !errors.As(err, &f) {
				t.Errorf("%s without %s: error %v, expected a FieldError", typ, m.name, err)
			}
		}
	}
}

// TestWrongKinds gives each member of each golden entry a value of each other
// kind: an error for that member, and no panic.
func TestWrongKinds(t *testing.T) {
	_, parsed := goldenLines(t)
	values := []value{
		{kind: kindText, text: "\x01"[:0]}, {kind: kindInteger, integer: 1}, {kind: kindFlag, flag: true},
		{kind: kindArray}, {kind: kindArray, array: []value{{kind: kindFlag}}},
		{kind: kindObject}, {kind: kindObject, object: []member{{"a", value{}}}},
	}
	for _, members := range parsed {
		typ := typeOf(members)
		for i, m := range members {
			for _, v := range values {
				if v.kind == m.val.kind {
					continue
				}
				changed := slices.Clone(members)
				changed[i].val = v
				_, err := Decode(appendObject(nil, changed))
				var f *FieldError
				if !errors.As(err, &f) || f.Member != m.name {
					t.Errorf("%s with %s as %v: error %v, expected one for the member", typ, m.name, v.kind, err)
				}
			}
		}
	}
}

// TestEveryByteOfGolden changes every byte of every golden line: it is refused,
// or it is another entry that encodes to those bytes.
func TestEveryByteOfGolden(t *testing.T) {
	lines, _ := goldenLines(t)
	refused, other := 0, 0
	for _, line := range lines {
		for i := range line {
			for _, mask := range []byte{0x01, 0x20, 0x80, 0xff} {
				bad := bytes.Clone(line)
				bad[i] ^= mask
				e, err := Decode(bad)
				if err != nil {
					refused++
					continue
				}
				other++
				again, err := Encode(e)
				if err != nil || !bytes.Equal(again, bad) {
					t.Fatalf("%s decodes and encodes to %s, %v", bad, again, err)
				}
			}
		}
	}
	if refused == 0 || other == 0 {
		t.Errorf("%d changes refused, %d other entries; expected some of both", refused, other)
	}
}

// TestCut cuts every golden line at every byte.
func TestCut(t *testing.T) {
	lines, _ := goldenLines(t)
	for _, line := range lines {
		for n := range line {
			if err := Check(line[:n]); !errors.Is(err, ErrNotCanonical) {
				t.Fatalf("%s: error %v, expected ErrNotCanonical", line[:n], err)
			}
		}
	}
}

// TestAgainstEncodingJSON: Go's own encoder, which sorts keys too, writes the
// golden lines the same way.
func TestAgainstEncodingJSON(t *testing.T) {
	lines, _ := goldenLines(t)
	for _, line := range lines {
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if got := bytes.TrimSuffix(out.Bytes(), []byte("\n")); !bytes.Equal(got, line) {
			t.Errorf("encoding/json writes %s, expected %s", got, line)
		}
	}
}

// TestExtraMembers: members of a later version survive a round trip, wherever
// they sort, and may be critical only if they are known.
func TestExtraMembers(t *testing.T) {
	lines, parsed := goldenLines(t)
	for i, members := range parsed {
		extra := append(slices.Clone(members), member{"aa", value{kind: kindText, text: "x\"\\é"}}, member{"zz", value{kind: kindArray, array: []value{{kind: kindObject}}}})
		data := appendObject(nil, extra)
		e, err := Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if again, err := Encode(e); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s encodes to %s, %v", data, again, err)
		}
		if bytes.Contains(lines[i], []byte(`"crit"`)) {
			continue
		}
		extra = append(extra, member{"crit", value{kind: kindArray, array: []value{{kind: kindText, text: "zz"}}}})
		if _, err := Decode(appendObject(nil, extra)); !errors.Is(err, ErrNewer) {
			t.Errorf("%s with a critical member: error %v, expected ErrNewer", typeOf(members), err)
		}
		extra[len(extra)-1].val.array[0].text = "actor"
		if _, err := Decode(appendObject(nil, extra)); err != nil {
			t.Errorf("%s with a known critical member: %v", typeOf(members), err)
		}
	}
}

// TestErrorText: an error names type and member, expected and got.
func TestErrorText(t *testing.T) {
	_, err := Decode([]byte(strings.Replace(held(), `"size":3`, `"size":"3"`, 1)))
	if want := "held entry, member size: a string, expected an integer"; err == nil || err.Error() != want {
		t.Errorf("error %q, expected %q", err, want)
	}
	err = &FieldError{Type: TypeHeld, Err: ErrTooLarge}
	if want := "held entry: entry too large"; err.Error() != want {
		t.Errorf("error %q, expected %q", err, want)
	}
}

// TestChecks lists what each kind of string may be.
func TestChecks(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, c := range []struct {
		what      string
		check     func(string) error
		good, bad []string
	}{
		{
			"id", checkID,
			[]string{strings.Repeat("0", 32), strings.Repeat("f", 32)},
			[]string{"", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("F", 32), strings.Repeat("g", 32)},
		},
		{
			"role", checkRole,
			[]string{"gateway", "a", "nas-2", strings.Repeat("a", 32)},
			[]string{"", "Gateway", "2nas", "j.doe", "a_b", "a b", strings.Repeat("a", 33)},
		},
		{
			"origin", checkOrigin,
			[]string{"logs.example/main", "é", strings.Repeat("a", 255)},
			[]string{"", "a b", "a\tb", "a+b", "a\u00a0b", strings.Repeat("a", 256)},
		},
		{
			"period", checkPeriod,
			[]string{"P1Y", "P6M", "P30D", "P1Y6M10D", "P1Y10D", "P9999D"},
			[]string{"", "P", "1Y", "P1", "PY", "P0Y", "P01Y", "P-1Y", "P+1Y", "P1.5Y", "P1Y1Y", "P1M1Y", "P1D1M", "P1W", "PT1H", "P1y", "P10000D", "P1Y ", " P1Y"},
		},
		{
			"zone", checkZone,
			[]string{"UTC", "Europe/Paris", "America/Port-au-Prince", "Etc/GMT+1"},
			[]string{"", "Europe Paris", "Europe/Pâris", "../x", long},
		},
		{
			"object name", checkObjectName,
			[]string{"VAULT", "ledger/checkpoint", "segments/2027/11/22/x.gz.pgp"},
			[]string{"", "/", "/a", "a/", "a//b", ".", "a/../b", "a/.", "..", `a\b`, long},
		},
		{
			"note key", checkNoteKey,
			[]string{noteKey("a"), noteKey("logs.example/main")},
			[]string{"", "a", "a+b", "a+00000000+", strings.Replace(noteKey("a"), "a+", "b+", 1), noteKey("a") + "A", noteKey("a") + "\n", strings.ToUpper(noteKey("a"))},
		},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%s %q: %v", c.what, s, err)
			}
		}
		for _, s := range c.bad {
			if c.check(s) == nil {
				t.Errorf("%s %q: no error", c.what, s)
			}
		}
	}
}

// TestTimes: one text form, and all of its times.
func TestTimes(t *testing.T) {
	for _, s := range []string{"0001-01-01T00:00:00.001Z", "2024-02-29T23:59:59.999Z", "9999-12-31T23:59:59.999Z"} {
		at, err := parseTime(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if again, err := formatTime(at); err != nil || again != s {
			t.Errorf("%s formats as %s, %v", s, again, err)
		}
	}
	for _, s := range []string{
		"", "0001-01-01T00:00:00.000Z", "2023-02-29T00:00:00.000Z", "2024-01-01T24:00:00.000Z", "2024-01-01T00:00:60.000Z",
		"2024-01-01t00:00:00.000z", "2024-01-01 00:00:00.000Z", "2024-01-01T00:00:00.00Z", "2024-01-01T00:00:00.0000Z",
		"2024-01-01T00:00:00,000Z", "2024-01-01T00:00:00.000+00:00", "+2024-01-01T00:00:00.000Z", "12024-01-01T00:00:00.000Z",
	} {
		if at, err := parseTime(s); err == nil {
			t.Errorf("%q parses as %v", s, at)
		}
	}
}

// TestBase64 refuses every spelling but the standard one.
func TestBase64(t *testing.T) {
	good := `{"actor":"a","approver":"` + fingerprint + `","commit":"` + hash(1).String() + `","hold":1,"signature":"%s","time":"2026-01-01T00:00:00.000Z","type":"release","v":1}`
	for s, ok := range map[string]bool{
		"AQID": true, "AQI=": true, "AQ==": true,
		"": false, "AQI": false, "AQJ=": false, "AR==": false, "AQ=": false, "-_8=": false, "AQ==AQ==": false, "A QI=": false, "AQID\\n": false,
	} {
		_, err := Decode(fmt.Appendf(nil, good, s))
		if (err == nil) != ok {
			t.Errorf("signature %q: error %v, expected success: %v", s, err, ok)
		}
	}
}
