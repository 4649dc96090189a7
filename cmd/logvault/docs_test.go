package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is a fenced block of a page: the section it stands in, its kind, the
// rest of the fence's line, and its text.
type block struct {
	section, kind, name, text string
}

var blockOrSection = regexp.MustCompile("(?ms)^## ([^\n]*)$|^```([a-z]+) ?([^\n]*)\n(.*?)^```$")

// blocks returns the fenced blocks of a page of docs/, in order.
func blocks(t *testing.T, page string) (list []block) {
	t.Helper()
	data, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for _, m := range blockOrSection.FindAllStringSubmatch(string(data), -1) {
		if m[1] != "" {
			section = m[1]
			continue
		}
		list = append(list, block{section: section, kind: m[2], name: m[3], text: m[4]})
	}
	return list
}

// fenced returns the blocks of a page that are of a kind.
func fenced(t *testing.T, page, kind string) []block {
	t.Helper()
	list := slices.DeleteFunc(blocks(t, page), func(b block) bool { return b.kind != kind })
	if len(list) == 0 {
		t.Fatalf("docs/%s has no block of %s", page, kind)
	}
	return list
}

// host is where the commands of a page run as they stand there. The
// directories at the root of a path are moved below dir. What needs root or
// another host is played by the programs of shims; SFTP accounts and buckets
// are the directories that they would show.
type host struct {
	t    *testing.T
	dir  string
	out  string // what the last run printed
	home string // where the commands run: an administrator's own files
}

// shims are the programs of a host that cannot be run here: they make users,
// become another user, speak to other machines, or ask a person.
var shims = map[string]string{
	"useradd":     "exit 0",
	"chown":       "exit 0",
	"sshd":        "exit 0",
	"systemctl":   "exit 0",
	"ssh-keyscan": "exit 0",
	"ssh-keygen":  "exit 0",
	"runuser":     `[ "$1 $2 $3" = "-u logvault --" ] && shift 3 && exec "$@"`,
	"editor": `exec sed -i -e 's/^authority = .*/authority = "Court"/; s/^officer = .*/officer = "Officer"/; s/^reference = .*/reference = "2026-17"/' \
  -e 's/^article = .*/article = "CPP 60-1"/; s/^ground = .*/ground = "1"/; s/^received_at = .*/received_at = "2016-11-20T14:30:00Z"/' \
  -e 's/^since = .*/since = "2016-11-01T00:00:00Z"/; s/^until = .*/until = "2016-12-01T00:00:00Z"/; s/^client = .*/client = ["192.0.2.7"]/' "$1"`,
	// Without the owner, which only root can give.
	"install": `for a; do shift; case $a in -o | -g) drop=1 ;; *) [ "$drop" ] || set -- "$@" "$a"; drop= ;; esac; done; exec INSTALL "$@"`,
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir()}
	h.home = h.path("/home")
	for _, d := range []string{"/home", "/bin", "/usr/local/bin", "/media/usb", "/mnt/disk", "/mnt/partner", "/mnt/nas1", "/srv", "/etc/ssh", "/etc/cron.d", "/var/log/old"} {
		h.must(os.MkdirAll(h.path(d), 0o755))
	}
	install, err := exec.LookPath("install")
	h.must(err)
	for name, text := range shims {
		h.must(os.WriteFile(h.path("/bin/"+name), []byte("#!/bin/sh\n"+strings.ReplaceAll(text, "INSTALL", install)+"\n"), 0o755))
	}
	return h
}

func (h *host) path(p string) string { return filepath.Join(h.dir, p) }

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

var (
	absolute  = regexp.MustCompile(`(^|[\s='"])/(etc|home|media|mnt|srv|usr/local|var)\b`)
	elsewhere = strings.NewReplacer(
		"sftp://logvault-read@nas1.example.org/vault", "/mnt/nas1/vault",
		"'sftp://logvault-push@nas2.example.org/vault?key=/var/lib/logvault-push/id_ed25519'", "/srv/vault2/vault",
		"s3://s3.example.org/vault2/logs", "/srv/bucket",
	)
)

// run runs commands as they stand in a page. Each must succeed.
func (h *host) run(script string) {
	h.t.Helper()
	text := absolute.ReplaceAllString(elsewhere.Replace(script), "${1}"+h.dir+"/$2")
	cmd := exec.Command("sh", "-eu", "-c", text)
	cmd.Dir = h.home
	cmd.Env = append(os.Environ(),
		"PATH="+h.path("/bin")+":"+os.Getenv("PATH"),
		"HOME="+h.home,
		"GNUPGHOME="+h.path("/gnupg"),
		"GORACE=atexit_sleep_ms=0",
		"LOGVAULT_CONFIG="+h.path("/etc/logvault/logvault.toml"), // the default names the real /etc
		"LOGVAULT_PASSCOMMAND=echo passphrase")
	out, err := cmd.CombinedOutput()
	h.out = string(out)
	if err != nil {
		h.t.Fatalf("%v\n%s\nin\n%s", err, out, script)
	}
}

