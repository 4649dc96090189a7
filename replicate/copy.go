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

// objects copies what the destination lacks, Jobs at a time. The first failure
// ends the step; what was copied stays.
func (p *pass) objects(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan item)
	var workers sync.WaitGroup
	for range p.o.Jobs {
		workers.Go(func() {
			buf := make([]byte, bufferSize)
			for it := range jobs {
				if ctx.Err() != nil {
					continue // drain, so that the sender never waits
				}
				if err := p.again(ctx, it.name, func() error { return p.copyObject(ctx, it, buf) }); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := p.items(ctx, func(it item) error {
		if !it.due && p.here.find(it.name) == nil && p.there.find(it.name) != nil {
			jobs <- it
		}
		return ctx.Err()
	})
	close(jobs)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// copyObject copies one object. It counts only after its bytes were read back
// from the destination and hashed there.
func (p *pass) copyObject(ctx context.Context, it item, buf []byte) error {
	rc, size, err := p.o.From.Open(ctx, it.name)
	if errors.Is(err, vault.ErrNotExist) {
		return fmt.Errorf("source: %w: %s, listed before", ErrMissing, it.name)
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer rc.Close() // read-only: nothing to lose
	if it.size >= 0 && size != it.size || size > it.limit {
		return fmt.Errorf("source: %w: %s has %d bytes, expected %d", ErrChanged, it.name, size, it.limit)
	}
	body := &checked{ctx: ctx, p: p, r: rc, h: sha256.New(), name: it.name, want: it.hash, left: size}
	if err := p.o.To.Put(ctx, it.name, size, body); err != nil {
		if errors.Is(err, vault.ErrConflict) {
			return fmt.Errorf("destination: %w: %s: %w", ErrChanged, it.name, err)
		}
		return fmt.Errorf("destination: %w", err)
	}
	if err := p.rehash(ctx, p.o.To, it, buf); err != nil {
		return fmt.Errorf("destination, read back: %w", err)
	}
	p.mu.Lock()
	p.sum.Copied++
	p.sum.Bytes += size
	p.heldObjects++
	p.heldBytes += size
	p.changed = true
	p.mu.Unlock()
	p.o.Log.Debug("copied", "object", it.name, "bytes", size)
	return nil
}

// rehash reads an object and compares it with the ledger.
func (p *pass) rehash(ctx context.Context, r vault.Reader, it item, buf []byte) error {
	rc, _, err := r.Open(ctx, it.name)
	if err != nil {
		return err
	}
	defer rc.Close() // read-only: nothing to lose
	h := sha256.New()
	if _, err := io.CopyBuffer(onlyWriter{h}, onlyReader{rc}, buf); err != nil {
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
// hashed. When the hash is wrong the last bytes are withheld and the error is
// returned in their place, so that no store can take the object for whole.
type checked struct {
	ctx  context.Context
	p    *pass
	r    io.Reader
	h    hash.Hash
	name string
	want vault.Hash
	left int64
}

// Read returns the object's bytes, the last ones only if all are as they should be.
func (c *checked) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
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
	c.h.Write(b[:n])
	c.left -= int64(n)
	if c.left == 0 {
		if err := sameHash(c.name, c.want, c.h); err != nil {
			return 0, fmt.Errorf("source: %w", err)
		}
	}
	if err := c.p.limit.wait(c.ctx, n); err != nil {
		return 0, err
	}
	c.p.progress(int64(n))
	return n, nil
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
