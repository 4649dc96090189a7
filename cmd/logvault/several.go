package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
)

// tally is how it went with each of the vaults that a command was given. What is
// wrong with one hides nothing of the others; the command ends with the worst.
type tally struct {
	vaults, wrong int
	worst         error
}

// add counts a vault with which something is wrong; nil counts nothing.
func (t *tally) add(err error) {
	if err != nil {
		t.wrong++
		t.worst = worse(t.worst, err)
	}
}

// err is what the command ends with.
func (t *tally) err() error {
	if t.wrong == 0 || t.vaults == 1 {
		return t.worst
	}
	return &codedError{exitCode(t.worst), hint(t.worst), fmt.Errorf("%d of %s: %w", t.wrong, count(int64(t.vaults), "vault"), t.worst)}
}

// problem counts a vault that cannot be read; err names it. Of several it is said at once, as
// in status: the command's end tells only the worst. A vault counts once.
func (a *app) problem(c *cli.Context, t *tally, r *reading, err error) {
	if r.failed {
		return
	}
	r.failed = true
	t.add(err)
	switch {
	case t.vaults == 1:
	case flag(c, "json"):
		json.NewEncoder(a.out).Encode(map[string]any{"message_type": "problem", "vault": r.name, "problem": err.Error()}) // the command fails anyway
	default:
		fmt.Fprintf(a.err, "PROBLEM %v\n", err)
	}
}

// severity ranks exit codes from the least to the worst.
var severity = []int{codeOK, codePartial, codeLocked, codeNoVault, codeKey, codeRefused, codeUsage, codeFailure, codeIntegrity, codeInterrupted}

// worse returns the error with the worse exit code, the first of equals.
func worse(a, b error) error {
	if slices.Index(severity, exitCode(b)) > slices.Index(severity, exitCode(a)) {
		return b
	}
	return a
}
