package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

const (
	maxObject   = 5 << 30  // bytes in one PUT; S3's own limit
	maxBuffered = 32 << 20 // bytes of an object whose hash is not in its name
)

// bodyError is an error of the body of a Put: not of the line.
type bodyError struct{ err error }

// Error returns the text of the body's error.
func (e *bodyError) Error() string { return e.err.Error() }

// Unwrap returns the body's error.
func (e *bodyError) Unwrap() error { return e.err }

// named reads the body of an object that is named by its content. The last
// bytes leave only when the body is known to end there and to be that content:
// else the error comes in their place, and the server stores nothing.
type named struct {
	r    io.Reader // ends with an error unless the size is right
	left int64
	h    hash.Hash
	want vault.Hash
}

// Read returns the body's bytes, the last ones only if all are as they should be.
func (n *named) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	got, err := n.r.Read(p)
	n.h.Write(p[:got])
	if n.left -= int64(got); n.left == 0 && err == nil {
		_, err = io.ReadFull(n.r, make([]byte, 1))
	}
	if err == io.EOF {
		err = sameHash(vault.Hash(n.h.Sum(nil)), n.want)
	}
	if err != nil {
		return 0, &bodyError{err}
	}
	return got, nil
}

func sameHash(got, want vault.Hash) error {
	if got != want {
		return fmt.Errorf("the body has SHA-256 %s, expected that of its name", got)
	}
	return nil
}

// Put stores size bytes of body under name, create-exclusive; see vault.Writer.
//
//	HEAD name, or its versions      there already: GET and compare
//	PUT name, If-None-Match: *      with the SHA-256 of the body
//
// The PUT is the commit point: the server stores all of it or nothing. If its
// answer is lost the object may be there, and the next Put compares.
func (s *Store) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	o, err := vault.CheckPut(name, size)
	if err != nil {
		return err
	}
	limit := int64(maxBuffered)
	if o.IsContentNamed() {
		limit = maxObject
	}
	if size > limit {
		return fmt.Errorf("storing: %w", &vault.TooLargeError{Name: name, Size: size, Limit: limit})
	}
	r = vault.Exactly(ctx, r, size)
	look := s.find
	if s.versioned {
		look = s.among // mostly nothing is there, and one request tells
	}
	there, err := look(ctx, o)
	switch {
	case err == nil:
		err = s.putSame(ctx, name, there.VersionID, r)
	case errors.Is(err, vault.ErrNotExist):
		err = s.putNew(ctx, o, size, r)
	}
	if err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	return nil
}

// putSame succeeds if a version holds exactly the bytes of body.
func (s *Store) putSame(ctx context.Context, name, version string, r io.Reader) error {
	rc, size, err := s.get(ctx, name, version)
	if err != nil {
		return err
	}
	defer rc.Close() // read-only: nothing to lose
	same, err := vault.Same(rc, r)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: %d bytes are stored, other bytes were offered", vault.ErrConflict, size)
	}
	return nil
}

func (s *Store) putNew(ctx context.Context, o vault.Object, size int64, r io.Reader) error {
	sum := o.Hash
	if o.IsContentNamed() && size > 0 {
		r = &named{r: r, left: size, h: sha256.New(), want: o.Hash}
	} else {
		all, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if sum = vault.HashOf(all); o.IsContentNamed() && sum != o.Hash {
			return sameHash(sum, o.Hash)
		}
		r = bytes.NewReader(all) // can be sent again
	}
	_, err := s.upload(ctx, s.key(o.Name), sum, size, r, true)
	if c := status(err); c != http.StatusPreconditionFailed && c != http.StatusConflict {
		return s.fail("sending it", err)
	}
	// Somebody stored the name since we looked, or an earlier try of this PUT did.
	there, err := s.find(ctx, o)
	if err != nil {
		return err
	}
	stored, err := s.hash(ctx, o.Name, there.VersionID)
	if err == nil && stored != sum {
		err = fmt.Errorf("%w: other bytes were offered", vault.ErrConflict)
	}
	return err
}

