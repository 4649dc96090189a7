package nfsgw_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"

	"logvault/fixtures/nfstest"
	"logvault/vault"
)

// discard is a sink that keeps names but no bytes: what remains is the cost of
// the protocol, with the client's share in it.
type discard struct{ *memSink }

func (discard) Write(context.Context, vault.StreamID, int64, int64, []byte, netip.Addr, bool) error {
	return nil
}
func (discard) Commit(context.Context, vault.StreamID) error { return nil }
func (discard) ReadAt(_ context.Context, _ vault.StreamID, _ int64, p []byte, _ int64) (int, error) {
	return len(p), io.EOF
}

func benchWrites(b *testing.B, size, depth int, how bool) {
	g := start(b, testConfig(discard{newMemSink()}))
	c := g.dial(nfstest.Options{Depth: depth})
	root, err := c.Mount("/")
	if err != nil {
		b.Fatal(err)
	}
	fh, err := c.Create(root, "f")
	if err != nil {
		b.Fatal(err)
	}
	f := c.Open(fh)
	f.Sync(how)
	data := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Commit(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkWrite1M(b *testing.B) { benchWrites(b, 1<<20, 16, true) }

func BenchmarkWrite200(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) { benchWrites(b, 200, depth, true) })
	}
}

func BenchmarkGetattr(b *testing.B) {
	g := start(b, testConfig(discard{newMemSink()}))
	c := g.dial(nfstest.Options{Depth: 32})
	root, err := c.Mount("/")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var wg sync.WaitGroup
	per := b.N/32 + 1
	for range 32 {
		wg.Go(func() {
			for range per {
				if _, err := c.Getattr(root); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
