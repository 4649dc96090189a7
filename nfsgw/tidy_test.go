package nfsgw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"logvault/vault"
)

const day = 24 * time.Hour

// tidyBench is a clockBench whose source keeps its bytes for ten days.
func tidyBench(t *testing.T) (*workbench, *metaSink, *time.Time) {
	w, sink, now := clockBench(t)
	w.s.cfg.RetainUntil = func(src vault.Source, received time.Time) (time.Time, bool) {
		return received.Add(10 * day), src == "p"
	}
	return w, sink, now
}

func (w *workbench) mustTidy(t *testing.T) {
	t.Helper()
	if err := w.s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := newServer(t, w.s.cfg.Sink, w.s.cfg.Now); err != nil {
		t.Fatalf("the names do not load any more: %v", err)
	}
}

func (w *workbench) create(t *testing.T, name string) *node {
	t.Helper()
	if st := w.ask(t, procCreate, createArgsFor(w.root, name)); st != statusOK {
		t.Fatalf("create %s: status %d", name, st)
	}
	return w.root.children[name]
}

func (w *workbench) write(t *testing.T, n *node) status {
	t.Helper()
	e := encoder{}
	e.opaque(n.handle[:])
	return w.ask(t, procWrite, append(e.b, words(0, uint32(n.size), 4, fileSync, 4, 0)...))
}

// A name that a dead client left goes after a day without a change; one that is
// written to, or that is no silly name, stays.
func TestTidySillyNames(t *testing.T) {
	w, _, now := tidyBench(t)
	left := w.create(t, ".nfs000000000000abcd00000001")
	used := w.create(t, ".nfs000000000000abcd00000002")
	w.create(t, "access.log")
	*now = now.Add(sillyAge - time.Minute)
	w.mustTidy(t)
	if len(w.root.children) != 3 {
		t.Fatalf("%d names before its time, expected 3", len(w.root.children))
	}
	if st := w.write(t, used); st != statusOK {
		t.Fatalf("status %d", st)
	}
	before := w.root.attrs().mtime
	*now = now.Add(2 * time.Minute)
	w.mustTidy(t)
	if w.root.children[left.name] != nil || w.root.children[used.name] == nil || w.root.children["access.log"] == nil {
		t.Errorf("names left: %v", w.root.children)
	}
	if w.root.attrs().mtime <= before {
		t.Error("the directory's time did not change")
	}
	if st := w.write(t, left); st != statusOK {
		t.Errorf("late write to a file whose silly name is gone: status %d", st)
	}
}

// A name goes with its last byte, from the disk too; the handle stays good for
// another thirty days, and directories stay for ever.
func TestTidyExpiredNames(t *testing.T) {
	w, sink, now := tidyBench(t)
	w.ask(t, procMkdir, append(nameArgs(w.root, "secret-dir"), words(0, 0, 0, 0, 0, 0)...))
	old, busy, gone := w.create(t, "secret-old"), w.create(t, "secret-busy"), w.create(t, "secret-gone")
	if st := w.ask(t, procRemove, nameArgs(w.root, "secret-gone")); st != statusOK {
		t.Fatalf("remove: %d", st)
	}
	stored := func(what string) (n int) {
		for _, v := range sink.meta {
			if bytes.Contains(v, []byte(what)) {
				n++
			}
		}
		return n
	}
	*now = now.Add(9 * day)
	w.mustTidy(t)
	if stored("secret-") != 4 {
		t.Fatalf("%d names stored before their time, expected 4", stored("secret-"))
	}
	if st := w.write(t, busy); st != statusOK {
		t.Fatalf("status %d", st)
	}
	if st := w.ask(t, procSetattr, setMode(old)); st != statusOK { // no byte came
		t.Fatalf("status %d", st)
	}
	*now = now.Add(2 * day)
	w.mustTidy(t)
	if stored("secret-old")+stored("secret-gone") != 0 || stored("secret-busy") != 1 || stored("secret-dir") != 1 {
		t.Errorf("stored: old %d, gone %d, busy %d, dir %d; expected 0, 0, 1, 1", stored("secret-old"), stored("secret-gone"), stored("secret-busy"), stored("secret-dir"))
	}
	if len(w.root.children) != 2 || w.s.Stats().Removed != 2 {
		t.Errorf("%d names, %d removed files; expected 2 and 2", len(w.root.children), w.s.Stats().Removed)
	}
	if st := w.write(t, old); st != statusOK {
		t.Errorf("write to a file whose name has expired: status %d", st)
	}
	*now = now.Add(29 * day)
	w.mustTidy(t) // takes the name of busy, and the ids that nobody wrote to
	if w.s.gone(old) || !w.s.gone(gone) || w.s.gone(busy) {
		t.Errorf("after 40 days: old gone %t, gone %t, busy %t; expected false, true, false", w.s.gone(old), w.s.gone(gone), w.s.gone(busy))
	}
	*now = now.Add(31 * day)
	w.mustTidy(t)
	if n := len(w.s.nodes); n != 2 {
		t.Errorf("%d nodes kept, expected the two directories", n)
	}
	if st := w.write(t, old); st != statusStale {
		t.Errorf("write to a forgotten file: status %d", st)
	}
}

