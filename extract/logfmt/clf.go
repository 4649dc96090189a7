package logfmt

import "bytes"

// parseCLF parses the Common Log Format, %h %l %u %t "%r" %>s %b, and returns
// what follows the byte count. The user may hold spaces (Apache writes it as the
// client sent it), so it reaches up to the first bracket that opens a valid
// time. The time is that of the request's start in Apache, of its end in nginx.
func parseCLF(line []byte, out *Fields) (rest []byte, ok bool) {
	client, rest := cutSpace(line)
	ident, rest := cutSpace(rest)
	if len(client) == 0 || len(ident) == 0 {
		return nil, false
	}
	user, ms, rest, ok := clfUserTime(rest)
	if !ok || len(user) > 1 && holdsDash(user) {
		return nil, false
	}
	request, rest, ok := cutQuoted(rest)
	if !ok {
		return nil, false
	}
	status, rest := cutSpace(rest)
	size, rest := cutSpace(rest)
	if len(status) != 3 || !allDigits(status) || !(allDigits(size) || len(size) == 1 && size[0] == '-') {
		return nil, false
	}
	out.UnixMilli, out.HasTime = ms, true
	out.Client, out.Port = splitClient(present(client))
	out.User = present(user)
	out.Status, out.Bytes = status, present(size)
	out.Method, out.URL = splitRequest(request)
	out.Host = hostOf(out.Method, out.URL)
	return rest, true
}

// holdsDash reports whether a user of more than one byte has "-" among its words.
// Then something stands in front of the line, and what looks like its client is
// none: a virtual host (%v %h %l %u) or a syslog header.
func holdsDash(user []byte) bool {
	return bytes.HasPrefix(user, []byte("- ")) || bytes.HasSuffix(user, []byte(" -")) || bytes.Contains(user, []byte(" - "))
}

// clfTimeLen is the length of "[10/Oct/2000:13:55:36 -0700]".
const clfTimeLen = 28

// clfUserTime finds the user and the time in `frank [10/Oct/2000:13:55:36 -0700] …`.
func clfUserTime(b []byte) (user []byte, ms int64, rest []byte, ok bool) {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '[')
		if i < 0 {
			return nil, 0, nil, false
		}
		i += from
		from = i + 1
		if i < 2 || b[i-1] != ' ' || len(b)-i < clfTimeLen+1 || b[i+clfTimeLen] != ' ' {
			continue
		}
		if ms, ok = clfTime(b[i : i+clfTimeLen]); ok {
			return b[:i-1], ms, b[i+clfTimeLen+1:], true
		}
	}
}

// cutSpace returns what precedes the first space and what follows it. CLF
// separates by exactly one space.
func cutSpace(b []byte) (field, rest []byte) {
	end := fieldEnd(b, 0)
	if end == len(b) {
		return b, nil
	}
	return b[:end], b[end+1:]
}

// cutQuoted returns the text between a quote at the start of b and the next
// quote that no backslash escapes, and what follows it and a space.
func cutQuoted(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			rest = b[i+1:]
			if len(rest) > 0 && rest[0] == ' ' {
				rest = rest[1:]
			}
			return b[1:i], rest, true
		}
	}
	return nil, nil, false
}

// hasTwoQuoted reports whether b starts with the two quoted fields, referer and
// agent, that make the combined format of the common one.
func hasTwoQuoted(b []byte) bool {
	_, b, ok := cutQuoted(b)
	if !ok {
		return false
	}
	_, _, ok = cutQuoted(b)
	return ok
}

// splitRequest splits "GET /p HTTP/1.1". The target may hold spaces; HTTP/0.9
// has no version; a broken request has neither method nor target.
func splitRequest(r []byte) (method, url []byte) {
	method, url = cutSpace(r)
	if len(url) == 0 || !isMethod(method) {
		return nil, nil
	}
	if i := bytes.LastIndexByte(url, ' '); i > 0 && bytes.HasPrefix(url[i+1:], []byte("HTTP/")) {
		url = url[:i]
	}
	return method, url
}

func isMethod(b []byte) bool {
	for _, c := range b {
		if !isSchemeByte(c) && c != '_' {
			return false
		}
	}
	return len(b) > 0
}

// clfTime parses "[10/Oct/2000:13:55:36 -0700]" into milliseconds since 1970 UTC.
func clfTime(b []byte) (ms int64, ok bool) {
	if b[0] != '[' || b[3] != '/' || b[7] != '/' || b[12] != ':' || b[15] != ':' || b[18] != ':' ||
		b[21] != ' ' || b[27] != ']' || b[22] != '+' && b[22] != '-' {
		return 0, false
	}
	day, ok1 := digits(b[1:3])
	month := monthOf(b[4:7])
	year, ok2 := digits(b[8:12])
	hour, ok3 := digits(b[13:15])
	minute, ok4 := digits(b[16:18])
	second, ok5 := digits(b[19:21])
	zoneHour, ok6 := digits(b[23:25])
	zoneMinute, ok7 := digits(b[25:27])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7) || month == 0 || day < 1 || day > daysIn(year, month) ||
		year < 1970 || hour > 23 || minute > 59 || second > 60 || zoneHour > 23 || zoneMinute > 59 {
		return 0, false
	}
	seconds := daysSince1970(year, month, day)*86400 + hour*3600 + minute*60 + second
	zone := zoneHour*3600 + zoneMinute*60
	if b[22] == '+' {
		zone = -zone
	}
	if seconds += zone; seconds < 0 {
		return 0, false
	}
	return seconds * 1000, true
}

func digits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// monthOf returns 1 to 12 for the English abbreviation, 0 for anything else.
func monthOf(b []byte) int64 {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	for i := 0; i < len(names); i += 3 {
		if b[0] == names[i] && b[1] == names[i+1] && b[2] == names[i+2] {
			return int64(i/3) + 1
		}
	}
	return 0
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts the days before a date of the Gregorian calendar. The
// year is taken to start in March, so that the leap day is its last.
func daysSince1970(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	const marchTo1970 = 719468 // days from 0000-03-01 to 1970-01-01
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - marchTo1970
}
