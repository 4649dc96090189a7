package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
)

// secrets opens period keys, each once: an auditor's card is asked once per day
// of data, not once per segment.
type secrets struct {
	a  *audit
	mu sync.Mutex // held while a key is opened, so that no card is asked twice
	m  map[int64]*pgp.Secret
}

func newSecrets(a *audit) *secrets { return &secrets{a: a, m: make(map[int64]*pgp.Secret)} }

// get returns the secret of the key entry, or nil after reporting why not, once.
func (s *secrets) get(ctx context.Context, key int64) *pgp.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret, ok := s.m[key]; ok {
		return secret
	}
	secret := s.open(ctx, key)
	s.m[key] = secret
	return secret
}

// open tries the wraps of a key in turn: the auditor may be a recipient of any.
func (s *secrets) open(ctx context.Context, key int64) *pgp.Secret {
	k := s.a.hist.keys[key]
	if k == nil {
		return nil // reported by segment
	}
	name, err := "", error(vault.ErrNotExist)
	for _, w := range k.wraps {
		name = vault.WrapName(k.day, k.class, k.public, w.hash)
		var secret *pgp.Secret
		if secret, err = s.unwrap(ctx, name, w.hash); err != nil {
			continue
		}
		if got := secret.PublicHash(); got != k.public {
			secret.Destroy()
			s.a.differ(codeUndecryptable, name, key, "the wrap holds another period key", k.public.String(), got.String())
			return nil
		}
		return secret
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, pgp.ErrWrongKey), errors.Is(err, vault.ErrNotExist):
		s.a.incomplete(name, fmt.Sprintf("what is sealed to the key of entry %d was not opened: %v", key, err))
	default:
		s.a.find(codeUndecryptable, name, key, err.Error())
	}
	return nil
}

func (s *secrets) unwrap(ctx context.Context, name string, hash vault.Hash) (*pgp.Secret, error) {
	data, err := vault.ReadAll(ctx, s.a.o.Vault, name, messageLimit)
	if err != nil {
		return nil, err
	}
	if got := vault.HashOf(data); got != hash {
		return nil, fmt.Errorf("wrap: SHA-256 %s, expected %s", got, hash)
	}
	content, err := s.a.o.Opener.Open(ctx, data)
	if err != nil {
		return nil, err
	}
	return pgp.OpenSecret(content)
}

// destroy overwrites all opened secrets.
func (s *secrets) destroy() {
	for _, secret := range s.m {
		if secret != nil {
			secret.Destroy()
		}
	}
}

// content opens a segment whose bytes are intact and compares what it says with
// its entry and its index.
func (w *worker) content(ctx context.Context, j job, object, index string) {
	secret := w.secrets.get(ctx, j.entry.Key)
	if secret == nil {
		return
	}
	ix, err := w.index(ctx, index, secret)
	if errors.Is(err, vault.ErrNewer) {
		w.a.find(codeNeedsNewer, index, j.index, err.Error())
		return
	}
	if err != nil {
		w.a.find(codeUndecryptable, index, j.index, err.Error())
		return
	}
	w.compare(j, index, ix)
	rc, _, err := w.a.o.Vault.Open(ctx, object)
	if err != nil {
		w.a.unread(object, j.index, err)
		return
	}
	defer rc.Close() // read-only: nothing to lose
	w.text(j, object, index, rc, secret, ix)
}

func (w *worker) index(ctx context.Context, name string, secret *pgp.Secret) (*segment.Index, error) {
	rc, _, err := w.a.o.Vault.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer rc.Close() // read-only: nothing to lose
	return segment.DecodeIndex(rc, secret)
}

// compare checks what the index repeats of the entry.
func (w *worker) compare(j job, name string, ix *segment.Index) {
	e := j.entry
	differ := func(what string, want, got any) {
		if want != got {
			w.a.differ(codeContent, name, j.index, "index: "+what, fmt.Sprint(want), fmt.Sprint(got))
		}
	}
	differ("lines", e.Lines, ix.Lines)
	differ("source", e.Source, ix.Source)
	differ("stream", e.Stream, ix.Stream)
	differ("generation", e.Gen, ix.Gen)
	differ("offset", e.Offset, ix.Offset)
	differ("first event", stamp(e.FirstEvent), stamp(ix.FirstEvent))
	differ("last event", stamp(e.LastEvent), stamp(ix.LastEvent))
}

// text decodes the whole text once, streaming it to the line tree and to the
// recomputation of the index.
func (w *worker) text(j job, object, index string, r io.Reader, secret *pgp.Secret, ix *segment.Index) {
	toRoot, rootWriter := io.Pipe()
	toIndex, indexWriter := io.Pipe()
	var root vault.Hash
	var lines int64
	var rootErr, indexErr error
	var readers sync.WaitGroup
	readers.Go(func() {
		root, lines, rootErr = segment.LineRoot(ix.Secret, toRoot)
		toRoot.CloseWithError(io.ErrClosedPipe) // a reader that gave up must not block the decoder
	})
	readers.Go(func() {
		indexErr = ix.Check(toIndex)
		toIndex.CloseWithError(io.ErrClosedPipe)
	})
	raw, err := segment.Decode(io.MultiWriter(tolerant{rootWriter}, tolerant{indexWriter}), r, secret, j.entry.Codec)
	rootWriter.CloseWithError(err) // nil: io.EOF
	indexWriter.CloseWithError(err)
	readers.Wait()
	w.judgeText(j, object, index, raw, err, root, lines, rootErr, indexErr)
}

// tolerant goes on when its reader has given up: the others still want the text.
type tolerant struct{ w *io.PipeWriter }

// Write never fails because of the reader.
func (t tolerant) Write(p []byte) (int, error) {
	if _, err := t.w.Write(p); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return 0, err
	}
	return len(p), nil
}

func (w *worker) judgeText(j job, object, index string, raw int64, err error, root vault.Hash, lines int64, rootErr, indexErr error) {
	e := j.entry
	switch {
	case err != nil:
		w.a.find(codeUndecryptable, object, j.index, err.Error())
	case rootErr != nil:
		w.a.find(codeContent, object, j.index, "line tree: "+rootErr.Error())
	case raw != e.Raw:
		w.a.differ(codeContent, object, j.index, "text", bytes(e.Raw), bytes(raw))
	case lines != e.Lines:
		w.a.differ(codeContent, object, j.index, "lines", fmt.Sprint(e.Lines), fmt.Sprint(lines))
	case root != e.Root:
		w.a.differ(codeContent, object, j.index, "line root", e.Root.String(), root.String())
	case indexErr != nil:
		w.a.find(codeContent, index, j.index, "index: "+indexErr.Error())
	}
}
