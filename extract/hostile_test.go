package extract

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// hasFinding tells whether a report has an error of a code.
func hasFinding(rep Report, code, object string) bool {
	return slices.ContainsFunc(rep.Findings, func(f Finding) bool {
		return f.Code == code && f.Level == Error && (object == "" || f.Object == object)
	})
}

// TestCheckHostileLines rearranges what the sender of a bundle could: lines,
// numbers, salts and files of one and the same true answer.
func TestCheckHostileLines(t *testing.T) {
	const one, two = "/answer/lines/1-proxy1.log", "/answer/lines/2-proxy2.log"
	manifest := func(change func(all []*segmentRecord)) func(*rig) {
		return func(r *rig) {
			data := r.files("/answer")[manifestName]
			var all []*segmentRecord
			forge(r, data, nil, func(rec *segmentRecord) bool { all = append(all, rec); return true }, nil)
			change(all)
			n := -1
			r.overwrite("/answer/"+manifestName, forge(r, data, nil, func(rec *segmentRecord) bool { n++; *rec = *all[n]; return true }, nil))
		}
	}
	for name, c := range map[string]struct {
		change func(*rig)
		code   string
	}{
		"files exchanged": {func(r *rig) {
			files := r.files("/answer")
			r.overwrite(one, files["lines/2-proxy2.log"])
			r.overwrite(two, files["lines/1-proxy1.log"])
		}, CodeMismatch},
		"file under another name": {func(r *rig) { r.must(r.fs.Rename(one, "/answer/lines/1-proxy9.log")) }, CodeMismatch},
		"lines in another order": {func(r *rig) {
			lines := bytes.SplitAfter(r.files("/answer")["lines/1-proxy1.log"], []byte("\n"))
			lines[0], lines[1] = lines[1], lines[0]
			r.overwrite(one, bytes.Join(lines, nil))
		}, CodeNotProven},
		"lines and numbers in another order": {func(r *rig) {
			lines := bytes.SplitAfter(r.files("/answer")["lines/1-proxy1.log"], []byte("\n"))
			lines[0], lines[1] = lines[1], lines[0]
			r.overwrite(one, bytes.Join(lines, nil))
			manifest(func(all []*segmentRecord) {
				d := all[0].Disclosed
				d.Lines[0], d.Lines[1] = d.Lines[1], d.Lines[0]
				salt := bytes.Clone(d.Salts[:saltSize])
				copy(d.Salts, d.Salts[saltSize:2*saltSize])
				copy(d.Salts[saltSize:], salt)
			})(r)
		}, CodeNotProven},
		"a line twice": {func(r *rig) {
			data := r.files("/answer")["lines/1-proxy1.log"]
			first := data[:bytes.IndexByte(data, '\n')+1]
			r.overwrite(one, append(bytes.Clone(first), data...))
			manifest(func(all []*segmentRecord) {
				d := all[0].Disclosed
				d.Size += int64(len(first))
				d.Lines = append([]int64{d.Lines[0]}, d.Lines...)
				d.Salts = append(bytes.Clone(d.Salts[:saltSize]), d.Salts...)
			})(r)
		}, CodeNotProven},
		"salts of another segment":  {manifest(func(all []*segmentRecord) { copy(all[0].Disclosed.Salts, all[1].Disclosed.Salts) }), CodeNotProven},
		"proof of another segment":  {manifest(func(all []*segmentRecord) { all[0].Disclosed.Leaves = all[1].Disclosed.Leaves }), CodeNotProven},
		"salts of other lines":      {manifest(func(all []*segmentRecord) { slices.Reverse(all[0].Disclosed.Salts) }), CodeNotProven},
		"salts cut":                 {manifest(func(all []*segmentRecord) { d := all[0].Disclosed; d.Salts = d.Salts[1:] }), CodeNotProven},
		"hash cut":                  {manifest(func(all []*segmentRecord) { d := all[0].Disclosed; d.Leaves = d.Leaves[1:] }), CodeNotProven},
		"a hash too many":           {manifest(func(all []*segmentRecord) { d := all[0].Disclosed; d.Nodes = append(d.Nodes, make([]byte, 32)...) }), CodeNotProven},
		"a number too many":         {manifest(func(all []*segmentRecord) { d := all[0].Disclosed; d.Lines = append(d.Lines, 39) }), CodeNotProven},
		"negative number":           {manifest(func(all []*segmentRecord) { all[0].Disclosed.Lines[0] = -1 }), CodeNotProven},
		"number past the end":       {manifest(func(all []*segmentRecord) { all[0].Disclosed.Lines[2] = 1 << 62 }), CodeNotProven},
		"no numbers":                {manifest(func(all []*segmentRecord) { d := all[0].Disclosed; d.Lines, d.Salts = []int64{}, []byte{} }), CodeNotProven},
		"lines of another segment":  {manifest(func(all []*segmentRecord) { all[0].Disclosed, all[1].Disclosed = all[1].Disclosed, all[0].Disclosed }), CodeMismatch},
		"a segment twice":           {manifest(func(all []*segmentRecord) { *all[1] = *all[0] }), CodeMalformed},
		"segments in another order": {manifest(func(all []*segmentRecord) { all[1], all[2] = all[2], all[1] }), CodeMalformed},
		"negative entry":            {manifest(func(all []*segmentRecord) { all[0].Entry = -1 }), CodeNotInLedger},
		"the request for a segment": {manifest(func(all []*segmentRecord) { all[0].Entry = 8 }), CodeNotInLedger},
		"more unparsed than lines":  {manifest(func(all []*segmentRecord) { all[0].Unparsed = 41 }), CodeMalformed},
		"negative counts":           {manifest(func(all []*segmentRecord) { all[0].Undecided = -1 }), CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := small(t)
			c.change(r)
			r.resum()
			if rep := r.check(); !hasFinding(rep, c.code, "") {
				t.Errorf("findings %v, expected %s", rep.Findings, c.code)
			}
		})
	}
}

