//go:build testnosync

package vfs

// syncing is off: OS.Sync and OS.SyncDir do nothing. The crash harness must
// fail with a program built like this.
const syncing = false
