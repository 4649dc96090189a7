package extract

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	mathrand "math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// hour is the window of most tests.
var hour = epoch.Add(10 * time.Hour)

// archiveOf fills a rig with three sources and 60 lines each, one a minute.
func archiveOf(t testing.TB) *rig {
	r := newRig(t)
	clients := []string{"192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:DB8::1"}
	for i, source := range []vault.Source{"proxy2", "proxy1"} {
		var text strings.Builder
		for m := range 60 {
			text.WriteString(squid(hour.Add(time.Duration(m)*time.Minute), clients[m%len(clients)], "alice", "www.example.org"))
		}
		r.seal(source, byte(i+1), text.String(), hour, hour.Add(time.Hour))
	}
	r.seal("proxy3", 9, "started\nstopped for 192.0.2.1\n", hour.Add(time.Minute), hour.Add(2*time.Minute))
	return r
}

func TestRun(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour.Add(8*time.Minute), hour.Add(20*time.Minute))
	req.Scope.Client = []string{"192.0.2.1", "2001:db8::/32"}
	sum := r.run("/answer", req)

	var want strings.Builder
	for range 2 { // proxy1, then proxy2
		for m := 8; m < 20; m++ {
			switch m % 4 {
			case 0:
				want.WriteString(squid(hour.Add(time.Duration(m)*time.Minute), "192.0.2.1", "alice", "www.example.org"))
			case 3:
				want.WriteString(squid(hour.Add(time.Duration(m)*time.Minute), "2001:DB8::1", "alice", "www.example.org"))
			}
		}
	}
	if got := r.lines("/answer"); got != want.String() {
		t.Errorf("disclosed\n%s\nexpected\n%s", got, want.String())
	}
	if sum.Lines != 12 || sum.Searched != 3 || sum.Opened != 2 || sum.Matching != 2 || sum.Unparsed != 2 {
		t.Errorf("got %+v", sum)
	}
	if len(sum.Silent) != 1 || sum.Silent[0] != "idle" {
		t.Errorf("silent sources %q, expected idle", sum.Silent)
	}
	files := r.files("/answer")
	for _, name := range []string{"lines/1-proxy1.log", "lines/2-proxy2.log"} {
		if files[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	if !bytes.Contains(files[attestationName], []byte("PV 2026/1234")) || bytes.Contains(files[attestationName], []byte("NÉANT")) {
		t.Errorf("attestation:\n%s", files[attestationName])
	}
	info, err := r.fs.Stat("/answer/" + tableName)
	r.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, expected 0600", tableName, info.Mode())
	}
}

// TestRegister checks that what was registered is the request, bound to the
// ledger by its commitment, and that the ledger itself names nobody.
func TestRegister(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.User = []string{"alice"}
	sum := r.run("/answer", req)
	e, err := entry.Decode(r.entry(sum.Request))
	r.must(err)
	record := r.records[e.(*entry.Request).Commit]
	if !bytes.Contains(record, []byte("Lt. A. Martin")) {
		t.Errorf("register record: %q", record)
	}
	stored, err := vault.ReadAll(r.ctx, r.store, vault.RegisterName("requests", e.(*entry.Request).Commit), 1<<20)
	r.must(err)
	opened, err := r.opener.Open(r.ctx, stored)
	r.must(err)
	if !bytes.Equal(opened, record) || vault.HashOf(opened) != e.(*entry.Request).Commit {
		t.Error("the register object is not the record of the request entry")
	}
	tree := r.log.Tree()
	r.must(tree.Entries(r.ctx, 0, tree.Size(), func(i int64, data []byte) error {
		for _, secret := range []string{"Martin", "PV 2026", "alice"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("ledger entry %d holds %q", i, secret)
			}
		}
		return nil
	}))
}

// TestDeterministic checks that the same request gives the same payload, though
// the ledger has grown by the first answer.
func TestDeterministic(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(30*time.Minute))
	req.Scope.Client = []string{"192.0.2.0/24"}
	first := r.run("/one", req)
	r.now = r.now.Add(time.Hour)
	second := r.run("/two", req)
	if first.Payload != second.Payload {
		t.Errorf("payload %v, then %v", first.Payload, second.Payload)
	}
	one, two := r.files("/one"), r.files("/two")
	varying := map[string]bool{attestationName: true, saltName: true, sumsName: true, checkpointName: true, entriesName: true, proofsName: true}
	for name, data := range one {
		if same := bytes.Equal(data, two[name]); !same && !varying[name] {
			t.Errorf("%s differs", name)
		}
	}
	if len(one) != len(two) {
		t.Errorf("%d files, then %d", len(one), len(two))
	}
}