// cron runs the command of each line of a crontab, which prints nothing: cron
// mails it. Only root can set flags, and not on every file system: that line may
// say so.
func (h *host) cron(text string) {
	h.t.Helper()
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 6 && fields[0] != "#" {
			command := strings.Join(fields[6:], " ")
			if strings.Contains(command, "--protect") {
				command += ` 2> said || grep -q "immutable flag was not reached" said`
			}
			h.run(command)
			if h.out != "" {
				h.t.Errorf("%s prints %s", command, h.out)
			}
		}
	}
}

// said fails the test unless the last run printed something that fits.
func (h *host) said(pattern string) {
	h.t.Helper()
	if !regexp.MustCompile(pattern).MatchString(h.out) {
		h.t.Fatalf("expected %q in\n%s", pattern, h.out)
	}
}

// write puts a file on the host.
func (h *host) write(path, text string) {
	h.t.Helper()
	h.must(os.WriteFile(h.path(path), []byte(text), 0o644))
}

// squidLines are lines of November 2016, every tenth by 192.0.2.7.
func squidLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d.000     12 192.0.2.%d TCP_MISS/200 512 GET http://example.org/%d - HIER_DIRECT/198.51.100.7 text/html\n", 1479000000+i, i%10, i)
	}
	return b.String()
}

// install follows the README from the first command to the last, with hooks
// that play what happens between them.
func (h *host) install() {
	h.t.Helper()
	program, err := exec.LookPath("logvault")
	h.must(err)
	h.run("cp " + program + " logvault && cp logvault /usr/local/bin/")
	h.run("logvault keygen --no-passphrase --name 'Bob <bob@example.org>' --out bob && cp bob/auditor.pub.asc bob.pub.asc")
	h.write("/var/log/old/access.log.1", squidLines(40))
	h.run("gzip /var/log/old/access.log.1")
	ran := map[string]int{}
	for _, b := range blocks(h.t, "../README.md") {
		switch {
		case strings.HasPrefix(b.text, "make "):
			continue // is what runs this test
		case strings.Contains(b.text, "replicate --init"):
			h.run("cp /var/lib/logvault/trust.toml trust.toml") // brought to the second NAS
		case strings.Contains(b.text, "extract --new"):
			h.run("cp alice/auditor.sec.asc /media/usb/auditor.sec.asc") // brought by Alice
		}
		switch b.kind {
		case "sh":
			h.run(b.text)
		case "cron":
			h.cron(b.text)
		case "toml":
			h.run("cat >> /etc/logvault/logvault.toml <<'EOF'\n" + b.text + "EOF\nlogvault status")
		default:
			continue
		}
		ran[b.kind]++
	}
	if want := map[string]int{"sh": 6, "cron": 1, "toml": 1}; !maps.Equal(ran, want) {
		h.t.Fatalf("ran %v blocks of README.md, expected %v", ran, want)
	}
}

// TestDocumentedInstallation runs README.md: the commands and the settings of an
// installation with two NAS, an audit, and the answer to a request.
func TestDocumentedInstallation(t *testing.T) {
	h := newHost(t)
	h.install()
	h.said(`would search 1 segments?`)
	h.said(`(?m)^4 lines from 1 of 1 segments? searched`)
	h.said(`PASSED: 4 lines, each proven`)
	for _, b := range fenced(t, "../README.md", "cron") {
		h.cron(b.text) // the request went into the ledger since
	}
	h.run("logvault verify --vault /srv/vault2/vault --trust /var/lib/logvault-copy/lyon/trust.toml --against /mnt/nas1/vault")
	h.said(`1 segments? with 40 lines.* 0 errors, 0 warnings`)
	h.run("logvault verify --vault /mnt/nas1/vault --trust /var/lib/logvault/trust.toml --depth content --key bob/auditor.sec.asc")
	h.said(`PASSED`)
}

