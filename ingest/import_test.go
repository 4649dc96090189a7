package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
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
	"logvault/seal/segment"
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

// headerOf is the header of a file with this raw text.
func headerOf(t testing.TB, source vault.Source, text string) ImportHeader {
	content, n, err := ContentHash(strings.NewReader(text))
	if err != nil || n != int64(len(text)) {
		t.Fatalf("hashed %d bytes of %d: %v", n, len(text), err)
	}
	return ImportHeader{Source: source, Name: []byte("/var/log/x"), Stream: ImportID(source, content), Content: content}
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
	h := headerOf(t, "proxy1", text)
	res, err := Import(ctx, r.s, h, strings.NewReader(text))
	if want := (ImportResult{Bytes: int64(len(text)), Stored: int64(len(text))}); err != nil || res != want {
		t.Fatalf("first import: %+v, %v", res, err)
	}
	// Again under another name, compressed, after a restart: nothing is read.
	plain, err := segment.OpenPlain(bytes.NewReader(gz(t, text)), "x.gz")
	r.must(err)
	content, _, err := ContentHash(plain)
	r.must(err)
	h2 := ImportHeader{Source: "proxy1", Name: []byte("/other.gz"), Stream: ImportID("proxy1", content), Content: content}
	for range 2 {
		res, err = Import(ctx, r.s, h2, iotest.ErrReader(errors.New("must not be read")))
		if want := (ImportResult{Bytes: int64(len(text)), Already: true}); err != nil || res != want {
			t.Fatalf("second import: %+v, %v", res, err)
		}
		r.reopen()
	}
	// Another source, or another content, is another stream.
	if other := ImportID("proxy2", content); other == h.Stream {
		t.Error("two sources share a stream")
	}
	if other := headerOf(t, "proxy1", text+"\n"); other.Stream == h.Stream {
		t.Error("two contents share a stream")
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
		h := headerOf(t, "proxy1", text)
		res, err := Import(ctx, r.s, h, iotest.HalfReader(strings.NewReader(text)))
		if err != nil || res.Bytes != int64(n) || res.Stored != int64(n) {
			t.Fatalf("%d bytes: %+v, %v", n, res, err)
		}
		if got := r.drain()[genKey{h.Stream, 0}]; got != text {
			t.Fatalf("%d bytes came out, expected %d", len(got), n)
		}
		if res, err = Import(ctx, r.s, h, strings.NewReader("")); err != nil || !res.Already {
			t.Fatalf("%d bytes again: %+v, %v", n, res, err)
		}
	}
}

// TestImportCrash cuts the power at every operation of the disk during an
// import. The same command afterwards must leave the file once and whole.
func TestImportCrash(t *testing.T) {
	text := logText(25000)
	for at := 1; ; at++ {
		var cut []*vfs.Mem
		r := newRig(t, largeExtents)
		h, n := headerOf(t, "proxy1", text), 0
		r.cfg.FS = vfs.NewFault(r.mem, func(vfs.Op, string) error {
			if n++; n == at {
				for seed := range uint64(3) {
					cut = append(cut, r.mem.CrashClone(rand.New(rand.NewPCG(seed, uint64(at)))))
				}
			}
			return nil
		})
		r.open()
		if _, err := Import(ctx, r.s, h, strings.NewReader(text)); err != nil {
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
	h := headerOf(t, "proxy1", text)
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
	for _, n := range []int{1, 9, len(whole) / 2, len(whole) - 8, len(whole) - 1} {
		src, err := segment.OpenPlain(bytes.NewReader(whole[:n]), "x.gz")
		if err == nil {
			_, _, err = ContentHash(src)
		}
		if n == 1 { // not even the magic: one byte of text
			if err != nil {
				t.Fatalf("one byte: %v", err)
			}
			continue
		}
		if err == nil {
			t.Fatalf("%d bytes of %d hash to a whole file", n, len(whole))
		}
		// Nor is it taken for the whole file when it ends during the import.
		h := headerOf(t, "proxy1", text)
		src, err = segment.OpenPlain(bytes.NewReader(whole[:n]), "x.gz")
		if err == nil {
			_, err = Import(ctx, r.s, h, src)
		}
		if err == nil {
			t.Fatalf("%d bytes of %d were imported", n, len(whole))
		}
		if _, done, err := imported(r.s, h.Stream); done || err != nil {
			t.Fatalf("%d bytes of %d count as imported: %v", n, len(whole), err)
		}
	}
}

func TestImportChanged(t *testing.T) {
	r := newRig(t)
	text := logText(100)
	h := headerOf(t, "proxy1", text)
	for _, now := range []string{text + "more\n", text[:len(text)-1], strings.Replace(text, "7", "8", 1)} {
		if _, err := Import(ctx, r.s, h, strings.NewReader(now)); !errors.Is(err, ErrChanged) {
			t.Fatalf("changed to %d bytes: %v", len(now), err)
		}
	}
	if _, done, err := imported(r.s, h.Stream); done || err != nil {
		t.Fatalf("counts as imported: %v", err)
	}
	// A pipe has no hash beforehand.
	h.Stream, h.Content = streamA, vault.Hash{}
	if res, err := Import(ctx, r.s, h, strings.NewReader(text)); err != nil || res.Stored != int64(len(text)) {
		t.Fatalf("a pipe: %+v, %v", res, err)
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
	h := headerOf(t, "proxy1", text)
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
	h = headerOf(t, "proxy1", text)
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
	h := headerOf(t, "proxy1", text)
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
	if _, err := Import(done, r.s, headerOf(t, "proxy1", text), strings.NewReader(text)); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if len(r.drain()) != 0 {
		t.Error("a cancelled import stored bytes")
	}
}

func TestImportErrors(t *testing.T) {
	r := newRig(t)
	text := logText(10)
	h := headerOf(t, "proxy1", text)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: importKey + h.Stream.String(), Value: []byte("short")}))
	if _, err := Import(ctx, r.s, h, strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "5 bytes, expected 8") {
		t.Errorf("damaged record: %v", err)
	}
	h.Source = "no such/source"
	h.Stream = streamB
	if _, err := Import(ctx, r.s, h, strings.NewReader(text)); err == nil {
		t.Error("a bad source name was taken")
	}
}
