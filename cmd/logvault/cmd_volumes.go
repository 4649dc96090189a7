package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate/volume"
)

// volumeFlags make `replicate` fill offline volumes instead of a copy.
func volumeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "volume-size", Usage: "fill an offline volume of at most `N` bytes, such as 3600GiB, on the mounted disk --to; without keys/"},
		&cli.StringFlag{Name: "label", Usage: "where the volume will lie, `TEXT`, for the catalogue"},
		&cli.BoolFlag{Name: "new-volume", Usage: "begin another volume although the last one has room"},
	}
}

// volumes fills one offline volume. The catalogue is in the state directory, by
// default beside the place that disks are mounted at.
func (a *app) volumes(c *cli.Context) error {
	for _, name := range []string{"init", "immutable", "cosign-back", "accept-rotation"} {
		if c.IsSet(name) {
			return usagef("replicate: --%s does not go with --volume-size", name)
		}
	}
	room, err := config.ParseByteSize(c.String("volume-size"))
	if err != nil {
		return usagef("replicate: --volume-size: %v", err)
	}
	if strings.Contains(c.String("to"), "://") {
		return usagef("replicate: --volume-size goes with a directory, not with %s", c.String("to"))
	}
	to, err := filepath.Abs(c.String("to"))
	if err != nil {
		return err
	}
	state := c.String("state")
	if state == "" {
		state = to + ".state"
	}
	trust, err := a.volumeTrust(c, state)
	if err != nil {
		return err
	}
	from, err := a.stores().Open(c.Context, c.String("from"))
	if err != nil {
		return err
	}
	res, err := volume.Fill(c.Context, volume.Options{FS: a.fs, From: from, Trust: trust, Dir: to, Room: int64(room),
		Catalogue: filepath.Join(state, "volumes.json"), Label: c.String("label"), New: c.Bool("new-volume"), Now: a.now})
	if err != nil {
		return err
	}
	if err := a.printVolume(c, res); err != nil || res.Left == 0 {
		return err
	}
	return &codedError{codePartial, "mount an empty disk at --to and run the command again", fmt.Errorf("volume %d is full; what is left needs another: %s", res.Volume.Number, count(res.Left, "object"))}
}

// volumeTrust is the trust file that the first volume pinned, or that --trust names.
func (a *app) volumeTrust(c *cli.Context, state string) (*ledger.Trust, error) {
	pinned := filepath.Join(state, "trust.toml")
	if fileExists(a.fs, pinned) {
		return a.loadTrust(pinned)
	}
	if !c.IsSet("trust") {
		return nil, usagef("replicate: --trust is required for the first volume: no %s", pinned)
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return nil, err
	}
	text, err := config.EncodeTrust(trust)
	if err == nil {
		err = vfs.MkdirAll(a.fs, state, 0o700)
	}
	if err == nil {
		err = vfs.CreateFile(a.fs, pinned, text, 0o644)
	}
	if err != nil {
		return nil, errors.Join(errors.New("pinning the trust of the volumes"), err)
	}
	return trust, nil
}

func (a *app) printVolume(c *cli.Context, res volume.Result) error {
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(struct {
			Type string `json:"message_type"`
			volume.Volume
			Copied int64 `json:"copied"`
			Left   int64 `json:"left"`
		}{"volume", res.Volume, res.Copied, res.Left})
	}
	v := res.Volume
	_, err := fmt.Fprintf(a.out, "volume %d holds %s (%s) of the entries %d to %d, %d of them new; SHA256SUMS has SHA-256 %s\n",
		v.Number, count(v.Objects, "object"), bytesText(v.Bytes), v.First, v.Next-1, res.Copied, v.Sums)
	return err
}
