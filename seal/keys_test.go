package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
)

// at makes a piece's record date.
func at(t time.Time) func(*vault.Piece) {
	return func(p *vault.Piece) { p.FirstReceived, p.LastReceived, p.Record = t, t, t }
}

func TestOneKeyPerClassAndDay(t *testing.T) {
	// Midnight in Paris is 23:00 UTC; the class of dumps has days of UTC.
	evening, midnight := time.Date(2026, 11, 21, 22, 59, 59, 0, time.UTC), time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC)
	w := newWorld(t,
		data("proxy1", stream(1), 0, 0, lines("a", 2), at(evening)),
		data("proxy2", stream(2), 0, 0, lines("b", 2), at(evening.Add(-10*time.Hour))),
		data("proxy2", stream(3), 0, 0, lines("c", 2), at(midnight)),
		data("dumps", stream(4), 0, 0, lines("d", 2), at(evening)),
		data("dumps", stream(5), 0, 0, lines("e", 2), at(midnight)),
	)
	w.drain()
	w.check()
	var got []string
	for _, e := range entriesOf[*entry.Key](w) {
		got = append(got, fmt.Sprintf("%s %s", e.Class, e.Day))
	}
	want := []string{"technical 2027-11-22", "technical 2027-11-23", "backup 2026-12-22"}
	if !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
	if w.sealer.sameDay("proxy1", evening, midnight) || !w.sealer.sameDay("dumps", evening, midnight) {
		t.Error("a day of the source's class ends elsewhere")
	}
	if w.sealer.sameDay("unknown", evening, evening.Add(2*time.Hour)) {
		t.Error("a source without a class has days of UTC")
	}
}

func TestKeyEntryNamesWrapAndAuditors(t *testing.T) {
	w := newWorld(t, few()...)
	w.drain()
	e := entriesOf[*entry.Key](w)[0]
	a := auditors()
	want := []string{a[0].Fingerprint, a[1].Fingerprint}
	slices.Sort(want)
	if !slices.Equal(e.Recipients, want) || e.PublicHash != vault.HashOf(e.Public) {
		t.Errorf("recipients %v, want %v", e.Recipients, want)
	}
	wrap, err := vault.ReadAll(context.Background(), w.store, vault.WrapName(e.Day, e.Class, e.PublicHash, e.Wrap), maxWrap)
	if err != nil || vault.HashOf(wrap) != e.Wrap {
		t.Fatalf("wrap: %v", err)
	}
	for i := range a {
		content, err := a[i].open.Open(context.Background(), wrap)
		if err != nil {
			t.Fatal(err)
		}
		s, err := pgp.OpenSecret(content)
		if err != nil || s.PublicHash() != e.PublicHash {
			t.Errorf("auditor %d: the wrap holds another key: %v", i, err)
		}
	}
}

// A start takes up the last key of the ledger, over many other entries, and
// takes the newer one where there are two.
func TestResumeKey(t *testing.T) {
	w := newWorld(t, data("proxy1", stream(1), 0, 0, []byte("first\n")))
	w.drain()
	w.src.add(data("proxy1", stream(1), 0, 6, []byte("second\n")))
	for n := range byte(200) { // several rounds of gaps, before the second piece
		w.src.add(hole("proxy2", stream(n+2), 0, 0, 1), hole("proxy2", stream(n+2), 1, 0, 1), hole("proxy2", stream(n+2), 2, 0, 1))
	}
	last := w.src.order[0]
	w.src.order = w.src.order[1:]
	w.drain()
	w.src.order = append(w.src.order, last)
	w.open(false)
	if got := w.sealer.keys.to - w.sealer.keys.from; got != 0 {
		t.Errorf("a start has read %d entries, expected none", got)
	}
	w.drain()
	w.check()
	if keys := entriesOf[*entry.Key](w); len(keys) != 1 {
		t.Errorf("%d keys, expected the first to be found again", len(keys))
	}
	if w.sealer.keys.from != 0 {
		t.Errorf("read down to entry %d, expected 0", w.sealer.keys.from)
	}
}

