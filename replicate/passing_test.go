package replicate_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/replicate"
)

// TestPassingErrorsAreTriedAgain counts the waits: 1, 2, 4 … seconds.
func TestPassingErrorsAreTriedAgain(t *testing.T) {
	for _, c := range []struct {
		failures int
		attempts int
		waits    []time.Duration
		want     error
	}{
		{0, 5, nil, nil},
		{3, 5, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, nil},
		{5, 5, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}, replicate.ErrPartial},
		{14, 15, func() (w []time.Duration) {
			for d := time.Second; len(w) < 14; d = min(2*d, time.Hour) {
				w = append(w, d)
			}
			return w
		}(), nil},
	} {
		w := source(t, 20)
		r := newReplica(t, w)
		var waits []time.Duration
		left := c.failures
		r.options = func(o *replicate.Options) {
			o.Jobs, o.Attempts = 1, c.attempts
			o.Sleep = func(_ context.Context, d time.Duration) error {
				waits = append(waits, d)
				return nil
			}
			// Armed only now: the opening of the copy log is not the pass.
			r.before = func(op vfs.Op, name string) error {
				if op == "sync" && left > 0 {
					left--
					return syscall.EIO
				}
				return nil
			}
		}
		_, err := r.pass(w.Vault)
		if !errors.Is(err, c.want) || !slices.Equal(waits, c.waits) {
			t.Errorf("%d failures: error %v, waits %v, expected %v, %v", c.failures, err, waits, c.want, c.waits)
		}
		r.before = nil
		r.must(w.Vault)
		same(t, load(t, w.Vault), r.files())
	}
}

func TestRate(t *testing.T) {
	w := source(t, 21)
	r := newReplica(t, w)
	var waited time.Duration
	var mu sync.Mutex
	r.options = func(o *replicate.Options) {
		o.Rate = 1000
		now := r.now // stands still: all time is waited for
		o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
		o.Jobs = 1
		o.Sleep = func(_ context.Context, d time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			waited += d
			now = now.Add(d)
			return nil
		}
	}
	sum := r.must(w.Vault)
	want := time.Duration(sum.Bytes) * time.Millisecond
	if waited > want || waited < want/2 { // the last object is not waited for
		t.Errorf("waited %v for %d bytes at 1000 a second, expected nearly %v", waited, sum.Bytes, want)
	}
}

func TestProgress(t *testing.T) {
	w := source(t, 22)
	r := newReplica(t, w)
	var last, total int64
	r.options = func(o *replicate.Options) {
		o.Progress = func(d, n int64) {
			if d < last || d > n {
				t.Errorf("progress %d of %d after %d", d, n, last)
			}
			last, total = d, n
		}
	}
	sum := r.must(w.Vault)
	if last != sum.Bytes || total != sum.Bytes {
		t.Errorf("progress ended at %d of %d, expected %d", last, total, sum.Bytes)
	}
}

func TestInterrupted(t *testing.T) {
	w := source(t, 23)
	r := newReplica(t, w)
	ctx, cancel := context.WithCancel(context.Background())
	to, log := r.open()
	_, err := replicate.Run(ctx, replicate.Options{From: w.Vault, To: to, Trust: &r.trust, Copy: log, CosignKey: r.cosign, Actor: "replica",
		Now: r.clock, Log: quiet, Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, expected %v", err, context.Canceled)
	}
	r.must(w.Vault)
	same(t, load(t, w.Vault), r.files())
}
