package main

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version",
		Description: describe("Prints the version of the program and of the formats that it writes.", "logvault version"),
		Action:      a.version,
	}
}

// version is also what --version does.
func (a *app) version(c *cli.Context) error {
	v := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
	}
	if flag(c, "json") {
		return json.NewEncoder(a.out).Encode(map[string]any{"message_type": "version", "version": v, "format": 1})
	}
	_, err := fmt.Fprintf(a.out, "logvault %s, format 1\n", v)
	return err
}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print shell completion",
		Description: describe("Prints a script that completes commands and flags.", "source <(logvault completion --shell bash)"),
		Flags:       []cli.Flag{&cli.StringFlag{Name: "shell", Usage: "`SHELL`: bash, zsh or fish"}},
		Action: func(c *cli.Context) error {
			if err := need(c, "shell"); err != nil {
				return err
			}
			text, err := completion(c.String("shell"), a.commands())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.out, text)
			return err
		},
	}
}

// completion writes a static script: it lists commands and their flags and
// starts no program while the user types.
func completion(shell string, commands []*cli.Command) (string, error) {
	var names []string
	flags := map[string]string{}
	for _, c := range commands {
		names = append(names, c.Name)
		var all []string
		for _, f := range append(c.Flags, commonFlags()...) {
			all = append(all, "--"+f.Names()[0])
		}
		flags[c.Name] = strings.Join(append(all, "--help"), " ")
	}
	var b strings.Builder
	switch shell {
	case "bash", "zsh":
		if shell == "zsh" {
			b.WriteString("autoload -U +X bashcompinit && bashcompinit\n")
		}
		b.WriteString("_logvault() {\n  local cur=${COMP_WORDS[COMP_CWORD]} words\n  case ${COMP_WORDS[1]} in\n")
		for _, n := range names {
			fmt.Fprintf(&b, "    %s) words='%s';;\n", n, flags[n])
		}
		fmt.Fprintf(&b, "    *) words='%s';;\n  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _logvault logvault\n", strings.Join(names, " "))
	case "fish":
		fmt.Fprintf(&b, "complete -c logvault -n __fish_use_subcommand -f -a '%s'\n", strings.Join(names, " "))
		for _, n := range names {
			for f := range strings.FieldsSeq(flags[n]) {
				fmt.Fprintf(&b, "complete -c logvault -n '__fish_seen_subcommand_from %s' -l %s\n", n, strings.TrimPrefix(f, "--"))
			}
		}
	default:
		return "", usagef("completion: --shell %q: expected bash, zsh or fish", shell)
	}
	return b.String(), nil
}
