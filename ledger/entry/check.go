package entry

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"logvault/vault"
)

// checkText accepts what the canonical form can hold as a string.
func checkText(s string) error {
	for rest := s; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		if err := checkRune(r, n); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func checkLength(n, min, max int) error {
	if n < min || n > max {
		return fmt.Errorf("%d bytes, expected %d to %d", n, min, max)
	}
	return nil
}

// limit accepts strings of at most max bytes.
func limit(max int) func(string) error {
	return func(s string) error { return checkLength(len(s), 0, max) }
}

func checkHex(s string, digits int) error {
	if len(s) != digits || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("%q, expected %d lower-case hex digits", s, digits)
	}
	return nil
}

// checkID accepts a vault's or a hold's id.
func checkID(s string) error { return checkHex(s, 32) }

// checkFingerprint accepts the full fingerprint of an OpenPGP v4 key.
func checkFingerprint(s string) error { return checkHex(s, 40) }

// checkRole accepts the id of a role, a copy, a code or a profile: what a class name may be.
func checkRole(s string) error {
	if vault.Class(s).Valid() != nil {
		return fmt.Errorf("%q, expected 1 to 32 of a-z, 0-9 and '-', starting with a letter", s)
	}
	return nil
}

// checkOrigin accepts an origin line: what a note key may be called.
func checkOrigin(s string) error {
	if err := checkLength(len(s), 1, 255); err != nil {
		return err
	}
	if strings.Contains(s, "+") || strings.ContainsFunc(s, unicode.IsSpace) {
		return fmt.Errorf("%q, expected no white space and no '+'", s)
	}
	return nil
}

// checkNoteKey accepts a note verifier key, name+hash+base64(algorithm ‖ 32
// bytes), whose hash fits. Whether the algorithm is one we know is for the user of the key.
func checkNoteKey(s string) error {
	name, rest, _ := strings.Cut(s, "+")
	id, key64, _ := strings.Cut(rest, "+")
	if err := checkOrigin(name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || len(key) != 33 || strings.ContainsAny(key64, "\r\n") {
		return errors.New("expected a note verifier key")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if want := hex.EncodeToString(sum[:4]); id != want {
		return fmt.Errorf("key hash %q, expected %q", id, want)
	}
	return nil
}

// checkPeriod accepts a calendar duration: P, then years, months and days,
// each a number of 1 to 9999 with its letter, at least one of them.
func checkPeriod(s string) error {
	bad := fmt.Errorf("%q, expected a period such as P1Y, P6M or P30D", s)
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return bad
	}
	for _, unit := range "YMD" {
		digits, after, found := strings.Cut(rest, string(unit))
		if !found {
			continue
		}
		if len(digits) < 1 || len(digits) > 4 || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
			return bad
		}
		rest = after
	}
	if rest != "" {
		return bad
	}
	return nil
}

// checkZone accepts the shape of an IANA zone name.
func checkZone(s string) error {
	if err := checkLength(len(s), 1, 64); err != nil {
		return err
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+-", r) {
			return fmt.Errorf("%q, expected an IANA zone name", s)
		}
	}
	return nil
}

// checkObjectName accepts the shape of an object name: relative, without empty
// or dot elements.
func checkObjectName(s string) error {
	if err := checkLength(len(s), 1, 512); err != nil {
		return err
	}
	for elem := range strings.SplitSeq(s, "/") {
		if elem == "" || elem == "." || elem == ".." || strings.Contains(elem, "\\") {
			return fmt.Errorf("%q, expected an object name", s)
		}
	}
	return nil
}
