package seal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// crashSeed draws where the crashes are and what they leave. It is the same in
// every run, so that no run is unlucky; whoever hunts gives others.
var crashSeed = flag.Uint64("crash.seed", 1, "seed of the crash tests")

// stream makes a stream id from a small number.
func stream(n byte) vault.StreamID { return vault.StreamID{15: n} }

// lines makes n lines of text that differ between seeds.
func lines(seed string, n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "1286536308.%03d    180 192.0.2.%d TCP_MISS/200 411 GET http://%s.example/%d - DIRECT/198.51.100.1 text/html\n", i, i%250, seed, i)
	}
	return []byte(b.String())
}

// data is a part of received bytes.
func data(src vault.Source, id vault.StreamID, gen, offset int64, text []byte, change ...func(*vault.Piece)) part {
	p := vault.Piece{Kind: vault.PieceData, Source: src, Stream: id, Gen: gen, Offset: offset, Span: int64(len(text)), Name: []byte("access.log"),
		FirstReceived: start.Add(-time.Hour), LastReceived: start.Add(-time.Minute), Record: start.Add(-time.Minute)}
	for _, c := range change {
		c(&p)
	}
	return part{p, text}
}

func hole(src vault.Source, id vault.StreamID, gen, offset, span int64) part {
	return part{piece: vault.Piece{Kind: vault.PieceHole, Source: src, Stream: id, Gen: gen, Offset: offset, Span: span,
		FirstReceived: start, LastReceived: start, Record: start}}
}

// mixed is one of everything: two classes, two generations, a hole, a conflict,
// a new day, a line without LF, a long line cut in two.
func mixed() []part {
	a1, a2, a3 := lines("a1", 40), lines("a2", 10), lines("a3", 20)
	long := []byte(strings.Repeat("x", 3000))
	n1, n2 := int64(len(a1)), int64(len(a2))
	return []part{
		data("proxy1", stream(1), 0, 0, a1),
		data("proxy1", stream(1), 0, n1, a2),
		hole("proxy1", stream(1), 0, n1+n2, 512),
		data("proxy1", stream(1), 0, n1+n2+512, a3, nextDay, func(p *vault.Piece) { p.Closed = true }),
		data("proxy1", stream(1), 1, 0, lines("b", 5)),
		data("proxy1", stream(2), 0, 0, []byte("no line end"), func(p *vault.Piece) {
			p.Cut, p.Closed = entry.CutEnd, true
			p.Conflict = &vault.ConflictOf{Stream: stream(1), Gen: 0, Offset: 77}
		}),
		data("dumps", stream(3), 0, 0, long, func(p *vault.Piece) { p.Cut = entry.CutLong }),
		data("dumps", stream(3), 0, int64(len(long)), []byte("the rest\n"), func(p *vault.Piece) { p.Joined = true }),
	}
}

// few is the least of each way through the sealer.
func few() []part {
	a := lines("a", 3)
	return []part{
		data("proxy1", stream(1), 0, 0, a),
		hole("proxy1", stream(1), 0, int64(len(a)), 512),
		data("proxy1", stream(2), 0, 0, lines("b", 2), func(p *vault.Piece) {
			p.Conflict = &vault.ConflictOf{Stream: stream(1), Gen: 0, Offset: 77}
		}),
	}
}

func nextDay(p *vault.Piece) {
	p.Record = p.Record.AddDate(0, 0, 1)
	p.LastReceived = p.Record
}

// A power cut at every operation of the disk and of the source.
func TestCrashAtEveryOperation(t *testing.T) { crashSweep(t, few(), 1) }

// The same at some operations of a larger world.
func TestCrashInMixedWorld(t *testing.T) { crashSweep(t, mixed(), 5) }

// crashSweep seals parts, with a power cut before one in n of the operations,
// and for some of them another one while the first is being recovered from. The
// short run takes a third of that.
func crashSweep(t *testing.T, parts []part, n int) {
	if testing.Short() {
		n *= 3
	}
	rng := rand.New(rand.NewPCG(*crashSeed, 0))
	w := newWorld(t, parts...)
	ops, crashes, twice := 0, 0, 0
	w.before = func(op string) error {
		if ops++; rng.IntN(n) != 0 {
			return nil
		}
		crashes++
		what := fmt.Sprintf("crash before operation %d, %s", ops, op)
		c := w.crash(rng)
		second, inner := 1+rng.IntN(600), 0
		c.before = func(op string) error {
			if inner++; inner == second {
				twice++
				cc := c.crash(rng)
				cc.recover(fmt.Sprintf("%s, then before operation %d, %s", what, inner, op))
			}
			return nil
		}
		c.recover(what)
		return nil
	}
	w.drain()
	w.before = func(string) error { return nil }
	w.check()
	if ops < 200 || crashes < ops/n/2 || twice < crashes/20 {
		t.Errorf("%d operations, %d crashes, %d of them double: the test lost its grip", ops, crashes, twice)
	}
	t.Logf("%d operations, %d crashes, %d of them double", ops, crashes, twice)
}

// recover starts a world again and lets it finish its work.
func (w *world) recover(what string) {
	w.Helper()
	w.reported(what, func() {
		w.open(false)
		w.drain()
		w.before = func(string) error { return nil }
		w.check()
	})
}

