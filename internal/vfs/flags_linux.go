package vfs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"unsafe"
)

// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h. Their type says long, but
// every file system reads and writes 32 bits.
const (
	iocGetFlags = 0x80086601
	iocSetFlags = 0x40086602
)

const knownFlags = FlagImmutable | FlagAppend

// Flags is the ioctl FS_IOC_GETFLAGS, without the flags unknown to this package.
func (osFS) Flags(name string) (Flags, error) {
	var flags uint32
	err := onFlags(name, func(fd int) (err error) {
		flags, err = getFlags(fd)
		return err
	})
	return Flags(flags) & knownFlags, err
}

// SetFlags is FS_IOC_GETFLAGS and, if that changes anything, FS_IOC_SETFLAGS. The
// two are not one step: callers for one name do not overlap.
func (osFS) SetFlags(name string, set, clear Flags) error {
	return onFlags(name, func(fd int) error {
		old, err := getFlags(fd)
		if err != nil {
			return err
		}
		flags := old&^uint32(clear) | uint32(set)
		if flags == old {
			return nil
		}
		return flagsCall(fd, iocSetFlags, &flags)
	})
}

func getFlags(fd int) (flags uint32, err error) {
	return flags, flagsCall(fd, iocGetFlags, &flags)
}

func flagsCall(fd int, request uintptr, flags *uint32) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(flags))); errno != 0 {
		return errno
	}
	return nil
}

// onFlags opens name without waiting for the other end of a pipe.
func onFlags(name string, call func(fd int) error) error {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing to lose
	if err = control(f, call); errors.Is(err, syscall.ENOTTY) {
		err = errors.ErrUnsupported // the file system's answer to an unknown ioctl
	}
	if err != nil {
		return &fs.PathError{Op: "flags", Path: name, Err: err}
	}
	return nil
}
