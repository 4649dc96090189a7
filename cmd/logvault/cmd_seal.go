package main

import (
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"logvault/internal/gateway"
)

func (a *app) sealCommand() *cli.Command {
	return &cli.Command{
		Name:  "seal",
		Usage: "seal everything received so far",
		Description: describe("Seals every whole line that has been received, whether `serve` runs or not, and returns when it is in the ledger.",
			"logvault --config /var/lib/logvault/logvault.toml seal", codePartial, codeIntegrity, codeNoVault, codeLocked),
		Action: a.seal,
	}
}

func (a *app) seal(c *cli.Context) (err error) {
	svc, err := a.connect(c)
	if err != nil {
		return err
	}
	defer closeInto(svc, &err)
	res, err := svc.Seal(c.Context)
	if err != nil {
		return err
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(struct {
			Type string `json:"message_type"`
			gateway.SealResult
		}{"sealed", res})
	}
	_, err = fmt.Fprintf(a.out, "sealed %s, %s of lines in %s; the ledger has %s\n", count(int64(res.Segments), "segment"), bytesText(res.Raw), bytesText(res.Stored), entries(res.Size))
	return err
}

// closeInto closes and reports the error unless there is one already.
func closeInto(c interface{ Close() error }, err *error) {
	if cerr := c.Close(); *err == nil {
		*err = cerr
	}
}

// count says how many of a thing there are, in words.
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// bytesText is a size for people, with three digits.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1000 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	digits := 2
	switch {
	case v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, v, units[u])
}
