package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/storetest"
	"logvault/vault"
	"logvault/vault/s3"
)

var (
	ctx = context.Background()
	day = vault.Day{Year: 2026, Month: time.November, Day: 21}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin makes a vault in the bucket of a fake.
func begin(t *testing.T, f *fake) *s3.Store {
	t.Helper()
	s, err := s3.Create(ctx, f.cfg)
	must(t, err)
	must(t, put(s, vault.MarkerName, "marker"))
	return s
}

func put(s *s3.Store, name, data string) error {
	return s.Put(ctx, name, int64(len(data)), strings.NewReader(data))
}

func segment(data string) string {
	return vault.SegmentName(day, vault.HashOf([]byte(data)), vault.Gzip)
}

// TestConformanceInProcess runs the suite without a server, with small pages.
func TestConformanceInProcess(t *testing.T) {
	for _, kind := range []string{"plain", "versioned"} {
		if testing.Short() && kind == "plain" {
			continue // make seeds runs it
		}
		t.Run(kind, func(t *testing.T) {
			var n atomic.Int64
			f := startFake(t, kind)
			f.page = 7
			storetest.Run(t, func(*testing.T) storetest.Place {
				cfg := f.cfg
				cfg.Prefix = fmt.Sprintf("vaults/%d", n.Add(1))
				return storetest.Place{
					Create: func(ctx context.Context) (storetest.Store, error) { return store(s3.Create(ctx, cfg)) },
					Open:   func(ctx context.Context) (storetest.Store, error) { return store(s3.Open(ctx, cfg)) },
				}
			})
		})
	}
}

func store(s *s3.Store, err error) (storetest.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// TestHiddenByVersions: whoever may only add versions and delete markers hides
// nothing, neither from reading nor from listing, over pages of one.
func TestHiddenByVersions(t *testing.T) {
	f := startFake(t, "versioned")
	s := begin(t, f)
	f.page = 1
	head := vault.CheckpointName(vault.LedgerPrefix)
	must(t, put(s, segment("x"), "x"))
	must(t, put(s, vault.KeptCheckpointName(vault.LedgerPrefix, 7), "kept"))
	must(t, s.Replace(ctx, head, []byte("head")))
	want := map[string]string{segment("x"): "x", vault.KeptCheckpointName(vault.LedgerPrefix, 7): "kept", head: "head", vault.MarkerName: "marker"}
	f.mu.Lock()
	for name := range want {
		if name != head { // of which the newest version counts
			f.add(&version{key: "a/b/" + name, data: []byte("another's")})
		}
		f.add(&version{key: "a/b/" + name, marker: true})
	}
	f.mu.Unlock()
	for name, data := range want {
		if got, err := vault.ReadAll(ctx, s, name, 99); string(got) != data || err != nil {
			t.Errorf("%s holds %q, %v, expected %q", name, got, err, data)
		}
	}
	var listed []string
	must(t, s.List(ctx, "", func(i vault.Info) error { listed = append(listed, i.Name); return nil }))
	if len(listed) != len(want) {
		t.Errorf("listed %q", listed)
	}
	old := 0
	must(t, s.EachOldVersion(ctx, func(i vault.Info, id string, open func() (io.ReadCloser, error)) error {
		rc, err := open()
		must(t, err)
		data, err := io.ReadAll(rc)
		must(t, errors.Join(err, rc.Close()))
		if int64(len(data)) != i.Size || want[i.Name] != string(data) && string(data) != "another's" {
			t.Errorf("version %s of %s holds %q", id, i.Name, data)
		}
		old++
		return nil
	}))
	if old != 7 { // two of each, and one head
		t.Errorf("%d old versions", old)
	}
	if err := put(s, segment("x"), "x"); err != nil {
		t.Errorf("Put of what another version hides: %v", err)
	}
	must(t, s.Replace(ctx, head, []byte("new")))
	must(t, s.RemoveVersions(ctx, head))
	if n := len(f.objects["a/b/"+head]); n != 1 {
		t.Errorf("%d versions of the head are left", n)
	}
	must(t, s.Remove(ctx, segment("x")))
	if n := len(f.objects["a/b/"+segment("x")]); n != 0 {
		t.Errorf("%d versions of a removed object are left", n)
	}
}

// TestAnswers: what a server, or what stands before it, can say instead of an
// answer, and what callers are told.
func TestAnswers(t *testing.T) {
	answer := func(status int, code string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, status, code)
			return true
		}
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	for what, tt := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  error // nil: any but the named classes
		says  string
	}{
		"throttled":         {answer(503, "SlowDown"), vault.ErrUnreachable, "SlowDown"},
		"too many":          {answer(429, "TooManyRequests"), vault.ErrUnreachable, ""},
		"internal":          {answer(500, "InternalError"), vault.ErrUnreachable, ""},
		"a proxy's page":    {html, vault.ErrUnreachable, ""},
		"clocks differ":     {answer(403, "RequestTimeTooSkewed"), fs.ErrPermission, "RequestTimeTooSkewed"},
		"wrong key":         {answer(403, "InvalidAccessKeyId"), fs.ErrPermission, "InvalidAccessKeyId"},
		"wrong signature":   {answer(403, "SignatureDoesNotMatch"), fs.ErrPermission, "SignatureDoesNotMatch"},
		"full":              {answer(507, "XMinioStorageFull"), syscall.ENOSPC, ""},
		"wrong region":      {answer(400, "AuthorizationHeaderMalformed"), nil, "AuthorizationHeaderMalformed"},
		"moved":             {answer(301, "PermanentRedirect"), nil, ""},
		"redirected":        {redirect(elsewhere.URL), nil, ""},
		"cut at once":       {hangUp, vault.ErrUnreachable, ""},
		"cut in the middle": {cutBody, vault.ErrUnreachable, ""},
		"the bucket went":   {answer(404, "NoSuchBucket"), vault.ErrNoVault, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel() // the library waits between its tries
			f := startFake(t, "versioned")
			s := begin(t, f)
			must(t, put(s, segment("x"), "x"))
			must(t, s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), []byte("old")))
			calls := map[string]func() error{
				"read":    func() error { _, err := vault.ReadAll(ctx, s, segment("x"), 9); return err },
				"list":    func() error { return s.List(ctx, "", func(vault.Info) error { return nil }) },
				"put":     func() error { return put(s, segment("y"), "y") },
				"replace": func() error { return s.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), []byte("new")) },
			}
			for name, call := range calls {
				f.set(tt.fault)
				err := call()
				f.set(nil)
				if what == "cut in the middle" && (name == "replace" || name == "put") {
					continue // their answers have no body to cut
				}
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || errors.Is(err, vault.ErrNotExist) {
					t.Errorf("%s: %v, expected %v and %q", name, err, tt.want, tt.says)
				}
				for _, class := range []error{vault.ErrUnreachable, vault.ErrNoVault, fs.ErrPermission} {
					if tt.want == nil && errors.Is(err, class) {
						t.Errorf("%s: %v is taken for %v", name, err, class)
					}
				}
				if err := call(); err != nil {
					t.Errorf("%s afterwards: %v", name, err)
				}
			}
		})
	}
}

