package ingest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

var update = flag.Bool("update", false, "write the golden spool anew")

// FuzzRecords parses the records of a group. Whatever parses encodes to the same
// bytes, and a spool file with such a group can be opened.
func FuzzRecords(f *testing.F) {
	for _, b := range sampleRecords() {
		f.Add(b)
	}
	f.Add(bytes.Join(sampleRecords(), nil))
	f.Add([]byte{1, 0, 0, 0, 200, 1})
	f.Fuzz(func(t *testing.T, plain []byte) {
		clock := newTickClock(time.Unix(1795248000, 0))
		err := eachRecord(plain, func(kind recordKind, body []byte) error {
			again := reencode(t, kind, body, clock)
			if again != nil && !bytes.Equal(again[recordHead:], body) {
				t.Errorf("kind %d: %x encodes to %x", kind, body, again[recordHead:])
			}
			return nil
		})
		if err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("unexpected error %v", err)
		}
		if len(plain) <= 16<<10 {
			openWithGroup(t, plain)
		}
	})
}

// reencode parses and encodes a record; nil if it does not parse or is one
// whose encoding depends on the clock.
func reencode(t *testing.T, kind recordKind, body []byte, clock tickClock) []byte {
	var out []byte
	var err error
	switch kind {
	case recExtent, recDigest:
		var h extentHead
		var payload []byte
		if h, payload, err = parseExtent(body); err == nil {
			out = h.append(nil, kind, payload)
		}
	case recStream:
		var r streamRecord
		if r, err = parseStream(body); err == nil {
			out = r.append(nil)
		}
	case recGen:
		var r genRecord
		if r, err = parseGen(body); err == nil {
			out = r.append(nil)
		}
	case recForget, recDone:
		var k genKey
		if k, err = parseGenKey(body); err == nil {
			out = appendForget(nil, kind, k)
		}
	case recSet, recUnset:
		var kv vault.KV
		if kv, err = parseKV(kind, body); err == nil {
			out = appendKV(nil, kv)
		}
	case recIntent:
		var in *vault.Intent
		if in, err = parseIntent(body); err == nil {
			out = appendIntent(nil, in)
		}
	case recRuns:
		_, err = parseRuns(body, clock)
	case recMetaAt:
		var at []uint32
		if at, err = parsePositions(body); err == nil {
			out = appendPositions(nil, at)
		}
	}
	if err != nil && !errors.Is(err, errDamaged) {
		t.Errorf("kind %d: unexpected error %v", kind, err)
	}
	return out
}

