package main

import (
	"errors"
	flags "flag"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

// usageError is a mistake in the command line: exit 2.
type usageError struct {
	text    string
	command string // whose help tells more; "" is the program's
}

// Error implements error.
func (e *usageError) Error() string { return e.text }

func (e *usageError) hint() string {
	if e.command == "" {
		return "`logvault --help` lists the commands"
	}
	return fmt.Sprintf("`logvault %s --help` shows the flags and an example", e.command)
}

func usagef(format string, args ...any) error { return &usageError{text: fmt.Sprintf(format, args...)} }

// onUsage is a mistake that the flag library found.
func onUsage(c *cli.Context, err error, _ bool) error {
	e := &usageError{text: flagText(err), command: commandPath(c)}
	if e.command != "" {
		e.text = e.command + ": " + e.text
	}
	return e
}

// of notes whose mistake a usage error is.
func of(c *cli.Context, err error) error {
	if e, ok := errors.AsType[*usageError](err); ok && e.command == "" {
		e.command = commandPath(c)
	}
	return err
}

// commandPath is the command as a person types it: "keys export".
func commandPath(c *cli.Context) string {
	var path []string
	for _, level := range c.Lineage() {
		if level.Command != nil && level.Command.Name != "" && level.Command.Name != level.App.Name {
			path = append([]string{level.Command.Name}, path...)
		}
	}
	return strings.Join(path, " ")
}

var flagTexts = []struct {
	is   *regexp.Regexp
	says string
}{
	{regexp.MustCompile(`^flag provided but not defined: -+(.*)$`), "unknown flag --$1"},
	{regexp.MustCompile(`^flag needs an argument: -+(.*)$`), "--$1 needs a value"},
	{regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-+([^:]*): parse error$`), "--$2: $1 is not what it takes"},
	{regexp.MustCompile(`^invalid value ".*" for flag -+([^:]*): (.*)$`), "--$1: $2"},
}

// flagText says what the library says in the words of this program.
func flagText(err error) string {
	text := err.Error()
	for _, t := range flagTexts {
		if t.is.MatchString(text) {
			return t.is.ReplaceAllString(text, t.says)
		}
	}
	return text
}

// errTwice keeps a second value from silently taking the place of the first: a
// question to one source would be answered for another.
var errTwice = errors.New("given twice, and takes one value")

// once is a flag that may be given once.
type once struct{ *cli.StringFlag }

// Apply implements cli.Flag.
func (f once) Apply(set *flags.FlagSet) error {
	err := f.StringFlag.Apply(set)
	for _, name := range f.Names() {
		if known := set.Lookup(name); known != nil {
			known.Value = &onceValue{Value: known.Value}
		}
	}
	return err
}

// onceValue is the value of a flag that may be given once.
type onceValue struct {
	flags.Value
	given bool
}

// Set implements flag.Value.
func (v *onceValue) Set(s string) error {
	if v.given {
		return errTwice
	}
	v.given = true
	return v.Value.Set(s)
}

// onlyOnce makes the flags that take one text refuse a second one.
func onlyOnce(all []cli.Flag) {
	for i, f := range all {
		if s, ok := f.(*cli.StringFlag); ok {
			all[i] = once{s}
		}
	}
}
