package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
)

var ctx = context.Background()

// wantError fails the test unless err wraps target.
func wantError(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: error %v, expected %v", what, err, target)
	} else if err != nil && strings.Count(err.Error(), target.Error()) > 1 {
		t.Errorf("%s: %q says twice what is wrong", what, err)
	}
}

// splitConfig has the record and the vault on disks of their own, so that one
// of them can be taken back in time.
func splitConfig(t *testing.T) (cfg ledger.Config, state, nas *vfs.Mem) {
	t.Helper()
	state, nas = vfs.NewMem(), vfs.NewMem()
	prepare(t, state, nas)
	return openConfigOn(t, state, nas), state, nas
}

// backup returns the disk as a power cut now would leave it: everything the
// ledger wrote is durable, so it is a backup of the state.
func backup(disk *vfs.Mem) *vfs.Mem { return disk.CrashClone(rand.New(rand.NewPCG(1, 1))) }

func TestCreateAndOpenAreDifferentVerbs(t *testing.T) {
	cfg, _, _ := splitConfig(t)
	_, err := ledger.Open(ctx, cfg)
	wantError(t, "opening nothing", err, ledger.ErrNoLedger)
	if len(names(t, cfg.Record))+len(names(t, cfg.Copy)) > 0 {
		t.Error("opening nothing wrote something")
	}
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cp := l.Checkpoint(); cp.Size != 0 || cp.Root != vault.HashOf(nil) {
		t.Errorf("first checkpoint: %+v", cp)
	}
	_, err = ledger.Create(ctx, cfg)
	wantError(t, "creating twice", err, ledger.ErrExists)

	other, _, _ := splitConfig(t)
	other.Record = cfg.Record
	_, err = ledger.Create(ctx, other)
	wantError(t, "creating over a record", err, ledger.ErrExists)
	other, _, _ = splitConfig(t)
	other.Copy = cfg.Copy
	_, err = ledger.Create(ctx, other)
	wantError(t, "creating over a copy", err, ledger.ErrExists)

	// A crash between the two checkpoints: Open completes it.
	other, _, _ = splitConfig(t)
	other.Record = cfg.Record
	if _, err = ledger.Open(ctx, other); err != nil {
		t.Errorf("completing an interrupted Create: %v", err)
	}
}

