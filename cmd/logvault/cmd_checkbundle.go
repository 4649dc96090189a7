package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/extract"
	"logvault/ledger"
)

func (a *app) checkBundleCommand() *cli.Command {
	return &cli.Command{
		Name:  "check-bundle",
		Usage: "check a bundle that was received",
		Description: describe("Needs the bundle and the ledger's verifier key only: every file unchanged, every line proven to stand in the signed\n"+
			"ledger, none outside the request. A bundle from several vaults needs the key of each.",
			"logvault check-bundle --bundle bundle --trust ledger.vkey", codeIntegrity),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "directory `DIR` of the bundle"},
			&cli.StringSliceFlag{Name: "trust", Usage: "the ledger's verifier key, `FILE|VKEY`; repeat it for a bundle from several vaults"},
		},
		Action: a.checkBundle,
	}
}

// bundleReport checks the bundle that the flags name.
func (a *app) bundleReport(c *cli.Context) (extract.Report, error) {
	var trusts []*ledger.Trust
	for _, arg := range c.StringSlice("trust") {
		trust, err := a.loadTrust(arg)
		if err != nil {
			return extract.Report{}, err
		}
		trusts = append(trusts, trust)
	}
	rep, err := extract.CheckBundle(c.Context, a.fs, c.String("bundle"), trusts...)
	if errors.Is(err, fs.ErrNotExist) {
		err = &codedError{codeFailure, "give the directory of the bundle, unpacked", err}
	}
	return rep, err
}

func (a *app) checkBundle(c *cli.Context) error {
	if err := need(c, "bundle", "trust"); err != nil {
		return err
	}
	rep, err := a.bundleReport(c)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		err = a.printReportJSON(rep)
	} else {
		for _, f := range findingTexts(rep) {
			fmt.Fprintln(a.out, f) // a broken pipe shows below
		}
		err = a.printVerdict(rep)
	}
	if err == nil && !rep.OK() {
		err = &codedError{codeIntegrity, "ask the sender for the bundle again, over another channel", errors.New("the bundle is not intact")}
	}
	return err
}

// printReportJSON prints a line for each vault, then the verdict. What a check
// that failed early could not read is empty.
func (a *app) printReportJSON(rep extract.Report) error {
	enc := json.NewEncoder(a.out)
	if len(rep.Parts) > 1 {
		for _, p := range rep.Parts {
			if err := enc.Encode(map[string]any{"message_type": "part_checked", "folder": p.Folder, "origin": p.Origin, "ledger_size": p.Size, "request_entry": p.Request,
				"lines": p.Lines, "segments": p.Searched, "payload": p.Payload.String(), "commit": p.Commit.String()}); err != nil {
				return err
			}
		}
	}
	fields := map[string]any{"message_type": "bundle_checked", "passed": rep.OK(), "vaults": len(rep.Parts), "lines": rep.Lines, "segments": rep.Segments,
		"payload": rep.Payload.String(), "findings": findingTexts(rep)}
	if len(rep.Parts) == 1 {
		p := rep.Parts[0]
		fields["origin"], fields["ledger_size"], fields["request_entry"], fields["commit"] = p.Origin, p.Size, p.Request, p.Commit.String()
	}
	return enc.Encode(fields)
}

// printVerdict also prints what a bundle cannot prove by itself: a line that was
// left out on the way shows only in the ledger.
func (a *app) printVerdict(rep extract.Report) error {
	if !rep.OK() {
		_, err := fmt.Fprintln(a.out, "FAILED: the bundle proves nothing")
		return err
	}
	var where []string
	for _, p := range rep.Parts {
		where = append(where, fmt.Sprintf("%s at size %d", p.Origin, p.Size))
		fmt.Fprintf(a.out, "to compare: the disclosure of request %d in %s must hold the commit %s\n", p.Request, p.Origin, p.Commit) // a broken pipe shows below
	}
	_, err := fmt.Fprintf(a.out, "PASSED: %d lines, each proven to stand in the ledger %s\n", rep.Lines, strings.Join(where, " or "))
	return err
}

func findingTexts(rep extract.Report) []string {
	list := []string{}
	for _, f := range rep.Findings {
		list = append(list, f.String())
	}
	return list
}
