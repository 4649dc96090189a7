package extract

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"logvault/ledger/entry"
	"logvault/vault"
)

// target is one vault while a request is answered from it.
type target struct {
	Archive
	origin string
	joint  bool // one of several
	a      *attempted
	found  *survey
	commit vault.Hash // of the manifest, for the disclosure entry
	sum    Summary

	progress func(done int64) // stored bytes of its candidates
}

// archives are the vaults that the request is put to.
func (o *Options) archives() []Archive { return append([]Archive{o.Archive}, o.Others...) }

// targets opens each ledger once, before anything is recorded, and orders the
// vaults by origin: the answer must not depend on the order they were named in.
func (o *Options) targets(ctx context.Context) ([]*target, error) {
	list := o.archives()
	if len(list) > MaxVaults {
		return nil, fmt.Errorf("%d vaults, expected at most %d", len(list), MaxVaults)
	}
	targets := make([]*target, len(list))
	for i, a := range list {
		tree, err := a.Tree(ctx)
		if err != nil {
			return nil, fmt.Errorf("opening the ledger: %w", err)
		}
		targets[i] = &target{Archive: a, origin: tree.Checkpoint().Origin, joint: len(list) > 1}
	}
	slices.SortFunc(targets, func(a, b *target) int { return cmp.Compare(a.origin, b.origin) })
	for i, t := range targets[1:] {
		if t.origin == targets[i].origin {
			return nil, fmt.Errorf("two of the vaults have the ledger %s, expected each once", t.origin)
		}
	}
	return targets, nil
}

func origins(targets []*target) []string {
	list := make([]string, len(targets))
	for i, t := range targets {
		list[i] = t.origin
	}
	return list
}

// named says which of several vaults failed.
func (t *target) named(err error) error {
	if !t.joint {
		return err
	}
	return fmt.Errorf("%s: %w", t.origin, err)
}

// begin puts the request on record and finds the candidates.
func (t *target) begin(ctx context.Context, o *Options, f *filter, rec *requestRecord) (err error) {
	if t.a, err = attempt(ctx, *o, &t.Archive, rec, entry.RequestExtract); err != nil {
		return err
	}
	// A vault that was swapped since targets sorted it would give two parts of
	// one ledger, or a part under another's name.
	if got := t.a.tree.Checkpoint().Origin; got != t.origin {
		return fmt.Errorf("the ledger is %s now, expected %s", got, t.origin)
	}
	t.sum = Summary{Origin: t.origin, Request: t.a.index}
	if t.found, err = surveyTree(ctx, t.a.tree, f.taking(o.Margin)); err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	return nil
}

// answer searches the vault and writes its files into a folder, as the whole
// bundle or as one part.
func (t *target) answer(ctx context.Context, o *Options, f *filter, out folder, rec *requestRecord) error {
	b, err := newBundle(o, f, out, t, rec)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.search(ctx, &t.sum); err != nil {
		return err
	}
	if t.commit, err = b.complete(ctx, rec, &t.sum); err != nil || t.joint {
		return err
	}
	return out.write(readmeName, []byte(readmeText))
}

// disclosed records that the answer exists.
func (t *target) disclosed(ctx context.Context, o *Options) (err error) {
	t.sum.Disclosure, err = t.Recorder.Record(ctx, &entry.Disclosure{
		Header:   entry.Header{Time: o.Now(), Actor: o.Actor},
		Request:  t.a.index,
		Commit:   t.commit,
		Lines:    t.sum.Lines,
		Segments: t.sum.Searched,
	})
	if err != nil {
		return fmt.Errorf("recording the disclosure: %w", err)
	}
	return nil
}

// share gives each vault its share of the progress.
func share(o *Options, targets []*target) {
	total := int64(0)
	for _, t := range targets {
		before := total
		for _, c := range t.found.candidates {
			total += c.entry.Size
		}
		t.progress = func(done int64) { o.Progress(before+done, total) }
	}
}
