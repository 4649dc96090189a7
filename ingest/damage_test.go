package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
	"logvault/vault"
)

const canary = "canary-4711-of-a-client"

// smallSpool makes a spool of a few small files with known content in two
// streams, and returns its disk as a kill or a clean stop leaves it, everything
// on the disk.
func smallSpool(t testing.TB, clean bool) (*rig, map[vault.StreamID]string) {
	r := newRig(t, func(c *SpoolConfig) { c.FileBytes = 8 << 10; c.Log = slog.New(slog.DiscardHandler) })
	want := map[vault.StreamID]string{}
	r.add(streamA)
	r.add(streamB)
	r.must(r.s.SetMeta(ctx, vault.KV{Key: canary, Value: []byte(canary)}))
	for i := range 7 {
		for _, id := range []vault.StreamID{streamA, streamB} {
			data := lines(genKey{id, 0}, int64(len(want[id])), 200+int64(i*31)) + canary + "\n"
			r.write(id, 0, int64(len(want[id])), data, i%3 > 0)
			want[id] += data
		}
	}
	if clean {
		r.must(r.s.Close())
	} else {
		r.must(r.s.Sync(ctx))
	}
	return r, want
}

// on returns a rig of the same kind over another disk, not opened.
func (r *rig) on(mem *vfs.Mem) *rig {
	c := &rig{t: r.t, mem: mem, cfg: r.cfg, wall: r.wall, boot: r.boot}
	c.cfg.FS = mem
	c.cfg.Now = func() time.Time { return c.wall }
	c.cfg.Boot = func() time.Duration { return c.boot }
	return c
}

// files lists the files of a disk that lie in the spool's two directories.
func (r *rig) files() map[string][]byte {
	r.t.Helper()
	out := map[string][]byte{}
	for _, dir := range []string{r.cfg.Dir, r.cfg.KeyDir} {
		entries, err := r.mem.ReadDir(dir)
		r.must(err)
		for _, e := range entries {
			data, err := vfs.ReadFile(r.mem, path.Join(dir, e.Name()), 1<<30)
			r.must(err)
			out[path.Join(dir, e.Name())] = data
		}
	}
	return out
}

// flip inverts bits of one byte of a file.
func (r *rig) flip(name string, at int64, mask byte) {
	r.t.Helper()
	f, err := r.mem.OpenRW(name)
	r.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	r.must(err)
	b[0] ^= mask
	_, err = f.WriteAt(b, at)
	r.must(err)
	r.must(f.Sync())
	r.must(f.Close())
}

// TestFlip changes every byte of a small spool. Nothing panics, no wrong byte
// comes out, and where bytes are missing it is said so.
func TestFlip(t *testing.T) {
	for _, clean := range []bool{true, false} {
		base, want := smallSpool(t, clean)
		rng := rand.New(rand.NewPCG(1, 1))
		tried, lost, refused := 0, 0, 0
		files := base.files()
		for _, name := range slices.Sorted(maps.Keys(files)) { // the same flips in every run
			data := files[name]
			for at := range data {
				zeros := data[at] == 0 && at > 0 && data[at-1] == 0
				if zeros && at%97 > 0 || at%flipEvery > 0 {
					continue // the unused rest of a file
				}
				r := base.on(base.mem.CrashClone(rng))
				mask := []byte{0x01, 0x80, 0xff}[rng.IntN(3)]
				r.flip(name, int64(at), mask)
				tried++
				complete, err := r.checkDamaged(want)
				what := fmt.Sprintf("clean=%v: %s byte %d ^ %#x", clean, name, at, mask)
				switch {
				case err != nil && strings.HasSuffix(name, fileSuffix):
					t.Fatalf("%s: %v", what, err)
				case err != nil:
					refused++
				case !complete:
					lost++
					if st := r.s.Stats(); st.Damaged == 0 && st.Torn == 0 {
						t.Fatalf("%s: bytes are missing and nothing is said", what)
					}
				}
			}
		}
		if lost == 0 || refused == 0 {
			t.Errorf("clean=%v: %d flips lost bytes, %d refused, expected some", clean, lost, refused)
		}
		t.Logf("clean=%v: %d flips, %d with bytes lost and told, %d refused to start", clean, tried, lost, refused)
	}
}

