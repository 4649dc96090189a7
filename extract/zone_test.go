package extract

import (
	"encoding/csv"
	"fmt"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
	"logvault/ledger/entry"
)

// clf makes a line of the combined format that writes its time in a zone.
func clf(at time.Time, zone *time.Location) string {
	return fmt.Sprintf("192.0.2.1 - - [%s] \"GET /p HTTP/1.1\" 200 10 \"-\" \"agent\"\n", at.In(zone).Format("02/Jan/2006:15:04:05 -0700"))
}

// TestWindowsOverClockChanges asks for windows around the two nights on which
// clocks change, where a wrong hour would name another person. The log has a
// line every ten minutes, written by a server that changes its clock too.
func TestWindowsOverClockChanges(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	autumn := time.Date(2026, 10, 24, 22, 0, 0, 0, time.UTC) // 00:00+02:00
	spring := time.Date(2026, 3, 28, 22, 0, 0, 0, time.UTC)  // 23:00+01:00
	r := newRig(t)
	for i, night := range []time.Time{autumn, spring} {
		var text strings.Builder
		for n := range 6 * 6 {
			text.WriteString(clf(night.Add(time.Duration(n)*10*time.Minute), paris))
		}
		r.seal("proxy1", byte(i+1), text.String(), night, night.Add(6*time.Hour))
	}
	for n, c := range []struct {
		since, until, zone string
		lines              int64
		local              string // of the first row
	}{
		// Autumn: 02:00 to 03:00 comes twice.
		{"2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00", "Europe/Paris", 12, "2026-10-25T02:00:00.000+02:00"},
		{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "Europe/Paris", 6, "2026-10-25T02:00:00.000+02:00"},
		{"2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00", "Europe/Paris", 6, "2026-10-25T02:00:00.000+01:00"},
		{"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "Europe/Paris", 6, "2026-10-25T02:30:00.000+02:00"},
		{"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00.001+02:00", "", 1, "2026-10-25T02:30:00.000+02:00"},
		{"2026-10-25 02:30+01:00", "2026-10-25 02:31+01:00", "", 1, "2026-10-25T02:30:00.000+01:00"},
		// Without a zone the offset of since stays, though the clock changed.
		{"2026-10-25T01:00:00+02:00", "2026-10-25T04:00:00+02:00", "", 18, "2026-10-25T01:00:00.000+02:00"},
		// Spring: 02:00 to 03:00 does not come, but its offsets name instants.
		{"2026-03-29T01:50:00+01:00", "2026-03-29T03:10:00+02:00", "Europe/Paris", 2, "2026-03-29T01:50:00.000+01:00"},
		{"2026-03-29T02:00:00+01:00", "2026-03-29T02:30:00+01:00", "Europe/Paris", 3, "2026-03-29T03:00:00.000+02:00"},
		{"2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z", "UTC", 12, "2026-03-29T00:00:00.000+00:00"},
		// Zones that are no whole hours, and the other side of the date line.
		{"2026-10-25T00:00:00Z", "2026-10-25T00:10:00Z", "America/St_Johns", 1, "2026-10-24T21:30:00.000-02:30"},
		{"2026-10-25T05:45:00+05:45", "2026-10-25T05:55:00+05:45", "", 1, "2026-10-25T05:45:00.000+05:45"},
		{"2026-10-25T00:00:00Z", "2026-10-25T00:10:00Z", "Pacific/Kiritimati", 1, "2026-10-25T14:00:00.000+14:00"},
	} {
		req := asking(autumn, autumn)
		req.Scope.Since, req.Scope.Until, req.Scope.Zone = When(c.since), When(c.until), c.zone
		req.Scope.Client = []string{"192.0.2.1"}
		dir := fmt.Sprintf("/answer%d", n)
		sum := r.run(dir, req)
		if sum.Lines != c.lines {
			t.Errorf("%s to %s: %d lines, expected %d:\n%s", c.since, c.until, sum.Lines, c.lines, r.lines(dir))
			continue
		}
		rows, err := csv.NewReader(strings.NewReader(string(r.files(dir)[tableName]))).ReadAll()
		r.must(err)
		if got := rows[1][6]; got != c.local {
			t.Errorf("%s to %s: first local time %s, expected %s", c.since, c.until, got, c.local)
		}
		seen := map[string]bool{}
		for _, row := range rows[1:] {
			if seen[row[6]] {
				t.Errorf("%s to %s: local time %s stands twice", c.since, c.until, row[6])
			}
			seen[row[6]] = true
		}
	}
}

// TestWindowEnds checks that a window holds its first instant and not its last,
// to the millisecond and to the second.
func TestWindowEnds(t *testing.T) {
	r := newRig(t)
	var text strings.Builder
	for ms := range 5 {
		text.WriteString(squid(hour.Add(time.Duration(ms)*time.Millisecond), "192.0.2.1", "-", "a.example"))
	}
	r.seal("proxy1", 1, text.String(), hour, hour)
	r.seal("proxy2", 2, clf(hour, time.UTC)+clf(hour.Add(time.Second), time.UTC)+clf(hour.Add(2*time.Second), time.UTC), hour, hour)
	for n, c := range []struct {
		from, to time.Duration
		lines    int64
	}{
		{0, time.Millisecond, 2}, // one of each source
		{-time.Millisecond, 0, 0},
		{time.Millisecond, 3 * time.Millisecond, 2},
		{4 * time.Millisecond, time.Second, 1},
		{5 * time.Millisecond, time.Second, 0},
		{time.Second, 2*time.Second + time.Millisecond, 2},
	} {
		req := asking(hour.Add(c.from), hour.Add(c.to))
		req.Scope.Client = []string{"192.0.2.1"}
		if sum := r.run(fmt.Sprintf("/answer%d", n), req); sum.Lines != c.lines {
			t.Errorf("%v to %v: %d lines, expected %d", c.from, c.to, sum.Lines, c.lines)
		}
	}
}

// TestJudgeAsSealed checks that the search reads a line as the sealer did, whose
// tokens and times choose the segments: else the answer would depend on which
// other lines happen to be in the segment.
func TestJudgeAsSealed(t *testing.T) {
	f, err := (&Scope{Since: whenAt(hour), Until: whenAt(hour.Add(time.Hour)), Client: []string{"192.0.2.1"}}).compile()
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.TrimSuffix(clf(hour, time.UTC), "\n")
	short := strings.TrimSuffix(bare, ` "-" "agent"`)
	for _, line := range []string{bare + "\n", bare + "\r\n", bare + "\r\r\n", bare, bare + "\r", short + "\n", short + "\r\n", short + "\r\r\n", short + "\r", short + "\r\r"} {
		var fields logfmt.Fields
		sealed := logfmt.Parse(logfmt.Combined, []byte(line), &fields)
		if j := f.judge(&entry.Segment{Source: "proxy1"}, logfmt.Combined, []byte(line)); j.parsed != sealed {
			t.Errorf("%q: the sealer parsed it: %v, the search: %v", line, sealed, j.parsed)
		}
	}
}
