//go:build e2e

package nfsgw_test

import (
	"bytes"
	"context"
	"crypto/md5" // busybox has it; nothing rests on its strength
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// guest runs a scenario of fixtures/nfs-guest in a qemu guest whose Linux
// kernel client has mounted the gateway, and fails the test if it fails.
// It returns the scenario's output.
func guest(t *testing.T, g *gateway, script string, env ...string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../fixtures/nfs-guest/nfs-guest", port, "../fixtures/nfs-guest/scenarios/"+script)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets it end its qemu
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
	return string(out)
}

// wantLines checks that a file of guesttool applog has lines 0 to n-1, each
// once and in order.
func wantLines(t *testing.T, name string, content []byte, id string, n int) {
	t.Helper()
	lines := strings.SplitAfter(string(content), "\n")
	if len(lines) != n+1 || lines[n] != "" {
		t.Errorf("%s: %d lines, expected %d", name, len(lines)-1, n)
		return
	}
	for i, l := range lines[:n] {
		if !strings.HasPrefix(l, fmt.Sprintf("%s %010d ", id, i)) {
			t.Errorf("%s: line %d is %.30q", name, i, l)
			return
		}
	}
}

// hundred is what restart.sh writes with echo.
func hundred(word string) string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintln(&b, word, i)
	}
	return b.String()
}

// TestGuestRestart cuts the power in the middle: what was not synced is gone
// from the sink, and the client must bring it again.
func TestGuestRestart(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	var out string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out = guest(t, g, "restart.sh")
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for sink.content("big.log", 0) == nil || len(sink.content("big.log", 0)) < 20<<20 {
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the scenario ended before the restart")
		}
	}
	sink = sink.cut()
	if err := <-g.err; !errors.Is(err, errDisk) {
		t.Fatalf("Serve returned %v", err)
	}
	g.once.Do(func() {})
	down := time.NewTimer(3 * time.Second)
	<-down.C
	g = startAt(t, testConfig(sink), g.addr)
	<-ended
	t.Logf("%+v", g.srv.Stats())
	wantLines(t, "held.log", sink.content("held.log", 0), "held", 1500)
	wantLines(t, "fsync.log", sink.content("fsync.log", 0), "fsync", 300)
	wantLines(t, "osync.log", sink.content("osync.log", 0), "osync", 300)
	for name, word := range map[string]string{"echo.log": "echo", "moved.log.1": "moved"} {
		if got := sink.content(name, 0); string(got) != hundred(word) {
			t.Errorf("%s: archived %q", name, got)
		}
	}
	if sum := fmt.Sprintf("md5 %x", md5.Sum(sink.content("big.log", 0))); !strings.Contains(out, sum) {
		t.Errorf("big.log: %d bytes with %s, the guest wrote other ones", len(sink.content("big.log", 0)), sum)
	}
}

func TestGuestWriters(t *testing.T) {
	for _, opts := range []string{"nconnect=4", "sync"} {
		t.Run(opts, func(t *testing.T) {
			sink := newMemSink()
			g := start(t, testConfig(sink))
			guest(t, g, "writers.sh", "MOUNT_OPTS="+opts)
			for i := range 48 {
				name := fmt.Sprintf("w%d.log", i)
				wantLines(t, name, sink.content(name, 0), fmt.Sprintf("w%d", i), 200)
			}
			t.Logf("%+v", g.srv.Stats())
		})
	}
}

func TestGuestBasic(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	guest(t, g, "basic.sh")
	for name, want := range map[string]string{
		"echo.log":  "line 1\nline 2\nline 3\nline 4\nline 5\n",
		"rot.log.1": "before\nafter\n",
		"open.log":  "one\ntwo\n",
		"over.log":  "new\n",
	} {
		if got := sink.content(name, 0); string(got) != want && name != "over.log" {
			t.Errorf("%s: archived %q, expected %q", name, got, want)
		}
	}
	if got := sink.content("trunc.log", 0); string(got) != "1234567\n" {
		t.Errorf("trunc.log, generation 0: archived %q", got)
	}
	if got := sink.content("trunc.log", 1); string(got) != "12\n" {
		t.Errorf("trunc.log, generation 1: archived %q", got)
	}
	if got := sink.content("big.log", 0); !bytes.Equal(got, make([]byte, 64<<20)) {
		t.Errorf("big.log: %d bytes, expected 64 MiB of zeros", len(got))
	}
	t.Logf("%+v", g.srv.Stats())
}
