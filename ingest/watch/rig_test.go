package watch

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/vault"
)

var verbose = flag.Bool("verbose", false, "")
var ctx = context.Background()

// rig is a host with a watched directory /log, a spool in memory, and a ledger
// that keeps what was sealed.
type rig struct {
	t      testing.TB
	host   *disk
	mem    *vfs.Mem
	hook   func(op vfs.Op, name string) error // of the spool's disk
	spool  *ingest.Spool
	w      *Watcher
	watch  []Watch
	boot   time.Duration
	log    bytes.Buffer
	index  int64
	sealed map[vault.StreamID]map[int64][]byte
	names  map[vault.StreamID]string
	max    int64
	random *rand.ChaCha8
}

func newRig(t testing.TB, patterns ...string) *rig {
	r := &rig{t: t, host: newDisk("/log"), mem: vfs.NewMem(), boot: time.Hour, random: rand.NewChaCha8([32]byte{1}),
		watch:  []Watch{{Source: "web1", Directory: "/log", Patterns: patterns}},
		sealed: map[vault.StreamID]map[int64][]byte{}, names: map[vault.StreamID]string{}}
	r.must(ingest.CreateSpool(ctx, r.spoolConfig()))
	r.must(r.start())
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) spoolConfig() ingest.SpoolConfig {
	fsys := vfs.NewFault(r.mem, func(op vfs.Op, name string) error {
		if r.hook != nil {
			return r.hook(op, name)
		}
		return nil
	})
	return ingest.SpoolConfig{FS: fsys, Dir: "/spool", KeyDir: "/keys", Random: r.random, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Unix(0, 0).Add(r.boot) }, Boot: func() time.Duration { return r.boot }, FileBytes: 4 << 20, MaxBytes: r.max}
}

// start opens the spool and the watcher, as a process does.
func (r *rig) start() (err error) {
	if r.spool, err = ingest.OpenSpool(ctx, r.spoolConfig()); err != nil {
		return err
	}
	r.w, err = New(Config{Sink: r.spool, Host: r.host, Watches: r.watch, Random: r.random, Boot: func() time.Duration { return r.boot },
		Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	return err
}

// kill ends the process: its files are closed, its memory is gone.
func (r *rig) kill() {
	r.w.Close()
	r.spool = nil
}

// restart is a kill and a new process.
func (r *rig) restart() {
	r.t.Helper()
	r.kill()
	r.must(r.start())
}

// rounds runs rounds until nothing is left to do, and returns the last trouble.
func (r *rig) rounds() error {
	r.t.Helper()
	trouble, err := r.step()
	r.must(err)
	return trouble
}

func (r *rig) step() (trouble, err error) {
	for n := 0; ; n++ {
		more, trouble, err := r.w.Round(ctx)
		if err != nil || !more {
			return trouble, err
		}
		if n == 1000 {
			return trouble, errors.New("1000 rounds did not come to an end")
		}
	}
}

// quiet expects rounds without trouble.
func (r *rig) quiet() {
	r.t.Helper()
	if trouble := r.rounds(); trouble != nil {
		r.t.Fatalf("trouble: %v", trouble)
	}
}

func (r *rig) pass(d time.Duration) { r.boot += d }

// seal takes everything out of the spool as the sealer does.
func (r *rig) seal() error {
	for {
		pieces, err := r.spool.Due(ctx, vault.DueOptions{Now: time.Unix(0, 0).Add(r.boot), All: true, SameDay: func(vault.Source, time.Time, time.Time) bool { return true }})
		if err != nil || len(pieces) == 0 {
			return err
		}
		for _, p := range pieces {
			text, err := r.spool.Read(ctx, p, nil)
			if err != nil {
				return err
			}
			if p.Kind != vault.PieceData || p.Conflict != nil {
				return fmt.Errorf("a %v of stream %v, conflict %v: expected none", p.Kind, p.Stream, p.Conflict)
			}
			if r.sealed[p.Stream] == nil {
				r.sealed[p.Stream] = map[int64][]byte{}
			}
			if err := r.spool.Intend(ctx, vault.Intent{Piece: p, Entry: []byte("entry"), Size: r.index}); err != nil {
				return err
			}
			// A kill forgets a Release: the piece comes again, and is in the ledger.
			have, end := r.sealed[p.Stream][p.Gen], p.Offset+p.Span
			switch {
			case int64(len(have)) == p.Offset:
				r.sealed[p.Stream][p.Gen] = append(have, text...)
			case int64(len(have)) != end || !bytes.Equal(have[p.Offset:end], text):
				return fmt.Errorf("piece %+v, expected at %d", p, len(have))
			}
			r.names[p.Stream] = string(p.Name)
			r.index++
			if *verbose {
				fmt.Fprintf(&r.log, "sealed %v gen %d: %q\n", p.Stream, p.Gen, shorten([]string{string(text)}))
			}
			if err := r.spool.Release(ctx, p, r.index); err != nil {
				return err
			}
		}
	}
}

// texts seals everything and returns "name: generation | generation" per stream,
// in the order of names and content.
func (r *rig) texts() []string {
	r.t.Helper()
	r.must(r.seal())
	var all []string
	for id, gens := range r.sealed {
		var numbers []int64
		for g := range gens {
			numbers = append(numbers, g)
		}
		slices.Sort(numbers)
		var parts []string
		for _, g := range numbers {
			parts = append(parts, string(gens[g]))
		}
		all = append(all, r.names[id]+": "+strings.Join(parts, "|"))
	}
	slices.Sort(all)
	return all
}

// expect compares the streams.
func (r *rig) expect(want ...string) {
	r.t.Helper()
	slices.Sort(want)
	if got := r.texts(); !slices.Equal(got, want) {
		r.t.Fatalf("archived %q\nexpected %q\n%s", shorten(got), shorten(want), r.log.String())
	}
}

func shorten(all []string) (short []string) {
	for _, s := range all {
		if len(s) > 300 {
			s = fmt.Sprintf("%s...%s (%d bytes)", s[:150], s[len(s)-150:], len(s))
		}
		short = append(short, s)
	}
	return short
}

func (r *rig) wantStats(want Stats) {
	r.t.Helper()
	got := r.w.Stats()
	got.Bytes, got.Files = 0, 0
	if got != want {
		r.t.Errorf("counted %+v, expected %+v", got, want)
	}
}

// lines makes n numbered lines of a file, each with a beginning of its own, as a
// time gives it.
func lines(file string, from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%016x %s %06d\n", uint64(from+i+1000*int(file[max(0, len(file)-5)]))*0x9e3779b97f4a7c15, file, from+i)
	}
	return b.String()
}