func html(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusBadGateway)
	io.WriteString(w, "<html>Bad Gateway</html>")
	return true
}

func redirect(to string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) bool {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	return true
}

func cutBody(w http.ResponseWriter, r *http.Request) bool {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return true
	}
	rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"1\"\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n\r\n<ListVersionsResult>")
	rw.Flush()
	c.Close()
	return true
}

// TestThrottledOnce: the library's own tries spare callers a hiccup, also in the
// middle of a listing.
func TestThrottledOnce(t *testing.T) {
	f := startFake(t, "plain")
	s := begin(t, f)
	for _, data := range []string{"x", "y", "z"} {
		must(t, put(s, segment(data), data))
	}
	f.page = 1
	n := 0
	f.set(func(w http.ResponseWriter, _ *http.Request) bool {
		if n++; n%3 == 2 {
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
			return true
		}
		return false
	})
	listed := 0
	must(t, s.List(ctx, "segments/", func(vault.Info) error { listed++; return nil }))
	if listed != 3 {
		t.Errorf("%d objects listed, expected 3", listed)
	}
}

// TestLyingServer: lengths and orders that cannot be are an error and no panic.
func TestLyingServer(t *testing.T) {
	f := startFake(t, "plain")
	s := begin(t, f)
	must(t, put(s, segment("x"), "x"))
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "segments") {
			return false
		}
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.(http.Flusher).Flush() // in chunks: without a length
		io.WriteString(w, "x")
		return true
	})
	if data, err := vault.ReadAll(ctx, s, segment("x"), 9); err == nil {
		t.Errorf("an object without a length holds %q", data)
	}
	for what, listing := range map[string]string{
		"unordered":      `<Contents><Key>a/b/segments/2</Key></Contents><Contents><Key>a/b/segments/1</Key></Contents>`,
		"negative":       `<Contents><Key>a/b/segments/1</Key><Size>-7</Size></Contents>`,
		"another prefix": `<Contents><Key>segments/2026/11/21/x</Key><Size>7</Size></Contents>`,
	} {
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprintf(w, "<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>", listing)
			return true
		})
		if err := s.List(ctx, "segments/", func(i vault.Info) error { return nil }); err == nil {
			t.Errorf("%s: listed", what)
		}
	}
}

