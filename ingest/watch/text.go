package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"logvault/vault"
)

// text is what a file holds between two truncations: one generation.
type text struct {
	record
	at      *place // where the last listing found its file, or nil
	file    File   // nil while nothing is expected from it
	pos     int64  // offset in the file up to which the stream holds it
	size    int64  // of the file when it was looked at
	changed int64  // Info.Changed then
	unread  int64  // what had been seen and not read when it was truncated
	after   *text  // the generation before, if that must end first
	over    bool   // the next generation has begun: this one ends when it is drained

	drained bool // nothing was beyond pos when it was looked at
	stored  bool // its record is in the table
	dirty   bool // and differs from that
	checked bool // its head was compared since it was opened or renamed
	opened  bool // its file was open in this process

	active time.Duration // boot time of the last byte
	absent time.Duration // boot time since when its file is gone, 0: it is not
}

func (t *text) close() {
	if t.file != nil {
		t.file.Close() // read-only
		t.file = nil
	}
}

// renamed notes where the file is now.
func (t *text) renamed(path string) {
	if t.path != path {
		t.path, t.dirty = path, t.stored
	}
}

// look opens, checks and measures the file of a text.
func (f *follower) look(ctx context.Context, t *text) error {
	t.drained = false
	if t.at == nil && t.file == nil {
		return nil // gone
	}
	if t.at != nil && t.at.path != t.path {
		t.checked = false
	}
	if t.file == nil && t.checked && t.at.Size == t.pos && t.at.Changed == t.changed {
		t.drained = true
		return nil
	}
	inPlace := t.file != nil || t.at.path == t.path
	if err := t.open(); err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotRegular) {
			f.problem(t.at.path, err)
		}
		return nil // it is not gone for good: at stays
	}
	info, err := t.file.Stat()
	same := true
	if err == nil && (!t.checked || info.Size != t.size || info.Changed != t.changed) {
		same, err = t.same()
	}
	if err != nil {
		f.problem(t.path, err)
		return nil
	}
	unread := t.size - t.pos
	t.size, t.changed = info.Size, info.Changed
	switch {
	case !same && t.over, !inPlace && (!same || t.head == 0):
		f.leave(t)
		return nil
	case !same:
		t.checked, t.unread = false, max(0, unread)
		f.anew = append(f.anew, t)
		return nil
	case t.size < t.pos && t.over: // the copy was made before the last read
		t.pos = t.size
	case t.size < t.pos:
		return f.shortened(ctx, t)
	}
	t.checked = true
	if t.at != nil {
		t.renamed(t.at.path)
	}
	if f.zipped(t, info) {
		f.drop(t)
		return nil
	}
	if err := t.extend(); err != nil {
		f.problem(t.path, err)
		return nil
	}
	if t.drained = t.size == t.pos; t.done && !t.drained {
		_, err = f.succeed(ctx, t, t.end) // written to after its generation ended
		return err
	}
	return nil
}

// zipped tells whether a file that was empty when it was found is a compressed
// one: gzip makes its file long before it writes.
func (f *follower) zipped(t *text, info Info) bool {
	if t.stored || t.head > 0 {
		return false
	}
	head, err := readHead(t.file, maxMagic)
	return err == nil && f.ignore(t.path, info, head)
}

// open opens the file where the listing found it.
func (t *text) open() error {
	if t.file != nil {
		return nil
	}
	file, err := t.at.dir.Open(t.at.rel)
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil || info.ID != t.id {
		file.Close() // read-only
		return errors.Join(err, fs.ErrNotExist)
	}
	t.file, t.opened, t.checked = file, true, false
	return nil
}

// same tells whether the file still begins with the head.
func (t *text) same() (bool, error) {
	head, err := readHead(t.file, t.head)
	return len(head) == t.head && vault.HashOf(head) == t.sum, err
}

// extend makes the head as long as the file allows.
func (t *text) extend() error {
	n := int(min(maxHead, t.size))
	if t.head >= n {
		return nil
	}
	head, err := readHead(t.file, n)
	if err != nil || len(head) < n || vault.HashOf(head[:t.head]) != t.sum {
		t.checked = false // it changes: look finds out how
		return err
	}
	t.head, t.sum, t.dirty = n, vault.HashOf(head), t.stored
	return nil
}

// leave deals with a file that is another one by now: it has got the inode of a
// removed one.
func (f *follower) leave(t *text) {
	t.close()
	delete(f.byID, t.id)
	t.at, t.id, t.dirty = nil, Identity{}, t.stored
}

// shortened deals with a file of which the end was cut off: what is left has
// been taken in, what follows is the next generation.
func (f *follower) shortened(ctx context.Context, t *text) error {
	if _, err := f.succeed(ctx, t, t.size); err != nil {
		return err
	}
	f.w.count(func(s *Stats) { s.Truncated++ })
	f.log.Warn("a watched file was cut off", "path", t.path, "size", t.size, "taken", t.pos)
	return nil
}

