package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/vault/dir"
)

// run names one generation of a stream.
type run struct {
	stream vault.StreamID
	gen    int64
}

// runEnd is how far the ledger has a generation.
type runEnd struct {
	end    int64 // offset after its last segment or gap
	closed bool
	joined bool // the last segment ends within a line
}

// story is what the entries of a ledger say to a state that has lost its memory.
// It holds some 60 bytes for each object and each generation.
type story struct {
	policy   *entry.Policy
	policyAt int64
	last     map[vault.Source]time.Time // when its newest sealed byte was received
	runs     map[run]runEnd
	newest   map[vault.StreamID]int64 // the highest generation
	prev     map[vault.StreamID]int64 // index of its last segment or gap entry
	named    map[vault.Hash]struct{}  // objects that some entry names
}

// readStory reads all entries of a proven tree.
func readStory(ctx context.Context, tree *ledger.Tree) (*story, error) {
	s := &story{last: map[vault.Source]time.Time{}, runs: map[run]runEnd{}, newest: map[vault.StreamID]int64{},
		prev: map[vault.StreamID]int64{}, named: map[vault.Hash]struct{}{}}
	err := tree.Entries(ctx, 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		s.add(i, e)
		return ctx.Err()
	})
	if err == nil && s.policy == nil {
		err = errors.New("no policy entry")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return s, nil
}

func (s *story) add(i int64, e entry.Entry) {
	switch e := e.(type) {
	case *entry.Policy:
		s.policy, s.policyAt = e, i
	case *entry.Segment:
		s.named[e.Object], s.named[e.Index] = struct{}{}, struct{}{}
		if e.LastReceived.After(s.last[e.Source]) {
			s.last[e.Source] = e.LastReceived
		}
		s.reach(i, run{e.Stream, e.Gen}, runEnd{e.Offset + e.Span, e.Closed, e.Cut == entry.CutLong})
	case *entry.Gap:
		s.reach(i, run{e.Stream, e.Gen}, runEnd{end: e.Offset + e.Span})
	case *entry.Orphan:
		s.named[e.Object] = struct{}{}
	}
}

func (s *story) reach(i int64, r run, to runEnd) {
	s.runs[r], s.prev[r.stream] = to, i
	s.newest[r.stream] = max(s.newest[r.stream], r.gen)
}

// newestReceived tells for each source of the policy how far its sealed bytes go.
func (s *story) newestReceived() []LastReceived {
	var all []LastReceived
	for _, src := range s.policy.Sources {
		all = append(all, LastReceived{src.Name, s.last[src.Name]})
	}
	return all
}

// adopt brings the ledger of record from its size from to the head of tree, which
// is that of the vault, proven under a pinned key.
//
//	bundles and tiles as recomputed, each durable; checkpoint, the commit point; superseded partial tiles go
//
// A crash before the checkpoint leaves files beyond the old head, with the bytes
// that the next try writes; after it, partial tiles that nothing reads.
func adopt(ctx context.Context, record *dir.Store, tree *ledger.Tree, from int64) error {
	err := tree.Files(ctx, from, func(name string, data []byte) error {
		if vault.IsMutable(name) {
			return record.Replace(ctx, name, data)
		}
		put := func() error { return record.Put(ctx, name, int64(len(data)), bytes.NewReader(data)) }
		err := put()
		if errors.Is(err, vault.ErrConflict) { // of a batch that was never committed
			if err = record.RemoveTail(ctx, name); err == nil {
				err = put()
			}
		}
		return err
	})
	if err == nil {
		err = record.Replace(ctx, vault.CheckpointName(vault.LedgerPrefix), tree.Checkpoint().Raw)
	}
	if err == nil {
		err = dropPartials(ctx, record, tree.Size())
	}
	if err != nil {
		return fmt.Errorf("taking over the ledger of the vault: %w", err)
	}
	return nil
}

// dropPartials removes the partial tiles that a ledger of a size does not have.
func dropPartials(ctx context.Context, record *dir.Store, size int64) error {
	var old []string
	err := record.List(ctx, vault.LedgerPrefix+"tile/", func(info vault.Info) error {
		o, err := vault.ParseName(info.Name)
		if err != nil || o.Kind != vault.KindPartialTile && o.Kind != vault.KindPartialBundle {
			return nil
		}
		if hashes := size >> (8 * o.Level); hashes/vault.TileWidth != o.Number || hashes%vault.TileWidth != int64(o.Width) {
			old = append(old, info.Name)
		}
		return nil
	})
	for _, name := range old {
		if err == nil {
			err = record.RemovePartial(ctx, name)
		}
	}
	return err
}

// recordOrphans names in the ledger the objects of a vault that no entry names
// and no intent will: what the gateway of a lost state stored last. It returns
// how many.
func recordOrphans(ctx context.Context, env Env, log *ledger.Log, store vault.Reader, s *story, pending []vault.Intent) (int, error) {
	for _, in := range pending {
		if e, err := entry.Decode(in.Entry); err == nil {
			s.add(-1, e)
		}
	}
	var found [][]byte
	err := store.List(ctx, "segments/", func(info vault.Info) error {
		o, err := vault.ParseName(info.Name)
		if err != nil {
			return nil // verify names it
		}
		if _, ok := s.named[o.Hash]; ok {
			return nil
		}
		data, err := entry.Encode(&entry.Orphan{Header: entry.Header{Time: env.Now(), Actor: ActorGateway}, Object: o.Hash, Name: o.Name})
		found = append(found, data)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("looking for objects without an entry: %w", err)
	}
	for n := 0; n < len(found); n += ledger.MaxBatch {
		if _, err := log.Append(ctx, found[n:min(n+ledger.MaxBatch, len(found))]...); err != nil {
			return n, fmt.Errorf("recording objects without an entry: %w", err)
		}
	}
	return len(found), nil
}
