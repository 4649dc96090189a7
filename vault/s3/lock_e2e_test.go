//go:build e2e

package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/lifecycle"
	"github.com/minio/minio-go/v7/pkg/tags"

	"logvault/fixtures/testserver"
	"logvault/vault"
	"logvault/vault/s3"
)

// create makes a vault in a new bucket.
func create(t *testing.T, s *testserver.S3, name string, lock, versions bool) (*s3.Store, *minio.Client, s3.Config) {
	t.Helper()
	s.Env(t)
	c := raw(t, s)
	bucket(t, c, name, lock, versions)
	cfg := s3.Config{Endpoint: s.Endpoint, Plain: true, Bucket: name, Prefix: "vault"}
	v, err := s3.Create(ctx, cfg)
	must(t, err)
	must(t, put(v, vault.MarkerName, "marker"))
	return v, c, cfg
}

func wantContent(t *testing.T, what string, s *s3.Store, name, want string) {
	t.Helper()
	got, err := vault.ReadAll(ctx, s, name, 1<<20)
	if err != nil || string(got) != want {
		t.Errorf("%s: %s holds %.60q, %v, expected %.60q", what, name, got, err, want)
	}
	info, err := s.Stat(ctx, name)
	if err != nil || info.Size != int64(len(want)) {
		t.Errorf("%s: stat of %s: %+v, %v", what, name, info, err)
	}
	listed := int64(-1)
	must(t, s.List(ctx, name[:strings.LastIndexByte(name, '/')+1], func(i vault.Info) error {
		if i.Name == name {
			listed = i.Size
		}
		return nil
	}))
	if listed != int64(len(want)) {
		t.Errorf("%s: %s is listed with %d bytes, expected %d", what, name, listed, len(want))
	}
}

// versionsOf returns the version ids of a key, newest first.
func versionsOf(t *testing.T, c *minio.Client, cfg s3.Config, name string) (ids []string) {
	t.Helper()
	for v := range c.ListObjectsIter(ctx, cfg.Bucket, minio.ListObjectsOptions{Prefix: cfg.Prefix + "/" + name, Recursive: true, WithVersions: true}) {
		must(t, v.Err)
		if v.Key == cfg.Prefix+"/"+name {
			ids = append(ids, v.VersionID)
		}
	}
	return ids
}

// The policies of docs/STORES.md, in their order there.
const (
	allButNames = iota // all of S3, but new objects only under names that a vault has
	whatItNeeds        // what keeping a vault takes
)

func policy(t *testing.T, cfg s3.Config, which int) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/STORES.md")
	must(t, err)
	blocks := strings.Split(string(doc), "```json\n")[1:]
	if len(blocks) != 2 {
		t.Fatalf("docs/STORES.md holds %d policies, expected 2", len(blocks))
	}
	text, _, _ := strings.Cut(blocks[which], "```")
	return strings.NewReplacer("BUCKET", cfg.Bucket, "PREFIX", cfg.Prefix).Replace(text)
}

// pushing logs the environment in with a policy and returns a client of that account.
func pushing(t *testing.T, s *testserver.S3, cfg s3.Config, which int) *minio.Client {
	t.Helper()
	keys, err := credentials.NewSTSAssumeRole("http://"+s.Endpoint, credentials.STSAssumeRoleOptions{AccessKey: s.AccessKey, SecretKey: s.SecretKey, Policy: policy(t, cfg, which)})
	must(t, err)
	v, err := keys.GetWithContext(&credentials.CredContext{})
	must(t, err)
	t.Setenv("AWS_ACCESS_KEY_ID", v.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", v.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", v.SessionToken)
	c, err := minio.New(s.Endpoint, &minio.Options{Creds: keys, Region: "us-east-1", MaxRetries: 1})
	must(t, err)
	return c
}

