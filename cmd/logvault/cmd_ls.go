package main

import (
	"encoding/json"
	"fmt"
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
			"which it is kept, and how many of the vaults given hold it. Needs no key.",
			"logvault ls --source squid1 --since 2026-11-01 --until 2026-11-02", codePartial, codeIntegrity, codeNoVault),
		Flags: append(append(readFlags(), windowFlags()...),
			&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Usage: "only the proxy `NAME`"}),
		Action: a.ls,
	}
}

// listed is one line of ls.
type listed struct {
	Type        string       `json:"message_type"`
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
	rs, err := a.readings(c)
	if err != nil {
		return err
	}
	trees := make([]*ledger.Tree, len(rs))
	longest := 0
	for i := range rs {
		if trees[i], err = rs[i].tree(c); err != nil {
			return err
		}
		if trees[i].Size() > trees[longest].Size() {
			longest = i
		}
	}
	p := a.newLister(c)
	err = trees[longest].Entries(c.Context, 0, trees[longest].Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		s, ok := e.(*entry.Segment)
		if !ok || c.IsSet("source") && string(s.Source) != c.String("source") ||
			!since.IsZero() && s.LastReceived.Before(since) || !until.IsZero() && !s.FirstReceived.Before(until) {
			return nil
		}
		l := listed{"segment", i, vault.SegmentName(s.Day, s.Object, s.Codec), s.FirstReceived, s.Source, s.Stream.String(), s.Gen, s.Offset, s.Lines, s.Raw, s.Size, s.Class, s.RetainUntil, 0}
		for k := range rs {
			if _, err := rs[k].store.Stat(c.Context, l.Object); err == nil {
				l.Copies++
			}
		}
		return p.print(l)
	})
	if err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	if rs[longest].unpinned {
		return errUnpinned
	}
	return nil
}

// lister prints a table or JSON lines, with totals at the end of a table.
type lister struct {
	json   *json.Encoder
	table  *tabwriter.Writer
	quiet  bool
	n      int
	lines  int64
	raw    int64
	stored int64
}

func (a *app) newLister(c *cli.Context) *lister {
	p := &lister{quiet: flag(c, "quiet")}
	if flag(c, "json") {
		p.json = json.NewEncoder(a.out)
	} else {
		p.table = tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	}
	return p
}

func (p *lister) print(l listed) error {
	if p.json != nil {
		return p.json.Encode(l)
	}
	if p.n == 0 && !p.quiet {
		fmt.Fprintln(p.table, "RECEIVED (UTC)\tSOURCE\tSTREAM\tLINES\tRAW\tSTORED\tKEPT UNTIL (UTC)\tCOPIES\tSEGMENT") // errors show at flush
	}
	p.n, p.lines, p.raw, p.stored = p.n+1, p.lines+l.Lines, p.raw+l.Raw, p.stored+l.Stored
	_, err := fmt.Fprintf(p.table, "%s\t%s\t%s.%d\t%d\t%s\t%s\t%s\t%d\t%s\n", l.Received.UTC().Format("2006-01-02 15:04:05"), l.Source, l.Stream[:8], l.Generation,
		l.Lines, bytesText(l.Raw), bytesText(l.Stored), l.RetainUntil.UTC().Format("2006-01-02 15:04"), l.Copies, objectID(l.Object))
	return err
}

func (p *lister) flush() error {
	if p.table == nil {
		return nil
	}
	if !p.quiet {
		fmt.Fprintf(p.table, "%d segments, %d lines, %s raw, %s stored\n", p.n, p.lines, bytesText(p.raw), bytesText(p.stored)) // errors show at flush
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
