//go:build e2e

package watch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"

	"logvault/fixtures/testserver"
)

// TestProxies lets Debian's nginx, squid, and haproxy through rsyslog, write to
// watched directories under load, while logrotate rotates their logs (create
// under load; copytruncate, which loses what is written during it, between two
// loads) and the gateway is killed. Each request has a number and must be in
// each log's streams once.
func TestProxies(t *testing.T) {
	h := newHost(t)
	h.start()
	h.serve()
	for turn := range 4 {
		h.load(func() { h.rotate("create") })
		if turn == 1 {
			h.gateway.end(syscall.SIGKILL)
			h.load(func() { h.rotate("create") })
			h.serve()
		}
	}
	for range 2 {
		h.load(func() {})
		h.settle()
		h.rotate("copytruncate")
	}
	h.load(func() {})
	h.settle()
	h.sealAll()
	h.check("nginx", `"GET /(n/\d+) HTTP`)
	h.check("squid", ` GET http://127\.0\.0\.1:\d+/(n/\d+) `)
	h.check("haproxy", `"GET /(n/\d+) HTTP`)
	h.gateway.end(syscall.SIGTERM)
	h.logvault("verify", "--strict", "--depth", "content", "--key", h.Dir+"/key/auditor.sec.asc")
	t.Logf("%d requests, each once in each of three logs", h.sent.Load())
}

// host is a machine with three proxies, logrotate and a gateway, below one directory.
type host struct {
	t    *testing.T
	bin  string
	tree string

	Dir                         string
	Nginx, Squid, Proxy, Syslog int // ports
	Root                        bool

	running map[string]*process
	gateway *process
	sent    atomic.Int64
	next    atomic.Int64
}

type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  *os.File
}

func newHost(t *testing.T) *host {
	h := &host{t: t, Dir: t.TempDir(), Root: os.Getuid() == 0, running: map[string]*process{}}
	h.must(os.Chmod(h.Dir, 0o755))
	h.must(os.Chmod(filepath.Dir(h.Dir), 0o755))
	cmd := exec.Command("../../fixtures/nfs-guest/proxies", "host")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	h.must(err)
	h.tree = strings.TrimSpace(string(out))
	h.bin = filepath.Join(h.Dir, "logvault")
	build := exec.Command("go", "build", "-o", h.bin, "logvault/cmd/logvault")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, port := range []*int{&h.Nginx, &h.Squid, &h.Proxy} {
		*port = testserver.ReservePort(t)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	h.must(err)
	h.Syslog = udp.LocalAddr().(*net.UDPAddr).Port
	h.must(udp.Close()) // who asks for any next gets another
	for _, dir := range []string{"nginx", "squid", "haproxy", "tmp"} {
		h.must(os.Mkdir(filepath.Join(h.Dir, dir), 0o755))
	}
	if h.Root { // squid gives up its rights
		h.must(os.Chown(h.Dir+"/squid", 13, 13))
		h.must(os.Chown(h.Dir+"/tmp", 13, 13))
	}
	for name, text := range configs {
		var b bytes.Buffer
		h.must(template.Must(template.New(name).Parse(text)).Execute(&b, h))
		h.must(os.WriteFile(filepath.Join(h.Dir, name), b.Bytes(), 0o644))
	}
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// debian is the command of a program of the tree.
func (h *host) debian(program string, args ...string) *exec.Cmd {
	args = append([]string{"--library-path", h.tree + "/lib/x86_64-linux-gnu", h.tree + "/usr/sbin/" + program}, args...)
	return exec.Command(h.tree+"/lib64/ld-linux-x86-64.so.2", args...)
}

func (h *host) run(name string, cmd *exec.Cmd) *process {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.Dir, name+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	h.must(err)
	cmd.Dir, cmd.Stderr = h.Dir, log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with its workers
	h.must(cmd.Start())
	p := &process{h.t, name, cmd, log}
	h.t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return p
}

// end ends a process by its id; again it does nothing.
func (p *process) end(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig) // it may have ended
	err := p.cmd.Wait()
	if sig == syscall.SIGKILL {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig) // nginx's workers outlive their master
	}
	if sig == syscall.SIGTERM && err != nil {
		data, _ := os.ReadFile(p.log.Name())
		p.t.Errorf("%s: %v\n%s", p.name, err, data)
	}
	p.cmd = nil
	p.log.Close()
}

func (h *host) start() {
	h.running["nginx"] = h.run("nginx", h.debian("nginx", "-e", h.Dir+"/nginx.err", "-p", h.Dir, "-c", h.Dir+"/nginx.conf"))
	h.running["rsyslog"] = h.run("rsyslog", h.debian("rsyslogd", "-n", "-M", h.tree+"/usr/lib/x86_64-linux-gnu/rsyslog", "-i", h.Dir+"/rsyslog.pid", "-f", h.Dir+"/rsyslog.conf"))
	h.running["squid"] = h.run("squid", h.debian("squid", "-N", "-f", h.Dir+"/squid.conf"))
	h.running["haproxy"] = h.run("haproxy", h.debian("haproxy", "-db", "-f", h.Dir+"/haproxy.cfg"))
	squid := h.viaSquid()
	for _, log := range []string{"nginx", "squid", "haproxy"} { // rsyslog is ready when it has written a line
		var err error
		h.until("a line of "+log, func() bool {
			err = h.get(squid, "ready")
			return err == nil && h.logs(log) > 0
		}, func() string { return fmt.Sprintf("%v\n%s", err, h.outputs()) })
	}
}

