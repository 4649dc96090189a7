package extract

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// maxLedgerLine bounds a line of entries.jsonl and proofs.jsonl, in bytes.
const maxLedgerLine = 1 << 20

// provenEntry is an entry that is proven to be in the ledger.
type provenEntry struct {
	entry entry.Entry
	used  *bool // whether request, manifest or a note spoke of it
}

// checkCheckpoint checks the signed head against the pinned keys, of which one
// must fit it.
func (c *checker) checkCheckpoint() (bool, error) {
	raw, ok, err := c.small(checkpointName, maxSmall)
	if err != nil || !ok {
		return false, err
	}
	var reasons []error
	for _, trust := range c.trusts {
		if c.cp, err = ledger.ParseCheckpoint(raw, trust); err == nil {
			c.part.Origin, c.part.Size = c.cp.Origin, c.cp.Size
			return true, nil
		}
		reasons = append(reasons, err)
	}
	c.find(CodeUnsigned, checkpointName, "%v", errors.Join(reasons...))
	return false, nil
}

// checkEntries checks that each entry is in the tree of the checkpoint.
func (c *checker) checkEntries() (bool, error) {
	ef, err := c.openFile(entriesName)
	if err != nil {
		return false, err
	}
	defer ef.Close() // read-only: nothing to lose
	pf, err := c.openFile(proofsName)
	if err != nil {
		return false, err
	}
	defer pf.Close() // as above
	entries, proofs := newLines(ef), newLines(pf)
	whole, last := true, int64(-1)
	for n := 1; ; n++ {
		more, moreProofs := entries.Scan(), proofs.Scan()
		if err := errors.Join(entries.Err(), proofs.Err()); err != nil {
			return false, c.readError(entriesName, err)
		}
		if more != moreProofs {
			c.find(CodeMalformed, proofsName, "not one line for each line of %s", entriesName)
			return false, nil
		}
		if !more {
			return whole, nil
		}
		p, err := decodeJSON[proofRecord](proofs.Bytes())
		if err == nil && p.Index <= last {
			err = fmt.Errorf("index %d after %d", p.Index, last)
		}
		if err != nil {
			c.find(CodeMalformed, proofsName, "line %d: %v", n, err)
			return false, nil
		}
		last = p.Index
		if !c.checkEntry(n, &p, entries.Bytes()) {
			whole = false
		}
	}
}

// newLines scans lines that end with LF. Unlike bufio.ScanLines it keeps a CR,
// and text after the last LF is an error.
func newLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLedgerLine)
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return 0, nil, io.ErrUnexpectedEOF
		}
		return 0, nil, nil
	})
	return s
}

// readError makes a malformed file a finding and leaves other errors.
func (c *checker) readError(name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, bufio.ErrTooLong) {
		c.find(CodeMalformed, name, "%v", err)
		return nil
	}
	return err
}

// checkEntry checks and files one entry.
func (c *checker) checkEntry(n int, p *proofRecord, data []byte) bool {
	object := fmt.Sprintf("%s line %d", entriesName, n)
	proof := make([]vault.Hash, len(p.Proof))
	for i, text := range p.Proof {
		h, err := vault.ParseHash(text)
		if err != nil {
			c.find(CodeMalformed, proofsName, "line %d: %v", n, err)
			return false
		}
		proof[i] = h
	}
	if err := ledger.CheckInclusion(c.cp.Root, c.cp.Size, p.Index, ledger.LeafHash(data), proof); err != nil {
		c.find(CodeNotInLedger, object, "%v", err)
		return false
	}
	e, err := entry.Decode(data)
	if errors.Is(err, entry.ErrNewer) {
		c.find(CodeNewer, object, "%v", err)
		return false
	}
	if err != nil {
		c.find(CodeMalformed, object, "%v", err)
		return false
	}
	c.entries[p.Index] = provenEntry{e, new(bool)}
	return true
}

// use returns the proven entry at an index as a T.
func use[T entry.Entry](c *checker, object string, index int64) (e T, ok bool) {
	p, found := c.entries[index]
	if !found {
		c.find(CodeNotInLedger, object, "no proven ledger entry %d", index)
		return e, false
	}
	*p.used = true
	if e, ok = p.entry.(T); !ok {
		c.differ(CodeMismatch, object, fmt.Sprintf("type of ledger entry %d", index), fmt.Sprintf("%T", e), p.entry.Type())
	}
	return e, ok
}
