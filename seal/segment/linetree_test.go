package segment

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"logvault/vault"
)

// naiveRoot computes the line tree as DESIGN §6.3 words it, with nothing shared
// with the code under test.
func naiveRoot(t testing.TB, secret [32]byte, raw []byte) (vault.Hash, int64) {
	t.Helper()
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for line := range bytes.Lines(raw) {
		var salt [16]byte
		for i, n := 15, len(leaves); n > 0; i, n = i-1, n>>8 {
			salt[i] = byte(n)
		}
		block.Encrypt(salt[:], salt[:])
		leaf := sha256.Sum256(append(append([]byte{0}, salt[:]...), line...))
		leaves = append(leaves, leaf[:])
	}
	lines := int64(len(leaves))
	var blocks [][]byte
	for len(leaves) > 0 {
		n := min(16, len(leaves))
		h := sha256.Sum256(append([]byte{2}, bytes.Join(leaves[:n], nil)...))
		blocks, leaves = append(blocks, h[:]), leaves[n:]
	}
	return vault.Hash(naiveTree(blocks)), lines
}

func naiveTree(hashes [][]byte) []byte {
	if len(hashes) == 1 {
		return hashes[0]
	}
	k := 1
	for 2*k < len(hashes) {
		k *= 2
	}
	h := sha256.Sum256(bytes.Join([][]byte{{1}, naiveTree(hashes[:k]), naiveTree(hashes[k:])}, nil))
	return h[:]
}

func TestLineRootSizes(t *testing.T) {
	secret := [32]byte{7}
	for lines := 1; lines < 600; lines++ {
		raw := bytes.Repeat([]byte("line\n"), lines)
		if lines%2 == 0 {
			raw = raw[:len(raw)-1] // an unfinished last line
		}
		got, n, err := LineRoot(secret, iotest.OneByteReader(bytes.NewReader(raw)))
		want, m := naiveRoot(t, secret, raw)
		if err != nil || got != want || n != m || n != int64(lines) {
			t.Fatalf("%d lines: %v of %d, %v; want %v of %d", lines, got, n, err, want, m)
		}
	}
}

// Lines of every length around those where the padding needs another block of
// the hash, and where a line no longer fits the buffer.
func TestLineRootLengths(t *testing.T) {
	var raw []byte
	for _, around := range []int{100, 8 << 10} {
		for n := around - 100; n < around+100; n++ {
			raw = append(append(raw, bytes.Repeat([]byte{byte(n) | 0x80}, n)...), '\n')
		}
	}
	secret := [32]byte{8}
	got, n, err := LineRoot(secret, bytes.NewReader(raw))
	want, m := naiveRoot(t, secret, raw)
	if err != nil || got != want || n != m || n != 400 {
		t.Errorf("%v of %d, %v; want %v of %d", got, n, err, want, m)
	}
}

func TestLineRootRefuses(t *testing.T) {
	if _, _, err := LineRoot([32]byte{}, strings.NewReader("")); err == nil {
		t.Error("a text without lines has a root")
	}
	if _, _, err := LineRoot([32]byte{}, bytes.NewReader(make([]byte, MaxRaw+1))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too long: %v", err)
	}
	broken := errors.New("broken")
	if _, _, err := LineRoot([32]byte{}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("read error: %v", err)
	}
}

// Salts can be asked for in any order.
func TestSaltsOutOfOrder(t *testing.T) {
	secret := [32]byte{9}
	h, err := newLeafHasher(&secret)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		i := rng.Int64N(100)
		if rng.IntN(10) == 0 {
			i = rng.Int64()
		}
		for range rng.IntN(40) {
			want := make([]byte, 16)
			for b := range 8 {
				want[15-b] = byte(i >> (8 * b))
			}
			block.Encrypt(want, want)
			if got := h.salt(i); !bytes.Equal(got, want) {
				t.Fatalf("salt %d: %x, want %x", i, got, want)
			}
			i++
		}
	}
}

