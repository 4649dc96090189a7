package gateway

import (
	"testing"
	"time"

	"logvault/vault"
)

// A name that a proxy gave expires with the class of its source; that of a
// source which is not configured any more stays, for nobody knows its class.
func TestRetainUntil(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	defer s.Close()
	source := w.cfg.Sources[0].Name
	until, ok := s.retainUntil("nobody", begin)
	if ok {
		t.Errorf("a source that there is not: until %v", until)
	}
	class, _ := s.Config().ClassOf(vault.Source(source))
	until, ok = s.retainUntil(vault.Source(source), begin)
	if want := class.RetainUntil(begin); !ok || !until.Equal(want) || until.Sub(begin) < 365*24*time.Hour {
		t.Errorf("until %v, %t; expected %v", until, ok, want)
	}
}
