package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/window"
	"logvault/vault"
)

// clockSlack is how far an entry may be dated before an earlier one without
// a word: clocks are stepped back by little all the time.
const clockSlack = 5 * time.Minute

// aheadSlack is how far an entry may be dated after the audit, or before what it
// says was received, without a word. A clock that runs ahead would have lines
// kept too long; an auditor's own clock may be wrong by hours.
const aheadSlack = 24 * time.Hour

// history is what the entries of the main ledger say, as far as later checks
// need it. scan fills it, entry by entry.
type history struct {
	a    *audit
	next int64 // entries scanned

	init      *entry.Init
	signers   *ledger.Keys         // the succession of ledger keys; nil before init
	auditors  []string             // of the policy in force
	window    *window.Window       // dates
	keys      map[int64]*periodKey // by entry index
	streams   map[generation]streamEnd
	owners    map[vault.StreamID]owned
	orphans   map[string]*entry.Orphan // by name
	tokens    map[int64]*token         // time-stamps, by the size of the head
	stamped   int64                    // the largest of these sizes
	registers map[string]register      // of requests, by name
	requests  map[int64]bool           // by entry index
	commits   map[vault.Hash]bool      // of holds, releases and extensions: records in register/ of any class
	wraps     map[string]int64         // name → index of the key entry
	days      []vault.Day              // distinct destruction days; refs hold positions
	dayIndex  map[vault.Day]int32
	refs      []ref // one per segment and index; sorted once scanned
	latest    time.Time
	ahead     bool  // some entry is dated after the audit, and that is reported
	bytes     int64 // of everything the entries name
}

// generation names one append-only run of bytes.
type generation struct {
	stream vault.StreamID
	gen    int64
}

// streamEnd is how far the entries of a generation have come.
type streamEnd struct {
	offset int64 // where the next one must begin
	closed bool
}

// owned is a stream as its entries know it, whatever the generation.
type owned struct {
	source vault.Source
	last   int64 // index of the last segment or gap entry
}

// periodKey is a key entry and what is known of its wraps.
type periodKey struct {
	class  vault.Class
	day    vault.Day
	public vault.Hash
	wraps  []wrapped

	destroyed bool // a copy log of this vault has the tombstone
	sealed    bool // some segment is sealed to it
	live      bool // some of its segments is not due
	fresh     bool // some is due but within its grace
}

// wrapped is one wrap of a period key, and for how many auditors it is.
type wrapped struct {
	hash       vault.Hash
	recipients int
}

// register is an entry's record with personal data.
type register struct {
	entry  int64
	object vault.Hash
	class  vault.Class
	time   time.Time
}

// ref stands for one object named by a segment entry: 48 bytes.
type ref struct {
	hash  vault.Hash
	entry int64
	day   int32 // position in history.days
	index bool  // the sealed index, else the segment
	zstd  bool
}

func newHistory(a *audit) *history {
	return &history{
		a:         a,
		window:    window.New(),
		keys:      make(map[int64]*periodKey),
		streams:   make(map[generation]streamEnd),
		owners:    make(map[vault.StreamID]owned),
		orphans:   make(map[string]*entry.Orphan),
		tokens:    make(map[int64]*token),
		registers: make(map[string]register),
		requests:  make(map[int64]bool),
		commits:   make(map[vault.Hash]bool),
		wraps:     make(map[string]int64),
		dayIndex:  make(map[vault.Day]int32),
	}
}

// scan reads the entries of tree from index from to its end and reports
// whether all could be read. What an entry says wrong does not stop it.
func (h *history) scan(ctx context.Context, tree *ledger.Tree, from int64) bool {
	h.next = from
	err := tree.Entries(ctx, from, tree.Size(), func(i int64, data []byte) error {
		if i != h.next {
			return fmt.Errorf("entry %d: got entry %d", h.next, i)
		}
		h.add(i, data)
		h.next = i + 1
		return ctx.Err()
	})
	h.a.mu.Lock()
	h.a.sum.Entries = h.next
	h.a.mu.Unlock()
	slices.SortFunc(h.refs, compareRefs)
	h.duplicates(from)
	if err != nil {
		// Audit has named the tile or bundle; this says how far the entries go.
		h.a.find(codeBadEntry, "", h.next, "reading the entries stopped here: "+err.Error())
		return false
	}
	if tree.Size() > 0 && h.init == nil {
		h.a.find(codeBadEntry, "", 0, "the ledger does not begin with an init entry")
	}
	return true
}

