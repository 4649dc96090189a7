package replicate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger/entry"
	"logvault/vault"
)

// BenchmarkIdlePass is a pass over 10,000 objects that are all held: it must
// list, not read, and take 2 s at most.
func BenchmarkIdlePass(b *testing.B) {
	w := source(b, 40)
	ctx := context.Background()
	seg := segmentOf(b, w)
	var batch []entry.Entry
	for i := range 5000 {
		text, ix := fmt.Appendf(nil, "object %d", i), fmt.Appendf(nil, "index %d", i)
		s := *seg
		s.Header, s.Stream, s.Offset, s.Prev = w.Header(), vault.StreamID{9, byte(i), byte(i >> 8)}, 0, -1
		s.Object, s.Size, s.Index, s.IndexSize = vault.HashOf(text), int64(len(text)), vault.HashOf(ix), int64(len(ix))
		for name, data := range map[string][]byte{vault.SegmentName(s.Day, s.Object, s.Codec): text, vault.IndexName(s.Day, s.Index): ix} {
			if err := w.Vault.Put(ctx, name, int64(len(data)), bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
		if batch = append(batch, &s); len(batch) == 500 {
			if err := w.Append(ctx, batch...); err != nil {
				b.Fatal(err)
			}
			batch = nil
		}
	}
	r := newReplica(b, w)
	r.now = w.Clock
	if sum := r.must(w.Vault); sum.Copied < 10_000 {
		b.Fatalf("%d objects copied, expected 10,000 and more", sum.Copied)
	}
	for b.Loop() {
		if sum := r.must(w.Vault); sum.Copied != 0 || sum.Present < 10_000 {
			b.Fatalf("summary %+v, expected an idle pass", sum)
		}
	}
}

// opens is a source that counts what is opened outside the ledger, and bundles.
type opens struct {
	testvault.Files
	n, bundles atomic.Int64
}

func (o *opens) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if !strings.HasPrefix(name, "ledger/") && name != vault.MarkerName {
		o.n.Add(1)
	}
	if strings.HasPrefix(name, "ledger/tile/entries/") {
		o.bundles.Add(1)
	}
	return o.Files.Open(ctx, name)
}

func TestIdlePassListsInsteadOfReading(t *testing.T) {
	w := source(t, 41)
	r := newReplica(t, w)
	from := &opens{Files: load(t, w.Vault)}
	if sum := r.must(from); from.n.Load() != sum.Copied {
		t.Errorf("%d objects opened, %d copied", from.n.Load(), sum.Copied)
	}
	from.n.Store(0)
	from.bundles.Store(0)
	r.must(from)
	if n := from.n.Load(); n != 0 {
		t.Errorf("an idle pass opened %d objects of the source", n)
	}
	if n := from.bundles.Load(); n > 2 { // once for the dates, once to compare
		t.Errorf("an idle pass read the entries %d times", n)
	}
}

// segmentOf is the last segment entry of a world.
func segmentOf(t testing.TB, w *testvault.World) *entry.Segment {
	t.Helper()
	var last *entry.Segment
	tree := w.Log.Tree()
	err := tree.Entries(context.Background(), 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if s, ok := e.(*entry.Segment); ok {
			last = s
		}
		return err
	})
	if err != nil || last == nil {
		t.Fatalf("no segment: %v", err)
	}
	return last
}
