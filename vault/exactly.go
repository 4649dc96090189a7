package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Exactly returns a reader of exactly size bytes of r: it fails if r ends
// before or goes on after them, and when ctx ends. A store reads the body of a
// Put through it, so that a length that is not what was said is never stored.
func Exactly(ctx context.Context, r io.Reader, size int64) io.Reader {
	return &exactReader{ctx: ctx, r: r, left: size}
}

type exactReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

// Read never gives more than the stated size. It gives io.EOF only after it has
// seen that r ends there too.
func (e *exactReader) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	if e.left == 0 {
		return 0, e.end()
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		return n, fmt.Errorf("body ended %d bytes before its stated size", e.left)
	}
	if err == io.EOF {
		err = nil // the next call checks the end
	}
	return n, err
}

// end returns io.EOF if r is at its end.
func (e *exactReader) end() error {
	var one [1]byte
	_, err := io.ReadFull(e.r, one[:])
	if err == nil {
		return errors.New("body is longer than its stated size")
	}
	return err
}

// compareBuffers holds the buffers of comparisons, which need two at a time.
var compareBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Same reads both to the end and reports whether they are equal. A store
// compares with it what is under a name with the body of a Put; the body, b, is
// read to its end in any case, so that its size is checked.
func Same(a, b io.Reader) (bool, error) {
	bufA, bufB := compareBuffers.Get().(*[64 << 10]byte), compareBuffers.Get().(*[64 << 10]byte)
	defer compareBuffers.Put(bufA)
	defer compareBuffers.Put(bufB)
	same := true
	for {
		na, errA := io.ReadFull(a, bufA[:])
		nb, errB := io.ReadFull(b, bufB[:])
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		same = same && bytes.Equal(bufA[:na], bufB[:nb])
		if errB != nil {
			// The body is at its end, and so its size has been checked.
			return same && errA != nil, nil
		}
	}
}
