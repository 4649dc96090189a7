package extract

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// small makes a rig with a bundle of a few lines in /answer.
func small(t testing.TB) *rig {
	r := newRig(t)
	var text strings.Builder
	for m := range 40 {
		text.WriteString(squid(hour.Add(time.Duration(m)*time.Minute), fmt.Sprintf("192.0.2.%d", m%3), "alice", "www.example.org"))
	}
	r.seal("proxy1", 1, text.String(), hour, hour.Add(time.Hour))
	r.seal("proxy2", 2, squid(hour.Add(time.Minute), "192.0.2.1", "-", "=cmd.example"), hour, hour.Add(time.Hour))
	r.seal("proxy2", 3, squid(hour.Add(time.Minute), "192.0.2.9", "-", "b.example"), hour, hour.Add(time.Hour))
	s := r.seal("proxy2", 4, squid(hour.Add(200*time.Hour), "192.0.2.9", "-", "b.example"), hour, hour.Add(time.Hour))
	near := r.header()
	near.Time = hour
	r.append(&entry.Gap{Header: near, Source: "proxy2", Stream: s.entry.Stream, Offset: s.entry.Span, Span: 7, Prev: s.index, Reason: entry.GapHole})
	req := asking(hour, hour.Add(10*time.Minute))
	req.Scope.Client = []string{"192.0.2.1"}
	if sum := r.run("/answer", req); sum.Lines != 4 || sum.Gaps != 1 {
		t.Fatalf("got %+v, expected 4 lines and a gap", sum)
	}
	return r
}

// check checks /answer.
func (r *rig) check() Report {
	r.Helper()
	rep, err := CheckBundle(r.ctx, r.fs, "/answer", r.trust)
	r.must(err)
	return rep
}

// TestCheckEveryByte flips one bit of each byte of each file of a bundle. For
// the texts, which no stage parses, it runs the one stage that hashes them.
func TestCheckEveryByte(t *testing.T) {
	for name := range small(t).files("/answer") {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			t.Parallel()
			r := small(t)
			data := r.files("/answer")[name]
			check := r.check
			if name == readmeName || name == scriptName || name == attestationName {
				check = func() Report {
					c := newChecker(r.ctx, r.fs, "/answer", []*ledger.Trust{r.trust})
					_, err := c.checkFiles()
					r.must(err)
					return Report{Findings: c.findings}
				}
			}
			step := 1
			if testing.Short() {
				step = 7
			}
			for i := 0; i < len(data); i += step {
				bad := bytes.Clone(data)
				bad[i] ^= 0x01
				r.overwrite("/answer/"+name, bad)
				rep := check()
				if rep.OK() {
					t.Fatalf("byte %d changed: not found", i)
				}
				if name != sumsName && !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Object == name }) {
					t.Fatalf("byte %d changed: %v does not name it", i, rep.Findings)
				}
			}
			r.overwrite("/answer/"+name, data)
			if rep := r.check(); len(rep.Findings) > 0 {
				t.Fatalf("the bundle as it was has findings: %v", rep.Findings)
			}
		})
	}
}

