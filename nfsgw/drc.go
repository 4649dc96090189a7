package nfsgw

import (
	"net/netip"
	"sync"
	"time"
)

// A client that lost its connection sends unanswered calls again. For a
// procedure that cannot be done twice (a REMOVE would now say NOENT), the
// answer is that of the first time. The cache is in memory: after a restart a
// repeated call is done anew.

const (
	maxReplies  = 4096             // remembered answers, about 400 bytes each
	keepReplies = 10 * time.Minute // a client repeats after 60 s; later the xid is another call's
)

type replyKey struct {
	peer      netip.Addr
	xid, proc uint32
	sum       uint32 // CRC-32C of the arguments
	size      int    // of the arguments
}

// replyEntry is the answer to a call, or the promise of one.
type replyEntry struct {
	done  chan struct{} // closed when reply is set
	reply []byte        // nil: there was no answer to keep
	at    time.Time
}

type replyCache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[replyKey]*replyEntry
	order   []replyKey // a ring, oldest at next
	next    int
}

func newReplyCache(now func() time.Time) *replyCache {
	return &replyCache{now: now, entries: make(map[replyKey]*replyEntry)}
}

// begin returns the entry of a call and whether this is the first time it is
// seen; then the caller runs it and calls end.
func (rc *replyCache) begin(key replyKey) (entry *replyEntry, first bool) {
	now := rc.now()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if e := rc.entries[key]; e != nil && now.Sub(e.at) < keepReplies {
		return e, false
	}
	e := &replyEntry{done: make(chan struct{}), at: now}
	if len(rc.order) < maxReplies {
		rc.order = append(rc.order, key)
	} else {
		delete(rc.entries, rc.order[rc.next])
		rc.order[rc.next] = key
		rc.next = (rc.next + 1) % maxReplies
	}
	rc.entries[key] = e
	return e, true
}

// end sets the answer; nil forgets the call.
func (rc *replyCache) end(key replyKey, e *replyEntry, reply []byte) {
	rc.mu.Lock()
	if reply == nil && rc.entries[key] == e {
		delete(rc.entries, key)
	}
	rc.mu.Unlock()
	e.reply = reply
	close(e.done)
}
