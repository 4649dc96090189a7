package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2027, 1, n, 0, 0, 0, 0, time.UTC) }
	item := Item{Source: "proxy1", Stream: "aa", First: day(1), Last: day(2), RetainUntil: day(10), Grace: Period{Days: 1}}
	extended := item
	extended.Extended = []time.Time{day(5), day(14), day(12)}
	open := Hold{ID: "h1", Source: "proxy1"}
	for _, tt := range []struct {
		what         string
		item         Item
		holds        []Hold
		now          time.Time
		due, overdue bool
		effective    time.Time
		reason       string
	}{
		{"the last moment", item, nil, day(10).Add(-1), false, false, day(10), "not due"},
		{"the first moment", item, nil, day(10), true, false, day(10), "due since 2027-01-10T00:00:00Z"},
		{"end of grace", item, nil, day(11).Add(-1), true, false, day(10), "due since"},
		{"overdue", item, nil, day(11), true, true, day(10), "grace P1D"},
		{"extended: the latest counts", extended, nil, day(13), false, false, day(14), "extended until 2027-01-14"},
		{"extended and due", extended, nil, day(14), true, false, day(14), "due since"},
		{"open hold", item, []Hold{open}, day(400), false, false, Never, "hold h1 until it is released"},
		{"open hold beside one with an end", item, []Hold{{ID: "h2", Ends: day(20)}, open}, day(21), false, false, Never, "hold h1"},
		{"hold beside an open one", item, []Hold{open, {ID: "h2", Ends: day(20)}}, day(21), false, false, Never, "hold h1"},
		{"hold with an end", item, []Hold{{ID: "h2", Ends: day(20)}}, day(19), false, false, day(20), "hold h2 until 2027-01-20"},
		{"after its end, with a new grace", item, []Hold{{ID: "h2", Ends: day(20)}}, day(20), true, false, day(20), "due since 2027-01-20"},
		{"overdue after a hold", item, []Hold{{ID: "h2", Ends: day(20)}}, day(21), true, true, day(20), "overdue"},
		{"hold that ends before the date", item, []Hold{{ID: "h2", Ends: day(9)}}, day(10), true, false, day(10), "due since 2027-01-10"},
		{"hold of another source", item, []Hold{{ID: "h3", Source: "proxy2"}}, day(10), true, false, day(10), "due since"},
	} {
		v := Judge(tt.item, tt.holds, tt.now)
		if v.Due != tt.due || v.Overdue != tt.overdue || !v.Effective.Equal(tt.effective) {
			t.Errorf("%s: %+v, want due %v, overdue %v, effective %v", tt.what, v, tt.due, tt.overdue, tt.effective)
		}
		has := func(r string) bool { return strings.Contains(r, tt.reason) }
		if !slices.ContainsFunc(v.Reasons, has) || !strings.Contains(v.Reasons[0], "2027-01-10T00:00:00Z") {
			t.Errorf("%s: reasons %q, want the date at sealing and %q", tt.what, v.Reasons, tt.reason)
		}
	}
}

// An item that is not due stays so whatever more holds and extensions there
// are, and a due one was due for every earlier set of them.
func TestJudgeHoldsOnlyLengthen(t *testing.T) {
	base := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	item := Item{Source: "s", RetainUntil: base}
	ends := []Hold{{ID: "a", Ends: base.Add(time.Hour)}, {ID: "b", Ends: base.Add(-time.Hour)}, {ID: "c", Source: "t"}, {ID: "d"}}
	for n := range len(ends) {
		for m := range 4 {
			longer := item
			longer.Extended = []time.Time{base.Add(time.Duration(m-2) * time.Hour)}
			before, after := Judge(item, ends[:n], base), Judge(longer, ends[:n+1], base)
			if after.Effective.Before(before.Effective) || after.Due && !before.Due {
				t.Errorf("with hold %s and extension %d: %+v, before %+v", ends[n].ID, m, after, before)
			}
		}
	}
}

func TestHoldCovers(t *testing.T) {
	hour := func(n int) time.Time { return time.Date(2027, 1, 1, n, 0, 0, 0, time.UTC) }
	item := Item{Class: "technical", Source: "proxy1", Stream: "aa", First: hour(10), Last: hour(12)}
	timeless := Item{Source: "proxy1", Stream: "aa"}
	for _, tt := range []struct {
		what string
		hold Hold
		item Item
		want bool
	}{
		{"everything", Hold{}, item, true},
		{"source", Hold{Source: "proxy1"}, item, true},
		{"other source", Hold{Source: "proxy2"}, item, false},
		{"stream", Hold{Stream: "aa"}, item, true},
		{"other stream", Hold{Source: "proxy1", Stream: "bb"}, item, false},
		{"class", Hold{Class: "technical"}, item, true},
		{"other class", Hold{Class: "identity", Source: "proxy1"}, item, false},
		{"an hour within", Hold{Since: hour(11), Until: hour(12)}, item, true},
		{"touches the first line", Hold{Since: hour(8), Until: hour(10).Add(1)}, item, true},
		{"touches the last line", Hold{Since: hour(12), Until: hour(14)}, item, true},
		{"just before", Hold{Since: hour(8), Until: hour(10)}, item, false},
		{"just after", Hold{Since: hour(12).Add(1), Until: hour(14)}, item, false},
		{"open to the right", Hold{Since: hour(11)}, item, true},
		{"open to the right, later", Hold{Since: hour(13)}, item, false},
		{"open to the left", Hold{Until: hour(11)}, item, true},
		{"open to the left, earlier", Hold{Until: hour(9)}, item, false},
		{"times unknown", Hold{Since: hour(1), Until: hour(2)}, timeless, true},
	} {
		if got := tt.hold.Covers(tt.item); got != tt.want {
			t.Errorf("%s: covers %v, want %v", tt.what, got, tt.want)
		}
	}
}
