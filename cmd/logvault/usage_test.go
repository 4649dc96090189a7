package main

import (
	"errors"
	"testing"

	"logvault/vault"
)

// TestFlagText: what the flag library says reaches people in this program's words,
// and what it does not know stays as it is.
func TestFlagText(t *testing.T) {
	for text, want := range map[string]string{
		"flag provided but not defined: -nosuch":                    "unknown flag --nosuch",
		"flag provided but not defined: --nosuch":                   "unknown flag --nosuch",
		"flag needs an argument: -source":                           "--source needs a value",
		`invalid value "x" for flag -jobs: parse error`:             `--jobs: "x" is not what it takes`,
		`invalid boolean value "maybe" for -json: parse error`:      `--json: "maybe" is not what it takes`,
		`invalid value "b:c" for flag -source: ` + errTwice.Error(): "--source: " + errTwice.Error(),
		"something new": "something new",
	} {
		if got := flagText(errors.New(text)); got != want {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
}

// TestWorse: every exit code has a rank, and of equals the first counts.
func TestWorse(t *testing.T) {
	if len(severity) != len(codeMeaning) {
		t.Fatalf("%d ranks for %d exit codes", len(severity), len(codeMeaning))
	}
	for i, a := range severity {
		for j, b := range severity {
			ea, eb := error(&codedError{a, "", errors.New("a")}), error(&codedError{b, "", errors.New("b")})
			if got := worse(ea, eb); j > i && got != eb || j <= i && got != ea {
				t.Errorf("of the codes %d and %d: %v", a, b, got)
			}
		}
	}
	if got := worse(nil, vault.ErrNoVault); got != vault.ErrNoVault {
		t.Errorf("of none and one: %v", got)
	}
}
