package extract

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"logvault/ledger"
	"logvault/ledger/entry"
)

// attestation renders attestation.txt, French first. It is a function of what
// the bundle proves, so that a check can make it again: a changed word shows.
// It carries no signature of a person; the referent adds that.
func attestation(r *requestRecord, h *head, t *tail, index int64, e *entry.Request, cp *ledger.Checkpoint) []byte {
	var b bytes.Buffer
	facts := func(w words) {
		line := func(label string, value any) { fmt.Fprintf(&b, "  %-28s %v\n", label, value) }
		fmt.Fprintf(&b, "%s\n%s\n\n", w.title, strings.Repeat("=", len([]rune(w.title))))
		fmt.Fprintf(&b, "%s\n", w.request)
		line(w.authority, r.Authority)
		line(w.officer, r.Officer)
		line(w.reference, r.Reference)
		line(w.article, r.Article)
		line(w.ground, r.Ground)
		line(w.received, r.ReceivedAt)
		if r.Purpose != "" {
			line(w.purpose, r.Purpose)
		}
		line(w.window, fmt.Sprintf(w.fromTo, r.Scope.Since, r.Scope.Until))
		for _, s := range scopeTexts(&r.Scope) {
			line(s[0], s[1])
		}
		if len(r.Vaults) > 0 {
			line(w.put, strings.Join(r.Vaults, ", "))
		}
		fmt.Fprintf(&b, "\n%s\n", w.answer)
		if len(r.Vaults) > 0 {
			fmt.Fprintf(&b, "  "+w.part+"\n", h.Origin, len(r.Vaults))
		}
		if t.Lines == 0 {
			fmt.Fprintf(&b, "  %s\n", w.nothing)
		}
		line(w.lines, t.Lines)
		line(w.searched, t.Searched)
		line(w.destroyed, t.Destroyed)
		line(w.unparsed, t.Unparsed)
		line(w.undecided, t.Undecided)
		line(w.gaps, len(t.Gaps))
		line(w.conflicts, len(t.Conflicts))
		line(w.silent, orDash(strings.Join(t.SilentSources, ", ")))
		line(w.unread, len(t.Unread))
		fmt.Fprintf(&b, "\n%s\n", w.proof)
		line(w.origin, h.Origin)
		line(w.entry, index)
		line(w.recorded, formatUTC(e.Time))
		line(w.size, cp.Size)
		line(w.root, cp.Root)
		fmt.Fprintf(&b, "\n%s\n", w.scope)
	}
	facts(french)
	b.WriteString("\n\n")
	facts(english)
	return b.Bytes()
}

// scopeTexts lists the selectors that are set. Their names are those of the
// request file, in both languages.
func scopeTexts(s *scopeRecord) [][2]string {
	var out [][2]string
	add := func(name string, values []string) {
		if len(values) > 0 {
			out = append(out, [2]string{name, strings.Join(values, ", ")})
		}
	}
	ports := make([]string, len(s.Port))
	for i, p := range s.Port {
		ports[i] = strconv.Itoa(p)
	}
	add("client", s.Client)
	add("port", ports)
	add("user", s.User)
	add("host", s.Host)
	add("source", s.Source)
	add("regexp", s.Regexp)
	return out
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// words are the texts of the attestation in one language.
type words struct {
	title, request, authority, officer, reference, article, ground, received, purpose, window, fromTo string
	put, part                                                                                         string
	answer, nothing, lines, searched, destroyed, unparsed, undecided, gaps, conflicts, silent, unread string
	proof, origin, entry, recorded, size, root, scope                                                 string
}

var french = words{
	title:     "ATTESTATION DE COMMUNICATION DE DONNÉES DE JOURNALISATION",
	request:   "Réquisition",
	authority: "autorité requérante",
	officer:   "signataire",
	reference: "référence",
	article:   "fondement",
	ground:    "cas (CPP 60-1-2)",
	received:  "reçue le",
	purpose:   "objet",
	window:    "période (UTC)",
	fromTo:    "de %s inclus à %s exclu",
	put:       "adressée aux registres",
	part:      "Partie tirée du seul registre %s. La réponse complète compte %d parties.",
	answer:    "Réponse",
	nothing:   "NÉANT : aucune ligne des journaux examinés ne répond à la réquisition.",
	lines:     "lignes communiquées",
	searched:  "segments examinés",
	destroyed: "  dont détruits à échéance",
	unparsed:  "lignes sans champs lisibles",
	undecided: "lignes de date incertaine",
	gaps:      "lacunes consignées",
	conflicts: "conflits consignés",
	silent:    "sources silencieuses",
	unread:    "entrées non comprises",
	proof:     "Preuve",
	origin:    "registre scellé",
	entry:     "entrée de la réquisition",
	recorded:  "consignée le (UTC)",
	size:      "entrées du registre",
	root:      "empreinte du registre",
	scope: "Chaque ligne communiquée porte la preuve qu'elle figurait, octet pour octet, dans un segment dont l'empreinte est\n" +
		"consignée au registre signé. Les lignes de date incertaine sont celles dont l'heure ne peut être située avec certitude\n" +
		"dans la période ; elles ne sont pas communiquées. L'examen porte sur les segments désignés par manifest.json.",
}

var english = words{
	title:     "STATEMENT OF DISCLOSURE OF LOG DATA",
	request:   "Request",
	authority: "authority",
	officer:   "officer",
	reference: "reference",
	article:   "legal basis",
	ground:    "ground (CPP 60-1-2)",
	received:  "received",
	purpose:   "purpose",
	window:    "window (UTC)",
	fromTo:    "from %s up to, not including, %s",
	put:       "put to the ledgers",
	part:      "This part is of the ledger %s alone. The whole answer has %d parts.",
	answer:    "Answer",
	nothing:   "NOTHING FOUND: no line of the logs searched fits the request.",
	lines:     "lines disclosed",
	searched:  "segments searched",
	destroyed: "  of them destroyed when due",
	unparsed:  "lines without fields",
	undecided: "lines of uncertain time",
	gaps:      "recorded gaps",
	conflicts: "recorded conflicts",
	silent:    "silent sources",
	unread:    "entries not understood",
	proof:     "Proof",
	origin:    "ledger",
	entry:     "request entry",
	recorded:  "recorded (UTC)",
	size:      "ledger size in entries",
	root:      "ledger root hash",
	scope: "Each disclosed line carries the proof that it stood, byte for byte, in a segment whose digest is in the signed ledger.\n" +
		"Lines of uncertain time are those whose time cannot be placed within the window with certainty; they are not disclosed.\n" +
		"What was searched is the segments that manifest.json lists.",
}
