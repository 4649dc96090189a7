package seal

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

// newSpoolWorld is a world with the real spool, which holds two streams in three
// generations, of which one has a hole and one was written to with other bytes.
func newSpoolWorld(t testing.TB) *world {
	t.Helper()
	ctx := context.Background()
	w := newWorld(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ingest.CreateSpool(ctx, w.spoolConfig(w.mem)))
	w.spool = new(ingest.Spool) // open replaces it
	w.open(false)
	client := netip.MustParseAddr("192.0.2.7")
	write := func(id vault.StreamID, gen, off int64, text []byte) {
		t.Helper()
		must(w.spool.Write(ctx, id, gen, off, text, client, true))
	}
	a, b, c := lines("a", 60), lines("b", 30), lines("c", 20)
	for n := range byte(2) {
		must(w.spool.AddStream(ctx, vault.StreamInfo{ID: stream(n + 1), Source: "proxy1", Name: []byte{'x', '0' + n}}))
	}
	n := int64(len(a))
	write(stream(1), 0, 0, a[:n/2]) // the second half lacks 100 bytes
	write(stream(1), 0, n/2+100, a[n/2+100:])
	write(stream(1), 0, 0, bytes.Repeat([]byte("?"), 40)) // other bytes than before
	must(w.spool.EndGeneration(ctx, stream(1), 0))
	write(stream(1), 1, 0, b)
	write(stream(2), 0, 0, c)
	copy(a[n/2:], make([]byte, 100))
	w.texts = map[run][]byte{{stream(1), 0}: a, {stream(1), 1}: b, {stream(2), 0}: c}
	return w
}

// addConflicts takes the streams that the spool made for conflicting bytes, as
// the ledger names them, into what is expected.
func (w *world) addConflicts() {
	w.Helper()
	all := entriesOf[*entry.Conflict](w)
	if len(all) != 1 || all[0].Stream != stream(1) || all[0].Gen != 0 || all[0].Offset != 0 || all[0].Span != 40 {
		w.Fatalf("conflicts %+v, expected one of the first 40 bytes", all)
	}
	w.texts[run{all[0].Other, all[0].OtherGen}] = bytes.Repeat([]byte("?"), 40)
}

func TestSealFromTheSpool(t *testing.T) {
	w := newSpoolWorld(t)
	sum := w.drain()
	w.addConflicts()
	w.check()
	if sum.Gaps != 1 || sum.Segments != 5 {
		t.Errorf("%+v, expected 1 gap and 5 segments", sum)
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}

// The power goes at every few operations of spool, vault and ledger.
func TestCrashWithTheSpool(t *testing.T) {
	rng := rand.New(rand.NewPCG(*crashSeed, 0))
	w := newSpoolWorld(t)
	texts := w.texts
	ops, crashes := 0, 0
	w.before = func(op string) error {
		if ops++; rng.IntN(4) != 0 {
			return nil
		}
		crashes++
		c := w.crash(rng)
		c.texts = map[run][]byte{}
		for id, text := range texts {
			c.texts[id] = text
		}
		c.reported(fmt.Sprintf("crash before operation %d, %s", ops, op), func() {
			c.open(false)
			c.drain()
			c.addConflicts()
			c.check()
		})
		return nil
	}
	w.drain()
	w.before = func(string) error { return nil }
	w.addConflicts()
	w.check()
	if crashes < 50 {
		t.Errorf("%d crashes: the test lost its grip", crashes)
	}
	t.Logf("%d crashes at %d operations", crashes, ops)
}

// Operations of vault and ledger fail once; the spool offers what is needed to
// go on in the same process. (When the spool itself fails, the process ends.)
func TestVaultFailsWithTheSpool(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for n := 1; ; n += 1 + rng.IntN(8) {
		failure := errDisk
		if rng.IntN(2) == 0 {
			failure = vfs.Executed(errDisk)
		}
		w := newSpoolWorld(t)
		ops, failed := 0, ""
		w.before = func(op string) error {
			if strings.Contains(op, " /state/spool") || strings.Contains(op, " /state/keys") {
				return nil
			}
			if ops++; ops != n {
				return nil
			}
			failed = op
			return failure
		}
		w.retry(3)
		w.before = func(string) error { return nil }
		w.reported(fmt.Sprintf("operation %d failed (%s)", n, failed), func() {
			w.addConflicts()
			w.check()
		})
		if failed == "" {
			if n < 200 {
				t.Errorf("%d operations: the test lost its grip", n)
			}
			return
		}
	}
}
