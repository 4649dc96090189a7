package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"logvault/ingest"
	"logvault/retention/policy"
	"logvault/vault"
)

// stuckTries is how often an import tries in vain while sealing makes no room,
// before it gives up.
const stuckTries = 5

// pauseBeats is how many beats a sealing that failed beside an import waits.
const pauseBeats = 20

// Imports implements Service.
func (s *Site) Imports(_ context.Context, source vault.Source, head vault.Hash) ([]ingest.Earlier, error) {
	return ingest.Imports(s.spool, source, head)
}

// Ingest implements Service. Sealing goes on beside the import, so that a file
// of any size passes through a spool of fixed room. When the spool is full and
// sealing cannot help, because the vault is away or the disk is full of other
// things, the import ends with that error: what was read is kept, and the next
// call goes on from there.
func (s *Site) Ingest(ctx context.Context, h ingest.ImportHeader, body io.Reader) (ingest.ImportResult, error) {
	class, ok := s.Config().ClassOf(h.Source)
	if !ok {
		return ingest.ImportResult{}, &UnknownSourceError{Name: h.Source}
	}
	if err := inWindow(class, h.Recorded, s.now()); err != nil {
		return ingest.ImportResult{}, err
	}
	// One at a time: a client that was killed and came back must not meet the
	// end of its first import.
	select {
	case s.importing <- struct{}{}:
		defer func() { <-s.importing }()
	case <-ctx.Done():
		return ingest.ImportResult{}, ctx.Err()
	}
	type outcome struct {
		res ingest.ImportResult
		err error
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	h.Now = s.now()
	to := &roomWatch{Importer: s.spool}
	done := make(chan outcome, 1)
	go func() { // joined below: this function returns only after its outcome
		res, err := ingest.Import(ctx, to, h, body)
		done <- outcome{res, err}
	}()
	beat := time.NewTicker(s.beats.ingest)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			made, err := s.sealBeside(ctx, to.refused.Load() > 0)
			if beat.Reset(s.beats.ingest); err != nil {
				beat.Reset(pauseBeats * s.beats.ingest) // a vault that is away or full is not written to all the time
			}
			if to.stuck(made) {
				giveUp(errors.Join(err, vault.ErrFull))
			}
		case o := <-done:
			if o.err != nil && errors.Is(o.err, ctx.Err()) {
				o.err = fmt.Errorf("importing %q: %w", h.Name, context.Cause(ctx))
			}
			if o.err != nil {
				return o.res, o.err
			}
			_, err := s.sealRounds(ctx, false)
			return o.res, err
		}
	}
}

// sealBeside seals what is due, or everything when the spool is full, and tells
// whether that made room. Its error is noted: the import goes on as long as it
// can, for its bytes are safe in the spool.
func (s *Site) sealBeside(ctx context.Context, full bool) (made bool, err error) {
	sum, err := s.sealRounds(ctx, full)
	if err != nil && ctx.Err() == nil {
		s.trouble(sealing, err)
	}
	return sum.Segments > 0, err
}

// roomWatch notes whether the steps of an import find room.
type roomWatch struct {
	ingest.Importer
	refused atomic.Int64 // the last so many steps found none

	seen   int64 // refused at the last beat
	inVain int   // beats since room was made or found, each with a new try
}

func (r *roomWatch) note(err error) error {
	if errors.Is(err, vault.ErrFull) {
		r.refused.Add(1)
	} else {
		r.refused.Store(0)
	}
	return err
}

// stuck is asked at each beat, after sealing, and tells whether to give up. What
// counts is how often the import tried: on a slow disk many beats pass between
// two tries, and one of them may be using the room that was just made.
func (r *roomWatch) stuck(made bool) bool {
	refused := r.refused.Load()
	switch {
	case made || refused == 0:
		r.inVain = 0
	case refused != r.seen:
		r.inVain++
	}
	r.seen = refused
	return r.inVain == stuckTries
}

// Write notes whether the spool was full.
func (r *roomWatch) Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error {
	return r.note(r.Importer.Write(ctx, id, gen, off, data, client, sync))
}

// SetMeta notes whether the spool was full.
func (r *roomWatch) SetMeta(ctx context.Context, kvs ...vault.KV) error {
	return r.note(r.Importer.SetMeta(ctx, kvs...))
}

// DueError refuses to store what the law wants gone already.
type DueError struct {
	Recorded, Due time.Time
	Class         string
}

// Error gives both times in RFC 3339.
func (e *DueError) Error() string {
	return fmt.Sprintf("records of %s in class %s had to be destroyed on %s", e.Recorded.Format(time.RFC3339), e.Class, e.Due.Format(time.RFC3339))
}

// UnknownSourceError names a source that the configuration does not have.
type UnknownSourceError struct{ Name vault.Source }

// Error names the source.
func (e *UnknownSourceError) Error() string {
	return fmt.Sprintf("source %q is not in the configuration", string(e.Name))
}

func inWindow(class policy.Class, recorded, now time.Time) error {
	if recorded.IsZero() {
		return nil
	}
	if due := class.RetainUntil(recorded); !due.After(now) {
		return &DueError{recorded, due, class.Name}
	}
	return nil
}
