package nfsgw

import (
	"net/netip"
	"testing"
	"time"
)

// replyBench is an empty cache and a clock to set.
func replyBench() (*replyCache, *time.Time) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return newReplyCache(func() time.Time { return now }), &now
}

func replyKeyOf(peer, xid int) replyKey {
	return replyKey{peer: netip.AddrFrom4([4]byte{10, byte(peer >> 8), byte(peer), 1}), xid: uint32(xid)}
}

func TestReplyCacheForgets(t *testing.T) {
	rc, now := replyBench()
	run := func(peer, xid int) bool {
		e, first := rc.begin(replyKeyOf(peer, xid))
		if first {
			rc.end(e, answer{status: statusExist}, true)
		} else if e.answer.status != statusExist {
			t.Errorf("call %d of peer %d: another answer", xid, peer)
		}
		return first
	}
	if !run(1, 1) || run(1, 1) {
		t.Error("the second time is not seen as such")
	}
	*now = now.Add(keepReplies)
	if !run(1, 1) {
		t.Error("an old answer is given")
	}
	for i := range peerReplies {
		run(2, i)
	}
	if run(1, 1) || run(2, 0) {
		t.Error("forgotten below the limit of a peer")
	}
	run(2, peerReplies)
	if run(1, 1) || !run(2, 0) {
		t.Error("a peer with too many calls must lose its own oldest, and no other's")
	}
	for i := range maxReplies {
		run(3+i, 1)
	}
	if len(rc.order) != maxReplies || len(rc.entries) != maxReplies || len(rc.peers) != maxReplies || rc.next > maxReplies {
		t.Errorf("%d answers, %d in order, %d peers, %d slots; expected %d", len(rc.entries), len(rc.order), len(rc.peers), rc.next, maxReplies)
	}
	e, _ := rc.begin(replyKeyOf(9, 9))
	rc.end(e, answer{}, false)
	if _, first := rc.begin(replyKeyOf(9, 9)); !first {
		t.Error("a call that had no answer is remembered")
	}
}

// TestRunningCallIsNotForgotten: a call that runs is found however long it takes
// and however many others come, and its answer is kept from its end on.
func TestRunningCallIsNotForgotten(t *testing.T) {
	rc, now := replyBench()
	slow, _ := rc.begin(replyKeyOf(1, 0))
	for _, peers := range []int{2, 40} { // too many of its peer, too many in all
		for i := range 2 * maxReplies {
			e, first := rc.begin(replyKeyOf(i%peers, 1+peers*maxReplies+i))
			if !first || e.slot == slow.slot {
				t.Fatalf("call %d: first time %t, slot %d; the running call has %d", i, first, e.slot, slow.slot)
			}
			rc.end(e, answer{}, true)
		}
	}
	*now = now.Add(2 * keepReplies)
	rc.outdated()
	if e, first := rc.begin(replyKeyOf(1, 0)); first || e != slow {
		t.Error("a call that runs would be run again")
	}
	rc.end(slow, answer{status: statusExist}, true)
	*now = now.Add(keepReplies - time.Second)
	rc.outdated()
	if e, first := rc.begin(replyKeyOf(1, 0)); first || e.answer.status != statusExist {
		t.Error("the answer to a slow call is not kept for its time")
	}
	*now = now.Add(time.Second)
	if _, first := rc.begin(replyKeyOf(1, 0)); !first {
		t.Error("the answer is kept for ever")
	}
}

// TestAllCallsRunning: when no call can be forgotten, one more is told to wait.
func TestAllCallsRunning(t *testing.T) {
	w, _, _ := clockBench(t)
	w.s.fullDelay = 0
	var last *replyEntry
	for i := range maxReplies {
		last, _ = w.s.replies.begin(replyKeyOf(i, 1))
	}
	if st := w.ask(t, procCreate, createArgsFor(w.root, "f")); st != statusJukebox || w.root.children["f"] != nil {
		t.Errorf("a call above the limit: status %d, done %t", st, w.root.children["f"] != nil)
	}
	w.s.replies.end(last, answer{}, true)
	w.create(t, "f")
}

// TestSlotsWhileTheirRecordsGo: while outdated records are on their way out,
// new calls get slots whose records the next process reads.
func TestSlotsWhileTheirRecordsGo(t *testing.T) {
	rc, now := replyBench()
	fill := func(xid int) {
		for i := range maxReplies {
			e, _ := rc.begin(replyKeyOf(i, xid))
			if _, err := decodeReply(e.record(0)); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
			rc.wasStored(e)
			rc.end(e, answer{}, true)
		}
	}
	fill(1)
	*now = now.Add(keepReplies)
	gone := rc.outdated()
	fill(2)
	rc.dropped(gone, true)
	*now = now.Add(keepReplies)
	seen := map[int]bool{}
	for {
		slots := rc.outdated()
		if len(slots) == 0 {
			break
		}
		for _, slot := range slots {
			seen[slot] = true
		}
		rc.dropped(slots, true)
	}
	if len(seen) < maxReplies || len(seen) > replySlots || len(rc.stored) != 0 {
		t.Errorf("%d slots had outdated records, %d still have", len(seen), len(rc.stored))
	}
	rc.restore(nil)
	fill(3)
}
