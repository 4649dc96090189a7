package pgp

import (
	"fmt"
	"syscall"
)

// lockedBuffer is memory outside the Go heap: never moved or copied by the
// collector, and kept off swap if the system lets the process lock a page.
type lockedBuffer struct {
	mem  []byte // whole pages; nil after destroy
	used int
}

// newLockedBuffer maps size bytes.
func newLockedBuffer(size int) (*lockedBuffer, error) {
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes for a secret: %w", size, err)
	}
	_ = syscall.Mlock(mem) // refused by RLIMIT_MEMLOCK or in a container: the secret lives for a moment only
	return &lockedBuffer{mem: mem}, nil
}

// Write appends p; it fails rather than grow, so that no copy is left behind.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	if len(p) > len(b.mem)-b.used {
		return 0, fmt.Errorf("secret of more than %d bytes", len(b.mem))
	}
	copy(b.mem[b.used:], p)
	b.used += len(p)
	return len(p), nil
}

func (b *lockedBuffer) bytes() []byte { return b.mem[:b.used] }

// destroy overwrites and unmaps the memory. It may be called again.
func (b *lockedBuffer) destroy() {
	if b.mem == nil {
		return
	}
	clear(b.mem)
	// Munmap also unlocks. It fails only for arguments that are not a mapping;
	// the content is gone in either case.
	_ = syscall.Munmap(b.mem)
	b.mem, b.used = nil, 0
}
