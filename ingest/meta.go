package ingest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"logvault/vault"
)

// maxName bounds the name of a stream and a metadata key, in bytes.
const maxName = 32 << 10

// Record makes changes of the tables, all or none of them: durable on return.
// Together they fit a group of 1 MiB.
//
//	one group, fdatasync   | crash before: none of them; after: all
//
// Errors: ErrNoStream (of Rename or End; Over ignores what is unknown), and
// vault.ErrFull: there is no room, or the table would grow beyond its limit.
// What ends a generation is taken by a full spool too, because it lets the
// sealer free room; who ends them without end does not get what the sealer needs.
func (s *Spool) Record(ctx context.Context, c vault.Changes) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	need, err := changesSize(c)
	if err != nil {
		return err
	}
	room := forIntake
	if len(c.End)+len(c.Over) > 0 {
		room = forEnds
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reserve(need, room); err != nil {
		return err
	}
	if err := s.checkChanges(c); err != nil {
		return err
	}
	if grow := s.growth(c); grow > 0 && room == forIntake {
		if err := s.mayGrow(grow); err != nil {
			return err
		}
	}
	s.change(c)
	return s.syncTo(s.last())
}

// changesSize returns the bytes of the records of changes, at most.
func changesSize(c vault.Changes) (need int, err error) {
	for _, list := range [][]vault.StreamInfo{c.Add, c.Rename} {
		for _, info := range list {
			if len(info.Name) > maxName {
				return 0, fmt.Errorf("stream %s: name of %d bytes, expected at most %d", info.ID, len(info.Name), maxName)
			}
			need += 512 + len(info.Name)
		}
	}
	for _, info := range c.Add {
		if err := info.Source.Valid(); err != nil {
			return 0, fmt.Errorf("adding stream %s: %w", info.ID, err)
		}
	}
	for _, e := range c.End {
		if e.Gen < 0 || e.Gen >= maxOffset {
			return 0, fmt.Errorf("ending generation %d of stream %s: expected 0 to %d", e.Gen, e.Stream, int64(maxOffset-1))
		}
		need += 512
	}
	need += (recordHead + 16) * len(c.Over)
	for _, kv := range c.Set {
		if len(kv.Key) > maxName {
			return 0, fmt.Errorf("metadata key of %d bytes, expected at most %d", len(kv.Key), maxName)
		}
		need += recordHead + 4 + len(kv.Key) + len(kv.Value)
	}
	return need, nil
}

// checkChanges finds what forbids changes, before any is made. mu is held.
func (s *Spool) checkChanges(c vault.Changes) error {
	added := map[vault.StreamID]bool{}
	for _, info := range c.Add {
		added[info.ID] = true
		if st := s.table.stream(info.ID); st != nil && st.Source != info.Source {
			return fmt.Errorf("adding stream %s: source %s, expected %s", info.ID, info.Source, st.Source)
		}
	}
	known := func(id vault.StreamID) error {
		if s.table.stream(id) == nil && !added[id] {
			return fmt.Errorf("%w: %s", ErrNoStream, id)
		}
		return nil
	}
	for _, info := range c.Rename {
		if err := known(info.ID); err != nil {
			return err
		}
	}
	for _, e := range c.End {
		if err := known(e.Stream); err != nil {
			return err
		}
	}
	return nil
}

// growth returns by how much changes make the table grow, at most. mu is held.
func (s *Spool) growth(c vault.Changes) int {
	n := 0
	for _, info := range c.Add {
		if s.table.stream(info.ID) == nil {
			n += streamBytes + len(info.Name)
		}
	}
	for _, info := range c.Rename {
		n += len(info.Name)
		if st := s.table.stream(info.ID); st != nil {
			n -= len(st.Name)
		}
	}
	for _, kv := range c.Set {
		old, ok := s.table.kv[kv.Key]
		if ok {
			n -= len(kv.Key) + len(old) + kvBytes
		}
		if kv.Value != nil {
			n += len(kv.Key) + len(kv.Value) + kvBytes
		}
	}
	return n
}

// change makes changes that were checked and have room. mu is held.
func (s *Spool) change(c vault.Changes) {
	for _, info := range c.Add {
		if s.table.stream(info.ID) == nil {
			info.Name = bytes.Clone(info.Name)
			s.appendMeta(s.table.addStream(info).streamRecord.append)
		}
	}
	for _, info := range c.Rename {
		st := s.table.stream(info.ID)
		st.Name = bytes.Clone(info.Name)
		s.appendMeta(st.streamRecord.append)
	}
	for _, e := range c.End {
		s.endGeneration(s.table.stream(e.Stream), e.Gen)
	}
	for _, id := range c.Over {
		if st := s.table.stream(id); st != nil {
			st.over = true
			s.appendMeta(st.appendOver)
		}
	}
	for _, kv := range c.Set {
		if kv.Value != nil {
			kv.Value = append([]byte{}, kv.Value...)
		}
		s.table.setKV(kv)
		s.appendMeta(func(b []byte) []byte { return appendKV(b, kv) })
	}
}

func (s *Spool) endGeneration(st *stream, gen int64) {
	if st.gen(gen) == nil && gen < st.nextGen {
		return // over and forgotten
	}
	g := st.addGen(gen)
	if !g.ended.IsZero() {
		return
	}
	g.ended, g.unstable = s.cfg.Now(), nil
	s.appendMeta(g.genRecord.append)
	s.trim(g)
}

// AddStream makes a stream known, durably. Adding it again changes nothing.
func (s *Spool) AddStream(ctx context.Context, info vault.StreamInfo) error {
	return s.Record(ctx, vault.Changes{Add: []vault.StreamInfo{info}})
}

// EndGeneration ends a generation, durably, with everything that was written to
// it. What comes for it later is archived in the stream's conflict stream.
func (s *Spool) EndGeneration(ctx context.Context, id vault.StreamID, gen int64) error {
	return s.Record(ctx, vault.Changes{End: []vault.Generation{{Stream: id, Gen: gen}}})
}

// SetMeta sets or, with a nil Value, removes metadata of others, durably.
func (s *Spool) SetMeta(ctx context.Context, kvs ...vault.KV) error {
	return s.Record(ctx, vault.Changes{Set: kvs})
}

// Meta calls fn for the metadata whose key begins with prefix, in the order of
// keys, as of the call. It stops at fn's first error and returns it.
func (s *Spool) Meta(prefix string, fn func(vault.KV) error) error {
	s.mu.Lock()
	var found []vault.KV
	for k, v := range s.table.kv {
		if strings.HasPrefix(k, prefix) {
			found = append(found, vault.KV{Key: k, Value: v}) // values are replaced, never changed
		}
	}
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b vault.KV) int { return strings.Compare(a.Key, b.Key) })
	for _, kv := range found {
		if err := fn(kv); err != nil {
			return err
		}
	}
	return nil
}
