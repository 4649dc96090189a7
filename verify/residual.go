package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"logvault/ledger/entry"
	"logvault/vault"
)

// Place is somewhere that may keep what a vault no longer holds: snapshots, old
// versions of a bucket, a backup of other software, any directory.
type Place interface {
	// Name is what findings call it.
	Name() string
	// Walk calls fn for each file below, with its path for findings, until fn
	// returns an error, which it returns.
	Walk(ctx context.Context, fn func(file File) error) error
}

// File is one file, or one version of an object, of a Place.
type File struct {
	Path string // the last element is compared with the names of objects
	Size int64
	Open func() (io.ReadCloser, error)
}

// wrapRead bounds what is hashed because it may be a wrap under another name.
const wrapRead = 64 << 10

// residual is what must not be found in a Place any more, or not for long.
type residual struct {
	a       *audit
	due     map[vault.Hash]string // objects that must be destroyed, with their names
	sizes   map[int64]bool        // of those
	wraps   map[vault.Hash]string // of every period key
	dead    map[vault.Hash]bool   // wraps whose key must be destroyed
	scanned int64
}

// residuals looks in every Place for the bytes of destroyed objects, by name and,
// where a file has the size of one, by hash; and for any wrap: it keeps readable
// what it opens for as long as it lies there.
func (a *audit) residuals(ctx context.Context) {
	r := &residual{a: a, due: map[vault.Hash]string{}, sizes: map[int64]bool{}, wraps: map[vault.Hash]string{}, dead: map[vault.Hash]bool{}}
	if err := r.collect(ctx); err != nil {
		a.incomplete("", "reading the entries again: "+err.Error())
		return
	}
	for _, p := range a.o.Residual {
		err := p.Walk(ctx, func(f File) error {
			r.look(p.Name(), f)
			return ctx.Err()
		})
		if err != nil && ctx.Err() == nil {
			a.incomplete(p.Name(), "looking for residual bytes: "+err.Error())
		}
	}
	a.sum.Scanned = r.scanned
}

// collect finds out what is due, and which wraps there are.
func (r *residual) collect(ctx context.Context) error {
	live := map[int64]bool{}
	sealed := map[int64]bool{}
	err := r.a.tree.Entries(ctx, 0, r.a.hist.next, func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		s, ok := e.(*entry.Segment)
		if err != nil || !ok {
			return ctx.Err() // what does not decode is reported already
		}
		sealed[s.Key] = true
		if !r.a.judgeAt(s) {
			live[s.Key] = true
			return nil
		}
		r.due[s.Object], r.due[s.Index] = vault.SegmentName(s.Day, s.Object, s.Codec), vault.IndexName(s.Day, s.Index)
		r.sizes[s.Size], r.sizes[s.IndexSize] = true, true
		return nil
	})
	for i, k := range r.a.hist.keys {
		for _, w := range k.wraps {
			r.wraps[w.hash] = vault.WrapName(k.day, k.class, k.public, w.hash)
			r.dead[w.hash] = k.destroyed || sealed[i] && !live[i]
		}
	}
	return err
}

// judgeAt tells whether a segment is due at the time of the audit.
func (a *audit) judgeAt(s *entry.Segment) bool {
	return !a.o.Now.Before(s.RetainUntil) && a.hist.window.Judge(s, a.o.Now).Due
}

// look judges one file.
func (r *residual) look(place string, f File) {
	r.scanned++
	base, _, _ := strings.Cut(path.Base(f.Path), ".")
	if hash, err := vault.ParseHash(base); err == nil && r.found(hash, f.Path, "by its name") {
		return
	}
	if !r.sizes[f.Size] && f.Size > wrapRead {
		return
	}
	hash, err := r.hash(f)
	switch {
	case errors.Is(err, vault.ErrNotExist): // gone since it was listed
	case err != nil:
		r.a.find(codeUnreadable, f.Path, -1, "in "+place+": "+err.Error())
	default:
		r.found(hash, f.Path, "by its bytes")
	}
}

func (r *residual) hash(f File) (hash vault.Hash, err error) {
	rc, err := f.Open()
	if err != nil {
		return hash, err
	}
	defer rc.Close() // read-only: nothing to lose
	h := sha256.New()
	_, err = io.Copy(h, io.LimitReader(rc, f.Size))
	h.Sum(hash[:0])
	return hash, err
}

// found reports a hash that should not be there.
func (r *residual) found(hash vault.Hash, file, how string) bool {
	if name, ok := r.due[hash]; ok {
		r.a.find(codeResidual, file, -1, fmt.Sprintf("%s, which must be destroyed, is here (%s)", name, how))
		return true
	}
	name, ok := r.wraps[hash]
	switch {
	case !ok:
		return false
	case r.dead[hash]:
		r.a.find(codeResidual, file, -1, fmt.Sprintf("a wrap of a destroyed period key is here (%s): %s", how, name))
	default:
		r.a.emit(Finding{Code: codeResidual, Level: Warning, Object: file, Entry: -1, Detail: fmt.Sprintf("a wrap is here (%s), and outlives its period key unless this goes before: %s", how, name)})
	}
	return true
}
