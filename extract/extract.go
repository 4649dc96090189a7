// Package extract answers lawful requests: it searches the archive, writes the
// answer as a bundle and checks bundles. It is the only package that writes log
// lines in clear.
//
// A request (Request, a TOML file) names who asks, on what ground, and a scope:
// a window of time and selectors. Run takes it through these steps:
//
//  1. The request is validated, each ledger opened against pinned trust, the
//     bundle directory made. Nothing is recorded or decrypted if one fails.
//  2. The personal record of the request goes to the register of each vault,
//     encrypted, and a `request` entry with its commitment into each ledger. From
//     here on the attempt is on record, whatever happens; before the last of the
//     ledgers has it, nothing is decrypted.
//  3. Each ledger is read again, now with that entry, and names the candidate
//     segments by source and time.
//  4. For each candidate, in the order source, stream, generation, offset: open
//     the period key, check the object's hash, open the sealed index, and only
//     if the index holds the selectors' tokens check and open the text. Each line
//     goes through the filter alone; lines that fit are written with a proof that
//     they stood in the signed ledger.
//  5. The bundle is completed, SHA256SUMS last, and a `disclosure` entry with the
//     commitment of its manifest recorded in each ledger. If that fails the bundle
//     is removed; a ledger that has its entry by then tells of lines that were in
//     clear and went nowhere, which is more than happened and never less.
//
// A crash after 2 leaves request entries and at most a directory without
// SHA256SUMS, which is no bundle; after 5's sync, a whole bundle whose
// disclosure entries, or some of them, are missing. A request entry stands in
// each ledger whose segments were opened.
//
// Several vaults (several gateways) give one bundle with a part for each. There
// is one SHA256SUMS, over all parts, and the request that each ledger commits to
// names all of them: a part that lacks the others is not a whole answer, neither
// after a crash nor in the hands of someone who leaves one out.
//
// The payload of a bundle (lines/, lines.csv, manifest.json) depends on the
// scope, the segments and their ledger entries alone: the same request over the
// same segments gives the same bytes. What differs each time (the request's
// entry, its salt, the checkpoint, the proofs) is in files of its own.
// docs/FORMAT-bundle.md describes each file.
//
// Memory is bounded by one segment and by the list of candidates, not by what
// is disclosed.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// Margin is the default for Options.Margin: how long before or after its event
// a line may be received. Spools of proxies, dead networks and wrong clocks
// stay within a day or are known.
const Margin = 24 * time.Hour

// Recorder puts a disclosure on record. The gateway implements it. Register and
// Record are durable when they return nil.
type Recorder interface {
	// Register stores the personal record of a request, encrypted to the
	// auditors, as register/<class>/<commit>.pgp. The record begins with its
	// 32-byte random salt; the commit is the SHA-256 of all of it, object that
	// of the stored, encrypted bytes.
	Register(ctx context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error)
	// Record appends an entry to the ledger and returns its index.
	Record(ctx context.Context, e entry.Entry) (index int64, err error)
}

// Archive is one vault to answer from, and the gateway that records in its ledger.
type Archive struct {
	Vault vault.Reader
	// Tree opens the ledger against pinned trust. It is called before the
	// request is recorded and again after, when it must hold the new entry.
	Tree     func(context.Context) (*ledger.Tree, error)
	Recorder Recorder
}

// Options are the means of an extraction.
type Options struct {
	Archive
	// Others are further vaults that Run and DryRun put the same request to, at
	// most MaxVaults in all, each with a ledger of its own.
	Others   []Archive
	Opener   pgp.Opener  // the auditor's key
	Class    vault.Class // of the register record
	Actor    string      // role in the ledger entries: "referent" if empty
	FS       vfs.FS      // where Dir is
	Dir      string      // the bundle directory: absent (its parent exists) or empty
	Random   io.Reader
	Now      func() time.Time
	Margin   time.Duration           // 0: the constant Margin
	Progress func(done, total int64) // stored bytes of candidates; may be nil
}

