package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

// fakeService answers what it is told and notes what it was asked.
type fakeService struct {
	err   error
	asked any
	body  []byte
	read  error // of the body
	// block, if set, makes Seal wait for the end of its context.
	block chan struct{}
}

func (f *fakeService) Seal(ctx context.Context) (SealResult, error) {
	if f.block != nil {
		close(f.block)
		<-ctx.Done()
		return SealResult{}, ctx.Err()
	}
	return SealResult{Segments: 1, Raw: 2, Stored: 3, Size: 4}, f.err
}

func (f *fakeService) Imports(_ context.Context, source vault.Source, head vault.Hash) ([]ingest.Earlier, error) {
	f.asked = fmt.Sprint(source, head)
	return []ingest.Earlier{{Stream: vault.StreamID{1}, Bytes: 2, Prefix: vault.Hash{3}, Done: true}}, f.err
}

func (f *fakeService) Ingest(ctx context.Context, h ingest.ImportHeader, body io.Reader) (ingest.ImportResult, error) {
	f.asked = h
	if f.err != nil {
		return ingest.ImportResult{}, f.err // the body is not read
	}
	if f.block != nil {
		close(f.block)
	}
	f.body, f.read = io.ReadAll(body)
	return ingest.ImportResult{Bytes: int64(len(f.body)), Stored: 1}, f.read
}

func (f *fakeService) Record(_ context.Context, e entry.Entry) (int64, error) {
	f.asked = e
	return 7, f.err
}

func (f *fakeService) Register(_ context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error) {
	f.asked, f.body = class, record
	return vault.Hash{1}, vault.Hash{2}, f.err
}

func (f *fakeService) Status(context.Context) (Status, error) {
	return Status{Origin: "o", Serving: true, LastSeal: begin}, f.err
}

func (f *fakeService) Close() error { return nil }

// failure is an error that testJudge knows.
var failure = errors.New("the vault is on the moon")

func testJudge(err error) (int, string) {
	switch {
	case errors.Is(err, failure):
		return 10, "fetch it"
	case errors.Is(err, ErrStopping):
		return 3, "again"
	}
	return 1, ""
}

// serveFake serves f on a socket until the test ends, or stop is called, which
// returns when all calls have ended.
func serveFake(t *testing.T, f Service) (c *client, stop func()) {
	t.Helper()
	return serveFakeAt(t, filepath.Join(shortDir(t), "s"), f, time.Minute)
}

