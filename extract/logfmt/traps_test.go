package logfmt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// squidWith and clfWith put one field into an otherwise ordinary line.
func squidWith(client, result, size, method, url, user string) string {
	return fmt.Sprintf("1286536308.779    180 %s %s %s %s %s %s HIER_DIRECT/10.0.5.120 text/html", client, result, size, method, url, user)
}

func clfWith(client, user, stamp, request, status, size string) string {
	return fmt.Sprintf(`%s - %s [%s] "%s" %s %s "http://ref.example/" "Mozilla/5.0 (X11)"`, client, user, stamp, request, status, size)
}

const clfStamp = "10/Oct/2000:13:55:36 -0700"

// TestDestinations: the host of every kind of target, in both formats.
func TestDestinations(t *testing.T) {
	for _, c := range []struct{ method, url, host string }{
		{"GET", "http://host/", "host"},
		{"GET", "http://host", "host"},
		{"GET", "http://host:8080/p", "host"},
		{"GET", "http://host:/p", "host"},
		{"GET", "http://host:99999/p", "host"},
		{"GET", "http://host:123456/p", ""},
		{"GET", "http://host:80x/p", ""},
		{"GET", "http://host?q=1", "host"},
		{"GET", "http://host#f", "host"},
		{"GET", "http://u@host/", "host"},
		{"GET", "http://u:p@host:80/", "host"},
		{"GET", "http://u:p@a@host/", "host"},
		{"GET", "http://a.example@b.example/", "b.example"},
		{"GET", "http://host/@other/", "host"},
		{"GET", "http://host/?u=http://other/", "host"},
		{"GET", "http://host?x@other", "host"},
		{"GET", "http://10.0.0.1:3128/", "10.0.0.1"},
		{"GET", "http://[2001:db8::1]/", "2001:db8::1"},
		{"GET", "http://[2001:db8::1]:8080/", "2001:db8::1"},
		{"GET", "http://u:p@[2001:DB8::1]:8080/", "2001:DB8::1"},
		{"GET", "http://[fe80::1%25eth0]/", "fe80::1%25eth0"},
		{"GET", "http://[2001:db8::1/", ""},
		{"GET", "http://[]/", ""},
		{"GET", "http://[", ""},
		{"GET", "http://", ""},
		{"GET", "http:///path", ""},
		{"GET", "http://:80/", ""},
		{"GET", "http://u@/", ""},
		{"GET", "http://-/", ""},
		{"GET", "http:/host/", ""},
		{"GET", "http:host", ""},
		{"GET", "://host/", ""},
		{"GET", "//host/", ""},
		{"GET", "ht/tp://host/", ""},
		{"GET", "HTTPS://Host/", "Host"},
		{"GET", "ftp://ftp.example/pub/", "ftp.example"},
		{"GET", "coap+tcp://h/", "h"},
		{"GET", "urn:uuid:1", ""},
		{"GET", "/path", ""},
		{"GET", "/http://host/", ""},
		{"OPTIONS", "*", ""},
		{"GET", "host.example:443", ""},
		{"CONNECT", "host:443", "host"},
		{"CONNECT", "10.0.0.1:8443", "10.0.0.1"},
		{"CONNECT", "[2001:db8::1]:443", "2001:db8::1"},
		{"CONNECT", "host", ""},
		{"CONNECT", "host:", ""},
		{"CONNECT", "host:https", ""},
		{"CONNECT", ":443", ""},
		{"CONNECT", "error:transaction-end-before-headers", ""},
		{"CONNECT", "http://host/", ""},
		{"-", "error:invalid-request", ""},
		{"NONE", "error:accept-client-connection", ""},
		{"NONE", "error:transaction-end-before-headers", ""},
		{"PURGE", "http://host/p", "host"},
		{"M-SEARCH", "http://host/p", "host"},
		{"GET", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"},
		{"GET", "http://b%C3%BCcher.example/", "b%C3%BCcher.example"},
		{"GET", "http://b\xc3\xbccher.example/", "b\xc3\xbccher.example"},
		{"GET", "http://\xff\x00/", "\xff\x00"},
		{"GET", "http://host.example./", "host.example."},
	} {
		var f Fields
		if !Parse(Squid, []byte(squidWith("10.0.0.1", "TCP_MISS/200", "1", c.method, c.url, "-")), &f) {
			t.Errorf("squid: %s %s: not parsed", c.method, c.url)
		} else if string(f.Host) != c.host || string(f.URL) != c.url {
			t.Errorf("squid: %s %s: host %s, URL %s, want %q", c.method, c.url, str(f.Host), str(f.URL), c.host)
		}
		if c.method == "-" {
			continue // no request line of CLF
		}
		if !Parse(Combined, []byte(clfWith("10.0.0.1", "-", clfStamp, c.method+" "+c.url+" HTTP/1.1", "200", "1")), &f) {
			t.Errorf("combined: %s %s: not parsed", c.method, c.url)
		} else if string(f.Host) != c.host || string(f.URL) != c.url || string(f.Method) != c.method {
			t.Errorf("combined: %s %s: host %s, URL %s, want %q", c.method, c.url, str(f.Host), str(f.URL), c.host)
		}
	}
}

// TestClients: address and port of the client, in both formats.
func TestClients(t *testing.T) {
	for _, c := range []struct{ client, addr, port string }{
		{"10.0.0.1", "10.0.0.1", ""},
		{"10.0.0.1:1", "10.0.0.1", "1"},
		{"10.0.0.1:65535", "10.0.0.1", "65535"},
		{"10.0.0.1:123456", "10.0.0.1:123456", ""},
		{"10.0.0.1:", "10.0.0.1:", ""},
		{"10.0.0.1:http", "10.0.0.1:http", ""},
		{"2001:db8::7", "2001:db8::7", ""},
		{"::1", "::1", ""},
		{"::", "::", ""},
		{"::ffff:10.0.0.1", "::ffff:10.0.0.1", ""},
		{"fe80::1%eth0", "fe80::1%eth0", ""},
		{"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", ""},
		{"[2001:db8::7]", "2001:db8::7", ""},
		{"[2001:db8::7]:443", "2001:db8::7", "443"},
		{"[::1]:1", "::1", "1"},
		{"[2001:db8::7]443", "[2001:db8::7]443", ""},
		{"[2001:db8::7]:x", "[2001:db8::7]:x", ""},
		{"[2001:db8::7", "[2001:db8::7", ""},
		{"[]", "[]", ""},
		{"[", "[", ""},
		{"pc-17.campus.example", "pc-17.campus.example", ""},
		{"pc-17.campus.example:4711", "pc-17.campus.example", "4711"},
		{"unix:", "unix:", ""},
		{"-", "", ""},
	} {
		for format, line := range map[Format]string{
			Squid:    squidWith(c.client, "TCP_MISS/200", "1", "GET", "http://h/", "-"),
			Combined: clfWith(c.client, "-", clfStamp, "GET / HTTP/1.1", "200", "1"),
		} {
			var f Fields
			if !Parse(format, []byte(line), &f) || string(f.Client) != c.addr || string(f.Port) != c.port {
				t.Errorf("%s: %s: client %s, port %s, want %q and %q", format, c.client, str(f.Client), str(f.Port), c.addr, c.port)
			}
		}
	}
}

// TestSquidRefuses: lines that are not, or no longer, Squid's native format.
func TestSquidRefuses(t *testing.T) {
	good := squidWith("10.0.0.1", "TCP_MISS/200", "1", "GET", "http://h/", "-")
	var f Fields
	if !Parse(Squid, []byte(good), &f) {
		t.Fatal("the good line is not parsed")
	}
	words := strings.Fields(good)
	for n := range words { // each field left out, and the line cut before it
		if n != 6 && n != 7 { // without a URL or a user, the next field moves up; see below
			without := strings.Join(append(append([]string{}, words[:n]...), words[n+1:]...), " ")
			if Parse(Squid, []byte(without), &f) {
				t.Errorf("without field %d: %q is parsed as %s", n, without, render(&f))
			}
		}
		if cut := strings.Join(words[:n], " "); Parse(Squid, []byte(cut), &f) {
			t.Errorf("cut before field %d: %q is parsed", n, cut)
		}
	}
	for _, line := range []string{
		"1286536308,779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", // a comma
		"1286536308.77 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",  // two digits
		"1286536308.7790 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"-286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"12865363080.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", // the year 2377
		"1286536308.779 - 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 --5 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1.5 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 4711 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -", // custom, with a port
		"1286536308.779 1 10.0.0.1 TCP_MISS/ 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 /200 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/2x0 1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 -1 GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 1k GET http://h/ - HIER_DIRECT/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - hier_direct/10.0.0.2 -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT/ -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - HIER_DIRECT -",
		"1286536308.779 1 10.0.0.1 TCP_MISS/200 1 GET http://h/ - /10.0.0.2 -",
		"1286536308.779\t1\t10.0.0.1\tTCP_MISS/200\t1\tGET\thttp://h/\t-\tHIER_DIRECT/10.0.0.2\t-",
		"Feb 16 12:14:14 proxy (squid-1): " + good,
		`{"ts":1286536308.779}`,
		clfWith("10.0.0.1", "-", clfStamp, "GET / HTTP/1.1", "200", "1"),
	} {
		if Parse(Squid, []byte(line), &f) {
			t.Errorf("%q is parsed as %s", line, render(&f))
		}
	}
}

// TestSquidFields: values at their limits.
func TestSquidFields(t *testing.T) {
	huge := strings.Repeat("9", 40)
	for _, c := range []struct{ line, want string }{
		{squidWith("a", "TCP_MISS/200", huge, "GET", "http://h/", "-"), "a | <nil> | <nil> | h | GET | http://h/ | 200 | " + huge},
		{squidWith("a", "TCP_MISS/"+huge, "0", "GET", "http://h/", "-"), "a | <nil> | <nil> | h | GET | http://h/ | " + huge + " | 0"},
		{squidWith("a", "TCP_MISS_ABORTED/000", "0", "GET", "http://h/", "-"), "a | <nil> | <nil> | h | GET | http://h/ | 000 | 0"},
		{squidWith("a", "TCP_DENIED/407", "1", "GET", "http://h/", "DOM%5Cbob"), "a | <nil> | DOM%5Cbob | h | GET | http://h/ | 407 | 1"},
		{squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "bob@example.org"), "a | <nil> | bob@example.org | h | GET | http://h/ | 200 | 1"},
		{squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "%C3%A9%20%25"), "a | <nil> | %C3%A9%20%25 | h | GET | http://h/ | 200 | 1"},
		{squidWith("a", "NONE_NONE_ABORTED/400", "0", "-", "error:invalid-request", "-"), "a | <nil> | <nil> | <nil> | <nil> | error:invalid-request | 400 | 0"},
		{squidWith("a", "NONE/000", "0", "NONE", "error:transaction-end-before-headers", "-"), "a | <nil> | <nil> | <nil> | NONE | error:transaction-end-before-headers | 000 | 0"},
		{squidWith("a", "UDP_MISS/000", "0", "ICP_QUERY", "http://h/", "-"), "a | <nil> | <nil> | h | ICP_QUERY | http://h/ | 000 | 0"},
		{squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/a b", "-"), "a | <nil> | <nil> | h | GET | http://h/a b | 200 | 1"},
		{strings.ReplaceAll(squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "-"), " ", "   "), "a | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		{"  " + squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "-") + "  ", "a | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		{strings.Replace(squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "-"), "   180", huge, 1), "a | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		{strings.Replace(squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "-"), "HIER_DIRECT/10.0.5.120", "TIMEOUT_FIRSTUP_PARENT/[2001:db8::9]", 1), "a | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
		{strings.Replace(squidWith("a", "TCP_HIT/200", "1", "GET", "http://h/", "-"), "HIER_DIRECT/10.0.5.120", "NONE/-", 1), "a | <nil> | <nil> | h | GET | http://h/ | 200 | 1"},
	} {
		checkParse(t, Squid, c.line, "2010-10-08T11:11:48.779Z | "+c.want)
	}
	for stamp, want := range map[string]string{"100000000.000": "1973-03-03T09:46:40.000Z", "9999999999.999": "2286-11-20T17:46:39.999Z", "000000000.000": "1970-01-01T00:00:00.000Z"} {
		var f Fields
		line := strings.Replace(squidWith("a", "TCP_MISS/200", "1", "GET", "http://h/", "-"), "1286536308.779", stamp, 1)
		if !Parse(Squid, []byte(line), &f) || time.UnixMilli(f.UnixMilli).UTC().Format("2006-01-02T15:04:05.000Z") != want {
			t.Errorf("time %s: %s, want %s", stamp, render(&f), want)
		}
	}
}