// TestCheckDropped shows the limit that FORMAT-bundle.md states: who passes a
// bundle on can leave out a line, because all that hides it is its own leaf.
// Only the commitment, compared with the ledger's disclosure entry, tells.
func TestCheckDropped(t *testing.T) {
	r := small(t)
	before := r.check()
	files := r.files("/answer")
	lines := bytes.SplitAfter(files["lines/1-proxy1.log"], []byte("\n"))
	dropped := lines[1]
	r.overwrite("/answer/lines/1-proxy1.log", append(bytes.Clone(lines[0]), lines[2]...))
	first := true
	r.overwrite("/answer/"+manifestName, forge(t, files[manifestName], nil, func(rec *segmentRecord) bool {
		if first {
			d := rec.Disclosed
			leaf := sha256.Sum256(slices.Concat([]byte{0}, d.Salts[saltSize:2*saltSize], dropped))
			// Lines 1, 4 and 7 are in the first block of 16: 13 leaves are given,
			// and that of line 4 goes between those of 3 and 5.
			at := 3 * len(leaf)
			d.Leaves = slices.Concat(d.Leaves[:at], leaf[:], d.Leaves[at:])
			d.Lines = slices.Delete(d.Lines, 1, 2)
			d.Salts = slices.Delete(d.Salts, saltSize, 2*saltSize)
			d.Size -= int64(len(dropped))
		}
		first = false
		return true
	}, nil))
	r.resum()
	for _, f := range r.check().Findings {
		if f.Code == CodeNotProven {
			t.Errorf("%v: the proof of the others was expected to hold; mend FORMAT-bundle.md", f)
		}
	}
	if after := r.check(); after.Parts[0].Commit == before.Parts[0].Commit {
		t.Error("a line is gone and the commitment is the same")
	}
}

