package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/extract"
	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// registerClass is the retention class of the records of requests.
const registerClass = vault.Class("register")

func (a *app) extractCommand() *cli.Command {
	return &cli.Command{
		Name:  "extract",
		Usage: "answer a lawful request with a bundle",
		Description: describe("Records the request in the ledger, finds the lines that it asks for and no other, and writes a bundle that the\n"+
			"requester checks with stock tools. --dry-run counts without decrypting or recording anything.\n"+
			"--new prints a commented request file to fill in.",
			"logvault extract --new > request.toml\nlogvault extract --request request.toml --key auditor.sec.asc --out bundle", codePartial, codeIntegrity, codeRefused, codeNoVault, codeLocked, codeKey),
		Flags: append(keyFlags(),
			&cli.StringFlag{Name: "request", Aliases: []string{"r"}, Usage: "request `REQ.toml`"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "absent or empty directory `DIR` for the bundle"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "count only"},
			&cli.BoolFlag{Name: "new", Usage: "print a new request file"},
		),
		Action: a.extract,
	}
}

func (a *app) extract(c *cli.Context) (err error) {
	if c.Bool("new") {
		_, err := fmt.Fprint(a.out, extract.NewRequestText())
		return err
	}
	if err := need(c, "request"); err != nil {
		return err
	}
	req, err := a.loadRequest(c.String("request"))
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return a.estimate(c, cfg, req)
	}
	if err := need(c, "out"); err != nil {
		return err
	}
	opts, svc, err := a.extraction(c, cfg)
	if err != nil {
		return err
	}
	defer closeInto(svc, &err)
	opts.FS, opts.Dir = a.fs, c.String("out")
	bar := a.progress(c, 1, "searching")
	opts.Progress = barProgress(bar)
	sum, err := extract.Run(c.Context, opts, req)
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return err
	}
	return a.printExtraction(c, sum)
}

// extraction opens what an extraction and cat work with: the configuration's
// vault under pinned trust, the key and the gateway that records.
func (a *app) extraction(c *cli.Context, cfg *config.Config) (extract.Options, gateway.Service, error) {
	open, err := a.needOpener(c)
	if err != nil {
		return extract.Options{}, nil, err
	}
	store, err := a.stores().Open(c.Context, cfg.Vault)
	if err != nil {
		return extract.Options{}, nil, err
	}
	trust, err := config.LoadTrust(a.fs, gateway.TrustFile(cfg))
	if err != nil {
		return extract.Options{}, nil, err
	}
	svc, err := gateway.Connect(c.Context, a.env(a.quietLogger(c)), cfg)
	if err != nil {
		return extract.Options{}, nil, err
	}
	return extract.Options{Vault: store, Opener: open, Recorder: svc, Class: registerClass, Actor: gateway.ActorReferent, Random: a.random, Now: a.now,
		Tree: func(ctx context.Context) (*ledger.Tree, error) {
			return ledger.OpenTree(ctx, store, vault.LedgerPrefix, trust)
		}}, svc, nil
}

func (a *app) loadRequest(file string) (*extract.Request, error) {
	data, err := vfs.ReadFile(a.fs, file, 1<<20)
	if err != nil {
		return nil, &codedError{codeUsage, "`logvault extract --new > request.toml` makes one to fill in", fmt.Errorf("reading the request: %w", err)}
	}
	req := new(extract.Request)
	if err := config.DecodeStrict(file, data, req); err != nil {
		return nil, err
	}
	if err := req.Validate(); err != nil {
		return nil, &codedError{codeUsage, "`logvault extract --new` explains each key", fmt.Errorf("%s: %w", file, err)}
	}
	return req, nil
}