func compareRefs(x, y ref) int {
	return cmp.Or(slices.Compare(x.hash[:], y.hash[:]), cmp.Compare(x.entry, y.entry))
}

// duplicates reports objects that two entries name, one of them at or after
// index from. refs are sorted.
func (h *history) duplicates(from int64) {
	for i := 1; i < len(h.refs); i++ {
		if x, y := h.refs[i-1], h.refs[i]; x.hash == y.hash && y.entry >= from {
			h.a.find(codeDuplicate, h.name(y), y.entry, fmt.Sprintf("entry %d names it too", x.entry))
		}
	}
}

// name returns the object name that a ref stands for.
func (h *history) name(r ref) string {
	day := h.days[r.day]
	switch {
	case r.index:
		return vault.IndexName(day, r.hash)
	case r.zstd:
		return vault.SegmentName(day, r.hash, vault.Zstd)
	default:
		return vault.SegmentName(day, r.hash, vault.Gzip)
	}
}

// names reports whether an entry names exactly this object.
func (h *history) names(o vault.Object) bool {
	switch o.Kind {
	case vault.KindWrap:
		_, ok := h.wraps[o.Name]
		return ok
	case vault.KindRegister:
		_, ok := h.registers[o.Name]
		return ok || h.commits[o.Hash]
	case vault.KindSegment, vault.KindIndex:
		i, ok := slices.BinarySearchFunc(h.refs, o.Hash, func(r ref, hash vault.Hash) int { return slices.Compare(r.hash[:], hash[:]) })
		for ; ok && i < len(h.refs) && h.refs[i].hash == o.Hash; i++ {
			if h.name(h.refs[i]) == o.Name {
				return true
			}
		}
	}
	return false
}

// wrong reports that entry i says what no gateway may write.
func (h *history) wrong(i int64, format string, args ...any) {
	h.a.find(codeBadEntry, "", i, fmt.Sprintf(format, args...))
}

// add takes in entry i.
func (h *history) add(i int64, data []byte) {
	e, err := entry.Decode(data)
	switch {
	case errors.Is(err, entry.ErrNewer):
		h.a.find(codeNeedsNewer, "", i, err.Error())
		return
	case err != nil:
		h.wrong(i, "%v", err)
		return
	}
	head := e.Head()
	if head.Time.Before(h.latest.Add(-clockSlack)) {
		h.a.differ(codeTimeOrder, "", i, "dated before an earlier entry", "not before "+stamp(h.latest), stamp(head.Time))
	}
	if head.Time.After(h.latest) {
		h.latest = head.Time
	}
	if now := h.a.o.Now; !h.ahead && head.Time.After(now.Add(aheadSlack)) {
		h.ahead = true // all later ones are, too
		h.a.differ(codeTimeOrder, "", i, "dated after this audit", "not after "+stamp(now), stamp(head.Time))
	}
	if _, first := e.(*entry.Init); first != (i == 0) {
		h.wrong(i, "%s entry: expected init as the first entry and nowhere else", e.Type())
	}
	if err := h.window.Add(i, e); err != nil {
		h.wrong(i, "%v", err)
	}
	switch e := e.(type) {
	case *entry.Init:
		h.init, h.signers = e, ledger.NewKeys(e.Key, e.Recovery)
	case *entry.Rotate:
		if h.signers == nil {
			h.wrong(i, "rotate entry before init")
		} else if err := h.signers.Add(i, data); err != nil {
			h.wrong(i, "rotate entry: %v", err)
		}
	case *entry.Policy:
		h.auditors = e.Auditors
	case *entry.Key:
		h.key(i, e)
	case *entry.Rewrap:
		h.rewrap(i, e)
	case *entry.Segment:
		h.segment(i, e)
	case *entry.Gap:
		h.join(i, e.Source, generation{e.Stream, e.Gen}, e.Prev, e.Offset, e.Span, false)
		h.a.find(codeGap, "", i, fmt.Sprintf("source %s, stream %s, generation %d: %d bytes from offset %d (%s)", e.Source, e.Stream, e.Gen, e.Span, e.Offset, e.Reason))
	case *entry.Conflict:
		h.a.find(codeConflict, "", i, fmt.Sprintf("source %s, stream %s, generation %d: %d bytes from offset %d; the other bytes are stream %s, generation %d",
			e.Source, e.Stream, e.Gen, e.Span, e.Offset, e.Other, e.OtherGen))
	default:
		h.rest(i, e)
	}
}

