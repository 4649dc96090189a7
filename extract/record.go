package extract

import "time"

// commitSalt is the size in bytes of the salt before a register record.
const commitSalt = 32

// The formats of register records.
const (
	requestFormat = "logvault-request"
	catFormat     = "logvault-cat"
)

// requestRecord is the personal record of an extraction, in the register and as
// request.json in the bundle.
type requestRecord struct {
	Format     string      `json:"format"`
	Version    int         `json:"version"`
	Authority  string      `json:"authority"`
	Officer    string      `json:"officer"`
	Reference  string      `json:"reference"`
	Article    string      `json:"article"`
	Ground     string      `json:"ground"`
	ReceivedAt string      `json:"received_at"`
	Purpose    string      `json:"purpose"`
	Scope      scopeRecord `json:"scope"`
	// Vaults are the origins of all ledgers that the request was put to, sorted,
	// if they are several: then the version is jointRequest. Each of the ledgers
	// commits to them, so that no part of the answer can pass for the whole.
	Vaults []string `json:"vaults,omitempty"`
}

// The versions of a requestRecord: put to one vault, put to several.
const (
	singleRequest = 1
	jointRequest  = 2
)

// catRecord is the personal record of a cat.
type catRecord struct {
	Format   string   `json:"format"`
	Version  int      `json:"version"`
	Case     string   `json:"case"`
	Segments []string `json:"segments"`
	Source   string   `json:"source"`
	Since    string   `json:"since"`
	Until    string   `json:"until"`
}

// newRequestRecord takes over a valid request; f is its compiled scope, origins
// the ledgers that it is put to.
func newRequestRecord(r *Request, f *filter, origins []string) (*requestRecord, error) {
	received, err := r.ReceivedAt.Time()
	if err != nil {
		return nil, err
	}
	version := jointRequest
	if len(origins) < 2 {
		version, origins = singleRequest, nil
	}
	return &requestRecord{
		Format: requestFormat, Version: version, Vaults: origins,
		Authority: r.Authority, Officer: r.Officer, Reference: r.Reference,
		Article: r.Article, Ground: r.Ground, Purpose: r.Purpose,
		ReceivedAt: received.Format(time.RFC3339Nano),
		Scope:      newScopeRecord(&r.Scope, f),
	}, nil
}

// newScopeRecord takes over a valid scope. The zone is always written out, as a
// name or as an offset, because the local times depend on it.
func newScopeRecord(s *Scope, f *filter) scopeRecord {
	zone := s.Zone
	if zone == "" {
		zone = f.since.In(f.zone).Format(offsetLayout)
	}
	return scopeRecord{
		Since: formatUTC(f.since), Until: formatUTC(f.until), Zone: zone,
		Client: list(s.Client), Port: list(s.Port), User: list(s.User),
		Host: list(s.Host), Source: list(s.Source), Regexp: list(s.Regexp),
	}
}

// offsetLayout writes a zone that is only an offset, such as +01:00.
const offsetLayout = "-07:00"

// scope is the inverse of newScopeRecord.
func (r *scopeRecord) scope() *Scope {
	s := &Scope{
		Since: When(r.Since), Until: When(r.Until), Zone: r.Zone,
		Client: r.Client, Port: r.Port, User: r.User,
		Host: r.Host, Source: r.Source, Regexp: r.Regexp,
	}
	if t, err := time.Parse(offsetLayout, r.Zone); err == nil {
		since, err := s.Since.Time()
		if err == nil {
			_, offset := t.Zone()
			s.Since, s.Zone = whenAt(since.In(time.FixedZone("", offset))), ""
		}
	}
	return s
}

// formatUTC writes a time as ledger entries do.
func formatUTC(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// list makes an absent list an empty one, so that JSON has one spelling of it.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
