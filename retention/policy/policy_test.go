package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same rules on every machine
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRetainUntil(t *testing.T) {
	for _, tt := range []struct {
		what, zone, period, record, want, day string
	}{
		{"the example of the package comment", "Europe/Paris", "P1Y", "2026-11-21T22:30:00Z", "2027-11-21T23:00:00Z", "2027-11-22"},
		{"civil date of the zone, not of UTC", "Europe/Paris", "P1Y", "2026-11-21T23:30:00Z", "2027-11-22T23:00:00Z", "2027-11-23"},
		{"first instant of a day", "Europe/Paris", "P1Y", "2026-11-20T23:00:00Z", "2027-11-21T23:00:00Z", "2027-11-22"},
		{"leap day plus a year", "UTC", "P1Y", "2028-02-29T12:00:00Z", "2029-03-01T00:00:00Z", "2029-03-01"},
		{"leap day plus four years", "UTC", "P4Y", "2028-02-29T12:00:00Z", "2032-03-01T00:00:00Z", "2032-03-01"},
		{"leap day plus 72 years crosses 2100, no leap year", "UTC", "P72Y", "2028-02-29T12:00:00Z", "2100-03-01T00:00:00Z", "2100-03-01"},
		{"day before a leap day plus a year", "UTC", "P1Y", "2027-02-28T12:00:00Z", "2028-02-29T00:00:00Z", "2028-02-29"},
		{"31st to a month of 30 days", "UTC", "P6M", "2026-08-31T00:00:00Z", "2027-03-01T00:00:00Z", "2027-03-01"},
		{"31st to February of a leap year", "UTC", "P6M", "2027-08-31T00:00:00Z", "2028-03-01T00:00:00Z", "2028-03-01"},
		{"clamp first, then days", "UTC", "P1M1D", "2027-01-31T00:00:00Z", "2027-03-02T00:00:00Z", "2027-03-02"},
		{"months across the year", "UTC", "P14M", "2026-12-31T23:59:59Z", "2028-03-01T00:00:00Z", "2028-03-01"},
		{"12 months are a year", "Europe/London", "P12M", "2028-02-29T12:00:00Z", "2029-03-01T00:00:00Z", "2029-03-01"},
		{"days", "UTC", "P30D", "2027-01-31T23:59:59Z", "2027-03-03T00:00:00Z", "2027-03-03"},
		{"summer time begins on the last day", "Europe/Paris", "P30D", "2027-02-25T12:00:00Z", "2027-03-27T23:00:00Z", "2027-03-28"},
		{"summer time begun", "Europe/Paris", "P30D", "2027-02-26T12:00:00Z", "2027-03-28T22:00:00Z", "2027-03-29"},
		{"midnight that does not exist", "America/Sao_Paulo", "P1Y", "2017-11-03T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-04"},
		{"the same, Beirut", "Asia/Beirut", "P1Y", "2020-03-27T12:00:00Z", "2021-03-27T22:00:00Z", "2021-03-28"},
		{"midnight twice on one date (01:00 to 00:00)", "America/Havana", "P1Y", "2022-11-05T12:00:00Z", "2023-11-06T05:00:00Z", "2023-11-06"},
		{"midnight twice, back into the day before (00:01 to 23:01)", "America/St_Johns", "P1Y", "2009-11-06T12:00:00Z", "2010-11-07T03:30:00Z", "2010-11-07"},
		{"a date left out", "Pacific/Apia", "P1Y", "2010-12-29T20:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31"},
		{"a zone without rules", "Etc/GMT-14", "P1Y", "2026-12-31T10:00:00Z", "2028-01-01T10:00:00Z", "2028-01-02"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			p, err := ParsePeriod(tt.period)
			if err != nil {
				t.Fatal(err)
			}
			c := Class{Name: "technical", Period: p, Zone: zone(t, tt.zone)}
			got := c.RetainUntil(instant(t, tt.record))
			if want := instant(t, tt.want); !got.Equal(want) || got.Location() != time.UTC {
				t.Errorf("retain until %v, want %v in UTC", got, want)
			}
			y, m, d := c.DestructionDay(instant(t, tt.record))
			if day := fmt.Sprintf("%04d-%02d-%02d", y, m, d); day != tt.day {
				t.Errorf("destruction day %s, want %s", day, tt.day)
			}
		})
	}
}