// resum makes SHA256SUMS fit again, as an attacker would.
func (r *rig) resum() {
	r.Helper()
	files := r.files("/answer")
	var names []string
	for name := range files {
		if name != sumsName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	r.overwrite("/answer/"+sumsName, []byte(text.String()))
}

// forge changes the manifest through its own reader and writer, so that only
// what it says is wrong, not how.
func forge(t testing.TB, data []byte, h func(*head), each func(*segmentRecord) bool, tl func(*tail)) []byte {
	t.Helper()
	var b bytes.Buffer
	var m *manifestWriter
	end, err := readManifest(bytes.NewReader(data), func(hd head) error {
		if h != nil {
			h(&hd)
		}
		m = newManifestWriter(&b, hd)
		return nil
	}, func(rec *segmentRecord) error {
		if each != nil && !each(rec) {
			return nil
		}
		return m.add(rec)
	})
	if err != nil {
		t.Fatal(err)
	}
	if tl != nil {
		tl(&end)
	}
	if err := m.finish(end); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCheckForged changes what a bundle says and makes SHA256SUMS fit. Each
// change must be found for what it is.
func TestCheckForged(t *testing.T) {
	segmentOnly := func(change func(*segmentRecord)) func(testing.TB, []byte) []byte {
		return func(t testing.TB, data []byte) []byte {
			first := true
			return forge(t, data, nil, func(r *segmentRecord) bool {
				if first {
					change(r)
				}
				first = false
				return true
			}, nil)
		}
	}
	tailOnly := func(change func(*tail)) func(testing.TB, []byte) []byte {
		return func(t testing.TB, data []byte) []byte { return forge(t, data, nil, nil, change) }
	}
	replace := func(old, new string) func(testing.TB, []byte) []byte {
		return func(t testing.TB, data []byte) []byte {
			if !bytes.Contains(data, []byte(old)) {
				t.Fatalf("no %q in %s", old, data)
			}
			return bytes.Replace(data, []byte(old), []byte(new), 1)
		}
	}
	drop := func(t testing.TB, data []byte) []byte {
		n := 0
		return forge(t, data, nil, func(*segmentRecord) bool { n++; return n != 2 }, nil)
	}
	for name, c := range map[string]struct {
		file   string
		change func(testing.TB, []byte) []byte
		code   string
	}{
		"line":              {"lines/1-proxy1.log", replace("alice", "malic"), CodeNotProven},
		"line other client": {"lines/1-proxy1.log", replace("192.0.2.1 ", "192.0.2.2 "), CodeOutOfScope},
		"line dropped":      {"lines/1-proxy1.log", func(_ testing.TB, d []byte) []byte { return d[bytes.IndexByte(d, '\n')+1:] }, CodeMismatch},
		"line added":        {"lines/1-proxy1.log", func(_ testing.TB, d []byte) []byte { return append(d, "x\n"...) }, CodeMismatch},
		"table":             {tableName, replace("www.example.org", "www.examp1e.org"), CodeDerived},
		"attestation":       {attestationName, replace("Lt. A. Martin", "Lt. B. Martin"), CodeDerived},
		"attestation count": {attestationName, replace("lignes communiquées          4", "lignes communiquées          3"), CodeDerived},
		"request":           {requestName, replace("Martin", "Mantin"), CodeRequest},
		"request scope":     {requestName, replace("192.0.2.1", "192.0.2.2"), CodeRequest},
		"request format":    {requestName, replace("logvault-request", "logvault-requesu"), CodeMalformed},
		"salt":              {saltName, func(_ testing.TB, d []byte) []byte { return make([]byte, len(d)) }, CodeRequest},
		"salt size":         {saltName, func(_ testing.TB, d []byte) []byte { return d[:31] }, CodeMalformed},
		"scope": {manifestName, func(t testing.TB, d []byte) []byte {
			return forge(t, d, func(h *head) { h.Scope.Client = []string{"192.0.2.2"} }, nil, nil)
		}, CodeRequest},
		"origin": {manifestName, func(t testing.TB, d []byte) []byte { return forge(t, d, func(h *head) { h.Origin = "x" }, nil, nil) }, CodeMismatch},
		"margin": {manifestName, func(t testing.TB, d []byte) []byte {
			return forge(t, d, func(h *head) { h.MarginSeconds = -1 }, nil, nil)
		}, CodeMalformed},
		"segment dropped":     {manifestName, drop, CodeExtra},
		"segment object":      {manifestName, segmentOnly(func(r *segmentRecord) { r.Object = vault.Hash{}.String() }), CodeMismatch},
		"segment entry":       {manifestName, segmentOnly(func(r *segmentRecord) { r.Entry = 1 }), CodeNotInLedger},
		"segment line count":  {manifestName, segmentOnly(func(r *segmentRecord) { r.Lines++ }), CodeMismatch},
		"segment state":       {manifestName, segmentOnly(func(r *segmentRecord) { r.State = "searched" }), CodeMalformed},
		"segment index state": {manifestName, segmentOnly(func(r *segmentRecord) { r.State = stateIndex }), CodeMalformed},
		"segment destroyed":   {manifestName, segmentOnly(func(r *segmentRecord) { r.State, r.Format, r.Disclosed = stateDestroyed, "", nil }), CodeMismatch},
		"segment format":      {manifestName, segmentOnly(func(r *segmentRecord) { r.Format = "text" }), CodeOutOfScope},
		"line number":         {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.Lines[0]++ }), CodeNotProven},
		"proof":               {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.Nodes = nil }), CodeNotProven},
		"salt of a line":      {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.Salts[0] ^= 1 }), CodeNotProven},
		"place":               {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.At = 1 }), CodeMismatch},
		"size":                {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.Size = 1 << 40 }), CodeMismatch},
		"size negative":       {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.Size = -1 }), CodeMismatch},
		"file":                {manifestName, segmentOnly(func(r *segmentRecord) { r.Disclosed.File = "../x" }), CodeMismatch},
		"total":               {manifestName, tailOnly(func(t *tail) { t.Unparsed++ }), CodeMismatch},
		"gap":                 {manifestName, tailOnly(func(t *tail) { t.Gaps[0].Span = 1 }), CodeMismatch},
		"gap dropped":         {manifestName, tailOnly(func(t *tail) { t.Gaps = []noteRecord{} }), CodeExtra},
		"gap invented":        {manifestName, tailOnly(func(t *tail) { t.Conflicts = t.Gaps }), CodeMismatch},
		"file hash":           {manifestName, tailOnly(func(t *tail) { t.Files[0].SHA256 = vault.Hash{}.String() }), CodeMismatch},
		"silent sources":      {manifestName, tailOnly(func(t *tail) { t.SilentSources = []string{} }), CodeDerived},
		"entry":               {entriesName, replace(`"actor":"gateway"`, `"actor":"getaway"`), CodeNotInLedger},
		"entry dropped":       {entriesName, func(_ testing.TB, d []byte) []byte { return d[bytes.IndexByte(d, '\n')+1:] }, CodeNotInLedger},
		"entries cut":         {entriesName, func(_ testing.TB, d []byte) []byte { return d[:len(d)-1] }, CodeMalformed},
		"proofs cut":          {proofsName, func(_ testing.TB, d []byte) []byte { return d[:bytes.IndexByte(d, '\n')+1] }, CodeMalformed},
		"proof hash":          {proofsName, replace(`"proof":["`, `"proof":["zz`), CodeMalformed},
		"checkpoint":          {checkpointName, replace("logs.example/main", "logs.example/mine"), CodeUnsigned},
		"sums":                {"extra.txt", func(testing.TB, []byte) []byte { return []byte("x") }, CodeExtra},
		"line file":           {"lines/9-x.log", func(testing.TB, []byte) []byte { return []byte("x") }, CodeExtra},
	} {
		t.Run(name, func(t *testing.T) {
			r := small(t)
			data, err := vfs.ReadFile(r.fs, "/answer/"+c.file, 1<<20)
			if err != nil {
				data = nil
			}
			r.overwrite("/answer/"+c.file, c.change(t, bytes.Clone(data)))
			r.resum()
			rep := r.check()
			if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == c.code && f.Level == Error }) {
				t.Errorf("findings %v, expected %s", rep.Findings, c.code)
			}
		})
	}
}

