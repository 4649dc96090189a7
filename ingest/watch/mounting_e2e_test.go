//go:build e2e

package watch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// snippet is a block of docs/MOUNTING.md: its language, the file that its first
// line names, and the rest.
var snippet = regexp.MustCompile("(?ms)^```([a-z]+)\n# (\\S+)[^\n]*\n(.*?)^```$")

// TestMounting gives the settings of docs/MOUNTING.md to the programs that they
// are for. Directories of logs and process ids are moved below a temporary one.
func TestMounting(t *testing.T) {
	h := newHost(t)
	doc, err := os.ReadFile("../../docs/MOUNTING.md")
	h.must(err)
	for _, dir := range []string{"run", "var/log/squid", "var/log/nginx", "var/log/haproxy"} {
		h.must(os.MkdirAll(filepath.Join(h.Dir, dir), 0o755))
	}
	// What stands around a snippet.
	around := map[string][2]string{
		"squid":   {"http_port 127.0.0.1:3128\nmime_table " + h.tree + "/usr/share/squid/mime.conf\nlogfile_daemon " + h.tree + "/usr/lib/squid/log_file_daemon\nunlinkd_program " + h.tree + "/usr/lib/squid/unlinkd\nicon_directory " + h.tree + "/usr/share/squid/icons\nerror_directory " + h.tree + "/usr/share/squid/errors/templates\ncache_log " + h.Dir + "/tmp/cache.log\npid_filename " + h.Dir + "/tmp/squid.pid\n", ""},
		"nginx":   {"pid " + h.Dir + "/run/nginx.pid;\nevents {}\nhttp {\n", "}\n"},
		"haproxy": {"", "frontend in\n bind 127.0.0.1:8080\n default_backend web\nbackend web\n server web 127.0.0.1:8081\n"},
		"rsyslog": {"global(workDirectory=\"" + h.Dir + "/tmp\")\n", ""},
	}
	check := map[string]func(file string) *exec.Cmd{
		"squid":   func(f string) *exec.Cmd { return h.debian("squid", "-k", "parse", "-f", f) },
		"nginx":   func(f string) *exec.Cmd { return h.debian("nginx", "-t", "-e", h.Dir+"/nginx.err", "-c", f) },
		"haproxy": func(f string) *exec.Cmd { return h.debian("haproxy", "-c", "-f", f) },
		"rsyslog": func(f string) *exec.Cmd {
			return h.debian("rsyslogd", "-N1", "-M", h.tree+"/usr/lib/x86_64-linux-gnu/rsyslog", "-f", f)
		},
		"logrotate": func(f string) *exec.Cmd { return h.debian("logrotate", "-d", "-s", h.Dir+"/logrotate.state", f) },
	}
	found := map[string]int{}
	for _, m := range snippet.FindAllStringSubmatch(string(doc), -1) {
		language, name, text := m[1], m[2], m[3]
		run := check[language]
		if run == nil {
			continue
		}
		found[language]++
		text = strings.NewReplacer("/var/log/", h.Dir+"/var/log/", "/run/", h.Dir+"/run/").Replace(text)
		file := filepath.Join(h.Dir, "tmp", strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", "_"))
		h.must(os.WriteFile(file, []byte(around[language][0]+text+around[language][1]), 0o644))
		out, err := run(file).CombinedOutput()
		if err != nil || strings.Contains(string(out), "error:") || strings.Contains(string(out), "FATAL") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for language := range check {
		if found[language] == 0 {
			t.Errorf("docs/MOUNTING.md has no snippet for %s", language)
		}
	}
	t.Logf("checked %v", found)
}
