// Package window derives from the entries of a ledger when each segment may,
// and must, leave: the classes that policies state, extensions and holds, put
// into the form that package policy judges.
//
// It exists once because every part that needs a date must come to the same
// one: verify (missing too early, overdue), replicate (a source object may be
// missing only when it is due) and retention (what to destroy).
//
//	w := window.New()
//	for each entry i, e of the ledger: w.Add(i, e)
//	verdict := w.Judge(segment, now)
//
// An answer is right only after all entries of the ledger have been added,
// since a later hold or extension counts for earlier segments.
package window

import (
	"fmt"
	"time"

	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/vault"
)

// Window is what the entries added so far say about dates. Its zero value is
// not usable. It is not safe for concurrent use while entries are added.
type Window struct {
	classes map[vault.Class]policy.Class
	holds   map[int64]policy.Hold // open ones, by index of the hold entry
	extends []extension
}

// extension lengthens what its scope covers. A scope has the same members and
// the same meaning as a hold's.
type extension struct {
	scope policy.Hold
	until time.Time
}

// New returns a window that knows nothing.
func New() *Window {
	return &Window{classes: make(map[vault.Class]policy.Class), holds: make(map[int64]policy.Hold)}
}

// Add takes in entry i. Entries that say nothing about dates are ignored. An
// error says that the entry makes no sense: a class that cannot be computed
// with, or the release of what is not an open hold; the rest of the entry counts.
func (w *Window) Add(i int64, e entry.Entry) error {
	switch e := e.(type) {
	case *entry.Policy:
		return w.policy(e)
	case *entry.Hold:
		w.holds[i] = scopeOf(i, e.Scope)
	case *entry.Release:
		if _, open := w.holds[e.Hold]; !open {
			return fmt.Errorf("release of entry %d, which is not an open hold", e.Hold)
		}
		delete(w.holds, e.Hold)
	case *entry.Extend:
		w.extends = append(w.extends, extension{scopeOf(i, e.Scope), e.RetainUntil})
	}
	return nil
}

func (w *Window) policy(e *entry.Policy) (err error) {
	for _, c := range e.Classes {
		class, bad := classOf(c)
		if bad != nil {
			err = fmt.Errorf("class %s: %w", c.Name, bad)
			continue
		}
		w.classes[c.Name] = class
	}
	return err
}

// classOf gives a policy's class the form that dates are judged with.
func classOf(c entry.PolicyClass) (policy.Class, error) {
	period, err := policy.ParsePeriod(c.Period)
	if err != nil {
		return policy.Class{}, err
	}
	var grace policy.Period
	if c.Grace != "" {
		if grace, err = policy.ParsePeriod(c.Grace); err != nil {
			return policy.Class{}, err
		}
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return policy.Class{}, err
	}
	return policy.Class{Name: string(c.Name), Period: period, Grace: grace, Zone: zone, Basis: c.Basis}, nil
}

func scopeOf(i int64, s entry.Scope) policy.Hold {
	h := policy.Hold{ID: fmt.Sprintf("of entry %d", i), Class: string(s.Class), Source: string(s.Source), Since: s.Since, Until: s.Until}
	if s.Stream != nil {
		h.Stream = s.Stream.String()
	}
	return h
}

// Class returns a class as the last policy that names it states it.
func (w *Window) Class(name vault.Class) (policy.Class, bool) {
	c, ok := w.classes[name]
	return c, ok
}

// Judge decides whether a segment may and must be destroyed at now, which must
// be a trusted time, with the reasons.
func (w *Window) Judge(e *entry.Segment, now time.Time) policy.Verdict {
	item := w.item(e)
	for _, x := range w.extends {
		if x.scope.Covers(item) {
			item.Extended = append(item.Extended, x.until)
		}
	}
	holds := make([]policy.Hold, 0, len(w.holds))
	for _, h := range w.holds {
		holds = append(holds, h)
	}
	return policy.Judge(item, holds, now)
}

// Held reports whether an open hold covers the segment.
func (w *Window) Held(e *entry.Segment) bool {
	item := w.item(e)
	for _, h := range w.holds {
		if h.Covers(item) {
			return true
		}
	}
	return false
}

// item is the segment as policy judges it. Its lines may be of any time that
// was received or that they themselves say, whichever is wider: a hold must
// rather cover too much.
func (w *Window) item(e *entry.Segment) policy.Item {
	item := policy.Item{
		Class:       string(e.Class),
		Source:      string(e.Source),
		Stream:      e.Stream.String(),
		First:       e.FirstReceived,
		Last:        e.LastReceived,
		RetainUntil: e.RetainUntil,
		Grace:       w.classes[e.Class].Grace,
	}
	if !e.FirstEvent.IsZero() && e.FirstEvent.Before(item.First) {
		item.First = e.FirstEvent
	}
	if e.LastEvent.After(item.Last) {
		item.Last = e.LastEvent
	}
	return item
}
