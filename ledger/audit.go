package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"logvault/vault"
)

// Problem is one thing that is wrong with a log's files.
type Problem struct {
	Name     string // object name
	Code     string
	Expected string
	Got      string

	// edge says that growth of the log since the tree was opened explains it.
	edge bool
}

// The codes of a Problem.
const (
	ProblemWrong      = "wrong"       // content that the checkpoint does not commit to
	ProblemMissing    = "missing"     // a file that the checkpoint needs
	ProblemShort      = "short"       // ends too early
	ProblemLong       = "long"        // goes on after its last hash or entry
	ProblemUnexpected = "unexpected"  // a file that the log does not have
	ProblemBeyond     = "beyond"      // a file that only a larger log has
	ProblemForked     = "forked"      // a signed head that is not on the chain
	ProblemUnknownKey = "unknown-key" // a cosignature by a key that is not trusted
)

// Audit reads every file of the log, recomputes every tile from the bundles
// and calls fn for each problem, in no particular order; it stops at fn's first
// error. A file that is wrong in any byte is named, as are files that are
// missing or do not belong there, kept heads off the chain, and cosignatures
// that are invalid. Signatures are checked if the tree came from OpenTree.
//
// If the log grew meanwhile, what that explains at the right edge is left out:
// the tree of the new head is another audit. The error is the store's; a
// damaged log is no error but problems.
func (t *Tree) Audit(ctx context.Context, fn func(Problem) error) error {
	a := &audit{t: t, calc: &edge{}, bad: make(map[tileID]bool)}
	if err := a.rebuild(ctx); err != nil {
		return err
	}
	if err := a.judge(ctx); err != nil {
		return err
	}
	if err := a.list(ctx); err != nil {
		return err
	}
	grown, err := a.grown(ctx)
	if err != nil {
		return err
	}
	for _, p := range a.found {
		if p.edge && grown {
			continue
		}
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// audit compares the stored tiles with those computed from the bundles. Where
// they differ, the signed root decides: if the bundles give it, the tiles are
// wrong; else a stored tile that is proven up to the root convicts what lies
// below it.
type audit struct {
	t      *Tree
	calc   *edge           // grown from the bundles
	keys   *Keys           // what the entries say of the log's keys; nil if the first is not read
	differ []file          // stored tiles unlike the computed ones; data is the computed one
	bad    map[tileID]bool // tiles and bundles already reported
	found  []Problem
}

func (a *audit) report(p Problem) { a.found = append(a.found, p) }

// rebuild reads all bundles and tiles once, in order. Store errors other than
// an absent object end the audit.
func (a *audit) rebuild(ctx context.Context) error {
	size := a.t.cp.Size
	for number := int64(0); number*vault.TileWidth < size; number++ {
		leaves, err := a.leaves(ctx, number)
		if err != nil {
			return err
		}
		var full []file
		for _, leaf := range leaves {
			a.calc.addLeaf(leaf, func(level int, number int64, hashes []vault.Hash) {
				full = append(full, file{level, number, vault.TileWidth, tileData(hashes)})
			})
		}
		for _, f := range full {
			if err := a.compare(ctx, f); err != nil {
				return err
			}
		}
	}
	for level, hashes := range a.calc.levels {
		if len(hashes) > 0 {
			if err := a.compare(ctx, file{level, size >> (8 * (level + 1)), len(hashes), tileData(hashes)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaves returns the leaf hashes that a bundle gives. For one that cannot be
// read they are those of the stored tile, so that the rest can still be judged.
func (a *audit) leaves(ctx context.Context, number int64) ([]vault.Hash, error) {
	f := file{level: bundleLevel, number: number, width: width(a.t.cp.Size, 0, number)}
	data, ok, err := a.fetch(ctx, f, maxBundle)
	if err != nil {
		return nil, err
	}
	leaves := make([]vault.Hash, f.width)
	if ok {
		list, rest, err := splitBundle(data, f.width)
		switch {
		case err != nil:
			a.reportFile(f, ProblemShort, fmt.Sprintf("%d entries", f.width), err.Error())
		case len(rest) > 0:
			a.reportFile(f, ProblemLong, fmt.Sprintf("%d entries", f.width), fmt.Sprintf("%d more bytes", len(rest)))
		}
		if err == nil {
			for i, d := range list {
				leaves[i] = LeafHash(d)
				a.key(number*vault.TileWidth+int64(i), d)
			}
			return leaves, nil
		}
	}
	tile := f
	tile.level = 0
	stored, err := vault.ReadAll(ctx, a.t.r, tile.name(a.t.prefix), int64(maxTile))
	if err != nil && !isDamage(err) {
		return nil, err
	}
	copy(leaves, tileHashes(stored))
	return leaves, nil
}

// key follows the succession of the log's keys. Whether a rotate entry is in
// order is for those who read entries; here one that is not leads nowhere.
func (a *audit) key(i int64, data []byte) {
	switch {
	case i == 0:
		if first, err := firstTrust(data, a.t.cp.Origin); err == nil {
			a.keys = NewKeys(first.Log, first.Recovery)
		}
	case a.keys != nil && isRotate(data):
		_ = a.keys.Add(i, data)
	}
}

// trust returns the tree's trust with the keys that signed older heads.
func (a *audit) trust() *Trust {
	if a.keys != nil && a.t.trust != nil {
		if t, err := a.t.trust.Following(a.keys); err == nil {
			return t
		}
	}
	return a.t.trust
}

// compare reads a stored tile and notes if it differs from the computed one.
func (a *audit) compare(ctx context.Context, f file) error {
	data, ok, err := a.fetch(ctx, f, int64(maxTile))
	if err != nil || !ok || bytes.Equal(data, f.data) {
		return err
	}
	want, got := fmt.Sprintf("%d bytes", len(f.data)), fmt.Sprintf("%d bytes", len(data))
	switch {
	case len(data) < len(f.data):
		a.reportFile(f, ProblemShort, want, got)
	case len(data) > len(f.data):
		a.reportFile(f, ProblemLong, want, got)
	}
	a.differ = append(a.differ, f)
	return nil
}

// fetch reads a file. ok is false if it was reported as missing or too large.
func (a *audit) fetch(ctx context.Context, f file, limit int64) (data []byte, ok bool, err error) {
	name := f.name(a.t.prefix)
	data, err = vault.ReadAll(ctx, a.t.r, name, limit)
	var large *vault.TooLargeError
	switch {
	case err == nil:
		return data, true, nil
	case errors.Is(err, vault.ErrNotExist):
		a.reportFile(f, ProblemMissing, fmt.Sprintf("width %d", f.width), "no file")
		return nil, false, nil
	case errors.As(err, &large):
		a.reportFile(f, ProblemLong, fmt.Sprintf("at most %d bytes", limit), fmt.Sprintf("%d bytes", large.Size))
		return nil, false, nil
	}
	return nil, false, err
}

// isDamage tells an error about what is stored from a store that fails.
func isDamage(err error) bool {
	var large *vault.TooLargeError
	var damage *DamageError
	return errors.Is(err, vault.ErrNotExist) || errors.As(err, &large) || errors.As(err, &damage)
}

// reportFile reports a tile or bundle once.
func (a *audit) reportFile(f file, code, expected, got string) {
	id := tileID{f.level, f.number}
	if a.bad[id] {
		return
	}
	a.bad[id] = true
	edge := f.partial() && code == ProblemMissing
	a.report(Problem{Name: f.name(a.t.prefix), Code: code, Expected: expected, Got: got, edge: edge})
}

// judge decides which side of each difference is wrong.
func (a *audit) judge(ctx context.Context) error {
	root := a.calc.root()
	if root == a.t.cp.Root {
		for _, f := range a.differ {
			a.reportFile(f, ProblemWrong, "the hashes of its entries", "others")
		}
		return nil
	}
	// From the top down, so that a wrong tile is known before what it should prove.
	for len(a.differ) > 0 {
		f := a.differ[len(a.differ)-1]
		a.differ = a.differ[:len(a.differ)-1]
		if err := a.convict(ctx, f); err != nil {
			return err
		}
	}
	if len(a.found) > 0 {
		return nil
	}
	// All files agree with each other and not with the signed root. Which of
	// the tiles of the right edge is wrong cannot be told.
	for _, f := range superseded(a.t.cp.Size, 0) {
		if f.level != bundleLevel {
			a.reportFile(f, ProblemWrong, "root "+a.t.cp.Root.String(), "root "+root.String())
		}
	}
	return nil
}

// convict judges one tile that differs from the computed f.data. If the stored
// one is proven, what lies below the differing hashes is wrong; else it is
// wrong itself, and so is a bundle that does not give it.
func (a *audit) convict(ctx context.Context, f file) error {
	stored, err := a.t.tile(ctx, f.level, f.number)
	if err != nil {
		if !isDamage(err) {
			return err
		}
		a.reportFile(f, ProblemWrong, "hashes proven by the checkpoint", err.Error())
		if stored, err = a.t.readTile(ctx, f.level, f.number); err != nil {
			return ignoreDamage(err)
		}
	}
	for i, h := range tileHashes(f.data) {
		if i >= len(stored) || stored[i] == h {
			continue
		}
		child := file{level: f.level - 1, number: f.number*vault.TileWidth + int64(i), width: vault.TileWidth}
		if f.level == 0 {
			child = file{level: bundleLevel, number: f.number, width: f.width}
			a.reportFile(child, ProblemWrong, fmt.Sprintf("entry %d with leaf hash %s", f.number*vault.TileWidth+int64(i), stored[i]), h.String())
			return nil
		}
		if err := a.convictChild(ctx, child); err != nil {
			return err
		}
	}
	return nil
}

// convictChild judges the full tile below a differing hash. It may agree with
// its own bundle: both were altered together.
func (a *audit) convictChild(ctx context.Context, child file) error {
	_, err := a.t.tile(ctx, child.level, child.number)
	if err == nil || !isDamage(err) {
		return err
	}
	a.reportFile(child, ProblemWrong, "hashes proven by the checkpoint", err.Error())
	if child.level == 0 {
		child.level = bundleLevel
		a.reportFile(child, ProblemWrong, "entries proven by the checkpoint", "entries of another tile")
	}
	return nil
}

func ignoreDamage(err error) error {
	if isDamage(err) {
		return nil
	}
	return err
}

// list looks at the names of all files, and at kept heads and cosignatures.
func (a *audit) list(ctx context.Context) error {
	return a.t.r.List(ctx, a.t.prefix, func(i vault.Info) error {
		o, err := vault.ParseName(i.Name)
		if err != nil || o.LogPrefix() != a.t.prefix {
			a.report(Problem{Name: i.Name, Code: ProblemUnexpected, Expected: "a file of the log", Got: "another name"})
			return nil
		}
		switch o.Kind {
		case vault.KindTile, vault.KindBundle, vault.KindPartialTile, vault.KindPartialBundle:
			a.listTile(o)
		case vault.KindKeptCheckpoint:
			return a.keptHead(ctx, o)
		case vault.KindCosignature:
			return a.cosignature(ctx, o)
		}
		return nil
	})
}

func (a *audit) listTile(o vault.Object) {
	w := width(a.t.cp.Size, o.Level, o.Number)
	switch {
	case o.Width == w:
	case o.Width > w:
		a.report(Problem{Name: o.Name, Code: ProblemBeyond, Expected: fmt.Sprintf("width %d", w), Got: fmt.Sprintf("width %d", o.Width), edge: true})
	default:
		a.report(Problem{Name: o.Name, Code: ProblemUnexpected, Expected: fmt.Sprintf("width %d only", w), Got: fmt.Sprintf("width %d", o.Width), edge: true})
	}
}

// keptHead checks that a kept head is signed, named after its size and on the chain.
func (a *audit) keptHead(ctx context.Context, o vault.Object) error {
	raw, err := vault.ReadAll(ctx, a.t.r, o.Name, maxCheckpoint)
	if err != nil {
		return ignoreDamage(err)
	}
	cp, err := a.parse(raw)
	switch {
	case err != nil:
		a.report(Problem{Name: o.Name, Code: ProblemWrong, Expected: "a signed checkpoint", Got: err.Error()})
		return nil
	case cp.Size != o.Size:
		a.report(Problem{Name: o.Name, Code: ProblemWrong, Expected: fmt.Sprintf("size %d", o.Size), Got: fmt.Sprintf("size %d", cp.Size)})
		return nil
	case cp.Size > a.t.cp.Size:
		a.report(Problem{Name: o.Name, Code: ProblemBeyond, Expected: fmt.Sprintf("at most size %d", a.t.cp.Size), Got: fmt.Sprintf("size %d", cp.Size), edge: true})
		return nil
	}
	root, err := a.t.RootAt(ctx, cp.Size)
	if err != nil {
		return ignoreDamage(err) // the damage itself is reported
	}
	if root != cp.Root {
		a.report(Problem{Name: o.Name, Code: ProblemForked, Expected: "root " + root.String(), Got: "root " + cp.Root.String()})
	}
	return nil
}

// parse verifies a head, if there is trust to verify it with.
func (a *audit) parse(raw []byte) (Checkpoint, error) {
	if trust := a.trust(); trust != nil {
		return ParseCheckpoint(raw, trust)
	}
	return parseNote(raw)
}

// cosignature checks a cosignature over the head that the log had at its size.
func (a *audit) cosignature(ctx context.Context, o vault.Object) error {
	line, err := vault.ReadAll(ctx, a.t.r, o.Name, maxCheckpoint)
	if err != nil {
		return ignoreDamage(err)
	}
	if a.t.trust == nil {
		return nil
	}
	if o.Size > a.t.cp.Size {
		a.report(Problem{Name: o.Name, Code: ProblemBeyond, Expected: fmt.Sprintf("at most size %d", a.t.cp.Size), Got: fmt.Sprintf("size %d", o.Size), edge: true})
		return nil
	}
	vkey := a.t.trust.cosigner(o.KeyID)
	if vkey == "" {
		a.report(Problem{Name: o.Name, Code: ProblemUnknownKey, Expected: "a key of the trust file", Got: "key " + o.KeyID})
		return nil
	}
	root, err := a.t.RootAt(ctx, o.Size)
	if err != nil {
		return ignoreDamage(err)
	}
	head := Checkpoint{Origin: a.t.cp.Origin, Size: o.Size, Root: root}
	if _, err := VerifyCosignature(head, line, vkey); err != nil {
		a.report(Problem{Name: o.Name, Code: ProblemWrong, Expected: "a valid cosignature of this chain", Got: err.Error()})
	}
	return nil
}

// grown reports whether another checkpoint than the tree's is published now.
func (a *audit) grown(ctx context.Context) (bool, error) {
	raw, err := readCheckpoint(ctx, a.t.r, a.t.prefix)
	if errors.Is(err, ErrNoLedger) {
		a.report(Problem{Name: vault.CheckpointName(a.t.prefix), Code: ProblemMissing, Expected: "the checkpoint", Got: "no file"})
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if bytes.Equal(raw, a.t.cp.Raw) {
		return false, nil
	}
	now, err := a.parse(raw)
	if err != nil || now.Size < a.t.cp.Size || now.Size == a.t.cp.Size && now.Root != a.t.cp.Root {
		got := fmt.Sprintf("size %d", now.Size)
		if err != nil {
			got = err.Error()
		}
		a.report(Problem{Name: vault.CheckpointName(a.t.prefix), Code: ProblemWrong, Expected: fmt.Sprintf("size %d or more, signed", a.t.cp.Size), Got: got})
		return false, nil
	}
	return now.Size > a.t.cp.Size, nil
}
