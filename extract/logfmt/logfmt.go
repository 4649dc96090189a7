// Package logfmt recognises access-log formats and finds, in one line, the
// values worth searching: the client's address, its port where it was logged,
// the user and the destination host.
//
// It knows Squid's native format,
//
//	1286536308.779    180 192.168.0.224 TCP_MISS/200 411 GET http://host/p - DIRECT/10.0.5.120 application/xml
//
// and the Common Log Format with what may follow it (combined, Squid's
// combined, fields added by an administrator),
//
//	10.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET http://host/p HTTP/1.0" 200 2326 "http://ref/" "agent"
//
// Everything else is Text: archived like any line, but without tokens.
//
// Parse allocates nothing; what it returns are parts of the line, with
// %-encoding and letter case as logged. AppendToken gives the one spelling
// under which a value is indexed and looked up. The package is pure: it reads
// no clock, no disk and no network, and no input makes it panic.
package logfmt

import "bytes"

// Format names a log format. The names are written in sealed indexes.
type Format string

// The formats that Detect tells apart.
const (
	Squid    Format = "squid"
	Common   Format = "common"
	Combined Format = "combined"
	Text     Format = "text"
)

// TokenKind tells what a token is. The numbers are part of the index format.
type TokenKind byte

// The kinds of tokens.
const (
	Client TokenKind = 1 + iota // address or name of the client, as logged
	Port                        // the client's port
	User                        // the authenticated user
	Host                        // the destination: name or address, without port and brackets
)

// Kinds lists all kinds in the order of the index format.
var Kinds = [...]TokenKind{Client, Port, User, Host}

// String returns the name that requests use: client, port, user or host.
func (k TokenKind) String() string {
	switch k {
	case Client:
		return "client"
	case Port:
		return "port"
	case User:
		return "user"
	case Host:
		return "host"
	}
	return "unknown"
}

// Fields are the parts of one line. They are slices of the line; nil means
// absent, which the formats write as "-".
type Fields struct {
	UnixMilli int64 // the time logged, milliseconds since 1970 UTC; meaningful if HasTime
	HasTime   bool

	Client, Port, User, Host   []byte
	Method, URL, Status, Bytes []byte
}

// Value returns the field that tokens of kind k are made of, nil if absent.
func (f *Fields) Value(k TokenKind) []byte {
	switch k {
	case Client:
		return f.Client
	case Port:
		return f.Port
	case User:
		return f.User
	case Host:
		return f.Host
	}
	return nil
}

// AppendToken appends the indexed spelling of a value of kind k to dst. Clients
// and hosts are lower-cased (ASCII only) and a host loses one trailing dot,
// because DNS names and addresses mean the same in either form. Users and ports
// stay as they are.
func AppendToken(dst []byte, k TokenKind, value []byte) []byte {
	if k != Client && k != Host {
		return append(dst, value...)
	}
	if k == Host && len(value) > 1 && value[len(value)-1] == '.' {
		value = value[:len(value)-1]
	}
	start := len(dst)
	dst = append(dst, value...)
	for i, c := range dst[start:] {
		if 'A' <= c && c <= 'Z' {
			dst[start+i] = c + ('a' - 'A')
		}
	}
	return dst
}

// sampleLines is how many lines of a sample Detect looks at.
const sampleLines = 64

// Detect returns the format in which at least half of the first lines of sample
// can be parsed, or Text. Only whole lines count, up to 64 of them; empty lines
// do not count.
func Detect(sample []byte) Format {
	var total, squid, clf, combined int
	var f Fields
	for range sampleLines {
		end := bytes.IndexByte(sample, '\n')
		if end < 0 {
			break
		}
		line := trimEOL(sample[:end])
		sample = sample[end+1:]
		if len(line) == 0 {
			continue
		}
		total++
		if Parse(Squid, line, &f) {
			squid++
		} else if rest, ok := parseCLF(line, &f); ok {
			clf++
			if hasTwoQuoted(rest) {
				combined++
			}
		}
	}
	switch {
	case total == 0 || 2*max(squid, clf) < total:
		return Text
	case squid >= clf:
		return Squid
	case 2*combined >= clf:
		return Combined
	}
	return Common
}

