package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

// spans describes pieces shortly: offset+span, and how they end.
func describe(pieces []vault.Piece) string {
	var out []string
	for _, p := range pieces {
		s := fmt.Sprintf("%d+%d", p.Offset, p.Span)
		if p.Kind == vault.PieceHole {
			s += " hole"
		}
		if p.Cut != "" {
			s += " " + p.Cut
		}
		if p.Joined {
			s += " joined"
		}
		if p.Closed {
			s += " closed"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// TestDue is when and where a stream is cut.
func TestDue(t *testing.T) {
	big := strings.Repeat("0123456789abcde\n", 20_000) // 320,000 bytes
	tests := []struct {
		name string
		do   func(r *rig)
		all  bool
		cut  int64
		want string
	}{
		{"young", func(r *rig) { r.write(streamA, 0, 0, "a\nb", true) }, false, 0, ""},
		{"all", func(r *rig) { r.write(streamA, 0, 0, "a\nb", true) }, true, 0, "0+2"},
		{"all, uncommitted", func(r *rig) { r.write(streamA, 0, 0, "a\nb", false) }, true, 0, "0+2"},
		{"all, no line yet", func(r *rig) { r.write(streamA, 0, 0, "ab", true) }, true, 0, ""},
		{"size", func(r *rig) { r.write(streamA, 0, 0, big, true) }, false, 100_000, "0+100000"},
		{"size, at a line end", func(r *rig) { r.write(streamA, 0, 0, big, true) }, false, 100_001, "0+100000"},
		{"size, uncommitted", func(r *rig) { r.write(streamA, 0, 0, big, false) }, false, 100_000, ""},
		{"size, committed", func(r *rig) {
			r.write(streamA, 0, 0, big, false)
			r.must(r.s.Commit(ctx, streamA))
		}, false, 100_000, "0+100000"},
		{"size, committed in part", func(r *rig) {
			r.write(streamA, 0, 0, big[:160_000], true)
			r.write(streamA, 0, 160_000, big[160_000:], false)
		}, false, 200_000, ""},
		{"uncommitted and silent", func(r *rig) {
			r.write(streamA, 0, 0, big, false)
			r.advance(10 * time.Minute)
		}, false, 100_000, "0+100000"},
		{"shorter than a line", func(r *rig) { r.write(streamA, 0, 0, strings.Repeat("x", 5000)+"\nnext\n", true) }, false, 1000, "0+5006"},
		{"an hour, too small", func(r *rig) {
			r.write(streamA, 0, 0, big[:1600], true)
			r.due(false)
			r.advance(2 * time.Hour)
		}, false, 0, ""},
		{"an hour", func(r *rig) {
			r.write(streamA, 0, 0, big, true)
			r.due(false)
			r.advance(61 * time.Minute)
		}, false, 0, "0+320000"},
		{"six hours", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", true)
			r.due(false)
			r.advance(361 * time.Minute)
		}, false, 0, "0+2"},
		{"six hours, clock set back", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", true)
			r.due(false)
			r.boot += 361 * time.Minute
			r.wall = r.wall.Add(-time.Hour)
		}, false, 0, "0+2"},
		{"six hours, after a restart", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", true)
			r.reopen()
			r.wall = r.wall.Add(376 * time.Minute) // to a quarter of an hour
		}, false, 0, "0+2"},
		{"day over", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", false)
			r.advance(16 * time.Hour)
		}, false, 0, "0+2"},
		{"two days", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", true)
			r.advance(16 * time.Hour)
			r.write(streamA, 0, 3, "c\nd\n", true)
		}, true, 0, "0+2"},
		{"two days, the second", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", true)
			r.advance(16 * time.Hour)
			r.write(streamA, 0, 3, "c\nd\n", true)
			r.seal(r.due(true)[0], 0)
		}, true, 0, "2+5"},
		{"a line from one day to the next", func(r *rig) {
			r.write(streamA, 0, 0, "a", true)
			r.advance(16 * time.Hour)
			r.write(streamA, 0, 1, "b\nc\n", true)
		}, true, 0, "0+5"},
		{"generation end", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb\n", false)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
		}, false, 0, "0+4 closed"},
		{"generation end without LF", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", false)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
		}, false, 0, "0+3 end closed"},
		{"generation end with a hole", func(r *rig) {
			r.write(streamA, 0, 0, "a\nb", false)
			r.write(streamA, 0, 9, "c\n", false)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
		}, false, 0, "0+3 end"},
		{"generation that begins with a hole", func(r *rig) {
			r.write(streamA, 0, 9, "c\n", false)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
		}, false, 0, "0+9 hole"},
		{"empty generation", func(r *rig) { r.must(r.s.EndGeneration(ctx, streamA, 0)) }, true, 0, ""},
		{"one piece per stream", func(r *rig) {
			r.write(streamA, 0, 0, "a\n", false)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
			r.write(streamA, 1, 0, "bb\n", true)
		}, true, 0, "0+2 closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *SpoolConfig) { c.FileBytes = 1 << 20 })
			r.add(streamA)
			tt.do(r)
			for range 2 { // and again, until it is released
				p, err := r.s.Due(ctx, vault.DueOptions{Now: r.wall, All: tt.all, CutBytes: tt.cut, SameDay: sameUTCDay})
				if got := describe(p); err != nil || got != tt.want {
					t.Fatalf("due %q, %v, expected %q", got, err, tt.want)
				}
				for _, x := range p {
					if got := r.s.table.stream(streamA).gen(x.Gen); x.Kind == vault.PieceData && int64(len(r.read(x))) != x.Span {
						t.Errorf("piece of %+v has other length", got.genRecord)
					}
				}
			}
		})
	}
}

