package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"logvault/vault"
)

// start replays the files in the order they were written, begins a new file
// with a snapshot, and stores again in it what is live in files that their
// writer did not finish: what the page cache of a crashed process holds may
// never have reached the disk. Nothing is accepted before that is synced.
//
// A crash at any point leaves the old files in place; what was stored again is
// found twice, and the later place counts. So replaying twice is replaying once.
func (s *Spool) start(ctx context.Context) error {
	files, proven, err := s.openFiles()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.replay(f, proven[f.seq]); err != nil {
			return err
		}
	}
	if s.table.secret == [32]byte{} {
		if _, err := io.ReadFull(s.cfg.Random, s.table.secret[:]); err != nil {
			return fmt.Errorf("drawing a key: %w", err)
		}
	}
	s.table.dropOver()
	s.settle()
	s.forgetPhantoms()
	before := fileHeader{}
	if n := len(s.row); n > 0 {
		before.before, before.proven = s.row[n-1].seq, s.row[n-1].proven
	}
	if err := s.begin(before); err != nil {
		return err
	}
	for _, f := range slices.Clone(s.row) {
		if f != s.cur && (!f.closed || f.damaged) {
			f.closed = true
			if err := s.carry(f); err != nil {
				return err
			}
		}
	}
	if err := s.syncTo(s.last()); err != nil {
		return err
	}
	return s.sweep()
}

// openFiles opens the files in order, into slots and row, and destroys keys
// whose file is gone. It returns what each file's successor knows to be proven.
func (s *Spool) openFiles() ([]*spoolFile, map[uint64]uint64, error) {
	entries, err := s.cfg.FS.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	needed := map[uint64]bool{}
	proven := map[uint64]uint64{}
	for _, e := range entries {
		if seq, ok := parseSeq(e.Name(), fileSuffix+damagedSuffix); ok {
			needed[seq] = true
			s.aside++
			s.nextSeq = max(s.nextSeq, seq+1)
		}
		seq, ok := parseSeq(e.Name(), fileSuffix)
		if !ok {
			continue
		}
		f, err := s.cfg.openFile(seq)
		if err != nil {
			return nil, nil, err
		}
		f.slot = len(s.slots)
		s.slots, s.row = append(s.slots, f), append(s.row, f)
		needed[seq] = true
		s.nextSeq = max(s.nextSeq, seq+1)
		h, err := f.header()
		if err != nil {
			return nil, nil, err
		}
		proven[h.before] = max(proven[h.before], h.proven)
	}
	return slices.Clone(s.row), proven, s.destroyKeys(needed)
}

// header reads the header of a file. A damaged one is the zero header: the key
// names the file, and the groups speak for themselves.
func (sf *spoolFile) header() (fileHeader, error) {
	b := make([]byte, headerSize)
	if n, err := sf.f.ReadAt(b, 0); n < headerSize && err != io.EOF {
		return fileHeader{}, fmt.Errorf("%s: %w", sf.names.file, err)
	}
	h, err := parseFileHeader(b)
	if errors.Is(err, vault.ErrNewer) {
		return h, fmt.Errorf("%s: %w", sf.names.file, err)
	}
	if err != nil || h.id != sf.id || h.seq != sf.seq {
		sf.badHeader = true
		return fileHeader{}, nil
	}
	return h, nil
}

// destroyKeys removes the keys of files that are gone: a crash between the two
// steps of making or removing a file leaves one.
func (s *Spool) destroyKeys(needed map[uint64]bool) error {
	entries, err := s.cfg.FS.ReadDir(s.cfg.KeyDir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyMissing, err)
	}
	for _, e := range entries {
		if seq, ok := parseSeq(e.Name(), keySuffix); ok && !needed[seq] {
			if err := s.cfg.destroyKey(s.cfg.names(seq).key); err != nil {
				return err
			}
			s.nextSeq = max(s.nextSeq, seq+1)
		}
	}
	return nil
}

