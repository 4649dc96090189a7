package ingest

import (
	"testing"
	"time"

	"logvault/vault"
)

// TestMark: a mark forgets nothing that was there, and nothing that comes later
// counts below it. `seal` under load would else never end, or end too early.
func TestMark(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.add(streamB)
	r.write(streamA, 0, 0, "one\nthr", true)
	m := r.s.Mark()
	if len(m) != 1 || m[streamA][0] != 7 {
		t.Fatalf("mark %v, expected 7 bytes of one stream", m)
	}
	r.write(streamA, 1, 0, "later\n", true)
	r.write(streamB, 0, 0, "later\n", true)
	below := func(what string, m Mark, id vault.StreamID, want int64) {
		t.Helper()
		if left := r.s.Below(m); left[id] != want || want == 0 && len(left) > 0 {
			t.Errorf("%s: below the mark %v, expected %d", what, left, want)
		}
	}
	sealA := func(index int64) {
		t.Helper()
		for _, p := range r.due(true) {
			if p.Stream == streamA {
				r.seal(p, index)
			}
		}
	}
	below("nothing sealed", m, streamA, 7)
	sealA(1)
	below("whole lines sealed", m, streamA, 3)
	r.write(streamA, 0, 7, "ee\nfour\n", true)
	below("the line goes on", m, streamA, 3)
	sealA(2)
	below("all sealed, and more", m, streamA, 0)
	below("a stream that is not there", Mark{{9}: {0: 5}}, vault.StreamID{9}, 0)
}

// TestRecordDateWithClockSetBack: retention counts from the youngest byte of a
// piece by either end, so that a clock set back while it was received cannot
// make what was received before leave early.
func TestRecordDateWithClockSetBack(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	first := r.wall
	r.write(streamA, 0, 0, "one\n", true)
	r.wall = r.wall.Add(-5 * time.Minute)
	r.write(streamA, 0, 4, "two\n", true)
	due := r.due(true)
	if len(due) != 1 || due[0].Span != 8 || !due[0].Record.Equal(first) || !due[0].LastReceived.Equal(first) {
		t.Errorf("%+v, expected one piece with the record date %v", due, first)
	}
}
