//go:build arm64 || riscv64 || loong64

package vfs

// sysRenameat2 is missing in the frozen table of package syscall.
const sysRenameat2 = 276
