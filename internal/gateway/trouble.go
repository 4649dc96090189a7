package gateway

import (
	"sync"
	"time"
)

// What can be in trouble while the gateway runs on.
const (
	opening   = "opening the vault"
	sealing   = "sealing"
	answering = "waiting for the vault"
	copying   = "copying the ledger to the vault"
	keeping   = "keeping the head of a request"
	reloading = "reloading the configuration"
	measuring = "asking the vault for its room"
	watching  = "watching directories"
)

// noted is the trouble that a person should hear of, by what it is about.
type noted struct {
	mu  sync.Mutex
	all map[string]note // guarded by mu
}

type note struct {
	text string
	at   time.Time // last seen
}

// set notes trouble and tells whether it is other than the last of its kind.
func (n *noted) set(what, text string, at time.Time) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed = n.all[what].text != text
	if n.all == nil {
		n.all = map[string]note{}
	}
	n.all[what] = note{text, at}
	return changed
}

// clear forgets a kind of trouble and tells whether there was some.
func (n *noted) clear(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, was := n.all[what]
	delete(n.all, what)
	return was
}

// last returns the trouble seen last; what is empty if there is none.
func (n *noted) last() (what string, last note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, v := range n.all {
		if what == "" || v.at.After(last.at) || v.at.Equal(last.at) && k < what {
			what, last = k, v
		}
	}
	return what, last
}

// trouble logs, once, and keeps for Status what a person should look at.
func (s *Site) trouble(what string, err error) {
	if s.notes.set(what, err.Error(), s.now()) {
		s.env.Log.Error(what, "err", err)
	}
}

// better ends the trouble of a kind.
func (s *Site) better(what string) {
	if s.notes.clear(what) {
		s.env.Log.Info(what + " works again")
	}
}
