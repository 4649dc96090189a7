package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/vault"
)

// bufferSize is what a worker reads at a time: it fits into a core's cache
// beside what is being hashed, and makes system calls rare.
const bufferSize = 256 << 10

// job is one entry whose objects a worker reads.
type job struct {
	index int64
	entry *entry.Segment
	// due, overdue and held are the verdict on the segment.
	due, overdue, held bool
}

// objects reads every object that an entry names and compares it with the
// entry: segments and indexes in parallel, then the wraps and register records.
func (a *audit) objects(ctx context.Context) {
	a.total = a.hist.bytes
	secrets := newSecrets(a)
	defer secrets.destroy()
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range a.o.Jobs {
		workers.Go(func() {
			w := worker{a: a, secrets: secrets, buf: make([]byte, bufferSize)}
			for j := range jobs {
				if ctx.Err() == nil {
					w.segment(ctx, j)
				}
			}
		})
	}
	err := a.tree.Entries(ctx, 0, a.hist.next, func(i int64, data []byte) error {
		if e, err := entry.Decode(data); err == nil { // what does not decode is reported already
			if s, ok := e.(*entry.Segment); ok {
				jobs <- a.judge(i, s)
			}
		}
		return ctx.Err()
	})
	close(jobs)
	workers.Wait()
	if err != nil && ctx.Err() == nil {
		a.incomplete("", "reading the entries again: "+err.Error())
	}
	w := worker{a: a, secrets: secrets, buf: make([]byte, bufferSize)}
	w.wraps(ctx)
	w.registers(ctx)
	w.orphans(ctx)
}

// judge decides what of a segment must be there, and notes what that means for
// the period key it is sealed to.
func (a *audit) judge(i int64, e *entry.Segment) job {
	j := job{index: i, entry: e}
	if !a.o.Now.Before(e.RetainUntil) { // else neither holds nor extensions matter
		v := a.hist.window.Judge(e, a.o.Now)
		j.due, j.overdue, j.held = v.Due, v.Overdue, a.hist.window.Held(e)
	}
	if k := a.hist.keys[e.Key]; k != nil {
		k.live = k.live || !j.due
		k.sealed = true
		k.fresh = k.fresh || j.due && !j.overdue
	}
	return j
}

// worker reads objects with one buffer.
type worker struct {
	a       *audit
	secrets *secrets
	buf     []byte
}

// outcome is how an object compares with its entry.
type outcome int

const (
	intact outcome = iota
	absent
	bad // reported
)

// segment checks a segment's two objects.
func (w *worker) segment(ctx context.Context, j job) {
	e := j.entry
	day := e.Day
	object, index := vault.SegmentName(day, e.Object, e.Codec), vault.IndexName(day, e.Index)
	skip := e.Time.Before(w.a.o.Since)
	text := w.check(ctx, object, j.index, e.Object, e.Size, skip)
	ix := w.check(ctx, index, j.index, e.Index, e.IndexSize, skip)
	w.dates(j, object, text)
	w.dates(j, index, ix)
	w.against(ctx, object, j.index, j.due, e.Object, e.Size, text)
	w.against(ctx, index, j.index, j.due, e.Index, e.IndexSize, ix)
	if w.a.o.Depth == Content && !skip && text == intact && ix == intact {
		w.content(ctx, j, object, index)
	}
}

// dates judges that an object is there, or is not.
func (w *worker) dates(j job, name string, o outcome) {
	until := stamp(j.entry.RetainUntil)
	switch {
	case o != absent && j.overdue:
		w.a.differ(codeOverdue, name, j.index, "kept after its date", "destroyed after "+until, "still there")
	case o != absent:
	case !j.due && j.held && !w.a.o.Now.Before(j.entry.RetainUntil):
		w.a.find(codeHoldViolated, name, j.index, "absent although a hold covers it")
	case !j.due:
		w.a.differ(codeMissingTooEarly, name, j.index, "absent before its date", "there until "+until+" at least", "nothing")
	case w.a.hist.keys[j.entry.Key] == nil || !w.a.hist.keys[j.entry.Key].destroyed:
		w.a.find(codeUnrecorded, name, j.index, "absent after its date "+until+" without a tombstone")
	}
}

// check reads one object and compares size and hash. With statOnly it compares
// the size alone.
func (w *worker) check(ctx context.Context, name string, i int64, want vault.Hash, size int64, statOnly bool) outcome {
	var got vault.Hash
	var n int64
	var err error
	if statOnly {
		var info vault.Info
		info, err = w.a.o.Vault.Stat(ctx, name)
		n, got = info.Size, want
	} else {
		got, n, err = hashObject(ctx, w.a.o.Vault, name, limitOf(size), w.buf, w.a.progress)
	}
	switch {
	case errors.Is(err, vault.ErrNotExist):
		return absent
	case err != nil:
		if ctx.Err() == nil {
			w.a.unread(name, i, err)
		}
		return bad
	case size >= 0 && n < size:
		w.a.differ(codeTruncated, name, i, "size", bytes(size), bytes(n))
		return bad
	case n > limitOf(size):
		w.a.differ(codeDamaged, name, i, "size", "at most "+bytes(limitOf(size)), bytes(n))
		return bad
	case got != want:
		w.a.differ(codeDamaged, name, i, "SHA-256", want.String(), got.String())
		return bad
	}
	if !statOnly {
		w.a.mu.Lock()
		w.a.sum.Objects++
		w.a.sum.Bytes += n
		w.a.mu.Unlock()
	}
	return intact
}

func bytes(n int64) string { return fmt.Sprintf("%d bytes", n) }

// sizeLimit bounds an object whose size no entry states, in bytes: more than
// any segment, index, wrap or record can have.
const sizeLimit = 1 << 30

