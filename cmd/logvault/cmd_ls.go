package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

func (a *app) lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list the segments of a vault",
		Description: describe("Lists what the ledger names: receiving time, source, stream, lines, raw and stored bytes, the date until\n"+
			"which it is kept, and how many of the vaults given hold it. Vaults of several gateways are listed one after\n"+
			"the other; each has its own --trust. One that is away is said and hides nothing of the others; the exit code is\n"+
			"that of the worst. Needs no key.",
			"logvault ls --source squid1 --since 2026-11-01 --until 2026-11-02\n"+
				"logvault ls --vault s3://s3.lan/logs/gw1 --vault s3://s3.lan/logs/gw2 --trust gw1.toml --trust gw2.toml", codePartial, codeIntegrity, codeNoVault),
		Flags: append(append(readFlags(), windowFlags()...),
			&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Usage: "only the proxy `NAME`"}),
		Action: a.ls,
	}
}

// listed is one line of ls.
type listed struct {
	Type        string       `json:"message_type"`
	Origin      string       `json:"origin"`
	Entry       int64        `json:"entry"`
	Object      string       `json:"object"`
	Received    time.Time    `json:"received"`
	Source      vault.Source `json:"source"`
	Stream      string       `json:"stream"`
	Generation  int64        `json:"generation"`
	Offset      int64        `json:"offset"`
	Lines       int64        `json:"lines"`
	Raw         int64        `json:"raw_bytes"`
	Stored      int64        `json:"stored_bytes"`
	Class       vault.Class  `json:"class"`
	RetainUntil time.Time    `json:"retain_until"`
	Copies      int          `json:"copies"`
}

func (a *app) ls(c *cli.Context) error {
	since, until, err := a.window(c)
	if err != nil {
		return err
	}
	rs, t, err := a.readings(c)
	if err != nil {
		return err
	}
	groups := a.byLedger(c, t, rs)
	if len(groups) == 0 {
		return t.err()
	}
	p := a.newLister(c)
	for _, g := range groups {
		if len(groups) > 1 {
			p.begin(g.origin)
		}
		err := a.lsOne(c, p, t, g, since, until)
		switch {
		case c.Context.Err() != nil:
			return c.Context.Err()
		case p.failed != nil:
			return p.failed
		case err != nil:
			a.problem(c, t, g.longest, fmt.Errorf("reading the ledger of %s: %w", g.longest.name, err))
		}
	}
	if err := p.flush(); err != nil {
		return err
	}
	for _, r := range rs {
		if r.unpinned && !r.failed {
			t.add(errUnpinned)
		}
	}
	if source := c.String("source"); source != "" && !p.sources[source] && len(p.sources) > 0 {
		a.talk(c, "nothing was ever sealed of source %q, but of %s", source, strings.Join(slices.Sorted(maps.Keys(p.sources)), ", "))
	}
	return t.err()
}

// copies are the vaults given that hold one ledger.
type copies struct {
	origin  string
	longest *reading
	tree    *ledger.Tree // of the longest
	all     []*reading
}

// byLedger groups vaults by the ledger they are copies of, in the order given.
func (a *app) byLedger(c *cli.Context, t *tally, rs []*reading) (groups []*copies) {
	for _, r := range rs {
		tree, err := r.tree(c)
		if err != nil {
			a.problem(c, t, r, err)
			continue
		}
		origin := tree.Checkpoint().Origin
		at := slices.IndexFunc(groups, func(g *copies) bool { return g.origin == origin })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &copies{origin: origin, longest: r, tree: tree})
		}
		g := groups[at]
		if tree.Size() > g.tree.Size() {
			g.longest, g.tree = r, tree
		}
		g.all = append(g.all, r)
	}
	return groups
}

// lsOne lists the segments of one ledger.
func (a *app) lsOne(c *cli.Context, p *lister, t *tally, g *copies, since, until time.Time) error {
	return g.tree.Entries(c.Context, 0, g.tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		s, ok := e.(*entry.Segment)
		if ok {
			p.sources[string(s.Source)] = true
		}
		if !ok || c.IsSet("source") && string(s.Source) != c.String("source") ||
			!since.IsZero() && s.LastReceived.Before(since) || !until.IsZero() && !s.FirstReceived.Before(until) {
			return nil
		}
		l := listed{"segment", g.origin, i, vault.SegmentName(s.Day, s.Object, s.Codec), s.FirstReceived, s.Source, s.Stream.String(), s.Gen, s.Offset, s.Lines, s.Raw, s.Size, s.Class, s.RetainUntil, 0}
		for _, r := range g.all {
			if r.failed {
				continue
			}
			switch _, err := r.store.Stat(c.Context, l.Object); {
			case err == nil:
				l.Copies++
			case c.Context.Err() == nil && !errors.Is(err, vault.ErrNotExist):
				a.problem(c, t, r, fmt.Errorf("looking for segments in %s: %w", r.name, err))
			}
		}
		return p.print(l)
	})
}

// lister prints a table or JSON lines, with totals at the end of a table.
type lister struct {
	json   *json.Encoder
	table  *tabwriter.Writer
	quiet  bool
	headed bool
	// sources are those of which there is a segment, printed or not.
	sources map[string]bool

	n      int
	lines  int64
	raw    int64
	stored int64

	failed error // the output cannot be written
}

func (a *app) newLister(c *cli.Context) *lister {
	p := &lister{quiet: flag(c, "quiet"), sources: map[string]bool{}}
	if flag(c, "json") {
		p.json = json.NewEncoder(a.out)
	} else {
		p.table = tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	}
	return p
}

// begin heads the rows of one of several ledgers.
func (p *lister) begin(origin string) {
	if p.table != nil && !p.quiet {
		p.head()
		fmt.Fprintf(p.table, "ledger %s:\n", origin) // errors show at flush
	}
}

// head is printed once, before the first row.
func (p *lister) head() {
	if !p.headed {
		fmt.Fprintln(p.table, "RECEIVED (UTC)\tSOURCE\tSTREAM\tLINES\tRAW\tSTORED\tKEPT UNTIL (UTC)\tCOPIES\tSEGMENT") // errors show at flush
		p.headed = true
	}
}

func (p *lister) print(l listed) error {
	if p.json != nil {
		p.failed = p.json.Encode(l)
		return p.failed
	}
	if !p.quiet {
		p.head()
	}
	p.n, p.lines, p.raw, p.stored = p.n+1, p.lines+l.Lines, p.raw+l.Raw, p.stored+l.Stored
	_, p.failed = fmt.Fprintf(p.table, "%s\t%s\t%s.%d\t%d\t%s\t%s\t%s\t%d\t%s\n", l.Received.UTC().Format("2006-01-02 15:04:05"), l.Source, l.Stream[:8], l.Generation,
		l.Lines, bytesText(l.Raw), bytesText(l.Stored), l.RetainUntil.UTC().Format("2006-01-02 15:04"), l.Copies, objectID(l.Object))
	return p.failed
}

func (p *lister) flush() error {
	if p.table == nil {
		return nil
	}
	if !p.quiet {
		fmt.Fprintf(p.table, "%s, %s, %s raw, %s stored\n", count(int64(p.n), "segment"), count(p.lines, "line"), bytesText(p.raw), bytesText(p.stored)) // errors show at flush
	}
	return p.table.Flush()
}

// objectID is the short form of a segment's name that --segment takes: the
// first 16 digits of its hash.
func objectID(name string) string {
	o, err := vault.ParseName(name)
	if err != nil {
		return name
	}
	return o.Hash.String()[:16]
}