// reported runs fn and says what went before if it fails.
func (w *world) reported(what string, fn func()) {
	w.Helper()
	defer func() {
		if w.Failed() {
			w.Logf("after: %s", what)
		}
	}()
	fn()
}

var errDisk = errors.New("input/output error")

// Every operation of the disk and of the source fails once: not carried out, or
// carried out and still reported as failed. The process lives on, and the next
// rounds finish the work. Then the power goes: nothing that was released may
// have rested on what the failed operation left.
func TestEveryOperationFailsOnce(t *testing.T) {
	for name, failure := range map[string]error{"not done": errDisk, "done": vfs.Executed(errDisk)} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 7))
			step := 1
			if testing.Short() {
				step = 11
			}
			for n := 1; ; n += step {
				w := newWorld(t, few()...)
				ops, failed := 0, ""
				w.before = func(op string) error {
					if ops++; ops != n {
						return nil
					}
					failed = op
					return failure
				}
				w.retry(3)
				if failed == "" {
					if n < 200 {
						t.Errorf("%d operations: the test lost its grip", n)
					}
					return
				}
				w.before = func(string) error { return nil }
				what := fmt.Sprintf("operation %d failed (%s)", n, failed)
				w.reported(what, w.check)
				for range 2 {
					c := w.crash(rng)
					c.recover(what + ", power cut at the end")
				}
			}
		})
	}
}

// retry steps until all is sealed, at most bad rounds of it failing.
func (w *world) retry(bad int) {
	w.Helper()
	for range 100 {
		res, err := w.sealer.Step(context.Background(), true)
		switch {
		case err != nil && !errors.Is(err, errDisk):
			w.Fatal(err)
		case err != nil:
			if bad--; bad < 0 {
				w.Fatalf("a failure that does not pass: %v", err)
			}
		case res == (Result{}):
			return
		}
	}
	w.Fatal("100 steps, and still something is due")
}

// The ledger commits, says that it failed, and cannot be read either for the
// rest of the round. The next round of the same process must find what was
// committed: the period key, or the pieces.
func TestCommittedButReportedAsFailed(t *testing.T) {
	for nth, what := range map[int]string{1: "period key", 2: "pieces"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, few()...)
			commits := 0
			w.before = func(op string) error {
				if strings.HasPrefix(op, "rename /state/ledger/checkpoint") {
					if commits++; commits == nth {
						return vfs.Executed(errDisk)
					}
				}
				if commits >= nth {
					return errDisk
				}
				return nil
			}
			if _, err := w.sealer.Step(context.Background(), true); !errors.Is(err, errDisk) {
				t.Fatalf("step: %v, expected it to fail", err)
			}
			w.before = func(string) error { return nil }
			w.drain()
			w.check()
			if keys := len(entriesOf[*entry.Key](w)); keys != 1 {
				t.Errorf("%d period keys, expected the committed one to be found", keys)
			}
		})
	}
}

// The vault is away for many rounds, then comes back.
func TestVaultAway(t *testing.T) {
	w := newWorld(t, mixed()...)
	away, seen := false, 0
	w.before = func(op string) error {
		if away && strings.Contains(op, "/vault") {
			return errDisk
		}
		if strings.HasPrefix(op, "link /vault/segments") && !strings.Contains(op, ".idx") {
			if seen++; seen == 3 {
				away = true
			}
		}
		return nil
	}
	failures := 0
	for range 10 {
		res, err := w.sealer.Step(context.Background(), true)
		if err != nil {
			failures++
		}
		if away && failures > 1 && res != (Result{}) {
			t.Errorf("sealed %+v without a vault", res)
		}
	}
	if failures < 8 {
		t.Errorf("%d rounds failed, expected nearly all", failures)
	}
	if n := len(w.src.Pending()); n != 3 {
		t.Errorf("%d intents, expected 3: those stored, and the one being stored; no more in each round", n)
	}
	away = false
	w.drain()
	w.check()
}

// The copy of the ledger fails, the record does not: the pieces are committed
// and released, and the caller is told.
func TestCopyBehindIsCommitted(t *testing.T) {
	w := newWorld(t, mixed()...)
	published := 0
	w.before = func(op string) error {
		if strings.HasPrefix(op, "rename /vault/ledger/checkpoint") {
			if published++; published == 3 { // after two period keys, the batch
				return errDisk
			}
		}
		return nil
	}
	res, err := w.sealer.Step(context.Background(), true)
	if _, ok := errors.AsType[*ledger.CopyError](err); !ok {
		t.Fatalf("step: %v, expected a copy error", err)
	}
	if res.Segments == 0 || len(w.src.Pending()) != 0 {
		t.Errorf("%+v with %d intents pending, expected all committed and released: %v", res, len(w.src.Pending()), err)
	}
	w.before = func(string) error { return nil }
	w.drain()
	w.check()
	tree, err := ledger.OpenTree(context.Background(), w.store, vault.LedgerPrefix, &ledger.Trust{Log: ledgerKey()[1], Origin: origin})
	if err != nil || tree.Size() != w.log.Tree().Size() {
		t.Errorf("the vault's ledger has not caught up: %v", err)
	}
}