// TestCheckTexts checks that a changed script is only a warning, but a warning.
func TestCheckTexts(t *testing.T) {
	r := small(t)
	r.overwrite("/answer/"+scriptName, []byte("print('OK')\n"))
	r.resum()
	rep := r.check()
	if !rep.OK() || len(rep.Findings) != 1 || rep.Findings[0].Code != CodeText || rep.Findings[0].Object != scriptName {
		t.Errorf("got %v, expected one warning", rep.Findings)
	}
}

// TestCheckFiles removes and adds files and folders.
func TestCheckFiles(t *testing.T) {
	for name := range small(t).files("/answer") {
		r := small(t)
		r.must(r.fs.Remove("/answer/" + name))
		rep := r.check()
		if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == CodeMissing && f.Object == name }) {
			t.Errorf("%s removed: %v", name, rep.Findings)
		}
		if name == sumsName {
			continue
		}
		r.resum()
		if r.check().OK() {
			t.Errorf("%s removed from the sums too: not found", name)
		}
	}
	r := small(t)
	r.must(r.fs.Mkdir("/answer/more", 0o700))
	r.overwrite("/answer/ledger/x", nil)
	rep := r.check()
	for _, name := range []string{"more", "ledger/x"} {
		if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == CodeExtra && f.Object == name }) {
			t.Errorf("%s added: %v", name, rep.Findings)
		}
	}
}

