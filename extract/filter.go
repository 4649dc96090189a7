package extract

import (
	"bytes"
	"net/netip"
	"regexp"
	"time"

	"logvault/extract/logfmt"
	"logvault/ledger/entry"
	"logvault/vault"
)

// filter is a compiled Scope. It is pure: the search, the check of a bundle and
// the tests ask the same function which lines may be disclosed.
type filter struct {
	since, until time.Time // UTC; [since, until)
	zone         *time.Location
	clients      []netip.Prefix
	ports        map[string]bool // spelled as tokens of the index, like the two below
	users        map[string]bool
	hosts        map[string]bool
	sources      map[vault.Source]bool
	regexps      []*regexp.Regexp
}

// verdict says what the filter decides about a line.
type verdict int

const (
	outside   verdict = iota // not asked for
	inside                   // to be disclosed
	undecided                // selected, but its time can only be bounded, and not within the window
)

// judged is what is known of one line of a segment.
type judged struct {
	verdict verdict
	parsed  bool
	fields  logfmt.Fields // slices of the line; zero unless parsed
}

// hasSource tells whether the scope covers a source.
func (f *filter) hasSource(s vault.Source) bool { return len(f.sources) == 0 || f.sources[s] }

// overlaps tells whether [first, last], widened to both sides, meets the window.
func (f *filter) overlaps(first, last time.Time, before, after time.Duration) bool {
	return first.Add(-before).Before(f.until) && !last.Add(after).Before(f.since)
}

// within tells whether a time, in milliseconds since 1970, is in the window.
func (f *filter) within(ms int64) bool { return ms >= f.since.UnixMilli() && ms < f.until.UnixMilli() }

// candidate tells from its ledger entry alone whether a segment can hold a line
// of the scope. A line's event time is what the window is about, and a line can
// reach the gateway long after (a proxy buffers, a NAS was away) or seemingly
// before it (a clock is off). So the entry's event times decide where it has
// them. Where it has none, the received times do, with margin to both sides.
// Unparsed lines have no event time: a regular expression looks for them by
// received time in any segment.
func (f *filter) candidate(s *entry.Segment, margin time.Duration) bool {
	switch {
	case !f.hasSource(s.Source):
		return false
	case s.FirstEvent.IsZero() || s.LastEvent.IsZero():
		return f.overlaps(s.FirstReceived, s.LastReceived, margin, margin)
	case f.overlaps(s.FirstEvent, s.LastEvent, 0, 0):
		return true
	}
	return f.textual() && f.overlaps(s.FirstReceived, s.LastReceived, 0, 0)
}

// textual tells whether unparsed lines can be disclosed at all: a regular
// expression must select them, and they have no field that another selector
// could fit.
func (f *filter) textual() bool {
	return len(f.regexps) > 0 && len(f.clients)+len(f.ports)+len(f.users)+len(f.hosts) == 0
}

// judge decides about one line of segment s, given with its line end.
// An unparsed line (no fields, or no time) is disclosed only if a regular
// expression selects it and the whole segment was received within the window:
// the segment is all that bounds when the line was received.
func (f *filter) judge(s *entry.Segment, format logfmt.Format, line []byte) judged {
	var j judged
	content := trimEnd(line)
	// The whole line, as the sealer parses it: a line end is taken off once.
	if j.parsed = logfmt.Parse(format, line, &j.fields) && j.fields.HasTime; !j.parsed {
		j.fields = logfmt.Fields{}
	}
	switch {
	case !f.hasSource(s.Source) || !f.matches(content):
	case j.parsed:
		if f.within(j.fields.UnixMilli) && f.selects(&j.fields) {
			j.verdict = inside
		}
	case !f.textual():
	case !s.FirstReceived.Before(f.since) && s.LastReceived.Before(f.until):
		j.verdict = inside
	case f.overlaps(s.FirstReceived, s.LastReceived, 0, 0):
		j.verdict = undecided
	}
	return j
}

// trimEnd returns a line without its LF or CR LF.
func trimEnd(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

// matches applies the regular expressions.
func (f *filter) matches(content []byte) bool {
	for _, re := range f.regexps {
		if re.Match(content) {
			return true
		}
	}
	return len(f.regexps) == 0
}

// selects applies the selectors of fields.
func (f *filter) selects(l *logfmt.Fields) bool {
	return (len(f.clients) == 0 || f.selectsClient(l.Client)) &&
		holds(f.ports, logfmt.Port, l.Port) && holds(f.users, logfmt.User, l.User) && holds(f.hosts, logfmt.Host, l.Host)
}

// token spells a value as the index does, so that both decide alike.
func token(kind logfmt.TokenKind, value string) string {
	return string(logfmt.AppendToken(nil, kind, []byte(value)))
}

// holds tells whether a selector without values, or one of its values, fits a field.
func holds(wanted map[string]bool, kind logfmt.TokenKind, field []byte) bool {
	return len(wanted) == 0 || field != nil && wanted[token(kind, string(field))]
}

func (f *filter) selectsClient(client []byte) bool {
	addr, err := netip.ParseAddr(string(client))
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range f.clients {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// lookup is the sealed index, as far as a search needs it.
type lookup interface {
	Lookup(k logfmt.TokenKind, token string) []int
	LookupCIDR(k logfmt.TokenKind, p netip.Prefix) []int
}

// mayMatch asks the sealed index whether any member of the segment holds a value
// of every selector. No member: no line can fit, and the text stays sealed.
// The answer may be a false yes; the lines decide.
func (f *filter) mayMatch(ix lookup, format logfmt.Format) bool {
	if format == logfmt.Text {
		return f.textual()
	}
	var members map[int]bool // nil: all
	narrow := func(lists [][]int) {
		found := map[int]bool{}
		for _, list := range lists {
			for _, m := range list {
				if members == nil || members[m] {
					found[m] = true
				}
			}
		}
		members = found
	}
	if len(f.clients) > 0 {
		var lists [][]int
		for _, p := range f.clients {
			lists = append(lists, ix.LookupCIDR(logfmt.Client, p))
		}
		narrow(lists)
	}
	for kind, wanted := range map[logfmt.TokenKind]map[string]bool{
		logfmt.Port: f.ports, logfmt.User: f.users, logfmt.Host: f.hosts,
	} {
		if len(wanted) == 0 {
			continue
		}
		var lists [][]int
		for value := range wanted {
			lists = append(lists, ix.Lookup(kind, value))
		}
		narrow(lists)
	}
	return members == nil || len(members) > 0
}
