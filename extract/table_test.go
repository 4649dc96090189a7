package extract

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
)

func TestCell(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"192.0.2.1":           "192.0.2.1",
		"http://h/=1":         "http://h/=1",
		"=HYPERLINK(\"x\")":   "'=HYPERLINK(\"x\")",
		"+33":                 "'+33",
		"-2+3":                "'-2+3",
		"@SUM(A1)":            "'@SUM(A1)",
		"|cmd":                "'|cmd",
		"%0a=1":               "'%0a=1",
		"'quoted":             "''quoted",
		"\t=1":                "\uFFFD=1",
		"a\x00b\xffc\x7f\r\n": "a\uFFFDb\uFFFDc\uFFFD\uFFFD\uFFFD",
		"é":                   "é",
	} {
		if got := cell([]byte(in)); got != want {
			t.Errorf("%q: got %q, expected %q", in, got, want)
		}
	}
}

// TestTable checks one row against the values of the line, with the hour that
// winter time repeats: both instants stay distinct.
func TestTable(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	tb, err := newTable(&b, paris)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"1792887300.250 10 192.0.2.1:40000 TCP_MISS/200 411 GET http://www.example.org/a,\"b\" alice HIER_DIRECT/192.0.2.9 text/html",
		"1792890900.250 10 192.0.2.1 TCP_MISS/200 411 CONNECT www.example.org:443 - HIER_DIRECT/192.0.2.9 -",
	} {
		j := judged{}
		j.parsed = logfmt.Parse(logfmt.Squid, []byte(line), &j.fields)
		if err := tb.add(&segmentRecord{Source: "proxy1", Entry: 7}, "lines/1-proxy1.log", 3, &j); err != nil {
			t.Fatal(err)
		}
	}
	if err := tb.flush(); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		strings.Join(columns, "|"),
		"1|lines/1-proxy1.log|proxy1|7|3|2026-10-25T00:15:00.250Z|2026-10-25T02:15:00.250+02:00|192.0.2.1|40000|alice|www.example.org|GET|http://www.example.org/a,\"b\"|200|411",
		"2|lines/1-proxy1.log|proxy1|7|3|2026-10-25T01:15:00.250Z|2026-10-25T02:15:00.250+01:00|192.0.2.1|||www.example.org|CONNECT|www.example.org:443|200|411",
	} {
		if got := strings.Join(rows[i], "|"); got != want {
			t.Errorf("row %d: got\n%s\nexpected\n%s", i, got, want)
		}
	}
}
