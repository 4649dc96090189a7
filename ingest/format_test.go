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

const goldenDir = "../fixtures/golden/v1"

// goldenRig is the world of the golden spools, at a time of their day.
func goldenRig(t *testing.T, hour, minute, second int, seed uint64) *rig {
	mem := vfs.NewMem()
	r := &rig{t: t, mem: mem, wall: time.Date(2026, 11, 21, hour, minute, second, 3, time.UTC), boot: 42 * time.Second}
	r.cfg = SpoolConfig{FS: mem, Dir: "/spool", KeyDir: "/keys", Random: randomFrom(seed), FileBytes: 4 << 20,
		Now: func() time.Time { return r.wall }, Boot: func() time.Duration { return r.boot }, Log: slog.New(slog.DiscardHandler)}
	return r
}

// writeGolden makes a golden spool below goldenDir.
func writeGolden(t *testing.T, name string, fill func(r *rig)) {
	r := goldenRig(t, 8, 1, 2, 2026)
	r.must(r.cfg.create(ctx))
	r.open()
	fill(r)
	r.must(r.s.Close())
	for file, data := range r.files() {
		to := filepath.Join(goldenDir, name, file)
		r.must(os.MkdirAll(filepath.Dir(to), 0o755))
		r.must(os.WriteFile(to, data, 0o644))
	}
}

// readGolden opens a golden spool, and tells of which kinds its records are.
func readGolden(t *testing.T, name string) (*rig, map[recordKind]int) {
	r := goldenRig(t, 8, 2, 0, 7)
	for _, dir := range []string{"/spool", "/keys"} {
		r.must(vfs.MkdirAll(r.mem, dir, 0o700))
		entries, err := os.ReadDir(filepath.Join(goldenDir, name, dir))
		r.must(err)
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(goldenDir, name, dir, e.Name()))
			r.must(err)
			r.must(vfs.WriteFile(r.mem, path.Join(dir, e.Name()), data, 0o600))
		}
	}
	f, err := r.cfg.openFile(1)
	r.must(err)
	kinds := map[recordKind]int{}
	_, err = f.scan(func(_ int64, _ groupHeader, plain []byte) error {
		return eachRecord(plain, func(kind recordKind, body []byte) error {
			kinds[kind]++
			if kind == recRuns && body[24] == byte(recUnstable) {
				kinds[recUnstable]++
			}
			return nil
		})
	})
	r.must(errors.Join(err, f.f.Close()))
	r.open()
	return r, kinds
}

// fillGolden makes the first golden spool: a conflict, an intent, an ended and
// an open generation, metadata.
func fillGolden(r *rig) {
	r.add(streamA)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: "name/1", Value: []byte("access.log")}))
	r.write(streamA, 0, 0, "first line\n", true)
	r.write(streamA, 0, 0, "FIRST", true)
	p := r.due(true)
	r.must(r.s.Intend(ctx, vault.Intent{Piece: p[0], Entry: []byte("{}"), Size: 3}))
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.must(r.s.Write(ctx, streamA, 1, 0, []byte("second generation\nopen"), netip.MustParseAddr("2001:db8::1"), false))
}

// TestGolden opens the golden spool of format version 1, as every later release must.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t, "spool", fillGolden)
	}
	r, _ := readGolden(t, "spool")
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

// fillGoldenKinds leaves a record of each kind: stream A was sealed, released
// and goes on, uncommitted; a generation of it is forgotten; stream B, which has
// a line to be sealed, is over.
func fillGoldenKinds(r *rig) {
	r.add(streamA)
	r.add(streamB)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: "name/1", Value: []byte("gone")}, vault.KV{Key: "name/2", Value: []byte("stays")}))
	r.must(r.s.SetMeta(ctx, vault.KV{Key: "name/1"}))
	r.write(streamA, 0, 0, "over and forgotten\n", true)
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.seal(r.due(true)[0], 3)
	r.write(streamB, 0, 0, "the last of it\n", true)
	r.wall = r.wall.Add(25 * time.Hour)
	r.boot += 2 * time.Minute // the file is not old: all kinds are in one
	r.write(streamA, 1, 0, lines(genKey{streamA, 1}, 0, 2*blockSize), true)
	for _, p := range r.due(true) {
		if p.Stream == streamA {
			r.seal(p, 4)
		}
	}
	r.must(r.s.Record(ctx, vault.Changes{End: []vault.Generation{{Stream: streamB}}, Over: []vault.StreamID{streamB}}))
	r.write(streamA, 1, r.s.Size(streamA, 1), "uncommitted\n", false)
}

// TestGoldenKinds is TestGolden with each kind of record.
func TestGoldenKinds(t *testing.T) {
	if *update {
		writeGolden(t, "spool-kinds", fillGoldenKinds)
	}
	r, kinds := readGolden(t, "spool-kinds")
	for kind := recExtent; kind <= recOver; kind++ {
		if kinds[kind] == 0 && kind != recIntent { // which the other golden spool has
			t.Errorf("the golden spool has no record of kind %d", kind)
		}
	}
	st := r.s.table.stream(streamA)
	if len(st.gens) != 1 || st.nextGen != 1 || st.prev != 4 {
		t.Fatalf("stream A: %+v", st)
	}
	if b := r.s.table.stream(streamB); b == nil || !b.over {
		t.Errorf("stream B: %+v", b)
	}
	r.must(r.s.Meta("name/", func(kv vault.KV) error {
		if kv.Key != "name/2" || string(kv.Value) != "stays" {
			t.Errorf("metadata %q %q", kv.Key, kv.Value)
		}
		return nil
	}))
	g := st.gens[0]
	if len(g.macs) == 0 || len(g.unstable) == 0 {
		t.Errorf("generation 1: %+v", g)
	}
	// What was sealed is recognised.
	r.write(streamA, 1, 0, lines(genKey{streamA, 1}, 0, blockSize), true)
	if n := r.s.Stats().Conflicts; n != 0 {
		t.Errorf("%d conflicts", n)
	}
	r.must(r.s.EndGeneration(ctx, streamA, 1))
	got := r.drain()
	if text := got[genKey{streamB, 0}]; text != "the last of it\n" || len(got[genKey{streamA, 1}]) == 0 {
		t.Errorf("sealed %v", got)
	}
	r.wall = r.wall.Add(52 * time.Hour) // what was written before was written 25 hours later
	r.advance(2 * time.Minute)
	r.due(true)
	if r.s.table.stream(streamB) != nil {
		t.Error("stream B, which is over, is still there")
	}
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
