package tsa

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // ESSCertID, which names a certificate and proves nothing alone
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// Object identifiers.
var (
	oidTSTInfo          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidSigningCert      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12} // RFC 2634: SHA-1
	oidSigningCertV2    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47} // RFC 5035
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// digests are the digest algorithms that a signature may use.
var digests = []asn1.ObjectIdentifier{pkcs7.OIDDigestAlgorithmSHA256, pkcs7.OIDDigestAlgorithmSHA384, pkcs7.OIDDigestAlgorithmSHA512}

// checkSigner checks the signature of a token and who made it.
func (t *Trust) checkSigner(ts *timestamp.Timestamp) error {
	p7, err := pkcs7.Parse(ts.RawToken)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		return fmt.Errorf("token: %d signatures and %d certificates, expected one signature and its certificate", len(p7.Signers), len(p7.Certificates))
	}
	digest := p7.Signers[0].DigestAlgorithm.Algorithm
	if !slices.ContainsFunc(digests, digest.Equal) {
		return fmt.Errorf("token: signed with the digest %v, expected SHA-2", digest)
	}
	if err := p7.Verify(); err != nil {
		return fmt.Errorf("token: signature: %w", err)
	}
	var content asn1.ObjectIdentifier
	if err := p7.UnmarshalSignedAttribute(pkcs7.OIDAttributeContentType, &content); err != nil || !content.Equal(oidTSTInfo) {
		return fmt.Errorf("token: signed content type %v, expected a time-stamp", content)
	}
	if err := checkSigningCertificate(p7, signer); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if err := checkUsage(signer); err != nil {
		return fmt.Errorf("signer's certificate: %w", err)
	}
	others := x509.NewCertPool()
	for _, c := range p7.Certificates {
		others.AddCert(c)
	}
	_, err = signer.Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: others, CurrentTime: ts.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}})
	if err != nil {
		return fmt.Errorf("signer's certificate at the token's time: %w", err)
	}
	return nil
}

// checkUsage accepts a certificate that is for time-stamping and nothing else,
// as RFC 3161, section 2.3 asks.
func checkUsage(c *x509.Certificate) error {
	const signing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	critical := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidExtendedKeyUsage) && e.Critical })
	switch {
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}) || len(c.UnknownExtKeyUsage) > 0:
		return errors.New("extended key usage: expected timeStamping and nothing else")
	case !critical:
		return errors.New("extended key usage: expected to be critical")
	case c.KeyUsage&^signing != 0:
		return errors.New("key usage: expected signing only")
	case c.IsCA:
		return errors.New("is a CA's")
	}
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return fmt.Errorf("RSA key of %d bits, expected at least 2048", k.N.BitLen())
	}
	return nil
}

// certID is the first member of ESSCertID and ESSCertIDv2 alike; what follows
// it names the issuer and is of no use.
type certID struct {
	Raw  asn1.RawContent
	Algo pkix.AlgorithmIdentifier `asn1:"optional"` // v2 only; absent = SHA-256
	Hash []byte
	Rest asn1.RawValue `asn1:"optional"`
}

// signingCertificate is SigningCertificate and SigningCertificateV2.
type signingCertificate struct {
	Certs    []certID
	Policies asn1.RawValue `asn1:"optional"`
}

// checkSigningCertificate checks the signed attribute that names the signer's
// certificate: without it, another certificate of the same key could be put in
// its place.
func checkSigningCertificate(p7 *pkcs7.PKCS7, signer *x509.Certificate) error {
	var named signingCertificate
	hash := crypto.SHA256
	if err := p7.UnmarshalSignedAttribute(oidSigningCertV2, &named); err != nil {
		if err := p7.UnmarshalSignedAttribute(oidSigningCert, &named); err != nil {
			return errors.New("no signed attribute names the signer's certificate")
		}
		hash = crypto.SHA1
	}
	if len(named.Certs) == 0 {
		return errors.New("the signed attribute signing-certificate is empty")
	}
	switch algo := named.Certs[0].Algo.Algorithm; {
	case algo.Equal(pkcs7.OIDDigestAlgorithmSHA384):
		hash = crypto.SHA384
	case algo.Equal(pkcs7.OIDDigestAlgorithmSHA512):
		hash = crypto.SHA512
	case len(algo) > 0 && !algo.Equal(pkcs7.OIDDigestAlgorithmSHA256):
		return fmt.Errorf("the signed attribute signing-certificate uses the digest %v", algo)
	}
	h := hash.New()
	h.Write(signer.Raw)
	if !bytes.Equal(h.Sum(nil), named.Certs[0].Hash) {
		return errors.New("signed for another certificate than the one that it holds")
	}
	return nil
}
