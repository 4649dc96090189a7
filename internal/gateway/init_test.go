package gateway

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/location"
)

func TestInit(t *testing.T) {
	w := newWorld(t)
	res := w.init()
	if got := w.entries(); !slices.Equal(got, []entry.Type{entry.TypeInit, entry.TypePolicy}) {
		t.Errorf("entries %v, expected init and policy", got)
	}
	p := paths(w.cfg.State)
	for _, secret := range []string{p.ledgerKey(), p.handleKey()} {
		info, err := w.mem.Stat(secret)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, expected mode 0600", secret, info, err)
		}
	}
	if !strings.Contains(res.RecoveryKey, "PRIVATE") {
		t.Errorf("recovery key %q", res.RecoveryKey)
	}
	// The recovery key is kept nowhere.
	w.must(eachFile(w.mem, "/", func(name string, data []byte) {
		if strings.Contains(string(data), res.RecoveryKey) {
			t.Errorf("%s holds the recovery key", name)
		}
	}))
	if _, err := w.tryInit(w.mem); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("again: %v", err)
	}
	s := w.open()
	w.must(s.Close())
	if got := w.count(entry.TypePolicy); got != 1 {
		t.Errorf("%d policy entries after a start, expected 1", got)
	}
}

// TestInitWithoutGrace: a class without grace has no such member in the ledger.
func TestInitWithoutGrace(t *testing.T) {
	w := newWorld(t)
	w.cfg.Classes[0].Grace = "P0D"
	w.init()
	if got := w.count(entry.TypePolicy); got != 1 {
		t.Errorf("%d policy entries, expected 1", got)
	}
}

// eachFile calls fn for every file below root.
func eachFile(fsys vfs.FS, root string, fn func(name string, data []byte)) error {
	list, err := fsys.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := strings.TrimRight(root, "/") + "/" + e.Name()
		if e.IsDir() {
			err = eachFile(fsys, name, fn)
		} else if data, rerr := vfs.ReadFile(fsys, name, 1<<30); rerr == nil {
			fn(name, data)
		} else {
			err = rerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestInitCrash cuts the power at every operation of Init. What is left either
// counts as no state, and is refused or made anew, or it is a whole gateway.
func TestInitCrash(t *testing.T) {
	whole, refused, anew := 0, 0, 0
	step := 1
	if testing.Short() {
		step = 3
	}
	for at := 1; ; at += step {
		w := newWorld(t)
		var cut []*vfs.Mem
		n := 0
		counting := vfs.NewFault(w.mem, func(vfs.Op, string) error {
			if n++; n == at {
				for seed := range uint64(2) {
					cut = append(cut, w.mem.CrashClone(rand.New(rand.NewPCG(seed, uint64(at)))))
				}
			}
			return nil
		})
		if _, err := w.tryInit(counting); err != nil {
			t.Fatal(err)
		}
		for _, disk := range cut {
			w.mem = disk
			cfg, err := config.Load(disk, paths(w.cfg.State).config())
			switch {
			case err == nil:
				whole++
				w.cfg = cfg
				s := w.open()
				w.put(s, 1, "a line\n")
				if res, err := s.Seal(ctx); err != nil || res.Segments != 1 {
					t.Fatalf("operation %d: the gateway cannot work: %+v, %v", at, res, err)
				}
				w.must(s.Close())
			case !errors.Is(err, fs.ErrNotExist):
				t.Fatalf("operation %d: %v", at, err)
			default:
				_, err := w.tryInit(disk)
				if err == nil {
					anew++
					w.entries()
				} else if refused++; !errors.Is(err, vault.ErrNotEmpty) {
					t.Fatalf("operation %d: again: %v", at, err)
				}
			}
		}
		if cut == nil {
			t.Logf("%d operations: %d times whole, %d refused, %d made anew", at-1, whole, refused, anew)
			if whole == 0 && step == 1 || refused < 50/step || anew == 0 { // it is whole after the last operations only
				t.Error("the crashes did not reach what they are for")
			}
			return
		}
	}
}

// TestInitFails lets every operation of Init fail. The message says what to do.
func TestInitFails(t *testing.T) {
	failure := errors.New("the disk is on fire")
	step := 1
	if testing.Short() {
		step = 3
	}
	for at := 1; ; at += step {
		w := newWorld(t)
		n := 0
		_, err := w.tryInit(vfs.NewFault(w.mem, func(op vfs.Op, _ string) error {
			if n++; n == at {
				return failure
			}
			return nil
		}))
		if n < at {
			w.must(err)
			return
		}
		if err == nil { // best effort: the removal of a temporary file
			w.load()
			w.must(w.open().Close())
			continue
		}
		if !errors.Is(err, failure) {
			t.Fatalf("operation %d: %v", at, err)
		}
		if _, again := w.tryInit(w.mem); again != nil && !errors.Is(again, vault.ErrNotEmpty) {
			t.Fatalf("operation %d: again: %v", at, again)
		} else if again != nil && !strings.Contains(err.Error(), "remove "+w.cfg.State) && !strings.Contains(err.Error(), "creating the state") {
			t.Errorf("operation %d: %q does not tell what to remove", at, err)
		}
	}
}

// TestInitKeepsRecovery says that the key is kept before the vault counts.
func TestInitKeepsRecovery(t *testing.T) {
	w := newWorld(t)
	e := w.env()
	o := InitOptions{Env: e, Config: w.cfg, Auditors: [][]byte{auditor()}}
	failure := errors.New("the stick is full")
	o.KeepRecovery = func(string) error { return failure }
	if _, err := Init(ctx, o); !errors.Is(err, failure) {
		t.Fatalf("%v", err)
	}
	if _, err := config.Load(w.mem, paths(w.cfg.State).config()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a vault without its recovery key counts as made: %v", err)
	}
	w2 := newWorld(t)
	o.FS, o.Stores, o.Config = w2.mem, location.Opener{FS: w2.mem}, w2.cfg
	kept := ""
	o.KeepRecovery = func(key string) error { kept = key; return nil }
	res, err := Init(ctx, o)
	if err != nil || kept != res.RecoveryKey {
		t.Fatalf("kept %q, %v", kept, err)
	}
}
