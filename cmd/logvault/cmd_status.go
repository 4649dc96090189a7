package main

import (
	"context"
	"encoding/json"

	"github.com/urfave/cli/v2"

	"logvault/internal/gateway"
	"logvault/ledger"
	"logvault/vault"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say how the gateway and its vault are, or several vaults",
		Description: describe("Says what waits in the spool and how old it is, how long the ledger is, how much room is left, and what\n"+
			"a person should look at. Of each copy that a [[copy]] of the configuration declares: what it holds and since\n"+
			"when, how it protects it, and whether what is due can be erased there; whether three copies on two media at two\n"+
			"sites exist; and how much has one copy only. A copy that cannot be reached is said, and is no error. If the\n"+
			"vault itself is away, the rest is said all the same.\n\n"+
			"With --vault it needs no gateway: of each vault it says what its signed ledger tells, and whether another of\n"+
			"them has more of the same ledger. One that is away hides nothing of the others; the exit code is that of the\n"+
			"worst.",
			"logvault --config /var/lib/logvault/logvault.toml status\n"+
				"logvault status --vault s3://s3.lan/logs/gw1 --vault s3://s3.lan/logs/gw2 --trust gw1.toml --trust gw2.toml",
			codePartial, codeIntegrity, codeNoVault, codeLocked),
		Flags:  readFlags(),
		Action: a.status,
	}
}

func (a *app) status(c *cli.Context) error {
	if c.IsSet("vault") {
		return a.statusOfVaults(c)
	}
	if c.IsSet("trust") {
		return usagef("status: --trust goes with --vault; a gateway's own is in its state")
	}
	cfg, err := a.loadConfig(c)
	if err != nil {
		return err
	}
	env := a.env(a.quietLogger(c))
	st, unopened, err := gateway.Examine(c.Context, env, cfg)
	if err != nil {
		return err
	}
	copies, err := gateway.SurveyCopies(c.Context, env, cfg)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		err = json.NewEncoder(a.out).Encode(struct {
			Type string `json:"message_type"`
			gateway.Status
			Copies *gateway.CopiesStatus `json:"copies"`
			Good   bool                  `json:"copies_3_2_1"`
		}{"status", st, copies, copies.Good()})
	} else {
		a.printStatus(st)
		a.printCopies(copies)
	}
	if err == nil {
		err = unopened
	}
	return err
}

// statusOfVaults tells of each vault given, and fails with the worst of what is
// wrong with them.
func (a *app) statusOfVaults(c *cli.Context) error {
	pinned, err := a.pinned(c)
	if err != nil {
		return err
	}
	all := gateway.SurveyVaults(c.Context, c.StringSlice("vault"), func(ctx context.Context, place string) (vault.Store, *ledger.Trust, bool, error) {
		r, err := a.openReading(ctx, place, pinned)
		return r.store, r.trust, r.unpinned, err
	})
	if err := c.Context.Err(); err != nil {
		return err
	}
	t := &tally{vaults: len(all)}
	for i, k := range all {
		if err := a.printVault(c, i, k); err != nil {
			return err
		}
		err := k.Err
		if err == nil && k.Unpinned {
			err = errUnpinned
		}
		t.add(err)
	}
	return t.err()
}