// oddZones have midnights that are missing, doubled or at odd offsets.
var oddZones = []string{
	"UTC", "Europe/Paris", "Europe/London", "America/Sao_Paulo", "Asia/Beirut", "America/Havana",
	"America/St_Johns", "Pacific/Apia", "Asia/Tehran", "Asia/Amman", "Africa/Cairo", "America/Asuncion",
	"Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll", "Pacific/Kiritimati", "Atlantic/Azores", "Asia/Gaza",
}

// The definition, checked by walking the zone's clock: before the start of a
// day every moment is dated earlier or comes back to an earlier date; from it
// on none is dated earlier.
func TestStartOfDayIsExact(t *testing.T) {
	const step = 30 * time.Minute
	for _, name := range oddZones {
		loc := zone(t, name)
		for i := range 366 * 22 {
			date := time.Date(2005, 1, 1+i, 0, 0, 0, 0, time.UTC)
			y, m, d := date.Date()
			earlier := func(at time.Time) bool {
				ay, am, ad := at.In(loc).Date()
				return time.Date(ay, am, ad, 0, 0, 0, 0, time.UTC).Before(date)
			}
			start := startOfDay(y, m, d, loc)
			if !earlier(start.Add(-1)) {
				t.Fatalf("%s %s: start %v is too late", name, date.Format(time.DateOnly), start.In(loc))
			}
			for at := start; at.Before(start.Add(3 * time.Hour)); at = at.Add(step) {
				if earlier(at) {
					t.Fatalf("%s %s: start %v is too early: %v follows", name, date.Format(time.DateOnly), start.In(loc), at.In(loc))
				}
			}
		}
	}
}

// A record lives at least its period and at most a day more. The period's end
// is computed here from the wall clock alone, in a calendar without zones.
func TestPeriodIsKeptAndAtMostADayMore(t *testing.T) {
	seed := uint64(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC).Unix())
	rng := rand.New(rand.NewPCG(seed, 1))
	periods := []Period{{Years: 1}, {Months: 6}, {Years: 6}, {Days: 30}, {Days: 1}, {Years: 1, Months: 1, Days: 1}}
	for _, name := range oddZones {
		loc := zone(t, name)
		for range 3000 {
			c := Class{Name: "x", Period: periods[rng.IntN(len(periods))], Zone: loc}
			record := time.Unix(1104537600+rng.Int64N(22*366*86400), 0)
			got := c.RetainUntil(record)

			local := record.In(loc)
			first := time.Date(local.Year()+c.Period.Years, local.Month()+time.Month(c.Period.Months), 1, 0, 0, 0, 0, time.UTC)
			day := local.Day()
			for time.Date(first.Year(), first.Month(), day, 0, 0, 0, 0, time.UTC).Month() != first.Month() {
				day-- // the month is shorter
			}
			anniversary := first.AddDate(0, 0, day-1+c.Period.Days)

			// The wall clock that the record reaches exactly at its period.
			wall := anniversary.Add(time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute)
			age := wallOf(got.Add(-1), loc).Sub(wall)
			if age < -time.Minute {
				t.Fatalf("%s %s, record %v: let go at %v, %v before its period", name, c.Period, local, got.In(loc), -age)
			}
			if age > 24*time.Hour {
				t.Fatalf("%s %s, record %v: kept until %v, %v too long", name, c.Period, local, got.In(loc), age-24*time.Hour)
			}
			if y, m, d := c.DestructionDay(record); time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Before(anniversary.AddDate(0, 0, 1)) {
				t.Fatalf("%s %s, record %v: destruction day %d-%d-%d", name, c.Period, local, y, m, d)
			}
		}
	}
}

