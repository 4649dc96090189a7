package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"logvault/ingest"
	"logvault/ingest/watch"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/nfsgw"
)

// Status describes a gateway and its primary copy at one moment.
type Status struct {
	Origin     string          `json:"origin"`
	Vault      string          `json:"vault"`
	Serving    bool            `json:"serving"`
	LedgerSize int64           `json:"ledger_size"`
	LedgerRoot string          `json:"ledger_root"`
	Spool      ingest.Stats    `json:"spool"`
	VaultFree  int64           `json:"vault_free_bytes"`
	VaultTotal int64           `json:"vault_total_bytes"`
	LastSeal   time.Time       `json:"last_seal,omitzero"`
	Trouble    string          `json:"trouble,omitempty"`
	TroubleAt  time.Time       `json:"trouble_at,omitzero"`
	Auditors   []AuditorStatus `json:"auditors"`
	Classes    []ClassStatus   `json:"classes"`
	Outside    []OutsideStatus `json:"outside,omitempty"`
	NFS        *nfsgw.Stats    `json:"nfs,omitempty"`
	Watch      *watch.Stats    `json:"watch,omitempty"`
}

// AuditorStatus tells when an auditor's key expires.
type AuditorStatus struct {
	Fingerprint string    `json:"fingerprint"`
	Expires     time.Time `json:"expires,omitzero"`
}

// ClassStatus tells how long a class is kept and until when its basis holds.
type ClassStatus struct {
	Name       string    `json:"name"`
	Period     string    `json:"period"`
	Basis      string    `json:"basis"`
	ValidUntil time.Time `json:"valid_until,omitzero"`
}

// Examine tells how the gateway of c is: it asks `serve`, or opens the state
// itself. Then unopened is why the vault could not be opened, and the rest is
// told all the same. Errors are those of Connect.
func Examine(ctx context.Context, env Env, c *config.Config) (st Status, unopened, err error) {
	svc, err := connect(ctx, c, func() (*Site, error) {
		s, err := OpenIntake(ctx, env, c)
		if err != nil {
			return nil, err
		}
		var try call
		if err := try.within(s.beats.patience, func() error { return s.openPrimary(ctx) }); err != nil {
			unopened = fmt.Errorf("%s: %w", opening, err)
			s.openErr.Store(&err)
			s.notes.set(opening, err.Error(), s.now()) // not logged: whoever asks is told
			s.left = errors.Is(err, errSilent)         // the call hangs; the lock stays until the process ends
		}
		return s, nil
	})
	if err != nil {
		return st, nil, err
	}
	st, err = svc.Status(ctx)
	return st, unopened, errors.Join(err, svc.Close())
}

// measured is a store that knows its room: a directory does, a bucket does not.
type measured interface{ Space() (vfs.Space, error) }

// look notes the head of the ledger and the room of the vault. Both may hang: the
// ledger is locked while a batch is copied to the vault. Then what was seen last
// counts.
func (s *Site) look(st *Status) {
	err := s.asking.within(s.beats.status, func() error {
		cp := s.Tree().Checkpoint()
		seen := Status{LedgerSize: cp.Size, LedgerRoot: cp.Root.String()}
		defer func() { s.seen.Store(&seen) }()
		if s.available() != nil {
			return nil
		}
		store, ok := s.store.(measured)
		if !ok {
			return nil
		}
		space, err := store.Space()
		seen.VaultFree, seen.VaultTotal = space.Free, space.Total
		return err
	})
	if err != nil {
		s.trouble(measuring, err)
	} else {
		s.better(measuring)
	}
	if seen := s.seen.Load(); seen != nil {
		st.LedgerSize, st.LedgerRoot, st.VaultFree, st.VaultTotal = seen.LedgerSize, seen.LedgerRoot, seen.VaultFree, seen.VaultTotal
	}
}

// Status implements Service.
func (s *Site) Status(ctx context.Context) (Status, error) {
	st := Status{Origin: s.Config().Origin, Vault: s.Config().Vault, Spool: s.spool.Stats()}
	s.look(&st)
	if what, n := s.notes.last(); what != "" {
		st.Trouble, st.TroubleAt = what+": "+n.text, n.at
	}
	if ms := s.lastSeal.Load(); ms != 0 {
		st.LastSeal = time.UnixMilli(ms).UTC()
	}
	for _, a := range s.audits {
		st.Auditors = append(st.Auditors, AuditorStatus{a.Fingerprint, a.Expires})
	}
	var err error
	if st.Outside, err = s.outsideStatus(ctx); err != nil {
		return st, err
	}
	classes, err := s.Config().Policies()
	for _, c := range classes {
		st.Classes = append(st.Classes, ClassStatus{c.Name, c.Period.String(), c.Basis, c.ValidUntil})
	}
	return st, err
}
