package extract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

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
	Origin   string
	Size     int64      // of the ledger at the bundle's checkpoint
	Request  int64      // index of the request entry
	Payload  vault.Hash // SHA-256 of manifest.json
	Commit   vault.Hash // what the ledger's disclosure entry must hold
	Lines    int64      // disclosed and proven
	Segments int64      // searched
	Summary  Summary    // the statement of completeness; Opened and Disclosure are not known
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

// checker checks one bundle. Findings do not stop it; a stage that cannot go on
// says so by returning false.
type checker struct {
	ctx   context.Context
	fs    vfs.FS
	dir   string
	trust *ledger.Trust

	report  Report
	sums    map[string]string // from SHA256SUMS, checked
	sizes   map[string]int64
	cp      ledger.Checkpoint
	entries map[int64]provenEntry
	newer   error
}

// CheckBundle checks a bundle with nothing but its directory and the pinned key
// of the ledger: that SHA256SUMS names exactly the files there and each is
// unchanged; that the checkpoint is signed and every entry is in its tree; that
// each disclosed line stood in a segment of the ledger and fits the request's
// scope; that the request is the one on record; and that lines.csv and
// attestation.txt say what follows from all that.
//
// What is wrong is in the report. The error is for what prevented the check: no
// trust, an unreadable disk, or a format version that wraps vault.ErrNewer.
//
// It cannot know of segments that the bundle keeps silent about: for that the
// ledger itself is needed.
func CheckBundle(ctx context.Context, fsys vfs.FS, dir string, trust *ledger.Trust) (Report, error) {
	if trust == nil {
		return Report{}, errors.New("checking a bundle: no pinned ledger key")
	}
	c := newChecker(ctx, fsys, dir, trust)
	for _, stage := range []func() (bool, error){c.checkFiles, c.checkCheckpoint, c.checkEntries, c.checkPayload} {
		on, err := stage()
		if err != nil {
			return c.report, fmt.Errorf("checking the bundle in %s: %w", dir, err)
		}
		if !on || len(c.report.Findings) > maxFindings {
			break
		}
	}
	if c.newer != nil && len(c.report.Findings) == 1 {
		return c.report, c.newer
	}
	return c.report, nil
}

func newChecker(ctx context.Context, fsys vfs.FS, dir string, trust *ledger.Trust) *checker {
	return &checker{
		ctx: ctx, fs: fsys, dir: dir, trust: trust,
		sums: map[string]string{}, sizes: map[string]int64{}, entries: map[int64]provenEntry{},
	}
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
	if len(c.report.Findings) <= maxFindings {
		c.report.Findings = append(c.report.Findings, f)
	}
}

func (c *checker) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

// openFile opens a file of the bundle.
func (c *checker) openFile(name string) (vfs.File, error) { return c.fs.Open(c.path(name)) }

// small reads a small file of the bundle.
func (c *checker) small(name string, limit int64) ([]byte, error) {
	return vfs.ReadFile(c.fs, c.path(name), limit)
}

// checkFiles compares the directory with SHA256SUMS, both ways, and every byte.
func (c *checker) checkFiles() (bool, error) {
	present := map[string]bool{}
	if err := c.list("", present); err != nil {
		return false, err
	}
	if !present[sumsName] {
		c.find(CodeMissing, sumsName, "no such file: not a bundle, or one that was never completed")
		return false, nil
	}
	text, err := c.small(sumsName, maxSums)
	if err != nil {
		return false, err
	}
	if err := c.parseSums(text); err != nil {
		c.find(CodeMalformed, sumsName, "%v", err)
		return false, nil
	}
	for name := range present {
		if _, listed := c.sums[name]; !listed && name != sumsName {
			c.find(CodeExtra, name, "not in %s", sumsName)
		}
	}
	whole := true
	for _, name := range fixedFiles {
		if _, listed := c.sums[name]; !listed {
			c.find(CodeMissing, name, "not in %s", sumsName)
			whole = false
		}
	}
	for name, want := range c.sums {
		if !present[name] {
			c.find(CodeMissing, name, "no such file")
			whole = false
			continue
		}
		got, size, err := c.hash(name)
		if err != nil {
			return false, err
		}
		if got != want {
			c.differ(CodeChanged, name, "hash", want, got)
		}
		c.sizes[name] = size
	}
	return whole, nil
}

// fixedFiles are in every bundle.
var fixedFiles = []string{
	readmeName, scriptName, attestationName, manifestName, tableName,
	requestName, saltName, checkpointName, entriesName, proofsName,
}

// list collects the files below a folder. Only the two folders of the format
// are entered.
func (c *checker) list(folder string, present map[string]bool) error {
	items, err := c.fs.ReadDir(c.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading %s: %w", c.path(folder), err)
	}
	if err != nil {
		return err
	}
	for _, item := range items {
		name := path.Join(folder, item.Name())
		switch {
		case item.Type().IsRegular():
			present[name] = true
		case item.IsDir() && (name == linesDir || name == ledgerDir):
			if err := c.list(name, present); err != nil {
				return err
			}
		default:
			c.find(CodeExtra, name, "neither a file nor a folder of a bundle")
		}
	}
	return nil
}

// parseSums accepts what output.finish writes: sorted lines "hash  name".
func (c *checker) parseSums(text []byte) error {
	last := ""
	for n := 1; len(text) > 0; n++ {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		sum, name, ok2 := strings.Cut(string(line), "  ")
		if _, err := vault.ParseHash(sum); !ok || !ok2 || err != nil {
			return fmt.Errorf("line %d: expected a SHA-256, two spaces, a name and LF", n)
		}
		if name <= last || !fs.ValidPath(name) || name == sumsName {
			return fmt.Errorf("line %d: %q is not a name, or not in order", n, clip([]byte(name)))
		}
		c.sums[name], last, text = sum, name, rest
	}
	return nil
}

// hash hashes a file of the bundle.
func (c *checker) hash(name string) (string, int64, error) {
	f, err := c.openFile(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() // read-only: nothing to lose
	h := sha256.New()
	n, err := io.Copy(h, &contextReader{c.ctx, f})
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", name, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), n, nil
}

// contextReader ends a long read when the context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
