package gateway

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/vault/dir"
)

// The roles that act in a ledger. An entry names a role, never a person.
const (
	ActorAdmin    = "admin"
	ActorGateway  = "gateway"
	ActorReferent = "referent"
)

// InitOptions is what a new vault and its gateway state are made of.
type InitOptions struct {
	Env
	Config   *config.Config // complete but for Auditors, which Init fills in
	Auditors [][]byte       // OpenPGP public keys
	// KeepRecovery, if set, is given the recovery key before the vault counts as
	// made, so that a crash cannot leave a vault whose recovery key nobody has.
	KeepRecovery func(key string) error
}

// InitResult is what the administrator must be told once.
type InitResult struct {
	ConfigFile  string
	TrustFile   string
	VKey        string // the ledger's verifier key, to be pinned
	RecoveryKey string // the offline recovery key, kept nowhere else
	Auditors    []pgp.Auditor
}

// Init creates a vault and the state of the gateway that writes it. Both
// directories must be absent or empty.
//
// The configuration file is written last: a state without it is an Init that
// did not finish, which every other command takes for no state at all, and
// which a person removes.
func Init(ctx context.Context, o InitOptions) (*InitResult, error) {
	res := &InitResult{}
	c := *o.Config
	c.Auditors = nil
	for _, data := range o.Auditors {
		a, err := pgp.ParseAuditor(data, o.Now())
		if err != nil {
			return nil, err
		}
		res.Auditors = append(res.Auditors, a)
		c.Auditors = append(c.Auditors, a.Fingerprint)
	}
	text, err := c.Encode()
	if err != nil {
		return nil, err
	}
	if err := checkNew(text); err != nil {
		return nil, err
	}
	p := paths(c.State)
	if err := makeState(o.FS, p); err != nil {
		return nil, err
	}
	store, err := o.Stores.Create(ctx, c.Vault)
	if err != nil {
		// Nothing of worth is in the state yet, and the next Init finds it empty.
		return nil, errors.Join(err, unmakeState(o.FS, p))
	}
	if err := fill(ctx, o, &c, store, res, text); err != nil {
		return nil, fmt.Errorf("%w; remove %s and %s before the next try", err, c.State, c.Vault)
	}
	return res, nil
}

// checkNew checks the text of a configuration that is not yet a file, and of which
// nobody has seen the lines.
func checkNew(text []byte) error {
	_, err := config.Parse("the new configuration", text)
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		return &config.Error{File: wrong.File, Detail: wrong.Detail}
	}
	return err
}

// fill makes everything within the two directories, the configuration last.
func fill(ctx context.Context, o InitOptions, c *config.Config, store vault.Store, res *InitResult, text []byte) error {
	trust, err := initLedger(ctx, o, c, store, res)
	if err != nil {
		return err
	}
	if o.KeepRecovery != nil {
		if err := o.KeepRecovery(res.RecoveryKey); err != nil {
			return err
		}
	}
	return writeState(o, paths(c.State), res, trust, text)
}

// makeState makes the directories of a state.
func makeState(fsys vfs.FS, p paths) error {
	entries, err := fsys.ReadDir(string(p))
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("creating the state %s: %w: it holds %q", string(p), vault.ErrNotEmpty, entries[0].Name())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("creating the state: %w", err)
	}
	for _, d := range p.dirs() {
		if err := vfs.MkdirAll(fsys, d, 0o700); err != nil {
			return fmt.Errorf("creating the state: %w", err)
		}
	}
	return nil
}

// unmakeState removes the directories that makeState made in a state.
func unmakeState(fsys vfs.FS, p paths) error {
	for _, d := range slices.Backward(p.dirs()[1:]) {
		if err := fsys.Remove(d); err != nil {
			return fmt.Errorf("removing the empty state: %w", err)
		}
	}
	return nil
}

