package entry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// with returns the held entry with more members, in their order.
func with(t *testing.T, more map[string]string) []byte {
	t.Helper()
	e := map[string]string{
		"actor": `"copy"`, "bytes": "1", "objects": "2", "root": `"` + hash(1).String() + `"`, "size": "3",
		"time": `"2026-01-01T00:00:00.000Z"`, "type": `"held"`, "v": "1",
	}
	for name, value := range more {
		if e[name] = value; value == "" {
			delete(e, name)
		}
	}
	data := spell(e)
	if err := Check(data); err != nil {
		t.Fatalf("the test's entry is not canonical: %s: %v", data, err)
	}
	return data
}

// TestCritNamesAbsentOptional: a known member that is absent cannot be critical,
// be it optional. Decode once took such an entry, which Encode then refused.
func TestCritNamesAbsentOptional(t *testing.T) {
	kinds := domains()
	tried := 0
	for typ := range schema {
		for _, s := range slotsOf(typ) {
			if !s.optional {
				continue
			}
			tried++
			e := fullEntry(typ, kinds)
			e["crit"] = `["` + s.name + `"]`
			mustRoundTrip(t, spell(e))
			delete(e, s.name)
			checkRefused(t, typ, "crit", spell(e))
		}
	}
	if tried < 15 {
		t.Errorf("%d optional members tried, expected at least 15", tried)
	}
}

// TestCrit lists what crit may say and which error outranks which.
func TestCrit(t *testing.T) {
	for name, c := range map[string]struct {
		more  map[string]string
		newer bool
		field string // of the FieldError; "" = none
	}{
		"known":                    {more: map[string]string{"crit": `["root","size"]`}},
		"header members":           {more: map[string]string{"crit": `["actor","time","type","v"]`}},
		"itself":                   {more: map[string]string{"crit": `["crit"]`}},
		"unknown, not critical":    {more: map[string]string{"crit": `["size"]`, "extra": `{"a":[[1]]}`}},
		"unknown":                  {more: map[string]string{"crit": `["extra"]`, "extra": "1"}, newer: true},
		"known and unknown":        {more: map[string]string{"crit": `["extra","size"]`, "extra": "1"}, newer: true},
		"unknown and absent":       {more: map[string]string{"crit": `["absent","extra"]`, "extra": "1"}, newer: true},
		"unknown and a bad value":  {more: map[string]string{"crit": `["extra"]`, "extra": "1", "size": `"x"`}, newer: true},
		"unknown and one missing":  {more: map[string]string{"crit": `["extra"]`, "extra": "1", "size": ""}, newer: true},
		"absent":                   {more: map[string]string{"crit": `["extra"]`}, field: "crit"},
		"absent and a bad value":   {more: map[string]string{"crit": `["extra"]`, "size": `"x"`}, field: "size"},
		"empty":                    {more: map[string]string{"crit": `[]`}, field: "crit"},
		"twice":                    {more: map[string]string{"crit": `["size","size"]`}, field: "crit"},
		"not sorted":               {more: map[string]string{"crit": `["size","root"]`}, field: "crit"},
		"no array":                 {more: map[string]string{"crit": `"size"`}, field: "crit"},
		"no strings":               {more: map[string]string{"crit": `[true]`}, field: "crit"},
		"no name":                  {more: map[string]string{"crit": `["Size"]`}, field: "crit"},
		"newer version":            {more: map[string]string{"v": "2"}, newer: true},
		"newer version, all else":  {more: map[string]string{"v": maxInt, "size": "[]", "actor": ""}, newer: true},
		"version 0":                {more: map[string]string{"v": "0"}, newer: true},
		"version as a string":      {more: map[string]string{"v": `"1"`}, field: "v"},
		"no version":               {more: map[string]string{"v": ""}, field: "v"},
		"no type":                  {more: map[string]string{"type": ""}, field: "type"},
		"type as a number":         {more: map[string]string{"type": "1"}, field: "type"},
		"type in capitals":         {more: map[string]string{"type": `"Held"`}, newer: true},
		"type of the empty string": {more: map[string]string{"type": `""`}, newer: true},
	} {
		data := with(t, c.more)
		e, err := Decode(data)
		var f *FieldError
		switch {
		case errors.Is(err, ErrNewer) != c.newer:
			t.Errorf("%s: error %v, expected ErrNewer: %v", name, err, c.newer)
		case errors.Is(err, ErrNotCanonical):
			t.Errorf("%s: %v, but the bytes are canonical", name, err)
		case c.field != "" && (!errors.As(err, &f) || f.Member != c.field):
			t.Errorf("%s: error %v, expected one for %s", name, err, c.field)
		case c.field == "" && !c.newer:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if again, err := Encode(e); err != nil || string(again) != string(data) {
				t.Errorf("%s: %s encodes to %s, %v", name, data, again, err)
			}
		}
	}
}

// TestUnknownMembersAreKept: a reader of today writes back what a later version
// said, of every kind and at every place, and may change what it knows beside it.
func TestUnknownMembersAreKept(t *testing.T) {
	for i, value := range []string{`""`, `"a\"b\\"`, "0", maxInt, "true", "false", "[]", "{}", `[{"a":[1,"x"]},[[]]]`, `{"a":{"b":{}}}`} {
		for _, name := range []string{"a", "c", "crit_", "o", "tim", "timf", "typ", "u", "v0", "zz"} {
			data := with(t, map[string]string{name: value})
			e := mustRoundTrip(t, data)
			e.(*Held).Size = int64(100 + i)
			want := strings.Replace(string(data), `"size":3`, fmt.Sprintf(`"size":%d`, 100+i), 1)
			if got, err := Encode(e); err != nil || string(got) != want {
				t.Errorf("changed beside %s: %s, %v, expected %s", name, got, err, want)
			}
		}
	}
}