// A line of more than 16 MiB is cut there, and what follows says so.
func TestLongLine(t *testing.T) {
	r := newRig(t, func(c *SpoolConfig) { c.FileBytes = 8 << 20 })
	r.add(streamA)
	chunk := strings.Repeat("y", 1<<20)
	r.write(streamA, 0, 0, "short\n", true)
	off := int64(6)
	for range 35 {
		r.write(streamA, 0, off, chunk, false)
		off += 1 << 20
	}
	r.write(streamA, 0, off, "\nafter\nrest", true)
	r.must(r.s.Commit(ctx, streamA))
	want := []string{"0+6", "6+16777216 long", "16777222+16777216 long joined", "33554438+3145735 joined"}
	for i, w := range want {
		p := r.due(false)
		if got := describe(p); got != w {
			// The last is neither long nor due by itself.
			if i != 3 || got != "" {
				t.Fatalf("piece %d: %q, expected %q", i, got, w)
			}
			if p = r.due(true); describe(p) != w {
				t.Fatalf("piece %d: %q, expected %q", i, describe(p), w)
			}
		}
		r.seal(p[0], int64(i))
	}
}

// Times, record date, name and prev of a piece.
func TestPieceFields(t *testing.T) {
	r := newRig(t)
	recorded := time.Date(2020, 5, 4, 0, 0, 0, 0, time.UTC)
	r.must(r.s.AddStream(ctx, vault.StreamInfo{ID: streamA, Source: "proxy1", Name: []byte("a.log"), Recorded: recorded}))
	r.add(streamB)
	r.must(r.rename(streamB, []byte("b.log.1")))
	first := r.wall
	for _, id := range []vault.StreamID{streamA, streamB} {
		r.write(id, 0, 0, "a\n", true)
	}
	r.advance(time.Minute)
	for _, id := range []vault.StreamID{streamA, streamB} {
		r.write(id, 0, 2, "b\n", true)
	}
	r.reopen()
	p := r.due(true)
	if len(p) != 2 {
		t.Fatalf("due %+v", p)
	}
	for i, want := range []struct {
		record time.Time
		name   string
	}{{recorded, "a.log"}, {r.wall, "b.log.1"}} {
		if !p[i].FirstReceived.Equal(first) || !p[i].LastReceived.Equal(r.wall) || !p[i].Record.Equal(want.record) || string(p[i].Name) != want.name {
			t.Errorf("piece %d: %+v", i, p[i])
		}
	}
	// Received in the other order, as after a clock that was set back.
	r.seal(p[1], 9)
	r.write(streamB, 0, 4, "c\n", true)
	r.wall = r.wall.Add(-30 * time.Second)
	r.write(streamB, 0, 6, "d\n", true)
	p = r.due(true)
	if b := p[len(p)-1]; b.Prev != 9 || !b.FirstReceived.Equal(r.wall) || b.LastReceived.Before(b.FirstReceived) || b.Span != 4 {
		t.Errorf("piece %+v", b)
	}
}

// Intents survive a restart and fix the piece until Release, which may be
// repeated.
func TestIntents(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "a\nb\n", true)
	p := r.due(true)[0]
	r.must(r.s.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("first"), Size: 3}))
	r.must(r.s.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("second"), Size: 4}))
	r.write(streamA, 0, 4, "c\n", true)
	for _, restart := range []func(){func() {}, r.open, r.reopen} {
		restart()
		in := r.s.Pending()
		if len(in) != 1 || string(in[0].Entry) != "second" || in[0].Size != 4 || describe([]vault.Piece{in[0].Piece}) != "0+4" {
			t.Fatalf("pending %+v", in)
		}
		if got := in[0].Piece; got.Source != p.Source || got.Prev != -1 || !got.Record.Equal(p.Record) || string(got.Name) != string(p.Name) {
			t.Fatalf("pending piece %+v, expected %+v", got, p)
		}
		if due := r.due(true); describe(due) != "0+4" {
			t.Fatalf("due %s", describe(due))
		}
	}
	if got := r.read(p); got != "a\nb\n" {
		t.Errorf("read %q", got)
	}
	for range 2 {
		r.must(r.s.Release(ctx, p, 11))
		if in := r.s.Pending(); len(in) != 0 {
			t.Errorf("pending after release: %+v", in)
		}
		r.reopen()
	}
	if due := r.due(true); describe(due) != "4+2" || due[0].Prev != 11 {
		t.Errorf("due %+v", due)
	}
	bad := p
	bad.Offset, bad.Span = 5, 1
	if err := r.s.Release(ctx, bad, 12); err == nil {
		t.Error("a piece out of order was released")
	}
	if _, err := r.s.Read(ctx, p, nil); err == nil {
		t.Error("a released piece was read")
	}
	if err := r.s.Intend(ctx, vault.Intent{Piece: bad}); err == nil {
		t.Error("a piece that was not offered was intended")
	}
}
