package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/nfsgw"
	"logvault/vault"
	"logvault/vault/dir"
)

// ErrNewKey says that the vault is signed by a key that this state does not
// have: only the recovery key can name its next one.
var ErrNewKey = errors.New("the vault is signed by a newer key than this state has")

// RecoverResult says what a state that was behind has caught up with.
type RecoverResult struct {
	From, To int64 // sizes of the ledger of record
	Files    int   // names that got a new generation
	Sealed   int64 // bytes of the spool that were found sealed
	Orphans  int   // objects of the vault that were recorded as orphans
	// Policy tells that the configuration decides otherwise than the last policy
	// entry: the next start would bring an older policy into force again.
	Policy   bool
	Rotation *ledger.Rotation // nil: the key is the same
	Last     []LastReceived
}

// recovery is a state being brought up to date.
type recovery struct {
	env    Env
	cfg    *config.Config
	paths  paths
	store  vault.Store
	record *dir.Store
	skey   string
	trust  *ledger.Trust
	ours   *ledger.Tree // the ledger of record
	tree   *ledger.Tree // that of the vault
	head   *ledger.Tree // the longer of the two
	story  *story
	res    RecoverResult
}

// Recover brings a state that is older than its vault, such as one from a
// backup, up to date. The vault's head must be signed by the state's own key and
// continue the state's ledger; else nothing is changed. key is the recovery key,
// a signer key, and needed only if the vault's key is a newer one: "" otherwise.
//
// What the spool holds and the ledger has leaves the spool; what the ledger lacks
// stays and will be sealed; every name gets a new generation, since what clients
// wrote after the backup is unknown here.
//
//	spool: what is sealed, streams, names | ledger of record: files, checkpoint | key, rotate entry | orphans
//
// The checkpoint is the commit point: until then the state is behind and serves
// nothing, and Recover is done again, also after a crash in the steps behind it.
// Errors: ErrNoState, vfs.ErrLocked, ErrNewKey, ErrNotRecovery, and the ledger's.
func Recover(ctx context.Context, env Env, c *config.Config, key string) (res RecoverResult, err error) {
	r := &recovery{env: env, cfg: c, paths: paths(c.State)}
	if _, err := env.FS.Stat(r.paths.keys()); errors.Is(err, fs.ErrNotExist) {
		return res, fmt.Errorf("%s: %w: %w", c.State, ErrNoState, err)
	}
	lock, err := vfs.LockOwn(env.FS, r.paths.lock())
	if err != nil {
		return res, fmt.Errorf("locking the state: %w", err)
	}
	defer lock.Close() // it dies with the process anyway
	for _, step := range []func(context.Context) error{r.open, r.grown, r.read,
		func(ctx context.Context) error { return r.mayRotate(key) },
		r.spool, r.forward,
		func(ctx context.Context) error { return r.ledger(ctx, key) },
	} {
		if err := step(ctx); err != nil {
			return r.res, err
		}
	}
	return r.res, nil
}

// open opens the ledgers on both sides under what the state pins.
func (r *recovery) open(ctx context.Context) (err error) {
	if r.store, err = r.env.Stores.Open(ctx, r.cfg.Vault); err != nil {
		return err
	}
	if r.record, err = dir.At(r.env.FS, r.cfg.State); err != nil {
		return err
	}
	key, err := vfs.ReadFile(r.env.FS, r.paths.ledgerKey(), 4096)
	if err != nil {
		return fmt.Errorf("reading the ledger key: %w", err)
	}
	r.skey = strings.TrimSpace(string(key))
	if r.trust, err = config.LoadTrust(r.env.FS, r.paths.trust()); err != nil {
		return err
	}
	if r.ours, err = ledger.OpenTree(ctx, r.record, vault.LedgerPrefix, r.trust); err != nil {
		return fmt.Errorf("opening the ledger of record: %w", err)
	}
	if r.tree, err = ledger.OpenTree(ctx, r.store, vault.LedgerPrefix, r.trust); err != nil {
		return fmt.Errorf("opening the ledger of the vault: %w", err)
	}
	return nil
}

// grown refuses a vault whose ledger does not continue the state's.
func (r *recovery) grown(ctx context.Context) error {
	long, short := r.tree, r.ours
	if long.Size() < short.Size() { // the vault was away, and gets the rest when the ledger is opened
		long, short = short, long
	}
	r.head = long
	if err := continues(ctx, long, short); err != nil {
		return err
	}
	r.res.From, r.res.To = r.ours.Size(), r.ours.Size()
	return nil
}

func (r *recovery) read(ctx context.Context) (err error) {
	if r.story, err = readStory(ctx, r.head); err != nil {
		return err
	}
	r.res.Last = r.story.newestReceived()
	want, err := policyEntry(r.cfg, r.story.policy.Header)
	if err != nil {
		return err
	}
	a, err := entry.Encode(want)
	if err != nil {
		return err
	}
	b, err := entry.Encode(r.story.policy)
	r.res.Policy = string(a) != string(b)
	return err
}

// behind tells whether there is anything to take over.
func (r *recovery) behind() bool { return r.tree.Size() > r.ours.Size() }

// foreign tells whether the ledger's key is not the state's.
func (r *recovery) foreign() (bool, error) {
	vkey, err := ledger.VerifierKey(r.skey)
	return vkey != r.head.Trust().Log, err
}

