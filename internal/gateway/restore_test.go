package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/verify"
)

var errKilled = errors.New("killed")

// ruin is a world whose primary and state are destroyed: what is left is a copy
// of the vault, the trust file and the recovery key.
type ruin struct {
	*world
	from     *dir.Store
	lost     string // where the copy is: once the primary's place
	trust    *ledger.Trust
	recovery string
}

func newRuin(t testing.TB) *ruin { return newWorld(t).ruin() }

func (w *world) ruin() *ruin {
	init := w.init()
	s := w.open()
	for i, text := range []string{"first line\n", "second line\n", "third line\n"} {
		w.put(s, byte(i+1), text)
		_, err := s.Seal(ctx)
		w.must(err)
	}
	_, err := w.importText(s, "an import\n")
	w.must(err)
	w.must(s.Close())
	r := &ruin{world: w, recovery: init.RecoveryKey}
	r.trust, err = config.LoadTrust(w.mem, init.TrustFile)
	w.must(err)
	r.from, err = dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	r.lost = w.cfg.Vault
	root := filepath.Dir(w.cfg.Vault)
	w.cfg.Vault, w.cfg.State = root+"/new", root+"/s2"
	return r
}

func (r *ruin) restoreOptions(env Env) RestoreOptions {
	return RestoreOptions{Env: env, From: r.from, Vault: r.cfg.Vault, Trust: r.trust, Jobs: 1,
		Sleep: func(context.Context, time.Duration) error { return errKilled }}
}

func (r *ruin) stateOptions(env Env) StateOptions {
	c := *r.cfg
	c.Classes, c.Auditors = nil, nil
	return StateOptions{Env: env, Config: &c, Trust: r.trust, Recovery: r.recovery, Auditors: [][]byte{r.key}}
}

// restore restores the vault, and is repeated after an error.
func (r *ruin) restore(env Env) (vault.Store, error) {
	rs, err := BeginRestore(ctx, r.restoreOptions(env))
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	if _, err := rs.Run(ctx); err != nil {
		return nil, err
	}
	return rs.Store(), rs.Finish()
}

func (r *ruin) rebuild(env Env, store vault.Store) error {
	_, err := RebuildState(ctx, r.stateOptions(env), store)
	return err
}

// sound opens the new gateway, has it seal a line, and audits its vault.
func (r *ruin) sound(t *testing.T, policies int) {
	t.Helper()
	r.load()
	s, err := OpenSite(ctx, r.env(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.put(s, 9, "after\n")
	_, err = s.Seal(ctx)
	r.must(err)
	r.must(s.Close())
	store, err := dir.Open(r.mem, r.cfg.Vault)
	r.must(err)
	trust, err := config.LoadTrust(r.mem, paths(r.cfg.State).trust())
	r.must(err)
	sum, err := verify.Run(ctx, verify.Options{Vault: store, Trust: trust, Depth: verify.Objects, Now: r.now(), Jobs: 1}, func(f verify.Finding) {
		if f.Level != verify.Note {
			t.Errorf("audit: %v", f)
		}
	})
	r.must(err)
	if sum.Segments != 5 {
		t.Errorf("%d segments, expected the 4 from before and a new one", sum.Segments)
	}
	if got := r.count(entry.TypePolicy); got != policies {
		t.Errorf("%d policy entries, expected %d", got, policies)
	}
}

func TestRestore(t *testing.T) {
	r := newRuin(t)
	store, err := r.restore(r.env())
	r.must(err)
	if _, err := r.restore(r.env()); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("again: %v", err)
	}
	r.must(r.rebuild(r.env(), store))
	if err := r.rebuild(r.env(), store); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("the state again: %v", err)
	}
	r.sound(t, 1)
	if got := r.count(entry.TypeRotate); got != 1 {
		t.Errorf("%d rotate entries, expected 1", got)
	}
	for _, secret := range []string{"ledger.key", "handle.key"} {
		info, err := r.mem.Stat(r.cfg.State + "/keys/" + secret)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, expected mode 0600", secret, info, err)
		}
	}
}

// TestRestoreNoGrace: a class without grace keeps none.
func TestRestoreNoGrace(t *testing.T) {
	w := newWorld(t)
	w.cfg.Classes[0].Grace = "P0D"
	init := w.init()
	store, err := dir.Open(w.mem, w.cfg.Vault)
	w.must(err)
	trust, err := config.LoadTrust(w.mem, init.TrustFile)
	w.must(err)
	r := &ruin{world: w, from: store, trust: trust, recovery: init.RecoveryKey}
	w.cfg.State += "2"
	r.must(r.rebuild(r.env(), store))
	r.load()
	r.must(r.open().Close())
	if got := r.count(entry.TypePolicy); got != 1 || r.cfg.Classes[0].Grace != "P0D" {
		t.Errorf("%d policies, grace %s", got, r.cfg.Classes[0].Grace)
	}
}

