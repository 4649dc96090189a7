package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// rig is a spool in memory with its clocks.
type rig struct {
	t    testing.TB
	mem  *vfs.Mem
	cfg  SpoolConfig
	s    *Spool
	wall time.Time
	boot time.Duration
}

var (
	ctx      = context.Background()
	client   = netip.MustParseAddr("192.0.2.7")
	streamA  = vault.StreamID{0xaa}
	streamB  = vault.StreamID{0xbb}
	testFile = int64(128 << 10)
)

// randomFrom is a deterministic stream of random bytes.
func randomFrom(seed uint64) io.Reader { return &detRandom{seed: seed} }

type detRandom struct{ seed, n uint64 }

func (r *detRandom) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 32 {
		r.n++
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.seed), r.n))
		copy(p[i:], sum[:])
	}
	return len(p), nil
}

// newRig makes and opens a spool with small files.
func newRig(t testing.TB, change ...func(*SpoolConfig)) *rig {
	r := &rig{t: t, mem: vfs.NewMem(), wall: time.Date(2026, 11, 21, 8, 1, 0, 0, time.UTC), boot: time.Hour}
	r.cfg = SpoolConfig{
		FS: r.mem, Dir: "/spool", KeyDir: "/keys", Random: randomFrom(1), Log: testLog(t),
		Now: func() time.Time { return r.wall }, Boot: func() time.Duration { return r.boot },
		FileBytes: testFile,
	}
	for _, f := range change {
		f(&r.cfg)
	}
	r.must(r.cfg.create(ctx))
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	s, err := r.cfg.open(ctx)
	r.must(err)
	r.s = s
}

// reopen closes cleanly and opens again.
func (r *rig) reopen() {
	r.t.Helper()
	r.must(r.s.Close())
	r.open()
}

// crash opens the spool as a power cut would leave it, or a kill if seed is 0.
func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) advance(d time.Duration) { r.wall, r.boot = r.wall.Add(d), r.boot+d }

func (r *rig) add(id vault.StreamID) {
	r.t.Helper()
	r.must(r.s.AddStream(ctx, vault.StreamInfo{ID: id, Source: "proxy1", Name: []byte("access.log")}))
}

// rename changes the name that later pieces of a stream carry.
func (r *rig) rename(id vault.StreamID, name []byte) error {
	return r.s.Record(ctx, vault.Changes{Rename: []vault.StreamInfo{{ID: id, Name: name}}})
}

func (r *rig) write(id vault.StreamID, gen, off int64, data string, sync bool) {
	r.t.Helper()
	r.must(r.s.Write(ctx, id, gen, off, []byte(data), client, sync))
}

func sameUTCDay(_ vault.Source, a, b time.Time) bool {
	return vault.DayOf(a.UTC()) == vault.DayOf(b.UTC())
}

func (r *rig) due(all bool) []vault.Piece {
	r.t.Helper()
	out, err := r.s.Due(ctx, vault.DueOptions{Now: r.wall, All: all, SameDay: sameUTCDay})
	r.must(err)
	return out
}

func (r *rig) read(p vault.Piece) string {
	r.t.Helper()
	b, err := r.s.Read(ctx, p, nil)
	r.must(err)
	return string(b)
}

// seal takes all pieces as the sealer does and returns their text.
func (r *rig) seal(p vault.Piece, index int64) string {
	r.t.Helper()
	text := ""
	if p.Kind == vault.PieceData {
		text = r.read(p)
	}
	r.must(r.s.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("entry"), Size: index}))
	r.must(r.s.Release(ctx, p, index))
	return text
}

// drain seals everything and returns the text of each generation.
func (r *rig) drain() map[genKey]string {
	r.t.Helper()
	out := map[genKey]string{}
	for n := int64(0); ; n++ {
		pieces := r.due(true)
		if len(pieces) == 0 {
			return out
		}
		for _, p := range pieces {
			text := r.seal(p, n)
			if p.Kind == vault.PieceHole {
				text = fmt.Sprintf("<hole %d>", p.Span)
			}
			out[genKey{p.Stream, p.Gen}] += text
		}
	}
}

func TestWriteSealRelease(t *testing.T) {
	r := newRig(t)
	r.add(streamA)
	r.write(streamA, 0, 0, "one\ntwo\n", true)
	r.write(streamA, 0, 8, "three", false)
	if got := r.due(false); len(got) != 0 {
		t.Fatalf("young bytes are due: %+v", got)
	}
	p := r.due(true)
	if len(p) != 1 || p[0].Span != 8 || p[0].Prev != -1 || p[0].Cut != "" || p[0].Closed {
		t.Fatalf("due: %+v", p)
	}
	if got := r.seal(p[0], 7); got != "one\ntwo\n" {
		t.Fatalf("read %q", got)
	}
	r.must(r.s.EndGeneration(ctx, streamA, 0))
	p = r.due(false)
	if len(p) != 1 || p[0].Cut != "end" || !p[0].Closed || p[0].Prev != 7 || p[0].Offset != 8 {
		t.Fatalf("due: %+v", p)
	}
	if got := r.seal(p[0], 8); got != "three" {
		t.Fatalf("read %q", got)
	}
	if got := r.due(true); len(got) != 0 {
		t.Fatalf("still due: %+v", got)
	}
}

func TestReopen(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			r := newRig(t)
			r.add(streamA)
			var want bytes.Buffer
			for i := range 2000 {
				line := fmt.Sprintf("line %d of a log that fills several files, so that rotation happens\n", i)
				r.write(streamA, 0, int64(want.Len()), line, i%7 == 0)
				want.WriteString(line)
			}
			r.must(r.s.SetMeta(ctx, vault.KV{Key: "a", Value: []byte("1")}, vault.KV{Key: "b", Value: []byte{}}))
			for range 3 {
				if clean {
					r.reopen()
				} else {
					r.open()
				}
				if got := r.s.Size(streamA, 0); got != int64(want.Len()) {
					t.Fatalf("size %d, expected %d", got, want.Len())
				}
			}
			if got := r.drain()[genKey{streamA, 0}]; got != want.String() {
				t.Fatalf("%d bytes came out, expected %d", len(got), want.Len())
			}
			var keys []string
			r.must(r.s.Meta("", func(kv vault.KV) error { keys = append(keys, kv.Key+"="+string(kv.Value)); return nil }))
			if fmt.Sprint(keys) != "[a=1 b=]" {
				t.Fatalf("metadata %v", keys)
			}
			if err := r.s.Write(ctx, streamB, 0, 0, []byte("x"), client, true); !errors.Is(err, ErrNoStream) {
				t.Fatalf("unknown stream: %v", err)
			}
		})
	}
}

// testLog sends the log to the test's output.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
