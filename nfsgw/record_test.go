package nfsgw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// ledgerMeter checks that what is taken is given back.
type ledgerMeter struct{ held, most int }

func (m *ledgerMeter) take(n int) { m.held += n; m.most = max(m.most, m.held) }
func (m *ledgerMeter) give(n int) { m.held -= n }

func fragment(last bool, data []byte) []byte {
	mark := uint32(len(data))
	if last {
		mark |= lastFragment
	}
	return append(binary.BigEndian.AppendUint32(nil, mark), data...)
}

func TestReadRecord(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), maxRecord/16)
	crumbs := func(n int) (b []byte) {
		for range n {
			b = append(b, fragment(false, []byte("x"))...)
		}
		return append(b, fragment(true, []byte("y"))...)
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want []byte
		err  error
	}{
		{name: "one fragment", in: fragment(true, []byte("hello")), want: []byte("hello")},
		{name: "three fragments", in: append(append(fragment(false, []byte("he")), fragment(false, []byte("l"))...), fragment(true, []byte("lo"))...), want: []byte("hello")},
		{name: "largest", in: fragment(true, big), want: big},
		{name: "largest in two", in: append(fragment(false, big[:7]), fragment(true, big[7:])...), want: big},
		{name: "one too large", in: fragment(true, append(big, 0)), err: errRecord},
		{name: "too large in two", in: append(fragment(false, big[:9]), fragment(true, big[8:])...), err: errRecord},
		{name: "2 GiB announced", in: []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, err: errRecord},
		{name: "empty", in: fragment(true, nil), err: errRecord},
		{name: "empty fragment first", in: append(fragment(false, nil), fragment(true, []byte("a"))...), err: errRecord},
		{name: "empty fragment last", in: append(fragment(false, []byte("a")), fragment(true, nil)...), err: errRecord},
		{name: "1024 fragments", in: crumbs(maxFragments - 1), want: append(bytes.Repeat([]byte("x"), maxFragments-1), 'y')},
		{name: "1025 fragments", in: crumbs(maxFragments), err: errRecord},
		{name: "end between records", in: nil, err: io.EOF},
		{name: "end in the mark", in: []byte{0x80, 0}, err: io.ErrUnexpectedEOF},
		{name: "end in the record", in: fragment(true, []byte("hello"))[:6], err: io.ErrUnexpectedEOF},
		{name: "end between fragments", in: fragment(false, []byte("hello")), err: io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{"whole": bytes.NewReader(tc.in), "bytewise": iotest.OneByteReader(bytes.NewReader(tc.in))} {
				var pool bufferPool
				var m ledgerMeter
				buf, err := readRecord(r, &pool, &m)
				if !errors.Is(err, tc.err) || err == nil && !bytes.Equal(buf.b, tc.want) {
					t.Fatalf("%s: got error %v, expected %v", name, err, tc.err)
				}
				if err == nil {
					m.give(cap(buf.b))
				}
				if m.held != 0 {
					t.Errorf("%s: %d bytes still taken", name, m.held)
				}
				if errors.Is(tc.err, errRecord) && len(tc.in) < 100 && m.most > maxRecord {
					t.Errorf("%s: took %d bytes for a record that is refused", name, m.most)
				}
			}
		})
	}
}

func TestBufferClasses(t *testing.T) {
	var pool bufferPool
	for _, n := range []int{1, 1 << 10, 1<<10 + 1, 64 << 10, maxRecord} {
		b := pool.get(classOf(n))
		if cap(b.b) < n || n > 1<<10 && cap(b.b) >= 20*n {
			t.Errorf("%d bytes: buffer of %d", n, cap(b.b))
		}
		b.b = b.b[:n]
		pool.put(b)
		if again := pool.get(classOf(n)); len(again.b) != cap(again.b) {
			t.Errorf("%d bytes: a used buffer comes back with length %d of %d", n, len(again.b), cap(again.b))
		}
	}
}

