package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"logvault/ledger"
	"logvault/vault"
)

// oracle is a tree kept by x/mod's own code: every stored hash in a slice.
type oracle struct {
	n      int64
	hashes []tlog.Hash
}

func (o *oracle) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(o.hashes)) {
			return nil, fmt.Errorf("index %d of %d", x, len(o.hashes))
		}
		out[i] = o.hashes[x]
	}
	return out, nil
}

func (o *oracle) add(t testing.TB, data []byte) {
	hs, err := tlog.StoredHashes(o.n, data, o)
	if err != nil {
		t.Fatal(err)
	}
	o.n++
	o.hashes = append(o.hashes, hs...)
}

// fileTiles lets x/mod read our files as a client of the log would.
type fileTiles struct{ r vault.Reader }

func (f fileTiles) Height() int                     { return 8 }
func (f fileTiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (f fileTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, tile := range tiles {
		name := vault.LedgerPrefix + "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		data, err := vault.ReadAll(context.Background(), f.r, name, 8192)
		if err != nil {
			return nil, err
		}
		out[i] = data
	}
	return out, nil
}

// boundaries are the sizes at which tiles fill and levels begin.
var boundaries = []int{0, 1, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537}

// TestBoundaries grows one ledger through the sizes and compares it at each
// with x/mod: root, every tile's bytes, proofs both ways.
func TestBoundaries(t *testing.T) {
	l, cfg := newLog(t)
	truth := &oracle{}
	for _, size := range boundaries {
		old := l.Checkpoint()
		for _, data := range testEntries(truth.n, size-int(truth.n)) {
			truth.add(t, data)
		}
		grow(t, l, size-int(old.Size))
		root, err := tlog.TreeHash(int64(size), truth)
		if err != nil {
			t.Fatal(err)
		}
		tree := openTree(t, cfg.Copy)
		if tree.Size() != int64(size) || tree.Root() != vault.Hash(root) {
			t.Fatalf("size %d, root %s; expected %d, %s", tree.Size(), tree.Root(), size, vault.Hash(root))
		}
		compareTiles(t, cfg.Copy, truth)
		compareProofs(t, tree, truth, old)
		if found := problems(t, tree); len(found) > 0 {
			t.Fatalf("size %d: audit finds %+v", size, found)
		}
		if a, b := names(t, cfg.Record), names(t, cfg.Copy); !slices.Equal(a, b) {
			t.Fatalf("size %d: the record holds %v, the copy %v", size, a, b)
		}
		if l, err = ledger.Open(context.Background(), cfg); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
	}
}

// names lists the files of the ledger in a store.
func names(t testing.TB, r vault.Reader) []string {
	t.Helper()
	var list []string
	err := r.List(context.Background(), vault.LedgerPrefix, func(i vault.Info) error {
		list = append(list, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// compareTiles checks that the tile files are those that x/mod would write.
func compareTiles(t *testing.T, r vault.Reader, truth *oracle) {
	t.Helper()
	tiles := tlog.NewTiles(8, 0, truth.n)
	got, err := fileTiles{r}.ReadTiles(tiles)
	if err != nil {
		t.Fatal(err)
	}
	for i, tile := range tiles {
		want, err := tlog.ReadTileData(tile, truth)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[i], want) {
			t.Fatalf("size %d: tile %s differs", truth.n, tile.Path())
		}
	}
	for _, name := range names(t, r) {
		if o, err := vault.ParseName(name); err != nil {
			t.Error(err)
		} else if o.Kind == vault.KindTile || o.Kind == vault.KindPartialTile {
			tiles = slices.DeleteFunc(tiles, func(x tlog.Tile) bool {
				return x.L == o.Level && x.N == o.Number && x.W == o.Width
			})
		}
	}
	if len(tiles) > 0 {
		t.Errorf("size %d: no file for %v", truth.n, tiles)
	}
}

// compareProofs checks our proofs with x/mod, and x/mod's own, made from our
// files, with us.
func compareProofs(t *testing.T, tree *ledger.Tree, truth *oracle, old ledger.Checkpoint) {
	t.Helper()
	ctx := context.Background()
	size, root := tree.Size(), tree.Root()
	for _, i := range []int64{0, size / 3, size - 257, size - 2, size - 1} {
		if i < 0 || i >= size {
			continue
		}
		data, err := tree.Entry(ctx, i)
		if err != nil || !bytes.Equal(data, testEntry(fmt.Sprint(i))) {
			t.Fatalf("entry %d: %s, %v", i, data, err)
		}
		proof, err := tree.InclusionProof(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		want, err := tlog.ProveRecord(size, i, truth)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(proof, want, func(a vault.Hash, b tlog.Hash) bool { return a == vault.Hash(b) }) {
			t.Fatalf("inclusion of %d in %d: %v, expected %v", i, size, proof, want)
		}
		if err := ledger.CheckInclusion(root, size, i, ledger.LeafHash(data), proof); err != nil {
			t.Error(err)
		}
		if ledger.CheckInclusion(root, size, i, ledger.LeafHash([]byte("x")), proof) == nil {
			t.Errorf("inclusion of %d in %d holds for another entry", i, size)
		}
	}
	proof, err := tree.ConsistencyProof(ctx, old.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.CheckConsistency(old.Size, old.Root, size, root, proof); err != nil {
		t.Error(err)
	}
	if ledger.CheckConsistency(old.Size, vault.HashOf([]byte("x")), size, root, proof) == nil {
		t.Errorf("consistency of %d and %d holds for another root", old.Size, size)
	}
	if got, err := tree.RootAt(ctx, old.Size); err != nil || got != old.Root {
		t.Errorf("root at %d: %s, %v; expected %s", old.Size, got, err, old.Root)
	}
}

// TestClient reads the log as any tlog client does, through x/mod's verifying
// tile reader.
func TestClient(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 700)
	cp := l.Checkpoint()
	reader := tlog.TileHashReader(tlog.Tree{N: cp.Size, Hash: tlog.Hash(cp.Root)}, fileTiles{cfg.Copy})
	for _, i := range []int64{0, 255, 256, 699} {
		proof, err := tlog.ProveRecord(cp.Size, i, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, cp.Size, tlog.Hash(cp.Root), i, tlog.RecordHash(testEntry(fmt.Sprint(i)))); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

func TestEntries(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 600)
	tree := openTree(t, cfg.Copy)
	for _, r := range [][2]int64{{0, 0}, {0, 600}, {255, 257}, {256, 512}, {599, 600}, {600, 600}} {
		next := r[0]
		err := tree.Entries(context.Background(), r[0], r[1], func(i int64, data []byte) error {
			if i != next || !bytes.Equal(data, testEntry(fmt.Sprint(i))) {
				t.Fatalf("entry %d: %s, expected entry %d", i, data, next)
			}
			next++
			return nil
		})
		if err != nil || next != r[1] {
			t.Errorf("entries %v: up to %d, %v", r, next, err)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 601}, {2, 1}} {
		if err := tree.Entries(context.Background(), r[0], r[1], nil); err == nil {
			t.Errorf("entries %v of 600: no error", r)
		}
	}
	stop := errors.New("enough")
	if err := tree.Entries(context.Background(), 0, 600, func(int64, []byte) error { return stop }); err != stop {
		t.Errorf("error %v, expected the callback's", err)
	}
	for what, err := range map[string]error{
		"inclusion":   second(tree.InclusionProof(context.Background(), 600)),
		"consistency": second(tree.ConsistencyProof(context.Background(), 601)),
		"root":        second(tree.RootAt(context.Background(), 601)),
	} {
		if err == nil {
			t.Errorf("%s beyond the size: no error", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestGrowingLedger reads an old head while the log grows and its partial
// tiles go away.
func TestGrowingLedger(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 300)
	trees := []*ledger.Tree{openTree(t, cfg.Copy), l.Tree()}
	for range 5 {
		grow(t, l, 130)
		old := trees[0]
		again, err := ledger.OpenTreeAt(context.Background(), cfg.Copy, vault.LedgerPrefix, old.Checkpoint())
		if err != nil {
			t.Fatal(err)
		}
		for _, tree := range append(trees, again) {
			n := 0
			err := tree.Entries(context.Background(), 0, tree.Size(), func(int64, []byte) error { n++; return nil })
			if err != nil || n != 300 {
				t.Fatalf("%d entries of an old head, %v", n, err)
			}
			if found := problems(t, tree); len(found) > 0 {
				t.Fatalf("audit of an old head finds %+v", found)
			}
		}
	}
}

// TestFiles rebuilds a log from Tree.Files and compares.
func TestFiles(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 70)
	grow(t, l, 700)
	tree := openTree(t, cfg.Copy)
	var got []string
	err := tree.Files(context.Background(), 0, func(name string, data []byte) error {
		got = append(got, name)
		stored, err := vault.ReadAll(context.Background(), cfg.Copy, name, 1<<20)
		if err == nil && !bytes.Equal(data, stored) {
			err = fmt.Errorf("%s differs", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, vault.CheckpointName(vault.LedgerPrefix))
	slices.Sort(got)
	if want := names(t, cfg.Copy); !slices.Equal(got, want) {
		t.Errorf("files %v, expected %v", got, want)
	}
}

// TestTreeRoot compares with x/mod for every small size.
func TestTreeRoot(t *testing.T) {
	truth := &oracle{}
	var leaves []vault.Hash
	for n := range 70 {
		want, err := tlog.TreeHash(int64(n), truth)
		if err != nil {
			t.Fatal(err)
		}
		if got := ledger.TreeRoot(leaves); got != vault.Hash(want) {
			t.Errorf("%d leaves: %s, expected %s", n, got, vault.Hash(want))
		}
		data := testEntry(fmt.Sprint(n))
		truth.add(t, data)
		leaves = append(leaves, ledger.LeafHash(data))
	}
}

// TestCheckProofsNeverPanic feeds the checks garbage.
func TestCheckProofsNeverPanic(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		proof := make([]vault.Hash, rng.IntN(8))
		a, b := rng.Int64N(20)-2, rng.Int64N(20)-2
		var root, other vault.Hash
		root[0], other[0] = byte(rng.Uint32()), byte(rng.Uint32())|1
		if ledger.CheckInclusion(root, a, b, other, proof) == nil && (a != 1 || root != other) {
			t.Fatalf("inclusion of %d in %d accepted", b, a)
		}
		if ledger.CheckConsistency(a, root, b, other, proof) == nil && (a != b || root != other) {
			t.Fatalf("consistency of %d and %d accepted", a, b)
		}
	}
}
