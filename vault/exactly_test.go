package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
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

// pieces gives its bytes in random pieces, some of them empty, and its error
// after the last, with it or behind it.
type pieces struct {
	rng  *rand.Rand
	data []byte
	err  error
}

func (p *pieces) Read(buf []byte) (int, error) {
	n := copy(buf, p.data[:min(len(p.data), p.rng.IntN(5000))])
	p.data = p.data[n:]
	if len(p.data) == 0 && (n == 0 || p.rng.IntN(2) == 0) {
		return n, p.err
	}
	return n, nil
}

// TestRandomPieces reads bodies that come in any pieces and end well or badly: a
// stated size holds exactly, and two bodies are the same if their bytes are.
func TestRandomPieces(t *testing.T) {
	const seed = 5
	broken := errors.New("broken")
	rng, bodies := rand.New(rand.NewPCG(seed, 0)), 400
	if testing.Short() {
		bodies = 80
	}
	for range bodies {
		data := make([]byte, rng.IntN(200<<10))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		stated := int64(len(data) + []int{0, 0, 1, -1, 70000, -70000}[rng.IntN(6)])
		end := []error{io.EOF, io.EOF, broken}[rng.IntN(3)]
		got, err := io.ReadAll(Exactly(context.Background(), &pieces{rng, data, end}, max(0, stated)))
		good := max(0, stated) == int64(len(data)) && end == io.EOF
		if (err == nil) != good || good && !bytes.Equal(got, data) || !bytes.HasPrefix(data, got) {
			t.Fatalf("seed %d: %d bytes stated as %d, ending with %v: %d bytes, %v", seed, len(data), stated, end, len(got), err)
		}
		other := bytes.Clone(data)
		if len(other) > 0 && rng.IntN(2) == 0 {
			other[rng.IntN(len(other))] ^= 1
		}
		want := bytes.Equal(data, other)
		same, err := Same(&pieces{rng, data, io.EOF}, Exactly(context.Background(), &pieces{rng, other, end}, int64(len(other))))
		if end == io.EOF && (same != want || err != nil) || end == broken && (same || !errors.Is(err, broken)) {
			t.Fatalf("seed %d: %d bytes, ending with %v: same %v, %v; expected %v", seed, len(data), end, same, err, want)
		}
	}
}
