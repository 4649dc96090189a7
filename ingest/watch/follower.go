package watch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"logvault/vault"
)

// follower follows the files of one source.
type follower struct {
	w       *Watcher
	source  vault.Source
	watches []Watch

	texts    []*text            // by stream and generation
	byID     map[Identity]*text // what each file holds now
	ignored  map[Identity]int64 // compressed files, by their Info.Changed
	suspects map[Identity]suspect
	anew     []*text // of this round: begin anew
	roots    []Dir   // open during a round
	problems []error // of the last round
	log      *slog.Logger
	notify   func(dir string) // called before a directory is listed, may be nil
}

// suspect is a file that begins like one that is followed: perhaps the copy of a
// truncation that is about to happen.
type suspect struct {
	size  int64
	since time.Duration // boot time since when it has this size
}

// place is a regular file that a listing found.
type place struct {
	Entry
	dir     Dir
	rel     string // below dir
	path    string
	matches bool
}

// listing is what all directories of a source hold at one moment.
type listing struct {
	files    map[Identity]*place
	devices  map[uint64]bool // of the directories that were listed
	problems []error         // why a directory could not be listed
}

// complete tells whether a file that is not in the listing is nowhere.
func (l *listing) complete() bool { return len(l.problems) == 0 }

func (l *listing) problem(dir string, err error) {
	l.problems = append(l.problems, fmt.Errorf("watching %s: %w", dir, err))
}

func (f *follower) boot() time.Duration { return f.w.cfg.Boot() }

