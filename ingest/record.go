package ingest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"logvault/vault"
)

// recordKind tells what a record of a group is. A record is kind u8, length
// u32, body. Metadata records set absolute values, so that replaying one twice
// is replaying it once.
type recordKind byte

const (
	recExtent    recordKind = 1  // received bytes
	recDigest    recordKind = 2  // MACs of released blocks, laid out like an extent
	recStream    recordKind = 3  // a stream and its state
	recGen       recordKind = 4  // a generation and its state
	recForget    recordKind = 5  // a generation is over and no longer needed
	recSet       recordKind = 6  // metadata key and value
	recUnset     recordKind = 7  // metadata key removed
	recIntent    recordKind = 8  // the sealer's intent
	recDone      recordKind = 9  // the generation's intent is done
	recSecret    recordKind = 10 // key of the block MACs
	recSnapBegin recordKind = 11 // the metadata table follows, whole
	recSnapEnd   recordKind = 12
	recRuns      recordKind = 13 // footer: where a generation's bytes are in this file
	recMetaAt    recordKind = 14 // footer: positions of the groups with metadata records
	recUnstable  recordKind = 15 // in a footer's runs: bytes not covered by COMMIT or FILE_SYNC
	recOver      recordKind = 16 // a stream gets no bytes any more
)

const recordHead = 5

// appendRecord appends a record whose body fill writes.
func appendRecord(b []byte, kind recordKind, fill func([]byte) []byte) []byte {
	b = append(b, byte(kind), 0, 0, 0, 0)
	start := len(b)
	b = fill(b)
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// eachRecord calls fn for the records of a group.
func eachRecord(plain []byte, fn func(kind recordKind, body []byte) error) error {
	for len(plain) > 0 {
		if len(plain) < recordHead {
			return fmt.Errorf("spool record: %d trailing bytes: %w", len(plain), errDamaged)
		}
		n := binary.BigEndian.Uint32(plain[1:])
		if uint64(n) > uint64(len(plain)-recordHead) {
			return fmt.Errorf("spool record: length %d, %d left: %w", n, len(plain)-recordHead, errDamaged)
		}
		if err := fn(recordKind(plain[0]), plain[recordHead:recordHead+n]); err != nil {
			return err
		}
		plain = plain[recordHead+n:]
	}
	return nil
}

// decoder takes fields off the front of a record; bad sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, n)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() byte    { return d.take(1)[0] }
func (d *decoder) u32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) i64() int64  { return int64(binary.BigEndian.Uint64(d.take(8))) }

// offset is an i64 that must be a position in a stream.
func (d *decoder) offset() int64 {
	v := d.i64()
	d.bad = d.bad || v < 0 || v > maxOffset
	return v
}

func (d *decoder) time() time.Time { return unpackTime(d.i64()) }

func (d *decoder) stream() vault.StreamID { return vault.StreamID(d.take(16)) }

// short is a string of at most 255 bytes behind its length.
func (d *decoder) short() []byte {
	n := int(d.u8())
	if n > len(d.b) {
		d.bad = true
		return nil
	}
	return d.take(n)
}

func (d *decoder) long() []byte {
	n := d.u32()
	if uint64(n) > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("spool record %s: malformed: %w", what, errDamaged)
	}
	return nil
}

