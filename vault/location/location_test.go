package location

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
	"logvault/vault/s3"
	"logvault/vault/sftp"
)

// TestPlaceIsNamedOnce: an error names the place as it was given, once.
func TestPlaceIsNamedOnce(t *testing.T) {
	o := Opener{FS: vfs.NewMem()}
	_, err := o.Open(t.Context(), "file:///nas/v")
	if want := "file:///nas/v: no vault here: the path does not exist"; err == nil || err.Error() != want {
		t.Errorf("opening: %v, expected %s", err, want)
	}
	if err := vfs.MkdirAll(o.FS, "/nas/v/other", 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = o.Create(t.Context(), "/nas/v")
	if want := `creating the vault /nas/v: not empty: it holds "other"`; err == nil || err.Error() != want {
		t.Errorf("creating: %v, expected %s", err, want)
	}
}

func TestDirectories(t *testing.T) {
	ctx := context.Background()
	o := Opener{FS: vfs.NewMem()}
	if _, err := o.Open(ctx, "/v"); !errors.Is(err, vault.ErrNoVault) {
		t.Fatalf("opening an absent vault: %v, expected ErrNoVault", err)
	}
	s, err := o.Create(ctx, "file:///v")
	if err != nil {
		t.Fatal(err)
	}
	marker := vault.Marker{Origin: "a.example/vault"}.Encode()
	if err := s.Put(ctx, vault.MarkerName, int64(len(marker)), strings.NewReader(string(marker))); err != nil {
		t.Fatal(err)
	}
	if s, err = o.Open(ctx, "/v"); err != nil {
		t.Fatal(err)
	}
	if m, _, err := vault.ReadMarker(ctx, s); err != nil || m.Origin != "a.example/vault" {
		t.Fatalf("marker %+v, error %v", m, err)
	}
	if _, err := o.Create(ctx, "/v"); !errors.Is(err, vault.ErrNotEmpty) {
		t.Fatalf("creating where a vault is: %v, expected ErrNotEmpty", err)
	}
}

func TestPlaces(t *testing.T) {
	for place, want := range map[string]parsed{
		"/mnt/nas/vault":            {dir: "/mnt/nas/vault"},
		"vault":                     {dir: "vault"},
		"file:///mnt/nas/vault":     {dir: "/mnt/nas/vault"},
		"file:///mnt/a%20b":         {dir: "/mnt/a b"},
		"/mnt/a%20b":                {dir: "/mnt/a%20b"},
		"FILE:///mnt/nas":           {dir: "/mnt/nas"},
		"sftp://logs@nas/srv/vault": {sftp: &sftp.Config{User: "logs", Addr: "nas:22", Root: "/srv/vault"}},
		"sftp://logs@[2001:db8::1]:2222/srv//vault/?key=/k&known_hosts=/h": {sftp: &sftp.Config{User: "logs", Addr: "[2001:db8::1]:2222", Root: "/srv/vault",
			Keys: []string{"/k"}, KnownHosts: []string{"/h"}}},
		"sftp://logs@nas/a%20b":                   {sftp: &sftp.Config{User: "logs", Addr: "nas:22", Root: "/a b"}},
		"s3://s3.example/bucket":                  {s3: &s3.Config{Endpoint: "s3.example", Bucket: "bucket"}},
		"s3://s3.example:9000/bucket/a/b/":        {s3: &s3.Config{Endpoint: "s3.example:9000", Bucket: "bucket", Prefix: "a/b"}},
		"s3://127.0.0.1:9000/bucket/a":            {s3: &s3.Config{Endpoint: "127.0.0.1:9000", Plain: true, Bucket: "bucket", Prefix: "a"}},
		"s3://[::1]:9000/bucket":                  {s3: &s3.Config{Endpoint: "[::1]:9000", Plain: true, Bucket: "bucket"}},
		"s3://localhost/bucket?tls=on":            {s3: &s3.Config{Endpoint: "localhost", Bucket: "bucket"}},
		"s3://nas.lan/bucket?tls=off&region=r1":   {s3: &s3.Config{Endpoint: "nas.lan", Plain: true, Bucket: "bucket", Region: "r1"}},
		"s3://s3.example/bucket?profile=logvault": {s3: &s3.Config{Endpoint: "s3.example", Bucket: "bucket", Profile: "logvault"}},
	} {
		got, err := parse(place)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v", place, got, err)
		}
	}
}