// openWithGroup opens a spool with one file that holds plain as its only group.
func openWithGroup(t *testing.T, plain []byte) {
	r := &rig{t: t, mem: vfs.NewMem(), wall: time.Unix(1795248000, 0).UTC()}
	r.cfg = SpoolConfig{FS: r.mem, Dir: "/spool", KeyDir: "/keys", Random: randomFrom(1), FileBytes: 128 << 10,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return r.wall }, Boot: func() time.Duration { return 0 }}
	r.must(r.cfg.create(ctx))
	file, _, err := r.cfg.createFile(fileHeader{seq: 1}, func(w *groupWriter) error {
		return w.add(func(b []byte) []byte { return append(b, plain...) })
	})
	r.must(err)
	r.must(file.f.Close())
	s, err := r.cfg.open(ctx)
	if err != nil {
		return // refused: fine
	}
	for _, st := range s.table.order {
		for _, g := range st.gens {
			s.Write(ctx, st.ID, g.genKey.gen, g.freed, []byte("probe\n"), client, false)
		}
	}
	if _, err := s.Due(ctx, vault.DueOptions{Now: r.wall, All: true}); err != nil && !errors.Is(err, errDamaged) {
		t.Errorf("due: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// sampleRecords returns one record of each kind.
func sampleRecords() [][]byte {
	at := time.Date(2026, 11, 21, 8, 0, 0, 123, time.UTC)
	clock := newTickClock(at)
	k := genKey{streamA, 2}
	h := extentHead{genKey: k, off: 77, wall: at, boot: time.Hour, stable: true, client: client, source: "proxy1"}
	anon := extentHead{genKey: k, off: 0, wall: at, source: "proxy1"}
	in := vault.Intent{Entry: []byte("{}"), Size: 9, Piece: vault.Piece{
		Kind: vault.PieceHole, Source: "proxy1", Stream: streamA, Gen: 2, Offset: 5, Span: 6, Name: []byte("n"),
		FirstReceived: at, LastReceived: at, Record: at, Cut: "long", Joined: true, Closed: true, Prev: -1,
		Conflict: &vault.ConflictOf{Stream: streamB, Gen: 1, Offset: 3}}}
	st := streamRecord{StreamInfo: vault.StreamInfo{ID: streamA, Source: "proxy1", Name: []byte("access.log")}, prev: -1, conflict: streamB}
	gen := genRecord{genKey: k, sealed: 5, freed: 4, high: 90, ended: at, joined: true, late: true, ofGen: 1, ofOff: 2, mac: [16]byte{1}}
	mark := func(kind recordKind) []byte {
		return appendRecord(nil, kind, func(b []byte) []byte { return b })
	}
	runs := runsRecord{genKey: k, kind: recExtent, source: "proxy1", runs: runs{makeRun(77, 11, 0, sector, clock.tick(at))}}
	return [][]byte{
		mark(recSnapBegin), (&table{secret: [32]byte{1}}).appendSecret(nil), st.append(nil), gen.append(nil), appendIntent(nil, &in),
		appendKV(nil, vault.KV{Key: "k", Value: []byte("v")}), mark(recSnapEnd),
		h.append(nil, recExtent, []byte("hello\nworld")), anon.append(nil, recExtent, []byte("hello")), h.append(nil, recDigest, []byte("01234567")),
		appendForget(nil, recForget, genKey{streamA, 0}), appendForget(nil, recDone, k), appendKV(nil, vault.KV{Key: "k"}),
		runs.append(nil, clock), appendPositions(nil, []uint32{512, 1024}),
	}
}

// FuzzFile scans arbitrary bytes as a spool file.
func FuzzFile(f *testing.F) {
	r, _ := smallSpool(f, true)
	for name, data := range r.files() {
		if path.Ext(name) == fileSuffix {
			f.Add(data)
		}
	}
	f.Add([]byte(fileMagic))
	k := fileKey{}
	f.Fuzz(func(t *testing.T, data []byte) {
		mem := vfs.NewMem()
		if err := vfs.WriteFile(mem, "/x", data, 0o600); err != nil {
			t.Fatal(err)
		}
		cipher, err := newGroupCipher(&k)
		if err != nil {
			t.Fatal(err)
		}
		file, err := mem.Open("/x")
		if err != nil {
			t.Fatal(err)
		}
		sf := &spoolFile{groupCipher: *cipher, f: file, size: int64(len(data)), names: fileNames{file: "/x"}}
		if _, err := sf.header(); err != nil && !errors.Is(err, vault.ErrNewer) {
			t.Errorf("header: %v", err)
		}
		if at := sf.footerAt(); at != 0 && (at < sector || at >= sf.size) {
			t.Errorf("footer at %d of %d", at, sf.size)
		}
		if _, err := sf.scan(func(int64, groupHeader, []byte) error { return errors.New("a group under a foreign key") }); err != nil {
			t.Error(err)
		}
		if h, err := parseFileHeader(data); err == nil && !bytes.Equal(h.encode(), data[:headerSize]) {
			t.Error("a header encodes to other bytes")
		}
		if k, err := parseKey(data); err == nil && !bytes.Equal(k.encode(), data) {
			t.Error("a key encodes to other bytes")
		}
	})
}

const goldenDir = "../fixtures/golden/v1/spool"

// goldenConfig is the world of the golden spool.
func goldenConfig(mem *vfs.Mem) SpoolConfig {
	return SpoolConfig{FS: mem, Dir: "/spool", KeyDir: "/keys", Random: randomFrom(2026), FileBytes: 4 << 20,
		Now:  func() time.Time { return time.Date(2026, 11, 21, 8, 1, 2, 3, time.UTC) },
		Boot: func() time.Duration { return 42 * time.Second }, Log: slog.New(slog.DiscardHandler)}
}

// writeGolden makes the golden spool: a conflict, an intent, an ended and an
// open generation, metadata.
func writeGolden(t *testing.T) {
	r := &rig{t: t, mem: vfs.NewMem(), wall: time.Date(2026, 11, 21, 8, 1, 2, 3, time.UTC)}
	r.cfg = goldenConfig(r.mem)
	r.must(r.cfg.create(ctx))
	r.open()
	r.add(streamA)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: "name/1", Value: []byte("access.log")}))
	r.write(streamA, 0, 0, "first line\n", true)
	r.write(streamA, 0, 0, "FIRST", true)
	p := r.due(true)
	r.must(r.s.Intend(ctx, vault.Intent{Piece: p[0], Entry: []byte("{}"), Size: 3}))
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.must(r.s.Write(ctx, streamA, 1, 0, []byte("second generation\nopen"), netip.MustParseAddr("2001:db8::1"), false))
	r.must(r.s.Close())
	for name, data := range r.files() {
		to := filepath.Join(goldenDir, name)
		r.must(os.MkdirAll(filepath.Dir(to), 0o755))
		r.must(os.WriteFile(to, data, 0o644))
	}
}

