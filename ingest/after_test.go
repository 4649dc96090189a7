package ingest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

// What After announces is what Due offers later, piece by piece, with the same
// bytes; where that is not certain it announces nothing.
func TestAfter(t *testing.T) {
	const cut = 100_001
	big := strings.Repeat("0123456789abcde\n", 30_000) // 480,000 bytes: four pieces and a rest
	o := vault.DueOptions{CutBytes: cut, SameDay: sameUTCDay}
	tests := []struct {
		name string
		do   func(r *rig)
		want int // pieces announced
	}{
		{"committed", func(r *rig) { r.write(streamA, 0, 0, big, true) }, 3},
		{"uncommitted from the third on", func(r *rig) {
			r.write(streamA, 0, 0, big[:250_000], true)
			r.write(streamA, 0, 250_000, big[250_000:], false)
		}, 1},
		{"another day in the third", func(r *rig) {
			r.write(streamA, 0, 0, big[:250_000], true)
			r.advance(24 * time.Hour)
			r.write(streamA, 0, 250_000, big[250_000:], true)
		}, 1},
		{"a hole in the third", func(r *rig) {
			r.write(streamA, 0, 0, big[:250_000], true)
			r.write(streamA, 0, 250_016, big[250_016:], true)
		}, 1},
		{"ended", func(r *rig) {
			r.write(streamA, 0, 0, big[:2*cut-3], true)
			r.must(r.s.EndGeneration(ctx, streamA, 0))
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			tt.do(r)
			o.Now = r.wall
			due, err := r.s.Due(ctx, o)
			r.must(err)
			p := due[0]
			var ahead []vault.Piece
			for {
				next, err := r.s.After(ctx, p, o)
				r.must(err)
				if next == nil {
					break
				}
				if text := r.read(*next); text != big[next.Offset:next.Offset+next.Span] {
					t.Errorf("piece at %d reads back other bytes", next.Offset)
				}
				ahead = append(ahead, *next)
				p = *next
			}
			if len(ahead) != tt.want {
				t.Fatalf("%d pieces announced (%s), expected %d", len(ahead), describe(ahead), tt.want)
			}
			if again := r.mustDue(o); again[0].Offset != due[0].Offset {
				t.Errorf("announcing moved the offer to %s", describe(again))
			}
			for i, p := range ahead {
				r.seal(r.mustDue(o)[0], int64(i))
				if q := r.mustDue(o)[0]; describe([]vault.Piece{p}) != describe([]vault.Piece{q}) || !sameUTCDay("", p.Record, q.Record) {
					t.Errorf("announced %s, offered %s", describe([]vault.Piece{p}), describe([]vault.Piece{q}))
				}
			}
		})
	}
}

func (r *rig) mustDue(o vault.DueOptions) []vault.Piece {
	r.t.Helper()
	due, err := r.s.Due(ctx, o)
	r.must(err)
	if len(due) == 0 {
		r.t.Fatal("nothing is due")
	}
	return due
}

// The MACs of a piece that was read ahead are kept when its turn comes, so that
// a client's repetition is still known for one.
func TestReadAheadKeepsMACs(t *testing.T) {
	const cut = 256 << 10
	big := strings.Repeat("0123456789abcde\n", 5*cut/16)
	o := vault.DueOptions{CutBytes: cut, SameDay: sameUTCDay}
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, big, true)
	p := r.mustDue(o)[0]
	r.read(p)
	for i := range int64(3) {
		next, err := r.s.After(ctx, p, o)
		r.must(err)
		r.read(*next) // and p never again
		r.must(r.s.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("{}")}))
		r.must(r.s.Release(ctx, p, i))
		p = r.mustDue(o)[0]
	}
	r.write(streamA, 0, 0, big[:2*cut], true)
	if n := r.s.Stats().Conflicts; n != 0 {
		t.Errorf("%d conflicts, expected the repetition to be known", n)
	}
	if _, err := r.s.Read(ctx, vault.Piece{Stream: streamA, Offset: 0, Span: cut}, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("reading a released piece: %v", err)
	}
	if _, err := r.s.Read(ctx, vault.Piece{Stream: streamA, Gen: 7, Span: cut}, nil); !errors.Is(err, ErrNoStream) {
		t.Error(fmt.Errorf("reading an unknown generation: %w", err))
	}
}
