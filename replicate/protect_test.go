package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
	"logvault/vault/dir"
)

// bucket is a destination that locks objects until a date, as S3 does, and keeps
// versions of the names that change.
type bucket struct {
	replicate.Dest

	mu       sync.Mutex
	until    map[string]time.Time
	calls    []string // names given to Protect since they were looked at
	versions []string // names given to RemoveVersions
	level    func(name string) vault.Level
}

func newBucket() *bucket {
	return &bucket{until: map[string]time.Time{}, level: func(string) vault.Level { return vault.LevelLock }}
}

func (b *bucket) Protect(_ context.Context, name string, until time.Time) (vault.Level, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until.After(b.until[name]) {
		b.until[name] = until // a lock is never shortened
	}
	b.calls = append(b.calls, name)
	return b.level(name), nil
}

func (b *bucket) RemoveVersions(_ context.Context, name string) error {
	b.versions = append(b.versions, name)
	return nil
}

// into makes the passes of a replica go to the bucket.
func (r *replica) into(b *bucket) {
	r.options = func(o *replicate.Options) { b.Dest, o.To = o.To, b }
}

// fresh returns what was protected since the last call.
func (b *bucket) fresh() []string {
	calls := slices.Sorted(slices.Values(b.calls))
	b.calls = nil
	return slices.Compact(calls)
}