// TestDocumentedSecondNAS runs SECOND-NAS.md after the README, with its
// accidents: the gateway and the first NAS burn down, then the state is lost
// once more, then an old backup of it is brought back.
func TestDocumentedSecondNAS(t *testing.T) {
	h := newHost(t)
	h.install()
	fresh := "rm -rf /srv/vault2 /srv/bucket /var/lib/logvault-copy && cp /var/lib/logvault/trust.toml /etc/logvault/trust.toml && mkdir -p /var/lib/logvault-copy"
	h.run(fresh)
	unflag := "chattr -R -f -i -a /srv/vault2/vault || :" // if this is root on a file system with flags
	t.Cleanup(func() { h.run(unflag) })
	ran, last := 0, ""
	for _, b := range blocks(t, "SECOND-NAS.md") {
		text := b.text
		switch {
		case b.section != last && (strings.HasPrefix(b.section, "Pull over") || strings.HasPrefix(b.section, "Push")):
			h.run(fresh + "; mkdir -p /srv/vault2; : > id_ed25519.pub") // another way to the same copy
		case strings.Contains(text, "/.zfs/snapshot"):
			h.run("mkdir -p /srv/vault2/.zfs/snapshot")
		case strings.Contains(text, "--accept-rotation"):
			continue // ran after each new key
		case strings.Contains(text, "logvault restore"):
			h.copyAgain()
			h.run("cp -r /var/lib/logvault backup; rm -rf /mnt/nas1/vault /var/lib/logvault")
		case strings.Contains(text, "recover --from-vault --vault"):
			h.run("rm -rf /var/lib/logvault")
		case strings.HasSuffix(text, "recover --from-vault\n"):
			h.run("cp -r /var/lib/logvault older")
			h.write("/var/log/old/later.log", squidLines(50)[:2000])
			h.run("logvault ingest --source nginx1 --file /var/log/old/later.log; rm -rf /var/lib/logvault; cp -r older /var/lib/logvault")
		}
		last = b.section
		switch b.kind {
		case "cron":
			h.cron(text)
			h.run(unflag)
		case "sh":
			h.run(text)
		case "systemd":
			_, command, ok := strings.Cut(text, "ExecStart=")
			if !ok {
				continue
			}
			h.run(strings.SplitN(command, "\n", 2)[0])
		case "toml":
			h.run("cat >> /etc/logvault/logvault.toml <<'EOF'\n" + strings.ReplaceAll(text, `"sftp:`, `"/nowhere" # `) + "EOF\nlogvault status")
		default:
			continue
		}
		ran++
		if hash := regexp.MustCompile(`--accept-rotation ([0-9a-f]{64})`).FindStringSubmatch(h.out); hash != nil && b.kind == "sh" {
			h.acceptRotation(hash[1])
		}
	}
	if ran < 20 {
		t.Errorf("%d blocks ran, expected all of the page", ran)
	}
	h.run("logvault verify --vault /mnt/nas1/vault --trust /var/lib/logvault/trust.toml --depth content --key bob/auditor.sec.asc")
	h.said(`PASSED`)
}

// copyAgain makes the copy that the page pulls, whatever its sections did.
func (h *host) copyAgain() {
	h.t.Helper()
	h.run("rm -rf /srv/vault2 /var/lib/logvault-copy; mkdir -p /srv/vault2 /var/lib/logvault-copy")
	for _, b := range fenced(h.t, "SECOND-NAS.md", "sh") {
		if strings.Contains(b.text, "replicate --init --name lyon") {
			h.run(b.text)
			return
		}
	}
}

// acceptRotation types the hash at the replica, as the page says.
func (h *host) acceptRotation(hash string) {
	h.t.Helper()
	for _, b := range fenced(h.t, "SECOND-NAS.md", "sh") {
		if strings.Contains(b.text, "--accept-rotation HASH") {
			h.run(strings.ReplaceAll(b.text, "HASH", hash))
			h.said(`in full`)
			return
		}
	}
	h.t.Fatal("SECOND-NAS.md accepts no rotation")
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\pL\pN _-]`)
	target  = regexp.MustCompile("(?m)(?:`|^)make ([a-z0-9]+)(?:`| +#)")
)

// TestDocumentedLinks follows every link of the pages to a file and a heading of
// this repository, and every `make TARGET` to the Makefile.
func TestDocumentedLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	makefile := read("../../Makefile")
	links, targets := 0, 0
	for _, page := range append(pages, "../../README.md") {
		text := read(page)
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			targets++
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: make %s: the Makefile has no such target", page, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			links++
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
			}
			found := anchor == ""
			for _, h := range heading.FindAllStringSubmatch(read(to), -1) {
				found = found || strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor
			}
			if !found {
				t.Errorf("%s: %s leads to no heading", page, m[1])
			}
		}
	}
	if links < 20 || targets < 7 {
		t.Errorf("%d links and %d targets found, expected more", links, targets)
	}
}
