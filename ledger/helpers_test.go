package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/vault"
	"logvault/vault/dir"
)

const testOrigin = "logs.example/test"

// keyPair is a note key pair.
type keyPair struct{ skey, vkey string }

var makeTestKey = sync.OnceValues(func() (keyPair, error) {
	skey, vkey, err := ledger.GenerateKey(rand.NewChaCha8([32]byte{1}), testOrigin)
	return keyPair{skey, vkey}, err
})

// testKey returns the one ledger key of the tests.
func testKey(t testing.TB) keyPair {
	t.Helper()
	k, err := makeTestKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testEntry returns a canonical entry. The ledger does not care for its type.
func testEntry(text string) []byte {
	return fmt.Appendf(nil, `{"text":%q,"type":"test","v":1}`, text)
}

// testEntries returns n entries numbered from first.
func testEntries(first int64, n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = testEntry(fmt.Sprint(first + int64(i)))
	}
	return list
}

// grow appends n numbered entries in batches.
func grow(t testing.TB, l *ledger.Log, n int) {
	t.Helper()
	for size := l.Checkpoint().Size; n > 0; {
		batch := min(n, ledger.MaxBatch)
		first, err := l.Append(context.Background(), testEntries(size, batch)...)
		if err != nil {
			t.Fatal(err)
		}
		if first != size {
			t.Fatalf("first index %d, expected %d", first, size)
		}
		size, n = size+int64(batch), n-batch
	}
}

// clock is a settable clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// began is the time of every ledger that is not given another. It stands still: at
// midnight a head more would be kept than a test counts.
var began = time.Now()

// prepare makes an empty state directory and an empty vault.
func prepare(t testing.TB, state, nas vfs.FS) {
	t.Helper()
	if err := vfs.MkdirAll(state, "state", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Create(nas, "vault"); err != nil {
		t.Fatal(err)
	}
}

// openConfigOn opens both stores anew, as after a restart.
func openConfigOn(t testing.TB, state, nas vfs.FS) ledger.Config {
	t.Helper()
	record, err := dir.At(state, "state")
	if err != nil {
		t.Fatal(err)
	}
	copied, err := dir.Open(nas, "vault")
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Config{
		Prefix: vault.LedgerPrefix, Origin: testOrigin, SignerKey: testKey(t).skey,
		Record: record, Copy: copied, Now: func() time.Time { return began },
	}
}

// memConfig makes a record and a vault on one disk.
func memConfig(t testing.TB, disk vfs.FS) ledger.Config {
	t.Helper()
	prepare(t, disk, disk)
	return openConfigOn(t, disk, disk)
}

// newLog creates a ledger in memory.
func newLog(t testing.TB) (*ledger.Log, ledger.Config) {
	t.Helper()
	cfg := memConfig(t, vfs.NewMem())
	l, err := ledger.Create(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, cfg
}

// trust returns the trust file of the test ledger.
func trust(t testing.TB) *ledger.Trust {
	return &ledger.Trust{Log: testKey(t).vkey, Origin: testOrigin}
}

// openTree opens the tree that a store holds.
func openTree(t testing.TB, r vault.Reader) *ledger.Tree {
	t.Helper()
	tree, err := ledger.OpenTree(context.Background(), r, vault.LedgerPrefix, trust(t))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// problems audits a tree.
func problems(t testing.TB, tree *ledger.Tree) []ledger.Problem {
	t.Helper()
	var list []ledger.Problem
	err := tree.Audit(context.Background(), func(p ledger.Problem) error {
		list = append(list, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
