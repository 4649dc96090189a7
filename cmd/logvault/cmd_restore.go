package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/vault"
	"logvault/verify"
)

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "rebuild a destroyed primary from a replica",
		Description: describe("Copies everything that the replica's ledger names and that is not due, hashes each object twice, and audits the\n"+
			"result. With --state and --recovery-key it also makes a new gateway state, so that the vault takes new segments\n"+
			"again under the same name: the recovery key vouches for a new signing key. The auditors' public keys and the\n"+
			"proxies' addresses are in no copy and must be given again; classes and sources come from the ledger.\n\n"+
			"What the lost gateway had received and not replicated is lost. A restore that was interrupted goes on where it\n"+
			"was. Proxies that had the export mounted must mount it anew.",
			"logvault restore --from /srv/vault2 --trust /srv/vault2.state/trust.toml --to /mnt/nas1/vault \\\n"+
				"  --state /var/lib/logvault --recovery-key /media/usb/recovery.key --auditor alice.pub.asc --auditor bob.pub.asc \\\n"+
				"  --source squid1=192.0.2.10 --source nginx1=192.0.2.11", codePartial, codeIntegrity, codeRefused, codeNoVault, codeLocked, codeKey),
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "replica `PATH|URL`"},
			&cli.StringFlag{Name: "to", Usage: "absent or empty directory `DIR` of the new primary"},
			&cli.StringFlag{Name: "trust", Usage: "pinned `FILE|VKEY`, such as the trust.toml of the replica's state"},
			&cli.StringFlag{Name: "state", Usage: "also make a gateway state in the absent or empty directory `DIR`"},
			&cli.BoolFlag{Name: "without-keys", Usage: "the replica was made without keys/; what it holds cannot be read until they are there"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 4, Usage: "objects copied at once, `N`"},
			&cli.StringFlag{Name: "limit-rate", Usage: "bytes per second, such as 10MiB, `R`"},
		}, newStateFlags()...),
		Action: a.restore,
	}
}

// newStateFlags say what is in no copy and a new state needs.
func newStateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "recovery-key", Usage: "`FILE` with the offline recovery key"},
		&cli.StringSliceFlag{Name: "auditor", Usage: "public key `PUB.asc` of each auditor that the ledger's policy names; repeat it"},
		&cli.StringSliceFlag{Name: "source", Usage: "clients of a proxy, `NAME=CIDR[,CIDR]`; repeat it for more"},
		&cli.StringFlag{Name: "listen", Value: ":2049", Usage: "NFS address `ADDR:PORT` of the new gateway"},
	}
}

func (a *app) restore(c *cli.Context) (err error) {
	if err := need(c, "from", "to", "trust"); err != nil {
		return err
	}
	o, err := a.restoreOptions(c)
	if err != nil {
		return err
	}
	var state *gateway.StateOptions
	if c.IsSet("state") {
		if state, err = a.stateOptions(c, o.Vault, o.Trust); err != nil {
			return err
		}
		if err := gateway.CheckState(c.Context, *state, o.From); err != nil {
			return err
		}
	} else if c.IsSet("recovery-key") || c.IsSet("auditor") || c.IsSet("source") || c.IsSet("listen") {
		return usagef("restore: --recovery-key, --auditor, --source and --listen go with --state")
	}
	store, err := a.restoreVault(c, o)
	if err != nil {
		return err
	}
	if err := a.auditRestored(c, store, o); err != nil {
		return err
	}
	if state == nil {
		return a.printLost(c, o.Trust, store)
	}
	res, err := gateway.RebuildState(c.Context, *state, store)
	if err != nil {
		return fmt.Errorf("%s is restored, but its state is not made: %w; then go on with `logvault recover --from-vault --vault %s --state …`", o.Vault, err, o.Vault)
	}
	return a.printState(c, res)
}

func (a *app) restoreOptions(c *cli.Context) (o gateway.RestoreOptions, err error) {
	o = gateway.RestoreOptions{Env: a.env(a.quietLogger(c)), WithoutKeys: c.Bool("without-keys"), Jobs: c.Int("jobs")}
	if o.Jobs < 1 {
		return o, usagef("restore: --jobs %d: expected at least 1", o.Jobs)
	}
	if r := c.String("limit-rate"); r != "" {
		rate, err := config.ParseByteSize(r)
		if err != nil {
			return o, usagef("restore: --limit-rate: %v", err)
		}
		o.Rate = int64(rate)
	}
	if strings.Contains(c.String("to"), "://") {
		return o, usagef("restore: --to %s: expected a directory; `logvault replicate` brings it elsewhere from there", c.String("to"))
	}
	if o.Vault, err = filepath.Abs(c.String("to")); err != nil {
		return o, err
	}
	if o.Trust, err = a.loadTrust(c.String("trust")); err != nil {
		return o, err
	}
	o.From, err = a.stores().Open(c.Context, c.String("from"))
	return o, err
}

