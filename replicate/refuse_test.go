package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
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

// hostile is the source as an attacker with root on the primary leaves it.
type hostile struct {
	name string
	want error
	// from returns the source for the second pass, of the honest one.
	from func(t *testing.T, w *testvault.World, honest testvault.Files) testvault.Files
}

func edit(change func(f testvault.Files)) func(*testing.T, *testvault.World, testvault.Files) testvault.Files {
	return func(_ *testing.T, _ *testvault.World, f testvault.Files) testvault.Files {
		change(f)
		return f
	}
}

// ledgerOf replaces the ledger of f by that of another world.
func ledgerOf(t *testing.T, f testvault.Files, w *testvault.World) testvault.Files {
	maps.DeleteFunc(f, func(name string, _ []byte) bool { return strings.HasPrefix(name, "ledger/") })
	for name, data := range load(t, w.Vault) {
		if strings.HasPrefix(name, "ledger/") {
			f[name] = data
		}
	}
	return f
}

var attacks = []hostile{
	{"unmounted", vault.ErrNoVault, edit(func(f testvault.Files) { clear(f) })},
	{"no checkpoint", replicate.ErrUnsigned, edit(func(f testvault.Files) { delete(f, "ledger/checkpoint") })},
	{"checkpoint altered", replicate.ErrUnsigned, edit(func(f testvault.Files) { f["ledger/checkpoint"][30] ^= 1 })},
	{"re-signed by another key", replicate.ErrUnsigned, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		return ledgerOf(t, f, source(t, 90))
	}},
	{"shrunk", replicate.ErrShrunk, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		return ledgerOf(t, f, twin(t, w, 0))
	}},
	{"forked at the same size", replicate.ErrForked, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		return ledgerOf(t, f, twin(t, w, w.Log.Checkpoint().Size))
	}},
	{"forked and longer", replicate.ErrForked, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		return ledgerOf(t, f, twin(t, w, w.Log.Checkpoint().Size+3))
	}},
	{"marker of another vault", replicate.ErrOtherVault, edit(func(f testvault.Files) {
		f[vault.MarkerName] = vault.Marker{ID: [16]byte{9}, Origin: testvault.Origin}.Encode()
	})},
	{"held segment missing", replicate.ErrMissing, edit(func(f testvault.Files) { delete(f, f.Find(".gz.pgp")) })},
	{"new segment missing", replicate.ErrMissing, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		delete(f, newest(t, w))
		return f
	}},
	{"wrap missing", replicate.ErrMissing, edit(func(f testvault.Files) { delete(f, f.Find("keys/")) })},
	{"record missing", replicate.ErrMissing, edit(func(f testvault.Files) { delete(f, f.Find("register/")) })},
	{"held segment longer", replicate.ErrChanged, edit(func(f testvault.Files) { f[f.Find(".gz.pgp")] = append(f[f.Find(".gz.pgp")], 0) })},
	{"new segment altered", replicate.ErrChanged, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		f[newest(t, w)][20] ^= 1
		return f
	}},
	{"new segment shorter", replicate.ErrChanged, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		f[newest(t, w)] = f[newest(t, w)][1:]
		return f
	}},
	{"tile altered", replicate.ErrDamaged, edit(func(f testvault.Files) { f[f.Find("ledger/tile/0/")][5] ^= 1 })},
	{"bundle altered", replicate.ErrDamaged, edit(func(f testvault.Files) { f[f.Find("ledger/tile/entries/")][50] ^= 1 })},
	{"bundle missing", replicate.ErrDamaged, edit(func(f testvault.Files) { delete(f, f.Find("ledger/tile/entries/")) })},
	{"received the day after tomorrow", replicate.ErrClock, func(t *testing.T, w *testvault.World, f testvault.Files) testvault.Files {
		w.Clock = w.Clock.Add(49 * time.Hour)
		if err := w.Seal(context.Background(), 1, "from the future\n"); err != nil {
			t.Fatal(err)
		}
		return load(t, w.Vault)
	}},
}

