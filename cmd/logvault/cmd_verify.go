package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/verify"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "audit a vault: nothing changed, lost, or kept too long",
		Description: describe("Needs no decryption key. --depth chain checks the ledger, objects (default) also re-reads every byte, content also\n"+
			"decrypts with --key or --gpg. --known and --against find a history that was cut off or rewritten.\n"+
			"Of several vaults each is audited: one that is away is said and keeps no other from its audit, and the exit\n"+
			"code is that of the worst.\n"+
			"docs/FINDINGS.md lists the finding codes.",
			"logvault verify --vault /mnt/nas2/vault --trust trust.toml --known 4711", codePartial, codeIntegrity, codeNoVault, codeKey),
		Flags: append(append(readFlags(), keyFlags()...),
			&cli.StringFlag{Name: "depth", Value: "objects", Usage: "`DEPTH`: chain, objects or content"},
			&cli.StringFlag{Name: "against", Usage: "compare with the copy at `PATH|URL`, in both directions"},
			&cli.StringSliceFlag{Name: "residual", Usage: "look in `DIR|URL` (.zfs/snapshot, .snapshots, any directory, the old versions of a bucket) for what must be destroyed, and for keys; repeat it"},
			&cli.StringFlag{Name: "known", Usage: "the history must contain `SIZE[:ROOT]`, or the checkpoint kept in FILE"},
			&cli.StringFlag{Name: "since", Usage: "do not re-read segments recorded before this `TIME`"},
			&cli.StringFlag{Name: "tz", Usage: "zone `ZONE` of a time that has none (default: local)"},
			&cli.BoolFlag{Name: "strict", Usage: "warnings fail the audit too"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "objects read at once, `N` (default: one per core)"},
		),
		Action: a.verify,
	}
}

func (a *app) verify(c *cli.Context) error {
	opts, err := a.verifyOptions(c)
	if err != nil {
		return err
	}
	rs, t, err := a.readings(c)
	if err != nil {
		return err
	}
	for _, r := range rs {
		passed, err := a.verifyOne(c, opts, r)
		switch {
		case c.Context.Err() != nil:
			return c.Context.Err()
		case err != nil:
			a.problem(c, t, r, err)
		case !passed:
			t.add(errAudit)
		}
	}
	return t.err()
}

// errAudit ends a command whose audit found errors; what they are it has printed.
var errAudit = &codedError{codeIntegrity, "docs/FINDINGS.md says what each code means and what to do", errors.New("the audit failed")}

func (a *app) verifyOptions(c *cli.Context) (o verify.Options, err error) {
	o.Now, o.Jobs = a.now(), c.Int("jobs")
	if o.Depth, err = verify.ParseDepth(c.String("depth")); err != nil {
		return o, usagef("verify: %v", err)
	}
	if o.Depth == verify.Content {
		if o.Opener, err = a.needOpener(c); err != nil {
			return o, err
		}
	} else if c.IsSet("key") || c.Bool("gpg") {
		return o, usagef("verify: a key is used with --depth content only")
	}
	if c.IsSet("since") {
		if o.Since, err = a.parseTime(c, "since"); err != nil {
			return o, err
		}
	}
	if c.IsSet("against") {
		if o.Against, err = a.stores().Open(c.Context, c.String("against")); err != nil {
			return o, err
		}
	}
	if arg := c.String("known"); c.IsSet("known") && (arg == "" || !fileExists(a.fs, arg)) {
		if o.Known, err = verify.ParseKnown(arg); err != nil {
			return o, usagef("verify: --known: %v, or a file", err)
		}
	}
	o.Residual, err = a.residualPlaces(c)
	return o, err
}

