package gateway

import (
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/verify"
)

// newBackup is a world whose state was put back from a backup: of stream 1 the
// spool still has what was sealed since, and of stream 2 what was not. Stream 3
// is newer than the backup, and an object of a killed sealing has no entry.
func newBackup(t testing.TB) *world { return newBackupBefore(t, 0) }

// newBackupBefore has n more entries in the vault's ledger.
func newBackupBefore(t testing.TB, n int) *world {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "sealed before\n")
	_, err := s.Seal(ctx)
	w.must(err)
	w.put(s, 1, "sealed since\n")
	w.put(s, 2, "no end of line") // Seal leaves it
	w.must(s.Close())
	w.must(copyAll(w.mem, w.cfg.State, w.cfg.State+".backup"))
	s = w.open()
	w.put(s, 3, "newer\n")
	_, err = s.Seal(ctx)
	w.must(err)
	for ; n > 0; n-- {
		_, err := s.commit(ctx, &entry.Orphan{Header: entry.Header{Time: w.now(), Actor: ActorGateway}, Object: vault.HashOf([]byte{byte(n), byte(n >> 8)}), Name: "gone"})
		w.must(err)
	}
	w.must(s.Close())
	store, err := dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	day := vault.Day{Year: 2027, Month: 11, Day: 22}
	w.must(store.Put(ctx, vault.SegmentName(day, vault.HashOf([]byte("orphan")), vault.Gzip), 6, strings.NewReader("orphan")))
	w.must(removeAll(w.mem, w.cfg.State))
	w.must(copyAll(w.mem, w.cfg.State+".backup", w.cfg.State))
	return w
}

// copyAll copies a directory, durably.
func copyAll(fsys vfs.FS, from, to string) error {
	if err := vfs.MkdirAll(fsys, to, 0o700); err != nil {
		return err
	}
	list, err := fsys.ReadDir(from)
	for _, e := range list {
		if err != nil {
			break
		}
		a, b := from+"/"+e.Name(), to+"/"+e.Name()
		if e.IsDir() {
			err = copyAll(fsys, a, b)
			continue
		}
		var data []byte
		if data, err = vfs.ReadFile(fsys, a, 1<<30); err == nil {
			err = vfs.CreateFile(fsys, b, data, 0o600)
		}
	}
	return err
}

// recovered goes on with a recovered gateway and audits its vault: everything
// stands there once.
func (w *world) recovered(t *testing.T) {
	t.Helper()
	s, err := OpenSite(ctx, w.env(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.put(s, 2, " any more\n")
	w.put(s, 4, "after\n")
	_, err = s.Seal(ctx)
	w.must(err)
	w.must(s.Close())
	store, err := dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	trust, err := config.LoadTrust(w.mem, paths(w.cfg.State).trust())
	w.must(err)
	codes := map[string]int{}
	_, err = verify.Run(ctx, verify.Options{Vault: store, Trust: trust, Depth: verify.Objects, Now: w.now(), Jobs: 1}, func(f verify.Finding) {
		if codes[f.Code]++; f.Code != "orphan" && f.Code != "rotated" {
			t.Errorf("audit: %v", f)
		}
	})
	w.must(err)
	if codes["orphan"] != 1 {
		t.Errorf("%d orphans, expected the one object without an entry", codes["orphan"])
	}
	got := map[vault.StreamID]int64{}
	tree, err := ledger.OpenTree(ctx, store, vault.LedgerPrefix, trust)
	w.must(err)
	w.must(tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if s, ok := e.(*entry.Segment); ok {
			got[s.Stream] += s.Raw
		}
		return err
	}))
	for id, want := range map[byte]int{1: len("sealed before\nsealed since\n"), 2: len("no end of line any more\n"), 3: len("newer\n"), 4: len("after\n")} {
		if got[vault.StreamID{id}] != int64(want) {
			t.Errorf("stream %d: %d bytes sealed, expected %d", id, got[vault.StreamID{id}], want)
		}
	}
}

