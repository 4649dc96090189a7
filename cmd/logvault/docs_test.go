package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// fenced returns the blocks of a page that are fenced as a kind of text, with
// what else stands behind the fence.
func fenced(t *testing.T, page, kind string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```"+kind+"( [^\n]*)?\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		blocks[strings.TrimSpace(m[1])+strings.Repeat("'", len(blocks))] = m[2]
	}
	if len(blocks) == 0 {
		t.Fatalf("docs/%s has no block of %s", page, kind)
	}
	return blocks
}

// TestDocumentedCommands compares every command line of SECOND-NAS.md with the
// commands and flags that there are.
func TestDocumentedCommands(t *testing.T) {
	commands := map[string]*cli.Command{}
	for _, c := range new(app).cli().Commands {
		commands[c.Name] = c
		for _, sub := range c.Subcommands {
			commands[c.Name+" "+sub.Name] = sub
		}
	}
	checked := 0
	for _, kind := range []string{"sh", "cron", "systemd"} {
		for _, block := range fenced(t, "SECOND-NAS.md", kind) {
			for line := range strings.Lines(block) {
				_, args, ok := strings.Cut(strings.TrimSpace(line), "logvault ")
				if !ok || strings.HasPrefix(line, "install") {
					continue
				}
				if _, rest, ok := strings.Cut(args, "bin/logvault "); ok {
					args = rest
				}
				if checkCommandLine(t, commands, args) {
					checked++
				}
			}
		}
	}
	if checked < 12 {
		t.Errorf("%d command lines checked, expected all of the page", checked)
	}
}

func checkCommandLine(t *testing.T, commands map[string]*cli.Command, args string) bool {
	t.Helper()
	words := strings.Fields(args)
	for len(words) > 1 && strings.HasPrefix(words[0], "--") {
		words = words[2:] // a common flag with its value
	}
	if len(words) == 0 {
		return false
	}
	c := commands[words[0]]
	if len(words) > 1 && commands[words[0]+" "+words[1]] != nil {
		c = commands[words[0]+" "+words[1]]
	}
	if c == nil {
		return false // a user's or a directory's name
	}
	for _, w := range words {
		name, ok := strings.CutPrefix(w, "--")
		if !ok {
			continue
		}
		known := false
		for _, f := range c.Flags {
			for _, n := range f.Names() {
				known = known || n == name
			}
		}
		if !known {
			t.Errorf("logvault %s has no flag %s: %s", c.Name, w, args)
		}
	}
	return true
}