// TestAnswerLost: a PUT is done and its answer lost, as is that of the library's
// next try, which finds the name taken by the first.
func TestAnswerLost(t *testing.T) {
	for _, kind := range []string{"plain", "versioned"} {
		f := startFake(t, kind)
		s := begin(t, f)
		lost := 0
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && lost == 0 {
				lost++
				_, key, _ := strings.Cut(r.URL.Path, bucketName+"/")
				f.add(&version{key: key, data: []byte("x"), checksum: r.Header.Get("X-Amz-Checksum-Sha256")})
				return hangUp(w, r)
			}
			return false
		})
		err := put(s, vault.TimestampName(vault.LedgerPrefix, 5), "x")
		for again := 0; errors.Is(err, vault.ErrUnreachable) && again < 2; again++ {
			err = put(s, vault.TimestampName(vault.LedgerPrefix, 5), "x")
		}
		if err != nil || lost != 1 {
			t.Errorf("%s: %v after %d lost answers", kind, err, lost)
		}
		f.set(nil)
		if err := put(s, vault.TimestampName(vault.LedgerPrefix, 5), "y"); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("%s: other bytes: %v", kind, err)
		}
		if n := len(f.objects["a/b/"+vault.TimestampName(vault.LedgerPrefix, 5)]); n != 1 {
			t.Errorf("%s: %d versions", kind, n)
		}
	}
}

// TestCanary: a server whose locks do less than S3 says is found out, by each of
// the things that it does; a good one is believed.
func TestCanary(t *testing.T) {
	is := func(r *http.Request, method, query string) bool {
		return r.Method == method && r.URL.Query().Has(query) && strings.Contains(r.URL.Path, ".canary-")
	}
	for says, fault := range map[string]func(f *fake, w http.ResponseWriter, r *http.Request) bool{
		"": nil,
		"removes a locked object": func(_ *fake, w http.ResponseWriter, r *http.Request) bool {
			if is(r, http.MethodDelete, "versionId") {
				w.WriteHeader(http.StatusNoContent)
				return true
			}
			return false
		},
		"may bypass governance": func(_ *fake, w http.ResponseWriter, r *http.Request) bool {
			if is(r, http.MethodDelete, "versionId") && r.Header.Get("X-Amz-Bypass-Governance-Retention") == "true" {
				w.WriteHeader(http.StatusNoContent)
				return true
			}
			return false
		},
		"shortens a lock": func(f *fake, w http.ResponseWriter, r *http.Request) bool {
			return is(r, http.MethodPut, "retention") && r.Header.Get("X-Amz-Bypass-Governance-Retention") == "true"
		},
		"does not lock an object": func(_ *fake, w http.ResponseWriter, r *http.Request) bool {
			if is(r, http.MethodPut, "retention") {
				refuse(w, http.StatusNotImplemented, "NotImplemented")
				return true
			}
			return false
		},
		"shows another lock": func(_ *fake, w http.ResponseWriter, r *http.Request) bool { return is(r, http.MethodPut, "retention") },
		"puts no legal hold": func(_ *fake, w http.ResponseWriter, r *http.Request) bool {
			if is(r, http.MethodPut, "legal-hold") {
				refuse(w, http.StatusBadRequest, "InvalidRequest")
				return true
			}
			return false
		},
		"under legal hold once its lock has ended": func(f *fake, w http.ResponseWriter, r *http.Request) bool {
			_, key, _ := strings.Cut(r.URL.Path, bucketName+"/")
			if v := f.find(key, r.URL.Query().Get("versionId")); is(r, http.MethodDelete, "versionId") && !v.locked() {
				w.WriteHeader(http.StatusNoContent)
				return true
			}
			return false
		},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel() // a canary lives for seconds
			f := startFake(t, "locked")
			s := begin(t, f)
			must(t, put(s, segment("x"), "x"))
			if fault != nil {
				f.set(func(w http.ResponseWriter, r *http.Request) bool { return fault(f, w, r) })
			}
			until := time.Now().Add(time.Hour)
			level, err := s.Protect(ctx, segment("x"), until)
			want := vault.LevelLock
			if says != "" {
				want = vault.LevelNone
			}
			if level != want || err != nil || !strings.Contains(s.Shortfall(), says) || (says == "") != (s.Shortfall() == "") {
				t.Errorf("level %s, %v, shortfall %q, expected %s and %q", level, err, s.Shortfall(), want, says)
			}
			v := f.find("a/b/"+segment("x"), "")
			if v.mode != "COMPLIANCE" || v.until.Before(until) {
				t.Errorf("locked in mode %q until %s, expected COMPLIANCE and %s", v.mode, v.until, until)
			}
			if says == "" {
				if _, err := s.Protect(ctx, segment("x"), until.Add(-time.Minute)); err != nil || v.until.Before(until) {
					t.Errorf("a shorter lock: %v, until %s", err, v.until)
				}
				if err := s.Remove(ctx, segment("x")); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("removing what is locked: %v", err)
				}
				f.set(nil)
				if _, err := s.Sweep(ctx); err != nil {
					t.Error(err)
				}
				for key := range f.objects {
					if strings.Contains(key, ".canary-") {
						t.Errorf("%s is left", key)
					}
				}
			}
		})
	}
}

