package ingest

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// diskSpool is a spool on the real disk, below the test's directory.
func diskSpool(b testing.TB) (*Spool, SpoolConfig) {
	dir := b.TempDir()
	cfg := SpoolConfig{
		FS: vfs.OS, Dir: filepath.Join(dir, "spool"), KeyDir: filepath.Join(dir, "keys"), Random: randomFrom(3),
		Now: time.Now, Boot: vfs.Boottime, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if err := CreateSpool(ctx, cfg); err != nil {
		b.Fatal(err)
	}
	s, err := OpenSpool(ctx, cfg)
	if err != nil {
		b.Fatal(err)
	}
	for _, id := range []vault.StreamID{streamA, streamB} {
		if err := s.AddStream(ctx, vault.StreamInfo{ID: id, Source: "proxy1"}); err != nil {
			b.Fatal(err)
		}
	}
	return s, cfg
}

// BenchmarkImport writes 1 MiB extents and takes pieces out as they fill, as an
// import with a sealer beside it does. The figure includes both.
func BenchmarkImport(b *testing.B) {
	for _, from := range []netip.Addr{{}, client} {
		b.Run(fmt.Sprintf("client=%v", from.IsValid()), func(b *testing.B) {
			s, _ := diskSpool(b)
			data := make([]byte, 1<<20)
			randomFrom(4).Read(data)
			data[len(data)-1] = '\n'
			buf := make([]byte, 0, maxPiece)
			b.SetBytes(1 << 20)
			b.ResetTimer()
			index := int64(0)
			for i := range b.N {
				if err := s.Write(ctx, streamA, 0, int64(i)<<20, data, from, false); err != nil {
					b.Fatal(err)
				}
				if i%16 != 15 {
					continue
				}
				if err := s.Commit(ctx, streamA); err != nil {
					b.Fatal(err)
				}
				pieces, err := s.Due(ctx, vault.DueOptions{Now: time.Now()})
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range pieces {
					if buf, err = s.Read(ctx, p, buf); err != nil {
						b.Fatal(err)
					}
					if err := s.Release(ctx, p, index); err != nil {
						b.Fatal(err)
					}
					index++
				}
			}
		})
	}
}

// BenchmarkSyncWrites is small FILE_SYNC writes, one or many at a time.
func BenchmarkSyncWrites(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			s, _ := diskSpool(b)
			line := make([]byte, 200)
			b.ResetTimer()
			var wg sync.WaitGroup
			for d := range depth {
				wg.Go(func() {
					for i := d; i < b.N; i += depth {
						if err := s.Write(ctx, streamA, 0, int64(i)*200, line, client, true); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// BenchmarkReplay opens a spool with unsealed files: closed cleanly, and killed.
func BenchmarkReplay(b *testing.B) {
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("clean=%v", clean), func(b *testing.B) {
			s, cfg := diskSpool(b)
			data := make([]byte, 64<<10)
			for i := range 1 << 30 / len(data) {
				if err := s.Write(ctx, streamA, 0, int64(i*len(data)), data, client, false); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Sync(ctx); err != nil {
				b.Fatal(err)
			}
			if clean {
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				s, err := OpenSpool(ctx, cfg)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric(float64(s.Stats().Runs), "runs")
				if clean {
					s.Close()
				}
				b.StartTimer()
			}
		})
	}
}
