package volume_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate/volume"
	"logvault/vault"
)

// fill fills disk n, with changed options.
func (s *safe) fill(n int, change func(*volume.Options)) (volume.Result, error) {
	o := s.options(n)
	if change != nil {
		change(&o)
	}
	return volume.Fill(ctx, o)
}

// files are those of the vault, to be damaged.
func (s *safe) files() testvault.Files {
	s.Helper()
	f, err := testvault.Load(ctx, s.w.Vault)
	if err != nil {
		s.Fatal(err)
	}
	return f
}

// TestFillFromABadSource: the volume is not finished, the error says what is
// wrong, and an honest source then finishes it.
func TestFillFromABadSource(t *testing.T) {
	for what, tt := range map[string]struct {
		damage func(f testvault.Files)
		is     func(error) bool
	}{
		"segment missing":   {func(f testvault.Files) { delete(f, f.Find(".gz.pgp")) }, is(vault.ErrNotExist)},
		"segment altered":   {func(f testvault.Files) { f[f.Find(".gz.pgp")][9] ^= 1 }, damaged},
		"segment shorter":   {func(f testvault.Files) { f[f.Find(".gz.pgp")] = f[f.Find(".gz.pgp")][1:] }, damaged},
		"segment longer":    {func(f testvault.Files) { f[f.Find(".gz.pgp")] = append(f[f.Find(".gz.pgp")], 0) }, tooLarge},
		"index altered":     {func(f testvault.Files) { f[f.Find(".idx.pgp")][9] ^= 1 }, damaged},
		"record altered":    {func(f testvault.Files) { f[f.Find("register/")][9] ^= 1 }, damaged},
		"record missing":    {func(f testvault.Files) { delete(f, f.Find("register/")) }, is(vault.ErrNotExist)},
		"marker missing":    {func(f testvault.Files) { delete(f, vault.MarkerName) }, is(vault.ErrNoVault)},
		"checkpoint signed": {func(f testvault.Files) { f["ledger/checkpoint"][40] ^= 1 }, is(ledger.ErrUnsigned)},
		"bundle altered":    {func(f testvault.Files) { f[f.Find("ledger/tile/entries/")][40] ^= 1 }, damaged},
	} {
		s := newSafe(t, 2)
		s.room = 16 << 20
		if err := s.w.Register(ctx, "who asked"); err != nil {
			t.Fatal(err)
		}
		f := s.files()
		tt.damage(f)
		if _, err := s.fill(1, func(o *volume.Options) { o.From = f }); err == nil || !tt.is(err) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := vfs.ReadFile(s.disk, "/disk1/SHA256SUMS", 1<<20); err == nil {
			t.Errorf("%s: the volume is finished", what)
		}
		if res, err := s.fill(1, nil); err != nil || res.Volume.Objects != 5 {
			t.Errorf("%s, then the honest source: %+v, %v", what, res, err)
		}
		s.names(1)
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

func damaged(err error) bool {
	_, ok := errors.AsType[*ledger.DamageError](err)
	return ok
}

func tooLarge(err error) bool {
	_, ok := errors.AsType[*vault.TooLargeError](err)
	return ok
}

// vast is a source with an object of a size that no memory has.
type vast struct {
	testvault.Files
	name string
	size int64
}

func (v vast) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name == v.name {
		return io.NopCloser(strings.NewReader("")), v.size, nil
	}
	return v.Files.Open(ctx, name)
}

// TestFillVastObject: a signed entry may say any size, and a source agree.
func TestFillVastObject(t *testing.T) {
	s := newSafe(t, 1)
	s.room = 1 << 60
	seg := s.segment()
	seg.Size, seg.Object, seg.Stream, seg.Prev, seg.Offset = 1<<52, vault.HashOf([]byte("vast")), vault.StreamID{99}, -1, 0
	if err := s.w.Append(ctx, seg); err != nil {
		t.Fatal(err)
	}
	from := vast{s.files(), vault.SegmentName(seg.Day, seg.Object, seg.Codec), seg.Size}
	if _, err := s.fill(1, func(o *volume.Options) { o.From = from }); err == nil || !tooLarge(err) {
		t.Errorf("%v, expected a complaint about the size", err)
	}
}

// TestRecordsTakeRoom: the ledger does not say how large the record of a request is.
func TestRecordsTakeRoom(t *testing.T) {
	s := newSafe(t, 1)
	for i := range 3 {
		if err := s.w.Register(ctx, fmt.Sprint(i)+strings.Repeat("who asked, and why. ", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	room := int64(30_000) // for one of the records
	s.room = 1<<20 + s.w.Log.Checkpoint().Size*1536 + room
	for n := 1; ; n++ {
		res, err := s.fill(n, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.Volume.Bytes > room {
			t.Errorf("volume %d holds %d bytes of objects, expected at most %d", n, res.Volume.Bytes, room)
		}
		if res.Left == 0 {
			return
		}
	}
}

// TestFullDisk fails all writes from each point on: the error is the disk's, and
// with room again the same volume is finished.
func TestFullDisk(t *testing.T) {
	begun := newSafe(t, 2)
	step := 1
	if testing.Short() {
		step = 5
	}
	for at := 0; ; at += step {
		s := &safe{TB: t, w: begun.w, room: 16 << 20, disk: begun.disk.CrashClone(rand.New(rand.NewPCG(3, uint64(at))))}
		n := 0
		_, err := s.fill(1, func(o *volume.Options) {
			o.FS = vfs.NewFault(s.disk, func(op vfs.Op, _ string) error {
				if op != vfs.OpWrite && op != vfs.OpCreate {
					return nil
				}
				if n++; n > at {
					return syscall.ENOSPC
				}
				return nil
			})
		})
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("full from write %d: %v", at, err)
		}
		if res, err := s.fill(1, nil); err != nil || res.Volume.Objects != 4 {
			t.Fatalf("full from write %d, then room: %+v, %v", at, res, err)
		}
		s.names(1)
	}
}

// TestGoOnCrash kills a Fill that goes on with a finished volume: what the volume
// says of itself is true at each moment, or it says that it is not finished.
func TestGoOnCrash(t *testing.T) {
	begun := newSafe(t, 2)
	begun.room = 16 << 20
	if _, err := begun.fill(1, nil); err != nil {
		t.Fatal(err)
	}
	if err := begun.w.Seal(ctx, 40, "later\n"); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 3
	}
	for at := 0; ; at += step {
		s := &safe{TB: t, w: begun.w, room: begun.room, disk: begun.disk.CrashClone(rand.New(rand.NewPCG(4, uint64(at))))}
		n := 0
		_, err := s.fill(1, func(o *volume.Options) {
			o.FS = vfs.NewFault(s.disk, func(vfs.Op, string) error {
				if n++; n > at {
					return errors.New("killed")
				}
				return nil
			})
		})
		s.disk = s.disk.CrashClone(rand.New(rand.NewPCG(5, uint64(at))))
		if sums, rerr := vfs.ReadFile(s.disk, "/disk1/SHA256SUMS", 1<<20); rerr == nil {
			for line := range strings.Lines(string(sums)) {
				hash, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
				if data, rerr := vfs.ReadFile(s.disk, "/disk1/"+name, 1<<30); rerr != nil || vault.HashOf(data).String() != hash {
					t.Fatalf("crash before operation %d: the volume is called finished, but %s is not what SHA256SUMS says (%v)", at, name, rerr)
				}
			}
		}
		if res, err := s.fill(1, nil); err != nil || res.Volume.Objects != 6 {
			t.Fatalf("crash before operation %d, then %+v, %v", at, res, err)
		}
		s.names(1)
		if err == nil {
			return
		}
	}
}

// TestDiskPulledOut: when the disk goes away in the middle, the directory that it
// was mounted on must not pass for it.
func TestDiskPulledOut(t *testing.T) {
	s := newSafe(t, 2)
	s.room = 16 << 20
	segments := 0
	_, err := s.fill(1, func(o *volume.Options) {
		o.FS = vfs.NewFault(s.disk, func(op vfs.Op, name string) error {
			if op != vfs.OpCreate || !strings.Contains(name, "/segments/") {
				return nil
			}
			if segments++; segments == 2 {
				s.empty("/disk1")
			}
			return nil
		})
	})
	if segments < 2 || err == nil {
		t.Fatalf("%d segments, error %v", segments, err)
	}
	if _, err := vfs.ReadFile(s.disk, "/disk1/SHA256SUMS", 1<<20); err == nil {
		t.Error("the mount point is called a finished volume")
	}
	if cat, err := volume.Load(s.disk, "/state/volumes.json"); err != nil || len(cat.Volumes) != 0 {
		t.Errorf("the catalogue has %+v, %v", cat, err)
	}
}

// empty removes all files below a directory, and all directories.
func (s *safe) empty(dir string) {
	s.Helper()
	list, err := s.disk.ReadDir(dir)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range list {
		name := dir + "/" + e.Name()
		if e.IsDir() {
			s.empty(name)
		}
		if err := s.disk.Remove(name); err != nil {
			s.Fatal(err)
		}
	}
}

// TestRottenVolume: what is on the volume already is read, and rot is told.
func TestRottenVolume(t *testing.T) {
	for _, part := range []string{".gz.pgp", ".idx.pgp", "VAULT", "ledger/checkpoints/"} {
		s := newSafe(t, 1)
		s.room = 16 << 20
		head := vault.KeptCheckpointName(vault.LedgerPrefix, s.w.Log.Checkpoint().Size)
		if err := s.w.Vault.Put(ctx, head, int64(len(s.w.Log.Checkpoint().Raw)), strings.NewReader(string(s.w.Log.Checkpoint().Raw))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.fill(1, nil); err != nil {
			t.Fatal(err)
		}
		name := "/disk1/" + s.files().Find(part)
		data := []byte(s.read(name))
		data[len(data)/2] ^= 1
		if err := vfs.WriteFile(s.disk, name, data, 0o440); err != nil {
			t.Fatal(err)
		}
		if _, err := s.fill(1, nil); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("%s rotten: %v, expected %v", part, err, vault.ErrConflict)
		}
	}
}

// TestHeaders: a directory is taken for what it says, and no more.
func TestHeaders(t *testing.T) {
	for header, want := range map[string]error{
		"logvault-volume v2\nmore\n":            vault.ErrNewer,
		"logvault-volume v10\n":                 vault.ErrNewer,
		"holiday pictures\n":                    volume.ErrForeign,
		"":                                      volume.ErrForeign,
		"logvault-volume v1\nvault 00\n":        volume.ErrOtherVolume,
		"logvault-volume v1":                    volume.ErrOtherVolume,
		"logvault-volume vx\n":                  volume.ErrForeign,
		"logvault-volume v-1\n":                 volume.ErrForeign,
		strings.Repeat("logvault-volume", 9):    volume.ErrForeign,
		strings.Repeat("holiday pictures", 999): volume.ErrForeign,
	} {
		s := newSafe(t, 1)
		s.room = 16 << 20
		if err := vfs.CreateFile(s.disk, "/disk1/VOLUME", []byte(header), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.fill(1, nil)
		for _, e := range []error{vault.ErrNewer, volume.ErrForeign, volume.ErrOtherVolume} {
			if errors.Is(err, e) != (e == want) {
				t.Errorf("%.40q: %v, expected %v", header, err, want)
			}
		}
		if left, _ := s.disk.ReadDir("/disk1"); len(left) != 1 || err != nil && !strings.HasPrefix(err.Error(), "/disk1/VOLUME: ") {
			t.Errorf("%.40q: %v, and %d names on the disk", header, err, len(left))
		}
	}
}

// TestBadCatalogues are refused, and a newer one as such.
func TestBadCatalogues(t *testing.T) {
	sums := strings.Repeat("0", 64)
	one := `{"number":1,"label":"","first_entry":0,"next_entry":5,"ledger_size":5,"objects":1,"bytes":1,"full":true,"sums":"` + sums + `","made":"2026-11-21T00:00:00Z"}`
	for text, want := range map[string]string{
		``:                        "unexpected end",
		`null`:                    "version 0",
		`{"version":1,"extra":1}`: "unknown field",
		`{"version":1} {}`:        "after top-level value",
		`{"version":"1"}`:         "version",
		`{"version":0}`:           "version 0",
		`{"version":1,"volumes":[` + one + `,` + one + `]}`:                                               "volume 2 does not continue",
		`{"version":1,"volumes":[` + strings.Replace(one, `"first_entry":0`, `"first_entry":1`, 1) + `]}`: "volume 1 does not continue",
		`{"version":1,"volumes":[` + strings.Replace(one, `"ledger_size":5`, `"ledger_size":4`, 1) + `]}`: "volume 1 does not continue",
		`{"version":1,"volumes":[` + strings.Replace(one, sums, "x", 1) + `]}`:                            "volume 1",
		`{"version":1,"volumes":[` + strings.Replace(one, `"bytes":1`, `"bytes":-1`, 1) + `]}`:            "volume 1 does not continue",
	} {
		if _, err := volume.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, vault.ErrNewer) {
			t.Errorf("%s: %v, expected it to say %q", text, err, want)
		}
	}
	if _, err := volume.Parse([]byte(`{"version":2,"unknown":[]}`)); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("version 2: %v", err)
	}
	s := newSafe(t, 1)
	s.room = 16 << 20
	if err := vfs.MkdirAll(s.disk, "/state", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := vfs.CreateFile(s.disk, "/state/volumes.json", []byte(`{"version":2}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fill(1, nil); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("filling under a newer catalogue: %v", err)
	}
	if list, err := s.disk.ReadDir("/disk1"); err != nil || len(list) != 0 {
		t.Errorf("it wrote %v, %v", list, err)
	}
}

// TestFillTwiceAtOnce: the catalogue has one writer.
func TestFillTwiceAtOnce(t *testing.T) {
	s := newSafe(t, 1)
	s.room = 16 << 20
	if err := vfs.MkdirAll(s.disk, "/state", 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := s.disk.Lock("/state/volumes.json.lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.fill(1, nil); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("while another fills: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fill(1, nil); err != nil {
		t.Error(err)
	}
}
