package entry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// canonical is a second opinion on Check, made of encoding/json and of the rules
// in the package comment: parse anything, judge the value, write it anew.
func canonical(data []byte) bool {
	if len(data) > MaxSize || !utf8.Valid(data) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v map[string]any
	if d.Decode(&v) != nil || v == nil {
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		return false
	}
	var out bytes.Buffer
	return rewrite(&out, v, 1) && bytes.Equal(out.Bytes(), data)
}

// rewrite writes v, and reports whether an entry may hold it at all.
func rewrite(w *bytes.Buffer, v any, depth int) bool {
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || name == "" || name[0] < 'a' {
				return false
			}
			names = append(names, name)
		}
		slices.Sort(names)
		w.WriteByte('{')
		for i, name := range names {
			if i > 0 {
				w.WriteByte(',')
			}
			fmt.Fprintf(w, `"%s":`, name)
			if !rewrite(w, v[name], depth+1) {
				return false
			}
		}
		w.WriteByte('}')
		return depth <= 4
	case []any:
		w.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				w.WriteByte(',')
			}
			if !rewrite(w, e, depth+1) {
				return false
			}
		}
		w.WriteByte(']')
		return depth <= 4
	case json.Number:
		n, err := strconv.ParseUint(v.String(), 10, 64)
		fmt.Fprint(w, n)
		return err == nil && n <= 1<<53-1
	case string:
		for _, r := range v {
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				return false
			}
		}
		w.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`)
		return true
	case bool:
		fmt.Fprint(w, v)
		return true
	}
	return false // null
}

// agree compares Check with the second opinion.
func agree(t *testing.T, data []byte) bool {
	t.Helper()
	err := Check(data)
	if (err == nil) != canonical(data) {
		t.Fatalf("%q: Check says %v, the rules say %v", data, err, canonical(data))
	}
	if err != nil && !errors.Is(err, ErrNotCanonical) && !errors.Is(err, ErrTooLarge) {
		t.Fatalf("%q: error %v of neither kind", data, err)
	}
	return err == nil
}

// sloppy writes random JSON, mostly canonical, with a slip here and there.
type sloppy struct {
	rng  *rand.Rand
	slip float64 // the chance of each slip
	out  strings.Builder
}

func (s *sloppy) slips() bool { return s.rng.Float64() < s.slip }

func (s *sloppy) pick(list ...string) string { return list[s.rng.IntN(len(list))] }

func (s *sloppy) space() {
	if s.slips() {
		s.out.WriteString(s.pick(" ", "\n", "\t", "\r", "\ufeff", "\v", "\x00", "/**/"))
	}
}

func (s *sloppy) value(depth int) {
	s.space()
	defer s.space()
	n := s.rng.IntN(8)
	if depth > 4 && !s.slips() {
		n %= 4
	}
	switch n {
	case 0, 1:
		if s.slips() {
			s.out.WriteString(s.pick("-0", "-1", "1.0", "1e3", "01", "00", "9007199254740992", "18446744073709551616", "null", "NaN", "tru", "True", "+1", ".5", "0x1", "1_0"))
			return
		}
		s.out.WriteString(s.pick("0", "1", "10", "4096", "9007199254740991", "true", "false"))
	case 2, 3, 4:
		s.text()
	case 5, 6:
		s.out.WriteByte('[')
		for i := range s.rng.IntN(4) {
			if i > 0 != s.slips() {
				s.out.WriteByte(',')
			}
			s.value(depth + 1)
		}
		s.out.WriteString("]")
	default:
		s.object(depth)
	}
}

func (s *sloppy) text() {
	s.out.WriteByte('"')
	for range s.rng.IntN(5) {
		if s.slips() {
			s.out.WriteString(s.pick(`\/`, `\n`, `\u0041`, `\u000a`, `\ud83d\ude00`, `\ud800`, `\x41`, "\n", "\x7f", "\u0085", "\xff", "\xc0\xaf", "\xed\xa0\x80", `"`, `\`))
			continue
		}
		s.out.WriteString(s.pick("a", "Z", "/", "é", "\u2028", "😀", `\"`, `\\`, "'", "<", "\ufeff", "\ufffd"))
	}
	s.out.WriteByte('"')
}

