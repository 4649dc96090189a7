package nfsgw

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// handleSize is the length of a file handle.
//
//	 0  version, 1
//	 1  zero (3)
//	 4  server id (8): from the key, tells a handle of another gateway
//	12  file id (8), big-endian
//	20  MAC (12): HMAC-SHA-256 of the first 20 bytes, cut
//
// A handle is not a secret (it crosses the network in clear) but cannot be
// made up: which files exist is not to be found by counting.
const handleSize = 32

const (
	handleVersion = 1
	handleIDAt    = 12
	handleMACAt   = 20
)

type handle [handleSize]byte

type handleMaker struct {
	key    [32]byte
	server [8]byte
}

func newHandleMaker(key [32]byte) handleMaker {
	m := handleMaker{key: key}
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte("logvault nfs server id"))
	copy(m.server[:], mac.Sum(nil))
	return m
}

func (m *handleMaker) make(id uint64) handle {
	h := handle{handleVersion}
	copy(h[4:], m.server[:])
	binary.BigEndian.PutUint64(h[handleIDAt:], id)
	mac := hmac.New(sha256.New, m.key[:])
	mac.Write(h[:handleMACAt])
	copy(h[handleMACAt:], mac.Sum(nil))
	return h
}

// parse returns the file id of a handle that has the right form. The MAC is
// compared by the caller with the node's, which saves computing it per call.
func (m *handleMaker) parse(b []byte) (id uint64, ok bool) {
	if len(b) != handleSize || b[0] != handleVersion || b[1]|b[2]|b[3] != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[handleIDAt:]), true
}

func (h *handle) equal(b []byte) bool { return subtle.ConstantTimeCompare(h[:], b) == 1 }

// resolve finds the node of a handle for this call, removed files included.
func (s *Server) resolve(c *call, b []byte) (*node, status) {
	id, ok := s.handles.parse(b)
	if !ok {
		s.stats.forged.Add(1)
		return nil, statusBadHandle
	}
	s.mu.RLock()
	n := s.nodes[id]
	s.mu.RUnlock()
	if n == nil {
		if h := s.handles.make(id); !h.equal(b) {
			s.stats.forged.Add(1)
		}
		return nil, statusStale
	}
	if !n.handle.equal(b) {
		s.stats.forged.Add(1)
		return nil, statusStale
	}
	src := n.tree.source.Load()
	if src != nil {
		if _, ok := src.lists(c.conn.peer); ok {
			return n, statusOK
		}
	}
	s.stats.foreign.Add(1)
	if s.foreignLog.allow(s.cfg.Now()) {
		s.cfg.Log.Warn("nfs handle used from an address that is not of its source", "source", n.tree.name, "foreign", s.stats.foreign.Load())
	}
	return nil, statusAcces
}

// directory resolves a handle that must be of a directory. Of another node it
// returns that too, for its attributes.
func (s *Server) directory(c *call, b []byte) (*node, status) {
	n, st := s.resolve(c, b)
	if st == statusOK && n.kind != typeDir {
		return n, statusNotDir
	}
	return n, st
}

// file resolves a handle that must be of a regular file, as directory does.
func (s *Server) file(c *call, b []byte) (*node, status) {
	n, st := s.resolve(c, b)
	if st == statusOK && n.kind != typeFile {
		return n, statusInval
	}
	return n, st
}