// load reads the records of the source.
func (f *follower) load() error {
	prefix := keyPrefix(f.source)
	err := f.w.cfg.Sink.Meta(prefix, func(kv vault.KV) error {
		r, err := decodeRecord(prefix, kv)
		if err != nil {
			return err
		}
		t := &text{record: r, stored: true, active: f.boot()}
		if t.pos = r.end; !r.done {
			t.pos = r.base + f.w.cfg.Sink.Contiguous(r.stream, r.gen)
		}
		f.texts = append(f.texts, t)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(f.texts, compareTexts)
	for i, t := range f.texts {
		f.byID[t.id] = t
		if i > 0 && f.texts[i-1].stream == t.stream {
			t.after, f.texts[i-1].over = f.texts[i-1], true
		}
	}
	return nil
}

func compareTexts(a, b *text) int {
	return cmp.Or(slices.Compare(a.stream[:], b.stream[:]), cmp.Compare(a.gen, b.gen))
}

// add makes a text followed in its file.
func (f *follower) add(t *text) {
	i, _ := slices.BinarySearchFunc(f.texts, t, compareTexts)
	f.texts = slices.Insert(f.texts, i, t)
	f.byID[t.id] = t
}

// drop forgets a text in memory.
func (f *follower) drop(t *text) {
	t.close()
	f.texts = slices.DeleteFunc(f.texts, func(x *text) bool { return x == t })
	if f.byID[t.id] == t {
		delete(f.byID, t.id)
	}
}

// problem notes a file that could not be read.
func (f *follower) problem(file string, err error) {
	f.problems = append(f.problems, fmt.Errorf("watching %s: %w", file, err))
}

// round looks at everything once.
func (f *follower) round(ctx context.Context) (more bool, err error) {
	defer f.closeRoots()
	l := f.list()
	f.problems = l.problems
	f.bind(l)
	f.anew = nil
	for _, t := range slices.Clone(f.texts) {
		if err := f.look(ctx, t); err != nil {
			return false, err
		}
	}
	// Only now is it known which files nobody follows.
	for _, t := range f.anew {
		if err := f.truncated(ctx, t); err != nil {
			return false, err
		}
	}
	f.adopt(l)
	if more, err = f.take(ctx); err != nil {
		return false, err
	}
	again, err := f.retire(ctx, l)
	return more || again, err
}

func (f *follower) closeRoots() {
	for _, d := range f.roots {
		d.Close() // read-only
	}
	f.roots = nil
}

// list lists the directories of all watches. A file of several names is listed
// once, under one that a pattern chooses if there is one.
func (f *follower) list() *listing {
	l := &listing{files: map[Identity]*place{}, devices: map[uint64]bool{}}
	for _, one := range f.watches {
		d, err := f.w.cfg.Host.OpenDir(one.Directory)
		var device uint64
		if err == nil {
			f.roots = append(f.roots, d)
			device, err = d.Device()
		}
		if err == nil {
			l.devices[device] = true
			err = f.walk(l, one, d, ".")
		}
		if err != nil {
			l.problem(one.Directory, err)
		}
	}
	return l
}

func (f *follower) walk(l *listing, one Watch, d Dir, dir string) error {
	if f.notify != nil {
		f.notify(path.Join(one.Directory, dir))
	}
	entries, err := d.List(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		rel := path.Join(dir, e.Name)
		if e.Dir {
			if !one.leads(rel) {
				continue
			}
			if err := f.walk(l, one, d, rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.problem(path.Join(one.Directory, rel), err)
			}
			continue
		}
		p := &place{Entry: e, dir: d, rel: rel, path: path.Join(one.Directory, rel), matches: one.matches(rel)}
		if old := l.files[e.ID]; old == nil || p.matches && !old.matches {
			l.files[e.ID] = p
		}
	}
	return nil
}

// bind gives each known text the name under which its file is now.
func (f *follower) bind(l *listing) {
	for _, t := range f.texts {
		t.at = nil
	}
	for id, p := range l.files {
		if t := f.byID[id]; t != nil {
			t.at = p
		}
	}
	for id := range f.ignored {
		if l.files[id] == nil {
			delete(f.ignored, id)
		}
	}
	for id := range f.suspects {
		if l.files[id] == nil {
			delete(f.suspects, id)
		}
	}
}

// adopt finds out what the files are that nobody follows.
func (f *follower) adopt(l *listing) {
	var unknown []*place
	for id, p := range l.files {
		// One that changed may be another file, with the inode of the one we ignored.
		if changed, ignored := f.ignored[id]; f.byID[id] == nil && p.matches && !(ignored && changed == p.Changed) {
			unknown = append(unknown, p)
		}
	}
	slices.SortFunc(unknown, func(a, b *place) int { return strings.Compare(a.path, b.path) })
	for _, p := range unknown {
		file, err := p.dir.Open(p.rel)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
			continue // gone since
		}
		if err == nil {
			err = f.recognise(l, p, file)
		}
		if err != nil {
			f.problem(p.path, err)
		}
	}
}

// recognise decides what an open file is, and keeps or closes it.
func (f *follower) recognise(l *listing, p *place, file File) (err error) {
	keep := false
	defer func() {
		if !keep {
			file.Close() // read-only
		}
	}()
	info, err := file.Stat()
	if err != nil || info.ID != p.ID {
		return err // another file has the name by now: the next round sees it
	}
	head, err := readHead(file, maxHead)
	if err != nil {
		return err
	}
	if f.ignore(p.path, info, head) {
		return nil
	}
	known, free := f.find(p.ID, head, l.complete())
	if known != nil && !free {
		if !f.settled(p.ID, info.Size, known) {
			return nil
		}
		known = nil
	}
	delete(f.suspects, p.ID)
	keep = true
	if known == nil {
		id, err := vault.NewStreamID(f.w.cfg.Random)
		if err != nil {
			return fmt.Errorf("drawing a stream id: %w", err)
		}
		known = &text{record: record{stream: id, id: p.ID, sum: vault.HashOf(nil), path: p.path}, active: f.boot()}
		f.add(known)
	} else {
		f.move(known, p.ID)
	}
	known.close()
	known.file, known.at, known.opened = file, p, true
	known.checked, known.size, known.changed = true, info.Size, info.Changed
	known.drained = known.size == known.pos
	known.renamed(p.path)
	return known.extend()
}

// ignore notes a file that is compressed. One that is not, or no longer, is not ignored.
func (f *follower) ignore(path string, info Info, head []byte) bool {
	_, before := f.ignored[info.ID]
	delete(f.ignored, info.ID)
	kind := compressed(head)
	if kind == "" {
		return false
	}
	f.ignored[info.ID] = info.Changed
	if !before {
		f.w.count(func(s *Stats) { s.Compressed++ })
		f.log.Info("a compressed file is not followed", "path", path, "kind", kind)
	}
	return true
}

// settled tells whether a file that begins like the followed text t is a file of
// its own: it has more than that of t, which a copy never has before the
// truncation, or has not grown for a minute.
func (f *follower) settled(id Identity, size int64, t *text) bool {
	if t.file != nil {
		if info, err := t.file.Stat(); err == nil && info.Size >= t.pos && size > info.Size {
			return true
		}
	} else if t.at != nil && size > t.at.Size {
		return true
	}
	old, was := f.suspects[id]
	if !was || old.size != size {
		f.suspects[id] = suspect{size, f.boot()}
		return false
	}
	return f.boot()-old.since >= settle
}

// find returns the text that a file with this head is or repeats, of several that
// of which most is known. free says that the text's own file is gone, so that this
// one takes its place. Only a complete listing shows that a file is gone, unless
// the device has got a new number. A head without a whole line proves nothing.
func (f *follower) find(id Identity, head []byte, complete bool) (found *text, free bool) {
	sums := map[int]vault.Hash{}
	line := bytes.IndexByte(head, '\n') + 1
	for _, t := range f.texts {
		gone := t.at == nil && (t.file == nil || t.drained)
		again := gone && t.id.Inode == id.Inode // under a new device number
		if t.head == 0 || t.head > len(head) || !again && (line == 0 || t.head < line) {
			continue
		}
		sum, ok := sums[t.head]
		if !ok {
			sum = vault.HashOf(head[:t.head])
			sums[t.head] = sum
		}
		gone = again || gone && complete
		if sum == t.sum && (found == nil || t.head > found.head || t.head == found.head && gone && !free) {
			found, free = t, gone
		}
	}
	return found, free
}

// move gives a text another file; its record follows before more is stored.
func (f *follower) move(t *text, to Identity) {
	if f.byID[t.id] == t {
		delete(f.byID, t.id)
	}
	t.id, t.dirty, t.checked = to, true, false
	f.byID[to] = t
	delete(f.suspects, to)
}

// readHead reads the first n bytes of a file, or all of it.
func readHead(file File, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, err := file.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return buf[:got], nil
}

// maxMagic is the length of the longest magic that compressed knows.
const maxMagic = 6

// compressed tells by its magic how a file is compressed, or "".
func compressed(head []byte) string {
	for _, m := range []struct{ kind, magic string }{
		{"gzip", "\x1f\x8b"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ\x00"}, {"bzip2", "BZh"},
	} {
		if strings.HasPrefix(string(head), m.magic) {
			return m.kind
		}
	}
	return ""
}
