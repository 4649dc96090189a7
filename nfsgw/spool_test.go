package nfsgw_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/vfs"
)

var errPower = errors.New("power is off")

// machine is a gateway with the real spool on a disk in memory, whose power
// can be cut.
type machine struct {
	t    *testing.T
	disk *vfs.Mem
	off  *atomic.Bool // of the present disk: every operation fails
	g    *gateway
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, disk: vfs.NewMem()}
	cfg, _ := m.config()
	if err := ingest.CreateSpool(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	m.boot("127.0.0.1:0")
	return m
}

func (m *machine) config() (ingest.SpoolConfig, *atomic.Bool) {
	off := new(atomic.Bool)
	fsys := vfs.NewFault(m.disk, func(vfs.Op, string) error {
		if off.Load() {
			return errPower
		}
		return nil
	})
	begin := time.Now()
	c := testConfig(nil)
	return ingest.SpoolConfig{
		FS: fsys, Dir: "/spool", KeyDir: "/keys", Random: rand.Reader, Now: time.Now,
		Boot: func() time.Duration { return time.Since(begin) }, Log: c.Log, FileBytes: 4 << 20,
	}, off
}

func (m *machine) boot(addr string) {
	m.t.Helper()
	cfg, off := m.config()
	spool, err := ingest.OpenSpool(context.Background(), cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.off = off
	m.g = startAt(m.t, testConfig(spool), addr)
}

// powerCut turns the disk off, keeps of it what a cut would leave, and boots.
func (m *machine) powerCut(rng *mrand.Rand) {
	m.off.Store(true)
	m.disk = m.disk.CrashClone(rng)
	_ = m.g.close() // it fails, and answers nothing that needs the disk
	m.boot(m.g.addr)
}

// TestSpoolPowerCuts: four clients write, rename and truncate while the power
// is cut three times. What they committed is there, byte for byte.
func TestSpoolPowerCuts(t *testing.T) {
	for range 6 {
		seed := mrand.Uint64()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := mrand.New(mrand.NewPCG(seed, 0))
			m := newMachine(t)
			written := make(chan struct{}, 4*busyWrites)
			want := make([][]byte, 4)
			var clients sync.WaitGroup
			for i := range want {
				c := m.g.dial(nfstest.Options{Reconnect: true, Depth: 8, Backoff: time.Millisecond, Patience: time.Millisecond, FirstXID: uint32(i) << 24})
				r := mrand.New(mrand.NewPCG(seed, uint64(i)+1))
				clients.Go(func() { want[i] = busyClient(t, c, i, r, written) })
			}
			for range 3 {
				for range 200 + rng.IntN(400) {
					<-written
				}
				m.powerCut(rng)
			}
			clients.Wait()
			m.powerCut(rng) // all of it is committed
			c, root := m.g.mount()
			for i, want := range want {
				name := fmt.Sprintf("client%d.log", i)
				fh, a, err := c.Lookup(root, name)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if got := readAll(t, c, fh); !bytes.Equal(got, want) || a.Size != uint64(len(want)) {
					t.Errorf("%s: %d bytes, size %d, expected %d", name, len(got), a.Size, len(want))
				}
			}
		})
	}
}

const busyWrites = 800

// busyClient writes lines of random length, commits now and then, renames its
// file to and fro, truncates it once, and returns what must be in it.
func busyClient(t *testing.T, c *nfstest.Client, id int, r *mrand.Rand, written chan<- struct{}) (want []byte) {
	check := func(what string, err error) bool {
		if err != nil {
			t.Errorf("client %d: %s: %v", id, what, err)
		}
		return err == nil
	}
	root, err := c.Mount("/")
	if !check("mount", err) {
		return nil
	}
	names := [2]string{fmt.Sprintf("client%d.log", id), fmt.Sprintf("client%d.log.1", id)}
	fh, err := c.Create(root, names[0])
	if !check("create", err) {
		return nil
	}
	f := c.Open(fh)
	for i := range busyWrites {
		line := fmt.Appendf(nil, "client %d line %d %0*d\n", id, i, 1+r.IntN(3000), 0)
		f.Sync(r.IntN(4) == 0)
		if !check("write", f.Write(line)) {
			return nil
		}
		want = append(want, line...)
		written <- struct{}{}
		switch {
		case i == busyWrites/2:
			if !check("commit", f.Commit()) || !check("truncate", c.Truncate(fh, 0)) {
				return nil
			}
			want = nil
			f.Seek(0)
		case r.IntN(40) == 0:
			if !check("commit", f.Commit()) {
				return nil
			}
		case r.IntN(50) == 0:
			for k := range names {
				// After a restart the answer to a repeated call is not known any more.
				if _, _, err := c.Rename(root, names[k], root, names[1-k]); err != nil && !errors.Is(err, nfstest.NoEnt) {
					check("rename", err)
					return nil
				}
			}
		}
	}
	check("commit", f.Commit())
	return want
}

func readAll(t *testing.T, c *nfstest.Client, fh nfstest.Handle) (all []byte) {
	t.Helper()
	for eof := false; !eof; {
		b, end, err := c.Read(fh, uint64(len(all)), 1<<20)
		if err != nil || len(b) == 0 && !end {
			t.Fatalf("read at %d: %d bytes, %v", len(all), len(b), err)
		}
		all, eof = append(all, b...), end
	}
	return all
}
