package main

import "github.com/urfave/cli/v2"

// commands lists every command in the order of the help.
func (a *app) commands() []*cli.Command {
	return []*cli.Command{
		a.demoCommand(),
		a.keygenCommand(),
		a.initCommand(),
		a.serveCommand(),
		a.sealCommand(),
		a.ingestCommand(),
		a.lsCommand(),
		a.catCommand(),
		a.inspectCommand(),
		a.verifyCommand(),
		a.replicateCommand(),
		a.restoreCommand(),
		a.recoverCommand(),
		a.keysCommand(),
		a.extractCommand(),
		a.checkBundleCommand(),
		a.statusCommand(),
		a.completionCommand(),
		a.versionCommand(),
	}
}
