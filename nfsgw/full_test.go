package nfsgw_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/vault"
)

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestFullSpoolIsAWait: clients write, commit, make, rename, truncate and remove
// more than the spool holds, while the vault is away; when it is back, all of it
// goes on without a restart. No client sees an error, every line arrives once,
// and the log and the counters tell of it once.
func TestFullSpoolIsAWait(t *testing.T) {
	m := &machine{t: t, disk: vfs.NewMem()}
	cfg, _ := m.config()
	cfg.MaxBytes = 4 * cfg.FileBytes
	if err := ingest.CreateSpool(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	spool, err := ingest.OpenSpool(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var text syncBuffer
	gc := testConfig(spool)
	gc.Log = slog.New(slog.NewTextHandler(&text, nil))
	var clock fakeClock
	gc.Now = clock.now
	g := start(t, gc)
	const clients, lines = 4, 160
	want := map[string]string{}
	done := make(chan error, clients)
	var mu sync.Mutex
	for i := range clients {
		c := g.dial(nfstest.Options{Patience: time.Millisecond, FirstXID: uint32(i) << 24})
		go func() {
			text, err := fillUp(c, fmt.Sprintf("client%d", i), lines)
			mu.Lock()
			want[fmt.Sprintf("client%d.1", i)] = text
			mu.Unlock()
			done <- err
		}()
	}
	for g.srv.Stats().Full < 50 {
		select {
		case err := <-done:
			t.Fatalf("not full: a client ended with %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if since := g.srv.Stats().FullSince; since.IsZero() {
		t.Error("FullSince is not set while the spool is full")
	}
	clock.advance(10 * time.Second)
	got := map[string]string{}
	take := func(p vault.Piece, b []byte) { got[string(p.Name)] += string(b) }
	for running := clients; running > 0; {
		// What is due in a full spool, and no more. The clock stands meanwhile: it
		// is one time without room, however often it comes and goes.
		sealRound(t, spool, false, take)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running--
		default:
		}
	}
	for sealRound(t, spool, true, take) > 0 {
	}
	clock.advance(time.Minute)
	c, root := g.mount()
	must[nfstest.Handle](t)(c.Create(root, "after"))
	for i := range clients {
		// Pieces that were sealed before the rename have the name of that time.
		name := fmt.Sprintf("client%d", i)
		if all := got[name] + got[name+".1"]; all != want[name+".1"] {
			t.Errorf("%s: %d bytes archived, expected %d", name, len(all), len(want[name+".1"]))
		}
	}
	if st := g.srv.Stats(); !st.FullSince.IsZero() {
		t.Errorf("still full since %v", st.FullSince)
	}
	full, over := strings.Count(text.String(), "intake full"), strings.Count(text.String(), "any more")
	if full != 1 || over != 1 {
		t.Errorf("the log says %d times that it is full, %d times that it is over:\n%s", full, over, text.String())
	}
}

// fillUp writes lines of 32 KiB into a file, with a rename in the middle, and
// makes and removes others.
func fillUp(c *nfstest.Client, name string, lines int) (string, error) {
	root, err := c.Mount("/")
	if err != nil {
		return "", err
	}
	fh, err := c.Create(root, name)
	if err != nil {
		return "", err
	}
	f := c.Open(fh)
	var all strings.Builder
	for i := range lines {
		line := fmt.Sprintf("%s %0*d\n", name, 32<<10, i)
		all.WriteString(line)
		if err := f.Write([]byte(line)); err != nil {
			return "", err
		}
		if i%16 == 15 {
			if err := f.Commit(); err != nil {
				return "", err
			}
			if _, err := c.Create(root, name+".tmp"); err != nil {
				return "", err
			}
			if _, err := c.Remove(root, name+".tmp"); err != nil {
				return "", err
			}
		}
		if i == lines/2 {
			if _, _, err := c.Rename(root, name, root, name+".1"); err != nil {
				return "", err
			}
		}
	}
	return all.String(), f.Commit()
}

// fakeClock is a clock that a test moves.
type fakeClock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Unix(1_800_000_000, 0).Add(c.off)
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// TestStopWhileFull: want of room is no failure of a stop either. The times of
// files are lost, their bytes and sizes are not.
func TestStopWhileFull(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh := must[nfstest.Handle](t)(c.Create(root, "f"))
	if _, err := c.Write(fh, 0, []byte("abc"), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	sink.setFull(true)
	if err := g.close(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	sink.setFull(false)
	c, _ = start(t, testConfig(sink.crash())).mount()
	if a := must[nfstest.Attr](t)(c.Getattr(fh)); a.Size != 3 {
		t.Errorf("size %d after the restart, expected 3", a.Size)
	}
}