func TestCheckSums(t *testing.T) {
	line := strings.Repeat("0", 64) + "  "
	for _, bad := range []string{"", "x", line, line + "a", line + "../a\n", line + "/a\n", line + "b\n" + line + "a\n",
		line + "a\n" + line + "a\n", strings.ToUpper("a") + line[1:] + "a\n", line + sumsName + "\n"} {
		r := small(t)
		r.overwrite("/answer/"+sumsName, []byte(bad))
		if r.check().OK() {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestCheckTrust(t *testing.T) {
	r := small(t)
	if _, err := CheckBundle(r.ctx, r.fs, "/answer", nil); err == nil {
		t.Error("checked without a pinned key")
	}
	if _, err := CheckBundle(r.ctx, r.fs, "/nowhere", r.trust); err == nil {
		t.Error("checked a directory that is not there")
	}
	_, other, err := ledger.GenerateKey(rand.Reader, "logs.example/main")
	r.must(err)
	rep, err := CheckBundle(r.ctx, r.fs, "/answer", &ledger.Trust{Log: other, Origin: "logs.example/main"})
	r.must(err)
	if len(rep.Findings) != 1 || rep.Findings[0].Code != CodeUnsigned {
		t.Errorf("other key: %v", rep.Findings)
	}
}

// TestCheckNewer checks that a newer format is called newer, not damaged, if
// SHA256SUMS says that it is meant so.
func TestCheckNewer(t *testing.T) {
	for _, name := range []string{manifestName, requestName} {
		r := small(t)
		data, err := vfs.ReadFile(r.fs, "/answer/"+name, 1<<20)
		r.must(err)
		data = bytes.Replace(data, []byte(`"version":1`), []byte(`"version":3`), 1)
		r.overwrite("/answer/"+name, data)
		if rep, err := CheckBundle(r.ctx, r.fs, "/answer", r.trust); err != nil || rep.OK() {
			t.Errorf("%s damaged: got %v, %v", name, rep.Findings, err)
		}
		r.resum()
		if _, err := CheckBundle(r.ctx, r.fs, "/answer", r.trust); !errors.Is(err, vault.ErrNewer) {
			t.Errorf("%s newer: got %v, expected vault.ErrNewer", name, err)
		}
	}
}

// TestManifestIsJSON checks that the line layout is JSON to everyone else.
func TestManifestIsJSON(t *testing.T) {
	r := small(t)
	var m struct {
		Format   string
		Version  int
		Searched []struct{ Lines, Entry int64 }
		Tail     struct {
			Files []struct{ Name, SHA256 string }
		}
	}
	files := r.files("/answer")
	r.must(json.Unmarshal(files[manifestName], &m))
	if m.Format != "logvault-bundle" || m.Version != 1 || len(m.Searched) != 3 {
		t.Errorf("got %+v", m)
	}
	for _, f := range m.Tail.Files {
		if got := fmt.Sprintf("%x", sha256.Sum256(files[f.Name])); got != f.SHA256 {
			t.Errorf("%s: %s, expected %s", f.Name, got, f.SHA256)
		}
	}
	if !bytes.Contains(files[tableName], []byte("'=cmd.example")) {
		t.Errorf("a formula stands in the table:\n%s", files[tableName])
	}
}

// TestNoSecrets checks that no secret of the archive is in the bundle: the line
// secrets would open all other lines to guessing.
func TestNoSecrets(t *testing.T) {
	r := small(t)
	found, err := surveyTree(r.ctx, r.log.Tree(), taking{
		source:  func(vault.Source) bool { return true },
		segment: func(int64, *entry.Segment) bool { return true },
	})
	r.must(err)
	arch := newArchive(r.archive(), r.opener, found, r.now)
	defer arch.close()
	for _, c := range found.candidates {
		ix, err := arch.index(r.ctx, c)
		r.must(err)
		for name, data := range r.files("/answer") {
			for _, form := range []string{string(ix.Secret[:]), fmt.Sprintf("%x", ix.Secret)} {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s holds the line secret of entry %d", path.Base(name), c.index)
				}
			}
		}
	}
}
