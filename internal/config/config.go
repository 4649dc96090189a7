// Package config reads and writes the two TOML files of a gateway and nothing else:
//
//   - logvault.toml, what the administrator decides: where the vault and the state
//     are, who may decrypt, which proxies may write, how long each class is kept;
//   - trust.toml, what an auditor pins: the ledger's verifier key and the last
//     size that was seen.
//
// Decoding is strict. An unknown key, a value of the wrong type or an invalid
// value is an *Error that names the file and the line, because a mistyped
// retention period that is silently ignored breaks the law.
//
// The field comments below are the reference of logvault.toml.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"logvault/internal/vfs"
	"logvault/retention/policy"
	"logvault/vault"
)

// Version is the version of logvault.toml that this release reads and writes.
const Version = 1

// fileLimit bounds a configuration file, in bytes.
const fileLimit = 1 << 20

// Config is logvault.toml.
type Config struct {
	// Version of this file's format. Required, 1.
	Version int `toml:"version"`
	// Origin names the ledger for ever, like a host and path: "logs.example.org/vault". Required.
	Origin string `toml:"origin"`
	// Vault is the place of the primary copy: an absolute directory, or a URL as
	// in s3://HOST[:PORT]/BUCKET/PREFIX or sftp://USER@HOST/PATH; the access keys
	// come from the environment, never from here. Required.
	Vault string `toml:"vault"`
	// State is the gateway's own directory, on a local disk: ledger of record,
	// spool, keys. Required, absolute.
	State string `toml:"state"`
	// Auditors are the full fingerprints (40 hex digits) of the OpenPGP keys that
	// can open what is sealed to period keys made from now on (days that have
	// their key already keep it); the keys themselves are in
	// STATE/auditors/<fingerprint>.asc. At least one, better two.
	Auditors []string `toml:"auditors"`

	NFS     NFS      `toml:"nfs"`
	Seal    Seal     `toml:"seal"`
	Spool   Spool    `toml:"spool"`
	Sources []Source `toml:"source"`
	Classes []Class  `toml:"class"`

	Timestamp *Timestamp `toml:"timestamp,omitempty"`
	Witnesses []Witness  `toml:"witness,omitempty"`
	Watches   []Watch    `toml:"watch,omitempty"`
	Copies    []Copy     `toml:"copy,omitempty"`
}

// NFS is the export that the proxies mount.
type NFS struct {
	// Listen is ADDRESS:PORT for NFS and MOUNT together. Default ":2049".
	Listen string `toml:"listen"`
	// Secure refuses clients that come from a port of 1024 or above. Default true.
	Secure *bool `toml:"secure,omitempty"`
}

// Seal says how segments are made.
type Seal struct {
	// Codec is "gz" (any system reads it) or "zst" (smaller and faster). Default "gz".
	Codec string `toml:"codec"`
	// Level is the compression level, 1 to 9, for gz also 0 (stored). For zst 1
	// is the fastest, 3 stores about 6 % less, 6 and above are slow. Default: 6
	// for gz, 1 for zst.
	Level *int `toml:"level,omitempty"`
	// Cut is the raw size at which a segment is closed, 8MiB to 64MiB. Default "32MiB".
	Cut ByteSize `toml:"cut"`
}

// Spool bounds the intake.
type Spool struct {
	// Max is the room that the spool may take in the state directory. Default "16GiB".
	Max ByteSize `toml:"max"`
}

// Source is one proxy. Export /NAME is its root.
type Source struct {
	// Name appears in the ledger. Required; letters, digits, '.', '_' and '-'.
	Name string `toml:"name"`
	// Clients are the addresses or networks it writes from, as CIDR. May be
	// empty for a source that is only imported with `logvault ingest`.
	Clients []string `toml:"clients"`
	// Class is its retention class. Default: the only class there is.
	Class string `toml:"class,omitempty"`
	// AllowRead lets the source read back its own bytes that are not yet sealed.
	// Default false.
	AllowRead bool `toml:"allow_read,omitempty"`
}

// Class is a retention class: how long its records must and may be kept.
type Class struct {
	// Name appears in the ledger. Required; a-z, 0-9 and '-'.
	Name string `toml:"name"`
	// Period is how long a record is kept, as an ISO 8601 calendar duration: "P1Y", "P6M". Required.
	Period string `toml:"period"`
	// Grace is how long after its date a record may still be there before it counts as overdue. Default "P1D".
	Grace string `toml:"grace,omitempty"`
	// Zone is the time zone in which days begin: "Europe/Paris". Required.
	Zone string `toml:"zone"`
	// Basis is the legal text that asks for the retention. Required.
	Basis string `toml:"basis"`
	// ValidUntil is the day the legal basis ends, YYYY-MM-DD. Optional.
	ValidUntil string `toml:"valid_until,omitempty"`
}

// Error says what is wrong in a configuration file.
type Error struct {
	File   string
	Line   int // 0 when not known
	Detail string
}

