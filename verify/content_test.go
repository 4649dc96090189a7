package verify_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/seal/segment"
	"logvault/vault"
	"logvault/verify"
)

// forge seals text to the world's key by hand and appends an entry for it that
// change may make lie. The bytes are what the entry says; only their meaning
// may differ.
func forge(t *testing.T, w *testvault.World, text string, change func(*entry.Segment, *segment.Encoded)) {
	t.Helper()
	ctx := context.Background()
	k := theKey(t, w)
	public, err := pgp.ParsePublic(k.Public)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := segment.NewEncoder(segment.Options{Codec: vault.Zstd, Level: 1, Workers: 1, Random: testvault.Random(80)})
	if err != nil {
		t.Fatal(err)
	}
	stream := vault.StreamID{5}
	out, err := enc.Encode(ctx, []byte(text), segment.Meta{Name: []byte("f"), Source: "proxy", Stream: stream}, public)
	if err != nil {
		t.Fatal(err)
	}
	e := *lastSegment(t, w)
	e.Header, e.Stream, e.Prev, e.Offset = w.Header(), stream, -1, 0
	e.Span, e.Raw, e.Lines, e.Root, e.Codec = int64(len(text)), out.Raw, out.Lines, out.Root, out.Codec
	e.FirstEvent, e.LastEvent = out.FirstEvent, out.LastEvent
	change(&e, out)
	e.Object, e.Size = vault.HashOf(out.Segment), int64(len(out.Segment))
	e.Index, e.IndexSize = vault.HashOf(out.Index), int64(len(out.Index))
	for name, data := range map[string][]byte{vault.SegmentName(e.Day, e.Object, e.Codec): out.Segment, vault.IndexName(e.Day, e.Index): out.Index} {
		if err := w.Vault.Put(ctx, name, int64(len(data)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Append(ctx, &e); err != nil {
		t.Fatal(err)
	}
}

// newerIndex seals the beginning of an index of version 2 to the world's key.
func newerIndex(t *testing.T) []byte {
	t.Helper()
	public, err := pgp.ParsePublic(theKey(t, plain(t, 50)).Public)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := public.Encrypt(&out, testvault.Random(82))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("LVINDEX\n\x00\x00\x00\x02what a later release knows")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestContent: everything is signed and every byte is what the entry names, but
// what is sealed is not what the entry says. Only a key shows it.
func TestContent(t *testing.T) {
	other := func(t *testing.T, text string) *segment.Encoded {
		enc, err := segment.NewEncoder(segment.Options{Codec: vault.Zstd, Level: 1, Workers: 1, Random: testvault.Random(81)})
		if err != nil {
			t.Fatal(err)
		}
		k, err := pgp.ParsePublic(theKey(t, plain(t, 50)).Public)
		if err != nil {
			t.Fatal(err)
		}
		out, err := enc.Encode(context.Background(), []byte(text), segment.Meta{Name: []byte("f"), Source: "proxy", Stream: vault.StreamID{5}}, k)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const text = squid + "not a line of squid\n"
	for _, c := range []struct {
		name   string
		change func(*testing.T, *entry.Segment, *segment.Encoded)
		code   string
		detail string
	}{
		{"honest", func(*testing.T, *entry.Segment, *segment.Encoded) {}, "", ""},
		{"lines", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) { e.Lines++ }, "content-mismatch", "lines"},
		{"root", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) { e.Root[0] ^= 1 }, "content-mismatch", "line root"},
		{"text longer", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) { e.Raw++; e.Span++ }, "content-mismatch", "text"},
		{"event time", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) {
			e.FirstEvent = e.FirstEvent.AddDate(0, 0, -1)
		}, "content-mismatch", "first event"},
		{"codec", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) { e.Codec = vault.Gzip }, "undecryptable", ""},
		{"stream", func(_ *testing.T, e *entry.Segment, _ *segment.Encoded) { e.Stream = vault.StreamID{6} }, "content-mismatch", "stream"},
		{"segment is the index", func(_ *testing.T, _ *entry.Segment, o *segment.Encoded) { o.Segment = bytes.Clone(o.Index) }, "undecryptable", ""},
		{"index of another text", func(t *testing.T, _ *entry.Segment, o *segment.Encoded) {
			o.Index = other(t, strings.Replace(text, "alice", "mallo", 1)).Index
		}, "content-mismatch", "line root"},
		{"index cut", func(_ *testing.T, _ *entry.Segment, o *segment.Encoded) { o.Index = o.Index[:len(o.Index)-9] }, "undecryptable", ""},
		{"index of a newer version", func(t *testing.T, _ *entry.Segment, o *segment.Encoded) { o.Index = newerIndex(t) }, "needs-newer", "version 2"},
		{"segment is no message", func(_ *testing.T, _ *entry.Segment, o *segment.Encoded) { o.Segment = []byte("plain text\n") }, "undecryptable", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := plain(t, 50)
			forge(t, w, text, func(e *entry.Segment, o *segment.Encoded) { c.change(t, e, o) })
			deep := func(_ testvault.Files, o *verify.Options) { o.Depth, o.Opener = verify.Content, opener() }
			list := auditWorld(t, w, deep)
			if c.code == "" {
				clean(t, list)
				return
			}
			for _, f := range list {
				if f.Code == c.code && f.Level == verify.Error && f.Object != "" && strings.Contains(f.Detail, c.detail) {
					return
				}
			}
			t.Errorf("expected %s with %q, got:%s", c.code, c.detail, lines(list))
		})
	}
}

// TestContentWithAKeyThatOpensNothing says so, and does not pass.
func TestContentWithAKeyThatOpensNothing(t *testing.T) {
	_, sec, err := pgp.GenerateAuditor("Other <o@example.org>", nil, testvault.Random(90), testvault.Start)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pgp.OpenKeyFile(sec, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := theSample()
	o := s.options()
	o.Depth, o.Opener = verify.Content, stranger
	list, sum := audit(t, o)
	expect(t, list, "not-checked", verify.Error, "keys/")
	if sum.Complete {
		t.Error("complete, though nothing was opened")
	}
}
