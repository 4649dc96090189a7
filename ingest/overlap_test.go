package ingest

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

// lines returns n bytes of lines of a stream generation, from off on.
func lines(k genKey, off, n int64) string { return string(text(k, off, n, 0)) }

func TestOverlap(t *testing.T) {
	const base = "first line\nsecond line\n" // 23 bytes
	type write struct {
		off  int64
		data string
	}
	tests := []struct {
		name      string
		writes    []write
		main      string
		conflicts []string
	}{
		{"repeated", []write{{0, base}}, base, nil},
		{"repeated and longer", []write{{0, base + "third\n"}}, base + "third\n", nil},
		{"from within", []write{{11, "second line\nthird\n"}}, base + "third\n", nil},
		{"other bytes", []write{{0, "FIRST"}}, base, []string{"FIRST"}},
		{"other bytes, then new", []write{{11, "Second line\nthird\n"}}, base + "third\n", []string{"Second line\n"}},
		{"other bytes twice", []write{{0, "FIRST"}, {0, "FIRST"}}, base, []string{"FIRST"}},
		{"two others", []write{{0, "FIRST"}, {0, "first LINE"}}, base, []string{"FIRST", "first LINE"}},
		{"ahead, then between", []write{{28, "x\n"}, {20, "ne\nthirdx\n"}}, base + "thirdx\n", nil},
		{"over two runs and holes", []write{{25, "bb"}, {30, "dd"}, {23, "aabbcccddee\n"}}, base + "aabbcccddee\n", nil},
		{"nothing", []write{{3, ""}}, base, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			r.write(streamA, 0, 0, base, true)
			for _, w := range tt.writes {
				r.write(streamA, 0, w.off, w.data, true)
			}
			r.must(r.s.EndGeneration(ctx, streamA, 0))
			r.wantArchive(tt.main, tt.conflicts)
		})
	}
}

// wantArchive seals everything and compares it with what stream A and its
// conflict stream should hold.
func (r *rig) wantArchive(main string, conflicts []string) {
	r.t.Helper()
	if got := r.s.Stats().Conflicts; got != int64(len(conflicts)) {
		r.t.Errorf("%d conflicts counted, expected %d", got, len(conflicts))
	}
	got := r.drain()
	if got[genKey{streamA, 0}] != main {
		r.t.Errorf("sealed %q, expected %q", got[genKey{streamA, 0}], main)
	}
	st := r.s.table.stream(streamA)
	for i, want := range conflicts {
		if text := got[genKey{st.conflict, int64(i)}]; text != want {
			r.t.Errorf("conflict %d: %q, expected %q", i, text, want)
		}
	}
}

// A conflict is a closed generation of a stream of its own that says what it
// disagrees with, also after a restart, where its repetition is still known.
func TestConflictPiece(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 3, 0, "one\ntwo\n", true)
	r.write(streamA, 3, 4, "TWO\n", true)
	r.reopen()
	r.write(streamA, 3, 4, "TWO\n", true)
	var found int
	for _, p := range r.due(true) {
		if p.Stream == streamA {
			continue
		}
		found++
		want := vault.ConflictOf{Stream: streamA, Gen: 3, Offset: 4}
		if p.Conflict == nil || *p.Conflict != want || !p.Closed || p.Offset != 0 || p.Span != 4 || p.Source != "proxy1" || p.Prev != -1 {
			t.Errorf("conflict piece %+v", p)
		}
		if got := r.seal(p, 5); got != "TWO\n" {
			t.Errorf("conflict holds %q", got)
		}
	}
	if found != 1 {
		t.Errorf("%d conflict pieces, expected 1", found)
	}
}

func TestLateWrites(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "one\n", true)
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.must(r.s.EndGeneration(ctx, streamA, 0)) // again: nothing happens
	r.write(streamA, 0, 0, "one\n", true)
	r.write(streamA, 0, 4, "late\n", true)
	r.write(streamA, 1, 0, "new generation\n", true)
	r.wantArchive("one\n", []string{"late\n"})
	r.write(streamA, 0, 0, "one\n", true) // released: cannot be proven
	if got := r.s.Stats().Conflicts; got != 2 {
		t.Errorf("%d conflicts, expected 2", got)
	}
	r.advance(25 * time.Hour)
	r.due(true)
	if g := r.s.table.stream(streamA).gen(0); g != nil {
		t.Error("a generation that is over is not forgotten after a day")
	}
	r.reopen()
	r.write(streamA, 0, 0, "one\n", true) // still waits in the conflict stream
	r.write(streamA, 0, 0, "One\n", true)
	if got := r.s.Stats().Conflicts; got != 1 {
		t.Errorf("%d conflicts for a forgotten generation, expected 1", got)
	}
}

