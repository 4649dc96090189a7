package nfsgw

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"logvault/vault"
)

// metaPrefix is the prefix of the gateway's keys in the Sink's metadata table.
// A node's key is metaPrefix followed by its file id as 16 hex digits.
const metaPrefix = "nfs/node/"

// metaVersion is the version of a node's record. Numbers are big-endian.
//
//	 0  version, 2
//	 1  kind: 1 file, 2 directory
//	 2  flags: 1 removed, 2 has an exclusive-create verifier
//	 3  zero
//	 4  file id of the tree's root (8)
//	12  file id of the parent directory (8); of a root: 0
//	20  mode (4), uid (4), gid (4)
//	32  size (8), generation (8)
//	48  access, modification, change time (8 each), ns since 1970
//	72  stream id (16); of a directory: zero
//	88  exclusive-create verifier (8)
//	96  when its last byte was received (8), ns since 1970; of a directory: 0
//	104 name: all the rest, 1 to 255 bytes; of a root: the source's name
//
// Version 1, which is read only, has its name at 96. The time of its last byte
// is not known, and not later than the time of its last change.
const metaVersion = 2

const (
	metaFixed       = 104
	metaFixed1      = 96 // in version 1
	metaRemoved     = 1
	metaExclusive   = 2
	metaKnownFlags  = metaRemoved | metaExclusive
	generationLimit = 1 << 53 // what a ledger entry can hold
)

// meta is the durable state of a node.
type meta struct {
	kind                uint32
	removed, exclusive  bool
	root, parent        uint64
	mode, uid, gid      uint32
	size, gen           int64
	atime, mtime, ctime int64
	written             int64
	stream              vault.StreamID
	verifier            [8]byte
	name                string
}

func metaKey(id uint64) string { return fmt.Sprintf("%s%016x", metaPrefix, id) }

func (m *meta) encode() []byte {
	b := make([]byte, 4, metaFixed+len(m.name))
	b[0], b[1] = metaVersion, byte(m.kind)
	if m.removed {
		b[2] |= metaRemoved
	}
	if m.exclusive {
		b[2] |= metaExclusive
	}
	be := binary.BigEndian
	b = be.AppendUint64(b, m.root)
	b = be.AppendUint64(b, m.parent)
	b = be.AppendUint32(b, m.mode)
	b = be.AppendUint32(b, m.uid)
	b = be.AppendUint32(b, m.gid)
	for _, v := range [...]int64{m.size, m.gen, m.atime, m.mtime, m.ctime} {
		b = be.AppendUint64(b, uint64(v))
	}
	b = append(b, m.stream[:]...)
	b = append(b, m.verifier[:]...)
	b = be.AppendUint64(b, uint64(m.written))
	return append(b, m.name...)
}

// decodeMeta parses a record strictly: what it accepts of the present version,
// encode gives back.
func decodeMeta(kv vault.KV) (id uint64, m meta, err error) {
	hex, ok := strings.CutPrefix(kv.Key, metaPrefix)
	if id, err = strconv.ParseUint(hex, 16, 64); err != nil || !ok || metaKey(id) != kv.Key {
		return 0, meta{}, fmt.Errorf("name record %q: expected %s and 16 hex digits", kv.Key, metaPrefix)
	}
	b := kv.Value
	fixed := metaFixed
	if len(b) > 0 && b[0] == 1 {
		fixed = metaFixed1
	} else if len(b) > 0 && b[0] != metaVersion {
		return 0, meta{}, fmt.Errorf("name record %s: version %d: %w", kv.Key, b[0], vault.ErrNewer)
	}
	if len(b) <= fixed || len(b) > fixed+maxName {
		return 0, meta{}, fmt.Errorf("name record %s: %d bytes, expected %d to %d", kv.Key, len(b), fixed+1, fixed+maxName)
	}
	be := binary.BigEndian
	m = meta{
		kind: uint32(b[1]), removed: b[2]&metaRemoved != 0, exclusive: b[2]&metaExclusive != 0,
		root: be.Uint64(b[4:]), parent: be.Uint64(b[12:]),
		mode: be.Uint32(b[20:]), uid: be.Uint32(b[24:]), gid: be.Uint32(b[28:]),
		name: string(b[fixed:]),
	}
	for i, p := range [...]*int64{&m.size, &m.gen, &m.atime, &m.mtime, &m.ctime} {
		*p = int64(be.Uint64(b[32+8*i:]))
	}
	copy(m.stream[:], b[72:])
	copy(m.verifier[:], b[88:])
	if fixed == metaFixed {
		m.written = int64(be.Uint64(b[96:]))
	} else if m.kind == typeFile {
		m.written = m.ctime
	}
	if m.kind != typeFile && m.kind != typeDir || b[2]&^metaKnownFlags != 0 || b[3] != 0 ||
		m.size < 0 || m.gen < 0 || m.gen >= generationLimit || (m.parent == 0) != (m.root == id) ||
		m.kind == typeDir && (m.removed || m.written != 0) || m.parent == 0 && m.kind != typeDir {
		return 0, meta{}, fmt.Errorf("name record %s: kind %d, flags %#x, size %d, generation %d: out of range", kv.Key, b[1], b[2], m.size, m.gen)
	}
	return id, m, nil
}

// touch records a change of attributes at time now, or just after the one
// before: a client must see each, also when the clock stands still or goes back.
func (m *meta) touch(now int64) { m.ctime = max(now, m.ctime+1) }

// modify records a change of content at time now.
func (m *meta) modify(now int64) {
	m.touch(now)
	m.mtime = m.ctime
}
