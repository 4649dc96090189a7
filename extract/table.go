package extract

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"logvault/extract/logfmt"
)

// columns is the first row of lines.csv.
var columns = []string{
	"n", "file", "source", "entry", "line", "time_utc", "time_local",
	"client", "port", "user", "host", "method", "url", "status", "bytes",
}

// table writes lines.csv: UTF-8, comma separated, LF line ends, one row per
// disclosed line in the order of the lines files. It is a function of the lines
// and the manifest, so that a check can make it again.
type table struct {
	w    *csv.Writer
	zone *time.Location
	n    int64
	row  []string // reused
}

func newTable(w io.Writer, zone *time.Location) (*table, error) {
	t := &table{w: csv.NewWriter(w), zone: zone, row: make([]string, len(columns))}
	return t, t.w.Write(columns)
}

// add writes the row of one disclosed line.
func (t *table) add(r *segmentRecord, file string, line int64, j *judged) error {
	t.n++
	row := append(t.row[:0], strconv.FormatInt(t.n, 10), file, r.Source,
		strconv.FormatInt(r.Entry, 10), strconv.FormatInt(line, 10))
	if j.parsed {
		when := time.UnixMilli(j.fields.UnixMilli)
		row = append(row, formatUTC(when), when.In(t.zone).Format("2006-01-02T15:04:05.000-07:00"))
	} else {
		row = append(row, "", "")
	}
	f := &j.fields
	for _, k := range logfmt.Kinds {
		row = append(row, cell(f.Value(k)))
	}
	row = append(row, cell(f.Method), cell(f.URL), cell(f.Status), cell(f.Bytes))
	t.row = row
	return t.w.Write(row)
}

// flush writes out what is buffered.
func (t *table) flush() error {
	t.w.Flush()
	return t.w.Error()
}

// cell makes a field fit for a spreadsheet. The log is written by strangers: a
// URL that begins with "=" would run as a formula on the investigator's machine,
// so such a cell gets a leading apostrophe. Bytes that are not text become
// U+FFFD. The original bytes stand in lines/.
func cell(field []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(string(field), "\uFFFD"))
	if s != "" && strings.ContainsRune("=+-@|%'", rune(s[0])) {
		return "'" + s
	}
	return s
}