// Error begins with file and line, as editors understand it, or without a line if
// none is known.
func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Detail)
	}
	return fmt.Sprintf("%s: %s", e.File, e.Detail)
}

// DecodeStrict decodes a TOML document that was read from file into v, which
// must be a pointer to a struct. An unknown key is an error, as is everything
// else that v has no place for. Errors are *Error.
func DecodeStrict(file string, data []byte, v any) error {
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		line, _ := first.Position()
		return &Error{file, line, fmt.Sprintf("unknown key %q", strings.Join(first.Key(), "."))}
	}
	if dec, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := dec.Position()
		return &Error{file, line, strings.TrimPrefix(dec.Error(), "toml: ")}
	}
	return &Error{file, 0, strings.TrimPrefix(err.Error(), "toml: ")}
}

// Load reads, completes with defaults and validates a configuration file.
// Errors of its content are *Error; an absent file wraps fs.ErrNotExist.
func Load(fsys vfs.FS, file string) (*Config, error) {
	data, err := vfs.ReadFile(fsys, file, fileLimit)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(file, data)
}

// Parse is Load for a document that was already read.
func Parse(file string, data []byte) (*Config, error) {
	c := new(Config)
	if err := DecodeStrict(file, data, c); err != nil {
		return nil, err
	}
	c.Defaults()
	if err := c.validate(); err != nil {
		return nil, &Error{file, lineOf(data, err), err.Error()}
	}
	return c, nil
}

