package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// pair is two vaults of two gateways, put the same request. The bundle is on
// the disk of the first.
type pair struct {
	*rig
	other *rig
}

// Open implements pgp.Opener: before anything is decrypted the request stands
// in both ledgers, not only in the one whose segment it is.
func (p *pair) Open(ctx context.Context, message []byte) ([]byte, error) {
	p.other.opened-- // asked for its order only
	if _, err := p.other.Open(ctx, message); err != nil {
		return nil, err
	}
	return p.rig.Open(ctx, message)
}

func newPair(t testing.TB) *pair {
	p := &pair{newRigOf(t, "gw1.example/vault"), newRigOf(t, "gw2.example/vault")}
	for i, r := range []*rig{p.rig, p.other} {
		var text strings.Builder
		for m := range 20 {
			text.WriteString(squid(hour.Add(time.Duration(m)*time.Minute), fmt.Sprintf("192.0.2.%d", m%3), "alice", fmt.Sprintf("gw%d.example.org", i+1)))
		}
		r.seal("proxy1", byte(i+1), text.String(), hour, hour.Add(time.Hour))
	}
	return p
}

func (p *pair) options(dir string) Options {
	o := p.rig.options(dir)
	o.Others, o.Opener = []Archive{p.other.archive()}, p
	return o
}

// asked is a request that has 3 lines in each vault.
func asked() *Request {
	req := asking(hour, hour.Add(10*time.Minute))
	req.Scope.Client = []string{"192.0.2.1"}
	return req
}

// answered runs a request into /answer.
func (p *pair) answered() Answer {
	p.Helper()
	ans, err := Run(p.ctx, p.options("/answer"), asked())
	p.must(err)
	return ans
}

// check checks /answer.
func (p *pair) check() Report {
	p.Helper()
	rep, err := CheckBundle(p.ctx, p.fs, "/answer", p.other.trust, p.trust)
	p.must(err)
	return rep
}

func TestJoint(t *testing.T) {
	p := newPair(t)
	ans := p.answered()
	rep := p.check()
	if len(rep.Findings) > 0 || len(rep.Parts) != 2 || rep.Lines != 6 || rep.Segments != 2 || rep.Payload != ans.Payload {
		t.Fatalf("the check reports %+v, the extraction %+v", rep, ans)
	}
	for i, r := range []*rig{p.rig, p.other} {
		sum, part := ans.Parts[i], rep.Parts[i]
		if sum.Origin != r.trust.Origin || part.Origin != sum.Origin || part.Folder != partFolder(i) || sum.Lines != 3 || part.Request != sum.Request || part.Payload != sum.Payload {
			t.Errorf("part %d: %+v, checked %+v", i, sum, part)
		}
		e, err := entry.Decode(r.entry(sum.Disclosure))
		r.must(err)
		if d, ok := e.(*entry.Disclosure); !ok || d.Commit != part.Commit || d.Request != sum.Request || d.Lines != 3 {
			t.Errorf("part %d: disclosure entry %+v, commitment %v", i, e, part.Commit)
		}
		e, err = entry.Decode(r.entry(sum.Request))
		r.must(err)
		if record := r.records[e.(*entry.Request).Commit]; !bytes.Contains(record, []byte(`"vaults":["gw1.example/vault","gw2.example/vault"]`)) {
			t.Errorf("part %d: the record does not name both vaults: %q", i, record)
		}
		if lines := p.files("/answer")[partFolder(i)+"/lines/1-proxy1.log"]; bytes.Count(lines, []byte(fmt.Sprintf("gw%d.example.org", i+1))) != 3 {
			t.Errorf("part %d: lines %q", i, lines)
		}
		text := p.files("/answer")[partFolder(i)+"/"+attestationName]
		for _, want := range []string{"gw1.example/vault, gw2.example/vault", "registre " + sum.Origin, "whole answer has 2 parts"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("part %d: the attestation does not say %q:\n%s", i, want, text)
			}
		}
	}
	salts := [2][]byte{p.files("/answer")["parts/1/"+saltName], p.files("/answer")["parts/2/"+saltName]}
	if bytes.Equal(salts[0], salts[1]) {
		t.Error("both ledgers have the same commitment: a stranger could tie one to the other")
	}
}

