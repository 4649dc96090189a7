package config

import (
	"strings"
	"testing"
)

func TestWatch(t *testing.T) {
	for _, tt := range []struct{ dir, source, patterns, problem string }{
		{"/var/log/nginx", "squid1", `"access.log*", "*/access.log*"`, ""},
		{"/var/log/nginx", "other", `"*"`, "not defined"},
		{"var/log", "squid1", `"*"`, "absolute"},
		{"/var/log/../x", "squid1", `"*"`, "absolute"},
		{"/var/log", "squid1", ``, "empty"},
		{"/var/log", "squid1", `""`, "pattern"},
		{"/var/log", "squid1", `"["`, "pattern"},
		{"/var/log", "squid1", `"/access.log"`, "pattern"},
		{"/var/log", "squid1", `"../access.log"`, "pattern"},
		{"/var/log", "squid1", `".."`, "pattern"},
		{"/var/log", "squid1", `"a//b"`, "pattern"},
		{"/var/lib/logvault", "squid1", `"*"`, "within"},
		{"/var/lib/logvault/spool", "squid1", `"*"`, "within"},
		{"/mnt/nas/vault/x", "squid1", `"*"`, "within"},
		{"/var/lib/logvault2", "squid1", `"*"`, ""},
	} {
		text := watchBase + "[[watch]]\nsource = \"" + tt.source + "\"\ndirectory = \"" + tt.dir + "\"\npatterns = [" + tt.patterns + "]\n"
		c, err := Parse("logvault.toml", []byte(text))
		switch {
		case tt.problem == "" && (err != nil || len(c.Watches) != 1):
			t.Errorf("%q of %q: %v", tt.patterns, tt.dir, err)
		case tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
			t.Errorf("%q of %q in source %q: %v, expected a word of %q", tt.patterns, tt.dir, tt.source, err, tt.problem)
		}
	}
}

const watchBase = `version = 1
origin = "logs.example.org/vault"
vault = "/mnt/nas/vault"
state = "/var/lib/logvault"
auditors = ["0123456789abcdef0123456789abcdef01234567"]
[[class]]
name = "one-year"
period = "P1Y"
zone = "Europe/Paris"
basis = "a law"
[[source]]
name = "squid1"
clients = []
`
