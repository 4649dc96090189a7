package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// model is what a ledger must hold: the acknowledged entries, and the batch
// whose fate is not known, wholly or not at all.
type model struct {
	acked  [][]byte
	flight [][]byte
	heads  []ledger.Checkpoint // every head ever acknowledged
	serial int
}

// batch makes n entries that no other batch has.
func (m *model) batch(n int) [][]byte {
	m.flight = make([][]byte, n)
	for i := range m.flight {
		m.flight[i] = testEntry(fmt.Sprint("entry ", m.serial))
		m.serial++
	}
	return m.flight
}

// settle compares a reopened ledger with the model and takes it over.
func (m *model) settle(tree *ledger.Tree) error {
	var got [][]byte
	err := tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		got = append(got, data)
		return nil
	})
	if err != nil {
		return err
	}
	whole := slices.Concat(m.acked, m.flight)
	if !slices.EqualFunc(got, m.acked, bytes.Equal) && !slices.EqualFunc(got, whole, bytes.Equal) {
		return fmt.Errorf("%d entries; expected the %d acknowledged ones, or with them all %d in flight", len(got), len(m.acked), len(m.flight))
	}
	for _, head := range m.heads {
		if root, err := tree.RootAt(ctx, head.Size); err != nil || root != head.Root {
			return fmt.Errorf("history rewritten: root %s at size %d, was %s; %v", root, head.Size, head.Root, err)
		}
	}
	m.acked, m.flight = got, nil
	m.heads = append(m.heads, tree.Checkpoint())
	return nil
}

// audited returns an error if the audit of a store finds anything, or if the
// record and the copy do not hold the same files.
func audited(t testing.TB, cfg ledger.Config) error {
	for what, r := range map[string]vault.Reader{"record": cfg.Record, "copy": cfg.Copy} {
		if found := problems(t, openTree(t, r)); len(found) > 0 {
			return fmt.Errorf("audit of the %s finds %+v", what, found)
		}
	}
	if a, b := names(t, cfg.Record), names(t, cfg.Copy); !slices.Equal(a, b) {
		return fmt.Errorf("the record holds %v, the copy %v", a, b)
	}
	return nil
}

var errDead = errors.New("the machine is off")

// machine is a state disk and a NAS that stop after a number of operations.
type machine struct {
	state, nas *vfs.Mem
	left       int // operations until the power goes
}

func (m *machine) hook(vfs.Op, string) error {
	if m.left--; m.left < 0 {
		return errDead
	}
	return nil
}

func (m *machine) config(t testing.TB) ledger.Config {
	t.Helper()
	left := m.left
	m.left = 1 << 30
	cfg := openConfigOn(t, vfs.NewFault(m.state, m.hook), vfs.NewFault(m.nas, m.hook))
	m.left = left
	return cfg
}

// cut ends the process. Once in three times it is killed and nothing else
// happens: what it renamed is seen, synced or not. Else it is a power cut: the
// state disk keeps what was synced and a random part of the rest; the NAS is cut
// with it or goes on, and then keeps everything.
func (m *machine) cut(rng *rand.Rand) {
	if rng.IntN(3) == 0 {
		return
	}
	m.state = m.state.CrashClone(rng)
	if rng.IntN(2) == 0 {
		m.nas = m.nas.CrashClone(rng)
	}
}

