package nfsgw

import (
	"net/netip"
	"strings"

	"logvault/vault"
)

// maxMounts bounds the list that DUMP shows, per peer and in peers; it is only a
// courtesy to people.
const (
	maxMounts  = 64
	maxMounted = 4096
)

func (s *Server) mnt(c *call) bool {
	path := string(c.args.opaque(maxPath))
	if c.args.bad {
		return false
	}
	n, st := s.findExport(c, path)
	c.reply.status(st)
	if st != statusOK {
		if st == statusAcces {
			s.stats.denied.Add(1)
		}
		return true
	}
	c.reply.opaque(n.handle[:])
	c.reply.u32(1) // flavours
	c.reply.u32(authSys)
	s.noteMount(c.conn.peer, path)
	return true
}

func (s *Server) noteMount(peer netip.Addr, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.mounts[peer]
	switch {
	case list == nil && len(s.mounts) >= maxMounted, len(list) >= maxMounts:
		return
	case list == nil:
		list = make(map[string]struct{})
		s.mounts[peer] = list
	}
	list[path] = struct{}{}
}

// findExport walks an export path. Its first element may name a source that
// lists the peer; otherwise the walk starts at the root of the peer's own
// source. Only directories are walked through.
func (s *Server) findExport(c *call, path string) (*node, status) {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "\x00") {
		return nil, statusInval
	}
	var elems []string
	for _, e := range strings.Split(path, "/") {
		if e != "" && e != "." {
			elems = append(elems, e)
		}
	}
	src := s.homeOf(c.conn.peer)
	if len(elems) > 0 {
		if named := findSource(*s.sources.Load(), vault.Source(elems[0])); named != nil {
			if _, ok := named.lists(c.conn.peer); !ok {
				return nil, statusAcces
			}
			src, elems = named, elems[1:]
		}
	}
	if src == nil {
		return nil, statusAcces
	}
	t, err := s.treeOf(c.work(), src.Name)
	if err != nil {
		return nil, s.mountFailure(c, err)
	}
	n := t.root
	for _, e := range elems {
		if n = n.lookup(e); n == nil {
			return nil, statusNoEnt
		}
		if n.kind != typeDir {
			return nil, statusNotDir
		}
	}
	return n, statusOK
}

// mountFailure is passing for MOUNT, which has no JUKEBOX: the mount fails
// after the same delay, and mount(8) or autofs tries again.
func (s *Server) mountFailure(c *call, err error) status {
	if st := s.passing(c, err); st != statusJukebox {
		return st
	}
	return statusServerFault
}

// dump lists the peer's own mounts: who else mounts is not its business.
func (s *Server) dump(c *call) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for path := range s.mounts[c.conn.peer] {
		c.reply.flag(true)
		c.reply.string(c.conn.peer.String())
		c.reply.string(path)
	}
	c.reply.flag(false)
	return true
}

func (s *Server) umnt(c *call) bool {
	path := string(c.args.opaque(maxPath))
	if c.args.bad {
		return false
	}
	s.mu.Lock()
	delete(s.mounts[c.conn.peer], path)
	if len(s.mounts[c.conn.peer]) == 0 {
		delete(s.mounts, c.conn.peer)
	}
	s.mu.Unlock()
	return true
}

func (s *Server) umntall(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounts, c.conn.peer)
	return true
}

// export lists what the peer may mount, each with the addresses that may.
func (s *Server) export(c *call) bool {
	list := *s.sources.Load()
	if home := s.homeOf(c.conn.peer); home != nil {
		c.reply.exportOf("/", home)
	}
	for i := range list {
		if _, ok := list[i].lists(c.conn.peer); ok {
			c.reply.exportOf("/"+string(list[i].Name), &list[i])
		}
	}
	c.reply.flag(false)
	return true
}

func (e *encoder) exportOf(path string, src *Source) {
	e.flag(true)
	e.string(path)
	for _, p := range src.Clients {
		e.flag(true)
		e.string(p.String())
	}
	e.flag(false)
}