// Parse splits a line, with or without its line end, into out, which it
// overwrites. It returns false, and no fields, if the line is not of format f.
// Common and Combined accept the same lines: what follows the byte count is
// not looked at, so a file may mix them.
func Parse(f Format, line []byte, out *Fields) bool {
	*out = Fields{}
	ok := false
	switch f {
	case Squid:
		ok = parseSquid(trimEOL(line), out)
	case Common, Combined:
		_, ok = parseCLF(trimEOL(line), out)
	}
	if !ok {
		*out = Fields{}
	}
	return ok
}

// trimEOL removes one LF and one CR before it.
func trimEOL(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

// present maps the formats' "-" and the empty field to nil.
func present(field []byte) []byte {
	if len(field) == 0 || len(field) == 1 && field[0] == '-' {
		return nil
	}
	return field
}

// splitClient takes a port off "1.2.3.4:5678" and "[2001:db8::1]:5678". A bare
// IPv6 address has several colons and no brackets, and is left whole.
func splitClient(client []byte) (addr, port []byte) {
	if len(client) == 0 {
		return nil, nil
	}
	if client[0] == '[' {
		end := bytes.IndexByte(client, ']')
		if end < 2 {
			return client, nil
		}
		addr, rest := client[1:end], client[end+1:]
		if len(rest) == 0 {
			return addr, nil
		}
		if rest[0] == ':' && isNumber(rest[1:]) {
			return addr, rest[1:]
		}
		return client, nil
	}
	i := bytes.IndexByte(client, ':')
	if i <= 0 || !isNumber(client[i+1:]) {
		return client, nil
	}
	return client[:i], client[i+1:]
}

// hostOf returns the destination of a request: the authority of an absolute URL,
// or a CONNECT request's host:port. A path, "error:…" and "*" have none.
func hostOf(method, url []byte) []byte {
	authority := url
	if string(method) != "CONNECT" {
		i := 0
		for i < len(url) && url[i] != ':' && url[i] != '/' {
			i++
		}
		if i == 0 || len(url) < i+3 || url[i+1] != '/' || url[i+2] != '/' {
			return nil
		}
		for _, c := range url[:i] {
			if !isSchemeByte(c) {
				return nil
			}
		}
		authority = url[i+3:]
	}
	return hostPart(authority, string(method) == "CONNECT")
}

// separator marks the bytes that hostPart looks for.
var separator = [256]bool{':': true, '@': true, '/': true, '?': true, '#': true}

// hostPart takes what follows the authority, the user info, the port and the
// brackets off. A CONNECT target must have a port: "CONNECT error:…" of a broken
// request is no host. It is one pass, because it runs for every line sealed.
func hostPart(authority []byte, needPort bool) []byte {
	start, colon, end := 0, -1, len(authority)
scan:
	for i, c := range authority {
		if !separator[c] {
			continue
		}
		switch c {
		case ':':
			colon = i
		case '@':
			start, colon = i+1, -1
		case '/', '?', '#':
			end = i
			break scan
		}
	}
	host := authority[start:end]
	if len(host) > 0 && host[0] == '[' {
		closing := bytes.IndexByte(host, ']')
		if closing < 2 {
			return nil
		}
		return host[1:closing]
	}
	if colon >= 0 {
		port := authority[colon+1 : end]
		if len(port) > 0 && !isNumber(port) || needPort && len(port) == 0 {
			return nil
		}
		host = authority[start:colon]
	} else if needPort {
		return nil
	}
	return present(host)
}

func isSchemeByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'
}

// isNumber reports whether b is one to five decimal digits, enough for a port.
func isNumber(b []byte) bool {
	if len(b) == 0 || len(b) > 5 {
		return false
	}
	return allDigits(b)
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}