// lock is the lock entry that went with the last held entry.
func (r *replica) lock() *entry.Lock {
	r.Helper()
	_, log := r.open()
	data, err := log.Tree().Entry(context.Background(), log.Checkpoint().Size-2)
	if err != nil {
		r.Fatal(err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		r.Fatal(err)
	}
	l, ok := e.(*entry.Lock)
	if !ok {
		r.Fatalf("a %T before held, expected a lock", e)
	}
	return l
}

// TestLockDates: each object is locked until its own date, again when that moves
// and not otherwise, and never for less.
func TestLockDates(t *testing.T) {
	ctx := context.Background()
	w := source(t, 50)
	r, b := newReplica(t, w), newBucket()
	r.into(b)
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelLock {
		t.Errorf("level %s", sum.Immutability)
	}
	seg, files := segmentOf(t, w), load(t, w.Vault)
	segment, wrap, record := vault.SegmentName(seg.Day, seg.Object, seg.Codec), files.Find("keys/"), files.Find("register/")
	newYear := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
	class := testvault.Class()
	for name, want := range map[string]time.Time{segment: seg.RetainUntil, wrap: seg.RetainUntil, record: class.RetainUntil(testvault.Start),
		vault.MarkerName: newYear, r.files().Find("ledger/checkpoints/"): newYear, r.files().Find("ledger/cosignatures/"): newYear} {
		if got := b.until[name]; !got.Equal(want) {
			t.Errorf("%s is locked until %s, expected %s", name, got, want)
		}
	}
	if l := r.lock(); l.Mode != entry.LockObject || !l.Until.Equal(seg.RetainUntil) || l.Objects != 6 || l.Size != w.Log.Checkpoint().Size {
		t.Errorf("lock entry %+v", l)
	}
	b.fresh()
	idle := func(what string) {
		t.Helper()
		r.must(w.Vault)
		// The marker is the probe; the cosignature is newer than held.
		if got := b.fresh(); len(got) > 2 || got[0] != vault.MarkerName || len(got) == 2 && !strings.HasPrefix(got[1], "ledger/cosignatures/") {
			t.Errorf("%s: an idle pass protected %v, expected the marker and the last cosignature", what, got)
		}
	}
	idle("at first")
	stored := len(files) - len(r.ledgerNames(files)) // objects and the marker

	hold := &entry.Hold{Header: w.Header(), Hold: strings.Repeat("1", 32), Commit: vault.HashOf([]byte("order"))}
	at := w.Log.Checkpoint().Size
	r.append(w, hold)
	r.must(w.Vault)
	if b.fresh(); !b.until[segment].Equal(seg.RetainUntil) {
		t.Errorf("under a hold: %s, expected the later date of retention", b.until[segment])
	}
	r.now = seg.RetainUntil.AddDate(0, 1, 0) // past its date, held
	r.must(w.Vault)
	february := time.Date(2028, 2, 1, 0, 0, 0, 0, time.UTC)
	if got := b.fresh(); len(got) < stored-1 || !b.until[segment].Equal(february) || !b.until[wrap].Equal(february) {
		t.Errorf("held past its date: %d objects protected, until %s, expected the first of the month after next", len(got), b.until[segment])
	}
	idle("in the same month")
	r.append(w, &entry.Release{Header: w.Header(), Hold: at, Commit: vault.HashOf([]byte("end")), Approver: strings.Repeat("a", 40), Signature: []byte("signature")})
	r.must(w.Vault)
	if !b.until[segment].Equal(february) {
		t.Errorf("released: %s", b.until[segment])
	}
	if err := w.Append(ctx, &entry.Extend{Header: w.Header(), RetainUntil: newYear.AddDate(3, 0, 0), Commit: vault.HashOf([]byte("longer"))}); err != nil {
		t.Fatal(err)
	}
	b.fresh()
	r.must(w.Vault)
	if got := b.fresh(); !b.until[segment].Equal(newYear.AddDate(3, 0, 0)) || !b.until[vault.MarkerName].Equal(newYear.AddDate(4, 0, 0)) || !slices.Contains(got, r.files().Find("ledger/checkpoints")) {
		t.Errorf("extended: %s, marker %s", b.until[segment], b.until[vault.MarkerName])
	}
	idle("after the extension")
}

// append appends an entry to the world's ledger.
func (r *replica) append(w *testvault.World, e entry.Entry) {
	r.Helper()
	if err := w.Append(context.Background(), e); err != nil {
		r.Fatal(err)
	}
}

func (r *replica) ledgerNames(f testvault.Files) (names []string) {
	for name := range f {
		if strings.HasPrefix(name, "ledger/") {
			names = append(names, name)
		}
	}
	return names
}

// TestLevelIsTheWeakest: one object that cannot be locked is enough.
func TestLevelIsTheWeakest(t *testing.T) {
	w := source(t, 51)
	r, b := newReplica(t, w), newBucket()
	r.into(b)
	weak := load(t, w.Vault).Find("register/")
	b.level = func(name string) vault.Level {
		if name == weak {
			return vault.LevelNone
		}
		return vault.LevelLock
	}
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelNone {
		t.Errorf("level %q, expected none", sum.Immutability)
	}
	if _, ok := r.last().(*entry.Held); !ok {
		t.Error("held is not the last entry")
	}
	b.level = func(string) vault.Level { return vault.LevelLock }
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelLock || r.lock().Mode != entry.LockObject {
		t.Errorf("level %q, expected objectlock once all is locked", sum.Immutability)
	}
}

func TestFullTilesAreLockedOnce(t *testing.T) {
	w := source(t, 52)
	r, b := newReplica(t, w), newBucket()
	r.into(b)
	fill(t, w, 700)
	r.now = w.Clock
	r.must(w.Vault)
	var tiles []string
	for _, name := range b.fresh() {
		if strings.HasPrefix(name, "ledger/tile/") {
			tiles = append(tiles, name)
		}
	}
	want := []string{"ledger/tile/0/000", "ledger/tile/0/001", "ledger/tile/entries/000", "ledger/tile/entries/001"}
	if !slices.Equal(tiles, want) {
		t.Errorf("locked %v, expected %v", tiles, want)
	}
	fill(t, w, 100)
	r.now = w.Clock
	r.must(w.Vault)
	got := b.fresh()
	if !slices.Contains(got, "ledger/tile/0/002") || slices.Contains(got, "ledger/tile/0/001") {
		t.Errorf("locked %v, expected the third tile and not the second", got)
	}
	for _, name := range []string{"ledger/checkpoint", "ledger/tile/0/003.p/38", "copy/" + copyName + "/log/checkpoint"} {
		if !slices.Contains(b.versions, name) {
			t.Errorf("versions of %s were not removed: %v", name, b.versions)
		}
	}
	for _, name := range b.versions {
		if !vault.IsMutable(name) {
			t.Errorf("versions of %s were removed", name)
		}
	}
}

func fill(t *testing.T, w *testvault.World, n int) {
	t.Helper()
	var list []entry.Entry
	for range n {
		list = append(list, &entry.Summary{Header: w.Header(), Since: testvault.Start, Until: testvault.Start.Add(time.Hour)})
	}
	if err := w.Append(context.Background(), list...); err != nil {
		t.Fatal(err)
	}
}

// flags makes the passes set flags.
func (r *replica) flags() {
	r.options = func(o *replicate.Options) { o.To.(*dir.Store).UseFlags() }
}

// TestFlags: a copy that had modes only gets flags when a pass may set them, and
// what somebody took away is set again.
func TestFlags(t *testing.T) {
	w := source(t, 53)
	r := newReplica(t, w)
	r.must(w.Vault)
	r.flags()
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelFlag || r.lock().Mode != entry.LockImmutable {
		t.Errorf("level %s, lock %+v, expected flag", sum.Immutability, r.lock())
	}
	for name := range r.files() {
		flags, err := r.disk.Flags("/copy/" + name)
		own := strings.HasPrefix(name, "copy/")
		if err != nil || !own && vault.IsMutable(name) == (flags == vfs.FlagImmutable) {
			t.Errorf("%s: flags %x, %v", name, flags, err)
		}
	}
	name := r.files().Find(".gz.pgp")
	if err := r.disk.SetFlags("/copy/"+name, 0, vfs.FlagImmutable); err != nil {
		t.Fatal(err)
	}
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelFlag {
		t.Errorf("level %s after a flag was taken away, expected flag", sum.Immutability)
	}
	if flags, _ := r.disk.Flags("/copy/" + name); flags != vfs.FlagImmutable {
		t.Error("the flag was not set again")
	}
	// A pass that may not set flags sees that one is missing.
	r.options = nil
	if err := r.disk.SetFlags("/copy/"+name, 0, vfs.FlagImmutable); err != nil {
		t.Fatal(err)
	}
	if sum := r.must(w.Vault); sum.Immutability != vault.LevelMode || r.lock().Mode != entry.LockMode {
		t.Errorf("level %s, lock %s, expected mode", sum.Immutability, r.lock().Mode)
	}
}

// stops is a destination whose reads of one object end with the process, as when
// it is killed between storing that object and reading it back.
type stops struct {
	replicate.Dest
	name string
}

func (s stops) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name == s.name {
		return nil, 0, vault.ErrNoVault // an error that is not tried again
	}
	return s.Dest.Open(ctx, name)
}

