package extract

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
	"logvault/vault/dir"
)

// auditorKeys are made once: what is tested does not depend on them.
var auditorKeys = sync.OnceValues(func() (pgp.Auditor, pgp.Opener) {
	pub, sec, err := pgp.GenerateAuditor("Auditor <a@example.org>", nil, rand.Reader, epoch)
	if err != nil {
		panic(err)
	}
	a, err := pgp.ParseAuditor(pub, epoch.Add(time.Hour))
	if err != nil {
		panic(err)
	}
	o, err := pgp.OpenKeyFile(sec, nil)
	if err != nil {
		panic(err)
	}
	return a, o
})

// epoch is when the tests' archive begins.
var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

var destruction = vault.Day{Year: 2027, Month: 11, Day: 3}

// rig is a real archive in memory: vault, ledger, period key, codec.
type rig struct {
	testing.TB
	ctx     context.Context
	fs      *vfs.Mem
	store   *dir.Store
	log     *ledger.Log
	trust   *ledger.Trust
	vkey    string
	auditor pgp.Auditor
	opener  pgp.Opener
	enc     *segment.Encoder
	key     int64 // index of the key entry
	public  *pgp.PublicKey
	now     time.Time
	records map[vault.Hash][]byte // what was registered, in clear
	opened  int                   // messages the opener was given
	fail    func(step string) error
}

func newRig(t testing.TB) *rig { return newRigOf(t, "logs.example/main") }

// newRigOf makes a rig whose ledger has the origin.
func newRigOf(t testing.TB, origin string) *rig {
	t.Helper()
	r := &rig{TB: t, ctx: context.Background(), fs: vfs.NewMem(), now: epoch.Add(20 * 24 * time.Hour), records: map[vault.Hash][]byte{}}
	r.fail = func(string) error { return nil }
	r.auditor, r.opener = auditorKeys()
	skey, vkey, err := ledger.GenerateKey(rand.Reader, origin)
	r.must(err)
	r.vkey, r.trust = vkey, &ledger.Trust{Log: vkey, Origin: origin}
	r.store, err = dir.Create(r.fs, "/vault")
	r.must(err)
	r.must(vfs.MkdirAll(r.fs, "/state", 0o700))
	state, err := dir.At(r.fs, "/state")
	r.must(err)
	r.log, err = ledger.Create(r.ctx, ledger.Config{
		Prefix: vault.LedgerPrefix, Origin: origin, SignerKey: skey, Record: state, Copy: r.store, Now: r.clock,
	})
	r.must(err)
	r.enc, err = segment.NewEncoder(segment.Options{Codec: vault.Gzip, Level: 6, Workers: 1, Random: rand.Reader})
	r.must(err)
	r.append(&entry.Policy{
		Header:   r.header(),
		Classes:  []entry.PolicyClass{{Name: "technical", Period: "P1Y", Zone: "Europe/Paris"}},
		Auditors: []string{r.auditor.Fingerprint},
		Sources:  []entry.PolicySource{{Name: "idle", Class: "technical"}, {Name: "proxy1", Class: "technical"}},
	})
	r.addKey()
	return r
}

func (r *rig) must(err error) {
	if err != nil {
		r.Helper()
		r.Fatal(err)
	}
}

func (r *rig) clock() time.Time { return r.now }

func (r *rig) header() entry.Header { return entry.Header{Time: r.now, Actor: "gateway"} }

func (r *rig) append(e entry.Entry) int64 {
	r.Helper()
	data, err := entry.Encode(e)
	r.must(err)
	i, err := r.log.Append(r.ctx, data)
	r.must(err)
	return i
}

func (r *rig) put(name string, data []byte) {
	r.Helper()
	r.must(r.store.Put(r.ctx, name, int64(len(data)), bytes.NewReader(data)))
}

