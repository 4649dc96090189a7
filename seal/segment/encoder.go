package segment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"logvault/extract/logfmt"
	"logvault/seal/pgp"
	"logvault/vault"
)

// Options configure an Encoder.
type Options struct {
	Codec vault.Codec
	// Level is the codec's own: 1 to 9 for gzip, 1 to 22 for zstd, of which the
	// library makes four: 1 and 2, 3 to 5, 6 to 9, 10 and more. 0 stores gzip
	// members uncompressed. Measured are gzip 6 and zstd 1.
	Level   int
	Workers int       // members in work at once; 0 = one per core
	Random  io.Reader // of session keys and line secrets
	// Begin, if set, is called by each worker's goroutine before it works, which
	// ends with the segment.
	Begin func()
}

// Encoder encodes segments one after the other, each on all its workers. It
// keeps its buffers until Rest: a few MiB per worker, the objects that were
// given back with Recycle, and the tokens of one segment. Not for concurrent
// use, but Recycle may be called at any time.
type Encoder struct {
	options Options
	workers []*worker
	free    chan []byte // buffers for compressed members
	index   *indexWriter
	spare   chan *objects
	blocks  []vault.Hash
}

// NewEncoder checks the options and allocates the workers.
func NewEncoder(o Options) (*Encoder, error) {
	if o.Random == nil {
		return nil, errors.New("encoder: no source of randomness")
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Workers = min(o.Workers, maxMembers)
	e := &Encoder{options: o}
	for range o.Workers {
		c, err := newCompressor(o.Codec, o.Level)
		if err != nil {
			return nil, fmt.Errorf("encoder: %w", err)
		}
		e.workers = append(e.workers, &worker{compressor: c, tokens: newTokenTable()})
	}
	var err error
	if e.index, err = newIndexWriter(); err != nil {
		return nil, fmt.Errorf("encoder: %w", err)
	}
	// One buffer per worker and two that wait for the encryption, so that
	// workers seldom wait for it.
	e.free = make(chan []byte, o.Workers+2)
	for range cap(e.free) {
		e.free <- nil
	}
	e.spare = make(chan *objects, 2) // one is encoded while one is stored
	return e, nil
}

// maxSpare is how large an object is usually, in bytes: that of 64 MiB of log
// lines has about 12 MiB.
const maxSpare = 16 << 20

// usualRatio is how many times the text of logs is usually larger than its
// segment, at least. Room for that is made at once: growing to it bit by bit
// would copy, and leave as garbage, several times as much.
const usualRatio = 5

// objects are the two outputs of a call.
type objects struct{ segment, index output }

// objects returns empty outputs, with the room of used ones if there are any.
func (e *Encoder) objects() *objects {
	select {
	case o := <-e.spare:
		o.segment.reset()
		o.index.reset()
		return o
	default:
		return &objects{output{hash: sha256.New()}, output{hash: sha256.New()}}
	}
}

// Recycle gives back what Encode returned, which must not be used any more, so
// that the next call needs no new room. It is not required. One large object is
// kept, not two.
func (e *Encoder) Recycle(enc *Encoded) {
	if cap(enc.Segment) > maxSpare && len(e.spare) > 0 {
		return
	}
	select {
	case e.spare <- enc.objects:
	default: // enough are spare
	}
}

// Rest lets go of the largest buffers. The next call makes them again.
func (e *Encoder) Rest() {
	for len(e.spare) > 0 {
		<-e.spare
	}
	for range cap(e.free) {
		<-e.free
		e.free <- nil
	}
}

// output collects an object's bytes and hashes them as they come.
type output struct {
	buf  []byte
	hash hash.Hash
}

// Write keeps and hashes the bytes of the object. It cannot fail.
func (o *output) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	o.hash.Write(p)
	return len(p), nil
}

func (o *output) reset() {
	o.buf = o.buf[:0]
	o.hash.Reset()
}

func (o *output) sum() (h vault.Hash) {
	o.hash.Sum(h[:0])
	return h
}

// job is the work on one segment, shared by the workers. They write only to
// their members' own places in lineFeeds, blocks and out.
type job struct {
	raw       []byte
	format    logfmt.Format
	secret    [32]byte
	lineFeeds []int64      // per member
	firstLine []int64      // per member: LFs before it
	blocks    []vault.Hash // of the line tree
	next      atomic.Int64 // the next member to take
	out       chan compressed
}

// compressed is a finished member.
type compressed struct {
	member int
	data   []byte
	err    error
}

func (j *job) member(i int) []byte {
	return j.raw[i*MemberSize : min((i+1)*MemberSize, len(j.raw))]
}

