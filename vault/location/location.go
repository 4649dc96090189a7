// Package location opens the vault that is at a place. A place is what a person
// writes in --vault or in the configuration:
//
//	/path, path or file:///path                 a directory (vault/dir)
//	sftp://USER@HOST[:PORT]/PATH[?OPTIONS]      a directory of an SSH account (vault/sftp)
//	    known_hosts=FILE     the server's keys (default: ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts)
//	    key=FILE             log in with this key only (default: the agent's, ~/.ssh/id_ed25519, id_ecdsa, id_rsa)
//	s3://HOST[:PORT]/BUCKET[/PREFIX][?OPTIONS]  a prefix of a bucket (vault/s3)
//	    region=NAME          (default: as the server says)
//	    profile=NAME         of ~/.aws/credentials (default: the environment, then the file's default)
//	    tls=on|off           HTTPS or plain HTTP (default: on, but off for a loopback address)
//
// Paths and prefixes are percent-encoded like any URL's. A place never holds a
// password: it is shown in messages and kept in configurations. A place that
// cannot be understood is an *Error.
//
// Open and Create are different verbs: Open never makes anything, so that a
// mount that is lost is an error and not a fresh empty vault.
package location

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/vault/dir"
	"logvault/vault/s3"
	"logvault/vault/sftp"
)

// Error says that a place cannot be understood: a mistake of who wrote it.
type Error struct {
	Place  string // without a password
	Detail string
}

// Error names the place, without a password, and what is wrong with it.
func (e *Error) Error() string { return fmt.Sprintf("vault %q: %s", e.Place, e.Detail) }

// Opener opens vaults. FS must be set. What it does for URLs, besides asking
// the server: it reads key files, known_hosts and the credentials file.
type Opener struct {
	FS vfs.FS // the disk of vaults in directories
	// Getenv gives HOME and SSH_AUTH_SOCK; nil: none is set.
	Getenv func(string) string
	// Passphrase gives the passphrase of an encrypted SSH key file; nil: such
	// files cannot be used.
	Passphrase func(ctx context.Context, file string) ([]byte, error)
}

// Open opens an existing vault. Where there is none the error wraps
// vault.ErrNoVault; every error begins with the place. A store that is an
// io.Closer holds a connection, which ends with the process at the latest.
func (o Opener) Open(ctx context.Context, place string) (vault.Store, error) {
	p, err := parse(place)
	if err != nil {
		return nil, err
	}
	s, err := o.open(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return s, nil
}

func (o Opener) open(ctx context.Context, p *parsed) (vault.Store, error) {
	switch {
	case p.sftp != nil:
		return store(sftp.Open(ctx, o.ssh(p.sftp)))
	case p.s3 != nil:
		return store(s3.Open(ctx, *p.s3))
	}
	return store(dir.Open(o.FS, p.dir))
}

// Create makes the place of a new vault, which must be absent or empty: else
// the error wraps vault.ErrNotEmpty. The vault begins with its marker, which
// the caller writes.
func (o Opener) Create(ctx context.Context, place string) (vault.Store, error) {
	p, err := parse(place)
	if err != nil {
		return nil, err
	}
	s, err := o.create(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("creating the vault %s: %w", place, err)
	}
	return s, nil
}

func (o Opener) create(ctx context.Context, p *parsed) (vault.Store, error) {
	switch {
	case p.sftp != nil:
		return store(sftp.Create(ctx, o.ssh(p.sftp)))
	case p.s3 != nil:
		return store(s3.Create(ctx, *p.s3))
	}
	return store(dir.Create(o.FS, p.dir))
}

// store keeps a failed call from returning a store that is not nil.
func store[S vault.Store](s S, err error) (vault.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ssh completes how to log in with what the environment says.
func (o Opener) ssh(c *sftp.Config) sftp.Config {
	full := *c
	full.Passphrase = o.Passphrase
	getenv := o.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	full.Agent = getenv("SSH_AUTH_SOCK")
	home := filepath.Join(getenv("HOME"), ".ssh")
	if len(full.KnownHosts) == 0 {
		for _, f := range []string{filepath.Join(home, "known_hosts"), "/etc/ssh/ssh_known_hosts"} {
			if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
				full.KnownHosts = append(full.KnownHosts, f)
			}
		}
	}
	if full.OnlyKeys = len(full.Keys) > 0; !full.OnlyKeys {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			full.Keys = append(full.Keys, filepath.Join(home, name))
		}
	}
	return full
}

// IsURL reports whether place names something else than a path.
func IsURL(place string) bool {
	return strings.Contains(place, "://") && !strings.HasPrefix(place, "file://")
}