// addKey makes the period key of the segments from here on.
func (r *rig) addKey() {
	r.Helper()
	k, err := pgp.GeneratePeriod(rand.Reader)
	r.must(err)
	defer k.Destroy()
	wrap, err := k.Wrap(rand.Reader, []pgp.Auditor{r.auditor})
	r.must(err)
	r.public, err = pgp.ParsePublic(k.Public())
	r.must(err)
	r.put(vault.WrapName(destruction, "technical", r.public.Hash(), vault.HashOf(wrap)), wrap)
	r.key = r.append(&entry.Key{
		Header: r.header(), Class: "technical", Day: destruction, Public: k.Public(), PublicHash: r.public.Hash(),
		Wrap: vault.HashOf(wrap), Recipients: []string{r.auditor.Fingerprint},
	})
}

// sealed is a segment that the rig made.
type sealed struct {
	index int64
	entry *entry.Segment
	raw   string
}

// seal archives text as one segment of its own stream, received within [first, last].
func (r *rig) seal(source vault.Source, stream byte, text string, first, last time.Time) sealed {
	r.Helper()
	id := vault.StreamID{stream}
	e, err := r.enc.Encode(r.ctx, []byte(text), segment.Meta{Name: []byte("/access.log"), Source: source, Stream: id}, r.public)
	r.must(err)
	r.put(vault.SegmentName(destruction, e.Object, e.Codec), e.Segment)
	r.put(vault.IndexName(destruction, e.IndexHash), e.Index)
	s := &entry.Segment{
		Header: r.header(), Source: source, Stream: id, Span: e.Raw, Raw: e.Raw, Lines: e.Lines, Prev: -1,
		FirstReceived: first, LastReceived: last, FirstEvent: e.FirstEvent, LastEvent: e.LastEvent,
		Object: e.Object, Codec: e.Codec, Size: int64(len(e.Segment)), Index: e.IndexHash, IndexSize: int64(len(e.Index)),
		Key: r.key, Root: e.Root, Class: "technical", Day: destruction, RetainUntil: destruction.Start(time.UTC),
	}
	if !strings.HasSuffix(text, "\n") {
		s.Cut, s.Closed = entry.CutEnd, true
	}
	return sealed{r.append(s), s, text}
}

// Register implements Recorder as the gateway does, and keeps the record in clear.
func (r *rig) Register(ctx context.Context, class vault.Class, record []byte) (commit, object vault.Hash, err error) {
	if err := r.fail("register"); err != nil {
		return commit, object, err
	}
	commit = vault.HashOf(record)
	data, err := pgp.EncryptTo(rand.Reader, []pgp.Auditor{r.auditor}, record)
	if err != nil {
		return commit, object, err
	}
	r.records[commit] = bytes.Clone(record)
	return commit, vault.HashOf(data), r.store.Put(ctx, vault.RegisterName(class, commit), int64(len(data)), bytes.NewReader(data))
}

// Record implements Recorder.
func (r *rig) Record(ctx context.Context, e entry.Entry) (int64, error) {
	if err := r.fail(string(e.Type())); err != nil {
		return 0, err
	}
	data, err := entry.Encode(e)
	if err != nil {
		return 0, err
	}
	return r.log.Append(ctx, data)
}

// Open implements pgp.Opener. It fails the test if something is decrypted while
// the ledger's last entry is not the request: the order of DESIGN §5, step 8.
func (r *rig) Open(ctx context.Context, message []byte) ([]byte, error) {
	r.opened++
	tree := r.log.Tree()
	data, err := tree.Entry(ctx, tree.Size()-1)
	if err != nil {
		return nil, err
	}
	e, err := entry.Decode(data)
	if _, ok := e.(*entry.Request); !ok || err != nil {
		r.Errorf("a key was opened while the ledger's last entry is %s, %v", data, err)
	}
	return r.opener.Open(ctx, message)
}

func (r *rig) archive() Archive {
	return Archive{
		Vault: r.store,
		Tree: func(ctx context.Context) (*ledger.Tree, error) {
			return ledger.OpenTree(ctx, r.store, vault.LedgerPrefix, r.trust)
		},
		Recorder: r,
	}
}

