package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/verify"
)

// TestLongLedger damages a sample of the bytes of a ledger with full tiles of
// the first level and several bundles.
func TestLongLedger(t *testing.T) {
	w := plain(t, 70)
	ctx := context.Background()
	for range 3 {
		var entries []entry.Entry
		for range 200 {
			entries = append(entries, &entry.Summary{Header: w.Header(), Since: testvault.Start, Until: w.Clock})
		}
		if err := w.Append(ctx, entries...); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, auditWorld(t, w, nil))
	files, err := testvault.Load(ctx, w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range files.Names() {
		for range 8 {
			at, mask := rng.IntN(len(files[name])), []byte{0x01, 0x80, 0xFF}[rng.IntN(3)]
			files[name][at] ^= mask
			if wrong := named(verify.Options{Vault: files, Trust: w.Trust, Depth: verify.Objects, Now: w.Clock, Jobs: 1}, name); wrong != "" {
				t.Errorf("%s, byte %d ^ %#x: %s", name, at, mask, wrong)
			}
			files[name][at] ^= mask
		}
	}
}

// TestHostileFiles replaces files by others, by nothing, by beginnings and by
// noise, several at a time. The audit never panics and never passes.
func TestHostileFiles(t *testing.T) {
	s := theSample()
	names := s.files.Names()
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 400 {
		files := s.files.Clone()
		for range 1 + rng.IntN(4) {
			name, other := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
			switch rng.IntN(5) {
			case 0:
				files[name] = bytes.Clone(s.files[other])
			case 1:
				delete(files, name)
			case 2:
				files[name] = files[name][:rng.IntN(len(files[name])+1)]
			case 3:
				noise := make([]byte, rng.IntN(3000))
				for i := range noise {
					noise[i] = byte(rng.Uint32())
				}
				files[name] = noise
			case 4:
				files[name+"x"] = files[name]
			}
		}
		same := len(files) == len(s.files)
		for name, data := range s.files {
			same = same && bytes.Equal(data, files[name])
		}
		if same {
			continue
		}
		o := s.options()
		o.Vault, o.Depth, o.Opener = files, verify.Content, opener()
		list, sum := audit(t, o)
		// What is missing only from beside the ledger (a cosignature, a kept head,
		// a whole copy log) is not damage that a vault alone can show.
		for name := range s.files {
			if _, ok := files[name]; !ok && (strings.HasPrefix(name, "ledger/c") || strings.HasPrefix(name, "copy/")) {
				same = true
			}
		}
		if !same && sum.Errors == 0 {
			t.Errorf("round %d: passed:%s", round, lines(list))
		}
	}
}

// broken is a vault on a disk that cannot read one name.
type broken struct {
	testvault.Files
	name string
	late bool // the error comes after some bytes
}

var errDisk = errors.New("input/output error")

func (b broken) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name != b.name {
		return b.Files.Open(ctx, name)
	}
	if !b.late {
		return nil, 0, fmt.Errorf("%s: %w", name, errDisk)
	}
	data := b.Files[name]
	return io.NopCloser(io.MultiReader(bytes.NewReader(data[:len(data)/2]), failingReader{})), int64(len(data)), nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errDisk }

func TestUnreadable(t *testing.T) {
	s := theSample()
	for _, name := range s.files.Names() {
		for _, late := range []bool{false, true} {
			o := s.options()
			o.Vault = broken{s.files, name, late}
			list, sum := audit(t, o)
			if sum.Errors == 0 || !strings.Contains(lines(list), errDisk.Error()) {
				t.Errorf("%s, late %v: expected an error that says why, got:%s", name, late, lines(list))
			}
		}
	}
}

// noList is a vault whose listing fails.
type noList struct{ testvault.Files }

func (noList) List(context.Context, string, func(vault.Info) error) error { return errDisk }

func TestUnlistable(t *testing.T) {
	s := theSample()
	o := s.options()
	o.Vault = noList{s.files}
	list, sum := audit(t, o)
	expect(t, list, "not-checked", verify.Error, "")
	if sum.Complete {
		t.Error("complete, though nothing could be listed")
	}
}

// TestTombstone: a destruction that a pinned copy log records is in order; one
// that another log records proves nothing.
func TestTombstone(t *testing.T) {
	ctx := context.Background()
	s := newSample(71)
	w := s.world
	origin := testvault.Origin + "/copy/primary"
	skey, vkey, err := ledger.GenerateKey(testvault.Random(72), origin)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.Create(ctx, ledger.Config{Prefix: vault.CopyLogPrefix("primary"), Origin: origin, SignerKey: skey, Record: w.Vault, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	marker, _, err := vault.ReadMarker(ctx, w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry.Entry{
		&entry.CopyInit{Header: w.Header(), Vault: hexID(marker), Origin: testvault.Origin, Name: "primary", Key: vkey},
		&entry.Tombstone{Header: w.Header(), Key: 2, Wraps: 1, Segments: 3, Bytes: 1},
	} {
		data, err := entry.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(ctx, data); err != nil {
			t.Fatal(err)
		}
	}
	late := func(f testvault.Files, o *verify.Options) {
		o.Now = testvault.Start.AddDate(1, 0, 3)
		for name := range f {
			if strings.HasPrefix(name, "segments/") || strings.HasPrefix(name, "keys/") || strings.HasPrefix(name, "register/") {
				delete(f, name)
			}
		}
	}
	list := auditWorld(t, w, late)
	expect(t, list, "destroyed-unrecorded", verify.Error, "segments/")
	expect(t, list, "copy-unpinned", verify.Warning, "copy/primary/")
	w.Trust.Copies = append(w.Trust.Copies, ledger.TrustKey{Name: "primary", Key: vkey})
	clean(t, auditWorld(t, w, late))
}
