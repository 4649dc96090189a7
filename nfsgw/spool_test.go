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

// machine is a gateway with the real spool on a disk in memory that can fail.
type machine struct {
	t     *testing.T
	disk  *vfs.Mem
	fault *atomic.Int32 // of the present process: a fault below
	g     *gateway
}

const (
	diskGone  = 1 // every operation fails: the process is dead
	syncFails = 2
)

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, disk: vfs.NewMem()}
	cfg, _ := m.config()
	if err := ingest.CreateSpool(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	m.boot("127.0.0.1:0")
	return m
}

func (m *machine) config() (ingest.SpoolConfig, *atomic.Int32) {
	fault := new(atomic.Int32)
	fsys := vfs.NewFault(m.disk, func(op vfs.Op, _ string) error {
		if f := fault.Load(); f == diskGone || f == syncFails && op == "sync" {
			return errPower
		}
		return nil
	})
	begin := time.Now()
	c := testConfig(nil)
	return ingest.SpoolConfig{
		FS: fsys, Dir: "/spool", KeyDir: "/keys", Random: rand.Reader, Now: time.Now,
		Boot: func() time.Duration { return time.Since(begin) }, Log: c.Log, FileBytes: 4 << 20,
	}, fault
}

func (m *machine) boot(addr string) {
	m.t.Helper()
	cfg, fault := m.config()
	spool, err := ingest.OpenSpool(context.Background(), cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.fault = fault
	m.g = startAt(m.t, testConfig(spool), addr)
}

// powerCut turns the disk off, keeps of it what a cut would leave, and boots.
func (m *machine) powerCut(rng *mrand.Rand) {
	m.fault.Store(diskGone)
	m.disk = m.disk.CrashClone(rng)
	_ = m.g.close() // it fails, and answers nothing that needs the disk
	m.boot(m.g.addr)
}

// kill ends the process: what it wrote stays, synced or not.
func (m *machine) kill(*mrand.Rand) {
	m.fault.Store(diskGone)
	_ = m.g.close() // as above
	m.boot(m.g.addr)
}

// failSync lets the next sync fail, which must end the gateway, and starts it
// again on the same disk: what was not synced can still be read there, but a
// later power cut takes it away.
func (m *machine) failSync(*mrand.Rand) {
	m.fault.Store(syncFails)
	// A call that syncs, should no client have one to make any more. It fails with theirs.
	if c, err := nfstest.Dial(m.t.Context(), nfstest.Options{Addr: m.g.addr}); err == nil {
		if root, err := c.Mount("/"); err == nil {
			_, _ = c.Create(root, "fails")
		}
		c.Close()
	}
	if err := <-m.g.err; !errors.Is(err, errPower) {
		m.t.Errorf("after a failed sync Serve returned %v", err)
	}
	m.g.once.Do(func() {}) // it has ended
	m.fault.Store(diskGone)
	m.boot(m.g.addr)
}

// TestSpoolFaults: four clients write, rename and truncate through faults of
// all kinds and then a power cut. What they committed is there, byte for byte.
func TestSpoolFaults(t *testing.T) {
	for name, faults := range map[string][]func(*machine, *mrand.Rand){
		"power cuts":       {(*machine).powerCut, (*machine).powerCut, (*machine).powerCut},
		"kills":            {(*machine).kill, (*machine).kill, (*machine).kill},
		"failed syncs":     {(*machine).failSync, (*machine).failSync},
		"failed, then cut": {(*machine).failSync, (*machine).powerCut, (*machine).failSync, (*machine).powerCut},
		"killed, then cut": {(*machine).kill, (*machine).powerCut, (*machine).kill, (*machine).powerCut},
	} {
		seed := mrand.Uint64()
		t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) { spoolFaults(t, seed, faults) })
	}
}

func spoolFaults(t *testing.T, seed uint64, faults []func(*machine, *mrand.Rand)) {
	rng := mrand.New(mrand.NewPCG(seed, 0))
	m := newMachine(t)
	written := make(chan struct{}) // the clients keep step with the faults
	want := make([][]byte, 4)
	var clients sync.WaitGroup
	for i := range want {
		c := m.g.dial(nfstest.Options{Reconnect: true, Depth: 8, Backoff: time.Millisecond, Patience: time.Millisecond, FirstXID: uint32(i) << 24})
		r := mrand.New(mrand.NewPCG(seed, uint64(i)+1))
		clients.Go(func() { want[i] = busyClient(t, c, i, r, written) })
	}
	go func() {
		clients.Wait()
		close(written) // perhaps before the last fault: then that meets no client
	}()
	for _, fault := range faults {
		for range 100 + rng.IntN(200) {
			<-written
		}
		stop := make(chan struct{})
		var keepUp sync.WaitGroup
		keepUp.Go(func() { // a fault meets clients that go on
			for {
				select {
				case _, ok := <-written:
					if !ok {
						return
					}
				case <-stop:
					return
				}
			}
		})
		fault(m, rng)
		close(stop)
		keepUp.Wait()
	}
	for range written {
	}
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
}

const busyWrites = 500

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
		f.Sync(r.IntN(60) == 0)
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
				if _, _, err := c.Rename(root, names[k], root, names[1-k]); !check("rename", err) {
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
