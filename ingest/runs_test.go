package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// bases are where the tables are tried: at the start, in the middle, at the
// last offset that the format knows.
var bases = []int64{0, 1 << 40, maxOffset - universe}

const universe = 400

// naiveRuns is a table of runs, byte by byte: which run each came with.
type naiveRuns [universe]struct {
	held bool
	slot int
	pos  int64
	tick uint32
}

// equal compares a table with the model.
func (m *naiveRuns) equal(t runs, base int64) error {
	var end int64
	i := 0
	for _, r := range t {
		if r.off() < end || r.len() <= 0 {
			return fmt.Errorf("run %d+%d after %d", r.off(), r.len(), end)
		}
		for ; int64(i) < r.off()-base; i++ {
			if m[i].held {
				return fmt.Errorf("offset %d is missing", i)
			}
		}
		for ; int64(i) < r.end()-base; i++ {
			if x := m[i]; !x.held || x.slot != r.slot() || x.pos != r.pos() || x.tick != r.tick() {
				return fmt.Errorf("offset %d: run %d %d %d, expected %+v", i, r.slot(), r.pos(), r.tick(), x)
			}
		}
		end = r.end()
	}
	for ; i < universe; i++ {
		if m[i].held {
			return fmt.Errorf("offset %d is missing at the end", i)
		}
	}
	return nil
}

func TestRunsModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		base := bases[seed%3]
		var table runs
		var model naiveRuns
		live := map[int]int64{}
		for range 150 {
			a := rng.Int64N(universe)
			b := min(universe, a+rng.Int64N(1+rng.Int64N(60)))
			gone := map[int]int64{}
			table.cut(base+a, base+b, func(slot int, n int64) { gone[slot] += n })
			for i := a; i < b; i++ {
				if x := &model[i]; x.held {
					x.held = false
					gone[x.slot]--
					live[x.slot]--
				}
			}
			for slot, n := range gone {
				if n != 0 {
					t.Fatalf("seed %d: slot %d: %d bytes too many said to be dead", seed, slot, n)
				}
			}
			if rng.IntN(4) > 0 && a < b {
				r := makeRun(base+a, b-a, rng.IntN(maxSlot+1), rng.Int64N(maxFile/sector)*sector, uint32(rng.IntN(maxTick+1)))
				table.put(r)
				live[r.slot()] += b - a
				for i := a; i < b; i++ {
					model[i].held, model[i].slot, model[i].pos, model[i].tick = true, r.slot(), r.pos(), r.tick()
				}
			}
			if err := model.equal(table, base); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			a, b = rng.Int64N(universe), rng.Int64N(universe)
			all := true
			for i := a; i < b; i++ {
				all = all && model[i].held
			}
			if got := table.covers(base+a, base+b); got != all {
				t.Fatalf("seed %d: covers(%d, %d) is %v", seed, a, b, got)
			}
			i := table.from(base + a)
			if i > 0 && table[i-1].end() > base+a || i < len(table) && table[i].end() <= base+a {
				t.Fatalf("seed %d: from(%d) is %d", seed, a, i)
			}
		}
		sum := map[int]int64{}
		for _, r := range table {
			sum[r.slot()] += r.len()
		}
		for slot, n := range live {
			if sum[slot] != n {
				t.Fatalf("seed %d: %d bytes live in slot %d, expected %d", seed, sum[slot], slot, n)
			}
		}
	}
}

// A part of a run is read from the same place.
func TestRunSub(t *testing.T) {
	r := makeRun(maxOffset-maxRun, maxRun, 77, 96<<20, 1234)
	for _, x := range [][2]int64{{r.off(), r.off() + 1}, {r.end() - 1, r.end()}, {r.off() + 1000, r.end() - 1<<20}, {r.off(), r.end()}} {
		s := r.sub(x[0], x[1])
		if s.off() != x[0] || s.end() != x[1] || s.slot() != 77 || s.pos() != 96<<20 || s.tick() != 1234 {
			t.Errorf("%v: %d to %d, slot %d pos %d tick %d", x, s.off(), s.end(), s.slot(), s.pos(), s.tick())
		}
	}
}

func TestSpansModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		base := bases[seed%3]
		var s spans
		var model [universe]bool
		for range 100 {
			a := rng.Int64N(universe)
			b := min(universe, a+1+rng.Int64N(40))
			if rng.IntN(12) > 0 {
				s.add(base+a, base+b)
				for i := a; i < b; i++ {
					model[i] = true
				}
			} else {
				a /= 3
				s.removeBelow(base + a)
				clear(model[:a])
			}
			var got [universe]bool
			for i, x := range s {
				if x[0] >= x[1] || i > 0 && x[0] <= s[i-1][1] {
					t.Fatalf("seed %d: spans %v are not apart", seed, s)
				}
				for o := x[0] - base; o < x[1]-base; o++ {
					got[o] = true
				}
			}
			if got != model {
				t.Fatalf("seed %d: spans %v hold other offsets", seed, s)
			}
			off, end := rng.Int64N(universe), rng.Int64N(universe+1)
			want := off
			for want < end && !model[want] {
				want++
			}
			if got := s.first(base+off, base+end); off <= end && got != base+want {
				t.Fatalf("seed %d: first(%d, %d) is %d, expected %d", seed, off, end, got-base, want)
			}
		}
	}
}

// classify splits a write into parts that each meet one thing, the same as
// asking for each byte alone.
func TestClassifyModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		base := bases[seed%3]
		var g gen
		g.freed = base + rng.Int64N(50)
		g.sealed = g.freed + rng.Int64N(50)
		for at := g.freed; at < base+universe; {
			n := 1 + rng.Int64N(30)
			if n = min(n, base+universe-at); rng.IntN(3) > 0 {
				g.data.put(makeRun(at, n, rng.IntN(3), 0, 0))
			}
			at += n
		}
		if rng.IntN(3) == 0 {
			g.ended = time.Unix(1, 0)
		}
		claim := g.sealed
		if rng.IntN(2) == 0 {
			g.offer = testPiece(g.sealed, rng.Int64N(80))
			claim += g.offer.Span
		}
		if rng.IntN(4) == 0 { // an intent counts, not what was offered before
			g.intent = testIntent(g.sealed, rng.Int64N(80))
			claim = g.sealed + g.intent.Piece.Span
		}
		one := func(off int64) partKind {
			held := slices.ContainsFunc(g.data, func(r run) bool { return r.off() <= off && off < r.end() })
			switch {
			case held:
				return partHeld
			case off < g.sealed:
				return partGone
			case !g.ended.IsZero() || off < claim:
				return partLate
			}
			return partNew
		}
		off := base + rng.Int64N(universe)
		for end := min(base+universe, off+rng.Int64N(200)); off < end; {
			p, kind := g.classify(off, end)
			if p.a != off || p.b <= off || p.b > end {
				t.Fatalf("seed %d: part %v of [%d, %d)", seed, p, off, end)
			}
			for ; off < p.b; off++ {
				if want := one(off); want != kind {
					t.Fatalf("seed %d: offset %d is %d, expected %d", seed, off-base, kind, want)
				}
			}
		}
	}
}

// Ticks are quarters of an hour; out of 15 years around the start they stop at
// the ends; the disk's form does not depend on when the spool was opened.
func TestTickClock(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 7, 6, 5, time.UTC)
	a, b := newTickClock(now), newTickClock(now.Add(700*24*time.Hour))
	for _, at := range []time.Time{now, now.Add(-10 * 365 * 24 * time.Hour), now.Add(10 * 365 * 24 * time.Hour), now.Truncate(quarter), now.Truncate(quarter).Add(-1), now.Truncate(quarter).Add(quarter - 1)} {
		tick := a.tick(at)
		if got := a.time(tick); !got.Equal(at.Truncate(quarter)) {
			t.Errorf("%v reads as %v", at, got)
		}
		if q := a.quarters(tick); a.tickOf(q) != tick || !b.time(b.tickOf(q)).Equal(a.time(tick)) {
			t.Errorf("%v: quarter %d reads as %v in another run", at, q, b.time(b.tickOf(q)))
		}
	}
	for _, years := range []int{-16, -56, 16, 200} {
		tick := a.tick(now.AddDate(years, 0, 0))
		if want := map[bool]uint32{true: 0, false: maxTick}[years < 0]; tick != want {
			t.Errorf("%d years off: tick %d, expected %d", years, tick, want)
		}
	}
	early := newTickClock(time.Unix(0, 0)) // a machine without a clock
	if tick := early.tick(time.Unix(0, 0)); early.quarters(0) != 0 || early.quarters(tick) != 0 || early.tickOf(0) != tick {
		t.Errorf("in 1970: tick %d, quarters %d and %d", tick, early.quarters(0), early.quarters(tick))
	}
}
