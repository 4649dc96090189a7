package verify_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/seal/pgp"
	"logvault/vault"
	"logvault/verify"
)

const squid = "1790000000.123    180 192.168.0.224 TCP_MISS/200 411 GET http://host.example/p alice HIER_DIRECT/10.0.5.120 text/html\n"

// sample is a vault with everything in it: two streams, a record, a copy log
// with its kept head and cosignature. Tests clone its files to damage them.
type sample struct {
	files testvault.Files
	trust *ledger.Trust
	now   time.Time
	world *testvault.World
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// newSample makes the sample anew, for tests that go on with it.
func newSample(seed uint64) *sample {
	ctx := context.Background()
	w, err := testvault.New(seed)
	must(err)
	must(w.Seal(ctx, 1, squid+squid))
	must(w.Seal(ctx, 2, "text of another stream\n"))
	must(w.Seal(ctx, 1, "third line\n"))
	must(w.Register(ctx, "salt and who asked"))
	must(addCopy(ctx, w, "nas2"))
	files, err := testvault.Load(ctx, w.Vault)
	must(err)
	return &sample{files: files, trust: w.Trust, now: w.Now(), world: w}
}

var theSample = sync.OnceValue(func() *sample { return newSample(1) })

// addCopy gives the vault a copy log that has held and cosigned its head, as
// replicate leaves it, and pins the copy's keys.
func addCopy(ctx context.Context, w *testvault.World, name string) error {
	origin := testvault.Origin + "/copy/" + name
	skey, vkey, err := ledger.GenerateKey(testvault.Random(50), origin)
	if err != nil {
		return err
	}
	cosign, cosignV, err := ledger.NewCosigner(testvault.Random(51), origin)
	if err != nil {
		return err
	}
	log, err := ledger.Create(ctx, ledger.Config{Prefix: vault.CopyLogPrefix(name), Origin: origin, SignerKey: skey, Record: w.Vault, Now: w.Now})
	if err != nil {
		return err
	}
	head := w.Log.Checkpoint()
	marker, _, err := vault.ReadMarker(ctx, w.Vault)
	if err != nil {
		return err
	}
	for _, e := range []entry.Entry{
		&entry.CopyInit{Header: w.Header(), Vault: hexID(marker), Origin: testvault.Origin, Name: name, Key: vkey, Cosigner: cosignV},
		&entry.Held{Header: w.Header(), Size: head.Size, Root: head.Root, Objects: 1, Bytes: 1},
	} {
		data, err := entry.Encode(e)
		if err != nil {
			return err
		}
		if _, err := log.Append(ctx, data); err != nil {
			return err
		}
	}
	line, id, err := ledger.Cosign(head, cosign, w.Now())
	if err != nil {
		return err
	}
	for file, data := range map[string][]byte{
		vault.KeptCheckpointName(vault.LedgerPrefix, head.Size):  head.Raw,
		vault.CosignatureName(vault.LedgerPrefix, head.Size, id): line,
	} {
		if err := w.Vault.Put(ctx, file, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	w.Trust.Copies = append(w.Trust.Copies, ledger.TrustKey{Name: name, Key: vkey})
	w.Trust.Witnesses = append(w.Trust.Witnesses, ledger.TrustKey{Name: origin, Key: cosignV})
	return nil
}

func hexID(m vault.Marker) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, x := range m.ID {
		b.WriteByte(digits[x>>4])
		b.WriteByte(digits[x&15])
	}
	return b.String()
}

func opener() pgp.Opener {
	_, open := testvault.Auditor()
	return open
}

// options audits the sample's own files at its own time.
func (s *sample) options() verify.Options {
	return verify.Options{Vault: s.files, Trust: s.trust, Depth: verify.Objects, Now: s.now, Jobs: 1}
}

// audit runs an audit and returns its findings.
func audit(t testing.TB, o verify.Options) ([]verify.Finding, verify.Summary) {
	t.Helper()
	var list []verify.Finding
	sum, err := verify.Run(context.Background(), o, func(f verify.Finding) { list = append(list, f) })
	if err != nil {
		t.Fatalf("the audit was not made: %v", err)
	}
	return list, sum
}

// has reports whether a finding with the code, level and object is there.
func has(list []verify.Finding, code string, level verify.Level, object string) bool {
	for _, f := range list {
		if f.Code == code && f.Level == level && (object == "" || strings.Contains(f.Object, object)) {
			return true
		}
	}
	return false
}

// expect fails unless the finding is there.
func expect(t testing.TB, list []verify.Finding, code string, level verify.Level, object string) {
	t.Helper()
	if !has(list, code, level, object) {
		t.Errorf("expected %s %s on %q, got:%s", level, code, object, lines(list))
	}
}

// clean fails if there is any finding.
func clean(t testing.TB, list []verify.Finding) {
	t.Helper()
	if len(list) > 0 {
		t.Errorf("expected no finding, got:%s", lines(list))
	}
}

func lines(list []verify.Finding) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}
