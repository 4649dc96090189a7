package verify_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"logvault/vault"
	"logvault/verify"
)

// endless is a vault in which one object never ends.
type endless struct {
	vault.Reader
	name   string
	stated int64 // size that the store tells
	read   int64
}

func (e *endless) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name != e.name {
		return e.Reader.Open(ctx, name)
	}
	return io.NopCloser(e), e.stated, nil
}

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	e.read += int64(len(p))
	if e.read > 2<<30 {
		return 0, io.ErrUnexpectedEOF // the test must end
	}
	return len(p), nil
}

// TestEndlessObjects: a sparse file of exabytes in the place of an object costs
// whoever writes to the copy nothing. It is reported and not read, or the audit
// would never end.
func TestEndlessObjects(t *testing.T) {
	s := theSample()
	names := map[string]string{}
	for name := range s.files {
		top, _, _ := strings.Cut(name, "/")
		names[top] = name
	}
	for _, top := range []string{"segments", "keys", "register"} {
		for _, stated := range []int64{1 << 60, 1} { // the second grows while it is read
			if top != "segments" && stated == 1 {
				continue // a gibibyte of zeros: the same code, too slow for here
			}
			e := &endless{Reader: s.files, name: names[top], stated: stated}
			o := s.options()
			o.Vault = e
			list, _ := audit(t, o)
			expect(t, list, "damaged", verify.Error, e.name)
			if e.read > 1<<20 {
				t.Errorf("%s: %d bytes were read", e.name, e.read)
			}
		}
	}
}
