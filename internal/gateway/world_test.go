package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/ingest"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/retention/policy"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/vault/location"
)

var ctx = context.Background()

// begin is the time of a new world.
var begin = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// auditor is a public key of which each test has the same.
var auditor = sync.OnceValue(func() []byte { return newAuditor(1, begin) })

func newAuditor(seed uint64, made time.Time) []byte {
	pub, _, err := pgp.GenerateAuditor(fmt.Sprintf("Auditor %d <a@example.org>", seed), nil, testvault.Random(seed), made)
	if err != nil {
		panic(err)
	}
	return pub
}

// world is a machine with a gateway: a disk in memory, of which chosen
// operations fail, and a clock.
type world struct {
	t     testing.TB
	mem   *vfs.Mem
	cfg   *config.Config
	key   []byte        // the auditor's public key
	log   *lockedBuffer // the operational log
	fault atomic.Pointer[func(op vfs.Op, name string) error]
	clock atomic.Int64 // Unix nanoseconds
	wrong atomic.Int64 // by how much the wall clock is off, in nanoseconds; the boot time is not
}

// newWorld has nothing but the parents of its directories. They are on the real
// disk as well, for the control socket.
func newWorld(t testing.TB) *world {
	root := shortDir(t)
	w := &world{t: t, mem: vfs.NewMem(), key: auditor(), log: &lockedBuffer{}}
	w.clock.Store(begin.UnixNano())
	w.must(vfs.MkdirAll(w.mem, root, 0o700))
	classes, err := policy.Preset("one-year")
	w.must(err)
	w.cfg = &config.Config{Version: config.Version, Origin: "logs.example.org/vault", Vault: filepath.Join(root, "vault"), State: root + "/s",
		NFS: config.NFS{Listen: "127.0.0.1:0", Secure: new(false)}, Spool: config.Spool{Max: 512 << 20}}
	w.cfg.Defaults()
	w.cfg.Classes = []config.Class{config.FromPolicy(classes[0])}
	for _, name := range []string{"squid1", "nginx1"} {
		w.cfg.Sources = append(w.cfg.Sources, config.Source{Name: name, Clients: []string{}, Class: w.cfg.Classes[0].Name})
	}
	w.cfg.Sources[0].Clients = []string{"127.0.0.1/32"}
	return w
}

// shortDir is a directory whose name leaves room for that of a socket, also below
// a long TMPDIR.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) now() time.Time {
	return time.Unix(0, w.clock.Add(int64(time.Millisecond))+w.wrong.Load()).UTC()
}

func (w *world) advance(d time.Duration) { w.clock.Add(int64(d)) }

// fs is the disk on which w.fault decides.
func (w *world) fs() vfs.FS {
	return vfs.NewFault(w.mem, func(op vfs.Op, name string) error {
		if f := w.fault.Load(); f != nil {
			return (*f)(op, name)
		}
		return nil
	})
}

// fail makes the operations fail for which f returns an error; nil ends it.
func (w *world) fail(f func(op vfs.Op, name string) error) {
	if f == nil {
		w.fault.Store(nil)
		return
	}
	w.fault.Store(&f)
}

// away makes every operation below the vault fail.
func (w *world) away(with error) {
	w.fail(func(_ vfs.Op, name string) error {
		if strings.HasPrefix(name, w.cfg.Vault) {
			return with
		}
		return nil
	})
}

func (w *world) env() Env {
	fsys := w.fs()
	return Env{FS: fsys, Stores: location.Opener{FS: fsys}, Random: rand.Reader, Now: w.now, Boot: func() time.Duration { return time.Duration(w.clock.Load()) },
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(w.log, w.t.Output()), nil))}
}

// init makes vault and state, and takes the configuration that it wrote.
func (w *world) init() *InitResult {
	w.t.Helper()
	res, err := w.tryInit(w.fs())
	w.must(err)
	w.load()
	return res
}

func (w *world) tryInit(fsys vfs.FS) (*InitResult, error) {
	e := w.env()
	e.FS, e.Stores = fsys, location.Opener{FS: fsys}
	return Init(ctx, InitOptions{Env: e, Config: w.cfg, Auditors: [][]byte{w.key}})
}

// load reads the configuration from the state.
func (w *world) load() {
	w.t.Helper()
	cfg, err := config.Load(w.mem, paths(w.cfg.State).config())
	w.must(err)
	w.cfg = cfg
}

func (w *world) open() *Site {
	w.t.Helper()
	s, err := OpenSite(ctx, w.env(), w.cfg)
	w.must(err)
	w.t.Cleanup(func() { s.Close() }) // a test that ends early
	return s
}

// put makes text durable in the spool, as a new file of a source.
func (w *world) put(s *Site, id byte, text string) {
	w.t.Helper()
	w.must(s.spool.AddStream(ctx, vault.StreamInfo{ID: vault.StreamID{id}, Source: "squid1", Name: []byte("access.log")}))
	w.must(s.spool.Write(ctx, vault.StreamID{id}, 0, s.spool.Size(vault.StreamID{id}, 0), []byte(text), netip.Addr{}, true))
}

// importText imports text as a file of nginx1.
func (w *world) importText(s Service, text string) (ingest.ImportResult, error) {
	return s.Ingest(ctx, ingest.ImportHeader{Source: "nginx1", Name: []byte("x.log"), Stream: vault.StreamID(bytes.Repeat([]byte{byte(len(text))}, 16))}, strings.NewReader(text))
}

// entries are the types of the entries in the vault's copy of the ledger, which
// is audited on the way.
func (w *world) entries() []entry.Type {
	w.t.Helper()
	store, err := dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	trust, err := config.LoadTrust(w.mem, paths(w.cfg.State).trust())
	w.must(err)
	tree, err := ledger.OpenTree(ctx, store, vault.LedgerPrefix, trust)
	w.must(err)
	var types []entry.Type
	w.must(tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if err == nil {
			types = append(types, e.Type())
		}
		return err
	}))
	return types
}

func (w *world) count(of entry.Type) (n int) {
	w.t.Helper()
	for _, t := range w.entries() {
		if t == of {
			n++
		}
	}
	return n
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// header is that of an import from a pipe.
func header(source vault.Source) ingest.ImportHeader {
	return ingest.ImportHeader{Source: source, Name: []byte("x.log"), Stream: vault.StreamID{0xee}}
}
