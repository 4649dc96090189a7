package nfsgw_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"logvault/fixtures/nfstest"
	"logvault/nfsgw"
)

// Results as letters: a attributes, w wcc_data, p post_op_attr, H post_op_fh3,
// h handle, o opaque, 4 and 8 numbers, E entries of READDIR and L of READDIRPLUS.
type shape string

// nfsProc is one of the procedures with results as RFC 1813 has them: args
// builds a call on a handle, and on a second one for those that take two.
type nfsProc struct {
	name     string
	proc     uint32
	args     func(h, h2 nfstest.Handle) *nfstest.Encoder
	ok, fail shape
}

func onHandle(rest ...uint32) func(h, h2 nfstest.Handle) *nfstest.Encoder {
	return func(h, _ nfstest.Handle) *nfstest.Encoder { return new(nfstest.Encoder).Opaque(h).U32(rest...) }
}

func onName(name string, rest ...uint32) func(h, h2 nfstest.Handle) *nfstest.Encoder {
	return func(h, _ nfstest.Handle) *nfstest.Encoder {
		return new(nfstest.Encoder).Opaque(h).Opaque([]byte(name)).U32(rest...)
	}
}

func onTwo(name, name2 string) func(h, h2 nfstest.Handle) *nfstest.Encoder {
	return func(h, h2 nfstest.Handle) *nfstest.Encoder {
		return new(nfstest.Encoder).Opaque(h).Opaque([]byte(name)).Opaque(h2).Opaque([]byte(name2))
	}
}

func linkArgs(h, h2 nfstest.Handle) *nfstest.Encoder {
	return new(nfstest.Encoder).Opaque(h).Opaque(h2).Opaque([]byte("n"))
}

// everyProc are the procedures with a handle, in the order of their numbers.
var everyProc = []nfsProc{
	{"GETATTR", 1, onHandle(), "a", ""},
	{"SETATTR", 2, onHandle(1, 0o600, 0, 0, 0, 0, 0, 0), "w", "w"},
	{"LOOKUP", 3, onName("f"), "hpp", "p"},
	{"ACCESS", 4, onHandle(0x3f), "p4", "p"},
	{"READLINK", 5, onHandle(), "po", "p"},
	{"READ", 6, onHandle(0, 0, 100), "p44o", "p"},
	{"WRITE", 7, onHandle(0, 0, 4, 2, 4, 0x61626364), "w448", "w"},
	{"CREATE", 8, onName("n", 0, 0, 0, 0, 0, 0, 0), "Hpw", "w"},
	{"MKDIR", 9, onName("n", 0, 0, 0, 0, 0, 0), "Hpw", "w"},
	{"SYMLINK", 10, onName("n", 0, 0, 0, 0, 0, 0, 1, 'x'<<24), "Hpw", "w"},
	{"MKNOD", 11, onName("n", 7, 0, 0, 0, 0, 0, 0), "Hpw", "w"},
	{"REMOVE", 12, onName("f"), "w", "w"},
	{"RMDIR", 13, onName("d"), "w", "w"},
	{"RENAME", 14, onTwo("f", "n"), "ww", "ww"},
	{"LINK", 15, linkArgs, "pw", "pw"},
	{"READDIR", 16, onHandle(0, 0, 0, 0, 4096), "p8E", "p"},
	{"READDIRPLUS", 17, onHandle(0, 0, 0, 0, 4096, 4096), "p8L", "p"},
	{"FSSTAT", 18, onHandle(), "p8888884", "p"},
	{"FSINFO", 19, onHandle(), "p44444448444", "p"},
	{"PATHCONF", 20, onHandle(), "p444444", "p"},
	{"COMMIT", 21, onHandle(0, 0, 0), "w8", "w"},
}

// result is what take finds in a result.
type result struct {
	pre, post []*nfstest.Attr // of each wcc and post_op_attr; pre of a wcc only
	handle    nfstest.Handle
	names     []string
}