// replay brings one file into the tables: by its footer or, if its writer did
// not finish it or the footer is damaged, in full.
func (s *Spool) replay(f *spoolFile, proven uint64) error {
	f.closed, s.table.staged = false, nil
	if at := f.footerAt(); at > 0 {
		err := s.replayFooter(f, at)
		if err == nil {
			f.closed = true
			return nil
		}
		if !errors.Is(err, errDamaged) {
			return err
		}
	}
	return s.replayGroups(f, proven)
}

// replayFooter reads the footer at the end of a closed file and the groups with
// metadata. errDamaged: nothing was changed.
func (s *Spool) replayFooter(f *spoolFile, at int64) error {
	var footer []*runsRecord
	var metaAt []uint32
	var buf []byte
	for pos, next := at, uint64(0); pos < f.size-trailerSize; next++ {
		h, plain, b, err := f.readGroup(pos, buf)
		if buf = b; err != nil {
			return err
		}
		// All before the footer is proven when it begins, so its first group tells
		// that it is the first, wherever the trailer points.
		if next = max(next, h.proven+1); h.number != next {
			return fmt.Errorf("footer group %d, expected %d: %w", h.number, next, errDamaged)
		}
		f.proven = h.proven
		pos += diskSize(int(h.length))
		err = eachRecord(plain, func(kind recordKind, body []byte) error {
			switch kind {
			case recRuns:
				r, err := parseRuns(body, s.clock)
				footer = append(footer, r)
				return err
			case recMetaAt:
				at, err := parsePositions(body)
				metaAt = append(metaAt, at...)
				return err
			}
			return fmt.Errorf("footer record of kind %d: %w", kind, errDamaged)
		})
		if err != nil {
			return err
		}
	}
	var groups [][]byte
	for _, pos := range metaAt {
		_, plain, _, err := f.readGroup(int64(pos), nil)
		if err != nil {
			return err
		}
		groups = append(groups, plain)
	}
	for _, plain := range groups {
		if err := eachRecord(plain, s.replayMeta); err != nil {
			return err
		}
	}
	s.enterFooter(f, footer)
	return nil
}

// replayMeta applies a record if it is metadata.
func (s *Spool) replayMeta(kind recordKind, body []byte) error {
	switch kind {
	case recExtent, recDigest, recRuns, recMetaAt:
		return nil
	}
	return s.table.apply(kind, body)
}

// enterFooter enters the runs of a footer into the tables, and which bytes were
// not committed when it was written.
func (s *Spool) enterFooter(f *spoolFile, footer []*runsRecord) {
	for _, st := range s.table.order {
		for _, g := range st.gens {
			g.unstable = nil
		}
	}
	for _, r := range footer {
		g := s.genOf(r.genKey, r.source)
		for _, x := range r.runs {
			if r.kind == recUnstable {
				g.unstable.add(x.off(), x.end())
				continue
			}
			t := g.table(r.kind)
			t.cut(x.off(), x.end(), func(int, int64) {})
			t.put(makeRun(x.off(), x.len(), f.slot, x.pos(), x.tick()))
			if r.kind == recExtent {
				g.high = max(g.high, x.end())
			}
		}
	}
}

// genOf returns the generation of an extent. Its stream is unknown only if the
// record that made it was damaged.
func (s *Spool) genOf(k genKey, source vault.Source) *gen {
	st := s.table.stream(k.stream)
	if st == nil {
		st = s.table.addStream(vault.StreamInfo{ID: k.stream, Source: source})
	}
	return st.addGen(k.gen)
}

