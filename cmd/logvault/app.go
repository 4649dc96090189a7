package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/gateway"
	"logvault/internal/vfs"
	"logvault/vault/location"
)

// defaultConfig is where the configuration is if nothing else is said.
const defaultConfig = "/etc/logvault/logvault.toml"

// app is the program's surroundings. Commands are methods of it, so that a test
// can run them with other streams, another clock and another disk.
type app struct {
	in     io.Reader
	out    io.Writer // data
	err    io.Writer // talk
	fs     vfs.FS
	random io.Reader
	now    func() time.Time
	boot   func() time.Duration
	getenv func(string) string
}

// run runs one command line and returns its exit code. Messages are written here only.
func (a *app) run(ctx context.Context, args []string) int {
	err := a.cli().RunContext(ctx, args)
	if err == nil {
		return codeOK
	}
	code := exitCode(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		code = codeInterrupted
	}
	if code == codeInterrupted {
		fmt.Fprintln(a.err, "logvault: interrupted")
	} else if text := err.Error(); text != "" {
		fmt.Fprintf(a.err, "logvault: %s\n", strings.TrimPrefix(text, "logvault: "))
	}
	if h := hint(err); h != "" && code != codeInterrupted {
		fmt.Fprintf(a.err, "hint: %s\n", h)
	}
	return code
}

// cli is the command tree. urfave/cli is made strict: a usage error never
// prints help to standard output, never exits by itself, and repeated values
// are repeated flags.
func (a *app) cli() *cli.App {
	root := &cli.App{
		Name:                      "logvault",
		Usage:                     "append-only, encrypted archival of proxy logs for legal retention",
		UsageText:                 "logvault COMMAND [FLAGS]",
		Description:               "Begin with `logvault demo`. Every command has --help with an example and its exit codes.\n\n" + allCodes(),
		Writer:                    a.out,
		ErrWriter:                 a.err,
		Flags:                     append(commonFlags(), &cli.BoolFlag{Name: "version", Usage: "print the version"}),
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsage,
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return a.version(c)
			}
			if c.NArg() > 0 {
				return usagef("unknown command %q", c.Args().First())
			}
			return usagef("no command given")
		},
	}
	for _, cmd := range a.commands() {
		root.Commands = append(root.Commands, strict(cmd))
	}
	return root
}

// strict gives a command the common flags and refuses stray arguments: the
// library stops reading flags at the first one and would ignore those after it.
func strict(cmd *cli.Command) *cli.Command {
	action := cmd.Action
	cmd.Flags = append(cmd.Flags, commonFlags()...)
	onlyOnce(cmd.Flags)
	for _, f := range cmd.Flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true
		}
	}
	cmd.HideHelpCommand = true
	cmd.OnUsageError = onUsage
	cmd.UsageText = "logvault " + cmd.Name + " [FLAGS]"
	cmd.Action = func(c *cli.Context) error {
		if c.NArg() > 0 {
			return of(c, usagef("%s: unexpected argument %q: values go with a flag, and what follows it was not read", cmd.Name, c.Args().First()))
		}
		if level := isSet(c, "config"); level != nil && len(level.StringSlice("config")) > 1 && cmd.Name != severalConfigs {
			return usagef("%s: --config was given twice: only %s puts one question to several gateways", cmd.Name, severalConfigs)
		}
		return of(c, action(c))
	}
	return cmd
}

// severalConfigs is the command for which --config may be repeated: one request
// to several gateways, each of which records it. Commands that only read name
// several vaults with --vault.
const severalConfigs = "extract"

// commonFlags work before and after the command's name.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration `FILE` (or LOGVAULT_CONFIG; default " + defaultConfig + ")"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON lines"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print no talk but errors"},
		&cli.BoolFlag{Name: "verbose", Usage: "log each step"},
	}
}

// isSet looks a flag up where it was given: after the command's name or before.
func isSet(c *cli.Context, name string) *cli.Context {
	for _, level := range c.Lineage() {
		if level.Command != nil && level.IsSet(name) {
			return level
		}
	}
	return nil
}

// flag returns a common boolean flag.
func flag(c *cli.Context, name string) bool {
	level := isSet(c, name)
	return level != nil && level.Bool(name)
}

// need returns a usage error unless each flag was given.
func need(c *cli.Context, names ...string) error {
	for _, n := range names {
		if !c.IsSet(n) {
			return usagef("%s: --%s is required", c.Command.Name, n)
		}
	}
	return nil
}

// configFiles are the configuration files in force and whether a person named
// them: one, except for severalConfigs.
func (a *app) configFiles(c *cli.Context) (files []string, named bool) {
	if level := isSet(c, "config"); level != nil {
		return level.StringSlice("config"), true
	}
	if file := a.getenv("LOGVAULT_CONFIG"); file != "" {
		return []string{file}, true
	}
	return []string{defaultConfig}, false
}

// configFile is the configuration file in force and whether a person named it.
func (a *app) configFile(c *cli.Context) (file string, named bool) {
	files, named := a.configFiles(c)
	return files[0], named
}

// loadConfig loads the configuration in force.
func (a *app) loadConfig(c *cli.Context) (*config.Config, error) {
	file, _ := a.configFile(c)
	return a.loadConfigFile(file)
}

func (a *app) loadConfigFile(file string) (*config.Config, error) {
	cfg, err := config.Load(a.fs, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &codedError{codeNoVault, "`logvault init` makes the state and its configuration; name it with --config or LOGVAULT_CONFIG", err}
	}
	return cfg, err
}

// logger writes the operational log to standard error.
func (a *app) logger(c *cli.Context) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case flag(c, "quiet"):
		level = slog.LevelError
	case flag(c, "verbose"):
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// quietLogger is for commands whose own output says what happened: only
// warnings and errors are logged unless --verbose asks for more.
func (a *app) quietLogger(c *cli.Context) *slog.Logger {
	if flag(c, "verbose") {
		return a.logger(c)
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// env is the world that the gateway's parts are given.
func (a *app) env(log *slog.Logger) gateway.Env {
	return gateway.Env{FS: a.fs, Random: a.random, Now: a.now, Boot: a.boot, Log: log, Stores: a.stores()}
}

// stores opens vaults by the place that a flag or the configuration names.
func (a *app) stores() location.Opener {
	o := location.Opener{FS: a.fs, Getenv: a.getenv}
	// The passphrase of an SSH key is never asked for on a terminal: the same
	// command must work under cron.
	if command := a.getenv("LOGVAULT_PASSCOMMAND"); command != "" {
		o.Passphrase = func(ctx context.Context, _ string) ([]byte, error) { return runPassCommand(ctx, command) }
	}
	return o
}

// connect opens the gateway, in this process or through `serve`.
func (a *app) connect(c *cli.Context) (gateway.Service, error) {
	cfg, err := a.loadConfig(c)
	if err != nil {
		return nil, err
	}
	return gateway.Connect(c.Context, a.env(a.quietLogger(c)), cfg)
}

// talk writes a line for people, unless --quiet or --json.
func (a *app) talk(c *cli.Context, format string, args ...any) {
	if !flag(c, "quiet") && !flag(c, "json") {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}