// parsed is a place: one of the three is set.
type parsed struct {
	dir  string
	sftp *sftp.Config
	s3   *s3.Config
}

func parse(place string) (*parsed, error) {
	if place == "" {
		return nil, &Error{place, "no place is given, expected a path or a URL"}
	}
	if !strings.Contains(place, "://") {
		return &parsed{dir: place}, nil
	}
	u, err := url.Parse(place)
	if err != nil {
		// The library's error repeats the place, with what it may hold.
		scheme, _, _ := strings.Cut(place, "://")
		return nil, &Error{scheme + "://…", "not a URL; special characters are written as %XX"}
	}
	fail := func(format string, args ...any) (*parsed, error) {
		return nil, &Error{u.Redacted(), fmt.Sprintf(format, args...)}
	}
	if _, has := u.User.Password(); has {
		return fail("holds a password, which would be shown and kept; use a key file or the environment")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return fail("expected options as ?name=value&name=value")
	}
	var p *parsed
	var allowed, detail string
	switch u.Scheme {
	case "file":
		p, detail = parseFile(u)
	case "sftp":
		p, detail = parseSFTP(u, q)
		allowed = "known_hosts key"
	case "s3":
		p, detail = parseS3(u, q)
		allowed = "region profile tls"
	default:
		return fail("%s:// is not known, expected a path, file://, sftp:// or s3://", u.Scheme)
	}
	if detail != "" {
		return fail("%s", detail)
	}
	for name, values := range q {
		if !strings.Contains(" "+allowed+" ", " "+name+" ") {
			return fail("unknown option %q, expected one of: %s", name, allowed)
		}
		if len(values) != 1 || values[0] == "" {
			return fail("option %q: expected one value", name)
		}
	}
	return p, nil
}

// parseFile keeps file://nas/vault, where file:///nas/vault was meant, from being a
// directory beside the one that the program was started in.
func parseFile(u *url.URL) (_ *parsed, detail string) {
	switch {
	case u.Host != "" || u.User != nil || u.RawQuery != "" || !path.IsAbs(u.Path):
		return nil, "expected file:///PATH; another machine's files are reached by a mount or sftp://"
	case strings.ContainsRune(u.Path, 0):
		return nil, "the path holds a NUL"
	}
	return &parsed{dir: u.Path}, ""
}

// badPort tells what is wrong with the port of a URL, if it has one.
func badPort(u *url.URL) string {
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("port %s: expected 1 to 65535", port)
		}
	}
	return ""
}

func parseSFTP(u *url.URL, q url.Values) (_ *parsed, detail string) {
	port := u.Port()
	if port == "" {
		port = "22"
	}
	root := path.Clean(u.Path)
	if detail := badPort(u); detail != "" {
		return nil, detail
	}
	switch {
	case u.User.Username() == "" || u.Hostname() == "":
		return nil, "expected sftp://USER@HOST/PATH"
	case !path.IsAbs(u.Path) || root == "/":
		return nil, "expected an absolute path below / after the host"
	case strings.ContainsRune(root, 0):
		return nil, "the path holds a NUL"
	}
	c := &sftp.Config{User: u.User.Username(), Addr: net.JoinHostPort(u.Hostname(), port), Root: root}
	if f := q.Get("known_hosts"); f != "" {
		c.KnownHosts = []string{f}
	}
	if f := q.Get("key"); f != "" {
		c.Keys = []string{f}
	}
	return &parsed{sftp: c}, ""
}

func parseS3(u *url.URL, q url.Values) (_ *parsed, detail string) {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if detail := badPort(u); detail != "" {
		return nil, detail
	}
	switch {
	case u.User != nil:
		return nil, "holds a user; access keys come from the environment or ~/.aws/credentials"
	case u.Hostname() == "" || bucket == "":
		return nil, "expected s3://HOST/BUCKET/PREFIX"
	case len(bucket) < 3 || len(bucket) > 63 || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "":
		return nil, fmt.Sprintf("bucket %q: expected 3 to 63 of a-z, 0-9, '.' and '-'", bucket)
	case prefix != "" && !fs.ValidPath(prefix):
		return nil, fmt.Sprintf("prefix %q: expected names between single slashes", prefix)
	}
	c := &s3.Config{Endpoint: u.Host, Bucket: bucket, Prefix: prefix, Region: q.Get("region"), Profile: q.Get("profile")}
	switch q.Get("tls") {
	case "":
		c.Plain = isLoopback(u.Hostname())
	case "off":
		c.Plain = true
	case "on":
	default:
		return nil, "option tls: expected on or off"
	}
	return &parsed{s3: c}, ""
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
