package gateway

import (
	"bytes"
	"errors"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/testtsa"
	"logvault/fixtures/testwitness"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/ledger/witness"
	"logvault/vault"
	"logvault/verify"
)

// outsiders are a witness and a time-stamping authority of a world.
type outsiders struct {
	*world
	witness *testwitness.Witness
	tsa     *testtsa.Authority
	down    atomic.Bool // both answer 503
}

// newOutsiders makes a world whose trust file pins both, on loopback.
func newOutsiders(t *testing.T) *outsiders {
	t.Helper()
	w := newWorld(t)
	w.init()
	o := &outsiders{world: w}
	trust := o.trust()
	var err error
	o.witness, err = testwitness.New("witness.example/w1", trust, w.now)
	w.must(err)
	o.tsa, err = testtsa.New(w.now, nil)
	w.must(err)
	o.pin(func(t *ledger.Trust) {
		t.Witnesses = []ledger.TrustKey{{Name: "w1", Key: o.witness.Key}}
		t.Quorum = 1
		t.TSA = &ledger.TrustTSA{Roots: o.tsa.Roots, Policy: testtsa.Policy}
	})
	w.cfg.Witnesses = []config.Witness{{Name: "w1", URL: o.listen(o.witness)}}
	w.cfg.Timestamp = &config.Timestamp{URL: o.listen(o.tsa)}
	return o
}

func (o *outsiders) listen(h http.Handler) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	o.t.Cleanup(s.Close)
	return s.URL
}

func (o *outsiders) trust() *ledger.Trust {
	o.t.Helper()
	trust, err := config.LoadTrust(o.mem, paths(o.cfg.State).trust())
	o.must(err)
	return trust
}

// pin changes the trust file.
func (o *outsiders) pin(change func(*ledger.Trust)) {
	o.t.Helper()
	trust := o.trust()
	change(trust)
	text, err := config.EncodeTrust(trust)
	o.must(err)
	o.must(vfs.WriteFile(o.mem, paths(o.cfg.State).trust(), text, 0o600))
}

// beat runs each errand whose time has come, once.
func (o *outsiders) beat(s *Site) {
	for _, e := range s.errands {
		s.step(ctx, e)
	}
}

// grow seals a segment.
func (o *outsiders) grow(s *Site, id byte) {
	o.t.Helper()
	o.put(s, id, "a line\n")
	_, err := s.Seal(ctx)
	o.must(err)
}

// failingBeat is a beat in which all that makes a file fails but the first at
// times, and tells whether anything did.
func (o *outsiders) failingBeat(s *Site, at int) bool {
	var made atomic.Int64
	o.fail(func(op vfs.Op, _ string) error {
		if (op == vfs.OpCreate || op == vfs.OpLink || op == vfs.OpRename) && made.Add(1) > int64(at) {
			return syscall.EIO
		}
		return nil
	})
	o.beat(s)
	o.fail(nil)
	return made.Load() > int64(at)
}

// passes audits the vault with the trust file and returns the summary.
func (o *outsiders) passes(s *Site) verify.Summary {
	o.t.Helper()
	sum, err := verify.Run(ctx, verify.Options{Vault: s.store, Trust: o.trust(), Depth: verify.Objects, Now: o.now()}, func(f verify.Finding) {
		if f.Level == verify.Error {
			o.t.Errorf("audit: %v", f)
		}
	})
	o.must(err)
	return sum
}