// TestNothingMakesAProtectedObjectUnreadable runs what a thief of the pushing
// account may try, one thing on top of the other, against MinIO. After each the
// object must read as it was.
func TestNothingMakesAProtectedObjectUnreadable(t *testing.T) {
	server := testserver.MinIO(t)
	_, _, cfg := create(t, server, "locked", true, false)
	c := pushing(t, server, cfg, allButNames)
	store, err := s3.Open(ctx, cfg)
	must(t, err)
	const content, other = "the object's own bytes", "bytes that are others!"
	names := []string{segment(content), vault.TileName(vault.LedgerPrefix, 0, 0, vault.TileWidth), vault.KeptCheckpointName(vault.LedgerPrefix, 256)}
	until := time.Now().Add(24 * time.Hour) // longer than the slowest machine needs
	ids := map[string]string{}
	for _, name := range names {
		must(t, put(store, name, content))
		level, err := store.Protect(ctx, name, until)
		if level != vault.LevelLock || err != nil {
			t.Fatalf("Protect of %s: %s, %v (%s)", name, level, err, store.Shortfall())
		}
		ids[name] = versionsOf(t, c, cfg, name)[0]
	}
	for _, a := range attacks(c, cfg, until) {
		for _, name := range names {
			done := "refused"
			if err := a.do(cfg.Prefix+"/"+name, ids[name], other); err == nil {
				done = "done"
			} else if minio.ToErrorResponse(err).StatusCode == 0 {
				t.Fatalf("%s: %v: the server did not judge it", a.what, err)
			}
			if a.must != "" && a.must != done {
				t.Errorf("%s was %s, expected %s", a.what, done, a.must)
			}
			what := a.what + " (" + done + ")"
			fresh, err := s3.Open(ctx, cfg)
			must(t, err)
			wantContent(t, what, fresh, name, content)
			if err := put(fresh, name, content); err != nil {
				t.Errorf("%s: the same bytes again: %v", what, err)
			}
			if level, err := store.Protect(ctx, name, until); level != vault.LevelLock || err != nil {
				t.Errorf("%s: then Protect gives %s, %v", what, level, err)
			}
			mode, end, err := c.GetObjectRetention(ctx, cfg.Bucket, cfg.Prefix+"/"+name, ids[name])
			if err != nil || *mode != minio.Compliance || end.Before(until.Truncate(time.Second)) {
				t.Fatalf("%s: %s is locked %v until %v, %v, expected at least %v", what, name, mode, end, err, until)
			}
		}
	}
}

// attack is one thing to try on an object. must is "done" or "refused" where
// anything else would show that the attack is not what it says.
type attack struct {
	what string
	must string
	do   func(key, id, other string) error
}

