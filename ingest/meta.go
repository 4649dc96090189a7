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

// record makes metadata records durable: it reserves need bytes, lets change
// update the tables and write its records into one group, and syncs it.
func (s *Spool) record(ctx context.Context, need int, p purpose, change func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reserve(need, p); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return s.syncTo(s.last())
}

// AddStream makes a stream known, durably. Adding it again changes nothing.
func (s *Spool) AddStream(ctx context.Context, info vault.StreamInfo) error {
	if err := info.Source.Valid(); err != nil {
		return fmt.Errorf("adding stream %s: %w", info.ID, err)
	}
	if len(info.Name) > maxName {
		return fmt.Errorf("adding stream %s: name of %d bytes, expected at most %d", info.ID, len(info.Name), maxName)
	}
	return s.record(ctx, 512+len(info.Name), forIntake, func() error {
		if st := s.table.stream(info.ID); st != nil {
			if st.Source != info.Source {
				return fmt.Errorf("adding stream %s: source %s, expected %s", info.ID, info.Source, st.Source)
			}
			return nil
		}
		if err := s.mayGrow(streamBytes + len(info.Name)); err != nil {
			return err
		}
		info.Name = bytes.Clone(info.Name)
		s.appendMeta(s.table.addStream(info).streamRecord.append)
		return nil
	})
}

// RenameStream changes the name that later pieces of a stream carry, durably.
func (s *Spool) RenameStream(ctx context.Context, id vault.StreamID, name []byte) error {
	if len(name) > maxName {
		return fmt.Errorf("renaming stream %s: name of %d bytes, expected at most %d", id, len(name), maxName)
	}
	return s.record(ctx, 512+len(name), forIntake, func() error {
		st := s.table.stream(id)
		if st == nil {
			return fmt.Errorf("%w: %s", ErrNoStream, id)
		}
		if err := s.mayGrow(len(name)); err != nil {
			return err
		}
		st.Name = bytes.Clone(name)
		s.appendMeta(st.streamRecord.append)
		return nil
	})
}

// EndGeneration ends a generation, durably, with everything that was written to
// it. What comes for it later is archived in the stream's conflict stream.
// A full spool takes it too: it lets the sealer free room.
func (s *Spool) EndGeneration(ctx context.Context, id vault.StreamID, gen int64) error {
	if gen < 0 || gen >= maxOffset {
		return fmt.Errorf("ending generation %d of stream %s: expected 0 to %d", gen, id, int64(maxOffset-1))
	}
	return s.record(ctx, 512, forRecords, func() error {
		st := s.table.stream(id)
		if st == nil {
			return fmt.Errorf("%w: %s", ErrNoStream, id)
		}
		if st.gen(gen) == nil && gen < st.nextGen {
			return nil // over and forgotten
		}
		g := st.addGen(gen)
		if !g.ended.IsZero() {
			return nil
		}
		g.ended, g.unstable = s.cfg.Now(), nil
		s.appendMeta(g.genRecord.append)
		s.trim(g)
		return nil
	})
}

// SetMeta sets or, with a nil Value, removes metadata of others: durable on
// return, and after a crash all of them or none. Together they fit a group of 1 MiB.
func (s *Spool) SetMeta(ctx context.Context, kvs ...vault.KV) error {
	need, grow := 0, 0
	for _, kv := range kvs {
		if len(kv.Key) > maxName {
			return fmt.Errorf("metadata key of %d bytes, expected at most %d", len(kv.Key), maxName)
		}
		n := recordHead + 4 + len(kv.Key) + len(kv.Value)
		if need += n; kv.Value != nil {
			grow += n
		}
	}
	return s.record(ctx, need, forIntake, func() error {
		if grow > 0 {
			if err := s.mayGrow(grow); err != nil {
				return err
			}
		}
		for _, kv := range kvs {
			if kv.Value != nil {
				kv.Value = append([]byte{}, kv.Value...)
			}
			s.table.setKV(kv)
			s.appendMeta(func(b []byte) []byte { return appendKV(b, kv) })
		}
		return nil
	})
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
