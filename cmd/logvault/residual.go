package main

import (
	"context"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/urfave/cli/v2"

	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/verify"
)

// residualPlaces are what --residual names: directories of any kind, or vaults
// at a URL. Of a bucket that keeps versions the old and hidden ones are searched:
// the others are the vault, and judged by its own audit.
func (a *app) residualPlaces(c *cli.Context) (all []verify.Place, err error) {
	for _, place := range c.StringSlice("residual") {
		if !strings.Contains(place, "://") {
			info, err := a.fs.Stat(place)
			if err != nil {
				return nil, &codedError{codeNoVault, "is it mounted? a snapshot directory may need snapdir=visible", err}
			}
			if !info.IsDir() {
				return nil, usagef("verify: --residual %s: expected a directory", place)
			}
			all = append(all, dirPlace{a.fs, path.Clean(place)})
			continue
		}
		store, err := a.stores().Open(c.Context, place)
		if err != nil {
			return nil, err
		}
		all = append(all, storePlace{place, store})
	}
	return all, nil
}

// dirPlace is a directory with everything below it; links are not followed.
type dirPlace struct {
	fs   vfs.FS
	root string
}

// Name implements verify.Place.
func (d dirPlace) Name() string { return d.root }

// Walk implements verify.Place.
func (d dirPlace) Walk(ctx context.Context, fn func(verify.File) error) error {
	return d.walk(ctx, d.root, fn)
}

func (d dirPlace) walk(ctx context.Context, dir string, fn func(verify.File) error) error {
	list, err := d.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = d.walk(ctx, name, fn)
		case e.Type().IsRegular():
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				err = fn(verify.File{Path: name, Size: info.Size(), Open: func() (io.ReadCloser, error) { return d.fs.Open(name) }})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// storePlace is a vault that is searched for what it should not hold.
type storePlace struct {
	name  string
	store vault.Store
}

// Name implements verify.Place.
func (s storePlace) Name() string { return s.name }

// versions is a store that may keep what was overwritten or deleted.
type versions interface {
	// EachOldVersion calls fn for every version that a later one or a delete
	// marker hides, with its version id.
	EachOldVersion(ctx context.Context, fn func(i vault.Info, version string, open func() (io.ReadCloser, error)) error) error
}

// Walk implements verify.Place.
func (s storePlace) Walk(ctx context.Context, fn func(verify.File) error) error {
	at := strings.TrimRight(s.name, "/") + "/"
	if v, ok := s.store.(versions); ok {
		return v.EachOldVersion(ctx, func(i vault.Info, version string, open func() (io.ReadCloser, error)) error {
			i.Name += "?version=" + version
			return fn(verify.File{Path: at + i.Name, Size: i.Size, Open: open})
		})
	}
	return s.store.List(ctx, "", func(i vault.Info) error {
		return fn(verify.File{Path: at + i.Name, Size: i.Size, Open: func() (io.ReadCloser, error) {
			rc, _, err := s.store.Open(ctx, i.Name)
			return rc, err
		}})
	})
}