func TestRecover(t *testing.T) {
	w := newBackup(t)
	if _, err := OpenSite(ctx, w.env(), w.cfg); !errors.Is(err, ledger.ErrBehind) {
		t.Fatalf("before: %v, expected ErrBehind", err)
	}
	res, err := Recover(ctx, w.env(), w.cfg, "")
	w.must(err)
	if res.To <= res.From || res.Sealed != int64(len("sealed since\n")) || res.Orphans != 1 || res.Policy || res.Rotation != nil {
		t.Errorf("result %+v", res)
	}
	again, err := Recover(ctx, w.env(), w.cfg, "")
	w.must(err)
	if again.From != again.To || again.Orphans != 0 {
		t.Errorf("again: %+v", again)
	}
	w.recovered(t)
}

// TestRecoverStaleTail: the backup was made while a batch was written that is not
// the one of the vault. Its full bundle and tiles, which no checkpoint covers, give
// way to those of the vault.
func TestRecoverStaleTail(t *testing.T) {
	w := newBackupBefore(t, vault.TileWidth)
	store, err := dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	stale := 0
	w.must(store.List(ctx, vault.LedgerPrefix+"tile/", func(info vault.Info) error {
		if vault.IsMutable(info.Name) {
			return nil
		}
		stale++
		name := w.cfg.State + "/" + info.Name
		return errors.Join(vfs.MkdirAll(w.mem, path.Dir(name), 0o700), vfs.CreateFile(w.mem, name, []byte("of a batch that was never committed"), 0o440))
	}))
	if stale < 2 {
		t.Fatalf("%d full tiles and bundles, expected one of each", stale)
	}
	_, err = Recover(ctx, w.env(), w.cfg, "")
	w.must(err)
	w.recovered(t)
}

// TestRecoverCrash kills it before each operation of the disk, and cuts the
// power. Until it is done again the gateway is refused or whole, never wrong.
func TestRecoverCrash(t *testing.T) {
	begun := newBackup(t)
	step := 1
	if testing.Short() {
		step = 13
	}
	for at := 0; ; at += step {
		w := &world{t: t, mem: begun.mem.CrashClone(rand.New(rand.NewPCG(1, uint64(at)))), cfg: begun.cfg, log: &lockedBuffer{}}
		w.clock.Store(begun.clock.Load())
		n := 0
		w.fail(func(vfs.Op, string) error {
			if n++; n > at {
				return errKilled
			}
			return nil
		})
		_, err := Recover(ctx, w.env(), w.cfg, "")
		w.fail(nil)
		w.mem = w.mem.CrashClone(rand.New(rand.NewPCG(2, uint64(at))))
		if _, err := Recover(ctx, w.env(), w.cfg, ""); err != nil {
			t.Fatalf("again: %v", err)
		}
		w.recovered(t)
		if t.Failed() {
			t.Fatalf("crash before operation %d: %v", at, err)
		}
		if err == nil {
			t.Logf("%d crashes", at)
			return
		}
	}
}

func TestRecoverRefusals(t *testing.T) {
	w := newBackup(t)
	tests := []struct {
		name   string
		change func(*config.Config)
		want   error
	}{
		{"no state", func(c *config.Config) { c.State += ".none" }, ErrNoState},
		{"no vault", func(c *config.Config) { c.Vault += ".none" }, vault.ErrNoVault},
	}
	for _, tt := range tests {
		c := *w.cfg
		tt.change(&c)
		if _, err := Recover(ctx, w.env(), &c, ""); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, expected %v", tt.name, err, tt.want)
		}
	}
	lock, err := w.mem.Lock(paths(w.cfg.State).lock())
	w.must(err)
	if _, err := Recover(ctx, w.env(), w.cfg, ""); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	w.must(lock.Close())
	// A vault that was removed is not made anew.
	w.must(removeAll(w.mem, w.cfg.Vault))
	if _, err := Recover(ctx, w.env(), w.cfg, ""); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("vault gone: %v", err)
	}
}