// truncated deals with a file that begins anew.
func (f *follower) truncated(ctx context.Context, t *text) error {
	if !t.stored {
		_, err := f.succeed(ctx, t, 0)
		return err
	}
	if t.done { // its copy may have more than was taken
		unread := t.unread
		var err error
		if t, err = f.succeed(ctx, t, t.end); err != nil {
			return err
		}
		t.unread = unread
	}
	c := f.findCopy(t)
	if c == nil {
		if _, err := f.succeed(ctx, t, 0); err != nil {
			return err
		}
		f.w.count(func(s *Stats) { s.Truncated++; s.Uncopied++ })
		f.log.Warn("a watched file was truncated and no copy of it was found: what came after the last read is lost", "path", t.path, "taken", t.pos, "unread", t.unread)
		return nil
	}
	// Both records at once: a crash must neither make the copy a new stream nor
	// let the file's new content be another one.
	f.sync(t)
	if err := c.file.Sync(); err != nil {
		f.problem(c.at.path, fmt.Errorf("not safe from a power cut: %w", err))
	}
	next, moved := f.following(t, 0), t.record
	moved.id, moved.path = c.at.ID, c.at.path
	if err := f.store(ctx, vault.Changes{}, moved, next.record); err != nil {
		c.file.Close() // read-only
		return err
	}
	f.w.count(func(s *Stats) { s.Truncated++ })
	f.log.Warn("a watched file was truncated: the rest is read from its copy", "path", t.path, "copy", moved.path, "taken", t.pos, "size", c.size)
	next.stored, next.after = true, t
	next.file, next.at, next.size, next.checked, next.opened = t.file, t.at, t.size, true, true
	next.drained = next.size == 0
	t.record, t.dirty = moved, false
	t.file, t.at, t.size, t.changed, t.checked, t.over = c.file, c.at, c.size, 0, true, true
	t.pos = min(t.pos, c.size)
	t.drained = t.pos == t.size
	f.byID[t.id] = t
	delete(f.suspects, t.id)
	f.begins(next)
	return nil
}

// copied is an open file that begins like a text that was truncated.
type copied struct {
	at   *place
	file File
	size int64
}

// findCopy looks for the copy that was made before a truncation, in a listing
// that is made now, after it: the longest file with this head that nobody follows.
func (f *follower) findCopy(t *text) (found *copied) {
	for id, p := range f.list().files {
		if f.byID[id] != nil || p.Size < int64(t.head) || t.head == 0 {
			continue
		}
		file, err := p.dir.Open(p.rel)
		if err != nil {
			continue // no copy that we could read
		}
		info, err := file.Stat()
		var head []byte
		if err == nil && info.ID == id && (found == nil || info.Size > found.size) {
			head, err = readHead(file, t.head)
		}
		if err != nil || bytes.IndexByte(head, '\n') < 0 || vault.HashOf(head) != t.sum {
			file.Close() // read-only
			continue
		}
		if found != nil {
			found.file.Close() // read-only
		}
		found = &copied{p, file, info.Size}
	}
	return found
}

// following makes the next generation in the file of a text, from base on.
func (f *follower) following(t *text, base int64) *text {
	n := &text{record: record{stream: t.stream, gen: t.gen + 1, id: t.id, base: base, path: t.path}, pos: base, active: f.boot()}
	n.sum = vault.HashOf(nil)
	if base > 0 {
		n.head, n.sum = t.head, t.sum
	}
	return n
}

// succeed ends a generation and puts the next one in its place, which begins at
// offset base of the file; of a text that nothing is stored of it makes one that
// begins anew.
//
//	end it and replace the record, durable | crash before: the file is found as it was
func (f *follower) succeed(ctx context.Context, t *text, base int64) (*text, error) {
	f.sync(t)
	n := f.following(t, base)
	if !t.stored {
		n.gen = t.gen
	} else if err := f.store(ctx, vault.Changes{End: []vault.Generation{{Stream: t.stream, Gen: t.gen}}, Set: []vault.KV{{Key: t.key(f.source)}}}, n.record); err != nil {
		return nil, err
	}
	n.stored = t.stored
	n.file, n.at, n.size, n.changed, n.checked, n.opened = t.file, t.at, t.size, t.changed, true, true
	n.drained = n.size == n.pos
	t.file = nil
	f.drop(t)
	f.begins(n)
	return n, nil
}

// begins makes a generation followed in a file that is open: its head must be
// known when files are compared with it in this round.
func (f *follower) begins(n *text) {
	f.add(n)
	if err := n.extend(); err != nil {
		f.problem(n.path, err)
	}
}
