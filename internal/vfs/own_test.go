package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// owned is a disk whose directories belong to a user.
type owned struct {
	FS
	uid uint32
}

func (o owned) Stat(name string) (fs.FileInfo, error) {
	info, err := o.FS.Stat(name)
	return ownedInfo{info, o.uid}, err
}

type ownedInfo struct {
	fs.FileInfo
	uid uint32
}

func (i ownedInfo) Sys() any { return &syscall.Stat_t{Uid: i.uid} }

// TestLockOwn locks in a directory of this user, of another, in one that is
// absent, and on a disk without owners.
func TestLockOwn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	lock, err := LockOwn(OS, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockOwn(OS, name); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v, expected ErrLocked", err)
	}
	theirs := owned{OS, uint32(os.Geteuid()) + 1}
	if _, err := LockOwn(theirs, name); !errors.Is(err, ErrLocked) {
		t.Errorf("another user's lock that is held: %v, expected ErrLocked", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first refusal holds nothing
		if _, err := LockOwn(theirs, name); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("another user's lock that is free: %v, expected fs.ErrPermission", err)
		}
	}
	foreign := filepath.Join(t.TempDir(), "lock")
	if _, err := LockOwn(theirs, foreign); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("in another user's directory: %v, expected fs.ErrPermission", err)
	}
	if _, err := os.Stat(foreign); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the refused lock left its file: %v", err)
	}
	if _, err := LockOwn(OS, filepath.Join(t.TempDir(), "absent", "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v, expected fs.ErrNotExist", err)
	}
	mem := NewMem()
	if lock, err = LockOwn(mem, "/lock"); err != nil {
		t.Fatalf("on a disk without owners: %v", err)
	}
	lock.Close() // nothing was written
}
