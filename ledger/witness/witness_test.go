package witness_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/fixtures/testwitness"
	"logvault/ledger"
	"logvault/ledger/witness"
)

var (
	ctx = context.Background()
	at  = time.Unix(1_790_000_000, 0).UTC()
)

// world is a ledger and a witness of it, behind a server.
type world struct {
	*testvault.World
	far    *testwitness.Witness
	client *witness.Witness
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w, err := testvault.New(1)
	if err != nil {
		t.Fatal(err)
	}
	far, err := testwitness.New("witness.example/w1", w.Trust, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return &world{w, far, serve(t, far, far.Key)}
}

// serve starts a witness and returns a client of it.
func serve(t *testing.T, h http.Handler, key string) *witness.Witness {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &witness.Witness{URL: s.URL + "/", Key: key, HTTP: s.Client()}
}

func (w *world) grow(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := w.Seal(ctx, 1, "a line\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, expected %v", what, err, want)
	}
}

func TestCosign(t *testing.T) {
	w := newWorld(t)
	for i, last := range []int64{0, 2, 0, 3} { // right, right, and two that the witness corrects
		tree := w.Log.Tree()
		c, err := w.client.Cosign(ctx, tree, last)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got, err := ledger.VerifyCosignature(tree.Checkpoint(), c.Line, w.far.Key); err != nil || !got.Equal(at) || !c.Time.Equal(at) {
			t.Errorf("step %d: time %v and %v: %v", i, got, c.Time, err)
		}
		if !strings.HasPrefix(w.far.Key, "witness.example/w1+"+c.KeyID+"+") {
			t.Errorf("step %d: key id %q", i, c.KeyID)
		}
		w.grow(t, 1)
	}
	if asks := w.far.Asks(); asks != 6 {
		t.Errorf("%d requests, expected 4 and 2 corrections", asks)
	}
}

// TestSameHeadAgain: nothing grew; the witness says again that it is there.
func TestSameHeadAgain(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		if _, err := w.client.Cosign(ctx, w.Log.Tree(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRolledBack(t *testing.T) {
	w := newWorld(t)
	early := w.Log.Tree()
	w.grow(t, 2)
	if _, err := w.client.Cosign(ctx, w.Log.Tree(), 0); err != nil {
		t.Fatal(err)
	}
	_, err := w.client.Cosign(ctx, early, 0)
	wantErr(t, "an earlier head", err, witness.ErrAhead)
	_, err = w.client.Cosign(ctx, early, early.Size()+1)
	wantErr(t, "an earlier head than what we know it cosigned", err, witness.ErrAhead)
}

// TestForked: the same key signs another history, as long or longer.
func TestForked(t *testing.T) {
	for _, more := range []int{1, 4} {
		w := newWorld(t)
		twin, err := testvault.New(1)
		if err != nil {
			t.Fatal(err)
		}
		w.grow(t, 1)
		if _, err := w.client.Cosign(ctx, w.Log.Tree(), 0); err != nil {
			t.Fatal(err)
		}
		for range more {
			if err := twin.Seal(ctx, 2, "another line\n"); err != nil {
				t.Fatal(err)
			}
		}
		if twin.Trust.Log != w.Trust.Log || twin.Log.Tree().Size() < w.Log.Tree().Size() {
			t.Fatal("the twin is no fork")
		}
		_, err = w.client.Cosign(ctx, twin.Log.Tree(), 0)
		wantErr(t, fmt.Sprintf("%d segments", more), err, witness.ErrForked)
	}
}

func TestUnknownLedger(t *testing.T) {
	w := newWorld(t)
	other, err := testvault.New(2)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.client.Cosign(ctx, other.Log.Tree(), 0)
	wantErr(t, "another key", err, witness.ErrUnknown)
	w.far.Trust = &ledger.Trust{Log: w.Trust.Log, Origin: "elsewhere.example"}
	_, err = w.client.Cosign(ctx, w.Log.Tree(), 0)
	wantErr(t, "another origin", err, witness.ErrUnknown)
}

// answer is a witness that says always the same.
func answer(status int, kind, body string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", kind)
		rw.WriteHeader(status)
		fmt.Fprint(rw, body)
	})
}

func TestBadAnswers(t *testing.T) {
	w := newWorld(t)
	stranger, err := testwitness.New("witness.example/w2", w.Trust, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	line, err := serve(t, stranger, stranger.Key).Cosign(ctx, w.Log.Tree(), 0)
	if err != nil {
		t.Fatal(err)
	}
	const size = "text/x.tlog.size"
	for what, h := range map[string]http.Handler{
		"nothing":                    answer(200, "", ""),
		"a line by another key":      answer(200, "", string(line.Line)),
		"no line end":                answer(200, "", strings.TrimSpace(string(line.Line))),
		"a page":                     answer(200, "text/html", "<html>\n"),
		"endless":                    answer(200, "", strings.Repeat("— x\n", 1<<14)),
		"a size that is none":        answer(409, size, "many\n"),
		"a size without line end":    answer(409, size, "1"),
		"a negative size":            answer(409, size, "-1\n"),
		"a size with leading zeroes": answer(409, size, "01\n"),
		"the same wrong size always": answer(409, size, "1\n"),
	} {
		_, err := serve(t, h, w.far.Key).Cosign(ctx, w.Log.Tree(), 0)
		wantErr(t, what, err, witness.ErrInvalid)
	}
	for _, status := range []int{301, 307, 400, 429, 500, 503} {
		_, err := serve(t, answer(status, "", ""), w.far.Key).Cosign(ctx, w.Log.Tree(), 0)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint("HTTP ", status)) {
			t.Errorf("status %d: error %v", status, err)
		}
	}
}

// TestRedirect: a redirect would turn the POST into a GET of somewhere else.
func TestRedirect(t *testing.T) {
	w := newWorld(t)
	h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, w.client.URL+"add-checkpoint", 302)
	})
	if _, err := serve(t, h, w.far.Key).Cosign(ctx, w.Log.Tree(), 0); err == nil || w.far.Asks() != 0 {
		t.Errorf("error %v, %d requests to where it pointed", err, w.far.Asks())
	}
}

