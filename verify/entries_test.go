package verify_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/verify"
)

// lastSegment is the segment entry of the world's only segment.
func lastSegment(t *testing.T, w *testvault.World) *entry.Segment {
	t.Helper()
	var last *entry.Segment
	tree := w.Log.Tree()
	err := tree.Entries(context.Background(), 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if s, ok := e.(*entry.Segment); ok {
			last = s
		}
		return err
	})
	if err != nil || last == nil {
		t.Fatalf("no segment: %v", err)
	}
	return last
}

// theKey is the world's only key entry.
func theKey(t *testing.T, w *testvault.World) *entry.Key {
	t.Helper()
	data, err := w.Log.Tree().Entry(context.Background(), 2)
	if err != nil {
		t.Fatal(err)
	}
	e, err := entry.Decode(data)
	k, ok := e.(*entry.Key)
	if err != nil || !ok {
		t.Fatalf("entry 2: %T, %v, expected a key", e, err)
	}
	return k
}

// TestEntries appends one entry that no gateway may write to a ledger of init,
// policy, key and segment (indexes 0 to 3).
func TestEntries(t *testing.T) {
	seg := func(change func(*entry.Segment)) func(*testing.T, *testvault.World) entry.Entry {
		return func(t *testing.T, w *testvault.World) entry.Entry {
			e := *lastSegment(t, w)
			e.Header = w.Header()
			e.Offset, e.Prev = e.Span, 3
			e.Object, e.Index = vault.HashOf([]byte("object")), vault.HashOf([]byte("index"))
			change(&e)
			return &e
		}
	}
	key := func(change func(*entry.Key)) func(*testing.T, *testvault.World) entry.Entry {
		return func(t *testing.T, w *testvault.World) entry.Entry {
			k := *theKey(t, w)
			k.Header = w.Header()
			k.Wrap = vault.HashOf([]byte("wrap"))
			change(&k)
			return &k
		}
	}
	plainEntry := func(e func(entry.Header) entry.Entry) func(*testing.T, *testvault.World) entry.Entry {
		return func(_ *testing.T, w *testvault.World) entry.Entry { return e(w.Header()) }
	}
	for _, c := range []struct {
		name   string
		entry  func(*testing.T, *testvault.World) entry.Entry
		code   string
		level  verify.Level
		detail string
	}{
		// P5: a date beyond the class's period keeps lines that the law wants gone.
		{"retained too long", seg(func(e *entry.Segment) {
			e.FirstReceived, e.LastReceived = e.FirstReceived.AddDate(-1, 0, 0), e.LastReceived.AddDate(-1, 0, 0)
		}), "bad-entry", verify.Error, "retained until"},
		{"stream goes on", seg(func(e *entry.Segment) {}), "missing-too-early", verify.Error, ""},
		{"offset jumps", seg(func(e *entry.Segment) { e.Offset++ }), "discontinuous", verify.Error, "offset"},
		{"offset goes back", seg(func(e *entry.Segment) { e.Offset = 0 }), "discontinuous", verify.Error, "offset"},
		{"previous entry left out", seg(func(e *entry.Segment) { e.Prev = -1 }), "discontinuous", verify.Error, "previous"},
		{"previous entry is another", seg(func(e *entry.Segment) { e.Prev = 2 }), "discontinuous", verify.Error, "previous"},
		{"new generation names no previous entry", seg(func(e *entry.Segment) { e.Gen, e.Offset, e.Prev = 1, 0, -1 }), "discontinuous", verify.Error, "previous"},
		{"new generation not from its start", seg(func(e *entry.Segment) { e.Gen = 1 }), "discontinuous", verify.Error, "offset"},
		{"source changes", seg(func(e *entry.Segment) { e.Source = "other" }), "discontinuous", verify.Error, "source"},
		{"new stream not from its start", seg(func(e *entry.Segment) { e.Stream, e.Prev = vault.StreamID{8}, -1 }), "discontinuous", verify.Error, "offset"},
		{"object twice", seg(func(e *entry.Segment) { e.Object = vault.HashOf(nil); e.Index = vault.HashOf(nil) }), "duplicate", verify.Error, ""},
		{"key is no key", seg(func(e *entry.Segment) { e.Key = 1 }), "bad-entry", verify.Error, "not an earlier key"},
		{"key comes later", seg(func(e *entry.Segment) { e.Key = 9 }), "bad-entry", verify.Error, "not an earlier key"},
		{"key of another day", seg(func(e *entry.Segment) { e.Day.Day++ }), "bad-entry", verify.Error, "sealed to the key of"},
		{"day is not the date's", seg(func(e *entry.Segment) { e.RetainUntil = e.RetainUntil.AddDate(0, 0, 2) }), "bad-entry", verify.Error, "in the class's zone"},
		{"class of no policy", seg(func(e *entry.Segment) { e.Class = "other" }), "bad-entry", verify.Error, "in no policy"},
		{"dated back", seg(func(e *entry.Segment) { e.Time = testvault.Start.Add(-time.Hour) }), "time-order", verify.Warning, ""},

		{"key for nobody of the policy", key(func(e *entry.Key) { e.Recipients = []string{strings.Repeat("a", 40)} }), "recipients-unexpected", verify.Error, ""},
		{"key for one more", key(func(e *entry.Key) { e.Recipients = append(e.Recipients, strings.Repeat("f", 40)) }), "recipients-unexpected", verify.Error, ""},
		{"wrap named twice", func(t *testing.T, w *testvault.World) entry.Entry {
			k := theKey(t, w)
			return &entry.Rewrap{Header: w.Header(), Key: 2, Wrap: k.Wrap, Recipients: k.Recipients}
		}, "duplicate", verify.Error, ""},
		{"wrap absent", key(func(e *entry.Key) {}), "key-missing", verify.Error, ""},
		{"key of no policy's class", key(func(e *entry.Key) { e.Class = "other" }), "bad-entry", verify.Error, "in no policy"},

		{"second init", func(t *testing.T, w *testvault.World) entry.Entry {
			return &entry.Init{Header: w.Header(), Vault: strings.Repeat("0", 32), Origin: testvault.Origin, Marker: vault.HashOf(nil), Key: w.Trust.Log, Recovery: w.Trust.Recovery}
		}, "bad-entry", verify.Error, "nowhere else"},
		{"entry of a copy log", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Held{Header: h, Size: 1, Root: vault.HashOf(nil)}
		}), "bad-entry", verify.Error, "copy log"},
		{"rewrap of no key", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Rewrap{Header: h, Key: 0, Wrap: vault.HashOf(nil), Recipients: []string{strings.Repeat("a", 40)}}
		}), "bad-entry", verify.Error, "not an earlier key"},
		{"release of no hold", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Release{Header: h, Hold: 1, Commit: vault.HashOf(nil), Approver: strings.Repeat("a", 40), Signature: []byte{1}}
		}), "bad-entry", verify.Error, "not an open hold"},
		{"disclosure before its request", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Disclosure{Header: h, Request: 99, Commit: vault.HashOf(nil)}
		}), "bad-entry", verify.Error, "not an earlier request"},
		{"disclosure of no request", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Disclosure{Header: h, Request: 3, Commit: vault.HashOf(nil)}
		}), "bad-entry", verify.Error, "not an earlier request"},
		{"record named twice", func(t *testing.T, w *testvault.World) entry.Entry {
			if err := w.Register(context.Background(), "salt and who"); err != nil {
				t.Fatal(err)
			}
			return &entry.Request{Header: w.Header(), Commit: vault.HashOf([]byte("salt and who")), Object: vault.HashOf(nil), Class: vault.Class(testvault.Class().Name), Kind: entry.RequestCat}
		}, "duplicate", verify.Error, ""},
		{"dated ahead", plainEntry(func(h entry.Header) entry.Entry {
			h.Time = testvault.Start.AddDate(5, 0, 0)
			return &entry.Conflict{Header: h, Source: "proxy", Stream: vault.StreamID{1}, Span: 5, Other: vault.StreamID{9}}
		}), "time-order", verify.Warning, "this audit"},
		// P5: what claims to come from the future may be kept until then.
		{"received ahead", seg(func(e *entry.Segment) { e.LastReceived = e.LastReceived.AddDate(0, 0, 2) }), "time-order", verify.Warning, "received after it was recorded"},
		{"gap", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Gap{Header: h, Source: "proxy", Stream: vault.StreamID{1}, Offset: 7, Span: 5, Prev: 3, Reason: entry.GapHole}
		}), "gap", verify.Warning, "5 bytes from offset 7"},
		{"conflict", plainEntry(func(h entry.Header) entry.Entry {
			return &entry.Conflict{Header: h, Source: "proxy", Stream: vault.StreamID{1}, Offset: 2, Span: 5, Other: vault.StreamID{9}}
		}), "conflict", verify.Warning, "5 bytes from offset 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := plain(t, 40)
			e := c.entry(t, w)
			if err := w.Append(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			list := auditWorld(t, w, nil)
			for _, f := range list {
				if f.Code == c.code && f.Level == c.level && strings.Contains(f.Detail, c.detail) {
					return
				}
			}
			t.Errorf("expected %s %s with %q, got:%s", c.level, c.code, c.detail, lines(list))
		})
	}
}

