package entry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"logvault/vault"
)

// timeForm is the one text form of a time.
const timeForm = "2006-01-02T15:04:05.000Z"

var (
	errAbsent   = errors.New("absent")
	errNotUTF8  = errors.New("not UTF-8")
	errControl  = errors.New("control character")
	errZeroTime = errors.New("no time")
	errZeroHash = errors.New("no hash")
)

// codec carries one object between a struct and its members. The methods named
// after kinds of values each handle one member in the direction at hand: when
// decoding they take it out of in and set *p, when encoding they append *p to
// out. The first error sticks; later calls still take their member.
type codec struct {
	decoding bool
	typ      Type
	in       []member // decoding: members not yet taken
	taken    []string // decoding: names of those taken, which are the known ones
	out      []member // encoding
	err      error
}

func (c *codec) fail(name string, err error) {
	if c.err == nil {
		c.err = &FieldError{Type: c.typ, Member: name, Err: err}
	}
}

// take removes a member from in. ok is false if it is absent or, with an
// error recorded, of another kind.
func (c *codec) take(name string, want kind) (v value, ok bool) {
	i := slices.IndexFunc(c.in, func(m member) bool { return m.name == name })
	if i < 0 {
		return value{}, false
	}
	c.taken = append(c.taken, name)
	v = c.in[i].val
	c.in = slices.Delete(c.in, i, i+1)
	if v.kind != want {
		c.fail(name, fmt.Errorf("%v, expected %v", v.kind, want))
		return value{}, false
	}
	return v, true
}

// need is take for a member that must be there.
func (c *codec) need(name string, want kind) (value, bool) {
	v, ok := c.take(name, want)
	if !ok {
		c.fail(name, errAbsent)
	}
	return v, ok
}

func (c *codec) put(name string, v value) { c.out = append(c.out, member{name, v}) }

func (c *codec) integer(name string, p *int64) {
	if c.decoding {
		if v, ok := c.need(name, kindInteger); ok {
			*p = v.integer
		}
		return
	}
	if *p < 0 || *p > MaxInt {
		c.fail(name, fmt.Errorf("%d, expected 0 to 2^53-1", *p))
	}
	c.put(name, value{kind: kindInteger, integer: *p})
}

// positive is integer for a value of at least 1.
func (c *codec) positive(name string, p *int64) {
	c.integer(name, p)
	if c.err == nil && *p == 0 {
		c.fail(name, errors.New("0, expected at least 1"))
	}
}

// optionalIndex is integer where -1 stands for absent.
func (c *codec) optionalIndex(name string, p *int64) {
	switch {
	case !c.decoding && *p != -1:
		c.integer(name, p)
	case c.decoding:
		*p = -1
		if v, ok := c.take(name, kindInteger); ok {
			*p = v.integer
		}
	}
}

// flag is present and true, or absent.
func (c *codec) flag(name string, p *bool) {
	if !c.decoding {
		if *p {
			c.put(name, value{kind: kindFlag, flag: true})
		}
		return
	}
	v, ok := c.take(name, kindFlag)
	if ok && !v.flag {
		c.fail(name, errors.New("false, expected true or absent"))
	}
	*p = v.flag
}

// text is a string that check, if not nil, accepts.
func (c *codec) text(name string, p *string, check func(string) error) {
	if c.decoding {
		v, ok := c.need(name, kindText)
		if !ok {
			return
		}
		*p = v.text
	} else {
		c.put(name, value{kind: kindText, text: *p})
	}
	c.check(name, *p, check)
}

// optionalText is text where "" stands for absent.
func (c *codec) optionalText(name string, p *string, check func(string) error) {
	if !c.decoding {
		if *p != "" {
			c.text(name, p, check)
		}
		return
	}
	v, ok := c.take(name, kindText)
	if !ok {
		return
	}
	if *p = v.text; *p == "" {
		c.fail(name, errors.New("empty, expected a value or absent"))
	}
	c.check(name, *p, check)
}

// check applies check to a string in either direction.
func (c *codec) check(name, s string, check func(string) error) {
	if err := checkText(s); err != nil {
		c.fail(name, err)
	}
	if check == nil {
		return
	}
	if err := check(s); err != nil {
		c.fail(name, err)
	}
}

// scalar handles a value with a text form: format gives it, parse reads it and
// accepts no other spelling.
func scalar[T any](c *codec, name string, p *T, format func(T) (string, error), parse func(string) (T, error)) {
	if !c.decoding {
		s, err := format(*p)
		if err != nil {
			c.fail(name, err)
		}
		c.put(name, value{kind: kindText, text: s})
		return
	}
	v, ok := c.need(name, kindText)
	if !ok {
		return
	}
	x, err := parse(v.text)
	if err != nil {
		c.fail(name, err)
		return
	}
	*p = x
}