func TestTilesWithoutCheckpoint(t *testing.T) {
	cfg, _, _ := splitConfig(t)
	tile := vault.BundleName(vault.LedgerPrefix, 0, 256)
	if err := cfg.Record.Put(ctx, tile, 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	_, err := ledger.Open(ctx, cfg)
	wantError(t, "opening", err, ledger.ErrNoLedger)
	if err == nil || !strings.Contains(err.Error(), tile) {
		t.Errorf("error %v, expected it to name %s", err, tile)
	}
	_, err = ledger.Create(ctx, cfg)
	wantError(t, "creating", err, ledger.ErrExists)
}

func TestOpenRefuses(t *testing.T) {
	cfg, _, _ := splitConfig(t)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 10)
	known := cfg
	known.KnownSize = 11
	_, err = ledger.Open(ctx, known)
	wantError(t, "known size 11", err, ledger.ErrBehind)
	known.KnownSize = 10
	if _, err = ledger.Open(ctx, known); err != nil {
		t.Errorf("known size 10: %v", err)
	}
	stranger := cfg
	if stranger.SignerKey, _, err = ledger.GenerateKey(rand.NewChaCha8([32]byte{2}), testOrigin); err != nil {
		t.Fatal(err)
	}
	_, err = ledger.Open(ctx, stranger)
	wantError(t, "another key", err, ledger.ErrUnsigned)
	elsewhere := cfg
	elsewhere.Origin = "logs.example/other"
	_, err = ledger.Open(ctx, elsewhere)
	wantError(t, "another origin", err, ledger.ErrUnsigned)
	for name, bad := range map[string]ledger.Config{
		"no key":        {Prefix: cfg.Prefix, Origin: cfg.Origin, Record: cfg.Record, Now: time.Now},
		"bad origin":    {Prefix: cfg.Prefix, Origin: "a b", SignerKey: cfg.SignerKey, Record: cfg.Record, Now: time.Now},
		"truncated key": {Prefix: cfg.Prefix, Origin: cfg.Origin, SignerKey: cfg.SignerKey[:60], Record: cfg.Record, Now: time.Now},
	} {
		if _, err := ledger.Open(ctx, bad); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestOpenFindsDamage: the right edge is all that Open reads, and it is proven.
func TestOpenFindsDamage(t *testing.T) {
	for _, name := range []string{
		vault.TileName(vault.LedgerPrefix, 0, 1, 44),
		vault.TileName(vault.LedgerPrefix, 1, 0, 1),
		vault.BundleName(vault.LedgerPrefix, 1, 44),
	} {
		l, cfg := newLog(t)
		grow(t, l, 300)
		data, err := vault.ReadAll(ctx, cfg.Record, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		data[10] ^= 1
		if err := cfg.Record.Replace(ctx, name, data); err != nil {
			t.Fatal(err)
		}
		var damage *ledger.DamageError
		if _, err = ledger.Open(ctx, cfg); !errors.As(err, &damage) || !strings.Contains(damage.Name, name) {
			t.Errorf("%s: error %v, expected a DamageError that names it", name, err)
		}
	}
}

func TestAppendRefusesEntries(t *testing.T) {
	l, _ := newLog(t)
	grow(t, l, 3)
	for name, entries := range map[string][][]byte{
		"not canonical": {testEntry("a"), []byte(`{"b": 1}`)},
		"empty":         {nil},
		"too large":     {bytes.Repeat([]byte("x"), entry.MaxSize+1)},
		"too many":      testEntries(0, ledger.MaxBatch+1),
	} {
		if _, err := l.Append(ctx, entries...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if first, err := l.Append(ctx); first != 3 || err != nil {
		t.Errorf("appending nothing: %d, %v; expected 3", first, err)
	}
	largest := testEntry(strings.Repeat("x", entry.MaxSize-len(testEntry(""))))
	first, err := l.Append(ctx, largest)
	if err != nil || first != 3 {
		t.Fatalf("the largest entry: %d, %v", first, err)
	}
	if data, err := l.Tree().Entry(ctx, 3); err != nil || !bytes.Equal(data, largest) {
		t.Errorf("the largest entry: %d bytes back, %v", len(data), err)
	}
}

// TestAnotherWriter: the second of two writers of one record stops for good.
func TestAnotherWriter(t *testing.T) {
	a, cfg := newLog(t)
	b, err := ledger.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, a, 1)
	for range 2 {
		_, err = b.Append(ctx, testEntry("b"))
		wantError(t, "second writer", err, ledger.ErrStopped)
	}
	wantError(t, "recovering", b.Recover(ctx), ledger.ErrStopped)
	grow(t, a, 1)
	if found := problems(t, openTree(t, cfg.Copy)); len(found) > 0 {
		t.Errorf("audit finds %+v", found)
	}
}

// TestRolledBackState: a state restored from a backup, or a cloned machine,
// must not fork what its vault has seen.
func TestRolledBackState(t *testing.T) {
	cfg, state, nas := splitConfig(t)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 300)
	old := backup(state)
	clone, err := ledger.Open(ctx, openConfigOn(t, old, nas))
	if err != nil {
		t.Fatalf("opening an equal state: %v", err)
	}
	grow(t, l, 20)
	_, err = clone.Append(ctx, testEntry("clone"))
	wantError(t, "the clone's next batch", err, ledger.ErrBehind)
	_, err = ledger.Open(ctx, openConfigOn(t, old, nas))
	wantError(t, "opening the old state", err, ledger.ErrBehind)

	// Without its vault the old state grows by itself; then it is a fork.
	alone := openConfigOn(t, old, nas)
	alone.Copy = nil
	fork, err := ledger.Open(ctx, alone)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // to the same size, then beyond
		for i := range 20 {
			if _, err := fork.Append(ctx, testEntry(fmt.Sprint("fork", i))); err != nil {
				t.Fatal(err)
			}
		}
		_, err = ledger.Open(ctx, openConfigOn(t, old, nas))
		wantError(t, "opening a fork", err, ledger.ErrForked)
	}
	grow(t, l, 1)
	if found := problems(t, openTree(t, cfg.Copy)); len(found) > 0 {
		t.Errorf("audit of the vault finds %+v", found)
	}
}

// TestVaultRolledBack: a vault restored from a snapshot is a prefix and is
// brought up to date, over many batches at once.
func TestVaultRolledBack(t *testing.T) {
	cfg, state, nas := splitConfig(t)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 100)
	snapshot := backup(nas)
	grow(t, l, 3000)
	if err := l.KeepHead(ctx); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 7)
	again := openConfigOn(t, state, snapshot)
	if _, err := ledger.Open(ctx, again); err != nil {
		t.Fatal(err)
	}
	if a, b := names(t, again.Record), names(t, again.Copy); !slices.Equal(a, b) {
		t.Errorf("the record holds %v, the copy %v", a, b)
	}
	if found := problems(t, openTree(t, again.Copy)); len(found) > 0 {
		t.Errorf("audit finds %+v", found)
	}
}

