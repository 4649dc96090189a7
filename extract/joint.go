package extract

import (
	"context"
	"errors"
	"fmt"

	"logvault/vault"
)

// JointVersion is the version of a bundle with parts from several vaults,
// docs/FORMAT-bundle.md. A bundle of one vault keeps Version.
const JointVersion = 2

// MaxVaults bounds the vaults of one answer.
const MaxVaults = 100

// partsDir holds the parts of a joint bundle, numbered from 1.
const partsDir = "parts"

// jointManifest is manifest.json of a joint bundle: one line, as encodeJSON
// writes it, and LF. It depends on the payloads of the parts alone.
type jointManifest struct {
	Format  string       `json:"format"`
	Version int          `json:"version"`
	Parts   []partRecord `json:"parts"`
}

// partRecord pins the payload of one part.
type partRecord struct {
	Folder   string `json:"folder"`
	Origin   string `json:"origin"`   // ascending, each once
	Lines    int64  `json:"lines"`    // disclosed
	Manifest string `json:"manifest"` // SHA-256 of its manifest.json
}

// partFolder names the nth part, from 0.
func partFolder(n int) string { return fmt.Sprintf("%s/%d", partsDir, n+1) }

// answerJoint writes a part for each vault, then what lists them. The parts hold
// no SHA256SUMS: until the one of the whole is there, none of them is an answer.
func answerJoint(ctx context.Context, o *Options, f *filter, out *output, targets []*target, rec *requestRecord) (payload vault.Hash, err error) {
	m := jointManifest{Format: bundleFormat, Version: JointVersion}
	if _, err := out.root().mkdir(partsDir); err != nil {
		return payload, err
	}
	for i, t := range targets {
		part, err := out.root().mkdir(partFolder(i))
		if err != nil {
			return payload, err
		}
		if err := t.answer(ctx, o, f, part, rec); err != nil {
			return payload, t.named(err)
		}
		m.Parts = append(m.Parts, partRecord{partFolder(i), t.origin, t.sum.Lines, t.sum.Payload.String()})
	}
	text, err := encodeJSON(m)
	if err != nil {
		return payload, err
	}
	text = append(text, '\n')
	if err := out.root().write(manifestName, text); err != nil {
		return payload, err
	}
	return vault.HashOf(text), out.root().write(readmeName, []byte(jointReadme))
}

// parseJoint accepts exactly what answerJoint writes.
func parseJoint(text []byte) (*jointManifest, error) {
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return nil, errors.New("does not end with LF")
	}
	m, err := decodeJSON[jointManifest](text[:len(text)-1])
	if err != nil {
		return nil, err
	}
	if m.Format != bundleFormat || m.Version != JointVersion {
		return nil, fmt.Errorf("%q version %d, expected %q version %d", m.Format, m.Version, bundleFormat, JointVersion)
	}
	if len(m.Parts) < 2 || len(m.Parts) > MaxVaults {
		return nil, fmt.Errorf("%d parts, expected 2 to %d", len(m.Parts), MaxVaults)
	}
	for i, p := range m.Parts {
		if p.Folder != partFolder(i) {
			return nil, fmt.Errorf("part %d in folder %q, expected %q", i+1, p.Folder, partFolder(i))
		}
		if i > 0 && p.Origin <= m.Parts[i-1].Origin {
			return nil, fmt.Errorf("part %d of ledger %q: not in order, or not the only one of it", i+1, p.Origin)
		}
	}
	return &m, nil
}