func TestNothingFound(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.Host = []string{"nowhere.example"}
	sum := r.run("/answer", req)
	if sum.Lines != 0 || sum.Opened != 0 || sum.Searched != 3 {
		t.Errorf("got %+v, expected 3 segments searched by index alone", sum)
	}
	text := r.files("/answer")[attestationName]
	if !bytes.Contains(text, []byte("NÉANT")) || !bytes.Contains(text, []byte("NOTHING FOUND")) {
		t.Errorf("attestation:\n%s", text)
	}
}

// TestUnparsed checks the rule for lines without a time: a regular expression
// discloses them only when the segment was received wholly within the window.
func TestUnparsed(t *testing.T) {
	r := archiveOf(t)
	for _, c := range []struct {
		name             string
		since, until     time.Time
		lines, undecided int64
	}{
		{"around", hour, hour.Add(time.Hour), 1, 0},
		{"exactly", hour.Add(time.Minute), hour.Add(2*time.Minute + time.Millisecond), 1, 0},
		{"ends within", hour, hour.Add(2 * time.Minute), 0, 1},
		{"begins within", hour.Add(90 * time.Second), hour.Add(time.Hour), 0, 1},
		{"after", hour.Add(3 * time.Minute), hour.Add(time.Hour), 0, 0},
	} {
		req := asking(c.since, c.until)
		req.Scope.Regexp, req.Scope.Source = []string{`stopped for \S+$`}, []string{"proxy3"}
		sum := r.run("/"+c.name, req)
		if sum.Lines != c.lines || sum.Undecided != c.undecided {
			t.Errorf("%s: %d lines and %d undecided, expected %d and %d", c.name, sum.Lines, sum.Undecided, c.lines, c.undecided)
		}
	}
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.Source = []string{"proxy3"}
	if sum := r.run("/source", req); sum.Lines != 0 || sum.Unparsed != 2 || sum.Opened != 0 {
		t.Errorf("a source alone: got %+v, expected 2 unparsed lines counted and none disclosed", sum)
	}
}

// TestUnterminated checks that a line without LF does not run into the next one.
func TestUnterminated(t *testing.T) {
	r := newRig(t)
	one, two := squid(hour, "192.0.2.1", "-", "a.example")+squid(hour, "192.0.2.1", "-", "b.example"), squid(hour, "192.0.2.1", "-", "c.example")
	r.seal("proxy1", 1, strings.TrimSuffix(one, "\n"), hour, hour)
	r.seal("proxy1", 2, two, hour, hour)
	req := asking(hour, hour.Add(time.Second))
	req.Scope.Client = []string{"192.0.2.1"}
	r.run("/answer", req)
	files := r.files("/answer")
	if got := string(files["lines/1-proxy1.log"]); got != strings.TrimSuffix(one, "\n") {
		t.Errorf("first file: %q", got)
	}
	if got := string(files["lines/2-proxy1.log"]); got != two {
		t.Errorf("second file: %q", got)
	}
}

// TestLate checks that lines are found by their event time however late they came.
func TestLate(t *testing.T) {
	r := newRig(t)
	line := squid(hour, "192.0.2.1", "-", "a.example")
	r.seal("proxy1", 1, line, hour.Add(100*time.Hour), hour.Add(101*time.Hour))
	req := asking(hour, hour.Add(time.Millisecond))
	req.Scope.Client = []string{"192.0.2.1"}
	if sum := r.run("/answer", req); sum.Lines != 1 {
		t.Errorf("%d lines, expected the late one", sum.Lines)
	}
	req = asking(hour.Add(100*time.Hour), hour.Add(102*time.Hour))
	req.Scope.Client = []string{"192.0.2.1"}
	if sum := r.run("/received", req); sum.Lines != 0 || sum.Searched != 0 {
		t.Errorf("got %+v for the received time, expected nothing", sum)
	}
}