// TestLateCanary: a server that stood still until the lock had ended may then do
// what the lock forbids. That is no shortfall, and another canary tells.
func TestLateCanary(t *testing.T) {
	t.Parallel() // it takes two canaries
	f := startFake(t, "locked")
	s := begin(t, f)
	must(t, put(s, segment("x"), "x"))
	late := 0
	f.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || r.Header.Get("X-Amz-Bypass-Governance-Retention") != "true" || late > 0 {
			return false
		}
		late++
		_, key, _ := strings.Cut(r.URL.Path, bucketName+"/")
		time.Sleep(time.Until(f.find(key, "").until))
		return false
	})
	level, err := s.Protect(ctx, segment("x"), time.Now().Add(time.Hour))
	if level != vault.LevelLock || err != nil || s.Shortfall() != "" || late != 1 {
		t.Errorf("level %s, %v, shortfall %q after %d late answers", level, err, s.Shortfall(), late)
	}
	for key := range f.objects {
		if strings.Contains(key, ".canary-") {
			t.Errorf("%s is left", key)
		}
	}
}

// TestNoLocks: a bucket without Object Lock says so.
func TestNoLocks(t *testing.T) {
	s := begin(t, startFake(t, "versioned"))
	if level, err := s.Protect(ctx, vault.MarkerName, time.Now().Add(time.Hour)); level != vault.LevelNone || err != nil || s.Shortfall() == "" {
		t.Errorf("level %s, %v, shortfall %q", level, err, s.Shortfall())
	}
}

// TestDefaultRetention: a bucket that locks whatever is put cannot give back the
// versions of a ledger's head. No vault is made in it, nothing is put to find out,
// and a copy whose bucket was changed later is told.
func TestDefaultRetention(t *testing.T) {
	f := startFake(t, "locked")
	s := begin(t, f)
	f.rule = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
	if _, err := s.Protect(ctx, vault.MarkerName, time.Now().Add(time.Hour)); !errors.Is(err, vault.ErrUnfit) || !strings.Contains(err.Error(), "COMPLIANCE, 30 days") {
		t.Errorf("protect: %v, expected unfit and the rule", err)
	}
	other := f.cfg
	other.Prefix = "new"
	f.set(nil)
	if _, err := s3.Create(ctx, other); !errors.Is(err, vault.ErrUnfit) {
		t.Errorf("create: %v, expected unfit", err)
	}
	for _, r := range f.requests {
		if strings.HasPrefix(r, "PUT") {
			t.Errorf("%s before the bucket was judged", r)
		}
	}
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		denied := r.URL.Query().Has("object-lock")
		if denied {
			refuse(w, http.StatusForbidden, "AccessDenied")
		}
		return denied
	})
	if _, err := s3.Create(ctx, other); err != nil {
		t.Errorf("create by an account that may not ask: %v", err)
	}
}

// TestRequests: an idle look costs what it must; nothing is read to be listed.
func TestRequests(t *testing.T) {
	f := startFake(t, "versioned")
	s := begin(t, f)
	for i := range 20 {
		must(t, put(s, segment(fmt.Sprint(i)), fmt.Sprint(i)))
	}
	f.page = 10
	f.set(nil)
	must(t, s.List(ctx, "segments/", func(vault.Info) error { return nil }))
	if len(f.requests) != 2 {
		t.Errorf("listing 20 objects in pages of 10 took %q", f.requests)
	}
	f.set(nil)
	_, err := vault.ReadAll(ctx, s, segment("7"), 9)
	must(t, err)
	if len(f.requests) != 1 {
		t.Errorf("reading an object took %q", f.requests)
	}
	f.set(nil)
	must(t, put(s, segment("new"), "new"))
	if got := f.requests; len(got) != 2 || !strings.HasPrefix(got[1], "PUT ") || slices.ContainsFunc(got, func(r string) bool { return strings.HasPrefix(r, "GET /vault/a/b/segments") }) {
		t.Errorf("storing an object took %q", got)
	}
}
