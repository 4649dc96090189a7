package nfsgw_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/nfsgw"
	"logvault/vault"
)

// twice is a call that must not be done twice, and what is there afterwards.
type twice struct {
	name string
	proc uint32
	args func(w *world) *nfstest.Encoder
	want string // of list
}

// world is what each of the calls finds: a file "f" with 4 bytes, an empty file
// "g", directories "d" (empty) and "e" with a file "e/x".
type world struct {
	c          *nfstest.Client
	root, f, e nfstest.Handle
}

func (w *world) at(name string) *nfstest.Encoder {
	return new(nfstest.Encoder).Opaque(w.root).Opaque([]byte(name))
}

var twiceCalls = []twice{
	{"CREATE", 8, func(w *world) *nfstest.Encoder { return w.at("new").U32(1, 0, 0, 0, 0, 0, 0) }, "d/ e/ e/x f g new | e/x.0:4 f.0:8 g.0:4 new.0:4"},
	{"CREATE exclusive", 8, func(w *world) *nfstest.Encoder { return w.at("new").U32(2, 1, 2) }, "d/ e/ e/x f g new | e/x.0:4 f.0:8 g.0:4 new.0:4"},
	{"CREATE that truncates", 8, func(w *world) *nfstest.Encoder { return w.at("f").U32(0, 0, 0, 0, 1, 0, 0, 0, 0) }, "d/ e/ e/x f g | e/x.0:4 f.0:4! f.1:4 g.0:4"},
	{"MKDIR", 9, func(w *world) *nfstest.Encoder { return w.at("new").U32(0, 0, 0, 0, 0, 0) }, "d/ e/ e/x f g new/ | e/x.0:4 f.0:8 g.0:4"},
	{"REMOVE", 12, func(w *world) *nfstest.Encoder { return w.at("f") }, "d/ e/ e/x g | e/x.0:4 f.0:4! g.0:4"},
	{"RMDIR", 13, func(w *world) *nfstest.Encoder { return w.at("d") }, "e/ e/x f g | e/x.0:4 f.0:8 g.0:4"},
	{"RENAME", 14, func(w *world) *nfstest.Encoder { return w.at("f").Raw(w.at("h").Bytes()) }, "d/ e/ e/x g h | e/x.0:4 g.0:4 h.0:8"},
	{"RENAME over", 14, func(w *world) *nfstest.Encoder { return w.at("g").Raw(w.at("f").Bytes()) }, "d/ e/ e/x f | e/x.0:4 f.0:4 f.0:4!"},
	{"RENAME of a directory", 14, func(w *world) *nfstest.Encoder { return w.at("e").Raw(w.at("d").Bytes()) }, "d/ d/x f g | d/x.0:4 f.0:8 g.0:4"},
	{"SETATTR to size 0", 2, func(w *world) *nfstest.Encoder {
		return new(nfstest.Encoder).Opaque(w.f).U32(0, 0, 0, 1, 0, 0, 0, 0, 0)
	}, "d/ e/ e/x f g | e/x.0:4 f.0:4! f.1:4 g.0:4"},
	{"SETATTR of mode", 2, func(w *world) *nfstest.Encoder {
		return new(nfstest.Encoder).Opaque(w.f).U32(1, 0o600, 0, 0, 0, 0, 0, 0)
	}, "d/ e/ e/x f g | e/x.0:4 f.0:8 g.0:4"},
}

// TestRepeatedAfterACrash cuts the power, or kills the process, at every
// operation of the disk during a call that must not be done twice. The client
// sends the call again to the next process, with the same xid: it is answered
// OK, and it has been done once.
func TestRepeatedAfterACrash(t *testing.T) {
	for _, tc := range twiceCalls {
		for _, kill := range []bool{false, true} {
			t.Run(tc.name, func(t *testing.T) {
				for cut := int64(1); ; cut++ {
					if crashAt(t, &tc, cut, kill) {
						break
					}
				}
			})
		}
	}
}

