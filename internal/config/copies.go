package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Copy declares a copy of the vault, so that `status` can judge how safe the
// archive is: three copies, on two kinds of media, at two sites. The primary is
// one of them, under the name "primary"; its place is that of vault.
type Copy struct {
	// Name is that of the copy, as `replicate --init --name` gave it, or "primary". Required.
	Name string `toml:"name"`
	// Place is where it is, as a path or URL. Leave it out for the primary, for
	// offline volumes, and for what cannot be reached from here.
	Place string `toml:"place,omitempty"`
	// Volumes is the catalogue of offline volumes, an absolute path, in place of a place.
	Volumes string `toml:"volumes,omitempty"`
	// Media is the kind of storage, in a word of your own: "disk", "bucket", "tape". Default "disk".
	Media string `toml:"media,omitempty"`
	// Site is where it stands, in a word of your own: "paris", "lyon". A copy without one counts for no site.
	Site string `toml:"site,omitempty"`
}

// Primary is the name of the gateway's own copy among the [[copy]] sections.
const Primary = "primary"

func (c *Config) validateCopies() error {
	seen := map[string]bool{}
	for i, k := range c.Copies {
		fail := func(key, format string, args ...any) error {
			return at(fmt.Sprintf("copy.%d.%s", i, key), fmt.Errorf(format, args...))
		}
		switch {
		case k.Name == "":
			return fail("name", "a [[copy]] has no name")
		case seen[k.Name]:
			return fail("name", "copy %q appears twice", k.Name)
		case k.Name == Primary && (k.Place != "" || k.Volumes != ""):
			return fail("place", "copy %q: the primary has no place of its own: it is vault", k.Name)
		case k.Place != "" && k.Volumes != "":
			return fail("volumes", "copy %q: has both place and volumes, expected one", k.Name)
		case k.Place != "" && !strings.Contains(k.Place, "://") && !filepath.IsAbs(k.Place):
			return fail("place", "copy %q: place is %q, expected an absolute path or a URL", k.Name, k.Place)
		case k.Volumes != "" && !filepath.IsAbs(k.Volumes):
			return fail("volumes", "copy %q: volumes is %q, expected the absolute path of a catalogue", k.Name, k.Volumes)
		}
		seen[k.Name] = true
	}
	return nil
}

// defaultCopies gives a copy without media the usual one.
func (c *Config) defaultCopies() {
	for i := range c.Copies {
		if c.Copies[i].Media == "" {
			c.Copies[i].Media = "disk"
		}
	}
}