// take reads a result of a shape; it must be all there is.
func (s shape) take(body []byte) (r result, err error) {
	d := nfstest.NewDecoder(body)
	attr := func() *nfstest.Attr {
		d.U32()
		a := &nfstest.Attr{Mode: d.U32(), Nlink: d.U32(), UID: d.U32(), GID: d.U32(), Size: d.U64()}
		d.Fixed(8 + 8 + 8)
		a.FileID = d.U64()
		d.U64()
		a.Mtime, a.Ctime = int64(d.U64()), int64(d.U64())
		return a
	}
	present := func() bool {
		v := d.U32()
		if v > 1 {
			err = fmt.Errorf("a flag is %d", v)
		}
		return v == 1
	}
	postOp := func() {
		if present() {
			r.post = append(r.post, attr())
		} else {
			r.post = append(r.post, nil)
		}
	}
	for _, c := range s {
		switch c {
		case 'a':
			r.post = append(r.post, attr())
		case 'p':
			postOp()
		case 'w':
			r.pre = append(r.pre, nil)
			if present() {
				r.pre[len(r.pre)-1] = &nfstest.Attr{Size: d.U64(), Mtime: int64(d.U64()), Ctime: int64(d.U64())}
			}
			postOp()
		case 'H':
			if present() {
				r.handle = d.Opaque()
			}
		case 'h':
			r.handle = d.Opaque()
		case 'o':
			d.Opaque()
		case '4':
			d.U32()
		case '8':
			d.U64()
		case 'E', 'L':
			for err == nil && present() {
				d.U64()
				r.names = append(r.names, string(d.Opaque()))
				d.U64()
				if c == 'L' {
					postOp()
					if present() {
						d.Opaque()
					}
				}
			}
			present() // eof
		}
	}
	return r, errors.Join(err, d.Err())
}

// callProc makes a call and takes its result apart.
func callProc(t *testing.T, c *nfstest.Client, p *nfsProc, args *nfstest.Encoder) (nfstest.Status, result) {
	t.Helper()
	body, err := c.Call(nfstest.NFS, p.proc, args)
	if err != nil || len(body) < 4 {
		t.Fatalf("%s: %x, %v", p.name, body, err)
	}
	st, want := nfstest.Status(binary.BigEndian.Uint32(body)), p.ok
	if st != 0 {
		want = p.fail
	}
	r, err := want.take(body[4:])
	if err != nil {
		t.Fatalf("%s: status %d, result %x is not %q: %v", p.name, st, body[4:], want, err)
	}
	return st, r
}

// procByName returns a procedure with other arguments.
func procByName(name string, args func(h, h2 nfstest.Handle) *nfstest.Encoder) *nfsProc {
	for _, p := range everyProc {
		if p.name == name {
			p.args = args
			return &p
		}
	}
	panic(name)
}

// Which handle a call of statusCases gets.
const (
	root = iota
	file
	dir
	bad
	gone // of a removed directory
)

var long = strings.Repeat("n", 256)