func (a *app) estimate(c *cli.Context, cfg *config.Config, req *extract.Request) error {
	store, err := a.stores().Open(c.Context, cfg.Vault)
	if err != nil {
		return err
	}
	trust, err := config.LoadTrust(a.fs, gateway.TrustFile(cfg))
	if err != nil {
		return err
	}
	est, err := extract.DryRun(c.Context, extract.Options{Now: a.now, Tree: func(ctx context.Context) (*ledger.Tree, error) {
		return ledger.OpenTree(ctx, store, vault.LedgerPrefix, trust)
	}}, req)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "estimate", "segments": est.Segments, "keys": est.Keys, "lines": est.Lines, "raw_bytes": est.Raw, "stored_bytes": est.Stored, "silent_sources": est.Silent})
	}
	_, err = fmt.Fprintf(a.out, "would search %d segments sealed to %d period keys, %d lines, %s stored; nothing was decrypted or recorded\n", est.Segments, est.Keys, est.Lines, bytesText(est.Stored))
	return err
}

func (a *app) printExtraction(c *cli.Context, s extract.Summary) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "extracted", "request_entry": s.Request, "disclosure_entry": s.Disclosure, "payload": s.Payload.String(),
			"lines": s.Lines, "searched": s.Searched, "opened": s.Opened, "matching": s.Matching, "destroyed": s.Destroyed, "unparsed_lines": s.Unparsed, "undecided_lines": s.Undecided,
			"gaps": s.Gaps, "conflicts": s.Conflicts, "silent_sources": s.Silent})
	}
	fmt.Fprintf(a.out, "%s from %d of %s searched; decrypted: %d\n", count(s.Lines, "line"), s.Matching, count(s.Searched, "segment"), s.Opened)
	if s.Gaps > 0 || s.Unparsed > 0 || s.Undecided > 0 || len(s.Silent) > 0 {
		fmt.Fprintf(a.out, "completeness: %d gaps, %d lines without fields, %d lines of uncertain time kept back, silent sources: %s\n", s.Gaps, s.Unparsed, s.Undecided, orNone(s.Silent))
	}
	_, err := fmt.Fprintf(a.out, "bundle in %s, request recorded as ledger entry %d, disclosure as %d\n", c.String("out"), s.Request, s.Disclosure)
	return err
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (a *app) checkBundleCommand() *cli.Command {
	return &cli.Command{
		Name:  "check-bundle",
		Usage: "check a bundle that was received",
		Description: describe("Needs the bundle and the ledger's verifier key only: every file unchanged, every line proven to stand in the signed\n"+
			"ledger, none outside the request.",
			"logvault check-bundle --bundle bundle --trust ledger.vkey", codeIntegrity),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "directory `DIR` of the bundle"},
			&cli.StringFlag{Name: "trust", Usage: "the ledger's verifier key, `FILE|VKEY`"},
		},
		Action: a.checkBundle,
	}
}

func (a *app) checkBundle(c *cli.Context) error {
	if err := need(c, "bundle", "trust"); err != nil {
		return err
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return err
	}
	rep, err := extract.CheckBundle(c.Context, a.fs, c.String("bundle"), trust)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		err = json.NewEncoder(a.out).Encode(map[string]any{"message_type": "bundle_checked", "passed": rep.OK(), "origin": rep.Origin, "ledger_size": rep.Size, "request_entry": rep.Request,
			"lines": rep.Lines, "segments": rep.Segments, "payload": rep.Payload.String(), "findings": findingTexts(rep)})
	} else {
		for _, f := range findingTexts(rep) {
			fmt.Fprintln(a.out, f) // a broken pipe shows below
		}
		verdict := "FAILED"
		if rep.OK() {
			verdict = "PASSED"
		}
		_, err = fmt.Fprintf(a.out, "%s: %d lines, each proven to stand in the ledger %s at size %d\n", verdict, rep.Lines, rep.Origin, rep.Size)
	}
	if err == nil && !rep.OK() {
		err = &codedError{codeIntegrity, "ask the sender for the bundle again, over another channel", errors.New("the bundle is not intact")}
	}
	return err
}

func findingTexts(rep extract.Report) []string {
	list := []string{}
	for _, f := range rep.Findings {
		list = append(list, f.String())
	}
	return list
}

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
	cfg, err := a.loadConfig(c)
	if err != nil {
		return err
	}
	opts, svc, err := a.extraction(c, cfg)
	if err != nil {
		return err
	}
	defer closeInto(svc, &err)
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
