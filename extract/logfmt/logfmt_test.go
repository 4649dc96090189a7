package logfmt

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func str(b []byte) string {
	if b == nil {
		return "<nil>"
	}
	return string(b)
}

// render gives the fields of a line as one comparable text.
func render(f *Fields) string {
	stamp := "no time"
	if f.HasTime {
		stamp = time.UnixMilli(f.UnixMilli).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return strings.Join([]string{stamp, str(f.Client), str(f.Port), str(f.User), str(f.Host), str(f.Method), str(f.URL), str(f.Status), str(f.Bytes)}, " | ")
}

func TestParseSquid(t *testing.T) {
	const date = "2010-10-08T11:11:48.779Z"
	for name, c := range map[string]struct{ line, want string }{
		"documentation": {"1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://host/p - DIRECT/10.0.5.120 application/xml",
			date + " | 192.168.0.224 | <nil> | <nil> | host | GET | http://host/p | 200 | 411"},
		"connect with user": {"1286536308.779 180 10.0.0.1 TCP_TUNNEL/200 411 CONNECT Img.Example.COM:443 bob HIER_DIRECT/10.0.5.120 -",
			date + " | 10.0.0.1 | <nil> | bob | Img.Example.COM | CONNECT | Img.Example.COM:443 | 200 | 411"},
		"connect to IPv6": {"1286536308.779 180 2001:db8::7 TCP_TUNNEL/200 411 CONNECT [2001:db8::1]:443 - HIER_DIRECT/2001:db8::1 -",
			date + " | 2001:db8::7 | <nil> | <nil> | 2001:db8::1 | CONNECT | [2001:db8::1]:443 | 200 | 411"},
		"encoded user": {"1286536308.779 180 10.0.0.1 TCP_MISS/200 411 GET http://u:p@h:8080/?q=http://x/ b%20b HIER_DIRECT/10.0.5.120 text/html",
			date + " | 10.0.0.1 | <nil> | b%20b | h | GET | http://u:p@h:8080/?q=http://x/ | 200 | 411"},
		"error": {"1286536308.779 0 10.0.0.1 NONE_NONE/400 3800 - error:invalid-request - HIER_NONE/- text/html",
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | <nil> | error:invalid-request | 400 | 3800"},
		"connect error": {"1286536308.779 0 10.0.0.1 NONE_NONE/400 0 CONNECT error:bad - HIER_NONE/- -",
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | CONNECT | error:bad | 400 | 0"},
		"no client": {"1286536308.779 0 - NONE/000 0 NONE error:accept-client-connection - HIER_NONE/- -",
			date + " | <nil> | <nil> | <nil> | <nil> | NONE | error:accept-client-connection | 000 | 0"},
		"spaces in the URL": {"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/a b c eve HIER_DIRECT/10.0.0.2 text/html",
			date + " | 10.0.0.1 | <nil> | eve | h | GET | http://h/a b c | 200 | 1"},
		"MIME headers follow": {"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 text/html [Host: h\\r\\n] [A: b]",
			date + " | 10.0.0.1 | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		"carriage return": {"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -\r\n",
			date + " | 10.0.0.1 | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		"clock set back": {"1286536308.779     -5 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
			date + " | 10.0.0.1 | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		"not UTF-8 and NUL": {"1286536308.779 1 pc\xff\x00 TCP_MISS/200 1 GET http://\xfe/ - HIER_DIRECT/10.0.0.2 -",
			date + " | pc\xff\x00 | <nil> | <nil> | \xfe | GET | http://\xfe/ | 200 | 1"},
		"truncated":           {"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0", ""},
		"seconds only":        {"1286536308 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", ""},
		"letters in the time": {"128653x308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", ""},
		"no status":           {"1286536308.779 1 10.0.0.1 TCP_MISS 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", ""},
		"empty":               {"", ""},
	} {
		t.Run(name, func(t *testing.T) { checkParse(t, Squid, c.line, c.want) })
	}
}

func checkParse(t *testing.T, f Format, line, want string) {
	t.Helper()
	var got Fields
	if ok := Parse(f, []byte(line), &got); ok != (want != "") {
		t.Fatalf("Parse(%q) = %v", line, ok)
	}
	if want == "" {
		if render(&got) != render(&Fields{}) {
			t.Errorf("an unparsed line left fields: %s", render(&got))
		}
		return
	}
	if render(&got) != want {
		t.Errorf("line %q\n got %s\nwant %s", line, render(&got), want)
	}
}

func TestParseCLF(t *testing.T) {
	const date = "2000-10-10T20:55:36.000Z"
	for name, c := range map[string]struct{ line, want string }{
		"documentation": {`127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326`,
			date + " | 127.0.0.1 | <nil> | frank | <nil> | GET | /apache_pb.gif | 200 | 2326"},
		"combined, the referer is no host": {`host.example - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 - "http://ref/" "UA \"x\""`,
			date + " | host.example | <nil> | <nil> | <nil> | GET | / | 200 | <nil>"},
		"proxy": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET http://Www.Example.com:8080/x HTTP/1.1" 200 1 "-" "-" TCP_MISS:HIER_DIRECT`,
			date + " | 10.0.0.1 | <nil> | <nil> | Www.Example.com | GET | http://Www.Example.com:8080/x | 200 | 1"},
		"connect": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "CONNECT [2001:db8::1]:443 HTTP/1.1" 200 1`,
			date + " | 10.0.0.1 | <nil> | <nil> | 2001:db8::1 | CONNECT | [2001:db8::1]:443 | 200 | 1"},
		"port logged": {`10.0.0.1:4711 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`,
			date + " | 10.0.0.1 | 4711 | <nil> | <nil> | GET | / | 200 | 1"},
		"port logged, IPv6": {`[2001:db8::5]:4711 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`,
			date + " | 2001:db8::5 | 4711 | <nil> | <nil> | GET | / | 200 | 1"},
		"IPv6": {`2001:db8::5 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`,
			date + " | 2001:db8::5 | <nil> | <nil> | <nil> | GET | / | 200 | 1"},
		"user with spaces and brackets": {`10.0.0.1 - John [x] Doe [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`,
			date + " | 10.0.0.1 | <nil> | John [x] Doe | <nil> | GET | / | 200 | 1"},
		"quote in the request": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a\"b HTTP/1.1" 404 1`,
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | GET | /a\\\"b | 404 | 1"},
		"binary request": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03\x01" 400 226 "-" "-"`,
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | <nil> | <nil> | 400 | 226"},
		"no request": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "-" 408 -`,
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | <nil> | <nil> | 408 | <nil>"},
		"HTTP/0.9": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /" 200 1`,
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | GET | / | 200 | 1"},
		"space in the target": {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a b HTTP/1.1" 200 1`,
			date + " | 10.0.0.1 | <nil> | <nil> | <nil> | GET | /a b | 200 | 1"},
		"no such day":     {`10.0.0.1 - - [30/Feb/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`, ""},
		"before 1970":     {`10.0.0.1 - - [01/Jan/1970:00:00:00 +0100] "GET / HTTP/1.1" 200 1`, ""},
		"no zone":         {`10.0.0.1 - - [10/Oct/2000:13:55:36] "GET / HTTP/1.1" 200 1`, ""},
		"unclosed quote":  {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1 200 1`, ""},
		"truncated":       {`10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 20`, ""},
		"virtual host":    {`www.example:80 10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200`, ""},
		"only the client": {`10.0.0.1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			checkParse(t, Common, c.line, c.want)
			checkParse(t, Combined, c.line+"\n", c.want)
		})
	}
}

func TestTextHasNoFields(t *testing.T) {
	checkParse(t, Text, "1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", "")
}

func TestTimeMatchesStandardLibrary(t *testing.T) {
	for at := time.Date(1970, 1, 2, 3, 4, 5, 0, time.UTC); at.Year() < 2400; at = at.Add(271*time.Hour + 1234*time.Second) {
		text := at.Format("[02/Jan/2006:15:04:05 -0700]")
		ms, ok := clfTime([]byte(text))
		if !ok || ms != at.UnixMilli() {
			t.Fatalf("%s: got %d %v, want %d", text, ms, ok, at.UnixMilli())
		}
	}
	// Both sides of a change to summer time name their zone, so nothing is ambiguous.
	before, _ := clfTime([]byte("[30/Mar/2025:01:59:59 +0100]"))
	after, _ := clfTime([]byte("[30/Mar/2025:03:00:00 +0200]"))
	if after-before != 1000 {
		t.Errorf("summer time starts %d ms later, want 1000", after-before)
	}
}

func TestDetect(t *testing.T) {
	const (
		squid    = "1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://host/p - DIRECT/10.0.5.120 application/xml\n"
		common   = "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1\n"
		combined = "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1 \"-\" \"Mozilla\"\n"
	)
	for name, c := range map[string]struct {
		sample string
		want   Format
	}{
		"empty":                      {"", Text},
		"no whole line":              {strings.TrimSuffix(squid, "\n"), Text},
		"squid":                      {strings.Repeat(squid, 3) + "1286", Squid},
		"common":                     {common + common, Common},
		"combined":                   {combined + combined + common, Combined},
		"mostly common":              {combined + common + common, Common},
		"half squid":                 {squid + "garbage\n", Squid},
		"less than half":             {squid + "garbage\nmore\n", Text},
		"empty lines do not count":   {"\n\r\n\n\n" + squid, Squid},
		"the joined end of a line":   {"ml\n" + squid + squid, Squid},
		"CRLF":                       {strings.ReplaceAll(combined, "\n", "\r\n"), Combined},
		"lines past 64 do not count": {strings.Repeat("text\n", 64) + strings.Repeat(squid, 1000), Text},
	} {
		if got := Detect([]byte(c.sample)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestAppendToken(t *testing.T) {
	for _, c := range []struct {
		kind     TokenKind
		in, want string
	}{
		{Host, "WWW.Example.COM.", "www.example.com"},
		{Host, ".", "."},
		{Host, "\xc3\x89", "\xc3\x89"},
		{Client, "2001:DB8::1", "2001:db8::1"},
		{Client, "pc.", "pc."},
		{User, "Bob", "Bob"},
		{Port, "80", "80"},
	} {
		if got := AppendToken([]byte("X"), c.kind, []byte(c.in)); string(got) != "X"+c.want {
			t.Errorf("%v %q: got %q, want %q", c.kind, c.in, got, "X"+c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	f := Fields{Client: []byte("c"), Port: []byte("p"), User: []byte("u"), Host: []byte("h")}
	var names, values []string
	for _, k := range Kinds {
		names = append(names, k.String())
		values = append(values, string(f.Value(k)))
	}
	if got := strings.Join(names, " ") + " " + strings.Join(values, " "); got != "client port user host c p u h" {
		t.Error(got)
	}
	if TokenKind(0).String() != "unknown" || f.Value(0) != nil {
		t.Error("kind 0 must name nothing")
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	squid := []byte("1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://host/p - DIRECT/10.0.5.120 application/xml\n")
	clf := []byte("10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET http://h/ HTTP/1.1\" 200 1 \"-\" \"Mozilla\"\n")
	var f Fields
	if n := testing.AllocsPerRun(100, func() {
		if !Parse(Squid, squid, &f) || !Parse(Combined, clf, &f) {
			t.Fatal("not parsed")
		}
	}); n != 0 {
		t.Errorf("%v allocations per line, want 0", n)
	}
}

// FuzzParse: no panic, and every field is a part of the line.
func FuzzParse(f *testing.F) {
	f.Add([]byte("1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://host/p - DIRECT/10.0.5.120 application/xml\n"))
	f.Add([]byte("1286536308.779 1 10.0.0.1 TCP_MISS/200 1 CONNECT [::1]:443 a b HIER_DIRECT/10.0.0.2 -\r\n"))
	f.Add([]byte("10.0.0.1:1 - - [10/Oct/2000:13:55:36 -0700] \"GET http://u@h:1/ HTTP/1.1\" 200 1 \"-\" \"Mozilla\"\n"))
	f.Add([]byte("a b [ [10/Oct/2000:13:55:36 -0700] \"\\"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, format := range []Format{Squid, Common, Combined, Text, "unknown"} {
			var out Fields
			if !Parse(format, line, &out) {
				continue
			}
			if !out.HasTime || out.UnixMilli < 0 {
				t.Errorf("parsed without a time: %s", render(&out))
			}
			for _, v := range [][]byte{out.Client, out.Port, out.User, out.Host, out.Method, out.URL, out.Status, out.Bytes} {
				if v != nil && (len(v) == 0 || !bytes.Contains(line, v)) {
					t.Errorf("field %q is not a part of %q", v, line)
				}
			}
		}
		Detect(line)
	})
}

func BenchmarkParseSquid(b *testing.B) {
	line := []byte("1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://login.example.com/path/to/a/thing?x=1234567890 - DIRECT/10.0.5.120 application/xml\n")
	b.SetBytes(int64(len(line)))
	var f Fields
	for b.Loop() {
		Parse(Squid, line, &f)
	}
}