func TestEmptiedVault(t *testing.T) {
	cfg, state, _ := splitConfig(t)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 5)
	empty := vfs.NewMem()
	if _, err := dir.Create(empty, "vault"); err != nil {
		t.Fatal(err)
	}
	elsewhere := openConfigOn(t, state, empty)
	_, err = ledger.Open(ctx, elsewhere)
	wantError(t, "an empty vault for a full record", err, ledger.ErrNoLedger)
	if n := names(t, elsewhere.Copy); len(n) > 0 {
		t.Errorf("the empty vault got %v", n)
	}
}

// TestVaultAway: a batch is not begun when the vault cannot be compared; one
// that was committed stays when the copy fails, and is copied later.
func TestVaultAway(t *testing.T) {
	cfg, state, nas := splitConfig(t)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 250)
	var broken func(op vfs.Op) bool
	failure := errors.New("input/output error")
	faulty := vfs.NewFault(nas, func(op vfs.Op, _ string) error {
		if broken != nil && broken(op) {
			return failure
		}
		return nil
	})
	if l, err = ledger.Open(ctx, openConfigOn(t, state, faulty)); err != nil {
		t.Fatal(err)
	}
	broken = func(vfs.Op) bool { return true }
	_, err = l.Append(ctx, testEntry("250"))
	wantError(t, "vault unreadable", err, failure)
	var copyErr *ledger.CopyError
	if errors.As(err, &copyErr) || l.Checkpoint().Size != 250 {
		t.Errorf("vault unreadable: %v, size %d; expected nothing committed", err, l.Checkpoint().Size)
	}
	broken = func(op vfs.Op) bool { return op == "create" }
	first, err := l.Append(ctx, testEntries(250, 10)...)
	if !errors.As(err, &copyErr) || first != 250 || l.Checkpoint().Size != 260 {
		t.Fatalf("vault read-only: index %d, %v; expected 250 and a CopyError", first, err)
	}
	_, err = l.Append(ctx, testEntry("x"))
	wantError(t, "the batch after", err, failure)
	if errors.As(l.SyncCopy(ctx), &copyErr); l.Checkpoint().Size != 260 {
		t.Errorf("size %d after the refused batch, expected 260", l.Checkpoint().Size)
	}
	broken = nil
	if err := l.SyncCopy(ctx); err != nil {
		t.Fatal(err)
	}
	if found := problems(t, openTree(t, cfg.Copy)); len(found) > 0 || openTree(t, cfg.Copy).Size() != 260 {
		t.Errorf("audit of the copy finds %+v", found)
	}
	grow(t, l, 1)
}