func TestWitness(t *testing.T) {
	o := newOutsiders(t)
	s := o.open()
	o.cfg.Timestamp = nil
	s.errands = s.errands[1:]
	for i, step := range []struct {
		grow  bool
		after time.Duration
		asks  int
	}{
		{false, 0, 1},
		{false, 2 * time.Hour, 0}, // nothing grew
		{true, 0, 1},
		{true, time.Minute, 0}, // an hour has not passed
		{false, time.Hour, 1},
	} {
		if step.grow {
			o.grow(s, byte(i))
		}
		o.advance(step.after)
		before := o.witness.Asks()
		o.beat(s)
		if got := o.witness.Asks() - before; got != step.asks {
			t.Errorf("step %d: %d requests, expected %d", i, got, step.asks)
		}
	}
	if got := o.passes(s).Witnessed; got != s.Tree().Size() {
		t.Errorf("witnessed up to %d of %d", got, s.Tree().Size())
	}
	if st, err := s.Status(ctx); err != nil || len(st.Outside) != 1 || st.Outside[0].Name != "witness w1" || st.Outside[0].Size != s.Tree().Size() || st.Outside[0].At.IsZero() {
		t.Errorf("status %+v, %v", st.Outside, err)
	}
	// After a restart it is asked once although nothing grew, and nothing is stored.
	o.must(s.Close())
	s = o.open()
	before, size := o.witness.Asks(), s.Tree().Size()
	o.beat(s)
	o.beat(s)
	if got := o.witness.Asks() - before; got != 1 || s.Tree().Size() != size {
		t.Errorf("%d requests after a restart, expected 1", got)
	}
	o.grow(s, 9)
	o.beat(s)
	if got := o.witness.Size(); got != s.Tree().Size() {
		t.Errorf("cosigned %d of %d: what grew after the restart was not asked for at once", got, s.Tree().Size())
	}
	o.passes(s)
}

// TestClockSetRight: while the wall clock was wrong, outsiders were asked. When it
// is right again they are asked as ever: what comes next does not hang on the
// wall clock.
func TestClockSetRight(t *testing.T) {
	for _, off := range []time.Duration{400 * 24 * time.Hour, -400 * 24 * time.Hour} {
		o := newOutsiders(t)
		s := o.open()
		o.wrong.Store(int64(off))
		o.beat(s) // their clocks are the same here: all of them were wrong
		o.grow(s, 1)
		o.wrong.Store(0)
		o.advance(25 * time.Hour)
		witness, stamps := o.witness.Asks(), o.tsa.Asked()
		o.beat(s)
		if o.witness.Asks() == witness {
			t.Errorf("off by %v: the witness was not asked a day later", off)
		}
		if o.tsa.Asked() == stamps {
			t.Errorf("off by %v: the authority was not asked a day later", off)
		}
	}
}

// TestPutBack: vault and state are put back to an earlier day together. The
// witness finds it at the next start, before anything grows.
func TestPutBack(t *testing.T) {
	o := newOutsiders(t)
	o.cfg.Timestamp = nil
	s := o.open()
	o.beat(s)
	o.must(s.Close())
	early := o.mem.CrashClone(mrand.New(nothing{}))
	s = o.open()
	o.beat(s)
	o.grow(s, 1)
	o.beat(s)
	o.must(s.Close())
	o.mem = early
	s = o.open()
	o.beat(s)
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, witness.ErrAhead.Error()) {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
}

// TestWitnessAway: an alarm, asked again ever more rarely, and nothing stops.
func TestWitnessAway(t *testing.T) {
	o := newOutsiders(t)
	o.cfg.Timestamp = nil
	s := o.open()
	o.down.Store(true)
	var waits []time.Duration
	for range 9 {
		o.beat(s)
		waits = append(waits, s.errands[0].wait)
		o.advance(s.errands[0].wait)
	}
	m := time.Minute
	if want := []time.Duration{m, 2 * m, 4 * m, 8 * m, 16 * m, 32 * m, 60 * m, 60 * m, 60 * m}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, expected %v", waits, want)
	}
	st, err := s.Status(ctx)
	if err != nil || !strings.Contains(st.Trouble, "asking the witness w1") || !strings.Contains(st.Trouble, "503") {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
	o.grow(s, 1)
	o.down.Store(false)
	o.beat(s)
	if st, err = s.Status(ctx); err != nil || st.Trouble != "" || o.witness.Size() != s.Tree().Size() {
		t.Errorf("status %q, %v, cosigned %d", st.Trouble, err, o.witness.Size())
	}
}

