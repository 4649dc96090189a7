package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
)

// lying is a source that opens one object as it likes.
type lying struct {
	testvault.Files
	name string
	open func() (io.ReadCloser, int64, error)
}

func (l lying) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name == l.name {
		return l.open()
	}
	return l.Files.Open(ctx, name)
}

// List tells no size that the ledger does not say.
func (l lying) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return l.Files.List(ctx, prefix, func(i vault.Info) error {
		if i.Name == l.name {
			i.Size = 0
		}
		return fn(i)
	})
}

// plain is a destination that does not show what it stored before it names it,
// as SFTP and S3.
type plain struct{ replicate.Dest }

// TestLyingSizes: of wraps and records the ledger says no size. Whatever the
// source says instead, nothing but the right bytes gets their names, and an honest
// source can make it good.
func TestLyingSizes(t *testing.T) {
	for what, open := range map[string]func() (io.ReadCloser, int64, error){
		"empty":        func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("")), 0, nil },
		"said empty":   func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("abc")), 0, nil },
		"negative":     func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("abc")), -1, nil },
		"too large":    func() (io.ReadCloser, int64, error) { return io.NopCloser(endless{}), 1 << 50, nil },
		"without end":  func() (io.ReadCloser, int64, error) { return io.NopCloser(endless{}), 1000, nil },
		"cut short":    func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("abc")), 1000, nil },
		"other bytes":  func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("abc")), 3, nil },
		"fails at end": func() (io.ReadCloser, int64, error) { return io.NopCloser(failing{}), 3, nil },
	} {
		for _, part := range []string{"keys/", "register/"} {
			for _, shows := range []bool{true, false} {
				w := source(t, 70)
				r := newReplica(t, w)
				honest := load(t, w.Vault)
				r.options = func(o *replicate.Options) {
					if !shows {
						o.To = plain{o.To}
					}
				}
				name := honest.Find(part)
				if _, err := r.pass(lying{honest, name, open}); err == nil {
					t.Errorf("%s, %s, shows %v: the pass succeeds", what, part, shows)
				}
				if _, there := r.files()[name]; there {
					t.Errorf("%s, %s, shows %v: something was stored", what, part, shows)
				}
				if _, err := r.pass(honest); err != nil {
					t.Errorf("%s, %s, shows %v: the honest source afterwards: %v", what, part, shows, err)
				}
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// failing gives all bytes together with an error that passes.
type failing struct{}

func (failing) Read(p []byte) (int, error) { return copy(p, "abc"), vault.ErrUnreachable }

// laterWritten is a source whose objects were all written after they were copied: its
// clock is ahead, or it was restored.
type laterWritten struct {
	*opens
	at time.Time
}

func (l laterWritten) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return l.opens.List(ctx, prefix, func(i vault.Info) error {
		i.ModTime = l.at
		return fn(i)
	})
}

// TestSourceWrittenLater: what was written again at the source is read again,
// once and for an hour, by when the clocks of two machines may differ, and not on
// every pass for ever.
func TestSourceWrittenLater(t *testing.T) {
	w := source(t, 71)
	r := newReplica(t, w)
	from := &opens{Files: load(t, w.Vault)}
	copied := r.must(from).Copied
	r.now = r.now.Add(48 * time.Hour)
	from.n.Store(0)
	restored := laterWritten{from, r.now.Add(-time.Second)}
	r.must(restored)
	if n := from.n.Load(); n != copied {
		t.Errorf("%d objects were read again, expected all %d", n, copied)
	}
	r.now = r.now.Add(2 * time.Hour)
	r.must(restored)
	from.n.Store(0)
	_, log := r.open()
	r.must(restored)
	if n := from.n.Load(); n != 0 {
		t.Errorf("%d objects were read again, and again", n)
	}
	if _, again := r.open(); again.Checkpoint().Size != log.Checkpoint().Size {
		t.Error("an idle pass wrote to the copy log")
	}
}

// TestRecheckIsLimited: reading the source again counts against the rate, and goes
// on where a line broke.
func TestRecheckIsLimited(t *testing.T) {
	w := source(t, 84)
	r := newReplica(t, w)
	files := load(t, w.Vault)
	copied := r.must(files)
	var left atomic.Int64
	left.Store(3)
	from := &opens{Files: files}
	r.now = r.now.Add(48 * time.Hour)
	restored := laterWritten{from, r.now.Add(-time.Second)}
	var waited time.Duration
	r.options = func(o *replicate.Options) {
		o.Jobs, o.Rate = 1, 1000
		o.From = cut{o.From, &left}
		now := r.now // stands still: all time is waited for
		o.Now = func() time.Time { return now }
		o.Sleep = func(_ context.Context, d time.Duration) error {
			if d < time.Second { // else it is one before another try
				waited += d
			}
			now = now.Add(d)
			return nil
		}
	}
	r.must(restored)
	if want := time.Duration(copied.Bytes) * time.Millisecond; waited < want/2 {
		t.Errorf("waited %v for %d bytes at 1000 a second", waited, copied.Bytes)
	}
	if n := from.n.Load(); n != copied.Copied {
		t.Errorf("%d objects were read, expected %d once each", n, copied.Copied)
	}
}

// cut is a source whose line breaks a few times when a segment is opened.
type cut struct {
	vault.Reader
	left *atomic.Int64
}

func (c cut) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if strings.HasPrefix(name, "segments/") && c.left.Add(-1) >= 0 {
		return nil, 0, vault.ErrUnreachable
	}
	return c.Reader.Open(ctx, name)
}

// TestKeptHeadsAway: a line that breaks while heads and cosignatures are copied is
// no forged cosignature.
func TestKeptHeadsAway(t *testing.T) {
	w := source(t, 72)
	first := newReplica(t, w)
	first.options = func(o *replicate.Options) { o.CosignBack = w.Vault }
	first.must(w.Vault)
	r := newReplica(t, w)
	var left atomic.Int64
	from := away{load(t, w.Vault), &left, "ledger/cosignatures/"}
	left.Store(100)
	sum, err := r.pass(from)
	if !errors.Is(err, replicate.ErrPartial) || sum.Rejected != 0 {
		t.Errorf("rejected %d, error %v, expected %v", sum.Rejected, err, replicate.ErrPartial)
	}
	left.Store(3)
	if sum := r.must(from); sum.Rejected != 0 {
		t.Errorf("rejected %d", sum.Rejected)
	}
	same(t, load(t, w.Vault), r.files())
}

// TestDueWhileThePassIsUnderWay: a pass may last for days. What the source
// destroys meanwhile, on its date, is not missing.
func TestDueWhileThePassIsUnderWay(t *testing.T) {
	for _, early := range []bool{false, true} {
		w := source(t, 73)
		r := newReplica(t, w)
		seg := segmentOf(t, w)
		honest := load(t, w.Vault)
		gone := vault.SegmentName(seg.Day, seg.Object, seg.Codec)
		r.options = func(o *replicate.Options) { o.Jobs = 1 }
		var once sync.Once
		from := lying{honest, gone, func() (io.ReadCloser, int64, error) {
			once.Do(func() {
				if r.now = seg.RetainUntil.Add(time.Hour); early {
					r.now = seg.RetainUntil.Add(-time.Hour)
				}
			})
			return nil, 0, vault.ErrNotExist
		}}
		sum, err := r.pass(sized{from, int64(len(honest[gone]))})
		if early && !errors.Is(err, replicate.ErrMissing) || !early && (err != nil || sum.Due != 1) {
			t.Errorf("destroyed before its date: %v: %+v, %v", early, sum, err)
		}
	}
}

// sized lists the object that lies with its right size.
type sized struct {
	lying
	size int64
}

func (s sized) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return s.Files.List(ctx, prefix, fn)
}

