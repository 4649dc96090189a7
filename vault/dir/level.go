package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

// UseFlags makes Protect set the file system's flags: it needs root or
// CAP_LINUX_IMMUTABLE. Without it Protect only reads them.
func (s *Store) UseFlags() { s.setFlags = true }

// Protect makes a stored object as immutable as this store can and tells what
// holds now; see vault.Protector. The date is not used: files know none.
//
//	chmod(name, 0440)                          if somebody may write it
//	setflags(dir, +append) for each directory  with UseFlags, for objects of a day
//	setflags(name, +immutable)                 with UseFlags
//	stat(name) getflags(name) getflags(dir)…
//
// The append flag keeps the directories, and so the whole path, from being
// moved away. The ledger's directories lose partial tiles and cannot bear it:
// there the flag holds the full tiles' bytes, not their place. A crash leaves
// fewer flags; a level is what was read, never what was asked for.
func (s *Store) Protect(ctx context.Context, name string, _ time.Time) (vault.Level, error) {
	if err := ctx.Err(); err != nil {
		return vault.LevelNone, err
	}
	o, err := vault.ParseName(name)
	if err != nil {
		return vault.LevelNone, err
	}
	if o.Kind == vault.KindCheckpoint || vault.IsPartial(name) {
		return vault.LevelNone, fmt.Errorf("protecting %s: mutable, it must stay so", name)
	}
	level, err := s.protect(name)
	if err != nil {
		return vault.LevelNone, fmt.Errorf("protecting %s: %w", name, err)
	}
	return level, nil
}

func (s *Store) protect(name string) (vault.Level, error) {
	level, err := s.level(name)
	if err != nil || level == vault.LevelFlag {
		return level, err
	}
	if level == vault.LevelNone {
		if err := s.chmod(s.path(name), objectPerm); err != nil {
			return vault.LevelNone, err
		}
	}
	if s.setFlags {
		for _, d := range guards(name) {
			if err := s.setFlag(d, vfs.FlagAppend); err != nil {
				return vault.LevelNone, err
			}
		}
		if err := s.setFlag(name, vfs.FlagImmutable); err != nil {
			return vault.LevelNone, err
		}
	}
	return s.level(name)
}

// setFlag sets a flag where that is possible.
func (s *Store) setFlag(name string, flag vfs.Flags) error {
	err := s.fsys.SetFlags(s.path(name), flag, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil // what was reached is read afterwards
	}
	return err
}

// Level tells how a stored object is protected now, as it was checked: "flag" if
// its flag and those of its directories are set, "mode" if nobody may write it,
// else "none", also where the file system ignores permissions (FAT, some CIFS
// mounts). Whoever owns the file can take away the mode, only root the flags.
func (s *Store) Level(ctx context.Context, name string) (vault.Level, error) {
	if err := ctx.Err(); err != nil {
		return vault.LevelNone, err
	}
	return s.level(name)
}

func (s *Store) level(name string) (vault.Level, error) {
	if err := s.readable(name); err != nil {
		return vault.LevelNone, err
	}
	info, err := s.fsys.Stat(s.path(name))
	if err != nil {
		return vault.LevelNone, s.absent(name, err)
	}
	if !info.Mode().IsRegular() {
		return vault.LevelNone, fmt.Errorf("%s: %s, expected a regular file", name, info.Mode().Type())
	}
	if info.Mode().Perm()&0o222 != 0 {
		return vault.LevelNone, nil
	}
	if !s.hasFlag(name, vfs.FlagImmutable) {
		return vault.LevelMode, nil
	}
	for _, d := range guards(name) {
		if !s.hasFlag(d, vfs.FlagAppend) {
			return vault.LevelMode, nil
		}
	}
	return vault.LevelFlag, nil
}

// hasFlag reads a flag; what cannot be read is not set.
func (s *Store) hasFlag(name string, flag vfs.Flags) bool {
	flags, err := s.fsys.Flags(s.path(name))
	return err == nil && flags&flag != 0
}

// guards lists the directories that must not lose names, so that an object stays
// where it is: the root and those below its top directory, which itself holds
// temporary files. The ledger has none but the root: it loses partial tiles.
func guards(name string) []string {
	dirs := []string{""}
	switch top, _, _ := strings.Cut(name, "/"); top {
	case "segments", "keys", "register":
		for d := path.Dir(name); d != top; d = path.Dir(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// loosen clears the flags of a name and tells which were set. Only Remove and
// what tidies up after it do so.
func (s *Store) loosen(name string) vfs.Flags {
	flags, err := s.fsys.Flags(s.path(name))
	if err != nil || flags == 0 || s.fsys.SetFlags(s.path(name), 0, flags) != nil {
		return 0
	}
	return flags
}

// unlink removes a file or an empty directory, whose flags it clears if they are
// in the way. The directory that it stood in gets its own flags back.
//
//	unlink(name) or: setflags(name, 0) setflags(dir, 0) unlink(name) setflags(dir, old)
//
// A crash leaves flags cleared, which the next Protect sets again.
func (s *Store) unlink(name string) error {
	err := s.fsys.Remove(s.path(name))
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	dir := parentOf(name)
	own, above := s.loosen(name), s.loosen(dir)
	if own == 0 && above == 0 {
		return err
	}
	err = s.fsys.Remove(s.path(name))
	if above != 0 {
		err = errors.Join(err, s.fsys.SetFlags(s.path(dir), above, 0))
	}
	if own != 0 && err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(err, s.fsys.SetFlags(s.path(name), own, 0))
	}
	return err
}

// parentOf is the directory of a name, "" for the root.
func parentOf(name string) string {
	if d := path.Dir(name); d != "." {
		return d
	}
	return ""
}