// twin is a world with the same keys and the same first entries as w, but with
// another history, brought to a size.
func twin(t *testing.T, w *testvault.World, size int64) *testvault.World {
	t.Helper()
	v, err := testvault.New(seedOf(w))
	if err != nil {
		t.Fatal(err)
	}
	for v.Log.Checkpoint().Size < size {
		if err := v.Append(context.Background(), &entry.Summary{Header: v.Header(), Since: testvault.Start, Until: testvault.Start.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// seedOf reads the seed back from the marker, where testvault.New put it.
func seedOf(w *testvault.World) uint64 {
	m, _, err := vault.ReadMarker(context.Background(), w.Vault)
	if err != nil {
		panic(err)
	}
	return uint64(m.ID[3])
}

// newest is the name of the segment that was sealed last.
func newest(t *testing.T, w *testvault.World) string {
	t.Helper()
	s := segmentOf(t, w)
	return vault.SegmentName(s.Day, s.Object, s.Codec)
}

// TestRefusals: the copy has made one pass; then the primary seals more and
// falls into the wrong hands. The pass is refused with its own error, and the
// copy's ledger is what it was. Nothing at all is written but whole objects that
// the genuine ledger names.
func TestRefusals(t *testing.T) {
	for i, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			w := source(t, uint64(100+i))
			r := newReplica(t, w)
			r.must(w.Vault)
			if err := w.Seal(context.Background(), 1, "sealed after the first pass\n"); err != nil {
				t.Fatal(err)
			}
			before, honest := r.files(), load(t, w.Vault)
			_, err := r.pass(a.from(t, w, honest.Clone()))
			if !errors.Is(err, a.want) {
				t.Fatalf("error %v, expected %v", err, a.want)
			}
			after := r.files()
			for name, data := range after {
				if old, ok := before[name]; ok && bytes.Equal(old, data) {
					continue
				}
				if strings.HasPrefix(name, "segments/") && bytes.Equal(honest[name], data) {
					continue // a good object, which the next pass finds
				}
				t.Errorf("%s was written", name)
			}
			if len(after) < len(before) {
				t.Errorf("%d files, then %d", len(before), len(after))
			}
			if w.Clock.After(r.now) {
				r.now = w.Clock // somebody has set the clocks right
			}
			r.must(w.Vault)
			same(t, load(t, w.Vault), r.files())
		})
	}
}

func TestKnownHeadOfTheTrustFile(t *testing.T) {
	w := source(t, 11)
	for _, c := range []struct {
		size int64
		root string
		want error
	}{
		{1, "", nil},
		{w.Log.Checkpoint().Size, w.Log.Checkpoint().Root.String(), nil},
		{w.Log.Checkpoint().Size + 1, "", replicate.ErrShrunk},
		{1, strings.Repeat("0", 64), replicate.ErrForked},
	} {
		r := newReplica(t, w)
		r.trust.KnownSize, r.trust.KnownRoot = c.size, c.root
		if _, err := r.pass(w.Vault); !errors.Is(err, c.want) {
			t.Errorf("known %d:%s: error %v, expected %v", c.size, c.root, err, c.want)
		}
	}
}

// damage alters the destination's disk behind the store.
func (r *replica) damage(name string, change func([]byte) []byte) {
	r.Helper()
	full := "/copy/" + name
	data, err := vfs.ReadFile(r.disk, full, 1<<20)
	if err != nil {
		r.Fatal(err)
	}
	if data = change(data); data == nil {
		err = r.disk.Remove(full)
	} else {
		err = vfs.WriteFile(r.disk, full, data, 0o440)
	}
	if err != nil {
		r.Fatal(err)
	}
}

func TestDamagedDestination(t *testing.T) {
	gone := func([]byte) []byte { return nil }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	grow := func(b []byte) []byte { return append(b, 0) }
	for _, c := range []struct {
		what, part string
		change     func([]byte) []byte
		want       error
	}{
		{"marker gone", vault.MarkerName, gone, vault.ErrNoVault},
		{"checkpoint gone", "ledger/checkpoint", gone, replicate.ErrDamaged},
		{"checkpoint altered", "ledger/checkpoint", flip, replicate.ErrDamaged},
		{"segment of another size", ".gz.pgp", grow, replicate.ErrChanged},
		{"segment gone", ".gz.pgp", gone, nil}, // copied again
		{"wrap gone", "keys/", gone, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := source(t, 12)
			r := newReplica(t, w)
			r.must(w.Vault)
			r.damage(r.files().Find(c.part), c.change)
			_, err := r.pass(w.Vault)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, expected %v", err, c.want)
			}
			if c.want == nil {
				same(t, load(t, w.Vault), r.files())
			}
		})
	}
}

func TestOtherBytesUnderTheNameAreNotOverwritten(t *testing.T) {
	w := source(t, 13)
	r := newReplica(t, w)
	name := load(t, w.Vault).Find(".gz.pgp")
	if err := vfs.MkdirAll(r.disk, "/copy/"+name[:len("segments/2027/11/22")], 0o700); err != nil {
		t.Fatal(err)
	}
	size := len(load(t, w.Vault)[name])
	if err := vfs.WriteFile(r.disk, "/copy/"+name, make([]byte, size), 0o440); err != nil {
		t.Fatal(err)
	}
	// Listed with the right size it passes for present, and verify finds it; but
	// if it comes between listing and copying, Put refuses it.
	r.options = func(o *replicate.Options) { o.To = hiding{o.To, name} }
	if _, err := r.pass(w.Vault); !errors.Is(err, replicate.ErrChanged) {
		t.Errorf("error %v, expected %v", err, replicate.ErrChanged)
	}
	if got := r.files()[name]; !bytes.Equal(got, make([]byte, size)) {
		t.Error("the object was overwritten")
	}
}

// hiding is a destination whose listing does not show a name yet.
type hiding struct {
	replicate.Dest
	name string
}

