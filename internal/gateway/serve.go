package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"logvault/ingest/watch"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/nfsgw"
	"logvault/vault"
)

// beats are the periods of what the gateway does by itself.
type beats struct {
	sync   time.Duration // bounds how long an UNSTABLE byte stays unsynced (DESIGN §6.7)
	seal   time.Duration // how often the spool is asked for what is due
	ingest time.Duration // the same beside an import

	outside time.Duration // how often it is asked what witnesses and authorities owe

	retry     time.Duration // from a failed opening of the vault to the next, then doubled
	retryMost time.Duration // what it is doubled up to
	patience  time.Duration // how long a start waits for a vault that does not answer
	silent    time.Duration // how long sealing may take before it is an alarm
	status    time.Duration // how long a status waits for the vault
	stop      time.Duration // how long a stop waits for what calls the vault
	clients   time.Duration // how long a stop waits for clients of the control socket
}

var defaultBeats = beats{sync: time.Second, seal: 15 * time.Second, ingest: 20 * time.Millisecond, outside: time.Minute,
	retry: time.Second, retryMost: time.Minute, patience: 10 * time.Second, silent: 5 * time.Minute, status: 2 * time.Second, stop: 10 * time.Second, clients: 2 * time.Second}

// ServeOptions is what `serve` adds to a Site.
type ServeOptions struct {
	// Judge tells the exit code and the hint of an error that a command of the
	// control socket met.
	Judge Judge
	// Reload, when it is signalled, makes the gateway read its sources anew from
	// the configuration that it returns.
	Reload <-chan os.Signal
	Config func() (*config.Config, error)
	// Ready is called once, when the gateway accepts, with its NFS address.
	Ready func(nfs net.Addr)
}

