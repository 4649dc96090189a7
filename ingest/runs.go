package ingest

import (
	"slices"
	"sort"
	"time"
)

// run says where a stretch of a generation's bytes is: length bytes from an
// offset, in one or more groups that follow each other in one file, of which the
// first is at a position. It takes 16 bytes; extents that follow each other in
// the stream and on the disk share one, so that a stream written alone costs
// 16 bytes per mergeSpan of file and an extent never costs more than 16.
//
//	a: offset (53 bits) | length, high part (11 bits)
//	b: length, low part (10) | position / 512 (18) | file slot (16) | tick (20)
type run struct{ a, b uint64 }

const (
	maxRun  = 1<<21 - 1
	maxFile = 1 << 27 // 128 MiB
	maxSlot = 1<<16 - 1
	maxTick = 1<<20 - 1

	// mergeSpan bounds the file bytes that a merged run covers: what must be
	// read and decrypted to reach its last byte.
	mergeSpan = 64 << 10
)

func makeRun(off, n int64, slot int, pos int64, tick uint32) run {
	return run{
		a: uint64(off)<<11 | uint64(n)>>10,
		b: uint64(n)<<54 | uint64(pos/sector)<<36 | uint64(slot)<<20 | uint64(tick),
	}
}

func (r run) off() int64   { return int64(r.a >> 11) }
func (r run) len() int64   { return int64(r.a&(1<<11-1)<<10 | r.b>>54) }
func (r run) end() int64   { return r.off() + r.len() }
func (r run) pos() int64   { return int64(r.b>>36&(1<<18-1)) * sector }
func (r run) slot() int    { return int(r.b >> 20 & maxSlot) }
func (r run) tick() uint32 { return uint32(r.b & maxTick) }

// sub returns the part [a, b) of the run.
func (r run) sub(a, b int64) run { return makeRun(a, b-a, r.slot(), r.pos(), r.tick()) }

// tickClock maps times to the 20-bit ticks of runs: quarters of an hour around
// the moment the spool was opened, 15 years each way. Day boundaries of every
// zone in use fall on quarters of an hour, so ticks are enough to tell days apart.
type tickClock struct{ base int64 } // quarter-hours since 1970 at tick 0

const quarter = 15 * time.Minute

func newTickClock(now time.Time) tickClock {
	return tickClock{now.Unix()/int64(quarter/time.Second) - maxTick/2}
}

// tick returns the tick that holds t.
func (c tickClock) tick(t time.Time) uint32 {
	return uint32(min(max(t.Unix()/int64(quarter/time.Second)-c.base, 0), maxTick))
}

// time returns the start of a tick.
func (c tickClock) time(tick uint32) time.Time {
	return time.Unix((c.base+int64(tick))*int64(quarter/time.Second), 0).UTC()
}

// quarters and tickOf convert to and from the disk's form: quarters since 1970.
func (c tickClock) quarters(tick uint32) uint32 { return uint32(max(c.base+int64(tick), 0)) }
func (c tickClock) tickOf(q uint32) uint32 {
	return uint32(min(max(int64(q)-c.base, 0), maxTick))
}

// runs is a table of runs: sorted by offset, not overlapping.
type runs []run

// from returns the index of the first run that ends after off.
func (t runs) from(off int64) int {
	return sort.Search(len(t), func(i int) bool { return t[i].end() > off })
}

// cut removes [a, b) from the table and tells dead what was removed.
func (t *runs) cut(a, b int64, dead func(slot int, n int64)) {
	i := t.from(a)
	j := i
	var keep []run
	for ; j < len(*t) && (*t)[j].off() < b; j++ {
		r := (*t)[j]
		lo, hi := max(r.off(), a), min(r.end(), b)
		dead(r.slot(), hi-lo)
		if r.off() < lo {
			keep = append(keep, r.sub(r.off(), lo))
		}
		if hi < r.end() {
			keep = append(keep, r.sub(hi, r.end()))
		}
	}
	if i != j {
		*t = slices.Replace(*t, i, j, keep...)
	}
}

// put adds a run whose bytes are not in the table.
func (t *runs) put(r run) {
	i := t.from(r.off())
	*t = slices.Insert(*t, i, r)
}

// spans is a set of offsets: sorted, disjoint, not adjacent intervals.
type spans [][2]int64

// add adds [a, b).
func (s *spans) add(a, b int64) {
	i := sort.Search(len(*s), func(i int) bool { return (*s)[i][1] >= a })
	j := i
	for ; j < len(*s) && (*s)[j][0] <= b; j++ {
		a, b = min(a, (*s)[j][0]), max(b, (*s)[j][1])
	}
	*s = slices.Replace(*s, i, j, [2]int64{a, b})
}

// remove removes everything below off.
func (s *spans) removeBelow(off int64) {
	i := sort.Search(len(*s), func(i int) bool { return (*s)[i][1] > off })
	*s = slices.Delete(*s, 0, i)
	if len(*s) > 0 && (*s)[0][0] < off {
		(*s)[0][0] = off
	}
}

// first returns the first offset of the set at or after off, or end.
func (s spans) first(off, end int64) int64 {
	i := sort.Search(len(s), func(i int) bool { return s[i][1] > off })
	if i == len(s) {
		return end
	}
	return min(max(s[i][0], off), end)
}
