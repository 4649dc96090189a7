package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/vault"
	"logvault/vault/dir"
)

func (a *app) replicateCommand() *cli.Command {
	return &cli.Command{
		Name:  "replicate",
		Usage: "bring a second copy up to date, in one pass",
		Description: describe("Copies what the source's signed ledger names and the destination lacks, reads every object back, makes it\n"+
			"immutable, and only then vouches for it in the copy's own log and with a cosignature. Never propagates a\n"+
			"deletion. Safe under cron. Run it on the second machine, so that the first has no right there.\n\n"+
			"The first pass needs --init and --trust. The copy's own keys and its pinned trust are kept beside the\n"+
			"destination, in DEST.state, or where --state says; keep that directory on this machine only.\n\n"+
			"--immutable also sets the file system's immutable flag, which only root can take away again (chattr -i; the\n"+
			"directories get +a). A machine that is pushed to runs --protect as root, which needs neither source nor state.",
			"logvault replicate --init --from /mnt/nas1/vault --to /srv/vault2 --trust trust.toml\n"+
				"logvault replicate --from /mnt/nas1/vault --to /srv/vault2\n"+
				"logvault replicate --protect --to /srv/vault2 --trust trust.toml", codePartial, codeIntegrity, codeRefused, codeNoVault, codeLocked),
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "source vault `PATH|URL`"},
			&cli.StringFlag{Name: "to", Usage: "destination vault `PATH|URL`"},
			&cli.StringFlag{Name: "trust", Usage: "pinned `FILE|VKEY` of the source's ledger, for --init and --protect"},
			&cli.BoolFlag{Name: "init", Usage: "create the destination and pin the key; after an interruption, again"},
			&cli.StringFlag{Name: "name", Value: "replica", Usage: "`NAME` of the copy, for --init"},
			&cli.StringFlag{Name: "state", Usage: "directory `DIR` of the copy's keys (default: DEST.state)"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 8, Usage: "objects copied at once, `N`: enough that one is written while another waits for the disk"},
			&cli.StringFlag{Name: "limit-rate", Usage: "bytes per second, such as 10MiB, `R`"},
			&cli.IntFlag{Name: "attempts", Value: 5, Usage: "tries of each step while a machine is away, `N`; the waits double from 1 s to 1 h"},
			&cli.BoolFlag{Name: "without-keys", Usage: "leave out keys/: for a partner, whose copy then dies with the keys elsewhere"},
			&cli.BoolFlag{Name: "immutable", Usage: "set the file system's immutable flag (a directory on this machine, as root)"},
			&cli.BoolFlag{Name: "protect", Usage: "copy nothing: set the immutable flag on what --to holds"},
			&cli.BoolFlag{Name: "cosign-back", Usage: "store this copy's cosignature at the source too"},
			&cli.StringFlag{Name: "accept-rotation", Usage: "`HASH` of the entry by which the recovery key replaced the ledger key, as `restore` printed it"},
		}, volumeFlags()...),
		Action: a.replicate,
	}
}

// passFlags are the flags of a pass.
type passFlags struct {
	rate           int64
	acceptRotation vault.Hash
}

func readPassFlags(c *cli.Context) (f passFlags, err error) {
	if r := c.String("limit-rate"); r != "" {
		rate, err := config.ParseByteSize(r)
		if err != nil {
			return f, usagef("replicate: --limit-rate: %v", err)
		}
		f.rate = int64(rate)
	}
	for _, name := range []string{"jobs", "attempts"} {
		if c.Int(name) < 1 {
			return f, usagef("replicate: --%s %d: expected at least 1", name, c.Int(name))
		}
	}
	if h := c.String("accept-rotation"); h != "" {
		if f.acceptRotation, err = vault.ParseHash(h); err != nil {
			return f, usagef("replicate: --accept-rotation: %v", err)
		}
	}
	return f, nil
}

func (a *app) replicate(c *cli.Context) (err error) {
	if c.Bool("protect") {
		return a.protectCopy(c)
	}
	if err := need(c, "from", "to"); err != nil {
		return err
	}
	if c.IsSet("volume-size") {
		return a.volumes(c)
	}
	flags, err := readPassFlags(c)
	if err != nil {
		return err
	}
	state, err := copyStateOf(c)
	if err != nil {
		return err
	}
	from, err := a.stores().Open(c.Context, c.String("from"))
	if err != nil {
		return err
	}
	var begin *newCopy
	if c.Bool("init") {
		if begin, err = a.checkInit(c, from); err != nil {
			return err
		}
	}
	lock, err := a.lockCopy(c, state)
	if err != nil {
		return err
	}
	defer closeInto(lock, &err)
	if begin != nil {
		if err := a.initCopy(c, from, state, begin); err != nil {
			return err
		}
	}
	return a.pass(c, from, state, flags)
}

// openCopy opens the destination of a pass and what it signs with.
func (a *app) openCopy(c *cli.Context, state copyState) (o replicate.Options, err error) {
	to, err := a.stores().Open(c.Context, c.String("to"))
	if err != nil {
		return o, err
	}
	if c.Bool("immutable") {
		if err := useFlags(to); err != nil {
			return o, err
		}
	}
	trust, err := a.loadTrust(state.trust())
	if err != nil {
		return o, err
	}
	var k copyKeys
	for file, text := range map[string]*string{"copy.key": &k.log, "cosign.key": &k.cosign, "name": &k.name} {
		if *text, err = a.readCopyState(state.file(file)); err != nil {
			return o, err
		}
	}
	k.origin = trust.Origin + "/copy/" + k.name
	log, err := ledger.Open(c.Context, a.copyLog(to, k))
	if err != nil {
		return o, fmt.Errorf("opening the copy log: %w", err)
	}
	// The lock is held and the copy log is ours: nobody else writes here, and
	// temporary files are what a killed pass left.
	if _, err := to.Sweep(c.Context); err != nil {
		a.talk(c, "temporary files of a killed pass stay: %v", err)
	}
	return replicate.Options{To: to, Trust: trust, Copy: log, CosignKey: k.cosign}, nil
}

