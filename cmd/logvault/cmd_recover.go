package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/internal/gateway"
)

func (a *app) recoverCommand() *cli.Command {
	return &cli.Command{
		Name:  "recover",
		Usage: "bring a gateway's state up to date with its vault, or make it anew",
		Description: describe("Two cases. The vault is whole in both, and `serve` does not run.\n\n"+
			"A state from a backup is older than its vault: without this command it is refused, because it would fork the\n"+
			"ledger. It takes over what the vault's ledger has had since, under its own key, and begins a new generation\n"+
			"of every file. What the gateway received after the backup and did not seal is lost.\n\n"+
			"A state is lost (a dead disk): name the vault and an absent or empty --state, with the recovery key and what\n"+
			"is in no copy. The recovery key vouches for a new signing key.",
			"logvault --config /var/lib/logvault/logvault.toml recover --from-vault\n"+
				"logvault recover --from-vault --vault /mnt/nas1/vault --trust trust.toml --state /var/lib/logvault \\\n"+
				"  --recovery-key /media/usb/recovery.key --auditor alice.pub.asc --source squid1=192.0.2.10",
			codePartial, codeIntegrity, codeRefused, codeNoVault, codeLocked, codeKey),
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "from-vault", Usage: "take the vault for what happened; required, as there is no other way"},
			&cli.StringFlag{Name: "vault", Usage: "vault `PATH|URL` whose state is lost"},
			&cli.StringFlag{Name: "trust", Usage: "pinned `FILE|VKEY` of that vault"},
			&cli.StringFlag{Name: "state", Usage: "make a new state in the absent or empty directory `DIR`"},
		}, newStateFlags()...),
		Action: a.recover,
	}
}

func (a *app) recover(c *cli.Context) error {
	if !c.Bool("from-vault") {
		return usagef("recover: --from-vault is required")
	}
	if c.IsSet("state") {
		return a.recoverLost(c)
	}
	for _, name := range []string{"vault", "trust", "auditor", "source", "listen"} {
		if c.IsSet(name) {
			return usagef("recover: --%s goes with --state, for a state that is lost", name)
		}
	}
	cfg, err := a.loadConfig(c)
	if err != nil {
		return err
	}
	key := ""
	if c.IsSet("recovery-key") {
		if key, err = a.readRecovery(c); err != nil {
			return err
		}
	}
	res, err := gateway.Recover(c.Context, a.env(a.quietLogger(c)), cfg, key)
	if err != nil {
		return err
	}
	file, _ := a.configFile(c)
	return a.printRecovered(c, file, res)
}

// recoverLost makes a state for a vault that is whole.
func (a *app) recoverLost(c *cli.Context) error {
	if err := need(c, "vault", "trust"); err != nil {
		return err
	}
	place := c.String("vault")
	if !strings.Contains(place, "://") {
		abs, err := filepath.Abs(place)
		if err != nil {
			return err
		}
		place = abs
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return err
	}
	o, err := a.stateOptions(c, place, trust)
	if err != nil {
		return err
	}
	store, err := a.stores().Open(c.Context, place)
	if err != nil {
		return err
	}
	res, err := gateway.RebuildState(c.Context, *o, store)
	if err != nil {
		return err
	}
	return a.printState(c, res)
}

func (a *app) printRecovered(c *cli.Context, file string, r gateway.RecoverResult) error {
	if flag(c, "json") {
		m := map[string]any{"message_type": "recovered", "ledger_was": r.From, "ledger_size": r.To, "files": r.Files, "sealed_bytes": r.Sealed, "orphans": r.Orphans, "policy_differs": r.Policy}
		if r.Rotation != nil {
			m["rotation_entry"], m["rotation_hash"], m["vkey"] = r.Rotation.Index, r.Rotation.Hash.String(), r.Rotation.New
		}
		if err := json.NewEncoder(a.out).Encode(m); err != nil {
			return err
		}
		return a.printLast(c, lostBackup, r.Last)
	}
	if r.From == r.To {
		fmt.Fprintf(a.out, "the state is not behind its vault: %s\n", entries(r.To))
	} else {
		fmt.Fprintf(a.out, "took over %s from the vault: the ledger has %d\n", entries(r.To-r.From), r.To)
		a.talk(c, "%s of the spool were sealed already; %s in a new generation from now on", bytesText(r.Sealed), count(int64(r.Files), "file"))
	}
	if r.Orphans > 0 {
		a.talk(c, "recorded as orphans, since no entry names them: %s", count(int64(r.Orphans), "object"))
	}
	if n := r.Rotation; n != nil {
		a.talk(c, "The ledger has a new key from entry %d on: %s\nEach replica refuses it until a person types this hash there:\n  logvault replicate --accept-rotation %s --from … --to …", n.Index, n.New, n.Hash)
	}
	if r.Policy {
		a.talk(c, "WARNING: %s decides otherwise than the last policy in the ledger. The next start would bring it into force:\ncompare classes, sources and auditors first.", file)
	}
	if r.From == r.To {
		return nil
	}
	return a.printLast(c, lostBackup, r.Last)
}
