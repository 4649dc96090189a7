package watch

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"logvault/vault"
)

// record is what the spool's metadata table keeps of a text:
//
//	key    "watch/" source "/" stream, hex "/" generation, decimal
//	value  version 1, done 0 or 1, length of the head (4 bytes), device (8),
//	       inode (8), base (8), end (8), SHA-256 of the head, the path
//
// Numbers are big-endian. base is the file's offset at which the generation
// begins, end the one at which it ended if done, the path where the file was seen
// last. A head of length 0 has the hash of no bytes: nothing was announced yet.
type record struct {
	stream vault.StreamID
	gen    int64
	id     Identity
	base   int64
	end    int64
	done   bool
	head   int // bytes of the file's beginning that sum covers
	sum    vault.Hash
	path   string
}

const (
	recordVersion = 1
	recordSize    = 1 + 1 + 4 + 4*8 + 32 // without the path
	maxPath       = 32 << 10
)

func keyPrefix(source vault.Source) string { return "watch/" + string(source) + "/" }

func (r *record) key(source vault.Source) string {
	return keyPrefix(source) + r.stream.String() + "/" + strconv.FormatInt(r.gen, 10)
}

func (r *record) encode() []byte {
	b := []byte{recordVersion, 0}
	if r.done {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint32(b, uint32(r.head))
	for _, n := range []uint64{r.id.Device, r.id.Inode, uint64(r.base), uint64(r.end)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, r.sum[:]...)
	return append(b, r.path...)
}

// decodeRecord reads a record whose key begins with prefix.
func decodeRecord(prefix string, kv vault.KV) (r record, err error) {
	fail := func(format string, args ...any) (record, error) {
		return record{}, fmt.Errorf("record %q of a watched file: %w", kv.Key, fmt.Errorf(format, args...))
	}
	stream, gen, _ := strings.Cut(strings.TrimPrefix(kv.Key, prefix), "/")
	if r.stream, err = vault.ParseStreamID(stream); err != nil {
		return fail("%w", err)
	}
	if r.gen, err = strconv.ParseInt(gen, 10, 64); err != nil || r.gen < 0 || strconv.FormatInt(r.gen, 10) != gen {
		return fail("generation %q: expected a number", gen)
	}
	b := kv.Value
	switch {
	case len(b) > 0 && b[0] > recordVersion:
		return fail("version %d: %w", b[0], vault.ErrNewer)
	case len(b) < recordSize || len(b) > recordSize+maxPath || b[0] != recordVersion || b[1] > 1:
		return fail("%d bytes, expected at least %d of version %d", len(b), recordSize, recordVersion)
	}
	head := binary.BigEndian.Uint32(b[2:])
	var n [4]uint64
	for i := range n {
		n[i] = binary.BigEndian.Uint64(b[6+8*i:])
	}
	if head > maxHead || n[2]>>62 != 0 || n[3]>>62 != 0 {
		return fail("head of %d bytes, from %d to %d: expected at most %d bytes and offsets below 2^62", head, n[2], n[3], maxHead)
	}
	r.done, r.head, r.id = b[1] == 1, int(head), Identity{n[0], n[1]}
	r.base, r.end = int64(n[2]), int64(n[3])
	r.sum = vault.Hash(b[38:recordSize])
	r.path = string(b[recordSize:])
	return r, nil
}