// useFlags asks a store to set flags.
func useFlags(store vault.Store) error {
	d, ok := store.(*dir.Store)
	if !ok {
		return usagef("replicate: the immutable flag is of a directory on this machine: run --protect on the machine that has the disk")
	}
	d.UseFlags()
	return nil
}

// pass makes one replication pass and pins the size that it reached.
func (a *app) pass(c *cli.Context, from vault.Store, state copyState, flags passFlags) (err error) {
	o, err := a.openCopy(c, state)
	if err != nil {
		return err
	}
	done, err := openMemory(a.fs, state.file("settled"))
	if err != nil {
		return err
	}
	defer closeInto(done.f, &err)
	if a.getenv("GOGC") == "" {
		// What lives is small and the packets of a line are many: at the 25 % that
		// suit the sealer a third of the processor's time was collection (measured).
		debug.SetGCPercent(200)
	}
	known := *o.Trust
	bar := a.progress(c, 1, "replicating")
	o.From, o.Actor, o.Jobs, o.Attempts, o.Rate, o.AcceptRotation = from, "replica", c.Int("jobs"), c.Int("attempts"), flags.rate, flags.acceptRotation
	o.Now, o.WithoutKeys, o.Log, o.Memory, o.Progress = a.now, c.Bool("without-keys"), a.quietLogger(c), done, barProgress(bar)
	if c.Bool("cosign-back") {
		o.CosignBack = from
	}
	sum, err := replicate.Run(c.Context, o)
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return err
	}
	if err := a.pinSize(state, &known, sum); err != nil {
		return err
	}
	if err := a.fs.Remove(state.file("settled")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.Bool("immutable") && sum.Immutability.Weaker(vault.LevelFlag) {
		a.talk(c, "the immutable flag was not reached everywhere: it needs root, and ext4, xfs or btrfs")
	}
	if s, ok := o.To.(interface{ Shortfall() string }); ok && s.Shortfall() != "" {
		o.Log.Warn("the destination does not lock what it holds", "reason", s.Shortfall())
	}
	return a.printPass(c, sum)
}

// printPass sums a pass up. With --quiet a good pass prints nothing: cron mails
// what is printed.
func (a *app) printPass(c *cli.Context, sum replicate.Summary) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "replicated", "ledger_size": sum.Size, "ledger_root": sum.Root.String(), "copied": sum.Copied,
			"bytes": sum.Bytes, "present": sum.Present, "missing": sum.Missing, "due": sum.Due, "unrecorded": sum.Unrecorded, "rejected": sum.Rejected, "cosigned": sum.Cosigned,
			"immutability": sum.Immutability})
	}
	if flag(c, "quiet") {
		return nil
	}
	_, err := fmt.Fprintf(a.out, "replicated %s (%s), %d were there; the copy holds the ledger's %s in full; immutability: %s\n",
		count(sum.Copied, "object"), bytesText(sum.Bytes), sum.Present, entries(sum.Size), sum.Immutability)
	return err
}

// pinSize pins the head that was reached, and the ledger key that signed it.
func (a *app) pinSize(state copyState, known *ledger.Trust, sum replicate.Summary) error {
	if sum.Size == known.KnownSize && sum.Trust.Log == known.Log {
		return nil
	}
	trust := *sum.Trust
	trust.KnownSize, trust.KnownRoot = sum.Size, sum.Root.String()
	text, err := config.EncodeTrust(&trust)
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(a.fs, state.trust(), text, 0o644); err != nil {
		return errors.Join(errors.New("pinning the size that was reached"), err)
	}
	return nil
}

// protectCopy sets the flags on what another machine has pushed here.
func (a *app) protectCopy(c *cli.Context) error {
	if err := need(c, "to", "trust"); err != nil {
		return err
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return err
	}
	store, err := a.stores().Open(c.Context, c.String("to"))
	if err == nil {
		err = useFlags(store)
	}
	if err != nil {
		return err
	}
	sum, err := replicate.Protect(c.Context, replicate.StandingOptions{Vault: store.(*dir.Store), Trust: trust, Jobs: c.Int("jobs"), Now: a.now, Log: a.quietLogger(c)})
	if err != nil {
		return err
	}
	if flag(c, "json") {
		err = json.NewEncoder(a.out).Encode(map[string]any{"message_type": "protected", "ledger_size": sum.Size, "objects": sum.Objects, "fresh": sum.Fresh, "immutability": sum.Level})
	} else if !flag(c, "quiet") {
		_, err = fmt.Fprintf(a.out, "protected %s, %d of them new; immutability: %s\n", count(sum.Objects, "object"), sum.Fresh, sum.Level)
	}
	if err == nil && sum.Level.Weaker(vault.LevelFlag) {
		err = &codedError{codeFailure, "run it as root, on a file system that knows the flag: ext4, xfs or btrfs", fmt.Errorf("the immutable flag was not reached: %s", sum.Level)}
	}
	return err
}
