package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/tsa"
)

// LoadTrust reads what --trust names: a trust.toml, a file that holds one bare
// verifier key (STATE/ledger.vkey), or a verifier key itself. A verifier key
// is NAME+HASH+KEY as golang.org/x/mod/sumdb/note defines it.
func LoadTrust(fsys vfs.FS, arg string) (*ledger.Trust, error) {
	if isVKey(arg) {
		return bareTrust("verifier key", arg)
	}
	data, err := vfs.ReadFile(fsys, arg, fileLimit)
	if err != nil {
		return nil, fmt.Errorf("reading the pinned trust: %w", err)
	}
	if line := strings.TrimSpace(string(data)); isVKey(line) {
		return bareTrust(arg, line)
	}
	t := new(ledger.Trust)
	if err := DecodeStrict(arg, data, t); err != nil {
		return nil, err
	}
	if t.Log == "" {
		return nil, &Error{arg, 0, "log is empty, expected the ledger's verifier key"}
	}
	if err := t.Valid(); err != nil {
		return nil, &Error{arg, 0, err.Error()}
	}
	if t.TSA != nil {
		if _, err := tsa.NewTrust(t.TSA.Roots, t.TSA.Policy); err != nil {
			return nil, &Error{arg, 0, "tsa: " + err.Error()}
		}
	}
	return t, nil
}

// bareTrust pins a verifier key alone. A ledger's key bears the name of its
// origin. from is where it was given.
func bareTrust(from, vkey string) (*ledger.Trust, error) {
	origin, _, _ := strings.Cut(vkey, "+")
	t := &ledger.Trust{Origin: origin, Log: vkey}
	if err := t.Valid(); err != nil {
		return nil, &Error{from, 0, err.Error()}
	}
	return t, nil
}

// isVKey tells a verifier key from a path: one line of three parts, the second
// of 8 hex digits.
func isVKey(s string) bool {
	name, rest, ok := strings.Cut(s, "+")
	hash, key, ok2 := strings.Cut(rest, "+")
	return ok && ok2 && name != "" && key != "" && !strings.ContainsAny(s, "\n \t") &&
		len(hash) == 8 && strings.Trim(hash, "0123456789abcdef") == ""
}

// EncodeTrust gives the TOML form that LoadTrust reads.
func EncodeTrust(t *ledger.Trust) ([]byte, error) {
	if t.Log == "" {
		return nil, errors.New("encoding trust: no ledger key")
	}
	var b bytes.Buffer
	b.WriteString("# What a reader of this vault pins. Keep a copy where the gateway cannot write.\n")
	if err := toml.NewEncoder(&b).Encode(t); err != nil {
		return nil, fmt.Errorf("encoding trust: %w", err)
	}
	return b.Bytes(), nil
}