// TestLockAcrossAMonth: a pass that begins in one month and ends in the next
// locked what is held without an end by the first; the next pass must know.
func TestLockAcrossAMonth(t *testing.T) {
	w := source(t, 74)
	seg := segmentOf(t, w)
	r, b := newReplica(t, w), newBucket()
	r.append(w, &entry.Hold{Header: w.Header(), Hold: strings.Repeat("1", 32), Commit: vault.HashOf([]byte("order"))})
	r.into(b)
	to := r.options
	var once sync.Once
	r.options = func(o *replicate.Options) {
		to(o)
		o.Jobs = 1
		o.Progress = func(int64, int64) {
			once.Do(func() { r.now = time.Date(2028, 2, 1, 0, 1, 0, 0, time.UTC) })
		}
	}
	r.now = time.Date(2028, 1, 31, 23, 59, 0, 0, time.UTC) // its own date has passed
	r.must(w.Vault)
	name := vault.SegmentName(seg.Day, seg.Object, seg.Codec)
	if got := b.until[name]; got.Month() != time.March {
		t.Errorf("locked until %s in a pass that began in January", got)
	}
	r.now = time.Date(2028, 2, 5, 0, 0, 0, 0, time.UTC)
	r.must(w.Vault)
	if got := b.until[name]; got.Month() != time.April {
		t.Errorf("locked until %s by a pass in February", got)
	}
}

