// Package gateway wires the parts of a running gateway: the state directory and
// its lock, the spool, the ledger, the sealer, the NFS server and the control
// socket. The parts are synchronous; the goroutines are owned here and are
// joined before the function that started them returns.
//
// A state directory has one user at a time. Site is that user, within `serve`
// or within one command; Connect gives a command either its own Site or, while
// `serve` runs, a client of its control socket. Both are a Service, so that a
// command does the same in either case.
//
// The control socket speaks HTTP on STATE/control.sock (mode 0600, and the
// peer's uid is checked): POST /v1/seal, /v1/ingest, /v1/record, /v1/register
// and GET /v1/status. An error is a JSON object with the message and the exit
// code that the command would have ended with.
package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/vault/location"
)

// ErrNoState says that there is no gateway state where one was expected.
var ErrNoState = errors.New("no gateway state here")

// Env is the world a gateway lives in.
type Env struct {
	FS     vfs.FS               // holds the state
	Random io.Reader            // draws keys and ids
	Now    func() time.Time     // dates what is stored
	Boot   func() time.Duration // time since the boot, sleep included: measures what the wall clock must not
	Log    *slog.Logger         // hears what happens, never of what a line says
	Stores location.Opener      // opens the vault
	// Background, if set, is called by each goroutine that does the heavy work of
	// sealing before it begins, so that the intake can be preferred.
	Background func()
}

// Service is what commands ask of a gateway, in this process or in `serve`.
type Service interface {
	// Seal seals everything received so far and returns when it is in the ledger.
	Seal(ctx context.Context) (SealResult, error)
	// Imports lists the imports of a source whose files begin with head: what
	// ingest.Match compares a file with before it is imported.
	Imports(ctx context.Context, source vault.Source, head vault.Hash) ([]ingest.Earlier, error)
	// Ingest imports one file and seals what is due. If h.Stream is that of an
	// interrupted import, it goes on there.
	Ingest(ctx context.Context, h ingest.ImportHeader, body io.Reader) (ingest.ImportResult, error)
	// Record appends a request or disclosure entry; its time is set here.
	Record(ctx context.Context, e entry.Entry) (index int64, err error)
	// Register encrypts a personal record to the auditors, stores it and
	// returns its commitment and the SHA-256 of the object.
	Register(ctx context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error)
	// Status describes the gateway.
	Status(ctx context.Context) (Status, error)
	// Close releases the state or the connection.
	Close() error
}

// SealResult says what a sealing stored.
type SealResult struct {
	Segments int   `json:"segments"`
	Raw      int64 `json:"raw_bytes"`
	Stored   int64 `json:"stored_bytes"`
	Size     int64 `json:"ledger_size"`
}

// Site is an opened state directory with everything that writes to its vault.
type Site struct {
	config atomic.Pointer[config.Config] // replaced whole by a reload
	env    Env
	lock   io.Closer
	record *dir.Store // of the ledger of record
	spool  *ingest.Spool
	audits []pgp.Auditor

	ledger       atomic.Pointer[ledger.Log] // before the vault is open: without its copy there
	ledgerConfig ledger.Config              // without the copy

	// Set by openPrimary, not to be read before opened is closed.
	store   vault.Store
	sealer  *seal.Sealer
	opened  chan struct{}
	openErr atomic.Pointer[error] // of the last attempt

	behind  atomic.Bool            // the vault's copy of the ledger may lack committed entries
	sealing atomic.Int64           // boot time since when a round of sealing runs, 0: none does
	asking  call                   // by look
	seen    atomic.Pointer[Status] // by the last look
	others  sync.WaitGroup         // goroutines of Serve that may call the vault or watch other disks
	left    bool                   // a stop left some of them behind, hanging
	closed  bool

	importing chan struct{} // holds one token while an import runs

	sealMu   sync.Mutex   // serialises the sealer
	warm     bool         // the sealer holds its buffers; under sealMu
	lastSeal atomic.Int64 // Unix milliseconds, 0: not since the start

	errands   []*errand // what is asked of others, by Serve
	outside   *http.Client
	witnesses []*witnessing

	notes noted
	beats beats
}

