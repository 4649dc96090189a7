package gateway

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// serveLate serves a state of which the vault was not opened before.
func (w *world) serveLate(change ...func(*beats)) *running {
	w.t.Helper()
	w.must(os.MkdirAll(w.cfg.State, 0o700))
	s, err := OpenIntake(ctx, w.env(), w.cfg)
	w.must(err)
	b := testBeats
	for _, f := range change {
		f(&b)
	}
	return w.serveSite(s, b)
}

// refuses tells how Serve of a state ends at its start.
func (w *world) refuses() error {
	w.t.Helper()
	w.must(os.MkdirAll(w.cfg.State, 0o700))
	s, err := OpenIntake(ctx, w.env(), w.cfg)
	w.must(err)
	defer s.Close()
	s.beats = testBeats
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	return s.Serve(ctx, ServeOptions{Judge: testJudge, Ready: func(net.Addr) { stop() }})
}

func (r *running) trouble() string {
	st, err := r.site.Status(ctx)
	r.must(err)
	return st.Trouble
}

// move renames the vault.
func (w *world) move(from, to string) { w.must(w.mem.Rename(from, to)) }

// TestVaultAway takes in while the vault is away at the start, and seals when it
// is there. Nothing is made in its place.
func TestVaultAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(w *world, vault string)
		back  func(w *world, vault string)
	}{
		{"absent", func(w *world, v string) { w.move(v, v+"-off") }, func(w *world, v string) { w.move(v+"-off", v) }},
		{"an empty mount point", func(w *world, v string) {
			w.move(v, v+"-off")
			w.must(w.mem.Mkdir(v, 0o755))
		}, func(w *world, v string) {
			if names, err := w.mem.ReadDir(v); err != nil || len(names) != 0 {
				w.t.Errorf("in the empty mount point stands %v, %v", names, err)
			}
			w.must(w.mem.Remove(v))
			w.move(v+"-off", v)
		}},
		{"stale", func(w *world, _ string) { w.away(syscall.ESTALE) }, func(w *world, _ string) { w.fail(nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.init()
			c.leave(w, w.cfg.Vault)
			r := w.serveLate()
			w.must(r.write("access.log", "one\ntwo\n", true))
			if got := r.trouble(); !strings.Contains(got, opening) {
				t.Errorf("status says %q", got)
			}
			for what, err := range map[string]error{
				"seal": second(r.site.Seal(ctx)), "request": second(r.site.Record(ctx, &entry.Request{})),
			} {
				if !away(err) {
					t.Errorf("%s: %v", what, err)
				}
			}
			within(t, "the log says that the vault is away", func() bool { return strings.Contains(w.log.String(), opening) })
			next := *w.cfg
			r.next = &next
			r.reload <- syscall.SIGHUP
			within(t, "a reload without the vault", func() bool { return strings.Contains(w.log.String(), "reloaded") })
			c.back(w, w.cfg.Vault)
			within(t, "the vault is open", func() bool { return r.site.available() == nil })
			_, err := r.site.Seal(ctx)
			w.must(err)
			if got := w.count(entry.TypeSegment); got != 1 {
				t.Errorf("%d segments, expected 1", got)
			}
			within(t, "no trouble is left", func() bool { return r.trouble() == "" })
			w.must(r.end())
		})
	}
}