// TestWitnessCrash fails each operation of keeping a cosignature, in a process that
// goes on and in one that ends there. Asked again, the vault has what the record has.
func TestWitnessCrash(t *testing.T) {
	for _, ends := range []bool{false, true} {
		for at := 0; ; at++ {
			o := newOutsiders(t)
			o.cfg.Timestamp = nil
			s := o.open()
			failed := o.failingBeat(s, at)
			if ends {
				o.must(s.Close())
				s = o.open()
			}
			o.advance(2 * retryMost)
			o.beat(s)
			if st, err := s.Status(ctx); err != nil || st.Trouble != "" {
				t.Errorf("operation %d, ends %v: trouble %q, %v", at, ends, st.Trouble, err)
			}
			if sum := o.passes(s); sum.Warnings > 0 || sum.Witnessed != s.Tree().Size() {
				t.Errorf("operation %d, ends %v: %d warnings, %d entries witnessed, expected %d", at, ends, sum.Warnings, sum.Witnessed, s.Tree().Size())
			}
			o.must(s.Close())
			if !failed {
				if at < 4 {
					t.Fatalf("only %d operations", at)
				}
				break
			}
		}
	}
}

// TestWitnessKnowsMore: the witness has cosigned what this ledger does not have.
func TestWitnessKnowsMore(t *testing.T) {
	o := newOutsiders(t)
	o.cfg.Timestamp = nil
	s := o.open()
	late := o.listen(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		w.Write([]byte("99\n"))
	}))
	o.must(s.Close())
	o.cfg.Witnesses[0].URL = late
	s = o.open()
	o.beat(s)
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, witness.ErrAhead.Error()) {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
}

func TestTimestamp(t *testing.T) {
	o := newOutsiders(t)
	o.cfg.Witnesses = nil
	s := o.open()
	for i, step := range []struct {
		grow  bool
		after time.Duration
		all   int
	}{
		{false, 0, 1},
		{true, 23 * time.Hour, 1}, // not a day
		{false, time.Hour, 2},
		{false, 48 * time.Hour, 2}, // nothing but the last time-stamp's own entry
		{true, time.Hour, 3},
	} {
		if step.grow {
			o.grow(s, byte(i))
		}
		o.advance(step.after)
		o.beat(s)
		if got := o.count(entry.TypeTimestamp); got != step.all || o.tsa.Asked() != int64(step.all) {
			t.Errorf("step %d: %d entries and %d requests, expected %d", i, got, o.tsa.Asked(), step.all)
		}
	}
	o.passes(s)
	if st, err := s.Status(ctx); err != nil || len(st.Outside) != 1 || st.Outside[0].Name != "time-stamp" || st.Outside[0].Size == 0 {
		t.Errorf("status %+v, %v", st.Outside, err)
	}
	o.must(s.Close())
	s = o.open()
	o.grow(s, 9)
	o.beat(s)
	if got := o.tsa.Asked(); got != 3 {
		t.Errorf("%d requests after a restart within a day, expected 3", got)
	}
	o.opensslAccepts(s)
}

// opensslAccepts checks the last token with the command of docs/FORMAT.md.
func (o *outsiders) opensslAccepts(s *Site) {
	o.t.Helper()
	size, _, err := s.lastToken(ctx)
	o.must(err)
	dir := o.t.TempDir()
	files := map[string][]byte{"roots.pem": []byte(o.tsa.Roots)}
	for file, name := range map[string]string{"head": vault.KeptCheckpointName(vault.LedgerPrefix, size), "token.tsr": vault.TimestampName(vault.LedgerPrefix, size)} {
		files[file], err = vault.ReadAll(ctx, s.store, name, 1<<16)
		o.must(err)
	}
	for name, data := range files {
		o.must(vfs.CreateFile(vfs.OS, dir+"/"+name, data, 0o600))
	}
	cmd := exec.Command("openssl", "ts", "-verify", "-in", "token.tsr", "-data", "head", "-CAfile", "roots.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Verification: OK")) {
		o.t.Errorf("openssl: %v\n%s", err, out)
	}
}