// randomText makes n lines, some longer than the hasher's buffer.
func randomText(rng *rand.Rand, n int) (raw []byte, lines [][]byte) {
	for i := range n {
		size := rng.IntN(40)
		if rng.IntN(50) == 0 {
			size = 8<<10 - 20 + rng.IntN(40)
		}
		line := make([]byte, size, size+1)
		for j := range line {
			if line[j] = byte(rng.UintN(256)); line[j] == '\n' {
				line[j] = 0
			}
		}
		if i < n-1 || size == 0 || rng.IntN(2) == 0 {
			line = append(line, '\n')
		}
		lines = append(lines, line)
		raw = append(raw, line...)
	}
	return raw, lines
}

func randomSubset(rng *rand.Rand, n int) []int64 {
	var subset []int64
	density := 1 + rng.IntN(40)
	for i := range n {
		if rng.IntN(density) == 0 {
			subset = append(subset, int64(i))
		}
	}
	if len(subset) == 0 {
		subset = append(subset, rng.Int64N(int64(n)))
	}
	return subset
}

func TestProofsOfRandomSubsets(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 400 {
		n := 1 + rng.IntN(300)
		raw, lines := randomText(rng, n)
		secret := [32]byte{byte(round), byte(round >> 8)}
		root, count, err := LineRoot(secret, bytes.NewReader(raw))
		if err != nil || count != int64(n) {
			t.Fatalf("round %d: %d lines, %v", round, count, err)
		}
		subset := randomSubset(rng, n)
		proof, err := ProveLines(secret, bytes.NewReader(raw), subset)
		if err != nil {
			t.Fatal(err)
		}
		disclosed := map[int64][]byte{}
		for _, i := range subset {
			disclosed[i] = lines[i]
		}
		if err := proof.Verify(root, count, disclosed); err != nil {
			t.Fatalf("round %d, %d of %d lines: %v", round, len(subset), n, err)
		}
		checkTampering(t, rng, proof, root, count, disclosed)
	}
}

// checkTampering changes one thing of a good proof at a time.
func checkTampering(t *testing.T, rng *rand.Rand, p *LineProof, root vault.Hash, count int64, disclosed map[int64][]byte) {
	t.Helper()
	refused := func(what string, p LineProof, root vault.Hash, count int64, disclosed map[int64][]byte) {
		t.Helper()
		if err := p.Verify(root, count, disclosed); !errors.Is(err, ErrProof) {
			t.Fatalf("%s: %v, want ErrProof", what, err)
		}
	}
	pick := p.Lines[rng.IntN(len(p.Lines))].Line
	with := func(line []byte) map[int64][]byte {
		m := map[int64][]byte{}
		for i, l := range disclosed {
			m[i] = l
		}
		if m[pick] = line; line == nil {
			delete(m, pick)
		}
		return m
	}
	line := bytes.Clone(disclosed[pick])
	line[rng.IntN(len(line))] ^= 1
	refused("changed line", *p, root, count, with(line))
	refused("missing line", *p, root, count, with(nil))
	refused("longer line", *p, root, count, with(append([]byte{'x'}, disclosed[pick]...)))
	refused("empty line", *p, root, count, with([]byte{}))
	root[rng.IntN(32)] ^= 1
	refused("other root", *p, root, count, disclosed)
	root, _ = rootOf(p, count, disclosed)
	refused("no lines in all", *p, root, 0, disclosed)
	refused("fewer lines in all", *p, root, p.Lines[len(p.Lines)-1].Line, disclosed)
	salts := *p
	salts.Lines = append([]LineSalt(nil), p.Lines...)
	i := rng.IntN(len(salts.Lines))
	salts.Lines[i].Salt = bytes.Clone(salts.Lines[i].Salt)
	salts.Lines[i].Salt[rng.IntN(16)] ^= 1
	refused("changed salt", salts, root, count, disclosed)
	salts.Lines[i].Salt = salts.Lines[i].Salt[:15]
	refused("short salt", salts, root, count, disclosed)
	for name, list := range map[string]func(*LineProof) *[]vault.Hash{
		"leaves": func(p *LineProof) *[]vault.Hash { return &p.Leaves },
		"nodes":  func(p *LineProof) *[]vault.Hash { return &p.Nodes },
	} {
		changed := *p
		hashes := list(&changed)
		good := *hashes
		*hashes = append(append([]vault.Hash(nil), good...), vault.Hash{})
		refused("one more of "+name, changed, root, count, disclosed)
		if len(good) == 0 {
			continue
		}
		*hashes = append([]vault.Hash(nil), good...)
		(*hashes)[rng.IntN(len(good))][rng.IntN(32)] ^= 1
		refused("changed "+name, changed, root, count, disclosed)
		*hashes = good[1:]
		refused("one less of "+name, changed, root, count, disclosed)
	}
	if len(p.Lines) > 1 {
		swapped := *p
		swapped.Lines = append([]LineSalt(nil), p.Lines...)
		swapped.Lines[0], swapped.Lines[1] = swapped.Lines[1], swapped.Lines[0]
		refused("other order", swapped, root, count, disclosed)
	}
}