// TestJointDeterministic names the vaults in both orders.
func TestJointDeterministic(t *testing.T) {
	p := newPair(t)
	first := p.answered()
	p.now, p.other.now = p.now.Add(time.Hour), p.other.now.Add(time.Hour)
	o := p.options("/again")
	o.Archive, o.Others = o.Others[0], []Archive{o.Archive}
	second, err := Run(p.ctx, o, asked())
	p.must(err)
	if first.Payload != second.Payload || second.Parts[0].Origin != p.trust.Origin {
		t.Errorf("payload %v, then in the other order %v", first.Payload, second.Payload)
	}
	one, two := p.files("/answer"), p.files("/again")
	for name, data := range one {
		switch path.Base(name) {
		case manifestName, tableName, requestName, "1-proxy1.log", readmeName, scriptName:
			if !bytes.Equal(data, two[name]) {
				t.Errorf("%s differs", name)
			}
		}
	}
}

// TestJointRefusedEarly checks what is refused before any ledger has an entry.
func TestJointRefusedEarly(t *testing.T) {
	p := newPair(t)
	same, away, many := p.options("/answer"), p.options("/answer"), p.options("/answer")
	same.Others = append(same.Others, p.archive())
	broken := errors.New("no route to host")
	away.Others[0].Tree = func(context.Context) (*ledger.Tree, error) { return nil, broken }
	many.Others = make([]Archive, MaxVaults)
	for name, o := range map[string]Options{"the same ledger twice": same, "a vault that is away": away, "too many": many} {
		if _, err := Run(p.ctx, o, asked()); err == nil || name == "a vault that is away" && !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := p.count(entry.TypeRequest) + p.other.count(entry.TypeRequest); n != 0 || p.opened != 0 {
		t.Errorf("%d requests recorded, %d messages opened, expected none", n, p.opened)
	}
	if _, err := p.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bundle directory is there, %v", err)
	}
}

// TestJointFails fails each record in each vault, and the vault itself. There is
// no bundle, not even of the vault that worked, and what was decrypted is on
// record in both ledgers.
func TestJointFails(t *testing.T) {
	broken := errors.New("disk full")
	for which := range 2 {
		for _, step := range []string{"register", "request", "disclosure", "objects"} {
			p := newPair(t)
			bad := []*rig{p.rig, p.other}[which]
			bad.fail = func(s string) error {
				if s == step {
					return broken
				}
				return nil
			}
			if step == "objects" {
				for name := range bad.files("/vault/segments") {
					bad.must(bad.fs.Remove("/vault/segments/" + name))
				}
			}
			_, err := Run(p.ctx, p.options("/answer"), asked())
			_, lost := errors.AsType[*IntegrityError](err)
			if !errors.Is(err, broken) && !lost || !strings.Contains(err.Error(), bad.trust.Origin) {
				t.Errorf("%s of vault %d: got %v, expected it to name %s", step, which, err, bad.trust.Origin)
			}
			if _, err := p.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of vault %d: left %v", step, which, p.files("/answer"))
			}
			requests := p.count(entry.TypeRequest) + p.other.count(entry.TypeRequest)
			if p.opened > 0 && requests != 2 || p.opened == 0 && requests == 2 && step != "objects" {
				t.Errorf("%s of vault %d: %d messages opened, %d requests on record", step, which, p.opened, requests)
			}
			if n := p.count(entry.TypeDisclosure) + p.other.count(entry.TypeDisclosure); n > 0 && (step != "disclosure" || n > which) {
				t.Errorf("%s of vault %d: %d disclosures recorded", step, which, n)
			}
		}
	}
}

// TestJointSwapped swaps a vault between its first opening and the record.
func TestJointSwapped(t *testing.T) {
	p := newPair(t)
	third := newRigOf(t, "gw3.example/vault")
	o := p.options("/answer")
	open, n := o.Others[0].Tree, 0
	o.Others[0].Recorder = third
	o.Others[0].Tree = func(ctx context.Context) (*ledger.Tree, error) {
		if n++; n == 1 {
			return open(ctx)
		}
		return third.archive().Tree(ctx)
	}
	if _, err := Run(p.ctx, o, asked()); err == nil || !strings.Contains(err.Error(), "the ledger is gw3.example/vault now") {
		t.Errorf("got %v", err)
	}
	if p.opened > 0 {
		t.Errorf("%d messages opened", p.opened)
	}
}

