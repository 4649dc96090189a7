package nfsgw

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"logvault/vault"
)

// A client that lost its connection, or its gateway, sends unanswered calls
// again. For a procedure that cannot be done twice (a REMOVE would now say
// NOENT), the answer is that of the first time. Of a call that changed
// something the Sink stores the answer together with the change, so that no
// crash comes between; of one that failed it is in memory, and after a restart
// the call fails again.
//
// What is kept is not the reply but what it is made of: the status and the file
// that was made. The attributes in a repeated reply are those of now.

const (
	maxReplies  = 8192             // remembered answers
	replySlots  = 8192 + 64        // slots for them in the Sink's table; so many more can be on their way out
	peerReplies = 1024             // of one peer: twice the calls that it may have running
	keepReplies = 10 * time.Minute // a client repeats after 60 s; later the xid is another call's
)

type replyKey struct {
	peer            netip.Addr
	xid, proc       uint32
	argsSum, argLen uint32 // CRC-32C of the arguments, and their length
}

// answer is what a call was answered.
type answer struct {
	status status
	made   uint64 // by CREATE and MKDIR: the file id; 0: nothing
}

// replyEntry is the answer to a call, or the promise of one.
type replyEntry struct {
	key    replyKey
	slot   int
	done   chan struct{} // closed when answer and kept are set
	kept   bool          // false: there was no answer to keep
	answer answer

	running bool      // under replyCache.mu
	at      time.Time // it began or, when it runs no more, ended; changed under replyCache.mu
}

// replyCache remembers answers: at most peerReplies of a peer, for keepReplies,
// which begin anew at a restart, because clients wait for as long as it takes.
type replyCache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[replyKey]*replyEntry
	order   []*replyEntry // oldest first
	peers   map[netip.Addr]int
	free    []int        // slots that were used before
	next    int          // slots from here on were never used
	stored  map[int]bool // slots with a record in the Sink, perhaps an outdated one
}

func newReplyCache(now func() time.Time) *replyCache {
	return &replyCache{now: now, entries: map[replyKey]*replyEntry{}, peers: map[netip.Addr]int{}, stored: map[int]bool{}}
}

// begin returns the entry of a call and whether this is the first time it is
// seen; then the caller runs it and calls end. Nil: there are too many calls that
// run, none of which can be forgotten.
func (rc *replyCache) begin(key replyKey) (entry *replyEntry, first bool) {
	now := rc.now()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if e := rc.entries[key]; e != nil {
		if e.running || now.Sub(e.at) < keepReplies {
			return e, false
		}
		rc.remove(e)
	}
	if rc.peers[key.peer] >= peerReplies {
		rc.evict(func(e *replyEntry) bool { return e.key.peer == key.peer })
	}
	for len(rc.order) >= maxReplies {
		if !rc.evict(func(*replyEntry) bool { return true }) {
			return nil, false
		}
	}
	e := &replyEntry{key: key, at: now, running: true, done: make(chan struct{})}
	if n := len(rc.free); n > 0 {
		e.slot, rc.free = rc.free[n-1], rc.free[:n-1]
	} else {
		e.slot = rc.next
		rc.next++
	}
	rc.add(e)
	return e, true
}

// add and remove keep entries, order and peers together; mu is held.
func (rc *replyCache) add(e *replyEntry) {
	rc.entries[e.key] = e
	rc.order = append(rc.order, e)
	rc.peers[e.key.peer]++
}

func (rc *replyCache) remove(e *replyEntry) {
	i := slices.Index(rc.order, e)
	if i < 0 {
		return // removed already
	}
	rc.order = slices.Delete(rc.order, i, i+1)
	delete(rc.entries, e.key)
	if rc.peers[e.key.peer]--; rc.peers[e.key.peer] == 0 {
		delete(rc.peers, e.key.peer)
	}
	rc.free = append(rc.free, e.slot)
}

// evict removes the oldest entry that fits and whose call runs no more. One that
// runs must be found when it is asked for again, and its slot is in use.
func (rc *replyCache) evict(fits func(*replyEntry) bool) bool {
	i := slices.IndexFunc(rc.order, func(e *replyEntry) bool { return !e.running && fits(e) })
	if i < 0 {
		return false
	}
	rc.remove(rc.order[i])
	return true
}

// end sets the answer, or forgets the call if there is none to keep.
func (rc *replyCache) end(e *replyEntry, a answer, keep bool) {
	now := rc.now()
	rc.mu.Lock()
	e.running, e.at = false, now
	if !keep {
		rc.remove(e)
	}
	rc.mu.Unlock()
	e.answer, e.kept = a, keep
	close(e.done)
}

// wasStored notes that the Sink has the entry's record.
func (rc *replyCache) wasStored(e *replyEntry) {
	rc.mu.Lock()
	rc.stored[e.slot] = true
	rc.mu.Unlock()
}

// outdated forgets what is too old and returns slots whose records nobody needs
// any more, a batch of them. They are not given to others before dropped is called.
func (rc *replyCache) outdated() (slots []int) {
	now := rc.now()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for len(rc.order) > 0 && !rc.order[0].running && now.Sub(rc.order[0].at) >= keepReplies {
		rc.remove(rc.order[0])
	}
	rc.free = slices.DeleteFunc(rc.free, func(slot int) bool {
		take := rc.stored[slot] && len(slots) < replySlots-maxReplies
		if take {
			slots = append(slots, slot)
		}
		return take
	})
	return slots
}

