package segment

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"logvault/seal/pgp"
	"logvault/vault"
)

// testKey is a period key pair, opened through a real wrap.
type testKey struct {
	public *pgp.PublicKey
	secret *pgp.Secret
}

func newTestKey(t testing.TB) testKey {
	t.Helper()
	pub, sec, err := pgp.GenerateAuditor("Test", nil, rand.Reader, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	auditor, err := pgp.ParseAuditor(pub, time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	opener, err := pgp.OpenKeyFile(sec, nil)
	if err != nil {
		t.Fatal(err)
	}
	period, err := pgp.GeneratePeriod(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer period.Destroy()
	wrap, err := period.Wrap(rand.Reader, []pgp.Auditor{auditor})
	if err != nil {
		t.Fatal(err)
	}
	content, err := opener.Open(t.Context(), wrap)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pgp.OpenSecret(content)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pgp.ParsePublic(period.Public())
	if err != nil {
		t.Fatal(err)
	}
	return testKey{public, secret}
}

func newTestEncoder(t testing.TB, c vault.Codec, level int) *Encoder {
	t.Helper()
	e, err := NewEncoder(Options{Codec: c, Level: level, Workers: 3, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var testMeta = Meta{Name: []byte("squid/access.log\xff"), Source: "proxy-1", Stream: vault.StreamID{1, 2, 3}, Gen: 4, Offset: 1 << 40}

func mustEncode(t testing.TB, e *Encoder, raw []byte, k testKey) *Encoded {
	t.Helper()
	enc, err := e.Encode(t.Context(), raw, testMeta, k.public)
	if err != nil {
		t.Fatal(err)
	}
	if enc.Object != vault.HashOf(enc.Segment) || enc.IndexHash != vault.HashOf(enc.Index) {
		t.Fatal("a hash is not that of its bytes")
	}
	return enc
}

func mustIndex(t testing.TB, enc *Encoded, k testKey) *Index {
	t.Helper()
	ix, err := DecodeIndex(bytes.NewReader(enc.Index), k.secret)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// decryptText returns what `gpg -d` would print.
func decryptText(t testing.TB, message []byte, k testKey) []byte {
	t.Helper()
	r, err := k.secret.Decrypt(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// squidLine makes line n of a log: 50 clients, 7 users, 1000 hosts, one needle.
func squidLine(n int) string {
	client, user := fmt.Sprintf("10.0.0.%d", n%50), "-"
	if n%3 == 0 {
		user = fmt.Sprintf("user%d", n%7)
	}
	if n == 12345 {
		client = "2001:DB8::7"
	}
	return fmt.Sprintf("%d.%03d %6d %s TCP_MISS/200 %d GET http://Host%d.Example.org/p/%d %s HIER_DIRECT/192.0.2.1 text/html\n",
		1735689600+n/10, n%1000, n%977, client, n, n%1000, n, user)
}

func squidLog(lines int) []byte {
	var b strings.Builder
	for n := range lines {
		b.WriteString(squidLine(n))
	}
	return []byte(b.String())
}
