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

	"logvault/ingest"
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
	spool  *ingest.Spool  // used instead of src if not nil
	texts  map[run][]byte // what the spool was given
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
	var err error
	if w.spool != nil {
		if w.spool, err = ingest.OpenSpool(ctx, w.spoolConfig(disk)); err != nil {
			w.Fatal(err)
		}
	}
	w.src.before = ask
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
	c := Config{Source: w.source(), Ledger: w.log, Objects: w.store, Encoder: enc, Auditors: []pgp.Auditor{a[0].Auditor, a[1].Auditor},
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
		spool: w.spool, texts: w.texts, seed: w.seed + 1000, before: func(string) error { return nil }}
	return c
}

func (w *world) source() Source {
	if w.spool != nil {
		return w.spool
	}
	return w.src
}

func (w *world) spoolConfig(disk vfs.FS) ingest.SpoolConfig {
	return ingest.SpoolConfig{FS: disk, Dir: "/state/spool", KeyDir: "/state/keys", Random: random(w.seed + 1<<20), Now: w.now,
		Boot: func() time.Duration { return w.now().Sub(start) }, Log: slog.New(slog.DiscardHandler), FileBytes: 4 << 20}
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

// check judges the whole world after everything was sealed: each byte is in the
// ledger once and can be read back, each stream is continuous, and each object
// is accounted for.
func (w *world) check() {
	w.Helper()
	if n := len(w.source().Pending()); n != 0 {
		w.Fatalf("%d intents are left", n)
	}
	c := checker{world: w, named: map[string]int{}, last: map[vault.StreamID]place{}, text: map[run][]byte{}}
	all := w.entries()
	for i, e := range all {
		switch e := e.(type) {
		case *entry.Segment:
			c.name(segmentName(e), i)
			c.name(indexName(e), i)
			if e.Key >= int64(i) {
				w.Fatalf("segment entry %d uses the key of entry %d", i, e.Key)
			}
			c.follow(i, run{e.Stream, e.Gen}, e.Prev, e.Offset, c.read(e, all[e.Key].(*entry.Key)))
		case *entry.Gap:
			c.follow(i, run{e.Stream, e.Gen}, e.Prev, e.Offset, make([]byte, e.Span))
		case *entry.Orphan:
			c.name(e.Name, i)
		}
	}
	want := w.want()
	for id, text := range want {
		if !bytes.Equal(c.text[id], text) {
			w.Fatalf("stream %s generation %d: %d bytes in the ledger, %d expected, or other ones", id.stream, id.gen, len(c.text[id]), len(text))
		}
	}
	if len(c.text) != len(want) {
		w.Fatalf("%d stream generations in the ledger, expected %d", len(c.text), len(want))
	}
	c.objects()
}

// want returns the text of each stream generation, with zeros for holes.
func (w *world) want() map[run][]byte {
	if w.spool != nil {
		return w.texts
	}
	texts := map[run][]byte{}
	for _, parts := range w.src.parts {
		for _, p := range parts {
			text := p.text
			if p.piece.Kind == vault.PieceHole {
				text = make([]byte, p.piece.Span)
			}
			texts[runOf(p.piece)] = append(texts[runOf(p.piece)], text...)
		}
	}
	return texts
}

// checker gathers what a ledger says.
type checker struct {
	*world
	named map[string]int // entry that names an object
	last  map[vault.StreamID]place
	text  map[run][]byte
}

// place is where a stream's last entry stands and ends.
type place struct{ index, gen, end int64 }

func (c *checker) name(object string, by int) {
	c.Helper()
	if other, ok := c.named[object]; ok {
		c.Fatalf("%s is named by entries %d and %d", object, other, by)
	}
	c.named[object] = by
}

// follow checks that an entry continues its stream.
func (c *checker) follow(i int, id run, prev, offset int64, text []byte) {
	c.Helper()
	want, ok := c.last[id.stream]
	if !ok {
		want = place{-1, id.gen, 0}
	}
	if id.gen > want.gen {
		want.gen, want.end = id.gen, 0
	}
	if got := (place{prev, id.gen, offset}); got != want {
		c.Fatalf("entry %d: prev, generation, offset %v, expected %v", i, got, want)
	}
	c.last[id.stream] = place{int64(i), id.gen, offset + int64(len(text))}
	c.text[id] = append(c.text[id], text...)
}

// read returns a segment's text, with a secret that each auditor can open.
func (c *checker) read(e *entry.Segment, key *entry.Key) []byte {
	c.Helper()
	ctx := context.Background()
	class, _ := classOf(e.Source)
	y, m, d := class.DestructionDay(e.LastReceived)
	if e.Class != vault.Class(class.Name) || key.Class != e.Class || key.Day != e.Day || e.Day != (vault.Day{Year: y, Month: m, Day: d}) ||
		!e.RetainUntil.Equal(class.RetainUntil(e.LastReceived)) {
		c.Fatalf("segment of class %s, day %s, until %v; key of %s, %s", e.Class, e.Day, e.RetainUntil, key.Class, key.Day)
	}
	wrap, err := vault.ReadAll(ctx, c.store, vault.WrapName(key.Day, key.Class, key.PublicHash, key.Wrap), maxWrap)
	if err != nil {
		c.Fatal(err)
	}
	object, err := vault.ReadAll(ctx, c.store, segmentName(e), 1<<24)
	if err != nil {
		c.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := segment.Decode(&text, bytes.NewReader(object), secretOf(c.world, wrap), e.Codec); err != nil {
		c.Fatal(err)
	}
	if int64(text.Len()) != e.Span || e.Raw != e.Span {
		c.Fatalf("segment of %d bytes, span %d, raw %d", text.Len(), e.Span, e.Raw)
	}
	return text.Bytes()
}

// objects compares the names in the ledger with what the vault holds.
func (c *checker) objects() {
	c.Helper()
	err := c.store.List(context.Background(), "segments/", func(info vault.Info) error {
		if _, ok := c.named[info.Name]; !ok {
			c.Fatalf("%s is named by no entry", info.Name)
		}
		delete(c.named, info.Name)
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
	for object, by := range c.named {
		c.Fatalf("entry %d names %s, which does not exist", by, object)
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
