package vfs

// sysRenameat2 is missing in the frozen table of package syscall.
const sysRenameat2 = 316