// patience is how long the test waits for what must happen: nothing is measured by it.
const patience = 5 * time.Minute

// until waits for a state of which nobody tells.
func (h *host) until(what string, is func() bool, why func() string) {
	h.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("in vain: %s: %s", what, why())
		}
	}
}

func (h *host) outputs() string {
	var b strings.Builder
	for _, name := range []string{"nginx.out", "nginx.err", "squid.out", "tmp/cache.log", "haproxy.out", "rsyslog.out"} {
		data, _ := os.ReadFile(filepath.Join(h.Dir, name))
		fmt.Fprintf(&b, "%s: %.3000s\n", name, data)
	}
	return b.String()
}

func (h *host) viaSquid() *http.Client {
	u := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", h.Squid)}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), MaxIdleConnsPerHost: 8}, Timeout: time.Minute}
}

// get asks through haproxy, which asks nginx; with a client via squid, squid asks haproxy.
func (h *host) get(c *http.Client, path string) error {
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", h.Proxy, path))
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read to its end
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}

// load sends numbered requests, 400 before it does something in the middle, and
// 400 after that. No more than 1,000 a second: rsyslog gets its lines over UDP.
func (h *host) load(middle func()) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := h.viaSquid()
			beat := time.NewTicker(4 * time.Millisecond)
			defer beat.Stop()
			for ctx.Err() == nil {
				if err := h.get(c, fmt.Sprintf("n/%d", h.next.Add(1)-1)); err != nil {
					h.t.Errorf("request: %v", err)
					return
				}
				h.sent.Add(1)
				<-beat.C
			}
		})
	}
	more := func() {
		want := h.sent.Load() + 400
		h.until("400 requests", func() bool { return h.sent.Load() >= want }, h.outputs)
	}
	more()
	middle()
	more()
	stop()
	wg.Wait()
}

// logs are the files of the proxies' logs now, with their sizes.
func (h *host) logs(of string) (size int64) {
	h.must(filepath.WalkDir(filepath.Join(h.Dir, of), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		return err
	}))
	return size
}

// settle waits until the programs have written what they had to: they answer
// first. Each has a line for each request, in whatever file.
func (h *host) settle() {
	for _, log := range []string{"nginx", "squid", "haproxy"} {
		var lines int
		h.until("the lines of "+log, func() bool {
			lines = 0
			files, err := filepath.Glob(filepath.Join(h.Dir, log, "access.log*"))
			h.must(err)
			for _, file := range files {
				text, err := os.ReadFile(file)
				h.must(err)
				lines += len(numbered.FindAll(text, -1))
			}
			return lines == int(h.sent.Load())
		}, func() string { return fmt.Sprintf("%d lines for %d requests\n%s", lines, h.sent.Load(), h.outputs()) })
	}
}

// numbered is what the line of a numbered request has once, in every log.
var numbered = regexp.MustCompile(`/n/\d+ [^\n]*\n`)

func (h *host) rotate(how string) {
	if out, err := h.debian("logrotate", "-f", "-s", h.Dir+"/logrotate.state", h.Dir+"/logrotate-"+how).CombinedOutput(); err != nil {
		h.t.Errorf("logrotate: %v\n%s", err, out)
	}
}

// serve starts the gateway, which is made at its first start.
func (h *host) serve() {
	config := h.Dir + "/state/logvault.toml"
	if _, err := os.Stat(config); err != nil {
		h.logvault("keygen", "--no-passphrase", "--name", "Test <test@example.org>", "--out", h.Dir+"/key")
		h.logvault("init", "--vault", h.Dir+"/vault", "--state", h.Dir+"/state", "--origin", "host.example.org/vault", "--auditor", h.Dir+"/key/auditor.pub.asc",
			"--source", "nginx=", "--source", "squid=", "--source", "haproxy=", "--listen", "127.0.0.1:0", "--recovery-out", h.Dir+"/recovery")
		text, err := os.ReadFile(config)
		h.must(err)
		for _, source := range []string{"nginx", "squid", "haproxy"} {
			text = fmt.Appendf(text, "\n[[watch]]\nsource = %q\ndirectory = %q\npatterns = [\"access.log*\"]\n", source, h.Dir+"/"+source)
		}
		h.must(os.WriteFile(config, text, 0o600))
	}
	cmd := exec.Command(h.bin, "--config", config, "serve")
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.gateway = h.run("serve", cmd)
	ready := make([]byte, 5)
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready" {
		h.t.Fatalf("serve says %q, %v", ready, err)
	}
}

