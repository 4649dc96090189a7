package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// notice ends every preset's basis.
const notice = "Preset of logvault, not legal advice: have a lawyer read it."

// presetText is a preset as it is written down: a class in the text forms of
// the configuration. Dates are the last day in force.
type presetText struct {
	preset, class, period, zone, validUntil, basis string
}

// presets is the table behind Preset, in the order of Presets. A law that is a
// draft or that differs from case to case has no preset.
var presets = []presetText{
	{"france-2025", "technical", "P1Y", "Europe/Paris", "2026-10-20",
		"France. CPCE L34-1 II bis: technical data of the source of a connection, one year from the connection. " +
			"CPCE L34-1 III and décret 2025-980 (in force 2025-10-21, renewed yearly): traffic and location data, one year. " +
			"Outside these, erase or make anonymous; contents must not be kept."},
	{"france-2025", "identity", "P5Y", "Europe/Paris", "",
		"France. CPCE L34-1 II bis: identity, five years after the end of the contract. " +
			"The record date must be the end of the contract, not the date of a log line."},
	{"united-kingdom-2016", "technical", "P12M", "Europe/London", "",
		"United Kingdom. Investigatory Powers Act 2016 s.87(3): at most twelve months, and only under a notice; " +
			"s.92: the same integrity as the source, authorised persons only, destruction monthly or more often. " +
			"The calendar rule may add up to a day: where the notice gives a maximum, choose the period so that it stays below."},
	{"switzerland", "technical", "P6M", "Europe/Zurich", "",
		"Switzerland. VÜPF art. 21: allocation of addresses and translation data, six months, then destruction."},
	{"italy-2017", "technical", "P6Y", "Europe/Rome", "",
		"Italy. Law 167/2017: traffic data, up to six years (72 months)."},
	{"one-year", "technical", "P1Y", "UTC", "",
		"No legal text: one year, by the operator's own decision."},
}

// Presets returns the names that Preset knows.
func Presets() []string {
	var names []string
	for _, p := range presets {
		if !slices.Contains(names, p.preset) {
			names = append(names, p.preset)
		}
	}
	return names
}

// Preset returns the classes of a named preset, the one for log lines first:
// a starting point for a configuration, with the legal text it cites. Each
// grace is one day. It fails for an unknown name, and if the time zone
// database lacks the preset's zone (import time/tzdata into the program).
func Preset(name string) ([]Class, error) {
	var classes []Class
	for _, p := range presets {
		if p.preset != name {
			continue
		}
		c, err := p.parse()
		if err != nil {
			return nil, fmt.Errorf("preset %s: %w", name, err)
		}
		classes = append(classes, c)
	}
	if classes == nil {
		return nil, fmt.Errorf("preset %q: unknown, expected one of %s", name, strings.Join(Presets(), ", "))
	}
	return classes, nil
}

func (p presetText) parse() (Class, error) {
	c := Class{Name: p.class, Grace: Period{Days: 1}, Basis: p.basis + " " + notice}
	var err error
	if c.Period, err = ParsePeriod(p.period); err != nil {
		return Class{}, err
	}
	if c.Zone, err = time.LoadLocation(p.zone); err != nil {
		return Class{}, err
	}
	if p.validUntil != "" {
		if c.ValidUntil, err = time.Parse(time.DateOnly, p.validUntil); err != nil {
			return Class{}, err
		}
	}
	return c, c.Valid()
}
