package replicate_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/verify"
)

// errDead stands for a process that was killed: every operation fails with it.
var errDead = errors.New("killed")

// TestCrash kills a pass before each of its disk operations, and cuts the power
// at the same moment: what was not synced survives in part. What is left must
// pass the audit at its own checkpoint; the next pass must finish, and copy no
// object that was finished.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready bool // a pass was made before
	}{{"first pass", false}, {"second pass", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := source(t, 30)
			r := newReplica(t, w)
			if c.ready {
				r.must(w.Vault)
				for _, text := range []string{"third line\n", "fourth line\n"} {
					if err := w.Seal(context.Background(), 1, text); err != nil {
						t.Fatal(err)
					}
				}
			}
			for at := 0; ; at++ {
				seed := uint64(at)
				clone := &replica{TB: t, disk: r.disk.CrashClone(rand.New(rand.NewPCG(1, seed))), trust: r.trust, now: r.now,
					logKey: r.logKey, logV: r.logV, cosign: r.cosign, cosignV: r.cosignV}
				done := crashAt(clone, w, at)
				after := &replica{TB: t, disk: clone.disk.CrashClone(rand.New(rand.NewPCG(2, seed))), trust: r.trust, now: clone.now,
					logKey: r.logKey, logV: r.logV, cosign: r.cosign, cosignV: r.cosignV}
				checkCrashed(t, at, after, w)
				if t.Failed() {
					t.Fatalf("crash before operation %d", at)
				}
				if done {
					t.Logf("%d operations", at)
					return
				}
				if testing.Short() {
					at += 6
				}
			}
		})
	}
}

// crashAt kills a pass before operation at, and reports whether the pass ended
// before that.
func crashAt(r *replica, w *testvault.World, at int) (done bool) {
	r.Helper()
	to, log := r.open()
	n := 0
	r.before = func(vfs.Op, string) error {
		if n++; n > at {
			return errDead
		}
		return nil
	}
	o := r.passOptions(w.Vault, to, log)
	o.Jobs, o.Attempts = 1, 1
	_, err := run(o)
	r.before = nil
	return err == nil
}

// checkCrashed audits what a crash left, and finishes it.
func checkCrashed(t *testing.T, at int, r *replica, w *testvault.World) {
	t.Helper()
	finished := 0
	for name, data := range r.files() {
		for _, prefix := range []string{"segments/", "keys/", "register/"} {
			if strings.HasPrefix(name, prefix) {
				finished++
				if o, err := vault.ParseName(name); err != nil || o.Kind != vault.KindRegister && vault.HashOf(data) != o.Hash {
					t.Errorf("%s: not whole under its name (%v)", name, err)
				}
			}
		}
	}
	if r.tree() != nil {
		sound(t, r, w)
	}
	sum := r.must(w.Vault)
	if int(sum.Present) != finished {
		t.Errorf("%d objects were finished, but only %d not copied again", finished, sum.Present)
	}
	same(t, load(t, w.Vault), r.files())
	sound(t, r, w)
}

// sound fails if an audit of the copy reports an error.
func sound(t *testing.T, r *replica, w *testvault.World) {
	t.Helper()
	_, err := verify.Run(context.Background(), verify.Options{Vault: r.files(), Trust: &r.trust, Depth: verify.Objects, Now: w.Clock, Jobs: 1},
		func(f verify.Finding) {
			if f.Level == verify.Error {
				t.Errorf("audit: %v", f)
			}
		})
	if err != nil {
		t.Error(err)
	}
}

// TestFaults fails each disk operation of a pass once, both before it is done
// and after. The pass succeeds, or fails and the next one succeeds.
func TestFaults(t *testing.T) {
	w := source(t, 31)
	for at := 0; ; at++ {
		hit := false
		for _, after := range []bool{false, true} {
			r := newReplica(t, w)
			to, log := r.open()
			n := 0
			r.before = func(vfs.Op, string) error {
				if n++; n != at+1 {
					return nil
				}
				hit = true
				if after {
					return vfs.Executed(syscall.EIO)
				}
				return syscall.EIO
			}
			o := r.passOptions(w.Vault, to, log)
			o.Jobs = 1
			_, err := run(o)
			r.before = nil
			if r.tree() != nil {
				sound(t, r, w)
			}
			r.must(w.Vault)
			same(t, load(t, w.Vault), r.files())
			if t.Failed() {
				t.Fatalf("fault at operation %d, executed %v: %v", at, after, err)
			}
		}
		if !hit {
			t.Logf("%d operations", at)
			return
		}
		if testing.Short() {
			at += 6
		}
	}
}
