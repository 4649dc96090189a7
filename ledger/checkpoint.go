package ledger

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"logvault/ledger/entry"
	"logvault/vault"
)

// maxCheckpoint is the size limit of a signed checkpoint in bytes.
const maxCheckpoint = 64 << 10

// body is the signed text: origin, size and root, a line each. Extension lines
// are not written and not accepted.
func (c Checkpoint) body() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ParseCheckpoint verifies a signed checkpoint: t.Log must have signed it (or,
// if t followed rotations, the key in force at the checkpoint's size), its
// origin must be t.Origin, a signature by any other key of t must be valid,
// signatures by unknown keys are ignored. It accepts one spelling only, the
// one that encoding gives. Errors wrap ErrUnsigned or ErrNoTrust.
func ParseCheckpoint(raw []byte, t *Trust) (Checkpoint, error) {
	if t == nil || t.Log == "" || t.Origin == "" {
		return Checkpoint{}, ErrNoTrust
	}
	cp, err := parseNote(raw)
	if err != nil {
		return Checkpoint{}, err
	}
	log, all, err := t.verifiers(cp.Size)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(raw, note.VerifierList(all...))
	if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return Checkpoint{}, foreign(log, raw)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	signed := false
	for _, s := range n.Sigs {
		if s.Name == log.Name() && s.Hash == log.KeyHash() {
			signed = true
		} else {
			cp.Cosigners = append(cp.Cosigners, s.Name)
		}
	}
	if !signed {
		return Checkpoint{}, foreign(log, raw)
	}
	if cp.Origin != t.Origin {
		return Checkpoint{}, fmt.Errorf("%w: origin %q, expected %q", ErrUnsigned, cp.Origin, t.Origin)
	}
	return cp, nil
}

// foreign is the error of a checkpoint that others than log signed.
func foreign(log note.Verifier, raw []byte) error {
	return fmt.Errorf("%w: expected a signature by %s+%08x, got %.300q", ErrUnsigned, log.Name(), log.KeyHash(), strings.Join(signers(raw), ", "))
}

// parseNote parses a checkpoint without verifying signatures.
func parseNote(raw []byte) (Checkpoint, error) {
	cp, err := splitNote(string(raw))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: malformed: %w", ErrUnsigned, err)
	}
	return cp, nil
}

func splitNote(raw string) (Checkpoint, error) {
	text, sigs, ok := strings.Cut(raw, "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || sigs == "" || len(lines) != 3 {
		return Checkpoint{}, errors.New("expected three lines, an empty line and signatures")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > entry.MaxInt {
		return Checkpoint{}, fmt.Errorf("size %.20q, expected 0 to 2^53-1", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(vault.Hash{}) {
		return Checkpoint{}, errors.New("root: not 32 bytes in base64")
	}
	cp := Checkpoint{Origin: lines[0], Size: size, Root: vault.Hash(root), Raw: []byte(raw)}
	if cp.body() != text+"\n" {
		return Checkpoint{}, errors.New("body does not encode to the same bytes")
	}
	seen := make(map[string]bool)
	for line := range strings.SplitAfterSeq(sigs, "\n") {
		if line == "" {
			continue // after the last LF
		}
		sig, err := parseSignatureLine(line)
		if err != nil {
			return Checkpoint{}, err
		}
		id := fmt.Sprintf("%s+%08x", sig.name, sig.hash)
		if seen[id] {
			return Checkpoint{}, fmt.Errorf("two signatures by %s", id)
		}
		seen[id] = true
	}
	return cp, nil
}

// readCheckpoint reads the published checkpoint, unverified.
func readCheckpoint(ctx context.Context, r vault.Reader, prefix string) ([]byte, error) {
	raw, err := vault.ReadAll(ctx, r, vault.CheckpointName(prefix), maxCheckpoint)
	if errors.Is(err, vault.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", vault.CheckpointName(prefix), ErrNoLedger)
	}
	return raw, err
}