// initLedger writes the marker and the first two entries, and makes the spool.
func initLedger(ctx context.Context, o InitOptions, c *config.Config, store vault.Store, res *InitResult) (*ledger.Trust, error) {
	p := paths(c.State)
	skey, vkey, err := ledger.GenerateKey(o.Random, c.Origin)
	if err != nil {
		return nil, err
	}
	recSecret, recKey, err := ledger.GenerateKey(o.Random, c.Origin+"/recovery")
	if err != nil {
		return nil, err
	}
	res.VKey, res.RecoveryKey = vkey, recSecret
	m := vault.Marker{Origin: c.Origin}
	if _, err := io.ReadFull(o.Random, m.ID[:]); err != nil {
		return nil, fmt.Errorf("drawing the vault id: %w", err)
	}
	marker := m.Encode()
	if err := store.Put(ctx, vault.MarkerName, int64(len(marker)), strings.NewReader(string(marker))); err != nil {
		return nil, fmt.Errorf("writing the marker: %w", err)
	}
	if err := vfs.CreateFile(o.FS, p.ledgerKey(), []byte(skey+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("writing the ledger key: %w", err)
	}
	record, err := dir.At(o.FS, c.State)
	if err != nil {
		return nil, err
	}
	log, err := ledger.Create(ctx, ledger.Config{Prefix: vault.LedgerPrefix, Origin: c.Origin, SignerKey: skey, Record: record, Copy: store, Now: o.Now})
	if err != nil {
		return nil, err
	}
	head := entry.Header{Time: o.Now(), Actor: ActorAdmin}
	first := &entry.Init{Header: head, Vault: hex.EncodeToString(m.ID[:]), Origin: c.Origin, Marker: vault.HashOf(marker), Key: vkey, Recovery: recKey}
	policy, err := policyEntry(c, head)
	if err != nil {
		return nil, err
	}
	if err := appendEntries(ctx, log, first, policy); err != nil {
		return nil, err
	}
	trust := &ledger.Trust{Origin: c.Origin, Log: vkey, Recovery: recKey, KnownSize: log.Checkpoint().Size, KnownRoot: log.Checkpoint().Root.String()}
	return trust, initSpool(ctx, o, c, 1)
}

// initSpool makes the spool and notes in it which policy entry is in force.
func initSpool(ctx context.Context, o InitOptions, c *config.Config, policy int64) error {
	sc := spoolConfig(o.FS, c, o.Random, o.Now, o.Boot, o.Log)
	if err := ingest.CreateSpool(ctx, sc); err != nil {
		return fmt.Errorf("creating the spool: %w", err)
	}
	spool, err := ingest.OpenSpool(ctx, sc)
	if err != nil {
		return err
	}
	if err := spool.SetMeta(ctx, vault.KV{Key: policyKey, Value: strconv.AppendInt(nil, policy, 10)}); err != nil {
		spool.Close() // the first error counts
		return err
	}
	return spool.Close()
}

// writeState writes what people read, the configuration last.
func writeState(o InitOptions, p paths, res *InitResult, trust *ledger.Trust, text []byte) error {
	handle := make([]byte, 32)
	if _, err := io.ReadFull(o.Random, handle); err != nil {
		return fmt.Errorf("drawing the handle key: %w", err)
	}
	trustText, err := config.EncodeTrust(trust)
	if err != nil {
		return err
	}
	type file struct {
		name string
		data []byte
		perm fs.FileMode
	}
	files := []file{{p.handleKey(), handle, 0o600}}
	for i, a := range res.Auditors {
		files = append(files, file{p.auditor(a.Fingerprint), o.Auditors[i], 0o644})
	}
	files = append(files, file{p.vkey(), []byte(res.VKey + "\n"), 0o644}, file{p.trust(), trustText, 0o644}, file{p.config(), text, 0o644})
	for _, f := range files {
		if err := vfs.CreateFile(o.FS, f.name, f.data, f.perm); err != nil {
			return fmt.Errorf("writing the state: %w", err)
		}
	}
	res.ConfigFile, res.TrustFile = p.config(), p.trust()
	return nil
}

// policyKey is the spool's metadata key of the ledger index of the policy in force.
const policyKey = "gateway/policy"

// policyEntry is what the ledger says of a configuration: what it decides
// about retention and access, not where things are, in one order.
func policyEntry(c *config.Config, head entry.Header) (*entry.Policy, error) {
	e := &entry.Policy{Header: head, Auditors: slices.Sorted(slices.Values(c.Auditors))}
	classes, err := c.Policies()
	if err != nil {
		return nil, err
	}
	for i, k := range c.Classes {
		grace := ""
		if g := classes[i].Grace; g != (policy.Period{}) {
			grace = g.String() // an entry leaves out what is nothing
		}
		e.Classes = append(e.Classes, entry.PolicyClass{Name: vault.Class(k.Name), Period: classes[i].Period.String(), Grace: grace,
			Zone: k.Zone, Basis: k.Basis, ValidUntil: k.ValidUntil})
	}
	for _, s := range c.Sources {
		e.Sources = append(e.Sources, entry.PolicySource{Name: vault.Source(s.Name), Class: vault.Class(s.Class)})
	}
	slices.SortFunc(e.Classes, func(a, b entry.PolicyClass) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(e.Sources, func(a, b entry.PolicySource) int { return cmp.Compare(a.Name, b.Name) })
	return e, nil
}

// syncPolicy appends a policy entry if the configuration decides otherwise
// than the policy in force, before anything is sealed under it. A crash between
// the entry and the note of it makes the next start append it once more, which
// changes nothing.
func (s *Site) syncPolicy(ctx context.Context) error {
	want, err := policyEntry(s.Config(), entry.Header{Time: s.now(), Actor: ActorAdmin})
	if err != nil {
		return err
	}
	same, err := s.policyInForce(ctx, want)
	if err != nil || same {
		return err
	}
	index, err := s.commit(ctx, want)
	if err != nil {
		return fmt.Errorf("recording the new policy: %w", err)
	}
	return s.spool.SetMeta(ctx, vault.KV{Key: policyKey, Value: strconv.AppendInt(nil, index, 10)})
}

// policyInForce compares want with the last policy entry, times aside.
func (s *Site) policyInForce(ctx context.Context, want *entry.Policy) (bool, error) {
	index := int64(1) // Init wrote it there
	err := s.spool.Meta(policyKey, func(kv vault.KV) (err error) {
		index, err = strconv.ParseInt(string(kv.Value), 10, 64)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("reading the policy in force: %w", err)
	}
	data, err := s.Tree().Entry(ctx, index)
	if err != nil {
		return false, fmt.Errorf("reading the policy in force: %w", err)
	}
	e, err := entry.Decode(data)
	if err != nil {
		return false, fmt.Errorf("reading the policy in force: %w", err)
	}
	last, ok := e.(*entry.Policy)
	if !ok {
		return false, fmt.Errorf("ledger entry %d is a %s, expected the policy in force", index, e.Type())
	}
	now := *want
	now.Header = last.Header
	a, err := entry.Encode(&now)
	if err != nil {
		return false, err
	}
	return string(a) == string(data), nil
}

func appendEntries(ctx context.Context, log *ledger.Log, entries ...entry.Entry) error {
	var all [][]byte
	for _, e := range entries {
		data, err := entry.Encode(e)
		if err != nil {
			return err
		}
		all = append(all, data)
	}
	_, err := log.Append(ctx, all...)
	return err
}