// stateOptions reads what a person knows of a gateway whose state is lost.
func (a *app) stateOptions(c *cli.Context, place string, trust *ledger.Trust) (*gateway.StateOptions, error) {
	if err := need(c, "recovery-key", "auditor"); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.String("state"))
	if err != nil {
		return nil, err
	}
	if inside(place, dir) || inside(dir, place) {
		return nil, usagef("%s: the vault %s and the state %s must not lie within each other: the state holds secrets", c.Command.Name, place, dir)
	}
	o := &gateway.StateOptions{Env: a.env(a.quietLogger(c)), Trust: trust}
	o.Config = &config.Config{Version: config.Version, Vault: place, State: dir, NFS: config.NFS{Listen: c.String("listen")}}
	if o.Config.Sources, err = sourceFlags(c, ""); err != nil {
		return nil, err
	}
	if o.Recovery, err = a.readRecovery(c); err != nil {
		return nil, err
	}
	for _, file := range c.StringSlice("auditor") {
		data, err := vfs.ReadFile(a.fs, file, 1<<20)
		if err != nil {
			return nil, &codedError{codeUsage, "give the auditor's public key file", fmt.Errorf("reading the auditor's key: %w", err)}
		}
		o.Auditors = append(o.Auditors, data)
	}
	return o, nil
}

func (a *app) readRecovery(c *cli.Context) (string, error) {
	data, err := vfs.ReadFile(a.fs, c.String("recovery-key"), 4096)
	if err != nil {
		return "", &codedError{codeKey, "type the key of the paper copy into a file, one line", fmt.Errorf("reading the recovery key: %w", err)}
	}
	return strings.TrimSpace(string(data)), nil
}

// restoreVault copies the replica to the place of the new primary.
func (a *app) restoreVault(c *cli.Context, o gateway.RestoreOptions) (store vault.Store, err error) {
	bar := a.progress(c, 1, "restoring")
	o.Progress = barProgress(bar)
	r, err := gateway.BeginRestore(c.Context, o)
	if err != nil {
		return nil, err
	}
	defer closeInto(r, &err)
	sum, err := r.Run(c.Context)
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return nil, err
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return r.Store(), a.printRestored(c, o.Vault, sum)
}

func (a *app) printRestored(c *cli.Context, place string, sum replicate.Summary) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "restored", "vault": place, "ledger_size": sum.Size, "ledger_root": sum.Root.String(),
			"copied": sum.Copied, "bytes": sum.Bytes, "present": sum.Present, "missing": sum.Missing, "due": sum.Due, "rejected": sum.Rejected})
	}
	_, err := fmt.Fprintf(a.out, "restored %d objects (%s), %d were there; the vault holds the ledger's %d entries in full\n", sum.Copied, bytesText(sum.Bytes), sum.Present, sum.Size)
	if n := sum.Due + sum.Missing; n > 0 {
		a.talk(c, "%d objects that are past their date were not restored", n)
	}
	return err
}

// auditRestored is `verify` of what was restored, at its default depth.
func (a *app) auditRestored(c *cli.Context, store vault.Store, o gateway.RestoreOptions) error {
	vo := verify.Options{Now: a.now(), Depth: verify.Objects, WithoutKeys: o.WithoutKeys}
	passed, err := a.audit(c, vo, &reading{name: o.Vault, store: store, trust: o.Trust})
	if err == nil && !passed {
		err = &codedError{codeIntegrity, "docs/FINDINGS.md says what each code means; a gateway state for it is made with `logvault recover --from-vault`", errors.New("the restored vault does not pass its audit")}
	}
	return err
}

// printLost says what no copy can tell: how much the lost gateway held alone.
func (a *app) printLost(c *cli.Context, trust *ledger.Trust, store vault.Store) error {
	last, err := gateway.LastSeen(c.Context, store, trust)
	if err != nil {
		return err
	}
	return a.printLast(c, lostState, last)
}

// Why something is lost, for printLast.
const (
	lostState  = "What the lost gateway had received and this vault does not have is lost."
	lostBackup = "What was received after the backup and not sealed is lost."
)

func (a *app) printLast(c *cli.Context, why string, last []gateway.LastReceived) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "newest", "sources": last})
	}
	a.talk(c, "%s How much that is cannot be known from here;\ncompare with the proxies' own logs. The newest that is here was received", why)
	for _, l := range last {
		when := "never: nothing of it is here"
		if !l.At.IsZero() {
			when = l.At.UTC().Format(time.RFC3339)
		}
		a.talk(c, "  from %-16s %s", l.Source, when)
	}
	return nil
}

// printState tells what a person has to do with a new state.
func (a *app) printState(c *cli.Context, res *gateway.StateResult) error {
	if flag(c, "json") {
		if err := json.NewEncoder(a.out).Encode(map[string]any{"message_type": "state", "config": res.ConfigFile, "trust": res.TrustFile, "vkey": res.VKey,
			"rotation_entry": res.Rotation.Index, "rotation_hash": res.Rotation.Hash.String(), "ledger_size": res.Size, "orphans": res.Orphans, "sources_without_clients": res.Closed}); err != nil {
			return err
		}
		return a.printLast(c, lostState, res.Last)
	}
	if _, err := fmt.Fprintf(a.out, "%s\n", res.VKey); err != nil {
		return err
	}
	a.talk(c, "The line above is the ledger's new verifier key, from entry %d on. Give it, with %s, to everybody who checks.", res.Rotation.Index, res.TrustFile)
	a.talk(c, "Each replica refuses it until a person types this hash there:\n  logvault replicate --accept-rotation %s --from … --to …", res.Rotation.Hash)
	if res.Orphans > 0 {
		a.talk(c, "%d objects that no entry names were recorded as orphans", res.Orphans)
	}
	if len(res.Closed) > 0 {
		a.talk(c, "No clients yet for: %s. Name them in %s, or the proxies cannot mount.", strings.Join(res.Closed, ", "), res.ConfigFile)
	}
	if err := a.printLast(c, lostState, res.Last); err != nil {
		return err
	}
	a.talk(c, "Next: logvault --config %s serve. Proxies must unmount and mount the export again.", res.ConfigFile)
	return nil
}
