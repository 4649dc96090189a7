package ledger_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/ledger"
	"logvault/vault"
)

// overlay reads another content for some names: nil = absent.
type overlay struct {
	vault.Reader
	files map[string][]byte
}

func (o overlay) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	data, ok := o.files[name]
	if !ok {
		return o.Reader.Open(ctx, name)
	}
	if data == nil {
		return nil, 0, fmt.Errorf("%s: %w", name, vault.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func (o overlay) List(ctx context.Context, prefix string, fn func(vault.Info) error) error {
	seen := make(map[string]bool)
	err := o.Reader.List(ctx, prefix, func(i vault.Info) error {
		seen[i.Name] = true
		if data, ok := o.files[i.Name]; ok && data == nil {
			return nil
		}
		return fn(i)
	})
	for name, data := range o.files {
		if err == nil && data != nil && !seen[name] {
			err = fn(vault.Info{Name: name, Size: int64(len(data))})
		}
	}
	return err
}

// auditLog makes a log of a full and a partial tile with two kept heads and a
// cosignature, and the trust for it.
func auditLog(t testing.TB) (vault.Reader, *ledger.Trust) {
	t.Helper()
	l, cfg := newLog(t)
	nas := cosigner(t, "nas-2")
	grow(t, l, 100)
	if err := l.KeepHead(ctx); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 159)
	if err := l.KeepHead(ctx); err != nil {
		t.Fatal(err)
	}
	line, id, err := ledger.Cosign(l.Checkpoint(), nas.skey, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	name := vault.CosignatureName(vault.LedgerPrefix, 259, id)
	if err := cfg.Copy.Put(ctx, name, int64(len(line)), bytes.NewReader(line)); err != nil {
		t.Fatal(err)
	}
	tr := trust(t)
	tr.Copies = []ledger.TrustKey{{Name: "nas-2", Key: nas.vkey}}
	return cfg.Copy, tr
}

// blame opens and audits what r holds and returns the names it finds wrong.
func blame(t testing.TB, r vault.Reader, tr *ledger.Trust) []string {
	t.Helper()
	tree, err := ledger.OpenTree(ctx, r, vault.LedgerPrefix, tr)
	if err != nil {
		return []string{vault.CheckpointName(vault.LedgerPrefix)}
	}
	var list []string
	for _, p := range problems(t, tree) {
		list = append(list, p.Name)
	}
	slices.Sort(list)
	return list
}

// TestEveryByte XORs bytes of every file; the audit must name that file and no
// other. It takes every byte of small files and of both ends of large ones.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	r, tr := auditLog(t)
	if found := blame(t, r, tr); found != nil {
		t.Fatalf("the log as it is: %v", found)
	}
	files, flips := 0, 0
	masks := []byte{0x01, 0x80, 0xff}
	if testing.Short() {
		masks = masks[:1]
	}
	for _, name := range names(t, r) {
		data, err := vault.ReadAll(ctx, r, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		files++
		for i := range data {
			if n := len(data); n > 500 && i > 50 && i < n-50 && i%97 != 0 {
				continue
			}
			for _, mask := range masks {
				bad := bytes.Clone(data)
				bad[i] ^= mask
				flips++
				if got := blame(t, overlay{r, map[string][]byte{name: bad}}, tr); !slices.Equal(got, []string{name}) {
					t.Fatalf("byte %d of %s ^ %#x: the audit blames %v", i, name, mask, got)
				}
			}
		}
	}
	if files != 9 {
		t.Errorf("%d files, expected 2 bundles, 3 tiles, 3 heads and a cosignature", files)
	}
	t.Logf("%d flips in %d files", flips, files)
}

// TestEveryFile removes, empties, shortens and lengthens each file.
func TestEveryFile(t *testing.T) {
	r, tr := auditLog(t)
	for _, name := range names(t, r) {
		data, err := vault.ReadAll(ctx, r, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		o, err := vault.ParseName(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string][]byte{
			"absent":        nil,
			"empty":         {},
			"shorter":       data[:len(data)-1],
			"longer":        append(bytes.Clone(data), 0),
			"entry more":    append(bytes.Clone(data), 0, 1, 'x'),
			"one hash less": data[:max(0, len(data)-32)],
			"twice":         slices.Concat(data, data),
		} {
			optional := o.Kind == vault.KindKeptCheckpoint || o.Kind == vault.KindCosignature
			if bad == nil && optional {
				continue // nothing in the log says that it was there
			}
			if got := blame(t, overlay{r, map[string][]byte{name: bad}}, tr); !slices.Equal(got, []string{name}) {
				t.Errorf("%s %s: the audit blames %v", name, what, got)
			}
		}
	}
}

// TestProblemCodes: each kind of problem has its code.
func TestProblemCodes(t *testing.T) {
	r, tr := auditLog(t)
	bundle := vault.BundleName(vault.LedgerPrefix, 0, 256)
	tile := vault.TileName(vault.LedgerPrefix, 0, 0, 256)
	data, err := vault.ReadAll(ctx, r, bundle, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	head, err := vault.ReadAll(ctx, r, vault.KeptCheckpointName(vault.LedgerPrefix, 100), 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	fork := signNote(t, fmt.Sprintf("%s\n100\n%s\n", testOrigin, emptyRoot))
	for _, c := range []struct {
		name, code string
		data       []byte
	}{
		{bundle, ledger.ProblemMissing, nil},
		{bundle, ledger.ProblemShort, data[:len(data)-1]},
		{bundle, ledger.ProblemLong, append(bytes.Clone(data), data...)},
		{tile, ledger.ProblemMissing, nil},
		{tile, ledger.ProblemShort, make([]byte, 8191)},
		{tile, ledger.ProblemLong, make([]byte, 8193)},
		{tile, ledger.ProblemWrong, make([]byte, 8192)},
		{vault.TileName(vault.LedgerPrefix, 0, 0, 7), ledger.ProblemUnexpected, []byte("x")},
		{vault.TileName(vault.LedgerPrefix, 0, 1, 2), ledger.ProblemUnexpected, []byte("x")},
		{vault.TileName(vault.LedgerPrefix, 0, 1, 4), ledger.ProblemBeyond, []byte("x")},
		{vault.BundleName(vault.LedgerPrefix, 1, 256), ledger.ProblemBeyond, []byte("x")},
		{vault.TileName(vault.LedgerPrefix, 3, 0, 256), ledger.ProblemBeyond, []byte("x")},
		{"ledger/notes.txt", ledger.ProblemUnexpected, []byte("x")},
		{"ledger/tile/0/0", ledger.ProblemUnexpected, []byte("x")},
		{vault.KeptCheckpointName(vault.LedgerPrefix, 100), ledger.ProblemForked, fork},
		{vault.KeptCheckpointName(vault.LedgerPrefix, 99), ledger.ProblemWrong, head},
		{vault.CosignatureName(vault.LedgerPrefix, 100, "01234567"), ledger.ProblemUnknownKey, []byte("x")},
		{vault.CosignatureName(vault.LedgerPrefix, 1000, "01234567"), ledger.ProblemBeyond, []byte("x")},
	} {
		tree, err := ledger.OpenTree(ctx, overlay{r, map[string][]byte{c.name: c.data}}, vault.LedgerPrefix, tr)
		if err != nil {
			t.Fatal(err)
		}
		found := problems(t, tree)
		if len(found) != 1 || found[0].Name != c.name || found[0].Code != c.code {
			t.Errorf("%s: %+v, expected code %s", c.name, found, c.code)
		}
	}
}

// TestForgery alters a bundle and all tiles above it consistently: without the
// key there is no checkpoint for them, and the altered files are named.
func TestForgery(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 700)
	forged, forgedCfg := newLog(t)
	entries := testEntries(0, 700)
	entries[300] = testEntry("forged")
	if _, err := forged.Append(ctx, entries...); err != nil {
		t.Fatal(err)
	}
	bundle := vault.BundleName(vault.LedgerPrefix, 1, 256)
	leaf := vault.TileName(vault.LedgerPrefix, 0, 1, 256)
	top := vault.TileName(vault.LedgerPrefix, 1, 0, 2)
	for _, altered := range [][]string{{bundle}, {bundle, leaf}, {leaf}, {top}, {leaf, top}, {bundle, leaf, top}} {
		files := make(map[string][]byte)
		for _, name := range altered {
			data, err := vault.ReadAll(ctx, forgedCfg.Copy, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = data
		}
		got := blame(t, overlay{cfg.Copy, files}, trust(t))
		want := altered
		if len(altered) == 3 {
			// All agree, but not with the root: the right edge is blamed.
			want = []string{vault.TileName(vault.LedgerPrefix, 0, 2, 188), top}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("altered %v: the audit blames %v, expected %v", altered, got, want)
		}
		tree, err := ledger.OpenTree(ctx, overlay{cfg.Copy, files}, vault.LedgerPrefix, trust(t))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := tree.Entry(ctx, 300); err == nil && !bytes.Equal(data, testEntry("300")) {
			t.Errorf("altered %v: entry 300 reads as %s", altered, data)
		}
	}
}

// TestLargeDamage audits a log most of whose files are gone or garbage: a list
// of problems, no panic, no end of it.
func TestLargeDamage(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 2000)
	all := names(t, cfg.Copy)
	for stride := 1; stride <= 4; stride++ {
		for _, junk := range [][]byte{nil, {}, bytes.Repeat([]byte{0}, 8192), bytes.Repeat([]byte{0xff}, 100_000)} {
			files := make(map[string][]byte)
			for i, name := range all {
				if i%stride == 0 && name != vault.CheckpointName(vault.LedgerPrefix) {
					files[name] = junk
				}
			}
			got := blame(t, overlay{cfg.Copy, files}, trust(t))
			for name := range files {
				if !slices.Contains(got, name) {
					t.Errorf("every %d. file with %d bytes: %s is not named", stride, len(junk), name)
				}
			}
		}
	}
}

// TestAuditStops returns the callback's and the store's errors.
func TestAuditStops(t *testing.T) {
	r, tr := auditLog(t)
	tree, err := ledger.OpenTree(ctx, overlay{r, map[string][]byte{"ledger/x": {}}}, vault.LedgerPrefix, tr)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Audit(ctx, func(ledger.Problem) error { return io.ErrShortWrite }); err != io.ErrShortWrite {
		t.Errorf("error %v, expected the callback's", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := tree.Audit(cancelled, func(ledger.Problem) error { return nil }); err == nil {
		t.Error("audit with a cancelled context: no error")
	}
}

// switching shows one published checkpoint to the opening of a tree and
// another to what comes after.
func switching(t *testing.T, r vault.Reader, tr *ledger.Trust, later []byte) []ledger.Problem {
	t.Helper()
	files := make(map[string][]byte)
	tree, err := ledger.OpenTree(ctx, overlay{r, files}, vault.LedgerPrefix, tr)
	if err != nil {
		t.Fatal(err)
	}
	files[vault.CheckpointName(vault.LedgerPrefix)] = later
	return problems(t, tree)
}

// TestCheckpointChangesMeanwhile: growth during an audit is in order; a
// checkpoint that shrinks, forks, loses its signature or goes away is not.
func TestCheckpointChangesMeanwhile(t *testing.T) {
	r, tr := auditLog(t)
	head := func(size int64, root vault.Hash) []byte {
		return signNote(t, fmt.Sprintf("%s\n%d\n%s\n", testOrigin, size, base64.StdEncoding.EncodeToString(root[:])))
	}
	root := openTree(t, r).Root()
	for _, c := range []struct {
		what, code string
		later      []byte
	}{
		{"grown", "", head(1000, vault.HashOf(nil))},
		{"the same, signed again by others", "", append(head(259, root), "— x AAAAAAA=\n"...)},
		{"shrunk", ledger.ProblemWrong, head(258, root)},
		{"forked", ledger.ProblemWrong, head(259, vault.HashOf(nil))},
		{"garbage", ledger.ProblemWrong, []byte("x")},
		{"gone", ledger.ProblemMissing, nil},
	} {
		found := switching(t, r, tr, c.later)
		switch {
		case c.code == "" && len(found) == 0:
		case len(found) == 1 && found[0].Code == c.code && found[0].Name == vault.CheckpointName(vault.LedgerPrefix):
		default:
			t.Errorf("%s: %+v, expected code %q", c.what, found, c.code)
		}
	}
	// Growth excuses nothing but the right edge.
	files := map[string][]byte{vault.BundleName(vault.LedgerPrefix, 0, 256): nil}
	if found := switching(t, overlay{r, files}, tr, head(1000, vault.HashOf(nil))); len(found) != 1 {
		t.Errorf("a full bundle missing while the log grows: %+v", found)
	}
}

// TestHostileTree reads single things from a log with one bad file: an error
// that names it, never other data.
func TestHostileTree(t *testing.T) {
	l, cfg := newLog(t)
	grow(t, l, 600)
	for name, entryIndex := range map[string]int64{
		vault.BundleName(vault.LedgerPrefix, 0, 256):  0,
		vault.BundleName(vault.LedgerPrefix, 2, 88):   512,
		vault.TileName(vault.LedgerPrefix, 0, 1, 256): 256,
		vault.TileName(vault.LedgerPrefix, 0, 2, 88):  599,
		vault.TileName(vault.LedgerPrefix, 1, 0, 2):   10,
	} {
		good, err := vault.ReadAll(ctx, cfg.Copy, name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(good)
		flipped[3] ^= 1
		for what, bad := range map[string][]byte{
			"absent": nil, "empty": {}, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0),
			"flipped": flipped, "huge": make([]byte, 17<<20),
		} {
			tree := openTree(t, overlay{cfg.Copy, map[string][]byte{name: bad}})
			_, err := tree.Entry(ctx, entryIndex)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %s: error %v, expected one that names it", name, what, err)
			}
			err = tree.Files(ctx, 0, func(name string, data []byte) error {
				stored, err := vault.ReadAll(ctx, cfg.Copy, name, 1<<20)
				if err == nil && !bytes.Equal(stored, data) {
					err = fmt.Errorf("other data for %s", name)
				}
				return err
			})
			if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "other data") {
				t.Errorf("files with %s %s: %v", name, what, err)
			}
		}
	}
}
