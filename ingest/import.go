package ingest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"logvault/vault"
)

// Sizes of an import, in bytes: one write, which is one extent of the spool, so
// that it is stored wholly or not at all; how much is announced at a time; and
// how much of a file's beginning tells which earlier imports to compare it with.
const (
	importWrite = maxExtent
	importChunk = 8 << 20
	importHead  = 64 << 10
)

// fullPause is how long an import waits for room before it tries again.
const fullPause = 50 * time.Millisecond

// ErrChanged says that a file is not what an earlier, interrupted import of it
// has read.
var ErrChanged = errors.New("the file changed since its import was interrupted")

// ErrOvertaken says that another import of a file that begins alike was recorded
// since the caller looked: what it decided may be wrong, the file may be that one.
var ErrOvertaken = errors.New("another file that begins alike was imported meanwhile")

// ImportHeader describes a file to import.
type ImportHeader struct {
	Source vault.Source
	Name   []byte         // the file's name as the source knows it
	Stream vault.StreamID // of the import that it continues, or a new random id
	// Recorded is the date that retention counts from; zero: the time of import.
	Recorded time.Time
	// Compared is how many earlier imports Match has compared the file with, or
	// -1 for a pipe: its text cannot be read again, so it is stored in any case,
	// under a new stream, and not remembered.
	Compared int
	// Now is the time of the import; the gateway sets it.
	Now time.Time
}

// maxImports is how many imports are remembered: 3 MiB of the spool's table. A
// file whose import is forgotten, of all the oldest, is stored again if it is
// imported again.
const maxImports = 1 << 14

// ImportResult says what an import did.
type ImportResult struct {
	Bytes   int64 // raw bytes of the file
	Stored  int64 // of these, bytes that this call sent to the spool
	Already bool  // the file had been imported in full before
}

// Earlier is an import that the spool remembers.
type Earlier struct {
	Stream vault.StreamID `json:"stream"`
	Bytes  int64          `json:"bytes"`  // raw bytes that it has stored or was about to
	Prefix vault.Hash     `json:"prefix"` // SHA-256 of those bytes
	Done   bool           `json:"done"`   // they are stored, and are the whole file
}

// Importer is what an import needs of the spool.
type Importer interface {
	AddStream(ctx context.Context, info vault.StreamInfo) error
	Record(ctx context.Context, c vault.Changes) error
	Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error
	Commit(ctx context.Context, id vault.StreamID) error
	Size(id vault.StreamID, gen int64) int64
	SetMeta(ctx context.Context, kvs ...vault.KV) error
	Meta(prefix string, fn func(vault.KV) error) error
}

// Head hashes the beginning of a file's raw text, without consuming it: the
// SHA-256 of its first 64 KiB, or of all of it.
func Head(r *bufio.Reader) (vault.Hash, error) {
	head, err := r.Peek(importHead)
	if err != nil && err != io.EOF {
		return vault.Hash{}, fmt.Errorf("reading: %w", err)
	}
	return vault.HashOf(head), nil
}

// HeadSize is the buffer that Head needs of its reader, in bytes.
const HeadSize = importHead

// Imports lists the imports of a source whose files begin with head.
func Imports(from Importer, source vault.Source, head vault.Hash) ([]Earlier, error) {
	var all []Earlier
	prefix := importKey(source, head)
	err := from.Meta(prefix, func(kv vault.KV) error {
		id, err := vault.ParseStreamID(strings.TrimPrefix(kv.Key, prefix))
		if err != nil {
			return fmt.Errorf("import record %q: %w", kv.Key, err)
		}
		e, _, err := decodeEarlier(id, kv.Value)
		if err == nil {
			all = append(all, e)
		}
		return err
	})
	return all, err
}

