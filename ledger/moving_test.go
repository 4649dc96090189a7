package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"logvault/ledger"
	"logvault/vault"
)

// moving is a store whose log grows between the steps of a reader: as for one
// that is far away, while the gateway is busy.
type moving struct {
	ledger.Store
	before func()
	err    error // of listings
}

func (m *moving) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	m.before()
	return m.Store.Open(ctx, name)
}

func (m *moving) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	m.before()
	if m.err != nil {
		return m.err
	}
	return m.Store.List(ctx, prefix, fn)
}

// A tree can be read while its partial tiles are superseded, faster than the
// reader follows, and while they become full.
func TestReadWhileTheLogGrows(t *testing.T) {
	for _, c := range []struct{ size, every, by int }{
		{3, 1, 1}, {3, 2, 1}, {3, 3, 1}, {200, 1, 7}, {250, 3, 5}, {255, 3, 1}, {255, 2, 1}, {254, 1, 1}, {511, 2, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			l, cfg := newLog(t)
			grow(t, l, c.size)
			steps := 0
			r := &moving{Store: cfg.Record, before: func() {}}
			tree := openTree(t, r)
			r.before = func() {
				if steps++; steps%c.every == 0 {
					grow(t, l, c.by)
				}
			}
			next := int64(0)
			err := tree.Entries(context.Background(), 0, tree.Size(), func(i int64, data []byte) error {
				if i != next || string(data) != string(testEntry(fmt.Sprint(i))) {
					t.Errorf("entry %d is %s, expected number %d", i, data, next)
				}
				next++
				return nil
			})
			if err != nil || next != int64(c.size) {
				t.Errorf("%d of %d entries after %d steps: %v", next, c.size, steps, err)
			}
		})
	}
}

// A store that fails while a superseded file is looked for is what failed: the
// file is not reported as absent, which would be damage.
func TestReadFailsWhileTheLogGrows(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 3)
	r := &moving{Store: cfg.Record, before: func() {}}
	tree := openTree(t, r)
	grow(t, l, 1)
	r.err = errors.New("connection lost")
	if _, err := tree.Entry(context.Background(), 1); !errors.Is(err, r.err) || errors.Is(err, vault.ErrNotExist) {
		t.Errorf("%v, expected %v", err, r.err)
	}
}