// TestNotes checks that gaps and conflicts of the time searched are stated.
func TestNotes(t *testing.T) {
	r := newRig(t)
	s := r.seal("proxy1", 1, squid(hour, "192.0.2.1", "-", "a.example"), hour, hour)
	r.append(&entry.Gap{Header: r.header(), Source: "proxy1", Stream: s.entry.Stream, Offset: s.entry.Span, Span: 7, Prev: s.index, Reason: entry.GapHole})
	r.append(&entry.Gap{Header: r.header(), Source: "proxy2", Stream: vault.StreamID{7}, Span: 7, Prev: -1, Reason: entry.GapLost})
	near := r.header()
	near.Time = hour.Add(time.Minute)
	r.append(&entry.Conflict{Header: near, Source: "proxy1", Stream: s.entry.Stream, Span: 7, Other: vault.StreamID{8}})
	req := asking(hour, hour.Add(time.Second))
	req.Scope.Client, req.Scope.Source = []string{"192.0.2.1"}, []string{"proxy1", "unheard-of"}
	sum := r.run("/answer", req)
	if sum.Gaps != 1 || sum.Conflicts != 1 || len(sum.Silent) != 1 || sum.Silent[0] != "unheard-of" {
		t.Errorf("got %+v, expected one gap, one conflict, and the source that nobody knows", sum)
	}
}

func TestDestroyed(t *testing.T) {
	r := archiveOf(t)
	for name := range r.files("/vault/keys") {
		r.must(r.fs.Remove(path.Join("/vault/keys", name)))
	}
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.User = []string{"alice"}
	var integrity *IntegrityError
	if _, err := Run(r.ctx, r.options("/early"), req); !errors.As(err, &integrity) {
		t.Fatalf("key missing before its date: got %v, expected an IntegrityError", err)
	}
	r.now = destruction.Start(time.UTC)
	if sum := r.run("/due", req); sum.Destroyed != 3 || sum.Lines != 0 {
		t.Errorf("got %+v, expected 3 destroyed segments", sum)
	}
}

// TestAltered checks that a changed object is refused before it is used.
func TestAltered(t *testing.T) {
	for _, suffix := range []string{".gz.pgp", ".idx.pgp", ".pgp"} {
		r := newRig(t)
		s := r.seal("proxy1", 1, squid(hour, "192.0.2.1", "-", "a.example"), hour, hour)
		name := map[string]string{
			".gz.pgp":  "/vault/" + vault.SegmentName(destruction, s.entry.Object, s.entry.Codec),
			".idx.pgp": "/vault/" + vault.IndexName(destruction, s.entry.Index),
		}[suffix]
		if name == "" {
			for wrap := range r.files("/vault/keys") {
				name = "/vault/keys/" + wrap
			}
		}
		data, err := vfs.ReadFile(r.fs, name, 1<<20)
		r.must(err)
		req := asking(hour, hour.Add(time.Second))
		req.Scope.Client = []string{"192.0.2.1"}
		for i := 0; i < len(data); i += 1 + len(data)/16 {
			bad := bytes.Clone(data)
			bad[i] ^= 0x01
			r.overwrite(name, bad)
			var integrity *IntegrityError
			if _, err := Run(r.ctx, r.options("/answer"), req); !errors.As(err, &integrity) {
				t.Fatalf("byte %d of %s changed: got %v, expected an IntegrityError", i, name, err)
			}
			if _, err := r.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("byte %d of %s changed: the bundle directory is there, %v", i, name, err)
			}
		}
	}
}