// dropped gives slots back; removed says that their records are no more.
func (rc *replyCache) dropped(slots []int, removed bool) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.free = append(rc.free, slots...)
	for _, slot := range slots {
		if removed {
			delete(rc.stored, slot)
		}
	}
}

// replyPrefix is the prefix of the answers in the Sink's metadata table,
// followed by the slot as 4 hex digits.
const replyPrefix = "nfs/reply/"

// An answer's record. Numbers are big-endian.
//
//	 0  version, 1
//	 1  zero (3)
//	 4  xid (4), procedure (4), CRC-32C of the arguments (4), their length (4)
//	20  the peer's address (16); IPv4 as IPv4-mapped IPv6
//	36  the file that was made (8); 0: none
//	44  when, ns since 1970 (8)
const (
	replyVersion = 1
	replyRecord  = 52
)

func replySlot(slot int) string { return fmt.Sprintf("%s%04x", replyPrefix, slot) }

// record is the entry as it is stored: of an answer OK.
func (e *replyEntry) record(made uint64) vault.KV {
	be := binary.BigEndian
	b := append(make([]byte, 0, replyRecord), replyVersion, 0, 0, 0)
	for _, v := range [...]uint32{e.key.xid, e.key.proc, e.key.argsSum, e.key.argLen} {
		b = be.AppendUint32(b, v)
	}
	peer := e.key.peer.As16()
	b = append(b, peer[:]...)
	b = be.AppendUint64(b, made)
	return vault.KV{Key: replySlot(e.slot), Value: be.AppendUint64(b, uint64(e.at.UnixNano()))}
}

// decodeReply parses a record strictly: what it accepts, record gives back.
func decodeReply(kv vault.KV) (*replyEntry, error) {
	hex, ok := strings.CutPrefix(kv.Key, replyPrefix)
	slot, err := strconv.ParseUint(hex, 16, 16)
	b := kv.Value
	switch {
	case err != nil || !ok || replySlot(int(slot)) != kv.Key || slot >= replySlots:
		return nil, fmt.Errorf("reply record %q: expected %s and 4 hex digits below %04x", kv.Key, replyPrefix, replySlots)
	case len(b) > 0 && b[0] != replyVersion:
		return nil, fmt.Errorf("reply record %s: version %d: %w", kv.Key, b[0], vault.ErrNewer)
	case len(b) != replyRecord || b[1]|b[2]|b[3] != 0:
		return nil, fmt.Errorf("reply record %s: %x, expected %d bytes of version %d", kv.Key, b, replyRecord, replyVersion)
	}
	be := binary.BigEndian
	e := &replyEntry{slot: int(slot), kept: true, done: make(chan struct{}), at: time.Unix(0, int64(be.Uint64(b[44:])))}
	e.key = replyKey{
		xid: be.Uint32(b[4:]), proc: be.Uint32(b[8:]), argsSum: be.Uint32(b[12:]), argLen: be.Uint32(b[16:]),
		peer: netip.AddrFrom16([16]byte(b[20:36])).Unmap(),
	}
	e.answer.made = be.Uint64(b[36:])
	close(e.done)
	return e, nil
}

// restore takes over the answers of an earlier process. Of two for one call the
// later counts; an outdated record is one whose slot was used again for a call
// that changed nothing.
func (rc *replyCache) restore(found []*replyEntry) {
	now := rc.now()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	slices.SortFunc(found, func(a, b *replyEntry) int { return cmp.Or(a.at.Compare(b.at), a.slot-b.slot) })
	used := map[int]bool{}
	for _, e := range found {
		used[e.slot], rc.stored[e.slot] = true, true
		rc.next = max(rc.next, e.slot+1)
		if old := rc.entries[e.key]; old != nil {
			rc.remove(old)
		}
		e.at = now
		rc.add(e)
	}
	for slot := range rc.next {
		if !used[slot] {
			rc.free = append(rc.free, slot)
		}
	}
}

// repeat builds the reply to a call that was carried out before.
func (s *Server) repeat(c *call, a answer) {
	var first, second wcc
	watch := func(w *wcc) {
		n, _ := s.resolve(c, c.args.opaque(maxHandle)) // nil if it is gone
		n.snapshot(w)
	}
	c.reply.status(a.status)
	watch(&first)
	switch c.proc {
	case procCreate, procMkdir:
		if a.status == statusOK {
			s.replyMade(c, a.made)
		}
	case procRename:
		c.args.opaque(maxPath)
		watch(&second)
		c.reply.wcc(&first)
		first = second
	}
	c.reply.wcc(&first)
}

// replyMade appends the handle and the attributes of a new node, which may be
// gone again when it is a repeated call that is answered.
func (s *Server) replyMade(c *call, id uint64) {
	h := s.handles.make(id)
	c.reply.flag(true)
	c.reply.opaque(h[:])
	s.mu.RLock()
	n := s.nodes[id]
	s.mu.RUnlock()
	c.reply.postOpOf(n)
}