// Match reads a file's raw text and finds the import that it repeats or
// continues. Without one it returns false. It costs a hash of the file and is
// asked only if Imports found something: the text of another file can begin
// with the same 64 KiB, as that of a log that has grown since.
func Match(r io.Reader, earlier []Earlier) (Earlier, bool, error) {
	var found Earlier
	var ok bool
	h := sha256.New()
	var read int64
	buf := make([]byte, importWrite)
	slices.SortFunc(earlier, func(a, b Earlier) int { return int(min(max(a.Bytes-b.Bytes, -1), 1)) })
	for _, e := range earlier {
		n, err := io.CopyBuffer(h, onlyReader{io.LimitReader(r, e.Bytes-read)}, buf)
		if read += n; err != nil {
			return found, false, fmt.Errorf("reading: %w", err)
		}
		if read < e.Bytes {
			return found, ok, nil // the file is shorter than this and all that follow
		}
		if vault.Hash(h.Sum(nil)) == e.Prefix {
			if !e.Done {
				found, ok = e, true
			} else if more, err := hasMore(r, h, &read); err != nil {
				return found, false, err
			} else if !more {
				return e, true, nil
			}
		}
	}
	return found, ok, nil
}

// hasMore reads one byte on, into h as well.
func hasMore(r io.Reader, h hash.Hash, read *int64) (bool, error) {
	n, err := io.CopyN(h, r, 1)
	*read += n
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("reading: %w", err)
	}
	return n == 1, nil
}

// onlyReader hides other methods, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// Import stores the whole of body as one closed generation of a stream. When it
// returns nil every byte is durable in the spool.
//
// Text is announced before it is stored: a record in the metadata table says
// how many bytes the stream may hold and what their SHA-256 is. Then each extent
// is written and synced before the next, so that the stream never has a hole.
// If h.Stream has a record, the import goes on where the stream ends, but only
// if body begins with the announced bytes, else ErrChanged. The commit point is
// the record that says done and ends the stream; a crash before it makes the
// next call read the file again, and store what is missing.
func Import(ctx context.Context, to Importer, h ImportHeader, body io.Reader) (ImportResult, error) {
	if err := forgetImports(ctx, to, maxImports); err != nil {
		return ImportResult{}, fmt.Errorf("forgetting old imports: %w", err)
	}
	how := importBody
	if h.Compared < 0 {
		how = importPipe
	}
	res, err := how(ctx, to, h, body)
	if err != nil {
		return res, fmt.Errorf("importing %q: %w", h.Name, err)
	}
	return res, nil
}

func importBody(ctx context.Context, to Importer, h ImportHeader, body io.Reader) (ImportResult, error) {
	in := bufio.NewReaderSize(body, importHead)
	head, err := Head(in)
	if err != nil {
		return ImportResult{}, err
	}
	earlier, err := Imports(to, h.Source, head)
	if err != nil {
		return ImportResult{}, err
	}
	c := &copying{to: to, id: h.Stream, now: h.Now, key: importKey(h.Source, head) + h.Stream.String(), sum: sha256.New()}
	c.from.Prefix = vault.Hash(c.sum.Sum(nil))
	c.have = to.Size(h.Stream, 0)
	if i := slices.IndexFunc(earlier, func(e Earlier) bool { return e.Stream == h.Stream }); i >= 0 {
		c.from = earlier[i]
		if c.from.Done {
			return ImportResult{Bytes: c.from.Bytes, Already: true}, nil
		}
	} else {
		if h.Compared >= 0 && len(earlier) != h.Compared {
			return ImportResult{}, fmt.Errorf("%w: %d are known, the file was compared with %d", ErrOvertaken, len(earlier), h.Compared)
		}
		info := vault.StreamInfo{ID: h.Stream, Source: h.Source, Name: h.Name, Recorded: h.Recorded}
		if err := to.AddStream(ctx, info); err != nil {
			return ImportResult{}, err
		}
	}
	if err := c.run(ctx, in); err != nil {
		return c.res, err
	}
	done := over(h.Stream)
	done.Set = []vault.KV{c.entry(true)}
	return c.res, to.Record(ctx, done)
}

// over says that a stream has got all its bytes.
func over(id vault.StreamID) vault.Changes {
	return vault.Changes{End: []vault.Generation{{Stream: id}}, Over: []vault.StreamID{id}}
}