// What is released stays known: the last 64 KiB and uncommitted bytes as they
// are, the rest by block MACs for a day, whole blocks only.
func TestRepeatReleased(t *testing.T) {
	const size = 300_000
	k := genKey{streamA, 0}
	whole := lines(k, 0, size)
	fill := func(t *testing.T, from netip.Addr) *rig {
		r := newRig(t)
		r.add(streamA)
		for off := 0; off < size; off += 10_000 {
			r.must(r.s.Write(ctx, streamA, 0, int64(off), []byte(whole[off:off+10_000]), from, true))
			if off == 150_000 {
				r.sealAll()
			}
		}
		r.sealAll()
		return r
	}
	tests := []struct {
		name     string
		from     netip.Addr
		off, n   int64
		change   int64 // offset of a byte to change, -1 none
		wait     time.Duration
		reopen   bool
		conflict int64
	}{
		{"tail", client, size - 40_000, 30_000, -1, 0, false, 0},
		{"tail after restart", client, size - 40_000, 30_000, -1, 0, true, 0},
		{"tail changed", client, size - 40_000, 30_000, size - 20_000, 0, false, 1},
		{"blocks", client, 4096, 40 * 4096, -1, 0, false, 0},
		{"blocks after restart", client, 4096, 40 * 4096, -1, 0, true, 0},
		{"blocks and tail", client, 4096, 290_000, -1, 0, false, 0},
		{"one block changed", client, 4096, 40 * 4096, 50_000, 0, false, 1},
		{"part of a block", client, 5000, 1000, -1, 0, false, 1},
		{"blocks a day later", client, 4096, 4096, -1, 25 * time.Hour, false, 1},
		{"last page a day later", client, size &^ 4095, size % 4096, -1, 25 * time.Hour, false, 0},
		{"an import keeps no MACs", netip.Addr{}, 4096, 4096, -1, 0, false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := fill(t, tt.from)
			r.advance(tt.wait)
			r.due(true)
			if tt.reopen {
				r.reopen()
			}
			data := []byte(whole[tt.off : tt.off+tt.n])
			if tt.change >= 0 {
				data[tt.change-tt.off] ^= 1
			}
			r.must(r.s.Write(ctx, streamA, 0, tt.off, data, tt.from, true))
			if got := r.s.Stats().Conflicts; got < tt.conflict || tt.conflict == 0 && got > 0 {
				t.Errorf("%d conflicts, expected %d", got, tt.conflict)
			}
			if g := r.s.table.stream(streamA).gen(0); g.freed == 0 || g.sealed-g.freed > tailBytes+blockSize {
				t.Errorf("sealed to %d, released to %d", g.sealed, g.freed)
			}
		})
	}
}

// sealAll seals what is due, all of it.
func (r *rig) sealAll() {
	r.t.Helper()
	for {
		p := r.due(true)
		if len(p) == 0 {
			return
		}
		for _, x := range p {
			r.seal(x, 1)
		}
	}
}

// Uncommitted bytes stay until they are committed and the client has had time to
// hear of it, the end of the generation or 24 hours.
func TestUncommittedStays(t *testing.T) {
	k := genKey{streamA, 0}
	release := map[string]func(r *rig){
		"two commits": func(r *rig) {
			r.must(r.s.Commit(ctx, streamA))
			r.write(streamA, 0, 200_000, "more\n", false)
			r.must(r.s.Commit(ctx, streamA))
		},
		"commit and time": func(r *rig) {
			r.must(r.s.Commit(ctx, streamA))
			r.advance(11 * time.Minute)
			r.due(false)
		},
		"end":   func(r *rig) { r.must(r.s.EndGeneration(ctx, streamA, 0)) },
		"a day": func(r *rig) { r.advance(25 * time.Hour); r.due(false) },
	}
	for name, do := range release {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			for off := int64(0); off < 200_000; off += 10_000 {
				r.write(streamA, 0, off, lines(k, off, 10_000), false)
			}
			r.sealAll()
			g := r.s.table.stream(streamA).gen(0)
			if g.sealed < 199_000 || g.freed != 0 {
				t.Fatalf("sealed to %d, released to %d", g.sealed, g.freed)
			}
			r.write(streamA, 0, 100, lines(k, 100, 100_000), false)
			if got := r.s.Stats().Conflicts; got != 0 {
				t.Errorf("%d conflicts", got)
			}
			do(r)
			if g.freed < 130_000 {
				t.Errorf("released to %d", g.freed)
			}
		})
	}
}

