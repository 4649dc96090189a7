package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Period is a calendar duration of whole years, months and days, none of them
// negative. It has no fixed length: P1M is 28 to 31 days.
type Period struct {
	Years, Months, Days int
}

// ParsePeriod parses the date part of an ISO 8601 duration: P1Y, P6M, P30D,
// P1Y6M. Each part stands at most once, in this order, without leading zeros;
// a zero part is left out, and only the empty period is written P0D. So a
// period has one text form and String returns what was parsed.
func ParsePeriod(s string) (Period, error) {
	fail := func(why string) (Period, error) {
		return Period{}, fmt.Errorf("period %q: %s, expected such as P1Y, P6M or P30D", s, why)
	}
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return fail("no calendar period")
	}
	if s == "P0D" {
		return Period{}, nil
	}
	var p Period
	for _, part := range []struct {
		unit byte
		n    *int
	}{{'Y', &p.Years}, {'M', &p.Months}, {'D', &p.Days}} {
		i := strings.IndexByte(rest, part.unit)
		if i < 0 {
			continue
		}
		n, err := strconv.ParseUint(rest[:i], 10, 16)
		if err != nil || n == 0 || rest[0] == '0' {
			return fail(fmt.Sprintf("bad number before %c", part.unit))
		}
		*part.n, rest = int(n), rest[i+1:]
	}
	if rest != "" {
		return fail("unknown part")
	}
	if err := p.valid(); err != nil {
		return Period{}, err
	}
	return p, nil
}

// String returns the form that ParsePeriod reads.
func (p Period) String() string {
	if p == (Period{}) {
		return "P0D"
	}
	var b strings.Builder
	b.WriteByte('P')
	for _, part := range []struct {
		n    int
		unit byte
	}{{p.Years, 'Y'}, {p.Months, 'M'}, {p.Days, 'D'}} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%c", part.n, part.unit)
		}
	}
	return b.String()
}

// valid keeps results within the dates that a ledger entry can hold.
func (p Period) valid() error {
	if p.Years < 0 || p.Months < 0 || p.Days < 0 {
		return fmt.Errorf("period %s: negative part", p)
	}
	if p.Years*365+p.Months*30+p.Days > maxDays {
		return fmt.Errorf("period %s: expected at most a hundred years", p)
	}
	return nil
}

// after adds the period to a civil date: years and months first, with the day
// clamped to the end of the month, so that 31 January + P1M is 28 or 29
// February and not a day in March; then the days.
func (p Period) after(year int, month time.Month, day int) (int, time.Month, int) {
	year, month = year+p.Years, month+time.Month(p.Months)
	// Day 0 of the next month is the last of this one; time.Date normalises the month.
	end := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC)
	day = min(day, end.Day())
	return time.Date(end.Year(), end.Month(), day+p.Days, 0, 0, 0, 0, time.UTC).Date()
}

// addTo adds the period to t in the calendar of UTC, at the same time of the day.
func (p Period) addTo(t time.Time) time.Time {
	t = t.UTC()
	y, m, d := p.after(t.Date())
	return t.Add(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Sub(t.Truncate(24 * time.Hour)))
}