// TestCLFUsersAndRequests: what stands between the client and the status.
func TestCLFUsersAndRequests(t *testing.T) {
	for _, c := range []struct{ user, request, wantUser, method, url string }{
		{"-", "GET / HTTP/1.1", "", "GET", "/"},
		{"frank", "GET / HTTP/1.1", "frank", "GET", "/"},
		{`""`, "GET / HTTP/1.1", `""`, "GET", "/"},
		{`DOM\\bob`, "GET / HTTP/1.1", `DOM\\bob`, "GET", "/"},
		{`a\"b`, "GET / HTTP/1.1", `a\"b`, "GET", "/"},
		{"[x]", "GET / HTTP/1.1", "[x]", "GET", "/"},
		{"[10/Oct/2000:13:55:36 -0700", "GET / HTTP/1.1", "[10/Oct/2000:13:55:36 -0700", "GET", "/"},
		{"Jean-Luc d'Été", "GET / HTTP/1.1", "Jean-Luc d'Été", "GET", "/"},
		{"a-b c -d", "GET / HTTP/1.1", "a-b c -d", "GET", "/"},
		{"x", `GET /a\"b\\ HTTP/1.1`, "x", "GET", `/a\"b\\`},
		{"x", `GET /?q=\xc3\xa9 HTTP/2.0`, "x", "GET", `/?q=\xc3\xa9`},
		{"x", "GET /a b  c HTTP/1.1", "x", "GET", "/a b  c"},
		{"x", "GET /", "x", "GET", "/"},
		{"x", "GET HTTP/1.1", "x", "GET", "HTTP/1.1"},
		{"x", "GET  HTTP/1.1", "x", "GET", " HTTP/1.1"},
		{"x", "GET", "x", "", ""},
		{"x", "GET ", "x", "", ""},
		{"x", "", "x", "", ""},
		{"x", "-", "x", "", ""},
		{"x", " / HTTP/1.1", "x", "", ""},
		{"x", `\x16\x03\x01\x02`, "x", "", ""},
		{"x", "G<T / HTTP/1.1", "x", "", ""},
		{"x", "BASELINE-CONTROL /p HTTP/1.1", "x", "BASELINE-CONTROL", "/p"},
	} {
		line := clfWith("10.0.0.1", c.user, clfStamp, c.request, "200", "5")
		var f Fields
		if !Parse(Combined, []byte(line), &f) {
			t.Errorf("%s: not parsed", line)
			continue
		}
		if string(f.User) != c.wantUser || string(f.Method) != c.method || string(f.URL) != c.url {
			t.Errorf("%s: user %s, method %s, URL %s, want %q, %q, %q", line, str(f.User), str(f.Method), str(f.URL), c.wantUser, c.method, c.url)
		}
	}
}

