package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Watch is a directory of this host whose log files are taken in as they grow,
// for programs that log locally.
type Watch struct {
	// Source is the name of the [[source]] that the files belong to. Required.
	Source string `toml:"source"`
	// Directory holds the files. Required, absolute, not within state or vault.
	Directory string `toml:"directory"`
	// Patterns choose the files by their path below the directory: "access.log*",
	// "*/access.log*"; * ? [a-z] do not cross a '/'. Let them choose rotated files
	// too: one that was rotated while the gateway was down is found only by them.
	// At least one.
	Patterns []string `toml:"patterns"`
}

func (c *Config) validateWatches() error {
	for i, w := range c.Watches {
		fail := func(key string, err error) error {
			return at(fmt.Sprintf("watch.%d.%s", i, key), fmt.Errorf("watch of %q: %w", w.Directory, err))
		}
		known := false
		for _, s := range c.Sources {
			known = known || s.Name == w.Source
		}
		switch {
		case !known:
			return fail("source", fmt.Errorf("source %q is not defined by a [[source]]", w.Source))
		case !filepath.IsAbs(w.Directory) || w.Directory != filepath.Clean(w.Directory):
			return fail("directory", errors.New("expected an absolute path"))
		case len(w.Patterns) == 0:
			return fail("patterns", errors.New(`patterns is empty, expected names such as "access.log*"`))
		}
		for _, p := range w.Patterns {
			if _, err := path.Match(p, ""); err != nil || p == "." || p == ".." || strings.HasPrefix(p, "../") || p == "" || p != path.Clean(p) || path.IsAbs(p) {
				return fail("patterns", fmt.Errorf(`pattern %q: expected a path below the directory such as "access.log*" or "*/access.log*"`, p))
			}
		}
		for _, own := range []string{c.State, c.Vault} {
			if rel, err := filepath.Rel(own, w.Directory); err == nil && filepath.IsAbs(own) && rel != ".." && !strings.HasPrefix(rel, "../") {
				return fail("directory", fmt.Errorf("it is within %s, which logvault writes itself", own))
			}
		}
	}
	return nil
}
