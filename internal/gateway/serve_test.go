package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

// nothing is the chance by which nothing unsynced survives a crash.
type nothing struct{}

func (nothing) Uint64() uint64 { return 0 }

// running is a gateway that serves.
type running struct {
	*world
	site   *Site
	addr   string
	stop   context.CancelFunc
	ended  chan error
	reload chan os.Signal
	next   *config.Config // what a reload finds
}

// testBeats are short where a test waits for them, and long where a machine that
// is busy with other tests must not look like a vault that hangs.
var testBeats = beats{sync: 5 * time.Millisecond, seal: 5 * time.Millisecond, ingest: 5 * time.Millisecond, outside: 5 * time.Millisecond,
	retry: 5 * time.Millisecond, retryMost: 5 * time.Millisecond, patience: time.Minute, silent: 5 * time.Minute, status: time.Minute, stop: time.Minute, clients: time.Minute}

// serve serves until the test ends. The beats are quick.
func (w *world) serve() *running {
	w.t.Helper()
	w.must(os.MkdirAll(w.cfg.State, 0o700))
	return w.serveSite(w.open(), testBeats)
}

func (w *world) serveSite(s *Site, b beats) *running {
	w.t.Helper()
	r := &running{world: w, site: s, ended: make(chan error, 1), reload: make(chan os.Signal)}
	r.site.beats = b
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	ready := make(chan net.Addr, 1)
	go func() {
		r.ended <- r.site.Serve(ctx, ServeOptions{Judge: testJudge, Reload: r.reload, Ready: func(a net.Addr) { ready <- a },
			Config: func() (*config.Config, error) {
				if r.next == nil {
					return nil, failure
				}
				return r.next, nil
			}})
	}()
	select {
	case a := <-ready:
		r.addr = a.String()
	case err := <-r.ended:
		w.t.Fatalf("serve ended before it was ready: %v", err)
	}
	w.t.Cleanup(func() { r.end() })
	return r
}

// end stops the gateway and returns Serve's error; again it returns nil.
func (r *running) end() error {
	r.stop()
	var err error
	if r.ended != nil {
		err = <-r.ended
	}
	r.ended = nil
	return errors.Join(err, r.site.Close())
}

// dial mounts the client's own root.
func (r *running) dial() (*nfstest.Client, []byte) {
	r.t.Helper()
	c, err := nfstest.Dial(ctx, nfstest.Options{Addr: r.addr})
	r.must(err)
	r.t.Cleanup(func() { c.Close() })
	root, err := c.Mount("/")
	r.must(err)
	return c, root
}

// write writes text to a new file; synced says whether with FILE_SYNC.
func (r *running) write(name, text string, synced bool) error {
	r.t.Helper()
	c, root := r.dial()
	h, err := c.Create(root, name)
	r.must(err)
	f := c.Open(h)
	f.Sync(synced)
	return errors.Join(f.Write([]byte(text)), f.Flush())
}

