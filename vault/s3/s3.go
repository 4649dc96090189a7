// Package s3 is the S3 store: a vault under a prefix of a bucket, an object of
// the bucket for each object of the vault, under the same names.
//
// # Writing
//
// An object is sent in one PUT with its SHA-256, which the server checks before
// it stores anything, so that objects are whole or absent; multipart uploads
// are never used. If-None-Match keeps a PUT from taking the place of an object.
// A server that does not know it (the header is then ignored) is guarded
// against by a look before, which two writers at one moment would defeat: a
// vault has one. Objects are limited to 5 GiB, those that are not named by
// their own content to 32 MiB.
//
// # Versions
//
// A bucket may keep versions, and one with Object Lock does. Overwriting an
// object or deleting it then only puts a version or a delete marker on top, and
// the store looks below:
//
//   - an object named by its content is the version that has that SHA-256;
//   - any other immutable object is the oldest version: it was the first Put;
//   - a mutable name of a ledger is the newest version that is not a delete marker.
//
// So whoever may only add versions hides nothing. What the store removes it
// removes by version id, all versions.
//
// # Object Lock
//
// Protect locks the version in COMPLIANCE mode, reads the lock back and reports
// vault.LevelLock only if a canary object showed first that this server keeps
// its locks; see canary. Everything else is vault.LevelNone.
//
// The bucket is made by a person, with Object Lock if wanted. One with a default
// retention, which would keep the mutable names' old versions too, is refused by
// Create and by Protect.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"logvault/internal/deadline"
	"logvault/vault"
)

// Config says where a vault is and who asks for it.
type Config struct {
	Endpoint string // HOST or HOST:PORT
	Plain    bool   // HTTP instead of HTTPS
	Bucket   string
	Prefix   string // without slashes at its ends; "" is the whole bucket
	Region   string // "" asks the server
	// Profile of the shared credentials file. "" asks the environment first:
	// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then MINIO_ROOT_USER and
	// MINIO_ROOT_PASSWORD (or MINIO_ACCESS_KEY and MINIO_SECRET_KEY), then the
	// file's default profile.
	Profile string
	// Timeout is how long the server may be silent. 0 means two minutes.
	Timeout time.Duration
}

// Store is an S3 store. It implements vault.Store, vault.Protector,
// vault.Versioned and vault.Remover and is safe for concurrent use.
type Store struct {
	api       *minio.Core
	bucket    string
	prefix    string // "" or ending in "/"
	versioned bool   // the bucket keeps, or has kept, versions

	probing sync.Mutex // guards probed; held while the canary lives
	probed  *verdict   // nil: not asked yet
}

// Open opens the existing vault of cfg. If the bucket is absent, or none of
// VAULT, ledger and segments is under the prefix, the error wraps vault.ErrNoVault;
// the caller names the place.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{vault.MarkerName, "ledger/", "segments/"} {
		found, err := s.any(ctx, name)
		if err != nil || found {
			return s, err
		}
	}
	return nil, fmt.Errorf("%w: neither VAULT nor ledger nor segments under the prefix", vault.ErrNoVault)
}

// Create returns the store of a new vault. The bucket must exist and hold
// nothing under the prefix, neither now nor in an old version: else the error
// wraps vault.ErrNoVault or vault.ErrNotEmpty. If objects in the bucket are locked
// by default it wraps vault.ErrUnfit. The caller names the place.
func Create(ctx context.Context, cfg Config) (*Store, error) {
	s, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	found, err := s.any(ctx, "")
	if err != nil {
		return nil, err
	}
	if found {
		return nil, fmt.Errorf("%w: objects or old versions are there", vault.ErrNotEmpty)
	}
	if _, err := s.lockable(ctx); err != nil && !errors.Is(err, fs.ErrPermission) { // who may not ask, may still write
		return nil, err
	}
	return s, nil
}

