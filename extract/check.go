package extract

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// Level is the weight of a finding.
type Level int

// The levels. A bundle with an error proves nothing.
const (
	Warning Level = iota + 1
	Error
)

// String returns the level in words.
func (l Level) String() string {
	if l == Warning {
		return "warning"
	}
	return "error"
}

// The codes of findings. They never change their meaning.
const (
	CodeMissing     = "missing"       // a file of the bundle is absent
	CodeExtra       = "extra"         // a file that does not belong to it
	CodeChanged     = "changed"       // a file's hash is not the one in SHA256SUMS
	CodeMalformed   = "malformed"     // a file is not of its format
	CodeUnsigned    = "unsigned"      // the checkpoint is not signed by the pinned key
	CodeNotInLedger = "not-in-ledger" // an entry is not proven to be in the ledger
	CodeMismatch    = "mismatch"      // the manifest says other than the ledger
	CodeNotProven   = "not-proven"    // a line is not proven to stand in its segment
	CodeOutOfScope  = "out-of-scope"  // a line or segment that was not asked for
	CodeRequest     = "request"       // the request is not the one on record
	CodeDerived     = "derived"       // lines.csv or attestation.txt does not follow from the proven files
	CodeText        = "text"          // README.txt or check.py is not this version's (a warning)
	CodeNewer       = "needs-newer"   // a format version that this release does not know
)

// Finding is something wrong with a bundle.
type Finding struct {
	Code          string
	Level         Level
	Object        string // file of the bundle, or part of one
	Detail        string
	Expected, Got string
}

// String returns the finding on one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s: %s: %s", f.Level, f.Code, f.Object, f.Detail)
	if f.Expected != "" || f.Got != "" {
		s += fmt.Sprintf(" (expected %s, got %s)", f.Expected, f.Got)
	}
	return s
}

// Report is what a check found. What it says of the content is only true if OK.
type Report struct {
	Findings []Finding
	Payload  vault.Hash // SHA-256 of the bundle's manifest.json
	Lines    int64      // disclosed and proven, in all parts
	Segments int64      // searched
	Parts    []Part     // one, or those of a joint bundle
}

// Part is what a check found of the answer of one vault.
type Part struct {
	Folder string     // in the bundle; empty if the bundle has no parts
	Size   int64      // of the ledger at the part's checkpoint
	Commit vault.Hash // what the ledger's disclosure entry must hold
	// Summary is the statement of completeness; Opened, Matching and Disclosure
	// are not known.
	Summary
}

// OK tells whether no finding is an error.
func (r Report) OK() bool {
	for _, f := range r.Findings {
		if f.Level == Error {
			return false
		}
	}
	return true
}

// maxFindings ends a check of something that is no bundle at all.
const maxFindings = 1000

// Limits on the small files of a bundle, in bytes.
const (
	maxSums  = 16 << 20
	maxSmall = 1 << 20
)

// checker checks one bundle, or one part of it. Findings do not stop it; a stage
// that cannot go on says so by returning false.
type checker struct {
	ctx    context.Context
	fs     vfs.FS
	dir    string
	trusts []*ledger.Trust
	vaults []string // of a part: the ledgers that the request must name, those of all parts

	findings []Finding
	part     Part
	sums     map[string]string // from SHA256SUMS, checked
	sizes    map[string]int64
	folders  []string // that are there
	cp       ledger.Checkpoint
	entries  map[int64]provenEntry
	newer    error
}

// CheckBundle checks a bundle with nothing but its directory and the pinned keys
// of the ledgers that it is from: that SHA256SUMS names exactly the files there
// and each is unchanged; that all parts are there; that each checkpoint is signed
// and every entry is in its tree; that each disclosed line stood in a segment of
// the ledger and fits the request's scope; that the request is the one on record;
// and that lines.csv and attestation.txt say what follows from all that.
//
// What is wrong is in the report. The error is for what prevented the check: no
// trust, an unreadable disk, or a format version that wraps vault.ErrNewer.
//
// It cannot know of segments that the bundle keeps silent about: for that the
// ledger itself is needed.
func CheckBundle(ctx context.Context, fsys vfs.FS, dir string, trusts ...*ledger.Trust) (Report, error) {
	if len(trusts) == 0 || slices.Contains(trusts, nil) {
		return Report{}, errors.New("checking a bundle: no pinned ledger key")
	}
	c := newChecker(ctx, fsys, dir, trusts)
	rep, err := c.checkBundle()
	rep.Findings = c.findings
	damaged := func(f Finding) bool { return f.Code != CodeNewer }
	if c.newer != nil && !slices.ContainsFunc(c.findings, damaged) {
		err = c.newer
	}
	if err != nil {
		return rep, fmt.Errorf("checking the bundle in %s: %w", dir, err)
	}
	return rep, nil
}

func newChecker(ctx context.Context, fsys vfs.FS, dir string, trusts []*ledger.Trust) *checker {
	return &checker{
		ctx: ctx, fs: fsys, dir: dir, trusts: trusts,
		sums: map[string]string{}, sizes: map[string]int64{}, entries: map[int64]provenEntry{},
	}
}

// checkBundle checks the files of the whole, then what they say.
func (c *checker) checkBundle() (Report, error) {
	version, err := c.checkFiles()
	if err != nil {
		return Report{}, err
	}
	switch version {
	case Version:
		err = c.checkPart()
		return Report{Payload: c.part.Payload, Lines: c.part.Lines, Segments: c.part.Searched, Parts: []Part{c.part}}, err
	case JointVersion:
		return c.checkJoint()
	}
	return Report{}, nil
}

// whole tells that the bundle is the answer of one vault, and no part of one.
func (c *checker) whole() bool { return c.vaults == nil }

// checkPart checks what one vault answered.
func (c *checker) checkPart() error {
	on := true
	for _, name := range partFiles {
		if _, listed := c.sums[name]; !listed {
			c.find(CodeMissing, name, "not in %s", sumsName)
			on = false
		}
	}
	stages := []func() (bool, error){c.checkCheckpoint, c.checkEntries, c.checkPayload}
	if c.whole() {
		stages = append(stages, func() (bool, error) { return true, c.checkText(readmeName, readmeText) })
	}
	for _, stage := range stages {
		if !on || len(c.findings) > maxFindings {
			return nil
		}
		var err error
		if on, err = stage(); err != nil {
			return err
		}
	}
	return nil
}

// find reports an error.
func (c *checker) find(code, object, format string, args ...any) {
	c.add(Finding{Code: code, Level: Error, Object: object, Detail: fmt.Sprintf(format, args...)})
}

// differ reports an error with two values.
func (c *checker) differ(code, object, what string, want, got any) {
	c.add(Finding{Code: code, Level: Error, Object: object, Detail: what,
		Expected: fmt.Sprint(want), Got: fmt.Sprint(got)})
}

func (c *checker) add(f Finding) {
	if len(c.findings) <= maxFindings {
		c.findings = append(c.findings, f)
	}
}

func (c *checker) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

// openFile opens a file of the bundle.
func (c *checker) openFile(name string) (vfs.File, error) { return c.fs.Open(c.path(name)) }

// small reads a small file of the bundle. One past the limit is a finding.
func (c *checker) small(name string, limit int64) (data []byte, ok bool, err error) {
	info, err := c.fs.Stat(c.path(name))
	if err != nil {
		return nil, false, err
	}
	if info.Size() > limit {
		c.differ(CodeMalformed, name, "bytes", fmt.Sprint("at most ", limit), info.Size())
		return nil, false, nil
	}
	data, err = vfs.ReadFile(c.fs, c.path(name), limit)
	return data, err == nil, err
}
