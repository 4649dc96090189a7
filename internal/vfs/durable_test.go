package vfs

import (
	"io/fs"
	"os"
	"testing"
)

func testDurable(t *testing.T, fsys FS, dir string) {
	deep := dir + "/x/y/z"
	must(t, MkdirAll(fsys, deep, 0o750))
	must(t, MkdirAll(fsys, deep, 0o750))
	put(t, fsys, dir+"/file", "")
	if err := MkdirAll(fsys, dir+"/file", 0o750); err == nil {
		t.Error("MkdirAll of a file's name succeeds")
	}
	if err := MkdirAll(fsys, dir+"/file/x", 0o750); err == nil {
		t.Error("MkdirAll below a file succeeds")
	}

	name := deep + "/f"
	must(t, CreateFile(fsys, name, []byte("one"), 0o440))
	wantErr(t, "second CreateFile", CreateFile(fsys, name, []byte("one"), 0o440), fs.ErrExist)
	wantContent(t, fsys, name, "one")
	must(t, WriteFile(fsys, name, []byte("second"), 0o600))
	wantContent(t, fsys, name, "second")
	put(t, fsys, name+tempSuffix, "left by a crash")
	must(t, WriteFile(fsys, name, nil, 0o600))
	wantContent(t, fsys, name, "")

	put(t, fsys, dir+"/ten", "0123456789")
	if _, err := ReadFile(fsys, dir+"/ten", 9); err == nil {
		t.Error("ReadFile beyond its limit succeeds")
	}
	if data, err := ReadFile(fsys, dir+"/ten", 10); err != nil || len(data) != 10 {
		t.Errorf("ReadFile at its limit: %q, %v", data, err)
	}
	entries, err := fsys.ReadDir(deep)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%v left in the directory, expected one file", entries)
	}
	if _, err := os.Stat(name); fsys == OS && err != nil {
		t.Error(err)
	}
}
