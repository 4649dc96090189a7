package verify_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/verify"
)

// TestFiles does one thing to the files of the sample, or to how it is audited.
func TestFiles(t *testing.T) {
	drop := func(part string) func(testvault.Files, *verify.Options) {
		return func(f testvault.Files, _ *verify.Options) { delete(f, f.Find(part)) }
	}
	add := func(name, data string) func(testvault.Files, *verify.Options) {
		return func(f testvault.Files, _ *verify.Options) { f[name] = []byte(data) }
	}
	at := func(years, days int, then func(testvault.Files)) func(testvault.Files, *verify.Options) {
		return func(f testvault.Files, o *verify.Options) {
			o.Now = testvault.Start.AddDate(years, 0, days)
			if then != nil {
				then(f)
			}
		}
	}
	noSegments := func(f testvault.Files) {
		maps.DeleteFunc(f, func(name string, _ []byte) bool { return strings.HasPrefix(name, "segments/") })
	}
	day := vault.Day{Year: 2027, Month: 11, Day: 22}
	stray := vault.SegmentName(day, vault.HashOf([]byte("x")), vault.Gzip)
	for _, c := range []struct {
		name   string
		do     func(testvault.Files, *verify.Options)
		code   string
		level  verify.Level
		object string
	}{
		{"empty", func(f testvault.Files, _ *verify.Options) { clear(f) }, "unsigned", verify.Error, "ledger/checkpoint"},
		{"marker gone", drop("VAULT"), "missing", verify.Error, "VAULT"},
		{"marker of a newer version", add("VAULT", "logvault-vault v2\n"), "needs-newer", verify.Error, "VAULT"},
		{"checkpoint gone", drop("ledger/checkpoint"), "unsigned", verify.Error, "ledger/checkpoint"},
		{"tile gone", drop("ledger/tile/0"), "missing", verify.Error, "ledger/tile/0"},
		{"bundle gone", drop("ledger/tile/entries"), "missing", verify.Error, "ledger/tile/entries"},
		{"bundle cut", func(f testvault.Files, _ *verify.Options) {
			n := f.Find("ledger/tile/entries")
			f[n] = f[n][:len(f[n])-1]
		}, "truncated", verify.Error, "ledger/tile/entries"},
		{"bundle with more behind", func(f testvault.Files, _ *verify.Options) {
			n := f.Find("ledger/tile/entries")
			f[n] = append(f[n], 0)
		}, "damaged", verify.Error, "ledger/tile/entries"},
		{"signature line of a stranger", func(f testvault.Files, _ *verify.Options) {
			f["ledger/checkpoint"] = append(f["ledger/checkpoint"], "— stranger AAAAAAAA\n"...)
		}, "unsigned", verify.Error, "ledger/checkpoint"},
		{"the same in a kept head", func(f testvault.Files, _ *verify.Options) {
			n := f.Find("ledger/checkpoints/")
			f[n] = append(f[n], "— stranger AAAAAAAA\n"...)
		}, "unsigned", verify.Error, "ledger/checkpoints/"},
		{"cosignature by a stranger", func(f testvault.Files, _ *verify.Options) {
			n := f.Find("ledger/cosignatures/")
			f[n[:len(n)-8]+"0badcafe"] = f[n]
		}, "copy-unpinned", verify.Warning, "0badcafe"},
		{"token without entry", add("ledger/timestamps/3.tsr", "x"), "unexpected", verify.Error, "ledger/timestamps/3.tsr"},
		{"copy log without checkpoint", drop("copy/nas2/log/checkpoint"), "unsigned", verify.Error, "copy/nas2/log/checkpoint"},
		{"copy log that is not pinned", func(_ testvault.Files, o *verify.Options) {
			t := *o.Trust
			t.Copies = nil
			o.Trust = &t
		}, "copy-unpinned", verify.Warning, "copy/nas2/log/checkpoint"},
		{"stranger under copy/", add("copy/readme", "x"), "unexpected", verify.Error, "copy/readme"},
		{"stranger in a copy log", add("copy/nas2/log/readme", "x"), "unexpected", verify.Error, "copy/nas2/log/readme"},
		{"stranger in the ledger", add("ledger/readme", "x"), "unexpected", verify.Error, "ledger/readme"},
		{"stranger in the root", add("readme.txt", "x"), "unexpected", verify.Error, "readme.txt"},
		{"session key of no hold", add(vault.HoldKeyName("0", vault.HashOf(nil)), ""), "unexpected", verify.Error, "keys/holds/"},
		{"segment ahead of the checkpoint", add(stray, "x"), "in-transit", verify.Warning, stray},
		{"the same, damaged", add(stray, "y"), "damaged", verify.Error, stray},
		{"superseded partial tile", add("ledger/tile/0/000.p/1", ""), "leftover", verify.Note, "000.p/1"},
		{"tile of a longer ledger", add("ledger/tile/0/000.p/200", ""), "in-transit", verify.Warning, "000.p/200"},
		{"kept head of a longer ledger", func(f testvault.Files, _ *verify.Options) {
			f["ledger/checkpoints/9999"] = f["ledger/checkpoint"]
		}, "damaged", verify.Error, "ledger/checkpoints/9999"},

		{"segment gone", drop(".gz.pgp"), "missing-too-early", verify.Error, ".gz.pgp"},
		{"index gone", drop(".idx.pgp"), "missing-too-early", verify.Error, ".idx.pgp"},
		{"wrap gone", drop("keys/"), "key-missing", verify.Error, "keys/"},
		{"record gone", drop("register/"), "missing-too-early", verify.Error, "register/"},
		{"segment cut", func(f testvault.Files, _ *verify.Options) {
			n := f.Find(".gz.pgp")
			f[n] = f[n][:100]
		}, "truncated", verify.Error, ".gz.pgp"},
		{"segment longer", func(f testvault.Files, _ *verify.Options) {
			n := f.Find(".gz.pgp")
			f[n] = append(f[n], 0)
		}, "damaged", verify.Error, ".gz.pgp"},
		{"segment in another day's folder", func(f testvault.Files, _ *verify.Options) {
			n := f.Find(".gz.pgp")
			f[strings.Replace(n, "/22/", "/23/", 1)] = f[n]
			delete(f, n)
		}, "missing-too-early", verify.Error, ".gz.pgp"},
		{"segment cut, seen by its size alone", func(f testvault.Files, o *verify.Options) {
			o.Since = o.Now
			n := f.Find(".gz.pgp")
			f[n] = f[n][:100]
		}, "truncated", verify.Error, ".gz.pgp"},

		{"kept too long", at(1, 3, nil), "overdue", verify.Error, ".gz.pgp"},
		{"wrap kept too long", at(1, 3, noSegments), "overdue", verify.Error, "keys/"},
		{"destroyed by hand", at(1, 3, noSegments), "destroyed-unrecorded", verify.Error, ".idx.pgp"},
		{"nobody cosigned for long", func(f testvault.Files, o *verify.Options) {
			delete(f, f.Find("ledger/cosignatures/"))
			t := *o.Trust
			t.Quorum = 1
			o.Trust, o.Now = &t, o.Now.AddDate(0, 0, 8)
		}, "not-cosigned", verify.Error, ""},
		{"nobody cosigned yet", func(f testvault.Files, o *verify.Options) {
			delete(f, f.Find("ledger/cosignatures/"))
			t := *o.Trust
			t.Quorum = 1
			o.Trust = &t
		}, "not-cosigned", verify.Warning, ""},
		{"no trust given", func(_ testvault.Files, o *verify.Options) { o.Trust = nil }, "unpinned", verify.Error, ""},
		{"trust read from the vault", func(_ testvault.Files, o *verify.Options) { o.Unpinned = true }, "unpinned", verify.Error, ""},
		{"trust of another vault", func(_ testvault.Files, o *verify.Options) {
			o.Trust = newSample(77).trust
		}, "unsigned", verify.Error, "ledger/checkpoint"},
		{"known larger", func(_ testvault.Files, o *verify.Options) { o.Known = &verify.Known{Size: 1000} }, "rolled-back", verify.Error, "ledger/checkpoint"},
		{"known other root", func(_ testvault.Files, o *verify.Options) {
			o.Known = &verify.Known{Size: 2, HasRoot: true}
		}, "forked", verify.Error, "ledger/checkpoint"},
		{"trust file knows more", func(_ testvault.Files, o *verify.Options) {
			t := *o.Trust
			t.KnownSize = 1000
			o.Trust = &t
		}, "rolled-back", verify.Error, "ledger/checkpoint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := theSample()
			files := s.files.Clone()
			o := s.options()
			o.Vault = files
			c.do(files, &o)
			list, sum := audit(t, o)
			expect(t, list, c.code, c.level, c.object)
			if (sum.Errors > 0) != hasLevel(list, verify.Error) {
				t.Errorf("summary %+v does not count:%s", sum, lines(list))
			}
		})
	}
}

