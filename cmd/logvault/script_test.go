package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"logvault": main})
}

// TestScript runs the user's stories: each command with its success, its usage
// errors and its failures.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GNUPGHOME", filepath.Join(e.WorkDir, "g"))
			e.Setenv("LOGVAULT_CONFIG", "")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command of a race build waits a second at its end
			return os.Mkdir(filepath.Join(e.WorkDir, "g"), 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":  exits,
			"serve":  serve,
			"halt":   halt,
			"listen": listen,
			"nfsput": nfsput,
			"flip":   flip,

			"interrupt": interrupt,
		},
	})
}

// exits CODE PROGRAM ARGS...: the program must end with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s exits %d, expected %s", strings.Join(args[1:], " "), got, args[0])
	}
	if twice := repeated(ts.ReadFile("stderr")); twice != "" {
		ts.Fatalf("%s says %q twice in one message", strings.Join(args[1:], " "), twice)
	}
}

// repeated returns a part of an error that stands in it twice: two places that
// both named the object, or what was being done. "" if there is none.
func repeated(text string) string {
	for line := range strings.Lines(text) {
		seen := map[string]bool{}
		for part := range strings.SplitSeq(strings.TrimSuffix(line, "\n"), ": ") {
			if seen[part] && len(part) > 3 {
				return part
			}
			seen[part] = true
		}
	}
	return ""
}

// serve CONFIG: starts the gateway, waits for its ready line and sets $NFS.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve CONFIG")
	}
	path, err := exec.LookPath("logvault")
	ts.Check(err)
	cmd := exec.Command(path, "--config", ts.MkAbs(args[0]), "--quiet", "serve")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Setenv("SERVE_PID", strconv.Itoa(cmd.Process.Pid))
	ts.Defer(func() {
		_ = cmd.Process.Kill() // halt may have ended it
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	_, addr, ok := strings.Cut(line, "ready nfs=")
	if !ok {
		ts.Fatalf("serve said %q", line)
	}
	addr, _, _ = strings.Cut(addr, " ")
	ts.Setenv("NFS", addr)
	go io.Copy(io.Discard, out) // ends with the process
}

// halt: ends the gateway with SIGTERM; `halt kill` with SIGKILL.
func halt(ts *testscript.TestScript, neg bool, args []string) {
	pid, err := strconv.Atoi(ts.Getenv("SERVE_PID"))
	ts.Check(err)
	sig := syscall.SIGTERM
	if len(args) == 1 && args[0] == "kill" {
		sig = syscall.SIGKILL
	}
	ts.Check(syscall.Kill(pid, sig))
	for syscall.Kill(pid, 0) == nil {
		var st syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &st, 0, nil); err == nil && sig == syscall.SIGTERM && st.ExitStatus() != 0 {
			ts.Fatalf("serve ended with %v, expected 0", st.ExitStatus())
		}
	}
}

// interrupt PROGRAM ARGS...: gives the program two MiB of lines on a pipe that
// never ends, then SIGINT; it must say that it was interrupted, and exit 130.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: interrupt PROGRAM ARGS...")
	}
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	var errs strings.Builder
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	_, err = io.WriteString(in, strings.Repeat("a line\n", 300_000)) // returns when most of it was read
	ts.Check(err)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // its exit code counts
	if code := cmd.ProcessState.ExitCode(); code != codeInterrupted || errs.String() != "logvault: interrupted\n" {
		ts.Fatalf("exit %d, expected %d: %s", code, codeInterrupted, errs.String())
	}
}

// listen: holds a TCP port and sets $ADDR.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("ADDR", l.Addr().String())
}

// nfsput EXPORT FILE NAME: writes a file through NFS.
func nfsput(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(writeNFS(ts.Getenv("NFS"), args[0], args[2], data))
}

// flip GLOB OFFSET: XORs one byte of the one file that fits.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file fits %s", args[0])
	}
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	data, err := os.ReadFile(files[0])
	ts.Check(err)
	data[off] ^= 1
	ts.Check(os.Chmod(files[0], 0o600))
	ts.Check(os.WriteFile(files[0], data, 0o600))
}
