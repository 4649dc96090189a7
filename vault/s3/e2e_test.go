//go:build e2e

package s3_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"logvault/fixtures/storetest"
	"logvault/fixtures/testserver"
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
