package dir

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

// operations are the durable ones, each with what it makes of a name.
var operations = []struct {
	what     string
	name     string
	old, new string // "-" is absent
	do       func(s *Store) error
}{
	{"Put", segment, "-", body, func(s *Store) error { return put(s, segment, body) }},
	{"Put again", segment, body, body, func(s *Store) error { return put(s, segment, body) }},
	{"Put of a wrap", wrap, "-", body, func(s *Store) error { return put(s, wrap, body) }},
	{"Replace", checkpoint, "old", "new!", func(s *Store) error { return s.Replace(ctx, checkpoint, []byte("new!")) }},
	{"first Replace", partial, "-", body, func(s *Store) error { return s.Replace(ctx, partial, []byte(body)) }},
	{"Remove", segment, body, "-", func(s *Store) error { return s.Remove(ctx, segment) }},
	{"Remove of nothing", segment, "-", "-", func(s *Store) error { return s.Remove(ctx, segment) }},
}

// body spans several sectors and pages.
var body = strings.Repeat("0123456789abcde\n", 600)

const crashSeeds = 300

// world is a vault before an operation. What is not the operation's own stands
// durably in it.
func world(t *testing.T, name, old string) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	s := newVault(t, m, root)
	must(t, put(s, index, "bystander"))
	must(t, s.Replace(ctx, vault.CheckpointName(vault.CopyLogPrefix("b")), []byte("bystander")))
	switch {
	case old == "-":
	case vault.IsMutable(name):
		must(t, s.Replace(ctx, name, []byte(old)))
	default:
		must(t, put(s, name, old))
	}
	return m
}

// crash draws crash clones and checks in each that name holds one of the wanted
// contents and that the rest is untouched.
func crash(t *testing.T, what string, m *vfs.Mem, name string, seeds uint64, want ...string) {
	t.Helper()
	for seed := range seeds {
		c := m.CrashClone(rand.New(rand.NewPCG(seed, 2)))
		s, err := Open(c, root)
		must(t, err)
		if got := get(t, s, name); !slices.Contains(want, got) {
			t.Fatalf("%s, seed %d: %s holds %.40q, expected one of %.40q", what, seed, name, got, want)
		}
		wantContent(t, s, index, "bystander")
		wantContent(t, s, "copy/b/log/checkpoint", "bystander")
		wantContent(t, s, vault.MarkerName, "marker")
		if _, err := s.Sweep(ctx); err != nil {
			t.Fatalf("%s, seed %d: %v", what, seed, err)
		}
		wantNoTemps(t, c)
	}
}

// TestCrashAfter checks that what returned nil survives a crash.
func TestCrashAfter(t *testing.T) {
	for _, op := range operations {
		m := world(t, op.name, op.old)
		s, err := Open(m, root)
		must(t, err)
		must(t, op.do(s))
		crash(t, op.what, m, op.name, crashSeeds, op.new)
	}
}

// TestFaults fails every system call of every operation in turn, not carried
// out and carried out. Then a crash leaves old or new; the store itself shows
// old or new, can be tried again with success, and that survives a crash.
func TestFaults(t *testing.T) {
	for _, op := range operations {
		for _, executed := range []bool{false, true} {
			for fail := 1; ; fail++ {
				m := world(t, op.name, op.old)
				calls, failed := 0, vfs.Op("")
				s, err := Open(vfs.NewFault(m, func(called vfs.Op, _ string) error {
					calls++
					if calls != fail {
						return nil
					}
					failed = called
					if executed {
						return vfs.Executed(syscall.EIO)
					}
					return syscall.EIO
				}), root)
				if fail <= calls {
					wantErr(t, "Open", err, syscall.EIO)
					continue
				}
				must(t, err)
				err = op.do(s)
				if failed == "" {
					must(t, err)
					if fail < 5 {
						t.Errorf("%s: %d calls seen, expected more", op.what, fail)
					}
					break
				}
				// Tidying up may fail without harm; and a call that was carried
				// out with an error of its own (a name that exists) reports that.
				if err != nil || failed != vfs.OpRemove && !executed {
					wantErr(t, op.what+" with a failing "+string(failed), err, syscall.EIO)
				}
				crash(t, op.what+" stopped at "+string(failed), m, op.name, 20, op.old, op.new)
				if got := get(t, s, op.name); got != op.old && got != op.new {
					t.Errorf("%s: after a failing %s it holds %.40q", op.what, failed, got)
				}
				must(t, op.do(s))
				wantContent(t, s, op.name, op.new)
				crash(t, op.what+" tried again after "+string(failed), m, op.name, 10, op.new)
			}
		}
	}
}

