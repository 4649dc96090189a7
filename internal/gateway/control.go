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
}

func (e *RemoteError) Error() string { return e.Message }

// ExitCode tells the exit code of an error; the command line hands its own in,
// so that there is one table.
type ExitCode func(error) int

// recordLimit bounds an entry or record sent to the control socket, in bytes.
const recordLimit = 1 << 20

// listenControl makes the socket. A left-over socket file is removed: the state
// lock is held, so its owner is dead.
func listenControl(name string) (net.Listener, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", name)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &peerListener{l.(*net.UnixListener)}, nil
}

// peerListener drops connections of other users than ours and root.
type peerListener struct{ *net.UnixListener }

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == 0 || uid == os.Geteuid()) {
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

// controlHandler serves the commands of a Service.
func controlHandler(s Service, code ExitCode) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			v, err := fn(r)
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				v = &RemoteError{Message: err.Error(), Code: code(err)}
			}
			json.NewEncoder(w).Encode(v) // a client that went away needs no answer
		})
	}
	handle("POST /v1/seal", func(r *http.Request) (any, error) { return s.Seal(r.Context()) })
	handle("GET /v1/status", func(r *http.Request) (any, error) { return s.Status(r.Context()) })
	handle("POST /v1/ingest", func(r *http.Request) (any, error) {
		h, err := decodeImport(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return s.Ingest(r.Context(), h, r.Body)
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
		return s.Record(r.Context(), e)
	})
	handle("POST /v1/register", func(r *http.Request) (any, error) {
		data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, recordLimit))
		if err != nil {
			return nil, err
		}
		commit, object, err := s.Register(r.Context(), vault.Class(r.URL.Query().Get("class")), data)
		return registered{commit.String(), object.String()}, err
	})
	return mux
}

func encodeImport(h ingest.ImportHeader) url.Values {
	q := url.Values{"source": {string(h.Source)}, "name": {hex.EncodeToString(h.Name)}, "stream": {h.Stream.String()}}
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
	return h, h.Source.Valid()
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
	return &client{http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// call sends one command and decodes the answer into out.
func (c *client) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://serve/v1/"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking serve: %w", err)
	}
	defer resp.Body.Close() // read-only
	if resp.StatusCode != http.StatusOK {
		remote := &RemoteError{Code: 1}
		if err := json.NewDecoder(resp.Body).Decode(remote); err != nil {
			return fmt.Errorf("asking serve: HTTP status %s", resp.Status)
		}
		return remote
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("asking serve: %w", err)
	}
	return nil
}

func (c *client) Seal(ctx context.Context) (r SealResult, err error) {
	err = c.call(ctx, http.MethodPost, "seal", nil, &r)
	return r, err
}

func (c *client) Status(ctx context.Context) (r Status, err error) {
	err = c.call(ctx, http.MethodGet, "status", nil, &r)
	return r, err
}

func (c *client) Ingest(ctx context.Context, h ingest.ImportHeader, body io.Reader) (r ingest.ImportResult, err error) {
	err = c.call(ctx, http.MethodPost, "ingest?"+encodeImport(h).Encode(), body, &r)
	return r, err
}

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

func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}
