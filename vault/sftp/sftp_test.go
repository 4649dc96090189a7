package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
)

// TestBroken: which errors are of the line, so that it is given up.
func TestBroken(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{sftp.ErrSSHFxConnectionLost, true},
		{io.EOF, true},
		{io.ErrUnexpectedEOF, true},
		{os.ErrDeadlineExceeded, true},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		{&transferError{fmt.Errorf("reading: %w", sftp.ErrSSHFxConnectionLost)}, true},
		{&sftp.StatusError{Code: uint32(sftp.ErrSSHFxFailure)}, false},
		{fs.ErrNotExist, false},
		{fs.ErrPermission, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, false},
		{&bodyError{io.ErrUnexpectedEOF}, false},
		{fmt.Errorf("storing: %w", &bodyError{os.ErrDeadlineExceeded}), false},
	} {
		if got := broken(tt.err); got != tt.want {
			t.Errorf("broken(%v) = %v", tt.err, got)
		}
	}
}

// TestTempName: a temporary file stands in the top directory of its name, which
// may be a file system of its own, and never has the same name again.
func TestTempName(t *testing.T) {
	s := newStore(Config{Root: "/srv/vault"})
	for name, dir := range map[string]string{"VAULT": "/srv/vault", "ledger/tile/0/000": "/srv/vault/ledger", "segments/2026/11/21/x": "/srv/vault/segments"} {
		a, b := s.tempName(name), s.tempName(name)
		if path.Dir(a) != dir || a == b || !isTemp(path.Base(a)) {
			t.Errorf("%s is written to %s and %s, expected two names in %s", name, a, b, dir)
		}
	}
}

func TestReadable(t *testing.T) {
	for _, name := range []string{"", ".", "..", "/etc/passwd", "a/../b", "a//b", "a/", "ledger/.tmp-1"} {
		if readable(name) == nil {
			t.Errorf("%q can be read", name)
		}
	}
	if err := readable("a foreign file"); err != nil {
		t.Error(err)
	}
}

// TestBodyReader marks the errors of a body, so that they are not the line's.
func TestBodyReader(t *testing.T) {
	_, err := io.ReadAll(bodyReader{io.MultiReader(strings.NewReader("x"), errReader{})})
	if _, ok := errors.AsType[*bodyError](err); !ok || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, syscall.EIO }
