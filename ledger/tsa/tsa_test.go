package tsa_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"logvault/fixtures/testtsa"
	"logvault/ledger/tsa"
)

var (
	ctx  = context.Background()
	now  = func() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }
	data = []byte("origin\n1\nroot\n\n— origin signature\n")
)

func authority(t testing.TB, alter func(*x509.Certificate)) *testtsa.Authority {
	t.Helper()
	a, err := testtsa.New(now, alter)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func trust(t testing.TB, roots, policy string) *tsa.Trust {
	t.Helper()
	tr, err := tsa.NewTrust(roots, policy)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// client starts an authority and pins it.
func client(t testing.TB, a *testtsa.Authority) *tsa.Authority {
	t.Helper()
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return &tsa.Authority{URL: s.URL, Trust: trust(t, a.Roots, testtsa.Policy), HTTP: s.Client(), Random: rand.Reader}
}

func TestStamp(t *testing.T) {
	for _, digest := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		a := authority(t, nil)
		a.Digest = digest
		c := client(t, a)
		token, at, err := c.Stamp(ctx, data)
		if err != nil {
			t.Fatalf("%v: %v", digest, err)
		}
		if !at.Equal(now()) {
			t.Errorf("%v: time %v, expected %v", digest, at, now())
		}
		for _, policy := range []string{"", testtsa.Policy} {
			if got, err := trust(t, a.Roots, policy).Check(token, data); err != nil || !got.Equal(at) {
				t.Errorf("%v: kept token, policy %q: %v, %v", digest, policy, got, err)
			}
		}
	}
}

// refusal is an authority that must not be believed, and a part of the error.
type refusal struct {
	what, want string
	alter      func(*x509.Certificate)
	change     func(*testtsa.Authority)
}

func stamped(fn func(*timestamp.Timestamp)) func(*testtsa.Authority) {
	return func(a *testtsa.Authority) { a.Change = fn }
}

func replied(fn func(http.ResponseWriter, []byte)) func(*testtsa.Authority) {
	return func(a *testtsa.Authority) { a.Reply = fn }
}

// asReply writes an answer with the right type.
func asReply(w http.ResponseWriter, answer []byte) {
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(answer)
}

var refusals = []refusal{
	{"wrong nonce", "nonce", nil, stamped(func(ts *timestamp.Timestamp) { ts.Nonce.Add(ts.Nonce, ts.Nonce) })},
	{"no nonce", "nonce", nil, stamped(func(ts *timestamp.Timestamp) { ts.Nonce = nil })},
	{"another imprint", "imprint", nil, stamped(func(ts *timestamp.Timestamp) { ts.HashedMessage[0] ^= 1 })},
	{"another hash of the imprint", "imprint", nil, stamped(func(ts *timestamp.Timestamp) {
		ts.HashAlgorithm, ts.HashedMessage = crypto.SHA384, make([]byte, 48)
	})},
	{"another policy", "policy 1.2.3.4.2, expected 1.2.3.4.1", nil, stamped(func(ts *timestamp.Timestamp) { ts.Policy[4] = 2 })},
	{"critical extension", "critical extension", nil, stamped(func(ts *timestamp.Timestamp) {
		ts.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	})},
	{"no certificate", "certificate", nil, stamped(func(ts *timestamp.Timestamp) { ts.AddTSACertificate = false })},
	{"signed with SHA-1", "", nil, func(a *testtsa.Authority) { a.Digest = crypto.SHA1 }},

	{"no extended key usage", "extended key usage", func(c *x509.Certificate) { c.ExtraExtensions = nil }, nil},
	{"extended key usage not critical", "critical", func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, nil},
	{"another extended key usage", "extended key usage", func(c *x509.Certificate) {
		c.ExtraExtensions, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}, nil},
	{"two extended key usages", "extended key usage", func(c *x509.Certificate) {
		c.ExtraExtensions, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageCodeSigning}
	}, nil},
	{"key usage for encryption", "key usage", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, nil},
	{"a CA", "CA", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, nil},
	{"expired", "", func(c *x509.Certificate) { c.NotAfter = now().Add(-time.Second) }, nil},
	{"not yet valid", "valid", func(c *x509.Certificate) { c.NotBefore = now().Add(time.Second) }, nil},

	{"truncated", "token", nil, replied(func(w http.ResponseWriter, b []byte) { asReply(w, b[:len(b)-1]) })},
	{"bytes after it", "token", nil, replied(func(w http.ResponseWriter, b []byte) { asReply(w, append(b, 0)) })},
	{"empty", "token", nil, replied(func(w http.ResponseWriter, b []byte) { asReply(w, nil) })},
	{"huge", "more than", nil, replied(func(w http.ResponseWriter, b []byte) { asReply(w, make([]byte, tsa.Limit+1)) })},
	{"no content type", "answered", nil, replied(func(w http.ResponseWriter, b []byte) { w.Header()["Content-Type"] = nil; w.Write(b) })},
	{"a page", "text/html", nil, replied(func(w http.ResponseWriter, b []byte) { w.Header().Set("Content-Type", "text/html"); w.Write(b) })},
	{"an error", "HTTP 503", nil, replied(func(w http.ResponseWriter, b []byte) { w.WriteHeader(503) })},
	{"a redirect", "HTTP 302", nil, replied(func(w http.ResponseWriter, b []byte) { w.Header().Set("Location", "/"); w.WriteHeader(302) })},
	{"a rejection", "unrecognized", nil, replied(func(w http.ResponseWriter, b []byte) {
		b, err := timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.BadAlgorithm)
		if err != nil {
			panic(err)
		}
		asReply(w, b)
	})},
}

