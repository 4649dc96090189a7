package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
	"logvault/vault/dir"
)

const origin = "logs.example/test"

// start is the time of the tests' clock when a world is made.
var start = time.Date(2026, 11, 21, 6, 30, 0, 0, time.UTC)

// auditors are made once: two people, with their secret keys.
var auditors = sync.OnceValue(func() (a [2]struct {
	pgp.Auditor
	open pgp.Opener
}) {
	for i := range a {
		pub, sec, err := pgp.GenerateAuditor(fmt.Sprintf("Auditor %d <a%d@example.org>", i, i), nil, random(uint64(i)), start)
		if err == nil {
			a[i].Auditor, err = pgp.ParseAuditor(pub, start)
		}
		if err == nil {
			a[i].open, err = pgp.OpenKeyFile(sec, nil)
		}
		if err != nil {
			panic(err)
		}
	}
	return a
})

var ledgerKey = sync.OnceValue(func() (key [2]string) {
	var err error
	if key[0], key[1], err = ledger.GenerateKey(random(99), origin); err != nil {
		panic(err)
	}
	return key
})

func random(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256([]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}))
}

// world is a gateway without an intake: a disk with STATE and VAULT, a source,
// a ledger and a sealer.
type world struct {
	testing.TB
	mem    *vfs.Mem
	src    *memSource
	store  *dir.Store
	log    *ledger.Log
	sealer *Sealer
	clock  time.Time
	seed   uint64

	// before is asked before each operation of the disk and the source.
	before func(op string) error
	// config, if set, changes the sealer's configuration.
	config func(*Config)
}

func classOf(src vault.Source) (policy.Class, bool) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		panic(err)
	}
	switch {
	case strings.HasPrefix(string(src), "proxy"):
		return policy.Class{Name: "technical", Period: policy.Period{Years: 1}, Zone: paris}, true
	case src == "dumps":
		return policy.Class{Name: "backup", Period: policy.Period{Days: 30}, Zone: time.UTC}, true
	}
	return policy.Class{}, false
}

