package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/extract"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// inspectLimit bounds a file that is read whole to be described, in bytes.
const inspectLimit = 256 << 20

func (a *app) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:  "inspect",
		Usage: "say what an object, a ledger entry or a bundle is",
		Description: describe("Needs no key: names the kind of an object, its hash and size, and which keys can open it; prints a ledger entry\n"+
			"that is proven to be in the ledger; sums up a bundle.",
			"logvault inspect --object /mnt/nas/vault/segments/2027/11/22/9f86….gz.pgp\nlogvault inspect --entry 5", codePartial, codeIntegrity, codeNoVault),
		Flags: append(readFlags(),
			&cli.StringFlag{Name: "object", Usage: "file `PATH` of a vault"},
			&cli.StringFlag{Name: "entry", Usage: "ledger entry `N`"},
			&cli.StringFlag{Name: "bundle", Usage: "bundle directory `DIR`"},
		),
		Action: a.inspect,
	}
}

func (a *app) inspect(c *cli.Context) error {
	given := 0
	for _, f := range []string{"object", "entry", "bundle"} {
		if c.IsSet(f) {
			given++
		}
	}
	switch {
	case given != 1:
		return usagef("inspect: give one of --object, --entry and --bundle")
	case c.IsSet("object"):
		return a.inspectObject(c)
	case c.IsSet("entry"):
		return a.inspectEntry(c)
	}
	return a.inspectBundle(c)
}

func (a *app) inspectObject(c *cli.Context) error {
	file := c.String("object")
	// Opening a FIFO would wait for a writer that may never come.
	if fi, err := a.fs.Stat(file); err == nil && !fi.Mode().IsRegular() {
		return usagef("inspect: %s is not a file; give the path of an object", file)
	}
	data, err := vfs.ReadFile(a.fs, file, inspectLimit)
	if err != nil {
		return err
	}
	info := map[string]any{"message_type": "object", "file": file, "bytes": len(data), "sha256": vault.HashOf(data).String()}
	o, name := vaultName(file)
	if name == "" {
		info["kind"] = "not named as a vault's object"
	} else {
		info["kind"], info["name"] = o.Kind.String(), name
		if !o.Hash.IsZero() && o.Kind != vault.KindRegister {
			info["intact"] = vault.HashOf(data) == o.Hash
		}
		if o.Day != (vault.Day{}) {
			info["destruction_day"] = o.Day.String()
		}
		if o.Class != "" {
			info["class"] = o.Class
		}
	}
	if strings.HasSuffix(file, ".pgp") {
		keys, err := pgp.Recipients(data)
		if err != nil {
			info["problem"] = err.Error()
		}
		info["opens_with_keys"] = keys
	} else if bytes.HasPrefix(data, []byte("logvault-vault")) || o.Kind == vault.KindCheckpoint || o.Kind == vault.KindKeptCheckpoint {
		info["text"] = string(data)
	}
	return a.printFacts(c, info, "file", "kind", "name", "bytes", "sha256", "intact", "destruction_day", "class", "opens_with_keys", "problem", "text")
}

// vaultName finds the object name at the end of a path.
func vaultName(file string) (vault.Object, string) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return vault.Object{}, ""
	}
	for name := strings.TrimPrefix(filepath.ToSlash(abs), "/"); ; {
		if o, err := vault.ParseName(name); err == nil {
			return o, name
		}
		_, rest, ok := strings.Cut(name, "/")
		if !ok {
			return vault.Object{}, ""
		}
		name = rest
	}
}

// printFacts prints one JSON line, or the members in the given order.
func (a *app) printFacts(c *cli.Context, info map[string]any, order ...string) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(info)
	}
	for _, k := range order {
		if v, ok := info[k]; ok {
			if _, err := fmt.Fprintf(a.out, "%-16s %v\n", strings.ReplaceAll(k, "_", " ")+":", v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) inspectEntry(c *cli.Context) error {
	n, err := strconv.ParseInt(c.String("entry"), 10, 64)
	if err != nil || n < 0 {
		return usagef("inspect: --entry %q: expected a number from 0", c.String("entry"))
	}
	rs, t, err := a.readings(c)
	if err != nil {
		return err
	}
	for _, r := range rs {
		switch err := a.printEntry(c, r, n); {
		case c.Context.Err() != nil:
			return c.Context.Err()
		case err != nil:
			a.problem(c, t, r, err)
		case r.unpinned:
			t.add(errUnpinned)
		}
	}
	return t.err()
}

func (a *app) printEntry(c *cli.Context, r *reading, n int64) error {
	tree, err := r.tree(c)
	if err != nil {
		return err
	}
	if n >= tree.Size() {
		return usagef("inspect: entry %d: the ledger of %s has %d entries", n, r.name, tree.Size())
	}
	text, err := tree.Entry(c.Context, n)
	if err != nil {
		return fmt.Errorf("reading the ledger of %s: %w", r.name, err)
	}
	if !flag(c, "json") {
		var b bytes.Buffer
		if err := json.Indent(&b, text, "", "  "); err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
		text = b.Bytes()
	}
	_, err = fmt.Fprintf(a.out, "%s\n", text)
	return err
}

// inspectBundle sums up a bundle in a few lines; check-bundle lists what is
// wrong with it.
func (a *app) inspectBundle(c *cli.Context) error {
	if !c.IsSet("trust") {
		return usagef("inspect: --bundle needs --trust with the ledger's verifier key")
	}
	rep, err := a.bundleReport(c)
	if err != nil {
		return err
	}
	if len(rep.Parts) == 0 {
		return &codedError{codeIntegrity, "`logvault check-bundle` says what is wrong with it", fmt.Errorf("%s: not a bundle, or not a whole one", c.String("bundle"))}
	}
	for _, p := range rep.Parts {
		if err := a.printFacts(c, map[string]any{"message_type": "bundle", "bundle": filepath.Join(c.String("bundle"), p.Folder), "intact": rep.OK(), "origin": p.Origin, "ledger_size": p.Size,
			"request_entry": p.Request, "segments_searched": p.Searched, "lines": p.Lines}, "bundle", "intact", "origin", "ledger_size", "request_entry", "segments_searched", "lines"); err != nil {
			return err
		}
	}
	return nil
}

// segmentIDs expands the short ids that ls prints to the full hashes or entry
// indices that cat takes.
func (a *app) segmentIDs(c *cli.Context, o extract.Options) ([]string, error) {
	short := c.StringSlice("segment")
	if len(short) == 0 {
		return nil, nil
	}
	tree, err := o.Tree(c.Context)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(short))
	for i, s := range short {
		if ids[i], err = expandID(c.Context, tree, s); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// expandID finds the one segment whose hash begins with s.
func expandID(ctx context.Context, tree *ledger.Tree, s string) (string, error) {
	if len(s) == 64 || len(s) < 8 {
		return s, nil
	}
	var found []string
	err := tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if errors.Is(err, entry.ErrNewer) {
			return nil // a segment that this logvault cannot read anyway
		}
		if err != nil {
			return err
		}
		if seg, ok := e.(*entry.Segment); ok && strings.HasPrefix(seg.Object.String(), s) {
			found = append(found, seg.Object.String())
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("%s: %w", s, extract.ErrNoSegment)
	case len(found) > 1:
		return "", usagef("cat: --segment %s fits %d segments; give more digits", s, len(found))
	}
	return found[0], nil
}