// TestRawEntries appends bytes that the entry package would not make.
func TestRawEntries(t *testing.T) {
	for _, c := range []struct{ name, data, code string }{
		{"unknown type", `{"actor":"gateway","time":"2026-11-21T06:32:16.000Z","type":"novelty","v":1}`, "needs-newer"},
		{"unknown version", `{"actor":"gateway","time":"2026-11-21T06:32:16.000Z","type":"gap","v":2}`, "needs-newer"},
		{"members missing", `{"actor":"gateway","time":"2026-11-21T06:32:16.000Z","type":"gap","v":1}`, "bad-entry"},
	} {
		w := plain(t, 41)
		if _, err := w.Log.Append(context.Background(), []byte(c.data)); err != nil {
			t.Fatal(err)
		}
		expect(t, auditWorld(t, w, nil), c.code, verify.Error, "")
	}
}

// TestNothingFollowsTheEndOfAGeneration, whatever came in between.
func TestNothingFollowsTheEndOfAGeneration(t *testing.T) {
	ctx := context.Background()
	w, err := testvault.New(42)
	if err != nil {
		t.Fatal(err)
	}
	stream := vault.StreamID{1}
	for _, p := range []vault.Piece{{Stream: stream, Closed: true}, {Stream: stream, Gen: 1}} {
		if err := w.SealPiece(ctx, p, "a line\n"); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, auditWorld(t, w, nil))
	if err := w.SealPiece(ctx, vault.Piece{Stream: stream}, "slipped in\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, auditWorld(t, w, nil), "discontinuous", verify.Error, "")
}

// TestHold: a hold keeps what is due; without it the same absence is another finding.
func TestHold(t *testing.T) {
	w := plain(t, 43)
	if err := w.Append(context.Background(), &entry.Hold{Header: w.Header(), Hold: strings.Repeat("1", 32), Commit: vault.HashOf([]byte("order"))}); err != nil {
		t.Fatal(err)
	}
	late := func(f testvault.Files, o *verify.Options) { o.Now = testvault.Start.AddDate(2, 0, 0) }
	clean(t, auditWorld(t, w, late)) // held: not overdue
	list := auditWorld(t, w, func(f testvault.Files, o *verify.Options) {
		late(f, o)
		delete(f, f.Find(".gz.pgp"))
	})
	expect(t, list, "hold-violated", verify.Error, ".gz.pgp")
}

// TestRegisterDates: the record of a request is two-sided like a segment. It must
// be there until the period of its class is over, and not after its grace.
func TestRegisterDates(t *testing.T) {
	w := plain(t, 44)
	if err := w.Register(context.Background(), "salt and who"); err != nil {
		t.Fatal(err)
	}
	due := testvault.Class().RetainUntil(w.Now())
	for _, c := range []struct {
		name string
		now  time.Time
		gone bool
		code string
	}{
		{"gone before its date", due.Add(-time.Millisecond), true, "missing-too-early"},
		{"there before its date", due.Add(-time.Millisecond), false, ""},
		{"gone after its date", due, true, ""},
		{"there in its grace", due.AddDate(0, 0, 1).Add(-time.Millisecond), false, ""},
		{"there after its grace", due.AddDate(0, 0, 1), false, "overdue"},
	} {
		found := ""
		for _, f := range auditWorld(t, w, func(f testvault.Files, o *verify.Options) {
			o.Now = c.now
			if c.gone {
				delete(f, f.Find("register/"))
			}
		}) {
			if strings.HasPrefix(f.Object, "register/") {
				found += f.Code
			}
		}
		if found != c.code {
			t.Errorf("%s: found %q, expected %q", c.name, found, c.code)
		}
	}
}
