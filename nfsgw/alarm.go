package nfsgw

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	alarmAgain = 10 * time.Minute // a state that lasts is told of again
	alarmCalm  = 5 * time.Second  // it is over when nothing was told to wait for so long
	alarmQuiet = time.Minute      // one that comes and goes is told of so often at most
)

// alarm watches over the state "the Sink has no room": it says in the log when
// that begins, again while it lasts, and when it is over. Calls are many, so the
// good state costs them one atomic load.
type alarm struct {
	log *slog.Logger
	now func() time.Time

	on atomic.Bool

	mu    sync.Mutex
	since time.Time // it began; zero: all is well
	last  time.Time // a call was last told to wait
	told  time.Time // the log was last told that it began or lasts
	calls int64     // told to wait since it began
}

// full notes a call that was told to wait.
func (a *alarm) full() {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	quiet := alarmAgain
	if a.since.IsZero() {
		a.since, a.calls, quiet = now, 0, alarmQuiet
		a.on.Store(true)
	}
	a.last = now
	a.calls++
	if a.told.IsZero() || now.Sub(a.told) >= quiet {
		a.told = now
		a.log.Error("intake full: nfs clients are told to wait", "since", a.since, "calls", a.calls)
	}
}

// room notes a call whose data or change was stored.
func (a *alarm) room() {
	if !a.on.Load() {
		return
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() || now.Sub(a.last) < alarmCalm {
		return
	}
	a.log.Info("intake takes nfs writes again", "after", a.last.Sub(a.since), "calls", a.calls)
	a.since = time.Time{}
	a.on.Store(false)
}

// state returns since when the Sink has no room; zero: it has.
func (a *alarm) state() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.since
}