// TestJointCrash cuts the power before each operation on the bundle directory.
// What is left is the whole answer or none: never a part that passes.
func TestJointCrash(t *testing.T) {
	p := newPair(t)
	o := p.options("/answer")
	n, partial, whole := uint64(0), 0, 0
	look := func() {
		for seed := range uint64(4) {
			clone := p.fs.CrashClone(mathrand.New(mathrand.NewPCG(n, seed)))
			for _, dir := range []string{"/answer", "/answer/parts/1", "/answer/parts/2"} {
				rep, err := CheckBundle(p.ctx, clone, dir, p.trust, p.other.trust)
				switch passed := err == nil && rep.OK(); {
				case !passed:
					partial++
				case len(rep.Parts) != 2 || rep.Lines != 6:
					t.Fatalf("operation %d, seed %d: %s passes with %+v", n, seed, dir, rep)
				default:
					whole++
				}
			}
		}
	}
	o.FS = vfs.NewFault(p.fs, func(vfs.Op, string) error {
		n++
		look()
		return nil
	})
	_, err := Run(p.ctx, o, asked())
	p.must(err)
	n++
	look()
	if n < 60 || partial == 0 || whole == 0 {
		t.Errorf("%d operations, %d checks failed, %d passed: tests too little", n, partial, whole)
	}
}

// TestJointForged changes what a joint bundle says and makes SHA256SUMS fit.
func TestJointForged(t *testing.T) {
	manifest := func(change func(*jointManifest)) func(*pair) {
		return func(p *pair) {
			m, err := parseJoint(p.files("/answer")[manifestName])
			p.must(err)
			change(m)
			text, err := encodeJSON(m)
			p.must(err)
			p.overwrite("/answer/"+manifestName, append(text, '\n'))
		}
	}
	write := func(name, data string) func(*pair) {
		return func(p *pair) { p.overwrite("/answer/"+name, []byte(data)) }
	}
	for name, c := range map[string]struct {
		change func(*pair)
		code   string
		object string
	}{
		"part left out": {func(p *pair) {
			p.remove("/answer/parts/2")
			manifest(func(m *jointManifest) { m.Parts = m.Parts[:1] })(p)
		}, CodeMalformed, manifestName},
		"part removed": {func(p *pair) { p.remove("/answer/parts/2") }, CodeMissing, "parts/2/" + requestName},
		"parts exchanged": {func(p *pair) {
			p.must(p.fs.Rename("/answer/parts/1", "/answer/parts/3"))
			p.must(p.fs.Rename("/answer/parts/2", "/answer/parts/1"))
			p.must(p.fs.Rename("/answer/parts/3", "/answer/parts/2"))
		}, CodeMismatch, "parts/1/" + checkpointName},
		"a part twice": {func(p *pair) {
			p.remove("/answer/parts/2")
			p.copyAll("/answer/parts/1", "/answer/parts/2")
		}, CodeMismatch, "parts/2/" + checkpointName},
		"a part under two names": {func(p *pair) {
			p.remove("/answer/parts/2")
			p.copyAll("/answer/parts/1", "/answer/parts/2")
			manifest(func(m *jointManifest) { m.Parts[1] = m.Parts[0]; m.Parts[1].Folder = partFolder(1) })(p)
		}, CodeMalformed, manifestName},
		"part of another answer": {func(p *pair) {
			req := asked()
			req.Reference = "PV 2026/9999"
			_, err := Run(p.ctx, p.options("/other"), req)
			p.must(err)
			p.remove("/answer/parts/2")
			p.copyAll("/other/parts/2", "/answer/parts/2")
		}, CodeRequest, "parts/2/" + requestName},
		"part of a whole answer": {func(p *pair) {
			_, err := Run(p.ctx, p.other.options("/other"), asked())
			p.must(err)
			p.remove("/answer/parts/2")
			for name, data := range p.other.files("/other") {
				p.place("/answer/parts/2/"+name, data)
			}
		}, CodeMissing, "parts/2/" + requestName},
		"lines of a part":    {manifest(func(m *jointManifest) { m.Parts[0].Lines++ }), CodeMismatch, "parts/1/" + manifestName},
		"hash of a part":     {manifest(func(m *jointManifest) { m.Parts[0].Manifest = m.Parts[1].Manifest }), CodeMismatch, "parts/1/" + manifestName},
		"folder of a part":   {manifest(func(m *jointManifest) { m.Parts[1].Folder = "parts/../parts/2" }), CodeMalformed, manifestName},
		"order":              {manifest(func(m *jointManifest) { slices.Reverse(m.Parts) }), CodeMalformed, manifestName},
		"format":             {manifest(func(m *jointManifest) { m.Parts = nil }), CodeMalformed, manifestName},
		"text after the end": {write(manifestName, `{"format":"logvault-bundle","version":2,"parts":[]}`+"\n\n"), CodeMalformed, manifestName},
		"no end":             {write(manifestName, `{"format":"logvault-bundle","version":2,`), CodeMalformed, manifestName},
		"line":               {func(p *pair) { p.replace("parts/2/lines/1-proxy1.log", "alice", "malic") }, CodeNotProven, "parts/2/" + manifestName + " entry 2"},
		"request": {func(p *pair) {
			for _, part := range []string{"parts/1/", "parts/2/"} {
				p.replace(part+requestName, `,"gw2.example/vault"`, ``)
			}
		}, CodeMissing, "parts/1/" + requestName},
		"stray file":        {write("more.txt", "x"), CodeExtra, "more.txt"},
		"stray in parts":    {write("parts/more.txt", "x"), CodeExtra, "parts/more.txt"},
		"stray in a part":   {write("parts/1/README.txt", readmeText), CodeExtra, "parts/1/README.txt"},
		"stray in the root": {write("lines.csv", "x"), CodeExtra, "lines.csv"},
		"stray part":        {func(p *pair) { p.copyAll("/answer/parts/2", "/answer/parts/3") }, CodeExtra, "parts/3/" + manifestName},
		"empty part":        {func(p *pair) { p.must(p.fs.Mkdir("/answer/parts/3", 0o700)) }, CodeExtra, "parts/3"},
		"folder":            {func(p *pair) { p.must(p.fs.Mkdir("/answer/lines", 0o700)) }, CodeExtra, "lines"},
		"deep folder":       {func(p *pair) { p.must(p.fs.Mkdir("/answer/parts/1/parts", 0o700)) }, CodeExtra, "parts/1/parts"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.answered()
			c.change(p)
			p.resum()
			rep := p.check()
			if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == c.code && f.Level == Error && f.Object == c.object }) {
				t.Errorf("findings %v, expected %s of %s", rep.Findings, c.code, c.object)
			}
		})
	}
}