// forgetImports forgets the oldest imports, as far as there are more than keep.
// One that was interrupted is given up: what it stored is sealed as it is.
func forgetImports(ctx context.Context, to Importer, keep int) error {
	type known struct {
		key string
		Earlier
		at time.Time
	}
	var all []known
	err := to.Meta(importPrefix, func(kv vault.KV) error {
		id, err := vault.ParseStreamID(kv.Key[strings.LastIndexByte(kv.Key, '/')+1:])
		if err != nil {
			return fmt.Errorf("import record %q: %w", kv.Key, err)
		}
		e, at, err := decodeEarlier(id, kv.Value)
		all = append(all, known{kv.Key, e, at})
		return err
	})
	if err != nil || len(all) <= keep {
		return err
	}
	slices.SortStableFunc(all, func(a, b known) int { return a.at.Compare(b.at) })
	var old vault.Changes
	for _, k := range all[:min(len(all)-keep, forgetBatch)] {
		old.Set = append(old.Set, vault.KV{Key: k.key})
		if !k.Done {
			gone := over(k.Stream)
			old.End, old.Over = append(old.End, gone.End...), append(old.Over, gone.Over...)
		}
	}
	return to.Record(ctx, old)
}

// forgetBatch bounds the imports that are forgotten at one time, so that they fit
// one record; what is left is for the next import.
const forgetBatch = 1000

// importPipe stores a text that has no identity: without a hash, and synced once
// per chunk, because nothing goes on where it may have stopped. It reads one
// extent at a time, which is in the processor's cache when it is stored.
func importPipe(ctx context.Context, to Importer, h ImportHeader, body io.Reader) (ImportResult, error) {
	c := &copying{to: to, id: h.Stream}
	info := vault.StreamInfo{ID: h.Stream, Source: h.Source, Name: h.Name, Recorded: h.Recorded}
	if err := to.AddStream(ctx, info); err != nil {
		return ImportResult{}, err
	}
	commit := func() error { return to.Commit(ctx, h.Stream) }
	buf := make([]byte, importWrite)
	for {
		data, rerr := c.fill(body, buf)
		err := c.write(ctx, c.res.Bytes, data, func(off int64, part []byte) error {
			err := to.Write(ctx, h.Stream, 0, off, part, netip.Addr{}, false)
			if errors.Is(err, vault.ErrFull) {
				err = errors.Join(err, commit()) // what is not committed cannot be sealed to make room
			}
			return err
		})
		c.res.Bytes += int64(len(data))
		if err != nil || rerr != nil || c.res.Bytes%importChunk == 0 {
			err = errors.Join(err, commit())
		}
		switch {
		case err != nil:
			return c.res, err
		case rerr == io.EOF:
			return c.res, to.Record(ctx, over(h.Stream))
		case rerr != nil:
			return c.res, fmt.Errorf("reading: %w", rerr)
		}
	}
}

// copying is the state of one import.
type copying struct {
	to   Importer
	id   vault.StreamID
	key  string
	now  time.Time
	from Earlier   // what an interrupted import announced
	have int64     // what the stream holds already
	sum  hash.Hash // of the res.Bytes read so far
	res  ImportResult
}

// run writes the text to generation 0 of the stream.
func (c *copying) run(ctx context.Context, body io.Reader) error {
	buf := make([]byte, importChunk)
	for {
		data, rerr := c.fill(body, buf)
		if err := c.chunk(ctx, data); err != nil {
			return err
		}
		switch {
		case rerr == nil:
		case rerr != io.EOF:
			return fmt.Errorf("reading: %w", rerr)
		case c.res.Bytes < c.from.Bytes:
			return fmt.Errorf("%w: it has %d bytes, expected at least %d", ErrChanged, c.res.Bytes, c.from.Bytes)
		default:
			return nil
		}
	}
}

// fill reads until buf is full, the end of what the stream holds or of what was
// announced is reached, or r fails. Only io.EOF is an end: io.ReadFull would
// make it io.ErrUnexpectedEOF, which is what a truncated .gz reports.
func (c *copying) fill(r io.Reader, buf []byte) (data []byte, err error) {
	for _, stop := range []int64{c.have, c.from.Bytes} {
		if left := stop - c.res.Bytes; left > 0 {
			buf = buf[:min(int64(len(buf)), left)]
		}
	}
	n := 0
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return buf[:n], err
}

