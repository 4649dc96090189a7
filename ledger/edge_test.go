package ledger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"logvault/vault"
)

// sizes around which files begin and end.
var edgeSizes = []int64{0, 1, 2, 255, 256, 257, 300, 511, 512, 513, 65535, 65536, 65537, 65792, 131072, 16777215, 16777216, 16777217, 1<<53 - 1}

// TestChanged compares the files that growth gives with x/mod's list.
func TestChanged(t *testing.T) {
	for _, from := range edgeSizes {
		for _, to := range edgeSizes {
			if to < from || to-from > 200_000 {
				continue
			}
			var got []tlog.Tile
			bundles := 0
			for _, f := range changed(from, to) {
				if f.level == bundleLevel {
					bundles++
					continue
				}
				got = append(got, tlog.Tile{H: 8, L: f.level, N: f.number, W: f.width})
			}
			want := tlog.NewTiles(8, from, to)
			if !slices.Equal(got, want) {
				t.Errorf("from %d to %d: tiles %v, expected %v", from, to, got, want)
			}
			leaf := 0
			for _, tile := range want {
				if tile.L == 0 {
					leaf++
				}
			}
			if bundles != leaf {
				t.Errorf("from %d to %d: %d bundles, expected as many as the %d leaf tiles", from, to, bundles, leaf)
			}
		}
	}
}

// TestGrowWritesChanged: grow gives the data for exactly the files of changed,
// bundles first.
func TestGrowWritesChanged(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	e := &edge{}
	for range 60 {
		from := e.size
		entries := make([][]byte, rng.IntN(700))
		for i := range entries {
			entries[i] = fmt.Append(nil, from, i)
		}
		next := e.clone()
		files := next.grow(entries)
		var got []string
		tiles := false
		for _, f := range files {
			got = append(got, f.name(""))
			if f.level != bundleLevel {
				tiles = true
				if len(f.data) != 32*f.width {
					t.Errorf("%s: %d bytes", f.name(""), len(f.data))
				}
			} else if tiles {
				t.Errorf("from %d to %d: bundle %d after a tile", from, next.size, f.number)
			} else if _, rest, err := splitBundle(f.data, f.width); err != nil || len(rest) > 0 {
				t.Errorf("%s: %d bytes more, %v", f.name(""), len(rest), err)
			}
		}
		var want []string
		for _, f := range changed(from, next.size) {
			want = append(want, f.name(""))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("from %d to %d: files %v, expected %v", from, next.size, got, want)
		}
		if e.size != from {
			t.Fatal("growing a clone changed the original")
		}
		e = next
	}
}

// TestSuperseded: what a tree has after growth is what it had, and what
// changed, without what is superseded; and no partial file stays.
func TestSuperseded(t *testing.T) {
	for _, from := range edgeSizes[:13] {
		for _, to := range edgeSizes[:13] {
			if to < from {
				continue
			}
			have := make(map[string]bool)
			for _, f := range slices.Concat(changed(0, from), changed(from, to)) {
				have[f.name("")] = true
			}
			for _, f := range superseded(from, to) {
				if !have[f.name("")] || !f.partial() {
					t.Errorf("from %d to %d: %s was never there or is full", from, to, f.name(""))
				}
				delete(have, f.name(""))
			}
			want := make(map[string]bool)
			for _, f := range changed(0, to) {
				want[f.name("")] = true
			}
			if len(have) != len(want) {
				t.Errorf("from %d to %d: %d files, expected %d", from, to, len(have), len(want))
			}
			for name := range want {
				if !have[name] {
					t.Errorf("from %d to %d: no %s", from, to, name)
				}
			}
		}
	}
}

// TestTailsAreWhatIsBeyond: vault.IsTail, which guards RemoveTail, agrees with
// the widths here for every full file near the edge.
func TestTailsAreWhatIsBeyond(t *testing.T) {
	for _, size := range edgeSizes[:len(edgeSizes)-1] { // beyond the last no name exists
		checkpoint := fmt.Appendf(nil, "origin\n%d\nroot\n", size)
		for level := bundleLevel; level <= 6; level++ {
			f := file{level: level, width: vault.TileWidth}
			at := size >> (8 * (f.tileLevel() + 1))
			for f.number = max(0, at-2); f.number <= at+2; f.number++ {
				tail, err := vault.IsTail(f.name(vault.LedgerPrefix), checkpoint)
				if covered := width(size, f.tileLevel(), f.number) == vault.TileWidth; err != nil || tail == covered {
					t.Errorf("size %d, %s: tail %v, covered %v, %v", size, f.name(""), tail, covered, err)
				}
			}
		}
	}
	for _, bad := range []string{"", "origin\n", "origin\n5", "origin\n-1\n", "origin\nx\n", "origin\n99999999999999999999\n"} {
		if tail, err := vault.IsTail(vault.BundleName(vault.LedgerPrefix, 9, 256), []byte(bad)); tail || err == nil {
			t.Errorf("checkpoint %q: tail %v, no error", bad, tail)
		}
	}
	for _, name := range []string{"VAULT", "ledger/checkpoint", vault.BundleName(vault.LedgerPrefix, 9, 7), "segments/x"} {
		if tail, _ := vault.IsTail(name, []byte("origin\n0\nroot\n")); tail {
			t.Errorf("%s is a tail", name)
		}
	}
}

// FuzzSplitBundle: what splits joins to the same bytes.
func FuzzSplitBundle(f *testing.F) {
	f.Add(appendEntry(appendEntry(nil, []byte("a")), []byte("bc")), 2)
	f.Add([]byte{0}, 1)
	f.Add([]byte{0, 2, 'x'}, 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 0 || n > vault.TileWidth {
			return
		}
		list, rest, err := splitBundle(data, n)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range list {
			again = appendEntry(again, e)
		}
		if len(list) != n || !bytes.Equal(append(again, rest...), data) {
			t.Fatalf("%d entries and %d bytes more join to other bytes", len(list), len(rest))
		}
	})
}