// within asks until cond holds, for at most a minute.
func within(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	beat := time.NewTicker(time.Millisecond)
	defer beat.Stop()
	for !cond() {
		if <-beat.C; time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// TestServeStops: what was acknowledged is durable after a stop, without having
// been sealed.
func TestServeStops(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	w.must(r.write("access.log", "one\ntwo\n", true))
	w.must(r.write("other.log", "three\n", false))
	w.must(r.end())
	if got := w.count(entry.TypeSegment); got != 0 {
		t.Errorf("%d segments were sealed in a hurry", got)
	}
	w.mem = w.mem.CrashClone(rand.New(nothing{}))
	s := w.open()
	if got := s.spool.Stats().Unsealed; got != 14 {
		t.Errorf("%d bytes are in the spool, expected 14", got)
	}
	if res, err := s.Seal(ctx); err != nil || res.Segments != 2 || res.Raw != 14 {
		t.Errorf("sealed %+v, %v", res, err)
	}
}

// TestServeSyncs: UNSTABLE bytes that nobody commits are synced by the gateway.
func TestServeSyncs(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	w.must(r.write("access.log", "one\n", false))
	within(t, "the bytes survive a power cut", func() bool {
		disk := &world{t: t, mem: w.mem.CrashClone(rand.New(nothing{})), cfg: w.cfg, log: w.log}
		disk.clock.Store(begin.UnixNano())
		s := disk.open()
		defer s.Close()
		return s.spool.Stats().Unsealed == 4
	})
}

func TestServeCommands(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	w.must(r.write("access.log", "one\ntwo\n", true))
	svc, err := Connect(ctx, w.env(), w.cfg)
	w.must(err)
	defer svc.Close()
	if st, err := svc.Status(ctx); err != nil || !st.Serving || st.NFS == nil || st.NFS.Writes != 1 || st.Spool.Unsealed != 8 {
		t.Errorf("status %+v, %v", st, err)
	}
	if res, err := svc.Seal(ctx); err != nil || res.Raw != 8 {
		t.Errorf("sealed %+v, %v", res, err)
	}
	if res, err := w.importText(svc, "x\n"); err != nil || res.Bytes != 2 {
		t.Errorf("imported %+v, %v", res, err)
	}
	if _, err := svc.Ingest(ctx, header("nosuch"), strings.NewReader("x\n")); err == nil || !strings.Contains(err.Error(), "not in the configuration") {
		t.Errorf("unknown source: %v", err)
	}
	if got := w.count(entry.TypeSegment); got != 2 {
		t.Errorf("%d segments", got)
	}
}

// TestServeSpoolFails: after a failed sync of the spool the process must end,
// and what was acknowledged before is there.
func TestServeSpoolFails(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	w.must(r.write("access.log", "one\n", true))
	w.fail(func(op vfs.Op, name string) error {
		if op == vfs.OpSync && strings.HasPrefix(name, paths(w.cfg.State).spool()) {
			return syscall.EIO
		}
		return nil
	})
	err := make(chan error, 1)
	c, root := r.dial()
	go func() { // never answered: the gateway ends
		h, cerr := c.Create(root, "other.log")
		err <- errors.Join(cerr, c.Open(h).Write([]byte("two\n")))
	}()
	if err := <-r.ended; !errors.Is(err, ingest.ErrSyncFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("serve ended with %v", err)
	}
	r.ended = nil
	w.must(c.Close())
	<-err
	r.site.Close() // fails, as the spool did
	w.fail(nil)
	w.mem = w.mem.CrashClone(rand.New(nothing{}))
	s := w.open()
	if res, err := s.Seal(ctx); err != nil || res.Raw != 4 {
		t.Errorf("sealed %+v, %v, expected what was acknowledged", res, err)
	}
}

// TestServeVaultAway: with the vault away the intake goes on, a person can see
// it, and all is well by itself when the vault is back.
func TestServeVaultAway(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	svc, err := Connect(ctx, w.env(), w.cfg)
	w.must(err)
	defer svc.Close()
	trouble := func() string {
		st, err := svc.Status(ctx)
		w.must(err)
		return st.Trouble
	}
	w.away(syscall.ESTALE)
	for _, name := range []string{"a.log", "b.log", "c.log"} {
		w.must(r.write(name, "one\n", true))
	}
	if _, err := svc.Seal(ctx); err == nil || !strings.Contains(err.Error(), "stale") {
		t.Errorf("seal: %v", err)
	}
	within(t, "the trouble is noted", func() bool { return strings.Contains(trouble(), "sealing: ") })
	w.fail(nil)
	within(t, "the trouble ends", func() bool { return trouble() == "" })
	if res, err := svc.Seal(ctx); err != nil || res.Raw != 12 {
		t.Errorf("sealed %+v, %v", res, err)
	}
	if got := w.count(entry.TypeSegment); got != 3 {
		t.Errorf("%d segments", got)
	}
	if n := strings.Count(w.log.String(), "level=ERROR"); n > 5 {
		t.Errorf("%d errors in the log, expected each once", n)
	}
}

// TestServeLogsNothing of the lines, their clients or the files' names.
func TestServeLogsNothing(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	const secret = "canary-5d1f"
	w.must(r.write(secret+".log", "192.0.2.77 - - [21/Nov/2026:06:00:00 +0000] \"GET /"+secret+" HTTP/1.1\" 200 1\n", true))
	svc, err := Connect(ctx, w.env(), w.cfg)
	w.must(err)
	_, err = svc.Seal(ctx)
	w.must(errors.Join(err, svc.Close()))
	w.must(r.end())
	for _, s := range []string{secret, "192.0.2.77", "127.0.0.1:"} {
		if strings.Contains(w.log.String(), s) {
			t.Errorf("the log says %q", s)
		}
	}
	if !strings.Contains(w.log.String(), "sealed") {
		t.Error("the log does not say that something was sealed")
	}
}

func TestServeReload(t *testing.T) {
	w := newWorld(t)
	w.init()
	r := w.serve()
	svc, err := Connect(ctx, w.env(), w.cfg)
	w.must(err)
	defer svc.Close()
	trouble := func() string {
		st, err := svc.Status(ctx)
		w.must(err)
		return st.Trouble
	}
	before := *r.site.Config()
	r.reload <- syscall.SIGHUP // finds a configuration that cannot be read
	within(t, "the trouble is noted", func() bool { return strings.Contains(trouble(), "reloading the configuration: "+failure.Error()) })
	if got := r.site.Config(); got.Sources[0].Name != before.Sources[0].Name || w.count(entry.TypePolicy) != 1 {
		t.Error("a bad configuration changed something")
	}

	bad := before
	bad.Sources = slices.Clone(before.Sources)
	bad.Sources[0].Clients = []string{"300.0.0.1"}
	r.next = &bad
	r.reload <- syscall.SIGHUP
	within(t, "the trouble is noted", func() bool { return strings.Contains(trouble(), "300.0.0.1") })
	w.must(r.write("access.log", "one\n", true)) // the old sources count

	good := before
	good.Sources = append(slices.Clone(before.Sources), config.Source{Name: "haproxy1", Class: before.Classes[0].Name})
	good.Sources[0].Clients = []string{"192.0.2.1/32"}
	good.State, good.Vault = "/elsewhere", "/elsewhere"
	r.next = &good
	r.reload <- syscall.SIGHUP
	within(t, "the trouble ends", func() bool { return trouble() == "" })
	if got := w.count(entry.TypePolicy); got != 2 {
		t.Errorf("%d policy entries, expected 2", got)
	}
	if c := r.site.Config(); c.State != before.State || c.Vault != before.Vault || len(c.Sources) != 3 {
		t.Errorf("reloaded %+v", c)
	}
	c, err := nfstest.Dial(ctx, nfstest.Options{Addr: r.addr})
	if err == nil {
		defer c.Close()
		_, err = c.Mount("/")
	}
	if err == nil {
		t.Error("a client that is no longer listed may mount")
	}
	h := header("haproxy1")
	if _, err := svc.Ingest(ctx, h, strings.NewReader("x\n")); err != nil {
		t.Errorf("the new source: %v", err)
	}

	// A policy that cannot be recorded does not count.
	worse := good
	worse.Sources = append(slices.Clone(good.Sources), config.Source{Name: "late", Class: before.Classes[0].Name})
	r.next = &worse
	w.away(syscall.ESTALE)
	r.reload <- syscall.SIGHUP
	within(t, "the trouble is noted", func() bool { return strings.Contains(w.log.String(), "recording the new policy") })
	if got := r.site.Config(); len(got.Sources) != 3 {
		t.Errorf("%d sources count, expected 3", len(got.Sources))
	}
	w.fail(nil)
}

// TestServeListens: a port or a socket that cannot be had ends Serve.
func TestServeListens(t *testing.T) {
	w := newWorld(t)
	w.init()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	defer l.Close()
	s := w.open()
	w.cfg.NFS.Listen = l.Addr().String()
	if err := s.Serve(ctx, ServeOptions{Judge: testJudge}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port in use: %v", err)
	}
	w.cfg.NFS.Listen = "127.0.0.1:0"
	if err := s.Serve(ctx, ServeOptions{Judge: testJudge}); err == nil || !strings.Contains(err.Error(), "control socket") {
		t.Errorf("no directory for the socket: %v", err)
	}
	if _, err := s.store.Stat(ctx, vault.MarkerName); err != nil {
		t.Errorf("the site is not usable afterwards: %v", err)
	}
}
