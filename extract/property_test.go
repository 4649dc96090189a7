package extract

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
	"logvault/vault"
)

// written is a line with what the generator knows of it. The oracle looks at
// these values only, never at the line through the code under test.
type written struct {
	line               string
	source             vault.Source
	at                 time.Time // zero: a line without fields
	client, user, host string
	port               int
	first, last        time.Time // received times of its segment
}

// grep is the naive oracle: every line ever written, in order, against the
// request in plain terms.
func grep(all []written, r *Request) (out []string, undecided int64) {
	since, _ := r.Scope.Since.Time()
	until, _ := r.Scope.Until.Time()
	any := func(n int, fits func(i int) bool) bool {
		return n == 0 || slices.ContainsFunc(make([]struct{}, n), func() func(struct{}) bool {
			i := -1
			return func(struct{}) bool { i++; return fits(i) }
		}())
	}
	s := &r.Scope
	for _, w := range all {
		text := strings.TrimRight(w.line, "\r\n")
		if !any(len(s.Source), func(i int) bool { return s.Source[i] == string(w.source) }) ||
			!any(len(s.Regexp), func(i int) bool { return regexp.MustCompile(s.Regexp[i]).MatchString(text) }) {
			continue
		}
		if w.at.IsZero() {
			if len(s.Regexp) == 0 || len(s.Client)+len(s.Port)+len(s.User)+len(s.Host) > 0 {
				continue
			}
			switch {
			case !w.first.Before(since) && w.last.Before(until):
				out = append(out, w.line)
			case w.first.Before(until) && !w.last.Before(since):
				undecided++
			}
			continue
		}
		if w.at.Before(since) || !w.at.Before(until) ||
			!any(len(s.User), func(i int) bool { return s.User[i] == w.user }) ||
			!any(len(s.Host), func(i int) bool { return strings.EqualFold(s.Host[i], w.host) }) ||
			!any(len(s.Port), func(i int) bool { return s.Port[i] == w.port }) ||
			!any(len(s.Client), func(i int) bool {
				addr := netip.MustParseAddr(w.client)
				if p, err := netip.ParsePrefix(s.Client[i]); err == nil {
					return p.Contains(addr)
				}
				return netip.MustParseAddr(s.Client[i]) == addr
			}) {
			continue
		}
		out = append(out, w.line)
	}
	return out, undecided
}

