package nfsgw

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"logvault/vault"
)

// blackHole is a Sink that takes everything and keeps nothing.
type blackHole struct{}

func (blackHole) Record(context.Context, vault.Changes) error  { return nil }
func (blackHole) Commit(context.Context, vault.StreamID) error { return nil }
func (blackHole) Size(vault.StreamID, int64) int64             { return 0 }
func (blackHole) Meta(string, func(vault.KV) error) error      { return nil }
func (blackHole) Space() (int64, int64)                        { return 1, 1 }
func (blackHole) Write(_ context.Context, _ vault.StreamID, _, off int64, data []byte, _ netip.Addr, _ bool) error {
	if off < 0 || off+int64(len(data)) < 0 {
		return errors.New("offset out of range")
	}
	return nil
}
func (blackHole) ReadAt(_ context.Context, _ vault.StreamID, _ int64, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("offset out of range")
	}
	return len(p), nil
}

// bench is a server without a network: calls are given as records.
type workbench struct {
	s          *Server
	c          *conn
	root, file *node
}

func newWorkbench(t testing.TB) *workbench {
	s, err := New(Config{
		Sink: blackHole{}, Random: rand.Reader, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sources: []Source{{Name: "p", Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, AllowRead: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &workbench{s: s, c: &conn{server: s, peer: netip.MustParseAddr("10.1.1.1"), ctx: t.Context()}}
	tr, err := s.treeOf(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w.root = tr.root
	if reply, ok := w.do(record(progNFS, procCreate, createArgsFor(w.root, "seed"))); !ok || binary.BigEndian.Uint32(reply[28:]) != 0 {
		t.Fatalf("create: %x", reply)
	}
	w.file = w.root.children["seed"]
	return w
}

// do runs a record as the reader of a connection would, and returns the reply
// and whether there is one.
func (w *workbench) do(rec []byte) ([]byte, bool) {
	cl := &call{conn: w.c, args: decoder{b: rec}}
	if p, ok := cl.parse(); ok {
		w.s.perform(cl, p)
	}
	if cl.dead {
		return nil, false
	}
	return bytes.Clone(cl.seal()), true
}

// record makes a call record with an AUTH_SYS credential of root.
func record(program, proc uint32, args []byte) []byte {
	e := encoder{}
	for _, v := range []uint32{77, rpcCall, rpcVersion, program, version3, proc, authSys, 20, 0, 0, 0, 0, 0, authNone, 0} {
		e.u32(v)
	}
	return append(e.b, args...)
}

func createArgsFor(dir *node, name string) []byte {
	e := encoder{}
	e.opaque(dir.handle[:])
	e.string(name)
	for range 7 { // UNCHECKED, nothing set
		e.u32(0)
	}
	return e.b
}

// FuzzRPCHeader: any record is answered with one well-formed reply, or, if it
// is no call, with none.
func FuzzRPCHeader(f *testing.F) {
	f.Add(record(progNFS, procNull, nil))
	f.Add(record(progMount, mountMnt, []byte{0, 0, 0, 1, '/', 0, 0, 0}))
	f.Add(record(100227, 0, nil)) // NFS_ACL
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3})
	f.Add([]byte{1})
	w := newWorkbench(f)
	f.Fuzz(func(t *testing.T, rec []byte) {
		reply, ok := w.do(rec)
		isCall := len(rec) >= 12 && binary.BigEndian.Uint32(rec[4:]) == rpcCall
		if ok != isCall {
			t.Fatalf("answered %t, a call %t", ok, isCall)
		}
		if ok {
			checkReply(t, rec, reply)
		}
	})
}

func checkReply(t *testing.T, rec, reply []byte) {
	t.Helper()
	switch {
	case len(reply) < 4+12 || len(reply)%4 != 0:
		t.Fatalf("reply of %d bytes", len(reply))
	case binary.BigEndian.Uint32(reply) != uint32(len(reply)-4)|lastFragment:
		t.Fatalf("record mark %x for %d bytes", reply[:4], len(reply)-4)
	case !bytes.Equal(reply[4:8], rec[:4]):
		t.Fatalf("xid %x, expected %x", reply[4:8], rec[:4])
	case len(reply) > 4+maxRecord:
		t.Fatalf("reply of %d bytes", len(reply))
	}
}

// fuzzProcedure fuzzes one procedure's arguments behind a valid header. The
// first byte of the input says whether a valid handle, of the root or of a
// file, is put before the rest.
func fuzzProcedure(f *testing.F, program, proc uint32, seeds ...[]byte) {
	w := newWorkbench(f)
	for _, s := range seeds {
		f.Add(byte(0), s)
		f.Add(byte(1), s)
		f.Add(byte(2), s)
	}
	f.Add(byte(0), []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, how byte, args []byte) {
		e := encoder{}
		switch how % 3 {
		case 1:
			e.opaque(w.root.handle[:])
		case 2:
			e.opaque(w.file.handle[:])
		}
		rec := record(program, proc, append(e.b, args...))
		reply, ok := w.do(rec)
		if !ok {
			t.Fatal("no reply")
		}
		checkReply(t, rec, reply)
		// A good handle is never STALE. LINK has another one in its arguments.
		if how%3 != 0 && proc != procLink && program == progNFS && len(reply) >= 32 && status(binary.BigEndian.Uint32(reply[28:])) == statusStale {
			t.Fatalf("STALE for a good handle: %x", reply)
		}
		w.checkMemory(t)
	})
}

// checkMemory: what calls leave behind is bounded.
func (w *workbench) checkMemory(t *testing.T) {
	t.Helper()
	w.s.mu.RLock()
	nodes, mounts := len(w.s.nodes), len(w.s.mounts[w.c.peer])
	w.s.mu.RUnlock()
	if answers := len(w.s.replies.order); nodes > maxFiles+maxRemoved+dropPerRemove+1 || answers > peerReplies || mounts > maxMounts {
		t.Fatalf("%d nodes, %d answers, %d mounts are kept", nodes, answers, mounts)
	}
}

func words(v ...uint32) []byte {
	e := encoder{}
	for _, x := range v {
		e.u32(x)
	}
	return e.b
}

const nameA = 'a' << 24 // the name "a" after its length 1

func FuzzGetattr(f *testing.F) { fuzzProcedure(f, progNFS, procGetattr) }
func FuzzSetattr(f *testing.F) {
	fuzzProcedure(f, progNFS, procSetattr, words(0, 0, 0, 1, 0, 0, 1, 1, 0), words(1, 0o644, 1, 2, 1, 3, 0, 2, 1, 2, 2, 3, 4, 1, 5, 6))
}
func FuzzLookup(f *testing.F)   { fuzzProcedure(f, progNFS, procLookup, words(1, nameA)) }
func FuzzAccess(f *testing.F)   { fuzzProcedure(f, progNFS, procAccess, words(0x3f)) }
func FuzzReadlink(f *testing.F) { fuzzProcedure(f, progNFS, procReadlink) }
func FuzzRead(f *testing.F) {
	fuzzProcedure(f, progNFS, procRead, words(0, 5, 1<<20), words(1<<31, 0, 1))
}
func FuzzWrite(f *testing.F) {
	fuzzProcedure(f, progNFS, procWrite, words(0, 3, 4, 2, 4, 0x61626364), words(1<<31-1, 1<<32-1, 1, 0, 1, nameA))
}
func FuzzCreate(f *testing.F) {
	fuzzProcedure(f, progNFS, procCreate, words(1, nameA, 0, 0, 0, 0, 1, 0, 0, 0, 0), words(1, nameA, 2, 3, 4))
}
func FuzzMkdir(f *testing.F) { fuzzProcedure(f, progNFS, procMkdir, words(1, nameA, 0, 0, 0, 0, 0, 0)) }
func FuzzSymlink(f *testing.F) {
	fuzzProcedure(f, progNFS, procSymlink, words(1, nameA, 0, 0, 0, 0, 0, 0, 1, nameA))
}
func FuzzMknod(f *testing.F)   { fuzzProcedure(f, progNFS, procMknod, words(1, nameA, 7)) }
func FuzzRemove(f *testing.F)  { fuzzProcedure(f, progNFS, procRemove, words(1, nameA)) }
func FuzzRmdir(f *testing.F)   { fuzzProcedure(f, progNFS, procRmdir, words(1, nameA)) }
func FuzzLink(f *testing.F)    { fuzzProcedure(f, progNFS, procLink, words(0, 1, nameA)) }
func FuzzReaddir(f *testing.F) { fuzzProcedure(f, progNFS, procReaddir, words(0, 0, 0, 0, 4096)) }
func FuzzReaddirplus(f *testing.F) {
	fuzzProcedure(f, progNFS, procReaddirplus, words(0, 1, 0, 0, 512, 4096))
}
func FuzzFsstat(f *testing.F)   { fuzzProcedure(f, progNFS, procFsstat) }
func FuzzFsinfo(f *testing.F)   { fuzzProcedure(f, progNFS, procFsinfo) }
func FuzzPathconf(f *testing.F) { fuzzProcedure(f, progNFS, procPathconf) }
func FuzzCommit(f *testing.F)   { fuzzProcedure(f, progNFS, procCommit, words(0, 0, 0)) }
func FuzzMnt(f *testing.F) {
	fuzzProcedure(f, progMount, mountMnt, words(1, '/'<<24), words(4, 0x2f702f2e))
}
func FuzzUmnt(f *testing.F) { fuzzProcedure(f, progMount, mountUmnt, words(1, '/'<<24)) }

// FuzzRename has a second directory in the middle of its arguments.
func FuzzRename(f *testing.F) {
	w := newWorkbench(f)
	f.Add([]byte("seed"), []byte("b"), true)
	f.Add([]byte(".."), []byte(""), false)
	f.Fuzz(func(t *testing.T, from, to []byte, same bool) {
		e := encoder{}
		e.opaque(w.root.handle[:])
		e.opaque(from)
		if same {
			e.opaque(w.root.handle[:])
		} else {
			e.opaque(w.file.handle[:])
		}
		e.opaque(to)
		rec := record(progNFS, procRename, e.b)
		reply, ok := w.do(rec)
		if !ok {
			t.Fatal("no reply")
		}
		checkReply(t, rec, reply)
		if len(reply) >= 32 && status(binary.BigEndian.Uint32(reply[28:])) == statusStale {
			t.Fatalf("STALE for good handles: %x", reply)
		}
		w.checkMemory(t)
	})
}

// FuzzReply: what decodeReply accepts, record gives back.
func FuzzReply(f *testing.F) {
	e := replyEntry{slot: 5, at: time.Unix(7, 8), key: replyKey{peer: netip.MustParseAddr("10.1.1.1"), xid: 1, proc: 2, argsSum: 3, argLen: 4}}
	kv := e.record(1 << 40)
	f.Add(kv.Key, kv.Value)
	f.Add(replySlot(replySlots), kv.Value)
	f.Add(kv.Key, []byte{2})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		e, err := decodeReply(vault.KV{Key: key, Value: value})
		if err != nil {
			return
		}
		peer16 := e.key.peer.As16()
		if again := e.record(e.answer.made); again.Key != key || !bytes.Equal(again.Value, value) || !bytes.Equal(peer16[:], value[20:36]) {
			t.Fatalf("record %s %x decodes to another one", key, value)
		}
	})
}