// statusCases are calls in a directory with a file "f" of 4 bytes, an empty
// directory "d" and a non-empty one "e", and what they are answered.
var statusCases = []struct {
	name    string
	args    func(h, h2 nfstest.Handle) *nfstest.Encoder
	on, on2 int
	want    nfstest.Status
}{
	{"GETATTR", onHandle(), file, 0, 0}, {"GETATTR", onHandle(), gone, 0, nfstest.Stale}, {"GETATTR", onHandle(), bad, 0, nfstest.BadHandle},
	{"SETATTR", onHandle(1, 0o600, 0, 0, 0, 0, 0, 0), file, 0, 0},
	{"SETATTR", onHandle(0, 0, 0, 0, 0, 0, 0), file, 0, 0},
	{"SETATTR", onHandle(0, 0, 0, 1, 0, 0, 0, 0, 0), file, 0, 0},
	{"SETATTR", onHandle(0, 0, 0, 1, 0, 4, 0, 0, 0), file, 0, 0},
	{"SETATTR", onHandle(0, 0, 0, 1, 0, 9, 0, 0, 0), file, 0, 0},
	{"SETATTR", onHandle(0, 0, 0, 1, 0, 3, 0, 0, 0), file, 0, nfstest.Acces},
	{"SETATTR", onHandle(0, 0, 0, 1, 1<<30, 0, 0, 0, 0), file, 0, nfstest.FBig},
	{"SETATTR", onHandle(0, 0, 0, 1, 0, 0, 0, 0, 0), dir, 0, nfstest.Inval},
	{"SETATTR", onHandle(0, 0, 0, 0, 0, 0, 1, 1, 1), file, 0, nfstest.NotSync},
	{"LOOKUP", onName("f"), root, 0, 0}, {"LOOKUP", onName("."), dir, 0, 0}, {"LOOKUP", onName(".."), dir, 0, 0},
	{"LOOKUP", onName("none"), root, 0, nfstest.NoEnt}, {"LOOKUP", onName(long), root, 0, nfstest.NameTooLong},
	{"LOOKUP", onName("f"), file, 0, nfstest.NotDir}, {"LOOKUP", onName("f"), gone, 0, nfstest.Stale},
	{"ACCESS", onHandle(0x3f), file, 0, 0}, {"ACCESS", onHandle(0x3f), bad, 0, nfstest.BadHandle},
	{"READLINK", onHandle(), file, 0, nfstest.Inval}, {"READLINK", onHandle(), dir, 0, nfstest.Inval},
	{"READ", onHandle(0, 0, 100), file, 0, 0}, {"READ", onHandle(0, 100, 100), file, 0, 0}, {"READ", onHandle(0, 0, 100), dir, 0, nfstest.Inval},
	{"WRITE", onHandle(0, 4, 4, 0, 4, 1), file, 0, 0}, {"WRITE", onHandle(0, 0, 0, 2, 0), file, 0, 0},
	{"WRITE", onHandle(0, 4, 4, 0, 4, 1), dir, 0, nfstest.Inval}, {"WRITE", onHandle(1<<30, 0, 4, 0, 4, 1), file, 0, nfstest.FBig},
	{"CREATE", onName("n", 0, 0, 0, 0, 0, 0, 0), root, 0, 0}, {"CREATE", onName("f", 0, 0, 0, 0, 0, 0, 0), root, 0, 0},
	{"CREATE", onName("f", 0, 0, 0, 0, 1, 0, 0, 0, 0), root, 0, 0},
	{"CREATE", onName("f", 1, 0, 0, 0, 0, 0, 0), root, 0, nfstest.Exist}, {"CREATE", onName("f", 2, 1, 2), root, 0, nfstest.Exist},
	{"CREATE", onName("d", 0, 0, 0, 0, 0, 0, 0), root, 0, nfstest.Exist}, {"CREATE", onName("n", 0, 0, 0, 0, 0, 0, 0), file, 0, nfstest.NotDir},
	{"CREATE", onName("n", 0, 0, 0, 0, 0, 0, 0), gone, 0, nfstest.Stale}, {"CREATE", onName("..", 0, 0, 0, 0, 0, 0, 0), root, 0, nfstest.Exist},
	{"MKDIR", onName("n", 0, 0, 0, 0, 0, 0), root, 0, 0}, {"MKDIR", onName("f", 0, 0, 0, 0, 0, 0), root, 0, nfstest.Exist},
	{"MKDIR", onName(".", 0, 0, 0, 0, 0, 0), root, 0, nfstest.Exist}, {"MKDIR", onName(long, 0, 0, 0, 0, 0, 0), root, 0, nfstest.NameTooLong},
	{"SYMLINK", onName("n", 0, 0, 0, 0, 0, 0, 1, 1), root, 0, nfstest.Perm}, {"SYMLINK", onName("n", 0, 0, 0, 0, 0, 0, 1, 1), file, 0, nfstest.NotDir},
	{"MKNOD", onName("n", 7, 0, 0, 0, 0, 0, 0), root, 0, nfstest.Perm}, {"MKNOD", onName("n", 7, 0, 0, 0, 0, 0, 0), bad, 0, nfstest.BadHandle},
	{"REMOVE", onName("f"), root, 0, 0}, {"REMOVE", onName("none"), root, 0, nfstest.NoEnt}, {"REMOVE", onName("d"), root, 0, nfstest.IsDir},
	{"REMOVE", onName("."), root, 0, nfstest.IsDir}, {"REMOVE", onName("f"), file, 0, nfstest.NotDir}, {"REMOVE", onName(long), root, 0, nfstest.NameTooLong},
	{"RMDIR", onName("d"), root, 0, 0}, {"RMDIR", onName("none"), root, 0, nfstest.NoEnt}, {"RMDIR", onName("f"), root, 0, nfstest.NotDir},
	{"RMDIR", onName("e"), root, 0, nfstest.NotEmpty}, {"RMDIR", onName("."), root, 0, nfstest.Inval}, {"RMDIR", onName(".."), root, 0, nfstest.Exist},
	{"RENAME", onTwo("f", "n"), root, dir, 0}, {"RENAME", onTwo("f", "f"), root, root, 0}, {"RENAME", onTwo("e", "d"), root, root, 0},
	{"RENAME", onTwo("none", "n"), root, root, nfstest.NoEnt}, {"RENAME", onTwo("f", "d"), root, root, nfstest.IsDir},
	{"RENAME", onTwo("d", "f"), root, root, nfstest.NotDir}, {"RENAME", onTwo("d", "e"), root, root, nfstest.NotEmpty},
	{"RENAME", onTwo("d", "n"), root, dir, nfstest.Inval}, {"RENAME", onTwo(".", "n"), root, root, nfstest.Inval}, {"RENAME", onTwo("f", ".."), root, root, nfstest.Inval},
	{"RENAME", onTwo("f", "n"), root, bad, nfstest.BadHandle}, {"RENAME", onTwo("f", "n"), gone, root, nfstest.Stale},
	{"RENAME", onTwo("f", "n"), root, file, nfstest.NotDir}, {"RENAME", onTwo("f", long), root, root, nfstest.NameTooLong},
	{"LINK", linkArgs, file, root, nfstest.Perm}, {"LINK", linkArgs, file, bad, nfstest.BadHandle}, {"LINK", linkArgs, bad, root, nfstest.BadHandle},
	{"READDIR", onHandle(0, 0, 0, 0, 4096), root, 0, 0}, {"READDIR", onHandle(0, 0, 0, 0, 4096), file, 0, nfstest.NotDir},
	{"READDIR", onHandle(0, 0, 0, 0, 9), root, 0, nfstest.TooSmall},
	{"READDIRPLUS", onHandle(0, 0, 0, 0, 4096, 4096), root, 0, 0}, {"READDIRPLUS", onHandle(0, 0, 0, 0, 4096, 4096), gone, 0, nfstest.Stale},
	{"READDIRPLUS", onHandle(0, 0, 0, 0, 9, 9), root, 0, nfstest.TooSmall},
	{"FSSTAT", onHandle(), root, 0, 0}, {"FSSTAT", onHandle(), bad, 0, nfstest.BadHandle},
	{"FSINFO", onHandle(), root, 0, 0}, {"FSINFO", onHandle(), gone, 0, nfstest.Stale},
	{"PATHCONF", onHandle(), file, 0, 0}, {"PATHCONF", onHandle(), bad, 0, nfstest.BadHandle},
	{"COMMIT", onHandle(0, 0, 0), file, 0, 0}, {"COMMIT", onHandle(0, 0, 0), dir, 0, nfstest.Inval},
}