// TestCLFInFrontOfTheClient: a line with a virtual host or a syslog header in
// front is another format. Taken as CLF, its client would be the wrong word, and
// a search for the right one would miss it without a word.
func TestCLFInFrontOfTheClient(t *testing.T) {
	for _, user := range []string{"-", "frank", "Frank M"} {
		line := clfWith("10.0.0.1", user, clfStamp, "GET / HTTP/1.1", "200", "5")
		for _, front := range []string{
			"www.example:80 ", "www.example ", "[2001:db8::1]:443 ", // Debian's and SUSE's vhost_combined
			"Feb 16 12:14:14 web nginx: ", "Feb  6 12:14:14 web nginx: ", // RFC 3164, as nginx writes it
			"<190>Feb 16 12:14:14 web nginx: ", "2026-02-16T12:14:14.123456+01:00 web nginx: ",
			"<190>1 2026-02-16T12:14:14Z web nginx - - - ",
		} {
			var f Fields
			if Parse(Combined, []byte(front+line), &f) {
				t.Errorf("%s%s: parsed with client %s and user %s", front, line, str(f.Client), str(f.User))
			}
			if got := Detect([]byte(strings.Repeat(front+line+"\n", 4))); got != Text {
				t.Errorf("%q in front: detected as %s", front, got)
			}
		}
		if got := Detect([]byte(strings.Repeat(line+"\n", 4))); got != Combined {
			t.Errorf("%s: detected as %s", line, got)
		}
	}
}

