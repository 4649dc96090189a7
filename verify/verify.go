// Package verify audits a copy of a vault: was anything changed, inserted,
// removed, cut off, kept too long or destroyed too early?
//
// It receives only a vault.Reader, so that by construction it changes nothing,
// and it needs no decryption key. It trusts nothing that it reads: the one
// thing trusted is the ledger's verifier key, pinned in a trust file outside
// the vault. From there the chain is
//
//	pinned key → checkpoint → tiles → bundles of entries → hashes of objects → bytes
//
// # Depths
//
//   - Chain reads the ledger and the copy logs: signatures, kept heads,
//     cosignatures, every tile and bundle recomputed, every entry decoded and
//     checked against the ones before it.
//   - Objects, the default, also reads every stored byte and compares it with
//     the ledger, and accounts for every name in the vault.
//   - Content also opens what is sealed, with an auditor's key, and checks
//     lines, line roots and indexes.
//
// # Fails closed
//
// What is absent, unsigned, unreadable or not understood is an error, never a
// pass. When a finding makes a later part impossible (without the ledger
// nothing can be compared) that part is reported as not-checked.
//
// # Two sides
//
// An object must be there before its legal date (missing-too-early) and must
// not be there after it (overdue). The dates come from the ledger, never from
// the folder an object lies in.
//
// # Findings
//
// Codes lists the stable codes with their levels; docs/FINDINGS.md shows the
// same table. An audit has passed if it returned no error and Summary.Errors
// is 0 (with --strict: Warnings too).
//
// # Concurrency with a running gateway
//
// A gateway stores an object before the entry that names it. Names without an
// entry are therefore looked up once more in the ledger's newest checkpoint at
// the end of the audit; Options.Settle lets the caller wait for a gateway that
// is in the middle of it.
//
// # Memory
//
// The memory is independent of the bytes stored. It holds 48 bytes for each
// segment and each index (so about 100 MB for a million segments), some 150
// bytes for each stream generation, wrap and request, and one buffer of 256 KiB
// per job. At depth Content texts are streamed too; a job then holds a segment's
// index, its longest line, and what decompression needs.
package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"logvault/ledger"
	"logvault/ledger/tsa"
	"logvault/seal/pgp"
	"logvault/vault"
)

// Depth says how much of a vault an audit reads.
type Depth int

// The depths. Each includes the ones before it.
const (
	Chain   Depth = iota // the ledger: signatures, proofs, entries
	Objects              // every stored byte, against its hash in the ledger
	Content              // with a key: what the sealed bytes say
)

// String returns "chain", "objects" or "content".
func (d Depth) String() string {
	switch d {
	case Chain:
		return "chain"
	case Objects:
		return "objects"
	default:
		return "content"
	}
}

