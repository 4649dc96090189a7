// Package tsa has data time-stamped by an authority of RFC 3161, and checks
// what such an authority answered.
//
// A request is POSTed as application/timestamp-query with the SHA-256 of the
// data, a random nonce and the policy asked for. The answer, a TimeStampResp of
// application/timestamp-reply, is what is kept, as it came:
//
//	openssl ts -verify -in TOKEN.tsr -data FILE -CAfile roots.pem
//
// checks it without logvault. Trust.Check accepts a token only if
//
//   - it was granted, and holds the imprint SHA-256 of the data;
//   - it has one signature, with SHA-2, over attributes that name the content
//     type id-ct-TSTInfo and (signing-certificate, RFC 5035) the certificate;
//   - the signer's certificate has the one extended key usage timeStamping,
//     critical, and no key usage but signing, is no CA, and chains to a pinned
//     root by certificates in the token that were all valid at the token's time;
//   - it was made under the pinned policy, if one is pinned;
//   - it has no critical extension.
//
// The token's time is thereby that of the authority at the moment it signed.
// Revocation is not checked: roots are pinned by a person, and taken out by one.
package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/digitorus/timestamp"
)

// Limit is the size limit of an answer in bytes. Those of public authorities
// have 3 to 8 KiB.
const Limit = 32 << 10

// The content types of RFC 3161, section 3.4.
const (
	queryType = "application/timestamp-query"
	replyType = "application/timestamp-reply"
)

// Trust is what a person has pinned of an authority.
type Trust struct {
	roots  *x509.CertPool
	policy asn1.ObjectIdentifier // nil = any
}

// NewTrust takes the root certificates in PEM, at least one, and the policy as
// a dotted object identifier, or "".
func NewTrust(roots, policy string) (*Trust, error) {
	t := &Trust{roots: x509.NewCertPool()}
	n := 0
	for rest := []byte(roots); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("time-stamping roots: PEM block %q, expected CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("time-stamping roots: certificate %d: %w", n+1, err)
		}
		t.roots.AddCert(cert)
	}
	if n == 0 {
		return nil, errors.New("time-stamping roots: no certificate in PEM")
	}
	if policy == "" {
		return t, nil
	}
	for part := range strings.SplitSeq(policy, ".") {
		i, err := strconv.Atoi(part)
		if err != nil || i < 0 || strconv.Itoa(i) != part {
			return nil, fmt.Errorf("time-stamping policy %q: expected an object identifier such as 1.2.3.4", policy)
		}
		t.policy = append(t.policy, i)
	}
	if _, err := asn1.Marshal(t.policy); err != nil {
		return nil, fmt.Errorf("time-stamping policy %q: %w", policy, err)
	}
	return t, nil
}

// Authority is a time-stamping authority that is asked over HTTP.
type Authority struct {
	URL    string
	Trust  *Trust
	HTTP   *http.Client // makes the requests; its time-out bounds each
	Random io.Reader    // for nonces
}

// Stamp has data time-stamped. The token is the answer as it came, checked as
// Check does and for the nonce of this request; the time is the token's.
func (a *Authority) Stamp(ctx context.Context, data []byte) (token []byte, at time.Time, err error) {
	fail := func(err error) ([]byte, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf("time-stamping: %w", err)
	}
	var random [16]byte
	if _, err := io.ReadFull(a.Random, random[:]); err != nil {
		return fail(fmt.Errorf("drawing a nonce: %w", err))
	}
	random[0] = random[0]&0x7f | 0x40 // always 16 bytes in DER
	nonce := new(big.Int).SetBytes(random[:])
	imprint := sha256.Sum256(data)
	query, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Certificates: true, TSAPolicyOID: a.Trust.policy, Nonce: nonce}).Marshal()
	if err != nil {
		return fail(err)
	}
	if token, err = a.post(ctx, query); err != nil {
		return fail(err)
	}
	ts, err := a.Trust.check(token, data)
	if err != nil {
		return fail(err)
	}
	if ts.Nonce == nil || ts.Nonce.Cmp(nonce) != 0 {
		return fail(errors.New("the token answers another request: its nonce is not ours"))
	}
	return token, ts.Time.UTC(), nil
}

// post sends a query. It follows no redirect, which would turn it into a GET.
func (a *Authority) post(ctx context.Context, query []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", queryType)
	client := *a.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the authority answered HTTP %d", res.StatusCode)
	}
	if err != nil || kind != replyType {
		return nil, fmt.Errorf("the authority answered %.80q, expected %s", res.Header.Get("Content-Type"), replyType)
	}
	token, err := io.ReadAll(io.LimitReader(res.Body, Limit+1))
	if err != nil {
		return nil, err
	}
	if len(token) > Limit {
		return nil, fmt.Errorf("the authority answered more than %d bytes", Limit)
	}
	return token, nil
}

// Check accepts a kept token over data, and returns its time. It needs no
// network, and no date but those in the token.
func (t *Trust) Check(token, data []byte) (time.Time, error) {
	ts, err := t.check(token, data)
	if err != nil {
		return time.Time{}, err
	}
	return ts.Time.UTC(), nil
}

// check parses a token and judges it. What the library checks of the signature
// depends on what the token holds, so all of it is checked again here.
func (t *Trust) check(token, data []byte) (*timestamp.Timestamp, error) {
	if len(token) > Limit {
		return nil, fmt.Errorf("token: %d bytes, expected at most %d", len(token), Limit)
	}
	ts, err := timestamp.ParseResponse(token)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	imprint := sha256.Sum256(data)
	switch {
	case ts.HashAlgorithm != crypto.SHA256 || !bytes.Equal(ts.HashedMessage, imprint[:]):
		return nil, fmt.Errorf("token: imprint %v %x, expected SHA-256 %x", ts.HashAlgorithm, ts.HashedMessage, imprint)
	case t.policy != nil && !ts.Policy.Equal(t.policy):
		return nil, fmt.Errorf("token: policy %v, expected %v", ts.Policy, t.policy)
	}
	for _, e := range ts.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("token: unknown critical extension %v", e.Id)
		}
	}
	return ts, t.checkSigner(ts)
}
