package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"logvault/vault"
)

// Protect locks an object in COMPLIANCE mode until the given time, rounded up
// to a second, reads the lock back and returns the level that holds: a lock
// that is there already and lasts longer is left as it is. In a bucket without
// Object Lock it does nothing and returns vault.LevelNone, as it does, with the
// lock set, where the canary found the server's locks wanting; Shortfall says why.
// With a default retention of the bucket the error wraps vault.ErrUnfit.
//
// The first call of a process waits some seconds for the canary.
func (s *Store) Protect(ctx context.Context, name string, until time.Time) (vault.Level, error) {
	if err := s.readable(name); err != nil {
		return vault.LevelNone, err
	}
	v, err := s.ask(ctx)
	if err != nil || !v.locks {
		return vault.LevelNone, err
	}
	o, err := s.find(ctx, object(name))
	if err != nil {
		return vault.LevelNone, s.absent(ctx, err)
	}
	if until = until.UTC(); until.Nanosecond() != 0 {
		until = until.Truncate(time.Second).Add(time.Second)
	}
	held, err := s.lockedUntil(ctx, o.Key, o.VersionID)
	if !until.After(time.Now()) {
		until = held // its date has come: there is nothing to lock, and nothing missing
	}
	if err == nil && held.Before(until) {
		if err = s.lock(ctx, o.Key, o.VersionID, until); err == nil {
			held, err = s.lockedUntil(ctx, o.Key, o.VersionID)
		}
	}
	if err != nil {
		return vault.LevelNone, s.fail("protecting "+name, err)
	}
	if held.Before(until) || v.shortfall != "" {
		return vault.LevelNone, nil
	}
	return vault.LevelLock, nil
}

// Shortfall says why Protect does not return vault.LevelLock, in words, once it
// was called; "" if nothing is missing.
func (s *Store) Shortfall() string {
	s.probing.Lock()
	defer s.probing.Unlock()
	if s.probed == nil {
		return ""
	}
	return s.probed.shortfall
}

// lockedUntil returns the end of a version's COMPLIANCE lock, or the zero time.
// The lock is read from the object's own headers: not every server words the
// answer to the request for it alike.
func (s *Store) lockedUntil(ctx context.Context, key, version string) (time.Time, error) {
	info, err := s.api.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{VersionID: version})
	if err != nil || info.Metadata.Get("X-Amz-Object-Lock-Mode") != minio.Compliance.String() {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
}

func (s *Store) lock(ctx context.Context, key, version string, until time.Time) error {
	mode := minio.Compliance
	return s.api.PutObjectRetention(ctx, s.bucket, key, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: version})
}

// verdict is what is known of a bucket's locks.
type verdict struct {
	locks     bool   // the bucket has Object Lock
	shortfall string // what its locks do not do; "" if they hold
}

// ask returns the verdict on the bucket, which the canary gives once.
func (s *Store) ask(ctx context.Context) (*verdict, error) {
	s.probing.Lock()
	defer s.probing.Unlock()
	if s.probed != nil {
		return s.probed, nil
	}
	locks, err := s.lockable(ctx)
	if err != nil {
		return nil, err
	}
	if !locks {
		s.probed = &verdict{shortfall: "the bucket has no Object Lock"}
		return s.probed, nil
	}
	shortfall, err := s.canary(ctx)
	if err != nil {
		return nil, s.fail("trying the bucket's Object Lock", err)
	}
	s.probed = &verdict{locks: true, shortfall: shortfall}
	return s.probed, nil
}

