package seal

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"logvault/ingest"
	"logvault/seal/segment"
	"logvault/vault"
)

// counted makes the world's sealer count how often something is encoded.
func (w *world) counted() *atomic.Int64 {
	w.Helper()
	var n atomic.Int64
	w.config = func(c *Config) {
		var err error
		c.CutBytes = 128 << 10
		c.Encoder, err = segment.NewEncoder(segment.Options{Codec: vault.Gzip, Level: 1, Workers: 1, Random: random(w.seed), Begin: func() { n.Add(1) }})
		if err != nil {
			w.Fatal(err)
		}
	}
	w.restart()
	return &n
}

// row is n pieces of one stream, one after the other.
func row(id vault.StreamID, n int) (parts []part) {
	var at int64
	for i := range n {
		text := lines(string('a'+rune(i)), 100) // enough to compress: nothing is done beside text that does not
		parts = append(parts, data("proxy1", id, 0, at, text))
		at += int64(len(text))
	}
	return parts
}

// Work that is done ahead is used, however many streams there are.
func TestNothingIsEncodedTwice(t *testing.T) {
	for streams := 1; streams <= 4; streams++ {
		w := newWorld(t)
		for n := range streams {
			w.src.add(row(stream(byte(n+1)), 5)...)
		}
		encoded := w.counted()
		sum := w.drain()
		w.check()
		if sum.Segments != 5*streams || encoded.Load() != int64(sum.Segments) {
			t.Errorf("%d streams: %d segments were encoded %d times, expected %d and as many", streams, sum.Segments, encoded.Load(), 5*streams)
		}
	}
}

// Two pieces of a stream that is alone are in work when Step returns, and Rest
// joins them.
func TestTwoAhead(t *testing.T) {
	w := newWorld(t, row(stream(1), 5)...)
	encoded := w.counted()
	if res, err := w.sealer.Step(context.Background(), false); err != nil || res.Segments != 1 {
		t.Fatalf("%+v, %v, expected 1 segment", res, err)
	}
	w.sealer.Rest()
	if got := encoded.Load(); got != 3 || w.sealer.ahead != nil || w.sealer.after != nil {
		t.Errorf("%d pieces encoded, expected the one that was sealed and two more; ahead %v, %v", got, w.sealer.ahead, w.sealer.after)
	}
	if sum := w.drain(); sum.Segments != 4 {
		t.Errorf("%+v, expected 4 more segments", sum)
	}
	w.check()
}

// A round that cannot commit does not read on: the spool remembers what it was
// asked for last, to know repetitions of it, and is told of one piece at a time.
func TestFailedRoundReadsNothingAhead(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	if err := ingest.CreateSpool(ctx, w.spoolConfig(w.mem)); err != nil {
		t.Fatal(err)
	}
	w.spool = new(ingest.Spool) // open replaces it
	w.open(false)
	w.counted()
	if err := w.spool.AddStream(ctx, vault.StreamInfo{ID: stream(1), Source: "proxy1", Name: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	text := lines("a", 8000)
	send := func() {
		t.Helper()
		for off := 0; off < len(text); off += 64 << 10 {
			part := text[off:min(off+64<<10, len(text))]
			if err := w.spool.Write(ctx, stream(1), 0, int64(off), part, netip.MustParseAddr("192.0.2.7"), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	w.clock = w.clock.Add(time.Hour) // the spool gives up the bytes of what is sealed, and has their MACs
	failed := 0
	w.before = func(op string) error {
		if strings.HasPrefix(op, "rename /state/ledger/checkpoint") {
			if failed++; failed == 2 { // the first is that of the period key
				return errDisk
			}
		}
		return nil
	}
	if _, err := w.sealer.Step(ctx, false); !errors.Is(err, errDisk) {
		t.Fatalf("%v, expected the disk's error", err)
	}
	sealed := w.drain()
	send()
	if n := w.spool.Stats().Conflicts; n != 0 || sealed.Segments < 5 {
		t.Errorf("%d conflicts when the same bytes came again after %d segments", n, sealed.Segments)
	}
}
