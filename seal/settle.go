package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"logvault/ledger/entry"
	"logvault/vault"
)

// past is what the ledger got since the oldest pending intent was made.
type past struct {
	entries map[vault.Hash]int64 // where an entry stands, by the hash of its bytes
	orphans map[string]bool      // objects that have an orphan entry, by name
}

// settle finishes the intents that an earlier round or process left. It returns
// the pieces that must be encoded anew. Its error ends the round; what concerns
// one intent alone is noted, and its stream waits.
func (r *round) settle(ctx context.Context) (again []vault.Piece, err error) {
	pending := r.Source.Pending()
	if len(pending) == 0 {
		return nil, nil
	}
	seen, err := r.since(ctx, pending)
	if err != nil {
		return nil, fmt.Errorf("looking for intended entries in the ledger: %w", err)
	}
	for _, in := range pending {
		redo, err := r.settleOne(ctx, in, seen)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			r.skip(in.Piece, err)
			r.taken[in.Piece.Stream] = true
		}
		if redo {
			again = append(again, in.Piece)
		}
	}
	return again, r.flush(ctx)
}

// since reads the ledger from the oldest of the intents on.
func (r *round) since(ctx context.Context, pending []vault.Intent) (past, error) {
	tree := r.Ledger.Tree()
	from := tree.Size()
	for _, in := range pending {
		from = min(from, in.Size)
	}
	seen := past{map[vault.Hash]int64{}, map[string]bool{}}
	err := tree.Entries(ctx, from, tree.Size(), func(i int64, data []byte) error {
		seen.entries[vault.HashOf(data)] = i
		// An entry that does not decode is of a newer version, so no orphan of ours.
		if e, err := entry.Decode(data); err == nil && e.Type() == entry.TypeOrphan {
			seen.orphans[e.(*entry.Orphan).Name] = true
		}
		return nil
	})
	return seen, err
}

// settleOne brings one intent to its end: released if its entry is in the
// ledger; else ready for the ledger if its objects are in the vault; else to be
// encoded anew, after what is there has an orphan entry.
func (r *round) settleOne(ctx context.Context, in vault.Intent, seen past) (redo bool, err error) {
	e, err := entry.Decode(in.Entry)
	if err != nil {
		return false, fmt.Errorf("intended entry: %w", err)
	}
	if index, ok := seen.entries[vault.HashOf(in.Entry)]; ok {
		return false, r.release(ctx, in.Piece, index, addsOf(e))
	}
	segment, ok := e.(*entry.Segment)
	if !ok { // a gap has no objects
		return false, r.enqueue(ctx, in.Piece, e, in.Entry)
	}
	objects := []entry.Orphan{
		{Header: r.header(), Object: segment.Object, Name: segmentName(segment)},
		{Header: r.header(), Object: segment.Index, Name: indexName(segment)},
	}
	sizes := []int64{segment.Size, segment.IndexSize}
	var there []entry.Orphan
	whole := 0
	for i, o := range objects {
		switch intact, err := r.intact(ctx, o.Name, o.Object, sizes[i]); {
		case errors.Is(err, vault.ErrNotExist):
		case err != nil:
			return false, fmt.Errorf("reading back: %w", err)
		default:
			there = append(there, o)
			if intact {
				whole++
			}
		}
	}
	if whole == len(objects) && r.inForce(in.Piece, segment) {
		return false, r.enqueue(ctx, in.Piece, segment, in.Entry)
	}
	// The intent stays pending until the new one replaces it, so a crash from
	// here on comes back to this place, and finds the orphans in the ledger.
	return true, r.orphan(ctx, there, seen)
}

// inForce tells whether an intended entry says of dates what the class of its
// source says now. A policy entry may have come between: what is appended after
// it must follow it, or no audit would ever pass again.
func (r *round) inForce(p vault.Piece, e *entry.Segment) bool {
	class, err := r.class(p.Source)
	if err != nil {
		return true // no class, no other date; what was decided stands
	}
	y, m, d := class.DestructionDay(p.Record)
	return e.Class == vault.Class(class.Name) && e.Day == vault.Day{Year: y, Month: m, Day: d} && e.RetainUntil.Equal(class.RetainUntil(p.Record))
}

// intact reads an object back, reports whether it is what was intended, and if
// so makes sure that it is durable. Seeing it is not enough: a Put that failed,
// or whose process was killed, may have left a name that a power cut would take
// away again, after the ledger and the source have been told. So the object is
// put once more, with itself as the body: Put finds the same bytes, which is
// success, and success is durable.
func (r *round) intact(ctx context.Context, name string, want vault.Hash, size int64) (bool, error) {
	body, got, err := r.Objects.Open(ctx, name)
	if err != nil {
		return false, err
	}
	defer body.Close() // read-only: nothing to lose
	if got != size {
		return false, nil
	}
	h := sha256.New()
	if err := r.Objects.Put(ctx, name, size, io.TeeReader(body, h)); err != nil {
		return false, err
	}
	return vault.Hash(h.Sum(nil)) == want, nil
}

// orphan records objects that no segment entry will ever name.
func (r *round) orphan(ctx context.Context, objects []entry.Orphan, seen past) error {
	var entries [][]byte
	for _, o := range objects {
		if seen.orphans[o.Name] {
			continue
		}
		data, err := entry.Encode(&o)
		if err != nil {
			return err
		}
		entries = append(entries, data)
		r.Log.Warn("orphan", "object", o.Name)
	}
	if len(entries) == 0 {
		return nil
	}
	_, err := r.append(ctx, entries...)
	return err
}
