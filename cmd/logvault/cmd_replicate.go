package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/vault"
)

func (a *app) replicateCommand() *cli.Command {
	return &cli.Command{
		Name:  "replicate",
		Usage: "bring a second copy up to date, in one pass",
		Description: describe("Copies what the source's signed ledger names and the destination lacks, reads every object back, and only then\n"+
			"vouches for it in the copy's own log and with a cosignature. Never propagates a deletion. Safe under cron.\n\n"+
			"The first pass needs --init and --trust. The copy's own keys and its pinned trust are kept beside the\n"+
			"destination, in DEST.state, or where --state says; keep that directory on this machine only.",
			"logvault replicate --init --from /mnt/nas1/vault --to /srv/vault2 --trust trust.toml\n"+
				"logvault replicate --from /mnt/nas1/vault --to /srv/vault2", codePartial, codeIntegrity, codeRefused, codeNoVault, codeLocked),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "source vault `PATH`"},
			&cli.StringFlag{Name: "to", Usage: "destination vault `PATH`"},
			&cli.StringFlag{Name: "trust", Usage: "pinned `FILE|VKEY` of the source's ledger, for --init"},
			&cli.BoolFlag{Name: "init", Usage: "create the destination and pin the key"},
			&cli.StringFlag{Name: "name", Value: "replica", Usage: "`NAME` of the copy, for --init"},
			&cli.StringFlag{Name: "state", Usage: "directory `DIR` of the copy's keys (default: DEST.state)"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 4, Usage: "objects copied at once, `N`"},
			&cli.StringFlag{Name: "limit-rate", Usage: "bytes per second, such as 10MiB, `R`"},
			&cli.BoolFlag{Name: "without-keys", Usage: "leave out keys/: for a partner, whose copy then dies with the keys elsewhere"},
		},
		Action: a.replicate,
	}
}

// copyState names the files in a copy's state directory.
type copyState string

func (s copyState) file(name string) string { return filepath.Join(string(s), name) }
func (s copyState) trust() string           { return s.file("trust.toml") }
func (s copyState) logKey() string          { return s.file("copy.key") }
func (s copyState) cosignKey() string       { return s.file("cosign.key") }
func (s copyState) name() string            { return s.file("name") }

func (a *app) replicate(c *cli.Context) (err error) {
	if err := need(c, "from", "to"); err != nil {
		return err
	}
	var rate config.ByteSize
	if r := c.String("limit-rate"); r != "" {
		if rate, err = config.ParseByteSize(r); err != nil {
			return usagef("replicate: --limit-rate: %v", err)
		}
	}
	if c.Int("jobs") < 1 {
		return usagef("replicate: --jobs %d: expected at least 1", c.Int("jobs"))
	}
	from, err := a.stores().Open(c.Context, c.String("from"))
	if err != nil {
		return err
	}
	state := copyState(c.String("state"))
	if state == "" {
		state = copyState(strings.TrimRight(c.String("to"), "/") + ".state")
	}
	if c.Bool("init") {
		if err := a.initCopy(c, from, state); err != nil {
			return err
		}
	}
	lock, err := a.lockCopy(c, state)
	if err != nil {
		return err
	}
	defer closeInto(lock, &err)
	return a.pass(c, from, state, int64(rate))
}

func (a *app) lockCopy(c *cli.Context, state copyState) (io.Closer, error) {
	if !fileExists(a.fs, state.trust()) {
		return nil, &codedError{codeNoVault, "make the copy with --init and --trust; a lost --state directory is not made anew silently",
			fmt.Errorf("no copy state in %s for %s", string(state), c.String("to"))}
	}
	return a.fs.Lock(state.file("lock"))
}

