//go:build !testnosync

package vfs

// syncing is false only under the build tag testnosync, with which the crash
// harness proves that it would notice missing syncs. Never in a release.
const syncing = true
