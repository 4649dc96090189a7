package ingest

import "logvault/vault"

// Mark is how far the generations of each stream had come at one moment. A
// caller that wants everything sealed that was received so far, and not what
// keeps coming meanwhile, takes one first.
type Mark map[vault.StreamID]map[int64]int64 // stream, generation → end of its furthest byte

// Mark notes the generations that hold something not in the ledger.
func (s *Spool) Mark() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := Mark{}
	for _, st := range s.table.order {
		for _, g := range st.gens {
			if g.high <= g.sealed {
				continue
			}
			if m[st.ID] == nil {
				m[st.ID] = map[int64]int64{}
			}
			m[st.ID][g.genKey.gen] = g.high
		}
	}
	return m
}

// Below tells, for each stream of a mark, how many bytes of the stream below
// the mark are not in the ledger. The end of a line that is not whole stays.
func (s *Spool) Below(m Mark) map[vault.StreamID]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := make(map[vault.StreamID]int64, len(m))
	for id, ends := range m {
		st := s.table.stream(id)
		if st == nil {
			continue
		}
		for _, g := range st.gens {
			if end := ends[g.genKey.gen]; end > g.sealed {
				left[id] += end - g.sealed
			}
		}
	}
	return left
}