// FuzzMeta: what decodeMeta accepts, encode gives back, in the present version.
func FuzzMeta(f *testing.F) {
	m := meta{kind: typeFile, root: 1 << 40, parent: 1 << 40, mode: 0o644, size: 5, gen: 2, ctime: 7, name: "access.log", exclusive: true}
	f.Add(metaKey(1<<41), m.encode())
	d := meta{kind: typeDir, root: 1 << 40, name: "proxy"}
	f.Add(metaKey(1<<40), d.encode())
	f.Add(metaPrefix+"0", []byte{9})
	old := m.encode()
	old[0] = 1
	f.Add(metaKey(1<<41), slices.Delete(old, metaFixed1, metaFixed))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		id, m, err := decodeMeta(vault.KV{Key: key, Value: value})
		if err != nil {
			return
		}
		again := m.encode()
		if value[0] == 1 {
			again[0] = 1
			again = slices.Delete(again, metaFixed1, metaFixed)
		}
		if metaKey(id) != key || !bytes.Equal(again, value) {
			t.Fatalf("record %s %x decodes to another one", key, value)
		}
	})
}

// TestGoldenMeta reads the names of the golden state, which are of version 1,
// and writes them in the present one.
func TestGoldenMeta(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		want       meta
	}{
		{"665e9e38b3dd8c14", "01020000665e9e38b3dd8c140000000000000000000001ed00000000000000000000000000000000000000000000000018ea0010ba618bb018ea0010bdb5ba0718ea0010bdb5ba07" +
			"00000000000000000000000000000000000000000000000073717569642d31",
			meta{kind: typeDir, root: 0x665e9e38b3dd8c14, mode: 0o755, name: "squid-1", atime: 0x18ea0010ba618bb0, mtime: 0x18ea0010bdb5ba07, ctime: 0x18ea0010bdb5ba07}},
		{"415f73048949fc93", "01010000665e9e38b3dd8c14665e9e38b3dd8c14000001a400000000000000000000000000000000000000000000000218ea0010bdb5ba0718ea0010bfbfc4f318ea0010bfbfc4f3" +
			"e89da7088e5c2701bc033a26d17e0769000000000000000063616368652e6c6f67",
			meta{kind: typeFile, root: 0x665e9e38b3dd8c14, parent: 0x665e9e38b3dd8c14, mode: 0o644, gen: 2, name: "cache.log", atime: 0x18ea0010bdb5ba07,
				mtime: 0x18ea0010bfbfc4f3, ctime: 0x18ea0010bfbfc4f3, written: 0x18ea0010bfbfc4f3,
				stream: vault.StreamID{0xe8, 0x9d, 0xa7, 0x08, 0x8e, 0x5c, 0x27, 0x01, 0xbc, 0x03, 0x3a, 0x26, 0xd1, 0x7e, 0x07, 0x69}}},
	} {
		value, err := hex.DecodeString(tt.value)
		if err != nil {
			t.Fatal(err)
		}
		_, m, err := decodeMeta(vault.KV{Key: metaPrefix + tt.key, Value: value})
		if err != nil || m != tt.want {
			t.Errorf("%s reads as %+v, %v", tt.key, m, err)
		}
		present := slices.Insert(value, metaFixed1, binary.BigEndian.AppendUint64(nil, uint64(m.written))...)
		if present[0] = 2; !bytes.Equal(m.encode(), present) {
			t.Errorf("%s, written anew, is %x, expected %x", tt.key, m.encode(), present)
		}
		if _, again, err := decodeMeta(vault.KV{Key: metaPrefix + tt.key, Value: present}); err != nil || again != m {
			t.Errorf("%s, written anew, reads as %+v, %v", tt.key, again, err)
		}
	}
}