// replayGroups reads a file in full. Groups that are damaged below the last
// proven one are corruption; above it they were never acknowledged.
func (s *Spool) replayGroups(f *spoolFile, proven uint64) error {
	var streams []vault.StreamID
	var last, lost uint64
	garbage, err := f.scan(func(pos int64, h groupHeader, plain []byte) error {
		if h.number != last+1 {
			s.table.staged = nil // a snapshot with a group missing is none
			if lost == 0 {
				lost = last + 1
			}
		}
		s.lsn += h.number - last // what follows a missing group does not join what precedes it
		last, proven = h.number, max(proven, h.proven)
		return eachRecord(plain, func(kind recordKind, body []byte) error {
			if kind != recExtent && kind != recDigest {
				return s.replayMeta(kind, body)
			}
			h, payload, err := parseExtent(body)
			if err != nil {
				return err
			}
			g := s.genOf(h.genKey, h.source)
			s.place(g, kind, &h, int64(len(payload)), place{file: f, pos: pos, lsn: s.lsn})
			streams = append(streams, h.stream)
			if kind == recExtent && len(streams) > 1 && streams[len(streams)-2] == h.stream {
				streams = streams[:len(streams)-1]
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if lost == 0 {
		lost = last + 1
	}
	f.proven = min(proven, last)
	switch {
	case lost <= proven || f.badHeader && proven > 0:
		s.noteDamage(f, streams)
	case garbage:
		s.torn++
		s.cfg.Log.Warn("unfinished write at the end of a spool file dropped: it was never acknowledged", "file", f.names.file)
	}
	return nil
}

// noteDamage records and reports a damaged file.
func (s *Spool) noteDamage(f *spoolFile, streams []vault.StreamID) {
	f.damaged = true
	var names []string
	for _, id := range streams {
		if !s.damagedStreams[id] {
			s.damagedStreams[id] = true
			names = append(names, id.String())
		}
	}
	s.cfg.Log.Error("spool file is damaged, acknowledged bytes may be lost: it is kept aside", "file", f.names.file, "streams", names)
}

// scan calls fn for each intact group in order. Where there is none it looks for
// the next at the following sectors; garbage says that it passed over bytes that
// are not zero.
func (sf *spoolFile) scan(fn func(pos int64, h groupHeader, plain []byte) error) (garbage bool, err error) {
	var buf []byte
	window := scanWindow{f: sf}
	for pos, last := int64(sector), uint64(0); pos+groupHead+tagSize <= sf.size; {
		head, err := window.at(pos)
		if err != nil {
			return garbage, err
		}
		if string(head[:4]) == groupMagic {
			h, plain, b, err := sf.readGroup(pos, buf)
			buf = b
			if err == nil && h.number > last {
				if err := fn(pos, h, plain); err != nil {
					return garbage, err
				}
				last = h.number
				pos += diskSize(int(h.length))
				continue
			}
			if err != nil && !errors.Is(err, errDamaged) {
				return garbage, err
			}
		}
		// The trailer of a closed file is no garbage.
		garbage = garbage || string(head[:8]) != trailerMagic && !bytes.Equal(head, make([]byte, len(head)))
		pos += sector
	}
	return garbage, nil
}

// scanWindow reads a file in large steps for who looks at each sector's start.
type scanWindow struct {
	f   *spoolFile
	buf []byte
	pos int64
}

// at returns up to a sector of bytes at pos.
func (w *scanWindow) at(pos int64) ([]byte, error) {
	if pos < w.pos || pos+groupHead > w.pos+int64(len(w.buf)) {
		if w.buf == nil {
			w.buf = make([]byte, 256<<10)
		}
		w.buf, w.pos = w.buf[:cap(w.buf)], pos
		n, err := w.f.f.ReadAt(w.buf, pos)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s: %w", w.f.names.file, err)
		}
		w.buf = w.buf[:n]
	}
	i := pos - w.pos
	return w.buf[i:min(i+sector, int64(len(w.buf)))], nil
}

// settle brings the tables in order after replay: released bytes are dropped,
// files count what lives in them.
func (s *Spool) settle() {
	for _, f := range s.row {
		f.live = 0
	}
	for _, st := range s.table.order {
		for _, g := range st.gens {
			g.data.cut(0, g.freed, func(int, int64) {})
			g.unstable.removeBelow(g.freed)
			g.touched = s.cfg.Boot()
			g.doubt, g.doubtAt = g.freed, g.touched // nobody knows which answers arrived
			for _, t := range []runs{g.data, g.macs} {
				for _, r := range t {
					s.slots[r.slot()].live += r.len()
				}
			}
		}
	}
}

// forgetPhantoms shortens the generations whose recorded end is beyond the
// bytes that are there: of the groups that no sync covered, the one with the
// record is on the disk and the one with the bytes is not. Nobody was answered
// for them, and who asks for the size goes on from there. If files were damaged
// the bytes may have been acknowledged: the end stays, what lacks is a gap.
func (s *Spool) forgetPhantoms() {
	if s.aside > 0 || slices.ContainsFunc(s.row, func(f *spoolFile) bool { return f.damaged }) {
		return
	}
	for _, st := range s.table.order {
		for _, g := range st.gens {
			g.high = g.sealed
			if n := len(g.data); n > 0 {
				g.high = max(g.high, g.data[n-1].end())
			}
		}
	}
}

// salvage looks which groups of a file are still intact, after one was not, and
// takes what is lost out of the tables: it becomes a gap. A file that cannot be
// read now, which is the error, changes nothing. mu is held, and released while f
// still has groups that are not written.
func (s *Spool) salvage(f *spoolFile) error {
	for s.usable() == nil && f == s.cur && (len(s.pend) > groupHead || s.flushing) {
		s.flushOrWait()
	}
	if f.gone || s.slots[f.slot] != f {
		return nil
	}
	intact := map[genKey][]runAt{}
	_, err := f.scan(func(pos int64, _ groupHeader, plain []byte) error {
		return eachRecord(plain, func(kind recordKind, body []byte) error {
			if kind != recExtent && kind != recDigest {
				return nil
			}
			h, payload, err := parseExtent(body)
			if err != nil {
				return err
			}
			x := makeRun(h.off, int64(len(payload)), f.slot, pos, s.clock.tick(h.wall))
			intact[h.genKey] = append(intact[h.genKey], runAt{kind, x})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("looking for what is left of a damaged spool file: %w", err)
	}
	var streams []vault.StreamID
	for _, st := range s.table.order {
		for _, g := range st.gens {
			if s.salvageGen(f, g, intact[g.genKey]) {
				streams = append(streams, st.ID)
			}
		}
	}
	s.noteDamage(f, streams)
	return nil
}

// runAt is an extent found in a file.
type runAt struct {
	kind recordKind
	run
}

// salvageGen replaces the runs of a generation in a file by those that are
// intact, and reports whether received bytes are lost.
func (s *Spool) salvageGen(f *spoolFile, g *gen, intact []runAt) (lost bool) {
	for _, kind := range []recordKind{recExtent, recDigest} {
		t := g.table(kind)
		had := slices.DeleteFunc(slices.Clone(*t), func(r run) bool { return r.slot() != f.slot })
		for _, r := range had {
			t.cut(r.off(), r.end(), s.dead)
		}
		for _, r := range had {
			for _, x := range intact {
				a, b := max(r.off(), x.off()), min(r.end(), x.end())
				if x.kind == kind && a < b {
					t.cut(a, b, s.dead)
					t.put(x.sub(a, b))
					f.live += b - a
				}
			}
			lost = lost || kind == recExtent && !t.covers(r.off(), r.end())
		}
	}
	if lost {
		g.intent, g.offer = nil, nil
	}
	return lost
}

// covers reports whether the table holds all of [a, b).
func (t runs) covers(a, b int64) bool {
	for i := t.from(a); i < len(t) && t[i].off() <= a; i++ {
		if a = t[i].end(); a >= b {
			return true
		}
	}
	return a >= b
}
