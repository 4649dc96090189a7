package nfsgw

import (
	"context"
	"fmt"
	"time"

	"logvault/vault"
)

// Names is the part of a Sink that keeps the names.
type Names interface {
	Record(ctx context.Context, c vault.Changes) error
	Meta(prefix string, fn func(vault.KV) error) error
}

// Renew begins a new generation, with nothing in it, for every file of a name
// table that is older than what was archived since: one from a backup. What a
// client then writes joins nothing that is sealed, so it cannot contradict it. A
// file that a proxy holds open goes on at the offset where the proxy is, and gets
// a gap for what lies before. It returns how many files.
//
// next tells, for each stream, a generation that nothing was archived under, nor
// under any after it. No Server may have the Sink. After a crash it is done again.
func Renew(ctx context.Context, sink Names, next func(vault.StreamID) int64, now time.Time) (files int, err error) {
	var batch vault.Changes
	flush := func() error {
		c := batch
		batch = vault.Changes{}
		return sink.Record(ctx, c)
	}
	err = sink.Meta(metaPrefix, func(kv vault.KV) error {
		id, m, err := decodeMeta(kv)
		if err != nil || m.kind != typeFile {
			return err
		}
		batch.End = append(batch.End, vault.Generation{Stream: m.stream, Gen: m.gen})
		m.gen, m.size = max(m.gen+1, next(m.stream)), 0
		m.modify(now.UnixNano())
		batch.Set = append(batch.Set, vault.KV{Key: metaKey(id), Value: m.encode()})
		if files++; files%saveBatch == 0 {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return files, fmt.Errorf("beginning new generations: %w", err)
	}
	return files, nil
}