// ParseDepth parses what Depth.String returns.
func ParseDepth(s string) (Depth, error) {
	for _, d := range []Depth{Chain, Objects, Content} {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("depth %q: expected chain, objects or content", s)
}

// Known is a point of the history that somebody has seen before.
type Known struct {
	Size    int64
	Root    vault.Hash // counts only if HasRoot
	HasRoot bool
}

// ParseKnown parses SIZE or SIZE:ROOT, where ROOT is 64 lower-case hex digits.
func ParseKnown(s string) (*Known, error) {
	size, root, hasRoot := strings.Cut(s, ":")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != size {
		return nil, fmt.Errorf("known point %q: expected SIZE or SIZE:ROOT", s)
	}
	k := &Known{Size: n, HasRoot: hasRoot}
	if hasRoot {
		if k.Root, err = vault.ParseHash(root); err != nil {
			return nil, fmt.Errorf("known point %q: %w", s, err)
		}
	}
	return k, nil
}

// Options says what to audit, and how.
type Options struct {
	// Vault is the copy to audit.
	Vault vault.Reader
	// WithoutKeys says that this copy was made without keys/.
	WithoutKeys bool
	// Trust holds the pinned keys. If it is nil, or Unpinned says that it was
	// read from the vault itself, the audit is made but cannot pass: unpinned.
	Trust    *ledger.Trust
	Unpinned bool
	// Depth says how much to read. Content needs Opener.
	Depth  Depth
	Opener pgp.Opener
	// Against, if set, is another copy to compare with.
	Against vault.Reader
	// Residual are places to look for what must be destroyed.
	Residual []Place
	// Known, if set, is a point that the history must contain.
	Known *Known
	// Now is the time at which dates are judged. It is required.
	Now time.Time
	// Since, if set, leaves the bytes of segments recorded before it unread;
	// they still must exist with their size.
	Since time.Time
	// Jobs is how many objects are read at once; 0 means one per processor.
	Jobs int
	// Progress, if set, is called as bytes are read, of about total. It is
	// never called by two goroutines at once.
	Progress func(done, total int64)
	// Settle, if set, is called when names without an entry were found, with
	// attempt 1, 2, …: a caller that audits beside a running gateway waits some
	// seconds and returns true to have the ledger read again.
	Settle func(ctx context.Context, attempt int) bool
}

// Summary is what an audit did.
type Summary struct {
	// Depth is the depth reached. Complete is false if some part could not be done.
	Depth    Depth
	Complete bool
	// Checkpoint is the head that everything was compared with.
	Checkpoint ledger.Checkpoint
	// Witnessed is the largest size that the quorum of pinned keys has
	// cosigned; what is after it rests on the ledger key alone.
	Witnessed int64
	// Stamped is the largest size that a pinned time-stamping authority has seen,
	// at the time StampedAt by its own clock; 0 if none has.
	Stamped   int64
	StampedAt time.Time
	// Entries, Segments and Lines count what the ledger names, Objects and
	// Bytes what was read and found intact.
	Entries, Segments, Lines int64
	Objects, Bytes           int64
	// Compared counts the objects in the comparison with Against.
	Compared Comparison
	// Scanned counts the files of Residual.
	Scanned int64
	// Notes, Warnings and Errors count the findings.
	Notes, Warnings, Errors int64
}

// Run audits and calls report for each finding, never from two goroutines at
// once. It returns an error only if the audit could not be made at all: bad
// options, or ctx is done. Everything wrong with the vault is a finding.
func Run(ctx context.Context, o Options, report func(Finding)) (Summary, error) {
	if o.Vault == nil || report == nil || o.Now.IsZero() {
		return Summary{}, errors.New("verify: no vault, no report function or no time given")
	}
	if o.Depth == Content && o.Opener == nil {
		return Summary{}, fmt.Errorf("verify: depth content: %w", pgp.ErrNoKey)
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	a := &audit{o: o, report: report, readers: make(map[string]bool), stated: make(map[string]string)}
	a.sum.Depth, a.sum.Complete = o.Depth, true
	a.run(ctx)
	return a.sum, ctx.Err()
}

// audit is one audit under way.
type audit struct {
	o Options

	mu     sync.Mutex // guards what workers share: report, sum, done
	report func(Finding)
	sum    Summary
	done   int64 // bytes read
	total  int64 // bytes that the ledger names

	tree *ledger.Tree // set once the checkpoint is accepted
	hist *history     // what the entries say
	// replica: the vault holds a copy log, by a pinned key, whose first entry says so.
	replica bool
	// stated are the cosigners that copy logs name, by key id, and unpinned the
	// cosignatures that no pinned key is for.
	stated   map[string]string
	unpinned []vault.Object
	readers  map[string]bool // sets of key ids that recorded wraps are for
	// authorities are the pinned roots of time-stamps, nil if there are none.
	authorities *tsa.Trust
	held        int64 // the largest size that a pinned copy log of this vault vouches for
}

// run makes the audit. Each step reports what it finds; the steps after a
// failed one run as far as they can.
func (a *audit) run(ctx context.Context) {
	if !a.openTree(ctx) {
		a.sum.Depth, a.sum.Complete = Chain, false
		return
	}
	a.auditFiles(ctx, a.tree, vault.LedgerPrefix)
	a.known(ctx)
	a.hist = newHistory(a)
	whole := a.hist.scan(ctx, a.tree, 0)
	a.rotations()
	a.marker(ctx)
	a.heads(ctx)
	a.copyLogs(ctx)
	a.tokens()
	a.cosignaturesAsStated(ctx)
	if a.o.Against != nil {
		a.compareHeads(ctx)
	}
	if a.o.Depth >= Objects && ctx.Err() == nil {
		a.objects(ctx)
		if whole {
			a.account(ctx)
			a.compareNames(ctx)
		}
	}
	if len(a.o.Residual) > 0 && ctx.Err() == nil {
		a.residuals(ctx)
	}
	if !whole {
		a.incomplete("", "entries could not be read to the end: objects without an entry were not looked for")
	}
}

// find reports a finding with its code's level.
func (a *audit) find(code, object string, entry int64, detail string) {
	a.emit(Finding{Code: code, Level: levels[code], Object: object, Entry: entry, Detail: detail})
}

// differ reports a finding with the two sides of a comparison.
func (a *audit) differ(code, object string, entry int64, detail, expected, got string) {
	a.emit(Finding{Code: code, Level: levels[code], Object: object, Entry: entry, Detail: detail, Expected: expected, Got: got})
}

// incomplete reports that a part of the audit was not done.
func (a *audit) incomplete(object, detail string) {
	a.mu.Lock()
	a.sum.Complete = false
	a.mu.Unlock()
	a.find(codeNotChecked, object, -1, detail)
}

func (a *audit) emit(f Finding) {
	f.Detail = strings.TrimPrefix(f.Detail, f.Object+": ") // an error may name its object too
	a.mu.Lock()
	defer a.mu.Unlock()
	switch f.Level {
	case Note:
		a.sum.Notes++
	case Warning:
		a.sum.Warnings++
	default:
		a.sum.Errors++
	}
	a.report(f)
}

// unread reports an object that could not be read for another reason than its
// absence, which each caller judges by itself.
func (a *audit) unread(name string, entry int64, err error) {
	a.find(codeUnreadable, name, entry, err.Error())
}
