package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"logvault/vault"
)

// limiter spreads bytes over time. All workers share one.
type limiter struct {
	rate  int64
	now   func() time.Time
	sleep func(context.Context, time.Duration) error

	mu   sync.Mutex
	free time.Time // guarded by mu: when the line is free again
}

func newLimiter(rate int64, now func() time.Time, sleep func(context.Context, time.Duration) error) *limiter {
	return &limiter{rate: rate, now: now, sleep: sleep}
}

// wait takes n bytes' worth of time and returns when their turn has come. The
// first bytes after a pause go at once; there is no credit for a pause.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l.rate <= 0 || n <= 0 {
		return ctx.Err()
	}
	l.mu.Lock()
	now := l.now()
	if l.free.Before(now) {
		l.free = now
	}
	d := l.free.Sub(now)
	l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	if d <= 0 {
		return ctx.Err()
	}
	return l.sleep(ctx, d)
}

// limited reads no faster than a limiter lets it.
type limited struct {
	ctx   context.Context
	limit *limiter
	r     io.Reader
}

// Read waits for its turn after it has read.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if werr := l.limit.wait(l.ctx, n); werr != nil {
		return 0, werr
	}
	return n, err
}

const (
	firstWait   = time.Second
	longestWait = time.Hour
)

// again calls f until it succeeds, fails for good, or Attempts are used up. It
// waits in between, each time twice as long.
func (p *pass) again(ctx context.Context, name string, f func() error) error {
	return again(ctx, &p.o, name, func(err error) bool { return !lasting(err) }, f)
}

func again(ctx context.Context, o *Options, name string, passes func(error) bool, f func() error) error {
	wait := firstWait
	for attempt := 1; ; attempt++ {
		err := f()
		switch {
		case err == nil || ctx.Err() != nil || !passes(err):
			return err
		case full(err) || attempt == o.Attempts:
			return fmt.Errorf("%w: %s: %w", ErrPartial, name, err)
		}
		o.Log.Warn("trying again", "object", name, "attempt", attempt, "wait", wait, "error", err)
		if err := o.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, longestWait)
	}
}

// lasting reports whether an error says something about the data, so that
// trying again would only say it again.
func lasting(err error) bool {
	for _, e := range []error{ErrChanged, ErrMissing, errDue, ErrDamaged, ErrForked, vault.ErrConflict, vault.ErrNotExist, vault.ErrNoVault, vault.ErrUnfit, fs.ErrPermission} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// passing reports whether an error says that a machine, a line or a mount is
// away: nothing about what is stored there.
func passing(err error) bool {
	for _, e := range []error{vault.ErrUnreachable, syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// broken gives an error of reading the verdict that it proves, unless it may pass.
func broken(verdict, err error) error {
	if passing(err) {
		return err
	}
	return fmt.Errorf("%w: %w", verdict, err)
}

// full reports whether the destination has no room: it passes, but not while a
// pass waits for it.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}
