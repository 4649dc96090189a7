//go:build e2e

package nfsgw_test

import (
	"bufio"
	"context"
	"crypto/md5" // busybox has it; nothing rests on its strength
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/internal/vfs"
	"logvault/nfsgw"
)

// A test starts its own binary again with these set, to have a gateway in a
// process that can be killed.
const (
	serveDir  = "NFSGW_TEST_SERVE_DIR"
	serveAddr = "NFSGW_TEST_SERVE_ADDR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveDir); dir != "" {
		if err := serveSpool(dir, os.Getenv(serveAddr)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func spoolConfig(dir string) ingest.SpoolConfig {
	return ingest.SpoolConfig{
		FS: vfs.OS, Dir: dir + "/spool", KeyDir: dir + "/keys", Random: rand.Reader, Now: time.Now,
		Boot: vfs.Boottime, Log: testConfig(nil).Log,
	}
}

// serveSpool runs a gateway over a spool on the disk until SIGTERM. It prints
// its address once it accepts.
func serveSpool(dir, addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	spool, err := ingest.OpenSpool(ctx, spoolConfig(dir))
	if err != nil {
		return err
	}
	srv, err := nfsgw.New(testConfig(spool))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if err := srv.Serve(ctx, l); err != nil {
		return err
	}
	return spool.Close()
}

// process is a gateway in a process of its own.
type process struct {
	cmd  *exec.Cmd
	addr string
}

func spawn(t *testing.T, dir, addr string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveDir+"="+dir, serveAddr+"="+addr)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the gateway did not start: %v", err)
	}
	return &process{cmd, strings.TrimSpace(line)}
}

func (p *process) end(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); sig == syscall.SIGTERM && err != nil || err != nil && !errors.As(err, &exit) {
		t.Errorf("the gateway ended with %v", err)
	}
}

// TestGuestKill kills the process twice while the kernel client writes, and
// reads everything back after a clean stop.
func TestGuestKill(t *testing.T) {
	dir := t.TempDir()
	if err := ingest.CreateSpool(t.Context(), spoolConfig(dir)); err != nil {
		t.Fatal(err)
	}
	p := spawn(t, dir, "127.0.0.1:0")
	addr := p.addr
	var out string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out = guest(t, &gateway{t: t, addr: addr}, "restart.sh")
	}()
	watch := testClient(t, addr)
	root := must[nfstest.Handle](t)(watch.Mount("/"))
	for _, size := range []uint64{10 << 20, 30 << 20} {
		waitForSize(t, watch, root, "big.log", size, ended)
		p.end(t, syscall.SIGKILL)
		down := time.NewTimer(2 * time.Second)
		<-down.C
		p = spawn(t, dir, addr)
	}
	<-ended
	p.end(t, syscall.SIGTERM)

	p = spawn(t, dir, "127.0.0.1:0")
	c := testClient(t, p.addr)
	content := func(name string) []byte {
		fh, _, err := c.Lookup(root, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return readAll(t, c, fh)
	}
	for id, n := range map[string]int{"held": 1500, "fsync": 300, "osync": 300} {
		wantLines(t, id+".log", content(id+".log"), id, n)
	}
	for name, word := range map[string]string{"echo.log": "echo", "moved.log.1": "moved"} {
		if got := content(name); string(got) != hundred(word) {
			t.Errorf("%s: archived %q", name, got)
		}
	}
	if sum := fmt.Sprintf("md5 %x", md5.Sum(content("big.log"))); !strings.Contains(out, sum) {
		t.Errorf("big.log: %s, the guest wrote other bytes", sum)
	}
	p.end(t, syscall.SIGTERM)
}

func testClient(t *testing.T, addr string) *nfstest.Client {
	t.Helper()
	c, err := nfstest.Dial(context.Background(), nfstest.Options{Addr: addr, Reconnect: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func waitForSize(t *testing.T, c *nfstest.Client, root nfstest.Handle, name string, size uint64, ended <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, a, err := c.Lookup(root, name); err == nil && a.Size >= size {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("the scenario ended before %s had %d bytes", name, size)
		}
	}
}
