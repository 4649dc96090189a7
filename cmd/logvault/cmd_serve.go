package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/gateway"
)

func (a *app) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the gateway: NFS export, directory watches, sealing, control socket",
		Description: describe("Runs until SIGTERM. Prints one line `ready` once it accepts; a vault that is away then is waited for, while the intake goes on.\n"+
			"SIGTERM leaves the spool durable and exits 0;\n"+
			"SIGHUP reloads the sources and classes. What kill -9 interrupts is finished at the next start.",
			"logvault --config /var/lib/logvault/logvault.toml serve", codePartial, codeIntegrity, codeNoVault, codeLocked),
		Action: a.serve,
	}
}

func (a *app) serve(c *cli.Context) error {
	cfg, err := a.loadConfig(c)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before the spool is replayed: until then SIGHUP would kill
	defer signal.Stop(hup)
	env := a.env(a.logger(c))
	env.Background = background
	site, err := gateway.OpenIntake(c.Context, env, cfg)
	if c.Context.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // stopped while the spool was replayed: as good a moment as any later one
	}
	if err != nil {
		return err
	}
	err = site.Serve(c.Context, gateway.ServeOptions{
		Judge:  judge,
		Reload: hup,
		Config: func() (*config.Config, error) { return a.loadConfig(c) },
		Ready: func(nfs net.Addr) {
			if flag(c, "json") {
				json.NewEncoder(a.out).Encode(map[string]any{"message_type": "ready", "nfs": nfs.String(), "vault": cfg.Vault}) // serving counts, not who listens here
				return
			}
			fmt.Fprintf(a.out, "ready nfs=%s vault=%s\n", nfs, cfg.Vault)
		},
	})
	if cerr := site.Close(); err == nil {
		err = cerr
	}
	return err
}