// OpenSite locks and opens the state that c names, and the vault. It replays the
// spool and finishes whatever a crash interrupted. Errors: ErrNoState,
// vfs.ErrLocked, vault.ErrNoVault, and those of the ledger and the spool.
func OpenSite(ctx context.Context, env Env, c *config.Config) (*Site, error) {
	s, err := OpenIntake(ctx, env, c)
	if err != nil {
		return nil, err
	}
	if err := s.openPrimary(ctx); err != nil {
		s.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

// OpenIntake is OpenSite without the vault: Serve opens that, when it is there.
func OpenIntake(ctx context.Context, env Env, c *config.Config) (*Site, error) {
	s := &Site{env: env, opened: make(chan struct{}), importing: make(chan struct{}, 1), beats: defaultBeats}
	s.config.Store(c)
	if err := s.openLocal(ctx); err != nil {
		s.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

func (s *Site) openLocal(ctx context.Context) error {
	p := paths(s.Config().State)
	if _, err := s.env.FS.Stat(p.keys()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: %w", s.Config().State, ErrNoState, err)
	}
	lock, err := vfs.LockOwn(s.env.FS, p.lock())
	if err != nil {
		return fmt.Errorf("locking the state: %w", err)
	}
	s.lock = lock
	if s.audits, err = loadAuditors(s.env.FS, s.Config(), s.now()); err != nil {
		return err
	}
	if err := s.openLedger(ctx); err != nil {
		return err
	}
	s.spool, err = ingest.OpenSpool(ctx, spoolConfig(s.env.FS, s.Config(), s.env.Random, s.env.Now, s.env.Boot, s.env.Log))
	return err
}

func (s *Site) openLedger(ctx context.Context) error {
	p := paths(s.Config().State)
	key, err := vfs.ReadFile(s.env.FS, p.ledgerKey(), 4096)
	if err != nil {
		return fmt.Errorf("reading the ledger key: %w", err)
	}
	trust, err := config.LoadTrust(s.env.FS, p.trust())
	if err != nil {
		return err
	}
	if s.record, err = dir.At(s.env.FS, s.Config().State); err != nil {
		return err
	}
	s.ledgerConfig = ledger.Config{Prefix: vault.LedgerPrefix, Origin: s.Config().Origin, SignerKey: strings.TrimSpace(string(key)),
		Record: s.record, Now: s.env.Now, KnownSize: trust.KnownSize}
	l, err := ledger.Open(ctx, s.ledgerConfig)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	s.ledger.Store(l)
	return s.newErrands(s.Config(), trust)
}

func (s *Site) openSealer(ctx context.Context) error {
	enc, err := segment.NewEncoder(segment.Options{Codec: vault.Codec(s.Config().Seal.Codec), Level: *s.Config().Seal.Level, Random: s.env.Random, Begin: s.env.Background})
	if err != nil {
		return err
	}
	s.sealer, err = seal.New(ctx, seal.Config{Source: s.spool, Ledger: s, Objects: s.store, Encoder: enc, Auditors: s.audits,
		ClassOf: func(src vault.Source) (policy.Class, bool) { return s.Config().ClassOf(src) }, Now: s.env.Now, Random: s.env.Random, Log: s.env.Log, Actor: ActorGateway, CutBytes: int64(s.Config().Seal.Cut)})
	if err != nil {
		return fmt.Errorf("opening the sealer: %w", err)
	}
	return nil
}

func spoolConfig(fsys vfs.FS, c *config.Config, random io.Reader, now func() time.Time, boot func() time.Duration, log *slog.Logger) ingest.SpoolConfig {
	p := paths(c.State)
	return ingest.SpoolConfig{FS: fsys, Dir: p.spool(), KeyDir: p.spoolKeys(), Random: random, Now: now, Boot: boot, Log: log, MaxBytes: int64(c.Spool.Max)}
}

// loadAuditors reads the auditors' keys that the configuration pins by
// fingerprint. A key that has expired since is still used and only warned of
// elsewhere: sealing never stops for it.
func loadAuditors(fsys vfs.FS, c *config.Config, now time.Time) ([]pgp.Auditor, error) {
	var all []pgp.Auditor
	for _, f := range c.Auditors {
		file := paths(c.State).auditor(f)
		data, err := vfs.ReadFile(fsys, file, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &config.Error{File: file, Detail: "absent, expected the public key of the auditor that the configuration names"}
		}
		if err != nil {
			return nil, fmt.Errorf("reading an auditor's key: %w", err)
		}
		a, err := pgp.LoadAuditor(data, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if a.Fingerprint != f {
			return nil, &config.Error{File: file, Detail: fmt.Sprintf("holds the key %s, expected %s", a.Fingerprint, f)}
		}
		all = append(all, a)
	}
	return all, nil
}

// Config is the configuration in force; it must not be changed.
func (s *Site) Config() *config.Config { return s.config.Load() }

func (s *Site) now() time.Time { return s.env.Now() }

// sweep removes the temporary files that a kill left in the vault and beside the
// ledger of record: whole sealed objects may be among them, which no expiry and
// no audit would find. The ledger's fence has shown that this is our vault, and
// the lock that nobody else writes. A failure does not stop the intake.
func (s *Site) sweep(ctx context.Context) {
	for _, store := range []vault.Store{s.store, s.record} {
		n, err := store.Sweep(ctx)
		if err != nil {
			s.env.Log.Warn("temporary files of an interrupted process stay", "err", err)
		}
		if n > 0 {
			s.env.Log.Info("removed temporary files of an interrupted process", "files", n)
		}
	}
}

// Close closes what was opened, the lock last. Again it does nothing. The lock
// stays with the process if something of it may still write to the vault.
func (s *Site) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.spool != nil {
		err = s.spool.Close()
	}
	if !s.left && s.sealer != nil {
		s.sealer.Rest() // ends what it encodes ahead
	}
	if !s.left && s.store != nil {
		hangUp(s.store)
	}
	if s.lock != nil && !s.left {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Append implements seal.Ledger.
func (s *Site) Append(ctx context.Context, entries ...[]byte) (int64, error) {
	index, err := s.ledger.Load().Append(ctx, entries...)
	if _, late := errors.AsType[*ledger.CopyError](err); late {
		s.behind.Store(true)
	}
	if err == nil {
		s.tidy(ctx)
	}
	return index, err
}

// tidy removes the former checkpoints that a bucket with versions keeps. What
// stays does no harm and is removed the next time.
func (s *Site) tidy(ctx context.Context) {
	v, ok := s.store.(vault.Versioned)
	if !ok {
		return
	}
	if err := v.RemoveVersions(ctx, vault.CheckpointName(vault.LedgerPrefix)); err != nil {
		s.env.Log.Warn("old versions of the checkpoint stay in the bucket", "err", err)
	}
}

// commit appends one entry. That the vault's copy of the ledger is behind is
// noted and no error: the entry is in the ledger of record.
func (s *Site) commit(ctx context.Context, e entry.Entry) (int64, error) {
	data, err := entry.Encode(e)
	if err != nil {
		return 0, err
	}
	index, err := s.Append(ctx, data)
	return index, s.noteCopy(err)
}

// noteCopy notes an error of the vault's copy of the ledger and returns the others.
func (s *Site) noteCopy(err error) error {
	if _, late := errors.AsType[*ledger.CopyError](err); !late {
		return err
	}
	s.behind.Store(true)
	s.trouble(copying, err)
	return nil
}

// catchUp copies to the vault what its copy of the ledger lacks.
func (s *Site) catchUp(ctx context.Context) error {
	if !s.behind.Load() {
		return nil
	}
	if err := s.ledger.Load().SyncCopy(ctx); err != nil {
		return err
	}
	s.behind.Store(false)
	s.better(copying)
	return nil
}

// Recover implements seal.Ledger.
func (s *Site) Recover(ctx context.Context) error { return s.ledger.Load().Recover(ctx) }

// Tree is the ledger of record at its present size.
func (s *Site) Tree() *ledger.Tree { return s.ledger.Load().Tree() }

// Seal implements Service.
func (s *Site) Seal(ctx context.Context) (SealResult, error) {
	if err := s.spool.Sync(ctx); err != nil {
		return SealResult{}, err
	}
	return s.sealRounds(ctx, true)
}

// sealRounds seals until nothing more is due or, with all, until everything is
// sealed that had been received when it began: what keeps coming meanwhile would
// keep it busy for ever, with segments of a few lines. Its error is that of the
// last round: what failed before is due again and was tried again.
func (s *Site) sealRounds(ctx context.Context, all bool) (SealResult, error) {
	if err := s.available(); err != nil {
		return SealResult{}, err
	}
	s.sealMu.Lock()
	defer s.sealMu.Unlock()
	defer s.sealing.Store(0)
	var sum SealResult
	mark := s.spool.Mark()
	left := s.spool.Below(mark)
	for {
		s.sealing.Store(int64(s.env.Boot()))
		r, err := s.sealer.Step(ctx, all)
		sum.Segments += r.Segments
		sum.Raw += r.Raw
		sum.Stored += r.Stored
		if r.Segments > 0 {
			s.lastSeal.Store(s.now().UnixMilli())
		}
		before := left
		left = s.spool.Below(mark)
		if r == (seal.Result{}) || all && !advancing(before, left) {
			sum.Size = s.Tree().Size()
			return sum, err
		}
	}
}

// advancing tells whether some stream got on in a round and is not done: the
// end of a line that is not whole never is, and must not make others wait.
func advancing(before, after map[vault.StreamID]int64) bool {
	for id, n := range after {
		if 0 < n && n < before[id] {
			return true
		}
	}
	return false
}

// Record implements Service.
func (s *Site) Record(ctx context.Context, e entry.Entry) (int64, error) {
	switch e.Type() {
	case entry.TypeRequest, entry.TypeDisclosure:
	default:
		return 0, fmt.Errorf("recording a %s: expected a request or a disclosure", e.Type())
	}
	if err := s.available(); err != nil {
		return 0, err
	}
	e.Head().Time = s.now()
	index, err := s.commit(ctx, e)
	if err != nil || e.Type() != entry.TypeRequest {
		return index, err
	}
	// The requester gets this head: it must be found again for as long as the
	// ledger lives.
	if err := s.noteCopy(s.ledger.Load().KeepHead(ctx)); err != nil {
		s.trouble(keeping, err)
	}
	return index, nil
}

// Register implements Service. The record begins with its own 32-byte random
// salt, so that its commitment, the SHA-256 of all of it, tells nothing about
// it to those who read the ledger after the record is gone.
func (s *Site) Register(ctx context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error) {
	commit = vault.HashOf(record)
	if err := s.available(); err != nil {
		return commit, object, err
	}
	msg, err := pgp.EncryptTo(s.env.Random, s.audits, record)
	if err != nil {
		return commit, object, fmt.Errorf("encrypting a record: %w", err)
	}
	name := vault.RegisterName(class, commit)
	if err := s.store.Put(ctx, name, int64(len(msg)), bytes.NewReader(msg)); err != nil {
		return commit, object, fmt.Errorf("storing a record: %w", err)
	}
	return commit, vault.HashOf(msg), nil
}

// Connect gives a command the gateway of c: its own Site, or `serve` through
// its control socket while that holds the state. vfs.ErrLocked is returned only
// when another command holds it.
func Connect(ctx context.Context, env Env, c *config.Config) (Service, error) {
	return connect(ctx, c, func() (*Site, error) { return OpenSite(ctx, env, c) })
}

func connect(ctx context.Context, c *config.Config, open func() (*Site, error)) (Service, error) {
	site, err := open()
	if err == nil {
		return site, nil
	}
	if !errors.Is(err, vfs.ErrLocked) {
		return nil, err
	}
	client, cerr := dialControl(ctx, paths(c.State).socket())
	if errors.Is(cerr, fs.ErrNotExist) || errors.Is(cerr, errNotServing) {
		return nil, err
	}
	if cerr != nil {
		return nil, cerr
	}
	return client, nil
}
