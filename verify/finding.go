package verify

import (
	"fmt"
	"strings"
)

// Level says what a finding means for the outcome of an audit.
type Level int

// The levels, in rising order.
const (
	Note    Level = iota // worth knowing, nothing to do
	Warning              // look at it; the audit passes unless it is strict
	Error                // the vault is not what its ledger promises; the audit fails
)

// String returns "note", "warning" or "error".
func (l Level) String() string {
	switch l {
	case Note:
		return "note"
	case Warning:
		return "warning"
	default:
		return "error"
	}
}

// Finding is one thing that an audit has to say.
type Finding struct {
	// Code is one of Codes.
	Code string
	// Level is the code's level; for the few codes whose level depends on the
	// circumstances, the level of this case.
	Level Level
	// Object is the name in the vault that the finding is about. It is empty
	// if the finding is about the history as a whole.
	Object string
	// Entry is the index of the ledger entry concerned, -1 for none.
	Entry int64
	// Detail says what was found, in words. It holds no content of a log.
	Detail string
	// Expected and Got are the two sides of a comparison, or empty.
	Expected, Got string
}

// String returns the finding as one line of text.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", f.Level, f.Code)
	if f.Object != "" {
		fmt.Fprintf(&b, " %s", f.Object)
	}
	if f.Entry >= 0 {
		fmt.Fprintf(&b, " (entry %d)", f.Entry)
	}
	fmt.Fprintf(&b, ": %s", f.Detail)
	if f.Expected != "" || f.Got != "" {
		fmt.Fprintf(&b, ": expected %s, got %s", f.Expected, f.Got)
	}
	return b.String()
}

// Code describes a finding code. Codes are stable: scripts may rely on them.
type Code struct {
	Name    string
	Level   Level
	Meaning string
	Action  string
}

// Finding codes.
const (
	codeUnsigned          = "unsigned"
	codeUnpinned          = "unpinned"
	codeCopyUnpinned      = "copy-unpinned"
	codeNeedsNewer        = "needs-newer"
	codeRolledBack        = "rolled-back"
	codeForked            = "forked"
	codeRotated           = "rotated"
	codeTruncated         = "truncated"
	codeBehind            = "behind"
	codeNotCosigned       = "not-cosigned"
	codeBadCosignature    = "bad-cosignature"
	codeBadTimestamp      = "bad-timestamp"
	codeTimestampUnpinned = "timestamp-unpinned"
	codeDamaged           = "damaged"
	codeMissing           = "missing"
	codeUnreadable        = "unreadable"
	codeUnexpected        = "unexpected"
	codeInTransit         = "in-transit"
	codeLeftover          = "leftover"
	codeOrphan            = "orphan"
	codeBadEntry          = "bad-entry"
	codeDiscontinuous     = "discontinuous"
	codeDuplicate         = "duplicate"
	codeTimeOrder         = "time-order"
	codeRecipients        = "recipients-unexpected"
	codeGap               = "gap"
	codeConflict          = "conflict"
	codeMissingTooEarly   = "missing-too-early"
	codeOverdue           = "overdue"
	codeUnrecorded        = "destroyed-unrecorded"
	codeHoldViolated      = "hold-violated"
	codeKeyMissing        = "key-missing"
	codeUndecryptable     = "undecryptable"
	codeContent           = "content-mismatch"
	codeNotChecked        = "not-checked"
	codeAgainstMissing    = "against-missing"
	codeAgainstDiffers    = "against-differing"
	codeAgainstUnknown    = "against-unknown"
	codeResidual          = "residual"
)

