package window

import (
	"strings"
	"testing"
	"time"

	"logvault/ledger/entry"
	"logvault/vault"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02", s)
	if err != nil {
		panic("window: " + err.Error()) // a constant of this test is wrong
	}
	return t
}

func segment() *entry.Segment {
	return &entry.Segment{
		Source: "proxy", Class: "technical", Stream: vault.StreamID{1},
		FirstReceived: at("2026-11-21"), LastReceived: at("2026-11-22"),
		FirstEvent: at("2026-11-19"), LastEvent: at("2026-11-20"),
		RetainUntil: at("2027-11-22"),
	}
}

func policyEntry() *entry.Policy {
	return &entry.Policy{Classes: []entry.PolicyClass{{Name: "technical", Period: "P1Y", Grace: "P1D", Zone: "UTC"}}}
}

func TestJudge(t *testing.T) {
	other := vault.StreamID{2}
	hold := func(s entry.Scope) entry.Entry { return &entry.Hold{Scope: s} }
	extend := func(s entry.Scope, until string) entry.Entry {
		return &entry.Extend{Scope: s, RetainUntil: at(until)}
	}
	for _, c := range []struct {
		name         string
		entries      []entry.Entry
		now          string
		due, overdue bool
		held         bool
	}{
		{"before its date", nil, "2027-11-21", false, false, false},
		{"on its date", nil, "2027-11-22", true, false, false},
		{"after the grace", nil, "2027-11-23", true, true, false},
		{"held", []entry.Entry{hold(entry.Scope{})}, "2037-01-01", false, false, true},
		{"held by class", []entry.Entry{hold(entry.Scope{Class: "technical"})}, "2037-01-01", false, false, true},
		{"other class held", []entry.Entry{hold(entry.Scope{Class: "identity"})}, "2037-01-01", true, true, false},
		{"other stream held", []entry.Entry{hold(entry.Scope{Stream: &other})}, "2037-01-01", true, true, false},
		{"held by event time only", []entry.Entry{hold(entry.Scope{Until: at("2026-11-20")})}, "2037-01-01", false, false, true},
		{"held by received time only", []entry.Entry{hold(entry.Scope{Since: at("2026-11-22")})}, "2037-01-01", false, false, true},
		{"hold of a later time", []entry.Entry{hold(entry.Scope{Since: at("2026-11-23")})}, "2037-01-01", true, true, false},
		{"released", []entry.Entry{hold(entry.Scope{}), &entry.Release{Hold: 1}}, "2027-11-22", true, false, false},
		{"extended", []entry.Entry{extend(entry.Scope{Source: "proxy"}, "2028-01-01")}, "2027-12-31", false, false, false},
		{"extended and over", []entry.Entry{extend(entry.Scope{Source: "proxy"}, "2028-01-01")}, "2028-01-01", true, false, false},
		{"other source extended", []entry.Entry{extend(entry.Scope{Source: "other"}, "2028-01-01")}, "2027-12-31", true, true, false},
		{"an extension never shortens", []entry.Entry{extend(entry.Scope{}, "2027-01-01")}, "2027-02-01", false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := New()
			for i, e := range append([]entry.Entry{policyEntry()}, c.entries...) {
				if err := w.Add(int64(i), e); err != nil {
					t.Fatal(err)
				}
			}
			v := w.Judge(segment(), at(c.now))
			if v.Due != c.due || v.Overdue != c.overdue {
				t.Errorf("due %v, overdue %v, expected %v, %v: %s", v.Due, v.Overdue, c.due, c.overdue, strings.Join(v.Reasons, "; "))
			}
			if held := w.Held(segment()); held != c.held {
				t.Errorf("held %v, expected %v", held, c.held)
			}
		})
	}
}

func TestAddRefuses(t *testing.T) {
	for name, e := range map[string]entry.Entry{
		"period":  &entry.Policy{Classes: []entry.PolicyClass{{Name: "a", Period: "1 year", Zone: "UTC"}}},
		"grace":   &entry.Policy{Classes: []entry.PolicyClass{{Name: "a", Period: "P1Y", Grace: "x", Zone: "UTC"}}},
		"zone":    &entry.Policy{Classes: []entry.PolicyClass{{Name: "a", Period: "P1Y", Zone: "Nowhere/Land"}}},
		"release": &entry.Release{Hold: 7},
	} {
		w := New()
		if err := w.Add(9, e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestClassIsTheLastStated(t *testing.T) {
	w := New()
	second := policyEntry()
	second.Classes[0].Period = "P2Y"
	for i, e := range []entry.Entry{policyEntry(), second} {
		if err := w.Add(int64(i), e); err != nil {
			t.Fatal(err)
		}
	}
	if c, ok := w.Class("technical"); !ok || c.Period.Years != 2 {
		t.Errorf("class %+v, %v, expected a period of two years", c, ok)
	}
	if _, ok := w.Class("identity"); ok {
		t.Error("a class that no policy names is known")
	}
}
