package tsa_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"logvault/ledger/tsa"
)

// openssl is a time-stamping authority made of `openssl ts`, with its own CA.
type openssl struct {
	testing.TB
	dir string
}

func (o *openssl) run(args ...string) []byte {
	o.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "OPENSSL_CONF=c.cnf") // not the account's
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (o *openssl) write(name, text string) {
	o.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		o.Fatal(err)
	}
}

func (o *openssl) read(name string) []byte {
	o.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, name))
	if err != nil {
		o.Fatal(err)
	}
	return data
}

const opensslConf = `
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
[tsa_cert]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = one
[one]
serial = ./serial
signer_digest = sha256
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.5
digests = sha256
accuracy = secs:1
ordering = yes
ess_cert_id_alg = sha256
`

// newOpenssl makes root, intermediate and authority.
func newOpenssl(t testing.TB) *openssl {
	o := &openssl{t, t.TempDir()}
	o.write("c.cnf", opensslConf)
	o.write("serial", "01\n")
	o.run("req", "-config", "c.cnf", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root", "-extensions", "ca", "-days", "3")
	for _, c := range [][3]string{{"mid", "root", "ca"}, {"tsa", "mid", "tsa_cert"}} {
		o.run("req", "-config", "c.cnf", "-newkey", "rsa:2048", "-nodes", "-keyout", c[0]+".key", "-out", c[0]+".csr", "-subj", "/CN="+c[0])
		o.run("x509", "-req", "-in", c[0]+".csr", "-CA", c[1]+".pem", "-CAkey", c[1]+".key", "-CAcreateserial", "-extfile", "c.cnf", "-extensions", c[2], "-days", "2", "-out", c[0]+".pem")
	}
	return o
}

// ServeHTTP answers with `openssl ts -reply`.
func (o *openssl) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	o.write("query.tsq", string(query))
	o.run("ts", "-reply", "-config", "c.cnf", "-queryfile", "query.tsq", "-signer", "tsa.pem", "-inkey", "tsa.key", "-chain", "mid.pem", "-out", "reply.tsr")
	asReply(w, o.read("reply.tsr"))
}

// TestOpenSSL stamps with `openssl ts` and lets it verify what we keep.
func TestOpenSSL(t *testing.T) {
	o := newOpenssl(t)
	s := httptest.NewServer(o)
	defer s.Close()
	roots := string(o.read("root.pem"))
	c := &tsa.Authority{URL: s.URL, HTTP: s.Client(), Random: rand.Reader}
	for _, policy := range []string{"", "1.2.3.4.1", "1.2.3.4.5"} {
		c.Trust = trust(t, roots, policy)
		before := time.Now().Truncate(time.Second) // as openssl does
		token, at, err := c.Stamp(ctx, data)
		if err != nil {
			t.Fatalf("policy %q: %v", policy, err)
		}
		if after := time.Now(); at.Before(before) || at.After(after) {
			t.Errorf("policy %q: time %v, expected one from %v to %v", policy, at, before, after)
		}
		o.write("kept.tsr", string(token))
		o.write("data", string(data))
		if out := o.run("ts", "-verify", "-in", "kept.tsr", "-data", "data", "-CAfile", "root.pem"); !bytes.Contains(out, []byte("Verification: OK")) {
			t.Errorf("openssl: %s", out)
		}
	}
	c.Trust = trust(t, roots, "1.2.3.4.9")
	if _, _, err := c.Stamp(ctx, data); err == nil {
		t.Error("a policy that the authority does not have: no error")
	}
	c.Trust = trust(t, string(newOpenssl(t).read("root.pem")), "")
	if _, _, err := c.Stamp(ctx, data); err == nil {
		t.Error("another root of the same name: no error")
	}
}