// TestCheckTooLarge replaces each small file by one past its limit. That is no
// trouble of the disk, it is a bundle that is none.
func TestCheckTooLarge(t *testing.T) {
	for name, limit := range map[string]int{
		requestName: maxSmall, saltName: maxSmall, attestationName: maxSmall, scriptName: maxSmall, readmeName: maxSmall,
		checkpointName: maxSmall, sumsName: maxSums, entriesName: maxLedgerLine, proofsName: maxLedgerLine,
	} {
		object := name
		if name == proofsName {
			object = entriesName // read side by side, reported under one name
		}
		r := small(t)
		r.overwrite("/answer/"+name, bytes.Repeat([]byte("x"), limit+1))
		if name != sumsName {
			r.resum()
		}
		rep, err := CheckBundle(r.ctx, r.fs, "/answer", r.trust)
		if err != nil || !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Object == object }) {
			t.Errorf("%s of %d bytes: %v, findings %v", name, limit+1, err, rep.Findings)
		}
	}
	p := newPair(t)
	p.answered()
	p.overwrite("/answer/"+manifestName, []byte(`{"format":"logvault-bundle","version":2,"parts":[`+strings.Repeat(" ", maxSmall)))
	p.resum()
	if rep := p.check(); !hasFinding(rep, CodeMalformed, manifestName) {
		t.Errorf("a huge list of parts: %v", rep.Findings)
	}
}

// TestReadRecordLimit reads lines around a limit, and one without an end: it must
// not be collected first and measured then.
func TestReadRecordLimit(t *testing.T) {
	const limit = 5000 // more than the reader's buffer
	for size, want := range map[int]bool{0: true, 1: true, limit - 1: true, limit: true, limit + 1: false, 2 * limit: false} {
		line, err := readRecord(bufio.NewReader(strings.NewReader(strings.Repeat("x", size)+"\nnext")), limit)
		if (err == nil) != want || want && len(line) != size {
			t.Errorf("%d bytes: got %d bytes, %v", size, len(line), err)
		}
	}
	var e endless
	if _, err := readRecord(bufio.NewReader(&e), limit); err == nil || e > 4*limit {
		t.Errorf("a line without an end: got %v after %d bytes", err, e)
	}
}

// endless is a text that goes on for ever, and counts what was read of it.
type endless int

func (e *endless) Read(p []byte) (int, error) {
	*e += endless(len(p))
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

// TestCheckOddFiles puts links and pipes into bundles on a real disk: a link
// would lead the check elsewhere, a pipe would hold it for ever.
func TestCheckOddFiles(t *testing.T) {
	r, p := small(t), newPair(t)
	p.answered()
	for _, b := range []struct {
		rig    *rig
		trusts []*ledger.Trust
		names  []string
	}{
		{r, []*ledger.Trust{r.trust}, []string{sumsName, manifestName, requestName, "lines/1-proxy1.log", "lines", "ledger"}},
		{p.rig, []*ledger.Trust{p.trust, p.other.trust}, []string{sumsName, manifestName, "parts", "parts/2", "parts/2/lines", "parts/2/request.json"}},
	} {
		for _, name := range b.names {
			dir := b.rig.onDisk()
			path, away := filepath.Join(dir, name), filepath.Join(t.TempDir(), "away")
			r.must(os.Rename(path, away))
			for kind, make := range map[string]func() error{
				"link": func() error { return os.Symlink(away, path) },
				"pipe": func() error { return syscall.Mkfifo(path, 0o600) },
			} {
				r.must(make())
				rep, err := CheckBundle(t.Context(), vfs.OS, dir, b.trusts...)
				if err != nil || rep.OK() || name != sumsName && !hasFinding(rep, CodeExtra, name) {
					t.Errorf("%s for %s: %v, findings %v", kind, name, err, rep.Findings)
				}
				r.must(os.Remove(path))
			}
		}
	}
}

// TestCheckVersions changes the version that the manifest begins with.
func TestCheckVersions(t *testing.T) {
	for version, want := range map[string]string{
		"0": CodeMalformed, "-1": CodeMalformed, "01": CodeMalformed, "1x": CodeMalformed, "99999999999999999999": CodeMalformed, "": CodeMalformed, "2": CodeMalformed, "3": "", "100": "",
	} {
		r := small(t)
		r.replace(manifestName, `"version":1`, `"version":`+version)
		r.resum()
		r.overwrite("/answer/other.bin", nil) // a later version may have any files
		rep, err := CheckBundle(r.ctx, r.fs, "/answer", r.trust)
		if newer := errors.Is(err, vault.ErrNewer); newer != (want == "") || want != "" && (err != nil || !hasFinding(rep, want, manifestName)) {
			t.Errorf("version %q: %v, findings %v", version, err, rep.Findings)
		}
	}
}
