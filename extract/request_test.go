package extract

import (
	"strings"
	"testing"
	"time"
)

// valid is a complete request.
func valid() *Request {
	return &Request{
		Authority: "Tribunal judiciaire de Lyon", Officer: "Lt. A. Martin", Reference: "PV 2026/1234",
		Article: "CPP 77-1-1", Ground: "1", ReceivedAt: "2026-11-20T14:30:00+01:00", Purpose: "identification",
		Scope: Scope{
			Since: "2026-11-01T10:00:00+01:00", Until: "2026-11-01T12:00:00+01:00", Zone: "Europe/Paris",
			Client: []string{"192.0.2.7", "2001:db8::/48"},
		},
	}
}

func TestValidateComplete(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
}

// TestValidateListsAll checks that one look at the error is enough to correct
// the whole file.
func TestValidateListsAll(t *testing.T) {
	err := new(Request).Validate()
	if err == nil {
		t.Fatal("an empty request is valid")
	}
	for _, key := range []string{"authority: missing", "officer: missing", "reference: missing", "article: missing",
		"ground: missing", "received_at: missing", "scope.since: missing", "scope.until: missing", "no selector"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("error does not name %q: %v", key, err)
		}
	}
}

func TestValidateProblems(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"no zone":        {func(r *Request) { r.Scope.Since = "2026-11-01T10:00:00" }, "scope.since: a time without a zone"},
		"no zone, space": {func(r *Request) { r.Scope.Until = "2026-11-01 12:00" }, "scope.until: a time without a zone"},
		"a day":          {func(r *Request) { r.ReceivedAt = "2026-11-01" }, "received_at: a time without a zone"},
		"no time":        {func(r *Request) { r.Scope.Since = "yesterday" }, "not a time"},
		"too fine":       {func(r *Request) { r.Scope.Since = "2026-11-01T10:00:00.0001Z" }, "finer than a millisecond"},
		"too early":      {func(r *Request) { r.Scope.Since = "1969-11-01T10:00:00Z" }, "year 1969"},
		"backwards":      {func(r *Request) { r.Scope.Until = r.Scope.Since }, "is not after since"},
		"backwards zone": {func(r *Request) { r.Scope.Until = "2026-11-01T10:59:00+02:00" }, "is not after since"},
		"zone":           {func(r *Request) { r.Scope.Zone = "Paris" }, "scope.zone"},
		"zone local":     {func(r *Request) { r.Scope.Zone = "Local" }, "scope.zone"},
		"ground":         {func(r *Request) { r.Ground = "5" }, `ground: "5"`},
		"ground empty":   {func(r *Request) { r.Ground = "other: " }, "expected a text after"},
		"two lines":      {func(r *Request) { r.Officer = "a\nb" }, "officer: expected one line"},
		"not UTF-8":      {func(r *Request) { r.Officer = "a\xff" }, "officer: expected one line"},
		"long":           {func(r *Request) { r.Authority = strings.Repeat("x", MaxText+1) }, "authority: 1025 bytes"},
		"no authority":   {func(r *Request) { r.Authority = "" }, "authority: missing"},
		"no officer":     {func(r *Request) { r.Officer = "" }, "officer: missing"},
		"no reference":   {func(r *Request) { r.Reference = "" }, "reference: missing"},
		"no article":     {func(r *Request) { r.Article = "" }, "article: missing"},
		"no ground":      {func(r *Request) { r.Ground = "" }, "ground: missing"},
		"long purpose":   {func(r *Request) { r.Purpose = strings.Repeat("x", MaxText+1) }, "purpose: 1025 bytes"},
		"C1 control":     {func(r *Request) { r.Reference = "PV\u0085" }, "reference: expected one line"},
		"escape":         {func(r *Request) { r.Article = "CPP\x1b[2J" }, "article: expected one line"},
		"ground 0":       {func(r *Request) { r.Ground = "0" }, `ground: "0"`},
		"ground 12":      {func(r *Request) { r.Ground = "12" }, `ground: "12"`},
		"ground lines":   {func(r *Request) { r.Ground = "other: a\nb" }, "ground: expected one line"},
		"not received":   {func(r *Request) { r.ReceivedAt = "" }, "received_at: missing"},
		"received never": {func(r *Request) { r.ReceivedAt = "2026-02-30T10:00:00Z" }, "received_at"},
		"no since":       {func(r *Request) { r.Scope.Since = "" }, "scope.since: missing"},
		"no until":       {func(r *Request) { r.Scope.Until = "" }, "scope.until: missing"},
		"late":           {func(r *Request) { r.Scope.Until = "9999-01-01T00:00:00Z" }, "year 9999"},
		"leap second":    {func(r *Request) { r.Scope.Since = "2016-12-31T23:59:60Z" }, "scope.since"},
		"24 o'clock":     {func(r *Request) { r.Scope.Since = "2026-11-01T24:00:00Z" }, "scope.since"},
		"zone name":      {func(r *Request) { r.Scope.Since = "2026-11-01T10:00:00 CET" }, "scope.since"},
		"zone without :": {func(r *Request) { r.Scope.Since = "2026-11-01T10:00:00+0100" }, "scope.since"},
		"zone path":      {func(r *Request) { r.Scope.Zone = "../../etc/localtime" }, "scope.zone"},
		"zone absolute":  {func(r *Request) { r.Scope.Zone = "/etc/localtime" }, "scope.zone"},
		"zone case":      {func(r *Request) { r.Scope.Zone = "Europe" }, "scope.zone"},
		"port high":      {func(r *Request) { r.Scope.Port = []int{443, 65536} }, "scope.port[1]: 65536"},
		"port negative":  {func(r *Request) { r.Scope.Port = []int{-1} }, "scope.port[0]: -1"},
		"empty client":   {func(r *Request) { r.Scope.Client = []string{"192.0.2.7", ""} }, "scope.client[1]: missing"},
		"mapped prefix":  {func(r *Request) { r.Scope.Client = []string{"::ffff:192.0.2.0/120"} }, "scope.client[0]"},
		"v6 bits":        {func(r *Request) { r.Scope.Client = []string{"2001:db8::1/48"} }, "expected 2001:db8::/48"},
		"client name":    {func(r *Request) { r.Scope.Client = []string{"pc-17.example.org"} }, "scope.client[0]"},
		"client port":    {func(r *Request) { r.Scope.Client = []string{"192.0.2.7:443"} }, "scope.client[0]"},
		"client space":   {func(r *Request) { r.Scope.Client = []string{" 192.0.2.7"} }, "scope.client[0]"},
		"octal client":   {func(r *Request) { r.Scope.Client = []string{"192.0.2.010"} }, "scope.client[0]"},
		"user lines":     {func(r *Request) { r.Scope.User = []string{"a\nb"} }, "scope.user[0]: expected one line"},
		"long host":      {func(r *Request) { r.Scope.Host = []string{strings.Repeat("x", MaxText+1)} }, "scope.host[0]: 1025 bytes"},
		"source case":    {func(r *Request) { r.Scope.Source = []string{"Proxy 1"} }, "scope.source[0]"},
		"huge regexp":    {func(r *Request) { r.Scope.Regexp = []string{"(a{1000}){1000}"} }, "scope.regexp[0]"},
		"backreference":  {func(r *Request) { r.Scope.Regexp = []string{`(a)\1`} }, "scope.regexp[0]"},
		"two at once":    {func(r *Request) { r.Officer, r.Scope.Zone = "", "Mars" }, "officer: missing"},
		"client":         {func(r *Request) { r.Scope.Client = []string{"192.0.2.300"} }, "scope.client[0]"},
		"client bits":    {func(r *Request) { r.Scope.Client = []string{"192.0.2.7/24"} }, "expected 192.0.2.0/24"},
		"client zone":    {func(r *Request) { r.Scope.Client = []string{"fe80::1%eth0"} }, "scope.client[0]"},
		"port":           {func(r *Request) { r.Scope.Port = []int{0} }, "scope.port[0]"},
		"many ports":     {func(r *Request) { r.Scope.Port = make([]int, MaxSelectors+1) }, "scope.port: 1001 values"},
		"empty user":     {func(r *Request) { r.Scope.User = []string{""} }, "scope.user[0]: missing"},
		"source":         {func(r *Request) { r.Scope.Source = []string{"../x"} }, "scope.source[0]"},
		"regexp":         {func(r *Request) { r.Scope.Regexp = []string{"("} }, "scope.regexp[0]"},
		"many hosts":     {func(r *Request) { r.Scope.Host = make([]string, MaxSelectors+1) }, "scope.host: 1001 values"},
	} {
		r := valid()
		c.change(r)
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, expected an error with %q", name, err, c.want)
		}
	}
}

