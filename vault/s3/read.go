package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

// readable checks a name from outside for reading. It need not be of the
// layout, so that an audit can look at foreign objects.
func (s *Store) readable(name string) error {
	if !fs.ValidPath(name) || name == "." || s.isCanary(s.key(name)) {
		return fmt.Errorf("%.200q: not an object name", name)
	}
	return nil
}

// object is a name with what the layout says of it; foreign names have no kind.
func object(name string) vault.Object {
	o, err := vault.ParseName(name)
	if err != nil {
		return vault.Object{Name: name}
	}
	return o
}

// checksum is the form in which S3 states a SHA-256.
func checksum(h vault.Hash) string { return base64.StdEncoding.EncodeToString(h[:]) }

// Open opens an object for reading and returns its size. In a bucket with
// versions it opens the one that counts; see the package comment. That costs a
// request more only where the newest version is not known to be it.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := s.readable(name); err != nil {
		return nil, 0, err
	}
	o := object(name)
	if !s.versioned {
		return s.get(ctx, name, "")
	}
	if o.IsContentNamed() || vault.IsMutable(name) {
		rc, info, _, err := s.api.GetObject(ctx, s.bucket, s.key(name), minio.GetObjectOptions{Checksum: o.IsContentNamed()})
		if err == nil && (!o.IsContentNamed() || info.ChecksumSHA256 == checksum(o.Hash)) {
			return opened(rc, name, info.Size)
		}
		if err == nil {
			rc.Close() // not the one
		} else if err := s.fail("opening "+name, err); !errors.Is(err, vault.ErrNotExist) {
			return nil, 0, err
		}
	}
	info, err := s.find(ctx, o)
	if err != nil {
		return nil, 0, s.absent(ctx, err)
	}
	return s.get(ctx, name, info.VersionID)
}

// get opens one version, "" for the newest.
func (s *Store) get(ctx context.Context, name, version string) (io.ReadCloser, int64, error) {
	rc, info, _, err := s.api.GetObject(ctx, s.bucket, s.key(name), minio.GetObjectOptions{VersionID: version})
	if err != nil {
		return nil, 0, s.absent(ctx, s.fail("opening "+name, err))
	}
	return opened(rc, name, info.Size)
}

// opened returns an object on its way here. Its length may be missing, or be none.
func opened(rc io.ReadCloser, name string, size int64) (io.ReadCloser, int64, error) {
	if size < 0 {
		rc.Close() // read-only: nothing to lose
		return nil, 0, fmt.Errorf("opening %s: the server tells no length of it", name)
	}
	return &body{rc, name}, size, nil
}

// absent passes an error on. If it says that an object is absent, the bucket must
// still be there, or it is that which is.
func (s *Store) absent(ctx context.Context, err error) error {
	if errors.Is(err, vault.ErrNotExist) {
		if err := s.alive(ctx); err != nil {
			return err
		}
	}
	return err
}

// body is the content of an object on its way here.
type body struct {
	io.ReadCloser
	name string
}

// Read fails with vault.ErrUnreachable when the line breaks.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("reading %s: %w: %w", b.name, vault.ErrUnreachable, err)
	}
	return n, err
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (vault.Info, error) {
	if err := s.readable(name); err != nil {
		return vault.Info{}, err
	}
	o, err := s.find(ctx, object(name))
	if err != nil {
		return vault.Info{}, s.absent(ctx, err)
	}
	return vault.Info{Name: name, Size: o.Size, ModTime: o.LastModified}, nil
}

// find returns the version of an object that counts. An absent object is
// vault.ErrNotExist; whether the bucket is there is for the caller to ask.
func (s *Store) find(ctx context.Context, o vault.Object) (minio.ObjectInfo, error) {
	if s.versioned && !o.IsContentNamed() {
		return s.among(ctx, o)
	}
	info, err := s.api.StatObject(ctx, s.bucket, s.key(o.Name), minio.StatObjectOptions{Checksum: o.IsContentNamed()})
	err = s.fail("looking for "+o.Name, err)
	if !s.versioned {
		info.VersionID = "" // some say "null"
		return info, err
	}
	if err == nil && info.ChecksumSHA256 == checksum(o.Hash) {
		return info, nil
	}
	if err != nil && !errors.Is(err, vault.ErrNotExist) {
		return minio.ObjectInfo{}, err
	}
	return s.among(ctx, o)
}