// A clock that was years ahead for an hour does not stop the tidying of what
// came after it was set right.
func TestTidyAfterAWrongClock(t *testing.T) {
	w, _, now := tidyBench(t)
	w.create(t, "wrong")
	ahead := w.create(t, "removed-wrong")
	*now = now.AddDate(10, 0, 0)
	w.ask(t, procSetattr, setMode(w.root.children["wrong"]))
	w.ask(t, procRemove, nameArgs(w.root, "removed-wrong"))
	*now = now.AddDate(-10, 0, 0).Add(time.Hour)
	w.create(t, ".nfs000000000000abcd00000001")
	late := w.create(t, "removed-late")
	w.ask(t, procRemove, nameArgs(w.root, "removed-late"))
	if st := w.write(t, w.create(t, "access.log")); st != statusOK {
		t.Fatalf("write: status %d", st)
	}
	*now = now.Add(sillyAge)
	w.mustTidy(t)
	if len(w.root.children) != 2 {
		t.Errorf("%d names after a day, expected that of the dead client to be gone", len(w.root.children))
	}
	*now = now.Add(11 * day)
	w.mustTidy(t)
	if len(w.root.children) != 0 {
		t.Errorf("%d names after 12 days, expected them to have expired", len(w.root.children))
	}
	*now = now.Add(31 * day)
	w.mustTidy(t)
	*now = now.Add(31 * day) // an id that was removed in the wrong time has its thirty days from now on
	w.mustTidy(t)
	if !w.s.gone(ahead) || !w.s.gone(late) {
		t.Errorf("ids kept: %t of the wrong time, %t of the right one", !w.s.gone(ahead), !w.s.gone(late))
	}
}

// What a client sets as times of a file does not keep its name, nor end it.
func TestTidyIgnoresTimesOfClients(t *testing.T) {
	w, _, now := tidyBench(t)
	for name, year := range map[string]int{"old": 1970, "new": 2100} {
		sec := uint32(time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC).Unix())
		args := append(nameArgs(w.root, name), words(0, 0, 0, 0, 0, 2, sec, 0, 2, sec, 0)...)
		if st := w.ask(t, procCreate, args); st != statusOK {
			t.Fatalf("create: status %d", st)
		}
	}
	w.mustTidy(t)
	if len(w.root.children) != 2 {
		t.Errorf("%d names at once, expected 2", len(w.root.children))
	}
	*now = now.Add(11 * day)
	w.mustTidy(t)
	if len(w.root.children) != 0 {
		t.Errorf("%d names after 11 days, expected none", len(w.root.children))
	}
}

func setMode(n *node) []byte {
	e := encoder{}
	e.opaque(n.handle[:])
	return append(e.b, words(1, 0o600, 0, 0, 0, 0, 0, 0)...)
}

// Answers leave the Sink's table after ten minutes; their slots are used again.
func TestTidyAnswers(t *testing.T) {
	w, sink, now := tidyBench(t)
	answers := func() (n int) {
		for key := range sink.meta {
			if strings.HasPrefix(key, replyPrefix) {
				n++
			}
		}
		return n
	}
	for i := range 50 {
		w.create(t, fmt.Sprint("a", i))
	}
	w.mustTidy(t)
	if answers() != 50 {
		t.Errorf("%d answers stored, expected 50", answers())
	}
	*now = now.Add(keepReplies)
	w.mustTidy(t)
	if answers() != 0 {
		t.Errorf("%d answers stored after their time", answers())
	}
	w.create(t, "b")
	if w.s.replies.next > 50 || answers() != 1 {
		t.Errorf("%d slots used, %d answers stored; expected the old slots to be used again", w.s.replies.next, answers())
	}
}