func TestWhenForms(t *testing.T) {
	want := time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)
	for _, w := range []When{"2026-11-01T10:00:00+01:00", "2026-11-01 10:00+01:00", "2026-11-01T09:00Z", "2026-11-01T09:00:00.000Z"} {
		if got, err := w.Time(); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v", w, got, err)
		}
	}
	if got := whenAt(want.In(time.FixedZone("", 3600))); got != "2026-11-01T10:00:00+01:00" {
		t.Errorf("got %q", got)
	}
}

// TestRequestText checks the template: each key of a request stands in it once,
// and each time shows what a zone looks like.
func TestRequestText(t *testing.T) {
	text := NewRequestText()
	for _, key := range []string{"authority", "officer", "reference", "article", "ground", "received_at", "purpose",
		"since", "until", "zone", "client", "port", "user", "host", "source", "regexp"} {
		if n := strings.Count("\n"+text, "\n"+key+" = "); n != 1 {
			t.Errorf("%q stands in the template %d times, expected once", key, n)
		}
	}
	if n := strings.Count(text, "\n[scope]\n"); n != 1 {
		t.Errorf("[scope] stands in the template %d times, expected once", n)
	}
}

// TestScopeRecord checks that a scope goes through the manifest unchanged.
func TestScopeRecord(t *testing.T) {
	for _, zone := range []string{"Europe/Paris", ""} {
		r := valid()
		r.Scope.Zone = zone
		f, err := r.Scope.compile()
		if err != nil {
			t.Fatal(err)
		}
		rec := newScopeRecord(&r.Scope, f)
		f2, err := rec.scope().compile()
		if err != nil {
			t.Fatal(err)
		}
		if !f.since.Equal(f2.since) || !f.until.Equal(f2.until) || f.since.In(f.zone).String() != f2.since.In(f2.zone).String() {
			t.Errorf("zone %q: window %v-%v became %v-%v", zone, f.since, f.until, f2.since, f2.until)
		}
		if again := newScopeRecord(rec.scope(), f2); again.Zone != rec.Zone || again.Since != rec.Since {
			t.Errorf("zone %q: %+v became %+v", zone, rec, again)
		}
	}
}