// TestStatusOfEveryProcedure holds statuses and attributes against RFC 1813. The
// attributes of each node that a call names are in its answer, of success and
// failure: before and after, and they are those that GETATTR gives.
func TestStatusOfEveryProcedure(t *testing.T) {
	for _, tc := range statusCases {
		t.Run(tc.name, func(t *testing.T) {
			g := start(t, testConfig(newMemSink()))
			w := newWorld(t, g)
			d, _, err := w.c.Lookup(w.root, "d")
			if err != nil {
				t.Fatal(err)
			}
			removed, _, err := w.c.Mkdir(w.root, "gone")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.c.Rmdir(w.root, "gone"); err != nil {
				t.Fatal(err)
			}
			handles := []nfstest.Handle{root: w.root, file: w.f, dir: d, bad: make([]byte, 31), gone: removed}
			named := []nfstest.Handle{handles[tc.on], handles[tc.on2]} // those whose attributes the answer has
			p := procByName(tc.name, tc.args)
			want := p.ok
			if tc.want != 0 {
				want = p.fail
			}
			if strings.HasPrefix(string(want), "h") || strings.HasPrefix(string(want), "H") {
				named = []nfstest.Handle{nil, handles[tc.on]} // first those of what was found or made
			}
			before := make([]nfstest.Attr, len(named))
			for i, h := range named {
				before[i], _ = w.c.Getattr(h) // none of a bad one
			}
			st, r := callProc(t, w.c, p, p.args(handles[tc.on], handles[tc.on2]))
			if st != tc.want {
				t.Fatalf("status %d, expected %d", st, tc.want)
			}
			if r.handle != nil {
				named[0] = r.handle
			}
			for i, got := range r.post {
				if i >= len(named) {
					break // entries of a directory
				}
				after, err := w.c.Getattr(named[i])
				if (err == nil) != (got != nil) {
					t.Errorf("attributes %d: %v, GETATTR says %v", i, got, err)
				} else if got != nil && (got.FileID != after.FileID || got.Size != after.Size || got.Mode != after.Mode || got.Nlink != after.Nlink) {
					t.Errorf("attributes %d: %+v, then %+v", i, *got, after)
				}
			}
			for i, got := range r.pre {
				at := before[len(named)-len(r.pre):][i]
				if len(r.pre) == 1 && len(r.post) == 1 {
					at = before[0]
				}
				if (got == nil) != (r.post[len(r.post)-len(r.pre)+i] == nil) || got != nil && got.Size != at.Size {
					t.Errorf("attributes before the call, %d: %+v, GETATTR said %+v", i, got, at)
				}
			}
		})
	}
}