var (
	someClients = []string{"192.0.2.1", "192.0.2.2", "192.0.2.130", "198.51.100.1", "2001:db8::1", "2001:db8:1::2"}
	someUsers   = []string{"alice", "bob", "eve%20x", ""}
	someHosts   = []string{"www.example.org", "a.example", "B.example", "203.0.113.5"}
	someSources = []vault.Source{"proxy1", "proxy2", "web"}
	somePorts   = []int{0, 40000, 40001}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// write makes a random line of a format.
func write(rng *rand.Rand, f logfmt.Format, at time.Time) written {
	w := written{at: at, client: pick(rng, someClients), user: pick(rng, someUsers), host: pick(rng, someHosts)}
	if w.port = pick(rng, somePorts); strings.Contains(w.client, ":") {
		w.port = 0
	}
	from, user := w.client, w.user
	if w.port > 0 {
		from = fmt.Sprintf("%s:%d", w.client, w.port)
	}
	if user == "" {
		user = "-"
	}
	switch {
	case f == logfmt.Text || rng.IntN(12) == 0:
		w = written{line: fmt.Sprintf("notice %d: %s %s\xff\x00 seen", rng.IntN(1000), w.client, w.host)}
	case f == logfmt.Squid:
		w.line = fmt.Sprintf("%d.%03d %6d %s TCP_MISS/200 %d GET http://%s/p%d %s HIER_DIRECT/203.0.113.9 text/html",
			at.Unix(), at.Nanosecond()/1e6, rng.IntN(999), from, rng.IntN(9999), w.host, rng.IntN(99), user)
	default:
		w.at = at.Truncate(time.Second)
		w.line = fmt.Sprintf(`%s - %s [%s] "GET http://%s/p%d HTTP/1.1" 200 %d "-" "agent \"x\""`,
			from, user, w.at.In(time.FixedZone("", 7200)).Format("02/Jan/2006:15:04:05 -0700"), w.host, rng.IntN(99), rng.IntN(9999))
	}
	w.line += pick(rng, []string{"\n", "\n", "\n", "\r\n"})
	return w
}

// fill seals random segments and returns all their lines in bundle order.
func fill(r *rig, rng *rand.Rand) []written {
	var all []written
	for stream := range 3 * len(someSources) {
		source := slices.Sorted(slices.Values(someSources))[stream/3]
		f := pick(rng, []logfmt.Format{logfmt.Squid, logfmt.Combined, logfmt.Text})
		start := hour.Add(time.Duration(rng.IntN(5*60)) * time.Minute)
		var lines []written
		var text strings.Builder
		for i := range 1 + rng.IntN(120) {
			at := start.Add(time.Duration(i)*time.Minute + time.Duration(rng.IntN(60_000)-30_000)*time.Millisecond)
			w := write(rng, f, at.Truncate(time.Millisecond))
			lines = append(lines, w)
			text.WriteString(w.line)
		}
		delay := time.Duration(rng.IntN(30)) * time.Minute
		first, last := start.Add(delay), start.Add(delay+time.Duration(len(lines))*time.Minute)
		raw := text.String()
		if format := logfmt.Detect([]byte(raw)); format != f && !(f == logfmt.Combined && format == logfmt.Common) {
			// Too few lines of the format: to the archive it is text.
			for i := range lines {
				lines[i] = written{line: lines[i].line}
			}
		}
		for i := range lines {
			lines[i].source, lines[i].first, lines[i].last = source, first, last
		}
		r.seal(source, byte(stream), raw, first, last)
		all = append(all, lines...)
	}
	return all
}

// ask makes a random request.
func ask(rng *rand.Rand) *Request {
	since := hour.Add(time.Duration(rng.IntN(6*3600)) * time.Second)
	req := asking(since, since.Add(time.Duration(1+rng.IntN(4*3600))*time.Second))
	s := &req.Scope
	for s.Regexp == nil && s.Client == nil && s.User == nil && s.Host == nil && s.Source == nil && s.Port == nil {
		if rng.IntN(3) == 0 {
			s.Client = []string{pick(rng, []string{"192.0.2.1", "192.0.2.0/25", "2001:db8::/32", "2001:0DB8::1", "203.0.113.1"}), pick(rng, someClients)}
		}
		if rng.IntN(4) == 0 {
			s.User = []string{pick(rng, []string{"alice", "bob", "eve%20x", "nobody"})}
		}
		if rng.IntN(4) == 0 {
			s.Host = []string{pick(rng, []string{"WWW.example.org", "a.example", "b.example", "none.example"})}
		}
		if rng.IntN(5) == 0 {
			s.Port = []int{pick(rng, []int{40000, 40001, 1})}
		}
		if rng.IntN(3) == 0 {
			s.Source = []string{string(pick(rng, someSources))}
		}
		if rng.IntN(3) == 0 {
			s.Regexp = []string{pick(rng, []string{`/p1\d `, `seen$`, `^notice \d+: 192\.0\.2\.`, `alice`, `.`, `zzz`})}
		}
	}
	return req
}

// TestNothingOutsideNothingMissing compares random requests over random archives
// with the oracle: nothing outside the request, nothing missing.
func TestNothingOutsideNothingMissing(t *testing.T) {
	var lines, empty int64
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := newRig(t)
		all := fill(r, rng)
		for n := range 12 {
			req := ask(rng)
			want, undecided := grep(all, req)
			sum := r.run(fmt.Sprintf("/answer%d", n), req)
			if got := r.lines(fmt.Sprintf("/answer%d", n)); got != strings.Join(want, "") {
				t.Fatalf("seed %d, request %d %+v: disclosed %d lines, expected %d:\n%s\nexpected\n%s",
					seed, n, req.Scope, sum.Lines, len(want), got, strings.Join(want, ""))
			}
			if sum.Lines != int64(len(want)) || sum.Undecided != undecided {
				t.Fatalf("seed %d, request %d %+v: %d lines and %d undecided, expected %d and %d",
					seed, n, req.Scope, sum.Lines, sum.Undecided, len(want), undecided)
			}
			if lines += sum.Lines; sum.Lines == 0 {
				empty++
			}
		}
	}
	if lines < 1000 || empty > 100 {
		t.Errorf("%d lines disclosed, %d empty answers: the requests test too little", lines, empty)
	}
	t.Logf("144 requests: %d lines disclosed, %d empty answers", lines, empty)
}
