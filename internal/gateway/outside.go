package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"logvault/internal/config"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/ledger/tsa"
	"logvault/ledger/witness"
	"logvault/vault"
)

const (
	outsideTimeout = 30 * time.Second // of one request
	witnessEvery   = time.Hour        // between two cosignatures of one witness
	stampEvery     = 24 * time.Hour   // between two time-stamps
	stampLook      = time.Hour        // how often it is looked whether one is due: our clock may be set meanwhile
	retryFirst     = time.Minute      // after a failure, then doubled
	retryMost      = time.Hour
	clockDoubt     = 5 * time.Minute // how far our clock may be from theirs
)

// errand is something that is asked of somebody outside, again and again. It is
// an alarm when it fails, and never a reason to stop anything else.
type errand struct {
	name string // what its trouble is noted under
	// run does it, if it is due, and says how long to wait then; 0 is until the
	// next beat.
	run  func(ctx context.Context) (pause time.Duration, err error)
	next time.Duration // boot time: a wall clock that was wrong and is set right delays nothing
	wait time.Duration // after the last failure, 0 if there was none
}

// step runs an errand whose time has come.
func (s *Site) step(ctx context.Context, e *errand) {
	if s.env.Boot() < e.next {
		return
	}
	pause, err := e.run(ctx)
	switch {
	case err == nil:
		e.next, e.wait = s.env.Boot()+pause, 0
		s.better(e.name)
	case ctx.Err() == nil:
		e.wait = min(max(2*e.wait, retryFirst), retryMost)
		e.next = s.env.Boot() + e.wait
		s.trouble(e.name, err)
	}
}