// counting is a destination that notes which segments are opened.
type counting struct {
	*dir.Store
	mu     sync.Mutex
	opened []string
}

func (c *counting) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	c.mu.Lock()
	if strings.HasPrefix(name, "segments/") {
		c.opened = append(c.opened, name)
	}
	c.mu.Unlock()
	return c.Store.Open(ctx, name)
}

// memory is a Memory in memory.
type memory map[vault.Hash]replicate.Reached

func (m memory) Recall(h vault.Hash) (replicate.Reached, bool) {
	r, ok := m[h]
	return r, ok
}

func (m memory) Remember(h vault.Hash, r replicate.Reached) error {
	m[h] = r
	return nil
}

// TestWhatWasNotReadBackDoesNotCount: an object of a killed pass is there by
// name and size; the next pass reads it back before it vouches for it.
func TestWhatWasNotReadBackDoesNotCount(t *testing.T) {
	w := source(t, 54)
	r := newReplica(t, w)
	r.must(w.Vault)
	if err := w.Seal(context.Background(), 1, "stored and not read back\n"); err != nil {
		t.Fatal(err)
	}
	name := newest(t, w)
	r.options = func(o *replicate.Options) { o.To = stops{o.To, name} }
	if _, err := r.pass(w.Vault); !errors.Is(err, vault.ErrNoVault) {
		t.Fatalf("error %v", err)
	}
	good, ok := r.files()[name]
	if !ok {
		t.Fatal("the killed pass stored nothing")
	}
	r.damage(name, func(b []byte) []byte { b[9] ^= 1; return b })
	r.options = nil
	if _, err := r.pass(w.Vault); !errors.Is(err, replicate.ErrChanged) {
		t.Errorf("a damaged object that was not read back: error %v, expected %v", err, replicate.ErrChanged)
	}
	r.damage(name, func([]byte) []byte { return good })
	to := &counting{}
	r.options = func(o *replicate.Options) {
		to.Store, to.opened = o.To.(*dir.Store), nil
		o.To = to
	}
	if r.must(w.Vault); !slices.Contains(to.opened, name) {
		t.Errorf("opened %v, expected what the killed pass left", to.opened)
	}
	if r.must(w.Vault); len(to.opened) != 0 {
		t.Errorf("an idle pass opened %v at the destination", to.opened)
	}
}

