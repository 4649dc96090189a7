package ingest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/vault"
)

// The functions in this file are called with Spool.mu held and may release it.

// tidy forgets what is over, closes a file that is old, carries the rest of
// nearly empty files forward and removes the files that nothing refers to.
func (s *Spool) tidy() error {
	if s.cleaning {
		return nil // another call is at it
	}
	s.cleaning = true
	defer func() { s.cleaning = false }()
	if err := s.forgetOld(); err != nil {
		return err
	}
	if s.aged() {
		if err := s.reserve(1, forRecords); err != nil {
			return orFull(err)
		}
	}
	if err := s.freshSnapshot(); err != nil {
		return err
	}
	if f := s.victim(); f != nil && s.roomToCarry(f) {
		if err := s.carry(f); errors.Is(err, vault.ErrFull) {
			return nil
		} else if err != nil {
			f.stuck = true
			if err := s.unread(err); err != nil {
				return err
			}
		}
	}
	return s.sweep()
}

// forgetOld drops generations that were sealed and released and ended 24 hours
// ago, and the streams that are over and have no other. In a table that is more
// than half full 10 minutes are enough: all sources share it, and one client that
// truncates its file all day must not fill it. Of a generation that ended more
// than a day from now the clock was wrong. It looks at all of them, so once a
// minute is enough.
func (s *Spool) forgetOld() error {
	now := s.cfg.Boot()
	if now-s.forgotAt < time.Minute {
		return nil
	}
	keep, wall := keepFor, s.cfg.Now()
	if s.table.snapshotSize() > s.tableLimit()/2 {
		keep = silence
	}
	defer s.table.dropOver()
	for _, st := range s.table.order {
		for _, g := range slices.Clone(st.gens) {
			over := !g.ended.IsZero() && g.sealed == g.high && g.intent == nil && g.offer == nil
			if !over || wall.Sub(g.ended).Abs() <= keep || len(g.data) > 0 || len(g.macs) > 0 {
				continue
			}
			moves := s.moves
			if err := s.reserve(64, forRecords); err != nil {
				return orFull(err)
			}
			if s.moves != moves {
				return nil // look again next time
			}
			st.dropGen(g.genKey.gen)
			s.appendMeta(func(b []byte) []byte { return appendForget(b, recForget, g.genKey) })
		}
	}
	s.forgotAt = now
	return nil
}

// crowded reports whether the spool is more than 80 % full, or intake has no
// room for one more file.
func (s *Spool) crowded() bool {
	return s.cfg.MaxBytes > 0 && s.used() > s.cfg.MaxBytes/5*4 || !s.roomForFile(forIntake)
}

// freshSnapshot begins a new file when a crowded spool has files that wait for a
// snapshot only.
func (s *Spool) freshSnapshot() error {
	waits := slices.ContainsFunc(s.row, func(f *spoolFile) bool { return f.closed && f.live == 0 && f.seq >= s.snapshotSeq })
	if !waits || !s.crowded() || !s.roomForFile(forRecords) {
		return nil
	}
	for len(s.pend) > groupHead || s.flushing || s.syncing {
		if err := s.usable(); err != nil {
			return err
		}
		s.flushOrWait()
	}
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.rotate(); orFull(err) != nil {
		return s.fail(err)
	}
	return nil
}

// victim returns the oldest closed file of which less than a quarter lives, or
// less than half in a crowded spool; or nil. A file that is fuller gains too
// little for what it costs.
func (s *Spool) victim() *spoolFile {
	crowded := s.crowded()
	for _, f := range s.row {
		if f.closed && !f.stuck && f.live > 0 && (f.live < f.size/4 || crowded && f.live < f.size/2) {
			return f
		}
	}
	return nil
}

// roomToCarry reports whether the live bytes of a file fit without the last of
// the reserve: half carried, they would free nothing.
func (s *Spool) roomToCarry(f *spoolFile) bool {
	return s.pos+2*f.live < s.room(forRecords) || s.cfg.MaxBytes == 0 || s.used() <= s.cfg.MaxBytes
}

// carry stores the live bytes of a file again in the current one. The file is
// then empty and removed when they are synced; until then a crash finds them in
// both, and the later place counts. What cannot be found is damage.
func (s *Spool) carry(f *spoolFile) error {
	for pass := 0; f.live > 0; pass++ {
		if pass == 3 { // salvage leaves only what it has just read
			return fmt.Errorf("%s: %d live bytes cannot be found: %w", f.names.file, f.live, errDamaged)
		}
		if pass > 0 {
			if err := s.salvage(f); err != nil {
				return err
			}
		}
		if err := s.carryGroups(f); err != nil {
			return err
		}
	}
	return nil
}