// TestGolden opens the golden spool of format version 1, as every later release must.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	mem := vfs.NewMem()
	r := &rig{t: t, mem: mem, wall: time.Date(2026, 11, 21, 8, 2, 0, 0, time.UTC)}
	r.cfg = goldenConfig(mem)
	r.cfg.Random = randomFrom(7)
	for _, dir := range []string{"/spool", "/keys"} {
		r.must(vfs.MkdirAll(mem, dir, 0o700))
		entries, err := os.ReadDir(filepath.Join(goldenDir, dir))
		r.must(err)
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(goldenDir, dir, e.Name()))
			r.must(err)
			r.must(vfs.WriteFile(mem, path.Join(dir, e.Name()), data, 0o600))
		}
	}
	r.open()
	if st := r.s.Stats(); st.Damaged+st.Torn > 0 || st.Streams != 2 || st.Unsealed != 11+5+22 {
		t.Errorf("stats %+v", st)
	}
	in := r.s.Pending()
	if len(in) != 1 || string(in[0].Entry) != "{}" || in[0].Size != 3 || in[0].Piece.Span != 11 || in[0].Piece.Closed {
		t.Errorf("pending %+v", in)
	}
	r.must(r.s.EndGeneration(ctx, streamA, 1))
	got := r.drain()
	conflict := r.s.table.stream(streamA).conflict
	for k, want := range map[genKey]string{{streamA, 0}: "first line\n", {streamA, 1}: "second generation\nopen", {conflict, 0}: "FIRST"} {
		if got[k] != want {
			t.Errorf("generation %d of %s: %q, expected %q", k.gen, k.stream, got[k], want)
		}
	}
	r.must(r.s.Meta("name/", func(kv vault.KV) error {
		if string(kv.Value) != "access.log" {
			t.Errorf("metadata %q", kv.Value)
		}
		return nil
	}))
}

// TestWorkedExample is the example of docs/FORMAT-spool.md.
func TestWorkedExample(t *testing.T) {
	h := fileHeader{id: fileID{0xfe}, seq: 2, before: 1, proven: 9}
	if got := hex.EncodeToString(h.encode()[:40]); got != "4c5653504f4f4c0a0000000100000000fe0000000000000000000000000000000000000000000002" {
		t.Errorf("header %s", got)
	}
	var k fileKey
	copy(k.key[:], "0123456789abcdef0123456789abcdef")
	k.id = h.id
	c, err := newGroupCipher(&k)
	if err != nil {
		t.Fatal(err)
	}
	b := append(make([]byte, groupHead, 256), appendKV(nil, vault.KV{Key: "k", Value: []byte("v")})...)
	if got := hex.EncodeToString(b[groupHead:]); got != "0600000006000000016b76" {
		t.Errorf("record %s", got)
	}
	got := hex.EncodeToString(c.seal(b, 1, 0))
	const want = "4c5647520000000b00000000000000010000000000000000"
	if got[:48] != want || len(got) != 2*(groupHead+11+tagSize) {
		t.Errorf("group %s", got)
	}
	if doc, err := os.ReadFile("../docs/FORMAT-spool.md"); err != nil || !bytes.Contains(doc, []byte(got)) {
		t.Errorf("docs/FORMAT-spool.md (%v) lacks the group %s", err, got)
	}
}
