package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate/volume"
	"logvault/vault"
	"logvault/vault/dir"
)

// copyWait bounds how long copies are looked at: one that does not answer must
// not hold up what is known of the others.
const copyWait = 15 * time.Second

// Answers calls look for each of n places, for all at the same time, and returns
// what they answer within d. A place that does not is given what silent makes of
// an error that wraps syscall.ETIMEDOUT: a call to a dead mount ends with the
// process only.
func Answers[T any](ctx context.Context, n int, d time.Duration, look func(ctx context.Context, i int) T, silent func(i int, err error) T) []T {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	said := make([]chan T, n)
	for i := range n {
		said[i] = make(chan T, 1)
		go func() { said[i] <- look(ctx, i) }() // ends with look, or with the process
	}
	all := make([]T, n)
	for i := range n {
		select {
		case all[i] = <-said[i]:
			continue
		case <-ctx.Done():
		}
		grace := time.NewTimer(answerGrace)
		select { // one that ends with its context says itself what it found
		case all[i] = <-said[i]:
		case <-grace.C:
			all[i] = silent(i, errSilent)
		}
		grace.Stop()
	}
	return all
}

// answerGrace is how long those that heed their context have to say so.
const answerGrace = time.Second

// CopyStatus is the state of one copy at one moment.
type CopyStatus struct {
	Name  string `json:"name"`
	Place string `json:"place,omitempty"`
	Media string `json:"media"`
	Site  string `json:"site,omitempty"`
	// Problem says why nothing or not all could be found out. It is no error of status.
	Problem string `json:"problem,omitempty"`
	// Size is the ledger up to which this copy is known to hold everything: by
	// its own pinned log, for the primary by its checkpoint, for volumes by
	// their catalogue.
	Size int64 `json:"ledger_size"`
	// At is when it last vouched for that.
	At time.Time `json:"held_at,omitzero"`
	// Cosigned is the largest size that its pinned key has cosigned, and when.
	Cosigned   int64     `json:"cosigned_size"`
	CosignedAt time.Time `json:"cosigned_at,omitzero"`
	// Level is how it says to protect what it holds: none, mode, flag or objectlock.
	Level vault.Level `json:"level,omitempty"`
	// Erasable says whether what is due can be made unreadable there: yes, no or
	// unknown, and Why.
	Erasable string `json:"erasable"`
	Why      string `json:"why"`
}

// CopiesStatus tells how safe the archive is.
type CopiesStatus struct {
	Copies []CopyStatus `json:"copies"`
	// Whole counts the copies that hold something, Media and Sites their kinds and places.
	Whole int `json:"copies_whole"`
	Media int `json:"media"`
	Sites int `json:"sites"`
	// Single counts what only the primary holds: entries, the bytes of their
	// objects, and since when.
	Single      int64     `json:"single_entries"`
	SingleBytes int64     `json:"single_bytes"`
	SingleSince time.Time `json:"single_since,omitzero"`
}

// Good tells whether there are three copies, on two kinds of media, at two sites.
func (c *CopiesStatus) Good() bool { return c.Whole >= 3 && c.Media >= 2 && c.Sites >= 2 }

// survey is the work of SurveyCopies.
type survey struct {
	env   Env
	cfg   *config.Config
	trust *ledger.Trust
	tree  *ledger.Tree // of record
}

// SurveyCopies looks at every declared copy. It reads the ledger of record beside
// a running `serve`, and changes nothing. A copy that cannot be reached, or whose
// log is not by a pinned key, is a Problem and not an error.
func SurveyCopies(ctx context.Context, env Env, c *config.Config) (*CopiesStatus, error) {
	s := &survey{env: env, cfg: c}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	st := &CopiesStatus{}
	declared := slices.Clone(c.Copies)
	if !slices.ContainsFunc(declared, func(k config.Copy) bool { return k.Name == config.Primary }) {
		declared = append([]config.Copy{{Name: config.Primary, Media: "disk"}}, declared...)
	}
	st.Copies = Answers(ctx, len(declared), copyWait,
		func(ctx context.Context, i int) CopyStatus { own := *s; return own.look(ctx, declared[i]) },
		func(i int, err error) CopyStatus { return s.unknown(declared[i], err) })
	st.count()
	return st, s.single(ctx, st)
}

