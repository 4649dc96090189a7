package watch

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"logvault/vault"
)

// goldenRecord is the value of testRecord; docs/FORMAT.md describes it.
const goldenRecord = "01010000000500000000000000020000000000000003000000000000000a000000000000002a" +
	"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b98242f6c6f672f612e6c6f67"

var testRecord = record{stream: vault.StreamID{1, 2}, gen: 7, id: Identity{2, 3}, base: 10, end: 42, done: true, head: 5,
	sum: vault.HashOf([]byte("hello")), path: "/log/a.log"}

func TestRecord(t *testing.T) {
	key := testRecord.key("web1")
	if want := "watch/web1/01020000000000000000000000000000/7"; key != want {
		t.Errorf("key %q, expected %q", key, want)
	}
	if got := hex.EncodeToString(testRecord.encode()); got != goldenRecord {
		t.Errorf("value %s, expected %s", got, goldenRecord)
	}
	if got, err := decodeRecord(keyPrefix("web1"), vault.KV{Key: key, Value: testRecord.encode()}); err != nil || got != testRecord {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestRecordRefused(t *testing.T) {
	change := func(at int, to byte) []byte {
		b := testRecord.encode()
		b[at] = to
		return b
	}
	for name, kv := range map[string]vault.KV{
		"empty": {}, "short": {Value: testRecord.encode()[:recordSize-1]}, "long": {Value: append(testRecord.encode(), make([]byte, maxPath)...)},
		"version 0": {Value: change(0, 0)}, "done 2": {Value: change(1, 2)}, "head": {Value: change(2, 1)},
		"base": {Value: change(22, 0x40)}, "end": {Value: change(30, 0x80)},
		"stream":     {Key: "watch/web1/01/7", Value: testRecord.encode()},
		"generation": {Key: testRecord.key("web1") + "x", Value: testRecord.encode()},
		"zeros":      {Key: strings.TrimSuffix(testRecord.key("web1"), "7") + "07", Value: testRecord.encode()},
		"negative":   {Key: strings.TrimSuffix(testRecord.key("web1"), "7") + "-7", Value: testRecord.encode()},
	} {
		if kv.Key == "" {
			kv.Key = testRecord.key("web1")
		}
		if r, err := decodeRecord(keyPrefix("web1"), kv); err == nil {
			t.Errorf("%s: decoded %+v", name, r)
		}
	}
	if _, err := decodeRecord(keyPrefix("web1"), vault.KV{Key: testRecord.key("web1"), Value: change(0, 2)}); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("a newer version: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(testRecord.key("web1"), testRecord.encode())
	f.Add("watch/web1/", []byte{})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := decodeRecord(keyPrefix("web1"), vault.KV{Key: key, Value: value})
		if err != nil {
			return
		}
		if again := r.encode(); !bytes.Equal(again, value) {
			t.Errorf("%x is encoded as %x", value, again)
		}
		if !strings.HasSuffix(key, strings.TrimPrefix(r.key("web1"), keyPrefix("web1"))) {
			t.Errorf("key %q is encoded as %q", key, r.key("web1"))
		}
	})
}

// TestDamagedRecord refuses to start: a guess would archive twice or not at all.
func TestDamagedRecord(t *testing.T) {
	r := newRig(t, "*")
	r.must(r.spool.Record(ctx, vault.Changes{Set: []vault.KV{{Key: testRecord.key("web1"), Value: []byte("x")}}}))
	r.kill()
	if err := r.start(); err == nil || !strings.Contains(err.Error(), testRecord.key("web1")) {
		t.Errorf("started: %v", err)
	}
}