// TestHeldIsLockedForItsOwnDate: a hold lengthens. An object that comes under one
// is locked for no less than without it.
func TestHeldIsLockedForItsOwnDate(t *testing.T) {
	w := source(t, 78)
	seg := segmentOf(t, w)
	r, b := newReplica(t, w), newBucket()
	longer := seg.RetainUntil.AddDate(1, 0, 0)
	r.append(w, &entry.Hold{Header: w.Header(), Hold: strings.Repeat("1", 32), Commit: vault.HashOf([]byte("order"))})
	r.into(b)
	r.must(w.Vault)
	segment, wrap := vault.SegmentName(seg.Day, seg.Object, seg.Codec), r.files().Find("keys/")
	for _, name := range []string{segment, wrap} {
		if got := b.until[name]; got.Before(seg.RetainUntil) {
			t.Errorf("%s, held, is locked until %s, expected at least %s", name, got, seg.RetainUntil)
		}
	}
	r.append(w, &entry.Extend{Header: w.Header(), RetainUntil: longer, Commit: vault.HashOf([]byte("longer"))})
	r.must(w.Vault)
	for _, name := range []string{segment, wrap} {
		if got := b.until[name]; got.Before(longer) {
			t.Errorf("%s, held and extended, is locked until %s, expected at least %s", name, got, longer)
		}
	}
}

// TestTwoPassesAtOnce: two machines, or a lock that did not hold. One of them
// may fail; the copy is sound, and the next pass finds all in order.
func TestTwoPassesAtOnce(t *testing.T) {
	w := source(t, 75)
	r := newReplica(t, w)
	to, log := r.open()
	o := r.passOptions(w.Vault, to, log)
	o.Jobs = 1
	var once sync.Once
	o.Progress = func(int64, int64) { once.Do(func() { r.must(w.Vault) }) }
	if _, err := run(o); err == nil {
		t.Error("the pass that was overtaken appended to the copy log")
	}
	sound(t, r, w)
	r.must(w.Vault)
	same(t, load(t, w.Vault), r.files())
	sound(t, r, w)
}