func TestNetwork(t *testing.T) {
	w := newWorld(t)
	gone := httptest.NewServer(w.far)
	gone.Close()
	c := &witness.Witness{URL: gone.URL, Key: w.far.Key, HTTP: http.DefaultClient}
	if _, err := c.Cosign(ctx, w.Log.Tree(), 0); err == nil {
		t.Error("no error from a witness that is not there")
	}
	c.URL = "::"
	if _, err := c.Cosign(ctx, w.Log.Tree(), 0); err == nil {
		t.Error("no error from a URL that is none")
	}
	// A witness that never answers is left when the time is over. A slow machine may
	// need more than that to send the request.
	stuck, asked := make(chan struct{}), new(atomic.Bool)
	slow := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true); <-stuck }), w.far.Key)
	defer close(stuck)
	for slow.HTTP.Timeout = 50 * time.Millisecond; !asked.Load(); slow.HTTP.Timeout *= 2 {
		if _, err := slow.Cosign(ctx, w.Log.Tree(), 0); err == nil {
			t.Fatal("no error from a witness that never answers")
		}
	}
}

// FuzzAnswer: whatever a witness answers, there is an error or a cosignature
// that verifies, and no panic.
func FuzzAnswer(f *testing.F) {
	w, err := testvault.New(1)
	if err != nil {
		f.Fatal(err)
	}
	far, err := testwitness.New("witness.example/w1", w.Trust, func() time.Time { return at })
	if err != nil {
		f.Fatal(err)
	}
	client := &witness.Witness{URL: "http://127.0.0.1", Key: far.Key, HTTP: &http.Client{Transport: inProcess{far}}}
	good, err := client.Cosign(ctx, w.Log.Tree(), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(200, "", string(good.Line))
	f.Add(409, "text/x.tlog.size", "1\n")
	f.Add(409, "", "")
	f.Fuzz(func(t *testing.T, status int, kind, body string) {
		if status < 200 || status > 599 {
			return
		}
		c := &witness.Witness{URL: "http://127.0.0.1", Key: far.Key, HTTP: &http.Client{Transport: inProcess{answer(status, kind, body)}}}
		got, err := c.Cosign(ctx, w.Log.Tree(), 0)
		if err == nil {
			if _, err := ledger.VerifyCosignature(w.Log.Checkpoint(), got.Line, far.Key); err != nil {
				t.Errorf("accepted a cosignature that does not verify: %v", err)
			}
		}
	})
}

// inProcess answers requests without a network.
type inProcess struct{ h http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	p.h.ServeHTTP(rec, r)
	return rec.Result(), nil
}