// TestPassesAreRemembered: what a killed pass has brought to its end is neither
// read nor locked again, but for a later date or a better lock; so however often
// passes are killed, none is in vain.
func TestPassesAreRemembered(t *testing.T) {
	w := source(t, 55)
	r, b, m := newReplica(t, w), newBucket(), memory{}
	die := func(locks vault.Level) []string {
		t.Helper()
		b.level = func(string) vault.Level { return locks }
		r.before = func(op vfs.Op, name string) error {
			if (op == vfs.OpLink || op == vfs.OpRename) && strings.Contains(name, "/copy/ledger/") {
				return errDead
			}
			return nil
		}
		r.options = func(o *replicate.Options) { b.Dest, o.To, o.Memory, o.Attempts = o.To, b, m, 1 }
		if _, err := r.pass(w.Vault); !errors.Is(err, errDead) {
			t.Fatalf("error %v", err)
		}
		r.before = nil
		return b.fresh()
	}
	if got := die(vault.LevelMode); len(got) != 7 || len(m) != 6 {
		t.Errorf("the first: protected %v, remembered %d", got, len(m))
	}
	if got := die(vault.LevelMode); len(got) != 1 {
		t.Errorf("the second: protected %v, expected the marker", got)
	}
	if got := die(vault.LevelLock); len(got) != 7 {
		t.Errorf("with better locks: protected %v, expected all", got)
	}
	r.append(w, &entry.Extend{Header: w.Header(), RetainUntil: testvault.Start.AddDate(5, 0, 0), Commit: vault.HashOf([]byte("longer"))})
	if got := die(vault.LevelLock); len(got) != 6 { // not the record of the request
		t.Errorf("with later dates: protected %v", got)
	}
	to := &counting{}
	r.options = func(o *replicate.Options) { to.Store = o.To.(*dir.Store); o.To, o.Memory = to, m }
	for h, reached := range m {
		m[h] = replicate.Reached{Level: vault.LevelMode, Until: reached.Until}
	}
	if sum := r.must(w.Vault); sum.Copied != 0 || len(to.opened) != 0 || sum.Immutability != vault.LevelMode {
		t.Errorf("the last: %d copied, opened again %v, level %s", sum.Copied, to.opened, sum.Immutability)
	}
}

func TestOrphanOfTheLedgerRaisesNoWarning(t *testing.T) {
	w := source(t, 56)
	r := newReplica(t, w)
	body := []byte("an encoding that was given up")
	name := vault.SegmentName(vault.Day{Year: 2027, Month: 11, Day: 22}, vault.HashOf(body), vault.Gzip)
	if err := w.Vault.Put(context.Background(), name, int64(len(body)), bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	r.append(w, &entry.Orphan{Header: w.Header(), Object: vault.HashOf(body), Name: name})
	if sum := r.must(w.Vault); sum.Unrecorded != 0 || r.files()[name] != nil {
		t.Errorf("unrecorded %d, copied %v, expected neither", sum.Unrecorded, r.files()[name] != nil)
	}
}

// away is a source whose line breaks a few times.
type away struct {
	testvault.Files
	left *atomic.Int64
	only string
}

func (a away) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if strings.HasPrefix(name, a.only) && a.left.Add(-1) >= 0 {
		return nil, 0, vault.ErrUnreachable
	}
	return a.Files.Open(ctx, name)
}