// checkDamaged opens the spool and reports whether all bytes of want come out;
// wrong ones fail the test.
func (r *rig) checkDamaged(want map[vault.StreamID]string) (bool, error) {
	r.t.Helper()
	s, err := r.cfg.open(ctx)
	if err != nil {
		return false, err
	}
	r.s = s
	complete := true
	for id := range want {
		if err := s.EndGeneration(ctx, id, 0); errors.Is(err, ErrNoStream) {
			complete = false
		} else {
			r.must(err)
		}
	}
	got := map[vault.StreamID]int64{}
	for n := int64(0); ; {
		pieces := r.due(true)
		st := s.Stats()
		if len(pieces) == 0 && st.Unsealed == 0 {
			break
		}
		if n++; n > 1000 {
			r.t.Fatal("the spool cannot be emptied")
		}
		for _, p := range pieces {
			if p.Kind == vault.PieceData {
				text, err := s.Read(ctx, p, nil)
				if errors.Is(err, errDamaged) {
					continue // noted; the next Due sees a hole
				}
				r.must(err)
				if all := want[p.Stream]; p.Offset+p.Span > int64(len(all)) || string(text) != all[p.Offset:p.Offset+p.Span] {
					r.t.Fatalf("wrong bytes at %d of stream %s", p.Offset, p.Stream)
				}
				got[p.Stream] += p.Span
			}
			r.must(s.Release(ctx, p, n))
		}
	}
	for id, all := range want {
		complete = complete && got[id] == int64(len(all))
	}
	found := 0
	r.must(s.Meta("", func(kv vault.KV) error {
		found++
		if kv.Key != canary || string(kv.Value) != canary {
			r.t.Fatalf("wrong metadata %q", kv.Key)
		}
		return nil
	}))
	return complete && found == 1, nil
}

// TestTornOrDamaged: what is broken after the last proven group was never
// acknowledged; before it, it is damage.
func TestTornOrDamaged(t *testing.T) {
	tests := []struct {
		name          string
		group         int // to break, counted from the first, or from the last if negative
		torn, damaged bool
	}{
		{"last group", -1, true, false},
		{"the one before", -2, false, true},
		{"first", 0, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Log = slog.New(slog.DiscardHandler)
			r.add(streamA)
			for i := range 5 {
				r.write(streamA, 0, int64(4*i), fmt.Sprintf("%03d\n", i), true)
			}
			var at []int64
			f := r.s.cur
			_, err := f.scan(func(pos int64, _ groupHeader, _ []byte) error { at = append(at, pos); return nil })
			r.must(err)
			n := tt.group
			if n < 0 {
				n += len(at)
			}
			r.flip(f.names.file, at[n]+groupHead+3, 1)
			r.open()
			st := r.s.Stats()
			if (st.Torn > 0) != tt.torn || (st.Damaged > 0) != tt.damaged {
				t.Errorf("torn %d, damaged %d", st.Torn, st.Damaged)
			}
			_, aside := r.files()[f.names.file+damagedSuffix]
			_, key := r.files()[f.names.key]
			if aside != tt.damaged || key != tt.damaged {
				t.Errorf("kept aside: file %v, key %v", aside, key)
			}
			r.reopen()
			if got := r.s.Stats().Damaged > 0; got != tt.damaged {
				t.Error("the damaged file was forgotten at the next start")
			}
		})
	}
}

// TestDamageAtRuntime damages the payload of a closed file, which a start does
// not read: the intact groups come out, the rest is a gap, the file stays.
func TestDamageAtRuntime(t *testing.T) {
	r, want := smallSpool(t, true)
	r.open()
	first := r.s.table.stream(streamA).gen(0).data[0]
	r.flip(r.s.slots[first.slot()].names.file, first.pos()+groupHead+5, 1)
	r.must(r.s.Close())
	if complete, err := r.checkDamaged(want); err != nil || complete {
		t.Fatalf("complete %v, %v", complete, err)
	}
	st := r.s.Stats()
	if st.Damaged != 1 || len(st.DamagedStreams) == 0 {
		t.Errorf("stats %+v", st)
	}
	r.reopen()
	if st := r.s.Stats(); st.Damaged != 1 {
		t.Errorf("after a restart: %+v", st)
	}
}