// open reads the head of the ledger of record.
func (s *survey) open(ctx context.Context) error {
	trust, err := config.LoadTrust(s.env.FS, paths(s.cfg.State).trust())
	if err != nil {
		return err
	}
	record, err := dir.At(s.env.FS, s.cfg.State)
	if err != nil {
		return err
	}
	if s.tree, err = ledger.OpenTree(ctx, record, vault.LedgerPrefix, trust); err != nil {
		return fmt.Errorf("opening the ledger of record: %w", err)
	}
	s.trust = s.tree.Trust()
	return nil
}

// count judges 3-2-1 by the copies that hold something.
func (c *CopiesStatus) count() {
	media, sites := map[string]bool{}, map[string]bool{}
	for _, k := range c.Copies {
		if k.Size == 0 {
			continue
		}
		c.Whole++
		media[k.Media] = true
		if k.Site != "" {
			sites[k.Site] = true
		}
	}
	c.Media, c.Sites = len(media), len(sites)
}

// single finds what no other copy holds.
func (s *survey) single(ctx context.Context, st *CopiesStatus) error {
	held := int64(0)
	for _, k := range st.Copies {
		if k.Name != config.Primary {
			held = max(held, min(k.Size, s.tree.Size()))
		}
	}
	st.Single = s.tree.Size() - held
	return s.tree.Entries(ctx, held, s.tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if i == held {
			st.SingleSince = e.Head().Time
		}
		if g, ok := e.(*entry.Segment); ok {
			st.SingleBytes += g.Size + g.IndexSize
		}
		return nil
	})
}

// unknown is a copy of which nothing was found out.
func (s *survey) unknown(k config.Copy, err error) CopyStatus {
	st := CopyStatus{Name: k.Name, Place: k.Place, Media: k.Media, Site: k.Site, Erasable: "unknown", Why: "it could not be looked at"}
	if k.Name == config.Primary {
		st.Place = s.cfg.Vault
	}
	if err != nil {
		st.Problem = err.Error()
	}
	return st
}

// look finds out about one copy.
func (s *survey) look(ctx context.Context, k config.Copy) CopyStatus {
	st := s.unknown(k, nil)
	var err error
	switch {
	case k.Name == config.Primary:
		err = s.vault(ctx, &st, true)
	case k.Volumes != "":
		err = s.volumes(&st, k.Volumes)
	case k.Place != "":
		err = s.vault(ctx, &st, false)
	default:
		err = errors.New("it has no place that can be looked at from here")
	}
	if err != nil {
		st.Problem = err.Error()
	}
	return st
}

// volumes takes a catalogue of offline volumes for what it says.
func (s *survey) volumes(st *CopyStatus, file string) error {
	st.Place = file
	c, err := volume.Load(s.env.FS, file)
	if err != nil {
		return err
	}
	if len(c.Volumes) == 0 {
		return errors.New("no volume was written yet")
	}
	if c.Origin != s.trust.Origin {
		return fmt.Errorf("the volumes are of %s, expected %s", c.Origin, s.trust.Origin)
	}
	st.Size, st.At = c.Next(), c.Volumes[len(c.Volumes)-1].Made
	st.Erasable, st.Why = "yes", "it holds no keys"
	return nil
}

// vault looks at a copy that is a vault.
func (s *survey) vault(ctx context.Context, st *CopyStatus, primary bool) error {
	store, err := s.env.Stores.Open(ctx, st.Place)
	if err != nil {
		return err
	}
	if c, ok := store.(io.Closer); ok {
		defer c.Close() // read-only: nothing to lose
	}
	tree, err := ledger.OpenTree(ctx, store, vault.LedgerPrefix, s.trust)
	if err != nil {
		return err
	}
	if err := s.contains(ctx, tree); err != nil {
		return err
	}
	if err := s.erasable(ctx, st, store); err != nil {
		return err
	}
	if primary {
		st.Size = tree.Size()
		return nil
	}
	return errors.Join(s.copyLog(ctx, st, store), s.cosigned(ctx, st, store))
}

