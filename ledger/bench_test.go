package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
	"logvault/vault/dir"
)

// diskConfig makes a record and a vault on a real disk: /var/tmp, since /tmp
// may be in memory.
func diskConfig(b testing.TB) ledger.Config {
	b.Helper()
	root, err := os.MkdirTemp("/var/tmp", "logvault-ledger-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(root) })
	state := filepath.Join(root, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		b.Fatal(err)
	}
	record, err := dir.At(vfs.OS, state)
	if err != nil {
		b.Fatal(err)
	}
	copied, err := dir.Create(vfs.OS, filepath.Join(root, "vault"))
	if err != nil {
		b.Fatal(err)
	}
	return ledger.Config{
		Prefix: vault.LedgerPrefix, Origin: testOrigin, SignerKey: testKey(b).skey,
		Record: record, Copy: copied, Now: time.Now,
	}
}

// BenchmarkAppend256 appends 10,000 entries of the size of segment entries in
// batches of 256, to a record and a vault on disk.
func BenchmarkAppend256(b *testing.B) {
	entries := make([][]byte, 10_000)
	for i := range entries {
		entries[i] = testEntry(fmt.Sprintf("%d-%0560d", i, i))
	}
	for b.Loop() {
		b.StopTimer()
		l, err := ledger.Create(context.Background(), diskConfig(b))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for batch := range slices.Chunk(entries, 256) {
			if _, err := l.Append(context.Background(), batch...); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(entries)*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkAppend1 appends one entry at a time to a ledger of some size and
// reports the median.
func BenchmarkAppend1(b *testing.B) {
	l, err := ledger.Create(context.Background(), diskConfig(b))
	if err != nil {
		b.Fatal(err)
	}
	grow(b, l, 1000)
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if _, err := l.Append(context.Background(), testEntry(fmt.Sprintf("%0560d", i))); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "ms-median")
}

// BenchmarkOpen opens ledgers of two sizes: the time must not follow the size.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			cfg := diskConfig(b)
			l, err := ledger.Create(context.Background(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			grow(b, l, size)
			for b.Loop() {
				if _, err := ledger.Open(context.Background(), cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
