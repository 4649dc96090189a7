package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"logvault/ingest"
	"logvault/ledger/entry"
	"logvault/vault"
)

// errNotServing says that a socket file is there but nobody listens.
var errNotServing = errors.New("nobody listens on the control socket")

// RemoteError is an error that `serve` met while it carried out a command.
type RemoteError struct {
	Message string `json:"error"`
	Code    int    `json:"code"` // the exit code of CLI.md
	Hint    string `json:"hint,omitempty"`
}

// Error implements error.
func (e *RemoteError) Error() string { return e.Message }

// ErrStopping says that `serve` was stopped while it carried out a command.
var ErrStopping = errors.New("serve was stopped before it was done")

// ErrOtherVersion says that the `serve` that runs does not know a command.
var ErrOtherVersion = errors.New("serve does not know this command: it is another version of logvault")

// Judge tells the exit code of an error and what a person may try; the command
// line hands its own in, so that there is one table.
type Judge func(error) (code int, hint string)

// recordLimit bounds an entry or record sent to the control socket, in bytes.
const recordLimit = 1 << 20

// socketName bounds the path of a socket, in bytes (sun_path of unix(7)).
const socketName = 107

// listenControl makes the socket. A left-over socket file is removed: the state
// lock is held, so its owner is dead. Between the two calls the file has the
// mode that the umask left; what keeps others out then is the state directory,
// and always the check of the peer's uid.
func listenControl(name string) (net.Listener, error) {
	if len(name) > socketName {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, expected at most %d", name, len(name), socketName)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close() // nobody was accepted yet
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &peerListener{UnixListener: l.(*net.UnixListener), mayEnter: owner}, nil
}

// owner tells whether a user may command this gateway: who runs it, and root.
func owner(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// peerListener drops connections of users who may not enter.
type peerListener struct {
	*net.UnixListener
	mayEnter func(uid int) bool
}

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && l.mayEnter(uid) {
			return c, nil
		}
		c.Close() // a stranger is not told why
	}
}

func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// serveControl answers commands until ctx is done. Commands in progress are then
// cancelled, their clients are waited for at most wait, and it returns when all
// have ended.
func serveControl(ctx context.Context, l net.Listener, s Service, judge Judge, wait time.Duration) error {
	calls, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	h := &control{service: s, judge: judge}
	srv := &http.Server{Handler: h.mux(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return calls }}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }() // joined below: Serve ends with Shutdown
	var err error
	select {
	case err = <-failed:
		failed <- nil
	case <-ctx.Done():
	}
	stop(ErrStopping)
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	if srv.Shutdown(waiting) != nil {
		srv.Close() // ends the reads from clients that send nothing
	}
	<-failed
	h.running.Wait() // Close does not wait for handlers, and the state is closed next
	return err
}

// control is the server's side of the control socket.
type control struct {
	service Service
	judge   Judge
	running sync.WaitGroup // commands in progress
}

// answer runs one command and sends its result or its error.
func (h *control) answer(w http.ResponseWriter, r *http.Request, fn func(r *http.Request) (any, error)) {
	h.running.Add(1)
	defer h.running.Done()
	v, err := fn(r)
	if cause := context.Cause(r.Context()); err != nil && errors.Is(cause, ErrStopping) {
		err = cause
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code, hint := h.judge(err)
		w.WriteHeader(http.StatusInternalServerError)
		v = &RemoteError{Message: err.Error(), Code: code, Hint: hint}
	}
	json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}

// mux is the list of commands.
func (h *control) mux() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, fn) })
	}
	handle("POST /v1/seal", func(r *http.Request) (any, error) { return h.service.Seal(r.Context()) })
	handle("GET /v1/status", func(r *http.Request) (any, error) { return h.service.Status(r.Context()) })
	handle("GET /v1/imports", func(r *http.Request) (any, error) {
		head, err := vault.ParseHash(r.URL.Query().Get("head"))
		if err != nil {
			return nil, err
		}
		return h.service.Imports(r.Context(), vault.Source(r.URL.Query().Get("source")), head)
	})
	handle("POST /v1/ingest", func(r *http.Request) (any, error) {
		header, err := decodeImport(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return h.service.Ingest(r.Context(), header, r.Body)
	})
	handle("POST /v1/record", func(r *http.Request) (any, error) {
		data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, recordLimit))
		if err != nil {
			return nil, err
		}
		e, err := entry.Decode(data)
		if err != nil {
			return nil, err
		}
		return h.service.Record(r.Context(), e)
	})
	handle("POST /v1/register", func(r *http.Request) (any, error) {
		data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, recordLimit))
		if err != nil {
			return nil, err
		}
		commit, object, err := h.service.Register(r.Context(), vault.Class(r.URL.Query().Get("class")), data)
		return registered{commit.String(), object.String()}, err
	})
	return mux
}

func encodeImport(h ingest.ImportHeader) url.Values {
	q := url.Values{"source": {string(h.Source)}, "name": {hex.EncodeToString(h.Name)}, "stream": {h.Stream.String()}, "compared": {strconv.Itoa(h.Compared)}}
	if !h.Recorded.IsZero() {
		q.Set("recorded", h.Recorded.Format(time.RFC3339Nano))
	}
	return q
}