func TestRefusals(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.what, func(t *testing.T) {
			a := authority(t, r.alter)
			if r.change != nil {
				r.change(a)
			}
			token, _, err := client(t, a).Stamp(ctx, data)
			if err == nil || token != nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("error %v, expected one about %q", err, r.want)
			}
		})
	}
}

// TestOtherRoot: a token of an authority that nobody pinned.
func TestOtherRoot(t *testing.T) {
	c := client(t, authority(t, nil))
	c.Trust = trust(t, authority(t, nil).Roots, "")
	if _, _, err := c.Stamp(ctx, data); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("error %v", err)
	}
}

// TestOtherCertificate: the token is signed for another certificate than the
// one that it holds.
func TestOtherCertificate(t *testing.T) {
	a := authority(t, nil)
	c := client(t, a)
	token, _, err := c.Stamp(ctx, data)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(token)
	i := bytes.Index(other, a.Cert.Raw)
	other[i+len(a.Cert.Raw)-1] ^= 1 // in the root's signature of it
	if _, err := c.Trust.Check(other, data); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("error %v", err)
	}
}

// TestEveryByte: no byte of a kept token can be changed unnoticed, but for
// those that say nothing, and never to another time.
func TestEveryByte(t *testing.T) {
	a := authority(t, nil)
	c := client(t, a)
	token, at, err := c.Stamp(ctx, data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range token {
		damaged := bytes.Clone(token)
		damaged[i] ^= 0x20
		if got, err := c.Trust.Check(damaged, data); err == nil && !got.Equal(at) {
			t.Errorf("byte %d: time %v, expected %v or an error", i, got, at)
		}
	}
	if _, err := c.Trust.Check(token, append(data, 'x')); err == nil {
		t.Error("a token over other data was accepted")
	}
	if _, err := c.Trust.Check(make([]byte, tsa.Limit+1), data); err == nil {
		t.Error("a huge token was accepted")
	}
}

func TestNetwork(t *testing.T) {
	a := authority(t, nil)
	c := client(t, a)
	c.Random = strings.NewReader("short")
	if _, _, err := c.Stamp(ctx, data); err == nil || a.Asked() != 0 {
		t.Errorf("without randomness: error %v, %d requests", err, a.Asked())
	}
	c.Random = rand.Reader
	stuck := make(chan struct{})
	defer close(stuck)
	a.Reply = func(http.ResponseWriter, []byte) { <-stuck }
	// A slow machine may need longer than that to send the request.
	for c.HTTP.Timeout = 50 * time.Millisecond; a.Asked() == 0; c.HTTP.Timeout *= 2 {
		if _, _, err := c.Stamp(ctx, data); err == nil {
			t.Fatal("no error from an authority that never answers")
		}
	}
	c.URL = "::"
	if _, _, err := c.Stamp(ctx, data); err == nil {
		t.Error("no error from a URL that is none")
	}
}

func TestNewTrust(t *testing.T) {
	roots := authority(t, nil).Roots
	for _, bad := range [][2]string{
		{"", ""}, {"text", ""}, {strings.Replace(roots, "CERTIFICATE", "PRIVATE KEY", 2), ""},
		{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""},
		{roots, "x"}, {roots, "1"}, {roots, "1..2"}, {roots, "01.2"}, {roots, "-1.2"}, {roots, "9.9"},
	} {
		if _, err := tsa.NewTrust(bad[0], bad[1]); err == nil {
			t.Errorf("roots %.30q, policy %q: no error", bad[0], bad[1])
		}
	}
	trust(t, roots+roots, "1.3.6.1.4.1.4146.2.3")
}

// FuzzCheck: whatever is stored as a token, there is no panic.
func FuzzCheck(f *testing.F) {
	a := authority(f, nil)
	c := client(f, a)
	token, _, err := c.Stamp(ctx, data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add([]byte{})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := c.Trust.Check(b, []byte("other data")); err == nil {
			t.Error("accepted for other data")
		}
	})
}
