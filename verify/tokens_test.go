package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testtsa"
	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/ledger/tsa"
	"logvault/vault"
	"logvault/verify"
)

// stamped is the sample with a time-stamp, as the gateway leaves it, and a trust
// file that pins its authority.
type stamped struct {
	*sample
	authority *testtsa.Authority
	head      ledger.Checkpoint
	token     []byte
	at        time.Time
}

func newStamped(t *testing.T) *stamped {
	t.Helper()
	s := newSample(6)
	a, err := testtsa.New(s.world.Now, nil)
	must(err)
	st := &stamped{sample: s, authority: a}
	s.trust.TSA = &ledger.TrustTSA{Roots: a.Roots, Policy: testtsa.Policy}
	st.stamp(t)
	st.keep()
	must(s.world.Append(context.Background(), st.entry()))
	st.reload()
	return st
}

// stamp has the present head stamped.
func (s *stamped) stamp(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(s.authority)
	defer server.Close()
	trust, err := tsa.NewTrust(s.authority.Roots, "")
	must(err)
	s.head = s.world.Log.Checkpoint()
	c := &tsa.Authority{URL: server.URL, Trust: trust, HTTP: server.Client(), Random: rand.Reader}
	s.token, s.at, err = c.Stamp(context.Background(), s.head.Raw)
	must(err)
}

// keep stores head and token.
func (s *stamped) keep() {
	for name, data := range map[string][]byte{vault.KeptCheckpointName(vault.LedgerPrefix, s.head.Size): s.head.Raw, s.name(): s.token} {
		must(s.world.Vault.Put(context.Background(), name, int64(len(data)), bytes.NewReader(data)))
	}
}

func (s *stamped) name() string { return vault.TimestampName(vault.LedgerPrefix, s.head.Size) }

func (s *stamped) entry() *entry.Timestamp {
	return &entry.Timestamp{Header: s.world.Header(), Size: s.head.Size, Root: s.head.Root, Token: vault.HashOf(s.token), Stamp: s.at}
}

func (s *stamped) reload() {
	var err error
	s.files, err = testvault.Load(context.Background(), s.world.Vault)
	must(err)
	s.now = s.world.Now()
}

func TestTimestamps(t *testing.T) {
	s := newStamped(t)
	list, sum := audit(t, s.options())
	clean(t, list)
	if sum.Stamped != s.head.Size || !sum.StampedAt.Equal(s.at) {
		t.Errorf("stamped %d at %v, expected %d at %v", sum.Stamped, sum.StampedAt, s.head.Size, s.at)
	}
	pinned := *s.trust
	for _, c := range []struct {
		what, code string
		level      verify.Level
		change     func(f testvault.Files, o *verify.Options)
	}{
		{"no roots pinned", "timestamp-unpinned", verify.Note, func(_ testvault.Files, o *verify.Options) { o.Trust.TSA = nil }},
		{"another root", "bad-timestamp", verify.Error, func(_ testvault.Files, o *verify.Options) {
			other, err := testtsa.New(s.world.Now, nil)
			must(err)
			o.Trust.TSA = &ledger.TrustTSA{Roots: other.Roots}
		}},
		{"another policy", "bad-timestamp", verify.Error, func(_ testvault.Files, o *verify.Options) {
			o.Trust.TSA = &ledger.TrustTSA{Roots: s.authority.Roots, Policy: "1.2.3"}
		}},
		{"roots that are none", "not-checked", verify.Error, func(_ testvault.Files, o *verify.Options) { o.Trust.TSA = &ledger.TrustTSA{Roots: "x"} }},
		{"token gone", "missing", verify.Error, func(f testvault.Files, _ *verify.Options) {
			maps.DeleteFunc(f, func(name string, _ []byte) bool { return name == s.name() || strings.HasPrefix(name, "copy/") })
		}},
		{"token altered", "damaged", verify.Error, func(f testvault.Files, _ *verify.Options) { f[s.name()][99] ^= 1 }},
		{"head gone", "bad-timestamp", verify.Error, func(f testvault.Files, _ *verify.Options) {
			delete(f, vault.KeptCheckpointName(vault.LedgerPrefix, s.head.Size))
		}},
		{"a second token", "unexpected", verify.Error, func(f testvault.Files, _ *verify.Options) {
			f[vault.TimestampName(vault.LedgerPrefix, s.head.Size-1)] = s.token
		}},
		{"a newer token that is none", "unexpected", verify.Error, func(f testvault.Files, _ *verify.Options) {
			f[vault.TimestampName(vault.LedgerPrefix, s.head.Size+1)] = []byte("x")
		}},
	} {
		files, trust := s.files.Clone(), pinned
		o := s.options()
		o.Vault, o.Trust = files, &trust
		c.change(files, &o)
		list, _ := audit(t, o)
		if !has(list, c.code, c.level, "") {
			t.Errorf("%s: expected %s %s, got:%s", c.what, c.level, c.code, lines(list))
		}
	}
}

