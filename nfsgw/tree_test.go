package nfsgw

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

// metaSink is a black hole that keeps metadata.
type metaSink struct {
	blackHole
	meta map[string][]byte
}

func (m *metaSink) Record(_ context.Context, c vault.Changes) error {
	for _, kv := range c.Set {
		if kv.Value == nil {
			delete(m.meta, kv.Key)
		} else {
			m.meta[kv.Key] = kv.Value
		}
	}
	return nil
}

func (m *metaSink) Meta(prefix string, fn func(vault.KV) error) error {
	for k, v := range m.meta {
		if strings.HasPrefix(k, prefix) {
			if err := fn(vault.KV{Key: k, Value: v}); err != nil {
				return err
			}
		}
	}
	return nil
}

func newServer(t *testing.T, sink Sink, now func() time.Time) (*Server, error) {
	return New(Config{
		Sink: sink, Random: rand.Reader, Now: now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sources: []Source{{Name: "p", Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
	})
}

// TestLoadRefuses: names that do not hang together stop the start, with the
// record that is wrong; nothing is guessed.
func TestLoadRefuses(t *testing.T) {
	const root, dir, file = 1 << 40, 2 << 40, 3 << 40
	good := func() map[uint64]meta {
		return map[uint64]meta{
			root: {kind: typeDir, root: root, name: "p"},
			dir:  {kind: typeDir, root: root, parent: root, name: "d"},
			file: {kind: typeFile, root: root, parent: dir, name: "f"},
		}
	}
	for _, tc := range []struct {
		name string
		edit func(map[uint64]meta)
		want string
	}{
		{"nothing wrong", func(map[uint64]meta) {}, ""},
		{"no parent", func(m map[uint64]meta) { delete(m, dir) }, "no directory"},
		{"no root", func(m map[uint64]meta) { delete(m, root) }, "no root"},
		{"a file as parent", func(m map[uint64]meta) { m[4<<40] = meta{kind: typeFile, root: root, parent: file, name: "x"} }, "no directory"},
		{"one name twice", func(m map[uint64]meta) { m[4<<40] = meta{kind: typeFile, root: root, parent: dir, name: "f"} }, "one name"},
		{"a circle", func(m map[uint64]meta) {
			m[dir] = meta{kind: typeDir, root: root, parent: 4 << 40, name: "d"}
			m[4<<40] = meta{kind: typeDir, root: root, parent: dir, name: "x"}
		}, "below itself"},
		{"two roots", func(m map[uint64]meta) { m[4<<40] = meta{kind: typeDir, root: 4 << 40, name: "p"} }, "two roots"},
		{"a removed directory", func(m map[uint64]meta) {
			m[4<<40] = meta{kind: typeDir, removed: true, root: root, parent: root, name: "x"}
		}, "out of range"},
		{"a file as root", func(m map[uint64]meta) { m[4<<40] = meta{kind: typeFile, root: 4 << 40, name: "q"} }, "out of range"},
	} {
		sink := &metaSink{meta: make(map[string][]byte)}
		m := good()
		tc.edit(m)
		for id, rec := range m {
			sink.meta[metaKey(id)] = rec.encode()
		}
		_, err := newServer(t, sink, time.Now)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, expected %q", tc.name, err, tc.want)
		}
	}
	newer := []byte{metaVersion + 1, 1, 0, 0}
	if _, err := newServer(t, &metaSink{meta: map[string][]byte{metaKey(root): newer}}, time.Now); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("record of version %d: got %v, expected newer", metaVersion+1, err)
	}
}