// attacks are those on objects that are locked until a date.
func attacks(c *minio.Client, cfg s3.Config, until time.Time) []attack {
	b := cfg.Bucket
	compliance, governance := minio.Compliance, minio.Governance
	sooner, later := until.Add(-time.Hour), until.Add(time.Hour) // both to come: a date that is past is refused as such
	retain := func(mode *minio.RetentionMode, until *time.Time) func(key, id, other string) error {
		return func(key, id, _ string) error {
			return c.PutObjectRetention(ctx, b, key, minio.PutObjectRetentionOptions{GovernanceBypass: true, Mode: mode, RetainUntilDate: until, VersionID: id})
		}
	}
	hold := func(h minio.LegalHoldStatus) func(key, id, other string) error {
		return func(key, id, _ string) error {
			return c.PutObjectLegalHold(ctx, b, key, minio.PutObjectLegalHoldOptions{Status: &h, VersionID: id})
		}
	}
	overwrite := func(key, _, other string) error {
		_, err := c.PutObject(ctx, b, key, strings.NewReader(other), int64(len(other)), minio.PutObjectOptions{})
		return err
	}
	remove := func(o minio.RemoveObjectOptions, version bool) func(key, id, other string) error {
		return func(key, id, _ string) error {
			if version {
				o.VersionID = id
			}
			return c.RemoveObject(ctx, b, key, o)
		}
	}
	return []attack{
		{"overwriting it", "done", overwrite},
		{"a delete marker", "done", remove(minio.RemoveObjectOptions{}, false)},
		{"removing its version", "refused", remove(minio.RemoveObjectOptions{}, true)},
		{"removing its version with bypass", "refused", remove(minio.RemoveObjectOptions{GovernanceBypass: true}, true)},
		{"removing by force", "", remove(minio.RemoveObjectOptions{ForceDelete: true}, false)},
		{"removing in bulk with bypass", "refused", bulkRemove(c, b)},
		{"shortening the lock", "refused", retain(&compliance, &sooner)},
		{"turning the lock to GOVERNANCE", "refused", retain(&governance, &later)},
		{"taking the lock away", "refused", retain(nil, nil)},
		{"a legal hold", "done", hold(minio.LegalHoldEnabled)},
		{"taking the legal hold away", "done", hold(minio.LegalHoldDisabled)},
		{"removing after that", "refused", remove(minio.RemoveObjectOptions{GovernanceBypass: true}, true)},
		{"other tags", "done", func(key, id, _ string) error {
			set, err := tags.NewTags(map[string]string{"expire": "now"}, true)
			if err != nil {
				return err
			}
			return c.PutObjectTagging(ctx, b, key, set, minio.PutObjectTaggingOptions{VersionID: id})
		}},
		{"copying it over itself", "done", func(key, id, _ string) error {
			_, err := c.CopyObject(ctx, minio.CopyDestOptions{Bucket: b, Object: key, ReplaceMetadata: true, UserMetadata: map[string]string{"x": "y"}},
				minio.CopySrcOptions{Bucket: b, Object: key, VersionID: id})
			return err
		}},
		{"a multipart upload of its name", "done", multipart(c, b, true)},
		{"an unfinished multipart upload", "done", multipart(c, b, false)},
		{"an object below it", "", func(key, id, other string) error { return overwrite(key+"/below.pgp", id, other) }},
		{"an object in the place of its directory", "refused", func(key, id, other string) error { return overwrite(key[:strings.LastIndexByte(key, '/')], id, other) }},
		{"a directory object", "", func(key, id, other string) error {
			return overwrite(key[:strings.LastIndexByte(key, '/')+1], id, other)
		}},
		{"an object in the place of the vault", "refused", func(_, id, other string) error { return overwrite(cfg.Prefix, id, other) }},
		{"suspending versions", "refused", func(string, string, string) error { return c.SuspendVersioning(ctx, b) }},
		{"overwriting it after that", "done", overwrite},
		{"taking the bucket's lock away", "", func(string, string, string) error { return c.SetBucketObjectLockConfig(ctx, b, nil, nil, nil) }},
		{"removing after that too", "refused", remove(minio.RemoveObjectOptions{GovernanceBypass: true}, true)},
		{"a policy that denies everything", "done", func(string, string, string) error {
			return c.SetBucketPolicy(ctx, b, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":["*"]},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::`+b+`/*"]}]}`)
		}},
		{"a rule that expires everything at once", "done", expireAll(c, cfg)},
		{"removing the bucket", "refused", func(string, string, string) error { return c.RemoveBucket(ctx, b) }},
		{"removing the bucket by force", "refused", func(string, string, string) error {
			return c.RemoveBucketWithOptions(ctx, b, minio.RemoveBucketOptions{ForceDelete: true})
		}},
		{"a last delete marker", "done", remove(minio.RemoveObjectOptions{}, false)},
	}
}

func bulkRemove(c *minio.Client, bucket string) func(key, id, other string) error {
	return func(key, id, _ string) error {
		all := make(chan minio.ObjectInfo, 1)
		all <- minio.ObjectInfo{Key: key, VersionID: id}
		close(all)
		for e := range c.RemoveObjects(ctx, bucket, all, minio.RemoveObjectsOptions{GovernanceBypass: true}) {
			e := e
			return minio.ErrorResponse{StatusCode: 400, Message: e.Err.Error()}
		}
		return nil
	}
}

func multipart(c *minio.Client, bucket string, complete bool) func(key, id, other string) error {
	return func(key, _, other string) error {
		core := minio.Core{Client: c}
		id, err := core.NewMultipartUpload(ctx, bucket, key, minio.PutObjectOptions{})
		if err != nil {
			return err
		}
		part, err := core.PutObjectPart(ctx, bucket, key, id, 1, strings.NewReader(other), int64(len(other)), minio.PutObjectPartOptions{})
		if err != nil || !complete {
			return err
		}
		_, err = core.CompleteMultipartUpload(ctx, bucket, key, id, []minio.CompletePart{{PartNumber: 1, ETag: part.ETag}}, minio.PutObjectOptions{})
		return err
	}
}

// expireAll sets rules whose date is past and waits until an object that nothing
// protects is gone by them.
func expireAll(c *minio.Client, cfg s3.Config) func(key, id, other string) error {
	set := false
	return func(string, string, string) error {
		if set {
			return nil
		}
		set = true
		bait := cfg.Prefix + "/segments/bait.pgp"
		if _, err := c.PutObject(ctx, cfg.Bucket, bait, strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
			return err
		}
		rules := lifecycle.NewConfiguration()
		rules.Rules = []lifecycle.Rule{{ID: "now", Status: "Enabled", RuleFilter: lifecycle.Filter{Prefix: ""},
			Expiration: lifecycle.Expiration{Date: lifecycle.ExpirationDate{Time: time.Now().UTC().Truncate(24 * time.Hour).Add(-48 * time.Hour)}}}}
		if err := c.SetBucketLifecycle(ctx, cfg.Bucket, rules); err != nil {
			return err
		}
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for limit := time.Now().Add(10 * time.Minute); time.Now().Before(limit); <-tick.C {
			if _, err := c.StatObject(ctx, cfg.Bucket, bait, minio.StatObjectOptions{}); err != nil {
				return nil // a delete marker is on it: the rule is at work
			}
		}
		return errors.New("the rule does nothing, even to what is not protected")
	}
}

// TestSmallAccount keeps a vault with what the smaller policy allows, and cannot
// remove a segment with it, locked or not.
func TestSmallAccount(t *testing.T) {
	server := testserver.MinIO(t)
	server.Env(t)
	bucket(t, raw(t, server), "locked", true, false)
	cfg := s3.Config{Endpoint: server.Endpoint, Plain: true, Bucket: "locked", Prefix: "site/vault"}
	c := pushing(t, server, cfg, whatItNeeds)
	store, err := s3.Create(ctx, cfg)
	must(t, err)
	must(t, put(store, vault.MarkerName, "marker"))
	checkpoint, tile := vault.CheckpointName(vault.LedgerPrefix), vault.TileName(vault.LedgerPrefix, 0, 1, vault.TileWidth)
	for _, name := range []string{segment("x"), vault.IndexName(day, vault.HashOf([]byte("x"))), vault.WrapName(day, "a", vault.HashOf(nil), vault.HashOf([]byte("x"))),
		vault.RegisterName("a", vault.HashOf([]byte("x"))), tile, vault.BundleName(vault.LedgerPrefix, 1234567, vault.TileWidth), vault.TileName(vault.CopyLogPrefix("nas2"), 2, 0, vault.TileWidth),
		vault.KeptCheckpointName(vault.LedgerPrefix, 12), vault.CosignatureName(vault.LedgerPrefix, 12, "0123456789abcdef"), vault.TimestampName(vault.LedgerPrefix, 12)} {
		must(t, put(store, name, "x"))
		must(t, put(store, name, "x"))
		level, err := store.Protect(ctx, name, time.Now().Add(time.Hour))
		if level != vault.LevelLock || err != nil {
			t.Errorf("Protect of %s: %s, %v (%s)", name, level, err, store.Shortfall())
		}
		if err := store.Remove(ctx, name); err == nil {
			t.Errorf("%s was removed", name)
		}
	}
	for _, name := range []string{checkpoint, vault.CheckpointName(vault.CopyLogPrefix("nas2")), vault.BundleName(vault.LedgerPrefix, 3, 200)} {
		must(t, store.Replace(ctx, name, head(400)))
		must(t, store.Replace(ctx, name, head(400)))
		must(t, store.RemoveVersions(ctx, name))
	}
	must(t, store.RemovePartial(ctx, vault.BundleName(vault.LedgerPrefix, 3, 200)))
	free := vault.TileName(vault.LedgerPrefix, 0, 2, vault.TileWidth)
	must(t, put(store, free, "x"))
	must(t, store.RemoveTail(ctx, free))
	if n, err := store.Sweep(ctx); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	unlocked := segment("never locked")
	must(t, put(store, unlocked, "never locked"))
	err = c.RemoveObject(ctx, cfg.Bucket, cfg.Prefix+"/"+unlocked, minio.RemoveObjectOptions{VersionID: versionsOf(t, c, cfg, unlocked)[0]})
	if minio.ToErrorResponse(err).Code != "AccessDenied" {
		t.Errorf("removing a segment that is not locked: %v", err)
	}
	_, err = s3.Open(ctx, cfg)
	must(t, err)
}

// head is a checkpoint of a log of n entries, as far as a store reads it.
func head(n int) []byte {
	return fmt.Appendf(nil, "logs.example/vault\n%d\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— logs.example/vault AAAA\n", n)
}

// TestObjectInThePlaceOfADirectory is why the pushing account has a policy. An
// account that may put any name can hide, on MinIO, the versions below a name
// that is a directory; they are all there again when that object is removed.
func TestObjectInThePlaceOfADirectory(t *testing.T) {
	store, c, cfg := create(t, testserver.MinIO(t), "locked", true, false)
	name := vault.KeptCheckpointName(vault.LedgerPrefix, 256)
	must(t, put(store, name, "head"))
	up, err := c.PutObject(ctx, cfg.Bucket, "vault/ledger/checkpoints", strings.NewReader("x"), 1, minio.PutObjectOptions{})
	must(t, err)
	if _, err := store.Stat(ctx, name); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("stat of what is hidden: %v; if MinIO lists it now, the policy in docs/STORES.md can be simpler", err)
	}
	must(t, c.RemoveObject(ctx, cfg.Bucket, "vault/ledger/checkpoints", minio.RemoveObjectOptions{VersionID: up.VersionID}))
	wantContent(t, "after its removal", store, name, "head")
}

// TestProtect checks what a lock does and what the level says, by bucket.
func TestProtect(t *testing.T) {
	server := testserver.MinIO(t)
	for name, want := range map[string]string{"plain": "no Object Lock", "versioned": "no Object Lock"} {
		store, _, _ := create(t, server, name, false, name == "versioned")
		must(t, put(store, segment("x"), "x"))
		level, err := store.Protect(ctx, segment("x"), time.Now().Add(time.Hour))
		if level != vault.LevelNone || err != nil || !strings.Contains(store.Shortfall(), want) {
			t.Errorf("%s: %s, %v, %q", name, level, err, store.Shortfall())
		}
	}
	store, c, cfg := create(t, server, "locked", true, false)
	name := segment("x")
	must(t, put(store, name, "x"))
	end := func() time.Time {
		_, until, err := c.GetObjectRetention(ctx, cfg.Bucket, "vault/"+name, "")
		must(t, err)
		return *until
	}
	first := time.Now().Truncate(time.Second).Add(time.Hour + 300*time.Millisecond)
	for _, step := range []struct{ ask, want time.Time }{
		{first, first.Truncate(time.Second).Add(time.Second)},                    // rounded up
		{first.Add(-time.Minute), first.Truncate(time.Second).Add(time.Second)},  // never shortened
		{first.Add(1700 * time.Millisecond), first.Add(1700 * time.Millisecond)}, // prolonged
		{time.Now().Add(-time.Minute), first.Add(1700 * time.Millisecond)},       // nothing to lock
	} {
		level, err := store.Protect(ctx, name, step.ask)
		if level != vault.LevelLock || err != nil || !end().Equal(step.want) {
			t.Fatalf("Protect until %v: %s, %v, locked until %v, expected %v (%s)", step.ask, level, err, end(), step.want, store.Shortfall())
		}
	}
	if err := store.Remove(ctx, name); err == nil {
		t.Error("a locked object was removed")
	}
	wantContent(t, "after a removal that was refused", store, name, "x")
	// When its day has come it goes, with all its versions.
	name = segment("short-lived")
	must(t, put(store, name, "short-lived"))
	over := lockShortly(t, store, c, cfg, name)
	_, err := c.PutObject(ctx, cfg.Bucket, "vault/"+name, strings.NewReader("other"), 5, minio.PutObjectOptions{})
	must(t, err)
	time.Sleep(time.Until(over.Add(time.Second)))
	must(t, store.Remove(ctx, name))
	if ids := versionsOf(t, c, cfg, name); len(ids) != 0 {
		t.Errorf("%d versions are left of what was removed", len(ids))
	}
	// The canary left nothing, and is never seen.
	for v := range c.ListObjectsIter(ctx, cfg.Bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if strings.Contains(v.Key, "canary") {
			t.Errorf("%s is left", v.Key)
		}
	}
}

// lockShortly locks an object for a few seconds, or for as many more as a slow
// machine needs so that the date is still to come when the server locks it, and
// returns the end.
func lockShortly(t *testing.T, store *s3.Store, c *minio.Client, cfg s3.Config, name string) time.Time {
	t.Helper()
	for lasts := 2 * time.Second; lasts < time.Hour; lasts *= 2 {
		// In the meantime the date may pass, and what the server then says differs.
		level, err := store.Protect(ctx, name, time.Now().Add(lasts))
		mode, until, rerr := c.GetObjectRetention(ctx, cfg.Bucket, cfg.Prefix+"/"+name, "")
		if err == nil && rerr == nil && level == vault.LevelLock && *mode == minio.Compliance {
			return *until
		}
		t.Logf("a lock of %v: %s, %v, %v", lasts, level, err, rerr)
	}
	t.Fatal("nothing was locked")
	return time.Time{}
}

// TestDefaultRetentionOfMinIO: the rule is read as a real server tells it, nothing
// is put before that, and without it the same bucket is fit.
func TestDefaultRetentionOfMinIO(t *testing.T) {
	s := testserver.MinIO(t)
	s.Env(t)
	c := raw(t, s)
	bucket(t, c, "ruled", true, false)
	mode, days, unit := minio.Compliance, uint(30), minio.Days
	must(t, c.SetBucketObjectLockConfig(ctx, "ruled", &mode, &days, &unit))
	cfg := s3.Config{Endpoint: s.Endpoint, Plain: true, Bucket: "ruled", Prefix: "vault"}
	if _, err := s3.Create(ctx, cfg); !errors.Is(err, vault.ErrUnfit) || !strings.Contains(err.Error(), "COMPLIANCE, 30 days") {
		t.Errorf("create: %v, expected unfit and the rule", err)
	}
	for o := range c.ListObjectsIter(ctx, "ruled", minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		t.Errorf("%s was put, %v", o.Key, o.Err)
	}
	must(t, c.SetBucketObjectLockConfig(ctx, "ruled", nil, nil, nil))
	if _, err := s3.Create(ctx, cfg); err != nil {
		t.Errorf("create without the rule: %v", err)
	}
}

// TestVersityGWIsNotTrusted: its lock lets go of an object under legal hold once
// the retention has ended, so the level is none, and says why.
func TestVersityGWIsNotTrusted(t *testing.T) {
	store, _, _ := create(t, testserver.VersityGW(t), "locked", true, false)
	must(t, put(store, segment("x"), "x"))
	level, err := store.Protect(ctx, segment("x"), time.Now().Add(time.Hour))
	if level != vault.LevelNone || err != nil || !strings.Contains(store.Shortfall(), "legal hold") {
		t.Errorf("%s, %v, %q", level, err, store.Shortfall())
	}
	wantContent(t, "locked all the same", store, segment("x"), "x")
}

// TestRemoveVersions: after a pass one version of a mutable name is left.
func TestRemoveVersions(t *testing.T) {
	for _, server := range []*testserver.S3{testserver.MinIO(t), testserver.VersityGW(t)} {
		store, c, cfg := create(t, server, "versioned", false, true)
		for _, name := range []string{vault.CheckpointName(vault.LedgerPrefix), vault.BundleName(vault.LedgerPrefix, 0, 9)} {
			for i := range 4 {
				must(t, store.Replace(ctx, name, fmt.Append(nil, "head ", i)))
			}
			must(t, c.RemoveObject(ctx, cfg.Bucket, "vault/"+name, minio.RemoveObjectOptions{})) // a stranger's delete marker
			wantContent(t, "under a delete marker", store, name, "head 3")
			if n := len(versionsOf(t, c, cfg, name)); n != 5 {
				t.Fatalf("%d versions before, expected 5: the test sees too little", n)
			}
			must(t, store.RemoveVersions(ctx, name))
			wantContent(t, "alone", store, name, "head 3")
			if n := len(versionsOf(t, c, cfg, name)); n != 1 {
				t.Errorf("%d versions of %s after, expected 1", n, name)
			}
		}
		if err := store.RemoveVersions(ctx, segment("x")); err == nil {
			t.Error("the versions of a segment were removed")
		}
	}
}

// TestVersionsByHash: what was there before the first Put, under a content name,
// does not hide it, and without a checksum versions are told by reading.
func TestVersionsByHash(t *testing.T) {
	store, c, cfg := create(t, testserver.MinIO(t), "versioned", false, true)
	name := segment("the right one")
	for _, data := range []string{"too early", "the right one", "too late", ""} {
		_, err := c.PutObject(ctx, cfg.Bucket, "vault/"+name, strings.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
		must(t, err)
	}
	got, err := vault.ReadAll(ctx, store, name, 100)
	if err != nil || string(got) != "the right one" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := put(store, name, "the right one"); err != nil {
		t.Errorf("the same bytes again: %v", err)
	}
	wrong := segment("never stored")
	if err := put(store, wrong, "other bytes"); err == nil {
		t.Error("an object was stored under the hash of another")
	}
	if _, err := store.Stat(ctx, wrong); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("what was refused is there: %v", err)
	}
}

// TestSweep leaves no upload and no canary of a process that was killed.
func TestSweep(t *testing.T) {
	store, c, cfg := create(t, testserver.VersityGW(t), "plain", false, false)
	must(t, multipart(c, cfg.Bucket, false)("vault/"+segment("x"), "", "part"))
	_, err := c.PutObject(ctx, cfg.Bucket, "vault/.canary-00", bytes.NewReader(nil), 0, minio.PutObjectOptions{})
	must(t, err)
	if _, _, err := store.Open(ctx, ".canary-00"); err == nil {
		t.Error("a canary can be read")
	}
	must(t, store.List(ctx, "", func(i vault.Info) error {
		if strings.Contains(i.Name, "canary") {
			t.Errorf("%s is listed", i.Name)
		}
		return nil
	}))
	if n, err := store.Sweep(ctx); n != 2 || err != nil {
		t.Errorf("swept %d, %v, expected 2", n, err)
	}
	if n, err := store.Sweep(ctx); n != 0 || err != nil {
		t.Errorf("swept %d again, %v", n, err)
	}
}
