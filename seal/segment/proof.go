package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"logvault/vault"
)

// LineProof shows that lines stand under the root of a line tree. Together with
// the lines, the root and the line count it is complete; it holds nothing about
// the other lines but hashes that their unknown salts protect.
//
// All lists are in the order of a walk through the tree from left to right, so
// that there is one proof for a set of lines.
type LineProof struct {
	Lines  []LineSalt   `json:"lines"`  // the disclosed lines, ascending
	Leaves []vault.Hash `json:"leaves"` // of the other lines in their blocks
	Nodes  []vault.Hash `json:"nodes"`  // of the largest subtrees without a disclosed line
}

// LineSalt is the salt of one line.
type LineSalt struct {
	Line int64  `json:"line"`
	Salt []byte `json:"salt"` // 16 bytes
}

// ProveLines proves the given lines of raw, the whole text of a segment. lines
// must be ascending, without repetition, and not empty. It hashes all of raw.
func ProveLines(secret [32]byte, raw io.Reader, lines []int64) (*LineProof, error) {
	if err := checkLines(lines); err != nil {
		return nil, fmt.Errorf("proving lines: %w", err)
	}
	hasher, err := newLeafHasher(&secret)
	if err != nil {
		return nil, err
	}
	p := &LineProof{Lines: make([]LineSalt, 0, len(lines))}
	var blocks []vault.Hash
	var block blockBuffer
	wanted, atBlock := lines, lines // not yet disclosed; not yet in a finished block
	var others []vault.Hash         // leaves of the current block that are not disclosed
	finish := func(last int64) {
		if len(atBlock) > 0 && atBlock[0] <= last {
			p.Leaves = append(p.Leaves, others...)
			atBlock = wanted
		}
		others = others[:0]
		blocks = append(blocks, block.sum())
	}
	count, err := eachLine(raw, func(i int64, line []byte) {
		leaf := hasher.leaf(i, line)
		block.add(&leaf)
		if len(wanted) > 0 && wanted[0] == i {
			p.Lines = append(p.Lines, LineSalt{i, bytes.Clone(hasher.buf[1 : 1+saltSize])}) // as leaf left it
			wanted = wanted[1:]
		} else {
			others = append(others, leaf)
		}
		if block.used == blockLines {
			finish(i)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("proving lines: %w", err)
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("proving lines: line %d of %d", wanted[0], count)
	}
	if block.used > 0 {
		finish(count - 1)
	}
	p.Nodes = appendNodes(nil, blocks, 0, lines)
	return p, nil
}

func checkLines(lines []int64) error {
	if len(lines) == 0 {
		return errors.New("no lines")
	}
	for i, n := range lines {
		if n < 0 || i > 0 && n <= lines[i-1] {
			return fmt.Errorf("line %d at place %d: expected ascending numbers", n, i)
		}
	}
	return nil
}

// touched reports whether one of the ascending lines lies in blocks [low, high).
func touched(lines []int64, low, high int64) bool {
	i, _ := slices.BinarySearch(lines, low*blockLines)
	return i < len(lines) && lines[i] < high*blockLines
}

// appendNodes appends the roots of the largest subtrees without a disclosed
// line. blocks are those from number first on.
func appendNodes(nodes, blocks []vault.Hash, first int64, lines []int64) []vault.Hash {
	n := int64(len(blocks))
	if !touched(lines, first, first+n) {
		return append(nodes, treeRoot(blocks))
	}
	if n == 1 {
		return nodes
	}
	k := splitPoint(n)
	nodes = appendNodes(nodes, blocks[:k], first, lines)
	return appendNodes(nodes, blocks[k:], first+k, lines)
}

// Verify checks that the disclosed lines, by number, are lines of the text whose
// line tree has this root and this many lines. Root and count come from the
// signed segment entry. The disclosed lines must be exactly those of the proof.
// An error wraps ErrProof.
func (p *LineProof) Verify(root vault.Hash, lineCount int64, disclosed map[int64][]byte) error {
	if lineCount < 1 || lineCount > MaxRaw {
		return fmt.Errorf("%w: %d lines, expected 1 to %d", ErrProof, lineCount, MaxRaw)
	}
	if len(p.Lines) != len(disclosed) {
		return fmt.Errorf("%w: it is for %d lines, %d are disclosed", ErrProof, len(p.Lines), len(disclosed))
	}
	numbers := make([]int64, len(p.Lines))
	for i, l := range p.Lines {
		line, ok := disclosed[l.Line]
		if !ok {
			return fmt.Errorf("%w: line %d is not disclosed", ErrProof, l.Line)
		}
		if len(l.Salt) != saltSize {
			return fmt.Errorf("%w: salt of %d bytes for line %d, expected %d", ErrProof, len(l.Salt), l.Line, saltSize)
		}
		if n := lineLength(line); len(line) == 0 || n != len(line) || line[n-1] != '\n' && l.Line != lineCount-1 {
			return fmt.Errorf("%w: line %d is not one whole line", ErrProof, l.Line)
		}
		numbers[i] = l.Line
	}
	if err := checkLines(numbers); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	if last := numbers[len(numbers)-1]; last >= lineCount {
		return fmt.Errorf("%w: line %d of %d", ErrProof, last, lineCount)
	}
	v := &proofWalk{lines: numbers, count: lineCount, disclosed: disclosed, salts: p.Lines, leaves: p.Leaves, nodes: p.Nodes}
	v.hasher.hash = newLeafHash()
	got := v.subtree(0, (lineCount+blockLines-1)/blockLines)
	switch {
	case v.short:
		return fmt.Errorf("%w: it has too few hashes", ErrProof)
	case len(v.leaves) > 0 || len(v.nodes) > 0:
		return fmt.Errorf("%w: %d hashes left over", ErrProof, len(v.leaves)+len(v.nodes))
	case got != root:
		return fmt.Errorf("%w: it leads to root %v, expected %v", ErrProof, got, root)
	}
	return nil
}

// proofWalk recomputes a root from left to right and uses up a proof.
type proofWalk struct {
	lines     []int64 // all disclosed numbers
	count     int64   // lines of the text
	disclosed map[int64][]byte
	salts     []LineSalt // not yet used
	leaves    []vault.Hash
	nodes     []vault.Hash
	hasher    leafHasher // without a secret: salts are given
	short     bool       // something was missing
}

// subtree returns the hash over blocks [low, high).
func (v *proofWalk) subtree(low, high int64) vault.Hash {
	if !touched(v.lines, low, high) {
		return v.take(&v.nodes)
	}
	if high-low == 1 {
		return v.block(low)
	}
	k := splitPoint(high - low)
	left, right := v.subtree(low, low+k), v.subtree(low+k, high)
	return nodeHash(&left, &right)
}

func (v *proofWalk) take(from *[]vault.Hash) vault.Hash {
	if len(*from) == 0 {
		v.short = true
		return vault.Hash{}
	}
	h := (*from)[0]
	*from = (*from)[1:]
	return h
}

// block returns the hash of a block with at least one disclosed line.
func (v *proofWalk) block(k int64) vault.Hash {
	var b blockBuffer
	for i := k * blockLines; i < min((k+1)*blockLines, v.count); i++ {
		var leaf vault.Hash
		if len(v.salts) > 0 && v.salts[0].Line == i {
			copy(v.hasher.buf[1:], v.salts[0].Salt)
			leaf = v.hasher.salted(v.disclosed[i])
			v.salts = v.salts[1:]
		} else {
			leaf = v.take(&v.leaves)
		}
		b.add(&leaf)
	}
	return b.sum()
}
