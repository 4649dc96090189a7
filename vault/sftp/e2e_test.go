//go:build e2e

package sftp_test

import (
	"context"
	"testing"

	"logvault/fixtures/storetest"
	"logvault/fixtures/testserver"
	"logvault/vault/sftp"
)

func config(s *testserver.SSHD, root string) sftp.Config {
	return sftp.Config{User: s.User, Addr: s.Addr, Root: root, KnownHosts: []string{s.KnownHosts}, Keys: []string{s.Key}, OnlyKeys: true}
}

// TestConformance runs the suite against OpenSSH's sshd.
func TestConformance(t *testing.T) {
	s := testserver.StartSSHD(t)
	storetest.Run(t, func(t *testing.T) storetest.Place {
		cfg := config(s, t.TempDir()+"/vault")
		return storetest.Place{
			Create: func(ctx context.Context) (storetest.Store, error) { return opened(t, sftp.Create)(ctx, cfg) },
			Open:   func(ctx context.Context) (storetest.Store, error) { return opened(t, sftp.Open)(ctx, cfg) },
		}
	})
}

// opened closes a store when its test ends.
func opened(t *testing.T, f func(context.Context, sftp.Config) (*sftp.Store, error)) func(context.Context, sftp.Config) (storetest.Store, error) {
	return func(ctx context.Context, cfg sftp.Config) (storetest.Store, error) {
		s, err := f(ctx, cfg)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { s.Close() })
		return s, nil
	}
}