func TestRestoreRefusals(t *testing.T) {
	r := newRuin(t)
	tests := []struct {
		name   string
		change func(*StateOptions)
		want   string
	}{
		{"another recovery key", func(o *StateOptions) {
			o.Recovery, _, _ = ledger.GenerateKey(r.env().Random, o.Trust.Origin+"/recovery")
		}, "not this ledger's recovery key"},
		{"the ledger's key for the recovery key", func(o *StateOptions) { o.Recovery = o.Trust.Log }, "not this ledger's recovery key"},
		{"no recovery key pinned", func(o *StateOptions) { o.Trust = &ledger.Trust{Log: o.Trust.Log, Origin: o.Trust.Origin} }, "it names none"},
		{"no auditor", func(o *StateOptions) { o.Auditors = nil }, "is missing"},
		{"another auditor", func(o *StateOptions) { o.Auditors = append(o.Auditors, newAuditor(2, begin)) }, "is not an auditor"},
		{"no key", func(o *StateOptions) { o.Auditors = [][]byte{[]byte("no key")} }, "key"},
		{"unknown source", func(o *StateOptions) { o.Config.Sources = []config.Source{{Name: "other"}} }, "no such source"},
		{"a bad client", func(o *StateOptions) { o.Config.Sources = []config.Source{{Name: "squid1", Clients: []string{"x"}}} }, "expected an address"},
		{"not empty", func(o *StateOptions) { o.Config.State = r.lost }, "not empty"},
		{"shorter than known", func(o *StateOptions) {
			o.Trust = &ledger.Trust{Log: o.Trust.Log, Origin: o.Trust.Origin, Recovery: o.Trust.Recovery, KnownSize: 1000}
		}, "at least the known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := r.stateOptions(r.env())
			tt.change(&o)
			err := CheckState(ctx, o, r.from)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, expected %q", err, tt.want)
			}
			if _, err2 := RebuildState(ctx, o, r.from); fmt.Sprint(err2) != fmt.Sprint(err) {
				t.Errorf("RebuildState: %v, expected the same refusal", err2)
			}
		})
	}
	if _, err := r.mem.Stat(r.cfg.State); err == nil {
		t.Error("a refusal left a state")
	}
}

// TestRestoreCrash kills a restore with its new state before each operation of
// the disk, and cuts the power. Then a person does what the messages say: restore
// again, and when the vault is whole, remove the half state and make it again.
func TestRestoreCrash(t *testing.T) {
	r := newRuin(t)
	step := 1
	if testing.Short() {
		step = 29
	}
	for at := 0; ; at += step {
		w := &ruin{world: &world{t: t, mem: r.mem.CrashClone(rand.New(rand.NewPCG(1, uint64(at)))), key: r.key, log: &lockedBuffer{}}, trust: r.trust, recovery: r.recovery}
		cfg := *r.cfg
		w.cfg = &cfg
		w.clock.Store(r.clock.Load())
		w.from, _ = dir.Open(w.mem, r.lost)
		n := 0
		w.fail(func(vfs.Op, string) error {
			if n++; n > at {
				return errKilled
			}
			return nil
		})
		store, err := w.restore(w.env())
		if err == nil {
			err = w.rebuild(w.env(), store)
		}
		done := err == nil
		w.fail(nil)
		w.mem = w.mem.CrashClone(rand.New(rand.NewPCG(2, uint64(at))))
		w.from, _ = dir.Open(w.mem, r.lost)
		w.finish(t)
		if t.Failed() {
			t.Fatalf("crash before operation %d: %v", at, err)
		}
		if done {
			t.Logf("%d crashes", at)
			return
		}
	}
}

// finish does what a person does after a crash.
func (r *ruin) finish(t *testing.T) {
	t.Helper()
	if _, err := r.restore(r.env()); err != nil && !errors.Is(err, vault.ErrNotEmpty) {
		t.Fatalf("going on: %v", err)
	}
	if _, err := r.mem.Stat(paths(r.cfg.State).config()); err != nil {
		r.must(removeAll(r.mem, r.cfg.State))
		store, err := dir.Open(r.mem, r.cfg.Vault)
		r.must(err)
		if err := r.rebuild(r.env(), store); err != nil {
			t.Fatalf("the state again: %v", err)
		}
	}
	r.sound(t, 1)
}

func removeAll(fsys vfs.FS, name string) error {
	list, err := fsys.ReadDir(name)
	if err != nil {
		return nil // absent
	}
	for _, e := range list {
		sub := name + "/" + e.Name()
		if e.IsDir() {
			err = removeAll(fsys, sub)
		} else {
			err = fsys.Remove(sub)
		}
		if err != nil {
			return err
		}
	}
	return fsys.Remove(name)
}
