package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger/entry"
	"logvault/replicate"
	"logvault/vault"
	"logvault/vault/dir"
)

// primary is a vault at /vault with a copy at /copy, on one disk in memory.
type primary struct {
	*testing.T
	*testvault.World
	now       time.Time
	out, errs bytes.Buffer
}

const primarySeed = 5

func newPrimary(t *testing.T) *primary {
	t.Helper()
	w, err := testvault.New(primarySeed)
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{T: t, World: w, now: testvault.Start.Add(time.Hour)}
	w.Disk.SetClock(func() time.Time { return p.now })
	p.seal("the first line\n")
	text, err := config.EncodeTrust(w.Trust)
	if err == nil {
		err = vfs.WriteFile(w.Disk, "/trust.toml", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.replicate(codeOK, "--init", "--trust", "/trust.toml")
	return p
}

func (p *primary) seal(text string) {
	p.Helper()
	if err := p.Seal(context.Background(), 1, text); err != nil {
		p.Fatal(err)
	}
}

// replicate runs the real command; it must exit with a code.
func (p *primary) replicate(code int, args ...string) {
	p.Helper()
	p.out.Reset()
	p.errs.Reset()
	p.now = p.now.Add(time.Second)
	a := &app{in: strings.NewReader(""), out: &p.out, err: &p.errs, fs: p.Disk, random: rand.Reader, now: func() time.Time { return p.now }, boot: vfs.Boottime,
		getenv: func(string) string { return "" }}
	if !slices.Contains(args, "--to") {
		args = append(args, "--to", "/copy")
	}
	if got := a.run(context.Background(), append([]string{"logvault", "replicate", "--from", "/vault", "--attempts", "1"}, args...)); got != code {
		p.Fatalf("exit %d, expected %d: %s%s", got, code, p.out.String(), p.errs.String())
	}
}

// files are the files below a directory.
func (p *primary) files(root string) testvault.Files {
	p.Helper()
	at, err := dir.At(p.Disk, root)
	if err != nil {
		p.Fatal(err)
	}
	f, err := testvault.Load(context.Background(), at)
	if err != nil {
		p.Fatal(err)
	}
	return f
}

// write puts bytes under a name of the vault behind logvault's back; nil removes it.
func (p *primary) write(name string, data []byte) {
	p.Helper()
	full := "/vault/" + name
	var err error
	if data == nil {
		err = p.Disk.Remove(full)
	} else if err = vfs.MkdirAll(p.Disk, path.Dir(full), 0o700); err == nil {
		err = vfs.WriteFile(p.Disk, full, data, 0o440)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// ledgerOf replaces the vault's ledger.
func (p *primary) ledgerOf(files testvault.Files) {
	p.Helper()
	for name := range p.files("/vault") {
		if strings.HasPrefix(name, "ledger/") {
			p.write(name, nil)
		}
	}
	for name, data := range files {
		if strings.HasPrefix(name, "ledger/") {
			p.write(name, data)
		}
	}
}

// other is a vault with another history, of the same keys if the seed is the same.
func (p *primary) other(seed uint64) testvault.Files {
	p.Helper()
	w, err := testvault.New(seed)
	for err == nil && w.Log.Checkpoint().Size < p.Log.Checkpoint().Size+3 {
		err = w.Append(context.Background(), &entry.Summary{Header: w.Header(), Since: testvault.Start, Until: testvault.Start.Add(time.Hour)})
	}
	if err != nil {
		p.Fatal(err)
	}
	f, err := testvault.Load(context.Background(), w.Vault)
	if err != nil {
		p.Fatal(err)
	}
	return f
}

// unmount leaves an empty directory where something was mounted.
func (p *primary) unmount(root string) {
	p.Helper()
	if err := p.Disk.Rename(root, root+".away"); err != nil {
		p.Fatal(err)
	}
	if err := p.Disk.Mkdir(root, 0o755); err != nil {
		p.Fatal(err)
	}
}

// TestReplicateRefuses: what a bad source or a lost mount offers is refused by
// the command with its own words and exit code, and the copy, its log and its
// pinned trust are what they were.
func TestReplicateRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		says string
		does func(p *primary)
	}{
		{"shrunk ledger", codeIntegrity, "source ledger is shorter than what was seen before", func(p *primary) {
			old := p.files("/vault")
			p.seal("a line that is cut off again\n")
			p.replicate(codeOK)
			p.ledgerOf(old)
		}},
		{"forked ledger", codeIntegrity, "source ledger does not continue what was seen before", func(p *primary) { p.ledgerOf(p.other(primarySeed)) }},
		{"re-signed by another key", codeIntegrity, "source checkpoint is not signed by the pinned key", func(p *primary) { p.ledgerOf(p.other(6)) }},
		{"changed segment", codeIntegrity, "object differs from what the ledger says", func(p *primary) {
			p.now = p.now.Add(time.Minute)
			name := p.files("/vault").Find(".gz.pgp")
			data := bytes.Clone(p.files("/vault")[name])
			data[20] ^= 1
			p.write(name, data)
		}},
		{"changed segment of another size", codeIntegrity, "bytes, expected", func(p *primary) { p.write(p.files("/vault").Find(".gz.pgp"), []byte("x")) }},
		{"missing segment that is not due", codeIntegrity, "object is missing before its date", func(p *primary) { p.write(p.files("/vault").Find(".gz.pgp"), nil) }},
		{"unmounted source", codeNoVault, "no vault here: the directory is empty; is it mounted?", func(p *primary) { p.unmount("/vault") }},
		{"unmounted destination", codeNoVault, "no vault here: the directory is empty; is it mounted?", func(p *primary) { p.unmount("/copy") }},
		{"full destination", codePartial, "no space left on device", func(p *primary) {
			p.seal("a line that does not fit\n")
			p.Disk.SetSpace(vfs.Space{Total: 1 << 20, Free: 0})
		}},
		{"received the day after tomorrow", codeIntegrity, "times are more than a day ahead of this machine's clock", func(p *primary) {
			p.Clock = p.Clock.Add(49 * time.Hour)
			p.seal("a line from the future\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPrimary(t)
			c.does(p)
			copied, state := p.files("/copy"), p.files("/copy.state")
			p.replicate(c.code)
			if !strings.Contains(p.errs.String(), c.says) || !strings.Contains(p.errs.String(), "\nhint: ") {
				t.Errorf("it says %q, expected %q and a hint", p.errs.String(), c.says)
			}
			if after := p.files("/copy"); !maps.EqualFunc(copied, after, bytes.Equal) {
				t.Errorf("the copy was changed: %v, then %v", copied.Names(), after.Names())
			}
			after := p.files("/copy.state")
			delete(after, "settled") // of the pass that did not end
			if !maps.EqualFunc(state, after, bytes.Equal) {
				t.Errorf("the copy's state was changed: %v, then %v", state.Names(), after.Names())
			}
		})
	}
}

// TestReplicateInitGoesOn: an --init that dies at any operation goes on when it
// is repeated.
func TestReplicateInitGoesOn(t *testing.T) {
	for at := 0; ; at++ {
		p := newPrimary(t)
		n := 0
		dead := vfs.NewFault(p.Disk, func(vfs.Op, string) error {
			if n++; n > at {
				return context.DeadlineExceeded
			}
			return nil
		})
		run := func(fsys vfs.FS) int {
			p.errs.Reset()
			a := &app{in: strings.NewReader(""), out: &p.out, err: &p.errs, fs: fsys, random: rand.Reader, now: func() time.Time { return p.now }, boot: vfs.Boottime,
				getenv: func(string) string { return "" }}
			return a.run(context.Background(), []string{"logvault", "replicate", "--init", "--from", "/vault", "--to", "/second", "--trust", "/trust.toml", "--name", "second", "--attempts", "1", "--jobs", "1"})
		}
		first := run(dead)
		if first == codeOK {
			t.Logf("%d operations", at)
			return
		}
		// The copy was begun or not: --init, or the plain command, goes on.
		if code := run(p.Disk); code == codeRefused {
			p.replicate(codeOK, "--to", "/second")
		} else if code != codeOK {
			t.Fatalf("after a death before operation %d: exit %d: %s", at, code, p.errs.String())
		}
		if testing.Short() {
			at += 40
		}
	}
}

// TestReplicatePassGoesOn: a pass that dies at any operation leaves a copy that the
// next one brings to its end: everything copied, the size that was reached pinned,
// and nothing left to be remembered.
func TestReplicatePassGoesOn(t *testing.T) {
	for at := 0; ; at++ {
		p := newPrimary(t)
		p.seal("more\n")
		n := 0
		dead := vfs.NewFault(p.Disk, func(op vfs.Op, name string) error {
			if n++; n > at {
				return context.DeadlineExceeded
			}
			return nil
		})
		a := &app{in: strings.NewReader(""), out: &p.out, err: &p.errs, fs: dead, random: rand.Reader, now: func() time.Time { return p.now }, boot: vfs.Boottime,
			getenv: func(string) string { return "" }}
		first := a.run(context.Background(), []string{"logvault", "replicate", "--from", "/vault", "--to", "/copy", "--attempts", "1", "--jobs", "1"})
		p.replicate(codeOK)
		trust, err := config.LoadTrust(p.Disk, "/copy.state/trust.toml")
		if err != nil || trust.KnownSize != p.Log.Checkpoint().Size {
			t.Fatalf("after a death before operation %d: %+v, %v, expected the size %d pinned", at, trust, err, p.Log.Checkpoint().Size)
		}
		if fileExists(p.Disk, "/copy.state/settled") {
			t.Fatalf("after a death before operation %d: what was remembered stays", at)
		}
		if first == codeOK {
			t.Logf("%d operations", at)
			return
		}
		if testing.Short() {
			at += 20
		}
	}
}

func TestReplicateInitChecksFirst(t *testing.T) {
	p := newPrimary(t)
	p.replicate(codeUsage, "--init", "--to", "/x", "--trust", "/trust.toml", "--name", "../x")
	p.replicate(codeUsage, "--init", "--to", "/x", "--trust", "/nothing.toml")
	p.replicate(codeUsage, "--init", "--to", "/x")
	p.replicate(codeUsage, "--to", "sftp://nas/x")
	p.replicate(codeUsage, "--accept-rotation", "x")
	for _, name := range []string{"/x", "/x.state"} {
		if fileExists(p.Disk, name) {
			t.Errorf("%s was made", name)
		}
	}
	p.replicate(codeRefused, "--init", "--trust", "/trust.toml")
}

// TestReplicateImmutable: flags by the pass itself, or by a job that needs no state.
func TestReplicateImmutable(t *testing.T) {
	p := newPrimary(t)
	wants := func(text string) {
		t.Helper()
		if !strings.Contains(p.out.String(), text) {
			t.Errorf("it says %q, expected %q", p.out.String(), text)
		}
	}
	wants("immutability: mode")
	p.replicate(codeOK, "--protect", "--trust", "/trust.toml")
	wants("protected 3 objects, 3 of them new; immutability: flag")
	p.replicate(codeOK, "--protect", "--trust", "/trust.toml", "--json")
	wants(`"fresh":0`)
	p.seal("a line\n")
	p.replicate(codeOK)
	wants("immutability: mode")
	p.replicate(codeOK, "--immutable")
	wants("replicated 0 objects (0 B), 5 were there")
	wants("immutability: flag")
	p.replicate(codeUsage, "--protect")
	other, err := testvault.New(6)
	if err != nil {
		t.Fatal(err)
	}
	p.replicate(codeIntegrity, "--protect", "--trust", other.Trust.Log)
}

// TestMemoryFile: what a killed pass remembered is taken as it is, whatever a
// power cut made of it.
func TestMemoryFile(t *testing.T) {
	p := newPrimary(t)
	h := strings.Repeat("ab", 32)
	line := h + " mode 2027-11-22T00:00:00Z"
	for _, text := range []string{"", "rubbish", memoryMagic, memoryMagic + line, memoryMagic + line + "\n" + h[:9], memoryMagic + "\x00\x00\n" + line + "\n", memoryMagic + h + " mode x\n"} {
		if err := vfs.WriteFile(p.Disk, "/m", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := openMemory(p.Disk, "/m")
		if err != nil {
			t.Fatal(err)
		}
		one, two := vault.Hash(bytes.Repeat([]byte{0xab}, 32)), vault.Hash(bytes.Repeat([]byte{0xcd}, 32))
		reached := replicate.Reached{Level: vault.LevelMode, Until: time.Date(2027, 11, 22, 0, 0, 0, 0, time.UTC)}
		if r, ok := m.Recall(one); ok != strings.Contains(text, line+"\n") || ok && r != reached {
			t.Errorf("%q: %+v, %v", text, r, ok)
		}
		if err := errors.Join(m.Remember(two, reached), m.f.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := openMemory(p.Disk, "/m")
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := again.Recall(two); !ok || r != reached {
			t.Errorf("%q: what was added is gone: %+v", text, r)
		}
		again.f.Close()
	}
	p.seal("a line\n")
	p.replicate(codeOK)
	if fileExists(p.Disk, "/copy.state/settled") {
		t.Error("a whole pass left its memory behind")
	}
}

// FuzzMemoryLine: any line is read or not, and what is read is written the same.
func FuzzMemoryLine(f *testing.F) {
	f.Add(strings.Repeat("ab", 32) + " objectlock 2027-11-22T00:00:00Z\n")
	f.Add("x  \n")
	f.Fuzz(func(t *testing.T, line string) {
		h, r, ok := parseMemory(line)
		if !ok {
			return
		}
		again := h.String() + " " + string(r.Level) + " " + r.Until.UTC().Format(time.RFC3339) + "\n"
		if h2, r2, ok := parseMemory(again); ok && (h2 != h || r2.Level != r.Level || !r2.Until.Equal(r.Until.Truncate(time.Second))) {
			t.Errorf("%q is read as %v %+v and back as %v %+v", line, h, r, h2, r2)
		}
	})
}