// Encode gives the TOML form of a configuration, which Parse reads back.
func (c *Config) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# logvault gateway. An unknown key is an error. The meaning of each key: docs/CONFIG.md.\n")
	if err := toml.NewEncoder(&b).SetIndentTables(false).Encode(c); err != nil {
		return nil, fmt.Errorf("encoding the configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Defaults gives every optional key that is not set its default.
func (c *Config) Defaults() {
	if c.NFS.Listen == "" {
		c.NFS.Listen = ":2049"
	}
	if c.NFS.Secure == nil {
		c.NFS.Secure = new(true)
	}
	if c.Seal.Codec == "" {
		c.Seal.Codec = string(vault.Gzip)
	}
	if c.Seal.Level == nil {
		c.Seal.Level = new(defaultLevel(c.Seal.Codec))
	}
	if c.Seal.Cut == 0 {
		c.Seal.Cut = 32 << 20
	}
	if c.Spool.Max == 0 {
		c.Spool.Max = 16 << 30
	}
	c.defaultCopies()
	for i := range c.Classes {
		if c.Classes[i].Grace == "" {
			c.Classes[i].Grace = "P1D"
		}
	}
	for i := range c.Sources {
		if c.Sources[i].Class == "" && len(c.Classes) == 1 {
			c.Sources[i].Class = c.Classes[0].Name
		}
	}
}

func defaultLevel(codec string) int {
	if codec == string(vault.Zstd) {
		return 1
	}
	return 6
}

func (c *Config) validate() error {
	switch {
	case c.Version != Version:
		return at("version", fmt.Errorf("version is %d, expected %d", c.Version, Version))
	case c.Origin == "" || strings.ContainsAny(c.Origin, " +\n\t"):
		return at("origin", fmt.Errorf("origin is %q, expected a name without spaces and '+', such as logs.example.org/vault", c.Origin))
	case !filepath.IsAbs(c.Vault) && !strings.Contains(c.Vault, "://"):
		return at("vault", fmt.Errorf("vault is %q, expected an absolute path or a URL", c.Vault))
	case !filepath.IsAbs(c.State):
		return at("state", fmt.Errorf("state is %q, expected an absolute path", c.State))
	case len(c.Auditors) == 0:
		return at("auditors", errors.New("auditors is empty, expected at least one fingerprint: nobody could ever read the logs"))
	case c.Spool.Max < 256<<20:
		return at("spool.max", fmt.Errorf("spool.max is %v, expected at least 256MiB", c.Spool.Max))
	}
	for _, f := range c.Auditors {
		if len(f) != 40 || strings.Trim(f, "0123456789abcdef") != "" {
			return at("auditors", fmt.Errorf("auditor %q: expected a full fingerprint of 40 lower-case hex digits", f))
		}
	}
	_, policies := c.Policies()
	for _, err := range []error{c.NFS.validate(), c.Seal.validate(), c.Timestamp.validate(), c.validateWitnesses(), policies, c.validateSources(), c.validateWatches()} {
		if err != nil {
			return err
		}
	}
	return c.validateCopies()
}

func (n *NFS) validate() error {
	_, port, err := net.SplitHostPort(n.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return at("nfs.listen", fmt.Errorf("nfs.listen is %q, expected ADDRESS:PORT such as 192.0.2.1:2049, or :2049 for all addresses", n.Listen))
	}
	return nil
}

func (s *Seal) validate() error {
	switch {
	case s.Codec != string(vault.Gzip) && s.Codec != string(vault.Zstd):
		return at("seal.codec", fmt.Errorf("seal.codec is %q, expected gz or zst", s.Codec))
	case *s.Level < 0 || *s.Level > 9 || *s.Level == 0 && s.Codec == string(vault.Zstd):
		return at("seal.level", fmt.Errorf("seal.level is %d, expected 1 to 9, or 0 with gz", *s.Level))
	case s.Cut < 8<<20 || s.Cut > 64<<20:
		return at("seal.cut", fmt.Errorf("seal.cut is %v, expected 8MiB to 64MiB", s.Cut))
	}
	return nil
}

func (c *Config) validateSources() error {
	if len(c.Sources) == 0 {
		return errors.New("no [[source]], expected at least one proxy")
	}
	seen := map[string]bool{}
	for i, s := range c.Sources {
		here := fmt.Sprintf("source.%d", i)
		if err := vault.Source(s.Name).Valid(); err != nil {
			return at(here+".name", err)
		}
		if seen[s.Name] {
			return at(here+".name", fmt.Errorf("source %q appears twice", s.Name))
		}
		seen[s.Name] = true
		if c.class(s.Class) == nil {
			return at(here+".class", fmt.Errorf("source %q: class %q is not defined by a [[class]]", s.Name, s.Class))
		}
		if _, err := ParseClients(s.Clients); err != nil {
			return at(here+".clients", fmt.Errorf("source %q: %w", s.Name, err))
		}
	}
	return nil
}

func (c *Config) class(name string) *Class {
	for i := range c.Classes {
		if c.Classes[i].Name == name {
			return &c.Classes[i]
		}
	}
	return nil
}

// ClassOf returns the retention class of a source.
func (c *Config) ClassOf(source vault.Source) (policy.Class, bool) {
	for _, s := range c.Sources {
		if s.Name == string(source) {
			p, err := c.class(s.Class).Policy()
			return p, err == nil
		}
	}
	return policy.Class{}, false
}

// Policies returns all retention classes in the order of the file.
func (c *Config) Policies() ([]policy.Class, error) {
	if len(c.Classes) == 0 {
		return nil, errors.New("no [[class]], expected at least one retention class")
	}
	var all []policy.Class
	for i := range c.Classes {
		p, err := c.Classes[i].Policy()
		if err != nil {
			return nil, at(fmt.Sprintf("class.%d", i), err)
		}
		if i > 0 && c.class(p.Name) != &c.Classes[i] {
			return nil, at(fmt.Sprintf("class.%d.name", i), fmt.Errorf("class %q appears twice", p.Name))
		}
		all = append(all, p)
	}
	return all, nil
}

// Policy parses a class.
func (c *Class) Policy() (policy.Class, error) {
	fail := func(key string, err error) (policy.Class, error) {
		return policy.Class{}, at(key, fmt.Errorf("class %q: %w", c.Name, err))
	}
	if err := vault.Class(c.Name).Valid(); err != nil {
		return policy.Class{}, at(".name", err)
	}
	period, err := policy.ParsePeriod(c.Period)
	if err != nil {
		return fail(".period", err)
	}
	grace, err := policy.ParsePeriod(c.Grace)
	if err != nil {
		return fail(".grace", fmt.Errorf("grace: %w", err))
	}
	if c.Zone == "" || c.Zone == "Local" {
		return fail(".zone", fmt.Errorf("zone is %q, expected a name such as Europe/Paris", c.Zone))
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return fail(".zone", fmt.Errorf("zone %q is unknown, expected a name such as Europe/Paris", c.Zone))
	}
	if c.Basis == "" {
		return fail(".basis", errors.New("basis is empty, expected the legal text that asks for this retention"))
	}
	var until time.Time
	if c.ValidUntil != "" {
		d, err := vault.ParseDay(c.ValidUntil)
		if err != nil {
			return fail(".valid_until", fmt.Errorf("valid_until: %w", err))
		}
		until = d.Start(zone)
	}
	return policy.Class{Name: c.Name, Period: period, Grace: grace, Zone: zone, Basis: c.Basis, ValidUntil: until}, nil
}

// FromPolicy is the configuration form of a class.
func FromPolicy(p policy.Class) Class {
	c := Class{Name: p.Name, Period: p.Period.String(), Grace: p.Grace.String(), Zone: p.Zone.String(), Basis: p.Basis}
	if !p.ValidUntil.IsZero() {
		c.ValidUntil = vault.DayOf(p.ValidUntil).String()
	}
	return c
}

// ParseClients parses addresses and networks. An address stands for itself
// alone; an IPv4-mapped IPv6 network is refused, since clients are compared
// in their IPv4 form.
func ParseClients(list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("client %q: expected an address or a network such as 192.0.2.10 or 192.0.2.0/24", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		switch {
		case p != p.Masked():
			return nil, fmt.Errorf("client %q: has bits set beyond the prefix length, expected %v", s, p.Masked())
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("client %q: expected the IPv4 form %v", s, p.Addr().Unmap())
		}
		all = append(all, p)
	}
	return all, nil
}
