package verify

import (
	"strconv"
	"testing"
)

// FuzzParseKnown: what parses has one spelling.
func FuzzParseKnown(f *testing.F) {
	for _, s := range []string{"0", "17", "17:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "-1", "1:", "01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKnown(s)
		if err != nil {
			return
		}
		again := strconv.FormatInt(k.Size, 10)
		if k.HasRoot {
			again += ":" + k.Root.String()
		}
		if again != s {
			t.Errorf("%q is parsed as %q", s, again)
		}
	})
}