// upload is the PUT. Its error is the library's.
func (s *Store) upload(ctx context.Context, key string, sum vault.Hash, size int64, r io.Reader, exclusive bool) (minio.UploadInfo, error) {
	// The signature covers the hash of the payload, and the checksum stays with
	// the object: byHash asks for it. A locked bucket demands one of them.
	opts := minio.PutObjectOptions{DisableContentSha256: true, DisableMultipart: true, UserMetadata: map[string]string{"X-Amz-Checksum-Sha256": checksum(sum)}}
	if exclusive {
		opts.SetMatchETagExcept("*")
	}
	return s.api.PutObject(ctx, s.bucket, key, r, size, "", sum.String(), opts)
}

// Replace atomically gives a mutable name new content; see vault.Head. It is
// one PUT: a crash leaves the old content or the new. A bucket with versions
// keeps the old one until RemoveVersions.
func (s *Store) Replace(ctx context.Context, name string, data []byte) error {
	if err := vault.CheckReplace(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.upload(ctx, s.key(name), vault.HashOf(data), int64(len(data)), bytes.NewReader(data), false)
	return s.fail("replacing "+name, err)
}

// RemovePartial removes all versions of a superseded partial tile or bundle;
// see vault.Head.
func (s *Store) RemovePartial(ctx context.Context, name string) error {
	if err := vault.CheckRemovePartial(name); err != nil {
		return err
	}
	return s.removeAll(ctx, name)
}

// RemoveTail removes all versions of a full tile or bundle beyond the published
// checkpoint of its log; see vault.Head.
func (s *Store) RemoveTail(ctx context.Context, name string) error {
	if err := vault.CheckRemoveTail(ctx, s, name); err != nil {
		return err
	}
	return s.removeAll(ctx, name)
}

// Remove removes all versions of an object; see vault.Remover. A version that
// is locked makes it fail, and keeps the object.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := vault.CheckRemove(name); err != nil {
		return err
	}
	return s.removeAll(ctx, name)
}

// removeAll removes every version of a name and the delete markers on it.
func (s *Store) removeAll(ctx context.Context, name string) error {
	if !s.versioned {
		return s.removeVersion(ctx, name, "")
	}
	all, err := s.versions(ctx, name)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := s.removeVersion(ctx, name, v.VersionID); err != nil {
			return err
		}
	}
	return nil
}

// removeVersion removes one version, which may be absent.
func (s *Store) removeVersion(ctx context.Context, name, version string) error {
	err := s.fail("removing "+name, s.api.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{VersionID: version}))
	if errors.Is(err, vault.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveVersions removes all versions of a mutable name but the one that
// counts, and the delete markers on it; see vault.Versioned.
func (s *Store) RemoveVersions(ctx context.Context, name string) error {
	if err := vault.CheckReplace(name); err != nil {
		return err
	}
	if !s.versioned {
		return nil
	}
	all, err := s.versions(ctx, name)
	if err != nil {
		return err
	}
	kept := false
	for _, v := range all {
		if !kept && !v.IsDeleteMarker {
			kept = true
			continue
		}
		if err := s.removeVersion(ctx, name, v.VersionID); err != nil {
			return err
		}
	}
	return nil
}

// Sweep aborts the multipart uploads under the prefix, which this store never
// makes, removes the canaries of processes that were killed, and returns how
// many. A canary whose lock has not ended stays until the next time.
func (s *Store) Sweep(ctx context.Context) (swept int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u := range s.api.ListIncompleteUploads(ctx, s.bucket, s.prefix, true) {
		if u.Err != nil {
			return swept, s.fail("sweeping", u.Err)
		}
		if err := s.api.AbortMultipartUpload(ctx, s.bucket, u.Key, u.UploadID); err != nil && status(err) != http.StatusNotFound {
			return swept, s.fail("sweeping", err)
		}
		swept++
	}
	for v := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.key(canaryPrefix), Recursive: true, WithVersions: s.versioned}) {
		if v.Err != nil {
			return swept, s.fail("sweeping", v.Err)
		}
		if s.dropCanary(ctx, v.Key, v.VersionID) == nil && !v.IsDeleteMarker {
			swept++
		}
	}
	return swept, nil
}

func (s *Store) isCanary(key string) bool { return strings.HasPrefix(key, s.key(canaryPrefix)) }