// Serve runs the gateway until ctx is done or the spool fails. If the vault is
// not open yet it opens it, and takes in meanwhile whether it is there or not; a
// vault that is there and wrong is an error at once.
//
// It owns its goroutines. Those of the intake (NFS, spool sync) have ended when it
// returns. Those that may call the vault (opener, sealer, witnesses, reload,
// control socket), and the watcher, which reads other disks, are waited for at
// most 10 seconds: a dead mount holds a call for ever. What is left of them ends
// with the process, which must end soon. A stop seals nothing: the spool is
// durable.
func (s *Site) Serve(ctx context.Context, o ServeOptions) error {
	srv, err := s.newNFS()
	if err != nil {
		return err
	}
	watcher, err := s.newWatcher()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var intake sync.WaitGroup
	run := func(wg *sync.WaitGroup, name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	defer func() {
		cancel(nil)
		intake.Wait()
		if !waitFor(&s.others, s.beats.stop) {
			s.left = true
			s.env.Log.Error("stopping while calls to the vault or a watched disk hang")
		}
	}()
	err = s.startPrimary(ctx, func(fn func(context.Context)) {
		run(&s.others, "vault", func(ctx context.Context) error { fn(ctx); return nil })
	})
	if err != nil {
		return err
	}
	nfsL, err := net.Listen("tcp", s.Config().NFS.Listen)
	if err != nil {
		return fmt.Errorf("listening for NFS: %w", err)
	}
	defer nfsL.Close() // Serve closed it already, unless the next step fails
	ctlL, err := listenControl(paths(s.Config().State).socket())
	if err != nil {
		return err
	}
	run(&intake, "nfs", func(ctx context.Context) error { return srv.Serve(ctx, nfsL) })
	run(&s.others, "control socket", func(ctx context.Context) error {
		return serveControl(ctx, ctlL, &serving{s, srv, watcher}, o.Judge, s.beats.clients)
	})
	run(&intake, "spool", s.syncLoop)
	run(&s.others, "sealer", s.sealLoop)
	run(&s.others, "witnesses and time-stamps", s.outsideLoop)
	run(&s.others, "reload", func(ctx context.Context) error { s.reloadLoop(ctx, o, srv); return nil })
	if watcher != nil {
		run(&s.others, "watched directories", func(ctx context.Context) error { return watcher.Run(ctx, s.noteWatch) })
	}
	o.Ready(nfsL.Addr())
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// reloadLoop reloads when it is asked to: a reload waits for a round of sealing.
func (s *Site) reloadLoop(ctx context.Context, o ServeOptions, srv *nfsgw.Server) {
	for {
		select {
		case <-o.Reload:
			s.reload(ctx, o.Config, srv)
		case <-ctx.Done():
			return
		}
	}
}

func (s *Site) newNFS() (*nfsgw.Server, error) {
	key, err := vfs.ReadFile(s.env.FS, paths(s.Config().State).handleKey(), 64)
	if err != nil {
		return nil, fmt.Errorf("reading the handle key: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("handle key: %d bytes, expected 32", len(key))
	}
	sources, err := nfsSources(s.Config())
	if err != nil {
		return nil, err
	}
	return nfsgw.New(nfsgw.Config{Sink: s.spool, Sources: sources, Key: [32]byte(key), Secure: *s.Config().NFS.Secure,
		Random: s.env.Random, Now: s.env.Now, Log: s.env.Log, RetainUntil: s.retainUntil})
}

// retainUntil tells until when bytes of a source are kept, by its class of today.
func (s *Site) retainUntil(source vault.Source, received time.Time) (until time.Time, ok bool) {
	class, ok := s.Config().ClassOf(source)
	if !ok {
		return time.Time{}, false
	}
	return class.RetainUntil(received), true
}

// nfsSources are the sources that may mount: those with clients.
func nfsSources(c *config.Config) ([]nfsgw.Source, error) {
	var all []nfsgw.Source
	for _, src := range c.Sources {
		clients, err := config.ParseClients(src.Clients)
		if err != nil {
			return nil, err
		}
		if len(clients) > 0 {
			all = append(all, nfsgw.Source{Name: vault.Source(src.Name), Clients: clients, AllowRead: src.AllowRead})
		}
	}
	return all, nil
}

// reload takes over the sources and nothing else. A configuration that is wrong
// changes nothing.
func (s *Site) reload(ctx context.Context, read func() (*config.Config, error), srv *nfsgw.Server) {
	c, err := read()
	if err != nil {
		s.trouble(reloading, err)
		return
	}
	sources, err := nfsSources(c)
	if err != nil {
		s.trouble(reloading, err)
		return
	}
	old := s.Config()
	next := *old
	next.Sources, next.Classes = c.Sources, c.Classes
	s.sealMu.Lock() // nothing is sealed under a policy that is not in the ledger
	s.config.Store(&next)
	if s.available() == nil { // else openPrimary does it
		err = s.syncPolicy(ctx)
	}
	if err != nil {
		s.config.Store(old)
	}
	s.sealMu.Unlock()
	if err != nil {
		s.trouble(reloading, err)
		return
	}
	srv.SetSources(sources)
	s.better(reloading)
	s.env.Log.Info("sources and classes reloaded; other keys count from the next start", "sources", len(c.Sources), "clients", len(sources))
}

// syncLoop syncs the spool every second. Its error is final: after a failed
// sync the process must end, so that the write verifier changes.
func (s *Site) syncLoop(ctx context.Context) error {
	beat := time.NewTicker(s.beats.sync)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			s.watchSealing()
			if err := s.spool.Sync(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// sealLoop seals what is due. An error of the vault or the ledger is noted and
// tried again: the intake goes on without them.
func (s *Site) sealLoop(ctx context.Context) error {
	if !s.awaitPrimary(ctx) {
		return nil
	}
	beat := time.NewTicker(s.beats.seal)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			s.sealDue(ctx)
		}
	}
}

// sealDue seals what is due and copies the ledger to the vault if that is behind.
func (s *Site) sealDue(ctx context.Context) {
	sum, err := s.sealRounds(ctx, false)
	s.rest(sum.Segments > 0)
	if err == nil {
		err = s.catchUp(ctx)
	}
	switch {
	case err == nil:
		s.better(sealing)
	case ctx.Err() == nil:
		s.trouble(sealing, err)
	}
}

// rest gives the memory of sealing back when a beat had nothing to seal after one
// that had. It costs a few milliseconds, once.
func (s *Site) rest(sealed bool) {
	s.sealMu.Lock()
	defer s.sealMu.Unlock()
	if s.warm && !sealed && s.sealer != nil {
		s.sealer.Rest()
		debug.FreeOSMemory()
	}
	s.warm = sealed
}

// serving is the Site of a running gateway: its status knows of the NFS server.
type serving struct {
	*Site
	nfs   *nfsgw.Server
	watch *watch.Watcher // or nil
}

// Status implements Service.
func (s *serving) Status(ctx context.Context) (Status, error) {
	st, err := s.Site.Status(ctx)
	st.Serving = true
	stats := s.nfs.Stats()
	st.NFS = &stats
	if s.watch != nil {
		stats := s.watch.Stats()
		st.Watch = &stats
	}
	return st, err
}