// TestCanary looks for received bytes, names and metadata in clear in every file.
func TestCanary(t *testing.T) {
	for _, clean := range []bool{true, false} {
		r, _ := smallSpool(t, clean)
		if !clean {
			p := r.due(true)
			r.must(r.s.Intend(ctx, vault.Intent{Piece: p[0], Entry: []byte(canary)}))
			r.write(streamA, 0, 0, canary, true) // a conflict
		}
		files := r.files()
		for name, data := range files {
			for _, word := range []string{canary, canary[:8], "access.log", "proxy1"} {
				if bytes.Contains(data, []byte(word)) {
					t.Errorf("%s holds %q in clear", name, word)
				}
			}
			if info, err := r.mem.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
			}
		}
		if len(files) < 4 {
			t.Errorf("%d files", len(files))
		}
	}
}

// TestKeysGo: a released file leaves nothing, its key is overwritten first.
func TestKeysGo(t *testing.T) {
	r, _ := smallSpool(t, true)
	r.open()
	keys := map[string][]byte{}
	for name, data := range r.files() {
		if strings.HasSuffix(name, keySuffix) {
			keys[name] = data
		}
	}
	for _, id := range []vault.StreamID{streamA, streamB} {
		r.must(r.s.EndGeneration(ctx, id, 0))
	}
	r.sealAll()
	r.reopen()
	left := r.files()
	if len(left) > 5 {
		t.Errorf("%d files left", len(left))
	}
	for name, old := range keys {
		if bytes.Equal(left[name], old) && left[strings.Replace(strings.Replace(name, "/keys", "/spool", 1), keySuffix, fileSuffix, 1)] == nil {
			t.Errorf("%s outlived its file", name)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(r *rig)
		want  error
	}{
		{"no marker", func(r *rig) { r.must(r.mem.Remove("/spool/" + markerName)) }, ErrNoSpool},
		{"not mounted", func(r *rig) { r.cfg.Dir = "/elsewhere" }, ErrNoSpool},
		{"newer spool", func(r *rig) {
			r.must(vfs.WriteFile(r.mem, "/spool/"+markerName, []byte("logvault-spool v2\n"), 0o600))
		}, vault.ErrNewer},
		{"no key", func(r *rig) { r.must(r.mem.Remove(r.cfg.names(2).key)) }, ErrKeyMissing},
		{"other key directory", func(r *rig) { r.cfg.KeyDir = "/elsewhere" }, ErrKeyMissing},
		{"newer file", func(r *rig) { r.newer(r.cfg.names(2).file, headerSize) }, vault.ErrNewer},
		{"newer key", func(r *rig) { r.newer(r.cfg.names(2).key, keySize) }, vault.ErrNewer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := smallSpool(t, true)
			before := len(r.files())
			dir, keys := r.cfg.Dir, r.cfg.KeyDir
			tt.spoil(r)
			if _, err := r.cfg.open(ctx); !errors.Is(err, tt.want) {
				t.Errorf("open: %v, expected %v", err, tt.want)
			}
			r.cfg.Dir, r.cfg.KeyDir = dir, keys
			if after := len(r.files()); after < before-1 {
				t.Errorf("%d files of %d left", after, before)
			}
		})
	}
}

// newer makes a whole head of version 2.
func (r *rig) newer(name string, size int) {
	r.t.Helper()
	b := bytes.Clone(r.files()[name])
	b[11] = 2
	copy(b[size-8:], appendCheck(bytes.Clone(b[:size-8]))[size-8:])
	f, err := r.mem.OpenRW(name)
	r.must(err)
	_, err = f.WriteAt(b[:size], 0)
	r.must(err)
	r.must(f.Close())
}

func TestCreateErrors(t *testing.T) {
	r := newRig(t)
	if err := r.cfg.create(ctx); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("create over a spool: %v", err)
	}
	cfg := r.cfg
	for _, bad := range []int64{1 << 20, 4<<20 + 1, 256 << 20} {
		cfg.FileBytes = bad
		if err := CreateSpool(ctx, cfg); err == nil {
			t.Errorf("file size %d accepted", bad)
		}
	}
	cfg.FileBytes, cfg.MaxBytes = 4<<20, 15<<20
	if _, err := OpenSpool(ctx, cfg); err == nil {
		t.Errorf("spool size %d accepted", cfg.MaxBytes)
	}
}
