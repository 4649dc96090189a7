package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/vault/dir"
)

// ErrNotRecovery says that a key is not the recovery key that the ledger names.
var ErrNotRecovery = errors.New("not this ledger's recovery key")

// StateOptions says what a lost gateway state is made anew from.
type StateOptions struct {
	Env
	// Config holds what only a person knows: Vault, State, NFS.Listen and the
	// sources with their clients. Classes, auditors and which sources there are
	// come from the last policy entry of the ledger.
	Config *config.Config
	// Trust is pinned: the lost key, or an earlier one, and the recovery key.
	Trust *ledger.Trust
	// Recovery is the offline recovery key, a signer key.
	Recovery string
	// Auditors are the OpenPGP public keys of exactly the policy's auditors.
	Auditors [][]byte
}

// StateResult is what the administrator must be told.
type StateResult struct {
	ConfigFile, TrustFile string
	VKey                  string          // the new verifier key, to be pinned
	Rotation              ledger.Rotation // its entry; replicas accept it by its hash
	Size                  int64           // of the ledger now
	Orphans               int             // objects of the vault that were recorded as orphans
	Closed                []string        // sources that have no client yet
	Last                  []LastReceived  // where what was lost begins
}

// LastReceived tells when the newest sealed byte of a source was received. What
// it sent later, and was not in this copy, is lost.
type LastReceived struct {
	Source vault.Source `json:"source"`
	At     time.Time    `json:"last_received,omitzero"` // zero: nothing of it was ever sealed
}

// newState is a state that has been checked and not yet written.
type newState struct {
	o     StateOptions
	store vault.Store // nil in a check
	tree  *ledger.Tree
	story *story
	cfg   *config.Config
	text  []byte
	res   InitResult
}

// CheckState finds out, and writes nothing, whether RebuildState can succeed with
// the ledger that r holds: so that a wrong key shows before hours of copying.
// Errors: ErrNotRecovery, *config.Error, vault.ErrNotEmpty for the state, and
// those of the ledger.
func CheckState(ctx context.Context, o StateOptions, r vault.Reader) error {
	_, err := planState(ctx, o, r)
	return err
}

func planState(ctx context.Context, o StateOptions, r vault.Reader) (*newState, error) {
	n := &newState{o: o}
	var err error
	if n.tree, err = ledger.OpenTree(ctx, r, vault.LedgerPrefix, o.Trust); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	vkey, err := ledger.VerifierKey(o.Recovery)
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w: %w", ErrNotRecovery, err)
	}
	if want := n.tree.Trust().Recovery; vkey != want {
		return nil, fmt.Errorf("recovery key: %w: its verifier key is %s, expected %s", ErrNotRecovery, vkey, orNone(want))
	}
	if n.story, err = readStory(ctx, n.tree); err != nil {
		return nil, err
	}
	if entries, err := o.FS.ReadDir(o.Config.State); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("creating the state %s: %w: it holds %q", o.Config.State, vault.ErrNotEmpty, entries[0].Name())
	}
	return n, n.configure()
}

func orNone(s string) string {
	if s == "" {
		return "one that the trust file names: it names none"
	}
	return s
}

// configure makes the configuration from the policy in force and what o knows.
func (n *newState) configure() error {
	c, p := *n.o.Config, n.story.policy
	c.Origin = n.tree.Checkpoint().Origin
	if err := n.auditors(p.Auditors); err != nil {
		return err
	}
	c.Auditors = p.Auditors
	c.Classes = nil
	for _, k := range p.Classes {
		class := config.Class{Name: string(k.Name), Period: k.Period, Grace: k.Grace, Zone: k.Zone, Basis: k.Basis, ValidUntil: k.ValidUntil}
		if class.Grace == "" {
			class.Grace = "P0D" // an entry leaves out what is nothing; a configuration has a default
		}
		c.Classes = append(c.Classes, class)
	}
	known := n.o.Config.Sources
	c.Sources = nil
	for _, s := range p.Sources {
		src := config.Source{Name: string(s.Name), Class: string(s.Class), Clients: []string{}}
		if i := slices.IndexFunc(known, func(k config.Source) bool { return k.Name == src.Name }); i >= 0 {
			src.Clients, src.AllowRead = known[i].Clients, known[i].AllowRead
		}
		c.Sources = append(c.Sources, src)
	}
	for _, k := range known {
		if !slices.ContainsFunc(c.Sources, func(s config.Source) bool { return s.Name == k.Name }) {
			return &config.Error{File: "--source " + k.Name, Detail: "the ledger's policy has no such source; add a new one to the configuration afterwards"}
		}
	}
	c.Defaults()
	var err error
	if n.text, err = c.Encode(); err != nil {
		return err
	}
	n.cfg = &c
	return checkNew(n.text)
}

