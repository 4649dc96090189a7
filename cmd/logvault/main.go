// Command logvault keeps proxy logs for as long as the law asks and not a day
// longer. `logvault --help` lists its commands; README.md tells how to begin.
package main

import (
	"context"
	"crypto/rand"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	_ "time/tzdata" // retention days are civil days: the zones must be there on any machine

	"logvault/internal/vfs"
)

func main() {
	hardenProcess()
	leanHeap()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{
		in: standardInput(ctx), out: os.Stdout, err: os.Stderr,
		fs: vfs.OS, random: rand.Reader, now: time.Now, boot: vfs.Boottime, getenv: os.Getenv,
	}
	code := a.run(ctx, os.Args)
	stop()
	os.Exit(code)
}

// leanHeap makes the collector run when the heap has grown by a quarter, not
// doubled, unless GOGC says otherwise. What lives while sealing is 90 MiB in a
// few large buffers without pointers: a collection costs about a millisecond,
// and the garbage would be as much again (measured: 160 MiB resident instead of
// up to 220, no more CPU time). A memory limit would not do: what a gateway of
// many streams needs has no fixed bound.
func leanHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
}

// background lets the calling goroutine's thread wait for others: proxies wait for
// an answer while they write, and nobody waits for a segment. The thread ends
// with its goroutine. Where it is refused, sealing is as urgent as the intake.
func background() {
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 10) // 0: this thread
}

// hardenProcess forbids core dumps and tracing by other processes of the same
// user: period secrets and log lines pass through this process's memory.
func hardenProcess() {
	const prSetDumpable = 4
	// Both are best effort: a kernel that refuses them still runs logvault.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
}