// Encode encodes raw, 1 byte to 64 MiB, as a segment with its index, both
// encrypted to the same period key. raw is only read. ctx is looked at between
// members.
func (e *Encoder) Encode(ctx context.Context, raw []byte, m Meta, to *pgp.PublicKey) (*Encoded, error) {
	if len(raw) == 0 || len(raw) > MaxRaw {
		return nil, fmt.Errorf("encoding a segment: %d bytes, expected 1 to %d", len(raw), MaxRaw)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("encoding a segment: %w", err)
	}
	j := &job{raw: raw, format: logfmt.Detect(raw[:min(len(raw), 64<<10)])}
	if _, err := io.ReadFull(e.options.Random, j.secret[:]); err != nil {
		return nil, fmt.Errorf("encoding a segment: drawing a line secret: %w", err)
	}
	defer clear(j.secret[:])
	out := e.objects()
	out.segment.buf = slices.Grow(out.segment.buf, len(raw)/usualRatio)
	lines := e.countLines(j)
	sizes, err := e.encodeMembers(ctx, j, &out.segment, to)
	if err != nil {
		return nil, fmt.Errorf("encoding a segment: %w", err)
	}
	var root vault.Hash
	var rooting sync.WaitGroup
	rooting.Go(func() { root = treeRoot(j.blocks) }) // takes as long as the index
	ix := e.describe(j, m, lines, sizes)
	defer clear(ix.Secret[:])
	err = e.sealIndex(ix, &out.index, to)
	rooting.Wait()
	if err != nil {
		return nil, fmt.Errorf("encoding an index: %w", err)
	}
	return &Encoded{
		Segment: out.segment.buf, Index: out.index.buf,
		Object: out.segment.sum(), IndexHash: out.index.sum(),
		Codec: ix.Codec, Raw: ix.Raw, Lines: ix.Lines, Root: root,
		FirstEvent: ix.FirstEvent, LastEvent: ix.LastEvent, Format: ix.Format, objects: out,
	}, nil
}

// countLines counts the LFs of each member, which gives every worker the number
// of its first line, and makes room for the blocks. It is bound by memory
// bandwidth, 3 ms for 32 MiB, and not worth a goroutine.
func (e *Encoder) countLines(j *job) (lines int64) {
	n := memberCount(int64(len(j.raw)))
	j.lineFeeds, j.firstLine = make([]int64, n), make([]int64, n)
	for i := range n {
		j.firstLine[i] = lines
		j.lineFeeds[i] = int64(bytes.Count(j.member(i), []byte{'\n'}))
		lines += j.lineFeeds[i]
	}
	if j.raw[len(j.raw)-1] != '\n' {
		lines++
	}
	blocks := int((lines + blockLines - 1) / blockLines)
	if cap(e.blocks) < blocks {
		e.blocks = make([]vault.Hash, blocks)
	}
	j.blocks = e.blocks[:blocks]
	return lines
}

// encodeMembers runs the workers and encrypts what they compress, in order, as
// it comes. It owns the workers' goroutines and returns when all have ended.
func (e *Encoder) encodeMembers(ctx context.Context, j *job, out *output, to *pgp.PublicKey) (sizes []int64, err error) {
	w, err := to.Encrypt(out, e.options.Random)
	if err != nil {
		return nil, err
	}
	for _, worker := range e.workers {
		if err := worker.begin(&j.secret); err != nil {
			return nil, err
		}
	}
	sizes = make([]int64, len(j.lineFeeds))
	j.out = make(chan compressed, len(sizes))
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, worker := range e.workers {
		running.Go(func() {
			if e.options.Begin != nil {
				e.options.Begin()
			}
			worker.run(ctx, j, e.free)
		})
	}
	// Cancelled workers still send what they hold: the channel has room for
	// all members, and every buffer returns to e.free.
	defer func() {
		cancel()
		running.Wait()
		close(j.out)
		for c := range j.out {
			e.free <- c.data
		}
	}()
	ready := make([][]byte, len(sizes))
	for i := range ready {
		for ready[i] == nil {
			select {
			case c := <-j.out:
				if c.err != nil {
					e.free <- c.data // may be nil, which releaseAll takes for none
					e.releaseAll(ready[i:])
					return nil, c.err
				}
				ready[c.member] = c.data
			case <-ctx.Done():
				e.releaseAll(ready[i:])
				return nil, ctx.Err()
			}
		}
		sizes[i] = int64(len(ready[i]))
		_, err := w.Write(ready[i])
		e.free <- ready[i]
		if err != nil {
			e.releaseAll(ready[i+1:])
			return nil, err
		}
	}
	return sizes, w.Close()
}

func (e *Encoder) releaseAll(buffers [][]byte) {
	for _, b := range buffers {
		if b != nil {
			e.free <- b
		}
	}
}