// present reports whether an optional member is to be handled: set in the
// struct when encoding, there when decoding.
func (c *codec) present(name string, set bool) bool {
	if !c.decoding {
		return set
	}
	return slices.ContainsFunc(c.in, func(m member) bool { return m.name == name })
}

func (c *codec) hash(name string, p *vault.Hash) {
	scalar(c, name, p, func(h vault.Hash) (string, error) {
		if h.IsZero() {
			return "", errZeroHash
		}
		return h.String(), nil
	}, func(s string) (vault.Hash, error) {
		h, err := vault.ParseHash(s)
		if err == nil && h.IsZero() {
			err = errZeroHash
		}
		return h, err
	})
}

func (c *codec) optionalHash(name string, p *vault.Hash) {
	if c.present(name, !p.IsZero()) {
		c.hash(name, p)
	}
}

func (c *codec) stream(name string, p *vault.StreamID) {
	scalar(c, name, p, func(id vault.StreamID) (string, error) { return id.String(), nil }, vault.ParseStreamID)
}

func (c *codec) optionalStream(name string, p **vault.StreamID) {
	if !c.present(name, *p != nil) {
		return
	}
	if c.decoding {
		*p = new(vault.StreamID)
	}
	c.stream(name, *p)
}

func (c *codec) time(name string, p *time.Time) {
	scalar(c, name, p, formatTime, parseTime)
}

// optionalTime is time where the zero time stands for absent.
func (c *codec) optionalTime(name string, p *time.Time) {
	if c.present(name, !p.IsZero()) {
		c.time(name, p)
	}
}