func hasLevel(list []verify.Finding, l verify.Level) bool {
	for _, f := range list {
		if f.Level == l {
			return true
		}
	}
	return false
}

// TestWithinTheGrace: neither there nor gone is wrong once a tombstone says so;
// within the grace both are allowed.
func TestWithinTheGrace(t *testing.T) {
	s := theSample()
	o := s.options()
	o.Now = testvault.Start.AddDate(1, 0, 1) // due at midnight, a day of grace
	list, _ := audit(t, o)
	clean(t, list)
}

func TestWithoutKeys(t *testing.T) {
	s := theSample()
	o := s.options()
	files := s.files.Clone()
	delete(files, files.Find("keys/"))
	o.Vault, o.WithoutKeys = files, true
	list, _ := audit(t, o)
	clean(t, list)
}

// plain is a vault without a copy log, so that nothing is in transit.
func plain(t *testing.T, seed uint64) *testvault.World {
	t.Helper()
	w, err := testvault.New(seed)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(context.Background(), 1, "a line\n"); err != nil {
		t.Fatal(err)
	}
	return w
}

func auditWorld(t *testing.T, w *testvault.World, change func(testvault.Files, *verify.Options)) []verify.Finding {
	t.Helper()
	files, err := testvault.Load(context.Background(), w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	o := verify.Options{Vault: files, Trust: w.Trust, Depth: verify.Objects, Now: w.Clock}
	if change != nil {
		change(files, &o)
	}
	list, _ := audit(t, o)
	return list
}

func TestNamesWithoutEntryInAPrimary(t *testing.T) {
	w := plain(t, 20)
	day := vault.Day{Year: 2027, Month: 11, Day: 22}
	stray := vault.SegmentName(day, vault.HashOf([]byte("x")), vault.Gzip)
	list := auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[stray] = []byte("x") })
	expect(t, list, "unexpected", verify.Error, stray)

	a, _ := testvault.Auditor()
	wrap := func(to pgp.Auditor) (string, []byte) {
		msg, err := pgp.EncryptTo(testvault.Random(5), []pgp.Auditor{to}, []byte("never used"))
		if err != nil {
			t.Fatal(err)
		}
		return vault.WrapName(day, "technical", vault.HashOf(nil), vault.HashOf(msg)), msg
	}
	name, msg := wrap(a)
	list = auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[name] = msg })
	expect(t, list, "orphan", verify.Warning, name)

	pub, _, err := pgp.GenerateAuditor("Stranger <s@example.org>", nil, testvault.Random(6), testvault.Start)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pgp.ParseAuditor(pub, testvault.Start)
	if err != nil {
		t.Fatal(err)
	}
	name, msg = wrap(stranger)
	list = auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[name] = msg })
	expect(t, list, "unexpected", verify.Error, name)

	name = vault.RegisterName("technical", vault.HashOf([]byte("record")))
	list = auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[name] = []byte("not a message") })
	expect(t, list, "unexpected", verify.Error, name)
}

