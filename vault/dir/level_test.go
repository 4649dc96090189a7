package dir

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// flagged is a store that may set flags, with a segment and a full tile.
func flagged(t *testing.T, deny func(op vfs.Op, name string) error) (*Store, *vfs.Mem) {
	t.Helper()
	m := vfs.NewMem()
	s, err := Create(vfs.NewFault(m, deny), root)
	must(t, err)
	must(t, s.Put(ctx, vault.MarkerName, 1, strings.NewReader("x")))
	must(t, put(s, segment, body))
	must(t, put(s, tile, body))
	s.UseFlags()
	return s, m
}

func nothing(vfs.Op, string) error { return nil }

func wantLevel(t *testing.T, s *Store, name string, want vault.Level) {
	t.Helper()
	got, err := s.Level(ctx, name)
	if err != nil || got != want {
		t.Errorf("level of %s: %s, %v, expected %s", name, got, err, want)
	}
}

func wantProtect(t *testing.T, s *Store, name string, want vault.Level) {
	t.Helper()
	got, err := s.Protect(ctx, name, time.Time{})
	if err != nil || got != want {
		t.Errorf("Protect of %s: %s, %v, expected %s", name, got, err, want)
	}
	wantLevel(t, s, name, want)
}

func TestProtectSetsFlags(t *testing.T) {
	s, m := flagged(t, nothing)
	for _, name := range []string{vault.MarkerName, segment, tile} {
		wantLevel(t, s, name, vault.LevelMode)
		wantProtect(t, s, name, vault.LevelFlag)
		wantProtect(t, s, name, vault.LevelFlag) // again
	}
	for _, name := range []string{"", "/segments/2026", "/segments/2026/11", "/segments/2026/11/21"} {
		if flags, err := m.Flags(root + name); err != nil || flags != vfs.FlagAppend {
			t.Errorf("flags of %q: %x, %v", name, flags, err)
		}
	}
	// Every guard counts: without one of them the path could be moved away.
	for _, name := range []string{segment, "segments/2026/11", ""} {
		flags, err := m.Flags(root + "/" + name)
		must(t, err)
		must(t, m.SetFlags(root+"/"+name, 0, flags))
		wantLevel(t, s, segment, vault.LevelMode)
		wantProtect(t, s, segment, vault.LevelFlag)
	}
	// What a copy goes on doing still works.
	must(t, put(s, vault.SegmentName(testDay, vault.HashOf(nil), vault.Gzip), body))
	must(t, s.Replace(ctx, checkpoint, []byte("origin\n0\nroot\n\n")))
	must(t, s.Replace(ctx, partial, []byte("p")))
	must(t, s.RemovePartial(ctx, partial))
	must(t, put(s, segment, body))
	if err := put(s, segment, body+"x"); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
}

func TestRemoveClearsFlags(t *testing.T) {
	s, m := flagged(t, nothing)
	other := vault.SegmentName(testDay, vault.HashOf(nil), vault.Gzip)
	must(t, put(s, other, body))
	wantProtect(t, s, segment, vault.LevelFlag)
	wantProtect(t, s, other, vault.LevelFlag)
	must(t, s.Remove(ctx, segment))
	wantLevel(t, s, other, vault.LevelFlag) // its directory has its flag back
	must(t, s.Remove(ctx, other))
	if _, err := m.Stat(root + "/segments/2026"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty directories stay: %v", err)
	}
}

// TestRemoveWithoutCapability: nothing goes and nothing is loosened half.
func TestRemoveWithoutCapability(t *testing.T) {
	denied := false
	s, _ := flagged(t, func(op vfs.Op, _ string) error {
		if denied && op == vfs.OpSetFlags {
			return fs.ErrPermission
		}
		return nil
	})
	wantProtect(t, s, segment, vault.LevelFlag)
	denied = true
	if err := s.Remove(ctx, segment); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Remove: %v", err)
	}
	wantLevel(t, s, segment, vault.LevelFlag)
}

func TestLevelIsNotOverReported(t *testing.T) {
	for _, refusal := range []error{fs.ErrPermission, errors.ErrUnsupported} {
		s, m := flagged(t, func(op vfs.Op, _ string) error {
			if op == vfs.OpSetFlags {
				return refusal
			}
			return nil
		})
		wantProtect(t, s, segment, vault.LevelMode)
		must(t, m.Chmod(root+"/"+segment, 0o640))
		wantLevel(t, s, segment, vault.LevelNone)
		wantProtect(t, s, segment, vault.LevelMode)
	}
}

func TestProtectRefuses(t *testing.T) {
	s, _ := flagged(t, nothing)
	if _, err := s.Protect(ctx, checkpoint, time.Time{}); err == nil {
		t.Error("a checkpoint was protected")
	}
	if _, err := s.Protect(ctx, vault.TileName(vault.LedgerPrefix, 0, 77, 256), time.Time{}); !errors.Is(err, vault.ErrNotExist) {
		t.Errorf("Protect of an absent tile: %v", err)
	}
}

func TestLevelOfAFileSystemWithoutModes(t *testing.T) {
	s, m := flagged(t, func(op vfs.Op, _ string) error {
		if op == vfs.OpChmod || op == vfs.OpSetFlags {
			return errors.ErrUnsupported
		}
		return nil
	})
	must(t, m.Chmod(root+"/"+segment, 0o777))
	wantProtect(t, s, segment, vault.LevelNone)
}