// TestArgumentsCutShort: every procedure refuses its arguments cut at any
// place, and nothing is done.
func TestArgumentsCutShort(t *testing.T) {
	w := newWorkbench(t)
	sattr := words(0, 0, 0, 0, 0, 0)
	h := func(rest ...[]byte) []byte {
		e := encoder{}
		e.opaque(w.root.handle[:])
		return bytes.Join(append([][]byte{e.b}, rest...), nil)
	}
	for proc, args := range map[uint32][]byte{
		procGetattr: h(), procSetattr: h(sattr, words(0)), procLookup: h(words(1, nameA)), procAccess: h(words(1)),
		procReadlink: h(), procRead: h(words(0, 0, 1)), procWrite: h(words(0, 0, 4, 0, 4, 5)),
		procCreate: h(words(1, nameA, 0), sattr), procMkdir: h(words(1, nameA), sattr), procRemove: h(words(1, nameA)),
		procRmdir: h(words(1, nameA)), procRename: h(words(1, nameA), h(words(1, nameA))), procLink: h(h(words(1, nameA))),
		procReaddir: h(words(0, 0, 0, 0, 1000)), procReaddirplus: h(words(0, 0, 0, 0, 1000, 1000)),
		procFsstat: h(), procFsinfo: h(), procPathconf: h(), procCommit: h(words(0, 0, 0)),
		procSymlink: h(words(1, nameA), sattr, words(1, nameA)),
	} {
		for cut := range args {
			reply, ok := w.do(record(progNFS, proc, args[:cut]))
			if !ok || binary.BigEndian.Uint32(reply[24:]) != acceptGarbageArgs || len(reply) != 28 {
				t.Errorf("procedure %d, arguments cut at %d: reply %x", proc, cut, reply)
			}
		}
	}
	if w.root.children["a"] != nil {
		t.Error("a call that was refused made a file")
	}
}