// TestKeptHeads: the last head of each UTC day is kept by itself, others on
// demand, on both sides, also when the day changes over a restart.
func TestKeptHeads(t *testing.T) {
	cfg, _, _ := splitConfig(t)
	// The day before the first append is that of the files: now or later.
	c := &clock{time.Now().Add(48 * time.Hour).UTC().Truncate(24 * time.Hour)}
	cfg.Now = c.now
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 3)
	c.t = c.t.Add(23 * time.Hour)
	grow(t, l, 3)
	c.t = c.t.Add(time.Hour) // midnight
	grow(t, l, 3)            // keeps 6
	if err := l.KeepHead(ctx); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 3)
	c.t = c.t.Add(-2 * time.Hour) // a clock that goes back keeps nothing
	grow(t, l, 3)
	c.t = c.t.Add(48 * time.Hour)
	if l, err = ledger.Open(ctx, cfg); err != nil { // keeps 15, by the file's day
		t.Fatal(err)
	}
	grow(t, l, 3)
	for what, r := range map[string]vault.Reader{"record": cfg.Record, "copy": cfg.Copy} {
		var sizes []string
		for _, name := range names(t, r) {
			if s, ok := strings.CutPrefix(name, "ledger/checkpoints/"); ok {
				sizes = append(sizes, s)
			}
		}
		if want := []string{"15", "6", "9"}; !slices.Equal(sizes, want) {
			t.Errorf("the %s keeps %v, expected %v", what, sizes, want)
		}
	}
	raw, err := vault.ReadAll(ctx, cfg.Copy, vault.KeptCheckpointName(vault.LedgerPrefix, 6), 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	if cp, err := ledger.ParseCheckpoint(raw, trust(t)); err != nil || cp.Size != 6 {
		t.Errorf("kept head: %+v, %v", cp, err)
	}
	if found := problems(t, openTree(t, cfg.Copy)); len(found) > 0 {
		t.Errorf("audit finds %+v", found)
	}
}

// TestConcurrentAppends: every entry has an index of its own.
func TestConcurrentAppends(t *testing.T) {
	l, cfg := newLog(t)
	const writers, each = 4, 20
	indexes := make([]map[int64]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		indexes[w] = make(map[int64]string)
		wg.Go(func() {
			for i := range each {
				text := fmt.Sprint(w, "-", i)
				first, err := l.Append(ctx, testEntry(text))
				if err != nil {
					t.Error(err)
				}
				indexes[w][first] = text
				if l.Tree().Size() <= first {
					t.Errorf("index %d is not in the tree", first)
				}
			}
		})
	}
	wg.Wait()
	tree := openTree(t, cfg.Copy)
	if tree.Size() != writers*each {
		t.Fatalf("size %d, expected %d", tree.Size(), writers*each)
	}
	for _, m := range indexes {
		for i, text := range m {
			if data, err := tree.Entry(ctx, i); err != nil || !bytes.Equal(data, testEntry(text)) {
				t.Errorf("entry %d: %s, %v; expected %s", i, data, err, text)
			}
		}
	}
}

// TestCopyLog: the same code keeps a copy's log, without a further copy.
func TestCopyLog(t *testing.T) {
	cfg, _, _ := splitConfig(t)
	cfg.Prefix, cfg.Record, cfg.Copy = vault.CopyLogPrefix("nas-2"), cfg.Copy, nil
	cfg.Origin = testOrigin + "/copy/nas-2"
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, 258)
	tr := trust(t)
	tr.Origin = cfg.Origin
	tree, err := ledger.OpenTree(ctx, cfg.Record, cfg.Prefix, tr)
	if err != nil {
		t.Fatal(err)
	}
	if found := problems(t, tree); len(found) > 0 || tree.Size() != 258 {
		t.Errorf("size %d, audit finds %+v", tree.Size(), found)
	}
}
