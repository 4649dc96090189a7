package nfsgw

import (
	"sync/atomic"
	"time"
)

// Stats are counts since the start, except Conns, Files and Removed, which are
// the numbers now.
type Stats struct {
	Conns      int64     `json:"connections"`         // open connections
	Files      int64     `json:"files"`               // files and directories that have a name
	Removed    int64     `json:"removed"`             // removed files whose id is still kept
	Calls      int64     `json:"calls"`               // RPC calls understood
	Writes     int64     `json:"writes"`              // WRITE calls answered OK
	Bytes      int64     `json:"bytes"`               // their payload
	Commits    int64     `json:"commits"`             // COMMIT calls answered OK
	Full       int64     `json:"full"`                // calls answered JUKEBOX
	FullSince  time.Time `json:"full_since,omitzero"` // the Sink has no room since then; zero: it has
	Duplicates int64     `json:"duplicates"`          // repeated calls answered from the cache
	Refused    int64     `json:"refused"`             // connections of unlisted or insecure peers, or above MaxConns
	Denied     int64     `json:"denied"`              // MNT calls refused
	Foreign    int64     `json:"foreign"`             // handles used from an address that is not of their source
	Forged     int64     `json:"forged"`              // handles that we did not make
	Malformed  int64     `json:"malformed"`           // connections closed for a bad record
	Garbage    int64     `json:"garbage"`             // calls with a bad header or undecodable arguments
	Panics     int64     `json:"panics"`              // faults in a call; its connection was closed
}

// counters are the live form of Stats.
type counters struct {
	calls, writes, bytes, commits, full, duplicates              atomic.Int64
	refused, denied, foreign, forged, malformed, garbage, panics atomic.Int64
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	c := &s.stats
	st := Stats{
		Calls: c.calls.Load(), Writes: c.writes.Load(), Bytes: c.bytes.Load(), Commits: c.commits.Load(),
		Full: c.full.Load(), Duplicates: c.duplicates.Load(), Refused: c.refused.Load(), Denied: c.denied.Load(),
		Foreign: c.foreign.Load(), Forged: c.forged.Load(), Malformed: c.malformed.Load(),
		Garbage: c.garbage.Load(), Panics: c.panics.Load(), FullSince: s.alarm.state(),
	}
	s.connMu.Lock()
	st.Conns = int64(len(s.conns))
	s.connMu.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.trees {
		st.Removed += int64(t.removedCount())
	}
	st.Files = int64(len(s.nodes)) - st.Removed
	return st
}

// quietLog lets one message of a kind through in ten seconds, so that a
// scanner cannot fill the log. The counts in Stats are complete.
type quietLog struct{ last atomic.Int64 }

func (q *quietLog) allow(now time.Time) bool {
	last := q.last.Load()
	since := time.Duration(now.UnixNano() - last) // negative: the clock was set back
	return since.Abs() >= 10*time.Second && q.last.CompareAndSwap(last, now.UnixNano())
}
