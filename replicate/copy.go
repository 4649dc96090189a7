package replicate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"logvault/vault"
)

const bufferSize = 256 << 10

// parallel calls what produce hands to do, Jobs at a time, each with a buffer of
// its own. The first failure ends it; what was done stays.
func (p *pass) parallel(ctx context.Context, produce func(do func(func(buf []byte) error) error) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan func([]byte) error)
	var workers sync.WaitGroup
	for range p.o.Jobs {
		workers.Go(func() {
			buf := make([]byte, bufferSize)
			for job := range jobs {
				if ctx.Err() != nil {
					continue // drain, so that the sender never waits
				}
				if err := job(buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := produce(func(job func([]byte) error) error {
		jobs <- job
		return ctx.Err()
	})
	close(jobs)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// objects copies what the destination lacks, and settles what it has got from
// passes that were lost: an object counts when it was read back, and is
// protected from then on.
func (p *pass) objects(ctx context.Context) error {
	if err := p.probe(ctx); err != nil {
		return err
	}
	if !p.busy && !p.anew { // the entries need not be read once more for it
		if !p.idle.IsZero() {
			p.reached(p.prior, p.idle)
		}
		return nil
	}
	return p.parallel(ctx, func(do func(func([]byte) error) error) error {
		return p.items(ctx, func(it item) error {
			here := p.here.find(it.name)
			known, ok := p.recall(it, here)
			switch {
			case it.due:
				return nil
			case ok:
				p.reached(known, it.until)
				return nil
			case here == nil && p.there.find(it.name) == nil:
				return nil // destroyed at the source, and on record
			}
			return do(func(buf []byte) error { return p.settle(ctx, it, here, buf) })
		})
	})
}

// recall returns the level of an object that was brought to its end by an earlier
// pass, a whole one or a lost one, and needs nothing more.
func (p *pass) recall(it item, here *listed) (vault.Level, bool) {
	switch {
	case here == nil:
		return "", false
	case p.settled(it, here):
		return p.prior, !p.anew && !it.moved
	case p.o.Memory == nil:
		return "", false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was, ok := p.o.Memory.Recall(it.hash)
	// Flags can be taken away; more may be possible now, or be asked for.
	ok = ok && was.Level != vault.LevelFlag && !was.Level.Weaker(p.able) && !it.until.After(was.Until)
	return was.Level, ok
}

// settled reports whether an object at the destination was there at the last
// held entry: then it has been read back and protected. One that was lost since
// and came back with a lost pass is newer than that entry.
func (p *pass) settled(it item, here *listed) bool {
	return it.entry < p.held.Size && here.written <= p.held.Time.UnixNano()
}

// settle brings one object to its end: there, read back, protected.
func (p *pass) settle(ctx context.Context, it item, here *listed, buf []byte) error {
	var err error
	switch {
	case here == nil:
		err = p.again(ctx, it.name, func() error { return p.copyObject(ctx, it, buf) })
	case !p.settled(it, here):
		err = p.again(ctx, it.name, func() error { return p.readBack(ctx, it, buf) })
	}
	if errors.Is(err, errDue) {
		return nil
	}
	if err != nil {
		return err
	}
	level, err := p.protect(ctx, it.name, it.until)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = p.changed || it.moved || here == nil || !p.settled(it, here)
	if p.o.Memory == nil {
		return nil
	}
	return p.o.Memory.Remember(it.hash, Reached{level, it.until})
}

// readBack reads an object from the destination and hashes it.
func (p *pass) readBack(ctx context.Context, it item, buf []byte) error {
	if err := p.rehash(ctx, p.o.To, it, nil, buf); err != nil {
		return fmt.Errorf("destination, read back: %w", err)
	}
	return nil
}

// errDue says that an object's date came while the pass was under way, and that
// the source has destroyed it.
var errDue = errors.New("destroyed on its date, meanwhile")

// copyObject copies one object. It counts only after its bytes were read back
// from the destination and hashed there.
func (p *pass) copyObject(ctx context.Context, it item, buf []byte) error {
	p.o.Log.Debug("copying", "object", it.name)
	rc, size, err := p.o.From.Open(ctx, it.name)
	if errors.Is(err, vault.ErrNotExist) {
		if p.o.Now().Before(it.until) {
			return fmt.Errorf("source: %w: %s, listed before", ErrMissing, it.name)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sum.Due++
		return errDue
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer rc.Close() // read-only: nothing to lose
	if it.size >= 0 && size != it.size || size < 0 || size > it.limit {
		return fmt.Errorf("source: %w: %s has %d bytes, expected %d", ErrChanged, it.name, size, it.limit)
	}
	if err := p.put(ctx, it, size, rc, buf); err != nil {
		return err
	}
	p.mu.Lock()
	p.sum.Copied++
	p.sum.Bytes += size
	p.heldObjects++
	p.heldBytes += size
	p.mu.Unlock()
	p.o.Log.Debug("copied", "object", it.name, "bytes", size)
	return nil
}

// put stores an object and reads it back. A store that shows stored bytes before
// it names them needs one hash for both ends; any other gets nothing that was
// not hashed before, and its bytes are hashed again afterwards.
func (p *pass) put(ctx context.Context, it item, size int64, r io.Reader, buf []byte) error {
	body := &checked{ctx: ctx, p: p, r: r, name: it.name, want: it.hash, left: size}
	to, shows := p.o.To.(vault.Checker)
	var err error
	if shows {
		err = to.PutChecked(ctx, it.name, size, body, func(stored io.Reader) error { return p.hash(it, stored, buf) })
	} else {
		body.h = sha256.New()
		err = p.o.To.Put(ctx, it.name, size, body)
	}
	switch {
	case shows && errors.Is(err, ErrChanged):
		if serr := p.rehash(ctx, p.o.From, it, p.limit, buf); serr != nil {
			return fmt.Errorf("source: %w", serr)
		}
		return fmt.Errorf("destination, read back: %w", err)
	case errors.Is(err, vault.ErrConflict):
		return fmt.Errorf("destination: %w: %s: %w", ErrChanged, it.name, err)
	case err != nil:
		return fmt.Errorf("destination: %w", err)
	case shows:
		return nil
	}
	return p.readBack(ctx, it, buf)
}

// rehash reads an object, no faster than the limiter if one is given, and compares
// it with the ledger.
func (p *pass) rehash(ctx context.Context, r vault.Reader, it item, limit *limiter, buf []byte) error {
	rc, _, err := r.Open(ctx, it.name)
	if err != nil {
		return err
	}
	defer rc.Close() // read-only: nothing to lose
	if limit == nil {
		return p.hash(it, rc, buf)
	}
	return p.hash(it, &limited{ctx, limit, rc}, buf)
}

// hash reads an object's bytes to the end and compares. One without an end is
// read no further than any right one goes.
func (p *pass) hash(it item, r io.Reader, buf []byte) error {
	h := sha256.New()
	if _, err := io.CopyBuffer(onlyWriter{h}, onlyReader{io.LimitReader(r, it.limit+1)}, buf); err != nil {
		return fmt.Errorf("reading %s: %w", it.name, err)
	}
	return sameHash(it.name, it.hash, h)
}

// onlyWriter and onlyReader hide other methods, so that CopyBuffer uses the
// buffer it is given.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

func sameHash(name string, want vault.Hash, h hash.Hash) error {
	var got vault.Hash
	h.Sum(got[:0])
	if got != want {
		return fmt.Errorf("%w: %s has SHA-256 %s, expected %s", ErrChanged, name, got, want)
	}
	return nil
}

// checked is the body of an object on its way: limited in rate, counted, and
// hashed where the store cannot show it. When the hash is wrong the last bytes are
// withheld and the error is returned in their place, so that no store can take
// the object for whole.
type checked struct {
	ctx  context.Context
	p    *pass
	r    io.Reader
	h    hash.Hash // nil: what was stored is hashed before it counts
	name string
	want vault.Hash
	left int64
}

// Read returns the object's bytes, the last ones only if all are as they should be.
func (c *checked) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, c.end() // also of one that is said to be empty
	}
	if int64(len(b)) > c.left {
		b = b[:c.left]
	}
	b = b[:min(len(b), bufferSize)]
	n, err := c.r.Read(b)
	if err == io.EOF && int64(n) < c.left {
		return 0, fmt.Errorf("source: reading %s: %w", c.name, io.ErrUnexpectedEOF)
	}
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("source: reading %s: %w", c.name, err)
	}
	if c.h != nil {
		c.h.Write(b[:n])
	}
	c.left -= int64(n)
	if c.left == 0 {
		if err := c.end(); err != io.EOF {
			return 0, err
		}
	}
	if err := c.p.limit.wait(c.ctx, n); err != nil {
		return 0, err
	}
	c.p.progress(int64(n))
	return n, nil
}

// end returns io.EOF if all bytes were as they should be.
func (c *checked) end() error {
	if c.h != nil {
		if err := sameHash(c.name, c.want, c.h); err != nil {
			return fmt.Errorf("source: %w", err)
		}
	}
	return io.EOF
}

func (p *pass) progress(n int64) {
	if p.o.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.o.Progress(p.done, max(p.done, p.total))
}
