package location

import (
	"context"
	"errors"
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

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

func TestUnknownScheme(t *testing.T) {
	o := Opener{FS: vfs.NewMem()}
	for _, place := range []string{"gopher://host/x", "http://host/x"} {
		_, err := o.Open(context.Background(), place)
		if e, ok := errors.AsType[*Error](err); !ok || e.Place != place {
			t.Errorf("opening %s: %v", place, err)
		}
		if _, err = o.Create(context.Background(), place); err == nil {
			t.Errorf("%s created", place)
		}
	}
}
