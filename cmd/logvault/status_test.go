package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"logvault/ingest"
	"logvault/internal/gateway"
	"logvault/nfsgw"
)

// What an operator must hear of an intake that is full, or soon will be.
func TestStatusOfAFullIntake(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		st   gateway.Status
		want string
	}{
		{"all is well", gateway.Status{NFS: &nfsgw.Stats{Full: 7}, Spool: ingest.Stats{Table: 79, TableLimit: 100}}, ""},
		{"no room", gateway.Status{NFS: &nfsgw.Stats{Full: 7, FullSince: now.Add(-90 * time.Minute)}}, "no room to take in, for 90 min: NFS clients are told to wait, nothing is lost; 7 calls so far"},
		{"many names", gateway.Status{Spool: ingest.Stats{Table: 81 << 20, TableLimit: 100 << 20}}, "the spool's table of names is 81.0 MiB of 100 MiB"},
	} {
		var out bytes.Buffer
		a := &app{out: &out, now: func() time.Time { return now }}
		a.printStatus(tc.st)
		var warnings string
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "WARNING") {
				warnings += line
			}
		}
		if !strings.Contains(warnings, tc.want) || tc.want == "" && warnings != "" {
			t.Errorf("%s: %q, expected %q", tc.name, warnings, tc.want)
		}
	}
}

// TestBasisLapses: a legal basis is in force through its last day.
func TestBasisLapses(t *testing.T) {
	st := gateway.Status{Classes: []gateway.ClassStatus{{Name: "technical", ValidUntil: time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)}},
		Auditors: []gateway.AuditorStatus{{}, {}}}
	for at, want := range map[time.Time]int{
		time.Date(2026, 10, 20, 23, 59, 59, 0, time.UTC): 0,
		time.Date(2026, 10, 21, 0, 0, 0, 0, time.UTC):    1,
	} {
		a := &app{now: func() time.Time { return at }}
		if got := a.rulesWarnings(st); len(got) != want {
			t.Errorf("at %s: %q", at, got)
		}
	}
}