// known reads --known where it is a file with a kept checkpoint, which counts
// only if it is signed by the pinned key.
func (a *app) known(c *cli.Context, r *reading) (*verify.Known, error) {
	arg := c.String("known")
	raw, err := vfs.ReadFile(a.fs, arg, 1<<20)
	if err != nil {
		return nil, err
	}
	cp, err := ledger.ParseCheckpoint(raw, r.trust)
	if errors.Is(err, ledger.ErrUnsigned) { // or signed before the key was rotated
		if tree, terr := r.tree(c); terr == nil {
			cp, err = tree.Head(c.Context, raw)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--known %s: %w", arg, err)
	}
	return &verify.Known{Size: cp.Size, Root: cp.Root, HasRoot: true}, nil
}

func (a *app) verifyOne(c *cli.Context, o verify.Options, r *reading) (passed bool, err error) {
	if c.IsSet("known") && o.Known == nil {
		if o.Known, err = a.known(c, r); err != nil {
			return false, err
		}
	}
	o.Settle = settle
	return a.audit(c, o, r)
}

// audit audits one vault, prints what it finds and tells whether it passed.
func (a *app) audit(c *cli.Context, o verify.Options, r *reading) (passed bool, err error) {
	o.Vault, o.Trust, o.Unpinned = r.store, r.trust, r.unpinned
	bar := a.progress(c, 1, "verifying")
	o.Progress = barProgress(bar)
	sum, err := verify.Run(c.Context, o, func(f verify.Finding) { a.printFinding(c, a.out, r.name, f) })
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return false, err
	}
	passed = sum.Errors == 0 && sum.Complete && (!c.Bool("strict") || sum.Warnings == 0)
	return passed, a.printAudit(c, r.name, sum, passed)
}

// settle waits for a gateway that has stored an object and not yet its entry.
func settle(ctx context.Context, attempt int) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(2 * time.Second):
		return attempt <= 2
	}
}

// barProgress adapts a bar, which may be nil, to a progress function.
func barProgress(bar *progressbar.ProgressBar) func(done, total int64) {
	if bar == nil {
		return nil
	}
	return func(done, total int64) {
		bar.ChangeMax64(max(total, 1))
		_ = bar.Set64(done) // talk only
	}
}

func (a *app) printFinding(c *cli.Context, w io.Writer, vaultName string, f verify.Finding) {
	if flag(c, "json") {
		json.NewEncoder(w).Encode(struct {
			Type     string `json:"message_type"`
			Vault    string `json:"vault"`
			Code     string `json:"code"`
			Level    string `json:"level"`
			Object   string `json:"object,omitempty"`
			Entry    int64  `json:"entry"`
			Detail   string `json:"detail"`
			Expected string `json:"expected,omitempty"`
			Got      string `json:"got,omitempty"`
		}{"finding", vaultName, f.Code, f.Level.String(), f.Object, f.Entry, f.Detail, f.Expected, f.Got}) // a broken pipe shows at the summary
		return
	}
	if f.Level != verify.Note || !flag(c, "quiet") {
		fmt.Fprintln(w, f)
	}
}

func (a *app) printAudit(c *cli.Context, name string, s verify.Summary, passed bool) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{
			"message_type": "verified", "vault": name, "passed": passed, "depth": s.Depth.String(), "complete": s.Complete,
			"ledger_size": s.Checkpoint.Size, "ledger_root": s.Checkpoint.Root.String(), "witnessed": s.Witnessed, "stamped": s.Stamped,
			"entries": s.Entries, "segments": s.Segments, "lines": s.Lines, "objects": s.Objects, "bytes": s.Bytes,
			"identical": s.Compared.Identical, "missing_there": s.Compared.MissingThere, "missing_here": s.Compared.MissingHere,
			"differing": s.Compared.Differing, "unknown": s.Compared.Unknown, "scanned": s.Scanned, "notes": s.Notes, "warnings": s.Warnings, "errors": s.Errors,
		})
	}
	verdict := "PASSED"
	if !passed {
		verdict = "FAILED"
	}
	_, err := fmt.Fprintf(a.out, "%s %s at depth %s: %d entries, %s with %s, %s (%s) re-read, %s, %s\n",
		verdict, name, s.Depth, s.Entries, count(s.Segments, "segment"), count(s.Lines, "line"),
		count(s.Objects, "object"), bytesText(s.Bytes), count(int64(s.Errors), "error"), count(int64(s.Warnings), "warning"))
	if c.IsSet("against") {
		fmt.Fprintf(a.out, "compared: %s\n", s.Compared)
	}
	if c.IsSet("residual") {
		fmt.Fprintf(a.out, "residual: %d files looked at\n", s.Scanned)
	}
	if s.Checkpoint.Size > 0 {
		fmt.Fprintf(a.out, "ledger %d:%s (note it for the next --known)\n", s.Checkpoint.Size, s.Checkpoint.Root)
		if s.Witnessed < s.Checkpoint.Size {
			fmt.Fprintf(a.out, "not witnessed: the last %d entries rest on the gateway's key alone\n", s.Checkpoint.Size-s.Witnessed)
		}
		if s.Stamped > 0 {
			fmt.Fprintf(a.out, "time-stamped: the first %d entries existed at %s, by the authority's clock\n", s.Stamped, s.StampedAt.Format(time.RFC3339))
		}
	}
	return err
}