// TestRewrap checks that any whole wrap opens a period key.
func TestRewrap(t *testing.T) {
	r := archiveOf(t)
	var name string
	for wrap := range r.files("/vault/keys") {
		name = "/vault/keys/" + wrap
	}
	old, err := vfs.ReadFile(r.fs, name, 1<<20)
	r.must(err)
	content, err := r.opener.Open(r.ctx, old)
	r.must(err)
	wrap, err := pgp.EncryptTo(rand.Reader, []pgp.Auditor{r.auditor}, content)
	r.must(err)
	r.put(vault.WrapName(destruction, "technical", r.public.Hash(), vault.HashOf(wrap)), wrap)
	r.append(&entry.Rewrap{Header: r.header(), Key: r.key, Wrap: vault.HashOf(wrap), Recipients: []string{r.auditor.Fingerprint}})
	req := asking(hour, hour.Add(time.Minute))
	req.Scope.User = []string{"alice"}
	r.overwrite(name, old[1:])
	if sum := r.run("/damaged", req); sum.Lines != 2 {
		t.Errorf("first wrap damaged: %d lines, expected 2", sum.Lines)
	}
	r.must(r.fs.Remove(name))
	if sum := r.run("/missing", req); sum.Lines != 2 {
		t.Errorf("first wrap missing: %d lines, expected 2", sum.Lines)
	}
}

func TestWrongKey(t *testing.T) {
	r := archiveOf(t)
	_, sec, err := pgp.GenerateAuditor("Other <o@example.org>", nil, rand.Reader, epoch)
	r.must(err)
	o := r.options("/answer")
	o.Opener, err = pgp.OpenKeyFile(sec, nil)
	r.must(err)
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.User = []string{"alice"}
	if _, err := Run(r.ctx, o, req); !errors.Is(err, pgp.ErrWrongKey) {
		t.Fatalf("got %v, expected pgp.ErrWrongKey", err)
	}
	if n := r.count(entry.TypeRequest); n != 1 {
		t.Errorf("%d request entries, expected the failed attempt to stay recorded", n)
	}
}

// TestRefusedEarly checks what is refused before anything is recorded.
func TestRefusedEarly(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.User = []string{"alice"}

	if _, err := Run(r.ctx, r.options("/answer"), new(Request)); err == nil {
		t.Error("an empty request was accepted")
	}
	r.must(vfs.MkdirAll(r.fs, "/full/x", 0o700))
	if _, err := Run(r.ctx, r.options("/full"), req); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("full directory: got %v, expected vault.ErrNotEmpty", err)
	}
	if _, err := Run(r.ctx, r.options("/no/such/parent"), req); err == nil {
		t.Error("a directory without a parent was accepted")
	}
	o := r.options("/answer")
	keyless, classless := r.options("/answer"), r.options("/answer")
	keyless.Opener, classless.Class = nil, ""
	if _, err := Run(r.ctx, keyless, req); !errors.Is(err, pgp.ErrNoKey) {
		t.Errorf("no key: got %v, expected pgp.ErrNoKey", err)
	}
	if _, err := Run(r.ctx, classless, req); err == nil {
		t.Error("a register without a class was accepted")
	}
	_, other, err := ledger.GenerateKey(rand.Reader, "logs.example/main")
	r.must(err)
	r.trust = &ledger.Trust{Log: other, Origin: "logs.example/main"}
	if _, err := Run(r.ctx, o, req); !errors.Is(err, ledger.ErrUnsigned) {
		t.Errorf("other trust: got %v, expected ledger.ErrUnsigned", err)
	}
	if n := r.count(entry.TypeRequest); n != 0 || r.opened != 0 {
		t.Errorf("%d requests recorded, %d messages opened, expected none", n, r.opened)
	}
	if _, err := r.fs.Stat("/full/x"); err != nil {
		t.Errorf("what was in the directory: %v", err)
	}
}

// TestRecorderFails checks that nothing is decrypted or left behind when one of
// the records cannot be written.
func TestRecorderFails(t *testing.T) {
	broken := errors.New("disk full")
	for _, step := range []string{"register", "request", "disclosure"} {
		r := archiveOf(t)
		r.fail = func(s string) error {
			if s == step {
				return broken
			}
			return nil
		}
		req := asking(hour, hour.Add(time.Hour))
		req.Scope.User = []string{"alice"}
		if _, err := Run(r.ctx, r.options("/answer"), req); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", step, err)
		}
		if step != "disclosure" && r.opened > 0 {
			t.Errorf("%s: %d messages opened", step, r.opened)
		}
		if _, err := r.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the bundle directory is there, %v", step, err)
		}
	}
}