// mayRotate refuses what ledger could not finish, before anything is changed.
func (r *recovery) mayRotate(key string) error {
	foreign, err := r.foreign()
	if err != nil || !foreign {
		return err
	}
	if key == "" {
		return fmt.Errorf("%w: %s", ErrNewKey, r.head.Trust().Log)
	}
	vkey, err := ledger.VerifierKey(key)
	if err != nil {
		return fmt.Errorf("recovery key: %w: %w", ErrNotRecovery, err)
	}
	if want := r.head.Trust().Recovery; vkey != want {
		return fmt.Errorf("recovery key: %w: its verifier key is %s, expected %s", ErrNotRecovery, vkey, orNone(want))
	}
	return nil
}

// spool tells the spool what is sealed, and begins new generations.
func (r *recovery) spool(ctx context.Context) (err error) {
	if !r.behind() {
		return nil
	}
	spool, err := ingest.OpenSpool(ctx, spoolConfig(r.env.FS, r.cfg, r.env.Random, r.env.Now, r.env.Boot, r.env.Log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	ahead := r.story.ahead()
	if r.res.Sealed, err = spool.Overtake(ctx, func(id vault.StreamID) ingest.Ahead {
		if a, ok := ahead[id]; ok {
			return *a
		}
		return ingest.Ahead{Prev: -1}
	}); err != nil {
		return fmt.Errorf("telling the spool what is sealed: %w", err)
	}
	next := func(id vault.StreamID) int64 {
		if a, ok := ahead[id]; ok {
			return a.Next
		}
		return 0
	}
	if r.res.Files, err = nfsgw.Renew(ctx, spool, next, r.env.Now()); err != nil {
		return err
	}
	return spool.SetMeta(ctx, vault.KV{Key: policyKey, Value: strconv.AppendInt(nil, r.story.policyAt, 10)})
}

// ahead puts what the ledger has of each stream into the spool's terms.
func (s *story) ahead() map[vault.StreamID]*ingest.Ahead {
	all := make(map[vault.StreamID]*ingest.Ahead, len(s.prev))
	for id, prev := range s.prev {
		all[id] = &ingest.Ahead{Prev: prev, Next: s.newest[id] + 1}
	}
	for k, to := range s.runs {
		a := all[k.stream]
		a.Gens = append(a.Gens, ingest.SealedPart{Gen: k.gen, End: to.end, Closed: to.closed, Joined: to.joined})
	}
	return all
}

// forward brings the ledger of record to the head of the vault.
func (r *recovery) forward(ctx context.Context) error {
	if !r.behind() {
		return nil
	}
	r.res.To = r.tree.Size()
	return adopt(ctx, r.record, r.tree, r.ours.Size())
}

// ledger opens the ledger for writing, under a new key if the state's is not the
// vault's any more, and records what no entry names.
func (r *recovery) ledger(ctx context.Context, key string) error {
	foreign, err := r.foreign()
	if err != nil {
		return err
	}
	if foreign {
		vkey := ""
		if r.skey, vkey, err = ledger.GenerateKey(r.env.Random, r.cfg.Origin); err != nil {
			return err
		}
		// Before the rotation, or a crash would lose the key. The old one is of no use.
		if err := vfs.WriteFile(r.env.FS, r.paths.ledgerKey(), []byte(r.skey+"\n"), 0o600); err != nil {
			return fmt.Errorf("writing the ledger key: %w", err)
		}
		if err := vfs.WriteFile(r.env.FS, r.paths.vkey(), []byte(vkey+"\n"), 0o644); err != nil {
			return err
		}
	}
	log, err := r.openLog(ctx, foreign, key)
	if err != nil {
		return err
	}
	pending, err := r.pending(ctx)
	if err != nil {
		return err
	}
	r.res.Orphans, err = recordOrphans(ctx, r.env, log, r.store, r.story, pending)
	return err
}

func (r *recovery) openLog(ctx context.Context, rotate bool, key string) (*ledger.Log, error) {
	cfg := ledger.Config{Prefix: vault.LedgerPrefix, Origin: r.cfg.Origin, SignerKey: r.skey, Record: r.record, Copy: r.store, Now: r.env.Now}
	if !rotate {
		return ledger.Open(ctx, cfg)
	}
	log, rotation, err := ledger.Rotate(ctx, cfg, ledger.RotateOptions{Trust: r.trust, By: key, Actor: ActorAdmin})
	r.res.Rotation = &rotation
	if err != nil {
		return nil, err
	}
	trust := *r.head.Trust()
	trust.Log, trust.KnownSize, trust.KnownRoot = rotation.New, log.Checkpoint().Size, log.Checkpoint().Root.String()
	text, err := config.EncodeTrust(&trust)
	if err != nil {
		return nil, err
	}
	return log, vfs.WriteFile(r.env.FS, r.paths.trust(), text, 0o644)
}

// pending are the intents of the spool: their objects are not orphans yet.
func (r *recovery) pending(ctx context.Context) (in []vault.Intent, err error) {
	spool, err := ingest.OpenSpool(ctx, spoolConfig(r.env.FS, r.cfg, r.env.Random, r.env.Now, r.env.Boot, r.env.Log))
	if err != nil {
		return nil, err
	}
	return spool.Pending(), spool.Close()
}