// outsideLoop runs the errands, one after the other, in their own goroutine.
func (s *Site) outsideLoop(ctx context.Context) error {
	if !s.awaitPrimary(ctx) {
		return nil
	}
	beat := time.NewTicker(s.beats.outside)
	defer beat.Stop()
	for {
		for _, e := range s.errands {
			s.step(ctx, e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
	}
}

// newErrands makes the errands that a configuration asks for. The keys and roots
// are those of the trust file, so that the gateway believes what readers do.
func (s *Site) newErrands(c *config.Config, trust *ledger.Trust) error {
	s.outside = &http.Client{Timeout: outsideTimeout}
	if c.Timestamp != nil {
		if trust.TSA == nil {
			return &config.Error{File: paths(c.State).trust(), Detail: "[tsa] is absent, expected the root certificates of the time-stamping authority of logvault.toml"}
		}
		believed, err := tsa.NewTrust(trust.TSA.Roots, trust.TSA.Policy)
		if err != nil {
			return err
		}
		st := &stamping{s, &tsa.Authority{URL: c.Timestamp.URL, Trust: believed, HTTP: s.outside, Random: s.env.Random}}
		s.errands = append(s.errands, &errand{name: "time-stamping", run: st.run})
	}
	for _, w := range c.Witnesses {
		key, err := config.WitnessKey(trust, w.Name)
		if err != nil {
			return &config.Error{File: paths(c.State).trust(), Detail: err.Error()}
		}
		wi := &witnessing{s: s, name: w.Name, keyID: strings.SplitN(key, "+", 3)[1], w: &witness.Witness{URL: w.URL, Key: key, HTTP: s.outside}, last: -1}
		s.witnesses = append(s.witnesses, wi)
		s.errands = append(s.errands, &errand{name: "asking the witness " + w.Name, run: wi.run})
	}
	return nil
}

// OutsideStatus tells how far the ledger is known to somebody outside.
type OutsideStatus struct {
	Name string    `json:"name"` // "witness NAME" or "time-stamp"
	Size int64     `json:"size"` // of the last head that they saw, 0 = none
	At   time.Time `json:"at,omitzero"`
}

// outsideStatus lists what the configuration asks for.
func (s *Site) outsideStatus(ctx context.Context) ([]OutsideStatus, error) {
	var all []OutsideStatus
	if s.Config().Timestamp != nil {
		size, at, err := s.lastToken(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, OutsideStatus{"time-stamp", size, at})
	}
	for _, w := range s.witnesses {
		size, at, err := s.cosigned(ctx, w.keyID)
		if err != nil {
			return nil, err
		}
		all = append(all, OutsideStatus{"witness " + w.name, size, at})
	}
	return all, nil
}

// beside is a file that is kept beside the tiles of the ledger.
type beside struct {
	name string
	data []byte
}

// putBeside stores files, first all in the ledger of record, then all in the
// vault. Both know the names as immutable; again with the same bytes it does nothing.
func (s *Site) putBeside(ctx context.Context, files ...beside) error {
	for _, store := range []vault.Store{s.record, s.store} {
		for _, f := range files {
			if err := store.Put(ctx, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
				return fmt.Errorf("keeping %s: %w", f.name, err)
			}
		}
	}
	return nil
}

// compareClock makes it an alarm if somebody's clock is far from ours: ours
// dates what is sealed.
func (s *Site) compareClock(whose string, at time.Time) {
	what := "comparing the clock with " + whose
	if d := s.now().Sub(at); d.Abs() > clockDoubt {
		s.trouble(what, fmt.Errorf("the clocks differ by %v: set the one that is wrong", d.Round(time.Second)))
		return
	}
	s.better(what)
}

// witnessing has one witness cosign the heads of the ledger.
type witnessing struct {
	s     *Site
	name  string
	keyID string
	w     *witness.Witness
	last  int64 // the size that it cosigned last, -1 = not asked since the start
}

// run asks for a cosignature of the present head if that has grown, and once
// after a start: a vault and a state that were put back to an earlier day
// together show nothing of it, but the witness knows.
//
// The head is kept before the cosignature over it. A crash before either leaves
// the witness ahead of what we know of it: it says so when it is asked again,
// and cosigns the same head once more. A crash, or a vault that is away, before
// the vault has both leaves them in the record alone: then they are copied from
// there when it is asked again.
func (w *witnessing) run(ctx context.Context) (pause time.Duration, err error) {
	tree := w.s.Tree()
	if w.last == tree.Size() {
		return 0, nil
	}
	last, _, err := w.s.cosigned(ctx, w.keyID)
	if err != nil {
		return 0, err
	}
	c, err := w.w.Cosign(ctx, tree, last)
	if err != nil {
		return 0, err
	}
	files := []beside{{vault.KeptCheckpointName(vault.LedgerPrefix, tree.Size()), tree.Checkpoint().Raw}, {vault.CosignatureName(vault.LedgerPrefix, tree.Size(), c.KeyID), c.Line}}
	if last == tree.Size() { // the cosignature is there, with its own time
		for i := range files {
			if files[i].data, err = vault.ReadAll(ctx, w.s.record, files[i].name, 1<<16); err != nil {
				return 0, err
			}
		}
	}
	if err := w.s.putBeside(ctx, files...); err != nil {
		return 0, err
	}
	w.s.compareClock("the witness "+w.name, c.Time)
	if w.last = tree.Size(); last == tree.Size() {
		return 0, nil // what grows from now on is asked for at once
	}
	return witnessEvery, nil
}

// cosigned returns the largest size of which a cosignature by a key is kept, 0
// if there is none, and when it was stored.
func (s *Site) cosigned(ctx context.Context, keyID string) (size int64, at time.Time, err error) {
	err = s.record.List(ctx, vault.LedgerPrefix+"cosignatures/", func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil && o.KeyID == keyID && o.Size >= size {
			size, at = o.Size, i.ModTime
		}
		return nil
	})
	return size, at, err
}

// stamping has an authority stamp the head of the ledger once a day.
type stamping struct {
	s *Site
	a *tsa.Authority
}

// run stamps the present head if a day has passed by our clock and the ledger has
// grown by more than the entry of the last time-stamp. If our clock is behind the
// last time-stamp it is wrong, or that was: the authority is asked and may say so.
//
// The order is: head and token in the record, both in the vault, the entry. A
// crash in between leaves a token without entry, newer than all others; it is
// finished before another one is asked for, so that no token stays without.
func (t *stamping) run(ctx context.Context) (pause time.Duration, err error) {
	last, err := t.last(ctx)
	if err != nil {
		return 0, err
	}
	if passed := t.s.now().Sub(last.at); -clockDoubt < passed && passed < stampEvery {
		return min(stampEvery-passed, stampLook), nil
	}
	tree := t.s.Tree()
	if tree.Size() == last.entry+1 {
		return stampLook, nil
	}
	head := tree.Checkpoint()
	token, at, err := t.a.Stamp(ctx, head.Raw)
	if err != nil {
		return 0, err
	}
	t.s.compareClock("the time-stamping authority", at)
	if _, err := t.record(ctx, head, token, at); err != nil {
		return 0, err
	}
	return stampLook, nil
}

// record keeps a token and appends its entry, whose index it returns.
func (t *stamping) record(ctx context.Context, head ledger.Checkpoint, token []byte, at time.Time) (int64, error) {
	err := t.s.putBeside(ctx, beside{vault.KeptCheckpointName(vault.LedgerPrefix, head.Size), head.Raw}, beside{vault.TimestampName(vault.LedgerPrefix, head.Size), token})
	if err != nil {
		return 0, err
	}
	return t.s.commit(ctx, &entry.Timestamp{Header: entry.Header{Time: t.s.now(), Actor: ActorGateway}, Size: head.Size, Root: head.Root, Token: vault.HashOf(token), Stamp: at})
}

// stamped is the last time-stamp: none has entry -1 and the zero time.
type stamped struct {
	at    time.Time
	entry int64
}

// last finds the last time-stamp, and finishes it if a crash left it without entry.
func (t *stamping) last(ctx context.Context) (stamped, error) {
	size, _, err := t.s.lastToken(ctx)
	if err != nil || size == 0 {
		return stamped{entry: -1}, err
	}
	found := stamped{entry: -1}
	tree := t.s.Tree()
	err = tree.Entries(ctx, size, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if ts, ok := e.(*entry.Timestamp); err == nil && ok && ts.Size == size {
			found = stamped{ts.Stamp, i}
			return errFound
		}
		return nil // what it says is not for us to judge
	})
	if err == nil {
		return t.finish(ctx, size)
	}
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

var errFound = errors.New("found")

// finish appends the entry of a token that was kept, read and checked again.
func (t *stamping) finish(ctx context.Context, size int64) (stamped, error) {
	name := vault.TimestampName(vault.LedgerPrefix, size)
	token, err := vault.ReadAll(ctx, t.s.record, name, tsa.Limit)
	if err != nil {
		return stamped{}, err
	}
	raw, err := vault.ReadAll(ctx, t.s.record, vault.KeptCheckpointName(vault.LedgerPrefix, size), 1<<16)
	if err != nil {
		return stamped{}, err
	}
	at, err := t.a.Trust.Check(token, raw)
	if err != nil {
		return stamped{}, fmt.Errorf("%s, left by a crash: %w", name, err)
	}
	root, err := t.s.Tree().RootAt(ctx, size)
	if err != nil {
		return stamped{}, err
	}
	index, err := t.record(ctx, ledger.Checkpoint{Size: size, Root: root, Raw: raw}, token, at)
	return stamped{at, index}, err
}

// lastToken returns the largest size of which a token is kept, 0 if there is
// none, and when it was stored.
func (s *Site) lastToken(ctx context.Context) (size int64, at time.Time, err error) {
	err = s.record.List(ctx, vault.LedgerPrefix+"timestamps/", func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil && o.Kind == vault.KindTimestamp && o.Size >= size {
			size, at = o.Size, i.ModTime
		}
		return nil
	})
	return size, at, err
}