// TestCLFTimes: every part at and past its limits.
func TestCLFTimes(t *testing.T) {
	for stamp, want := range map[string]string{
		"01/Jan/1970:00:00:00 +0000": "1970-01-01T00:00:00.000Z",
		"31/Dec/1969:23:59:59 -0001": "",
		"01/Jan/1970:00:00:00 +0001": "",
		"01/Jan/1970:00:00:00 -0001": "1970-01-01T00:01:00.000Z",
		"31/Dec/9999:23:59:59 +0000": "9999-12-31T23:59:59.000Z",
		"29/Feb/2024:12:00:00 +0530": "2024-02-29T06:30:00.000Z",
		"29/Feb/2000:12:00:00 -0330": "2000-02-29T15:30:00.000Z",
		"29/Feb/2100:12:00:00 +0000": "",
		"29/Feb/2023:12:00:00 +0000": "",
		"31/Apr/2023:12:00:00 +0000": "",
		"00/Jan/2023:12:00:00 +0000": "",
		"32/Jan/2023:12:00:00 +0000": "",
		"01/Jan/2023:24:00:00 +0000": "",
		"01/Jan/2023:23:60:00 +0000": "",
		"31/Dec/2016:23:59:60 +0000": "2017-01-01T00:00:00.000Z", // a leap second
		"31/Dec/2016:23:59:61 +0000": "",
		"01/Jan/2023:00:00:00 +1400": "2022-12-31T10:00:00.000Z",
		"01/Jan/2023:00:00:00 -1200": "2023-01-01T12:00:00.000Z",
		"01/Jan/2023:00:00:00 +2400": "",
		"01/Jan/2023:00:00:00 +0060": "",
		"01/Jan/2023:00:00:00 00000": "",
		"01/Jan/2023:00:00:00 *0000": "",
		"01/jan/2023:00:00:00 +0000": "",
		"01/Mai/2023:00:00:00 +0000": "",
		"01-Jan-2023:00:00:00 +0000": "",
		"01/Jan/2023 00:00:00 +0000": "",
		" 1/Jan/2023:00:00:00 +0000": "",
		"01/Jan/202x:00:00:00 +0000": "",
		"01/Jan/2023:00:00:00 +00:0": "",
		// Both sides of the ends of summer time: 02:30 comes twice and is told apart by its zone.
		"26/Oct/2025:02:30:00 +0200": "2025-10-26T00:30:00.000Z",
		"26/Oct/2025:02:30:00 +0100": "2025-10-26T01:30:00.000Z",
		"02/Nov/2025:01:30:00 -0400": "2025-11-02T05:30:00.000Z",
		"02/Nov/2025:01:30:00 -0500": "2025-11-02T06:30:00.000Z",
	} {
		var f Fields
		got := ""
		if Parse(Common, []byte(clfWith("a", "-", stamp, "GET / HTTP/1.1", "200", "1")), &f) {
			got = time.UnixMilli(f.UnixMilli).UTC().Format("2006-01-02T15:04:05.000Z")
		}
		if got != want {
			t.Errorf("[%s]: %q, want %q", stamp, got, want)
		}
	}
}

