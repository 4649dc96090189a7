package gateway

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
)

// whileHanging runs fn in a bubble while every call below a directory hangs. The
// bubble's clock moves when all that runs waits, so that what hangs is given up
// after any time, and what answers is never too slow. When fn is done the calls
// come back, and what made them is waited for.
func (w *world) whileHanging(t *testing.T, dir string, fn func()) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		gate := make(chan struct{})
		w.fail(func(_ vfs.Op, name string) error {
			if strings.HasPrefix(name, dir) {
				<-gate
			}
			return nil
		})
		defer func() { w.fail(nil); close(gate) }()
		fn()
	})
}

// openPinned is the OpenVault of somebody who pins this world's trust file.
func (w *world) openPinned(ctx context.Context, place string) (vault.Store, *ledger.Trust, bool, error) {
	env := w.env()
	store, err := env.Stores.Open(ctx, place)
	if err != nil {
		return nil, nil, false, err
	}
	trust, err := config.LoadTrust(w.mem, paths(w.cfg.State).trust())
	return store, trust, false, err
}

// TestSurveyVaults: each vault is told by its own ledger, and one that is absent,
// dead, foreign or damaged hides nothing of the others.
func TestSurveyVaults(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "one\ntwo\n")
	_, err := s.Seal(ctx)
	w.must(err)
	v := w.cfg.Vault
	w.must(copyAll(w.mem, v, v+".old"))
	w.put(s, 2, "three\n")
	_, err = s.Seal(ctx)
	w.must(err)
	foreign := newWorld(t)
	foreign.init()
	copyTree(w, foreign.mem, foreign.cfg.Vault, v+".foreign")
	w.must(copyAll(w.mem, v, v+".dead"))
	w.must(copyAll(w.mem, v, v+".cut"))
	w.must(w.mem.Remove(v + ".cut/" + vault.CheckpointName(vault.LedgerPrefix)))
	var got []VaultStatus
	w.whileHanging(t, v+".dead", func() {
		got = SurveyVaults(ctx, []string{v + ".old", v + ".dead", v, v + ".gone", v + ".foreign", v + ".cut"}, w.openPinned)
	})
	for i, want := range []struct {
		err             error
		size, behind    int64
		segments, lines int64
		measured        bool
	}{
		{size: 4, behind: 1, segments: 1, lines: 2, measured: true},
		{err: syscall.ETIMEDOUT},
		{size: 5, segments: 2, lines: 3, measured: true},
		{err: vault.ErrNoVault},
		{err: ledger.ErrUnsigned, measured: true},
		{err: ledger.ErrNoLedger, measured: true},
	} {
		k := got[i]
		if !errors.Is(k.Err, want.err) || (k.Err == nil) != (k.Problem == "") || k.Size != want.size || k.Behind != want.behind || k.Segments != want.segments || k.Lines != want.lines || (k.Total > 0) != want.measured {
			t.Errorf("vault %d: %+v, expected %+v", i, k, want)
		}
	}
	if k := got[2]; k.Origin != w.cfg.Origin || k.Root != s.Tree().Root().String() || k.Raw != 14 || k.LastEntry.Before(begin) || k.FirstReceived.IsZero() || k.LastReceived.Before(k.FirstReceived) {
		t.Errorf("%+v", k)
	}
}

// TestSurveyDead: a copy on a dead mount hides nothing of the other copies.
func TestSurveyDead(t *testing.T) {
	w := newWorld(t)
	w.init()
	dead := w.cfg.Vault + ".dead"
	w.must(copyAll(w.mem, w.cfg.Vault, dead))
	w.cfg.Copies = []config.Copy{{Name: "dead", Place: dead, Media: "disk"}, {Name: "gone", Place: dead + ".not", Media: "disk"}}
	var st *CopiesStatus
	w.whileHanging(t, dead+"/", func() {
		var err error
		st, err = SurveyCopies(ctx, w.env(), w.cfg)
		w.must(err)
	})
	if k := st.Copies[0]; k.Name != config.Primary || k.Size != 2 || k.Problem != "" {
		t.Errorf("primary %+v", k)
	}
	if k := st.Copies[1]; !strings.Contains(k.Problem, errSilent.Error()) || k.Erasable != "unknown" || k.Place != dead {
		t.Errorf("dead copy %+v", k)
	}
	if k := st.Copies[2]; !strings.Contains(k.Problem, vault.ErrNoVault.Error()) {
		t.Errorf("absent copy %+v", k)
	}
}

// TestExamine: what waits in the spool is told with the vault there, away and
// dead, and by `serve`.
func TestExamine(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "one\n")
	w.must(s.Close())
	check := func(what string, want error, trouble string) {
		t.Helper()
		st, unopened, err := Examine(ctx, w.env(), w.cfg)
		w.must(err)
		if !errors.Is(unopened, want) || st.Spool.Unsealed != 4 || st.LedgerSize != 2 || !strings.Contains(st.Trouble, trouble) || (trouble == "") != (st.Trouble == "") {
			t.Errorf("%s: %+v, %v", what, st, unopened)
		}
	}
	check("there", nil, "")
	w.move(w.cfg.Vault, w.cfg.Vault+"-off")
	check("away", vault.ErrNoVault, opening)
	w.move(w.cfg.Vault+"-off", w.cfg.Vault)
	r := w.serve()
	st, unopened, err := Examine(ctx, w.env(), w.cfg)
	if err != nil || unopened != nil || !st.Serving || st.Spool.Unsealed != 4 {
		t.Errorf("by serve: %+v, %v, %v", st, unopened, err)
	}
	w.must(r.end())
	if _, _, err := Examine(ctx, Env{FS: vfs.NewMem(), Now: w.now}, w.cfg); !errors.Is(err, ErrNoState) {
		t.Errorf("no state: %v", err)
	}
	// The last: the lock stays with the process.
	w.whileHanging(t, w.cfg.Vault, func() { check("dead", syscall.ETIMEDOUT, opening) })
}