// lockable reports whether the bucket has Object Lock. With a default retention the
// error wraps vault.ErrUnfit: every version of the mutable names would be locked,
// and partial tiles could not go.
func (s *Store) lockable(ctx context.Context) (bool, error) {
	enabled, mode, validity, unit, err := s.api.GetObjectLockConfig(ctx, s.bucket)
	switch {
	case err != nil && (status(err) == http.StatusNotFound || status(err) == http.StatusNotImplemented):
		return false, nil
	case err != nil:
		return false, s.fail("asking for the bucket's Object Lock", err)
	case enabled == "Enabled" && mode != nil && validity != nil && unit != nil:
		return false, fmt.Errorf("bucket %s: %w: it has a default retention (%s, %d %s), expected none: each object gets a date of its own",
			s.bucket, vault.ErrUnfit, *mode, *validity, strings.ToLower(string(*unit)))
	}
	return enabled == "Enabled", nil
}

// canaryPrefix begins the names of canaries, beside the vault's own names. They
// are never listed.
const canaryPrefix = ".canary-"

// canary tries the locks of the bucket on an object of its own, and returns what
// they do not do:
//
//  1. put it, lock it in COMPLIANCE mode for some seconds, put a legal hold on it;
//  2. the lock is read back;
//  3. removing the version, removing it with the right to bypass governance,
//     shortening the lock and turning it to GOVERNANCE are refused, each;
//  4. after the lock's end, under the legal hold alone, removing is refused;
//  5. the object is as it was.
//
// Legal holds are not what Protect uses. But a server that gets them wrong does
// not have the Object Lock that S3 describes, and its word for the rest is not
// taken either: versitygw 1.8.0 removes an object under legal hold once its lock
// has ended.
//
// What is answered after the end of the lock says nothing about it, so a machine
// or a server that stood still meanwhile gets another canary, whose lock lasts
// twice as long.
//
// A crash leaves the canary, which Sweep removes.
func (s *Store) canary(ctx context.Context) (shortfall string, err error) {
	const canaries = 5
	lasts := 3 * time.Second
	for range canaries {
		shortfall, late, err := s.tryCanary(ctx, lasts)
		if err != nil || !late {
			return shortfall, err
		}
		lasts *= 2
	}
	return "", fmt.Errorf("the answers took longer than the locks lasted, %d times", canaries)
}

// tryCanary is one canary. late says that its lock may have ended before all that
// was to be refused under it was answered.
func (s *Store) tryCanary(ctx context.Context, lasts time.Duration) (shortfall string, late bool, err error) {
	var id [8]byte
	rand.Read(id[:]) // never fails
	c := &canary{s: s, key: s.key(canaryPrefix + hex.EncodeToString(id[:]))}
	defer c.drop(context.WithoutCancel(ctx))
	shortfall, err = c.put(ctx, lasts)
	for _, try := range c.tries() {
		if shortfall != "" || err != nil {
			break
		}
		shortfall, err = refused(try.what, try.do(ctx))
	}
	if late = time.Now().After(c.holds); err != nil || shortfall != "" && !late {
		return shortfall, false, err
	}
	select {
	case <-ctx.Done():
		return "", false, ctx.Err()
	case <-time.After(time.Until(c.over)):
	}
	if late {
		return "", true, nil
	}
	shortfall, err = refused("removes an object under legal hold once its lock has ended", c.remove(ctx, false))
	if shortfall == "" && err == nil {
		shortfall, err = c.intact(ctx)
	}
	return shortfall, false, err
}

// canary is the object that the locks are tried on.
type canary struct {
	s       *Store
	key     string
	version string
	end     time.Time // of the lock, by the server's clock
	holds   time.Time // until when it holds for certain, by ours
	over    time.Time // when it has ended for certain, by ours
}