// rest takes in the entries that bring no log bytes.
func (h *history) rest(i int64, e entry.Entry) {
	switch e := e.(type) {
	case *entry.Orphan:
		h.orphans[e.Name] = e
	case *entry.Hold:
		h.commits[e.Commit] = true
	case *entry.Release:
		h.commits[e.Commit] = true
	case *entry.Extend:
		h.commits[e.Commit] = true
	case *entry.Request:
		name := vault.RegisterName(e.Class, e.Commit)
		if first, twice := h.registers[name]; twice {
			h.a.find(codeDuplicate, name, i, fmt.Sprintf("entry %d names it too", first.entry))
		}
		h.requests[i] = true
		h.registers[name] = register{entry: i, object: e.Object, class: e.Class, time: e.Time}
	case *entry.Disclosure:
		if !h.requests[e.Request] {
			h.wrong(i, "disclosure for entry %d, which is not an earlier request", e.Request)
		}
	case *entry.Timestamp:
		h.timestamp(i, e)
	case *entry.CopyInit, *entry.Held, *entry.Lock, *entry.ClockReading, *entry.ExpirePlan, *entry.Tombstone, *entry.Finding:
		h.wrong(i, "%s entry: belongs into a copy log", e.Type())
	}
}

func (h *history) key(i int64, e *entry.Key) {
	if got := vault.HashOf(e.Public); got != e.PublicHash {
		h.wrong(i, "public key packets: hash %s, expected %s", got, e.PublicHash)
	}
	if _, ok := h.window.Class(e.Class); !ok {
		h.wrong(i, "class %s is in no policy before", e.Class)
	}
	h.recipients(i, e.Recipients)
	h.keys[i] = &periodKey{class: e.Class, day: e.Day, public: e.PublicHash}
	h.wrap(i, i, wrapped{e.Wrap, len(e.Recipients)})
}

func (h *history) rewrap(i int64, e *entry.Rewrap) {
	if h.keys[e.Key] == nil {
		h.wrong(i, "rewrap of entry %d, which is not an earlier key", e.Key)
		return
	}
	h.recipients(i, e.Recipients)
	h.wrap(i, e.Key, wrapped{e.Wrap, len(e.Recipients)})
}

// wrap notes a wrap of the key of entry key, named by entry i.
func (h *history) wrap(i, key int64, w wrapped) {
	k := h.keys[key]
	name := vault.WrapName(k.day, k.class, k.public, w.hash)
	if _, twice := h.wraps[name]; twice {
		h.a.find(codeDuplicate, name, i, "an earlier entry names it too")
	}
	h.wraps[name] = key
	k.wraps = append(k.wraps, w)
}

// recipients compares who a key is wrapped for with the policy in force.
func (h *history) recipients(i int64, got []string) {
	want := slices.Sorted(slices.Values(h.auditors))
	got = slices.Sorted(slices.Values(got))
	if !slices.Equal(want, got) {
		h.a.differ(codeRecipients, "", i, "recipients of a period key", list(want), list(got))
	}
}