// TestTimestampInTransit: the gateway was killed before it appended the entry.
func TestTimestampInTransit(t *testing.T) {
	s := newStamped(t)
	must(s.world.Seal(context.Background(), 1, squid))
	s.stamp(t)
	s.keep()
	s.reload()
	list, _ := audit(t, s.options())
	expect(t, list, "in-transit", verify.Warning, s.name())
	if len(list) != 1 {
		t.Errorf("found:%s", lines(list))
	}
}

// TestTimestampNotCopiedYet: a pass was killed between the checkpoint and what is
// kept beside the tiles. What the copy log vouches for must be there.
func TestTimestampNotCopiedYet(t *testing.T) {
	s := newStamped(t)
	o := s.options()
	files := s.files.Clone()
	o.Vault = files
	delete(files, s.name())
	list, _ := audit(t, o)
	expect(t, list, "in-transit", verify.Warning, s.name())

	must(s.held())
	s.reload()
	o = s.options()
	files = s.files.Clone()
	o.Vault = files
	delete(files, s.name())
	list, _ = audit(t, o)
	expect(t, list, "missing", verify.Error, s.name())
}

// held has the copy log say that it holds the present head.
func (s *stamped) held() error {
	origin := testvault.Origin + "/copy/nas2"
	skey, _, err := ledger.GenerateKey(testvault.Random(50), origin) // as addCopy did
	if err != nil {
		return err
	}
	log, err := ledger.Open(context.Background(), ledger.Config{Prefix: vault.CopyLogPrefix("nas2"), Origin: origin, SignerKey: skey, Record: s.world.Vault, Now: s.world.Now})
	if err != nil {
		return err
	}
	head := s.world.Log.Checkpoint()
	data, err := entry.Encode(&entry.Held{Header: s.world.Header(), Size: head.Size, Root: head.Root, Objects: 1, Bytes: 1})
	if err != nil {
		return err
	}
	_, err = log.Append(context.Background(), data)
	return err
}

// TestTimestampEntries: entries that say of a token what it does not say.
func TestTimestampEntries(t *testing.T) {
	for what, c := range map[string]struct {
		code   string
		level  verify.Level
		change func(*stamped, *entry.Timestamp)
	}{
		"another time": {"bad-timestamp", verify.Error, func(_ *stamped, e *entry.Timestamp) { e.Stamp = e.Stamp.Add(time.Second) }},
		"a later head": {"bad-entry", verify.Error, func(s *stamped, e *entry.Timestamp) { e.Size = 999 }},
		"one head twice": {"bad-entry", verify.Error, func(s *stamped, e *entry.Timestamp) {
			must(s.world.Append(context.Background(), s.entry()))
		}},
	} {
		s := newStamped(t)
		s.stamp(t)
		s.keep()
		e := s.entry()
		c.change(s, e)
		must(s.world.Append(context.Background(), e))
		s.reload()
		list, _ := audit(t, s.options())
		if !has(list, c.code, c.level, "") {
			t.Errorf("%s: expected %s %s, got:%s", what, c.level, c.code, lines(list))
		}
	}
}

// TestEntryAfterItsTimestamp: the gateway's clock was ahead of the authority's.
func TestEntryAfterItsTimestamp(t *testing.T) {
	s := newStamped(t)
	s.authority.Now = func() time.Time { return s.world.Clock.Add(-time.Hour) }
	s.stamp(t)
	s.keep()
	must(s.world.Append(context.Background(), s.entry()))
	s.reload()
	list, _ := audit(t, s.options())
	expect(t, list, "time-order", verify.Warning, s.name())
}

// TestCosignaturesOfTheOtherCopy: what the replica cosigned counts when it is
// compared with, for no replica brings it here.
func TestCosignaturesOfTheOtherCopy(t *testing.T) {
	s := newSample(7)
	s.trust.Quorum = 1
	there, here := s.files.Clone(), s.files.Clone()
	delete(here, here.Find("cosignatures/"))
	o := s.options()
	o.Vault = here
	list, sum := audit(t, o)
	expect(t, list, "not-cosigned", verify.Warning, "")
	if sum.Witnessed != 0 {
		t.Errorf("witnessed %d without a cosignature", sum.Witnessed)
	}
	o.Against = there
	list, sum = audit(t, o)
	clean(t, list)
	if sum.Witnessed != sum.Checkpoint.Size {
		t.Errorf("witnessed %d of %d", sum.Witnessed, sum.Checkpoint.Size)
	}
	there[there.Find("cosignatures/")] = []byte("— x AAAAAAAA\n")
	list, sum = audit(t, o)
	expect(t, list, "not-cosigned", verify.Warning, "")
	if sum.Witnessed != 0 {
		t.Errorf("witnessed %d by a cosignature that is none", sum.Witnessed)
	}
}
