package vfs

import (
	"bytes"
	"testing"
)

func TestBoottime(t *testing.T) {
	a := Boottime()
	b := Boottime()
	if a <= 0 || b < a {
		t.Errorf("Boottime went from %s to %s", a, b)
	}
}

func TestOSFillZeros(t *testing.T) {
	name := t.TempDir() + "/f"
	f, err := OS.Create(name, 0o600)
	must(t, err)
	_, err = f.Write([]byte("head"))
	must(t, err)
	must(t, f.(osFile).fillZeros(3<<20+5))
	must(t, f.(osFile).fillZeros(10))
	must(t, f.Close())
	data, err := ReadFile(OS, name, 4<<20)
	must(t, err)
	if want := append([]byte("head"), make([]byte, 3<<20+1)...); !bytes.Equal(data, want) {
		t.Errorf("%d bytes, expected %d: head and zeros", len(data), len(want))
	}
}
