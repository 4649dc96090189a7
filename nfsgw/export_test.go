package nfsgw

import "time"

// SetFullDelay sets how long a call waits before JUKEBOX.
func SetFullDelay(s *Server, d time.Duration) { s.fullDelay = d }

// SetTimeouts sets how long a connection may be idle, a record may take to
// arrive, and a peer to take a reply.
func SetTimeouts(s *Server, idle, record, reply time.Duration) {
	s.timeouts = timeouts{idle: idle, record: record, reply: reply, stop: s.timeouts.stop}
}

// SetStopTimeout sets how long a peer may take for replies while the server stops.
func SetStopTimeout(s *Server, d time.Duration) { s.timeouts.stop = d }

// Held returns the bytes of calls that are in flight.
func Held(s *Server) int64 {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.size - s.budget.free
}

// Unsent returns the most reply bytes that a connection has gathered.
func Unsent(s *Server) (most int) {
	s.eachConn(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		most = max(most, len(c.out))
	})
	return most
}

// The limits of a peer.
const (
	PeerConns    = peerConns
	MaxRecord    = maxRecord
	ReplyBacklog = replyBacklog
)