// twoHomes are two sources on two addresses with a file "f" and a directory "d"
// each: the first is the victim, the second attacks.
type twoHomes struct {
	t                *testing.T
	sink             *memSink
	victim, attacker *nfstest.Client
	theirs, own      []nfstest.Handle // root, file, directory
	ids              []uint64         // of theirs
	before           string           // what look told at first
	sources          []nfsgw.Source
	g                *gateway
}

func newTwoHomes(t *testing.T) *twoHomes {
	w := &twoHomes{t: t, sink: newMemSink()}
	cfg := testConfig(w.sink)
	cfg.Sources = []nfsgw.Source{
		{Name: "a", Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, AllowRead: true},
		{Name: "b", Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}, AllowRead: true},
	}
	w.sources, w.g = cfg.Sources, start(t, cfg)
	w.victim, w.theirs = w.home("127.0.0.2")
	w.attacker, w.own = w.home("127.0.0.3")
	for _, h := range w.theirs {
		w.ids = append(w.ids, must[nfstest.Attr](t)(w.victim.Getattr(h)).FileID)
	}
	w.before = w.look()
	return w
}

func (w *twoHomes) home(ip string) (*nfstest.Client, []nfstest.Handle) {
	w.t.Helper()
	c := w.g.from(ip)(nfstest.Options{})
	h := must[nfstest.Handle](w.t)
	root := h(c.Mount("/"))
	f := h(c.Create(root, "f"))
	if _, err := c.Write(f, 0, []byte("one\n"), nfstest.FileSync); err != nil {
		w.t.Fatal(err)
	}
	d, _, err := c.Mkdir(root, "d")
	if err != nil {
		w.t.Fatal(err)
	}
	return c, []nfstest.Handle{root, f, d}
}

