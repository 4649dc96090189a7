package nfsgw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Record marking of RFC 5531 §11: a record is one or more fragments, each
// headed by 4 bytes, of which the top bit says "last" and the rest is a length.

const lastFragment = 1 << 31

// maxFragments bounds the fragments of a record, so that a peer cannot feed
// one record for ever in crumbs.
const maxFragments = 1024

var errRecord = errors.New("bad record")

// meter is told what a record reader holds, before the memory is taken.
type meter interface {
	take(n int) // may wait
	give(n int)
}

// readRecord reads one whole record into a pooled buffer, for which m has
// taken the capacity; the caller gives both back. It returns io.EOF only
// between records. A record that is too long or empty, or of too many
// fragments, wraps errRecord, before anything of it is read or stored.
func readRecord(r io.Reader, pool *bufferPool, m meter) (*buffer, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	var buf *buffer
	used := 0
	drop := func(err error) (*buffer, error) {
		if buf != nil {
			m.give(cap(buf.b))
			pool.put(buf)
		}
		return nil, err
	}
	for fragments := 1; ; fragments++ {
		mark := binary.BigEndian.Uint32(head[:])
		n, last := int(mark&^lastFragment), mark&lastFragment != 0
		switch {
		case n > maxRecord-used:
			return drop(fmt.Errorf("%w: fragment of %d bytes after %d, expected at most %d in all", errRecord, n, used, maxRecord))
		case n == 0:
			return drop(fmt.Errorf("%w: fragment of 0 bytes", errRecord))
		case fragments > maxFragments:
			return drop(fmt.Errorf("%w: more than %d fragments", errRecord, maxFragments))
		}
		if buf == nil {
			class := len(bufferClasses) - 1
			if last {
				class = classOf(n)
			}
			m.take(bufferClasses[class])
			buf = pool.get(class)
		}
		if _, err := io.ReadFull(r, buf.b[used:used+n]); err != nil {
			return drop(unexpected(err))
		}
		used += n
		if last {
			buf.b = buf.b[:used]
			return buf, nil
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return drop(unexpected(err))
		}
	}
}

// unexpected makes an end within a record an error of its own.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