// limitOf is how much of an object is read: its size if that is stated.
func limitOf(size int64) int64 {
	if size < 0 {
		return sizeLimit
	}
	return size
}

// hashObject reads an object of at most limit bytes and returns its SHA-256 and
// size. Of a larger one it returns the size alone, unread: whoever can write to
// the copy can put a sparse file of exabytes there.
func hashObject(ctx context.Context, r vault.Reader, name string, limit int64, buf []byte, progress func(int64)) (vault.Hash, int64, error) {
	rc, stated, err := r.Open(ctx, name)
	if err != nil {
		return vault.Hash{}, 0, err
	}
	defer rc.Close() // read-only: nothing to lose
	if stated > limit {
		return vault.Hash{}, stated, nil
	}
	h := sha256.New()
	var size int64
	for {
		n, err := rc.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		progress(int64(n))
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || size > limit { // it grew since
			return vault.Hash{}, size, err
		}
	}
	var sum vault.Hash
	h.Sum(sum[:0])
	return sum, size, nil
}

// progress counts bytes read.
func (a *audit) progress(n int64) {
	if a.o.Progress == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done += n
	a.o.Progress(a.done, max(a.done, a.total))
}

// wraps checks every wrap of every period key: as long as one segment sealed
// to the key is live each wrap must be there, whoever it is for; when all are
// overdue none may be.
func (w *worker) wraps(ctx context.Context) {
	compare := w.a.hasKeys(ctx) && !w.a.o.WithoutKeys
	for _, i := range slices.Sorted(maps.Keys(w.a.hist.keys)) {
		if ctx.Err() != nil {
			return
		}
		k := w.a.hist.keys[i]
		// A key that sealed nothing yet must be there until its day is over
		// everywhere on earth.
		end := k.day.Start(time.UTC).AddDate(0, 0, 2)
		live := k.live || !k.sealed && w.a.o.Now.Before(end)
		var gone []string
		for _, wrap := range k.wraps {
			name := vault.WrapName(k.day, k.class, k.public, wrap.hash)
			o := w.check(ctx, name, i, wrap.hash, -1, false)
			if compare {
				w.against(ctx, name, i, !live, wrap.hash, -1, o)
			}
			switch {
			case o == absent:
				gone = append(gone, name)
				continue
			case o == intact:
				w.recipients(ctx, name, i, wrap.recipients)
			}
			if !live && !k.fresh && k.sealed {
				w.a.find(codeOverdue, name, i, "kept although every segment sealed to this key is overdue")
			}
		}
		w.gone(i, k, live, gone)
	}
}

// recipients compares who can open a wrap with its entry, as far as that shows
// without a key: by number. It remembers the key ids for wraps without an entry.
func (w *worker) recipients(ctx context.Context, name string, i int64, want int) {
	got, err := readers(ctx, w.a.o.Vault, name)
	if err != nil {
		w.a.find(codeRecipients, name, i, "who can open it: "+err.Error())
		return
	}
	if len(got) != want {
		w.a.differ(codeRecipients, name, i, "recipients of a wrap", fmt.Sprint(want), fmt.Sprint(len(got)))
	}
	w.a.readers[list(got)] = true
}

// messageLimit bounds a wrap or a record: some hundred recipients, some pages.
const messageLimit = 16 << 20

// readers returns the key ids that a message is encrypted to, sorted.
func readers(ctx context.Context, r vault.Reader, name string) ([]string, error) {
	data, err := vault.ReadAll(ctx, r, name, messageLimit)
	if err != nil {
		return nil, err
	}
	ids, err := pgp.Recipients(data)
	slices.Sort(ids)
	return ids, err
}

// gone judges the absent wraps of a key.
func (w *worker) gone(i int64, k *periodKey, live bool, names []string) {
	if w.a.o.WithoutKeys {
		return
	}
	for _, name := range names {
		switch {
		case live && len(names) == len(k.wraps):
			w.a.find(codeKeyMissing, name, i, "no wrap of this period key is there: what is sealed to it cannot be read from this copy")
		case live:
			w.a.find(codeMissingTooEarly, name, i, "absent although other wraps of this key are there and still needed")
		case k.sealed && !k.destroyed:
			w.a.find(codeUnrecorded, name, i, "absent after its date without a tombstone")
		}
	}
}

// registers checks the records with personal data that requests name. They
// have the retention of their class, counted from the request.
func (w *worker) registers(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(w.a.hist.registers)) {
		if ctx.Err() != nil {
			return
		}
		r := w.a.hist.registers[name]
		class, ok := w.a.hist.window.Class(r.class)
		var v policy.Verdict // without a class there is no date: kept
		if ok {
			v = policy.Judge(policy.Item{Class: string(r.class), RetainUntil: class.RetainUntil(r.time), Grace: class.Grace}, nil, w.a.o.Now)
		}
		o := w.check(ctx, name, r.entry, r.object, -1, false)
		w.against(ctx, name, r.entry, v.Due, r.object, -1, o)
		switch {
		case o == absent && !v.Due:
			w.a.find(codeMissingTooEarly, name, r.entry, "the record of this request is absent")
		case o != absent && v.Overdue:
			w.a.differ(codeOverdue, name, r.entry, "kept after its date", "destroyed after "+stamp(v.Effective), "still there")
		}
	}
}

// orphans checks recorded orphans as far as they are still there.
func (w *worker) orphans(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(w.a.hist.orphans)) {
		e := w.a.hist.orphans[name]
		if o, err := vault.ParseName(name); err != nil || ctx.Err() != nil || w.a.hist.names(o) {
			continue
		}
		if w.check(ctx, name, -1, e.Object, -1, false) == intact {
			w.a.find(codeOrphan, name, -1, "left by a crash and recorded as such")
		}
	}
}
