package ledger

import (
	"encoding/binary"
	"fmt"

	"logvault/vault"
)

// file is a tile or a bundle to be written or read.
type file struct {
	level  int // of the tile; bundles are bundleLevel
	number int64
	width  int
	data   []byte
}

// bundleLevel stands for the bundles, which lie below the leaf tiles and have
// the same numbers.
const bundleLevel = -1

func (f file) name(prefix string) string {
	if f.level == bundleLevel {
		return vault.BundleName(prefix, f.number, f.width)
	}
	return vault.TileName(prefix, f.level, f.number, f.width)
}

// partial reports whether the file is replaced when the tree grows.
func (f file) partial() bool { return f.width < vault.TileWidth }

// tileLevel is the level for counting: a bundle spans what a leaf tile spans.
func (f file) tileLevel() int { return max(f.level, 0) }

// width tells how many hashes the tile of a level and number has in a tree of
// the given size: 0 to 256.
func width(size int64, level int, number int64) int {
	n := size>>(8*level) - number*vault.TileWidth // hashes of the level from the tile's first on
	return int(min(max(n, 0), vault.TileWidth))
}

// edge is the right edge of a tree: what it takes to grow it. It is small, a
// tile for each level, whatever the size.
type edge struct {
	size   int64
	levels [][]vault.Hash // levels[L]: the hashes of the partial tile of level L, 0 to 255
	bundle []byte         // the partial bundle
}

// clone copies e so that growing the copy leaves e alone. A batch that fails
// is dropped with its copy.
func (e *edge) clone() *edge {
	c := &edge{size: e.size, levels: make([][]vault.Hash, len(e.levels)), bundle: append([]byte(nil), e.bundle...)}
	for i, hs := range e.levels {
		c.levels[i] = append(make([]vault.Hash, 0, vault.TileWidth), hs...)
	}
	return c
}

// root folds the levels from the leaves up: what is below a level counts as one
// more, incomplete, hash on its right end. Splitting at the largest power of
// two then gives the RFC 6962 root.
func (e *edge) root() vault.Hash {
	var below []vault.Hash // none or one
	for _, hs := range e.levels {
		if len(hs)+len(below) > 0 {
			below = []vault.Hash{TreeRoot(append(hs[:len(hs):len(hs)], below...))}
		}
	}
	return TreeRoot(below)
}

// addLeaf grows the tree by a leaf hash and calls full for each tile that it
// fills, from the leaves up.
func (e *edge) addLeaf(leaf vault.Hash, full func(level int, number int64, hashes []vault.Hash)) {
	e.size++
	for level, h := 0, leaf; ; level++ {
		if level == len(e.levels) {
			e.levels = append(e.levels, nil)
		}
		e.levels[level] = append(e.levels[level], h)
		if len(e.levels[level]) < vault.TileWidth {
			return
		}
		full(level, e.size>>(8*(level+1))-1, e.levels[level])
		h = TreeRoot(e.levels[level])
		e.levels[level] = e.levels[level][:0:0]
	}
}

// grow adds entries and returns the files that change: bundles first, then
// tiles, each kind in rising order.
func (e *edge) grow(entries [][]byte) []file {
	from := e.size
	var bundles, tiles []file
	for _, data := range entries {
		e.bundle = appendEntry(e.bundle, data)
		e.addLeaf(LeafHash(data), func(level int, number int64, hashes []vault.Hash) {
			tiles = append(tiles, file{level, number, vault.TileWidth, tileData(hashes)})
		})
		if e.size%vault.TileWidth == 0 {
			bundles = append(bundles, file{bundleLevel, e.size/vault.TileWidth - 1, vault.TileWidth, e.bundle})
			e.bundle = nil
		}
	}
	if n := int(e.size % vault.TileWidth); n > 0 {
		bundles = append(bundles, file{bundleLevel, e.size / vault.TileWidth, n, e.bundle})
	}
	for level, hs := range e.levels {
		if len(hs) > 0 && from>>(8*level) != e.size>>(8*level) {
			tiles = append(tiles, file{level, e.size >> (8 * (level + 1)), len(hs), tileData(hs)})
		}
	}
	return append(bundles, tiles...)
}

// changed lists, without data, the files that grow from one size to another
// gives: what a copy at the first size lacks of the second.
func changed(from, to int64) []file {
	var list []file
	for level := bundleLevel; ; level++ {
		f := file{level: level}
		shift := 8 * f.tileLevel()
		if to>>shift == 0 {
			return list
		}
		if from>>shift == to>>shift {
			continue
		}
		for n := from >> (shift + 8); n <= to>>(shift+8); n++ {
			if w := width(to, f.tileLevel(), n); w > 0 {
				list = append(list, file{level: level, number: n, width: w})
			}
		}
	}
}

// superseded lists the partial files of a tree of size from that one of size
// to no longer has.
func superseded(from, to int64) []file {
	var list []file
	for level := bundleLevel; ; level++ {
		f := file{level: level}
		shift := 8 * f.tileLevel()
		if from>>shift == 0 {
			return list
		}
		f.number = from >> (shift + 8)
		f.width = width(from, f.tileLevel(), f.number)
		if f.width > 0 && width(to, f.tileLevel(), f.number) != f.width {
			list = append(list, f)
		}
	}
}

// appendEntry appends an entry as a bundle holds it.
func appendEntry(bundle, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(data))), data...)
}

func tileData(hashes []vault.Hash) []byte {
	data := make([]byte, 0, len(hashes)*len(vault.Hash{}))
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}

func tileHashes(data []byte) []vault.Hash {
	hashes := make([]vault.Hash, len(data)/len(vault.Hash{}))
	for i := range hashes {
		copy(hashes[i][:], data[i*len(vault.Hash{}):])
	}
	return hashes
}

// splitBundle splits the first n entries off a bundle and returns what follows
// them. The entries share data.
func splitBundle(data []byte, n int) (list [][]byte, rest []byte, err error) {
	list = make([][]byte, 0, n)
	for len(list) < n {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, nil, fmt.Errorf("ends within entry %d, expected %d entries", len(list), n)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		list = append(list, data[2:end:end])
		data = data[end:]
	}
	return list, data, nil
}
