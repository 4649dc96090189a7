package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/gateway"
	"logvault/retention/policy"
)

// row prints one line of a status.
func (a *app) row(name, format string, args ...any) {
	fmt.Fprintf(a.out, "%-10s %s\n", name, fmt.Sprintf(format, args...)) // a broken pipe shows nothing that counts
}

// printStatus tells how a gateway is, and then what a person should look at.
func (a *app) printStatus(st gateway.Status) {
	running := "not running"
	if st.Serving {
		running = "running"
	}
	a.row("gateway", "%s, %s", st.Origin, running)
	a.row("vault", "%s", st.Vault+roomText(st.VaultFree, st.VaultTotal))
	a.row("ledger", "%s, root %s", entries(st.LedgerSize), st.LedgerRoot)
	if st.Spool.Unsealed == 0 {
		a.row("spool", "nothing waits to be sealed; %s of room", bytesText(st.Spool.Free))
	} else {
		a.row("spool", "%s wait on this disk only, the oldest for up to %s; %s of room", bytesText(st.Spool.Unsealed), a.since(st.Spool.OldestUnsealed), bytesText(st.Spool.Free))
	}
	if !st.LastSeal.IsZero() {
		a.row("sealed", "last %s ago", a.since(st.LastSeal))
	}
	a.printTraffic(st)
	for _, k := range st.Classes {
		a.row("class", "%s kept %s (%s)", k.Name, k.Period, k.Basis)
	}
	for _, k := range st.Auditors {
		a.row("auditor", "%s", k.Fingerprint)
	}
	for _, text := range append(a.rulesWarnings(st), a.intakeWarnings(st)...) {
		a.row("WARNING", "%s", text)
	}
}

// printTraffic tells of those who write, and of those outside who watch.
func (a *app) printTraffic(st gateway.Status) {
	for _, o := range st.Outside {
		if o.Size == 0 {
			a.row("outside", "%s: never", o.Name)
		} else {
			a.row("outside", "%s: up to entry %d, %s ago", o.Name, o.Size-1, a.since(o.At))
		}
	}
	if n := st.NFS; n != nil {
		a.row("nfs", "%s, %s, %s of %s, %s", count(n.Conns, "connection"), count(n.Files, "file"), count(n.Writes, "write"), bytesText(n.Bytes), count(n.Commits, "commit"))
		if n.Refused+n.Denied+n.Foreign+n.Forged > 0 {
			a.row("refused", "%s, %s, %s on another source's files, %s", count(n.Refused, "connection"), count(n.Denied, "mount"), count(n.Foreign, "call"), count(n.Forged, "forged handle"))
		}
	}
	if w := st.Watch; w != nil {
		a.row("watched", "%s, %s taken in", count(int64(w.Files), "file"), bytesText(w.Bytes))
	}
}

// rulesWarnings are about the law and the keys.
func (a *app) rulesWarnings(st gateway.Status) (all []string) {
	for _, k := range st.Classes {
		if (policy.Class{ValidUntil: k.ValidUntil}).Lapsed(a.now()) {
			all = append(all, fmt.Sprintf("the legal basis of class %s ended on %s; review the policy", k.Name, k.ValidUntil.Format(time.DateOnly)))
		}
	}
	for _, k := range st.Auditors {
		switch left := k.Expires.Sub(a.now()); {
		case k.Expires.IsZero() || left >= 60*24*time.Hour:
		case left < 0:
			all = append(all, fmt.Sprintf("the key of auditor %s expired on %s; sealing goes on, renew it", k.Fingerprint, k.Expires.Format(time.DateOnly)))
		default:
			all = append(all, fmt.Sprintf("the key of auditor %s expires on %s; sealing goes on, renew it", k.Fingerprint, k.Expires.Format(time.DateOnly)))
		}
	}
	if len(st.Auditors) == 1 {
		all = append(all, "one auditor only: if that key is lost, nobody can ever read these logs")
	}
	return all
}

