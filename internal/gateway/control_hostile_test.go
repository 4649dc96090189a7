package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"logvault/ingest"
	"logvault/ledger/entry"
	"logvault/vault"
)

// replying is a server that says the same to everybody who connects, before it
// is asked and as soon as it has read something, and hangs up.
func replying(t *testing.T, text string) *client {
	t.Helper()
	socket := filepath.Join(shortDir(t), "s")
	l, err := listenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with l
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if n, _ := c.Read(make([]byte, 1<<16)); n > 0 { // the first connection only asks whether somebody is there
				io.WriteString(c, text)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	c, err := dialControl(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestControlAnswers: what a serve of another version, a dying one, or something
// else on the socket may answer is never taken for a success.
func TestControlAnswers(t *testing.T) {
	answer := func(status, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
	for _, c := range []struct {
		name, says string
		want       error
		text       string
	}{
		{"killed before the answer", "", ErrStopping, "before it was done"},
		{"killed within the answer", answer("200 OK", `{"segments":1}`)[:80], ErrStopping, "breaks off"},
		{"an older version", answer("404 Not Found", "404 page not found\n"), ErrOtherVersion, "another version"},
		{"a newer version", answer("405 Method Not Allowed", "{}"), ErrOtherVersion, "another version"},
		{"an error without a code", answer("500 Internal Server Error", `{"error":"x"}`), nil, "500"},
		{"an error without a body", answer("503 Service Unavailable", ""), nil, "503"},
		{"something else", "SSH-2.0-OpenSSH_9.2\r\n", nil, "malformed HTTP"},
		{"not JSON", answer("200 OK", "fine"), nil, "invalid character"},
		{"another type", answer("200 OK", `"fine"`), nil, "cannot unmarshal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := replying(t, c.says).Seal(ctx)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, expected %v and %q", err, c.want, c.text)
			}
		})
	}
}

// TestControlKilledWhileSending: serve dies within an import. That is not an end
// of the file, which a damaged one is; and the other way round.
func TestControlKilledWhileSending(t *testing.T) {
	c := replying(t, "")
	pr, pw := io.Pipe()
	go func() { // ends with the pipe
		for {
			if _, err := pw.Write(bytes.Repeat([]byte("a line\n"), 1000)); err != nil {
				return
			}
		}
	}()
	_, err := c.Ingest(ctx, header("squid1"), pr)
	pr.Close()
	if !errors.Is(err, ErrStopping) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "http://") {
		t.Errorf("serve was killed: %v", err)
	}
	c, _ = serveFake(t, &fakeService{})
	cut := io.MultiReader(strings.NewReader("a line\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := c.Ingest(ctx, header("squid1"), cut); errors.Is(err, ErrStopping) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the file is cut off: %v", err)
	}
}

// TestControlHostile: bytes that are no request harm nobody else.
func TestControlHostile(t *testing.T) {
	f := &fakeService{}
	socket := filepath.Join(shortDir(t), "s")
	c, stop := serveFakeAt(t, socket, f, time.Minute)
	for name, text := range map[string]string{
		"noise":            "\x00\xff\x16\x03\x01 nothing\r\n\r\n",
		"no version":       "POST /v1/seal\r\n\r\n",
		"huge header":      "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
		"two lengths":      "POST /v1/record HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"negative length":  "POST /v1/record HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"a path above":     "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"half a record":    "POST /v1/record HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"v\":1",
		"half an import":   "POST /v1/ingest?" + encodeImport(header("squid1")).Encode() + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"a smuggled chunk": "POST /v1/record HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
	} {
		raw, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(raw, text) // it may hang up before the end
		raw.CloseWrite()
		got, _ := io.ReadAll(raw) // a reset is an answer too
		raw.Close()
		if bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
			t.Errorf("%s: %.60s", name, got)
		}
		if _, err := c.Status(ctx); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	stop()
	if len(f.body) > 0 && f.read == nil {
		t.Errorf("half an import was taken for a whole: %q", f.body)
	}
}

// TestControlTwoClients: two imports and a seal at the same time store each line once.
func TestControlTwoClients(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	c, stop := serveFake(t, s)
	ended := make(chan error)
	const imports = 4
	for i := range imports {
		go func() {
			h := ingest.ImportHeader{Source: "nginx1", Name: []byte("x.log"), Stream: vault.StreamID{byte(1 + i)}}
			_, err := c.Ingest(ctx, h, strings.NewReader(strings.Repeat(fmt.Sprintf("line of %d\n", i), 10_000)))
			ended <- err
		}()
		go func() {
			_, err := c.Seal(ctx)
			ended <- err
		}()
	}
	for range 2 * imports {
		w.must(<-ended)
	}
	_, err := c.Seal(ctx)
	w.must(err)
	stop()
	if st := s.spool.Stats(); st.Unsealed != 0 {
		t.Errorf("%d bytes were not sealed", st.Unsealed)
	}
	var raw int64
	w.must(s.Tree().Entries(ctx, 0, s.Tree().Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if g, ok := e.(*entry.Segment); ok {
			raw += g.Raw
		}
		return err
	}))
	if want := int64(imports * 10_000 * len("line of 0\n")); raw != want {
		t.Errorf("%d bytes were sealed, expected %d", raw, want)
	}
}