func newWorld(t testing.TB, parts ...part) *world {
	t.Helper()
	w := &world{TB: t, mem: vfs.NewMem(), src: newMemSource(parts...), clock: start, seed: 1, before: func(string) error { return nil }}
	for _, d := range []string{"/vault", "/state"} {
		if err := vfs.MkdirAll(w.mem, d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dir.Create(w.mem, "/vault"); err != nil {
		t.Fatal(err)
	}
	if err := vfs.CreateFile(w.mem, "/vault/"+vault.MarkerName, vault.Marker{Origin: origin}.Encode(), 0o440); err != nil {
		t.Fatal(err)
	}
	w.open(true)
	return w
}

// open opens the ledger and makes the sealer, as a start of the gateway does.
func (w *world) open(create bool) {
	w.Helper()
	ctx := context.Background()
	ask := func(op string) error { return w.before(op) }
	disk := vfs.NewFault(w.mem, func(op vfs.Op, name string) error { return ask(string(op) + " " + name) })
	w.src.before = ask
	var err error
	if w.store, err = dir.Open(disk, "/vault"); err != nil {
		w.Fatal(err)
	}
	record, err := dir.At(disk, "/state")
	if err != nil {
		w.Fatal(err)
	}
	c := ledger.Config{Prefix: vault.LedgerPrefix, Origin: origin, SignerKey: ledgerKey()[0], Record: record, Copy: w.store, Now: w.now}
	if create {
		w.log, err = ledger.Create(ctx, c)
	} else {
		w.log, err = ledger.Open(ctx, c)
	}
	if err != nil {
		w.Fatal(err)
	}
	w.restart()
}

// restart makes a new sealer on what is open.
func (w *world) restart() {
	w.Helper()
	w.seed++
	enc, err := segment.NewEncoder(segment.Options{Codec: vault.Gzip, Level: 1, Workers: 1, Random: random(w.seed)})
	if err != nil {
		w.Fatal(err)
	}
	a := auditors()
	c := Config{Source: w.src, Ledger: w.log, Objects: w.store, Encoder: enc, Auditors: []pgp.Auditor{a[0].Auditor, a[1].Auditor},
		ClassOf: classOf, Now: w.now, Random: random(w.seed + 1<<16), Log: slog.New(slog.DiscardHandler), Actor: "gateway"}
	if w.config != nil {
		w.config(&c)
	}
	if w.sealer, err = New(context.Background(), c); err != nil {
		w.Fatal(err)
	}
}

func (w *world) now() time.Time {
	w.clock = w.clock.Add(time.Millisecond)
	return w.clock
}

// crash returns the world as a crash at this moment and a new start leave it.
func (w *world) crash(rng *rand.Rand) *world {
	c := &world{TB: w.TB, mem: w.mem.CrashClone(rng), src: w.src.crashClone(rng), clock: w.clock.Add(time.Minute),
		seed: w.seed + 1000, before: func(string) error { return nil }}
	return c
}

// drain steps until nothing is due and returns the sum. Any error is fatal.
func (w *world) drain() Result {
	w.Helper()
	var sum Result
	for range 1000 {
		res, err := w.sealer.Step(context.Background(), true)
		if err != nil {
			w.Fatalf("step: %v", err)
		}
		if res == (Result{}) {
			return sum
		}
		sum.Segments += res.Segments
		sum.Gaps += res.Gaps
		sum.Raw += res.Raw
		sum.Stored += res.Stored
	}
	w.Fatal("1000 steps, and still something is due")
	return sum
}

// entries returns the ledger, decoded.
func (w *world) entries() []entry.Entry {
	w.Helper()
	var all []entry.Entry
	tree := w.log.Tree()
	err := tree.Entries(context.Background(), 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		all = append(all, e)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return all
}

// entriesOf returns the entries of one type, with nothing said about where they stand.
func entriesOf[E entry.Entry](w *world) []E {
	w.Helper()
	var all []E
	for _, e := range w.entries() {
		if e, ok := e.(E); ok {
			all = append(all, e)
		}
	}
	return all
}

// check judges the whole world after everything was sealed: each line is in
// the ledger once and can be read back by each auditor, each stream is
// continuous, and each object is accounted for.
func (w *world) check() {
	w.Helper()
	if n := w.src.left(); n != 0 || len(w.src.Pending()) != 0 {
		w.Fatalf("%d pieces and %d intents are left", n, len(w.src.Pending()))
	}
	all := w.entries()
	named := map[string]string{} // object name to what names it
	name := func(object, by string) {
		if other, ok := named[object]; ok {
			w.Fatalf("%s is named by %s and by %s", object, other, by)
		}
		named[object] = by
	}
	type done struct{ index, end int64 }
	last := map[run]done{}
	count := map[run]int{}
	for i, e := range all {
		var id run
		var offset, span, prev int64
		switch e := e.(type) {
		case *entry.Segment:
			id, offset, span, prev = run{e.Stream, e.Gen}, e.Offset, e.Span, e.Prev
			name(segmentName(e), fmt.Sprintf("segment entry %d", i))
			name(indexName(e), fmt.Sprintf("segment entry %d", i))
			if e.Key >= int64(i) {
				w.Fatalf("segment entry %d uses the key of entry %d", i, e.Key)
			}
			w.checkSegment(e, all[e.Key].(*entry.Key), w.src.parts[id][count[id]])
		case *entry.Gap:
			id, offset, span, prev = run{e.Stream, e.Gen}, e.Offset, e.Span, e.Prev
		case *entry.Orphan:
			name(e.Name, fmt.Sprintf("orphan entry %d", i))
			continue
		default:
			continue
		}
		before, ok := last[id]
		if !ok {
			before = done{-1, 0}
		}
		if prev != before.index || offset != before.end {
			w.Fatalf("entry %d: prev %d, offset %d, expected prev %d, offset %d", i, prev, offset, before.index, before.end)
		}
		last[id] = done{int64(i), offset + span}
		count[id]++
	}
	for id, parts := range w.src.parts {
		if count[id] != len(parts) {
			w.Fatalf("%d entries for %d pieces of stream %s", count[id], len(parts), id.stream)
		}
	}
	err := w.store.List(context.Background(), "segments/", func(info vault.Info) error {
		if _, ok := named[info.Name]; !ok {
			w.Fatalf("%s is named by no entry", info.Name)
		}
		delete(named, info.Name)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	for object, by := range named {
		w.Fatalf("%s names %s, which does not exist", by, object)
	}
}

// checkSegment reads a segment back, with a secret that each auditor can open.
func (w *world) checkSegment(e *entry.Segment, key *entry.Key, want part) {
	w.Helper()
	ctx := context.Background()
	class, _ := classOf(e.Source)
	y, m, d := class.DestructionDay(want.piece.Record)
	if e.Class != vault.Class(class.Name) || key.Class != e.Class || key.Day != e.Day || e.Day != (vault.Day{Year: y, Month: m, Day: d}) ||
		!e.RetainUntil.Equal(class.RetainUntil(want.piece.Record)) {
		w.Fatalf("segment of class %s, day %s, until %v; key of %s, %s", e.Class, e.Day, e.RetainUntil, key.Class, key.Day)
	}
	wrap, err := vault.ReadAll(ctx, w.store, vault.WrapName(key.Day, key.Class, key.PublicHash, key.Wrap), maxWrap)
	if err != nil {
		w.Fatal(err)
	}
	object, err := vault.ReadAll(ctx, w.store, segmentName(e), 1<<24)
	if err != nil {
		w.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := segment.Decode(&text, bytes.NewReader(object), secretOf(w, wrap), e.Codec); err != nil {
		w.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), want.text) {
		w.Fatalf("segment holds %d bytes other than the %d received", text.Len(), len(want.text))
	}
}

// secrets caches what secretOf found, by the wrap's hash: opening a wrap is the
// dear part of a check, and clones of a world share their wraps.
var secrets = map[vault.Hash]*pgp.Secret{}

// secretOf opens a wrap with each auditor's key.
func secretOf(w *world, wrap []byte) *pgp.Secret {
	w.Helper()
	if s := secrets[vault.HashOf(wrap)]; s != nil {
		return s
	}
	for _, a := range auditors() {
		content, err := a.open.Open(context.Background(), wrap)
		if err != nil {
			w.Fatal(err)
		}
		if secrets[vault.HashOf(wrap)], err = pgp.OpenSecret(content); err != nil {
			w.Fatal(err)
		}
	}
	return secrets[vault.HashOf(wrap)]
}
