package ingest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"logvault/vault"
)

// A spool that is full of young and small streams frees itself: the sealer is
// offered what has no other reason yet, and everybody who waits gets in, without
// a restart. What was not committed is offered after a minute of silence.
func TestFullSpoolFreesItself(t *testing.T) {
	for _, sync := range []bool{true, false} {
		t.Run(fmt.Sprintf("sync=%v", sync), func(t *testing.T) {
			r := newRig(t, quiet, func(c *SpoolConfig) { c.MaxBytes = 8 * testFile })
			const streams = 40
			line := fmt.Sprintf("%01999d\n", 0)
			at := [streams]int64{}
			for i := range streams {
				r.add(vault.StreamID{byte(i), 1})
			}
			fill := func() (stored int) {
				for {
					i := stored % streams
					err := r.s.Write(ctx, vault.StreamID{byte(i), 1}, 0, at[i], []byte(line), client, sync)
					if errors.Is(err, vault.ErrFull) {
						return stored
					}
					r.must(err)
					at[i] += int64(len(line))
					stored++
				}
			}
			if n := fill(); n < 200 {
				t.Fatalf("full after %d lines", n)
			}
			for round := range 5 {
				r.advance(15 * time.Second)
				pieces := r.due(false)
				if !sync && round < 3 {
					if len(pieces) > 0 {
						t.Fatalf("round %d: offered what its client has not committed", round)
					}
					continue
				}
				for i, p := range pieces {
					r.seal(p, int64(i))
				}
				r.due(false) // and what waits for a snapshot or a sync
				if n := fill(); n < 20 {
					t.Fatalf("round %d: room for %d lines after %d pieces", round, n, len(pieces))
				}
				r.advance(time.Minute)
			}
		})
	}
}

// Clients that end generations without end cannot take what sealing needs.
func TestEndsLeaveRoomForSealing(t *testing.T) {
	r := newRig(t, quiet, func(c *SpoolConfig) { c.MaxBytes = 6 * testFile })
	r.add(streamA)
	for i := 0; ; i++ {
		if err := r.s.Write(ctx, streamA, 0, int64(i)*1000, make([]byte, 1000), client, true); errors.Is(err, vault.ErrFull) {
			break
		} else {
			r.must(err)
		}
	}
	ends := 0
	for ; ends < 1000; ends++ {
		err := r.s.Record(ctx, vault.Changes{
			End: []vault.Generation{{Stream: streamA}},
			Set: []vault.KV{{Key: "k", Value: make([]byte, 1000)}},
		})
		if errors.Is(err, vault.ErrFull) {
			break
		}
		r.must(err)
	}
	if ends < 20 || ends == 1000 {
		t.Errorf("%d ends taken by a full spool, expected some", ends)
	}
	for n := int64(1); ; n++ {
		p := r.due(false)
		if len(p) == 0 {
			break
		}
		r.seal(p[0], n)
	}
	r.must(r.s.Write(ctx, streamA, 1, 0, []byte("room again\n"), client, true))
}