func appendI64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func appendShort[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendLong(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// A time is nanoseconds since 1970; the zero time is the smallest number.
const noTime = -1 << 63

func packTime(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixNano()
}

func unpackTime(v int64) time.Time {
	if v == noTime {
		return time.Time{}
	}
	return time.Unix(0, v).UTC()
}

// genKey names a generation.
type genKey struct {
	stream vault.StreamID
	gen    int64
}

func (k genKey) append(b []byte) []byte { return appendI64(append(b, k.stream[:]...), k.gen) }

func (d *decoder) genKey() genKey { return genKey{d.stream(), d.offset()} }

// extentHead is what is stored with received bytes.
type extentHead struct {
	genKey
	off    int64
	wall   time.Time     // received
	boot   time.Duration // received, on the clock that never steps
	stable bool          // the client asked for FILE_SYNC
	client netip.Addr    // zero: not from a client that sends again
	source vault.Source
}

// extentSize is the size of an extent record with n payload bytes, at most.
func extentSize(source vault.Source, n int) int {
	return recordHead + 16 + 8 + 8 + 8 + 8 + 1 + 1 + 16 + 1 + len(source) + n
}

func (h *extentHead) append(b []byte, kind recordKind, payload []byte) []byte {
	return appendRecord(b, kind, func(b []byte) []byte {
		b = h.genKey.append(b)
		b = appendI64(b, h.off)
		b = appendI64(b, packTime(h.wall))
		b = appendI64(b, int64(h.boot))
		var flags byte
		if h.stable {
			flags = 1
		}
		b = append(b, flags)
		b = appendShort(b, h.client.AsSlice())
		b = appendShort(b, h.source)
		return append(b, payload...)
	})
}

func parseExtent(body []byte) (extentHead, []byte, error) {
	d := decoder{b: body}
	h := extentHead{genKey: d.genKey(), off: d.offset(), wall: d.time(), boot: time.Duration(d.i64())}
	flags := d.u8()
	addr := d.short()
	client, ok := netip.AddrFromSlice(addr)
	h.stable, h.client = flags == 1, client
	h.source = vault.Source(d.short())
	payload := d.b
	d.b = nil
	d.bad = d.bad || flags > 1 || !ok && len(addr) > 0 || h.off+int64(len(payload)) > maxOffset || len(payload) == 0
	return h, payload, d.end("extent")
}

// streamRecord is the durable state of a stream.
type streamRecord struct {
	vault.StreamInfo
	prev     int64          // ledger index of the last segment or gap entry, -1: none
	nextGen  int64          // generations below that are not in the table are over and forgotten
	conflict vault.StreamID // the stream that takes this one's conflicts; zero: none yet
	of       vault.StreamID // set in such a stream: whose conflicts
}

func (r *streamRecord) append(b []byte) []byte {
	return appendRecord(b, recStream, func(b []byte) []byte {
		b = append(b, r.ID[:]...)
		b = appendI64(b, r.prev)
		b = appendI64(b, r.nextGen)
		b = append(b, r.conflict[:]...)
		b = append(b, r.of[:]...)
		b = appendI64(b, packTime(r.Recorded))
		b = appendShort(b, r.Source)
		return append(b, r.Name...)
	})
}

func parseStream(body []byte) (streamRecord, error) {
	d := decoder{b: body}
	var r streamRecord
	r.ID = d.stream()
	r.prev, r.nextGen = d.i64(), d.offset()
	r.conflict, r.of = d.stream(), d.stream()
	r.Recorded = d.time()
	r.Source = vault.Source(d.short())
	r.Name = append([]byte(nil), d.b...)
	d.b = nil
	return r, d.end("stream")
}

// genRecord is the durable state of a generation.
type genRecord struct {
	genKey
	sealed int64 // everything below is in the ledger
	freed  int64 // everything below has left the spool
	high   int64 // end of the furthest byte received
	ended  time.Time
	joined bool  // the last piece was cut within a line
	late   bool  // holds conflicting or late bytes of another generation:
	ofGen  int64 // which generation of the stream's `of`
	ofOff  int64 // and where
	mac    [16]byte
}

func (r *genRecord) append(b []byte) []byte {
	return appendRecord(b, recGen, func(b []byte) []byte {
		b = r.genKey.append(b)
		for _, v := range []int64{r.sealed, r.freed, r.high, packTime(r.ended)} {
			b = appendI64(b, v)
		}
		var flags byte
		if r.joined {
			flags |= 1
		}
		if r.late {
			flags |= 2
		}
		b = append(b, flags)
		if r.late {
			b = appendI64(appendI64(b, r.ofGen), r.ofOff)
			b = append(b, r.mac[:]...)
		}
		return b
	})
}

func parseGen(body []byte) (genRecord, error) {
	d := decoder{b: body}
	r := genRecord{genKey: d.genKey(), sealed: d.offset(), freed: d.offset(), high: d.offset(), ended: d.time()}
	flags := d.u8()
	r.joined, r.late = flags&1 != 0, flags&2 != 0
	if r.late {
		r.ofGen, r.ofOff = d.offset(), d.offset()
		copy(r.mac[:], d.take(16))
	}
	d.bad = d.bad || flags > 3 || r.freed > r.sealed || r.sealed > r.high
	return r, d.end("generation")
}

func appendForget(b []byte, kind recordKind, k genKey) []byte {
	return appendRecord(b, kind, k.append)
}

func parseGenKey(body []byte) (genKey, error) {
	d := decoder{b: body}
	k := d.genKey()
	return k, d.end("generation key")
}

func appendKV(b []byte, kv vault.KV) []byte {
	kind := recSet
	if kv.Value == nil {
		kind = recUnset
	}
	return appendRecord(b, kind, func(b []byte) []byte {
		return append(appendLong(b, []byte(kv.Key)), kv.Value...)
	})
}

func parseKV(kind recordKind, body []byte) (vault.KV, error) {
	d := decoder{b: body}
	kv := vault.KV{Key: string(d.long())}
	if kind == recSet {
		kv.Value = append([]byte{}, d.b...)
		d.b = nil
	}
	return kv, d.end("metadata")
}

// Cuts of a piece on disk.
var cuts = []string{"", "end", "long"}

func appendIntent(b []byte, in *vault.Intent) []byte {
	p := &in.Piece
	return appendRecord(b, recIntent, func(b []byte) []byte {
		b = genKey{p.Stream, p.Gen}.append(b)
		for _, v := range []int64{p.Offset, p.Span, packTime(p.FirstReceived), packTime(p.LastReceived), packTime(p.Record), p.Prev, in.Size} {
			b = appendI64(b, v)
		}
		var flags byte
		for i, set := range []bool{p.Kind == vault.PieceHole, p.Joined, p.Closed, p.Conflict != nil} {
			if set {
				flags |= 1 << i
			}
		}
		cut := byte(0)
		for i, c := range cuts {
			if c == p.Cut {
				cut = byte(i)
			}
		}
		b = append(b, flags, cut)
		if p.Conflict != nil {
			b = genKey{p.Conflict.Stream, p.Conflict.Gen}.append(b)
			b = appendI64(b, p.Conflict.Offset)
		}
		b = appendShort(b, p.Source)
		b = appendLong(b, p.Name)
		return append(b, in.Entry...)
	})
}

func parseIntent(body []byte) (*vault.Intent, error) {
	d := decoder{b: body}
	k := d.genKey()
	in := &vault.Intent{Piece: vault.Piece{Stream: k.stream, Gen: k.gen}}
	p := &in.Piece
	p.Offset, p.Span = d.offset(), d.offset()
	p.FirstReceived, p.LastReceived, p.Record = d.time(), d.time(), d.time()
	p.Prev, in.Size = d.i64(), d.i64()
	flags, cut := d.u8(), d.u8()
	if flags&1 != 0 {
		p.Kind = vault.PieceHole
	}
	p.Joined, p.Closed = flags&2 != 0, flags&4 != 0
	if flags&8 != 0 {
		of := d.genKey()
		p.Conflict = &vault.ConflictOf{Stream: of.stream, Gen: of.gen, Offset: d.offset()}
	}
	if int(cut) < len(cuts) {
		p.Cut = cuts[cut]
	}
	p.Source = vault.Source(d.short())
	p.Name = append([]byte(nil), d.long()...)
	in.Entry = append([]byte(nil), d.b...)
	d.b = nil
	d.bad = d.bad || flags > 15 || int(cut) >= len(cuts)
	return in, d.end("intent")
}

// runsRecord is a footer entry: where a generation's bytes (kind recExtent) or
// block MACs (recDigest) are in the file.
type runsRecord struct {
	genKey
	kind   recordKind
	source vault.Source
	runs   []run // of slot 0
}

// footerRun is the size of one run in a footer.
const footerRun = 8 + 4 + 4 + 4

func (r *runsRecord) append(b []byte, clock tickClock) []byte {
	return appendRecord(b, recRuns, func(b []byte) []byte {
		b = r.genKey.append(b)
		b = append(b, byte(r.kind))
		b = appendShort(b, r.source)
		for _, x := range r.runs {
			b = appendI64(b, x.off())
			b = binary.BigEndian.AppendUint32(b, uint32(x.len()))
			b = binary.BigEndian.AppendUint32(b, uint32(x.pos()))
			b = binary.BigEndian.AppendUint32(b, clock.quarters(x.tick()))
		}
		return b
	})
}

func parseRuns(body []byte, clock tickClock) (*runsRecord, error) {
	d := decoder{b: body}
	r := &runsRecord{genKey: d.genKey(), kind: recordKind(d.u8()), source: vault.Source(d.short())}
	d.bad = d.bad || r.kind != recExtent && r.kind != recDigest && r.kind != recUnstable
	for len(d.b) > 0 && !d.bad {
		off, n, pos, q := d.offset(), int64(d.u32()), int64(d.u32()), d.u32()
		if n == 0 || n > maxRun || off+n > maxOffset || pos%sector != 0 || pos > maxFile {
			d.bad = true
			break
		}
		r.runs = append(r.runs, makeRun(off, n, 0, pos, clock.tickOf(q)))
	}
	return r, d.end("footer")
}

func appendPositions(b []byte, at []uint32) []byte {
	return appendRecord(b, recMetaAt, func(b []byte) []byte {
		for _, p := range at {
			b = binary.BigEndian.AppendUint32(b, p)
		}
		return b
	})
}

func parsePositions(body []byte) ([]uint32, error) {
	d := decoder{b: body}
	var at []uint32
	for len(d.b) > 0 && !d.bad {
		at = append(at, d.u32())
	}
	return at, d.end("footer positions")
}
