package verify_test

import (
	"context"
	"strings"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
	"logvault/verify"
)

// appendToCopy appends to a copy log that addCopy made, or makes one of its own.
func appendToCopy(t *testing.T, w *testvault.World, name string, entries ...[]byte) {
	t.Helper()
	ctx := context.Background()
	origin := testvault.Origin + "/copy/" + name
	skey, vkey, err := ledger.GenerateKey(testvault.Random(50), origin)
	if err != nil {
		t.Fatal(err)
	}
	c := ledger.Config{Prefix: vault.CopyLogPrefix(name), Origin: origin, SignerKey: skey, Record: w.Vault, Now: w.Now}
	log, err := ledger.Open(ctx, c)
	if err != nil {
		log, err = ledger.Create(ctx, c)
		w.Trust.Copies = append(w.Trust.Copies, ledger.TrustKey{Name: name, Key: vkey})
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(ctx, entries...); err != nil {
		t.Fatal(err)
	}
}

// TestCopyLogEntries: the log of a copy is signed by its key and may still say
// what cannot be: of itself, of what it held before, and of the main ledger.
func TestCopyLogEntries(t *testing.T) {
	encode := func(e entry.Entry) []byte {
		data, err := entry.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	copyInit := func(w *testvault.World, change func(*entry.CopyInit)) []byte {
		marker, _, err := vault.ReadMarker(context.Background(), w.Vault)
		if err != nil {
			t.Fatal(err)
		}
		_, vkey, err := ledger.GenerateKey(testvault.Random(50), testvault.Origin+"/copy/own")
		if err != nil {
			t.Fatal(err)
		}
		e := &entry.CopyInit{Header: w.Header(), Vault: hexID(marker), Origin: testvault.Origin, Name: "own", Key: vkey}
		change(e)
		return encode(e)
	}
	type bad func(w *testvault.World) []byte
	for name, c := range map[string]struct {
		copy string // "nas2" has begun well; "own" has the entry as its first
		bad  bad
		code string
		says string
	}{
		"a second beginning": {"nas2", func(w *testvault.World) []byte { return copyInit(w, func(e *entry.CopyInit) { e.Name = "nas2" }) }, "bad-entry", "expected copy-init as the first entry and nowhere else"},
		"no beginning": {"own", func(w *testvault.World) []byte {
			return encode(&entry.Held{Header: w.Header(), Size: 1, Root: vault.HashOf(nil)})
		}, "bad-entry", "expected copy-init as the first entry"},
		"another copy": {"own", func(w *testvault.World) []byte { return copyInit(w, func(e *entry.CopyInit) { e.Name = "theirs" }) }, "bad-entry", "this is another one"},
		"another vault": {"own", func(w *testvault.World) []byte {
			return copyInit(w, func(e *entry.CopyInit) { e.Vault = strings.Repeat("0", len(e.Vault)) })
		}, "bad-entry", "this is another one"},
		"less than before": {"nas2", func(w *testvault.World) []byte {
			root, err := w.Log.Tree().RootAt(context.Background(), 1)
			if err != nil {
				t.Fatal(err)
			}
			return encode(&entry.Held{Header: w.Header(), Size: 1, Root: root})
		}, "bad-entry", "held size 1 after "},
		"another history": {"nas2", func(w *testvault.World) []byte {
			return encode(&entry.Held{Header: w.Header(), Size: w.Log.Checkpoint().Size, Root: vault.HashOf(nil)})
		}, "forked", "held entry 2"},
		"more than there is": {"nas2", func(w *testvault.World) []byte {
			return encode(&entry.Held{Header: w.Header(), Size: w.Log.Checkpoint().Size + 1, Root: vault.HashOf(nil)})
		}, "rolled-back", "held entry 2"},
		"a tombstone of no key": {"nas2", func(w *testvault.World) []byte { return encode(&entry.Tombstone{Header: w.Header(), Key: 0, Wraps: 1}) }, "bad-entry", "tombstone of entry 0, which is not a key"},
		"no entry":              {"nas2", func(*testvault.World) []byte { return []byte(`{"type":"held"}`) }, "bad-entry", "copy log: "},
		"a newer entry": {"nas2", func(*testvault.World) []byte {
			return []byte(`{"actor":"replica","time":"2026-11-21T08:00:00.000Z","type":"held","v":2}`)
		}, "needs-newer", ""},
	} {
		w := plain(t, 80)
		if c.copy == "nas2" {
			if err := addCopy(context.Background(), w, c.copy); err != nil {
				t.Fatal(err)
			}
		}
		appendToCopy(t, w, c.copy, c.bad(w))
		list := auditWorld(t, w, nil)
		found := false
		for _, f := range list {
			found = found || f.Code == c.code && f.Level == verify.Error && strings.HasPrefix(f.Object, vault.CopyLogPrefix(c.copy)) && strings.Contains(f.Detail, c.says)
		}
		if !found {
			t.Errorf("%s: expected %s with %q, got:%s", name, c.code, c.says, lines(list))
		}
	}
}
