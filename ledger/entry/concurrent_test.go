package entry

import (
	"bytes"
	"errors"
	"reflect"
	"sync"
	"testing"
)

// TestConcurrentUse: the package has no state. Goroutines that share entries and
// bytes, and only read them, neither race (under -race) nor disagree.
func TestConcurrentUse(t *testing.T) {
	lines, _ := goldenLines(t)
	shared := make([]Entry, len(lines))
	for i, line := range lines {
		shared[i] = mustRoundTrip(t, line)
	}
	var running sync.WaitGroup
	for worker := range 8 {
		running.Go(func() {
			for n := range len(lines) {
				i := (n + worker) % len(lines)
				e, err := Decode(lines[i])
				if err != nil || !reflect.DeepEqual(e, shared[i]) {
					t.Errorf("line %d decodes to %+v, %v", i, e, err)
				}
				if data, err := Encode(shared[i]); err != nil || !bytes.Equal(data, lines[i]) {
					t.Errorf("line %d encodes to %s, %v", i, data, err)
				}
				if err := Check(lines[i]); err != nil {
					t.Errorf("line %d: %v", i, err)
				}
				if err := Check(lines[i][1:]); !errors.Is(err, ErrNotCanonical) {
					t.Errorf("line %d without its first byte: %v", i, err)
				}
			}
		})
	}
	running.Wait()
}

// TestDecodedSharesNothing: an entry is its own; what becomes of the bytes it was
// read from, and of other entries, does not change it.
func TestDecodedSharesNothing(t *testing.T) {
	lines, _ := goldenLines(t)
	for _, line := range lines {
		data := bytes.Clone(line)
		e, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			data[i] = 'X'
		}
		if again, err := Encode(e); err != nil || !bytes.Equal(again, line) {
			t.Errorf("with its bytes overwritten, the entry encodes to %s, %v; expected %s", again, err, line)
		}
	}
}

// TestEveryTypeHasItsOwnStruct: a type's name leads to a struct that bears it,
// and another name to none.
func TestEveryTypeHasItsOwnStruct(t *testing.T) {
	structs := make(map[reflect.Type]Type)
	for typ := range schema {
		e := newEntry(typ)
		if e == nil || e.Type() != typ || e.Head() == nil {
			t.Errorf("%s: made %T", typ, e)
			continue
		}
		if other, ok := structs[reflect.TypeOf(e)]; ok {
			t.Errorf("%s and %s share %T", typ, other, e)
		}
		structs[reflect.TypeOf(e)] = typ
		if other := newEntry(typ + "x"); other != nil {
			t.Errorf("%sx: made %T", typ, other)
		}
	}
}
