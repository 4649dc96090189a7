package entry

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxDepth is the limit of nested objects and arrays; the entry itself is one.
const maxDepth = 4

// kind tells which field of a value is set.
type kind uint8

const (
	kindText kind = iota
	kindInteger
	kindFlag // true or false
	kindArray
	kindObject
)

// String returns the kind with its article.
func (k kind) String() string {
	return [...]string{"a string", "an integer", "a boolean", "an array", "an object"}[k]
}

// value is a parsed JSON value.
type value struct {
	kind    kind
	flag    bool
	text    string
	integer int64
	array   []value
	object  []member
}

// member is a named value of an object.
type member struct {
	name string
	val  value
}

// parser reads the canonical form and nothing else. There is no state in which
// it skips or repairs bytes, so that what it accepts can be spelled one way only.
type parser struct {
	data []byte
	pos  int
}

// parse parses a whole entry.
func parse(data []byte) ([]member, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, expected at most %d", ErrTooLarge, len(data), MaxSize)
	}
	p := &parser{data: data}
	if p.peek() != '{' {
		return nil, p.fail("expected an object")
	}
	v, err := p.value(1)
	if err != nil {
		return nil, err
	}
	if p.pos != len(data) {
		return nil, p.fail("bytes after the end")
	}
	return v.object, nil
}

func (p *parser) fail(what string) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrNotCanonical, p.pos, what)
}

// peek returns the next byte, or 0 at the end; 0 starts no token.
func (p *parser) peek() byte {
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

// accept steps over c if it comes next.
func (p *parser) accept(c byte) bool {
	if p.peek() != c || p.pos == len(p.data) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) value(depth int) (value, error) {
	switch c := p.peek(); {
	case c == '"':
		s, err := p.text()
		return value{kind: kindText, text: s}, err
	case c >= '0' && c <= '9':
		n, err := p.integer()
		return value{kind: kindInteger, integer: n}, err
	case c == 't':
		return value{kind: kindFlag, flag: true}, p.word("true")
	case c == 'f':
		return value{kind: kindFlag}, p.word("false")
	case depth > maxDepth:
		return value{}, p.fail("nested too deep")
	case c == '[':
		a, err := p.array(depth)
		return value{kind: kindArray, array: a}, err
	case c == '{':
		o, err := p.object(depth)
		return value{kind: kindObject, object: o}, err
	}
	return value{}, p.fail("expected a value: string, integer, boolean, array or object")
}

func (p *parser) word(w string) error {
	if len(p.data)-p.pos < len(w) || string(p.data[p.pos:p.pos+len(w)]) != w {
		return p.fail("expected " + w)
	}
	p.pos += len(w)
	return nil
}

func (p *parser) integer() (int64, error) {
	start := p.pos
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.pos++
	}
	digits := string(p.data[start:p.pos])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > MaxInt || len(digits) > 1 && digits[0] == '0' {
		p.pos = start
		return 0, p.fail("expected an integer of 0 to 2^53-1 without leading zeros")
	}
	return n, nil
}

// text parses a string. A quote and a backslash are the only characters that
// RFC 8785 escapes once control characters are excluded.
func (p *parser) text() (string, error) {
	p.pos++ // the opening quote
	start := p.pos
	var out []byte // set once an escape makes the text differ from the bytes
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; {
		case c == '"':
			s := string(p.data[start:p.pos])
			p.pos++
			return string(out) + s, nil
		case c == '\\':
			out = append(out, p.data[start:p.pos]...)
			p.pos++
			if e := p.peek(); e != '"' && e != '\\' {
				return "", p.fail("escape of a character that needs none")
			}
			start = p.pos // the escaped character itself begins the next run
			p.pos++
		case c >= ' ' && c < 0x7f:
			p.pos++
		default:
			r, n := utf8.DecodeRune(p.data[p.pos:])
			if err := checkRune(r, n); err != nil {
				return "", p.fail(err.Error())
			}
			p.pos += n
		}
	}
	return "", p.fail("unterminated string")
}

// checkRune refuses what no string of an entry holds: bytes that are not
// UTF-8 and the control characters C0, DEL and C1.
func checkRune(r rune, size int) error {
	if r == utf8.RuneError && size <= 1 {
		return errNotUTF8
	}
	if r < ' ' || r >= 0x7f && r <= 0x9f {
		return errControl
	}
	return nil
}

func (p *parser) array(depth int) ([]value, error) {
	p.pos++ // the bracket
	if p.accept(']') {
		return nil, nil
	}
	var list []value
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if p.accept(']') {
			return list, nil
		}
		if !p.accept(',') {
			return nil, p.fail("expected ',' or ']'")
		}
	}
}

func (p *parser) object(depth int) ([]member, error) {
	p.pos++ // the brace
	if p.accept('}') {
		return nil, nil
	}
	var list []member
	for {
		start := p.pos
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && list[n-1].name >= name {
			p.pos = start
			return nil, p.fail("member names not in order, or one twice")
		}
		if !p.accept(':') {
			return nil, p.fail("expected ':'")
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, member{name, v})
		if p.accept('}') {
			return list, nil
		}
		if !p.accept(',') {
			return nil, p.fail("expected ',' or '}'")
		}
	}
}

func (p *parser) name() (string, error) {
	if !p.accept('"') {
		return "", p.fail("expected a member name")
	}
	start := p.pos
	for p.pos < len(p.data) && p.data[p.pos] != '"' {
		p.pos++
	}
	name := string(p.data[start:p.pos])
	if !p.accept('"') || !validName(name) {
		p.pos = start
		return "", p.fail("expected a member name of a-z, 0-9 and '_', starting with a letter")
	}
	return name, nil
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// appendObject appends the canonical form of members in any order. It trusts
// its caller with the values; Encode parses what comes out.
func appendObject(b []byte, members []member) []byte {
	sorted := sortedMembers(members)
	b = append(b, '{')
	for i, m := range sorted {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, m.name...)
		b = append(b, '"', ':')
		b = appendValue(b, m.val)
	}
	return append(b, '}')
}

func appendValue(b []byte, v value) []byte {
	switch v.kind {
	case kindText:
		return appendText(b, v.text)
	case kindInteger:
		return strconv.AppendInt(b, v.integer, 10)
	case kindFlag:
		return strconv.AppendBool(b, v.flag)
	case kindObject:
		return appendObject(b, v.object)
	}
	b = append(b, '[')
	for i, e := range v.array {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, e)
	}
	return append(b, ']')
}

func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