// TestPartAlone gives a part out as a whole answer: the request that its ledger
// committed to names the vaults that are missing.
func TestPartAlone(t *testing.T) {
	p := newPair(t)
	p.answered()
	parts := p.files("/answer/parts/1")
	p.remove("/answer")
	for name, data := range parts {
		p.place("/answer/"+name, data)
	}
	p.place("/answer/"+readmeName, []byte(readmeText))
	p.resum()
	rep := p.check()
	if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == CodeMissing && f.Object == requestName }) {
		t.Errorf("findings %v, expected the other vault to be missing", rep.Findings)
	}
	p.replace(requestName, `"version":2`, `"version":1`)
	p.replace(requestName, `,"vaults":["gw1.example/vault","gw2.example/vault"]`, ``)
	p.resum()
	rep = p.check()
	if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Code == CodeRequest && f.Object == requestName }) {
		t.Errorf("findings %v, expected the request not to be the recorded one", rep.Findings)
	}
}

// TestJointTrust leaves out the key of one ledger.
func TestJointTrust(t *testing.T) {
	p := newPair(t)
	p.answered()
	rep, err := CheckBundle(p.ctx, p.fs, "/answer", p.trust)
	p.must(err)
	if len(rep.Findings) != 1 || rep.Findings[0].Code != CodeUnsigned || rep.Findings[0].Object != "parts/2/"+checkpointName {
		t.Errorf("got %v, expected the second part to be unsigned", rep.Findings)
	}
	if _, err := CheckBundle(p.ctx, p.fs, "/answer", p.trust, nil); err == nil {
		t.Error("checked with no key for a trust")
	}
}

