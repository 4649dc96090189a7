package ledger

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"logvault/vault"
)

// LeafHash returns the RFC 6962 leaf hash of an entry: SHA-256(0x00 ‖ data).
func LeafHash(data []byte) vault.Hash { return vault.Hash(tlog.RecordHash(data)) }

// TreeRoot returns the RFC 6962 root of a tree with the given leaf hashes,
// whose nodes are SHA-256(0x01 ‖ left ‖ right). The empty tree has SHA-256("").
func TreeRoot(leaves []vault.Hash) vault.Hash {
	switch n := len(leaves); n {
	case 0:
		return vault.HashOf(nil)
	case 1:
		return leaves[0]
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1) // the largest power of two below n
		left, right := TreeRoot(leaves[:k]), TreeRoot(leaves[k:])
		return vault.Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right)))
	}
}

// CheckInclusion returns nil if proof shows that the tree of the given size and
// root has leaf at index i.
func CheckInclusion(root vault.Hash, size, i int64, leaf vault.Hash, proof []vault.Hash) error {
	if err := tlog.CheckRecord(tlog.RecordProof(toTlog(proof)), size, tlog.Hash(root), i, tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("inclusion of entry %d in the tree of size %d: %w", i, size, err)
	}
	return nil
}

// CheckConsistency returns nil if proof shows that the tree of oldSize is a
// prefix of the tree of size. The empty tree is a prefix of every tree.
func CheckConsistency(oldSize int64, oldRoot vault.Hash, size int64, root vault.Hash, proof []vault.Hash) error {
	err := errors.New("invalid inputs")
	switch {
	case oldSize < 0 || size < oldSize:
	case oldSize == 0 && (len(proof) > 0 || oldRoot != TreeRoot(nil) || size == 0 && root != oldRoot):
		err = errors.New("not the empty tree's root or proof")
	case oldSize == 0:
		return nil
	default:
		err = tlog.CheckTree(tlog.TreeProof(toTlog(proof)), size, tlog.Hash(root), oldSize, tlog.Hash(oldRoot))
	}
	if err != nil {
		return fmt.Errorf("consistency of sizes %d and %d: %w", oldSize, size, err)
	}
	return nil
}

func toTlog(hs []vault.Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(hs))
	for i, h := range hs {
		out[i] = tlog.Hash(h)
	}
	return out
}

func fromTlog(hs []tlog.Hash) []vault.Hash {
	out := make([]vault.Hash, len(hs))
	for i, h := range hs {
		out[i] = vault.Hash(h)
	}
	return out
}
