package extract

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"logvault/extract/logfmt"
	"logvault/vault"
)

// Limits of a request.
const (
	MaxText      = 1024 // bytes of each text
	MaxSelectors = 1000 // values of each selector
)

// Request is a lawful request as the referent types it in. Its TOML form is
// what NewRequestText shows; the reader must refuse unknown keys. All texts are
// personal data: they go to the register and into the bundle, never into the
// ledger.
type Request struct {
	// Authority is who asks: court, police or gendarmerie unit.
	Authority string `toml:"authority"`
	// Officer is the name and rank of the person who signed.
	Officer string `toml:"officer"`
	// Reference is the number of the record or case.
	Reference string `toml:"reference"`
	// Article is the legal basis, such as "CPP 77-1-1".
	Article string `toml:"article"`
	// Ground is why the law allows this data to be asked for: "1" to "4", the
	// cases of CPP 60-1-2, or "other: " and a text.
	Ground string `toml:"ground"`
	// ReceivedAt is when the request arrived.
	ReceivedAt When `toml:"received_at"`
	// Purpose is optional: what the authority says that it looks for.
	Purpose string `toml:"purpose"`
	// Scope is what may be disclosed, and nothing else is.
	Scope Scope `toml:"scope"`
}

// Scope is the window and the selectors of a request. A line is disclosed iff
// its time is in the window and, for each selector that has values, one of the
// values fits.
type Scope struct {
	// Since is the first instant of the window, Until the first after it.
	Since When `toml:"since"`
	Until When `toml:"until"`
	// Zone is the IANA time zone of the local times in the bundle, such as
	// "Europe/Paris". Empty: the offset that Since is written with.
	Zone string `toml:"zone"`
	// Client holds addresses and CIDR prefixes of clients.
	Client []string `toml:"client"`
	// Port holds client ports.
	Port []int `toml:"port"`
	// User holds user names as they stand in the log.
	User []string `toml:"user"`
	// Host holds destination host names, in any case.
	Host []string `toml:"host"`
	// Source holds names of sources.
	Source []string `toml:"source"`
	// Regexp holds regular expressions (RE2 syntax) over the whole line
	// without its line end. It alone selects lines that have no fields.
	Regexp []string `toml:"regexp"`
}

// When is an instant as a person writes it, a TOML string. It keeps the text,
// so that Validate can report a bad one together with all other problems.
type When string

// whenAt writes t in the form that Time reads.
func whenAt(t time.Time) When { return When(t.Format(time.RFC3339Nano)) }

// errNoZone is what a time without a zone gets: a wrong hour names a wrong person.
var errNoZone = errors.New("a time without a zone: write 2026-11-01T10:00:00+01:00, or Z for UTC")

// Time parses the forms 2006-01-02T15:04[:05[.000]]Z07:00, also with a space for
// the T. A time without a zone, or finer than a millisecond, is an error.
func (w When) Time() (time.Time, error) {
	text := string(w)
	if text == "" {
		return time.Time{}, errors.New("missing")
	}
	if len(text) > 10 && text[10] == ' ' {
		text = text[:10] + "T" + text[11:]
	}
	for _, layout := range []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, whenRange(t)
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, text); err == nil {
			return time.Time{}, errNoZone
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: expected a form like 2026-11-01T10:00:00+01:00", text)
}

// whenRange refuses what the ledger's time format cannot hold.
func whenRange(t time.Time) error {
	if t.UTC().Year() < 1970 || t.UTC().Year() > 9998 {
		return fmt.Errorf("year %d, expected 1970 to 9998", t.UTC().Year())
	}
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		return errors.New("finer than a millisecond")
	}
	return nil
}

// Validate returns nil for a complete request, else one error that joins all
// problems, each naming its key.
func (r *Request) Validate() error {
	var p problems
	p.text("authority", r.Authority, true)
	p.text("officer", r.Officer, true)
	p.text("reference", r.Reference, true)
	p.text("article", r.Article, true)
	p.text("purpose", r.Purpose, false)
	p.ground(r.Ground)
	if _, err := r.ReceivedAt.Time(); err != nil {
		p.addf("received_at: %w", err)
	}
	_, err := r.Scope.compile()
	return errors.Join(errors.Join(p...), err)
}

// problems collects what is wrong with a request.
type problems []error

