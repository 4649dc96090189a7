package ingest

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// A ledger has had more generations of a stream than fit one group of records:
// a log that is rotated each hour for a year.
func TestOvertakeManyGenerations(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	r.write(streamA, 9_999, 0, "one\ntwo\n", true)
	to := Ahead{Prev: 20_000, Next: 10_000}
	for gen := range int64(10_000) {
		to.Gens = append(to.Gens, SealedPart{Gen: gen, End: 4, Closed: gen < 9_999})
	}
	left, err := r.s.Overtake(ctx, func(vault.StreamID) Ahead { return to })
	r.must(err)
	if left != 4 {
		t.Errorf("%d bytes left the spool, expected 4", left)
	}
	r.reopen()
	if p := r.due(true); len(p) != 1 || r.read(p[0]) != "two\n" {
		t.Errorf("due %v", p)
	}
}

// While a late write waits, its stream, which is over, is forgotten.
func TestLateWriteToForgottenStream(t *testing.T) {
	forget := func(r *rig) {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		st := r.s.table.stream(streamA)
		for _, x := range []*stream{st, r.s.table.stream(st.conflict)} {
			if x != nil {
				x.gens = nil
			}
		}
		r.s.table.dropOver()
	}
	for _, conflicts := range []bool{false, true} { // before; else its conflict stream is to be made
		r := newRig(t, quiet)
		r.add(streamA)
		r.add(streamB)
		r.write(streamA, 0, 0, strings.Repeat("a", 3000), true)
		if conflicts {
			r.write(streamA, 0, 0, "b", true)
		}
		r.must(r.s.Record(ctx, vault.Changes{End: []vault.Generation{{Stream: streamA}}, Over: []vault.StreamID{streamA}}))
		r.crowdGroup(func() { forget(r) })
		err := r.s.Write(ctx, streamA, 0, 3000, []byte(strings.Repeat("x", 3000)), client, true)
		if !errors.Is(err, ErrNoStream) {
			t.Errorf("with earlier conflicts %v: %v, expected an unknown stream", conflicts, err)
		}
		r.reopen()
		if got := r.s.Stats().Streams; got != 1 {
			t.Errorf("with earlier conflicts %v: %d streams, expected 1", conflicts, got)
		}
	}
}

// badSector is a disk with a place that cannot be read.
type badSector struct {
	vfs.FS
	name string
	at   int64
}

type badSectorFile struct {
	vfs.File
	d *badSector
}

func (d *badSector) Open(name string) (vfs.File, error) {
	f, err := d.FS.Open(name)
	return &badSectorFile{f, d}, err
}

func (f *badSectorFile) ReadAt(p []byte, off int64) (int, error) {
	if f.Name() == f.d.name && f.d.at >= off && f.d.at < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// What one stream has in a place that cannot be read keeps no other stream from
// being sealed, nor the files beside it from being cleaned.
func TestUnreadablePlace(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	r.add(streamB)
	r.write(streamA, 0, 0, "one\n", true)
	a := r.s.table.stream(streamA).gen(0).data[0]
	r.write(streamB, 0, 0, strings.Repeat("b\n", 40_000), true)
	r.reopen() // both are in a closed file
	d := &badSector{FS: r.mem, name: r.s.slots[a.slot()].names.file, at: a.pos() + 30}
	r.cfg.FS = d
	r.must(r.s.Close())
	r.open()
	p := r.due(true)
	if len(p) != 1 || p[0].Stream != streamB {
		t.Fatalf("due %v, expected what stream B has", p)
	}
	r.seal(p[0], 1)
	r.must(r.s.EndGeneration(ctx, streamB, 0))
	for range 3 { // what is left of the file would be carried
		if p := r.due(true); len(p) != 0 {
			t.Errorf("due %v", p)
		}
	}
	r.must(wantLive(r.s))
	d.name = "" // it was a cable
	if p := r.due(true); len(p) != 1 || r.read(p[0]) != "one\n" {
		t.Errorf("due %v, expected what stream A has", p)
	}
}

// A file with a damaged group and another place that cannot be read stops the
// start with that error.
func TestDamagedAndUnreadable(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	for i := range 3 {
		r.write(streamA, 0, int64(8000*i), strings.Repeat("a", 8000), true)
	}
	g := r.s.table.stream(streamA).gen(0)
	first, last := g.data[0], g.data[len(g.data)-1]
	f := r.s.slots[first.slot()]
	r.must(r.s.Close())
	r.open()
	r.flip(f.names.file, first.pos()+groupHead+2000, 1)
	f = r.s.slots[r.s.table.stream(streamA).gen(0).data[0].slot()]
	f.f = &badSectorFile{f.f, &badSector{name: f.names.file, at: last.pos() + last.len()/2}}
	r.s.mu.Lock()
	err := r.s.carry(f)
	r.s.mu.Unlock()
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("carried with %v, expected %v", err, syscall.EIO)
	}
}