// A COMMIT may be answered to nobody: after a restart the client sends all of it
// again, in writes that need not be pages, although it was sealed meanwhile.
func TestUnansweredCommit(t *testing.T) {
	k := genKey{streamA, 0}
	r := newRig(t)
	r.add(streamA)
	for off := int64(0); off < 300_000; off += 10_000 {
		r.write(streamA, 0, off, lines(k, off, 10_000), false)
	}
	r.must(r.s.Commit(ctx, streamA))
	r.sealAll()
	r.reopen()
	r.sealAll()
	for off := int64(0); off < 300_000; off += 10_000 {
		r.write(streamA, 0, off, lines(k, off, 10_000), false)
	}
	if got := r.s.Stats().Conflicts; got != 0 {
		t.Errorf("%d conflicts", got)
	}
}

// A hole is filled while it is young, becomes a gap when it is old, and what
// comes then is archived apart.
func TestHole(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "one\npart", true)
	r.write(streamA, 0, 12, "three\n", true)
	if p := r.due(true); len(p) != 1 || p[0].Span != 4 {
		t.Fatalf("due %+v", p)
	} else {
		r.seal(p[0], 1)
	}
	if p := r.due(true); len(p) != 0 {
		t.Fatalf("young hole: due %+v", p)
	}
	r.advance(9 * time.Minute)
	r.due(false)
	r.advance(2 * time.Minute)
	p := r.due(false)
	if len(p) != 1 || p[0].Offset != 4 || p[0].Span != 4 || p[0].Cut != "end" {
		t.Fatalf("before the gap: due %+v", p)
	}
	r.seal(p[0], 2)
	if p = r.due(false); len(p) != 1 || p[0].Kind != vault.PieceHole || p[0].Offset != 8 || p[0].Span != 4 || p[0].Prev != 2 {
		t.Fatalf("gap: due %+v", p)
	}
	r.write(streamA, 0, 8, "two\n", true) // too late: it may be in the ledger
	if again := r.due(false); len(again) == 0 || again[0].Kind != vault.PieceHole || again[0].Span != 4 {
		t.Fatalf("gap offered again: %+v", again)
	}
	r.seal(p[0], 3)
	r.write(streamA, 0, 8, "two\n", true) // the same, known
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	r.wantArchive("three\n", []string{"two\n"})
}

func TestHoleFilledInTime(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 4, "two\n", true)
	r.due(true)
	r.advance(9 * time.Minute)
	r.write(streamA, 0, 0, "one\n", true)
	r.advance(9 * time.Minute)
	r.wantArchive("one\ntwo\n", nil)
}

func TestReadAt(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	want := lines(genKey{streamA, 0}, 0, 50_000)
	for off := 0; off < len(want); off += 500 {
		r.write(streamA, 0, int64(off), want[off:off+500], false)
	}
	r.write(streamA, 0, 60_000, "beyond a hole", false)
	p := make([]byte, 4096)
	for off := 0; off < len(want); off += 3333 {
		n, err := r.s.ReadAt(ctx, streamA, 0, p, int64(off))
		if wantN := min(len(p), len(want)-off); err != nil || n != wantN || !bytes.Equal(p[:n], []byte(want[off:off+n])) {
			t.Fatalf("at %d: %d bytes, %v", off, n, err)
		}
	}
	if n, err := r.s.ReadAt(ctx, streamA, 0, p, 60_000); n != 13 || err == nil || err.Error() != "EOF" {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	for off, want := range map[int64]string{55_000: ErrNotHeld.Error(), 60_013: "EOF", 1 << 40: "EOF"} {
		if _, err := r.s.ReadAt(ctx, streamA, 0, p, off); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("at %d: %v, expected %s", off, err, want)
		}
	}
}

func TestBlockMACs(t *testing.T) {
	k := genKey{streamA, 1}
	data := []byte(lines(k, 0, 40_000))
	whole := pieceMACs{m: newBlockMAC([]byte("secret"), k)}
	whole.add(0, data)
	if n := len(whole.done.macs); n != 9*macSize || whole.done.first != 0 {
		t.Fatalf("%d bytes of MACs from block %d", n, whole.done.first)
	}
	for _, step := range []int{1, 7, 4095, 4096, 4097, 10_000} {
		for _, start := range []int{0, 1, 4096, 5000} {
			parts := pieceMACs{m: newBlockMAC([]byte("secret"), k)}
			for off := start; off < len(data); off += step {
				parts.add(int64(off), data[off:min(off+step, len(data))])
			}
			first := (start + blockSize - 1) / blockSize
			if parts.done.first != int64(first) || !bytes.Equal(parts.done.macs, whole.done.macs[first*macSize:]) {
				t.Errorf("step %d from %d: other MACs than in one go", step, start)
			}
		}
	}
	m := newBlockMAC([]byte("secret"), k)
	if first := bytes.Clone(m.sum(0, data[:4096])); bytes.Equal(first, m.sum(1, data[:4096])) {
		t.Error("equal blocks at two places have one MAC")
	}
}