// Answer says what an extraction did.
type Answer struct {
	Payload vault.Hash // SHA-256 of the bundle's manifest.json, which pins the payload
	Parts   []Summary  // what each vault answered, by origin
}

// Summary says what one vault answered.
type Summary struct {
	Origin     string     // of its ledger
	Request    int64      // index of the request entry
	Disclosure int64      // index of the disclosure entry
	Payload    vault.Hash // SHA-256 of its manifest.json
	Lines      int64      // disclosed
	Searched   int64      // candidate segments
	Opened     int64      // of them, those whose text was decrypted
	Matching   int64      // of them, those with disclosed lines
	Destroyed  int64      // candidates that are gone on or after their legal date
	Unparsed   int64      // lines without fields in the candidates
	Undecided  int64      // lines kept back because their time is not known well enough
	Gaps       int        // gap entries of the time searched
	Conflicts  int
	Silent     []string // sources of the scope without any candidate
	Unread     int      // ledger entries that need a newer logvault
}

// defaulted fills in the defaults.
func (o Options) defaulted() Options {
	if o.Actor == "" {
		o.Actor = "referent"
	}
	if o.Margin == 0 {
		o.Margin = Margin
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o
}

// ready refuses what would fail only after the request is on record.
func (o *Options) ready() error {
	if o.Opener == nil {
		return fmt.Errorf("no auditor's key given: %w", pgp.ErrNoKey)
	}
	if err := o.Class.Valid(); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

// Run answers a request with a bundle in o.Dir. An invalid request and a
// directory that is not empty (vault.ErrNotEmpty) are refused before anything
// is recorded. After a failure the directory holds nothing of the answer. A
// vault that does not hold what its ledger says gives an *IntegrityError; a key
// that opens none of the wraps an error that wraps pgp.ErrWrongKey.
func Run(ctx context.Context, o Options, r *Request) (Answer, error) {
	o = o.defaulted()
	if err := r.Validate(); err != nil {
		return Answer{}, fmt.Errorf("request: %w", err)
	}
	f, err := r.Scope.compile()
	if err != nil {
		return Answer{}, fmt.Errorf("request: %w", err)
	}
	if err := o.ready(); err != nil {
		return Answer{}, err
	}
	targets, err := o.targets(ctx)
	if err != nil {
		return Answer{}, err
	}
	out, err := openOutput(o.FS, o.Dir)
	if err != nil {
		return Answer{}, err
	}
	ans, err := run(ctx, &o, r, f, targets, out)
	if err != nil {
		return Answer{}, errors.Join(err, out.discard())
	}
	return ans, nil
}

// run is Run from the first record on.
func run(ctx context.Context, o *Options, r *Request, f *filter, targets []*target, out *output) (Answer, error) {
	rec, err := newRequestRecord(r, f, origins(targets))
	if err != nil {
		return Answer{}, err
	}
	for _, t := range targets {
		if err := t.begin(ctx, o, f, rec); err != nil {
			return Answer{}, t.named(err)
		}
	}
	share(o, targets)
	var ans Answer
	if len(targets) == 1 {
		err = targets[0].answer(ctx, o, f, out.root(), rec)
		ans.Payload = targets[0].sum.Payload
	} else {
		ans.Payload, err = answerJoint(ctx, o, f, out, targets, rec)
	}
	if err != nil {
		return Answer{}, err
	}
	if err := out.finish(); err != nil {
		return Answer{}, err
	}
	for _, t := range targets {
		if err := t.disclosed(ctx, o); err != nil {
			return Answer{}, t.named(err)
		}
		ans.Parts = append(ans.Parts, t.sum)
	}
	return ans, nil
}

// attempted is a request on record.
type attempted struct {
	salt  []byte
	index int64 // of the request entry
	data  []byte
	entry *entry.Request
	tree  *ledger.Tree // holds the entry
}

// attempt registers and records a request, then opens the ledger with the entry
// in it. It checks that what stands there is what was recorded: an extraction
// whose record went elsewhere must not go on.
func attempt(ctx context.Context, o Options, arch *Archive, record any, kind string) (*attempted, error) {
	body, err := encodeJSON(record)
	if err != nil {
		return nil, err
	}
	a := &attempted{salt: make([]byte, commitSalt)}
	if _, err := io.ReadFull(o.Random, a.salt); err != nil {
		return nil, fmt.Errorf("drawing the salt: %w", err)
	}
	full := append(append([]byte(nil), a.salt...), body...)
	commit, object, err := arch.Recorder.Register(ctx, o.Class, full)
	if err != nil {
		return nil, fmt.Errorf("registering the request: %w", err)
	}
	if want := vault.HashOf(full); commit != want {
		return nil, fmt.Errorf("registering the request: commit %v, expected %v", commit, want)
	}
	header := entry.Header{Time: o.Now(), Actor: o.Actor}
	a.index, err = arch.Recorder.Record(ctx, &entry.Request{Header: header, Commit: commit, Object: object, Class: o.Class, Kind: kind})
	if err != nil {
		return nil, fmt.Errorf("recording the request: %w", err)
	}
	if a.tree, err = arch.Tree(ctx); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if a.data, err = a.tree.Entry(ctx, a.index); err != nil {
		return nil, fmt.Errorf("reading the request entry %d back: %w", a.index, err)
	}
	e, err := entry.Decode(a.data)
	if err != nil {
		return nil, fmt.Errorf("reading the request entry %d back: %w", a.index, err)
	}
	var ok bool
	if a.entry, ok = e.(*entry.Request); !ok || a.entry.Commit != commit || a.entry.Kind != kind {
		return nil, fmt.Errorf("ledger entry %d is not the request that was recorded", a.index)
	}
	return a, nil
}

// taking says which entries of the ledger concern the scope.
func (f *filter) taking(margin time.Duration) taking {
	return taking{
		source:  f.hasSource,
		segment: func(_ int64, s *entry.Segment) bool { return f.candidate(s, margin) },
		since:   f.since.Add(-margin),
		until:   f.until.Add(margin),
		named:   f.sources,
	}
}

// Estimate is what a request would open in one vault.
type Estimate struct {
	Origin   string   // of its ledger
	Segments int64    // candidates
	Keys     int      // period keys that they are sealed to
	Lines    int64    // in the candidates
	Raw      int64    // bytes of text in the candidates
	Stored   int64    // bytes of objects and indexes in the candidates
	Silent   []string // sources of the scope without any candidate
}

// DryRun counts the candidates of a request from the ledgers alone, one estimate
// for each vault in the order that o has them. It decrypts nothing, records
// nothing, and needs of o only Tree of each archive and Margin.
func DryRun(ctx context.Context, o Options, r *Request) ([]Estimate, error) {
	o = o.defaulted()
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	f, err := r.Scope.compile()
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	var all []Estimate
	for _, a := range o.archives() {
		tree, err := a.Tree(ctx)
		if err != nil {
			return nil, fmt.Errorf("opening the ledger: %w", err)
		}
		found, err := surveyTree(ctx, tree, f.taking(o.Margin))
		if err != nil {
			return nil, fmt.Errorf("reading the ledger: %w", err)
		}
		all = append(all, found.estimate(tree.Checkpoint().Origin))
	}
	return all, nil
}

// estimate sums up the candidates.
func (v *survey) estimate(origin string) Estimate {
	est := Estimate{Origin: origin, Segments: int64(len(v.candidates)), Silent: v.silent}
	keys := map[int64]bool{}
	for _, c := range v.candidates {
		keys[c.entry.Key] = true
		est.Lines += c.entry.Lines
		est.Raw += c.entry.Raw
		est.Stored += c.entry.Size + c.entry.IndexSize
	}
	est.Keys = len(keys)
	return est
}