func list(s []string) string {
	if len(s) == 0 {
		return "nobody"
	}
	return strings.Join(s, ", ")
}

func (h *history) segment(i int64, e *entry.Segment) {
	h.join(i, e.Source, generation{e.Stream, e.Gen}, e.Prev, e.Offset, e.Span, e.Closed)
	if k := h.keys[e.Key]; k == nil {
		h.wrong(i, "sealed to entry %d, which is not an earlier key", e.Key)
	} else if k.class != e.Class || k.day != e.Day {
		h.wrong(i, "class %s, day %s: sealed to the key of class %s, day %s (entry %d)", e.Class, e.Day, k.class, k.day, e.Key)
	}
	if c, ok := h.window.Class(e.Class); !ok {
		h.wrong(i, "class %s is in no policy before", e.Class)
	} else if day := vault.DayOf(e.RetainUntil.In(c.Zone)); day != e.Day {
		h.wrong(i, "day %s, but %s is day %s in the class's zone", e.Day, stamp(e.RetainUntil), day)
	} else if latest := c.RetainUntil(e.LastReceived.AddDate(0, 0, 1)); e.RetainUntil.After(latest) {
		// Retention counts from the receipt or, of an import, from an earlier date.
		// The day more is for a clock that was set back meanwhile.
		h.wrong(i, "retained until %s: class %s allows no more than %s for what was received by %s", stamp(e.RetainUntil), e.Class, stamp(latest), stamp(e.LastReceived))
	}
	if e.LastReceived.Before(e.FirstReceived) {
		h.wrong(i, "last received %s before first received %s", stamp(e.LastReceived), stamp(e.FirstReceived))
	}
	if e.LastReceived.After(e.Time.Add(aheadSlack)) {
		h.a.differ(codeTimeOrder, "", i, "received after it was recorded", "by "+stamp(e.Time), stamp(e.LastReceived))
	}
	day := h.dayPosition(e.Day)
	h.refs = append(h.refs, ref{hash: e.Object, entry: i, day: day, zstd: e.Codec == vault.Zstd}, ref{hash: e.Index, entry: i, day: day, index: true})
	h.bytes += e.Size + e.IndexSize
	h.a.mu.Lock()
	h.a.sum.Segments++
	h.a.sum.Lines += e.Lines
	h.a.mu.Unlock()
}

func (h *history) dayPosition(d vault.Day) int32 {
	p, ok := h.dayIndex[d]
	if !ok {
		p = int32(len(h.days))
		h.days = append(h.days, d)
		h.dayIndex[d] = p
	}
	return p
}

// join checks that a segment or gap entry continues its stream: it names the
// stream's entry before it, of whichever generation, and begins where its
// generation had come to, which was not its end. The end of a generation is never forgotten, so that nothing can be
// slipped in behind it.
func (h *history) join(i int64, source vault.Source, g generation, prev, offset, span int64, closed bool) {
	stream, ok := h.owners[g.stream]
	if !ok {
		stream = owned{source, -1}
	} else if stream.source != source {
		h.a.differ(codeDiscontinuous, "", i, fmt.Sprintf("stream %s changes its source", g.stream), string(stream.source), string(source))
	}
	end := h.streams[g]
	where := fmt.Sprintf("stream %s, generation %d", g.stream, g.gen)
	switch {
	case end.closed:
		h.a.find(codeDiscontinuous, "", i, where+": continues after its end")
	case prev != stream.last:
		h.a.differ(codeDiscontinuous, "", i, where+": previous entry", index(stream.last), index(prev))
	case offset != end.offset:
		h.a.differ(codeDiscontinuous, "", i, where+": offset", fmt.Sprint(end.offset), fmt.Sprint(offset))
	}
	// Go on from what this entry says, so that one fault is reported once.
	h.streams[g] = streamEnd{offset: offset + span, closed: closed}
	h.owners[g.stream] = owned{stream.source, i}
}

func index(i int64) string {
	if i < 0 {
		return "none"
	}
	return fmt.Sprintf("entry %d", i)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