// TestCrash cuts the power at random operations of appends, of recovery and of
// recovery from that, and then asks: is every acknowledged entry there, is no
// history rewritten, does the ledger open, are record and copy clean?
func TestCrash(t *testing.T) {
	t.Parallel()
	seeds := uint64(500)
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		if err := crashOnce(t, rand.New(rand.NewPCG(seed, 0))); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func crashOnce(t *testing.T, rng *rand.Rand) error {
	// The hour is drawn too: heads are kept at midnight, and a seed must say which.
	written := time.Date(2026, 11, 21, rng.IntN(24), 30, 0, 0, time.UTC)
	now := &clock{written.Add(time.Duration(rng.IntN(2)) * 48 * time.Hour)}
	disk := &machine{state: vfs.NewMem(), nas: vfs.NewMem(), left: 1 << 30}
	for _, d := range []*vfs.Mem{disk.state, disk.nas} {
		d.SetClock(func() time.Time { return written })
	}
	prepare(t, disk.state, disk.nas)
	cfg := disk.config(t)
	if _, err := ledger.Create(ctx, cfg); err != nil {
		return err
	}
	var m model
	for range 6 {
		disk.left = rng.IntN(1 + rng.IntN(150))
		cfg := disk.config(t)
		cfg.Now = now.now
		if l, err := ledger.Open(ctx, cfg); err == nil {
			if err := appendUntilDead(l, &m, rng, now); err != nil {
				return err
			}
		} else if !errors.Is(err, errDead) {
			return err
		}
		disk.cut(rng)
		disk.left = 1 << 30
		if rng.IntN(3) == 0 {
			continue // crash again while recovering
		}
		cfg = disk.config(t)
		cfg.Now = now.now
		l, err := ledger.Open(ctx, cfg)
		if err != nil {
			return fmt.Errorf("reopening: %w", err)
		}
		if err := m.settle(l.Tree()); err != nil {
			return err
		}
		if err := audited(t, cfg); err != nil {
			return err
		}
	}
	return nil
}

// appendUntilDead appends random batches until the power goes.
func appendUntilDead(l *ledger.Log, m *model, rng *rand.Rand, now *clock) error {
	if m.flight != nil {
		// Nobody looked after the last crash: the fate of the batch before it
		// is what this Open found.
		if err := m.settle(l.Tree()); errors.Is(err, errDead) {
			return nil
		} else if err != nil {
			return err
		}
	}
	sizes := []int{1, 1, 2, 30, 100, 256, 255, 300, ledger.MaxBatch}
	for {
		batch := m.batch(sizes[rng.IntN(len(sizes))])
		if rng.IntN(8) == 0 {
			now.t = now.t.Add(13 * time.Hour)
		}
		_, err := l.Append(ctx, batch...)
		var copyErr *ledger.CopyError
		if err != nil && !errors.As(err, &copyErr) {
			return nil
		}
		m.acked, m.flight = append(m.acked, batch...), nil
		m.heads = append(m.heads, l.Checkpoint())
		if err != nil {
			return nil
		}
	}
}

// faultStore fails write operations of a store, before or after they are done.
type faultStore struct {
	ledger.Store
	at     int // operations that go well first
	more   int // operations that fail, but one
	stored bool
	hit    bool
}

var errFault = errors.New("input/output error")

func (s *faultStore) do(f func() error) error {
	s.at--
	if s.at >= 0 || s.at < -1-s.more {
		return f()
	}
	s.hit = true
	if s.stored {
		if err := f(); err != nil {
			return err
		}
	}
	return errFault
}

func (s *faultStore) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	return s.do(func() error { return s.Store.Put(ctx, name, size, body) })
}

func (s *faultStore) Replace(ctx context.Context, name string, data []byte) error {
	return s.do(func() error { return s.Store.Replace(ctx, name, data) })
}

func (s *faultStore) RemovePartial(ctx context.Context, name string) error {
	return s.do(func() error { return s.Store.RemovePartial(ctx, name) })
}

func (s *faultStore) RemoveTail(ctx context.Context, name string) error {
	return s.do(func() error { return s.Store.RemoveTail(ctx, name) })
}

// TestFaults fails each write of an append, on each side, not stored and
// stored, at sizes where different files change. The same process then goes on
// with another batch, and nothing may be lost, doubled or left over.
func TestFaults(t *testing.T) {
	t.Parallel()
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, size := range []int{0, 100, 255, 300} {
		for _, batch := range []int{1, 156, 600} {
			for _, side := range []string{"record", "copy"} {
				for _, stored := range []bool{false, true} {
					name := fmt.Sprintf("%d+%d/%s/stored=%v", size, batch, side, stored)
					for at := 0; ; at += step {
						hit, err := faultOnce(t, size, batch, side, at, stored)
						if err != nil {
							t.Fatalf("%s, operation %d: %v", name, at, err)
						}
						if !hit {
							if at < 3 {
								t.Fatalf("%s: only %d operations", name, at)
							}
							break
						}
					}
				}
			}
		}
	}
}

func faultOnce(t *testing.T, size, batch int, side string, at int, stored bool) (hit bool, err error) {
	disk := vfs.NewMem()
	cfg := memConfig(t, disk)
	l, err := ledger.Create(ctx, cfg)
	if err != nil {
		return false, err
	}
	var m model
	appendAll := func(entries [][]byte) error {
		first, err := l.Append(ctx, entries...)
		if err == nil && first != int64(len(m.acked)) {
			err = fmt.Errorf("first index %d, expected %d", first, len(m.acked))
		}
		return err
	}
	if size > 0 {
		if err := appendAll(m.batch(size)); err != nil {
			return false, err
		}
		if err := m.settle(l.Tree()); err != nil {
			return false, err
		}
	}
	faulty := cfg
	store := &faultStore{Store: cfg.Record, at: 1 << 30, stored: stored}
	if side == "record" {
		faulty.Record = store
	} else {
		store.Store, faulty.Copy = cfg.Copy, store
	}
	if l, err = ledger.Open(ctx, faulty); err != nil {
		return false, err
	}
	store.at = at
	err = appendAll(m.batch(batch))
	store.at = 1 << 30
	var copyErr *ledger.CopyError
	switch committed := l.Checkpoint().Size == int64(size+batch); {
	case err == nil && !committed, errors.As(err, &copyErr) != (side == "copy" && store.hit):
		return false, fmt.Errorf("committed %v, error %v", committed, err)
	case err != nil && !errors.Is(err, errFault):
		return false, err
	}
	if err := l.Recover(ctx); err != nil {
		return false, fmt.Errorf("recovering: %w", err)
	}
	if err := m.settle(l.Tree()); err != nil {
		return false, err
	}
	if err := appendAll(m.batch(batch)); err != nil {
		return false, fmt.Errorf("the batch after: %w", err)
	}
	if err := m.settle(openTree(t, cfg.Copy)); err != nil {
		return false, err
	}
	if l.Tree().Size() != int64(len(m.acked)) {
		return false, fmt.Errorf("the copy has %d entries, the record %d", len(m.acked), l.Tree().Size())
	}
	return store.hit, audited(t, cfg)
}