func formatTime(t time.Time) (string, error) {
	t = t.UTC()
	if t.IsZero() {
		return "", errZeroTime
	}
	if y := t.Year(); y < 1 || y > 9999 {
		return "", fmt.Errorf("year %d, expected 1 to 9999", y)
	}
	return t.Truncate(time.Millisecond).Format(timeForm), nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err == nil {
		var again string
		if again, err = formatTime(t); err == nil && again == s {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q, expected a time as %s", s, timeForm)
}

func (c *codec) day(name string, p *vault.Day) {
	scalar(c, name, p, func(d vault.Day) (string, error) {
		s := d.String()
		_, err := parseDay(s)
		return s, err
	}, parseDay)
}

func parseDay(s string) (vault.Day, error) {
	d, err := vault.ParseDay(s)
	if err == nil && (d.String() != s || d.Year < 1) {
		err = fmt.Errorf("day %q: expected YYYY-MM-DD", s)
	}
	return d, err
}

func (c *codec) class(name string, p *vault.Class) {
	c.text(name, (*string)(p), func(s string) error { return vault.Class(s).Valid() })
}

func (c *codec) optionalClass(name string, p *vault.Class) {
	if c.present(name, *p != "") {
		c.class(name, p)
	}
}

func (c *codec) source(name string, p *vault.Source) {
	c.text(name, (*string)(p), func(s string) error { return vault.Source(s).Valid() })
}

func (c *codec) optionalSource(name string, p *vault.Source) {
	if c.present(name, *p != "") {
		c.source(name, p)
	}
}

// oneOf is a string out of a fixed list.
func (c *codec) oneOf(name string, p *string, list ...string) {
	c.text(name, p, func(s string) error {
		if slices.Contains(list, s) {
			return nil
		}
		return fmt.Errorf("%q, expected one of %s", s, strings.Join(list, ", "))
	})
}

// binary is a byte string of 1 to max bytes in base64.
func (c *codec) binary(name string, p *[]byte, max int) {
	scalar(c, name, p, func(b []byte) (string, error) {
		return base64.StdEncoding.EncodeToString(b), checkLength(len(b), 1, max)
	}, func(s string) ([]byte, error) {
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil, errors.New("not standard base64")
		}
		return b, checkLength(len(b), 1, max)
	})
}

// texts is an array of strings that check accepts, sorted, none twice, at
// least min.
func (c *codec) texts(name string, p *[]string, min int, check func(string) error) {
	if c.decoding {
		v, ok := c.need(name, kindArray)
		if !ok {
			return
		}
		for _, e := range v.array {
			if e.kind != kindText {
				c.fail(name, fmt.Errorf("%v, expected %v", e.kind, kindText))
				return
			}
			*p = append(*p, e.text)
		}
	} else {
		list := make([]value, len(*p))
		for i, s := range *p {
			list[i] = value{kind: kindText, text: s}
		}
		c.put(name, value{kind: kindArray, array: list})
	}
	if len(*p) < min {
		c.fail(name, fmt.Errorf("%d elements, expected at least %d", len(*p), min))
	}
	for i, s := range *p {
		c.check(name, s, check)
		if i > 0 && (*p)[i-1] >= s {
			c.fail(name, errNotSorted)
		}
	}
}

var errNotSorted = errors.New("not sorted, or an element twice")

// integers is an array of at least one integer, rising.
func (c *codec) integers(name string, p *[]int64) {
	if c.decoding {
		v, ok := c.need(name, kindArray)
		if !ok {
			return
		}
		for _, e := range v.array {
			if e.kind != kindInteger {
				c.fail(name, fmt.Errorf("%v, expected %v", e.kind, kindInteger))
				return
			}
			*p = append(*p, e.integer)
		}
	} else {
		list := make([]value, len(*p))
		for i, n := range *p {
			if n < 0 || n > MaxInt {
				c.fail(name, fmt.Errorf("%d, expected 0 to 2^53-1", n))
			}
			list[i] = value{kind: kindInteger, integer: n}
		}
		c.put(name, value{kind: kindArray, array: list})
	}
	if len(*p) == 0 {
		c.fail(name, errors.New("no elements, expected at least 1"))
	}
	for i := 1; i < len(*p); i++ {
		if (*p)[i-1] >= (*p)[i] {
			c.fail(name, errNotSorted)
		}
	}
}

// objects is an array of objects, each with the members that each names,
// sorted by key, none twice, at least min.
func objects[T any](c *codec, name string, p *[]T, min int, key func(*T) string, each func(*codec, *T)) {
	if c.decoding {
		v, ok := c.need(name, kindArray)
		if !ok {
			return
		}
		for _, e := range v.array {
			if e.kind != kindObject {
				c.fail(name, fmt.Errorf("%v, expected %v", e.kind, kindObject))
				return
			}
			// A nested object has no place to keep unknown members in, and
			// no crit to announce them: there are none.
			sub := &codec{decoding: true, typ: c.typ, in: e.object}
			var x T
			each(sub, &x)
			if len(sub.in) > 0 {
				sub.fail(sub.in[0].name, errors.New("unknown"))
			}
			c.nested(name, sub)
			*p = append(*p, x)
		}
	} else {
		list := make([]value, len(*p))
		for i := range *p {
			sub := &codec{typ: c.typ}
			each(sub, &(*p)[i])
			c.nested(name, sub)
			list[i] = value{kind: kindObject, object: sub.out}
		}
		c.put(name, value{kind: kindArray, array: list})
	}
	if len(*p) < min {
		c.fail(name, fmt.Errorf("%d elements, expected at least %d", len(*p), min))
	}
	for i := 1; i < len(*p); i++ {
		if key(&(*p)[i-1]) >= key(&(*p)[i]) {
			c.fail(name, errNotSorted)
		}
	}
}

// nested takes over the error of a nested object.
func (c *codec) nested(name string, sub *codec) {
	var f *FieldError
	if errors.As(sub.err, &f) {
		c.fail(name+"."+f.Member, f.Err)
	}
}

// header handles the members that every entry has, except v and type.
func (c *codec) header(h *Header) {
	c.time("time", &h.Time)
	c.text("actor", &h.Actor, checkRole)
	if c.present("crit", len(h.Crit) > 0) {
		c.texts("crit", &h.Crit, 1, nil)
	}
}

// takeExtra writes back the members that this version did not know.
func (c *codec) takeExtra(h *Header) {
	for _, m := range h.extra {
		if slices.ContainsFunc(c.out, func(o member) bool { return o.name == m.name }) {
			continue // the struct was given a value since
		}
		c.out = append(c.out, m)
	}
	for _, name := range h.Crit {
		if !slices.ContainsFunc(c.out, func(o member) bool { return o.name == name }) {
			c.fail("crit", fmt.Errorf("names %q, which is absent", name))
		}
	}
}

// checkCrit returns ErrNewer if a critical member is one that this version
// does not know. That outranks other errors: they may follow from it.
func (c *codec) checkCrit(crit []string) error {
	for _, name := range crit {
		if slices.ContainsFunc(c.in, func(m member) bool { return m.name == name }) {
			return fmt.Errorf("critical member %q of a %s entry: %w", name, c.typ, ErrNewer)
		}
	}
	for _, name := range crit {
		if !slices.Contains(c.taken, name) {
			c.fail("crit", fmt.Errorf("names %q, which is absent", name))
		}
	}
	return nil
}

func sortedMembers(members []member) []member {
	sorted := slices.Clone(members)
	slices.SortFunc(sorted, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return sorted
}