// look gives all names, attributes and bytes of the victim.
func (w *twoHomes) look() string {
	w.t.Helper()
	var out strings.Builder
	entries, err := w.victim.ReadDir(w.theirs[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		fmt.Fprintln(&out, e.Name, *e.Attr)
	}
	b, _, err := w.victim.Read(w.theirs[1], 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return out.String() + string(b)
}

// try makes one call with handles of the victim: it must be refused and tell nothing.
func (w *twoHomes) try(what string, p *nfsProc, h, h2 nfstest.Handle, want ...nfstest.Status) {
	w.t.Helper()
	st, r := callProc(w.t, w.attacker, p, p.args(h, h2))
	if !slices.Contains(want, st) || r.names != nil || r.handle != nil {
		w.t.Errorf("%s %s: status %d, expected %v; %q", p.name, what, st, want, r.names)
	}
	for _, attr := range r.post {
		if attr != nil && slices.Contains(w.ids, attr.FileID) {
			w.t.Errorf("%s %s: tells attributes", p.name, what)
		}
	}
}

// attack tries everything.
func (w *twoHomes) attack(when string) {
	w.t.Helper()
	for _, p := range everyProc {
		for _, h := range w.theirs {
			w.try("stolen "+when, &p, h, h, nfstest.Acces)
		}
		for bit := range 8 * 32 {
			h := bytes.Clone(w.theirs[0])
			h[bit/8] ^= 1 << (bit % 8)
			w.try("forged "+when, &p, h, h, nfstest.Stale, nfstest.BadHandle)
		}
	}
	for _, p := range []*nfsProc{procByName("RENAME", onTwo("f", "stolen")), procByName("LINK", linkArgs)} {
		w.try("from its own "+when, p, w.own[0], w.theirs[0], nfstest.Acces)
		w.try("to its own "+when, p, w.theirs[0], w.own[0], nfstest.Acces)
	}
	for _, name := range []string{"..", "../a", "../a/f", "/a", "a/f", "\x00"} {
		st, r := callProc(w.t, w.attacker, procByName("LOOKUP", nil), onName(name)(w.own[0], nil))
		if st == 0 && !bytes.Equal(r.handle, w.own[0]) {
			w.t.Errorf("LOOKUP %q %s leads out", name, when)
		}
	}
	for _, path := range []string{"/a", "/a/d", "/a/", "//a", "/../a", "/./a/d", "/b/../a", "/d/../../a"} {
		if h, err := w.attacker.Mount(path); err == nil && !bytes.Equal(h, w.own[0]) && !bytes.Equal(h, w.own[2]) {
			w.t.Errorf("MNT %s %s: accepted", path, when)
		}
	}
	if list, err := w.attacker.Exports(); err != nil || strings.Contains(strings.Join(list, " "), "/a") {
		w.t.Errorf("EXPORT %s: %q, %v", when, list, err)
	}
	if after := w.look(); after != w.before {
		w.t.Errorf("%s something has changed:\n%s\nwas\n%s", when, after, w.before)
	}
}

// TestNobodyReachesAnother: with handles of another source, stolen or forged in
// any bit, no procedure tells or changes anything, before and after the sources
// are read anew, and after the attacker's source has grown over the victim's address.
func TestNobodyReachesAnother(t *testing.T) {
	w := newTwoHomes(t)
	w.attack("at first")
	w.g.srv.SetSources(w.sources)
	w.attack("after the same sources were read again")
	w.g.srv.SetSources([]nfsgw.Source{w.sources[1], w.sources[0]})
	w.attack("after the order of the sources has changed")
	wide := w.sources[1]
	wide.Clients = append(wide.Clients, netip.MustParsePrefix("127.0.0.0/24"))
	w.g.srv.SetSources([]nfsgw.Source{w.sources[0], wide})
	w.attack("after its own source has grown over the victim's address")
	if st := w.g.srv.Stats(); st.Foreign == 0 || st.Forged == 0 || st.Denied == 0 {
		t.Errorf("not counted: %+v", st)
	}
}
