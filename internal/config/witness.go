package config

import (
	"errors"
	"fmt"
	"net/url"

	"logvault/ledger"
)

// Witness is a third party that is asked to cosign the ledger's heads, when
// serve starts and then at most once an hour while it grows. It learns the ledger's origin, size and root.
type Witness struct {
	// Name is that of the witness in STATE/trust.toml, where its key is. Required.
	Name string `toml:"name"`
	// URL is the submission prefix of the C2SP witness: "https://witness.example.org". Required.
	URL string `toml:"url"`
}

func (c *Config) validateWitnesses() error {
	seen := map[string]bool{}
	for i, w := range c.Witnesses {
		if w.Name == "" || seen[w.Name] {
			return at(fmt.Sprintf("witness.%d.name", i), fmt.Errorf("witness %q: expected a name, once", w.Name))
		}
		seen[w.Name] = true
		if err := checkURL(w.URL); err != nil {
			return at(fmt.Sprintf("witness.%d.url", i), fmt.Errorf("witness %q: %w", w.Name, err))
		}
	}
	return nil
}

// WitnessKey finds the key that a trust file pins for a witness by its name.
func WitnessKey(t *ledger.Trust, name string) (string, error) {
	for _, w := range t.Witnesses {
		if w.Name == name {
			return w.Key, nil
		}
	}
	return "", fmt.Errorf("witness %q: no key of this name among the witnesses of the trust file", name)
}

// checkURL accepts an absolute HTTP or HTTPS URL. What comes from there is
// signed, so that plain HTTP takes nothing away but privacy.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("url is %q, expected https://HOST/… or http://HOST/…", s)
	}
	if u.User != nil {
		return errors.New("url holds a password, which would appear in errors")
	}
	return nil
}