// Who removes without end loses the oldest ids early, and nobody else does.
func TestRemovedFilesAreBounded(t *testing.T) {
	w, sink, _ := clockBench(t)
	for i := range maxRemoved / minRemoved { // many sources: each has the least share
		if _, err := w.s.treeOf(t.Context(), vault.Source(fmt.Sprint("source", i))); err != nil {
			t.Fatal(err)
		}
	}
	names := len(sink.meta)
	first := w.create(t, "first")
	w.ask(t, procRemove, nameArgs(w.root, "first"))
	for i := range minRemoved + 10 {
		name := fmt.Sprint("f", i)
		w.create(t, name)
		if st := w.ask(t, procRemove, nameArgs(w.root, name)); st != statusOK {
			t.Fatalf("remove: status %d", st)
		}
	}
	if n := w.s.Stats().Removed; n != minRemoved+1 || !w.s.gone(first) {
		t.Errorf("%d removed files kept, expected %d; the first gone %t", n, minRemoved+1, w.s.gone(first))
	}
	for key := range sink.meta {
		if strings.HasPrefix(key, metaPrefix) {
			names--
		}
	}
	if names != -(minRemoved + 1) {
		t.Errorf("%d records of removed files, expected %d", -names, minRemoved+1)
	}
}

// A source may have so many names and no more; others may go on.
func TestNamesAreBounded(t *testing.T) {
	w, _, _ := clockBench(t)
	w.create(t, "f0")
	w.root.tree.files = maxFiles - 1 // as if there were so many
	w.create(t, "f1")
	if st := w.ask(t, procCreate, createArgsFor(w.root, "one more")); st != statusNoSpc {
		t.Errorf("status %d, expected NOSPC", st)
	}
	w.ask(t, procRemove, nameArgs(w.root, "f0"))
	w.create(t, "another") // the same call again would have the same answer
}

// Tidying through every failure of the Sink leaves names that can be tidied.
func TestTidyWithoutRoom(t *testing.T) {
	w, sink, now := tidyBench(t)
	for i := range 3 {
		w.create(t, fmt.Sprint("f", i))
		w.create(t, fmt.Sprint("r", i))
		w.ask(t, procRemove, nameArgs(w.root, fmt.Sprint("r", i)))
	}
	*now = now.Add(100 * day)
	w.s.cfg.Sink = fullSink{sink}
	for range 3 {
		if err := w.s.tidy(t.Context()); !errors.Is(err, vault.ErrFull) {
			t.Fatalf("got %v, expected full", err)
		}
	}
	if len(w.root.children) != 3 || w.s.Stats().Removed != 3 {
		t.Errorf("%d names, %d removed; expected 3 and 3", len(w.root.children), w.s.Stats().Removed)
	}
	w.s.cfg.Sink = sink
	w.mustTidy(t)
	if len(w.root.children) != 0 || w.s.Stats().Removed != 3 {
		t.Errorf("%d names, %d removed; expected 0 and 3", len(w.root.children), w.s.Stats().Removed)
	}
}

type fullSink struct{ Sink }

func (fullSink) Record(context.Context, vault.Changes) error { return vault.ErrFull }

// The alarm is told once, again while it lasts, and when it is over: when no call
// was told to wait for a while, whatever else succeeded and also if no call comes.
func TestAlarm(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var text bytes.Buffer
	a := alarm{log: slog.New(slog.NewTextHandler(&text, nil)), now: func() time.Time { return now }}
	said := func() (full, over int) {
		defer text.Reset()
		return strings.Count(text.String(), "intake full"), strings.Count(text.String(), "any more")
	}
	for range 20 { // one client, which tries again every 6 s
		a.full()
		now = now.Add(6 * time.Second)
		if a.state().IsZero() {
			t.Fatal("over between two attempts of a client")
		}
	}
	if full, over := said(); full != 1 || over != 0 {
		t.Errorf("full for two minutes: said %d times, over %d", full, over)
	}
	now = now.Add(alarmCalm) // nobody looks, and then another call has to wait
	a.full()
	if full, over := said(); full != 1 || over != 1 {
		t.Errorf("full, over and full again: said %d times, over %d", full, over)
	}
	since := a.state()
	for range 60 {
		now = now.Add(alarmAgain / 50)
		a.full()
	}
	if full, over := said(); full != 1 || over != 0 || a.state() != since {
		t.Errorf("full for twelve minutes more: said %d times, over %d", full, over)
	}
	now = now.Add(alarmCalm)
	for range 2 {
		if at := a.state(); !at.IsZero() {
			t.Errorf("nobody was told to wait for %v, and it is full since %v", alarmCalm, at)
		}
	}
	if _, over := said(); over != 1 {
		t.Errorf("over: said %d times", over)
	}
	now = now.Add(time.Hour)
	for range 3 { // it comes and goes
		a.full()
		now = now.Add(alarmCalm)
		a.state()
	}
	if full, over := said(); full != 2 || over != 2 {
		t.Errorf("three times within 90 s: said %d times, over %d; expected the first and the third", full, over)
	}
	for range 6 {
		a.full()
		now = now.Add(alarmCalm / 2)
	}
	if full, over := said(); full != 1 || over != 0 {
		t.Errorf("again, and it lasts: said %d times, over %d", full, over)
	}
}
