package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// TestOpenSiteErrors damages one thing each and expects the error that the
// command line has an exit code for.
func TestOpenSiteErrors(t *testing.T) {
	isConfig := func(err error) bool { _, ok := errors.AsType[*config.Error](err); return ok }
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	says := func(text string) func(error) bool {
		return func(err error) bool { return strings.Contains(err.Error(), text) }
	}
	replace := func(w *world, name string, data []byte) {
		w.must(vfs.WriteFile(w.mem, name, data, 0o600))
	}
	for _, c := range []struct {
		name   string
		damage func(w *world, p paths)
		want   func(error) bool
	}{
		{"no state", func(w *world, _ paths) { w.cfg.State += "x" }, is(ErrNoState)},
		{"no vault", func(w *world, _ paths) { w.cfg.Vault += "x" }, is(vault.ErrNoVault)},
		{"vault not mounted", func(w *world, _ paths) {
			w.cfg.Vault += "y"
			w.must(w.mem.Mkdir(w.cfg.Vault, 0o755))
		}, is(vault.ErrNoVault)},
		{"no permission", func(w *world, p paths) {
			w.fail(func(op vfs.Op, name string) error {
				if strings.HasPrefix(name, string(p)) {
					return &fs.PathError{Op: string(op), Path: name, Err: syscall.EACCES}
				}
				return nil
			})
		}, is(fs.ErrPermission)},
		{"locked", func(w *world, _ paths) { w.open() }, is(vfs.ErrLocked)},
		{"no ledger key", func(w *world, p paths) { w.must(w.mem.Remove(p.ledgerKey())) }, says("ledger key")},
		{"empty ledger key", func(w *world, p paths) { replace(w, p.ledgerKey(), nil) }, says("signer key")},
		{"no trust file", func(w *world, p paths) { w.must(w.mem.Remove(p.trust())) }, is(fs.ErrNotExist)},
		{"no auditor file", func(w *world, p paths) { w.must(w.mem.Remove(p.auditor(w.cfg.Auditors[0]))) }, isConfig},
		{"swapped auditor file", func(w *world, p paths) { replace(w, p.auditor(w.cfg.Auditors[0]), newAuditor(2, begin)) }, isConfig},
		{"damaged auditor file", func(w *world, p paths) { replace(w, p.auditor(w.cfg.Auditors[0]), []byte("x")) }, is(pgp.ErrEmptyKey)},
		{"no spool", func(w *world, p paths) { w.must(w.mem.Remove(p.spool() + "/SPOOL")) }, says("no spool here")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.init()
			c.damage(w, paths(w.cfg.State))
			s, err := OpenSite(ctx, w.env(), w.cfg)
			if err == nil {
				s.Close() // it should not be open
				t.Fatal("opened")
			}
			if !c.want(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHandleKey refuses a key that is none. Another key of the right size cannot
// be told: the clients' handles are forged to it, and they mount again.
func TestHandleKey(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.must(vfs.WriteFile(w.mem, paths(w.cfg.State).handleKey(), []byte("short"), 0o600))
	if _, err := s.newNFS(); err == nil || !strings.Contains(err.Error(), "5 bytes, expected 32") {
		t.Errorf("%v", err)
	}
}

// TestExpiredAuditorSeals: sealing never stops for an auditor who was away, whose
// key has expired before the gateway starts again, and it is told. Nor does a
// restore. The key is from 2026-01-01 and good for two years.
func TestExpiredAuditorSeals(t *testing.T) {
	key, err := os.ReadFile("testdata/expiring.pub.asc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgp.ParseAuditor(key, begin.AddDate(3, 0, 0)); !errors.Is(err, pgp.ErrExpiredKey) {
		t.Fatalf("%v, expected a key that expires", err)
	}
	sealing := func(w *world) {
		t.Helper()
		s := w.open()
		w.put(s, 9, "a line\n")
		if res, err := s.Seal(ctx); err != nil || res.Segments != 1 {
			t.Errorf("%+v, %v", res, err)
		}
		st, err := s.Status(ctx)
		if err != nil || len(st.Auditors) != 1 || !st.Auditors[0].Expires.Equal(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%+v, %v", st.Auditors, err)
		}
	}
	w := newWorld(t)
	w.key = key
	w.init()
	w.advance(3 * 365 * 24 * time.Hour)
	sealing(w)

	w = newWorld(t)
	w.key = key
	r := w.ruin()
	w.advance(3 * 365 * 24 * time.Hour)
	store, err := r.restore(w.env())
	w.must(err)
	w.must(r.rebuild(w.env(), store))
	w.load()
	sealing(w)
}

func TestSealAndStatus(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "one\ntwo\nthr")
	if st, err := s.Status(ctx); err != nil || st.Spool.Unsealed != 11 || st.LedgerSize != 2 || !st.LastSeal.IsZero() || st.Serving {
		t.Fatalf("before: %+v, %v", st, err)
	}
	res, err := s.Seal(ctx)
	if err != nil || res.Segments != 1 || res.Raw != 8 || res.Size != 4 {
		t.Fatalf("sealed %+v, %v", res, err)
	}
	st, err := s.Status(ctx)
	if err != nil || st.Spool.Unsealed != 3 || st.LedgerSize != 4 || st.LastSeal.IsZero() || st.Trouble != "" || len(st.Auditors) != 1 || len(st.Classes) != 1 {
		t.Fatalf("after: %+v, %v", st, err)
	}
	if res, err := s.Seal(ctx); err != nil || res.Segments != 0 {
		t.Fatalf("again: %+v, %v", res, err)
	}
	w.must(s.Close())
	w.must(s.Close())
	if got := w.count(entry.TypeSegment); got != 1 {
		t.Errorf("%d segments in the vault's ledger", got)
	}
}

// TestPolicy records a policy once, whatever the order of its parts, and again
// when it decides otherwise.
func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.init()
	want := func(n int, what string) {
		t.Helper()
		w.must(w.open().Close())
		w.must(w.open().Close())
		if got := w.count(entry.TypePolicy); got != n {
			t.Fatalf("%s: %d policy entries, expected %d", what, got, n)
		}
	}
	want(1, "unchanged")
	slices.Reverse(w.cfg.Sources)
	want(1, "another order")
	w.cfg.Sources[0].Clients = append(w.cfg.Sources[0].Clients, "192.0.2.0/24")
	want(1, "another client network")
	w.cfg.Sources[0].Name = "haproxy1"
	want(2, "another source")
	w.cfg.Classes[0].Period = "P2Y"
	want(3, "another period")
}

// TestPolicyWhileVaultAway: a policy that is in the ledger of record and not yet
// in the vault is not recorded again.
func TestPolicyWhileVaultAway(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	next := *w.cfg
	next.Classes = slices.Clone(next.Classes)
	next.Classes[0].Period = "P2Y"
	s.config.Store(&next)
	w.fail(func(op vfs.Op, name string) error {
		if strings.HasPrefix(name, w.cfg.Vault) && op == vfs.OpCreate {
			return syscall.EROFS
		}
		return nil
	})
	w.must(s.syncPolicy(ctx))
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, "copying the ledger") {
		t.Errorf("trouble %q, %v", st.Trouble, err)
	}
	if got := w.count(entry.TypePolicy); got != 1 {
		t.Errorf("%d policy entries in a vault that is away", got)
	}
	w.must(s.syncPolicy(ctx))
	for range 3 { // there is nothing to seal, and the copy still cannot be made
		s.sealDue(ctx)
	}
	if log := w.log.String(); strings.Count(log, "msg=sealing ") != 1 || strings.Contains(log, "works again") {
		t.Errorf("trouble that lasts is logged again and again:\n%s", log)
	}
	w.fail(nil)
	s.sealDue(ctx)
	if st, err := s.Status(ctx); err != nil || st.Trouble != "" {
		t.Errorf("trouble %q, %v", st.Trouble, err)
	}
	if got := w.count(entry.TypePolicy); got != 2 {
		t.Errorf("%d policy entries, expected 2", got)
	}
}

func TestRecord(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	if _, err := s.Record(ctx, &entry.Orphan{Header: entry.Header{Actor: ActorAdmin}, Name: "x"}); err == nil || !strings.Contains(err.Error(), "expected a request or a disclosure") {
		t.Errorf("an orphan: %v", err)
	}
	record := append(bytes.Repeat([]byte{7}, 32), "who asked"...)
	commit, object, err := s.Register(ctx, "register", record)
	if err != nil || commit != vault.HashOf(record) {
		t.Fatalf("%v, %v", commit, err)
	}
	f, _, err := s.store.Open(ctx, vault.RegisterName("register", commit))
	w.must(err)
	data, err := io.ReadAll(f)
	w.must(errors.Join(err, f.Close()))
	if vault.HashOf(data) != object || bytes.Contains(data, []byte("who asked")) {
		t.Error("the record is not what was promised, or in clear")
	}
	request := &entry.Request{Header: entry.Header{Time: begin.AddDate(-1, 0, 0), Actor: ActorReferent}, Commit: commit, Object: object, Class: "register", Kind: entry.RequestCat}
	index, err := s.Record(ctx, request)
	if err != nil || index != 2 {
		t.Fatalf("%d, %v", index, err)
	}
	if !request.Time.After(begin) {
		t.Errorf("the caller's time %v was taken", request.Time)
	}
	// With the vault's ledger away the entry is recorded all the same.
	w.fail(func(op vfs.Op, name string) error {
		if op == vfs.OpCreate && strings.HasPrefix(name, w.cfg.Vault) {
			return syscall.EIO
		}
		return nil
	})
	if index, err = s.Record(ctx, request); err != nil || index != 3 {
		t.Fatalf("vault away: %d, %v", index, err)
	}
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, "copying the ledger") || st.LedgerSize != 4 {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestIngest(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	res, err := w.importText(s, "a\nb\n")
	if err != nil || res.Bytes != 4 || res.Already {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := w.count(entry.TypeSegment); got != 1 {
		t.Errorf("%d segments", got)
	}
	if res, err = w.importText(s, "a\nb\n"); err != nil || !res.Already {
		t.Fatalf("again: %+v, %v", res, err)
	}
}

// TestIngestWithoutRoom: an import ends when nobody can make room, with the
// reason, and goes on when somebody can.
func TestIngestWithoutRoom(t *testing.T) {
	w := newWorld(t)
	w.cfg.Spool.Max, *w.cfg.Seal.Level = 256<<20, 1
	w.init()
	s := w.open()
	s.beats.ingest = time.Millisecond
	part := strings.Repeat("a line that is repeated until the spool is full of it\n", 20_000)
	const parts = 135
	text := func() io.Reader { // more than is good to hold in memory, under the race detector above all
		all := make([]io.Reader, parts)
		for i := range all {
			all[i] = strings.NewReader(part)
		}
		return io.MultiReader(all...)
	}
	w.away(syscall.EHOSTDOWN)
	res, err := s.Ingest(ctx, header("nginx1"), text())
	if !errors.Is(err, vault.ErrFull) || !errors.Is(err, syscall.EHOSTDOWN) {
		t.Fatalf("vault away: %+v, %v", res, err)
	}
	if n := strings.Count(w.log.String(), "level=ERROR"); n > 3 {
		t.Errorf("%d errors in the log, expected each once", n)
	}
	w.fail(nil)
	if res, err = s.Ingest(ctx, header("nginx1"), text()); err != nil || res.Bytes != int64(parts*len(part)) {
		t.Fatalf("vault back: %+v, %v", res, err)
	}
	if s.spool.Stats().Unsealed != 0 {
		t.Errorf("%d bytes are unsealed", s.spool.Stats().Unsealed)
	}
}

// TestStuckImport: an import gives up after tries, not after beats.
func TestStuckImport(t *testing.T) {
	r := &roomWatch{}
	beats := func(n int, made, want bool) {
		t.Helper()
		for i := range n {
			if got := r.stuck(made); got != want {
				t.Fatalf("beat %d: stuck %v", i, got)
			}
		}
	}
	r.note(vault.ErrFull)
	beats(100, false, false) // its next try takes long
	for range stuckTries - 2 {
		r.note(fmt.Errorf("a step: %w", vault.ErrFull))
		beats(2, false, false)
	}
	beats(1, true, false) // room: all begins anew
	for range stuckTries - 1 {
		r.note(vault.ErrFull)
		beats(2, false, false)
	}
	r.note(nil) // it found some
	beats(2, false, false)
	for range stuckTries - 1 {
		r.note(vault.ErrFull)
		beats(1, false, false)
	}
	r.note(vault.ErrFull)
	beats(1, false, true)
}

func TestIngestRefuses(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	h := header("nosuch")
	if _, err := s.Ingest(ctx, h, strings.NewReader("a\n")); err == nil || !strings.Contains(err.Error(), `"nosuch" is not in the configuration`) {
		t.Errorf("unknown source: %v", err)
	}
	h = header("nginx1")
	h.Recorded = begin.AddDate(-2, 0, 0)
	_, err := s.Ingest(ctx, h, strings.NewReader("a\n"))
	if due, ok := errors.AsType[*DueError](err); !ok || !due.Due.Before(begin) {
		t.Errorf("due already: %v", err)
	}
	if got := w.count(entry.TypeSegment); got != 0 {
		t.Errorf("%d segments", got)
	}
}
