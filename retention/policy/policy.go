// Package policy decides how long a record is kept, and says why.
//
// It is pure: no clock, no disk, no ledger. Time and holds are arguments, and
// every answer can be computed again later from the entries of the ledger.
//
// # The calendar rule
//
// A class keeps a record for a calendar period, such as one year, in the
// civil calendar of its time zone:
//
//	day          = civil date of the record in the zone
//	anniversary  = day + years and months, clamped to the end of the month, + days
//	retain until = start of the day after the anniversary, in the zone
//
// So a record lives at least its period and at most a day more. For example,
// with P1Y in Europe/Paris a line of 2026-11-21 23:30 (22:30 UTC) is kept until
// 2027-11-22 00:00 Paris time, which is 2027-11-21T23:00:00Z; a line of
// 2028-02-29 is kept until 2029-03-01 00:00.
//
// Midnight is not always a time of the day: in some zones the clock goes from
// 23:59 to 01:00, or falls back from 00:00 or 00:01 to the hour before, or
// leaves out a whole date. The start of a day is here the instant from which
// on the zone's clock never again shows an earlier date. It is never too early.
//
// The zone's rules are those the program knows at sealing time. The result is
// stored in the ledger as an instant and does not move when a state changes
// its clock later.
//
// # Two sides
//
// Judge answers both questions of a legal window: whether a record may leave
// yet, and since when it should have left.
package policy

import (
	"errors"
	"fmt"
	"time"
)

// Class is a retention class: how long its records are kept and by what right.
type Class struct {
	// Name is the class's name, in the form of vault.Class.
	Name string
	// Period is how long a record is kept at least.
	Period Period
	// Grace is how long after its date a record may still wait for the run
	// that destroys it, before that counts as overdue.
	Grace Period
	// Zone is where the calendar is read. It is never nil.
	Zone *time.Location
	// Basis is the text that the period rests on, for people.
	Basis string
	// ValidUntil is the last day, as a date in UTC, on which Basis is known to be in
	// force. Zero means that no end is known.
	ValidUntil time.Time
}

// maxDays is about the longest period accepted: a hundred years.
const maxDays = 36525

// Valid returns nil if c can be sealed under, else what is wrong with it.
func (c Class) Valid() error {
	switch {
	case c.Name == "":
		return errors.New("class without a name")
	case c.Zone == nil:
		return fmt.Errorf("class %s: no time zone", c.Name)
	case c.Period == (Period{}):
		return fmt.Errorf("class %s: period %s, expected at least P1D", c.Name, c.Period)
	}
	for _, p := range []Period{c.Period, c.Grace} {
		if err := p.valid(); err != nil {
			return fmt.Errorf("class %s: %w", c.Name, err)
		}
	}
	return nil
}

// RetainUntil returns the first instant, in UTC, at which a record of the
// class may be destroyed. It does not know of holds and extensions; see Judge.
func (c Class) RetainUntil(record time.Time) time.Time {
	y, m, d := c.Period.after(record.In(c.Zone).Date())
	return startOfDay(y, m, d+1, c.Zone).UTC()
}

// DestructionDay returns the civil date, in the class's zone, of RetainUntil.
// It names the folder of the segment and its period key.
func (c Class) DestructionDay(record time.Time) (year int, month time.Month, day int) {
	return c.RetainUntil(record).In(c.Zone).Date()
}

// Lapsed reports whether the legal basis is past its known end at now: the
// policy needs a lawyer's look. Sealing goes on.
func (c Class) Lapsed(now time.Time) bool {
	return !c.ValidUntil.IsZero() && !now.Before(c.ValidUntil.UTC().AddDate(0, 0, 1))
}

// startOfDay returns the instant from which on zone's clock never again shows
// a date before the given one. time.Date is not enough: for a midnight that
// does not exist it may answer with 23:00 of the day before.
//
// Between two changes of the zone's offset the clock runs evenly, so the last
// instant dated before the day is, within one such stretch, the stretch's end
// or the midnight of its offset, whichever comes first. Looking at the
// stretches around midnight is enough, as offsets are less than a day; the
// window is wide enough for a date that is left out.
func startOfDay(year int, month time.Month, day int, zone *time.Location) time.Time {
	const window = 48 * time.Hour
	midnight := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	var start time.Time
	for t := midnight.Add(-window); t.Before(midnight.Add(window)); {
		from, to := t.In(zone).ZoneBounds()
		_, offset := t.In(zone).Zone()
		last := midnight.Add(-time.Duration(offset) * time.Second)
		if !to.IsZero() && to.Before(last) {
			last = to
		}
		if from.IsZero() || last.After(from) {
			start = last
		}
		if to.IsZero() {
			break
		}
		t = to
	}
	return start
}
