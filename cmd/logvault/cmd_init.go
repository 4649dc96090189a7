package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/vault/location"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "create a vault and the state of its gateway",
		Description: describe("Creates the vault and the gateway's state (signing key, spool, configuration) in two directories\n"+
			"that are absent or empty. Prints the verifier key, to be pinned by every reader, and once the offline\n"+
			"recovery key: print it or store it where the gateway cannot read it.\n\n"+
			"Policies: "+strings.Join(policy.Presets(), ", ")+".\nThey quote a law; have a lawyer read them.",
			"logvault init --vault /mnt/nas/vault --state /var/lib/logvault --auditor auditor.pub.asc \\\n"+
				"  --policy one-year --source squid1=192.0.2.10/32 --recovery-out /media/usb/recovery.key", codePartial, codeRefused),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vault", Usage: "place `PATH|URL` of the vault: a directory on the NAS, or s3://HOST/BUCKET/PREFIX"},
			&cli.StringFlag{Name: "state", Usage: "directory `DIR` of the gateway's state, on a local disk"},
			&cli.StringSliceFlag{Name: "auditor", Usage: "auditor's OpenPGP public key `PUB.asc`; repeat it for a second"},
			&cli.StringFlag{Name: "origin", Usage: "the ledger's `NAME` for ever (default: host name/vault)"},
			&cli.StringFlag{Name: "policy", Value: "one-year", Usage: "retention `PRESET`"},
			&cli.StringFlag{Name: "zone", Usage: "time zone `ZONE` in which days begin (default: the preset's)"},
			&cli.StringSliceFlag{Name: "source", Usage: "proxy `NAME=CIDR[,CIDR]`; repeat it for more"},
			&cli.StringFlag{Name: "listen", Value: ":2049", Usage: "NFS address `ADDR:PORT`"},
			&cli.StringFlag{Name: "recovery-out", Usage: "write the recovery key to a new `FILE` (0600) instead of printing it"},
		},
		Action: a.init,
	}
}

func (a *app) init(c *cli.Context) error {
	if err := need(c, "vault", "state", "auditor"); err != nil {
		return err
	}
	cfg, err := a.newConfig(c)
	if err != nil {
		return err
	}
	var auditors [][]byte
	for _, file := range c.StringSlice("auditor") {
		data, err := vfs.ReadFile(a.fs, file, 1<<20)
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("reading the auditor's key: %w", err)
		}
		if err != nil {
			return &codedError{codeUsage, "give the auditor's public key file", fmt.Errorf("reading the auditor's key: %w", err)}
		}
		if _, err := pgp.ParseAuditor(data, a.now()); err != nil {
			return fmt.Errorf("%s: %w", file, err) // of several, which one
		}
		auditors = append(auditors, data)
	}
	recovery, err := a.openRecovery(c)
	if err != nil {
		return err
	}
	res, err := gateway.Init(c.Context, gateway.InitOptions{Env: a.env(a.quietLogger(c)), Config: cfg, Auditors: auditors, KeepRecovery: recovery.write})
	if err != nil {
		recovery.discard()
		return err
	}
	if flag(c, "json") {
		info := map[string]any{"message_type": "init", "config": res.ConfigFile, "trust": res.TrustFile, "vkey": res.VKey}
		if !c.IsSet("recovery-out") {
			info["recovery_key"] = res.RecoveryKey
		}
		return json.NewEncoder(a.out).Encode(info)
	}
	return a.printInit(c, res)
}

func (a *app) printInit(c *cli.Context, res *gateway.InitResult) error {
	_, err := fmt.Fprintf(a.out, "%s\n", res.VKey)
	a.talk(c, "The line above is the ledger's verifier key. Keep it with %s where the gateway cannot write:\nit is what every audit trusts.", res.TrustFile)
	for _, k := range res.Auditors {
		a.talk(c, "auditor %s %s", k.Fingerprint, k.UserID)
	}
	if len(res.Auditors) == 1 {
		a.talk(c, "warning: one auditor only; if that key is lost, nobody can ever read these logs")
	}
	if !c.IsSet("recovery-out") {
		// Not talk that --quiet silences: it is nowhere else.
		fmt.Fprintf(a.err, "\nOffline recovery key, shown once. Print it and put it in a safe:\n\n  %s\n\n", res.RecoveryKey)
	}
	a.talk(c, "Next: logvault --config %s serve", res.ConfigFile)
	return err
}

