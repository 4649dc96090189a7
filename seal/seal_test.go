package seal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/segment"
	"logvault/vault"
)

func TestSealAll(t *testing.T) {
	parts := mixed()
	w := newWorld(t, parts...)
	sum := w.drain()
	w.check()
	var raw int64
	for _, p := range parts {
		raw += int64(len(p.text))
	}
	var stored int64
	segments := entriesOf[*entry.Segment](w)
	for _, e := range segments {
		stored += e.Size + e.IndexSize
	}
	if want := (Result{Segments: 7, Gaps: 1, Raw: raw, Stored: stored}); sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
	if e := segments[0]; e.Actor != "gateway" || e.Lines != 40 || e.Raw != e.Span || e.Codec != vault.Gzip || !e.LastReceived.Equal(start.Add(-time.Minute)) {
		t.Errorf("%+v", e)
	}
	closed := func(e *entry.Segment) bool { return e.Closed }
	if i := slices.IndexFunc(segments, closed); i < 0 || segments[i].Cut != entry.CutEnd || segments[i].Stream != stream(2) {
		t.Errorf("segment %d is the first closed one, expected that of the conflict", i)
	}
	if gaps := entriesOf[*entry.Gap](w); len(gaps) != 1 || gaps[0].Span != 512 || gaps[0].Reason != entry.GapHole {
		t.Errorf("gaps %+v", gaps)
	}
	res, err := w.sealer.Step(context.Background(), true)
	if err != nil || res != (Result{}) {
		t.Errorf("with nothing due: %+v, %v", res, err)
	}
}

func TestConflictNamesTheOriginal(t *testing.T) {
	w := newWorld(t, few()...)
	w.drain()
	all := w.entries()
	i := slices.IndexFunc(all, func(e entry.Entry) bool { return e.Type() == entry.TypeConflict })
	c, s := all[i].(*entry.Conflict), all[i-1].(*entry.Segment)
	if c.Stream != stream(1) || c.Gen != 0 || c.Offset != 77 || c.Span != s.Span || c.Other != s.Stream || c.OtherGen != s.Gen || s.Stream != stream(2) {
		t.Errorf("conflict %+v after the segment of stream %s", c, s.Stream)
	}
}

// The pieces of a round share one checkpoint, but not more of them than a batch holds.
func TestBatches(t *testing.T) {
	var parts []part
	for n := range batchPieces + 2 {
		parts = append(parts, hole("proxy1", stream(byte(n)), int64(n), 0, 1))
	}
	w := newWorld(t, parts...)
	var published int
	w.before = func(op string) error {
		if strings.HasPrefix(op, "rename /state/ledger/checkpoint") {
			published++
		}
		return nil
	}
	res, err := w.sealer.Step(context.Background(), false)
	if err != nil || res.Gaps != len(parts) || published != 2 {
		t.Errorf("%+v, %v, under %d checkpoints, expected 2", res, err, published)
	}
	w.check()
}

// A piece that cannot be sealed waits, and the others do not wait for it.
func TestOneBadPiece(t *testing.T) {
	bad := map[string]struct {
		part part
		want string
	}{
		"no class":   {data("unknown", stream(9), 0, 0, lines("x", 1)), "no retention class"},
		"no LF":      {data("proxy1", stream(9), 0, 0, []byte("half a line")), "not whole"},
		"empty":      {data("proxy1", stream(9), 0, 0, nil), "span 0"},
		"bad class":  {data("broken", stream(9), 0, 0, lines("x", 1)), "no time zone"},
		"no date":    {data("proxy1", stream(9), 0, 0, lines("x", 1), at(time.Time{})), "no record date"},
		"bad name":   {data("proxy1", stream(9), 0, 0, lines("x", 1), func(p *vault.Piece) { p.Name = make([]byte, 1<<20) }), "encoding a segment"},
		"too large":  {data("proxy1", stream(9), 0, 0, bytes.Repeat([]byte("\n"), segment.MaxRaw+1)), "span 67108865"},
		"bad stream": {data("proxy1", stream(9), 0, 0, lines("x", 1), func(p *vault.Piece) { p.Prev = -7; p.Cut = "odd" }), "cut"},
		"bad gap":    {hole("proxy1", stream(9), 0, 0, -1), "span"},
		"short read": {data("proxy1", stream(9), 0, 0, lines("x", 2), func(p *vault.Piece) { p.Span++ }), "bytes, expected"},
	}
	for what, b := range bad {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, append([]part{b.part}, few()...)...)
			w.sealer.ClassOf = func(src vault.Source) (policy.Class, bool) {
				if src == "broken" {
					return policy.Class{Name: "broken", Period: policy.Period{Days: 1}}, true
				}
				return classOf(src)
			}
			for range 3 {
				if _, err := w.sealer.Step(context.Background(), true); err == nil || !strings.Contains(err.Error(), b.want) {
					t.Errorf("step: %v, want %q", err, b.want)
				}
			}
			if n := w.src.left(); n != 1 {
				t.Errorf("%d pieces are left, expected the bad one", n)
			}
		})
	}
}