// TestOutputFails fails each operation on the bundle directory once. Whatever
// fails, there is no bundle, and if anything was opened the request is recorded.
func TestOutputFails(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(10*time.Minute))
	req.Scope.User = []string{"alice"}
	broken := errors.New("input/output error")
	for _, executed := range []bool{false, true} {
		for fail, done := 0, false; !done; fail++ {
			n := 0
			o := r.options("/answer")
			o.FS = vfs.NewFault(r.fs, func(op vfs.Op, name string) error {
				if op == vfs.OpRemove {
					return nil
				}
				if n++; n != fail+1 {
					return nil
				}
				if executed {
					return vfs.Executed(broken)
				}
				return broken
			})
			before := r.count(entry.TypeDisclosure)
			_, err := Run(r.ctx, o, req)
			if done = n <= fail; done {
				r.must(err)
				if fail < 30 {
					t.Fatalf("only %d operations were failed", fail)
				}
				for _, name := range []string{"lines", "ledger", ""} {
					r.clear("/answer/" + name)
				}
				r.must(r.fs.Remove("/answer"))
				continue
			}
			if !errors.Is(err, broken) {
				t.Fatalf("operation %d: got %v", fail, err)
			}
			if r.count(entry.TypeDisclosure) != before {
				t.Fatalf("operation %d: a disclosure was recorded", fail)
			}
			if _, err := r.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("operation %d: left %v", fail, r.files("/answer"))
			}
		}
	}
}

// TestCrashAfter checks that an answer that was given survives a power cut.
func TestCrashAfter(t *testing.T) {
	r := small(t)
	for seed := range uint64(50) {
		clone := r.fs.CrashClone(mathrand.New(mathrand.NewPCG(seed, 1)))
		rep, err := CheckBundle(r.ctx, clone, "/answer", r.trust)
		if err != nil || len(rep.Findings) > 0 {
			t.Fatalf("seed %d: %v, %v", seed, err, rep.Findings)
		}
	}
}

// TestCrashDuring cuts the power before each operation on the bundle directory.
// What is left is a whole bundle or none: SHA256SUMS never vouches for less.
func TestCrashDuring(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(10*time.Minute))
	req.Scope.User = []string{"alice"}
	o := r.options("/answer")
	n, partial := uint64(0), 0
	o.FS = vfs.NewFault(r.fs, func(vfs.Op, string) error {
		n++
		for seed := range uint64(8) {
			clone := r.fs.CrashClone(mathrand.New(mathrand.NewPCG(n, seed)))
			text, err := vfs.ReadFile(clone, "/answer/"+sumsName, 1<<20)
			if err != nil || !bytes.HasSuffix(text, []byte(saltName+"\n")) {
				partial++
				continue
			}
			rep, err := CheckBundle(r.ctx, clone, "/answer", r.trust)
			if err != nil || len(rep.Findings) > 0 {
				t.Errorf("operation %d, seed %d: whole sums, but %v, %v", n, seed, err, rep.Findings)
			}
		}
		return nil
	})
	_, err := Run(r.ctx, o, req)
	r.must(err)
	if n < 40 || partial == 0 {
		t.Errorf("%d operations, %d with an unfinished bundle: tests too little", n, partial)
	}
}

// clear removes what is directly in a directory.
func (r *rig) clear(dir string) {
	r.Helper()
	list, err := r.fs.ReadDir(dir)
	r.must(err)
	for _, e := range list {
		r.must(r.fs.Remove(path.Join(dir, e.Name())))
	}
}

func TestDryRun(t *testing.T) {
	r := archiveOf(t)
	req := asking(hour, hour.Add(time.Hour))
	req.Scope.User = []string{"alice"}
	o := r.options("")
	all, err := DryRun(r.ctx, Options{Archive: Archive{Tree: o.Tree}}, req)
	r.must(err)
	est := all[0]
	if len(all) != 1 || est.Origin != r.trust.Origin || est.Segments != 3 || est.Keys != 1 || est.Lines != 122 || est.Raw == 0 || est.Stored == 0 {
		t.Errorf("got %+v", est)
	}
	if r.count(entry.TypeRequest) != 0 || r.opened != 0 {
		t.Error("a dry run recorded or opened something")
	}
	if _, err := DryRun(r.ctx, o, new(Request)); err == nil {
		t.Error("an empty request was accepted")
	}
}
