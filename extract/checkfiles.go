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
	"regexp"
	"strings"

	"logvault/vault"
)

// partFiles are in the answer of each vault, fixedFiles in every bundle.
var (
	partFiles = []string{
		scriptName, attestationName, manifestName, tableName,
		requestName, saltName, checkpointName, entriesName, proofsName,
	}
	fixedFiles = []string{readmeName, manifestName}
)

// The folders of a bundle, by version.
var (
	singleFolders = regexp.MustCompile(`^(lines|ledger)$`)
	jointFolders  = regexp.MustCompile(`^parts(/[1-9][0-9]{0,2}(/(lines|ledger))?)?$`)
)

// listing is what is in the directory of a bundle.
type listing struct {
	files   map[string]bool
	folders []string // of any version, entered
	others  []string // neither a file nor such a folder; not looked into
}

// checkFiles compares the directory with SHA256SUMS, both ways, and every byte.
// It returns the version of the bundle, 0 if there is no point in going on.
func (c *checker) checkFiles() (version int, err error) {
	l := &listing{files: map[string]bool{}}
	if err := c.list("", l); err != nil {
		return 0, err
	}
	if !l.files[sumsName] {
		c.find(CodeMissing, sumsName, "no such file: not a bundle, or one that was never completed")
		return 0, nil
	}
	text, ok, err := c.small(sumsName, maxSums)
	if err != nil || !ok {
		return 0, err
	}
	if err := c.parseSums(text); err != nil {
		c.find(CodeMalformed, sumsName, "%v", err)
		return 0, nil
	}
	version, err = c.version(l)
	if err != nil || version == 0 {
		return 0, err
	}
	whole, err := c.checkListing(l, version)
	if err != nil || !whole {
		return 0, err
	}
	return version, nil
}

// version tells the version of the bundle from the head of its manifest. That of
// a newer one is only believed if SHA256SUMS says that the manifest is meant so:
// else a damaged byte would pass for the future.
func (c *checker) version(l *listing) (int, error) {
	if !l.files[manifestName] {
		return Version, nil // checkListing says what is missing
	}
	f, err := c.openFile(manifestName)
	if err != nil {
		return 0, err
	}
	defer f.Close() // read-only: nothing to lose
	start := make([]byte, len(manifestMagic)+8)
	n, err := io.ReadFull(f, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("reading %s: %w", manifestName, err)
	}
	rest, ok := bytes.CutPrefix(start[:n], []byte(manifestMagic))
	version, _, known := cutVersion(rest)
	if !ok || !known {
		return Version, nil // its reader says what is wrong with it
	}
	if version <= JointVersion {
		return version, nil
	}
	sum, _, err := c.hash(manifestName)
	if err != nil {
		return 0, err
	}
	if want := c.sums[manifestName]; sum != want {
		c.differ(CodeChanged, manifestName, "hash", want, sum)
		return 0, nil
	}
	c.newer = fmt.Errorf("bundle version %d, expected %d or %d: %w", version, Version, JointVersion, vault.ErrNewer)
	c.find(CodeNewer, manifestName, "%v", c.newer)
	return 0, nil
}

// checkListing compares what is there with what SHA256SUMS says.
func (c *checker) checkListing(l *listing, version int) (whole bool, err error) {
	folders := singleFolders
	if version == JointVersion {
		folders = jointFolders
	}
	for _, name := range l.folders {
		if !folders.MatchString(name) {
			l.others = append(l.others, name)
		}
	}
	c.folders = l.folders
	for _, name := range l.others {
		c.find(CodeExtra, name, "neither a file nor a folder of a bundle")
	}
	for name := range l.files {
		if _, listed := c.sums[name]; !listed && name != sumsName {
			c.find(CodeExtra, name, "not in %s", sumsName)
		}
	}
	whole = true
	for _, name := range fixedFiles {
		if _, listed := c.sums[name]; !listed {
			c.find(CodeMissing, name, "not in %s", sumsName)
			whole = false
		}
	}
	for name, want := range c.sums {
		if !l.files[name] {
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

// list collects what is below a folder. Only the folders of the format are
// entered, and nothing but regular files is ever opened: a link or a pipe in a
// bundle would lead the check elsewhere, or hold it for ever.
func (c *checker) list(folder string, l *listing) error {
	items, err := c.fs.ReadDir(c.path(folder))
	if err != nil {
		return err
	}
	for _, item := range items {
		name := path.Join(folder, item.Name())
		switch {
		case item.Type().IsRegular():
			l.files[name] = true
		case item.IsDir() && (singleFolders.MatchString(name) || jointFolders.MatchString(name)):
			l.folders = append(l.folders, name)
			if err := c.list(name, l); err != nil {
				return err
			}
		default:
			l.others = append(l.others, name)
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
	n, err := io.Copy(h, &contextReader{ctx: c.ctx, r: f})
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", name, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), n, nil
}

// contextReader ends a long read when the context is done, and keeps what went
// wrong: a parser calls it malformed text, but the disk did not answer.
type contextReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (r *contextReader) Read(p []byte) (n int, err error) {
	if err = r.ctx.Err(); err == nil {
		n, err = r.r.Read(p)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