// TestFaultsInRow fails an append and then the recovery from it.
func TestFaultsInRow(t *testing.T) {
	t.Parallel()
	for at := range 12 {
		for more := range 12 {
			if testing.Short() && (at+more)%4 != 0 {
				continue
			}
			_, cfg := newLog(t)
			store := &faultStore{Store: cfg.Record, at: 1 << 30, more: more, stored: at%2 == 0}
			faulty := cfg
			faulty.Record = store
			l, err := ledger.Open(ctx, faulty)
			if err != nil {
				t.Fatal(err)
			}
			var m model
			if _, err := l.Append(ctx, m.batch(300)...); err != nil {
				t.Fatal(err)
			}
			if err := m.settle(l.Tree()); err != nil {
				t.Fatal(err)
			}
			store.at = at
			if _, err := l.Append(ctx, m.batch(400)...); err != nil && !errors.Is(err, errFault) {
				t.Fatalf("operations %d+%d: %v", at, more, err)
			}
			store.at = 1 << 30
			if err := l.Recover(ctx); err != nil {
				t.Fatalf("operations %d+%d: recovering: %v", at, more, err)
			}
			if err := m.settle(l.Tree()); err != nil {
				t.Fatalf("operations %d+%d: %v", at, more, err)
			}
			if _, err := l.Append(ctx, m.batch(1)...); err != nil {
				t.Fatal(err)
			}
			if err := audited(t, cfg); err != nil {
				t.Fatalf("operations %d+%d: %v", at, more, err)
			}
		}
	}
}

// TestFaultThenAnotherWriter: recovery takes over what this writer signed and
// nothing else.
func TestFaultThenAnotherWriter(t *testing.T) {
	_, cfg := newLog(t)
	store := &faultStore{Store: cfg.Record, at: 1 << 30, more: 100}
	faulty := cfg
	faulty.Record = store
	l, err := ledger.Open(ctx, faulty)
	if err != nil {
		t.Fatal(err)
	}
	store.at = 0
	if _, err := l.Append(ctx, testEntry("lost")); !errors.Is(err, errFault) {
		t.Fatalf("error %v, expected the fault", err)
	}
	store.at = 1 << 30
	other, err := ledger.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, other, 1)
	wantError(t, "recovering", l.Recover(ctx), ledger.ErrStopped)
}

// TestSeenButNotDurable: a checkpoint whose rename is seen after a kill but was
// never synced must be made durable before it is copied. Else a power cut
// takes it back, and the vault is ahead of its record for ever.
func TestSeenButNotDurable(t *testing.T) {
	for seed := range uint64(20) {
		state, nas := vfs.NewMem(), vfs.NewMem()
		prepare(t, state, nas)
		failing := false
		disk := vfs.NewFault(state, func(op vfs.Op, name string) error {
			if failing && op == "syncdir" && path.Base(name) == "ledger" {
				return errFault
			}
			return nil
		})
		l, err := ledger.Create(ctx, openConfigOn(t, disk, nas))
		if err != nil {
			t.Fatal(err)
		}
		grow(t, l, 3)
		failing = true
		if _, err := l.Append(ctx, testEntry("3")); !errors.Is(err, errFault) {
			t.Fatalf("error %v, expected the fault", err)
		}
		l, err = ledger.Open(ctx, openConfigOn(t, state, nas))
		if err != nil {
			t.Fatal(err)
		}
		if size := l.Tree().Size(); size != 4 {
			t.Fatalf("size %d after the kill, expected 4: the rename was done", size)
		}
		state = state.CrashClone(rand.New(rand.NewPCG(seed, 0)))
		cfg := openConfigOn(t, state, nas)
		if _, err := ledger.Open(ctx, cfg); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := audited(t, cfg); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestForeignTail: a full bundle beyond the vault's checkpoint, which the
// record knows nothing of, makes room; one that is covered never does.
func TestForeignTail(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 100)
	for _, name := range []string{vault.BundleName(vault.LedgerPrefix, 0, 256), vault.TileName(vault.LedgerPrefix, 0, 0, 256)} {
		if err := cfg.Copy.Put(ctx, name, 4, bytes.NewReader([]byte("tail"))); err != nil {
			t.Fatal(err)
		}
	}
	grow(t, l, 200)
	if err := audited(t, cfg); err != nil {
		t.Error(err)
	}
	if err := cfg.Copy.RemoveTail(ctx, vault.BundleName(vault.LedgerPrefix, 0, 256)); err == nil {
		t.Error("a bundle that the checkpoint covers was removed")
	}
	if err := audited(t, cfg); err != nil {
		t.Error(err)
	}
}
