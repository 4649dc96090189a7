package verify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

const (
	// headLimit bounds small signed files: checkpoints, cosignatures, tokens.
	headLimit = 64 << 10
	// witnessSlack is how long the end of a history may wait for its cosignatures.
	witnessSlack = 7 * 24 * time.Hour
)

// openTree accepts the checkpoint under the pinned key and opens the tree it
// signs. Without that nothing in the vault can be compared with anything.
func (a *audit) openTree(ctx context.Context) bool {
	trust := a.o.Trust
	if trust == nil {
		a.o.Unpinned = true
		var err error
		if trust, err = ledger.UnpinnedTrust(ctx, a.o.Vault, vault.LedgerPrefix); err != nil {
			a.find(codeUnsigned, checkpointName, -1, "no ledger key, neither pinned nor in the vault: "+err.Error())
			a.auditUnsigned(ctx, vault.LedgerPrefix)
			return false
		}
		a.o.Trust = trust
	}
	if a.o.Unpinned {
		a.find(codeUnpinned, checkpointName, -1, "the ledger key was read from the vault itself")
	}
	tree, err := openAt(ctx, a.o.Vault, vault.LedgerPrefix, trust)
	if err != nil {
		a.find(codeUnsigned, checkpointName, -1, err.Error())
		a.auditUnsigned(ctx, vault.LedgerPrefix)
		return false
	}
	a.tree = tree
	a.sum.Checkpoint = tree.Checkpoint()
	return true
}

const checkpointName = vault.LedgerPrefix + "checkpoint"

// openAt opens the tree that a store's checkpoint signs. The known points of the
// trust file are compared later, as findings. Signature lines that nobody
// vouches for are refused: they would be bytes that nothing covers.
func openAt(ctx context.Context, r vault.Reader, prefix string, t *ledger.Trust) (*ledger.Tree, error) {
	unknowing := *t
	unknowing.KnownSize, unknowing.KnownRoot = 0, ""
	tree, err := ledger.OpenTree(ctx, r, prefix, &unknowing)
	if err != nil {
		return nil, err
	}
	return tree, vouched(tree.Checkpoint())
}

// vouched returns nil if every signature line of an accepted checkpoint is by
// a pinned key.
func vouched(cp ledger.Checkpoint) error {
	_, sigs, _ := strings.Cut(string(cp.Raw), "\n\n")
	if n, want := strings.Count(sigs, "\n"), 1+len(cp.Cosigners); n != want {
		return fmt.Errorf("checkpoint: %d signature lines, %d of them by pinned keys", n, want)
	}
	return nil
}

// rotations takes over the keys that the rotate entries name, so that the heads
// of every time are checked with their own. It is called once the entries are
// read; the checkpoint was accepted before, by the pinned key or by one that it
// leads to.
func (a *audit) rotations() {
	if a.hist.signers == nil {
		return // which is reported
	}
	pinned := a.o.Trust.Log
	trust, err := a.o.Trust.Following(a.hist.signers)
	if err != nil {
		a.find(codeBadEntry, "", 0, "init and rotate entries: "+err.Error())
		return
	}
	a.o.Trust = trust
	if trust.Log == pinned {
		return
	}
	list := trust.Rotations()
	from := slices.IndexFunc(list, func(r ledger.Rotation) bool { return r.Old == pinned })
	for _, r := range list[from:] {
		f := Finding{Code: codeRotated, Level: Note, Entry: r.Index, Detail: fmt.Sprintf("by the %s key, accepted with the hash %s; the key now", r.By, r.Hash), Expected: r.Old, Got: r.New}
		if r.By == entry.RotateRecovery {
			f.Level = Warning
		}
		a.emit(f)
	}
}