func (h *host) logvault(args ...string) string {
	h.t.Helper()
	if args[0] != "keygen" && args[0] != "init" {
		args = append([]string{"--config", h.Dir + "/state/logvault.toml"}, args...)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(h.bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("logvault %v: %v\n%s", args, err, errs.String())
	}
	return out.String()
}

// sealAll seals until as many bytes came as the proxies wrote. What logrotate
// copied stands twice on the disk: in the copy, not in the truncated file.
func (h *host) sealAll() {
	want := h.logs("nginx") + h.logs("squid") + h.logs("haproxy")
	var got int64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		h.logvault("seal")
		got = 0
		dec := json.NewDecoder(strings.NewReader(h.logvault("ls", "--json")))
		for {
			var s struct {
				Raw int64 `json:"raw_bytes"`
			}
			err := dec.Decode(&s)
			if errors.Is(err, io.EOF) {
				break
			}
			h.must(err)
			got += s.Raw
		}
		if got >= want {
			break
		}
	}
	if got != want {
		h.t.Errorf("%d bytes are sealed, the logs have %d\n%s", got, want, h.logvault("status"))
	}
}

// check wants each number once in a source's lines.
func (h *host) check(source, line string) {
	form := regexp.MustCompile(line)
	seen := map[string]int{}
	for text := range strings.Lines(h.logvault("cat", "--quiet", "--source", source, "--since", "2000-01-01 00:00", "--until", "2100-01-01 00:00", "--case", "e2e", "--key", h.Dir+"/key/auditor.sec.asc")) {
		if m := form.FindStringSubmatch(text); m != nil {
			seen[m[1]]++
		}
	}
	for i := range h.next.Load() {
		if n := seen[fmt.Sprintf("n/%d", i)]; n != 1 {
			h.t.Errorf("%s: request %d is archived %d times; there may be more", source, i, n)
			break
		}
	}
	if len(seen) != int(h.sent.Load()) {
		h.t.Errorf("%s: %d requests are archived, %d were answered", source, len(seen), h.sent.Load())
	}
}

// configs are files below Dir. docs/MOUNTING.md shows the same lines.
var configs = map[string]string{
	"nginx.conf": `{{if .Root}}user root root;{{end}}
daemon off;
pid {{.Dir}}/nginx.pid;
error_log {{.Dir}}/nginx.err;
events {}
http {
  access_log {{.Dir}}/nginx/access.log combined;
  client_body_temp_path {{.Dir}}/tmp/b; proxy_temp_path {{.Dir}}/tmp/p; fastcgi_temp_path {{.Dir}}/tmp/f; uwsgi_temp_path {{.Dir}}/tmp/u; scgi_temp_path {{.Dir}}/tmp/s;
  server { listen 127.0.0.1:{{.Nginx}}; location / { return 200 "ok\n"; } }
}
`,
	"squid.conf": `http_port 127.0.0.1:{{.Squid}}
http_access allow all
cache deny all
access_log stdio:{{.Dir}}/squid/access.log squid
cache_log {{.Dir}}/tmp/cache.log
pid_filename {{.Dir}}/tmp/squid.pid
coredump_dir {{.Dir}}/tmp
mime_table {{.Tree}}/usr/share/squid/mime.conf
icon_directory {{.Tree}}/usr/share/squid/icons
error_directory {{.Tree}}/usr/share/squid/errors/templates
unlinkd_program {{.Tree}}/usr/lib/squid/unlinkd
{{if .Root}}cache_effective_user proxy{{end}}
visible_hostname test
dns_nameservers 127.0.0.1
netdb_filename none
pinger_enable off
cache_mem 8 MB
max_filedescriptors 1024
shutdown_lifetime 1 second
logfile_rotate 0
`,
	"haproxy.cfg": `global
  log 127.0.0.1:{{.Syslog}} format rfc3164 local0
defaults
  mode http
  log global
  option httplog
  timeout connect 60s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{{.Proxy}}
  default_backend web
backend web
  server web 127.0.0.1:{{.Nginx}}
`,
	"rsyslog.conf": `module(load="imudp")
global(workDirectory="{{.Dir}}/tmp")
input(type="imudp" address="127.0.0.1" port="{{.Syslog}}" rcvbufSize="8m")
local0.* {{.Dir}}/haproxy/access.log
`,
	"logrotate-create": `nocompress
rotate 100
{{.Dir}}/nginx/access.log {
  create 640
  postrotate
    kill -USR1 $(cat {{.Dir}}/nginx.pid)
  endscript
}
{{.Dir}}/squid/access.log {
  {{if .Root}}su proxy proxy{{end}}
  create 640
  postrotate
    kill -USR1 $(cat {{.Dir}}/tmp/squid.pid)
  endscript
}
{{.Dir}}/haproxy/access.log {
  create 640
  postrotate
    kill -HUP $(cat {{.Dir}}/rsyslog.pid)
  endscript
}
`,
	"logrotate-copytruncate": `nocompress
rotate 100
{{.Dir}}/nginx/access.log {{.Dir}}/haproxy/access.log {
  copytruncate
}
`,
}

// Tree is where Debian's packages are unpacked.
func (h *host) Tree() string { return h.tree }
