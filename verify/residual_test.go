package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/verify"
)

// attic is a Place of plain bytes by path.
type attic map[string][]byte

func (a attic) Name() string { return "attic" }

func (a attic) Walk(_ context.Context, fn func(verify.File) error) error {
	for _, name := range testvault.Files(a).Names() {
		data := a[name]
		err := fn(verify.File{Path: name, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
			if data == nil {
				return nil, errors.New("bad sector")
			}
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestResidual(t *testing.T) {
	s := newSample(70)
	segment, index, wrap := s.files.Find(".gz.pgp"), s.files.Find(".idx.pgp"), s.files.Find("keys/")
	old := attic{
		"snap/" + segment:                  s.files[segment],
		"renamed.bin":                      s.files[index],
		"snap/" + wrap:                     s.files[wrap],
		"copy of keys.dat":                 s.files[wrap],
		"holiday.jpg":                      []byte("nothing of ours"),
		"other/dir/" + wrap[len(wrap)-70:]: []byte("a wrap's name with other bytes"),
	}
	look := func(years int, place verify.Place) []verify.Finding {
		o := s.options()
		o.Depth, o.Residual, o.Now = verify.Chain, []verify.Place{place}, s.options().Now.AddDate(years, 0, 0)
		list, sum := audit(t, o)
		if a, ok := place.(attic); ok && sum.Scanned != int64(len(a)) {
			t.Errorf("%d files looked at, expected %d", sum.Scanned, len(a))
		}
		var found []verify.Finding
		for _, f := range list {
			if f.Code == "residual" || f.Code == "unreadable" || f.Code == "not-checked" {
				found = append(found, f)
			}
		}
		return found
	}
	// Before the date only the wraps matter, as a warning.
	found := look(0, old)
	if len(found) != 3 || hasLevel(found, verify.Error) {
		t.Errorf("before the date:%s", lines(found))
	}
	// After it, everything: by name, by size and hash.
	found = look(3, old)
	if len(found) != 5 {
		t.Errorf("after the date:%s", lines(found))
	}
	for _, path := range []string{"snap/" + segment, "renamed.bin", "snap/" + wrap, "copy of keys.dat"} {
		expect(t, found, "residual", verify.Error, path)
	}
	if strings.Contains(lines(found), "holiday") {
		t.Errorf("a file of somebody else was taken for ours:%s", lines(found))
	}
	if found := look(3, attic{"empty": {}}); len(found) != 0 {
		t.Errorf("an empty file:%s", lines(found))
	}
	expect(t, look(3, attic{"bad": nil}), "unreadable", verify.Error, "bad")
	found = look(3, unmounted{})
	expect(t, found, "not-checked", verify.Error, "unmounted")
}

// unmounted is a Place that cannot be walked.
type unmounted struct{ verify.Place }

func (unmounted) Name() string { return "unmounted" }

func (unmounted) Walk(context.Context, func(verify.File) error) error {
	return errors.New("not mounted")
}