func TestNewerKeyWins(t *testing.T) {
	w := newWorld(t, few()...)
	r := &round{Sealer: w.sealer, taken: map[vault.StreamID]bool{}}
	id := keyID{"technical", vault.Day{Year: 2027, Month: 11, Day: 22}}
	for range 2 {
		if _, err := r.newKey(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	w.open(false)
	w.drain()
	w.check()
	if len(entriesOf[*entry.Key](w)) != 2 {
		t.Error("a third key was made")
	}
	for _, e := range entriesOf[*entry.Segment](w) {
		if e.Key != 1 {
			t.Errorf("sealed to the key of entry %d, expected the newer one, 1", e.Key)
		}
	}
}

// A wrap that no entry names is left alone; the key in it is never used.
func TestOrphanWrapIsNotUsed(t *testing.T) {
	w := newWorld(t, few()...)
	w.before = func(op string) error {
		if strings.HasPrefix(op, "rename /state/ledger/checkpoint") {
			return errDisk
		}
		return nil
	}
	if _, err := w.sealer.Step(context.Background(), true); !errors.Is(err, errDisk) {
		t.Fatalf("step: %v", err)
	}
	w.before = func(string) error { return nil }
	w.open(false)
	w.drain()
	w.check()
	wraps := 0
	err := w.store.List(context.Background(), "keys/", func(vault.Info) error { wraps++; return nil })
	if keys := len(entriesOf[*entry.Key](w)); err != nil || wraps != 2 || keys != 1 {
		t.Errorf("%d wraps, %d key entries, %v; expected an orphan wrap beside the one in use", wraps, keys, err)
	}
}

// A key whose wrap is gone would seal what nobody can read.
func TestKeyWithoutItsWrapIsNotUsed(t *testing.T) {
	for what, spoil := range map[string]func(w *world, path string) error{
		"gone": func(w *world, path string) error {
			// Another wrap of the day remains, so that the ledger is searched.
			other := strings.TrimSuffix(path, ".pgp")
			return w.mem.Rename(path, other[:len(other)-64]+vault.Hash{}.String()+".pgp")
		},
		"damaged": func(w *world, path string) error {
			f, err := w.mem.OpenRW(path)
			if err == nil {
				_, err = f.WriteAt([]byte{0}, 9)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, few()...)
			r := &round{Sealer: w.sealer, taken: map[vault.StreamID]bool{}}
			k, err := r.newKey(context.Background(), keyID{"technical", vault.Day{Year: 2027, Month: 11, Day: 22}})
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(w, "/vault/"+k.wrap); err != nil {
				t.Fatal(err)
			}
			w.open(false)
			w.drain()
			w.check()
			for _, e := range entriesOf[*entry.Segment](w) {
				if e.Key == k.index {
					t.Error("sealed to the key without a wrap")
				}
			}
		})
	}
}

// lying is a store that reads back other bytes than were put.
type lying struct {
	Store
	body func(stored []byte) []byte
}

func (l lying) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	stored, err := vault.ReadAll(ctx, l.Store, name, maxWrap)
	if err != nil {
		return nil, 0, err
	}
	body := l.body(stored)
	return io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
}

func TestWrongReadBack(t *testing.T) {
	for what, tt := range map[string]struct {
		body func([]byte) []byte
		want string
	}{
		"a bit flipped": {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "read back"},
		"cut short":     {func(b []byte) []byte { return b[:len(b)-1] }, "read back"},
		"nothing":       {func([]byte) []byte { return nil }, "read back"},
		"huge":          {func([]byte) []byte { return make([]byte, maxWrap+1) }, "expected at most"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, few()...)
			w.sealer.Objects = lying{w.store, tt.body}
			_, err := w.sealer.Step(context.Background(), true)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("step: %v, want %q", err, tt.want)
			}
			if n := w.log.Tree().Size(); n != 0 {
				t.Errorf("%d entries, expected no key to be published", n)
			}
			w.sealer.Objects = w.store
			w.drain()
			w.check()
		})
	}
}

// The wrap must be for the auditors and nobody else.
func TestRecipientsAreTheAuditors(t *testing.T) {
	w := newWorld(t)
	a := auditors()
	r := &round{Sealer: w.sealer}
	for what, to := range map[string][]pgp.Auditor{
		"one missing":   {a[0].Auditor},
		"one too many":  {a[0].Auditor, a[1].Auditor, a[0].Auditor},
		"one for other": {a[0].Auditor, a[0].Auditor},
	} {
		msg, err := pgp.EncryptTo(random(5), to, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.checkRecipients("wrap", msg); err == nil || !strings.Contains(err.Error(), "expected the auditors' subkeys") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.checkRecipients("wrap", []byte("no message")); err == nil {
		t.Error("what is no message passed")
	}
}

// A key entry that is damaged or from a newer version is never used.
func TestTakeKey(t *testing.T) {
	w := newWorld(t, few()...)
	w.drain()
	good := *entriesOf[*entry.Key](w)[0]
	encode := func(change func(*entry.Key)) []byte {
		e := good
		change(&e)
		b, err := entry.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := encode(func(*entry.Key) {})
	for what, tt := range map[string]struct {
		data    []byte
		wantErr bool
	}{
		"public key of no kind": {encode(func(e *entry.Key) { e.Public = []byte("x"); e.PublicHash = vault.HashOf(e.Public) }), true},
		"not canonical":         {append([]byte(" "), whole...), true},
		"newer version":         {bytes.Replace(whole, []byte(`"v":1`), []byte(`"v":2`), 1), false},
		"another type":          {encodeGap(t), false},
	} {
		k := keyring{last: map[keyID]periodKey{}}
		if err := k.take(0, tt.data); (err != nil) != tt.wantErr || len(k.last) != 0 {
			t.Errorf("%s: %v, %d keys adopted", what, err, len(k.last))
		}
	}
	k := keyring{last: map[keyID]periodKey{}}
	if err := k.take(4, whole); err != nil || len(k.last) != 1 {
		t.Errorf("the good entry: %v", err)
	}
	if err := k.take(3, whole); err != nil || k.last[keyID{good.Class, good.Day}].index != 4 {
		t.Errorf("an older entry replaced a newer one: %v", err)
	}
}

func encodeGap(t *testing.T) []byte {
	t.Helper()
	b, err := entry.Encode(&entry.Gap{Header: entry.Header{Time: start, Actor: "gateway"}, Source: "proxy1", Stream: stream(1), Span: 1, Prev: -1, Reason: entry.GapHole})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
