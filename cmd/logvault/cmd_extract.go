package main

import (
	"bytes"
	"context"
	"encoding/json"
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
		Name:  severalConfigs,
		Usage: "answer a lawful request with a bundle",
		Description: describe("Records the request in the ledger, finds the lines that it asks for and no other, and writes a bundle that the\n"+
			"requester checks with stock tools. --dry-run counts without decrypting or recording anything.\n"+
			"--new prints a commented request file to fill in. --config repeated puts the request to several gateways: each\n"+
			"records it in its own ledger, and the bundle has a part from each; if one cannot answer, there is no bundle.",
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
	gates, err := a.gates(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return a.estimate(c, gates, req)
	}
	if err := need(c, "out"); err != nil {
		return err
	}
	opts, err := a.extraction(c)
	if err != nil {
		return err
	}
	var archives []extract.Archive
	for _, g := range gates {
		if err := g.connect(c.Context, a.env(a.quietLogger(c))); err != nil {
			return err
		}
		defer closeInto(g.svc, &err)
		archives = append(archives, g.archive())
	}
	opts.Archive, opts.Others = archives[0], archives[1:]
	opts.FS, opts.Dir = a.fs, c.String("out")
	bar := a.progress(c, 1, "searching")
	opts.Progress = barProgress(bar)
	ans, err := extract.Run(c.Context, opts, req)
	if bar != nil {
		bar.Close() // talk only
	}
	if err != nil {
		return err
	}
	return a.printAnswer(c, ans)
}

// gate is one gateway that a person reads through: its vault under pinned trust,
// and, once connected, the service that records in its ledger.
type gate struct {
	cfg   *config.Config
	store vault.Store
	trust *ledger.Trust
	svc   gateway.Service
}

// gates opens the vault of each configuration in force. Nothing is locked yet.
func (a *app) gates(c *cli.Context) ([]*gate, error) {
	files, _ := a.configFiles(c)
	var all []*gate
	file := map[string]string{} // by origin
	for _, name := range files {
		cfg, err := a.loadConfigFile(name)
		if err != nil {
			return nil, err
		}
		g := &gate{cfg: cfg}
		if g.trust, err = config.LoadTrust(a.fs, gateway.TrustFile(cfg)); err != nil {
			return nil, err
		}
		if first, twice := file[g.trust.Origin]; twice {
			return nil, usagef("%s: %s and %s are of the same vault, %s: give each gateway once", c.Command.Name, first, name, g.trust.Origin)
		}
		file[g.trust.Origin] = name
		if g.store, err = a.stores().Open(c.Context, cfg.Vault); err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

// connect opens the gateway that records: it locks the state, or `serve` has it.
func (g *gate) connect(ctx context.Context, env gateway.Env) (err error) {
	if g.svc, err = gateway.Connect(ctx, env, g.cfg); err != nil {
		return fmt.Errorf("%s: %w", g.trust.Origin, err)
	}
	return nil
}

// archive is what extract reads and records with.
func (g *gate) archive() extract.Archive {
	return extract.Archive{Vault: g.store, Recorder: g.svc, Tree: func(ctx context.Context) (*ledger.Tree, error) {
		t, err := ledger.OpenTree(ctx, g.store, vault.LedgerPrefix, g.trust)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.trust.Origin, err)
		}
		return t, nil
	}}
}

// extraction is what extract and cat share, without a vault.
func (a *app) extraction(c *cli.Context) (extract.Options, error) {
	open, err := a.needOpener(c)
	if err != nil {
		return extract.Options{}, err
	}
	return extract.Options{Opener: open, Class: registerClass, Actor: gateway.ActorReferent, Random: a.random, Now: a.now}, nil
}

func (a *app) loadRequest(file string) (*extract.Request, error) {
	data, err := vfs.ReadFile(a.fs, file, 1<<20)
	if err != nil {
		return nil, &codedError{codeUsage, "`logvault extract --new > request.toml` makes one to fill in", fmt.Errorf("reading the request: %w", err)}
	}
	const explained = "`logvault extract --new` explains each key"
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin a text file with it
	req := new(extract.Request)
	if err := config.DecodeStrict(file, data, req); err != nil {
		return nil, &codedError{codeUsage, explained, err}
	}
	if err := req.Validate(); err != nil {
		return nil, &codedError{codeUsage, explained, fmt.Errorf("%s: %w", file, err)}
	}
	return req, nil
}

func (a *app) estimate(c *cli.Context, gates []*gate, req *extract.Request) error {
	opts := extract.Options{Archive: gates[0].archive()}
	for _, g := range gates[1:] {
		opts.Others = append(opts.Others, g.archive())
	}
	all, err := extract.DryRun(c.Context, opts, req)
	if err != nil {
		return err
	}
	for _, est := range all {
		if flag(c, "json") {
			err = json.NewEncoder(a.out).Encode(map[string]any{"message_type": "estimate", "origin": est.Origin, "segments": est.Segments, "keys": est.Keys, "lines": est.Lines,
				"raw_bytes": est.Raw, "stored_bytes": est.Stored, "silent_sources": est.Silent})
		} else {
			_, err = fmt.Fprintf(a.out, "%swould search %s sealed to %s, %s, %s stored; nothing was decrypted or recorded\n",
				label(len(all), est.Origin), count(int64(est.Segments), "segment"), count(int64(est.Keys), "period key"), count(est.Lines, "line"), bytesText(est.Stored))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// label says which of several ledgers a line of text is about.
func label(of int, origin string) string {
	if of < 2 {
		return ""
	}
	return origin + ": "
}

func (a *app) printAnswer(c *cli.Context, ans extract.Answer) error {
	for _, s := range ans.Parts {
		if err := a.printPart(c, label(len(ans.Parts), s.Origin), s); err != nil {
			return err
		}
	}
	switch {
	case len(ans.Parts) < 2:
		return nil
	case flag(c, "json"):
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "answered", "payload": ans.Payload.String(), "vaults": len(ans.Parts)})
	}
	_, err := fmt.Fprintf(a.out, "bundle in %s, with a part from each of %d vaults\n", c.String("out"), len(ans.Parts))
	return err
}

func (a *app) printPart(c *cli.Context, label string, s extract.Summary) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "extracted", "origin": s.Origin, "request_entry": s.Request, "disclosure_entry": s.Disclosure, "payload": s.Payload.String(),
			"lines": s.Lines, "searched": s.Searched, "opened": s.Opened, "matching": s.Matching, "destroyed": s.Destroyed, "unparsed_lines": s.Unparsed, "undecided_lines": s.Undecided,
			"gaps": s.Gaps, "conflicts": s.Conflicts, "silent_sources": s.Silent})
	}
	fmt.Fprintf(a.out, "%s%s from %d of %s searched; decrypted: %d\n", label, count(s.Lines, "line"), s.Matching, count(s.Searched, "segment"), s.Opened)
	if s.Gaps > 0 || s.Unparsed > 0 || s.Undecided > 0 || len(s.Silent) > 0 {
		fmt.Fprintf(a.out, "%scompleteness: %d gaps, %d lines without fields, %d lines of uncertain time kept back, silent sources: %s\n", label, s.Gaps, s.Unparsed, s.Undecided, orNone(s.Silent))
	}
	text := "bundle in " + c.String("out") + ", "
	if label != "" {
		text = label
	}
	_, err := fmt.Fprintf(a.out, "%srequest recorded as ledger entry %d, disclosure as %d\n", text, s.Request, s.Disclosure)
	return err
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