// among is find by the list of versions.
func (s *Store) among(ctx context.Context, o vault.Object) (minio.ObjectInfo, error) {
	all, err := s.versions(ctx, o.Name)
	if err != nil {
		return minio.ObjectInfo{}, err
	}
	all = data(all)
	switch {
	case len(all) == 0:
		return minio.ObjectInfo{}, fmt.Errorf("looking for %s: %w", o.Name, vault.ErrNotExist)
	case o.IsContentNamed() && len(all) > 1:
		return s.byHash(ctx, o, all)
	}
	return counts(o, all), nil
}

// counts chooses between the data versions of an object, newest first. The one
// of a content name cannot be told without asking for hashes: the oldest is
// right unless somebody was there before the first Put.
func counts(o vault.Object, all []minio.ObjectInfo) minio.ObjectInfo {
	if o.Kind == 0 || vault.IsMutable(o.Name) {
		return all[0]
	}
	return all[len(all)-1]
}

// data leaves out the delete markers.
func data(all []minio.ObjectInfo) []minio.ObjectInfo {
	var kept []minio.ObjectInfo
	for _, v := range all {
		if !v.IsDeleteMarker {
			kept = append(kept, v)
		}
	}
	return kept
}

// versions lists all versions and delete markers of a name, newest first.
func (s *Store) versions(ctx context.Context, name string) ([]minio.ObjectInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []minio.ObjectInfo
	for v := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.key(name), Recursive: true, WithVersions: true, MaxKeys: 100}) {
		if v.Err != nil {
			return nil, s.fail("listing the versions of "+name, v.Err)
		}
		if v.Key != s.key(name) {
			break // longer names follow
		}
		all = append(all, v)
	}
	return all, nil
}

// byHash finds the oldest version with the SHA-256 that the name states: by the
// checksum that the server keeps, or by reading what has none. If none is it,
// the oldest is returned, and the caller's own check finds the damage.
func (s *Store) byHash(ctx context.Context, o vault.Object, all []minio.ObjectInfo) (minio.ObjectInfo, error) {
	for _, v := range slices.Backward(all) {
		info, err := s.api.StatObject(ctx, s.bucket, s.key(o.Name), minio.StatObjectOptions{VersionID: v.VersionID, Checksum: true})
		if err != nil {
			return minio.ObjectInfo{}, s.fail("looking at a version of "+o.Name, err)
		}
		same := info.ChecksumSHA256 == checksum(o.Hash)
		if info.ChecksumSHA256 == "" {
			h, err := s.hash(ctx, o.Name, v.VersionID)
			if err != nil {
				return minio.ObjectInfo{}, err
			}
			same = h == o.Hash
		}
		if same {
			return v, nil
		}
	}
	return all[len(all)-1], nil
}

// hash reads a version and returns its SHA-256.
func (s *Store) hash(ctx context.Context, name, version string) (vault.Hash, error) {
	rc, _, err := s.get(ctx, name, version)
	if err != nil {
		return vault.Hash{}, err
	}
	defer rc.Close() // read-only: nothing to lose
	h := sha256.New()
	if _, err := io.Copy(h, rc); err != nil {
		return vault.Hash{}, err
	}
	return vault.Hash(h.Sum(nil)), nil
}

// List calls fn for each object below the directory prefix, in lexical order of
// names; those that a delete marker hides are listed too. The size of an object
// with several versions is that of the one that Stat finds without a hash.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	name, ok := strings.CutSuffix(prefix, "/")
	if prefix != "" && (!ok || !fs.ValidPath(name) || name == ".") {
		return fmt.Errorf("listing %.200q: expected a directory name ending in \"/\"", prefix)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group []minio.ObjectInfo // the data versions of one key
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		name := strings.TrimPrefix(group[0].Key, s.prefix)
		v := counts(object(name), group)
		group = group[:0]
		return fn(vault.Info{Name: name, Size: v.Size, ModTime: v.LastModified})
	}
	last := ""
	for v := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true, WithVersions: s.versioned}) {
		if v.Err != nil {
			return s.fail("listing "+s.place()+"/"+prefix, v.Err)
		}
		if !strings.HasPrefix(v.Key, s.key(prefix)) || v.Size < 0 {
			return fmt.Errorf("listing %s: the server lists %.200q of %d bytes, which cannot be under %q", s.place(), v.Key, v.Size, s.key(prefix))
		}
		if v.Key < last {
			return fmt.Errorf("listing %s: the server lists %q after %q, expected lexical order", s.place(), v.Key, last)
		}
		if v.Key != last {
			if err := flush(); err != nil {
				return err
			}
		}
		if last = v.Key; !v.IsDeleteMarker && !s.isCanary(v.Key) && !strings.HasSuffix(v.Key, "/") {
			group = append(group, v)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return flush()
}