func (h hiding) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return h.Dest.List(ctx, prefix, func(i vault.Info) error {
		if i.Name == h.name {
			return nil
		}
		return fn(i)
	})
}

// rewritten is a source whose segment was written after it was copied.
type rewritten struct {
	testvault.Files
	name string
}

func (f rewritten) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	return f.Files.List(ctx, prefix, func(i vault.Info) error {
		if i.Name == f.name {
			i.ModTime = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		return fn(i)
	})
}

func TestHeldObjectRewrittenAtTheSource(t *testing.T) {
	w := source(t, 14)
	r := newReplica(t, w)
	r.must(w.Vault)
	files := load(t, w.Vault)
	name := files.Find(".gz.pgp")
	r.must(rewritten{files, name}) // touched, but the same bytes
	files[name][9] ^= 1
	if _, err := r.pass(rewritten{files, name}); !errors.Is(err, replicate.ErrChanged) {
		t.Errorf("error %v, expected %v", err, replicate.ErrChanged)
	}
}

// lossy is a destination that stores something else than it is given.
type lossy struct{ replicate.Dest }

func (l lossy) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	data, err := io.ReadAll(body)
	if err == nil && strings.HasPrefix(name, "segments/") {
		data[0] ^= 1
	}
	if err != nil {
		return err
	}
	return l.Dest.Put(ctx, name, size, bytes.NewReader(data))
}

func TestReadBackFindsALossyDestination(t *testing.T) {
	w := source(t, 15)
	r := newReplica(t, w)
	r.options = func(o *replicate.Options) { o.To = lossy{o.To} }
	if _, err := r.pass(w.Vault); !errors.Is(err, replicate.ErrChanged) {
		t.Errorf("error %v, expected %v", err, replicate.ErrChanged)
	}
	if r.tree() != nil {
		t.Error("the checkpoint was copied")
	}
}

func TestFullDestination(t *testing.T) {
	w := source(t, 16)
	r := newReplica(t, w)
	r.before = func(op vfs.Op, name string) error {
		if op == "write" && strings.Contains(name, "/segments/") {
			return syscall.ENOSPC
		}
		return nil
	}
	_, err := r.pass(w.Vault)
	if !errors.Is(err, replicate.ErrPartial) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, expected %v because of %v", err, replicate.ErrPartial, syscall.ENOSPC)
	}
	r.before = nil
	r.must(w.Vault)
	same(t, load(t, w.Vault), r.files())
}

func TestInitRefuses(t *testing.T) {
	w := source(t, 17)
	r := newReplica(t, w)
	before := r.files()
	o := r.initOptions(w.Vault)
	o.Cosigner = ""
	if err := replicate.Init(context.Background(), o); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("a copy that began otherwise: error %v, expected %v", err, vault.ErrNotEmpty)
	}
	if err := replicate.Init(context.Background(), r.initOptions(source(t, 18).Vault)); !errors.Is(err, replicate.ErrUnsigned) {
		t.Errorf("a vault of another key: error %v, expected %v", err, replicate.ErrUnsigned)
	}
	if err := replicate.Init(context.Background(), r.initOptions(w.Vault)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if after := r.files(); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Errorf("the destination was changed: %v, then %v", before.Names(), after.Names())
	}
}

// TestInitAfterACrash kills Init before each of its disk operations; repeated
// with the same keys it goes on.
func TestInitAfterACrash(t *testing.T) {
	w := source(t, 20)
	for at := 1; ; at++ {
		r := newEmpty(t)
		r.trust, r.cosign, r.cosignV = *w.Trust, "", ""
		n := 0
		r.before = func(vfs.Op, string) error {
			if n++; n > at {
				return errDead
			}
			return nil
		}
		err := replicate.Init(context.Background(), r.initOptions(w.Vault))
		r.before = nil
		r.disk = r.disk.CrashClone(rand.New(rand.NewPCG(3, uint64(at))))
		if err := replicate.Init(context.Background(), r.initOptions(w.Vault)); err != nil {
			t.Fatalf("after a crash before operation %d: %v", at, err)
		}
		if _, ok := r.last().(*entry.CopyInit); !ok {
			t.Fatalf("after a crash before operation %d: the log begins otherwise", at)
		}
		if err == nil {
			return
		}
	}
}

func TestPassOfACopyNotBegun(t *testing.T) {
	w := source(t, 19)
	r := newEmpty(t)
	r.trust = *w.Trust
	if _, err := ledger.Create(context.Background(), r.logConfig(r.store())); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pass(w.Vault); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("error %v, expected %v", err, vault.ErrNoVault)
	}
}

// newEmpty is a destination without a marker and without copy-init.
func newEmpty(t testing.TB) *replica {
	t.Helper()
	r := &replica{TB: t, disk: vfs.NewMem(), now: testvault.Start}
	var err error
	if r.logKey, r.logV, err = ledger.GenerateKey(testvault.Random(60), origin); err != nil {
		t.Fatal(err)
	}
	if err := vfs.MkdirAll(r.disk, "/copy", 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}
