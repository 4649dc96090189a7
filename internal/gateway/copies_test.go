package gateway

import (
	"slices"
	"strings"
	"testing"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/vault"
)

// TestSurvey: a copy counts by what its own pinned log says, and what is not the
// same history, absent or unpinned is a problem of that copy alone.
func TestSurvey(t *testing.T) {
	w := newWorld(t)
	w.init()
	s := w.open()
	w.put(s, 1, "a line\n")
	_, err := s.Seal(ctx)
	w.must(err)
	w.must(s.Close())
	early := w.cfg.Vault + ".early" // not a replica: it has no log
	w.must(copyAll(w.mem, w.cfg.Vault, early))
	s = w.open()
	w.put(s, 2, "another line\n")
	_, err = s.Seal(ctx)
	w.must(err)
	w.must(s.Close())
	foreign := newWorld(t)
	foreign.init()
	w.cfg.Copies = []config.Copy{
		{Name: "early", Place: early, Media: "disk", Site: "lyon"},
		{Name: "gone", Place: early + ".not", Media: "tape", Site: "nice"},
		{Name: "paper", Media: "paper"},
		{Name: "safe", Volumes: "/volumes.json", Media: "disk"},
	}
	w.must(vfs.CreateFile(w.mem, "/volumes.json", []byte(`{"version":1,"vault":"","origin":"somebody.else","volumes":[{"number":1,"label":"","first_entry":0,"next_entry":2,`+
		`"ledger_size":2,"objects":1,"bytes":1,"full":false,"sums":"`+vault.Hash{}.String()+`","made":"2026-11-21T00:00:00Z"}]}`), 0o600))
	st, err := SurveyCopies(ctx, w.env(), w.cfg)
	w.must(err)
	for i, want := range []struct{ name, problem, erasable string }{
		{"primary", "", "yes"},
		{"early", "no key of the log of copy early", "yes"},
		{"gone", "no vault here", "unknown"},
		{"paper", "no place", "unknown"},
		{"safe", "are of somebody.else", "unknown"},
	} {
		k := st.Copies[i]
		if k.Name != want.name || (want.problem == "") != (k.Problem == "") || !strings.Contains(k.Problem, want.problem) || k.Erasable != want.erasable {
			t.Errorf("copy %d: %+v, expected %+v", i, k, want)
		}
		if (k.Size > 0) != (k.Name == "primary") {
			t.Errorf("copy %s counts with %d entries", k.Name, k.Size)
		}
	}
	if st.Whole != 1 || st.Media != 1 || st.Sites != 0 || st.Good() || st.Single != st.Copies[0].Size || st.SingleBytes == 0 {
		t.Errorf("survey %+v", st)
	}
	// A copy with another history.
	w.must(removeAll(w.mem, early))
	w.must(vfs.MkdirAll(w.mem, early, 0o700))
	w.must(eachFile(foreign.mem, foreign.cfg.Vault, func(name string, data []byte) {
		to := early + strings.TrimPrefix(name, foreign.cfg.Vault)
		w.must(vfs.MkdirAll(w.mem, to[:strings.LastIndex(to, "/")], 0o700))
		w.must(vfs.CreateFile(w.mem, to, data, 0o600))
	}))
	if st, err = SurveyCopies(ctx, w.env(), w.cfg); err != nil || !strings.Contains(st.Copies[1].Problem, "signed") || st.Copies[1].Size != 0 {
		t.Errorf("another history: %+v, %v", st.Copies[1], err)
	}
}

func TestSnapshots(t *testing.T) {
	disk := vfs.NewMem()
	for _, dir := range []string{"/tank/vault/keys", "/tank/.zfs/snapshot/daily/vault/keys", "/tank/.zfs/snapshot/empty", "/tank/vault/.snapshots/7/snapshot/keys", "/tank/other/.snapshot/x/keys"} {
		if err := vfs.MkdirAll(disk, dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got := snapshotDirs(disk, "/tank/vault/keys")
	want := []string{"/tank/vault/.snapshots/7/snapshot/keys", "/tank/.zfs/snapshot/daily/vault/keys"}
	if !slices.Equal(got, want) {
		t.Errorf("snapshots %q, expected %q", got, want)
	}
	if got := snapshotDirs(disk, "/elsewhere"); len(got) != 0 {
		t.Errorf("snapshots %q of what is not there", got)
	}
}