// initCopy creates the destination and the copy's state. The trust file is
// written last: without it the copy does not exist for later passes.
func (a *app) initCopy(c *cli.Context, from vault.Store, state copyState) error {
	if err := need(c, "trust"); err != nil {
		return err
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return err
	}
	if _, err := ledger.OpenTree(c.Context, from, vault.LedgerPrefix, trust); err != nil {
		return fmt.Errorf("opening the source's ledger: %w", err)
	}
	marker, _, err := vault.ReadMarker(c.Context, from)
	if err != nil {
		return err
	}
	to, err := a.stores().Create(c.Context, c.String("to"))
	if err != nil {
		return err
	}
	name, origin := c.String("name"), marker.Origin+"/copy/"+c.String("name")
	logKey, logV, err := ledger.GenerateKey(a.random, origin)
	if err != nil {
		return err
	}
	cosignKey, cosignV, err := ledger.NewCosigner(a.random, origin)
	if err != nil {
		return err
	}
	if err := a.writeCopyState(state, map[string]string{"copy.key": logKey, "cosign.key": cosignKey, "name": name}); err != nil {
		return err
	}
	log, err := ledger.Create(c.Context, ledger.Config{Prefix: vault.CopyLogPrefix(name), Origin: origin, SignerKey: logKey, Record: to, Now: a.now})
	if err != nil {
		return err
	}
	if err := replicate.Init(c.Context, replicate.InitOptions{From: from, To: to, Trust: trust, Copy: log, Name: name, Key: logV, Cosigner: cosignV, Actor: "replica", Now: a.now}); err != nil {
		return err
	}
	trust.Copies = append(trust.Copies, ledger.TrustKey{Name: name, Key: logV})
	trust.Witnesses = append(trust.Witnesses, ledger.TrustKey{Name: origin, Key: cosignV})
	text, err := config.EncodeTrust(trust)
	if err != nil {
		return err
	}
	if err := vfs.CreateFile(a.fs, state.trust(), text, 0o644); err != nil {
		return err
	}
	a.talk(c, "copy %s created; its keys for everybody's trust.toml:\n  copies:    %s\n  witnesses: %s", name, logV, cosignV)
	return nil
}

func (a *app) writeCopyState(state copyState, files map[string]string) error {
	if err := vfs.MkdirAll(a.fs, string(state), 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err := vfs.CreateFile(a.fs, state.file(name), []byte(text+"\n"), 0o600); err != nil {
			return fmt.Errorf("writing the copy's state: %w", err)
		}
	}
	return nil
}

func (a *app) readCopyState(file string) (string, error) {
	data, err := vfs.ReadFile(a.fs, file, 1<<16)
	if err != nil {
		return "", fmt.Errorf("reading the copy's state: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// pass makes one replication pass and pins the size that it reached.
func (a *app) pass(c *cli.Context, from vault.Store, state copyState, rate int64) error {
	to, err := a.stores().Open(c.Context, c.String("to"))
	if err != nil {
		return err
	}
	trust, err := a.loadTrust(state.trust())
	if err != nil {
		return err
	}
	var text [3]string
	for i, file := range []string{state.logKey(), state.cosignKey(), state.name()} {
		if text[i], err = a.readCopyState(file); err != nil {
			return err
		}
	}
	log, err := ledger.Open(c.Context, ledger.Config{Prefix: vault.CopyLogPrefix(text[2]), Origin: trust.Origin + "/copy/" + text[2], SignerKey: text[0], Record: to, Now: a.now})
	if err != nil {
		return fmt.Errorf("opening the copy log: %w", err)
	}
	// The lock is held and the copy log is ours: nobody else writes here, and
	// temporary files are what a killed pass left.
	if _, err := to.Sweep(c.Context); err != nil {
		a.talk(c, "temporary files of a killed pass stay: %v", err)
	}
	bar := a.progress(c, 1, "replicating")
	sum, err := replicate.Run(c.Context, replicate.Options{From: from, To: to, Trust: trust, Copy: log, CosignKey: text[1], Actor: "replica", Jobs: c.Int("jobs"),
		Rate: rate, Now: a.now, WithoutKeys: c.Bool("without-keys"), Log: a.quietLogger(c), Progress: barProgress(bar)})
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return err
	}
	if err := a.pinSize(state, trust, sum); err != nil {
		return err
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "replicated", "ledger_size": sum.Size, "ledger_root": sum.Root.String(), "copied": sum.Copied,
			"bytes": sum.Bytes, "present": sum.Present, "missing": sum.Missing, "due": sum.Due, "unrecorded": sum.Unrecorded, "cosigned": sum.Cosigned, "immutability": sum.Immutability})
	}
	_, err = fmt.Fprintf(a.out, "replicated %d objects (%s), %d were there; the copy holds the ledger's %d entries in full; immutability: %s\n",
		sum.Copied, bytesText(sum.Bytes), sum.Present, sum.Size, sum.Immutability)
	return err
}

func (a *app) pinSize(state copyState, trust *ledger.Trust, sum replicate.Summary) error {
	if sum.Size == trust.KnownSize {
		return nil
	}
	trust.KnownSize, trust.KnownRoot = sum.Size, sum.Root.String()
	text, err := config.EncodeTrust(trust)
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(a.fs, state.trust(), text, 0o644); err != nil {
		return errors.Join(errors.New("pinning the size that was reached"), err)
	}
	return nil
}
