package extract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"logvault/vault"
)

// checkJoint checks a bundle with parts, each against the ledger that it is
// from. The files of the whole are checked.
func (c *checker) checkJoint() (Report, error) {
	text, ok, err := c.small(manifestName, maxSmall)
	if err != nil || !ok {
		return Report{}, err
	}
	m, err := parseJoint(text)
	if err != nil {
		c.find(CodeMalformed, manifestName, "%v", err)
		return Report{}, nil
	}
	if err := c.checkText(readmeName, jointReadme); err != nil {
		return Report{}, err
	}
	origins := make([]string, len(m.Parts))
	for i, p := range m.Parts {
		origins[i] = p.Origin
	}
	c.checkStrays(m)
	rep := Report{Payload: vault.HashOf(text)}
	for i := range m.Parts {
		part, err := c.checkPartOf(&m.Parts[i], origins)
		if err != nil {
			return rep, err
		}
		rep.Parts = append(rep.Parts, part)
		rep.Lines += part.Lines
		rep.Segments += part.Searched
	}
	return rep, nil
}

// checkStrays finds what is in no part that the manifest lists.
func (c *checker) checkStrays(m *jointManifest) {
	listed := func(name string) bool {
		return slices.ContainsFunc(m.Parts, func(p partRecord) bool { return strings.HasPrefix(name+"/", p.Folder+"/") })
	}
	for name := range c.sums {
		if !listed(name) && !slices.Contains(fixedFiles, name) {
			c.find(CodeExtra, name, "in no part that the manifest lists")
		}
	}
	for _, name := range c.folders {
		if !listed(name) && name != partsDir {
			c.find(CodeExtra, name, "no part that the manifest lists")
		}
	}
}

// checkPartOf checks one part and that it is the one that the manifest lists.
func (c *checker) checkPartOf(r *partRecord, origins []string) (Part, error) {
	prefix := r.Folder + "/"
	sub := newChecker(c.ctx, c.fs, c.path(r.Folder), c.trusts)
	sub.vaults, sub.part.Folder = origins, r.Folder
	for name, sum := range c.sums {
		if inside, ok := strings.CutPrefix(name, prefix); ok {
			sub.sums[inside], sub.sizes[inside] = sum, c.sizes[name]
		}
	}
	if err := sub.checkPart(); err != nil {
		return sub.part, fmt.Errorf("%s: %w", r.Folder, err)
	}
	if first := c.sums[partFolder(0)+"/"+requestName]; sub.sums[requestName] != first {
		sub.differ(CodeRequest, requestName, "the request of the first part", first, sub.sums[requestName])
	}
	if got := sub.sums[manifestName]; got != r.Manifest {
		sub.differ(CodeMismatch, manifestName, "hash", r.Manifest, got)
	}
	if got := sub.part.Origin; got != "" && got != r.Origin {
		sub.differ(CodeMismatch, checkpointName, "ledger of the part", r.Origin, got)
	}
	// Lines are counted in full only if nothing stopped the check.
	if len(sub.findings) == 0 && sub.part.Lines != r.Lines {
		sub.differ(CodeMismatch, manifestName, "lines disclosed", r.Lines, sub.part.Lines)
	}
	for _, f := range sub.findings {
		f.Object = prefix + f.Object
		c.add(f)
	}
	c.newer = cmp.Or(sub.newer, c.newer)
	return sub.part, nil
}
