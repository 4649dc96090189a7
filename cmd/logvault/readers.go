package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// readFlags choose the vaults that a reading command looks at.
func readFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "vault", Usage: "read the vault at `PATH|URL` (default: the configuration's); repeat it for several"},
		&cli.StringSliceFlag{Name: "trust", Usage: "pinned `FILE|VKEY`: trust.toml or the ledger's verifier key (default: the state's trust.toml); repeat it for vaults of several gateways"},
	}
}

// reading is one vault to read and what is trusted about it.
type reading struct {
	name     string
	store    vault.Store
	trust    *ledger.Trust
	unpinned bool // the key came from the vault itself: good for display only
	failed   bool // it is in the tally of what went wrong
}

// errUnpinned ends a command that could read but not trust.
var errUnpinned = &codedError{codeIntegrity, "give --trust with trust.toml or the verifier key that `logvault init` printed",
	errors.New("unpinned: the ledger's key was read from the vault itself, so nothing is proven")}

// openWait bounds how long the vaults are waited for: a dead mount never answers.
// It is longer than the patience of the stores that have one.
const openWait = 3 * time.Minute

// readings opens the vaults that the flags or the configuration name, all at the
// same time. It returns those that could be opened, and the tally with the others.
func (a *app) readings(c *cli.Context) ([]*reading, *tally, error) {
	places := c.StringSlice("vault")
	if len(places) == 0 {
		cfg, err := a.loadConfig(c)
		if _, named := a.configFile(c); errors.Is(err, fs.ErrNotExist) && !named {
			return nil, nil, &codedError{codeUsage, "give --vault PATH with --trust, or --config FILE", err}
		}
		if err != nil {
			return nil, nil, err
		}
		places = []string{cfg.Vault}
	}
	pinned, err := a.pinned(c)
	if err != nil {
		return nil, nil, err
	}
	type opened struct {
		reading
		err error
	}
	all := gateway.Answers(c.Context, len(places), openWait, func(_ context.Context, i int) (o opened) {
		// Under the command's context: a connection outlives the opening.
		o.reading, o.err = a.openReading(c.Context, places[i], pinned)
		return o
	}, func(i int, err error) opened {
		return opened{reading{name: places[i]}, fmt.Errorf("%s: %w", places[i], err)}
	})
	if err := c.Context.Err(); err != nil {
		return nil, nil, err
	}
	var rs []*reading
	t := &tally{vaults: len(places)}
	for i := range all {
		if r := &all[i].reading; all[i].err != nil {
			a.problem(c, t, r, all[i].err)
		} else {
			rs = append(rs, r)
		}
	}
	return rs, t, nil
}

// pinned reads what --trust names, or else what the gateway's own state pins,
// if a person named its configuration or no vault. None at all is no error.
func (a *app) pinned(c *cli.Context) (all []*ledger.Trust, err error) {
	cfg, err := a.loadConfig(c)
	_, named := a.configFile(c)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	args := c.StringSlice("trust")
	if len(args) == 0 && cfg != nil && (named || !c.IsSet("vault")) {
		args = []string{gateway.TrustFile(cfg)}
	}
	for _, arg := range args {
		t, err := a.loadTrust(arg)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// openReading opens one vault. Without anything pinned its own key is taken.
func (a *app) openReading(ctx context.Context, place string, pinned []*ledger.Trust) (r reading, err error) {
	r = reading{name: place, unpinned: len(pinned) == 0}
	if r.store, err = a.stores().Open(ctx, place); err != nil {
		return r, err
	}
	if !r.unpinned {
		r.trust = trustFor(ctx, r.store, pinned)
	} else if r.trust, err = ledger.UnpinnedTrust(ctx, r.store, vault.LedgerPrefix); err != nil {
		err = fmt.Errorf("reading the ledger of %s: %w", place, err)
	}
	return r, err
}

// trustFor chooses among what is pinned by the origin that the vault's marker
// claims. The claim is not believed: what is chosen then has to fit its ledger.
func trustFor(ctx context.Context, r vault.Reader, pinned []*ledger.Trust) *ledger.Trust {
	if len(pinned) > 1 {
		m, _, err := vault.ReadMarker(ctx, r)
		for _, t := range pinned {
			if err == nil && t.Origin == m.Origin {
				return t
			}
		}
	}
	return pinned[0]
}

func (a *app) loadTrust(arg string) (*ledger.Trust, error) {
	t, err := config.LoadTrust(a.fs, arg)
	if _, wrong := errors.AsType[*config.Error](err); wrong || errors.Is(err, fs.ErrNotExist) {
		return nil, &codedError{codeUsage, "give the path of trust.toml or a verifier key NAME+HASH+KEY", err}
	}
	return t, err
}

// tree opens the ledger of a reading under its trust.
func (r *reading) tree(c *cli.Context) (*ledger.Tree, error) {
	t, err := ledger.OpenTree(c.Context, r.store, vault.LedgerPrefix, r.trust)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger of %s: %w", r.name, err)
	}
	return t, nil
}

// fileExists tells whether a file is there.
func fileExists(fsys vfs.FS, name string) bool {
	_, err := fsys.Stat(name)
	return err == nil
}
