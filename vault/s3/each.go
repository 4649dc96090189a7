package s3

import (
	"context"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

// EachOldVersion calls fn for every version below the prefix, the names of other
// programs among them, that a later version or a delete marker hides: what List
// does not show and the bucket keeps. It stops at fn's first error and returns
// it. It is for whoever looks for what should be gone.
func (s *Store) EachOldVersion(ctx context.Context, fn func(i vault.Info, version string, open func() (io.ReadCloser, error)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing, if fn did
	for v := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true, WithVersions: true}) {
		if v.Err != nil {
			return s.fail("listing all versions", v.Err)
		}
		if v.IsDeleteMarker || v.IsLatest {
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