// TestKeysLater: a copy without keys gets them when it is to have them, and keeps
// them when it is not any more. A segment without entry is told of in any case.
func TestKeysLater(t *testing.T) {
	w := source(t, 76)
	data := []byte("nobody sealed this")
	stray := vault.SegmentName(segmentOf(t, w).Day, vault.HashOf(data), vault.Gzip)
	if err := w.Vault.Put(context.Background(), stray, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	r, b := newReplica(t, w), newBucket()
	without := true
	r.options = func(o *replicate.Options) {
		o.WithoutKeys = without
		b.Dest, o.To = o.To, b
	}
	wraps := func() (n int) {
		for name := range r.files() {
			if strings.HasPrefix(name, "keys/") {
				n++
			}
		}
		return n
	}
	if sum := r.must(w.Vault); wraps() != 0 || sum.Unrecorded != 1 {
		t.Errorf("without keys: %d wraps, %d unrecorded, expected 0 and 1", wraps(), sum.Unrecorded)
	}
	without = false
	if sum := r.must(w.Vault); wraps() != 1 || sum.Copied != 1 {
		t.Errorf("with keys: %d wraps, %d copied", wraps(), sum.Copied)
	}
	wrap := r.files().Find("keys/")
	if !b.until[wrap].Equal(segmentOf(t, w).RetainUntil) {
		t.Errorf("the wrap is locked until %s", b.until[wrap])
	}
	without = true
	if sum := r.must(w.Vault); wraps() != 1 || sum.Copied != 0 || sum.Unrecorded != 1 {
		t.Errorf("without again: %d wraps, %+v", wraps(), sum)
	}
	if h, ok := r.last().(*entry.Held); !ok || h.Size != w.Log.Checkpoint().Size {
		t.Errorf("the copy log ends with %+v", r.last())
	}
}

// TestDestinationRefusesEachOperation lets every operation of the disk fail for
// good, from some point on, with a full disk: exit 3, never a verdict on the data.
func TestDestinationRefusesEachOperation(t *testing.T) {
	w := source(t, 77)
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 0; ; at += step {
		r := newReplica(t, w)
		to, log := r.open()
		n := 0
		r.before = func(op vfs.Op, _ string) error {
			if n++; n > at && (op == "write" || op == "create") {
				return syscall.ENOSPC
			}
			return nil
		}
		o := r.passOptions(w.Vault, to, log)
		o.Jobs = 1
		_, err := run(o)
		r.before = nil
		for _, verdict := range []error{replicate.ErrChanged, replicate.ErrDamaged, replicate.ErrForked, replicate.ErrUnsigned} {
			if errors.Is(err, verdict) {
				t.Errorf("full from operation %d: %v", at, err)
			}
		}
		if err == nil {
			return
		}
		r.must(w.Vault)
		same(t, load(t, w.Vault), r.files())
	}
}

// alternating is a source that shows an older state every other time it is asked
// for its checkpoint, as one that is written meanwhile, or by two.
type alternating struct {
	now, then testvault.Files
	asked     *atomic.Int64
}

func (a alternating) pick(name string) testvault.Files {
	if name == vault.CheckpointName(vault.LedgerPrefix) && a.asked.Add(1)%2 == 0 {
		return a.then
	}
	return a.now
}

func (a alternating) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	return a.pick(name).Open(ctx, name)
}

func (a alternating) Stat(ctx context.Context, name string) (vault.Info, error) {
	return a.now.Stat(ctx, name)
}

func (a alternating) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return a.now.List(ctx, prefix, fn)
}

// TestCheckpointGoesBack between two reads: a pass holds to the one that it began
// with, and the next is refused if the head went back.
func TestCheckpointGoesBack(t *testing.T) {
	w := source(t, 81)
	r := newReplica(t, w)
	then := load(t, w.Vault)
	if err := w.Seal(context.Background(), 1, "later\n"); err != nil {
		t.Fatal(err)
	}
	from := alternating{load(t, w.Vault), then, new(atomic.Int64)}
	if sum := r.must(from); sum.Size != w.Log.Checkpoint().Size {
		t.Errorf("held %d entries, expected %d", sum.Size, w.Log.Checkpoint().Size)
	}
	for from.asked.Load()%2 == 0 {
		from.asked.Add(1)
	}
	before := r.files()
	if _, err := r.pass(from); !errors.Is(err, replicate.ErrShrunk) {
		t.Errorf("error %v, expected %v", err, replicate.ErrShrunk)
	}
	if !maps.EqualFunc(before, r.files(), bytes.Equal) {
		t.Error("the refused pass changed the copy")
	}
	r.must(from)
	same(t, from.now, r.files())
}

