package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/internal/vfs"
	"logvault/seal/pgp"
)

func (a *app) keygenCommand() *cli.Command {
	return &cli.Command{
		Name:  "keygen",
		Usage: "make an auditor's OpenPGP key pair",
		Description: describe("Makes DIR/auditor.pub.asc, which goes to the gateway, and DIR/auditor.sec.asc (mode 0600),\n"+
			"which stays with the auditor, offline. Who has a key in gpg already does not need it.",
			`logvault keygen --name "Auditor <auditor@example.org>" --out /media/usb/auditor`, codePartial, codeRefused, codeKey),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Aliases: []string{"n"}, Usage: "user id, `\"NAME <MAIL>\"`"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "directory `DIR` for the two files"},
			&cli.BoolFlag{Name: "no-passphrase", Usage: "leave the secret key unprotected"},
			&cli.StringFlag{Name: "passphrase-file", Usage: "read the passphrase from the first line of `FILE`"},
		},
		Action: a.keygen,
	}
}

func (a *app) keygen(c *cli.Context) error {
	if err := need(c, "name", "out"); err != nil {
		return err
	}
	if c.Bool("no-passphrase") && c.IsSet("passphrase-file") {
		return usagef("keygen: --no-passphrase and --passphrase-file exclude each other")
	}
	pass, err := a.newPassphrase(c)
	if err != nil {
		return err
	}
	pub, sec, err := pgp.GenerateAuditor(c.String("name"), pass, a.random, a.now())
	if err != nil {
		return err
	}
	auditor, err := pgp.ParseAuditor(pub, a.now())
	if err != nil {
		return err
	}
	dir := c.String("out")
	if err := vfs.MkdirAll(a.fs, dir, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
		perm os.FileMode
	}{{"auditor.sec.asc", sec, 0o600}, {"auditor.pub.asc", pub, 0o644}} {
		if err := vfs.CreateFile(a.fs, filepath.Join(dir, f.name), f.data, f.perm); err != nil {
			if errors.Is(err, os.ErrExist) {
				return &codedError{codeRefused, "a key is never overwritten; choose another directory", err}
			}
			return err
		}
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "key", "fingerprint": auditor.Fingerprint, "public": filepath.Join(dir, "auditor.pub.asc"), "secret": filepath.Join(dir, "auditor.sec.asc")})
	}
	if _, err := fmt.Fprintf(a.out, "%s\n", auditor.Fingerprint); err != nil {
		return err
	}
	a.talk(c, "public key for the gateway:  %s", filepath.Join(dir, "auditor.pub.asc"))
	a.talk(c, "secret key, keep it offline: %s", filepath.Join(dir, "auditor.sec.asc"))
	return nil
}

// newPassphrase asks twice on a terminal unless the flags say otherwise.
func (a *app) newPassphrase(c *cli.Context) ([]byte, error) {
	switch {
	case c.Bool("no-passphrase"):
		return nil, nil
	case c.IsSet("passphrase-file"):
		data, err := vfs.ReadFile(a.fs, c.String("passphrase-file"), 4096)
		if err != nil {
			return nil, err
		}
		line, _, _ := bytes.Cut(data, []byte("\n"))
		if len(line) == 0 {
			return nil, usagef("keygen: %s: the first line is empty, expected a passphrase", c.String("passphrase-file"))
		}
		return line, nil
	}
	first, err := a.passphrase(c.Context, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, usagef("keygen: an empty passphrase protects nothing: give one, or say --no-passphrase")
	}
	second, err := a.passphrase(c.Context, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, usagef("keygen: the two passphrases differ")
	}
	return first, nil
}

// passphrase gets a passphrase from LOGVAULT_PASSCOMMAND or the terminal.
func (a *app) passphrase(ctx context.Context, prompt string) ([]byte, error) {
	if command := a.getenv("LOGVAULT_PASSCOMMAND"); command != "" {
		return runPassCommand(ctx, command)
	}
	return readTerminal(ctx, prompt)
}

// keyFlags choose how an auditor's message is opened.
func keyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "auditor's secret key `SEC.asc`"},
		&cli.BoolFlag{Name: "gpg", Usage: "use the local gpg, its agent and card"},
	}
}

// opener is what the key flags choose; nil if neither was given.
func (a *app) opener(c *cli.Context) (pgp.Opener, error) {
	switch {
	case c.Bool("gpg") && c.IsSet("key"):
		return nil, usagef("%s: --key and --gpg exclude each other", c.Command.Name)
	case c.Bool("gpg"):
		return pgp.LocalGPG(a.getenv("GNUPGHOME")), nil
	case !c.IsSet("key"):
		return nil, nil
	}
	file := c.String("key")
	data, err := vfs.ReadFile(a.fs, file, 1<<20)
	if err != nil {
		return nil, &codedError{codeKey, "give the auditor's secret key file", fmt.Errorf("reading the key: %w", err)}
	}
	open, err := pgp.OpenKeyFile(data, func() ([]byte, error) {
		return a.passphrase(c.Context, "Passphrase of "+strings.TrimSpace(filepath.Base(file))+": ")
	})
	if inner, ok := errors.AsType[*codedError](err); ok {
		return nil, &codedError{inner.code, inner.hint, fmt.Errorf("%s: %w", file, err)} // asking for the passphrase failed
	}
	if err != nil {
		return nil, &codedError{codeKey, "the file must hold the secret key of an auditor of this vault, and the passphrase must be its own", fmt.Errorf("%s: %w", file, err)}
	}
	return open, nil
}

// needOpener is opener where a key is required.
func (a *app) needOpener(c *cli.Context) (pgp.Opener, error) {
	open, err := a.opener(c)
	if err == nil && open == nil {
		err = &codedError{codeKey, "give --key SEC.asc, or --gpg to use the local gpg", errors.New("no key: the lines are encrypted to the auditors")}
	}
	return open, err
}
