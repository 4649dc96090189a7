package nfsgw

import "net/netip"

const (
	peerConns = 64  // connections of one peer; the Linux client makes at most 16 per mount
	peerCalls = 512 // its calls that run at one time
	peerReads = 32  // its READs that run at one time: their replies are large
)

// peer is a client address with connections. It bounds what one client can
// take of what all share, however many connections it makes.
type peer struct {
	addr   netip.Addr
	conns  int           // under Server.connMu
	budget *budget       // bytes of calls read and not yet answered
	slots  chan struct{} // holds a token per running call
	reads  chan struct{} // and per running READ
}

// peerShare is the part of the bytes in flight that one peer may hold: three
// eighths, so that two that hold all they can leave a quarter to the others.
func peerShare(all int64) int64 { return max(all/8*3, 2*maxRecord) }

func (s *Server) newPeer(addr netip.Addr) *peer {
	return &peer{
		addr: addr, budget: newBudget(peerShare(s.budget.size)),
		slots: make(chan struct{}, peerCalls), reads: make(chan struct{}, peerReads),
	}
}

// join adds a connection, unless there are too many of its peer or in all.
func (s *Server) join(c *conn) bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	p := s.peers[c.peer]
	if len(s.conns) >= s.cfg.MaxConns || p != nil && p.conns >= peerConns {
		return false
	}
	if p == nil {
		p = s.newPeer(c.peer)
		s.peers[c.peer] = p
	}
	p.conns++
	c.share = p
	s.conns[c] = struct{}{}
	return true
}

// leave takes a connection away, and with its last one the peer.
func (s *Server) leave(c *conn) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	delete(s.conns, c)
	if c.share.conns--; c.share.conns == 0 {
		delete(s.peers, c.peer)
	}
}