// put stores and locks the object, for longer than it is told where requests are
// slow: all of the tries must fit in.
func (c *canary) put(ctx context.Context, lasts time.Duration) (shortfall string, err error) {
	began := time.Now()
	c.holds = began.Add(lasts)
	data := []byte(c.key)
	up, err := c.s.upload(ctx, c.key, vault.HashOf(data), int64(len(data)), bytes.NewReader(data), true)
	if err != nil {
		return "", err
	}
	if c.version = up.VersionID; c.version == "" {
		return "the bucket gives its objects no versions", nil
	}
	info, err := c.s.api.StatObject(ctx, c.s.bucket, c.key, minio.StatObjectOptions{VersionID: c.version})
	if err != nil {
		return "", err
	}
	lasts = (lasts + 10*time.Since(began)).Round(time.Second)
	c.end = info.LastModified.UTC().Truncate(time.Second).Add(lasts)
	c.holds = began.Add(lasts - time.Second) // the object was modified after we began, less what is cut off
	c.over = time.Now().Add(lasts + time.Second)
	if err := c.s.lock(ctx, c.key, c.version, c.end); err != nil {
		return told("does not lock an object", err)
	}
	on := minio.LegalHoldEnabled
	if err := c.s.api.PutObjectLegalHold(ctx, c.s.bucket, c.key, minio.PutObjectLegalHoldOptions{Status: &on, VersionID: c.version}); err != nil {
		return told("puts no legal hold on an object", err)
	}
	held, err := c.s.lockedUntil(ctx, c.key, c.version)
	if err == nil && !held.Equal(c.end) {
		return "shows another lock than it was given", nil
	}
	return "", err
}

// try is something that a lock must refuse.
type try struct {
	what string
	do   func(ctx context.Context) error
}

func (c *canary) tries() []try {
	relock := func(mode minio.RetentionMode, until time.Time) func(context.Context) error {
		return func(ctx context.Context) error {
			return c.s.api.PutObjectRetention(ctx, c.s.bucket, c.key, minio.PutObjectRetentionOptions{GovernanceBypass: true, Mode: &mode, RetainUntilDate: &until, VersionID: c.version})
		}
	}
	return []try{
		{"removes a locked object", func(ctx context.Context) error { return c.remove(ctx, false) }},
		{"removes a locked object for who may bypass governance", func(ctx context.Context) error { return c.remove(ctx, true) }},
		{"shortens a lock", relock(minio.Compliance, c.end.Add(-time.Second))},
		{"turns a lock to GOVERNANCE", relock(minio.Governance, c.end)},
	}
}

func (c *canary) remove(ctx context.Context, bypass bool) error {
	return c.s.api.RemoveObject(ctx, c.s.bucket, c.key, minio.RemoveObjectOptions{VersionID: c.version, GovernanceBypass: bypass})
}

// intact looks whether what was refused was also not done.
func (c *canary) intact(ctx context.Context) (shortfall string, err error) {
	rc, _, _, err := c.s.api.GetObject(ctx, c.s.bucket, c.key, minio.GetObjectOptions{VersionID: c.version})
	if err != nil {
		return told("loses a locked object", err)
	}
	defer rc.Close() // read-only: nothing to lose
	same, err := vault.Same(rc, bytes.NewReader([]byte(c.key)))
	if err == nil && !same {
		return "changes a locked object", nil
	}
	return "", err
}

// drop removes the object; what fails is left to Sweep.
func (c *canary) drop(ctx context.Context) {
	if c.version != "" {
		_ = c.s.dropCanary(ctx, c.key, c.version)
	}
}

func (s *Store) dropCanary(ctx context.Context, key, version string) error {
	off := minio.LegalHoldDisabled
	// Refused where there is no hold; what counts is the removal.
	_ = s.api.PutObjectLegalHold(ctx, s.bucket, key, minio.PutObjectLegalHoldOptions{Status: &off, VersionID: version})
	return s.api.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{VersionID: version})
}

// refused returns the shortfall if what should have been refused was done, and
// an error if the server did not answer.
func refused(what string, err error) (shortfall string, _ error) {
	if err == nil {
		return "the server " + what, nil
	}
	if c := status(err); c < 400 || c >= 500 {
		return "", fmt.Errorf("trying whether the server %s: %w", what, err)
	}
	return "", nil
}

// told returns the shortfall if the server refused what it should do.
func told(what string, err error) (shortfall string, _ error) {
	if c := status(err); c >= 400 && c < 500 || c == http.StatusNotImplemented {
		return fmt.Sprintf("the server %s: %v", what, err), nil
	}
	return "", err
}
