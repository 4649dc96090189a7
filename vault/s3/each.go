package s3

import (
	"context"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

// EachVersion calls fn for every version of every object below the prefix, the
// names of other programs among them, whether or not a later version or a delete
// marker hides it. version is "" in a bucket without versions. It stops at fn's
// first error and returns it. It is for whoever looks for what should be gone.
func (s *Store) EachVersion(ctx context.Context, fn func(i vault.Info, version string, open func() (io.ReadCloser, error)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing, if fn did
	for v := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true, WithVersions: true}) {
		if v.Err != nil {
			return s.fail("listing all versions", v.Err)
		}
		if v.IsDeleteMarker {
			continue
		}
		name := strings.TrimPrefix(v.Key, s.prefix)
		open := func() (io.ReadCloser, error) {
			rc, _, err := s.get(ctx, name, v.VersionID)
			return rc, err
		}
		if err := fn(vault.Info{Name: name, Size: v.Size, ModTime: v.LastModified}, v.VersionID, open); err != nil {
			return err
		}
	}
	return nil
}
