package nfsgw_test

import (
	"bytes"
	"testing"
)

func TestWriteAndCommit(t *testing.T) {
	sink := newMemSink()
	g := start(t, testConfig(sink))
	c, root := g.mount()
	fh, err := c.Create(root, "access.log")
	if err != nil {
		t.Fatal(err)
	}
	f := c.Open(fh)
	want := bytes.Repeat([]byte("one line of a log\n"), 50_000)
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 77_777)
		if err := f.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := sink.crash().content("access.log", 0); !bytes.Equal(got, want) {
		t.Fatalf("after COMMIT %d durable bytes, expected %d", len(got), len(want))
	}
	a, err := c.Getattr(fh)
	if err != nil || a.Size != uint64(len(want)) {
		t.Fatalf("size %d, error %v, expected %d", a.Size, err, len(want))
	}
	if err := g.close(); err != nil {
		t.Fatalf("clean stop: %v", err)
	}
}