func (s *sloppy) object(depth int) {
	names := []string{"a", "a0", "a_", "aa", "b", "type", "z"}
	s.out.WriteByte('{')
	for i := range s.rng.IntN(4) {
		if i > 0 != s.slips() {
			s.out.WriteByte(',')
		}
		s.space()
		k := s.rng.IntN(len(names) - 3 + i)
		name := names[k]
		if !s.slips() {
			names = append(names[:0:0], names[k+1:]...) // rising, none twice
		}
		if len(names) < 4 {
			names = append(names, "zz", "zzz", "zzzz", "zzzzz")
		}
		if s.slips() {
			name = s.pick("", "A", "0a", "_a", "é", `\u0061`, "a b", "a-b")
		}
		fmt.Fprintf(&s.out, `"%s"`, name)
		s.space()
		s.out.WriteString(":")
		s.value(depth + 1)
	}
	s.out.WriteString("}")
}

// TestAgainstSecondOpinion compares Check with encoding/json and the rules on
// random documents, of which enough are canonical and enough are not.
func TestAgainstSecondOpinion(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	good, bad := 0, 0
	for n := range 15_000 {
		s := &sloppy{rng: rng, slip: []float64{0, 0.01, 0.05}[n%3]}
		s.object(1)
		if agree(t, []byte(s.out.String())) {
			good++
		} else {
			bad++
		}
	}
	if good < 2500 || bad < 2500 {
		t.Errorf("%d canonical documents, %d others; expected at least 2500 of each", good, bad)
	}
}

// TestSecondOpinionOnEditedEntries cuts, doubles and swaps parts of the golden lines.
func TestSecondOpinionOnEditedEntries(t *testing.T) {
	const edits = "\"\\{}[],:0-. \n\x00\xffaZ_"
	rng := rand.New(rand.NewPCG(5, 6))
	lines, _ := goldenLines(t)
	for _, line := range lines {
		for range 300 {
			data := bytes.Clone(line)
			for range 1 + rng.IntN(2) {
				i := rng.IntN(len(data))
				j := min(len(data), i+1+rng.IntN(8))
				switch rng.IntN(3) {
				case 0:
					data = slices.Delete(data, i, j)
				case 1:
					data = slices.Insert(data, i, data[i:j]...)
				default:
					data[i] = edits[rng.IntN(len(edits))]
				}
			}
			agree(t, data)
		}
	}
}