// serveFakeAt is serveFake on a given socket; a stop waits for clients for at most wait.
func serveFakeAt(t *testing.T, socket string, f Service, wait time.Duration) (c *client, stop func()) {
	t.Helper()
	l, err := listenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveControl(ctx, l, f, testJudge, wait) }()
	ended := false
	stop = func() {
		cancel()
		if !ended {
			ended = true
			if err := <-done; err != nil {
				t.Errorf("serving: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	if c, err = dialControl(ctx, socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, stop
}

func TestControlCalls(t *testing.T) {
	f := &fakeService{}
	c, _ := serveFake(t, f)
	if r, err := c.Seal(ctx); err != nil || r != (SealResult{1, 2, 3, 4}) {
		t.Errorf("seal: %+v, %v", r, err)
	}
	if r, err := c.Status(ctx); err != nil || r.Origin != "o" || !r.Serving || !r.LastSeal.Equal(begin) {
		t.Errorf("status: %+v, %v", r, err)
	}
	e := &entry.Request{Header: entry.Header{Time: begin, Actor: ActorReferent}, Commit: vault.Hash{3}, Object: vault.Hash{4}, Class: "register", Kind: entry.RequestCat}
	if r, err := c.Record(ctx, e); err != nil || r != 7 || !reflect.DeepEqual(f.asked, e) {
		t.Errorf("record: %d, %v, asked %+v", r, err, f.asked)
	}
	commit, object, err := c.Register(ctx, "register", []byte("who"))
	if err != nil || commit != (vault.Hash{1}) || object != (vault.Hash{2}) || f.asked != vault.Class("register") || string(f.body) != "who" {
		t.Errorf("register: %v %v, %v, asked %v %q", commit, object, err, f.asked, f.body)
	}
	earlier, err := c.Imports(ctx, "squid1", vault.Hash{9})
	if want := (ingest.Earlier{Stream: vault.StreamID{1}, Bytes: 2, Prefix: vault.Hash{3}, Done: true}); err != nil || len(earlier) != 1 || earlier[0] != want || f.asked != fmt.Sprint("squid1", vault.Hash{9}) {
		t.Errorf("imports: %+v, %v, asked %v", earlier, err, f.asked)
	}
	h := ingest.ImportHeader{Source: "squid1", Name: []byte("/a b\xff&c=d"), Stream: vault.StreamID{5}, Recorded: begin.Add(123 * time.Nanosecond), Compared: 3}
	text := strings.Repeat("a line\n", 1_000_000)
	r, err := c.Ingest(ctx, h, strings.NewReader(text))
	if err != nil || r.Bytes != int64(len(text)) || r.Stored != 1 || !reflect.DeepEqual(f.asked, h) || string(f.body) != text {
		t.Errorf("ingest: %+v, %v, asked %+v", r, err, f.asked)
	}
}

// TestControlErrors: message, exit code and hint come back, also when a body
// was to be sent that is not read.
func TestControlErrors(t *testing.T) {
	c, _ := serveFake(t, &fakeService{err: failure})
	large := bytes.Repeat([]byte("x"), 64<<20)
	request := &entry.Request{Header: entry.Header{Time: begin, Actor: ActorReferent}, Commit: vault.Hash{3}, Object: vault.Hash{4}, Class: "register", Kind: entry.RequestCat}
	for name, call := range map[string]func() error{
		"seal":     func() error { _, err := c.Seal(ctx); return err },
		"status":   func() error { _, err := c.Status(ctx); return err },
		"record":   func() error { _, err := c.Record(ctx, request); return err },
		"register": func() error { _, _, err := c.Register(ctx, "register", []byte("who")); return err },
		"imports":  func() error { _, err := c.Imports(ctx, "squid1", vault.Hash{9}); return err },
		"ingest": func() error {
			_, err := c.Ingest(ctx, header("squid1"), bytes.NewReader(large))
			return err
		},
	} {
		err := call()
		if remote, ok := errors.AsType[*RemoteError](err); !ok || *remote != (RemoteError{failure.Error(), 10, "fetch it"}) {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestControlBadRequests(t *testing.T) {
	c, _ := serveFake(t, &fakeService{})
	var out any
	big := strings.Repeat("x", recordLimit+1)
	for _, r := range []struct{ method, path, body, want string }{
		{"POST", "record", big, "too large"},
		{"POST", "register?class=register", big, "too large"},
		{"POST", "record", "{}", ""},
		{"POST", "ingest?source=a&name=zz&stream=00", "", "import name"},
		{"POST", "ingest?source=a&name=00&stream=zz", "", "stream"},
		{"POST", "ingest?source=a/b&name=00&stream=" + vault.StreamID{1}.String(), "", "source"},
		{"POST", "ingest?source=a&name=00&recorded=x&stream=" + vault.StreamID{1}.String(), "", "import date"},
		{"GET", "seal", "", ErrOtherVersion.Error()},
		{"POST", "nosuch", "", ErrOtherVersion.Error()},
		{"GET", "imports?source=a&head=short", "", "hash"},
		{"POST", "ingest?source=a&name=00&stream=" + vault.StreamID{1}.String(), "", "compared with"},
		{"POST", "ingest?%zz", "", ""},
	} {
		err := c.call(ctx, r.method, r.path, strings.NewReader(r.body), &out)
		if err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s %s: %v, expected %q", r.method, r.path, err, r.want)
		}
	}
}

// TestControlClientGoes: an import whose client goes away ends with an error
// and is not taken for a whole file.
func TestControlClientGoes(t *testing.T) {
	f := &fakeService{block: make(chan struct{})}
	c, stop := serveFake(t, f)
	sending, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Ingest(sending, header("squid1"), pr)
		ended <- err
	}()
	_, err := pw.Write([]byte("half a li"))
	if err != nil {
		t.Fatal(err)
	}
	<-f.block
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("client: %v", err)
	}
	stop() // joins the handler
	pw.Close()
	if f.read == nil {
		t.Errorf("the server read %q and took it for the whole", f.body)
	}
}

// TestControlBrokenBody: the reading error of a damaged file reaches the person,
// and the server sees no end of file.
func TestControlBrokenBody(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	c, stop := serveFake(t, s)
	broken := io.MultiReader(strings.NewReader(strings.Repeat("a line\n", 100_000)), iotest.ErrReader(failure))
	if _, err := c.Ingest(ctx, header("nginx1"), broken); !errors.Is(err, failure) {
		t.Errorf("%v, expected the reading error", err)
	}
	stop()
	if res, err := w.importText(s, "x\n"); err != nil || res.Bytes != 2 {
		t.Errorf("another import: %+v, %v", res, err)
	}
	if res, err := s.Ingest(ctx, header("nginx1"), strings.NewReader(strings.Repeat("a line\n", 100_000))); err != nil || res.Already {
		t.Errorf("the broken import counts as done: %+v, %v", res, err)
	}
}

// TestControlStops: a stop cancels the calls in progress, tells their clients,
// and ends when they have.
func TestControlStops(t *testing.T) {
	t.Run("seal", func(t *testing.T) {
		f := &fakeService{block: make(chan struct{})}
		c, stop := serveFake(t, f)
		ended := make(chan error, 1)
		go func() {
			_, err := c.Seal(ctx)
			ended <- err
		}()
		<-f.block
		stop()
		err := <-ended
		if remote, ok := errors.AsType[*RemoteError](err); !ok || remote.Code != 3 || remote.Message != ErrStopping.Error() {
			t.Errorf("%v", err)
		}
	})
	// A client that sends nothing is not waited for.
	t.Run("stalled import", func(t *testing.T) {
		f := &fakeService{block: make(chan struct{})}
		c, stop := serveFakeAt(t, filepath.Join(shortDir(t), "s"), f, 10*time.Millisecond)
		pr, pw := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := c.Ingest(ctx, header("squid1"), pr)
			ended <- err
		}()
		<-f.block
		stop()
		pw.CloseWithError(failure)
		if err := <-ended; err == nil {
			t.Error("an import that was cut off succeeded")
		}
	})
}

func TestControlSocket(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, "control.sock")
	if _, err := dialControl(ctx, socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	// The file that a killed process left.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if _, err := dialControl(ctx, socket); !errors.Is(err, errNotServing) {
		t.Errorf("left-over socket: %v", err)
	}
	l, err := listenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, expected mode 0600", info, err)
	}
	if _, err := listenControl(filepath.Join(dir, strings.Repeat("x", 108))); err == nil || !strings.Contains(err.Error(), "expected at most 107") {
		t.Errorf("long name: %v", err)
	}
}