// TestJointNewer checks that a later request format in each part is called newer.
func TestJointNewer(t *testing.T) {
	p := newPair(t)
	p.answered()
	for _, part := range []string{"parts/1/", "parts/2/"} {
		p.replace(part+requestName, `"version":2`, `"version":3`)
	}
	p.resum()
	if _, err := CheckBundle(p.ctx, p.fs, "/answer", p.trust, p.other.trust); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("got %v, expected vault.ErrNewer", err)
	}
}

// remove removes a file or a whole folder.
func (r *rig) remove(name string) {
	r.Helper()
	if info, err := r.fs.Stat(name); err == nil && info.IsDir() {
		list, err := r.fs.ReadDir(name)
		r.must(err)
		for _, item := range list {
			r.remove(path.Join(name, item.Name()))
		}
	}
	r.must(r.fs.Remove(name))
}

// place writes a file with the folders above it.
func (r *rig) place(name string, data []byte) {
	r.Helper()
	r.must(vfs.MkdirAll(r.fs, path.Dir(name), 0o700))
	r.overwrite(name, data)
}

func (r *rig) copyAll(from, to string) {
	r.Helper()
	for name, data := range r.files(from) {
		r.place(path.Join(to, name), data)
	}
}

// replace changes a text once in a file of /answer.
func (r *rig) replace(name, old, new string) {
	r.Helper()
	data, err := vfs.ReadFile(r.fs, "/answer/"+name, 1<<20)
	r.must(err)
	if !bytes.Contains(data, []byte(old)) {
		r.Fatalf("no %q in %s", old, data)
	}
	r.overwrite("/answer/"+name, bytes.Replace(data, []byte(old), []byte(new), 1))
}

// TestJointOutputFails fails each operation on the bundle directory once, before
// and after it took effect. Whatever fails, no part is left and no ledger says
// that anything was disclosed.
func TestJointOutputFails(t *testing.T) {
	p := newPair(t)
	broken := errors.New("input/output error")
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, executed := range []bool{false, true} {
		fail, done := 0, false
		for ; !done; fail += step {
			n := 0
			o := p.options("/answer")
			o.FS = vfs.NewFault(p.fs, func(op vfs.Op, _ string) error {
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
			_, err := Run(p.ctx, o, asked())
			if done = n <= fail; done {
				p.must(err)
				p.remove("/answer")
				continue
			}
			if !errors.Is(err, broken) {
				t.Fatalf("operation %d: got %v", fail, err)
			}
			if _, err := p.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("operation %d: left %v", fail, p.files("/answer"))
			}
			if before, after := p.count(entry.TypeDisclosure), p.other.count(entry.TypeDisclosure); before != after || executed != (before == 1) {
				t.Fatalf("operation %d: %d and %d disclosures recorded", fail, before, after)
			}
		}
		if fail < 60 {
			t.Fatalf("only %d operations were failed", fail)
		}
	}
}

// TestCheckReadFails fails each read of a check once. A disk that does not answer
// is an error or a finding, never a pass.
func TestCheckReadFails(t *testing.T) {
	p := newPair(t)
	p.answered()
	r := small(t)
	broken := errors.New("input/output error")
	for dir, c := range map[string]struct {
		fs     vfs.FS
		trusts []*ledger.Trust
	}{
		"one vault":  {r.fs, []*ledger.Trust{r.trust}},
		"two vaults": {p.fs, []*ledger.Trust{p.trust, p.other.trust}},
	} {
		fail, done := 0, false
		for ; !done; fail++ {
			n := 0
			faulty := vfs.NewFault(c.fs, func(vfs.Op, string) error {
				if n++; n == fail+1 {
					return broken
				}
				return nil
			})
			rep, err := CheckBundle(t.Context(), faulty, "/answer", c.trusts...)
			if done = n <= fail; done {
				if err != nil || !rep.OK() {
					t.Fatalf("%s, undisturbed: %v, %v", dir, err, rep.Findings)
				}
			} else if !errors.Is(err, broken) {
				t.Fatalf("%s, operation %d: %v, findings %v", dir, fail, err, rep.Findings)
			}
		}
		if fail < 20 {
			t.Errorf("%s: only %d operations were failed", dir, fail)
		}
	}
}