// FuzzRequest checks that no request makes Validate panic, and that a valid one
// can be recorded and compiled again from its record.
func FuzzRequest(f *testing.F) {
	f.Add("2026-11-01T10:00:00+01:00", "2026-11-01T12:00:00+01:00", "Europe/Paris", "192.0.2.0/24", "alice", "www.example.org", "proxy1", "a.*b", 443, "1")
	f.Add("2026-11-01 10:00Z", "2026-11-01T12:00", "", "::ffff:192.0.2.1", "", "", "", "(", 0, "other: x")
	f.Add("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "Europe/Paris", "2001:db8::1", "\xff", "A.", ".", "\\pN", -1, "9")
	f.Fuzz(func(t *testing.T, since, until, zone, client, user, host, source, re string, port int, ground string) {
		r := valid()
		r.Ground = ground
		r.Scope = Scope{Since: When(since), Until: When(until), Zone: zone, Client: []string{client}, Port: []int{port},
			User: []string{user}, Host: []string{host}, Source: []string{source}, Regexp: []string{re}}
		if r.Validate() != nil {
			return
		}
		flt, err := r.Scope.compile()
		if err != nil {
			t.Fatalf("valid, but does not compile: %v", err)
		}
		rec, err := newRequestRecord(r, flt, nil)
		if err != nil {
			t.Fatalf("valid, but cannot be recorded: %v", err)
		}
		body, err := encodeJSON(rec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeJSON[*requestRecord](body)
		if err != nil {
			t.Fatalf("record does not decode: %v", err)
		}
		again, err := back.Scope.scope().compile()
		if err != nil || !again.since.Equal(flt.since) || !again.until.Equal(flt.until) {
			t.Fatalf("scope changed on its way through the record: %v", err)
		}
	})
}