func TestBadPlaces(t *testing.T) {
	o := Opener{FS: vfs.NewMem()}
	for place, want := range map[string]string{
		"":                                      "no place",
		"file://nas/vault":                      "file:///PATH",
		"file://":                               "file:///PATH",
		"file:///srv?key=/k":                    "file:///PATH",
		"file:///srv%00":                        "NUL",
		"file:///srv%zz":                        "not a URL",
		"sftp://logs@nas:99999/srv":             "1 to 65535",
		"sftp://logs@nas:0/srv":                 "1 to 65535",
		"sftp://logs@nas:x/srv":                 "not a URL",
		"s3://nas:65536/bucket":                 "1 to 65535",
		"gopher://host/x":                       "gopher:// is not known",
		"http://host/x":                         "http:// is not known",
		"sftp://nas/srv/vault":                  "USER@HOST",
		"sftp://logs@/srv/vault":                "USER@HOST",
		"sftp://logs@nas":                       "absolute path",
		"sftp://logs@nas/":                      "absolute path",
		"sftp://logs@nas/a%00b":                 "NUL",
		"sftp://logs@nas/srv?keys=/k":           `unknown option "keys"`,
		"sftp://logs@nas/srv?key=/k&key=/l":     "one value",
		"sftp://logs@nas/srv#x":                 "?name=value",
		"sftp://logs:secret@nas/srv/vault":      "holds a password",
		"sftp://logs:sec%ret@nas/srv/vault":     "not a URL",
		"s3://key:secret@s3.example/bucket":     "holds a password",
		"s3://secret@s3.example/bucket":         "holds a user",
		"s3:///bucket":                          "HOST/BUCKET",
		"s3://s3.example":                       "HOST/BUCKET",
		"s3://s3.example/Bucket":                "bucket",
		"s3://s3.example/bucket//a":             "single slashes",
		"s3://s3.example/bucket/../x":           "single slashes",
		"s3://s3.example/bucket?tls=no":         "on or off",
		"s3://s3.example/bucket?known_hosts=/h": "unknown option",
	} {
		_, err := o.Open(context.Background(), place)
		e, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(e.Detail, want) {
			t.Errorf("opening %s: %v, expected it to say %q", place, err, want)
		}
		if err != nil && strings.Contains(err.Error(), ":secret") || err != nil && strings.Contains(err.Error(), "ret@") && strings.Contains(place, "sec%") {
			t.Errorf("opening %s repeats the password: %v", place, err)
		}
		if _, err = o.Create(context.Background(), place); err == nil {
			t.Errorf("%s created", place)
		}
	}
}

// TestFailureIsNoStore: what did not open is nil, and not a store that is not.
func TestFailureIsNoStore(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD",
		"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	o := Opener{FS: vfs.NewMem(), Getenv: func(name string) string { return map[string]string{"HOME": home}[name] }}
	for place, want := range map[string]error{
		"/nowhere":                        vault.ErrNoVault,
		"sftp://logs@127.0.0.1:1/srv/v":   fs.ErrPermission, // no key to log in with
		"s3://127.0.0.1:1/bucket/prefix":  fs.ErrPermission, // no credentials
		"sftp://logs@127.0.0.1:1/v?key=k": fs.ErrNotExist,
	} {
		s, err := o.Open(context.Background(), place)
		if s != nil || !errors.Is(err, want) || !strings.Contains(err.Error(), place) {
			t.Errorf("opening %s: %v, %v, expected nil and %v", place, s, err, want)
		}
		if s, err = o.Create(context.Background(), place); place != "/nowhere" && (s != nil || !errors.Is(err, want)) {
			t.Errorf("creating %s: %v, %v, expected nil and %v", place, s, err, want)
		}
	}
}

// TestHowToLogIn: what the place does not say the environment does, and a key
// that it names is the only one.
func TestHowToLogIn(t *testing.T) {
	home := t.TempDir()
	for _, f := range []string{"known_hosts", "id_ed25519"} {
		if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".ssh", f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	phrase := func(context.Context, string) ([]byte, error) { return nil, nil }
	o := Opener{Passphrase: phrase, Getenv: func(name string) string {
		return map[string]string{"HOME": home, "SSH_AUTH_SOCK": "/run/agent"}[name]
	}}
	ssh := func(o Opener, place string) sftp.Config {
		p, err := parse(place)
		if err != nil {
			t.Fatal(err)
		}
		return o.ssh(p.sftp)
	}
	c := ssh(o, "sftp://logs@nas/srv")
	if c.Agent != "/run/agent" || c.OnlyKeys || c.Passphrase == nil || c.KnownHosts[0] != filepath.Join(home, ".ssh/known_hosts") ||
		!slices.Equal(c.Keys, []string{home + "/.ssh/id_ed25519", home + "/.ssh/id_ecdsa", home + "/.ssh/id_rsa"}) {
		t.Errorf("from the environment: %+v", c)
	}
	c = ssh(o, "sftp://logs@nas/srv?key=/k&known_hosts=/h")
	if !c.OnlyKeys || !slices.Equal(c.Keys, []string{"/k"}) || !slices.Equal(c.KnownHosts, []string{"/h"}) {
		t.Errorf("from the place: %+v", c)
	}
	c = ssh(Opener{}, "sftp://logs@nas/srv")
	if c.Agent != "" || slices.Contains(c.KnownHosts, filepath.Join(home, ".ssh/known_hosts")) {
		t.Errorf("from no environment: %+v", c)
	}
}

// FuzzParse checks that no place panics, and that what is understood is whole.
func FuzzParse(f *testing.F) {
	for _, place := range []string{"/mnt/nas", "sftp://logs@nas:22/srv/vault?key=/k", "s3://[::1]:9000/bucket/a?tls=on", "s3://h/b%00b", "sftp://a:b@c/d", "x://", "", "file:///a%20b", "file://nas/v", "s3://h:0/bbb"} {
		f.Add(place)
	}
	f.Fuzz(func(t *testing.T, place string) {
		p, err := parse(place)
		switch {
		case err != nil:
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%q: %v is no *Error", place, err)
			}
		case p.dir == "" && p.sftp == nil && p.s3 == nil || p.dir != "" && (p.sftp != nil || p.s3 != nil):
			t.Errorf("%q: %+v is not one place", place, *p)
		case p.sftp != nil:
			if p.sftp.User == "" || !strings.HasPrefix(p.sftp.Root, "/") || len(p.sftp.Root) < 2 {
				t.Errorf("%q: %+v", place, *p.sftp)
			}
		case p.s3 != nil:
			if p.s3.Endpoint == "" || len(p.s3.Bucket) < 3 || strings.HasPrefix(p.s3.Prefix, "/") || strings.HasSuffix(p.s3.Prefix, "/") {
				t.Errorf("%q: %+v", place, *p.s3)
			}
		}
	})
}