// newConfig makes the configuration that the flags ask for.
func (a *app) newConfig(c *cli.Context) (*config.Config, error) {
	place, err := vaultPlace(c.String("vault"))
	if err != nil {
		return nil, err
	}
	stateDir, err := filepath.Abs(c.String("state"))
	if err != nil {
		return nil, err
	}
	if !location.IsURL(place) && (inside(place, stateDir) || inside(stateDir, place)) {
		return nil, usagef("init: the vault %s and the state %s must not lie within each other: the state holds secrets", place, stateDir)
	}
	origin := c.String("origin")
	if origin == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("asking for the host name: %w", err)
		}
		origin = host + "/vault"
	}
	classes, err := policy.Preset(c.String("policy"))
	if err != nil {
		return nil, usagef("init: %v", err)
	}
	cfg := &config.Config{Version: config.Version, Origin: origin, Vault: place, State: stateDir, NFS: config.NFS{Listen: c.String("listen")}}
	cfg.Defaults()
	for _, p := range classes {
		if z := c.String("zone"); z != "" {
			if p.Zone, err = time.LoadLocation(z); err != nil {
				return nil, usagef("init: zone %q is unknown, expected a name such as Europe/Paris", z)
			}
		}
		cfg.Classes = append(cfg.Classes, config.FromPolicy(p))
	}
	if cfg.Sources, err = sourceFlags(c, cfg.Classes[0].Name); err != nil {
		return nil, err
	}
	if len(cfg.Sources) == 0 {
		return nil, usagef("init: --source is required: name at least one proxy, as NAME=CIDR")
	}
	return cfg, nil
}

// sourceFlags reads --source NAME=CIDR[,CIDR], of the given class.
func sourceFlags(c *cli.Context, class string) ([]config.Source, error) {
	var all []config.Source
	for _, s := range c.StringSlice("source") {
		name, list, ok := strings.Cut(s, "=")
		if !ok {
			return nil, usagef("%s: --source %q: expected NAME=CIDR, such as squid1=192.0.2.10/32", c.Command.Name, s)
		}
		src := config.Source{Name: name, Clients: []string{}, Class: class}
		if list != "" {
			src.Clients = strings.Split(list, ",")
		}
		all = append(all, src)
	}
	return all, nil
}

// vaultPlace is the place of a vault as a configuration keeps it.
func vaultPlace(place string) (string, error) {
	if location.IsURL(place) {
		return place, nil
	}
	return filepath.Abs(strings.TrimPrefix(place, "file://"))
}

// inside tells whether the cleaned absolute path child is parent or below it.
func inside(parent, child string) bool {
	rel, err := filepath.Rel(parent, child)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// recoveryFile is opened before anything is created: the key is made once, and
// a file that cannot be written must not cost it.
type recoveryFile struct {
	fs   vfs.FS
	file vfs.File
}

func (a *app) openRecovery(c *cli.Context) (*recoveryFile, error) {
	if !c.IsSet("recovery-out") {
		return nil, nil
	}
	f, err := a.fs.Create(c.String("recovery-out"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &codedError{codeRefused, "a recovery key is never overwritten; choose another file", fmt.Errorf("recovery key: %w", err)}
	}
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	return &recoveryFile{a.fs, f}, nil
}

func (r *recoveryFile) discard() {
	if r != nil {
		r.file.Close() // no vault came of it: the key, if any, opens nothing
		_ = r.fs.Remove(r.file.Name())
	}
}

func (r *recoveryFile) write(key string) error {
	if r == nil {
		return nil
	}
	_, werr := io.WriteString(r.file, key+"\n")
	err := errors.Join(werr, r.file.Sync(), r.file.Close(), r.fs.SyncDir(filepath.Dir(r.file.Name())))
	if err != nil {
		return fmt.Errorf("writing the recovery key: %w", err)
	}
	return nil
}