// TestOpensAtTheLastMoment: the vault is open at the moment at which a start stops
// waiting for it.
func TestOpensAtTheLastMoment(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	s.noteSilent()
	if st, err := s.Status(ctx); err != nil || st.Trouble != "" {
		t.Errorf("trouble %q, %v", st.Trouble, err)
	}
	w.must(s.Close())
	late, err := OpenIntake(ctx, w.env(), w.cfg)
	w.must(err)
	defer late.Close()
	late.noteSilent()
	if st, err := late.Status(ctx); err != nil || !strings.Contains(st.Trouble, opening) {
		t.Errorf("not open yet: trouble %q, %v", st.Trouble, err)
	}
	// Whoever waits no longer and who opens do not wait for each other.
	late.beats = testBeats
	late.beats.patience = time.Nanosecond
	w.must(late.startPrimary(ctx, func(open func(context.Context)) { open(ctx) }))
	if st, err := late.Status(ctx); err != nil || st.Trouble != "" {
		t.Errorf("open: trouble %q, %v", st.Trouble, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestVaultLeaves takes the vault away while the gateway runs.
func TestVaultLeaves(t *testing.T) {
	for _, empty := range []bool{false, true} {
		w := newWorld(t)
		w.init()
		r := w.serveLate()
		w.must(r.write("a.log", "one\n", true))
		_, err := r.site.Seal(ctx)
		w.must(err)
		v := w.cfg.Vault
		w.move(v, v+"-off")
		if empty {
			w.must(w.mem.Mkdir(v, 0o755))
		}
		w.must(r.write("b.log", "two\n", true))
		if _, err := r.site.Seal(ctx); !away(err) {
			t.Errorf("empty %v: sealing without a vault: %v", empty, err)
		}
		if names, err := w.mem.ReadDir(v); empty && (err != nil || len(names) != 0) {
			t.Errorf("in the empty mount point stands %v, %v", names, err)
		} else if !empty && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("in the place of the vault stands %v, %v", names, err)
		}
		if empty {
			w.must(w.mem.Remove(v))
		}
		w.move(v+"-off", v)
		_, err = r.site.Seal(ctx)
		w.must(err)
		if got := w.count(entry.TypeSegment); got != 2 {
			t.Errorf("%d segments, expected 2", got)
		}
		w.must(r.end())
	}
}

// TestVaultWrong refuses to start on a vault that is there and is not the right
// one, and does not seal when it comes later.
func TestVaultWrong(t *testing.T) {
	other := func(w *world) { // another vault stands there
		v := w.cfg.Vault
		w.move(v, v+"-right")
		o := newWorld(w.t)
		o.init()
		copyTree(w, o.mem, o.cfg.Vault, v)
	}
	ahead := func(w *world) { // the state is of an older day
		kept := w.mem
		w.mem = w.mem.CrashClone(rand.New(nothing{}))
		s := w.open()
		w.put(s, 1, "a line\n")
		_, err := s.Seal(ctx)
		w.must(err)
		w.must(s.Close())
		newer := w.mem
		w.mem = kept
		w.move(w.cfg.Vault, w.cfg.Vault+"-right")
		copyTree(w, newer, w.cfg.Vault, w.cfg.Vault)
	}
	damaged := func(w *world) {
		w.move(w.cfg.Vault, w.cfg.Vault+"-right")
		copyTree(w, w.mem, w.cfg.Vault+"-right", w.cfg.Vault)
		w.must(w.mem.Remove(w.cfg.Vault + "/" + vault.MarkerName))
		w.must(vfs.WriteFile(w.mem, w.cfg.Vault+"/"+vault.MarkerName, []byte("logvault vault 1\nnonsense\n"), 0o600))
	}
	for name, wrong := range map[string]func(*world){"another vault": other, "ahead": ahead, "marker": damaged} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.init()
			wrong(w)
			err := w.refuses()
			if err == nil || away(err) {
				t.Fatalf("at the start: %v, expected a refusal", err)
			}
			if name == "ahead" && !errors.Is(err, ledger.ErrBehind) {
				t.Errorf("at the start: %v", err)
			}
			// Later: the wrong one comes after an absent one.
			v := w.cfg.Vault
			w.move(v, v+"-wrong")
			r := w.serveLate()
			w.move(v+"-wrong", v)
			within(t, "the alarm names the reason", func() bool {
				e := r.site.openErr.Load()
				return e != nil && !away(*e) && strings.Contains(r.trouble(), opening)
			})
			w.must(r.write("access.log", "one\n", true))
			if _, err := r.site.Seal(ctx); err == nil || away(err) {
				t.Errorf("sealing to a wrong vault: %v", err)
			}
			// And the right one ends it.
			w.move(v, v+"-wrong")
			w.move(v+"-right", v)
			within(t, "the right vault is open", func() bool { return r.site.available() == nil })
			_, err = r.site.Seal(ctx)
			w.must(err)
			w.must(r.end())
		})
	}
}

// hang makes every call to the vault hang until release is called; hung is closed
// when the first one does.
func (w *world) hang() (hung <-chan struct{}, release func()) {
	first, gate := make(chan struct{}), make(chan struct{})
	tell := sync.OnceFunc(func() { close(first) })
	w.fail(func(_ vfs.Op, name string) error {
		if strings.HasPrefix(name, w.cfg.Vault) {
			tell()
			<-gate
		}
		return nil
	})
	return first, sync.OnceFunc(func() { w.fail(nil); close(gate) })
}

// TestVaultHangs: calls to the vault that never come back, as those to a dead
// mount do, stop neither the intake nor a stop.
func TestVaultHangs(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := newWorld(t)
		w.init()
		quick := func(b *beats) {
			b.silent, b.status, b.stop, b.clients = time.Microsecond, 10*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
		}
		var hung <-chan struct{}
		var release func()
		want := answering
		if late {
			hung, release = w.hang() // before the start
			want = opening
		}
		r := w.serveLate(quick, func(b *beats) {
			if late {
				b.patience = 10 * time.Millisecond
			}
		})
		svc, err := Connect(ctx, w.env(), w.cfg)
		w.must(err)
		t.Cleanup(func() { svc.Close() })
		if !late {
			hung, release = w.hang()
		}
		t.Cleanup(release)
		w.must(r.write("access.log", "one\n", true))
		asked := make(chan error, 1)
		go func() { // ends when the gateway stops
			_, err := svc.Seal(ctx)
			asked <- err
		}()
		<-hung // a command, or what opens the vault
		within(t, "the alarm", func() bool {
			w.advance(time.Second)
			return strings.Contains(w.log.String(), want) && r.trouble() != ""
		})
		w.must(r.write("other.log", "two\n", true))
		done := make(chan error, 1)
		go func() { done <- r.end() }()
		select {
		case err := <-done:
			w.must(err)
		case <-time.After(time.Minute):
			t.Fatal("a stop waits for the vault")
		}
		if !r.site.left {
			t.Error("the stop does not know what it left behind")
		}
		if err := <-asked; err == nil {
			t.Error("sealed without a vault")
		}
		release()
		r.site.others.Wait() // as the end of the process does
		// What was taken in is there for the next process.
		w.must(r.site.lock.Close())
		s := w.open()
		if got := s.spool.Stats().Unsealed; got != 8 {
			t.Errorf("%d bytes are in the spool, expected 8", got)
		}
	}
}

// copyTree copies files from one disk to another.
func copyTree(w *world, from *vfs.Mem, src, dst string) {
	w.must(vfs.MkdirAll(w.mem, dst, 0o755))
	entries, err := from.ReadDir(src)
	w.must(err)
	for _, e := range entries {
		if e.IsDir() {
			copyTree(w, from, src+"/"+e.Name(), dst+"/"+e.Name())
			continue
		}
		data, err := vfs.ReadFile(from, src+"/"+e.Name(), 1<<24)
		w.must(err)
		w.must(vfs.WriteFile(w.mem, dst+"/"+e.Name(), data, 0o600))
	}
}
