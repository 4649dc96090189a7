package ledger

import (
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// CopyLog returns the trust for the log of a copy: the note key that t.Copies
// lists under the copy's name, for the origin <t.Origin>/copy/<name>. It is nil
// if t lists none; cosignature keys do not sign logs.
func (t *Trust) CopyLog(name string) *Trust {
	origin := t.Origin + "/copy/" + name
	for _, k := range t.Copies {
		if k.Name != name || !strings.HasPrefix(k.Key, origin+"+") {
			continue
		}
		if _, err := note.NewVerifier(k.Key); err == nil { // not a cosignature key
			return &Trust{Log: k.Key, Origin: origin}
		}
	}
	return nil
}