// wallOf reads the clock on the wall as if it were UTC.
func wallOf(at time.Time, loc *time.Location) time.Time {
	l := at.In(loc)
	return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), l.Nanosecond(), time.UTC)
}

// All records of one civil day have one date, and later days never an earlier
// one: a segment of one day has one retain_until, and days die in order.
func TestOneDateForADayAndInOrder(t *testing.T) {
	for _, name := range oddZones {
		c := Class{Name: "x", Period: Period{Months: 6}, Zone: zone(t, name)}
		byDay := map[[3]int]time.Time{}
		var last time.Time
		start := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC)
		for at := start; at.Before(start.AddDate(20, 0, 0)); at = at.Add(6*time.Hour + 7*time.Minute) {
			y, m, d := at.In(c.Zone).Date()
			got := c.RetainUntil(at)
			if want, ok := byDay[[3]int{y, int(m), d}]; ok && !got.Equal(want) {
				t.Fatalf("%s: %v and another record of its day differ: %v, %v", name, at, got, want)
			}
			byDay[[3]int{y, int(m), d}] = got
			if got.Before(last) {
				t.Fatalf("%s: %v is kept until %v, an earlier record until %v", name, at, got, last)
			}
			last = got
		}
	}
}

func TestClassValid(t *testing.T) {
	good := Class{Name: "technical", Period: Period{Years: 1}, Grace: Period{Days: 1}, Zone: time.UTC}
	if err := good.Valid(); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*Class){
		"without a name": func(c *Class) { c.Name = "" },
		"no time zone":   func(c *Class) { c.Zone = nil },
		"at least P1D":   func(c *Class) { c.Period = Period{} },
		"negative":       func(c *Class) { c.Period = Period{Years: 2, Days: -1} },
		"hundred years":  func(c *Class) { c.Grace = Period{Days: maxDays + 1} },
	} {
		c := good
		spoil(&c)
		if err := c.Valid(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want an error with %q", err, what)
		}
	}
}

func TestLapsed(t *testing.T) {
	c := Class{ValidUntil: time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)}
	for at, want := range map[string]bool{"2026-10-20T23:59:59Z": false, "2026-10-21T00:00:00Z": true} {
		if got := c.Lapsed(instant(t, at)); got != want {
			t.Errorf("%s: lapsed %v, want %v", at, got, want)
		}
	}
	if (Class{}).Lapsed(Never) {
		t.Error("a basis without a known end lapsed")
	}
}

func TestPresets(t *testing.T) {
	want := map[string]string{
		"france-2025":         "technical P1Y Europe/Paris 2026-10-20; identity P5Y Europe/Paris 0001-01-01; ",
		"united-kingdom-2016": "technical P12M Europe/London 0001-01-01; ",
		"switzerland":         "technical P6M Europe/Zurich 0001-01-01; ",
		"italy-2017":          "technical P6Y Europe/Rome 0001-01-01; ",
		"one-year":            "technical P1Y UTC 0001-01-01; ",
	}
	if got := len(Presets()); got != len(want) {
		t.Errorf("%d presets, want %d", got, len(want))
	}
	for _, name := range Presets() {
		classes, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, c := range classes {
			fmt.Fprintf(&got, "%s %s %s %s; ", c.Name, c.Period, c.Zone, c.ValidUntil.Format(time.DateOnly))
			if !strings.HasSuffix(c.Basis, notice) || c.Basis == notice || c.Grace != (Period{Days: 1}) {
				t.Errorf("%s/%s: grace %s, basis %q", name, c.Name, c.Grace, c.Basis)
			}
		}
		if got.String() != want[name] {
			t.Errorf("%s: %s, want %s", name, got.String(), want[name])
		}
	}
	france, err := Preset("france-2025")
	if err != nil || !strings.Contains(france[0].Basis, "L34-1") || !strings.Contains(france[0].Basis, "2025-980") {
		t.Errorf("basis %q, %v", france[0].Basis, err)
	}
	if _, err := Preset("atlantis"); err == nil || !strings.Contains(err.Error(), "france-2025") {
		t.Errorf("unknown preset: %v, want an error that lists the names", err)
	}
}