// TestUnknownGivesWay: an optional member that the struct got a value for is
// written once, from the struct.
func TestUnknownGivesWay(t *testing.T) {
	e := mustRoundTrip(t, with(t, map[string]string{"extra": "1"})).(*Held)
	lock := &Lock{Header: e.Header, Size: 1, Mode: LockMode, Objects: 1, Until: e.Time}
	lock.extra = []member{{"until", value{kind: kindInteger, integer: 7}}, {"x", value{kind: kindFlag, flag: true}}}
	data, err := Encode(lock)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), `"until"`); n != 1 || strings.Contains(string(data), `"until":7`) || !strings.Contains(string(data), `"x":true`) {
		t.Errorf("%s: expected one until, the struct's, and x", data)
	}
}

// TestNestedObjectsAreClosed: classes and sources of a policy hold no members
// that this version does not know; crit could not announce them.
func TestNestedObjectsAreClosed(t *testing.T) {
	kinds := domains()
	for _, name := range []string{"classes", "sources"} {
		e := fullEntry(TypePolicy, kinds)
		e["sources"] = `[{"class":"a","name":"p"}]`
		for _, extra := range []string{`"aa":1`, `"extra":[]`, `"crit":["extra"]`, `"v":1`} {
			changed := map[string]string{}
			for k, v := range e {
				changed[k] = v
			}
			members, err := parse([]byte(strings.Trim(e[name], "[]")))
			if err != nil {
				t.Fatal(err)
			}
			more, err := parse([]byte("{" + extra + "}"))
			if err != nil {
				t.Fatal(err)
			}
			changed[name] = "[" + string(appendObject(nil, slices.Concat(members, more))) + "]"
			checkRefused(t, TypePolicy, name, spell(changed))
		}
	}
}

// TestCrossRules: members that are good alone and wrong together.
func TestCrossRules(t *testing.T) {
	kinds := domains()
	for _, c := range []struct {
		typ    Type
		set    map[string]string
		member string // "" = accepted
	}{
		{TypeSegment, map[string]string{"span": "10", "raw": "9"}, ""},
		{TypeSegment, map[string]string{"span": "10", "raw": "11"}, ""},
		{TypeSegment, map[string]string{"edit": "", "span": "10", "raw": "10"}, ""},
		{TypeSegment, map[string]string{"edit": "", "span": "10", "raw": "9"}, "raw"},
		{TypeSegment, map[string]string{"edit": "", "span": "10", "raw": "11"}, "raw"},
		{TypeSegment, map[string]string{"offset": "9007199254740990", "span": "1"}, ""},
		{TypeSegment, map[string]string{"offset": "9007199254740990", "span": "2"}, "span"},
		{TypeSegment, map[string]string{"offset": maxInt, "span": "1"}, "span"},
		{TypeSegment, map[string]string{"offset": maxInt, "span": maxInt}, "span"},
		{TypeSegment, map[string]string{"offset": "0", "span": maxInt}, ""},
		{TypeSegment, map[string]string{"first_event": "", "last_event": ""}, ""},
		{TypeSegment, map[string]string{"last_event": ""}, "last_event"},
		{TypeSegment, map[string]string{"first_event": `"2026-01-01T00:00:00.000Z"`, "last_event": `"2026-01-01T00:00:00.000Z"`}, ""},
		{TypeSegment, map[string]string{"first_event": `"2026-01-01T00:00:00.001Z"`, "last_event": `"2026-01-01T00:00:00.000Z"`}, "last_event"},
		{TypeGap, map[string]string{"offset": "9007199254740990", "span": "1"}, ""},
		{TypeGap, map[string]string{"offset": maxInt, "span": "1"}, "span"},
		{TypeConflict, map[string]string{"offset": maxInt, "span": "1"}, "span"},
		{TypeHold, map[string]string{"since": `"2026-01-01T00:00:00.000Z"`, "until": `"2026-01-01T00:00:00.001Z"`}, ""},
		{TypeHold, map[string]string{"since": `"2026-01-01T00:00:00.000Z"`, "until": `"2026-01-01T00:00:00.000Z"`}, "until"},
		{TypeHold, map[string]string{"since": `"2026-01-01T00:00:00.001Z"`, "until": `"2026-01-01T00:00:00.000Z"`}, "until"},
		{TypeHold, map[string]string{"since": ""}, ""},
		{TypeExtend, map[string]string{"since": `"2026-01-01T00:00:00.000Z"`, "until": `"2025-01-01T00:00:00.000Z"`}, "until"},
		{TypeKey, map[string]string{"public": `"AAAA"`}, "public_hash"},
		{TypeKey, map[string]string{"public_hash": `"` + hash(1).String() + `"`}, "public_hash"},
	} {
		e := fullEntry(c.typ, kinds)
		for name, value := range c.set {
			if e[name] = value; value == "" {
				delete(e, name)
			}
		}
		if c.member == "" {
			mustRoundTrip(t, spell(e))
		} else {
			checkRefused(t, c.typ, c.member, spell(e))
		}
	}
}
