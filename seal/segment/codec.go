package segment

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"logvault/seal/pgp"
	"logvault/vault"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compressor makes whole members. Not for concurrent use.
type compressor interface {
	// compress appends the member of text to dst, also when it fails.
	compress(dst, text []byte) ([]byte, error)
}

func newCompressor(c vault.Codec, level int) (compressor, error) {
	switch {
	case c == vault.Gzip && level >= gzip.NoCompression && level <= gzip.BestCompression:
		w, err := gzip.NewWriterLevel(io.Discard, level)
		if err != nil {
			return nil, err
		}
		return &gzipCompressor{w: w}, nil
	case c == vault.Zstd && level >= 1 && level <= 22:
		// Without a checksum in each frame: the message around them has its own. The
		// window comes before the level: the other way round the fastest level makes
		// blocks of 64 KiB, where 128 KiB, the format's largest, take less time and room.
		w, err := zstd.NewWriter(nil, zstd.WithWindowSize(MemberSize), zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, err
		}
		return zstdCompressor{w}, nil
	}
	return nil, fmt.Errorf("codec %q, level %d: expected gz with 0 to 9 or zst with 1 to 22", string(c), level)
}

type gzipCompressor struct {
	w   *gzip.Writer
	out []byte
}

// Write collects what the compressor below gives for the member. It cannot fail.
func (g *gzipCompressor) Write(p []byte) (int, error) {
	g.out = append(g.out, p...)
	return len(p), nil
}

func (g *gzipCompressor) compress(dst, text []byte) ([]byte, error) {
	g.out = dst
	g.w.Reset(g)
	_, err := g.w.Write(text)
	if err == nil {
		err = g.w.Close()
	}
	return g.out, err
}

type zstdCompressor struct{ w *zstd.Encoder }

func (z zstdCompressor) compress(dst, text []byte) ([]byte, error) {
	return z.w.EncodeAll(text, dst), nil
}

// decompressor returns a reader of the concatenated members in r. Close frees
// it; r stays open. window is the most memory that a zstd frame may ask for.
func decompressor(r io.Reader, c vault.Codec, window uint64) (io.ReadCloser, error) {
	switch c {
	case vault.Gzip:
		return gzip.NewReader(r)
	case vault.Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("codec %q: expected gz or zst", string(c))
}

// Decode writes the raw text of a segment to w and returns its length. The text
// goes out before the end of the message has been checked: compare the object's
// hash with the ledger first. Any damage gives an error, at the latest at the end.
func Decode(w io.Writer, r io.Reader, s *pgp.Secret, c vault.Codec) (int64, error) {
	sealed, err := s.Decrypt(r)
	if err != nil {
		return 0, fmt.Errorf("segment: %w", err)
	}
	text, err := decompressor(sealed, c, MemberSize)
	if err != nil {
		return 0, fmt.Errorf("segment: %w", err)
	}
	defer text.Close() // frees memory; the stream's errors come from Read
	n, err := io.Copy(w, io.LimitReader(text, MaxRaw+1))
	if err != nil {
		return n, fmt.Errorf("segment: %w", err)
	}
	if n > MaxRaw {
		return n, fmt.Errorf("segment: %w", corrupt("text of more than %d bytes", MaxRaw))
	}
	// A decompressor may stop at the last member's end without asking for more.
	if extra, err := io.Copy(io.Discard, sealed); err != nil {
		return n, fmt.Errorf("segment: %w", err)
	} else if extra > 0 {
		return n, fmt.Errorf("segment: %w", corrupt("%d bytes after the last member", extra))
	}
	return n, nil
}

// plainWindow is the most window memory that OpenPlain grants a zstd file: as
// much as `zstd --ultra -21`, half of what `zstd --long` uses.
const plainWindow = 64 << 20

// OpenPlain returns the text of a log file that is plain, .gz or .zst, told
// apart by the first bytes and not by its name, which only serves in errors.
// Close frees the decompressor; r stays open.
func OpenPlain(r io.Reader, name string) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 256<<10)
	magic, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var text io.ReadCloser
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		text, err = decompressor(buffered, vault.Gzip, 0)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		text, err = decompressor(buffered, vault.Zstd, plainWindow)
	default:
		return io.NopCloser(buffered), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &namedReader{text, name}, nil
}

// namedReader adds a file's name to errors.
type namedReader struct {
	io.ReadCloser
	name string
}

// Read adds the name to errors but io.EOF, and to one about the window of zstd
// what to do.
func (n *namedReader) Read(p []byte) (int, error) {
	k, err := n.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		if errors.Is(err, zstd.ErrWindowSizeExceeded) {
			err = fmt.Errorf("needs a window of more than %d MiB; decompress it first with zstd -d --long=31: %w", plainWindow>>20, err)
		}
		err = fmt.Errorf("%s: %w", n.name, err)
	}
	return k, err
}
