package config

import "fmt"

// Timestamp is an authority of RFC 3161 that stamps the ledger's head once a
// day, if it has grown. It learns the SHA-256 of the head.
type Timestamp struct {
	// URL is where the authority takes requests: "https://tsa.example.org/tsr".
	// Required. The [tsa] table of STATE/trust.toml has its root certificates.
	URL string `toml:"url"`
}

func (t *Timestamp) validate() error {
	if t == nil {
		return nil
	}
	if err := checkURL(t.URL); err != nil {
		return at("timestamp.url", fmt.Errorf("timestamp: %w", err))
	}
	return nil
}
