package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
)

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := getTermios(f)
	return err == nil
}

func getTermios(f *os.File) (t syscall.Termios, err error) {
	return t, ioctl(f, syscall.TCGETS, &t)
}

func setTermios(f *os.File, t *syscall.Termios) error { return ioctl(f, syscall.TCSETS, t) }

func ioctl(f *os.File, request uintptr, t *syscall.Termios) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(t)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// standardInput is what a command reads its text from. Reads from a file end by
// themselves; all others end with ctx.
func standardInput(ctx context.Context) io.Reader {
	if info, err := os.Stdin.Stat(); err == nil && info.Mode().IsRegular() {
		return os.Stdin
	}
	return &interruptible{ctx: ctx, in: os.Stdin}
}

// interruptible is an input whose reads end with a context. The reading
// goroutine may stay behind then: the process is about to end.
type interruptible struct {
	ctx context.Context
	in  io.Reader
	buf []byte // of the reading goroutine, and lost to it when ctx ends
}

// interruptibleRead is the most that one read returns. It stays in the
// processor's cache until it is copied.
const interruptibleRead = 256 << 10

// Read implements io.Reader.
func (i *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	if n := min(len(p), interruptibleRead); len(i.buf) < n {
		i.buf = make([]byte, n)
	}
	buf, done := i.buf[:min(len(p), len(i.buf))], make(chan result, 1)
	go func() {
		n, err := i.in.Read(buf)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, buf[:r.n]), r.err
	case <-i.ctx.Done():
		i.buf = nil
		return 0, i.ctx.Err()
	}
}

// readTerminal reads one line from the controlling terminal without echo. It
// never reads standard input, which may be data. When ctx ends it gives the
// echo back and returns.
func readTerminal(ctx context.Context, prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, &codedError{codeKey, "set LOGVAULT_PASSCOMMAND to a command that prints the passphrase", errors.New("a passphrase is needed and there is no terminal to ask on")}
	}
	defer tty.Close() // a terminal: nothing to lose
	old, err := getTermios(tty)
	if err != nil {
		return nil, fmt.Errorf("asking on the terminal: %w", err)
	}
	silent := old
	silent.Lflag &^= syscall.ECHO
	if err := setTermios(tty, &silent); err != nil {
		return nil, fmt.Errorf("asking on the terminal: %w", err)
	}
	fmt.Fprint(tty, prompt)
	line, rerr := readLine(&interruptible{ctx: ctx, in: tty})
	fmt.Fprintln(tty)
	return line, errors.Join(rerr, setTermios(tty, &old))
}

// readLine reads to the end of a line, a byte at a time so that nothing after
// it is consumed.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 4096; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' || err == io.EOF {
			return line, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a passphrase: %w", err)
		}
		line = append(line, b[:n]...)
	}
	return nil, errors.New("reading a passphrase: longer than 4096 bytes")
}

// runPassCommand runs LOGVAULT_PASSCOMMAND with the shell and takes the first
// line that it prints.
func runPassCommand(ctx context.Context, command string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, &codedError{codeKey, "it must print the passphrase on its first line and exit 0", fmt.Errorf("LOGVAULT_PASSCOMMAND: %w", err)}
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return line, nil
}

// progress gives a bar on standard error, or nil where there is no terminal,
// for --quiet and for --json. total -1 is unknown.
func (a *app) progress(c *cli.Context, total int64, what string) *progressbar.ProgressBar {
	if !isTerminal(a.err) || flag(c, "quiet") || flag(c, "json") {
		return nil
	}
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(a.getenv("NO_COLOR") == ""))
}