// intakeWarnings are about bytes: those that may be lost, and those that wait.
func (a *app) intakeWarnings(st gateway.Status) (all []string) {
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if w := st.Watch; w != nil && w.Uncopied+w.Vanished > 0 {
		warn("watched files: %d truncated without a copy, %d gone before they were read: lines may be lost; docs/MOUNTING.md says how to rotate", w.Uncopied, w.Vanished)
	}
	if n := st.Spool.Conflicts; n > 0 {
		warn("%s overlapped stored bytes with other content; all of it is kept", count(n, "write"))
	}
	if n := st.NFS; n != nil && !n.FullSince.IsZero() {
		warn("no room to take in, for %s: NFS clients are told to wait, nothing is lost; %s so far", a.since(n.FullSince), count(n.Full, "call"))
	}
	if s := st.Spool; s.Table > s.TableLimit/5*4 {
		warn("the spool's table of names is %s of %s: when it is full no new files are taken; remove old files on the proxies", bytesText(s.Table), bytesText(s.TableLimit))
	}
	if n := st.Spool.Damaged; n > 0 {
		warn("%s damaged and kept aside; bytes of %s may be lost", count(int64(n), "spool file"), count(int64(len(st.Spool.DamagedStreams)), "stream"))
	}
	if st.Trouble != "" {
		warn("%s ago: %s", a.since(st.TroubleAt), st.Trouble)
	}
	return all
}

// roomText is the room of a vault. A bucket does not tell, nor a vault that is away.
func roomText(free, total int64) string {
	if total == 0 {
		return ""
	}
	return fmt.Sprintf(", %s free of %s", bytesText(free), bytesText(total))
}

// entries says how many entries there are.
func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// since says for people how long ago t was.
func (a *app) since(t time.Time) string { return age(a.now().Sub(t)) }

// printVault tells of the i-th of several vaults.
func (a *app) printVault(c *cli.Context, i int, k gateway.VaultStatus) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(struct {
			Type string `json:"message_type"`
			gateway.VaultStatus
		}{"vault_status", k})
	}
	if i > 0 {
		fmt.Fprintln(a.out)
	}
	a.row("vault", "%s", k.Vault+roomText(k.Free, k.Total))
	if k.Size > 0 {
		a.row("ledger", "%s: %s, root %s, the last %s ago", k.Origin, entries(k.Size), k.Root, a.since(k.LastEntry))
		a.row("segments", "%d with %s, %s raw, %s stored", k.Segments, count(k.Lines, "line"), bytesText(k.Raw), bytesText(k.Stored))
	}
	if k.Segments > 0 {
		a.row("received", "from %s to %s", k.FirstReceived.UTC().Format(time.RFC3339), k.LastReceived.UTC().Format(time.RFC3339))
	}
	if k.Gaps > 0 {
		a.row("gaps", "%d, where bytes were never received or were lost", k.Gaps)
	}
	if k.Behind > 0 {
		a.row("behind", "another of these vaults has %s more", entries(k.Behind))
	}
	if k.Unpinned {
		a.row("WARNING", "unpinned: the key was read from the vault itself, so nothing is proven")
	}
	if k.Problem != "" {
		a.row("PROBLEM", "%s", k.Problem)
	}
	return nil
}

// printCopies tells of each copy, and what has only one.
func (a *app) printCopies(st *gateway.CopiesStatus) {
	for _, k := range st.Copies {
		site := k.Site
		if site == "" {
			site = "site not declared"
		}
		a.row("copy", "%s (%s, %s): %s; erasable: %s (%s)", k.Name, k.Media, site, a.copyText(k), k.Erasable, k.Why)
		if k.Problem != "" {
			a.row("", "  cannot tell all: %s", k.Problem)
		}
	}
	if len(st.Copies) > 1 || st.Single > 0 {
		verdict := "yes"
		if !st.Good() {
			verdict = "no"
		}
		a.row("3-2-1", "%s: %d of 3 copies, %d of 2 media, %d of 2 sites", verdict, st.Whole, st.Media, st.Sites)
	}
	if st.Single > 0 {
		a.row("one copy", "%s in %s: on the primary only, for %s", bytesText(st.SingleBytes), entries(st.Single), a.since(st.SingleSince))
	}
}

// copyText says in words what a copy holds.
func (a *app) copyText(k gateway.CopyStatus) string {
	if k.Size == 0 {
		return "nothing that counts"
	}
	text := entries(k.Size)
	if !k.At.IsZero() {
		text += fmt.Sprintf(", held %s ago", a.since(k.At))
	}
	if k.Cosigned > 0 {
		text += fmt.Sprintf(", cosigned to %d %s ago", k.Cosigned, a.since(k.CosignedAt))
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
