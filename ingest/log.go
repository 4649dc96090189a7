package ingest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"logvault/vault"
)

const (
	fileAge       = time.Hour // a file takes no more after this
	snapshotEvery = 16        // files
	spareFiles    = 2         // files kept for the records of sealing and cleaning
	largeGroup    = 256 << 10 // written out at once; many small ones are better written together
)

// purpose tells what room is asked for.
type purpose int

const (
	forIntake  purpose = iota
	forEnds            // of clients that end generations: may use half of the reserve, not what sealing needs
	forRecords         // of sealing and cleaning: what frees the spool may use its reserve
)

// The functions in this file are called with Spool.mu held; those that wait say so.

// usable returns why the spool cannot go on, or nil.
func (s *Spool) usable() error {
	if s.err != nil {
		return s.err
	}
	if s.closed {
		return ErrClosed
	}
	return nil
}

// fail stops the spool for good: what the disk holds is unknown from here on.
func (s *Spool) fail(err error) error {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrSyncFailed, err)
		s.cfg.Log.Error("spool disk failed", "err", err)
		s.moved.Broadcast()
	}
	return s.err
}

// reserve makes room for need record bytes in the pending group. It may wait and
// release mu, so that what the caller knew before may have changed; from its
// return the caller appends without letting go of mu.
// vault.ErrFull: there is no room for this purpose.
func (s *Spool) reserve(need int, p purpose) error {
	if need > s.groupBytes {
		return fmt.Errorf("spool record of %d bytes, expected at most %d", need, s.groupBytes)
	}
	for {
		if err := s.usable(); err != nil {
			return err
		}
		held := len(s.pend) - groupHead
		if held > 0 && held+need > s.groupBytes {
			s.flushOrWait()
			continue
		}
		end := s.pos + diskSize(held+need)
		fits := end <= s.room(forIntake)
		if fits && !s.aged() {
			return nil
		}
		if s.roomForFile(p) {
			if held > 0 || s.flushing || s.syncing {
				s.flushOrWait()
				continue
			}
			err := s.rotate()
			if err == nil {
				continue
			}
			if !errors.Is(err, vault.ErrFull) {
				return s.fail(err)
			}
			s.fullUntil = s.cfg.Boot() + time.Second
		}
		if fits || p == forRecords && end <= s.room(forRecords) {
			return nil
		}
		return vault.ErrFull
	}
}

// room returns where the pending group must end in the current file.
func (s *Spool) room(p purpose) int64 {
	f := s.cur
	footer := int64(1024 + footerRun*f.runs + 160*f.gens + 4*len(f.metaAt))
	footer += (footer/int64(s.groupBytes) + 2) * 2 * sector
	end := f.size - footer
	if p != forRecords {
		end -= s.cfg.FileBytes / 16
	}
	return end
}

// aged reports whether the current file is old enough to be closed.
func (s *Spool) aged() bool {
	return s.cfg.Boot()-s.born >= fileAge && len(s.cur.metaAt)+s.cur.runs > s.head
}

// roomForFile reports whether one more file may be made.
func (s *Spool) roomForFile(p purpose) bool {
	want, limit := s.cfg.FileBytes, s.cfg.MaxBytes
	switch p {
	case forIntake:
		want += spareFiles * s.cfg.FileBytes
	case forEnds:
		want += spareFiles / 2 * s.cfg.FileBytes
	default:
		limit += spareFiles * s.cfg.FileBytes // many starts in a row can use up the reserve
	}
	if s.cfg.MaxBytes > 0 && s.used()+want > limit {
		return false
	}
	if s.cfg.Boot() < s.fullUntil {
		return false
	}
	disk, err := s.cfg.FS.Space(s.cfg.Dir)
	return err != nil || disk.Free >= want // unknown: making the file tells
}

// used returns the bytes that the files take.
func (s *Spool) used() int64 {
	var n int64
	for _, f := range s.row {
		n += f.size
	}
	return n
}

