package nfsgw

import (
	"errors"
	"syscall"
)

// isExhausted says that accept failed for want of descriptors or memory, or
// because the peer was gone already; all pass.
func isExhausted(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
