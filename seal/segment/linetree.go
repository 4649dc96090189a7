package segment

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/bits"

	"logvault/vault"
)

// blockLines is the number of lines under one block hash.
const blockLines = 16

// Domain separation of the three kinds of hashes.
const (
	leafPrefix  = 0x00
	nodePrefix  = 0x01
	blockPrefix = 0x02
)

const saltSize = 16

// leafHasher computes salts and leaves under one secret. Not for concurrent use.
type leafHasher struct {
	block cipher.Block
	hash  leafHash
	buf   [8 << 10]byte // prefix, salt, line and padding: one call to the hash for a usual line
	state [128]byte     // of the hash

	// Salts are the key stream of AES-CTR from counter 0, which the library
	// computes several at a time: those of the next lines in a row.
	stream cipher.Stream
	next   int64 // the line that stream goes on with
	salts  [blockLines * saltSize]byte
	unused int // bytes at the end of salts
}

func newLeafHasher(secret *[32]byte) (*leafHasher, error) {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, fmt.Errorf("line secret: %w", err)
	}
	return &leafHasher{block: block, hash: newLeafHash()}, nil
}

// leafHash is SHA-256 whose state can be read.
type leafHash interface {
	hash.Hash
	encoding.BinaryAppender
}

func newLeafHash() leafHash { return sha256.New().(leafHash) }

// salt returns salt_i, valid until the next call.
func (l *leafHasher) salt(i int64) []byte {
	if l.stream == nil || i != l.next {
		var counter [aes.BlockSize]byte
		binary.BigEndian.PutUint64(counter[8:], uint64(i))
		l.stream, l.unused = cipher.NewCTR(l.block, counter[:]), 0
	}
	if l.unused == 0 {
		clear(l.salts[:])
		l.stream.XORKeyStream(l.salts[:], l.salts[:])
		l.unused = len(l.salts)
	}
	start := len(l.salts) - l.unused
	l.unused -= saltSize
	l.next = i + 1
	return l.salts[start : start+saltSize]
}

// leaf returns leaf_i of a line with its LF.
func (l *leafHasher) leaf(i int64, line []byte) vault.Hash {
	copy(l.buf[1:], l.salt(i))
	return l.salted(line)
}

// salted returns the leaf of a line whose salt is in buf.
func (l *leafHasher) salted(line []byte) vault.Hash {
	l.buf[0] = leafPrefix
	const head = 1 + saltSize
	const padding = 1 + sha256.BlockSize + 8 // at most
	l.hash.Reset()
	if len(line) <= len(l.buf)-head-padding {
		return l.short(head + copy(l.buf[head:], line))
	}
	l.hash.Write(l.buf[:head])
	l.hash.Write(line)
	var h vault.Hash
	l.hash.Sum(h[:0])
	return h
}

// short returns the SHA-256 of buf[:n]. It pads the message itself (FIPS 180-4,
// 5.1.1), so that the digest is the state after it: in its marshalled form the
// 32 bytes behind a magic of four. Sum copies the whole state and pads that,
// which costs as much again as a quarter of a usual line (measured: 163 and
// 127 ns), and there are millions of them.
func (l *leafHasher) short(n int) (h vault.Hash) {
	end := (n + 1 + 8 + sha256.BlockSize - 1) &^ (sha256.BlockSize - 1)
	clear(l.buf[n:end])
	l.buf[n] = 0x80
	binary.BigEndian.PutUint64(l.buf[end-8:], uint64(n)*8)
	l.hash.Write(l.buf[:end])
	state, err := l.hash.AppendBinary(l.state[:0])
	if err != nil {
		panic("segment: SHA-256 without a state: " + err.Error())
	}
	copy(h[:], state[4:])
	return h
}

// blockBuffer collects the leaves of one block behind their prefix.
type blockBuffer struct {
	buf  [1 + blockLines*sha256.Size]byte
	used int // leaves
}

func (b *blockBuffer) add(leaf *vault.Hash) {
	copy(b.buf[1+b.used*sha256.Size:], leaf[:])
	b.used++
}

// sum returns the block's hash and empties the buffer.
func (b *blockBuffer) sum() vault.Hash {
	b.buf[0] = blockPrefix
	h := vault.Hash(sha256.Sum256(b.buf[:1+b.used*sha256.Size]))
	b.used = 0
	return h
}

func nodeHash(left, right *vault.Hash) vault.Hash {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = nodePrefix
	copy(buf[1:], left[:])
	copy(buf[1+sha256.Size:], right[:])
	return sha256.Sum256(buf[:])
}

// splitPoint is RFC 6962's k: the largest power of two smaller than n, for n ≥ 2.
func splitPoint(n int64) int64 { return 1 << (bits.Len64(uint64(n-1)) - 1) }

// treeRoot returns the RFC 6962 root over at least one block hash.
func treeRoot(blocks []vault.Hash) vault.Hash {
	if len(blocks) == 1 {
		return blocks[0]
	}
	k := splitPoint(int64(len(blocks)))
	left, right := treeRoot(blocks[:k]), treeRoot(blocks[k:])
	return nodeHash(&left, &right)
}

// LineRoot computes the line tree's root and the number of lines of raw, which
// must not be empty. It holds one line, at most MaxRaw bytes, and two bytes per
// line in memory.
func LineRoot(secret [32]byte, raw io.Reader) (root vault.Hash, lines int64, err error) {
	hasher, err := newLeafHasher(&secret)
	if err != nil {
		return vault.Hash{}, 0, err
	}
	var blocks []vault.Hash
	var block blockBuffer
	lines, err = eachLine(raw, func(i int64, line []byte) {
		leaf := hasher.leaf(i, line)
		if block.add(&leaf); block.used == blockLines {
			blocks = append(blocks, block.sum())
		}
	})
	if err != nil {
		return vault.Hash{}, 0, fmt.Errorf("line tree: %w", err)
	}
	if block.used > 0 {
		blocks = append(blocks, block.sum())
	}
	return treeRoot(blocks), lines, nil
}

// eachLine calls fn for each line of raw, LF included, and returns their number,
// which is at least 1.
func eachLine(raw io.Reader, fn func(i int64, line []byte)) (int64, error) {
	r := bufio.NewReaderSize(raw, 64<<10)
	var long []byte // a line that does not fit the reader's buffer
	var total, n int64
	for {
		part, err := r.ReadSlice('\n')
		if total += int64(len(part)); total > MaxRaw {
			return n, corrupt("text of more than %d bytes", MaxRaw)
		}
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			continue
		}
		if err != nil && err != io.EOF {
			return n, err
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if len(line) > 0 {
			fn(n, line)
			n++
		}
		long = long[:0]
		if err == io.EOF {
			if n == 0 {
				return 0, errors.New("no lines")
			}
			return n, nil
		}
	}
}