// crashAt lets the disk die at the given operation of the call and reports
// whether the call was answered before.
func crashAt(t *testing.T, tc *twice, cut int64, kill bool) (answered bool) {
	t.Helper()
	m := &machine{t: t, disk: vfs.NewMem()}
	cfg, _ := m.config()
	if err := ingest.CreateSpool(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	var ops atomic.Int64 // how many are left; negative: without end
	ops.Store(-1)
	m.bootUntil(&ops)
	w := newWorld(t, m.g)
	ops.Store(cut)
	first, answered := callRaw(t, m.g, tc.proc, tc.args(w).Bytes())
	ops.Store(0)
	if !kill {
		m.disk = m.disk.CrashClone(rand.New(rand.NewPCG(uint64(cut), 7)))
	}
	_ = m.g.close() // the disk is dead
	if answered && binary.BigEndian.Uint32(first) != 0 {
		t.Fatalf("status %d", binary.BigEndian.Uint32(first))
	}
	ops.Store(-1)
	spool := m.bootUntil(&ops)
	for range 2 {
		again, ok := callRaw(t, m.g, tc.proc, tc.args(w).Bytes())
		if !ok || binary.BigEndian.Uint32(again) != 0 {
			t.Fatalf("%d operations, killed %t, answered %t: repeated call %x", cut, kill, answered, again)
		}
		if answered && !sameMade(tc.proc, first, again) {
			t.Fatalf("%d operations: another file when repeated", cut)
		}
	}
	if got := list(t, m.g, spool); got != tc.want {
		t.Fatalf("%d operations, killed %t, answered %t:\n got %s\nwant %s", cut, kill, answered, got, tc.want)
	}
	if err := m.g.close(); err != nil {
		t.Fatal(err)
	}
	return answered
}

func sameMade(proc uint32, a, b []byte) bool {
	if proc != 8 && proc != 9 {
		return true
	}
	return bytes.Equal(a[:4+4+4+32], b[:4+4+4+32])
}

// bootUntil boots on a disk that dies when ops reaches 0.
func (m *machine) bootUntil(ops *atomic.Int64) *ingest.Spool {
	m.t.Helper()
	cfg, _ := m.config()
	cfg.FS = vfs.NewFault(m.disk, func(vfs.Op, string) error {
		if n := ops.Load(); n < 0 || n > 0 && ops.Add(-1) >= 0 {
			return nil
		}
		return errPower
	})
	spool, err := ingest.OpenSpool(context.Background(), cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.g = startAt(m.t, testConfig(spool), "127.0.0.1:0")
	return spool
}

func newWorld(t *testing.T, g *gateway) *world {
	t.Helper()
	w := &world{}
	w.c, w.root = g.mount()
	h := must[nfstest.Handle](t)
	w.f = h(w.c.Create(w.root, "f"))
	if _, err := w.c.Write(w.f, 0, []byte("one\n"), nfstest.FileSync); err != nil {
		t.Fatal(err)
	}
	h(w.c.Create(w.root, "g"))
	for _, name := range []string{"d", "e"} {
		d, _, err := w.c.Mkdir(w.root, name)
		if err != nil {
			t.Fatal(err)
		}
		w.e = d
	}
	h(w.c.Create(w.e, "x"))
	return w
}

// callRaw makes a call with an xid of its own and returns the result, or false
// if the server closed the connection instead.
func callRaw(t *testing.T, g *gateway, proc uint32, args []byte) ([]byte, bool) {
	t.Helper()
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		return nil, false
	}
	defer nc.Close()
	b := append(rawCall(4711, 2, nfstest.NFS, 3, proc, 0, 0, 0, 0), args...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
	if _, err := nc.Write(b); err != nil {
		return nil, false
	}
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var mark [4]byte
	if _, err := io.ReadFull(nc, mark[:]); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Fatal("neither answered nor closed")
		}
		return nil, false
	}
	reply := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
	if _, err := io.ReadFull(nc, reply); err != nil || len(reply) < 28 {
		t.Fatalf("reply %x: %v", reply, err)
	}
	return reply[24:], true
}

