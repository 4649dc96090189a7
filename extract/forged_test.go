package extract

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"time"

	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// TestSignedAndWrong: an entry of the signed ledger that does not fit the objects
// it names, as a gateway gone wrong would write it. Nothing is disclosed by it,
// and the attempt stays recorded.
func TestSignedAndWrong(t *testing.T) {
	for name, c := range map[string]struct {
		forge     func(r *rig, e *entry.Segment)
		integrity bool // else it is the cryptography that refuses
		says      string
	}{
		"more lines":       {func(_ *rig, e *entry.Segment) { e.Lines++ }, true, "expected 2 lines, got 1 lines"},
		"more text":        {func(_ *rig, e *entry.Segment) { e.Raw++; e.Span++ }, true, "bytes of text"},
		"less text":        {func(_ *rig, e *entry.Segment) { e.Raw--; e.Span-- }, false, "bytes of text"},
		"a larger object":  {func(_ *rig, e *entry.Segment) { e.Size++ }, true, "bytes, got"},
		"a larger index":   {func(_ *rig, e *entry.Segment) { e.IndexSize++ }, true, "bytes, got"},
		"another root":     {func(_ *rig, e *entry.Segment) { e.Root[0] ^= 1 }, true, "expected"},
		"no key":           {func(_ *rig, e *entry.Segment) { e.Key = 0 }, true, "a key entry at index 0, got none"},
		"another key":      {func(r *rig, e *entry.Segment) { r.addKey(); e.Key = r.key }, false, "decoding"},
		"another's index":  {anothersIndex, false, "expected"},
		"another's secret": {anothersSecret, false, "wrap holds the secret of key"},
	} {
		r := newRig(t)
		s := r.seal("proxy1", 1, squid(hour, "192.0.2.1", "-", "a.example"), hour.AddDate(0, 0, -1), hour.AddDate(0, 0, -1))
		e := *s.entry
		e.Stream, e.FirstReceived, e.LastReceived = vault.StreamID{2}, hour, hour
		c.forge(r, &e)
		at := r.append(&e)
		check := func(how string, err error) {
			t.Helper()
			var integrity *IntegrityError
			if err == nil || !strings.Contains(err.Error(), c.says) || c.integrity && !errors.As(err, &integrity) {
				t.Errorf("%s, %s: %v, expected %q", name, how, err, c.says)
			}
		}
		req := asking(hour, hour.Add(time.Second))
		req.Scope.Client = []string{"192.0.2.1"}
		_, err := Run(r.ctx, r.options("/answer"), req)
		check("extract", err)
		if _, err := r.fs.Stat("/answer"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a bundle is there, %v", name, err)
		}
		var out bytes.Buffer
		_, err = Cat(r.ctx, r.options(""), CatRequest{Source: "proxy1", Since: hour, Until: hour.Add(time.Second), Case: "x"}, &out)
		if name != "another root" { // of which only a bundle speaks
			check("cat of a window", err)
		}
		if out.Reset(); e.Size != s.entry.Size || e.Key != s.entry.Key {
			_, err = Cat(r.ctx, r.options(""), CatRequest{Segments: []string{strconv.FormatInt(at, 10)}, Case: "x"}, &out)
			check("cat of the segment", err)
			if out.Len() > 0 {
				t.Errorf("%s: %d bytes were written", name, out.Len())
			}
		}
		if n, d := r.count(entry.TypeRequest), r.count(entry.TypeDisclosure); n < 2 || d > 0 && name != "another root" {
			t.Errorf("%s: %d requests and %d disclosures are recorded", name, n, d)
		}
	}
}

// anothersIndex names the index of another segment.
func anothersIndex(r *rig, e *entry.Segment) {
	o := r.seal("proxy9", 9, squid(hour, "192.0.2.1", "-", "b.example")+"more\n", hour.AddDate(0, 0, -2), hour.AddDate(0, 0, -2)).entry
	e.Index, e.IndexSize = o.Index, o.IndexSize
}

// anothersSecret seals to a key entry whose wrap holds the secret of another key.
func anothersSecret(r *rig, e *entry.Segment) {
	public := r.public
	k, err := pgp.GeneratePeriod(rand.Reader)
	r.must(err)
	defer k.Destroy()
	wrap, err := k.Wrap(rand.Reader, []pgp.Auditor{r.auditor})
	r.must(err)
	r.put(vault.WrapName(destruction, "technical", public.Hash(), vault.HashOf(wrap)), wrap)
	decoded, err := entry.Decode(r.entry(r.key))
	r.must(err)
	forged := *decoded.(*entry.Key)
	forged.Wrap = vault.HashOf(wrap)
	e.Key = r.append(&forged)
}
