package volume_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/fixtures/testvault"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/replicate/volume"
	"logvault/vault"
)

var ctx = context.Background()

// safe is a machine that fills volumes; disks are mounted at /disk<n>.
type safe struct {
	testing.TB
	disk *vfs.Mem
	w    *testvault.World
	room int64
}

func newSafe(t testing.TB, segments int) *safe {
	w, err := testvault.New(7)
	if err != nil {
		t.Fatal(err)
	}
	for i := range segments {
		if err := w.Seal(ctx, byte(i+1), fmt.Sprintf("line of stream %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	s := &safe{TB: t, disk: vfs.NewMem(), w: w}
	for n := range 9 {
		if err := vfs.MkdirAll(s.disk, fmt.Sprintf("/disk%d", n+1), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *safe) options(n int) volume.Options {
	return volume.Options{FS: s.disk, From: s.w.Vault, Trust: s.w.Trust, Dir: fmt.Sprintf("/disk%d", n), Room: s.room,
		Catalogue: "/state/volumes.json", Label: fmt.Sprintf("shelf %d", n), Now: func() time.Time { return testvault.Start.Add(time.Hour) }}
}

// read returns a file of the machine.
func (s *safe) read(name string) string {
	data, err := vfs.ReadFile(s.disk, name, 1<<30)
	if err != nil {
		s.Fatal(err)
	}
	return string(data)
}

// names lists what a volume's SHA256SUMS names, and checks every file of it.
func (s *safe) names(n int) (names []string) {
	s.Helper()
	dir := fmt.Sprintf("/disk%d/", n)
	for line := range strings.Lines(s.read(dir + "SHA256SUMS")) {
		hash, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if got := vault.HashOf([]byte(s.read(dir + name))).String(); got != hash {
			s.Errorf("disk %d: %s has SHA-256 %s, expected %s", n, name, got, hash)
		}
		names = append(names, name)
	}
	if s.read(fmt.Sprintf("/state/volumes.json.%d.SHA256SUMS", n)) != s.read(dir+"SHA256SUMS") {
		s.Errorf("disk %d: the catalogue's copy of SHA256SUMS differs", n)
	}
	return names
}

// segment is the last segment entry of the ledger.
func (s *safe) segment() (last *entry.Segment) {
	s.Helper()
	tree := s.w.Log.Tree()
	err := tree.Entries(ctx, 0, tree.Size(), func(_ int64, data []byte) error {
		e, err := entry.Decode(data)
		if seg, ok := e.(*entry.Segment); ok {
			last = seg
		}
		return err
	})
	if err != nil || last == nil {
		s.Fatalf("no segment: %v", err)
	}
	return last
}

// objects are the segments and indexes of the vault.
func (s *safe) objects() (names []string) {
	if err := s.w.Vault.List(ctx, "segments/", func(i vault.Info) error { names = append(names, i.Name); return nil }); err != nil {
		s.Fatal(err)
	}
	return names
}

func TestFill(t *testing.T) {
	s := newSafe(t, 12)
	s.room = 1<<20 + s.w.Log.Checkpoint().Size*1536 + 2<<10 // the ledger's share, and a few objects
	all, disks := []string{}, 0
	for left := int64(1); left > 0; {
		disks++
		res, err := volume.Fill(ctx, s.options(disks))
		if err != nil {
			t.Fatal(err)
		}
		left = res.Left
		for _, name := range s.names(disks) {
			if strings.HasPrefix(name, "keys/") {
				t.Errorf("disk %d holds %s", disks, name)
			}
			if strings.HasPrefix(name, "segments/") {
				all = append(all, name)
			}
		}
	}
	if slices.Sort(all); !slices.Equal(all, s.objects()) {
		t.Errorf("%d disks hold %v, expected %v", disks, all, s.objects())
	}
	if disks < 3 {
		t.Errorf("everything is on %d disks, expected several", disks)
	}
	cat, err := volume.Load(s.disk, "/state/volumes.json")
	if err != nil || len(cat.Volumes) != disks {
		t.Fatalf("catalogue %+v, %v", cat, err)
	}
	if v := cat.Volumes[disks-1]; v.Number != disks || v.Label != fmt.Sprintf("shelf %d", disks) || v.First >= v.Next || v.Next != cat.Next() {
		t.Errorf("the last entry is on %+v", v)
	}
	if !strings.Contains(s.read("/disk1/README.txt"), "sha256sum --check --quiet SHA256SUMS") {
		t.Error("the README does not say how to check")
	}
}

// TestFillAgain goes on with a volume that has room, and refuses others.
func TestFillAgain(t *testing.T) {
	s := newSafe(t, 2)
	s.room = 16 << 20
	fill := func(n int, change func(*volume.Options)) (volume.Result, error) {
		o := s.options(n)
		if change != nil {
			change(&o)
		}
		return volume.Fill(ctx, o)
	}
	if _, err := fill(1, nil); err != nil {
		t.Fatal(err)
	}
	if res, err := fill(1, nil); err != nil || res.Copied != 0 {
		t.Errorf("nothing new: %+v, %v", res, err)
	}
	if err := s.w.Seal(ctx, 40, "later\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := fill(2, nil); !errors.Is(err, volume.ErrOtherVolume) {
		t.Errorf("an empty disk while volume 1 has room: %v", err)
	}
	if res, err := fill(1, nil); err != nil || res.Copied != 2 || res.Volume.Number != 1 || res.Volume.Objects != 6 {
		t.Errorf("more: %+v, %v", res, err)
	}
	s.names(1)
	if err := s.w.Seal(ctx, 41, "later still\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := fill(2, func(o *volume.Options) { o.New = true }); err != nil || res.Volume.Number != 2 || res.Volume.Objects != 2 {
		t.Errorf("another: %+v, %v", res, err)
	}
	if _, err := fill(1, nil); !errors.Is(err, volume.ErrOtherVolume) {
		t.Errorf("volume 1 again: %v", err)
	}
	if err := vfs.CreateFile(s.disk, "/disk3/holiday.jpg", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fill(3, func(o *volume.Options) { o.New = true }); !errors.Is(err, vault.ErrNotEmpty) {
		t.Errorf("a disk with other files: %v", err)
	}
	if _, err := fill(2, func(o *volume.Options) {
		o.Trust = &ledger.Trust{Log: o.Trust.Log, Origin: o.Trust.Origin, KnownSize: 999}
	}); !errors.Is(err, ledger.ErrBehind) {
		t.Errorf("a ledger that was cut off: %v", err)
	}
	other := newSafe(t, 1)
	if _, err := fill(2, func(o *volume.Options) { o.From, o.Trust = other.w.Vault, other.w.Trust }); !errors.Is(err, volume.ErrOtherVolume) {
		t.Errorf("another vault: %v", err)
	}
	if _, err := fill(2, func(o *volume.Options) { o.Room = 1 }); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("no room: %v", err)
	}
}

// TestFillCrash kills it before each operation of the disk and cuts the power;
// the next Fill finishes the volume, and writes no finished object again.
func TestFillCrash(t *testing.T) {
	begun := newSafe(t, 2)
	step := 1
	if testing.Short() {
		step = 4
	}
	for at := 0; ; at += step {
		s := &safe{TB: t, w: begun.w, room: 16 << 20, disk: begun.disk.CrashClone(rand.New(rand.NewPCG(1, uint64(at))))}
		n, dead := 0, errors.New("killed")
		o := s.options(1)
		o.FS = vfs.NewFault(s.disk, func(vfs.Op, string) error {
			if n++; n > at {
				return dead
			}
			return nil
		})
		_, err := volume.Fill(ctx, o)
		s.disk = s.disk.CrashClone(rand.New(rand.NewPCG(2, uint64(at))))
		if res, err := volume.Fill(ctx, s.options(1)); err != nil || res.Volume.Objects != 4 || res.Left != 0 {
			t.Fatalf("crash before operation %d: then %+v, %v", at, res, err)
		}
		s.names(1)
		if t.Failed() {
			t.Fatalf("crash before operation %d", at)
		}
		if err == nil {
			t.Logf("%d crashes", at)
			return
		}
	}
}

func FuzzParse(f *testing.F) {
	s := newSafe(f, 1)
	s.room = 16 << 20
	if _, err := volume.Fill(ctx, s.options(1)); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(s.read("/state/volumes.json")))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"vault":"","origin":"","volumes":[{"number":2}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := volume.Parse(data)
		if err != nil {
			return
		}
		next := int64(0) // each entry is on one volume
		for _, v := range c.Volumes {
			if v.First != next || v.Next < v.First {
				t.Errorf("entry %d is on no volume or on two: %+v", next, v)
			}
			next = v.Next
		}
		if next != c.Next() {
			t.Errorf("the next entry is %d, expected %d", c.Next(), next)
		}
	})
}