// TestTimestampCrash ends the process between each two steps of a time-stamp.
// The next start finishes it, with the same token and one entry.
func TestTimestampCrash(t *testing.T) {
	for at := 0; ; at++ {
		o := newOutsiders(t)
		o.cfg.Witnesses = nil
		s := o.open()
		failed := o.failingBeat(s, at)
		o.must(s.Close())
		s = o.open()
		o.advance(2 * retryMost)
		o.beat(s)
		if got := o.count(entry.TypeTimestamp); got != 1 {
			t.Errorf("operation %d: %d entries, expected 1", at, got)
		}
		if sum := o.passes(s); sum.Warnings > 1 { // the quorum of a witness that is not asked
			t.Errorf("operation %d: %d warnings", at, sum.Warnings)
		}
		if size, _, err := s.lastToken(ctx); err != nil || size == 0 {
			t.Errorf("operation %d: token of size %d: %v", at, size, err)
		}
		o.must(s.Close())
		if !failed {
			if at < 4 {
				t.Fatalf("only %d operations", at)
			}
			return
		}
	}
}

// TestTimestampRefused: a token that must not be believed is not kept.
func TestTimestampRefused(t *testing.T) {
	o := newOutsiders(t)
	o.pin(func(t *ledger.Trust) { t.TSA.Policy = "1.2.3.4.99" })
	s := o.open()
	o.beat(s)
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, "policy") {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
	if size, _, err := s.lastToken(ctx); err != nil || size != 0 || o.count(entry.TypeTimestamp) != 0 {
		t.Errorf("token of size %d kept: %v", size, err)
	}
}

// TestClockDiffers: an outsider's clock is far from ours.
func TestClockDiffers(t *testing.T) {
	o := newOutsiders(t)
	o.cfg.Timestamp = nil
	o.witness.Now = func() time.Time { return o.now().Add(time.Hour) }
	s := o.open()
	o.beat(s)
	if st, err := s.Status(ctx); err != nil || !strings.Contains(st.Trouble, "clocks differ by -1h") {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
	o.witness.Now = o.now
	o.grow(s, 1)
	o.advance(2 * time.Hour)
	o.beat(s)
	if st, err := s.Status(ctx); err != nil || st.Trouble != "" {
		t.Errorf("status %q, %v", st.Trouble, err)
	}
}

// TestOutsideConfig: what the trust file does not pin is not asked for.
func TestOutsideConfig(t *testing.T) {
	for what, change := range map[string]func(*ledger.Trust){
		"no roots":          func(t *ledger.Trust) { t.TSA = nil },
		"no witness":        func(t *ledger.Trust) { t.Witnesses, t.Quorum = nil, 0 },
		"another witness":   func(t *ledger.Trust) { t.Witnesses[0].Name = "w2" },
		"roots of a nobody": func(t *ledger.Trust) { t.TSA.Roots = "x" },
	} {
		o := newOutsiders(t)
		o.pin(change)
		s, err := OpenSite(ctx, o.env(), o.cfg)
		if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Errorf("%s: error %v, expected one of the configuration", what, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestStuckOutsiders: an authority or a witness takes the call and never answers.
// The gateway takes in, seals and stops as ever, and the stop ends the call.
func TestStuckOutsiders(t *testing.T) {
	for who, only := range map[string]func(*config.Config){
		"authority": func(c *config.Config) { c.Witnesses = nil },
		"witness":   func(c *config.Config) { c.Timestamp = nil },
	} {
		t.Run(who, func(t *testing.T) {
			o := newOutsiders(t)
			asked := make(chan struct{}, 100)
			release := make(chan struct{})
			stuck := o.listen(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}))
			o.t.Cleanup(func() { close(release) })
			o.cfg.Timestamp.URL, o.cfg.Witnesses[0].URL = stuck, stuck
			only(o.cfg)
			s := o.open()
			s.outside.Timeout = 0 // a call that the stop does not end never ends
			o.must(os.MkdirAll(o.cfg.State, 0o700))
			r := o.serveSite(s, testBeats)
			<-asked
			o.put(s, 1, "a line\n")
			if res, err := s.Seal(ctx); err != nil || res.Segments != 1 {
				t.Errorf("sealed %+v, %v", res, err)
			}
			if err := r.end(); err != nil || s.left {
				t.Errorf("the stop: %v, left the call to itself: %v", err, s.left)
			}
		})
	}
}