func TestReadFailureOfOnePiece(t *testing.T) {
	w := newWorld(t, few()...)
	reads := 0
	w.before = func(op string) error {
		if op == "read" {
			if reads++; reads == 1 {
				return errDisk
			}
		}
		return nil
	}
	res, err := w.sealer.Step(context.Background(), true)
	if !errors.Is(err, errDisk) || res.Segments != 1 {
		t.Errorf("%+v, %v, expected the error of one piece and the other sealed", res, err)
	}
	w.drain()
	w.check()
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, few()...)
	ctx, cancel := context.WithCancel(context.Background())
	w.before = func(op string) error {
		if op == "read" {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	if _, err := w.sealer.Step(ctx, true); !errors.Is(err, context.Canceled) {
		t.Errorf("step: %v, expected to be cancelled", err)
	}
	w.before = func(string) error { return nil }
	w.drain()
	w.check()
}

// Places to stop at: the nth operation that starts with op.
var (
	atSegment = stop{"link /vault/segments", 1}
	atIndex   = stop{"link /vault/segments", 2}
	atCommit  = stop{"rename /state/ledger/checkpoint", 2} // after that of the period key
	atRelease = stop{"release", 1}
	atIntend  = stop{"intend", 1}
)

type stop struct {
	op  string
	nth int
}

// stopBefore lets everything fail from a place on, as for a process that is
// killed there, and starts again.
func stopBefore(w *world, at stop) {
	w.Helper()
	stopped := false
	w.before = func(o string) error {
		if strings.HasPrefix(o, at.op) {
			at.nth--
		}
		if stopped = stopped || at.nth == 0; stopped {
			return errDisk
		}
		return nil
	}
	if _, err := w.sealer.Step(context.Background(), true); err == nil || !stopped {
		w.Fatalf("step: %v, expected to be stopped at %s", err, at.op)
	}
	w.before = func(string) error { return nil }
	if len(w.src.Pending()) == 0 {
		w.Fatal("no intent is pending")
	}
	w.open(false)
}

// What an earlier process left is judged by what the vault really holds.
func TestSettle(t *testing.T) {
	segmentOf := func(w *world) *entry.Segment {
		e, err := entry.Decode(w.src.Pending()[0].Entry)
		if err != nil {
			w.Fatal(err)
		}
		return e.(*entry.Segment)
	}
	overwrite := func(w *world, name string, edit func([]byte) []byte) {
		path := "/vault/" + name
		f, err := w.mem.Open(path)
		if err != nil {
			w.Fatal(err)
		}
		body, err := io.ReadAll(f)
		if err != nil {
			w.Fatal(err)
		}
		if err := w.mem.Remove(path); err != nil {
			w.Fatal(err)
		}
		if f, err = w.mem.Create(path, 0o440); err == nil {
			_, err = f.Write(edit(body))
		}
		if err != nil {
			w.Fatal(err)
		}
	}
	one := data("proxy1", stream(1), 0, 0, lines("a", 3))
	for _, tt := range []struct {
		what    string
		stop    stop
		change  func(w *world, e *entry.Segment)
		orphans int
		same    bool // the intended entry itself is committed
	}{
		{"nothing stored", atSegment, nil, 0, false},
		{"segment stored", atIndex, nil, 1, false},
		{"both stored", atCommit, nil, 0, true},
		{"committed, not released", atRelease, nil, 0, true},
		{"index lost", atCommit, func(w *world, e *entry.Segment) {
			if err := w.mem.Remove("/vault/" + indexName(e)); err != nil {
				w.Fatal(err)
			}
		}, 1, false},
		{"segment damaged", atCommit, func(w *world, e *entry.Segment) {
			overwrite(w, segmentName(e), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, 2, false},
		{"segment cut short", atCommit, func(w *world, e *entry.Segment) {
			overwrite(w, segmentName(e), func(b []byte) []byte { return b[:len(b)/2] })
		}, 2, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t, one)
			stopBefore(w, tt.stop)
			intended := segmentOf(w)
			if tt.change != nil {
				tt.change(w, intended)
			}
			w.drain()
			w.check()
			got := entriesOf[*entry.Segment](w)
			if len(got) != 1 || (got[0].Object == intended.Object) != tt.same {
				t.Errorf("%d segments, of object %s; intended was %s, same %v", len(got), got[0].Object, intended.Object, tt.same)
			}
			if n := len(entriesOf[*entry.Orphan](w)); n != tt.orphans {
				t.Errorf("%d orphans, want %d", n, tt.orphans)
			}
			if n := len(entriesOf[*entry.Key](w)); n != 1 {
				t.Errorf("%d period keys, expected the one to be found again", n)
			}
		})
	}
}

// A policy that was changed after an intent counts for it: its objects become
// orphans and the piece is encoded anew. Appended after the policy entry, the
// old one would be a segment with a wrong destruction day, for ever.
func TestSettleAfterPolicyChange(t *testing.T) {
	w := newWorld(t, data("proxy1", stream(1), 0, 0, lines("a", 3)))
	stopBefore(w, atCommit)
	intended, err := entry.Decode(w.src.Pending()[0].Entry)
	if err != nil {
		t.Fatal(err)
	}
	w.config = func(c *Config) {
		c.ClassOf = func(src vault.Source) (policy.Class, bool) {
			class, ok := classOf(src)
			class.Zone = time.UTC
			return class, ok
		}
	}
	w.restart()
	w.drain()
	got, orphans := entriesOf[*entry.Segment](w), entriesOf[*entry.Orphan](w)
	if old := intended.(*entry.Segment); len(got) != 1 || len(orphans) != 2 || got[0].RetainUntil.Equal(old.RetainUntil) ||
		vault.DayOf(got[0].RetainUntil) != got[0].Day {
		t.Errorf("%d segments until %v, day %v, %d orphans; expected one under the new zone and 2", len(got), got[0].RetainUntil, got[0].Day, len(orphans))
	}
}

// An orphan is recorded once, also when the process dies between its entry and
// the new intent, again and again.
func TestOrphanOnce(t *testing.T) {
	w := newWorld(t, data("proxy1", stream(1), 0, 0, lines("a", 3)))
	stopBefore(w, atIndex)
	for range 3 {
		stopBefore(w, atIntend)
	}
	w.drain()
	w.check()
	if n := len(entriesOf[*entry.Orphan](w)); n != 1 {
		t.Errorf("%d orphan entries, expected one", n)
	}
}

// An object that cannot be read holds up its own stream only.
func TestSettleUnreadable(t *testing.T) {
	w := newWorld(t, few()...)
	stopBefore(w, atCommit)
	e, err := entry.Decode(w.src.Pending()[0].Entry)
	if err != nil {
		t.Fatal(err)
	}
	bad := "/vault/" + segmentName(e.(*entry.Segment))
	w.before = func(op string) error {
		if strings.HasSuffix(op, " "+bad) {
			return errDisk
		}
		return nil
	}
	for range 3 {
		if _, err := w.sealer.Step(context.Background(), true); !errors.Is(err, errDisk) {
			t.Errorf("step: %v, expected the unreadable object", err)
		}
	}
	if left, pending := w.src.left(), len(w.src.Pending()); left != 2 || pending != 1 {
		t.Errorf("%d pieces and %d intents are left, expected those of stream 1 only", left, pending)
	}
	w.before = func(string) error { return nil }
	w.drain()
	w.check()
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t, few()...)
	stopBefore(w, atCommit)
	in := w.src.Pending()[0]
	in.Size = w.log.Tree().Size() + 1
	if err := w.src.Intend(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	if _, err := New(context.Background(), w.sealer.Config); !errors.Is(err, ledger.ErrBehind) {
		t.Errorf("a ledger shorter than the spool knows: %v", err)
	}
	c := w.sealer.Config
	c.Auditors = nil
	if _, err := New(context.Background(), c); err == nil || !strings.Contains(err.Error(), "auditor") {
		t.Errorf("without auditors: %v", err)
	}
}
