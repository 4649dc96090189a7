package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
)

// same fails unless the destination holds every object of the source with the
// same bytes, and nothing else but its own.
func same(t *testing.T, from, to testvault.Files) {
	t.Helper()
	for name, data := range from {
		if !bytes.Equal(to[name], data) {
			t.Errorf("%s: %d bytes at the source, %d at the destination", name, len(data), len(to[name]))
		}
	}
	for name := range to {
		own := strings.HasPrefix(name, "copy/") || strings.HasPrefix(name, "ledger/checkpoints/") || strings.HasPrefix(name, "ledger/cosignatures/")
		if _, ok := from[name]; !ok && !own {
			t.Errorf("%s: at the destination only", name)
		}
	}
}

func TestPassCopiesEverything(t *testing.T) {
	w := source(t, 1)
	r := newReplica(t, w)
	sum := r.must(w.Vault)
	from := load(t, w.Vault)
	same(t, from, r.files())
	cp := w.Log.Checkpoint()
	if sum.Size != cp.Size || sum.Root != cp.Root || sum.Copied != 6 || sum.Present != 0 || !sum.Cosigned || sum.Immutability != "mode" {
		t.Errorf("summary %+v, expected 6 objects copied at size %d, cosigned, mode", sum, cp.Size)
	}
	line := r.files()[r.files().Find("ledger/cosignatures/")]
	if _, err := ledger.VerifyCosignature(cp, line, r.cosignV); err != nil {
		t.Errorf("cosignature: %v", err)
	}
	held := r.last()
	if h, ok := held.(*entry.Held); !ok || h.Size != cp.Size || h.Root != cp.Root || h.Objects != 6 || h.Bytes != sum.Bytes {
		t.Errorf("last entry of the copy log %+v, expected held of 6 objects, %d bytes", held, sum.Bytes)
	}
}

// last is the last entry of the copy log.
func (r *replica) last() entry.Entry {
	r.Helper()
	_, log := r.open()
	data, err := log.Tree().Entry(context.Background(), log.Checkpoint().Size-1)
	if err != nil {
		r.Fatal(err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		r.Fatal(err)
	}
	return e
}

func TestIdlePassChangesNothing(t *testing.T) {
	w := source(t, 2)
	r := newReplica(t, w)
	r.must(w.Vault)
	before := r.files()
	sum := r.must(w.Vault)
	if sum.Copied != 0 || sum.Present != 6 || !sum.Cosigned {
		t.Errorf("summary %+v, expected 6 present and nothing copied", sum)
	}
	if after := r.files(); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Errorf("an idle pass changed the destination: %v, then %v", before.Names(), after.Names())
	}
}

func TestSecondPassCopiesWhatIsNew(t *testing.T) {
	w := source(t, 3)
	r := newReplica(t, w)
	r.must(w.Vault)
	if err := w.Seal(context.Background(), 1, "third line\n"); err != nil {
		t.Fatal(err)
	}
	sum := r.must(w.Vault)
	if sum.Copied != 2 || sum.Present != 6 {
		t.Errorf("summary %+v, expected 2 copied and 6 present", sum)
	}
	same(t, load(t, w.Vault), r.files())
	if n := len(partials(r.files())); n != 2 { // a tile and a bundle
		t.Errorf("%d partial files, expected 2: superseded ones are removed: %v", n, partials(r.files()))
	}
}

func partials(f testvault.Files) (names []string) {
	for name := range f {
		if strings.HasPrefix(name, "ledger/") && vault.IsPartial(name) {
			names = append(names, name)
		}
	}
	return names
}