// contains checks that a copy tells the same history.
func (s *survey) contains(ctx context.Context, tree *ledger.Tree) error {
	if tree.Size() > s.tree.Size() { // `serve` may have sealed since
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	if tree.Size() > s.tree.Size() {
		return fmt.Errorf("it has %d entries, the ledger of record %d: %w", tree.Size(), s.tree.Size(), ledger.ErrBehind)
	}
	root, err := s.tree.RootAt(ctx, tree.Size())
	if err == nil && root != tree.Root() {
		err = ledger.ErrForked
	}
	return err
}

// copyLog reads what the copy's own log says last.
func (s *survey) copyLog(ctx context.Context, st *CopyStatus, store vault.Reader) error {
	trust, prefix := s.trust.CopyLog(st.Name), vault.CopyLogPrefix(st.Name)
	if trust == nil {
		return fmt.Errorf("trust.toml has no key of the log of copy %s: what it says of itself does not count", st.Name)
	}
	log, err := ledger.OpenTree(ctx, store, prefix, trust)
	if err != nil {
		return fmt.Errorf("its log: %w", err)
	}
	st.Level = vault.LevelNone
	return log.Entries(ctx, 0, log.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		switch e := e.(type) {
		case *entry.Held:
			st.Size, st.At = e.Size, e.Time
		case *entry.Lock:
			st.Level = map[string]vault.Level{entry.LockMode: vault.LevelMode, entry.LockImmutable: vault.LevelFlag, entry.LockObject: vault.LevelLock}[e.Mode]
		}
		return err
	})
}

// cosigned finds the last cosignature by a pinned key of this copy.
func (s *survey) cosigned(ctx context.Context, st *CopyStatus, store vault.Reader) error {
	name := s.trust.Origin + "/copy/" + st.Name
	var keys []string
	for _, k := range slices.Concat(s.trust.Copies, s.trust.Witnesses) {
		if strings.HasPrefix(k.Key, name+"+") {
			keys = append(keys, k.Key)
		}
	}
	var found []vault.Object
	err := store.List(ctx, vault.LedgerPrefix+"cosignatures/", func(i vault.Info) error {
		if o, err := vault.ParseName(i.Name); err == nil && o.Size <= s.tree.Size() {
			found = append(found, o)
		}
		return ctx.Err()
	})
	slices.SortFunc(found, func(a, b vault.Object) int { return int(b.Size - a.Size) })
	for _, o := range found {
		if at, ok := s.verified(ctx, store, o, keys); ok {
			st.Cosigned, st.CosignedAt = o.Size, at
			return nil
		}
	}
	return err
}

func (s *survey) verified(ctx context.Context, store vault.Reader, o vault.Object, keys []string) (at time.Time, ok bool) {
	line, err := vault.ReadAll(ctx, store, o.Name, 4096)
	if err != nil {
		return at, false
	}
	root, err := s.tree.RootAt(ctx, o.Size)
	if err != nil {
		return at, false
	}
	head := ledger.Checkpoint{Origin: s.trust.Origin, Size: o.Size, Root: root}
	for _, key := range keys {
		if at, err := ledger.VerifyCosignature(head, line, key); err == nil {
			return at, true
		}
	}
	return at, false
}

// erasable finds out whether what is due can be made unreadable in this copy:
// not while snapshots keep its keys.
func (s *survey) erasable(ctx context.Context, st *CopyStatus, store vault.Reader) error {
	some := errors.New("there are some")
	err := store.List(ctx, "keys/", func(vault.Info) error { return some })
	switch {
	case err == nil:
		st.Erasable, st.Why = "yes", "it holds no keys"
		return nil
	case !errors.Is(err, some):
		return err
	}
	st.Erasable, st.Why = "yes", "its keys lie in no snapshot that can be seen"
	if strings.Contains(st.Place, "://") {
		st.Erasable, st.Why = "unknown", "whether its server keeps snapshots or versions of keys/ cannot be seen from here"
		return nil
	}
	if dirs := snapshotDirs(s.env.FS, path.Join(st.Place, "keys")); len(dirs) > 0 {
		st.Erasable, st.Why = "no", fmt.Sprintf("keys/ is in %d snapshots, such as %s", len(dirs), dirs[0])
	}
	return nil
}

// snapshotDirs lists the directories in which snapshots of ZFS (.zfs/snapshot),
// snapper (.snapshots) or a filer (.snapshot) hold an earlier state of a
// directory, as far as they can be seen beside it or above.
func snapshotDirs(fsys vfs.FS, name string) (found []string) {
	name = path.Clean(name)
	for at := name; ; at = path.Dir(at) {
		below := strings.TrimPrefix(strings.TrimPrefix(name, at), "/")
		for _, form := range []struct{ dir, inside string }{{".zfs/snapshot", ""}, {".snapshots", "snapshot"}, {".snapshots", ""}, {".snapshot", ""}} {
			list, err := fsys.ReadDir(path.Join(at, form.dir))
			if err != nil {
				continue
			}
			for _, e := range list {
				old := path.Join(at, form.dir, e.Name(), form.inside, below)
				if info, err := fsys.Stat(old); err == nil && info.IsDir() {
					found = append(found, old)
				}
			}
		}
		if at == path.Dir(at) {
			return found
		}
	}
}
