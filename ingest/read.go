package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"logvault/vault"
)

// reading is a stretch of a generation that is being read back: copies of its
// runs, and a reference to each of their files, so that the files stay readable
// when mu is released and the cleaner moves the bytes or removes the file.
type reading struct {
	s     *Spool
	key   genKey
	kind  recordKind
	runs  []run
	files []*spoolFile // of runs

	buf   *[]byte // the group last read
	plain []byte
	file  *spoolFile
	pos   int64
	next  int64 // position after it
}

var groupBuffers = sync.Pool{New: func() any { return new([]byte) }}

// beginRead prepares to read [off, end) of a table of g. mu is held; it may be
// released to hand pending bytes to the file. The caller calls done.
func (s *Spool) beginRead(g *gen, kind recordKind, off, end int64) (*reading, error) {
	for {
		if err := s.usable(); err != nil {
			return nil, err
		}
		t := g.data
		if kind == recDigest {
			t = g.macs
		}
		r := &reading{s: s, key: g.genKey, kind: kind}
		unwritten := false
		for i := t.from(off); i < len(t) && t[i].off() < end; i++ {
			x := t[i].sub(max(t[i].off(), off), min(t[i].end(), end))
			f := s.slots[x.slot()]
			// The run may go on into the pending group or the one in flight.
			goesOn := kind == recExtent && g.lastLSN > s.written && x.pos() > s.writtenPos-mergeSpan
			unwritten = unwritten || f == s.cur && (x.pos() >= s.writtenPos || goesOn)
			r.runs, r.files = append(r.runs, x), append(r.files, f)
		}
		if unwritten {
			s.flushOrWait()
			continue
		}
		for _, f := range r.files {
			f.refs++
		}
		r.buf = groupBuffers.Get().(*[]byte)
		return r, nil
	}
}

// done gives the references back. mu is held.
func (r *reading) done() {
	for _, f := range r.files {
		f.refs--
		if f.refs == 0 && f.gone {
			f.f.Close() // removed, and read-only to us
		}
	}
	groupBuffers.Put(r.buf)
}

// each calls fn with the bytes in order, extent by extent: the head of the
// extent and the part that was asked for, at h.off. Holes are left out. mu is
// not held. A *damageError names what could not be read.
func (r *reading) each(fn func(h *extentHead, payload []byte) error) error {
	for i, x := range r.runs {
		if err := r.run(r.files[i], x, fn); err != nil {
			return err
		}
	}
	return nil
}

// damageError says that acknowledged bytes cannot be read back.
type damageError struct {
	file *spoolFile
	err  error
}

// Error is that of the cause.
func (e *damageError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *damageError) Unwrap() error { return e.err }

// run reads the groups from x.pos on until it has seen all bytes of x.
func (r *reading) run(f *spoolFile, x run, fn func(*extentHead, []byte) error) error {
	want, end := x.off(), x.end()
	for pos := x.pos(); want < end; pos = r.next {
		if err := r.load(f, pos); err != nil {
			return err
		}
		before := want
		for again := true; again && want < end; {
			again = false
			err := eachRecord(r.plain, func(kind recordKind, body []byte) error {
				if kind != r.kind || want >= end {
					return nil
				}
				h, payload, err := parseExtent(body)
				if err != nil || h.genKey != r.key || h.off > want || h.off+int64(len(payload)) <= want {
					return err
				}
				payload = payload[want-h.off : min(end-h.off, int64(len(payload)))]
				h.off = want
				want += int64(len(payload))
				again = true
				return fn(&h, payload)
			})
			if err != nil {
				return err
			}
		}
		// A part of a merged run may begin in a later of its groups.
		if want == before && r.next-x.pos() >= mergeSpan {
			return &damageError{f, fmt.Errorf("%s: group at %d lacks offset %d: %w", f.names.file, pos, want, errDamaged)}
		}
	}
	return nil
}

// load makes the group at pos the current one.
func (r *reading) load(f *spoolFile, pos int64) error {
	if r.file == f && r.pos == pos && r.plain != nil {
		return nil
	}
	r.plain = nil
	h, plain, buf, err := f.readGroup(pos, *r.buf)
	*r.buf = buf
	if errors.Is(err, errDamaged) {
		return &damageError{f, err}
	}
	if err != nil {
		return err
	}
	r.plain, r.file, r.pos, r.next = plain, f, pos, pos+diskSize(int(h.length))
	return nil
}

// readHeld reads [off, end) of what g holds, calling fn as reading.each does.
// mu is held, and released meanwhile. Damage is noted.
func (s *Spool) readHeld(g *gen, kind recordKind, off, end int64, fn func(*extentHead, []byte) error) error {
	r, err := s.beginRead(g, kind, off, end)
	if err != nil {
		return err
	}
	s.mu.Unlock()
	err = r.each(fn)
	s.mu.Lock()
	s.moves++
	r.done()
	if d := (*damageError)(nil); errors.As(err, &d) {
		if serr := s.salvage(d.file); serr != nil {
			return serr
		}
	}
	return err
}

// unread deals with an error of readHeld where others must not wait for those
// bytes: what cannot be read back is said, and is as good as not there for now.
// It returns why the spool cannot go on, or nil.
func (s *Spool) unread(err error) error {
	if uerr := s.usable(); uerr != nil || err == nil {
		return uerr
	}
	if d := (*damageError)(nil); !errors.As(err, &d) { // that was noted, and cut out
		s.cfg.Log.Error("bytes in the spool cannot be read now", "err", err)
	}
	return nil
}

// ReadAt reads bytes that the spool still holds, up to the first that it does
// not: io.EOF at the end of the generation, ErrNotHeld if the first byte was
// released or never came.
func (s *Spool) ReadAt(ctx context.Context, id vault.StreamID, gen int64, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.stream(id)
	if st == nil {
		return 0, fmt.Errorf("%w: %s", ErrNoStream, id)
	}
	g := st.gen(gen)
	if g == nil || off >= g.high {
		return 0, io.EOF
	}
	at, kind := g.classify(off, min(g.high, off+int64(len(p))))
	if kind != partHeld {
		return 0, ErrNotHeld
	}
	n := 0
	err := s.readHeld(g, recExtent, at.a, at.b, func(h *extentHead, payload []byte) error {
		n += copy(p[h.off-off:], payload)
		return nil
	})
	if err == nil && n < len(p) && off+int64(n) >= g.high {
		err = io.EOF
	}
	return n, err
}