// TestEveryRune puts every code point of plane 0, and some of the others, into a string: raw it is refused exactly
// if it is a control character, and escaped always.
func TestEveryRune(t *testing.T) {
	step := rune(1)
	for r := rune(0); r <= utf8.MaxRune; r += step {
		if r >= 0x10000 {
			step = 251
		}
		if r >= 0xd800 && r <= 0xdfff {
			continue // no code point; TestInvalidUTF8 has them
		}
		data := []byte(`{"a":"` + string(r) + `"}`)
		want := r >= 0x20 && r != '"' && r != '\\' && (r < 0x7f || r > 0x9f)
		if err := Check(data); (err == nil) != want {
			t.Fatalf("U+%04X: %v, expected accepted: %v", r, err, want)
		}
	}
	for r := 0; r < 0x10000; r += 7 {
		for _, form := range []string{`{"a":"\u%04x"}`, `{"a":"\u%04X"}`} {
			if err := Check(fmt.Appendf(nil, form, r)); !errors.Is(err, ErrNotCanonical) {
				t.Fatalf("\\u%04x: %v, expected ErrNotCanonical", r, err)
			}
		}
	}
	for c := range 256 {
		data := append([]byte(`{"a":"\`), byte(c), '"', '}')
		if err := Check(data); (err == nil) != (c == '"' || c == '\\') {
			t.Errorf("escaped byte %#x: %v", c, err)
		}
	}
}

// TestInvalidUTF8: every pair of bytes that is not UTF-8, and what longer forms
// have gone wrong with in other parsers.
func TestInvalidUTF8(t *testing.T) {
	for a := 0x80; a < 0x100; a++ {
		for b := range 0x100 {
			pair := []byte{byte(a), byte(b)}
			if utf8.Valid(pair) {
				continue
			}
			if err := Check(fmt.Appendf(nil, `{"a":"%s"}`, pair)); !errors.Is(err, ErrNotCanonical) {
				t.Fatalf("% x: %v, expected ErrNotCanonical", pair, err)
			}
		}
	}
	for _, s := range []string{
		"\xe0\x80\xaf", "\xf0\x80\x80\xaf", // overlong
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\xbd\xed\xb8\x80", // surrogates, one and a pair
		"\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", // beyond U+10FFFF
		"\xe2\x82", "\xf0\x9f\x98", "a\x80", // cut, out of nowhere
	} {
		for _, form := range []string{`{"a":"%s"}`, `{"a":"%sx"}`, `{"a%s":1}`} {
			if err := Check(fmt.Appendf(nil, form, s)); !errors.Is(err, ErrNotCanonical) {
				t.Errorf("% x in %s: %v, expected ErrNotCanonical", s, form, err)
			}
		}
	}
	if err := Check([]byte("{\"a\":\"\ufffd\"}")); err != nil {
		t.Errorf("a true U+FFFD: %v", err)
	}
}

// TestSpaceEverywhere puts white space, a mark or a comment before and behind
// every token of every golden entry.
func TestSpaceEverywhere(t *testing.T) {
	lines, _ := goldenLines(t)
	for _, line := range lines {
		inText := false
		for i, c := range line {
			if c == '"' && line[i-1] != '\\' {
				inText = !inText
			}
			if inText || !strings.ContainsRune(`{}[],:"`, rune(c)) {
				continue
			}
			for _, s := range []string{" ", "\t", "\n", "\r", "\v", "\f", "\x00", "\u00a0", "\ufeff", "//\n"} {
				data := slices.Concat(line[:i+1], []byte(s), line[i+1:])
				if err := Check(data); !errors.Is(err, ErrNotCanonical) {
					t.Fatalf("%q: %v, expected ErrNotCanonical", data, err)
				}
			}
		}
		for _, s := range []string{" ", "\n", "\ufeff", "\xff\xfe", "\x1f\x8b", "[", "\""} {
			if err := Check(append([]byte(s), line...)); !errors.Is(err, ErrNotCanonical) {
				t.Errorf("%q in front: %v, expected ErrNotCanonical", s, err)
			}
			if err := Check(append(bytes.Clone(line), s...)); !errors.Is(err, ErrNotCanonical) {
				t.Errorf("%q behind: %v, expected ErrNotCanonical", s, err)
			}
		}
	}
}

// TestOrderOfMembers swaps and doubles members of every golden entry, also those
// of nested objects.
func TestOrderOfMembers(t *testing.T) {
	_, parsed := goldenLines(t)
	spellMembers := func(members []member) []byte { // as they come
		b := []byte{'{'}
		for i, m := range members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(append(append(append(b, '"'), m.name...), '"', ':'), m.val)
		}
		return append(b, '}')
	}
	for _, members := range parsed {
		for i := range members {
			twice := slices.Insert(slices.Clone(members), i, members[i])
			if err := Check(spellMembers(twice)); !errors.Is(err, ErrNotCanonical) {
				t.Errorf("%s twice: %v", members[i].name, err)
			}
			for j := range i {
				swapped := slices.Clone(members)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				if err := Check(spellMembers(swapped)); !errors.Is(err, ErrNotCanonical) {
					t.Errorf("%s and %s swapped: %v", members[i].name, members[j].name, err)
				}
			}
		}
	}
	for _, data := range []string{
		`{"a":{"b":1,"a":2}}`, `{"a":{"a":1,"a":1}}`, `{"a":[{"b":1,"a":1}]}`, `{"a_":1,"a0":1}`, `{"ab":1,"a":1}`, `{"a":1,"A":1}`, `{"_":1}`, `{"a":1,"":1}`,
	} {
		if err := Check([]byte(data)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v, expected ErrNotCanonical", data, err)
		}
	}
	if err := Check([]byte(`{"a":1,"a0":1,"a_":1,"aa":1,"b":{"a":1,"b":1}}`)); err != nil {
		t.Error(err)
	}
}

