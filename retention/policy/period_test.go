package policy

import (
	"testing"
	"time"
)

func TestParsePeriod(t *testing.T) {
	for s, want := range map[string]Period{
		"P1Y": {Years: 1}, "P6M": {Months: 6}, "P30D": {Days: 30}, "P1Y6M10D": {1, 6, 10}, "P5Y1D": {Years: 5, Days: 1},
		"P0D": {}, "P100Y": {Years: 100}, "P36525D": {Days: 36525},
	} {
		got, err := ParsePeriod(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "P", "1Y", "p1y", "P1", "PY", "P0Y", "P01Y", "P+1Y", "P-1Y", "P1Y ", " P1Y", "P1M1Y", "P1Y1Y", "P1W", "PT1H", "P1DT1H",
		"P1.5Y", "P1_0D", "P65536D", "P101Y", "P99Y1000M", "P1Y0D", "P99999999999999999999Y", "P１Y",
	} {
		if p, err := ParsePeriod(s); err == nil {
			t.Errorf("%q was taken for %+v", s, p)
		}
	}
}

// What parses is written back byte for byte: one text form per period.
func FuzzParsePeriod(f *testing.F) {
	for _, s := range []string{"P1Y", "P6M", "P30D", "P1Y6M10D", "P0D", "P", "P0Y", "P1M1Y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePeriod(s)
		if err == nil && p.String() != s {
			t.Errorf("%q is written back as %q", s, p)
		}
	})
}

func TestPeriodAddTo(t *testing.T) {
	from := time.Date(2027, 1, 31, 23, 0, 0, 5, time.UTC)
	for s, want := range map[string]time.Time{
		"P0D": from,
		"P1D": time.Date(2027, 2, 1, 23, 0, 0, 5, time.UTC),
		"P1M": time.Date(2027, 2, 28, 23, 0, 0, 5, time.UTC),
	} {
		p, err := ParsePeriod(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.addTo(from); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
}
