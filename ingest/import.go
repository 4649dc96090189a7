package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"logvault/vault"
)

// importWrite is the size of one write, in bytes. It is one extent of the
// spool, and each is synced before the next is written. So what the spool holds
// of an import after a power cut has no hole: of several unsynced writes the
// last may be on the disk and the first not.
const importWrite = maxExtent

// fullPause is how long an import waits for room before it tries again.
const fullPause = 50 * time.Millisecond

// importKey prefixes the metadata records of finished imports.
const importKey = "import/"

// ErrChanged says that a file is not what it was when its content was hashed.
var ErrChanged = errors.New("the file changed while it was imported")

// ImportHeader describes a file to import.
type ImportHeader struct {
	Source vault.Source
	Name   []byte         // the file's name as the source knows it
	Stream vault.StreamID // ImportID of the content, or a random id for a pipe
	// Content is what the SHA-256 of the raw text must be; zero: whatever comes,
	// from a pipe.
	Content vault.Hash
	// Recorded is the date that retention counts from; zero: the time of import.
	Recorded time.Time
}

// ImportResult says what an import did.
type ImportResult struct {
	Bytes   int64 // raw bytes of the file
	Stored  int64 // of these, bytes that this call stored
	Already bool  // the file had been imported in full before
}

// ImportID derives the stream id of a file from its source and the SHA-256 of
// its raw (uncompressed) text, so that the same file is the same stream however
// often and under whatever name or compression it is imported.
func ImportID(source vault.Source, content vault.Hash) vault.StreamID {
	h := sha256.New()
	io.WriteString(h, "logvault import v1\n"+string(source)+"\n")
	h.Write(content[:])
	return vault.StreamID(h.Sum(nil)[:16])
}

// ContentHash reads r to its end and returns its SHA-256 and length.
func ContentHash(r io.Reader) (vault.Hash, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, onlyReader{r}, make([]byte, importWrite))
	return vault.Hash(h.Sum(nil)), n, err
}

// onlyReader hides other methods, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// Importer is what an import needs of the spool.
type Importer interface {
	AddStream(ctx context.Context, info vault.StreamInfo) error
	Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error
	EndGeneration(ctx context.Context, id vault.StreamID, gen int64) error
	Size(id vault.StreamID, gen int64) int64
	SetMeta(ctx context.Context, kvs ...vault.KV) error
	Meta(prefix string, fn func(vault.KV) error) error
}

// Import stores the whole of body as one closed generation of a stream. When it
// returns nil every byte is durable in the spool. ErrChanged: body is not what
// h.Content says; what was read of it stays in the spool as an open generation.
//
// An import that was interrupted goes on where it stopped: because the stream
// id comes from the content, bytes below the spool's size are known to be the
// same and are skipped. The commit point is the metadata record of the finished
// import; a crash between the end of the generation and that record makes the
// next call read the file again and store nothing.
func Import(ctx context.Context, to Importer, h ImportHeader, body io.Reader) (ImportResult, error) {
	size, done, err := imported(to, h.Stream)
	if err != nil {
		return ImportResult{}, err
	}
	if done {
		return ImportResult{Bytes: size, Already: true}, nil
	}
	info := vault.StreamInfo{ID: h.Stream, Source: h.Source, Name: h.Name, Recorded: h.Recorded}
	if err := to.AddStream(ctx, info); err != nil {
		return ImportResult{}, fmt.Errorf("importing %q: %w", h.Name, err)
	}
	res, err := copyIn(ctx, to, h, body)
	if err != nil {
		return res, fmt.Errorf("importing %q: %w", h.Name, err)
	}
	if err := to.EndGeneration(ctx, h.Stream, 0); err != nil {
		return res, fmt.Errorf("importing %q: %w", h.Name, err)
	}
	record := binary.BigEndian.AppendUint64(nil, uint64(res.Bytes))
	if err := to.SetMeta(ctx, vault.KV{Key: importKey + h.Stream.String(), Value: record}); err != nil {
		return res, fmt.Errorf("importing %q: %w", h.Name, err)
	}
	return res, nil
}

// imported tells whether a stream was imported in full, and its size.
func imported(to Importer, id vault.StreamID) (size int64, done bool, err error) {
	key := importKey + id.String()
	err = to.Meta(key, func(kv vault.KV) error {
		if kv.Key != key || len(kv.Value) != 8 {
			return fmt.Errorf("import record %q: %d bytes, expected 8", kv.Key, len(kv.Value))
		}
		size, done = int64(binary.BigEndian.Uint64(kv.Value)), true
		return nil
	})
	return size, done, err
}

// copyIn writes body to generation 0 of the stream, durably.
func copyIn(ctx context.Context, to Importer, h ImportHeader, body io.Reader) (ImportResult, error) {
	var res ImportResult
	content := sha256.New()
	buf := make([]byte, importWrite)
	for {
		n, rerr := fill(body, buf)
		stored, err := store(ctx, to, h.Stream, res.Bytes, buf[:n])
		res.Bytes, res.Stored = res.Bytes+int64(n), res.Stored+stored
		if err != nil {
			return res, err
		}
		if !h.Content.IsZero() {
			content.Write(buf[:n])
		}
		switch {
		case rerr == nil:
		case rerr != io.EOF:
			return res, fmt.Errorf("reading: %w", rerr)
		case !h.Content.IsZero() && vault.Hash(content.Sum(nil)) != h.Content:
			return res, fmt.Errorf("%w: SHA-256 %x, expected %s", ErrChanged, content.Sum(nil), h.Content)
		default:
			return res, nil
		}
	}
}

// fill reads until buf is full or r fails. Only io.EOF is an end: io.ReadFull
// would make it io.ErrUnexpectedEOF, which is what a truncated .gz reports.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// store writes what the spool has not yet of data, which stands at off, and
// returns how much that was. While the spool has no room it waits: that is a
// passing state, which the sealer ends.
func store(ctx context.Context, to Importer, id vault.StreamID, off int64, data []byte) (stored int64, err error) {
	have := min(max(to.Size(id, 0)-off, 0), int64(len(data)))
	if data, off = data[have:], off+have; len(data) == 0 {
		return 0, nil
	}
	for {
		// One extent is stored wholly or not at all.
		err := to.Write(ctx, id, 0, off, data, netip.Addr{}, true)
		if err == nil {
			return int64(len(data)), nil
		}
		if !errors.Is(err, vault.ErrFull) {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(fullPause):
		}
	}
}
