package ingest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"logvault/vault"
)

// Layout of a spool file (docs/FORMAT-spool.md has a worked example). All
// integers are big-endian; each item starts on a 512-byte sector, so that a torn
// write of one never touches another.
//
//	header   magic "LVSPOOL\n", version u32, zero u32, file id [16], sequence u64,
//	         before u64, proven u64, check [8]                         64 bytes
//	group    magic "LVGR", length u32, number u64, proven u64          24 bytes
//	         AES-256-GCM of the records                                length bytes
//	         tag                                                       16 bytes
//	trailer  magic "LVFOOT1\n", position u64 of the first footer group 16 bytes
//
// header.proven is the number of the last group of file number header.before that
// was known to be on the disk; group.proven the same for this file. check is the
// start of the SHA-256 of what precedes it.
// The nonce of a group is its number, the additional data file id and group header.
const (
	fileMagic    = "LVSPOOL\n"
	keyMagic     = "LVSPKEY\n"
	groupMagic   = "LVGR"
	trailerMagic = "LVFOOT1\n"

	formatVersion = 1

	sector      = 512
	headerSize  = 64
	keySize     = 8 + 4 + 4 + 16 + 32 + 8
	groupHead   = 24
	tagSize     = 16
	trailerSize = 16

	// maxGroup bounds the records of a group: an extent of 1 MiB, the largest
	// NFS WRITE, with room for its head and the records written with it.
	maxGroup  = maxExtent + 64<<10
	maxExtent = 1 << 20

	// maxOffset bounds a stream: the ledger's numbers end at 2^53-1.
	maxOffset = 1<<53 - 1
)

// errDamaged says that bytes which should be there are not what was written.
var errDamaged = errors.New("damaged")

// fileID names a spool file in its groups' additional data.
type fileID [16]byte

// fileHeader is the decoded header of a spool file.
type fileHeader struct {
	id     fileID
	seq    uint64
	before uint64 // the file that was written before this one, 0: none
	proven uint64
}

func (h fileHeader) encode() []byte {
	b := append(make([]byte, 0, headerSize), fileMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = append(b, 0, 0, 0, 0)
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint64(b, h.seq)
	b = binary.BigEndian.AppendUint64(b, h.before)
	b = binary.BigEndian.AppendUint64(b, h.proven)
	return appendCheck(b)
}

// parseFileHeader decodes a header. A whole header of another version is
// vault.ErrNewer; anything else that is not a header is errDamaged.
func parseFileHeader(b []byte) (fileHeader, error) {
	var h fileHeader
	if err := parseVersioned(b, headerSize, fileMagic); err != nil {
		return h, fmt.Errorf("spool file header: %w", err)
	}
	copy(h.id[:], b[16:])
	h.seq = binary.BigEndian.Uint64(b[32:])
	h.before = binary.BigEndian.Uint64(b[40:])
	h.proven = binary.BigEndian.Uint64(b[48:])
	if !bytes.Equal(h.encode(), b[:headerSize]) {
		return h, fmt.Errorf("spool file header: reserved bytes set: %w", errDamaged)
	}
	return h, nil
}

// fileKey is the content of a key file.
type fileKey struct {
	id  fileID
	key [32]byte
}

func (k *fileKey) encode() []byte {
	b := append(make([]byte, 0, keySize), keyMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = append(b, 0, 0, 0, 0)
	b = append(b, k.id[:]...)
	b = append(b, k.key[:]...)
	return appendCheck(b)
}

// parseKey decodes a key file, with the errors of parseFileHeader.
func parseKey(b []byte) (fileKey, error) {
	var k fileKey
	if err := parseVersioned(b, keySize, keyMagic); err != nil {
		return k, fmt.Errorf("spool key: %w", err)
	}
	copy(k.id[:], b[16:])
	copy(k.key[:], b[32:])
	if len(b) != keySize || !bytes.Equal(k.encode(), b) {
		return k, fmt.Errorf("spool key: %d bytes, expected %d: %w", len(b), keySize, errDamaged)
	}
	return k, nil
}

func appendCheck(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:8]...)
}

// parseVersioned checks magic, check sum and version, in this order: a flipped
// bit in the version is damage, not a newer program.
func parseVersioned(b []byte, size int, magic string) error {
	if len(b) < size || string(b[:8]) != magic {
		return errDamaged
	}
	sum := sha256.Sum256(b[:size-8])
	if !bytes.Equal(sum[:8], b[size-8:size]) {
		return errDamaged
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return fmt.Errorf("version %d, expected %d: %w", v, formatVersion, vault.ErrNewer)
	}
	return nil
}

// groupHeader is the clear head of a group.
type groupHeader struct {
	length         uint32 // of the records, without the tag
	number, proven uint64
}

func (h groupHeader) put(b []byte) {
	copy(b, groupMagic)
	binary.BigEndian.PutUint32(b[4:], h.length)
	binary.BigEndian.PutUint64(b[8:], h.number)
	binary.BigEndian.PutUint64(b[16:], h.proven)
}

// parseGroupHeader decodes b, which holds at least groupHead bytes. False: not
// the head of a group. The tag decides whether a head can be believed.
func parseGroupHeader(b []byte) (groupHeader, bool) {
	h := groupHeader{
		length: binary.BigEndian.Uint32(b[4:]),
		number: binary.BigEndian.Uint64(b[8:]),
		proven: binary.BigEndian.Uint64(b[16:]),
	}
	ok := string(b[:4]) == groupMagic && h.length <= maxGroup && h.number > 0 && h.proven < h.number
	return h, ok
}

// diskSize is what a group of n record bytes takes in its file.
func diskSize(n int) int64 {
	return (int64(groupHead+n+tagSize) + sector - 1) &^ (sector - 1)
}

// groupCipher encrypts and decrypts the groups of one file.
type groupCipher struct {
	id   fileID
	aead cipher.AEAD
}

func newGroupCipher(k *fileKey) (*groupCipher, error) {
	block, err := aes.NewCipher(k.key[:])
	if err != nil {
		return nil, fmt.Errorf("spool key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("spool key: %w", err)
	}
	return &groupCipher{id: k.id, aead: aead}, nil
}

// seal encrypts in place: b is groupHead bytes of room, the records, and
// capacity for the tag. It returns the bytes of the group.
func (c *groupCipher) seal(b []byte, number, proven uint64) []byte {
	groupHeader{length: uint32(len(b) - groupHead), number: number, proven: proven}.put(b)
	nonce, aad := c.bind(b)
	return b[:groupHead+len(c.aead.Seal(b[groupHead:groupHead], nonce[:], b[groupHead:], aad[:]))]
}

// open decrypts in place a whole group: head, records and tag.
func (c *groupCipher) open(b []byte) ([]byte, error) {
	nonce, aad := c.bind(b)
	plain, err := c.aead.Open(b[groupHead:groupHead], nonce[:], b[groupHead:], aad[:])
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}

func (c *groupCipher) bind(b []byte) (nonce [12]byte, aad [16 + groupHead]byte) {
	copy(nonce[4:], b[8:16]) // the group number
	copy(aad[:], c.id[:])
	copy(aad[16:], b[:groupHead])
	return nonce, aad
}
