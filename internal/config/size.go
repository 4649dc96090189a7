package config

import (
	"fmt"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes. Its text form is a whole number with one of
// the units KiB, MiB, GiB, TiB or none, such as "32MiB".
type ByteSize int64

var units = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// ParseByteSize parses the text form.
func ParseByteSize(s string) (ByteSize, error) {
	number, factor := s, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || int64(n) > (1<<62)/factor {
		return 0, fmt.Errorf("size %q: expected a whole number of bytes with KiB, MiB, GiB or TiB, such as 32MiB", s)
	}
	return ByteSize(int64(n) * factor), nil
}

// UnmarshalText parses the text form.
func (b *ByteSize) UnmarshalText(text []byte) error {
	v, err := ParseByteSize(string(text))
	*b = v
	return err
}

// MarshalText gives the text form.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String gives the shortest exact text form.
func (b ByteSize) String() string {
	for _, u := range units {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