func (p *problems) addf(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// text checks one text: present if required, short, one printable line.
func (p *problems) text(key, s string, required bool) {
	switch {
	case s == "" && required:
		p.addf("%s: missing", key)
	case len(s) > MaxText:
		p.addf("%s: %d bytes, expected at most %d", key, len(s), MaxText)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		p.addf("%s: expected one line of UTF-8 without control characters", key)
	}
}

func (p *problems) ground(s string) {
	text, other := strings.CutPrefix(s, "other:")
	switch {
	case other && strings.TrimSpace(text) == "":
		p.addf("ground: expected a text after \"other:\"")
	case !other && s != "" && (len(s) != 1 || s[0] < '1' || s[0] > '4'):
		p.addf("ground: %q, expected \"1\" to \"4\" (the cases of CPP 60-1-2) or \"other: why\"", s)
	default:
		p.text("ground", s, true)
	}
}

// texts checks the values of one selector with valid.
func (p *problems) texts(key string, values []string, valid func(string) error) {
	if len(values) > MaxSelectors {
		p.addf("scope.%s: %d values, expected at most %d", key, len(values), MaxSelectors)
		return
	}
	for i, v := range values {
		at := fmt.Sprintf("scope.%s[%d]", key, i)
		p.text(at, v, true)
		if v == "" {
			continue
		}
		if err := valid(v); err != nil {
			p.addf("%s: %w", at, err)
		}
	}
}

// compile checks the scope and makes the filter that applies it. The error
// joins all problems.
func (s *Scope) compile() (*filter, error) {
	var p problems
	f := &filter{users: map[string]bool{}, hosts: map[string]bool{}, sources: map[vault.Source]bool{}, ports: map[string]bool{}}
	s.compileWindow(f, &p)
	p.texts("client", s.Client, func(v string) error {
		c, err := parseClient(v)
		f.clients = append(f.clients, c)
		return err
	})
	p.texts("user", s.User, func(v string) error { f.users[v] = true; return nil })
	p.texts("host", s.Host, func(v string) error { f.hosts[token(logfmt.Host, v)] = true; return nil })
	p.texts("source", s.Source, func(v string) error {
		f.sources[vault.Source(v)] = true
		return vault.Source(v).Valid()
	})
	p.texts("regexp", s.Regexp, func(v string) error {
		re, err := regexp.Compile(v)
		f.regexps = append(f.regexps, re)
		return err
	})
	if len(s.Port) > MaxSelectors {
		p.addf("scope.port: %d values, expected at most %d", len(s.Port), MaxSelectors)
	}
	for i, port := range s.Port {
		if port < 1 || port > 65535 {
			p.addf("scope.port[%d]: %d, expected 1 to 65535", i, port)
		}
		f.ports[strconv.Itoa(port)] = true
	}
	if len(s.Client)+len(s.Port)+len(s.User)+len(s.Host)+len(s.Source)+len(s.Regexp) == 0 {
		p.addf("scope: no selector: expected at least one of client, port, user, host, source, regexp")
	}
	if err := errors.Join(p...); err != nil {
		return nil, err
	}
	return f, nil
}

// compileWindow checks the two ends and the zone.
func (s *Scope) compileWindow(f *filter, p *problems) {
	since, err := s.Since.Time()
	if err != nil {
		p.addf("scope.since: %w", err)
	}
	until, err2 := s.Until.Time()
	if err2 != nil {
		p.addf("scope.until: %w", err2)
	}
	if err == nil && err2 == nil && !until.After(since) {
		p.addf("scope: until (%s) is not after since (%s)", s.Until, s.Since)
	}
	f.since, f.until = since.UTC(), until.UTC()
	_, offset := since.Zone() // its name depends on the machine's own zone
	f.zone = time.FixedZone("", offset)
	if s.Zone == "" {
		return
	}
	// "Local" would be another zone on each machine.
	loc, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		p.addf("scope.zone: %q is not a known time zone, expected a name like Europe/Paris", s.Zone)
		return
	}
	f.zone = loc
}

// parseClient reads an address as the prefix that holds only it, or a CIDR prefix.
// Bits set after a prefix's length are refused: one of the two was mistyped.
func parseClient(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q, expected an IP address or a prefix like 192.0.2.0/24", s)
	case p.Masked() != p:
		return netip.Prefix{}, fmt.Errorf("%q has bits set after its length, expected %s", s, p.Masked())
	}
	return p, nil
}

// NewRequestText returns a request file to fill in: TOML with comments. Filled
// in, it validates; as it stands it lists what is missing.
func NewRequestText() string { return requestText }

const requestText = `# A lawful request (réquisition judiciaire). Fill in and pass it to: logvault extract --request FILE
# What stands here is recorded in the register before anything is decrypted. It never enters the ledger.

# Who asks: court, unit (autorité requérante).
authority = ""
# Who signed: rank and name (officier de police judiciaire, magistrat).
officer = ""
# Number of the record or case (numéro de procès-verbal, de parquet ou d'instruction).
reference = ""
# Legal basis (fondement): "CPP 60-1" flagrante delicto, "CPP 77-1-1" preliminary inquiry, "CPP 99-3" judicial investigation...
article = ""
# Why this data may be asked for (cas de l'article 60-1-2 du CPP):
#   "1" offence punished by 3 years of prison or more
#   "2" offence through a network punished by 1 year or more, only to identify its author
#   "3" terminal of the victim, at the victim's request
#   "4" missing person
#   "other: ..." another legal ground, in words
ground = ""
# When the request arrived, with its zone and in quotes, such as "2026-11-20T14:30:00+01:00" (date de réception).
received_at = ""
# What it is for, in a few words; optional (objet).
purpose = ""

[scope]
# The window (période): from since up to but not including until, such as "2026-11-01T10:00:00+01:00".
# The zone must stand in each time: +01:00 is French winter time, +02:00 French summer time, Z is UTC.
since = ""
until = ""
# Zone of the local times in the answer (fuseau horaire); optional, default: the offset of since.
zone = "Europe/Paris"

# Selectors (critères): fill in at least one and leave the others empty. A line must fit each selector that is
# filled in; within one selector, one of its values.
# Client addresses or prefixes (adresse IP): ["192.0.2.7", "2001:db8::/48"]
client = []
# Client ports, where the log has them (port source): [51234]
port = []
# User names as the log writes them (identifiant): ["alice"]
user = []
# Hosts that were reached (hôte de destination): ["www.example.org"]
host = []
# Proxies, by the names of the configuration (serveur): ["proxy1"]
source = []
# Regular expressions over whole lines, RE2 syntax (expression rationnelle): ['alice.*403']
regexp = []
`
