package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

// TestNamed: the last bytes leave only if the body ends there and is what its
// name says. A server that was told the length then has no whole object.
func TestNamed(t *testing.T) {
	const data = "the bytes of an object"
	for what, tt := range map[string]struct {
		body string
		want string // whose hash is in the name
		ok   bool
	}{
		"right":       {data, data, true},
		"other bytes": {"THE bytes of an object", data, false},
		"longer":      {data + "!", data, false},
		"shorter":     {data[1:], data, false},
	} {
		for _, slow := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
			n := &named{r: vault.Exactly(context.Background(), slow(strings.NewReader(tt.body)), int64(len(data))), left: int64(len(data)), h: sha256.New(), want: vault.HashOf([]byte(tt.want))}
			got, err := io.ReadAll(n)
			if tt.ok && (err != nil || string(got) != data) {
				t.Errorf("%s: %q, %v", what, got, err)
			}
			if _, body := errors.AsType[*bodyError](err); !tt.ok && (!body || len(got) >= len(data)) {
				t.Errorf("%s: %d bytes left, %v, expected an error of the body before the last of %d", what, len(got), err, len(data))
			}
		}
	}
}

// TestCounts: which version counts, of a list with the newest first.
func TestCounts(t *testing.T) {
	all := []minio.ObjectInfo{{VersionID: "new"}, {VersionID: "old"}}
	segment := vault.SegmentName(vault.Day{Year: 2026, Month: time.November, Day: 21}, vault.HashOf(nil), vault.Gzip)
	for name, want := range map[string]string{
		vault.MarkerName: "old", segment: "old", "ledger/tile/0/000": "old", "ledger/checkpoints/7": "old",
		"ledger/checkpoint": "new", "copy/nas2/log/checkpoint": "new", "ledger/tile/0/000.p/7": "new", "a foreign object": "new",
	} {
		if got := counts(object(name), all).VersionID; got != want {
			t.Errorf("%s: the %s version counts, expected the %s one", name, got, want)
		}
	}
	if got := data([]minio.ObjectInfo{{IsDeleteMarker: true}, {VersionID: "a"}, {IsDeleteMarker: true}}); len(got) != 1 || got[0].VersionID != "a" {
		t.Errorf("without delete markers: %+v", got)
	}
}

// TestFail: what callers branch on, by what a server or the line says.
func TestFail(t *testing.T) {
	s := &Store{}
	answer := func(status int, code string) error {
		return minio.ErrorResponse{StatusCode: status, Code: code, Message: "said so"}
	}
	lasting := errors.New("no class of its own")
	for _, tt := range []struct{ err, want error }{
		{answer(404, "NoSuchKey"), vault.ErrNotExist},
		{answer(404, "NoSuchVersion"), vault.ErrNotExist},
		{answer(404, ""), vault.ErrNotExist},
		{answer(404, "NoSuchBucket"), vault.ErrNoVault},
		{answer(403, "AccessDenied"), fs.ErrPermission},
		{answer(401, ""), fs.ErrPermission},
		{answer(507, "XMinioStorageFull"), syscall.ENOSPC},
		{answer(400, "QuotaExceeded"), syscall.ENOSPC},
		{answer(500, "InternalError"), vault.ErrUnreachable},
		{answer(503, "SlowDown"), vault.ErrUnreachable},
		{answer(429, ""), vault.ErrUnreachable},
		{answer(400, "MalformedXML"), lasting},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, vault.ErrUnreachable},
		{io.ErrUnexpectedEOF, vault.ErrUnreachable},
		{context.Canceled, context.Canceled},
		{&url.Error{Op: "Get", URL: "http://a", Err: context.DeadlineExceeded}, context.DeadlineExceeded},
		{&url.Error{Op: "Get", URL: "http://a", Err: lateHeaders{}}, vault.ErrUnreachable},
		{&bodyError{syscall.EIO}, syscall.EIO},
	} {
		got := s.fail("what", tt.err)
		if tt.want == lasting {
			for _, class := range []error{vault.ErrNotExist, vault.ErrNoVault, vault.ErrUnreachable, fs.ErrPermission} {
				if errors.Is(got, class) {
					t.Errorf("%v: %v", tt.err, got)
				}
			}
		} else if !errors.Is(got, tt.want) || !strings.HasPrefix(got.Error(), "what: ") {
			t.Errorf("%v: %v, expected %v", tt.err, got, tt.want)
		}
		if errors.Is(tt.err, context.Canceled) && errors.Is(got, vault.ErrUnreachable) {
			t.Error("a cancelled call passes for a broken line")
		}
	}
	if s.fail("what", nil) != nil {
		t.Error("no error became one")
	}
}

// lateHeaders is like net/http's error of a server that does not answer.
type lateHeaders struct{}

func (lateHeaders) Error() string        { return "net/http: timeout awaiting response headers" }
func (lateHeaders) Is(target error) bool { return target == context.DeadlineExceeded }
func (lateHeaders) Timeout() bool        { return true }
func (lateHeaders) Temporary() bool      { return true }

// TestRefused: a canary's verdict needs the server's own word.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		err       error
		shortfall bool
		fails     bool
	}{
		{nil, true, false},
		{minio.ErrorResponse{StatusCode: http.StatusForbidden}, false, false},
		{minio.ErrorResponse{StatusCode: http.StatusBadRequest}, false, false},
		{minio.ErrorResponse{StatusCode: http.StatusInternalServerError}, false, true},
		{syscall.ECONNRESET, false, true},
	} {
		shortfall, err := refused("does it", tt.err)
		if (shortfall != "") != tt.shortfall || (err != nil) != tt.fails {
			t.Errorf("%v: %q, %v", tt.err, shortfall, err)
		}
	}
}