// TestSourceAway: a line that breaks is no damage, and the pass goes on.
func TestSourceAway(t *testing.T) {
	for _, only := range []string{vault.MarkerName, "ledger/checkpoint", "ledger/tile/0/", "ledger/tile/entries/", "segments/"} {
		w := source(t, 57)
		r := newReplica(t, w)
		var left atomic.Int64
		left.Store(100)
		from := away{load(t, w.Vault), &left, only}
		_, err := r.pass(from)
		if !errors.Is(err, replicate.ErrPartial) || !errors.Is(err, vault.ErrUnreachable) || errors.Is(err, replicate.ErrDamaged) || errors.Is(err, replicate.ErrUnsigned) {
			t.Errorf("%s away: error %v, expected %v only", only, err, replicate.ErrPartial)
		}
		left.Store(3)
		r.must(from)
		same(t, load(t, w.Vault), r.files())
	}
}

func TestCosignatureReachesTheSource(t *testing.T) {
	w := source(t, 58)
	r := newReplica(t, w)
	r.options = func(o *replicate.Options) { o.CosignBack = w.Vault }
	r.must(w.Vault)
	files := load(t, w.Vault)
	if _, err := ledger.VerifyCosignature(w.Log.Checkpoint(), files[files.Find("ledger/cosignatures/")], r.cosignV); err != nil {
		t.Error(err)
	}
	files.Find("ledger/checkpoints/")
	r.must(w.Vault)
	if again := load(t, w.Vault); !maps.EqualFunc(files, again, bytes.Equal) {
		t.Error("an idle pass changed the source")
	}
}

// TestProtectWhereItStands is the root job beside a copy that is pushed to.
func TestProtectWhereItStands(t *testing.T) {
	w := source(t, 59)
	r := newReplica(t, w)
	r.must(w.Vault)
	job := func() (replicate.StandingSummary, error) {
		to := r.store()
		to.UseFlags()
		return replicate.Protect(context.Background(), replicate.StandingOptions{Vault: to, Trust: &r.trust, Jobs: 2, Now: r.clock, Log: quiet})
	}
	bad := r.files().Find(".gz.pgp")
	good := r.files()[bad]
	r.damage(bad, func(b []byte) []byte { b[9] ^= 1; return b })
	if _, err := job(); !errors.Is(err, replicate.ErrChanged) {
		t.Errorf("a damaged object: error %v, expected %v", err, replicate.ErrChanged)
	}
	if flags, _ := r.disk.Flags("/copy/" + bad); flags != 0 {
		t.Error("a damaged object was made immutable")
	}
	// Directories may have their flags already, from its neighbours.
	for d := path.Dir("/copy/" + bad); d != "/"; d = path.Dir(d) {
		if err := r.disk.SetFlags(d, 0, vfs.FlagAppend); err != nil {
			t.Fatal(err)
		}
	}
	r.damage(bad, func([]byte) []byte { return good })
	if sum, err := job(); err != nil || sum.Level != vault.LevelFlag || sum.Objects != 6 || sum.Fresh == 0 {
		t.Errorf("%+v, %v, expected 6 objects with flags", sum, err)
	}
	if sum, err := job(); err != nil || sum.Level != vault.LevelFlag || sum.Fresh != 0 {
		t.Errorf("again: %+v, %v, expected nothing new", sum, err)
	}
	r.before = func(op vfs.Op, _ string) error {
		if op == vfs.OpSetFlags {
			return errors.ErrUnsupported
		}
		return nil
	}
	r.now = w.Clock
	if err := w.Seal(context.Background(), 1, "sealed later\n"); err != nil {
		t.Fatal(err)
	}
	r.now = w.Clock
	r.must(w.Vault)
	if sum, err := job(); err != nil || sum.Level != vault.LevelMode {
		t.Errorf("without the right: %+v, %v, expected mode", sum, err)
	}
}