// A new file that is full and cannot be taken away stops the spool: replayed
// after what comes later in the old one, it would set that back.
func TestHalfMadeFileStays(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	armed, made := false, ""
	r.cfg.FS = vfs.NewFault(r.mem, func(op vfs.Op, name string) error {
		switch {
		case !armed || !strings.HasSuffix(name, fileSuffix):
		case op == vfs.OpCreate:
			made = name
		case op == vfs.OpSync && name == made:
			return syscall.EDQUOT
		case op == vfs.OpRemove:
			return syscall.EIO
		}
		return nil
	})
	r.open()
	r.write(streamA, 0, 0, "one\n", true)
	armed = true
	r.advance(2 * fileAge)
	if err := r.s.SetMeta(ctx, vault.KV{Key: "k", Value: []byte("v")}); !errors.Is(err, ErrSyncFailed) {
		t.Errorf("a spool with a file that is half made and stays: %v, expected %v", err, ErrSyncFailed)
	}
}

// A client that truncates its file all day fills the table with generations
// that are over: they are forgotten before their day when it gets large.
func TestManyShortGenerations(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	var index int64
	for gen := range int64(3000) {
		err := r.s.Write(ctx, streamA, gen, 0, []byte("line\n"), client, true)
		if err != nil {
			t.Fatalf("generation %d: %v", gen, err)
		}
		r.must(r.s.EndGeneration(ctx, streamA, gen))
		if gen%20 == 19 {
			for p := r.due(true); len(p) > 0; p = r.due(true) {
				index++
				r.seal(p[0], index)
			}
			r.advance(2 * time.Minute)
		}
	}
	r.reopen()
	if st := r.s.Stats(); st.Table > st.TableLimit {
		t.Errorf("the table has %d bytes, at most %d expected", st.Table, st.TableLimit)
	}
	// The latest are remembered: what repeats them is recognised.
	r.write(streamA, 3000, 0, "new\n", true)
}

// The estimate of a snapshot is no less than what it takes, whatever is in it.
func TestSnapshotEstimate(t *testing.T) {
	long := vault.Source("s" + strings.Repeat("0", 62))
	table := newTable()
	for i := range byte(200) {
		st := table.addStream(vault.StreamInfo{ID: vault.StreamID{i}, Source: long, Name: []byte("n")})
		st.over = true
	}
	size := 0
	for _, st := range table.order {
		size += len(st.appendOver(st.streamRecord.append(nil)))
	}
	if got := table.snapshotSize(); got < int64(size)+1024 {
		t.Errorf("200 streams of %d bytes are estimated as %d", size, got-1024)
	}
	var g gen
	g.late = true
	g.intent = &vault.Intent{Piece: vault.Piece{Source: long, Name: []byte("n"), Conflict: &vault.ConflictOf{}}, Entry: []byte("e")}
	before := table.snapshotSize()
	table.order[0].gens = []*gen{&g}
	if n, got := len(g.appendState(nil)), table.snapshotSize()-before; got < int64(n) {
		t.Errorf("a generation of %d bytes is estimated as %d", n, got)
	}
	kv := vault.KV{Key: "key", Value: []byte("value")}
	before = table.snapshotSize()
	table.setKV(kv)
	if n, got := len(appendKV(nil, kv)), table.snapshotSize()-before; got < int64(n) {
		t.Errorf("a key of %d bytes is estimated as %d", n, got)
	}
}

// A generation that ended while the clock was wrong by years is forgotten all the same.
func TestEndedInTheFuture(t *testing.T) {
	r := newRig(t, quiet)
	r.add(streamA)
	r.write(streamA, 0, 0, "line\n", true)
	wall := r.wall
	r.wall = wall.AddDate(10, 0, 0)
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.wall = wall
	r.seal(r.due(true)[0], 1)
	r.advance(2 * time.Minute)
	r.due(true)
	r.reopen()
	if n := len(r.s.table.stream(streamA).gens); n != 0 {
		t.Errorf("%d generations, expected none", n)
	}
}