// auditors takes the public keys that were given, which must be the policy's.
func (n *newState) auditors(want []string) error {
	var got []string
	for _, data := range n.o.Auditors {
		a, err := pgp.LoadAuditor(data, n.o.Now()) // one that has expired since, too: sealing never stops for that
		if err != nil {
			return err
		}
		if !slices.Contains(want, a.Fingerprint) {
			return &config.Error{File: "--auditor " + a.Fingerprint, Detail: "is not an auditor of the ledger's policy, which names " + strings.Join(want, ", ")}
		}
		n.res.Auditors = append(n.res.Auditors, a)
		got = append(got, a.Fingerprint)
	}
	for _, f := range want {
		if !slices.Contains(got, f) {
			return &config.Error{File: "--auditor", Detail: "the public key of auditor " + f + " is missing: the ledger's policy names it"}
		}
	}
	return nil
}

// RebuildState makes a new gateway state for the vault store, whose own state is
// lost. The ledger goes on under the same origin with a new signing key, which
// the recovery key vouches for in a rotate entry.
//
// The configuration file is written last: a state without it is none. A crash
// leaves at most some rotate entries in the vault's ledger that name a key which
// nobody has; remove the state and do it again, which rotates once more.
//
//	directories, signing key | ledger of record as in the vault | rotate entry: record, then vault | spool, keys, configuration
func RebuildState(ctx context.Context, o StateOptions, store vault.Store) (*StateResult, error) {
	n, err := planState(ctx, o, store)
	if err != nil {
		return nil, err
	}
	n.store = store
	p := paths(n.cfg.State)
	if err := makeState(o.FS, p); err != nil {
		return nil, err
	}
	res, err := n.fill(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%w; remove %s before the next try", err, n.cfg.State)
	}
	return res, nil
}

func (n *newState) fill(ctx context.Context, p paths) (*StateResult, error) {
	skey, vkey, err := ledger.GenerateKey(n.o.Random, n.cfg.Origin)
	if err != nil {
		return nil, err
	}
	// Before the rotation, or a crash would lose the only key that may go on.
	if err := vfs.CreateFile(n.o.FS, p.ledgerKey(), []byte(skey+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("writing the ledger key: %w", err)
	}
	record, err := dir.At(n.o.FS, n.cfg.State)
	if err != nil {
		return nil, err
	}
	if err := adopt(ctx, record, n.tree, 0); err != nil {
		return nil, err
	}
	log, rotation, err := n.rotate(ctx, record, skey)
	if err != nil {
		return nil, err
	}
	orphans, err := recordOrphans(ctx, n.o.Env, log, n.store, n.story, nil)
	if err != nil {
		return nil, err
	}
	if err := initSpool(ctx, InitOptions{Env: n.o.Env}, n.cfg, n.story.policyAt); err != nil {
		return nil, err
	}
	trust := *n.tree.Trust()
	trust.Log, trust.KnownSize, trust.KnownRoot = vkey, log.Checkpoint().Size, log.Checkpoint().Root.String()
	n.res.VKey = vkey
	if err := writeState(InitOptions{Env: n.o.Env, Auditors: n.o.Auditors}, p, &n.res, &trust, n.text); err != nil {
		return nil, err
	}
	return &StateResult{ConfigFile: p.config(), TrustFile: p.trust(), VKey: vkey, Rotation: rotation, Size: trust.KnownSize, Orphans: orphans,
		Closed: n.closed(), Last: n.story.newestReceived()}, nil
}

// rotate makes skey the ledger's key, by the recovery key.
func (n *newState) rotate(ctx context.Context, record *dir.Store, skey string) (*ledger.Log, ledger.Rotation, error) {
	cfg := ledger.Config{Prefix: vault.LedgerPrefix, Origin: n.cfg.Origin, SignerKey: skey, Record: record, Copy: n.store, Now: n.o.Now}
	return ledger.Rotate(ctx, cfg, ledger.RotateOptions{Trust: n.o.Trust, By: n.o.Recovery, Actor: ActorAdmin})
}

// closed lists the sources that nobody may mount yet.
func (n *newState) closed() []string {
	var all []string
	for _, s := range n.cfg.Sources {
		if len(s.Clients) == 0 {
			all = append(all, s.Name)
		}
	}
	return all
}

// LastSeen tells for each source of a vault how far what is there goes.
func LastSeen(ctx context.Context, r vault.Reader, trust *ledger.Trust) ([]LastReceived, error) {
	tree, err := ledger.OpenTree(ctx, r, vault.LedgerPrefix, trust)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	s, err := readStory(ctx, tree)
	if err != nil {
		return nil, err
	}
	return s.newestReceived(), nil
}
