package watch

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"logvault/vault"
)

// perStore bounds the records of one change of the metadata table, which fits
// one group of the spool.
const perStore = 64

// store makes changes and up to perStore records durable, all or none of them.
func (f *follower) store(ctx context.Context, c vault.Changes, records ...record) error {
	for _, r := range records {
		c.Set = append(c.Set, vault.KV{Key: r.key(f.source), Value: r.encode()})
	}
	return f.w.cfg.Sink.Record(ctx, c)
}

// take takes in what the files hold beyond what the stream has.
func (f *follower) take(ctx context.Context) (more bool, err error) {
	var todo, records []*text
	for _, t := range f.texts {
		unread := t.file != nil && t.checked && !t.done && !t.drained
		if unread {
			f.sync(t) // what is announced and read below was written before
		}
		if t.dirty || unread && !t.stored {
			records = append(records, t)
		}
		if unread && (t.after == nil || t.after.done) {
			todo = append(todo, t)
		}
	}
	if err := f.announce(ctx, records); err != nil {
		return false, err
	}
	for _, t := range todo {
		if err = f.write(ctx, t); err != nil {
			break
		}
	}
	// Those before an error are committed too: a full spool can only seal, and so
	// make room for, what is.
	for _, t := range todo {
		if cerr := f.commit(ctx, t); err == nil {
			err = cerr
		}
		more = more || !t.drained
	}
	return more && err == nil, err
}

// announce stores the records of texts that are new, have moved, or of which
// more of the head is known.
func (f *follower) announce(ctx context.Context, texts []*text) error {
	for part := range slices.Chunk(texts, perStore) {
		var c vault.Changes
		var records []record
		for _, t := range part {
			records = append(records, t.record)
			if !t.stored {
				c.Add = append(c.Add, vault.StreamInfo{ID: t.stream, Source: f.source, Name: []byte(t.path)})
			}
		}
		if err := f.store(ctx, c, records...); err != nil {
			return err
		}
		for _, t := range part {
			t.stored, t.dirty = true, false
		}
	}
	return nil
}

// write hands what is unread to the spool, at most maxTurn bytes. After each
// read the head is compared: had the file been truncated before, what was read
// would be other text.
func (f *follower) write(ctx context.Context, t *text) error {
	for stop := min(t.size, t.pos+maxTurn); t.pos < stop; {
		buf := f.w.buf[:min(maxWrite, stop-t.pos)]
		n, err := t.file.ReadAt(buf, t.pos)
		if err != nil && err != io.EOF {
			f.problem(t.path, err)
			return nil
		}
		same, err := t.same()
		if err != nil {
			f.problem(t.path, err)
			return nil
		}
		if n < len(buf) || !same {
			t.checked = false
			return nil
		}
		if err := f.w.cfg.Sink.Write(ctx, t.stream, t.gen, t.pos-t.base, buf, netip.Addr{}, false); err != nil {
			return err
		}
		t.pos += int64(n)
		t.active = f.boot()
		f.w.count(func(s *Stats) { s.Bytes += int64(n) })
	}
	return nil
}

// commit makes durable what was written of a text, and asks the spool how far it
// got: of a write that failed it may have a part.
func (f *follower) commit(ctx context.Context, t *text) error {
	err := f.w.cfg.Sink.Commit(ctx, t.stream)
	t.pos = t.base + f.w.cfg.Sink.Contiguous(t.stream, t.gen)
	t.drained = t.pos == t.size
	return err
}

// finish ends the generation of a text and notes where.
func (f *follower) finish(ctx context.Context, t *text) error {
	r := t.record
	r.done, r.end = true, t.pos
	if err := f.store(ctx, vault.Changes{End: []vault.Generation{{Stream: t.stream, Gen: t.gen}}}, r); err != nil {
		return err
	}
	t.record, t.dirty = r, false
	return nil
}

// forget forgets a file that is gone for good, and its stream with the last of
// its generations.
func (f *follower) forget(ctx context.Context, t *text) error {
	c := vault.Changes{Over: []vault.StreamID{t.stream}, Set: []vault.KV{{Key: t.key(f.source)}}}
	if slices.ContainsFunc(f.texts, func(x *text) bool { return x != t && x.stream == t.stream }) {
		c.Over = nil
	}
	if err := f.store(ctx, c); err != nil {
		return err
	}
	f.drop(t)
	return nil
}

// sync makes durable what the file holds now.
func (f *follower) sync(t *text) {
	if err := t.file.Sync(); err != nil {
		f.problem(t.path, fmt.Errorf("not safe from a power cut: %w", err))
	}
}

// retire closes what is silent, ends what is over, and forgets what is gone.
func (f *follower) retire(ctx context.Context, l *listing) (again bool, err error) {
	now := f.boot()
	for _, t := range slices.Clone(f.texts) {
		silent, rotated := now-t.active, t.at == nil || !t.at.matches
		lost := t.at == nil && t.file == nil && l.complete()
		// An empty mount point does not show that a file is gone.
		gone := lost && (l.devices[t.id.Device] || t.id == Identity{})
		if !gone {
			t.absent = 0
		} else if t.absent == 0 {
			t.absent = now
		}
		switch {
		case !t.stored && t.at == nil && silent >= idle:
			f.drop(t)
		case !t.stored:
		case t.done && gone && now-t.absent >= remember:
			err = f.forget(ctx, t)
		case t.done:
			t.close()
		case t.drained && (t.over || silent >= idle && rotated || silent >= ended):
			again = again || t.over
			err = f.finish(ctx, t)
			t.close()
		case lost && t.over, gone && now-t.absent >= idle:
			again = again || t.over
			if !t.opened {
				f.w.count(func(s *Stats) { s.Vanished++ })
				f.log.Warn("a watched file is gone; what came after the last read, if anything, was not taken in", "path", t.path, "taken", t.pos)
			}
			err = f.finish(ctx, t)
		}
		if err != nil {
			return false, err
		}
		if t.drained && silent >= idle {
			t.close()
		}
	}
	return again, nil
}
