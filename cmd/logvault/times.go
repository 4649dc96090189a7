package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// parseTime reads the time that flag name holds, in the zone of --tz or the
// local one: RFC 3339, "2026-11-01 10:00[:05]", "2026-11-01", "now", "today",
// "yesterday", or a duration back from now such as "-2h".
func (a *app) parseTime(c *cli.Context, name string) (time.Time, error) {
	zone := time.Local
	if tz := c.String("tz"); tz != "" {
		var err error
		if zone, err = time.LoadLocation(tz); err != nil {
			return time.Time{}, usagef("%s: --tz %q is unknown, expected a name such as Europe/Paris", c.Command.Name, tz)
		}
	}
	t, ok := parseTimeText(c.String(name), zone, a.now())
	if !ok {
		return time.Time{}, usagef("%s: --%s %q: expected RFC 3339, \"2026-11-01 10:00\", \"2026-11-01\", \"yesterday\" or \"-2h\"", c.Command.Name, name, c.String(name))
	}
	return t, nil
}

func parseTimeText(s string, zone *time.Location, now time.Time) (time.Time, bool) {
	now = now.In(zone)
	y, m, d := now.Date()
	switch s {
	case "now":
		return now, true
	case "today":
		return time.Date(y, m, d, 0, 0, 0, 0, zone), true
	case "yesterday":
		return time.Date(y, m, d-1, 0, 0, 0, 0, zone), true
	}
	if strings.HasPrefix(s, "-") {
		back, err := time.ParseDuration(s)
		return now.Add(back), err == nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// window reads the optional --since and --until.
func (a *app) window(c *cli.Context) (since, until time.Time, err error) {
	if c.IsSet("since") {
		if since, err = a.parseTime(c, "since"); err != nil {
			return since, until, err
		}
	}
	if c.IsSet("until") {
		if until, err = a.parseTime(c, "until"); err != nil {
			return since, until, err
		}
		if c.IsSet("since") && !since.Before(until) {
			return since, until, usagef("%s: --since is not before --until", c.Command.Name)
		}
	}
	return since, until, nil
}

func windowFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "since", Usage: "from this `TIME`"},
		&cli.StringFlag{Name: "until", Usage: "until before this `TIME`"},
		&cli.StringFlag{Name: "tz", Usage: "zone `ZONE` of a time that has none (default: local)"},
	}
}