// carryGroups carries what is found, in the order of the file: a group holds
// small extents of many streams, and is to be read once for all of them.
func (s *Spool) carryGroups(f *spoolFile) error {
	var starts []int64
	for _, st := range s.table.order {
		for _, g := range st.gens {
			for _, t := range []runs{g.data, g.macs} {
				for _, r := range t {
					if r.slot() == f.slot {
						starts = append(starts, r.pos())
					}
				}
			}
		}
	}
	slices.Sort(starts)
	f.refs++
	r := &reading{s: s, files: []*spoolFile{f}, buf: groupBuffers.Get().(*[]byte)}
	defer r.done()
	next := int64(0)
	for _, start := range slices.Compact(starts) {
		// A run may go on in the groups that follow its first.
		for pos := max(start, next); f.live > 0 && (pos == start || pos < start+mergeSpan); pos = next {
			s.mu.Unlock()
			err := r.load(f, pos)
			s.mu.Lock()
			s.moves++
			if d := (*damageError)(nil); errors.As(err, &d) {
				break // or nothing follows
			}
			if err != nil {
				return err
			}
			next = r.next
			err = eachRecord(r.plain, func(kind recordKind, body []byte) error {
				if kind != recExtent && kind != recDigest {
					return nil
				}
				h, payload, err := parseExtent(body)
				if err != nil {
					return err
				}
				return s.carryExtent(f, kind, h, payload)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// carryExtent carries what of an extent lives in f.
func (s *Spool) carryExtent(f *spoolFile, kind recordKind, h extentHead, payload []byte) error {
	for first, at, end := h.off, h.off, h.off+int64(len(payload)); at < end; {
		st := s.table.stream(h.stream)
		if st == nil || st.gen(h.genKey.gen) == nil {
			return nil // forgotten
		}
		g := st.gen(h.genKey.gen)
		t := *g.table(kind)
		i := t.from(at)
		if i == len(t) || t[i].off() >= end {
			return nil
		}
		x := t[i].sub(max(at, t[i].off()), min(end, t[i].end()))
		if x.slot() != f.slot {
			at = x.end()
			continue
		}
		moves := s.moves
		if err := s.reserve(extentSize(st.Source, int(x.len())), forRecords); err != nil {
			return err
		}
		if s.moves != moves {
			continue // released or trimmed meanwhile?
		}
		h.off, at = x.off(), x.end()
		h.stable = kind == recDigest || g.unstable.first(x.off(), x.end()) == x.end()
		s.appendExtent(g, kind, &h, payload[x.off()-first:x.end()-first])
	}
	return nil
}

// table returns the runs of the extents or of the block MACs.
func (g *gen) table(kind recordKind) *runs {
	if kind == recDigest {
		return &g.macs
	}
	return &g.data
}

// sweep removes the closed files that nothing refers to, when a later snapshot
// holds their metadata and everything that replaced them is synced.
func (s *Spool) sweep() error {
	idle := func(f *spoolFile) bool { return f.closed && f.live == 0 && f.seq < s.snapshotSeq }
	if !slices.ContainsFunc(s.row, idle) {
		return nil
	}
	dead := slices.DeleteFunc(slices.Clone(s.row), func(f *spoolFile) bool { return !idle(f) })
	if err := s.syncTo(s.last()); err != nil {
		return err
	}
	for _, f := range dead {
		if err := s.drop(f); err != nil {
			return s.fail(err)
		}
	}
	s.fullUntil = 0
	return nil
}

// drop takes a file out of the row: removed with its key or, if it is damaged,
// kept aside with it under another name.
func (s *Spool) drop(f *spoolFile) error {
	if f.damaged {
		if err := s.cfg.FS.Rename(f.names.file, f.names.file+damagedSuffix); err != nil {
			return fmt.Errorf("keeping a damaged spool file aside: %w", err)
		}
		if err := s.cfg.FS.SyncDir(s.cfg.Dir); err != nil {
			return fmt.Errorf("keeping a damaged spool file aside: %w", err)
		}
		s.aside++
	} else if err := s.cfg.removeFile(f.names); err != nil {
		return fmt.Errorf("removing a spool file: %w", err)
	}
	s.row = slices.DeleteFunc(s.row, func(x *spoolFile) bool { return x == f })
	s.slots[f.slot] = nil
	f.gone = true
	if f.refs == 0 {
		f.f.Close() // nothing is unwritten
	}
	return nil
}