// TestCLFRefuses: lines that are not, or no longer, CLF.
func TestCLFRefuses(t *testing.T) {
	good := `10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`
	var f Fields
	if !Parse(Common, []byte(good), &f) {
		t.Fatal("the good line is not parsed")
	}
	for n := range len(good) {
		if Parse(Common, []byte(good[:n]), &f) {
			t.Errorf("cut at %d: %q is parsed", n, good[:n])
		}
	}
	for _, line := range []string{
		strings.Replace(good, "200", "20", 1), strings.Replace(good, "200", "2000", 1), strings.Replace(good, "200", "-", 1), strings.Replace(good, "200", "2x0", 1),
		strings.Replace(good, " 1", " 1k", 1), good[:len(good)-1] + "x", good[:len(good)-1] + "--", good[:len(good)-1] + "-1",
		strings.Replace(good, " - - ", "  - - ", 1), strings.Replace(good, " - - ", " - -  ", 1) + `"`, " " + good,
		strings.Replace(good, "] ", "]", 1), strings.Replace(good, `1" `, `1"`, 1) + "x", strings.Replace(good, `1" `, `1\" `, 1),
		strings.ReplaceAll(good, `"`, "'"), strings.ReplaceAll(good, " ", "\t"),
		"10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 \"GET / HTTP/1.1\"",
		"Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} \"GET /index.html HTTP/1.1\"",
		`[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21" "locations" "tcp://10.0.2.1:80"`,
		squidWith("10.0.0.1", "TCP_MISS/200", "1", "GET", "http://h/", "-"),
	} {
		if line != good && Parse(Common, []byte(line), &f) {
			t.Errorf("%q is parsed as %s", line, render(&f))
		}
	}
}