// TestBudget: who waits for much is not overtaken for ever by those that want little.
func TestBudget(t *testing.T) {
	b := newBudget(100)
	b.take(100)
	waiter := func(n int) <-chan struct{} {
		b.mu.Lock()
		queued := b.queued
		b.mu.Unlock()
		taken := make(chan struct{})
		go func() {
			b.take(n)
			close(taken)
		}()
		for {
			b.mu.Lock()
			ok := b.queued > queued
			b.mu.Unlock()
			if ok {
				return taken
			}
			runtime.Gosched()
		}
	}
	large := waiter(60)
	small := waiter(10)
	b.give(50)
	if b.tryTake(10) {
		t.Fatal("took what others wait for")
	}
	b.give(10)
	<-large
	b.give(10)
	<-small
	b.give(100)
	if !b.tryTake(100) || b.tryTake(1) {
		t.Fatalf("free %d after all was given back and taken once more", b.free)
	}
}

// pipeEnd is an end of a net.Pipe that knows no deadlines: the timers of a pipe's
// stay in memory until they fire, also when it is closed, and look like a leak.
type pipeEnd struct{ net.Conn }

func (pipeEnd) SetReadDeadline(time.Time) error  { return nil }
func (pipeEnd) SetWriteDeadline(time.Time) error { return nil }

// connect joins a connection to a server without a network: each Write of the
// peer is one Read of the server. It returns the peer's end and a channel that
// is closed when the server is done with it.
func (w *workbench) connect(t testing.TB) (net.Conn, <-chan struct{}) {
	t.Helper()
	near, far := net.Pipe()
	c := w.s.newConn(t.Context(), pipeEnd{far}, w.c.peer)
	if !w.s.join(c) {
		t.Fatal("too many connections")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.serve()
		w.s.leave(c)
	}()
	return near, done
}

// nothingHeld fails if connections that have ended left anything taken.
func (w *workbench) nothingHeld(t *testing.T) {
	t.Helper()
	w.s.connMu.Lock()
	defer w.s.connMu.Unlock()
	if n := w.s.budget.size - w.s.budget.free; n != 0 || len(w.s.conns) != 0 || len(w.s.peers) != 0 {
		t.Fatalf("%d bytes, %d connections, %d peers still taken", n, len(w.s.conns), len(w.s.peers))
	}
	if n := w.s.stats.panics.Load(); n != 0 {
		t.Fatalf("%d faults in calls", n)
	}
}

// FuzzRecord: whatever a connection carries, and in whatever pieces, is answered
// with whole replies to calls that it made, or it is closed; and everything
// taken for it is given back.
func FuzzRecord(f *testing.F) {
	w := newWorkbench(f)
	call := fragment(true, record(progNFS, procNull, nil))
	getattr := func() []byte {
		e := encoder{}
		e.opaque(w.root.handle[:])
		return fragment(true, record(progNFS, procGetattr, e.b))
	}()
	f.Add(uint16(1), fragment(true, []byte("hello")))
	f.Add(uint16(7), append(append(call, getattr...), call...))
	f.Add(uint16(3), append(fragment(false, getattr[4:20]), fragment(true, getattr[20:])...))
	f.Add(uint16(9), []byte{0x7f, 0xff, 0xff, 0xff})
	f.Add(uint16(9), []byte{0, 0, 0, 0, 0x80, 0, 0, 0})
	f.Add(uint16(50), append(call, 0xff, 0xff, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, piece uint16, stream []byte) {
		nc, done := w.connect(t)
		replies := make(chan error, 1)
		go func() { replies <- readReplies(nc, stream) }()
		for part := range slices.Chunk(stream, 1+int(piece)) {
			if _, err := nc.Write(part); err != nil {
				break // the server has closed it
			}
		}
		nc.Close()
		<-done
		if err := <-replies; err != nil {
			t.Fatal(err)
		}
		w.nothingHeld(t)
	})
}

// readReplies reads to the end; each reply has the xid of a call in the stream.
func readReplies(nc net.Conn, stream []byte) error {
	for {
		var head [8]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return nil // closed, by either
		}
		mark := binary.BigEndian.Uint32(head[:])
		n := int(mark&^lastFragment) - 4
		if mark&lastFragment == 0 || n < 8 || n > maxRecord {
			return fmt.Errorf("reply with mark %08x", mark)
		}
		if _, err := io.CopyN(io.Discard, nc, int64(n)); err != nil {
			return nil
		}
		if !bytes.Contains(stream, head[4:5]) { // fragments may cut the xid anywhere
			return fmt.Errorf("reply to %x, which nobody called", head[4:])
		}
	}
}
