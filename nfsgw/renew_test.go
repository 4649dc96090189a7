package nfsgw_test

import (
	"testing"
	"time"

	"logvault/fixtures/nfstest"
	"logvault/ingest"
	"logvault/nfsgw"
	"logvault/vault"
)

// TestRenew puts a gateway behind what was archived: after Renew the same handles
// work, each file is empty, and what is written goes to a generation that nothing
// was archived under.
func TestRenew(t *testing.T) {
	m := newMachine(t)
	c := m.g.dial(nfstest.Options{})
	handles := map[string]nfstest.Handle{}
	write := func(c *nfstest.Client, name, text string) {
		t.Helper()
		if _, err := c.Write(handles[name], 0, []byte(text), nfstest.FileSync); err != nil {
			t.Fatal(err)
		}
	}
	root, err := c.Mount("/proxy")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.log", "b.log"} {
		if handles[name], err = c.Create(root, name); err != nil {
			t.Fatal(err)
		}
		write(c, name, "before "+name+"\n")
	}
	if err := m.g.close(); err != nil {
		t.Fatal(err)
	}
	before := m.due(t, func(s *ingest.Spool, due []vault.Piece) {
		for range 2 { // after a crash it is done again
			files, err := nfsgw.Renew(t.Context(), s, func(id vault.StreamID) int64 {
				if id == due[0].Stream {
					return 7 // six were archived since
				}
				return 0
			}, time.Now())
			if err != nil || files != 2 {
				t.Fatalf("%d files, %v", files, err)
			}
		}
	})
	m.boot("127.0.0.1:0")
	c = m.g.dial(nfstest.Options{})
	for name, h := range handles {
		if a, err := c.Getattr(h); err != nil || a.Size != 0 {
			t.Errorf("%s: size %d, %v, expected an empty file", name, a.Size, err)
		}
		write(c, name, "after "+name+"\n")
	}
	if err := m.g.close(); err != nil {
		t.Fatal(err)
	}
	m.due(t, func(s *ingest.Spool, due []vault.Piece) {
		for _, p := range before {
			if p.Gen != 0 {
				t.Errorf("generation %d, expected 0 before", p.Gen)
			}
			want := int64(2)
			if p.Stream == before[0].Stream {
				want = 8
			}
			if got := s.Size(p.Stream, want); got == 0 || s.Size(p.Stream, want+1) != 0 {
				t.Errorf("generation %d of %s is empty", want, p.Name)
			}
		}
	})
}

// due opens the spool of a machine whose gateway has ended.
func (m *machine) due(t *testing.T, look func(*ingest.Spool, []vault.Piece)) []vault.Piece {
	t.Helper()
	cfg, _ := m.config()
	s, err := ingest.OpenSpool(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	due, err := s.Due(t.Context(), vault.DueOptions{Now: time.Now(), All: true})
	if err != nil {
		t.Fatal(err)
	}
	look(s, due)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return due
}
