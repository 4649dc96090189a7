package ingest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// logText makes n whole lines.
func logText(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d a line of a log file that somebody wants to import\n", i)
	}
	return b.String()
}

// headerOf is the header of a file with this raw text, as a command makes it:
// that of the import that it repeats or continues, else with a new stream.
func headerOf(t testing.TB, from Importer, source vault.Source, text string) ImportHeader {
	h := ImportHeader{Source: source, Name: []byte("/var/log/x")}
	head, err := Head(bufio.NewReaderSize(strings.NewReader(text), HeadSize))
	if err != nil {
		t.Fatal(err)
	}
	earlier, err := Imports(from, source, head)
	if err != nil {
		t.Fatal(err)
	}
	h.Compared = len(earlier)
	e, ok, err := Match(strings.NewReader(text), earlier)
	if err != nil {
		t.Fatal(err)
	}
	if h.Stream = e.Stream; !ok {
		if h.Stream, err = vault.NewStreamID(crand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// largeExtents makes the smallest files in which one write is one extent.
func largeExtents(c *SpoolConfig) { c.FileBytes = 4 * maxGroup }

// gz compresses text.
func gz(t testing.TB, text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImportIdentity(t *testing.T) {
	r := newRig(t)
	text := logText(5000)
	h := headerOf(t, r.s, "proxy1", text)
	res, err := Import(ctx, r.s, h, strings.NewReader(text))
	if want := (ImportResult{Bytes: int64(len(text)), Stored: int64(len(text))}); err != nil || res != want {
		t.Fatalf("first import: %+v, %v", res, err)
	}
	// Again, compressed, after a restart: nothing is stored.
	plain, err := gzip.NewReader(bytes.NewReader(gz(t, text)))
	r.must(err)
	again, err := io.ReadAll(plain)
	r.must(err)
	for range 2 {
		h2 := headerOf(t, r.s, "proxy1", string(again))
		if h2.Stream != h.Stream {
			t.Fatalf("the same text is stream %v, expected %v", h2.Stream, h.Stream)
		}
		res, err = Import(ctx, r.s, h2, bytes.NewReader(again))
		if want := (ImportResult{Bytes: int64(len(text)), Already: true}); err != nil || res != want {
			t.Fatalf("second import: %+v, %v", res, err)
		}
		r.reopen()
	}
	// Another source, or another content, is another stream.
	for _, other := range []ImportHeader{headerOf(t, r.s, "proxy2", text), headerOf(t, r.s, "proxy1", text+"more\n"), headerOf(t, r.s, "proxy1", text[:len(text)-50]), headerOf(t, r.s, "proxy1", "x")} {
		if other.Stream == h.Stream {
			t.Error("two files share a stream")
		}
	}
	got := r.drain()
	if len(got) != 1 || got[genKey{h.Stream, 0}] != text {
		t.Fatalf("%d generations, %d bytes came out, expected one of %d", len(got), len(got[genKey{h.Stream, 0}]), len(text))
	}
}

func TestImportSizes(t *testing.T) {
	for _, n := range []int{0, 1, importWrite - 1, importWrite, importWrite + 1} {
		r := newRig(t, largeExtents)
		text := strings.Repeat("x", n)
		h := headerOf(t, r.s, "proxy1", text)
		res, err := Import(ctx, r.s, h, iotest.HalfReader(strings.NewReader(text)))
		if err != nil || res.Bytes != int64(n) || res.Stored != int64(n) {
			t.Fatalf("%d bytes: %+v, %v", n, res, err)
		}
		if got := r.drain()[genKey{h.Stream, 0}]; got != text {
			t.Fatalf("%d bytes came out, expected %d", len(got), n)
		}
		if res, err = Import(ctx, r.s, headerOf(t, r.s, "proxy1", text), strings.NewReader(text)); err != nil || !res.Already {
			t.Fatalf("%d bytes again: %+v, %v", n, res, err)
		}
	}
}

// TestImportCrash cuts the power at every operation of the disk during an
// import. The same command afterwards must leave the file once and whole.
func TestImportCrash(t *testing.T) {
	text := logText(25000)
	seeds, step := uint64(3), 1
	if testing.Short() {
		seeds, step = 1, 3
	}
	for at := 1; ; at += step {
		var cut []*vfs.Mem
		r := newRig(t, largeExtents)
		n := 0
		r.cfg.FS = vfs.NewFault(r.mem, func(vfs.Op, string) error {
			if n++; n == at {
				for seed := range seeds {
					cut = append(cut, r.mem.CrashClone(rand.New(rand.NewPCG(seed, uint64(at)))))
				}
			}
			return nil
		})
		r.open()
		if _, err := Import(ctx, r.s, headerOf(t, r.s, "proxy1", text), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if cut == nil {
			t.Logf("%d operations", at-1)
			if at < 20 {
				t.Errorf("only %d operations", at-1)
			}
			return
		}
		for seed, disk := range cut {
			r.cfg.FS = disk
			r.open()
			h := headerOf(t, r.s, "proxy1", text)
			res, err := Import(ctx, r.s, h, strings.NewReader(text))
			if err != nil || res.Bytes != int64(len(text)) {
				t.Fatalf("operation %d, seed %d: %+v, %v", at, seed, res, err)
			}
			got := r.drain()
			if len(got) != 1 || got[genKey{h.Stream, 0}] != text || r.s.Stats().Conflicts != 0 {
				t.Fatalf("operation %d, seed %d: %d generations, %d bytes came out, expected one of %d", at, seed, len(got), len(got[genKey{h.Stream, 0}]), len(text))
			}
		}
	}
}

// TestImportResume interrupts an import where half of it is sealed and gone
// from the spool: the other half alone is stored by the next call.
func TestImportResume(t *testing.T) {
	r := newRig(t, largeExtents)
	text := logText(40000)
	h := headerOf(t, r.s, "proxy1", text)
	half := strings.LastIndexByte(text[:len(text)/2], '\n') + 1
	gone := errors.New("the disk with the log went away")
	_, err := Import(ctx, r.s, h, io.MultiReader(strings.NewReader(text[:half]), iotest.ErrReader(gone)))
	if !errors.Is(err, gone) || !strings.Contains(err.Error(), "/var/log/x") {
		t.Fatalf("interrupted: %v", err)
	}
	r.must(r.s.Sync(ctx))
	first := r.drain()[genKey{h.Stream, 0}]
	r.advance(48 * time.Hour)
	r.due(true) // forgets what it knew of released bytes
	r.reopen()
	if again := headerOf(t, r.s, "proxy1", text); again.Stream != h.Stream {
		t.Fatalf("goes on as stream %v, expected %v", again.Stream, h.Stream)
	}
	res, err := Import(ctx, r.s, h, strings.NewReader(text))
	if err != nil || res.Bytes != int64(len(text)) || res.Stored != int64(len(text)-half) {
		t.Fatalf("resumed: %+v, %v", res, err)
	}
	if got := first + r.drain()[genKey{h.Stream, 0}]; got != text || r.s.Stats().Conflicts != 0 {
		t.Fatalf("%d bytes came out, expected %d", len(got), len(text))
	}
}

func TestImportTruncatedGzip(t *testing.T) {
	r := newRig(t)
	text := logText(3000)
	whole := gz(t, text)
	for _, n := range []int{9, len(whole) / 2, len(whole) - 8, len(whole) - 1} {
		h := headerOf(t, r.s, "proxy1", text)
		src, err := gzip.NewReader(bytes.NewReader(whole[:n]))
		if err == nil {
			_, err = Import(ctx, r.s, h, src)
		}
		if err == nil {
			t.Fatalf("%d bytes of %d were imported", n, len(whole))
		}
	}
	// The whole file then is stored once.
	h := headerOf(t, r.s, "proxy1", text)
	if res, err := Import(ctx, r.s, h, strings.NewReader(text)); err != nil || res.Already {
		t.Fatalf("the whole file: %+v, %v", res, err)
	}
	if got := r.drain()[genKey{h.Stream, 0}]; got != text {
		t.Fatalf("%d bytes came out, expected %d", len(got), len(text))
	}
}

// TestImportChanged continues an import with another file: what it had read
// must be there again.
func TestImportChanged(t *testing.T) {
	r := newRig(t)
	text := logText(5000)
	h := headerOf(t, r.s, "proxy1", text)
	half := len(text) / 2
	_, err := Import(ctx, r.s, h, io.MultiReader(strings.NewReader(text[:half]), iotest.ErrReader(errors.New("gone"))))
	if err == nil {
		t.Fatal("a file that cannot be read was imported")
	}
	for _, now := range []string{text[:half-1], text[:half-1] + "x" + text[half:]} {
		if other := headerOf(t, r.s, "proxy1", now); other.Stream == h.Stream {
			t.Errorf("%d other bytes are taken for the same file", len(now))
		}
		if _, err := Import(ctx, r.s, h, strings.NewReader(now)); !errors.Is(err, ErrChanged) {
			t.Errorf("changed to %d bytes: %v", len(now), err)
		}
	}
	// The file has grown since: the import takes it as it is now.
	grown := text + "more\n"
	if again := headerOf(t, r.s, "proxy1", grown); again.Stream != h.Stream {
		t.Error("a file that has grown is taken for another")
	}
	if res, err := Import(ctx, r.s, h, strings.NewReader(grown)); err != nil || res.Stored != int64(len(grown)-half) {
		t.Fatalf("grown: %+v, %v", res, err)
	}
	if got := r.drain()[genKey{h.Stream, 0}]; got != grown {
		t.Fatalf("%d bytes came out, expected %d", len(got), len(grown))
	}
}

// TestMatch finds the import that a file repeats or continues among several
// that begin alike.
func TestMatch(t *testing.T) {
	text := logText(100)
	of := func(id byte, n int, done bool) Earlier {
		return Earlier{Stream: vault.StreamID{id}, Bytes: int64(n), Prefix: vault.HashOf([]byte(text[:n])), Done: done}
	}
	other := Earlier{Stream: vault.StreamID{9}, Bytes: 50, Prefix: vault.Hash{1}, Done: true}
	for i, c := range []struct {
		earlier []Earlier
		want    byte
	}{
		{nil, 0},
		{[]Earlier{of(1, 0, true)}, 0},
		{[]Earlier{of(1, 0, false)}, 1},
		{[]Earlier{of(1, 10, true)}, 0},
		{[]Earlier{of(1, 10, false), of(2, 20, false)}, 2},
		{[]Earlier{of(2, 20, false), of(1, 10, false), other}, 2},
		{[]Earlier{of(1, len(text), true), of(2, 20, false)}, 1},
		{[]Earlier{of(1, len(text)-1, true), of(2, len(text), true)}, 2},
		{[]Earlier{of(1, len(text), false)}, 1},
		{[]Earlier{{Stream: vault.StreamID{1}, Bytes: int64(len(text)) + 1, Done: true}}, 0},
		{[]Earlier{other}, 0},
	} {
		got, ok, err := Match(iotest.OneByteReader(strings.NewReader(text)), c.earlier)
		if err != nil || ok != (c.want != 0) || got.Stream != (vault.StreamID{c.want}) {
			t.Errorf("case %d: %v, %v, %v, expected stream %d", i, got.Stream, ok, err, c.want)
		}
	}
	if _, _, err := Match(iotest.ErrReader(errors.New("gone")), []Earlier{of(1, 10, false)}); err == nil {
		t.Error("a file that cannot be read was matched")
	}
}

// fullSpool calls back each time the spool has no room.
type fullSpool struct {
	*Spool
	full func()
	n    int
}

func (f *fullSpool) Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error {
	err := f.Spool.Write(ctx, id, gen, off, data, client, sync)
	if errors.Is(err, vault.ErrFull) {
		f.n++
		f.full()
	}
	return err
}

func TestImportWaitsForRoom(t *testing.T) {
	r := newRig(t, largeExtents, func(c *SpoolConfig) { c.MaxBytes = 5 * c.FileBytes })
	text := logText(300000)
	h := headerOf(t, r.s, "proxy1", text)
	got := ""
	to := &fullSpool{Spool: r.s}
	to.full = func() {
		r.must(r.s.Sync(ctx))
		got += r.drain()[genKey{h.Stream, 0}]
	}
	res, err := Import(ctx, to, h, strings.NewReader(text))
	if err != nil || res.Stored != int64(len(text)) || to.n == 0 {
		t.Fatalf("%+v, %v, %d times full", res, err, to.n)
	}
	got += r.drain()[genKey{h.Stream, 0}]
	if got != text || r.s.Stats().Conflicts != 0 {
		t.Fatalf("%d bytes came out, expected %d; %d conflicts", len(got), len(text), r.s.Stats().Conflicts)
	}

	// Nobody makes room: the caller may give up, and go on later.
	text = strings.ReplaceAll(text, "log", "LOG")
	h = headerOf(t, r.s, "proxy1", text)
	waits, cancel := context.WithCancel(ctx)
	to.full = cancel
	if _, err := Import(waits, to, h, strings.NewReader(text)); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	got = ""
	to.full = func() { got += r.drain()[genKey{h.Stream, 0}] }
	to.full()
	if _, err := Import(ctx, to, h, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if got += r.drain()[genKey{h.Stream, 0}]; got != text || r.s.Stats().Conflicts != 0 {
		t.Fatalf("%d bytes came out, expected %d; %d conflicts", len(got), len(text), r.s.Stats().Conflicts)
	}
}

func TestImportRecorded(t *testing.T) {
	r := newRig(t)
	text := logText(10)
	h := headerOf(t, r.s, "proxy1", text)
	h.Recorded = r.wall.AddDate(0, -3, 0)
	_, err := Import(ctx, r.s, h, strings.NewReader(text))
	r.must(err)
	r.reopen()
	p := r.due(true)
	if len(p) != 1 || !p[0].Record.Equal(h.Recorded) || !p[0].Closed || !p[0].FirstReceived.Equal(r.wall) {
		t.Fatalf("due: %+v", p)
	}
	if string(p[0].Name) != "/var/log/x" {
		t.Errorf("name %q", p[0].Name)
	}
}

func TestImportCancelled(t *testing.T) {
	r := newRig(t)
	done, cancel := context.WithCancel(ctx)
	cancel()
	text := logText(10)
	if _, err := Import(done, r.s, headerOf(t, r.s, "proxy1", text), strings.NewReader(text)); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if len(r.drain()) != 0 {
		t.Error("a cancelled import stored bytes")
	}
}

// TestImportRecordVersions pins both versions of an import's record. The first
// is that of fixtures/golden/v1/state.
func TestImportRecordVersions(t *testing.T) {
	const sum = "a62b22985071475d9e7f9ee15557513fa9751eabebb0ab84df51ce259ca31980"
	hash, err := vault.ParseHash(sum)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(0, 0x18ea0010bdb5ba07)
	want := Earlier{Stream: streamB, Done: true, Bytes: 1449, Prefix: hash}
	present := "020100000000000005a9" + sum + "18ea0010bdb5ba07"
	if got := hex.EncodeToString(encodeEarlier(want, at)); got != present {
		t.Errorf("a record is %s, expected %s", got, present)
	}
	for value, when := range map[string]time.Time{present: at, "010100000000000005a9" + sum: {}} {
		b, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		if got, made, err := decodeEarlier(streamB, b); err != nil || got != want || !made.Equal(when) {
			t.Errorf("%s reads as %+v of %v, %v", value, got, made, err)
		}
		for cut := range b {
			if _, _, err := decodeEarlier(streamB, b[:cut]); err == nil {
				t.Errorf("%d bytes of version %d are a record", cut, b[0])
			}
		}
	}
}

func TestImportErrors(t *testing.T) {
	r := newRig(t)
	text := logText(10)
	h := headerOf(t, r.s, "proxy1", text)
	key := importKey("proxy1", vault.HashOf([]byte(text)))
	good := encodeEarlier(Earlier{Bytes: 3}, time.Time{})
	for name, value := range map[string][]byte{
		h.Stream.String(): []byte("short"),
		"nostream":        good,
		streamB.String():  append([]byte{2, 2}, good[2:]...),
	} {
		r.must(r.s.SetMeta(ctx, vault.KV{Key: key + name, Value: value}))
		if _, err := Import(ctx, r.s, h, strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "import record") {
			t.Errorf("record %q: %v", name, err)
		}
		r.must(r.s.SetMeta(ctx, vault.KV{Key: key + name}))
	}
	newer := append([]byte{3}, good[1:]...)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: key + streamB.String(), Value: newer}))
	if _, err := Import(ctx, r.s, h, strings.NewReader(text)); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("newer record: %v", err)
	}
	h.Source, h.Stream = "no such/source", streamB
	if _, err := Import(ctx, r.s, h, strings.NewReader(text)); err == nil {
		t.Error("a bad source name was taken")
	}
}

// TestImportOvertaken: two commands that import one file at the same time both
// find that it is new. The second must not store it once more, under the stream
// that it has drawn; it looks again and finds that there is nothing to do.
func TestImportOvertaken(t *testing.T) {
	r := newRig(t, largeExtents)
	text := logText(100)
	first, second := headerOf(t, r.s, "proxy1", text), headerOf(t, r.s, "proxy1", text)
	if _, err := Import(ctx, r.s, first, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	res, err := Import(ctx, r.s, second, strings.NewReader(text))
	if !errors.Is(err, ErrOvertaken) || res.Stored != 0 || r.s.Size(second.Stream, 0) != 0 {
		t.Errorf("second: %+v, %v; expected nothing stored", res, err)
	}
	if again := headerOf(t, r.s, "proxy1", text); again.Stream != first.Stream {
		t.Errorf("looking again gave stream %s, expected %s", again.Stream, first.Stream)
	}
	second.Compared = -1 // a pipe
	if res, err := Import(ctx, r.s, second, strings.NewReader(text)); err != nil || res.Stored != int64(len(text)) {
		t.Errorf("a pipe: %+v, %v", res, err)
	}
}

// TestImportPipe stores what comes through a pipe each time it comes, also when
// the spool fills up on the way, and leaves no record.
func TestImportPipe(t *testing.T) {
	r := newRig(t, largeExtents, func(c *SpoolConfig) { c.MaxBytes = 5 * c.FileBytes })
	text := logText(300000)
	got := map[vault.StreamID]string{}
	to := &fullSpool{Spool: r.s}
	take := func() {
		for k, v := range r.drain() {
			got[k.stream] += v
		}
	}
	to.full = take
	for _, id := range []vault.StreamID{streamA, streamB} {
		h := ImportHeader{Source: "proxy1", Name: []byte("piped"), Stream: id, Compared: -1}
		res, err := Import(ctx, to, h, strings.NewReader(text))
		if err != nil || res.Stored != int64(len(text)) || res.Bytes != res.Stored {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	take()
	if to.n == 0 || len(got) != 2 || got[streamA] != text || got[streamB] != text || r.s.Stats().Conflicts != 0 {
		t.Errorf("%d times full, %d streams, %d and %d bytes came out, expected %d", to.n, len(got), len(got[streamA]), len(got[streamB]), len(text))
	}
	r.must(r.s.Meta("import/", func(kv vault.KV) error { return fmt.Errorf("a pipe is remembered: %s", kv.Key) }))
	h := ImportHeader{Source: "proxy1", Stream: vault.StreamID{7}, Compared: -1}
	if _, err := Import(ctx, r.s, h, iotest.ErrReader(errors.New("gone"))); err == nil {
		t.Error("a pipe that broke was taken for whole")
	}
}

// The oldest imports are forgotten when there are too many, with their streams;
// one that was interrupted is ended, so that it is sealed as it is.
func TestImportsAreForgotten(t *testing.T) {
	r := newRig(t)
	do := func(text string) ImportResult {
		t.Helper()
		h := headerOf(t, r.s, "proxy1", text)
		h.Now = r.wall
		res, err := Import(ctx, r.s, h, strings.NewReader(text))
		r.must(err)
		return res
	}
	cut := headerOf(t, r.s, "proxy1", logText(20))
	cut.Stream, cut.Now = streamB, r.wall
	if _, err := Import(ctx, r.s, cut, io.MultiReader(strings.NewReader(strings.Repeat("half\n", HeadSize)), iotest.ErrReader(errors.New("gone")))); err == nil {
		t.Fatal("an import that fails is taken")
	}
	for i := range 4 {
		r.advance(time.Hour)
		do(logText(10 + i))
	}
	for n := int64(1); ; n++ {
		p := r.due(true)
		if len(p) == 0 {
			break
		}
		r.seal(p[0], n)
	}
	r.must(forgetImports(ctx, r.s, 5))
	if n := len(r.s.table.kv); n != 5 {
		t.Errorf("%d imports remembered, expected all five", n)
	}
	r.must(forgetImports(ctx, r.s, 3))
	if n := len(r.s.table.kv); n != 3 || do(logText(10)).Already || !do(logText(13)).Already {
		t.Errorf("%d imports remembered, expected the three newest", n)
	}
	if g := r.s.table.stream(streamB).gen(0); g.ended.IsZero() {
		t.Error("an interrupted import that is forgotten is not ended")
	}
	r.drain()
	r.advance(25 * time.Hour)
	r.due(true) // begins a new file
	r.due(true)
	if n := len(r.s.table.order); n != 0 {
		t.Errorf("%d streams kept of imports that are done", n)
	}
}