// TestEveryByteOfALine: with any byte changed, a line parses as parts of itself,
// or not at all, and leaves nothing of the line before.
func TestEveryByteOfALine(t *testing.T) {
	for format, good := range map[Format]string{
		Squid:    squidWith("[2001:db8::1]:77", "TCP_MISS/200", "1", "CONNECT", "[2001:db8::2]:443", "b%20b"),
		Combined: clfWith("[2001:db8::1]:77", "frank", clfStamp, `GET http://u@h:80/\"x HTTP/1.1`, "200", "1"),
	} {
		for i := range good {
			for c := range 256 {
				line := []byte(good)
				line[i] = byte(c)
				f := Fields{UnixMilli: 7, HasTime: true, User: []byte("someone else"), Host: []byte("elsewhere")}
				if !Parse(format, line, &f) {
					if render(&f) != render(&Fields{}) || f.UnixMilli != 0 {
						t.Fatalf("%q: refused, but left %s", line, render(&f))
					}
					continue
				}
				for _, v := range [][]byte{f.Client, f.Port, f.User, f.Host, f.Method, f.URL, f.Status, f.Bytes} {
					if v != nil && (len(v) == 0 || !bytes.Contains(line, v)) {
						t.Fatalf("%q: field %q is no part of it", line, v)
					}
				}
			}
		}
	}
}

// TestDetectMixtures draws files of several formats and compares Detect with its
// rule: the format of at least half of the first 64 lines that are not empty.
func TestDetectMixtures(t *testing.T) {
	lines := map[Format]string{
		Squid:    squidWith("10.0.0.1", "TCP_MISS/200", "1", "GET", "http://h/", "-"),
		Common:   `10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1`,
		Combined: clfWith("10.0.0.1", "-", clfStamp, "GET / HTTP/1.1", "200", "1"),
		Text:     "Feb  6 12:14:14 proxy kernel: something else",
		"":       "",
	}
	formats := []Format{Squid, Common, Combined, Text, ""}
	rng := rand.New(rand.NewPCG(7, 8))
	seen := map[Format]int{}
	for range 3000 {
		weights := [5]int{rng.IntN(8), rng.IntN(8), rng.IntN(8), rng.IntN(8), rng.IntN(3)}
		var sample strings.Builder
		count, looked := map[Format]int{}, 0
		for range 1 + rng.IntN(100) {
			n := rng.IntN(weights[0] + weights[1] + weights[2] + weights[3] + weights[4] + 1)
			k := 0
			for k < 4 && n >= weights[k] {
				n -= weights[k]
				k++
			}
			sample.WriteString(lines[formats[k]] + []string{"\n", "\r\n"}[rng.IntN(2)])
			if looked++; looked <= 64 {
				count[formats[k]]++
			}
		}
		clf := count[Common] + count[Combined]
		total := count[Squid] + clf + count[Text]
		want := Text
		switch {
		case total == 0 || 2*max(count[Squid], clf) < total:
		case count[Squid] >= clf:
			want = Squid
		case 2*count[Combined] >= clf:
			want = Combined
		default:
			want = Common
		}
		seen[want]++
		if got := Detect([]byte(sample.String())); got != want {
			t.Fatalf("%v: detected %s, want %s", count, got, want)
		}
	}
	for _, f := range formats[:4] {
		if seen[f] < 100 {
			t.Errorf("%s was right %d times, expected at least 100", f, seen[f])
		}
	}
}

// TestDetectHugeLines: a line of a MiB and a sample without line ends cost no
// more than a look.
func TestDetectHugeLines(t *testing.T) {
	long := squidWith("10.0.0.1", "TCP_MISS/200", "1", "GET", "http://h/"+strings.Repeat("x", 1<<20), "-")
	if got := Detect([]byte(long + "\n")); got != Squid {
		t.Errorf("a URL of 1 MiB: %s", got)
	}
	if got := Detect([]byte(long)); got != Text {
		t.Errorf("a line without its end: %s", got)
	}
	if got := Detect(bytes.Repeat([]byte{' '}, 1<<20)); got != Text {
		t.Errorf("spaces: %s", got)
	}
	if got := Detect(bytes.Repeat([]byte("[ "), 1<<19)); got != Text {
		t.Errorf("brackets: %s", got)
	}
	var f Fields
	if !Parse(Squid, []byte(long), &f) || len(f.URL) != len("http://h/")+1<<20 || string(f.Host) != "h" {
		t.Errorf("the long line: URL of %d bytes, host %s", len(f.URL), str(f.Host))
	}
}