// describe fills in the index of a finished job, but for its tokens.
func (e *Encoder) describe(j *job, m Meta, lines int64, sizes []int64) *Index {
	ix := &Index{Meta: m, Codec: e.options.Codec, Format: string(j.format), Raw: int64(len(j.raw)), Lines: lines, Secret: j.secret}
	first, last := int64(-1), int64(-1)
	for _, w := range e.workers {
		ix.Unparsed += w.unparsed
		ix.unparsed |= w.unparsedIn
		if w.first >= 0 && (first < 0 || w.first < first) {
			first = w.first
		}
		last = max(last, w.last)
	}
	if first >= 0 {
		ix.FirstEvent, ix.LastEvent = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
	}
	var offset int64
	for i, size := range sizes {
		text := j.member(i)
		start := i * MemberSize
		var lead int64
		if start > 0 && j.raw[start-1] != '\n' {
			if lead = int64(bytes.IndexByte(text, '\n')) + 1; lead == 0 {
				lead = int64(len(text))
			}
		}
		ix.Members = append(ix.Members, Member{
			Offset: offset, Size: size, RawOffset: int64(start), RawSize: int64(len(text)),
			FirstLine: j.firstLine[i], Lines: j.lineFeeds[i], Lead: lead,
		})
		offset += size
	}
	return ix
}

// sealIndex encrypts an index with the workers' tokens.
func (e *Encoder) sealIndex(ix *Index, out *output, to *pgp.PublicKey) error {
	tables := make([]*tokenTable, len(e.workers))
	for i, w := range e.workers {
		tables[i] = w.tokens
	}
	e.index.begin()
	mergeTokens(tables, e.index.addToken)
	w, err := to.Encrypt(out, e.options.Random)
	if err != nil {
		return err
	}
	if _, err := w.Write(e.index.finish(ix)); err != nil {
		return err
	}
	return w.Close()
}

// worker hashes, parses and compresses members. Its fields belong to its
// goroutine while a job runs and to the Encoder between jobs.
type worker struct {
	compressor compressor
	tokens     *tokenTable
	leaves     *leafHasher
	block      blockBuffer
	fields     logfmt.Fields

	unparsed    int64
	unparsedIn  uint64 // members
	first, last int64  // event times in ms, -1 = none
}

// begin makes the worker ready for a job under a new line secret.
func (w *worker) begin(secret *[32]byte) (err error) {
	w.tokens.reset()
	w.unparsed, w.unparsedIn, w.first, w.last = 0, 0, -1, -1
	w.leaves, err = newLeafHasher(secret)
	return err
}

// run works on members until there are none left. A worker takes a buffer
// before it takes a member: so the lowest unfinished member always has one,
// and the consumer, which wants the members in order, never waits in vain.
func (w *worker) run(ctx context.Context, j *job, free chan []byte) {
	// Sorted however the loop ends: with the last buffer taken back, ctx is
	// cancelled, and a worker that waits for a buffer may see that first.
	defer w.tokens.sort()
	defer func() { w.leaves = nil }() // it holds the secret's key schedule
	for {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return
		}
		i := int(j.next.Add(1)) - 1
		if i >= len(j.lineFeeds) || ctx.Err() != nil {
			free <- buf
			return
		}
		w.hashBlocks(j, i)
		data, err := w.compressor.compress(buf[:0], j.member(i))
		j.out <- compressed{member: i, data: data, err: err}
	}
}

// hashBlocks computes the blocks whose first line starts in member i, reading
// on into the next members to their ends, and takes the tokens of their lines.
// So every block has one worker and no leaf is kept.
func (w *worker) hashBlocks(j *job, i int) {
	pos, end := i*MemberSize, i*MemberSize+len(j.member(i))
	line := j.firstLine[i]
	if pos > 0 && j.raw[pos-1] != '\n' {
		n := bytes.IndexByte(j.raw[pos:end], '\n')
		if n < 0 {
			return // the inside of a long line
		}
		pos += n + 1
		line++
	}
	for ; pos < end && line%blockLines != 0; line++ {
		pos += lineLength(j.raw[pos:])
	}
	for pos < end {
		for pos < len(j.raw) && w.block.used < blockLines {
			n := lineLength(j.raw[pos:])
			text := j.raw[pos : pos+n]
			leaf := w.leaves.leaf(line, text)
			w.block.add(&leaf)
			w.takeTokens(j.format, text, pos)
			pos += n
			line++
		}
		j.blocks[(line-1)/blockLines] = w.block.sum()
	}
}

// lineLength returns the length of the line that text starts with, LF included.
func lineLength(text []byte) int {
	if n := bytes.IndexByte(text, '\n'); n >= 0 {
		return n + 1
	}
	return len(text)
}

// takeTokens notes the tokens of a line that starts at pos, for all members that
// the line touches.
func (w *worker) takeTokens(f logfmt.Format, line []byte, pos int) {
	first, last := pos/MemberSize, (pos+len(line)-1)/MemberSize
	members := ^uint64(0) << first & (^uint64(0) >> (63 - last))
	if f == logfmt.Text || !logfmt.Parse(f, line, &w.fields) {
		w.unparsed++
		w.unparsedIn |= members
		return
	}
	if w.fields.HasTime {
		if w.first < 0 || w.fields.UnixMilli < w.first {
			w.first = w.fields.UnixMilli
		}
		w.last = max(w.last, w.fields.UnixMilli)
	}
	for _, k := range logfmt.Kinds {
		if v := w.fields.Value(k); v != nil {
			w.tokens.add(k, v, members)
		}
	}
}
