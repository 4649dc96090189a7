package sftp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/storetest"
	"logvault/vault"
	"logvault/vault/sftp"
)

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, expected %v", what, got, want)
	}
}

// place is where the conformance suite makes a vault; its stores are closed when
// the test ends.
func place(t *testing.T, cfg sftp.Config) storetest.Place {
	opened := func(f func(context.Context, sftp.Config) (*sftp.Store, error)) func(context.Context) (storetest.Store, error) {
		return func(ctx context.Context) (storetest.Store, error) {
			s, err := f(ctx, cfg)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { s.Close() })
			return s, nil
		}
	}
	return storetest.Place{Create: opened(sftp.Create), Open: opened(sftp.Open)}
}

// create makes a vault in a directory of a server.
func create(t *testing.T, cfg sftp.Config) *sftp.Store {
	t.Helper()
	s, err := sftp.Create(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	must(t, put(s, vault.MarkerName, "marker"))
	return s
}

func put(s *sftp.Store, name, data string) error {
	return s.Put(ctx, name, int64(len(data)), strings.NewReader(data))
}

func segment(data string) string {
	return vault.SegmentName(vault.Day{Year: 2026, Month: time.November, Day: 21}, vault.HashOf([]byte(data)), vault.Gzip)
}