// wait waits until something moved. It releases mu meanwhile.
func (s *Spool) wait() {
	s.moved.Wait()
	s.moves++
}

// flushOrWait writes the pending group to its file, or waits for another's
// write or sync to end. It releases mu meanwhile.
func (s *Spool) flushOrWait() {
	if s.flushing || len(s.pend) == groupHead {
		s.wait()
		return
	}
	s.flush()
}

// flush hands the pending group to its file, without sync. Nobody else flushes.
// It releases mu while it encrypts and writes; meanwhile others fill the next group.
func (s *Spool) flush() {
	b, f, pos, number, proven, lsn := s.pend, s.cur, s.pos, s.number, s.proven, s.lsn
	if s.pendMeta {
		f.metaAt = append(f.metaAt, uint32(pos))
	}
	s.pos += diskSize(len(b) - groupHead)
	s.number++
	s.lsn++
	s.pend, s.spare, s.pendMeta = s.spare[:groupHead], nil, false
	s.flushing = true
	s.mu.Unlock()
	_, err := f.f.WriteAt(f.seal(b, number, proven), pos)
	if len(b) >= largeGroup {
		f.f.WriteBack(pos, int64(len(b))) // a file is synced at its end while everybody waits
	}
	s.mu.Lock()
	s.moves++
	s.flushing = false
	s.spare = b[:groupHead]
	s.written, s.writtenPos = lsn, s.pos
	if err != nil {
		s.fail(err)
	}
	s.moved.Broadcast()
}

// syncTo makes every group up to lsn durable. One caller flushes and syncs for
// all who wait; while it syncs the others fill the next group, so that it holds
// the extents of all of them. It releases mu meanwhile.
//
//	pwrite of the group, fdatasync   | crash before: nobody was answered; after: all are replayed
func (s *Spool) syncTo(lsn uint64) error {
	for {
		if err := s.usable(); err != nil {
			return err
		}
		if s.synced >= lsn {
			return nil
		}
		if s.syncing {
			s.wait()
			continue
		}
		if s.written < lsn {
			if !s.flushing {
				s.syncing = true // first: whoever comes now waits for the next sync
				s.flush()
				s.syncing = false
			} else {
				s.wait()
				continue
			}
			if err := s.usable(); err != nil {
				return err
			}
		}
		if err := s.sync(); err != nil {
			return err
		}
	}
}

// sync syncs what was written to the current file. Nobody else syncs.
func (s *Spool) sync() error {
	f, written, number := s.cur, s.written, s.lastNumber()
	s.syncing = true
	s.mu.Unlock()
	err := f.f.Sync()
	s.mu.Lock()
	s.moves++
	s.syncing = false
	if err != nil {
		return s.fail(err)
	}
	s.synced, s.proven = written, number
	s.moved.Broadcast()
	return nil
}

// lastNumber returns the number of the last group written to the current file.
func (s *Spool) lastNumber() uint64 {
	if s.flushing {
		return s.number - 2 // the one before the group in flight
	}
	return s.number - 1
}

// last returns the newest group that holds anything.
func (s *Spool) last() uint64 {
	if len(s.pend) > groupHead {
		return s.lsn
	}
	return s.lsn - 1
}

// appendMeta appends metadata records to the pending group, where reserve made room.
func (s *Spool) appendMeta(write func([]byte) []byte) {
	s.pend = write(s.pend)
	s.pendMeta = true
}

// rotate closes the current file and begins the next one. Nothing is pending,
// flushing or syncing; mu is held throughout, because nobody could write anyway.
//
//	sync old                         | all its groups are proven
//	make new, its header says so     | crash: old is read in full; new is empty
//	write footer to old, cut, sync   | crash: old is read in full
func (s *Spool) rotate() error {
	if err := s.cur.f.Sync(); err != nil {
		return err
	}
	s.synced, s.proven = s.written, s.number-1
	footer := s.footerWriter()
	if err := s.begin(fileHeader{before: s.cur.seq, proven: s.proven}); err != nil {
		return err
	}
	return s.finish(footer)
}

