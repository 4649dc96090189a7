package main

import (
	"bufio"

	"github.com/urfave/cli/v2"

	"logvault/extract"
	"logvault/vault"
)

func (a *app) catCommand() *cli.Command {
	return &cli.Command{
		Name:  "cat",
		Usage: "print lines, after it was recorded",
		Description: describe("Prints whole segments, or the lines of one source in a window, to standard output. The reading is in the ledger\n"+
			"before anything is decrypted. For a lawful request use extract.",
			"logvault cat --segment 9f86d081884c7d65… --key auditor.sec.asc --case INC-42", codePartial, codeIntegrity, codeNoVault, codeLocked, codeKey),
		Flags: append(append(keyFlags(), windowFlags()...),
			&cli.StringSliceFlag{Name: "segment", Usage: "segment `ID`, as ls prints it, or its ledger entry; repeat it for more"},
			&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Usage: "the proxy `NAME`, with --since and --until"},
			&cli.StringFlag{Name: "case", Usage: "why: the case's `REF`; kept encrypted in the register"},
		),
		Action: a.cat,
	}
}

func (a *app) cat(c *cli.Context) (err error) {
	if err := need(c, "case"); err != nil {
		return err
	}
	since, until, err := a.window(c)
	if err != nil {
		return err
	}
	bySource := c.IsSet("source") && c.IsSet("since") && c.IsSet("until")
	if c.IsSet("segment") == bySource || c.IsSet("segment") && (c.IsSet("source") || c.IsSet("since") || c.IsSet("until")) {
		return usagef("cat: give either --segment, or --source with --since and --until")
	}
	gates, err := a.gates(c)
	if err != nil {
		return err
	}
	opts, err := a.extraction(c)
	if err != nil {
		return err
	}
	g := gates[0]
	if err := g.connect(c.Context, a.env(a.quietLogger(c))); err != nil {
		return err
	}
	defer closeInto(g.svc, &err)
	opts.Archive = g.archive()
	ids, err := a.segmentIDs(c, opts)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(a.out, 1<<16)
	sum, err := extract.Cat(c.Context, opts, extract.CatRequest{Segments: ids, Source: vault.Source(c.String("source")), Since: since, Until: until, Case: c.String("case")}, out)
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return err
	}
	a.talk(c, "%s from %s; the reading is ledger entry %d", bytesText(sum.Bytes), count(int64(sum.Segments), "segment"), sum.Request)
	return nil
}
