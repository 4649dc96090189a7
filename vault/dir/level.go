package dir

import "logvault/vault"

// Immutability returns how this store protects its objects, as far as that can
// be seen: "mode" if the marker, stored like every object, came out without a
// write permission, else "none". A file system that ignores permissions (FAT,
// some CIFS mounts) is "none". Whoever owns the files can still change them.
func (s *Store) Immutability() string {
	info, err := s.fsys.Stat(s.path(vault.MarkerName))
	if err != nil || info.Mode().Perm()&0o222 != 0 {
		return "none"
	}
	return "mode"
}