// connect makes the client and asks what the bucket can.
func connect(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	keys, err := login(cfg.Profile)
	if err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(!cfg.Plain)
	if err != nil {
		return nil, fmt.Errorf("preparing HTTP: %w", err)
	}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return deadline.Dial(ctx, network, addr, cfg.Timeout)
	}
	transport.ResponseHeaderTimeout = cfg.Timeout
	// Callers try again themselves; a few quick tries spare them a hiccup.
	api, err := minio.NewCore(cfg.Endpoint, &minio.Options{Creds: keys, Secure: !cfg.Plain, Transport: transport, Region: cfg.Region,
		BucketLookup: minio.BucketLookupPath, MaxRetries: 3})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", cfg.Endpoint, err)
	}
	s := &Store{api: api, bucket: cfg.Bucket}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	v, err := api.GetBucketVersioning(ctx, cfg.Bucket)
	if status(err) == http.StatusNotImplemented {
		err = nil // it has no versions
	}
	if err != nil {
		return nil, s.fail("asking for the bucket's versioning", err)
	}
	s.versioned = v.Status != ""
	return s, nil
}

// login finds the access keys.
func login(profile string) (*credentials.Credentials, error) {
	providers := []credentials.Provider{&credentials.FileAWSCredentials{Profile: profile}}
	if profile == "" {
		providers = append([]credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{}}, providers...)
	}
	keys := credentials.NewChainCredentials(providers)
	v, err := keys.GetWithContext(&credentials.CredContext{})
	if err != nil {
		return nil, fmt.Errorf("%w: reading the credentials: %w", fs.ErrPermission, err)
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return nil, fmt.Errorf("%w: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials", fs.ErrPermission)
	}
	return keys, nil
}

// alive returns nil if the bucket is there.
func (s *Store) alive(ctx context.Context) error {
	found, err := s.api.BucketExists(ctx, s.bucket)
	if err != nil {
		return s.fail("looking for the bucket "+s.bucket, err)
	}
	if !found {
		return fmt.Errorf("bucket %s: %w: there is no such bucket", s.bucket, vault.ErrNoVault)
	}
	return nil
}

// place names the vault in messages.
func (s *Store) place() string { return strings.TrimSuffix(s.bucket+"/"+s.prefix, "/") }

func (s *Store) key(name string) string { return s.prefix + name }

// any reports whether something is, or was, under a part of the vault.
func (s *Store) any(ctx context.Context, prefix string) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.api.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: true, WithVersions: s.versioned, MaxKeys: 10}) {
		if o.Err != nil {
			return false, s.fail("listing "+s.place(), o.Err)
		}
		if !s.isCanary(o.Key) {
			return true, nil
		}
	}
	return false, nil
}

// status is the HTTP status that a server answered with, or 0.
func status(err error) int {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return e.StatusCode
	}
	return 0
}

// fail gives an error of the library the meaning that callers branch on.
func (s *Store) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	var is error
	e, answered := errors.AsType[minio.ErrorResponse](err)
	switch {
	case !answered && ended(err):
		return fmt.Errorf("%s: %w", what, err)
	case !answered:
		is = vault.ErrUnreachable
		if _, ok := errors.AsType[*bodyError](err); ok {
			return fmt.Errorf("%s: %w", what, err)
		}
	case e.Code == minio.NoSuchBucket:
		is = vault.ErrNoVault
	case e.Code == minio.NoSuchKey || e.Code == "NoSuchVersion" || e.StatusCode == http.StatusNotFound:
		is = vault.ErrNotExist
	case e.StatusCode == http.StatusInsufficientStorage || e.Code == "XMinioStorageFull" || e.Code == "QuotaExceeded" || e.Code == "XMinioAdminBucketQuotaExceeded":
		is = syscall.ENOSPC
	case e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusUnauthorized:
		is = fs.ErrPermission
	case e.StatusCode >= 500 || e.StatusCode == http.StatusTooManyRequests || e.StatusCode == http.StatusRequestTimeout:
		is = vault.ErrUnreachable
	default:
		return fmt.Errorf("%s: %w (%s)", what, err, e.Code)
	}
	if e.Code != "" { // the words alone seldom tell a wrong clock from a wrong key
		return fmt.Errorf("%s: %w: %w (%s)", what, is, err, e.Code)
	}
	return fmt.Errorf("%s: %w: %w", what, is, err)
}

// ended reports whether an error is that of the caller's context. A time-out of
// net/http claims to be context.DeadlineExceeded too, and is not.
func ended(err error) bool {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && (!ok || timeout == context.DeadlineExceeded)
}

var _ interface {
	vault.Store
	vault.Protector
	vault.Versioned
	vault.Remover
} = (*Store)(nil)
