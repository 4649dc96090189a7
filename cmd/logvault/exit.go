package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"logvault/extract"
	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/replicate/volume"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/vault/location"
	"logvault/vault/sftp"
)

// Exit codes: scripts and cron jobs rely on them, so a number is never reused.
const (
	codeOK          = 0
	codeFailure     = 1
	codeUsage       = 2
	codePartial     = 3
	codeIntegrity   = 4
	codeRefused     = 5
	codeNoVault     = 10
	codeLocked      = 11
	codeKey         = 12
	codeInterrupted = 130
)

var codeMeaning = []struct {
	code int
	text string
}{
	{codeOK, "done"},
	{codeFailure, "failure (port in use, no permission, spool error, newer format)"},
	{codeUsage, "usage (flags, configuration, an unusable auditor key)"},
	{codePartial, "partial, try again later (disk full, NAS or network away)"},
	{codeIntegrity, "integrity (verification failed, wrong trust key, state behind its vault)"},
	{codeRefused, "refused by policy"},
	{codeNoVault, "no vault or state there (absent, empty, not mounted)"},
	{codeLocked, "locked by another command"},
	{codeKey, "key missing or wrong"},
	{codeInterrupted, "interrupted"},
}

// allCodes lists every exit code for the program's help.
func allCodes() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, m := range codeMeaning {
		fmt.Fprintf(&b, "  %3d  %s\n", m.code, m.text)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// describe is a command's long help: what it does, an example, its exit codes.
func describe(text, example string, codes ...int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nExample:\n  %s\n\nExit codes:\n", text, strings.ReplaceAll(example, "\n", "\n  "))
	for _, m := range codeMeaning {
		for _, c := range append([]int{codeOK, codeFailure, codeUsage, codeInterrupted}, codes...) {
			if c == m.code {
				fmt.Fprintf(&b, "  %3d  %s\n", m.code, m.text)
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// codedError is an error whose class the command itself knows.
type codedError struct {
	code int
	hint string
	err  error
}

// Error implements error.
func (e *codedError) Error() string { return e.err.Error() }

// Unwrap gives the cause to errors.Is.
func (e *codedError) Unwrap() error { return e.err }

// outcome ties the errors that packages return to an exit code and to what a
// person may try. The first row that matches counts.
type outcome struct {
	is   error
	code int
	hint string
}

var outcomes = []outcome{
	{context.Canceled, codeInterrupted, ""},
	{gateway.ErrStopping, codePartial, "run the command again; what was received is safe in the spool"},
	{gateway.ErrOtherVersion, codeFailure, "restart `serve`: an upgrade counts from its next start"},
	// Before the causes that it wraps (EIO, a full disk): the process must be restarted, not the command repeated.
	{ingest.ErrSyncFailed, codeFailure, "the spool disk failed; what was not acknowledged is sent again by the clients after a restart"},
	{vfs.ErrLocked, codeLocked, "another logvault command works on this state; wait for it or look with `ps`"},
	{gateway.ErrNoState, codeNoVault, "was the state made with `logvault init`, and is its disk mounted?"},
	{vault.ErrUnreachable, codePartial, "the machine, its service or the line is down; run the command again when it answers"},
	{sftp.ErrHostKey, codeFailure, "compare the fingerprint with the server's own (ssh-keygen -lf), then add it with `ssh-keyscan`; a key that changed may be another machine"},
	{gateway.ErrWrongVault, codeIntegrity, "is another NAS mounted there? `logvault inspect --object VAULT` tells which vault it is; nothing was changed"},
	{vault.ErrNoVault, codeNoVault, "is the NAS mounted? a new vault is made with `logvault init` only"},
	{ledger.ErrNoLedger, codeNoVault, "is the NAS mounted? a new vault is made with `logvault init` only"},
	{gateway.ErrNewKey, codeKey, "give --recovery-key: only it can name the next key"},
	{gateway.ErrNotRecovery, codeKey, "it is the key that `logvault init` showed once; compare it with the paper copy"},
	{volume.ErrOtherVolume, codeRefused, "nothing was changed; look at the label, and at the catalogue in the state directory"},
	{volume.ErrForeign, codeRefused, "nothing was changed; mount the disk that is meant, or an empty one"},
	{vault.ErrUnfit, codeRefused, "change the bucket as docs/STORES.md says; on MinIO: `mc retention clear --default ALIAS/BUCKET`"},
	{vault.ErrNotEmpty, codeRefused, "choose an absent or empty directory; nothing was changed"},
	{pgp.ErrSecretKey, codeUsage, "export the public key only: `gpg --armor --export FINGERPRINT`"},
	{pgp.ErrEmptyKey, codeUsage, "export the public key: `gpg --armor --export FINGERPRINT`"},
	{pgp.ErrExpiredKey, codeUsage, "extend it with `gpg --quick-set-expire`, or make a new one with `logvault keygen`"},
	{pgp.ErrRevokedKey, codeUsage, "ask the auditor for the present key"},
	{pgp.ErrWeakKey, codeUsage, "use RSA of at least 3072 bits or Curve25519; `logvault keygen` makes one"},
	{pgp.ErrNoEncryption, codeUsage, "the key needs an encryption subkey; `logvault keygen` makes one"},
	{pgp.ErrWrongKey, codeKey, "give the secret key of one of the vault's auditors; `logvault inspect --object FILE` tells which keys can open a file"},
	{pgp.ErrNoKey, codeKey, "give --key SEC.asc, or --gpg to use the local gpg"},
	{ledger.ErrBehind, codeIntegrity, "if this state is from a backup, `logvault recover --from-vault` brings it up to date; if another gateway writes there, stop one of them"},
	{ledger.ErrForked, codeIntegrity, "two histories exist; keep both copies untouched and compare them with `logvault verify --against`"},
	{ledger.ErrStopped, codeIntegrity, "another process wrote the ledger; find it before you go on"},
	{ledger.ErrUnsigned, codeIntegrity, "check the --trust key against the paper copy; if it is right, somebody re-signed the ledger"},
	{replicate.ErrShrunk, codeIntegrity, "the source lost entries that this copy holds; nothing was changed here"},
	{replicate.ErrForked, codeIntegrity, "the source shows another history than this copy holds; nothing was changed here"},
	{replicate.ErrRotated, codeIntegrity, "compare the hash with what `restore` or `recover` printed, then run it once with --accept-rotation HASH"},
	{replicate.ErrUnsigned, codeIntegrity, "check the --trust key against the paper copy; nothing was changed here"},
	{replicate.ErrChanged, codeIntegrity, "an object differs from what the ledger says; run `logvault verify` on both copies"},
	{replicate.ErrClock, codeIntegrity, "compare the clocks of both machines; nothing was changed here"},
	{replicate.ErrOtherVault, codeIntegrity, "the destination belongs to another vault; check --from and --to"},
	{replicate.ErrDamaged, codeIntegrity, "run `logvault verify` on the source; nothing was changed here"},
	{replicate.ErrPartial, codePartial, "run it again later; what was copied is kept"},
	{replicate.ErrMissing, codeIntegrity, "an object is gone before its date; run `logvault verify` on both copies"},
	{ingest.ErrOvertaken, codePartial, "run the command again: it compares the file anew"},
	{vault.ErrNewer, codeFailure, "install the newest logvault on this machine"},
	{vault.ErrFull, codePartial, "give the disk of the state directory room, or raise spool.max, or bring the vault back; then run the command again"},
	{syscall.ENOSPC, codePartial, "the disk is full; make room and run the command again"},
	{syscall.EDQUOT, codePartial, "the quota is used up; make room and run the command again"},
	{syscall.ESTALE, codePartial, "the NAS went away; mount it again and run the command again"},
	{syscall.EHOSTDOWN, codePartial, "the NAS does not answer; run the command again when it does"},
	{syscall.ETIMEDOUT, codePartial, "the NAS does not answer; run the command again when it does"},
	{syscall.EIO, codePartial, "the disk or NAS reports an I/O error; look at the kernel log"},
	{syscall.EADDRINUSE, codeFailure, "another program listens there (the kernel's NFS server?); choose another port in nfs.listen"},
	{syscall.EADDRNOTAVAIL, codeFailure, "nfs.listen names an address that this machine does not have, or not yet; `ip addr` lists those it has"},
	{syscall.EROFS, codeFailure, "the disk is mounted read-only; look at the kernel log"},
	{fs.ErrPermission, codeFailure, "run it as the user that owns the files, as in `runuser -u logvault -- logvault …`; a port below 1024 needs root; docs/STORES.md says how to log in at a URL"},
	{extract.ErrNoSegment, codeUsage, "`logvault ls` lists the segments"},
}

// judge is exitCode and hint for `serve`, which answers with both.
func judge(err error) (code int, text string) { return exitCode(err), hint(err) }

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	if err == nil {
		return codeOK
	}
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*gateway.RemoteError](err); ok {
		return e.Code
	}
	if isUsage(err) {
		return codeUsage
	}
	if _, ok := errors.AsType[*gateway.DueError](err); ok {
		return codeRefused
	}
	if _, ok := errors.AsType[*extract.IntegrityError](err); ok {
		return codeIntegrity
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.code
		}
	}
	if _, ok := errors.AsType[*ledger.CopyError](err); ok {
		return codePartial
	}
	return codeFailure
}

func isUsage(err error) bool {
	_, flags := errors.AsType[*usageError](err)
	_, conf := errors.AsType[*config.Error](err)
	_, place := errors.AsType[*location.Error](err)
	_, source := errors.AsType[*gateway.UnknownSourceError](err)
	return flags || conf || place || source
}

// hint tells what a person may try.
func hint(err error) string {
	if e, ok := errors.AsType[*codedError](err); ok && e.hint != "" {
		return e.hint
	}
	if e, ok := errors.AsType[*gateway.RemoteError](err); ok {
		return e.Hint
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		return e.hint()
	}
	if _, ok := errors.AsType[*gateway.UnknownSourceError](err); ok {
		return "add a [[source]] to the configuration, then reload serve with SIGHUP"
	}
	if _, ok := errors.AsType[*gateway.DueError](err); ok {
		return "check --recorded-at and the class of the source; what the law wants gone is not archived"
	}
	if _, ok := errors.AsType[*location.Error](err); ok {
		return "docs/STORES.md says how the place of a vault is written"
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return "docs/CONFIG.md lists every key"
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.hint
		}
	}
	return ""
}
