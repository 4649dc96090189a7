package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/gateway"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say how the gateway and its vault are",
		Description: describe("Says what waits in the spool and how old it is, how long the ledger is, how much room is left, and what\n"+
			"a person should look at. Of each copy that a [[copy]] of the configuration declares: what it holds and since\n"+
			"when, how it protects it, and whether what is due can be erased there; whether three copies on two media at two\n"+
			"sites exist; and how much has one copy only. A copy that cannot be reached is said, and is no error.",
			"logvault --config /var/lib/logvault/logvault.toml status", codeIntegrity, codeNoVault, codeLocked),
		Action: a.status,
	}
}

func (a *app) status(c *cli.Context) (err error) {
	svc, cfg, err := a.connect(c)
	if err != nil {
		return err
	}
	defer closeInto(svc, &err)
	st, err := svc.Status(c.Context)
	if err != nil {
		return err
	}
	copies, err := gateway.SurveyCopies(c.Context, a.env(a.quietLogger(c)), cfg)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(struct {
			Type string `json:"message_type"`
			gateway.Status
			Copies *gateway.CopiesStatus `json:"copies"`
			Good   bool                  `json:"copies_3_2_1"`
		}{"status", st, copies, copies.Good()})
	}
	a.printStatus(st)
	a.printCopies(copies)
	return nil
}

func (a *app) printStatus(st gateway.Status) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	running := "not running"
	if st.Serving {
		running = "running"
	}
	row("gateway", "%s, %s", st.Origin, running)
	if st.VaultTotal > 0 {
		row("vault", "%s, %s free of %s", st.Vault, bytesText(st.VaultFree), bytesText(st.VaultTotal))
	} else { // a bucket does not tell, nor a vault that is away
		row("vault", "%s", st.Vault)
	}
	row("ledger", "%d entries, root %s", st.LedgerSize, st.LedgerRoot)
	if st.Spool.Unsealed == 0 {
		row("spool", "nothing waits to be sealed; %s of room", bytesText(st.Spool.Free))
	} else {
		row("spool", "%s wait on this disk only, the oldest for up to %s; %s of room", bytesText(st.Spool.Unsealed), age(a.now().Sub(st.Spool.OldestUnsealed)), bytesText(st.Spool.Free))
	}
	if !st.LastSeal.IsZero() {
		row("sealed", "last %s ago", age(a.now().Sub(st.LastSeal)))
	}
	for _, o := range st.Outside {
		if o.Size == 0 {
			row("outside", "%s: never", o.Name)
		} else {
			row("outside", "%s: up to entry %d, %s ago", o.Name, o.Size-1, age(a.now().Sub(o.At)))
		}
	}
	if st.NFS != nil {
		n := st.NFS
		row("nfs", "%d connections, %d files, %d writes of %s, %d commits", n.Conns, n.Files, n.Writes, bytesText(n.Bytes), n.Commits)
		if n.Refused+n.Denied+n.Foreign+n.Forged > 0 {
			row("refused", "%d connections, %d mounts, %d calls on another source's files, %d forged handles", n.Refused, n.Denied, n.Foreign, n.Forged)
		}
	}
	if w := st.Watch; w != nil {
		row("watched", "%d files, %s taken in", w.Files, bytesText(w.Bytes))
		if w.Uncopied+w.Vanished > 0 {
			row("WARNING", "%d watched files were truncated without a copy, %d were gone before they were read: lines may be lost; docs/MOUNTING.md says how to rotate", w.Uncopied, w.Vanished)
		}
	}
	for _, k := range st.Classes {
		row("class", "%s kept %s (%s)", k.Name, k.Period, k.Basis)
		if !k.ValidUntil.IsZero() && k.ValidUntil.Before(a.now()) {
			row("WARNING", "the legal basis of class %s ended on %s; review the policy", k.Name, k.ValidUntil.Format(time.DateOnly))
		}
	}
	for _, k := range st.Auditors {
		row("auditor", "%s", k.Fingerprint)
		if left := k.Expires.Sub(a.now()); !k.Expires.IsZero() && left < 60*24*time.Hour {
			row("WARNING", "the key of auditor %s expires on %s; sealing goes on, renew it", k.Fingerprint, k.Expires.Format(time.DateOnly))
		}
	}
	if len(st.Auditors) == 1 {
		row("WARNING", "one auditor only: if that key is lost, nobody can ever read these logs")
	}
	if st.Spool.Conflicts > 0 {
		row("WARNING", "%d writes overlapped stored bytes with other content; both are kept", st.Spool.Conflicts)
	}
	if st.NFS != nil && !st.NFS.FullSince.IsZero() {
		row("WARNING", "no room to take in, for %s: NFS clients are told to wait, nothing is lost; %d calls so far", age(a.now().Sub(st.NFS.FullSince)), st.NFS.Full)
	}
	if st.Spool.Table > st.Spool.TableLimit/5*4 {
		row("WARNING", "the spool's table of names is %s of %s: when it is full no new files are taken; remove old files on the proxies", bytesText(st.Spool.Table), bytesText(st.Spool.TableLimit))
	}
	if st.Spool.Damaged > 0 {
		row("WARNING", "%d spool files are damaged and kept aside; %d streams may have lost bytes", st.Spool.Damaged, len(st.Spool.DamagedStreams))
	}
	if st.Trouble != "" {
		row("WARNING", "%s ago: %s", age(a.now().Sub(st.TroubleAt)), st.Trouble)
	}
}

// printCopies tells of each copy, and what has only one.
func (a *app) printCopies(st *gateway.CopiesStatus) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	for _, k := range st.Copies {
		site := k.Site
		if site == "" {
			site = "site not declared"
		}
		row("copy", "%s (%s, %s): %s; erasable: %s (%s)", k.Name, k.Media, site, a.copyText(k), k.Erasable, k.Why)
		if k.Problem != "" {
			row("", "  cannot tell all: %s", k.Problem)
		}
	}
	if len(st.Copies) > 1 || st.Single > 0 {
		verdict := "yes"
		if !st.Good() {
			verdict = "no"
		}
		row("3-2-1", "%s: %d copies of 3, %d media of 2, %d sites of 2", verdict, st.Whole, st.Media, st.Sites)
	}
	if st.Single > 0 {
		row("one copy", "%s in %d entries are on the primary only, for %s", bytesText(st.SingleBytes), st.Single, age(a.now().Sub(st.SingleSince)))
	}
}

// copyText says in words what a copy holds.
func (a *app) copyText(k gateway.CopyStatus) string {
	if k.Size == 0 {
		return "nothing that counts"
	}
	text := fmt.Sprintf("%d entries", k.Size)
	if !k.At.IsZero() {
		text += fmt.Sprintf(", held %s ago", age(a.now().Sub(k.At)))
	}
	if k.Cosigned > 0 {
		text += fmt.Sprintf(", cosigned to %d %s ago", k.Cosigned, age(a.now().Sub(k.CosignedAt)))
	}
	if k.Level != "" {
		text += ", immutability: " + string(k.Level)
	}
	return text
}

// age is a duration for people.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