// TestControlPeers drops a user who may not enter without an answer.
func TestControlPeers(t *testing.T) {
	if !owner(os.Geteuid()) || !owner(0) || owner(os.Geteuid()+1) {
		t.Error("the wrong users may enter")
	}
	socket := filepath.Join(shortDir(t), "s")
	l, err := listenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan int, 1)
	l.(*peerListener).mayEnter = func(uid int) bool {
		asked <- uid
		return false
	}
	go l.Accept() // ends with l
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v, expected the end", n, err)
	}
	if uid := <-asked; uid != os.Geteuid() {
		t.Errorf("peer uid %d, expected %d", uid, os.Geteuid())
	}
}

func TestConnect(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	// Another command holds the state: there is no socket.
	if _, err := Connect(ctx, w.env(), w.cfg); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	// Or there is one whose server was killed.
	w.must(os.MkdirAll(w.cfg.State, 0o700))
	socket := paths(w.cfg.State).socket()
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	w.must(err)
	left.SetUnlinkOnClose(false)
	left.Close()
	if _, err := Connect(ctx, w.env(), w.cfg); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("left-over socket: %v", err)
	}
	// `serve` holds it.
	l, err := listenControl(socket)
	w.must(err)
	srv := &http.Server{Handler: (&control{service: s, judge: testJudge}).mux()}
	go srv.Serve(l) // ends with Close
	svc, err := Connect(ctx, w.env(), w.cfg)
	w.must(err)
	if _, ok := svc.(*client); !ok {
		t.Errorf("%T, expected a client of the socket", svc)
	}
	if st, err := svc.Status(ctx); err != nil || st.LedgerSize != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	w.must(svc.Close())
	w.must(srv.Close())
	w.must(s.Close())
	// Nobody holds it.
	svc, err = Connect(ctx, w.env(), w.cfg)
	w.must(err)
	if _, ok := svc.(*Site); !ok {
		t.Errorf("%T, expected a site", svc)
	}
	w.must(svc.Close())
}
