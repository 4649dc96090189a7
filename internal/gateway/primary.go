package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// The vault may be away when the gateway starts, or go away, or answer nothing
// for ever, as a dead mount of NFS does. The intake never waits for it. So a Site
// is opened in two steps: openLocal, what is on the machine's own disk, and
// openPrimary, what writes to the vault. In `serve` the second one is a goroutine
// that tries again until it succeeds; in a command both must succeed.
//
// Opening never makes anything: where a vault was, an empty directory is
// vault.ErrNoVault. A vault that is there and is not the one that this state
// belongs to, or is ahead of it, is refused: at the start of `serve` with its
// exit code, and when it comes later by not sealing.

// ErrWrongVault says that the vault is not the one that the state belongs to.
var ErrWrongVault = errors.New("not the vault of this state")

// errSilent says that the vault has not answered for longer than it may.
var errSilent = fmt.Errorf("the vault does not answer: %w", syscall.ETIMEDOUT)

// away tells whether an error of opening the vault is a passing state: it is not
// there, or the way to it is cut, or it is full or read-only for now.
func away(err error) bool {
	for _, passing := range []error{vault.ErrNoVault, vault.ErrUnreachable, os.ErrDeadlineExceeded, syscall.EIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ETIMEDOUT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.ECONNREFUSED, syscall.ECONNRESET,
		syscall.EPIPE, syscall.ENODEV, syscall.ENXIO, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, passing) {
			return true
		}
	}
	_, network := errors.AsType[net.Error](err)
	return network
}

// available returns nil once the vault was opened, else why it is not.
func (s *Site) available() error {
	select {
	case <-s.opened:
		return nil
	default:
	}
	if err := s.openErr.Load(); err != nil {
		return *err
	}
	return fmt.Errorf("vault %s: %w", s.Config().Vault, errSilent) // the first attempt hangs
}

// openPrimary opens the vault and what writes to it. After an error it may be
// called again.
func (s *Site) openPrimary(ctx context.Context) (err error) {
	store, err := s.env.Stores.Open(ctx, s.Config().Vault)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			hangUp(store) // the next attempt makes a connection of its own
		}
	}()
	if err := s.checkMarker(ctx, store); err != nil {
		return fmt.Errorf("%s: %w", s.Config().Vault, err)
	}
	cfg := s.ledgerConfig
	cfg.Copy = store
	l, err := ledger.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	s.sealMu.Lock() // a reload waits, or its policy is seen here
	defer s.sealMu.Unlock()
	s.store = store
	s.ledger.Store(l)
	s.sweep(ctx)
	if err := s.syncPolicy(ctx); err != nil {
		return err
	}
	if err := s.openSealer(ctx); err != nil {
		return err
	}
	close(s.opened)
	return nil
}

// checkMarker compares the vault's marker with the one that the first entry of
// the ledger of record names. A vault of which only the marker is gone is damaged,
// not absent.
func (s *Site) checkMarker(ctx context.Context, store vault.Reader) error {
	data, err := s.Tree().Entry(ctx, 0)
	if err != nil {
		return fmt.Errorf("reading the init entry: %w", err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		return fmt.Errorf("reading the init entry: %w", err)
	}
	first, ok := e.(*entry.Init)
	if !ok {
		return fmt.Errorf("ledger entry 0 is a %s, expected init", e.Type())
	}
	marker, err := vault.ReadAll(ctx, store, vault.MarkerName, 4096)
	if errors.Is(err, vault.ErrNotExist) {
		return fmt.Errorf("%w: %s is absent", ErrWrongVault, vault.MarkerName)
	}
	if err != nil {
		return fmt.Errorf("reading the marker: %w", err)
	}
	if got := vault.HashOf(marker); got != first.Marker {
		return fmt.Errorf("%w: the SHA-256 of %s is %s, expected %s", ErrWrongVault, vault.MarkerName, got, first.Marker)
	}
	return nil
}

// primaryLoop opens the vault, again and again until that succeeds. It tells
// each outcome; the first is what a start waits for.
func (s *Site) primaryLoop(ctx context.Context, tell func(error)) {
	for wait := s.beats.retry; ; wait = min(2*wait, s.beats.retryMost) {
		err := s.openPrimary(ctx)
		if err == nil {
			s.better(opening)
			tell(nil)
			return
		}
		s.openErr.Store(&err)
		if ctx.Err() == nil {
			s.trouble(opening, err)
		}
		tell(err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// startPrimary begins to open the vault and waits a moment for the outcome. Only
// a vault that is there and wrong is an error.
func (s *Site) startPrimary(ctx context.Context, run func(func(context.Context))) error {
	if s.available() == nil {
		return nil
	}
	first := make(chan error, 1)
	run(func(ctx context.Context) {
		s.primaryLoop(ctx, func(err error) {
			select {
			case first <- err:
			default: // nobody waits any more
			}
		})
	})
	timer := time.NewTimer(s.beats.patience)
	defer timer.Stop()
	select {
	case err := <-first:
		if err != nil && !away(err) {
			return err
		}
	case <-timer.C:
		s.noteSilent()
	case <-ctx.Done():
	}
	return nil
}

// noteSilent notes that the vault is not open yet, although it may be opened at
// this very moment: then its opener has ended the trouble before or after it was
// noted, or it is ended here.
func (s *Site) noteSilent() {
	if err := s.available(); err != nil {
		s.trouble(opening, err)
	}
	if s.available() == nil {
		s.better(opening)
	}
}

// awaitPrimary returns true when the vault is open and false when ctx is done.
func (s *Site) awaitPrimary(ctx context.Context) bool {
	select {
	case <-s.opened:
		return true
	case <-ctx.Done():
		return false
	}
}

// call is a call to the vault that may never come back. It is made by one
// goroutine at a time; while it hangs no other is begun.
type call struct {
	mu   sync.Mutex
	busy bool // guarded by mu
}

// within runs fn for at most d. When that is over it returns errSilent and leaves
// fn to itself; what fn sets must not be read then.
func (c *call) within(d time.Duration, fn func() error) error {
	c.mu.Lock()
	if c.busy {
		c.mu.Unlock()
		return errSilent
	}
	c.busy = true
	c.mu.Unlock()
	done := make(chan error, 1)
	go func() { // ends with fn, or with the process
		err := fn()
		c.mu.Lock()
		c.busy = false
		c.mu.Unlock()
		done <- err
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errSilent
	}
}

// waitFor waits for a group for at most d and tells whether it ended.
func waitFor(wg *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() { // ends with the group, or with the process
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// sealingFor tells for how long the present round of sealing has run.
func (s *Site) sealingFor() time.Duration {
	since := s.sealing.Load()
	if since == 0 {
		return 0
	}
	return s.env.Boot() - time.Duration(since)
}

// watchSealing makes it an alarm when a round of sealing does not come back: a
// call to a dead mount hangs without an error.
func (s *Site) watchSealing() {
	if d := s.sealingFor(); d > s.beats.silent {
		s.trouble(answering, errSilent)
	} else if d == 0 {
		s.better(answering)
	}
}

// hangUp ends the connection of a store that has one.
func hangUp(store vault.Store) {
	if c, ok := store.(io.Closer); ok {
		c.Close() // nothing is under way
	}
}