// TestNumbers lists spellings of numbers.
func TestNumbers(t *testing.T) {
	for s, ok := range map[string]bool{
		"0": true, "1": true, "10": true, "9007199254740991": true, "9007199254740990": true,
		"-0": false, "-1": false, "+1": false, "00": false, "01": false, "0.0": false, "1.": false, ".1": false, "1e0": false, "1E3": false, "1e-1": false,
		"9007199254740992": false, "9223372036854775807": false, "9223372036854775808": false, "18446744073709551617": false,
		strings.Repeat("9", 400): false, "0x1": false, "1_000": false, "Infinity": false, "NaN": false, "null": false, "١": false,
	} {
		for _, form := range []string{`{"a":%s}`, `{"a":[%s]}`, `{"a":%s,"b":1}`} {
			data := fmt.Sprintf(form, s)
			if agree(t, []byte(data)) != ok {
				t.Errorf("%s: expected accepted: %v", data, ok)
			}
		}
	}
}

// TestDepth nests arrays and objects in all ways up to depth 6: four levels pass.
func TestDepth(t *testing.T) {
	for depth := 1; depth <= 6; depth++ {
		for mask := range 1 << (depth - 1) { // which levels below the first are objects
			open, closing := `{"a":`, "}"
			for level := range depth - 1 {
				if mask>>level&1 == 1 {
					open, closing = open+`{"a":`, "}"+closing
				} else {
					open, closing = open+"[", "]"+closing
				}
			}
			data := open + "1" + closing
			if err := Check([]byte(data)); (err == nil) != (depth <= 4) || err != nil && !errors.Is(err, ErrNotCanonical) {
				t.Errorf("depth %d: %s: %v", depth, data, err)
			}
		}
	}
	// A hostile depth costs no stack.
	if err := Check([]byte(`{"a":` + strings.Repeat("[", MaxSize-10))); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("65525 brackets: %v", err)
	}
}

// TestSizes: the limit counts bytes of the whole entry, for Check, Decode and Encode.
func TestSizes(t *testing.T) {
	for _, fill := range []string{"x", "é", `\"`} { // one byte, two, two that stand for one
		for size := MaxSize - 2; size <= MaxSize+2; size++ {
			head, tail := held()[:len(held())-1]+`,"x":"`, `"}`
			room := size - len(head) - len(tail)
			data := []byte(head + strings.Repeat(fill, room/len(fill)) + strings.Repeat("y", room%len(fill)) + tail)
			if len(data) != size {
				t.Fatalf("the test made %d bytes, not %d", len(data), size)
			}
			e, err := Decode(data)
			if size > MaxSize {
				if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotCanonical) {
					t.Errorf("%d bytes: %v, expected ErrTooLarge only", size, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if again, err := Encode(e); err != nil || !bytes.Equal(again, data) {
				t.Errorf("%d bytes: encodes to %d, %v", size, len(again), err)
			}
			// One more character in what the type knows, and Encode must refuse.
			e.Head().Actor += strings.Repeat("z", MaxSize-size+1)
			if data, err := Encode(e); !errors.Is(err, ErrTooLarge) {
				t.Errorf("encoded %d bytes, %v, expected ErrTooLarge", len(data), err)
			}
		}
	}
}

// TestEncodeDoesNotTouch: encoding leaves the entry as it was, and two runs agree.
func TestEncodeDoesNotTouch(t *testing.T) {
	for i, e := range samples() {
		first, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(e, samples()[i]) {
			t.Errorf("%s: Encode changed the entry to %+v", e.Type(), e)
		}
		if second, err := Encode(e); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: encoded again: %s, %v", e.Type(), second, err)
		}
	}
}
