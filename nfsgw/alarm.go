package nfsgw

import (
	"log/slog"
	"sync"
	"time"
)

const (
	alarmAgain = 10 * time.Minute // a state that lasts is told of again
	alarmQuiet = time.Minute      // one that comes and goes is told of so often at most
	// alarmCalm ends the state: nothing was told to wait for so long. The Linux
	// client tries again after 5 s, others after 15 s; so nobody waits any more.
	alarmCalm = 30 * time.Second
)

// alarm watches over the state "the Sink has no room": it says in the log when
// that begins, again while it lasts, and when it is over. Only calls that are
// told to wait count. What succeeds says nothing: a full Sink still commits and
// ends generations; and a client that gave up makes no call that could.
type alarm struct {
	log *slog.Logger
	now func() time.Time

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
	a.settle(now)
	if a.since.IsZero() {
		a.since, a.calls = now, 0
	}
	a.last = now
	a.calls++
	quiet := alarmAgain
	if a.told.Before(a.since) {
		quiet = alarmQuiet
	}
	if now.Sub(a.told) >= quiet {
		a.told = now
		a.log.Error("intake full: nfs clients are told to wait", "since", a.since, "calls", a.calls)
	}
}

// state returns since when the Sink has no room; zero: it has. Whoever looks
// first after the state is over writes that to the log.
func (a *alarm) state() time.Time {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	return a.since
}

// settle ends a state that is over; mu is held.
func (a *alarm) settle(now time.Time) {
	if a.since.IsZero() || now.Sub(a.last) < alarmCalm {
		return
	}
	if !a.told.Before(a.since) {
		a.log.Info("no nfs client is told to wait any more", "after", a.last.Sub(a.since), "calls", a.calls)
	}
	a.since = time.Time{}
}