// clockBench is a workbench with a sink that keeps names and a clock to set.
func clockBench(t *testing.T) (*workbench, *metaSink, *time.Time) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sink := &metaSink{meta: make(map[string][]byte)}
	s, err := newServer(t, sink, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	w := &workbench{s: s, c: &conn{server: s, peer: netip.MustParseAddr("10.1.1.1"), ctx: t.Context()}}
	tr, err := s.treeOf(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w.root = tr.root
	return w, sink, &now
}

// ask runs a procedure on the root with a name and returns the status.
func (w *workbench) ask(t *testing.T, proc uint32, args []byte) status {
	t.Helper()
	reply, ok := w.do(record(progNFS, proc, args))
	if !ok || len(reply) < 32 {
		t.Fatalf("procedure %d: reply %x", proc, reply)
	}
	return status(binary.BigEndian.Uint32(reply[28:]))
}

func nameArgs(dir *node, name string) []byte {
	e := encoder{}
	e.opaque(dir.handle[:])
	e.string(name)
	return e.b
}

// TestRemovedIdsAreForgottenInTime: after thirty days without a write, and not before.
func TestRemovedIdsAreForgottenInTime(t *testing.T) {
	w, sink, now := clockBench(t)
	makeAndRemove := func(name string) *node {
		t.Helper()
		if st := w.ask(t, procCreate, createArgsFor(w.root, name)); st != statusOK {
			t.Fatalf("create: status %d", st)
		}
		n := w.root.children[name]
		if st := w.ask(t, procRemove, nameArgs(w.root, name)); st != statusOK {
			t.Fatalf("remove: status %d", st)
		}
		return n
	}
	known := func(n *node) bool {
		_, stored := sink.meta[metaKey(n.id)]
		if w.s.gone(n) == stored {
			t.Errorf("node known %t, its record stored %t", !w.s.gone(n), stored)
		}
		return stored
	}
	a, b := makeAndRemove("a"), makeAndRemove("b")
	*now = now.Add(20 * 24 * time.Hour)
	e := encoder{}
	e.opaque(b.handle[:])
	if st := w.ask(t, procWrite, append(e.b, words(0, 0, 4, fileSync, 4, 0)...)); st != statusOK {
		t.Fatalf("late write: status %d", st)
	}
	makeAndRemove("c")
	if !known(a) || !known(b) {
		t.Error("forgotten after 20 days")
	}
	*now = now.Add(11 * 24 * time.Hour)
	makeAndRemove("d")
	if known(a) || !known(b) {
		t.Error("after 31 days a must be forgotten, and b, written 11 days ago, not")
	}
	*now = now.Add(20 * 24 * time.Hour)
	makeAndRemove("e")
	if known(b) {
		t.Error("b must be forgotten 31 days after the write")
	}
	if n := w.s.Stats().Removed; n != 2 { // d and e; c went with b
		t.Errorf("%d removed files kept, expected 2", n)
	}
	if _, err := newServer(t, sink, w.s.cfg.Now); err != nil {
		t.Errorf("the names do not load any more: %v", err)
	}
}

// TestRemovedDirectoryStaysAway: what comes late for a removed directory does
// not bring its record back.
func TestRemovedDirectoryStaysAway(t *testing.T) {
	w, sink, _ := clockBench(t)
	w.ask(t, procMkdir, append(nameArgs(w.root, "d"), words(0, 0, 0, 0, 0, 0)...))
	d := w.root.children["d"]
	if st := w.ask(t, procRmdir, nameArgs(w.root, "d")); st != statusOK {
		t.Fatalf("rmdir: status %d", st)
	}
	cl := &call{conn: w.c}
	if st := w.s.applyAttrs(cl, d, &setAttr{setMode: true}, nil, &wcc{node: d}); st != statusStale {
		t.Errorf("attributes of a removed directory: status %d, expected STALE", st)
	}
	for key := range sink.meta {
		if strings.HasPrefix(key, metaPrefix) && key != metaKey(w.root.id) {
			t.Errorf("record %s is left, expected the root's alone", key)
		}
	}
}

// TestDeepPaths: a path that the archive cannot hold is refused before it gets there.
func TestDeepPaths(t *testing.T) {
	w, _, _ := clockBench(t)
	dir, name := w.root, strings.Repeat("d", maxName)
	for range maxStreamName / (maxName + 1) {
		if st := w.ask(t, procMkdir, append(nameArgs(dir, name), words(0, 0, 0, 0, 0, 0)...)); st != statusOK {
			t.Fatalf("mkdir: status %d", st)
		}
		dir = dir.children[name]
	}
	if st := w.ask(t, procCreate, createArgsFor(dir, "f")); st != statusNameTooLong {
		t.Errorf("file at %d bytes of path: status %d", len(dir.path("f")), st)
	}
	w.ask(t, procCreate, createArgsFor(w.root, "f"))
	if st := w.ask(t, procRename, append(nameArgs(w.root, "f"), nameArgs(dir, "f")...)); st != statusNameTooLong {
		t.Errorf("rename to %d bytes of path: status %d", len(dir.path("f")), st)
	}
}

// TestReplyCacheForgets by age, by number of a peer, and by number in all.
// TestTimesIncreaseWhenTheClockGoesBack: a client sees each change of a file by
// its time, also of a clock that was set back.
func TestTimesIncreaseWhenTheClockGoesBack(t *testing.T) {
	w, sink, now := clockBench(t)
	f := w.create(t, "f")
	last := f.attrs()
	later := func(what string, n *node) {
		t.Helper()
		a := n.attrs()
		if a.ctime <= last.ctime || a.mtime <= last.mtime {
			t.Errorf("%s: times %d and %d, before it %d and %d", what, a.ctime, a.mtime, last.ctime, last.mtime)
		}
		last = a
	}
	*now = now.Add(-time.Hour)
	if st := w.write(t, f); st != statusOK {
		t.Fatalf("write: status %d", st)
	}
	later("WRITE", f)
	if err := w.s.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := newServer(t, sink, func() time.Time { return now.Add(-time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	w = &workbench{s: s, c: &conn{server: s, peer: w.c.peer, ctx: t.Context()}, root: s.trees["p"].root}
	f = w.root.children["f"]
	if st := w.write(t, f); st != statusOK {
		t.Fatalf("write: status %d", st)
	}
	later("WRITE after a restart", f)
	last = w.root.attrs()
	w.create(t, "g")
	later("CREATE in the directory", w.root)
}

// TestModes: what ACCESS grants to whom.
func TestModes(t *testing.T) {
	w := newWorkbench(t)
	member := credential{uid: 7, gid: 8, n: 1}
	member.gids[0] = 20
	for _, tc := range []struct {
		name string
		mode uint32
		kind uint32
		cred credential
		want uint32
	}{
		{"root, file", 0o000, typeFile, credential{}, accessRead | accessModify | accessExtend},
		{"root, script", 0o001, typeFile, credential{}, accessRead | accessModify | accessExtend | accessExecute},
		{"root, directory", 0o000, typeDir, credential{}, accessRead | accessModify | accessExtend | accessDelete | accessLookup},
		{"owner", 0o600, typeFile, credential{uid: 10}, accessRead | accessModify | accessExtend},
		{"owner without rights that others have", 0o077, typeFile, credential{uid: 10}, 0},
		{"group", 0o040, typeFile, credential{uid: 7, gid: 20}, accessRead},
		{"one of the groups", 0o020, typeFile, member, accessModify | accessExtend},
		{"other", 0o005, typeDir, credential{uid: 7, gid: 8}, accessRead | accessLookup},
	} {
		a := attr{kind: tc.kind, mode: tc.mode, uid: 10, gid: 20}
		if got := w.s.allowed(&call{cred: tc.cred}, w.root, &a); got != tc.want {
			t.Errorf("%s: %#x, expected %#x", tc.name, got, tc.want)
		}
	}
}

// TestRecordsArePinned: what is in the spools of today must be read for ever.
func TestRecordsArePinned(t *testing.T) {
	m := meta{
		kind: typeFile, removed: true, exclusive: true, root: 1 << 40, parent: 1<<40 + 1, mode: 0o640, uid: 13, gid: 14,
		size: 15, gen: 16, atime: 17, mtime: 18, ctime: 19, stream: vault.StreamID{0xaa}, verifier: [8]byte{0xbb}, written: 20, name: "a.log",
	}
	e := replyEntry{slot: 0x2a, at: time.Unix(0, 21), key: replyKey{peer: netip.MustParseAddr("192.0.2.7"), xid: 22, proc: procCreate, argsSum: 23, argLen: 24}}
	for name, got := range map[string]vault.KV{
		"nfs/node/0000000000000abc 02010300" + "0000010000000000" + "0000010000000001" + "000001a00000000d0000000e" +
			"000000000000000f0000000000000010" + "000000000000001100000000000000120000000000000013" +
			"aa000000000000000000000000000000" + "bb00000000000000" + "0000000000000014" + "612e6c6f67": {Key: metaKey(0xabc), Value: m.encode()},
		"nfs/reply/002a 01000000" + "0000001600000008" + "0000001700000018" + "00000000000000000000ffffc0000207" +
			"0000000000000abc" + "0000000000000015": e.record(0xabc),
	} {
		if s := fmt.Sprintf("%s %x", got.Key, got.Value); s != name {
			t.Errorf("\n got %s\nwant %s", s, name)
		}
	}
}