// TestOddNamesAtTheSource are counted and go nowhere.
func TestOddNamesAtTheSource(t *testing.T) {
	w := source(t, 82)
	r := newReplica(t, w)
	from := load(t, w.Vault)
	odd := []string{"segments/../../etc/passwd", "segments/", "segments//x", "keys/" + strings.Repeat("a", 5000), "register/\x00", "segments/2026/11/21/" + strings.Repeat("z", 64) + ".gz.pgp"}
	for _, name := range odd {
		from[name] = []byte("x")
	}
	if sum := r.must(from); sum.Unrecorded != int64(len(odd)) {
		t.Errorf("%d unrecorded, expected %d", sum.Unrecorded, len(odd))
	}
	same(t, load(t, w.Vault), r.files())
}

// TestUnusedKey: a period key that nothing was sealed to lives until its day is
// over. Then its wraps may be gone, and are not copied.
func TestUnusedKey(t *testing.T) {
	w := source(t, 85)
	var key *entry.Key
	tree := w.Log.Tree()
	err := tree.Entries(context.Background(), 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if k, ok := e.(*entry.Key); ok {
			key = k
		}
		return err
	})
	if err != nil || key == nil {
		t.Fatalf("no key entry: %v", err)
	}
	wrap := []byte("a wrap that nobody needs")
	key.Header, key.Day, key.Wrap = w.Header(), vault.Day{Year: 2026, Month: time.December, Day: 24}, vault.HashOf(wrap)
	name := vault.WrapName(key.Day, key.Class, key.PublicHash, key.Wrap)
	r := newReplica(t, w)
	r.append(w, key)
	without := load(t, w.Vault)
	with := without.Clone()
	with[name] = wrap
	if _, err := r.pass(without); !errors.Is(err, replicate.ErrMissing) {
		t.Errorf("missing before its day: %v, expected %v", err, replicate.ErrMissing)
	}
	r.now = time.Date(2026, 12, 25, 0, 0, 0, 0, time.UTC)
	if sum := r.must(with); sum.Due != 1 || r.files()[name] != nil {
		t.Errorf("after its day: %d due, %d bytes copied", sum.Due, len(r.files()[name]))
	}
	if sum := r.must(without); sum.Missing != 1 {
		t.Errorf("gone after its day: %d missing", sum.Missing)
	}
}

// TestCopyLogDamaged: a copy whose own log does not hold together stops before it
// does anything.
func TestCopyLogDamaged(t *testing.T) {
	for what, change := range map[string]func([]byte) []byte{
		"cut": func(b []byte) []byte { return b[:len(b)/2] }, "flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"gone": func([]byte) []byte { return nil }, "empty": func(b []byte) []byte { return b[:0] },
	} {
		for _, part := range []string{"copy/nas2/log/tile/0/", "copy/nas2/log/tile/entries/", "copy/nas2/log/checkpoint"} {
			w := source(t, 83)
			r := newReplica(t, w)
			r.must(w.Vault)
			r.damage(r.files().Find(part), change)
			before := r.files()
			to := r.store()
			log, err := ledger.Open(context.Background(), r.logConfig(to))
			if err == nil {
				_, err = run(r.passOptions(w.Vault, to, log))
			}
			if err == nil {
				t.Errorf("%s %s: the pass succeeds", part, what)
			}
			if !maps.EqualFunc(before, r.files(), bytes.Equal) {
				t.Errorf("%s %s: the copy was changed", part, what)
			}
		}
	}
}