func decodeImport(q url.Values) (h ingest.ImportHeader, err error) {
	h.Source = vault.Source(q.Get("source"))
	if h.Name, err = hex.DecodeString(q.Get("name")); err != nil {
		return h, fmt.Errorf("import name: %w", err)
	}
	if h.Stream, err = vault.ParseStreamID(q.Get("stream")); err != nil {
		return h, err
	}
	if at := q.Get("recorded"); at != "" {
		if h.Recorded, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return h, fmt.Errorf("import date: %w", err)
		}
	}
	if err = h.Source.Valid(); err != nil {
		return h, err
	}
	if h.Compared, err = strconv.Atoi(q.Get("compared")); err != nil {
		return h, fmt.Errorf("import: compared with %q: expected a number", q.Get("compared"))
	}
	return h, nil
}

// client is a Service carried out by `serve`.
type client struct{ http http.Client }

func dialControl(ctx context.Context, socket string) (*client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	conn, err := dial(ctx, "", "")
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNotServing
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	conn.Close() // it was only asked whether somebody listens
	return &client{http.Client{Transport: &http.Transport{DialContext: dial, ExpectContinueTimeout: time.Minute}}}, nil
}

// call sends one command and decodes the answer into out.
func (c *client) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	sent := &sending{Reader: body}
	if body != nil {
		body = sent
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://serve/v1/"+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		// A body that is not wanted, of a file that was imported before, is not sent.
		req.Header.Set("Expect", "100-continue")
	}
	// When the connection ends first, the transport waits for its writer, and
	// that for a body that may never give another byte.
	defer context.AfterFunc(ctx, func() { sent.Close() })()
	resp, err := c.http.Do(req)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the address, which nobody typed
	}
	switch own := sent.failed(); {
	case err != nil && own == nil && hungUp(err):
		return fmt.Errorf("asking serve: %w: %v", ErrStopping, err)
	case err != nil:
		return fmt.Errorf("asking serve: %w", err)
	}
	defer resp.Body.Close() // read-only
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	err = json.NewDecoder(resp.Body).Decode(out)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("asking serve: %w: the answer breaks off", ErrStopping)
	case err != nil:
		return fmt.Errorf("asking serve: %w", err)
	}
	return nil
}

// hungUp tells whether an error says that `serve` went away before it answered,
// as after a kill.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE)
}

// sending is a body that is sent. It remembers whether it failed by itself: a
// damaged file ends like a connection that breaks.
type sending struct {
	io.Reader
	mu  sync.Mutex // the transport reads in a goroutine of its own
	err error      // guarded by mu
}

// Read implements io.Reader.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

// Close implements io.Closer: it ends a read, if the body can do that.
func (s *sending) Close() error {
	if c, ok := s.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (s *sending) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// refusal is the error of an answer that is not a result.
func refusal(resp *http.Response) error {
	remote := new(RemoteError)
	err := json.NewDecoder(io.LimitReader(resp.Body, recordLimit)).Decode(remote)
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed:
		return ErrOtherVersion
	case err != nil || remote.Code == 0: // 0 would be taken for success
		return fmt.Errorf("asking serve: HTTP status %s", resp.Status)
	}
	return remote
}

// Seal implements Service.
func (c *client) Seal(ctx context.Context) (r SealResult, err error) {
	err = c.call(ctx, http.MethodPost, "seal", nil, &r)
	return r, err
}

// Status implements Service.
func (c *client) Status(ctx context.Context) (r Status, err error) {
	err = c.call(ctx, http.MethodGet, "status", nil, &r)
	return r, err
}

// Imports implements Service.
func (c *client) Imports(ctx context.Context, source vault.Source, head vault.Hash) (r []ingest.Earlier, err error) {
	q := url.Values{"source": {string(source)}, "head": {head.String()}}
	err = c.call(ctx, http.MethodGet, "imports?"+q.Encode(), nil, &r)
	return r, err
}

// Ingest implements Service.
func (c *client) Ingest(ctx context.Context, h ingest.ImportHeader, body io.Reader) (r ingest.ImportResult, err error) {
	err = c.call(ctx, http.MethodPost, "ingest?"+encodeImport(h).Encode(), body, &r)
	return r, err
}

// Record implements Service.
func (c *client) Record(ctx context.Context, e entry.Entry) (index int64, err error) {
	data, err := entry.Encode(e)
	if err != nil {
		return 0, err
	}
	err = c.call(ctx, http.MethodPost, "record", bytes.NewReader(data), &index)
	return index, err
}

// registered is the answer to a register call.
type registered struct {
	Commit string `json:"commit"`
	Object string `json:"object"`
}

// Register implements Service.
func (c *client) Register(ctx context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error) {
	var r registered
	q := url.Values{"class": {string(class)}}
	if err := c.call(ctx, http.MethodPost, "register?"+q.Encode(), bytes.NewReader(record), &r); err != nil {
		return commit, object, err
	}
	if commit, err = vault.ParseHash(r.Commit); err != nil {
		return commit, object, err
	}
	object, err = vault.ParseHash(r.Object)
	return commit, object, err
}

// Close implements Service.
func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}