// auditFiles has the ledger recompute every tile and bundle under a prefix, and
// look at kept heads and cosignatures.
func (a *audit) auditFiles(ctx context.Context, tree *ledger.Tree, prefix string) {
	err := tree.Audit(ctx, func(p ledger.Problem) error {
		a.differ(problemCode(p), p.Name, -1, "ledger file: "+p.Code, p.Expected, p.Got)
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.incomplete(prefix, "recomputing the tiles: "+err.Error())
	}
}

// auditUnsigned audits the files of a log whose checkpoint was refused, against
// what that checkpoint says all the same. It can pass nothing; but the cause may
// be a damaged tile or bundle (the key of a log that is not pinned stands in its
// first entry), and then this names it.
func (a *audit) auditUnsigned(ctx context.Context, prefix string) {
	raw, err := vault.ReadAll(ctx, a.o.Vault, prefix+"checkpoint", headLimit)
	if err != nil {
		return // which is why it was refused
	}
	line := strings.Split(string(raw), "\n")
	if len(line) < 3 {
		return
	}
	size, err := strconv.ParseInt(line[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(line[2])
	if err != nil || err2 != nil || len(root) != len(vault.Hash{}) || size > maxUnsigned {
		return
	}
	tree, err := ledger.OpenTreeAt(ctx, a.o.Vault, prefix, ledger.Checkpoint{Origin: line[0], Size: size, Root: vault.Hash(root), Raw: raw})
	if err != nil {
		return
	}
	a.auditFiles(ctx, tree, prefix)
}

// maxUnsigned bounds the ledger that an unsigned checkpoint can make us look
// for: it might claim any size, and each missing bundle is looked for by name.
const maxUnsigned = 1 << 24

// problemCode gives a problem of the ledger its finding code.
func problemCode(p ledger.Problem) string {
	o, err := vault.ParseName(p.Name)
	kind := o.Kind
	if err != nil {
		kind = 0
	}
	tail := kind == vault.KindKeptCheckpoint || kind == vault.KindCosignature
	switch {
	case p.Code == ledger.ProblemMissing:
		return codeMissing
	case p.Code == ledger.ProblemShort:
		return codeTruncated
	case p.Code == ledger.ProblemForked:
		return codeForked
	case p.Code == ledger.ProblemUnknownKey:
		return codeCopyUnpinned
	case p.Code == ledger.ProblemBeyond && tail:
		return codeRolledBack // somebody outside saw more
	case p.Code == ledger.ProblemBeyond:
		return codeInTransit
	case p.Code == ledger.ProblemUnexpected && (kind == vault.KindPartialTile || kind == vault.KindPartialBundle):
		return codeLeftover
	case p.Code == ledger.ProblemUnexpected:
		return codeUnexpected
	case kind == vault.KindCosignature:
		return codeBadCosignature
	default:
		return codeDamaged
	}
}

// known compares the history with the points that were seen before.
func (a *audit) known(ctx context.Context) {
	if k := a.o.Known; k != nil {
		a.contains(ctx, checkpointName, "known point", k.Size, k.Root, k.HasRoot)
	}
	t := a.o.Trust
	if t.KnownSize == 0 {
		return
	}
	root, err := vault.ParseHash(t.KnownRoot)
	if t.KnownRoot != "" && err != nil {
		a.incomplete("", "known root of the trust file: "+err.Error())
		return
	}
	a.contains(ctx, checkpointName, "last known head of the trust file", t.KnownSize, root, t.KnownRoot != "")
}

// contains checks that the history has a point that object tells of, and
// reports whether it has.
func (a *audit) contains(ctx context.Context, object, what string, size int64, root vault.Hash, hasRoot bool) bool {
	if size > a.tree.Size() {
		a.differ(codeRolledBack, object, -1, what, fmt.Sprintf("at least %d entries", size), fmt.Sprintf("%d", a.tree.Size()))
		return false
	}
	if !hasRoot {
		return true
	}
	got, err := a.tree.RootAt(ctx, size)
	if err != nil {
		a.incomplete(object, fmt.Sprintf("%s: computing the root at size %d: %v", what, size, err))
		return false
	}
	if got != root {
		a.differ(codeForked, object, -1, fmt.Sprintf("%s: root at size %d", what, size), root.String(), got.String())
		return false
	}
	return true
}

// marker checks that VAULT is the file that the first entry names.
func (a *audit) marker(ctx context.Context) {
	m, hash, err := vault.ReadMarker(ctx, a.o.Vault)
	switch {
	case errors.Is(err, vault.ErrNewer):
		a.find(codeNeedsNewer, vault.MarkerName, -1, err.Error())
	case errors.Is(err, vault.ErrNotExist):
		a.find(codeMissing, vault.MarkerName, -1, "the vault's marker is absent")
	case err != nil:
		a.find(codeDamaged, vault.MarkerName, -1, err.Error())
	case a.hist.init == nil: // reported by scan
	case hash != a.hist.init.Marker:
		a.differ(codeDamaged, vault.MarkerName, 0, "the vault's marker is not the one of the init entry", a.hist.init.Marker.String(), hash.String())
	case fmt.Sprintf("%x", m.ID) != a.hist.init.Vault || m.Origin != a.hist.init.Origin:
		a.find(codeBadEntry, vault.MarkerName, 0, "the init entry names another vault or origin than the marker it hashes")
	}
	if a.hist.init != nil && a.hist.init.Origin != a.tree.Checkpoint().Origin {
		a.differ(codeBadEntry, "", 0, "origin of the init entry", a.tree.Checkpoint().Origin, a.hist.init.Origin)
	}
}

// heads looks at what is kept beside the tiles for what the audit of the files
// does not know: signature lines of kept heads that nobody vouches for, tokens,
// and how far the history is cosigned.
func (a *audit) heads(ctx context.Context) {
	witnessed := make(map[string]int64) // pinned key → largest size it cosigned
	a.pinAuthorities()
	for _, dir := range []string{"checkpoints/", "cosignatures/", "timestamps/"} {
		err := a.o.Vault.List(ctx, vault.LedgerPrefix+dir, func(info vault.Info) error {
			if o, err := vault.ParseName(info.Name); err == nil {
				a.head(ctx, o, witnessed)
			}
			return ctx.Err()
		})
		if err != nil && ctx.Err() == nil {
			a.incomplete(vault.LedgerPrefix+dir, "listing: "+err.Error())
		}
	}
	if a.o.Against != nil {
		a.cosignedThere(ctx, witnessed)
	}
	a.quorum(ctx, witnessed)
}

// cosignedThere counts the cosignatures that the other copy keeps of points of
// our history. A replica that pulls cannot bring its own ones here.
func (a *audit) cosignedThere(ctx context.Context, witnessed map[string]int64) {
	err := a.o.Against.List(ctx, vault.LedgerPrefix+"cosignatures/", func(info vault.Info) error {
		o, err := vault.ParseName(info.Name)
		if err != nil {
			return ctx.Err() // the other copy's own audit names it
		}
		if _, pinned := a.cosigner(o.KeyID); !pinned {
			return ctx.Err()
		}
		if line, err := vault.ReadAll(ctx, a.o.Against, o.Name, headLimit); err == nil {
			a.cosignature(ctx, o, line, witnessed)
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.incomplete("", against+"listing cosignatures: "+err.Error())
	}
}

// head looks at one kept file.
func (a *audit) head(ctx context.Context, o vault.Object, witnessed map[string]int64) {
	raw, err := vault.ReadAll(ctx, a.o.Vault, o.Name, headLimit)
	if err != nil {
		a.unread(o.Name, -1, err)
		return
	}
	switch o.Kind {
	case vault.KindKeptCheckpoint:
		if cp, err := ledger.ParseCheckpoint(raw, a.o.Trust); err == nil {
			if err := vouched(cp); err != nil {
				a.find(codeUnsigned, o.Name, -1, err.Error())
			}
		}
	case vault.KindCosignature:
		a.cosignature(ctx, o, raw, witnessed)
	case vault.KindTimestamp:
		a.token(ctx, o, raw)
	}
}

// cosignature notes how far a valid cosignature by a pinned key reaches. The
// head it is filed under is recomputed, not read.
func (a *audit) cosignature(ctx context.Context, o vault.Object, line []byte, witnessed map[string]int64) {
	key, pinned := a.cosigner(o.KeyID)
	if !pinned {
		a.unpinned = append(a.unpinned, o)
		return
	}
	if checked, err := a.verifyCosignature(ctx, o, line, key); checked && err == nil {
		witnessed[key] = max(witnessed[key], o.Size)
	}
}

// verifyCosignature checks a cosignature over the head that the history itself
// gives. It is not checked if there is none; the audit of the files has said so.
func (a *audit) verifyCosignature(ctx context.Context, o vault.Object, line []byte, key string) (checked bool, err error) {
	if o.Size > a.tree.Size() {
		return false, nil
	}
	root, err := a.tree.RootAt(ctx, o.Size)
	if err != nil {
		return false, nil
	}
	_, err = ledger.VerifyCosignature(ledger.Checkpoint{Origin: a.tree.Checkpoint().Origin, Size: o.Size, Root: root}, line, key)
	return true, err
}

// cosignaturesAsStated checks the cosignatures by keys that are not pinned but
// that a copy log of this vault states. They prove nothing (that they are not
// pinned is reported), but damage to them is found.
func (a *audit) cosignaturesAsStated(ctx context.Context) {
	for _, o := range a.unpinned {
		key, ok := a.stated[o.KeyID]
		if !ok {
			continue
		}
		line, err := vault.ReadAll(ctx, a.o.Vault, o.Name, headLimit)
		if err == nil {
			_, err = a.verifyCosignature(ctx, o, line, key)
		}
		if err != nil {
			a.find(codeBadCosignature, o.Name, -1, err.Error())
		}
	}
}

// cosigner finds a pinned key by its id, the 8 hex digits of its second part.
func (a *audit) cosigner(id string) (vkey string, ok bool) {
	for _, k := range slices.Concat(a.o.Trust.Copies, a.o.Trust.Witnesses) {
		if keyID(k.Key) == id {
			return k.Key, true
		}
	}
	return "", false
}

func keyID(vkey string) string {
	_, rest, _ := strings.Cut(vkey, "+")
	id, _, _ := strings.Cut(rest, "+")
	return id
}

// quorum finds how far enough keys have cosigned.
func (a *audit) quorum(ctx context.Context, witnessed map[string]int64) {
	sizes := make([]int64, 0, len(witnessed))
	for _, size := range witnessed {
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	need := max(a.o.Trust.Quorum, 1)
	if len(sizes) >= need {
		a.sum.Witnessed = sizes[need-1]
	}
	first := a.sum.Witnessed
	if a.o.Trust.Quorum <= 0 || first >= a.tree.Size() {
		return
	}
	f := Finding{Code: codeNotCosigned, Level: Warning, Entry: first,
		Detail:   "from this entry on the history rests on the ledger key alone",
		Expected: fmt.Sprintf("cosigned by %d pinned keys up to size %d", need, a.tree.Size()), Got: fmt.Sprintf("up to size %d", first)}
	data, err := a.tree.Entry(ctx, first)
	if err == nil {
		var e entry.Entry
		if e, err = entry.Decode(data); err == nil && a.o.Now.Sub(e.Head().Time) <= witnessSlack {
			a.emit(f)
			return
		}
	}
	f.Level = Error // old, or nobody can tell
	a.emit(f)
}

// copyLogs audits the log of each copy that has one in this vault.
func (a *audit) copyLogs(ctx context.Context) {
	var names []string
	err := a.o.Vault.List(ctx, "copy/", func(info vault.Info) error {
		part := strings.Split(info.Name, "/")
		if len(part) < 4 || part[2] != "log" {
			a.find(codeUnexpected, info.Name, -1, "not a name of the vault layout")
		} else if name := part[1]; len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.incomplete("copy/", "listing: "+err.Error())
	}
	for _, name := range slices.Compact(names) {
		a.copyLog(ctx, name)
	}
}

// copyLog audits one copy log: its own chain, and that what it says it held is
// a point of the main history.
func (a *audit) copyLog(ctx context.Context, name string) {
	prefix := vault.CopyLogPrefix(name)
	origin := a.tree.Checkpoint().Origin + "/copy/" + name
	trust := a.o.Trust.CopyLog(name)
	pinned := trust != nil
	if !pinned {
		a.find(codeCopyUnpinned, prefix+"checkpoint", -1, "the trust file has no key "+origin+" for the copy "+name)
		var err error
		if trust, err = ledger.UnpinnedTrust(ctx, a.o.Vault, prefix); err != nil {
			a.find(codeUnsigned, prefix+"checkpoint", -1, err.Error())
			a.auditUnsigned(ctx, prefix)
			return
		}
	}
	tree, err := openAt(ctx, a.o.Vault, prefix, trust)
	if err != nil {
		a.find(codeUnsigned, prefix+"checkpoint", -1, err.Error())
		a.auditUnsigned(ctx, prefix)
		return
	}
	if got := tree.Checkpoint().Origin; got != origin {
		a.differ(codeUnsigned, prefix+"checkpoint", -1, "origin of the copy log", origin, got)
	}
	a.auditFiles(ctx, tree, prefix)
	c := &copyLog{a: a, name: name, object: prefix + "checkpoint", pinned: pinned}
	err = tree.Entries(ctx, 0, tree.Size(), func(i int64, data []byte) error {
		c.add(ctx, i, data)
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.incomplete(c.object, "reading the entries: "+err.Error())
	}
}

// copyLog checks the entries of one copy log in their order.
type copyLog struct {
	a      *audit
	name   string
	object string // what findings name
	pinned bool
	held   int64
}

func (c *copyLog) wrong(i int64, format string, args ...any) {
	c.a.find(codeBadEntry, c.object, i, "copy log: "+fmt.Sprintf(format, args...))
}

func (c *copyLog) add(ctx context.Context, i int64, data []byte) {
	e, err := entry.Decode(data)
	switch {
	case errors.Is(err, entry.ErrNewer):
		c.a.find(codeNeedsNewer, c.object, i, err.Error())
		return
	case err != nil:
		c.wrong(i, "%v", err)
		return
	}
	if _, first := e.(*entry.CopyInit); first != (i == 0) {
		c.wrong(i, "%s entry: expected copy-init as the first entry and nowhere else", e.Type())
	}
	switch e := e.(type) {
	case *entry.CopyInit:
		c.a.replica = c.a.replica || c.pinned // anybody can put another log beside a primary
		if e.Cosigner != "" {
			c.a.stated[keyID(e.Cosigner)] = e.Cosigner
		}
		if e.Name != c.name || e.Origin != c.a.tree.Checkpoint().Origin || c.a.hist.init != nil && e.Vault != c.a.hist.init.Vault {
			c.wrong(i, "copy %s of vault %s, origin %s: this is another one", e.Name, e.Vault, e.Origin)
		}
	case *entry.Held:
		if e.Size < c.held {
			c.wrong(i, "held size %d after %d", e.Size, c.held)
		}
		c.held = e.Size
		if c.a.contains(ctx, c.object, fmt.Sprintf("held entry %d", i), e.Size, e.Root, true) && c.pinned {
			c.a.held = max(c.a.held, e.Size)
		}
	case *entry.Tombstone:
		if k := c.a.hist.keys[e.Key]; k == nil {
			c.wrong(i, "tombstone of entry %d, which is not a key", e.Key)
		} else {
			k.destroyed = k.destroyed || c.pinned // an unpinned log proves nothing
		}
	}
}
