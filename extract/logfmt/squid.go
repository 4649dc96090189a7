package logfmt

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// parseSquid parses Squid's native format (src/log/FormatSquidNative.cc):
//
//	%ts.%03tu %6tr %>a %Ss/%03>Hs %<st %rm %ru %[un %Sh/%<a %mt
//
// Fields are separated by one or more spaces, because the elapsed time is
// padded. The time is that of the request's end. With `uri_whitespace allow` a
// URL may hold spaces: the URL then reaches up to the user, which is the field
// before the hierarchy code ("HIER_DIRECT/192.0.2.1"). Fields after the MIME
// type (log_mime_hdrs) are not looked at.
func parseSquid(line []byte, out *Fields) bool {
	stamp, line := nextField(line)
	ms, ok := squidTime(stamp)
	if !ok {
		return false
	}
	elapsed, line := nextField(line)
	if len(elapsed) > 1 && elapsed[0] == '-' {
		elapsed = elapsed[1:] // the clock was set back during the request
	}
	if !allDigits(elapsed) {
		return false
	}
	client, line := nextField(line)
	result, line := nextField(line)
	slash := bytes.IndexByte(result, '/')
	if len(client) == 0 || slash <= 0 || !allDigits(result[slash+1:]) {
		return false
	}
	size, line := nextField(line)
	method, line := nextField(line)
	if !allDigits(size) || len(method) == 0 {
		return false
	}
	url, user, ok := squidURL(line)
	if !ok {
		return false
	}
	out.UnixMilli, out.HasTime = ms, true
	out.Client, out.Port = splitClient(present(client))
	out.Status, out.Bytes = result[slash+1:], size
	out.Method, out.URL, out.User = present(method), present(url), present(user)
	out.Host = hostOf(out.Method, out.URL)
	return true
}

// squidURL splits what follows the method into URL and user and checks that a
// hierarchy code and a MIME type come next.
func squidURL(rest []byte) (url, user []byte, ok bool) {
	rest = trimSpaces(rest)
	urlEnd := bytes.IndexByte(rest, ' ') // the one long field
	if urlEnd < 0 {
		return nil, nil, false
	}
	for {
		userStart := skipSpaces(rest, urlEnd)
		userEnd := fieldEnd(rest, userStart)
		hierStart := skipSpaces(rest, userEnd)
		hierEnd := fieldEnd(rest, hierStart)
		if hierStart == hierEnd {
			return nil, nil, false
		}
		mimeStart := skipSpaces(rest, hierEnd)
		if mimeStart < len(rest) && isHierarchy(rest[hierStart:hierEnd]) {
			return rest[:urlEnd], rest[userStart:userEnd], true
		}
		urlEnd = userEnd
	}
}

// isHierarchy reports whether b looks like %Sh/%<a: a code in capitals, a slash
// and a peer.
func isHierarchy(b []byte) bool {
	for i, c := range b {
		if c == '/' {
			return i > 0 && i+1 < len(b)
		}
		if (c < 'A' || c > 'Z') && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return false
}

// squidTime parses "1286536308.779". Ten digits of seconds reach into the year
// 2286; with fewer than nine the line is hardly a time.
func squidTime(b []byte) (ms int64, ok bool) {
	dot := len(b) - 4
	if dot < 9 || dot > 10 || b[dot] != '.' {
		return 0, false
	}
	for i, c := range b {
		if i == dot {
			continue
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = ms*10 + int64(c-'0')
	}
	return ms, true
}

// nextField returns the field at the start of line, after any spaces, and the rest.
func nextField(line []byte) (field, rest []byte) {
	line = trimSpaces(line)
	end := fieldEnd(line, 0)
	return line[:end], line[end:]
}

func trimSpaces(b []byte) []byte { return b[skipSpaces(b, 0):] }

func skipSpaces(b []byte, i int) int {
	for i < len(b) && b[i] == ' ' {
		i++
	}
	return i
}

// fieldEnd returns the index of the first space at or after i. It looks at
// eight bytes at once, because it runs ten times for every line sealed.
func fieldEnd(b []byte, i int) int {
	const ones, highs, spaces = 0x0101010101010101, 0x8080808080808080, 0x2020202020202020
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:]) ^ spaces
		// The lowest high bit left is that of the first zero byte.
		if zero := (x - ones) &^ x & highs; zero != 0 {
			return i + bits.TrailingZeros64(zero)/8
		}
	}
	for i < len(b) && b[i] != ' ' {
		i++
	}
	return i
}