// Codes lists every finding code with its level, what it means and what to do.
// docs/FINDINGS.md shows the same table.
var Codes = []Code{
	{codeUnsigned, Error, "A checkpoint is absent, unreadable, or not signed by the pinned key alone: signature lines that nobody vouches for count as damage.", "Check that the vault is mounted and the trust file is the right one; else take the ledger from another copy."},
	{codeUnpinned, Error, "The ledger's key was read from the vault itself, so whoever wrote the vault chose it.", "Pass the trust file that init wrote."},
	{codeCopyUnpinned, Warning, "A copy log or a cosignature is by a key that the trust file does not list. Damage to a copy log is still an error.", "Add the copy's keys to the trust file, from the copy's own state and not from the vault."},
	{codeNeedsNewer, Error, "A marker, an entry or a sealed index is of a version, type or critical member that this program does not know.", "Verify with a newer logvault."},
	{codeRolledBack, Error, "The history ends before a point that was seen, cosigned or held earlier.", "Entries were removed from the end. Compare with another copy; keep this one as evidence."},
	{codeForked, Error, "Two signed histories of the same ledger disagree.", "The signing key signed twice. Treat it as stolen; compare the copies entry by entry."},
	{codeRotated, Note, "The ledger is signed by a later key than the pinned one, and signed rotate entries lead from one to the other. A warning if the recovery key signed one of them.", "Ask whoever runs the gateway whether this was meant, then take the new trust file."},
	{codeTruncated, Error, "An object is a beginning of what it should be.", "Replace it by the same object of another copy."},
	{codeBehind, Warning, "This replica is an honest earlier state of the copy it was compared with.", "Run replicate."},
	{codeNotCosigned, Warning, "The end of the history is not cosigned by as many pinned keys as the quorum asks. An error if the oldest such entry is older than seven days.", "Run replicate, or look after the witness that is silent."},
	{codeBadCosignature, Error, "A kept cosignature by a pinned key does not verify for the head it is filed under.", "Fetch it again from the copy that made it."},
	{codeBadTimestamp, Error, "A time-stamp token that the ledger names is not one of a pinned authority over that head: signer, usage, policy, imprint or time.", "Check the roots and the policy in the trust file with the authority; else treat the time of that head as unproven."},
	{codeTimestampUnpinned, Note, "The ledger has time-stamps, and the trust file pins no root to judge them by. Their bytes were compared with the ledger.", "Put the authority's root certificates into the [tsa] table of the trust file."},
	{codeDamaged, Error, "An object's bytes are not those that the ledger names.", "Replace it by the same object of another copy; look at the disk."},
	{codeMissing, Error, "A file that holds the ledger together is absent: the marker, a tile, a bundle.", "Replace it by the same object of another copy."},
	{codeUnreadable, Error, "An object exists but reading it failed.", "Look at the disk, the mount and the permissions, then verify again."},
	{codeUnexpected, Error, "A name that no entry accounts for, or that is not a name of the layout.", "Find out who wrote it. logvault leaves such files only for moments, while it seals."},
	{codeInTransit, Warning, "Something is ahead of the checkpoint: an object, its bytes matching its name, of a replica whose copy log is pinned, or a tile of a longer ledger, a time-stamp of a pinned authority, newer than all others, or one that a pass has not copied yet.", "A pass or an append was interrupted, and the next one goes on; if it stays, compare the checkpoint with another copy: somebody may have put an old one back."},
	{codeLeftover, Note, "A partial tile that a longer one has superseded.", "Nothing. The next append or pass removes it."},
	{codeOrphan, Warning, "Left by a crash and used by nothing: an object that an orphan entry names, or a wrap or record without an entry that only the auditors can open.", "Nothing. What it was for was done again under another name."},
	{codeBadEntry, Error, "An entry is not canonical, cannot be decoded, or says what no gateway may write: init not first, a segment before its key, a wrong destruction day.", "The ledger was not written by logvault, or by a defective one. Report it."},
	{codeDiscontinuous, Error, "The entries of a stream do not join: previous entry, offset, or data after its end.", "Bytes of this stream are unaccounted for. Report it."},
	{codeDuplicate, Error, "Two entries name the same object.", "Report it: an object is sealed once."},
	{codeTimeOrder, Warning, "An entry is dated more than five minutes before an earlier one, or after a time-stamp that covers it, or more than a day after the audit or before what it says was received.", "Look at the gateway's clock at that time."},
	{codeRecipients, Error, "A period key is wrapped for others than the auditors of the policy in force.", "Whoever is named can read that day. Find out why."},
	{codeGap, Warning, "A stretch of a stream never arrived, and a gap entry says so.", "Look at the proxy and the network at that time."},
	{codeConflict, Warning, "A proxy wrote other bytes over bytes already received; both are kept, and a conflict entry says so.", "Look at what writes that file on the proxy."},
	{codeMissingTooEarly, Error, "An object is absent before its legal date.", "Copy it from another copy, as the file or object of the same name."},
	{codeOverdue, Error, "An object is still there after its legal date and the grace of its class.", "This release destroys nothing yet. Remove by hand, on every copy, the wraps of its day and then the object, and note it in your register."},
	{codeUnrecorded, Error, "An object is absent after its legal date, but no copy log records its destruction.", "Somebody removed it by hand. Note it in your register."},
	{codeHoldViolated, Error, "An object under a hold is absent.", "Copy it from another copy at once."},
	{codeKeyMissing, Error, "No wrap of a period key is there although data sealed to it must still be readable.", "Copy keys/ from another copy. A copy made without keys is verified as such."},
	{codeUndecryptable, Error, "A wrap, an index or a segment cannot be opened with the auditor's key although its bytes are those sealed.", "Report it: this content is lost, or was never what the ledger says."},
	{codeContent, Error, "The decrypted text or its index is not what the entry says: lines, line root, times or dictionary.", "Report it: the gateway sealed something else than it recorded."},
	{codeNotChecked, Error, "A part of the audit could not be done because of another finding.", "Deal with the other findings and verify again."},
	{codeAgainstMissing, Warning, "The copy compared with does not hold an object that this one holds.", "Run replicate there."},
	{codeAgainstDiffers, Error, "The copy compared with holds other bytes under a name that this one holds intact.", "Replace the object there."},
	{codeAgainstUnknown, Warning, "The copy compared with holds an object that no entry of this ledger names, though its ledger is not the longer one.", "Verify that copy by itself: an interrupted pass leaves such objects, and so does somebody who writes there."},
	{codeResidual, Error, "Bytes that must be destroyed are kept elsewhere: in a snapshot, an old version, a backup. A warning for the wrap of a period key whose day has not come: it will outlive it.", "Remove the snapshot or version; keep keys/ where no snapshots are made."},
}

var levels = func() map[string]Level {
	m := make(map[string]Level, len(Codes))
	for _, c := range Codes {
		m[c.Name] = c.Level
	}
	return m
}()
