package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
)

func (a *app) keysCommand() *cli.Command {
	export := &cli.Command{
		Name:  "export",
		Usage: "write all wraps of period keys into one file, for a safe",
		Description: describe("The wraps are what makes a copy without keys/ readable: period keys, encrypted to the auditors. The file is a tar\n"+
			"archive with the same names as in the vault and a SHA256SUMS; `tar -C VAULT -xf FILE keys` puts them back.\n"+
			"Destroy it, or replace it by a newer one, as the period keys in it reach their dates: what is in a safe, no\n"+
			"program can expire.",
			"logvault --config /var/lib/logvault/logvault.toml keys export --out /media/usb/keys.tar", codePartial, codeIntegrity, codeRefused, codeNoVault),
		Flags:  append(readFlags(), &cli.StringFlag{Name: "out", Usage: "new `FILE`"}),
		Action: a.keysExport,
	}
	export = strict(export)
	export.UsageText = "logvault keys export [FLAGS]"
	return &cli.Command{
		Name:            "keys",
		Usage:           "export the period keys' wraps",
		Description:     describe("What can be done with period keys: export.", "logvault keys export --help"),
		Subcommands:     []*cli.Command{export},
		HideHelpCommand: true,
		Action:          func(*cli.Context) error { return usagef("keys: expected `keys export`") },
	}
}

func (a *app) keysExport(c *cli.Context) error {
	if err := need(c, "out"); err != nil {
		return err
	}
	if n := len(c.StringSlice("vault")); n > 1 {
		return usagef("keys export: %d vaults, expected one", n)
	}
	rs, t, err := a.readings(c)
	if err != nil {
		return err
	}
	if t.err() != nil {
		return t.err()
	}
	if rs[0].unpinned {
		return errUnpinned
	}
	wraps, err := a.wraps(c, rs[0])
	if err != nil {
		return err
	}
	data, err := tarred(wraps, a.now())
	if err != nil {
		return err
	}
	err = vfs.CreateFile(a.fs, c.String("out"), data, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &codedError{codeRefused, "choose another file; nothing was written", err}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%d wraps of period keys in %s (%s), SHA-256 %s\n", len(wraps), c.String("out"), bytesText(int64(len(data))), vault.HashOf(data))
	return err
}

// wrapFile is a wrap as a vault holds it.
type wrapFile struct {
	name string
	hash vault.Hash
	data []byte
}

// wraps reads every wrap that the ledger names. One that is absent before its
// day is over is an error: the export would not open what it should.
func (a *app) wraps(c *cli.Context, r *reading) ([]wrapFile, error) {
	tree, err := r.tree(c)
	if err != nil {
		return nil, err
	}
	var all []wrapFile
	keys := map[int64]*entry.Key{}
	add := func(k *entry.Key, hash vault.Hash) error {
		name := vault.WrapName(k.Day, k.Class, k.PublicHash, hash)
		data, err := vault.ReadAll(c.Context, r.store, name, 1<<20)
		if errors.Is(err, vault.ErrNotExist) && !a.now().Before(k.Day.Start(time.UTC).AddDate(0, 0, 2)) {
			return nil // it has had its day
		}
		if err == nil && vault.HashOf(data) != hash {
			err = fmt.Errorf("%s: its SHA-256 is not the one that the ledger names", name)
		}
		if err != nil {
			return &codedError{codeIntegrity, "`logvault verify` says what is wrong; export from another copy", err}
		}
		all = append(all, wrapFile{name, hash, data})
		return nil
	}
	err = tree.Entries(c.Context, 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		switch e := e.(type) {
		case *entry.Key:
			keys[i] = e
			return add(e, e.Wrap)
		case *entry.Rewrap:
			if k := keys[e.Key]; k != nil {
				return add(k, e.Wrap)
			}
		}
		return nil
	})
	return all, err
}

const keysReadme = `Wraps of the period keys of a log archive made by logvault, each encrypted to
the auditors. With them, copies and offline volumes without keys/ can be read.

    sha256sum --check --quiet SHA256SUMS
    tar -C VAULT -xf THIS.tar keys        # puts them back into a vault

Destroy this file, or replace it by a newer one, as the days in the names pass:
what is destroyed everywhere else can be read for as long as this exists.
`

// tarred puts wraps into a tar archive, with texts that check and explain them.
func tarred(wraps []wrapFile, now time.Time) ([]byte, error) {
	var sums strings.Builder
	for _, w := range wraps {
		fmt.Fprintf(&sums, "%s  %s\n", w.hash, w.name)
	}
	files := append([]wrapFile{{name: "README.txt", data: []byte(keysReadme)}, {name: "SHA256SUMS", data: []byte(sums.String())}}, wraps...)
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o440, ModTime: now.Truncate(time.Second), Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