func TestLargeLedger(t *testing.T) {
	w := source(t, 4)
	r := newReplica(t, w)
	ctx := context.Background()
	for _, n := range []int{200, 100, 400} {
		var entries []entry.Entry
		for i := range n {
			entries = append(entries, &entry.Summary{Header: w.Header(), Since: testvault.Start, Until: testvault.Start.Add(time.Duration(i) * time.Second)})
		}
		if err := w.Append(ctx, entries...); err != nil {
			t.Fatal(err)
		}
		r.now = w.Clock
		r.must(w.Vault)
		same(t, load(t, w.Vault), r.files())
		err := r.tree().Audit(ctx, func(p ledger.Problem) error {
			t.Errorf("size %d: %+v", w.Log.Checkpoint().Size, p)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutKeys(t *testing.T) {
	w := source(t, 5)
	r := newReplica(t, w)
	r.options = func(o *replicate.Options) { o.WithoutKeys = true }
	r.must(w.Vault)
	for name := range r.files() {
		if strings.HasPrefix(name, "keys/") {
			t.Errorf("%s was copied", name)
		}
	}
}

func TestObjectWithoutEntryIsNotCopied(t *testing.T) {
	w := source(t, 6)
	r := newReplica(t, w)
	from := load(t, w.Vault)
	day := vault.Day{Year: 2027, Month: 11, Day: 22}
	name := vault.SegmentName(day, vault.HashOf([]byte("x")), vault.Gzip)
	from[name] = []byte("x")
	sum := r.must(from)
	if _, ok := r.files()[name]; ok || sum.Unrecorded != 1 {
		t.Errorf("copied %v, unrecorded %d, expected false, 1", ok, sum.Unrecorded)
	}
}

func TestDueObjects(t *testing.T) {
	w := source(t, 7)
	full := load(t, w.Vault)
	gone := full.Clone()
	delete(gone, gone.Find(".gz.pgp"))
	due := testvault.Start.AddDate(1, 0, 2)

	t.Run("are not copied", func(t *testing.T) {
		r := newReplica(t, w)
		r.now = due
		sum := r.must(full)
		if sum.Copied != 0 || sum.Due != 6 {
			t.Errorf("summary %+v, expected nothing copied and 6 due", sum)
		}
	})
	t.Run("may be missing", func(t *testing.T) {
		r := newReplica(t, w)
		r.now = due
		if sum := r.must(gone); sum.Missing != 1 {
			t.Errorf("missing %d, expected 1", sum.Missing)
		}
	})
	t.Run("stay where they are", func(t *testing.T) {
		r := newReplica(t, w)
		r.must(full)
		r.now = due
		r.must(gone)
		if _, ok := r.files()[full.Find(".gz.pgp")]; !ok {
			t.Error("the destination lost an object that the source destroyed")
		}
	})
	t.Run("a hold keeps them", func(t *testing.T) {
		w := source(t, 8)
		if err := w.Append(context.Background(), &entry.Hold{Header: w.Header(), Hold: strings.Repeat("1", 32), Commit: vault.HashOf([]byte("order"))}); err != nil {
			t.Fatal(err)
		}
		r := newReplica(t, w)
		gone := load(t, w.Vault)
		delete(gone, gone.Find(".gz.pgp"))
		r.now = due
		if _, err := r.pass(gone); !errors.Is(err, replicate.ErrMissing) {
			t.Errorf("error %v, expected %v", err, replicate.ErrMissing)
		}
	})
}

func TestTombstoneExplainsAMissingObject(t *testing.T) {
	w := source(t, 9)
	r := newReplica(t, w)
	ctx := context.Background()
	from := origin[:len(origin)-len(copyName)] + "primary"
	skey, vkey, err := ledger.GenerateKey(testvault.Random(70), from)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.Create(ctx, ledger.Config{Prefix: vault.CopyLogPrefix("primary"), Origin: from, SignerKey: skey, Record: w.Vault, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry.Entry{
		&entry.CopyInit{Header: w.Header(), Vault: strings.Repeat("0", 32), Origin: testvault.Origin, Name: "primary", Key: vkey},
		&entry.Tombstone{Header: w.Header(), Key: 2, Wraps: 1, Segments: 2, Bytes: 1},
	} {
		data, err := entry.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(ctx, data); err != nil {
			t.Fatal(err)
		}
	}
	files := load(t, w.Vault)
	delete(files, files.Find(".gz.pgp"))
	r.now = w.Clock
	if _, err := r.pass(files); !errors.Is(err, replicate.ErrMissing) {
		t.Errorf("tombstone by a key that is not pinned: error %v, expected %v", err, replicate.ErrMissing)
	}
	r.trust.Copies = append(r.trust.Copies, ledger.TrustKey{Name: "primary", Key: vkey})
	if sum := r.must(files); sum.Missing != 1 || sum.Copied != 5 {
		t.Errorf("summary %+v, expected 1 missing and 5 copied", sum)
	}
}
