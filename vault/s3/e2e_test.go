//go:build e2e

package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"logvault/fixtures/storetest"
	"logvault/fixtures/testserver"
	"logvault/vault"
	"logvault/vault/s3"
)

// raw is a client that does what it likes, with the account of the store.
func raw(t *testing.T, s *testserver.S3) *minio.Client {
	t.Helper()
	c, err := minio.New(s.Endpoint, &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: "us-east-1", MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func bucket(t *testing.T, c *minio.Client, name string, lock, versions bool) {
	t.Helper()
	if err := c.MakeBucket(context.Background(), name, minio.MakeBucketOptions{ObjectLocking: lock}); err != nil {
		t.Fatal(err)
	}
	if versions {
		if err := c.EnableVersioning(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// conformance runs the suite on a plain, a versioned and a locked bucket.
func conformance(t *testing.T, s *testserver.S3) {
	s.Env(t)
	c := raw(t, s)
	bucket(t, c, "plain", false, false)
	bucket(t, c, "versioned", false, true)
	bucket(t, c, "locked", true, false)
	var n atomic.Int64
	for _, name := range []string{"plain", "versioned", "locked"} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) storetest.Place {
				cfg := s3.Config{Endpoint: s.Endpoint, Plain: true, Bucket: name, Prefix: fmt.Sprintf("vaults/%d", n.Add(1))}
				return storetest.Place{
					Create: func(ctx context.Context) (storetest.Store, error) { return store(s3.Create(ctx, cfg)) },
					Open:   func(ctx context.Context) (storetest.Store, error) { return store(s3.Open(ctx, cfg)) },
				}
			})
		})
	}
}

func TestMinIO(t *testing.T) { conformance(t, testserver.MinIO(t)) }

func TestVersityGW(t *testing.T) { conformance(t, testserver.VersityGW(t)) }

// TestErrors checks what callers branch on.
func TestErrors(t *testing.T) {
	server := testserver.MinIO(t)
	store, _, cfg := create(t, server, "plain", false, false)
	other := cfg
	other.Bucket = "absent"
	_, err := s3.Open(ctx, other)
	wantErr(t, "an absent bucket", err, vault.ErrNoVault)
	_, err = s3.Create(ctx, other)
	wantErr(t, "creating in an absent bucket", err, vault.ErrNoVault)
	other = cfg
	other.Prefix = "vau" // the beginning of a name is not the name
	_, err = s3.Open(ctx, other)
	wantErr(t, "an empty prefix", err, vault.ErrNoVault)

	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-"+server.SecretKey)
	_, err = s3.Open(ctx, cfg)
	wantErr(t, "a wrong key", err, fs.ErrPermission)
	if strings.Contains(fmt.Sprint(err), server.SecretKey) {
		t.Error("the error tells the secret key")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("HOME", t.TempDir())
	_, err = s3.Open(ctx, cfg)
	wantErr(t, "no key", err, fs.ErrPermission)
	server.Env(t)

	rc, _, err := store.Open(ctx, vault.MarkerName)
	must(t, err)
	_, err = io.ReadAll(rc)
	must(t, err)
	must(t, rc.Close())
	must(t, server.Process.Kill())
	wantErr(t, "a dead server", put(store, segment("x"), "x"), vault.ErrUnreachable)
	_, err = s3.Open(ctx, cfg)
	wantErr(t, "opening at a dead server", err, vault.ErrUnreachable)
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, expected %v", what, got, want)
	}
}

// TestSilentServer stops the server in the middle of things: calls end, and
// succeed when it goes on. The time-out is short: on a machine that stands still
// for as long any call may end so, and is made again, as its callers do.
func TestSilentServer(t *testing.T) {
	server := testserver.MinIO(t)
	_, _, cfg := create(t, server, "plain", false, false)
	cfg.Timeout = time.Second
	again := func(call func() error) {
		t.Helper()
		err := call()
		for tries := 1; errors.Is(err, vault.ErrUnreachable) && tries < 20; tries++ {
			err = call()
		}
		must(t, err)
	}
	var store *s3.Store
	again(func() (err error) {
		store, err = s3.Open(ctx, cfg)
		return err
	})
	server.Stop(t)
	wantErr(t, "Put", put(store, segment("x"), "x"), vault.ErrUnreachable)
	_, err := store.Stat(ctx, vault.MarkerName)
	wantErr(t, "Stat", err, vault.ErrUnreachable)
	wantErr(t, "List", store.List(ctx, "", func(vault.Info) error { return nil }), vault.ErrUnreachable)
	server.Continue(t)
	again(func() error { return put(store, segment("x"), "x") })
	cfg.Timeout = 0
	patient, err := s3.Open(ctx, cfg)
	must(t, err)
	wantContent(t, "after the silence", patient, segment("x"), "x")
}
