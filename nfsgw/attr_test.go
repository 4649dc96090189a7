package nfsgw

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	nfs "github.com/willscott/go-nfs"
	"github.com/willscott/go-nfs/file"
)

// fileInfo gives go-nfs our attributes. The mode has no type bits: go-nfs puts
// Go's own on the wire.
type fileInfo struct{ a *attr }

func (i fileInfo) Name() string       { return "" }
func (i fileInfo) Size() int64        { return int64(i.a.size) }
func (i fileInfo) Mode() fs.FileMode  { return fs.FileMode(i.a.mode) }
func (i fileInfo) ModTime() time.Time { return time.Unix(0, i.a.mtime) }
func (i fileInfo) IsDir() bool        { return i.a.kind == typeDir }
func (i fileInfo) Sys() any {
	return &file.FileInfo{Nlink: i.a.nlink, UID: i.a.uid, GID: i.a.gid, Fileid: i.a.id}
}

func oracle(a *attr) *nfs.FileAttribute {
	f := nfs.ToFileAttribute(fileInfo{a}, "")
	f.FSID = a.fsid // go-nfs has one file system and one time
	f.Atime = nfs.ToNFSTime(time.Unix(0, a.atime))
	f.Ctime = nfs.ToNFSTime(time.Unix(0, a.ctime))
	return f
}

// TestAttributesMatchGoNFS holds our encodings against an independent
// implementation, byte for byte.
func TestAttributesMatchGoNFS(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() attr {
		return attr{
			kind: 1 + rng.Uint32N(2), mode: rng.Uint32N(0o1000), nlink: rng.Uint32(), uid: rng.Uint32(), gid: rng.Uint32(),
			size: rng.Uint64() >> 1, fsid: rng.Uint64(), id: rng.Uint64(),
			atime: rng.Int64N(4e18), mtime: rng.Int64N(4e18), ctime: rng.Int64N(4e18),
		}
	}
	for range 1000 {
		pre, post := random(), random()
		w := wcc{known: true, pre: pre.before(), post: post}
		var got encoder
		got.wcc(&w)
		var want bytes.Buffer
		if err := nfs.WriteWcc(&want, oracle(&pre).AsCache(), oracle(&post)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.b, want.Bytes()) {
			t.Fatalf("wcc\n got %x\nwant %x", got.b, want.Bytes())
		}
		got.b = got.b[:0]
		got.postOp(&post)
		want.Reset()
		if err := nfs.WritePostOpAttrs(&want, oracle(&post)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.b, want.Bytes()) {
			t.Fatalf("post-op attributes\n got %x\nwant %x", got.b, want.Bytes())
		}
	}
	var got encoder
	got.wcc(&wcc{})
	var want bytes.Buffer
	if err := nfs.WriteWcc(&want, nil, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.b, want.Bytes()) {
		t.Fatalf("empty wcc\n got %x\nwant %x", got.b, want.Bytes())
	}
}

// TestSetAttrMatchesGoNFS reads the same sattr3 with both.
func TestSetAttrMatchesGoNFS(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		var e encoder
		for range 3 {
			if e.flag(rng.IntN(2) == 1); e.b[len(e.b)-1] == 1 {
				e.u32(rng.Uint32())
			}
		}
		if e.flag(rng.IntN(2) == 1); e.b[len(e.b)-1] == 1 {
			e.u64(rng.Uint64())
		}
		for range 2 {
			how := rng.Uint32N(3)
			if e.u32(how); how == 2 {
				e.u32(rng.Uint32())
				e.u32(rng.Uint32N(1e9))
			}
		}
		want, err := nfs.ReadSetFileAttributes(bytes.NewReader(e.b))
		if err != nil {
			t.Fatal(err)
		}
		d := decoder{b: e.b}
		got := d.setAttr()
		if d.bad || len(d.b) != 0 {
			t.Fatalf("%x: bad %t, %d bytes left", e.b, d.bad, len(d.b))
		}
		if !sameSetAttr(&got, want) {
			t.Fatalf("%x: got %+v, go-nfs %+v", e.b, got, want)
		}
	}
}

func sameSetAttr(got *setAttr, want *nfs.SetFileAttributes) bool {
	u32 := func(set bool, v uint32, w *uint32) bool { return set == (w != nil) && (w == nil || *w == v) }
	at := func(how timeHow, ns int64, w *time.Time) bool {
		return (how != timeKeep) == (w != nil) && (how != timeClient || time.Unix(0, ns).Equal(*w))
	}
	return u32(got.setMode, got.mode, want.SetMode) && u32(got.setUID, got.uid, want.SetUID) &&
		u32(got.setGID, got.gid, want.SetGID) && got.setSize == (want.SetSize != nil) &&
		(want.SetSize == nil || *want.SetSize == got.size) &&
		at(got.setAtime, got.atime, want.SetAtime) && at(got.setMtime, got.mtime, want.SetMtime)
}

func BenchmarkEncodeWcc(b *testing.B) {
	w := wcc{known: true}
	e := encoder{make([]byte, 0, 512)}
	b.ReportAllocs()
	for b.Loop() {
		e.b = e.b[:0]
		e.wcc(&w)
	}
}
