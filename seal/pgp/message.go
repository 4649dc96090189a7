package pgp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// newMessage starts a message to all of to: PKESKs, SEIPD v1, literal packet.
func newMessage(w io.Writer, random io.Reader, to []*packet.PublicKey) (io.WriteCloser, error) {
	if len(to) == 0 {
		return nil, errors.New("encrypting: no recipients")
	}
	session := make([]byte, packet.CipherAES256.KeySize())
	defer clear(session)
	if _, err := io.ReadFull(random, session); err != nil {
		return nil, fmt.Errorf("encrypting: drawing a session key: %w", err)
	}
	config := &packet.Config{Rand: random}
	for _, key := range to {
		// false: v3 PKESK, not the v6 of RFC 9580.
		if err := packet.SerializeEncryptedKeyAEAD(w, key, packet.CipherAES256, false, session, config); err != nil {
			return nil, fmt.Errorf("encrypting to %X: %w", key.Fingerprint, err)
		}
	}
	sealed, err := newSealed(w, random, session)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return sealed, nil
}

var errClosed = errors.New("message is closed")

// EncryptTo encrypts data to all of to, which must not be empty: the form of
// wraps and register records.
func EncryptTo(random io.Reader, to []Auditor, data []byte) ([]byte, error) {
	keys := make([]*packet.PublicKey, len(to))
	for i, a := range to {
		if a.subkey == nil {
			return nil, fmt.Errorf("encrypting: auditor %q was not made by this package", a.Fingerprint)
		}
		keys[i] = a.subkey
	}
	var out bytes.Buffer
	w, err := newMessage(&out, random, keys)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return out.Bytes(), nil
}

// Packet tags and versions of RFC 4880 that a message of ours consists of.
const (
	tagPKESK, versionPKESK = 1, 3
	tagSEIPD, versionSEIPD = 18, 1
)

// Recipients returns the key ids, 16 lower-case hex digits each, that message
// is encrypted to, in its order. It needs no key, and checks that the message
// has the packets of this package and nothing before, between or after them. A
// key id names a subkey: Auditor.KeyID is its counterpart.
func Recipients(message []byte) ([]string, error) {
	reader := packet.NewOpaqueReader(bytes.NewReader(message))
	var ids []string
	for {
		p, err := reader.Next()
		if err != nil {
			return nil, fmt.Errorf("%w: after %d recipients: %v", ErrDamaged, len(ids), err)
		}
		switch {
		case p.Tag == tagPKESK && len(p.Contents) > 9 && p.Contents[0] == versionPKESK:
			ids = append(ids, keyID(binary.BigEndian.Uint64(p.Contents[1:])))
		case p.Tag == tagSEIPD && len(p.Contents) > 1 && p.Contents[0] == versionSEIPD && len(ids) > 0:
			if _, err := reader.Next(); err != io.EOF {
				return nil, fmt.Errorf("%w: data after the message", ErrDamaged)
			}
			return ids, nil
		default:
			return nil, fmt.Errorf("%w: packet %d of %d bytes, expected a v3 PKESK or v1 SEIPD", ErrDamaged, p.Tag, len(p.Contents))
		}
	}
}

func keyID(id uint64) string { return fmt.Sprintf("%016x", id) }

// openMessage is the reverse of newMessage for one key.
func openMessage(r io.Reader, key *packet.PrivateKey) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, pieceSize)
	packets := packet.NewReader(buffered)
	var session *packet.EncryptedKey
	var others []string
	for {
		p, err := packets.Next()
		if err != nil {
			return nil, damaged(err)
		}
		switch p := p.(type) {
		case *packet.EncryptedKey:
			if p.Version != versionPKESK {
				return nil, fmt.Errorf("%w: PKESK version %d, expected %d", ErrDamaged, p.Version, versionPKESK)
			}
			if p.KeyId == key.KeyId {
				session = p
			} else {
				others = append(others, keyID(p.KeyId))
			}
		case *packet.SymmetricallyEncrypted:
			if session == nil {
				return nil, fmt.Errorf("%w: %v, this key is %s", ErrWrongKey, others, keyID(key.KeyId))
			}
			return openSealed(buffered, p, session, key)
		default:
			return nil, fmt.Errorf("%w: unexpected packet %T", ErrDamaged, p)
		}
	}
}

// openSealed opens the SEIPD packet and the literal packet in it.
func openSealed(outer *bufio.Reader, sealed *packet.SymmetricallyEncrypted, session *packet.EncryptedKey, key *packet.PrivateKey) (io.Reader, error) {
	if !sealed.IntegrityProtected || sealed.Version != versionSEIPD {
		return nil, fmt.Errorf("%w: encrypted data version %d, expected SEIPD %d", ErrDamaged, sealed.Version, versionSEIPD)
	}
	if err := session.Decrypt(key, nil); err != nil {
		return nil, damaged(err)
	}
	defer clear(session.Key)
	if session.CipherFunc != packet.CipherAES256 {
		return nil, fmt.Errorf("%w: cipher %d, expected %d (AES-256)", ErrDamaged, session.CipherFunc, packet.CipherAES256)
	}
	text, err := sealed.Decrypt(session.CipherFunc, session.Key)
	if err != nil {
		return nil, damaged(err)
	}
	inner := bufio.NewReaderSize(text, pieceSize)
	p, err := packet.Read(inner)
	if err != nil {
		return nil, damaged(err)
	}
	literal, ok := p.(*packet.LiteralData)
	if !ok {
		return nil, fmt.Errorf("%w: packet %T, expected literal data", ErrDamaged, p)
	}
	return &messageReader{body: literal.Body, inner: inner, sealed: text, outer: outer}, nil
}

// messageReader reads a literal packet's body. It reports io.EOF only after the
// body, the MDC and the end of the input have been seen in their places.
type messageReader struct {
	body   io.Reader
	inner  *bufio.Reader // the decrypted packets
	sealed io.Closer     // Close checks the MDC
	outer  *bufio.Reader // the message
	err    error         // sticky
}

// Read may give bytes of a message that turns out to be damaged: nothing is to be
// believed before io.EOF. Errors stay, and wrap ErrDamaged where the message is at fault.
func (m *messageReader) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.body.Read(p)
	if err == io.EOF {
		err = m.finish()
	} else if err != nil {
		err = damaged(err)
	}
	m.err = err
	return n, err
}

// finish returns io.EOF if the message ends here and its MDC is right.
func (m *messageReader) finish() error {
	if _, err := m.inner.ReadByte(); err == nil {
		return fmt.Errorf("%w: data after the literal packet", ErrDamaged)
	} else if err != io.EOF {
		return damaged(err)
	}
	if err := m.sealed.Close(); err != nil {
		return damaged(err)
	}
	if _, err := m.outer.ReadByte(); err == nil {
		return fmt.Errorf("%w: data after the message", ErrDamaged)
	} else if err != io.EOF {
		return damaged(err)
	}
	return io.EOF
}

// damaged turns an error of go-crypto or of the input into one that wraps both
// ErrDamaged and the cause, so that a failed disk can still be told apart.
func damaged(err error) error { return fmt.Errorf("%w: %w", ErrDamaged, err) }
