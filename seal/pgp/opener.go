package pgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Opener decrypts messages that are addressed to an auditor: wraps and register
// records, at most 64 MiB. Implementations are safe for concurrent use.
type Opener interface {
	// Open returns the text of message once its integrity has been checked. A
	// message to other keys gives ErrWrongKey, or ErrNoKey if the
	// implementation cannot tell whose secret is missing.
	Open(ctx context.Context, message []byte) ([]byte, error)
}

// keyFile is an Opener over secret keys in memory.
type keyFile struct{ keys openpgp.EntityList }

// OpenKeyFile reads exported secret keys, armored or binary. passphrase is
// called, once, only if one of them is encrypted; what it returns is overwritten
// after use. A file with public keys gives ErrNoKey, a wrong passphrase
// ErrPassphrase.
func OpenKeyFile(data []byte, passphrase func() ([]byte, error)) (Opener, error) {
	list, _, err := readKeys(data)
	if err != nil {
		return nil, fmt.Errorf("secret key file: %w", err)
	}
	first := list[0].PrimaryKey.Fingerprint
	list = slices.DeleteFunc(list, func(e *openpgp.Entity) bool { return e.PrivateKey == nil }) // an export may hold both halves
	if len(list) == 0 {
		return nil, fmt.Errorf("secret key file: %w: it holds the public key %X", ErrNoKey, first)
	}
	encrypted := false
	for _, e := range list {
		encrypted = encrypted || e.PrivateKey.Encrypted
		for _, s := range e.Subkeys {
			encrypted = encrypted || s.PrivateKey != nil && s.PrivateKey.Encrypted
		}
	}
	if encrypted {
		if err := unlock(list, passphrase); err != nil {
			return nil, fmt.Errorf("secret key file: %w", err)
		}
	}
	return &keyFile{keys: list}, nil
}

func unlock(list openpgp.EntityList, passphrase func() ([]byte, error)) error {
	if passphrase == nil {
		return fmt.Errorf("%w: the key is encrypted and no passphrase was given", ErrPassphrase)
	}
	pass, err := passphrase()
	if err != nil {
		return fmt.Errorf("asking for the passphrase: %w", err)
	}
	defer clear(pass)
	for _, e := range list {
		if err := e.DecryptPrivateKeys(pass); err != nil {
			return fmt.Errorf("%w for %X", ErrPassphrase, e.PrimaryKey.Fingerprint)
		}
	}
	return nil
}

// Open decrypts message. Unlike Secret.Decrypt it also accepts what other
// OpenPGP programs write (compressed, other ciphers), because a wrap may have
// been added with stock gpg.
func (k *keyFile) Open(ctx context.Context, message []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ids, err := Recipients(message)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(ids, k.has) {
		return nil, fmt.Errorf("%w: %v", ErrWrongKey, ids)
	}
	limit := int64(maxMessage)
	details, err := openpgp.ReadMessage(bytes.NewReader(message), k.keys, nil, &packet.Config{MaxDecompressedMessageSize: &limit})
	if err != nil {
		return nil, damaged(err)
	}
	// Reading to the end checks the MDC.
	text, err := io.ReadAll(io.LimitReader(details.UnverifiedBody, maxMessage+1))
	if err != nil {
		clear(text)
		return nil, damaged(err)
	}
	if len(text) > maxMessage {
		return nil, fmt.Errorf("message text: more than %d bytes", maxMessage)
	}
	return text, nil
}

// has reports whether one of the subkeys has the key id.
func (k *keyFile) has(id string) bool {
	for _, e := range k.keys {
		if keyID(e.PrimaryKey.KeyId) == id {
			return true
		}
		for _, s := range e.Subkeys {
			if keyID(s.PublicKey.KeyId) == id {
				return true
			}
		}
	}
	return false
}

// localGPG is an Opener that runs the machine's gpg.
type localGPG struct{ home string }

// LocalGPG returns an Opener that runs `gpg --batch --decrypt` with home as
// GNUPGHOME (empty: gpg's own default), so that the agent asks for a
// passphrase and a card can be used. The context ends the program.
func LocalGPG(home string) Opener { return localGPG{home} }

// Open accepts what gpg decrypted only if it also says that the integrity check
// passed. Without gpg or a secret key the error wraps ErrNoKey. The text, at most
// 64 MiB, is overwritten if it is not accepted.
func (g localGPG) Open(ctx context.Context, message []byte) ([]byte, error) {
	args := []string{"--batch", "--no-auto-key-retrieve", "--status-fd", "2", "--decrypt"}
	if g.home != "" {
		args = append([]string{"--homedir", g.home}, args...)
	}
	cmd := exec.CommandContext(ctx, "gpg", args...)
	cmd.Stdin = bytes.NewReader(message)
	var text, talk cappedBuffer
	text.limit, talk.limit = maxMessage, 1<<16
	cmd.Stdout, cmd.Stderr = &text, &talk
	err := cmd.Run()
	status := talk.String()
	if err == nil && hasStatus(status, "DECRYPTION_OKAY") && hasStatus(status, "GOODMDC") {
		return text.Bytes(), nil
	}
	clear(text.Bytes())
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%w: gpg is not installed: %w", ErrNoKey, err)
	case hasStatus(status, "NO_SECKEY"):
		return nil, fmt.Errorf("%w: gpg has none that this message is encrypted to", ErrNoKey)
	case err == nil:
		err = errors.New("no integrity check reported")
	}
	return nil, fmt.Errorf("gpg --decrypt: %w: %s", err, lastWords(status))
}

// hasStatus reports whether gpg's status lines hold a keyword.
func hasStatus(output, keyword string) bool {
	for line := range strings.Lines(output) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "[GNUPG:]" && f[1] == keyword {
			return true
		}
	}
	return false
}

// lastWords returns the last line that gpg wrote for people.
func lastWords(output string) string {
	last := "no message"
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "[GNUPG:]") {
			last = line
		}
	}
	return last
}

// cappedBuffer is a bytes.Buffer that fails beyond a limit.
type cappedBuffer struct {
	bytes.Buffer
	limit int
}

// Write takes all of p or, if that would exceed the limit, nothing: gpg is then
// stopped by the closed pipe.
func (b *cappedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, fmt.Errorf("gpg wrote more than %d bytes", b.limit)
	}
	return b.Buffer.Write(p)
}
