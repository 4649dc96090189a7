package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestExactly(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		body string
		size int64
		ok   bool
	}{{"", 0, true}, {"abc", 3, true}, {"abc", 2, false}, {"abc", 4, false}, {"", 1, false}, {"x", 0, false}} {
		for _, r := range []io.Reader{strings.NewReader(tt.body), iotest.OneByteReader(strings.NewReader(tt.body)), iotest.DataErrReader(strings.NewReader(tt.body))} {
			data, err := io.ReadAll(Exactly(ctx, r, tt.size))
			if (err == nil) != tt.ok || tt.ok && string(data) != tt.body {
				t.Errorf("%q as %d bytes: %q, %v", tt.body, tt.size, data, err)
			}
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := io.ReadAll(Exactly(ended, strings.NewReader("abc"), 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
}

func TestSame(t *testing.T) {
	const n = 64 << 10 // the size of a buffer
	for _, a := range []int{0, 1, n - 1, n, n + 1, 2 * n} {
		for _, b := range []int{0, 1, n - 1, n, n + 1, 2 * n} {
			same, err := Same(bytes.NewReader(make([]byte, a)), iotest.HalfReader(bytes.NewReader(make([]byte, b))))
			if same != (a == b) || err != nil {
				t.Errorf("%d and %d bytes: same %v, %v", a, b, same, err)
			}
		}
		if a == 0 {
			continue
		}
		other := make([]byte, a)
		other[a-1] = 1
		if same, _ := Same(bytes.NewReader(make([]byte, a)), bytes.NewReader(other)); same {
			t.Errorf("%d bytes whose last differs are the same", a)
		}
	}
	broken := errors.New("broken")
	for _, pair := range [][2]io.Reader{{iotest.ErrReader(broken), strings.NewReader("x")}, {strings.NewReader("x"), iotest.ErrReader(broken)}} {
		if same, err := Same(pair[0], pair[1]); same || !errors.Is(err, broken) {
			t.Errorf("with a broken reader: %v, %v", same, err)
		}
	}
}