// TestDeath stops every operation at every system call, as kill -9 does: all
// later calls fail. A new process then does it again on the same disk, which
// was not synced in between, and only then the machine crashes.
func TestDeath(t *testing.T) {
	for _, op := range operations {
		for stop := 0; ; stop++ {
			m := world(t, op.name, op.old)
			calls, dead := 0, false
			s, err := Open(vfs.NewFault(m, func(vfs.Op, string) error {
				calls++
				if dead = dead || calls > stop+10; dead {
					return syscall.EIO
				}
				return nil
			}), root)
			must(t, err)
			if err := op.do(s); err != nil && !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: %v", op.what, err)
			}
			again, err := Open(m, root)
			must(t, err)
			_, err = again.Sweep(ctx)
			must(t, err)
			must(t, op.do(again))
			wantNoTemps(t, m)
			crash(t, op.what+" done again after a death", m, op.name, 20, op.new)
			if !dead {
				break
			}
		}
	}
}

// TestPutSyncsWhatIsThere checks that Put makes durable what it finds, whoever
// wrote it there and synced nothing.
func TestPutSyncsWhatIsThere(t *testing.T) {
	m := world(t, segment, "-")
	f, err := m.Create(root+"/"+segment, 0o600) // beside the bystander
	must(t, err)
	_, err = f.Write([]byte(body))
	must(t, err)
	must(t, f.Close())
	s, err := Open(m, root)
	must(t, err)
	must(t, put(s, segment, body))
	crash(t, "Put of what is there", m, segment, crashSeeds, body)
}

// TestCrashOrder checks the ledger's order: with a new checkpoint durable, all
// that was stored before it is.
func TestCrashOrder(t *testing.T) {
	m := world(t, checkpoint, "old")
	s, err := Open(m, root)
	must(t, err)
	bundle := vault.BundleName(vault.LedgerPrefix, 0, 7)
	steps := []func() error{
		func() error { return put(s, segment, body) },
		func() error { return s.Replace(ctx, bundle, []byte(body)) },
		func() error { return s.Replace(ctx, partial, []byte(body)) },
		func() error { return s.Replace(ctx, checkpoint, []byte("new!")) },
		func() error { return s.RemovePartial(ctx, partial) },
	}
	for i, step := range steps {
		must(t, step())
		for seed := range uint64(crashSeeds) {
			c, err := Open(m.CrashClone(rand.New(rand.NewPCG(seed, uint64(i)))), root)
			must(t, err)
			if head := get(t, c, checkpoint); (head == "new!") != (i >= 3) {
				t.Fatalf("step %d, seed %d: checkpoint %q", i, seed, head)
			}
			if get(t, c, segment) != body || i >= 1 && get(t, c, bundle) != body {
				t.Fatalf("step %d, seed %d: an earlier object is lost", i, seed)
			}
			if got := get(t, c, partial); i >= 2 && got != body && (i < 4 || got != "-") {
				t.Fatalf("step %d, seed %d: partial tile holds %.40q", i, seed, got)
			}
		}
	}
}

// TestCrashInCreate checks that a crash during Create leaves what Create takes.
func TestCrashInCreate(t *testing.T) {
	for stop := 0; ; stop++ {
		m := vfs.NewMem()
		must(t, vfs.MkdirAll(m, "/srv", 0o755))
		calls := 0
		_, err := Create(vfs.NewFault(m, func(vfs.Op, string) error {
			if calls++; calls > stop {
				return syscall.EIO
			}
			return nil
		}), root)
		for seed := range uint64(20) {
			c := m.CrashClone(rand.New(rand.NewPCG(seed, 4)))
			if err == nil {
				_, err := Open(c, root)
				must(t, err)
			}
			s := newVault(t, c, root)
			wantContent(t, s, vault.MarkerName, "marker")
		}
		if err == nil {
			break
		}
		wantErr(t, "Create", err, syscall.EIO)
	}
}