// list appends a line to every file and gives all names, and then what the
// archive gets: name, generation, bytes, "!" if the generation has ended.
func list(t *testing.T, g *gateway, spool *ingest.Spool) string {
	t.Helper()
	c, root := g.mount()
	var names, pieces []string
	var walk func(dir nfstest.Handle, path string)
	walk = func(dir nfstest.Handle, path string) {
		entries, err := c.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			switch {
			case e.Name == "." || e.Name == "..":
			case e.Attr.Type == 2:
				names = append(names, path+e.Name+"/")
				walk(e.Handle, path+e.Name+"/")
			default:
				names = append(names, path+e.Name)
				if _, err := c.Write(e.Handle, e.Attr.Size, []byte("two\n"), nfstest.FileSync); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	walk(root, "")
	for sealRound(t, spool, true, func(p vault.Piece, _ []byte) {
		closed := ""
		if p.Closed {
			closed = "!"
		}
		pieces = append(pieces, fmt.Sprintf("%s.%d:%d%s", p.Name, p.Gen, p.Span, closed))
	}) > 0 {
	}
	slices.Sort(names)
	slices.Sort(pieces)
	return strings.Join(names, " ") + " | " + strings.Join(pieces, " ")
}

// sealRound does what the sealer does with what is due, gives each piece to take
// and returns their number.
func sealRound(t *testing.T, spool *ingest.Spool, all bool, take func(vault.Piece, []byte)) int {
	t.Helper()
	due, err := spool.Due(t.Context(), vault.DueOptions{Now: time.Now(), All: all})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range due {
		var text []byte
		if p.Kind == vault.PieceData {
			if text, err = spool.Read(t.Context(), p, nil); err != nil {
				t.Fatal(err)
			}
		}
		take(p, text)
		if err := spool.Intend(t.Context(), vault.Intent{Piece: p, Entry: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if err := spool.Release(t.Context(), p, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return len(due)
}

// TestNamesThroughFaults: a client makes, renames and removes files and
// directories through kills and power cuts, and knows what each call must be
// answered. No answer is another's, none is lost, none is given twice.
func TestNamesThroughFaults(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t)
	c := m.g.dial(nfstest.Options{Reconnect: true, Backoff: time.Millisecond, Patience: time.Millisecond})
	root, err := c.Mount("/")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	calls := make(chan struct{})
	go func() {
		defer close(calls)
		done <- manyNames(c, root, rand.New(rand.NewPCG(seed, 1)), calls)
	}()
	for range calls {
		if rng.IntN(25) > 0 {
			continue
		}
		more := rng.IntN(5)
		go func() { // the client must not wait for us while we wait for its server
			for range more {
				<-calls
			}
		}()
		if rng.IntN(2) == 0 {
			m.kill(rng)
		} else {
			m.powerCut(rng)
		}
	}
	if err := <-done; err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}

// manyNames changes names at random and compares each answer with what it must be.
func manyNames(c *nfstest.Client, root nfstest.Handle, rng *rand.Rand, calls chan<- struct{}) error {
	have := map[string]bool{} // true: a directory
	for i := range 400 {
		calls <- struct{}{}
		name, to := fmt.Sprint("n", rng.IntN(6)), fmt.Sprint("n", rng.IntN(6))
		dir, exists := have[name]
		toDir, toExists := have[to]
		var err error
		var want nfstest.Status
		op := rng.IntN(5)
		switch op {
		case 0:
			_, err = c.CreateAs(root, name, true, nfstest.SetAttr{})
			if want = nfstest.Exist; !exists {
				want, have[name] = 0, false
			}
		case 1:
			_, _, err = c.Mkdir(root, name)
			if want = nfstest.Exist; !exists {
				want, have[name] = 0, true
			}
		case 2:
			_, err = c.Remove(root, name)
			want = removed(have, name, exists, dir, nfstest.IsDir)
		case 3:
			_, err = c.Rmdir(root, name)
			want = removed(have, name, exists, !dir, nfstest.NotDir)
		case 4:
			_, _, err = c.Rename(root, name, root, to)
			switch {
			case !exists:
				want = nfstest.NoEnt
			case name == to:
			case toExists && dir && !toDir:
				want = nfstest.NotDir
			case toExists && !dir && toDir:
				want = nfstest.IsDir
			default:
				delete(have, name)
				have[to] = dir
			}
		}
		if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
			return fmt.Errorf("call %d, %d on %s (there %t, directory %t) to %s: %w, expected status %d", i, op, name, exists, dir, to, err, want)
		}
	}
	list, err := c.ReadDir(root)
	if len(list) != len(have)+2 {
		err = errors.Join(err, fmt.Errorf("%d entries, expected %d", len(list)-2, len(have)))
	}
	return err
}

func removed(have map[string]bool, name string, exists, wrongKind bool, ifWrong nfstest.Status) nfstest.Status {
	switch {
	case !exists:
		return nfstest.NoEnt
	case wrongKind:
		return ifWrong
	}
	delete(have, name)
	return 0
}

// holdSink is a memSink whose Record, when held, says that it was entered and
// waits for its release.
type holdSink struct {
	*memSink
	held             atomic.Bool
	entered, release chan struct{}
}

func newHoldSink() *holdSink {
	return &holdSink{memSink: newMemSink(), entered: make(chan struct{}), release: make(chan struct{})}
}

func (h *holdSink) Record(ctx context.Context, c vault.Changes) error {
	if h.held.Load() {
		h.entered <- struct{}{}
		<-h.release
	}
	return h.memSink.Record(ctx, c)
}

// TestRepeatedWhileRunning: a client that has lost its connection sends a call
// again, from another port, while the first one still runs. It is done once.
func TestRepeatedWhileRunning(t *testing.T) {
	sink := newHoldSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	must[nfstest.Handle](t)(c.Create(root, "f"))
	sink.held.Store(true)
	args := new(nfstest.Encoder).Opaque(root).Opaque([]byte("f")).Bytes()
	answers := make(chan []byte, 2)
	remove := func() {
		b, _ := callRaw(t, g, 12, args)
		answers <- b
	}
	go remove()
	<-sink.entered
	sink.held.Store(false) // what is done a second time would not wait
	calls := g.srv.Stats().Calls
	go remove()
	until(t, "the second call", func() bool { return g.srv.Stats().Calls > calls })
	sink.release <- struct{}{}
	for range 2 {
		if b := <-answers; len(b) < 4 || binary.BigEndian.Uint32(b) != 0 {
			t.Errorf("answer %x, expected OK", b)
		}
	}
	if n := g.srv.Stats().Duplicates; n != 1 {
		t.Errorf("%d duplicates counted, expected 1", n)
	}
}

// TestStopDuringACall: a call that runs when the server stops is finished and
// answered, and no other is begun.
func TestStopDuringACall(t *testing.T) {
	sink := newHoldSink()
	srv, err := nfsgw.New(testConfig(sink))
	if err != nil {
		t.Fatal(err)
	}
	nfsgw.SetStopTimeout(srv, patience) // the client is there, however slow
	g := serveOn(t, srv, "127.0.0.1:0")
	c, root := g.mount()
	sink.held.Store(true)
	made := make(chan error, 1)
	go func() {
		_, err := c.Create(root, "f")
		made <- err
	}()
	<-sink.entered
	sink.held.Store(false)
	g.stop()
	until(t, "a closed listener", func() bool { // then the stop has begun
		nc, err := net.Dial("tcp", g.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	sink.release <- struct{}{}
	if err := <-made; err != nil {
		t.Errorf("the call that ran: %v", err)
	}
	if err := g.close(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if err := c.Null(); err == nil {
		t.Error("a call after the stop is answered")
	}
}
