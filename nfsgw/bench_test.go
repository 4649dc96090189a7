package nfsgw_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/nfsgw"
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

func benchWrites(b *testing.B, sink nfsgw.Sink, size, depth int, how bool) {
	g := start(b, testConfig(sink))
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

func BenchmarkWrite1M(b *testing.B) { benchWrites(b, discard{newMemSink()}, 1<<20, 16, true) }

func BenchmarkWrite200(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) { benchWrites(b, discard{newMemSink()}, 200, depth, true) })
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

// BenchmarkSpool is the whole data path: encrypted, on the disk of TMPDIR,
// each FILE_SYNC answer after a sync, without a sealer.
func BenchmarkSpool(b *testing.B) {
	for _, bc := range []struct {
		name        string
		size, depth int
		sync        bool
	}{{"1MiB,unstable,depth=16", 1 << 20, 16, false}, {"200B,sync,depth=1", 200, 1, true}, {"200B,sync,depth=32", 200, 32, true}} {
		b.Run(bc.name, func(b *testing.B) {
			dir, begin := b.TempDir(), time.Now()
			cfg := ingest.SpoolConfig{
				FS: vfs.OS, Dir: dir + "/spool", KeyDir: dir + "/keys", Random: rand.Reader, Now: time.Now,
				Boot: func() time.Duration { return time.Since(begin) }, Log: testConfig(nil).Log,
			}
			if err := ingest.CreateSpool(b.Context(), cfg); err != nil {
				b.Fatal(err)
			}
			spool, err := ingest.OpenSpool(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			benchWrites(b, spool, bc.size, bc.depth, bc.sync)
		})
	}
}
