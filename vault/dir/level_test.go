package dir

import (
	"context"
	"strings"
	"testing"

	"logvault/internal/vfs"
	"logvault/vault"
)

func TestImmutabilityIsNotOverReported(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Create(mem, "/v")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Immutability(); got != "none" {
		t.Errorf("without a marker: %q, expected none", got)
	}
	if err := s.Put(context.Background(), vault.MarkerName, 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if got := s.Immutability(); got != "mode" {
		t.Errorf("%q, expected mode", got)
	}
	if err := mem.Chmod("/v/"+vault.MarkerName, 0o640); err != nil {
		t.Fatal(err)
	}
	if got := s.Immutability(); got != "none" {
		t.Errorf("writable marker: %q, expected none", got)
	}
}
