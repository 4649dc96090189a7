package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/verify"

	"logvault/fixtures/testvault"
)

// benchVault writes a vault of n segments of size random bytes to a directory:
// to hash them it does not matter that nobody can open them.
func benchVault(b *testing.B, root string, n, size int) *ledger.Trust {
	b.Helper()
	ctx := context.Background()
	w, err := testvault.New(1)
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Seal(ctx, 1, "a line\n"); err != nil {
		b.Fatal(err)
	}
	files, err := testvault.Load(ctx, w.Vault)
	if err != nil {
		b.Fatal(err)
	}
	name := files.Find(".gz.pgp")
	o, err := vault.ParseName(name)
	if err != nil {
		b.Fatal(err)
	}
	store, err := dir.Create(vfs.OS, root)
	if err != nil {
		b.Fatal(err)
	}
	put := func(name string, data []byte) {
		if err := store.Put(ctx, name, int64(len(data)), bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
	data, err := w.Log.Tree().Entry(ctx, 3)
	if err != nil {
		b.Fatal(err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		b.Fatal(err)
	}
	seg := *e.(*entry.Segment)
	random := rand.NewChaCha8([32]byte{1})
	text := make([]byte, size)
	for i := range n {
		random.Read(text)
		ix := fmt.Appendf(nil, "index %d", i)
		s := seg
		s.Header, s.Stream, s.Offset, s.Prev = w.Header(), vault.StreamID{9, byte(i), byte(i >> 8)}, 0, -1
		s.Object, s.Size, s.Index, s.IndexSize = vault.HashOf(text), int64(size), vault.HashOf(ix), int64(len(ix))
		put(vault.SegmentName(o.Day, s.Object, vault.Gzip), text)
		put(vault.IndexName(o.Day, s.Index), ix)
		if err := w.Append(ctx, &s); err != nil {
			b.Fatal(err)
		}
	}
	if files, err = testvault.Load(ctx, w.Vault); err != nil {
		b.Fatal(err)
	}
	for name, data := range files {
		if vault.IsMutable(name) {
			err = store.Replace(ctx, name, data)
		} else {
			put(name, data)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return w.Trust
}

// BenchmarkObjects is to be compared, per core, with
//
//	openssl dgst -sha256 FILES
func BenchmarkObjects(b *testing.B) {
	const n, size = 32, 8 << 20
	root := b.TempDir()
	trust := benchVault(b, root, n, size)
	store, err := dir.Open(vfs.OS, root)
	if err != nil {
		b.Fatal(err)
	}
	for _, jobs := range []int{1, 2} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			b.SetBytes(n * size)
			for b.Loop() {
				sum, err := verify.Run(context.Background(), verify.Options{Vault: store, Trust: trust, Depth: verify.Objects, Now: testvault.Start, Jobs: jobs},
					func(f verify.Finding) {
						if f.Level == verify.Error {
							b.Error(f)
						}
					})
				if err != nil || sum.Objects < 2*n {
					b.Fatalf("%d objects: %v", sum.Objects, err)
				}
			}
		})
	}
}