func (r *rig) options(dir string) Options {
	return Options{
		Archive: r.archive(), Opener: r, Class: "requests", FS: r.fs, Dir: dir, Random: rand.Reader, Now: r.clock,
	}
}

// run extracts into dir and checks the bundle.
func (r *rig) run(dir string, req *Request) Summary {
	r.Helper()
	ans, err := Run(r.ctx, r.options(dir), req)
	r.must(err)
	sum := ans.Parts[0]
	rep, err := CheckBundle(r.ctx, r.fs, dir, r.trust)
	r.must(err)
	if len(rep.Findings) > 0 {
		r.Fatalf("a fresh bundle has findings: %v", rep.Findings)
	}
	if rep.Lines != sum.Lines || rep.Segments != sum.Searched || len(rep.Parts) != 1 || rep.Parts[0].Request != sum.Request || rep.Payload != sum.Payload || ans.Payload != sum.Payload {
		r.Fatalf("the check reports %+v, the extraction %+v", rep, sum)
	}
	e, err := entry.Decode(r.entry(sum.Disclosure))
	r.must(err)
	d, ok := e.(*entry.Disclosure)
	if !ok || d.Commit != rep.Parts[0].Commit || d.Request != sum.Request || d.Lines != sum.Lines || d.Segments != sum.Searched {
		r.Fatalf("disclosure entry %+v does not fit the report %+v", e, rep)
	}
	return sum
}

func (r *rig) entry(i int64) []byte {
	r.Helper()
	data, err := r.log.Tree().Entry(r.ctx, i)
	r.must(err)
	return data
}

// count counts the ledger entries of a type.
func (r *rig) count(want entry.Type) (n int) {
	r.Helper()
	tree := r.log.Tree()
	r.must(tree.Entries(r.ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if err == nil && e.Type() == want {
			n++
		}
		return err
	}))
	return n
}

// files reads a whole directory.
func (r *rig) files(dir string) map[string][]byte {
	r.Helper()
	out := map[string][]byte{}
	r.walk(dir, "", out)
	return out
}

func (r *rig) walk(dir, sub string, out map[string][]byte) {
	r.Helper()
	list, err := r.fs.ReadDir(path.Join(dir, sub))
	r.must(err)
	for _, e := range list {
		name := path.Join(sub, e.Name())
		if e.IsDir() {
			r.walk(dir, name, out)
			continue
		}
		data, err := vfs.ReadFile(r.fs, path.Join(dir, name), 1<<30)
		r.must(err)
		out[name] = data
	}
}

// lines joins the lines files of a bundle in their order.
func (r *rig) lines(dir string) string {
	r.Helper()
	files := r.files(dir)
	var b strings.Builder
	for n := 1; ; n++ {
		found := false
		for name, data := range files {
			if strings.HasPrefix(name, fmt.Sprintf("%s/%d-", linesDir, n)) {
				b.Write(data)
				found = true
			}
		}
		if !found {
			return b.String()
		}
	}
}

// overwrite replaces a file as an attacker would.
func (r *rig) overwrite(name string, data []byte) {
	r.Helper()
	if err := r.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Fatal(err)
	}
	f, err := r.fs.Create(name, 0o600)
	r.must(err)
	_, err = io.Copy(f, bytes.NewReader(data))
	r.must(err)
	r.must(f.Close())
}

// squid makes a line of Squid's native format.
func squid(at time.Time, client, user, host string) string {
	return fmt.Sprintf("%d.%03d     42 %s TCP_MISS/200 411 GET http://%s/p?q=1 %s HIER_DIRECT/203.0.113.9 text/html\n",
		at.Unix(), at.Nanosecond()/1e6, client, host, user)
}

// asking is a request for a window in UTC with no selector yet.
func asking(since, until time.Time) *Request {
	r := valid()
	r.Scope = Scope{Since: whenAt(since), Until: whenAt(until), Zone: "Europe/Paris"}
	return r
}