func TestRecordedOrphan(t *testing.T) {
	w := plain(t, 21)
	name := vault.SegmentName(vault.Day{Year: 2027, Month: 11, Day: 22}, vault.HashOf([]byte("x")), vault.Gzip)
	if err := w.Append(context.Background(), &entry.Orphan{Header: w.Header(), Object: vault.HashOf([]byte("x")), Name: name}); err != nil {
		t.Fatal(err)
	}
	clean(t, auditWorld(t, w, nil)) // it need not be there
	list := auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[name] = []byte("x") })
	expect(t, list, "orphan", verify.Warning, name)
	list = auditWorld(t, w, func(f testvault.Files, _ *verify.Options) { f[name] = []byte("y") })
	expect(t, list, "damaged", verify.Error, name)
}

// TestSettle: a gateway seals during the audit. First the objects appear, and
// while the audit waits, their entries.
func TestSettle(t *testing.T) {
	ctx := context.Background()
	w := plain(t, 22)
	old, err := testvault.Load(ctx, w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(ctx, 1, "sealed during the audit\n"); err != nil {
		t.Fatal(err)
	}
	files, err := testvault.Load(ctx, w.Vault)
	if err != nil {
		t.Fatal(err)
	}
	g := files.Clone()
	for name := range g {
		if strings.HasPrefix(name, "ledger/") {
			delete(g, name)
		}
	}
	for name, data := range old {
		g[name] = data
	}
	o := verify.Options{Vault: g, Trust: w.Trust, Depth: verify.Objects, Now: w.Clock}
	list, _ := audit(t, o)
	expect(t, list, "unexpected", verify.Error, "segments/")
	attempts := 0
	o.Settle = func(context.Context, int) bool {
		if attempts++; attempts == 2 {
			maps.Copy(g, files)
		}
		return attempts < 3
	}
	list, sum := audit(t, o)
	if hasLevel(list, verify.Error) || attempts != 2 || sum.Segments != 2 {
		t.Errorf("%d attempts, %d segments, expected 2 and 2, and no error:%s", attempts, sum.Segments, lines(list))
	}
}

func TestOptionsThatMakeNoAudit(t *testing.T) {
	s := theSample()
	for name, change := range map[string]func(*verify.Options){
		"no vault":            func(o *verify.Options) { o.Vault = nil },
		"no time":             func(o *verify.Options) { o.Now = time.Time{} },
		"content without key": func(o *verify.Options) { o.Depth = verify.Content },
	} {
		o := s.options()
		change(&o)
		if _, err := verify.Run(context.Background(), o, func(verify.Finding) {}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := verify.Run(ctx, s.options(), func(verify.Finding) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

func TestParse(t *testing.T) {
	root := strings.Repeat("ab", 32)
	for in, ok := range map[string]bool{"0": true, "17": true, "17:" + root: true, "": false, "-1": false, "+1": false, "01": false, "1:": false, "1:" + root[1:]: false,
		"1:" + strings.ToUpper(root): false, "1 ": false, "99999999999999999999": false} {
		if k, err := verify.ParseKnown(in); (err == nil) != ok {
			t.Errorf("known %q: %+v, %v, expected ok %v", in, k, err, ok)
		}
	}
	for _, d := range []verify.Depth{verify.Chain, verify.Objects, verify.Content} {
		if got, err := verify.ParseDepth(d.String()); err != nil || got != d {
			t.Errorf("depth %v: %v, %v", d, got, err)
		}
	}
	if _, err := verify.ParseDepth("deep"); err == nil {
		t.Error("depth deep: accepted")
	}
}