// rootOf recomputes the root that a good proof leads to.
func rootOf(p *LineProof, count int64, disclosed map[int64][]byte) (vault.Hash, bool) {
	v := &proofWalk{count: count, disclosed: disclosed, salts: p.Lines, leaves: p.Leaves, nodes: p.Nodes}
	v.hasher.hash = newLeafHash()
	for _, l := range p.Lines {
		v.lines = append(v.lines, l.Line)
	}
	return v.subtree(0, (count+blockLines-1)/blockLines), !v.short
}

// A line with an LF inside is two lines: it cannot be passed off as one.
func TestProofRefusesTwoLinesAsOne(t *testing.T) {
	secret := [32]byte{5}
	h, err := newLeafHasher(&secret)
	if err != nil {
		t.Fatal(err)
	}
	two := []byte("a\nb\n")
	leaf := h.leaf(0, two)
	var b blockBuffer
	b.add(&leaf)
	p := LineProof{Lines: []LineSalt{{0, bytes.Clone(h.buf[1:17])}}}
	if err := p.Verify(b.sum(), 1, map[int64][]byte{0: two}); !errors.Is(err, ErrProof) {
		t.Errorf("%v, want ErrProof", err)
	}
}

func TestProveLinesRefuses(t *testing.T) {
	for name, lines := range map[string][]int64{
		"none": nil, "negative": {-1}, "twice": {1, 1}, "descending": {2, 1}, "behind the end": {1, 3},
	} {
		if _, err := ProveLines([32]byte{}, strings.NewReader("a\nb\nc\n"), lines); err == nil {
			t.Errorf("%s: proved", name)
		}
	}
}

func FuzzVerifyProof(f *testing.F) {
	raw := bytes.Repeat([]byte("line\n"), 100)
	secret := [32]byte{1}
	root, count, err := LineRoot(secret, bytes.NewReader(raw))
	if err != nil {
		f.Fatal(err)
	}
	good, err := ProveLines(secret, bytes.NewReader(raw), []int64{3, 50})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(int64(3), int64(50), good.Lines[0].Salt, good.Lines[1].Salt, []byte("line\n"), count, 0)
	f.Fuzz(func(t *testing.T, a, b int64, saltA, saltB, line []byte, n int64, drop int) {
		p := LineProof{Lines: []LineSalt{{a, saltA}, {b, saltB}}, Leaves: good.Leaves, Nodes: good.Nodes}
		if drop > 0 && drop < len(p.Leaves) {
			p.Leaves = p.Leaves[drop:]
		}
		same := a == 3 && b == 50 && bytes.Equal(saltA, good.Lines[0].Salt) && bytes.Equal(saltB, good.Lines[1].Salt) &&
			string(line) == "line\n" && n == count && len(p.Leaves) == len(good.Leaves)
		if err := p.Verify(root, n, map[int64][]byte{a: line, b: line}); err == nil && !same && n == count {
			t.Errorf("a forged proof of lines %d and %d of %d holds", a, b, n)
		}
	})
}
