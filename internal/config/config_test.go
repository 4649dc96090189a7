package config

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	_ "time/tzdata" // the same zones on every machine

	"logvault/internal/vfs"
	"logvault/vault"
)

const good = `version = 1
origin = "logs.example.org/vault"
vault = "/srv/vault"
state = "/var/lib/logvault"
auditors = ["0123456789abcdef0123456789abcdef01234567"]

[[class]]
name = "technical"
period = "P1Y"
zone = "Europe/Paris"
basis = "a law"
valid_until = "2030-01-01"

[[source]]
name = "squid1"
clients = ["192.0.2.10", "2001:db8::/32"]
`

func TestDefaults(t *testing.T) {
	c, err := Parse("good.toml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.NFS.Listen != ":2049" || !*c.NFS.Secure || c.Seal.Codec != "gz" || *c.Seal.Level != 6 || c.Seal.Cut != 32<<20 || c.Spool.Max != 16<<30 {
		t.Errorf("defaults are %+v %+v %+v", c.NFS, c.Seal, c.Spool)
	}
	if z, err := Parse("good.toml", []byte(good+"[seal]\ncodec = \"zst\"\n")); err != nil || *z.Seal.Level != 1 {
		t.Errorf("zst: %+v, %v", z, err)
	}
	class, ok := c.ClassOf("squid1")
	if !ok || class.Name != "technical" || class.Grace.String() != "P1D" {
		t.Errorf("class of squid1 is %+v, %v", class, ok)
	}
	if _, ok := c.ClassOf("nosuch"); ok {
		t.Error("an unknown source has a class")
	}
}

// TestVaultAtURL: what a place means is for who opens it; here it need only not
// depend on where the program was started.
func TestVaultAtURL(t *testing.T) {
	for _, place := range []string{"s3://s3.lan:9000/logs/gw1?region=r1", "sftp://logs@nas.lan/srv/vault"} {
		c, err := Parse("url.toml", []byte(strings.Replace(good, "/srv/vault", place, 1)))
		if err != nil || c.Vault != place {
			t.Errorf("%s: %+v, %v", place, c, err)
		}
	}
}

func TestEncodeParses(t *testing.T) {
	c, err := Parse("good.toml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.toml", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("%+v became %+v through\n%s", c, again, text)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", `zone = "Europe/Paris"`, "zoen = \"Europe/Paris\"", `bad.toml:10: unknown key "class.zoen"`},
		{"broken TOML", `version = 1`, `version = `, "bad.toml:1"},
		{"wrong type", `version = 1`, `version = "one"`, "bad.toml:1"},
		{"newer version", `version = 1`, `version = 2`, "version is 2, expected 1"},
		{"origin", `logs.example.org/vault`, `two words`, "origin"},
		{"relative vault", `/srv/vault`, `srv/vault`, "absolute"},
		{"relative state", `/var/lib/logvault`, `logvault`, "absolute"},
		{"short fingerprint", `89abcdef01234567"`, `"`, "full fingerprint"},
		{"period", `P1Y`, `1 year`, `class "technical"`},
		{"zone", `Europe/Paris`, `Europe/Pari`, "zone"},
		{"local zone", `Europe/Paris`, `Local`, "zone"},
		{"basis", `a law`, ``, "basis is empty"},
		{"valid until", `2030-01-01`, `2030`, "valid_until"},
		{"class name", `"technical"`, `"Tech"`, "class"},
		{"source name", `squid1`, `squid 1`, "source"},
		{"CIDR", `192.0.2.10`, `192.0.2.300`, `client "192.0.2.300"`},
		{"host bits", `2001:db8::/32`, `192.0.2.1/24`, "192.0.2.0/24"},
		{"mapped", `192.0.2.10`, `::ffff:192.0.2.1`, "IPv4 form"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%s: nothing changed", c.name)
		}
		_, err := Parse("bad.toml", []byte(text))
		if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, expected an *Error with %q", c.name, err, c.want)
		}
	}
	for name, extra := range map[string]string{
		"two sources": "[[source]]\nname = \"squid1\"\n",
		"two classes": "[[class]]\nname = \"technical\"\nperiod = \"P6M\"\nzone = \"UTC\"\nbasis = \"x\"\n",
		"no class":    "[[source]]\nname = \"b\"\nclass = \"nosuch\"\n",
		"codec":       "[seal]\ncodec = \"lz4\"\n",
		"level":       "[seal]\nlevel = 10\n",
		"zst stored":  "[seal]\ncodec = \"zst\"\nlevel = 0\n",
		"cut":         "[seal]\ncut = \"1MiB\"\n",
		"spool":       "[spool]\nmax = \"1MiB\"\n",
		"size":        "[spool]\nmax = \"1 parsec\"\n",
	} {
		if _, err := Parse("bad.toml", []byte(good+extra)); err == nil {
			t.Errorf("%s: expected an error", name)
		}
	}
	if _, err := Load(vfs.NewMem(), "/nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]ByteSize{"0": 0, "1": 1, "3KiB": 3 << 10, "32 MiB": 32 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		got, err := ParseByteSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v, expected %d", text, got, err, want)
		}
		back, err := ParseByteSize(got.String())
		if err != nil || back != got {
			t.Errorf("%d: String gives %q, which is %d, %v", got, got.String(), back, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5GiB", "1MB", "9223372036854775807TiB"} {
		if v, err := ParseByteSize(text); err == nil {
			t.Errorf("%q: got %d, expected an error", text, v)
		}
	}
}

// FuzzParse: whatever parses is complete and survives a round trip.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("version = 1\n[[source]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("fuzz.toml", []byte(text))
		if err != nil {
			return
		}
		out, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("again.toml", out); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if _, ok := c.ClassOf(vault.Source(c.Sources[0].Name)); !ok {
			t.Fatal("a source without class")
		}
	})
}