// chunk announces what was not announced, checks what was, and writes what the
// stream does not hold.
func (c *copying) chunk(ctx context.Context, data []byte) error {
	at := c.res.Bytes
	c.sum.Write(data)
	c.res.Bytes += int64(len(data))
	switch {
	case len(data) == 0:
		return nil
	case c.res.Bytes > c.from.Bytes:
		if err := c.waiting(ctx, func() error { return c.to.SetMeta(ctx, c.entry(false)) }); err != nil {
			return err
		}
	case c.res.Bytes == c.from.Bytes:
		if got := vault.Hash(c.sum.Sum(nil)); got != c.from.Prefix {
			return fmt.Errorf("%w: SHA-256 of the first %d bytes is %s, expected %s", ErrChanged, c.res.Bytes, got, c.from.Prefix)
		}
	}
	if at < c.have {
		return nil
	}
	return c.write(ctx, at, data, func(off int64, part []byte) error {
		return c.to.Write(ctx, c.id, 0, off, part, netip.Addr{}, true)
	})
}

// write stores data at off, one extent at a time.
func (c *copying) write(ctx context.Context, off int64, data []byte, extent func(off int64, part []byte) error) error {
	for part := range slices.Chunk(data, importWrite) {
		if err := c.waiting(ctx, func() error { return extent(off, part) }); err != nil {
			return err
		}
		off += int64(len(part))
		c.res.Stored += int64(len(part))
	}
	return nil
}

// entry is the record of what was read so far.
func (c *copying) entry(done bool) vault.KV {
	e := Earlier{Stream: c.id, Bytes: c.res.Bytes, Prefix: vault.Hash(c.sum.Sum(nil)), Done: done}
	return vault.KV{Key: c.key, Value: encodeEarlier(e, c.now)}
}

// waiting does a step and, while the spool has no room, waits: a full spool is a
// passing state that the sealer ends.
func (c *copying) waiting(ctx context.Context, step func() error) error {
	for {
		err := step()
		if !errors.Is(err, vault.ErrFull) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(fullPause):
		}
	}
}

// An import's record in the spool's metadata table:
//
//	key    "import/" source "/" SHA-256 of the first 64 KiB, hex "/" stream, hex
//	value  version 2, done 0 or 1, bytes (8, big endian), SHA-256 of the bytes,
//	       when it was written (8), ns since 1970
//
// Version 1, which is read only, lacks the time and so counts as the oldest.
const (
	importPrefix  = "import/"
	importVersion = 2
	importRecord  = 1 + 1 + 8 + sha256.Size + 8
)

func importKey(source vault.Source, head vault.Hash) string {
	return importPrefix + string(source) + "/" + head.String() + "/"
}

func encodeEarlier(e Earlier, at time.Time) []byte {
	b := []byte{importVersion, 0}
	if e.Done {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(e.Bytes))
	return appendI64(append(b, e.Prefix[:]...), packTime(at))
}

func decodeEarlier(id vault.StreamID, b []byte) (e Earlier, at time.Time, err error) {
	const end = 10 + sha256.Size
	first := len(b) == end && b[0] == 1
	switch {
	case len(b) > 0 && b[0] > importVersion:
		return e, at, fmt.Errorf("import record of stream %s: version %d: %w", id, b[0], vault.ErrNewer)
	case !first && (len(b) != importRecord || b[0] != importVersion) || b[1] > 1 || b[2] > 127:
		return e, at, fmt.Errorf("import record of stream %s: %x, expected %d bytes of version %d", id, b, importRecord, importVersion)
	}
	if !first {
		at = unpackTime(int64(binary.BigEndian.Uint64(b[end:])))
	}
	return Earlier{Stream: id, Done: b[1] == 1, Bytes: int64(binary.BigEndian.Uint64(b[2:])), Prefix: vault.Hash(b[10:end])}, at, nil
}
