package extract

import (
	"bytes"
	"fmt"

	"logvault/ledger/entry"
)

// checkTail checks the statement of completeness against what was counted and
// against the proven entries.
func (p *payload) checkTail(t *tail) {
	if err := p.table.flush(); err != nil {
		p.find(CodeDerived, tableName, "%v", err)
	}
	table := fileRecord{tableName, p.tableLen, fmt.Sprintf("%x", p.tableSum.Sum(nil))}
	if got := p.sums[tableName]; got != table.SHA256 {
		p.differ(CodeDerived, tableName, "hash of the table that follows from the lines", table.SHA256, got)
	}
	want := p.tail
	want.Files = append(p.listed, table)
	want.Gaps, want.Conflicts = t.Gaps, t.Conflicts
	want.SilentSources, want.Unread = t.SilentSources, t.Unread
	a, errA := encodeJSON(want)
	b, errB := encodeJSON(t)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		p.find(CodeMismatch, manifestName, "the tail does not add up")
	}
	for _, n := range t.Gaps {
		if g, ok := use[*entry.Gap](p.checker, manifestName+" gaps", n.Entry); ok && noteOf(n.Entry, g).record != n {
			p.find(CodeMismatch, manifestName, "gap %d says other than its ledger entry", n.Entry)
		}
	}
	for _, n := range t.Conflicts {
		if g, ok := use[*entry.Conflict](p.checker, manifestName+" conflicts", n.Entry); ok && noteOf(n.Entry, g).record != n {
			p.find(CodeMismatch, manifestName, "conflict %d says other than its ledger entry", n.Entry)
		}
	}
	for i, e := range p.entries {
		if !*e.used {
			p.find(CodeExtra, entriesName, "ledger entry %d, which the manifest does not speak of", i)
		}
	}
	known := map[string]bool{readmeName: p.whole()}
	for _, name := range partFiles {
		known[name] = true
	}
	for _, f := range p.listed {
		known[f.Name] = true
	}
	for name := range p.sums {
		if !known[name] {
			p.find(CodeExtra, name, "the manifest does not speak of it")
		}
	}
	p.summarise(t)
}

// summarise repeats the statement of completeness in the report.
func (p *payload) summarise(t *tail) {
	s := &p.part.Summary
	s.Lines, s.Searched, s.Destroyed = p.tail.Lines, p.tail.Searched, t.Destroyed
	s.Unparsed, s.Undecided = t.Unparsed, t.Undecided
	s.Gaps, s.Conflicts, s.Silent, s.Unread = len(t.Gaps), len(t.Conflicts), t.SilentSources, len(t.Unread)
}

// checkTexts checks the files for people.
func (p *payload) checkTexts(t *tail) error {
	got, ok, err := p.small(attestationName, maxSmall)
	if err != nil {
		return err
	}
	if ok && !bytes.Equal(got, attestation(p.request, &p.head, t, p.index, p.entry, &p.cp)) {
		p.find(CodeDerived, attestationName, "not the text that follows from the bundle")
	}
	return p.checkText(scriptName, checkScript)
}

// checkText compares a file for people with the one of this version.
func (c *checker) checkText(name, want string) error {
	got, ok, err := c.small(name, maxSmall)
	if err != nil {
		return err
	}
	if ok && string(got) != want {
		c.add(Finding{Code: CodeText, Level: Warning, Object: name, Detail: "not the text of this version: do not rely on it"})
	}
	return nil
}