// footerWriter returns a writer for the rest of the current file.
func (s *Spool) footerWriter() *groupWriter {
	return &groupWriter{file: s.cur, pos: s.pos, number: s.number, proven: s.proven,
		end: s.cur.size - trailerSize, max: s.groupBytes}
}

// finish ends a file with its footer and the trailer that points to it, and
// gives unused room back. Without room for a footer the file ends without one
// and is read in full at the next start.
func (s *Spool) finish(w *groupWriter) error {
	f, at := w.file, w.pos
	err := s.footer(w)
	if err == nil {
		err = w.flush()
	}
	f.closed = true
	if errors.Is(err, errNoRoom) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := f.f.WriteAt(encodeTrailer(at), w.pos); err != nil {
		return err
	}
	if err := f.f.Truncate(w.pos + trailerSize); err != nil {
		return err
	}
	f.size = w.pos + trailerSize
	return f.f.Sync()
}

// footer writes the records that stand for the file at the next start: where
// the bytes of each generation are, which are not committed, and which groups
// hold metadata.
func (s *Spool) footer(w *groupWriter) error {
	for _, st := range s.table.order {
		for _, g := range st.gens {
			for _, r := range g.footers(w.file.slot, st.Source) {
				if err := w.add(func(b []byte) []byte { return r.append(b, s.clock) }); err != nil {
					return err
				}
			}
		}
	}
	return w.add(func(b []byte) []byte { return appendPositions(b, w.file.metaAt) })
}

// footerRuns bounds a footer record, so that it fits a group of any size in use.
const footerRuns = 200

// footers returns the footer records of a generation for the file in slot.
func (g *gen) footers(slot int, source vault.Source) []*runsRecord {
	var out []*runsRecord
	add := func(kind recordKind, r run) {
		if n := len(out); n == 0 || out[n-1].kind != kind || len(out[n-1].runs) == footerRuns {
			out = append(out, &runsRecord{genKey: g.genKey, kind: kind, source: source})
		}
		last := out[len(out)-1]
		last.runs = append(last.runs, r)
	}
	for _, r := range g.data {
		if r.slot() == slot {
			add(recExtent, r)
		}
	}
	for _, r := range g.macs {
		if r.slot() == slot {
			add(recDigest, r)
		}
	}
	for _, u := range g.unstable {
		for a := u[0]; a < u[1]; a += maxRun {
			add(recUnstable, makeRun(a, min(u[1]-a, maxRun), 0, 0, 0))
		}
	}
	return out
}

// begin makes a new file current. It starts with a snapshot if the last one is
// old or the table is small; before holds the header's link to the file before.
func (s *Spool) begin(h fileHeader) error {
	slot := slices.Index(s.slots, nil)
	if slot < 0 && len(s.slots) > maxSlot {
		return fmt.Errorf("%d spool files: %w", len(s.slots), vault.ErrFull)
	}
	h.seq = s.nextSeq
	s.nextSeq++
	snap := s.cur == nil || s.sinceSnapshot+1 >= snapshotEvery || s.table.snapshotSize() <= s.cfg.FileBytes/64 || s.crowded()
	f, w, err := s.cfg.createFile(h, func(w *groupWriter) error {
		if !snap {
			return nil
		}
		return s.table.snapshot(w)
	})
	if err != nil {
		return err
	}
	if slot < 0 {
		slot = len(s.slots)
		s.slots = append(s.slots, nil)
	}
	f.slot, s.slots[slot] = slot, f
	s.row = append(s.row, f)
	s.cur, s.pos, s.writtenPos, s.number, s.proven = f, w.pos, w.pos, w.number, w.number-1
	s.born, s.head = s.cfg.Boot(), len(f.metaAt)
	s.sinceSnapshot++
	if snap {
		s.sinceSnapshot, s.snapshotSeq = 0, f.seq
	}
	return nil
}
