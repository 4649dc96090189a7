package policy

import (
	"fmt"
	"time"
)

// Never is the effective date of an item under a hold without an end. A caller
// that only compares dates then keeps the item.
var Never = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// Item is what Judge judges: one segment, or anything else with a date.
type Item struct {
	// Class, Source and Stream say what the item is and where it is from.
	Class, Source, Stream string
	// First and Last are the earliest and latest time of its lines, by receipt or
	// event. Zero means unknown: then every hold's time range touches the item.
	First, Last time.Time
	// RetainUntil is the date fixed at sealing.
	RetainUntil time.Time
	// Extended lists the dates of later extend entries; they only lengthen.
	Extended []time.Time
	// Grace is how long after its date the item is not yet overdue.
	Grace Period
}

// Hold suspends expiry for a scope. An item is within the scope if it matches
// every member that is set; a hold with none set covers everything. A released
// hold is not passed to Judge.
type Hold struct {
	// ID names the hold in reasons.
	ID string
	// Class, Source and Stream, if not empty, restrict the hold to them.
	Class, Source, Stream string
	// Since and Until bound the time range of the lines: at or after Since, before
	// Until. Zero leaves a side open.
	Since, Until time.Time
	// Ends is when the hold lapses by itself. Zero: it lasts until released.
	Ends time.Time
}

// Covers reports whether the item is within the hold's scope: any line of it
// may be. It does not ask whether the hold is still open.
func (h Hold) Covers(i Item) bool {
	return (h.Class == "" || h.Class == i.Class) &&
		(h.Source == "" || h.Source == i.Source) &&
		(h.Stream == "" || h.Stream == i.Stream) &&
		(h.Since.IsZero() || i.Last.IsZero() || !i.Last.Before(h.Since)) &&
		(h.Until.IsZero() || i.First.IsZero() || i.First.Before(h.Until))
}

// Verdict is Judge's answer.
type Verdict struct {
	// Due: the item may and must be destroyed now. It is true iff now is not before Effective.
	Due bool
	// Overdue: it should have been destroyed already; the grace is over too.
	Overdue bool
	// Effective is the date that counts: the latest of RetainUntil, the
	// extensions and the ends of the holds that cover the item; or Never.
	Effective time.Time
	// Dated is the latest of RetainUntil and the extensions: what would count if
	// no hold covered the item.
	Dated time.Time
	// Reasons says in words what led to Effective and what now makes of it.
	Reasons []string
}

// Judge decides whether an item may be destroyed at now, and gives the reasons.
// Now must be a trusted time; Judge knows no clock.
func Judge(i Item, holds []Hold, now time.Time) Verdict {
	v := Verdict{Effective: i.RetainUntil}
	v.because("retained until %s by its class", stamp(i.RetainUntil))
	for _, t := range i.Extended {
		if t.After(v.Effective) {
			v.Effective = t
			v.because("extended until %s", stamp(t))
		}
	}
	v.Dated = v.Effective
	for _, h := range holds {
		switch {
		case !h.Covers(i):
		case h.Ends.IsZero():
			v.Effective = Never
			v.because("hold %s until it is released", h.ID)
		case h.Ends.After(v.Effective):
			// Also when it has lapsed by now: the item was rightly kept until
			// then, and must not look overdue the moment the hold ends.
			v.Effective = h.Ends
			v.because("hold %s until %s", h.ID, stamp(h.Ends))
		}
	}
	v.Due = !now.Before(v.Effective)
	v.Overdue = !now.Before(i.Grace.addTo(v.Effective))
	switch {
	case v.Overdue:
		v.because("overdue: due since %s, grace %s", stamp(v.Effective), i.Grace)
	case v.Due:
		v.because("due since %s", stamp(v.Effective))
	default:
		v.because("not due at %s", stamp(now))
	}
	return v
}

func (v *Verdict) because(format string, args ...any) {
	v.Reasons = append(v.Reasons, fmt.Sprintf(format, args...))
}

// stamp is how reasons write a time.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
