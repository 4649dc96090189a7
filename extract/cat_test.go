package extract

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"logvault/ledger/entry"
	"logvault/vault"
)

func TestCatSegment(t *testing.T) {
	r := newRig(t)
	text := squid(hour, "192.0.2.1", "-", "a.example") + "no\xffise\r\nno end"
	s := r.seal("proxy1", 1, text, hour, hour)
	other := r.seal("proxy1", 0, "other\n", hour, hour)
	for _, name := range []string{s.entry.Object.String(), strconv.FormatInt(s.index, 10)} {
		var b bytes.Buffer
		sum, err := Cat(r.ctx, r.options(""), CatRequest{Segments: []string{name}, Case: "case 7"}, &b)
		r.must(err)
		if b.String() != text || sum.Segments != 1 || sum.Bytes != int64(len(text)) {
			t.Errorf("%s: %+v %q, expected %q", name, sum, b.String(), text)
		}
		e, err := entry.Decode(r.entry(sum.Request))
		r.must(err)
		req := e.(*entry.Request)
		if req.Kind != entry.RequestCat || !bytes.Contains(r.records[req.Commit], []byte(`"case":"case 7"`)) {
			t.Errorf("request entry %+v, record %q", req, r.records[req.Commit])
		}
	}
	var b bytes.Buffer
	_, err := Cat(r.ctx, r.options(""), CatRequest{Segments: []string{strconv.FormatInt(s.index, 10), strconv.FormatInt(other.index, 10)}, Case: "x"}, &b)
	r.must(err)
	if b.String() != "other\n"+text {
		t.Errorf("two segments: %q", b.String())
	}
}

func TestCatWindow(t *testing.T) {
	r := archiveOf(t)
	var b bytes.Buffer
	sum, err := Cat(r.ctx, r.options(""), CatRequest{Source: "proxy1", Since: hour.Add(5 * time.Minute), Until: hour.Add(7 * time.Minute), Case: "x"}, &b)
	r.must(err)
	want := squid(hour.Add(5*time.Minute), "192.0.2.2", "alice", "www.example.org") + squid(hour.Add(6*time.Minute), "198.51.100.7", "alice", "www.example.org")
	if b.String() != want || sum.Segments != 1 {
		t.Errorf("%+v %q, expected %q", sum, b.String(), want)
	}
	b.Reset()
	_, err = Cat(r.ctx, r.options(""), CatRequest{Source: "proxy3", Since: hour.Add(90 * time.Second), Until: hour.Add(time.Hour), Case: "x"}, &b)
	r.must(err)
	if want := "started\nstopped for 192.0.2.1\n"; b.String() != want {
		t.Errorf("lines without a time: %q, expected %q", b.String(), want)
	}
}

func TestCatRefuses(t *testing.T) {
	r := archiveOf(t)
	for name, c := range map[string]CatRequest{
		"no case":      {Segments: []string{"2"}},
		"nothing":      {Case: "x"},
		"no until":     {Source: "proxy1", Since: hour, Case: "x"},
		"backwards":    {Source: "proxy1", Since: hour, Until: hour, Case: "x"},
		"both":         {Source: "proxy1", Segments: []string{"2"}, Case: "x"},
		"bad case":     {Segments: []string{"2"}, Case: "a\nb"},
		"too many":     {Segments: make([]string, MaxSelectors+1), Case: "x"},
		"no segment":   {Segments: []string{"1"}, Case: "x"},
		"no such name": {Segments: []string{strings.Repeat("0", 64)}, Case: "x"},
	} {
		var b bytes.Buffer
		_, err := Cat(r.ctx, r.options(""), c, &b)
		if err == nil || strings.HasPrefix(name, "no s") && !errors.Is(err, ErrNoSegment) {
			t.Errorf("%s: got %v", name, err)
		}
		if b.Len() > 0 {
			t.Errorf("%s: wrote %q", name, b.String())
		}
	}
	if n := r.count(entry.TypeRequest); n != 0 || r.opened > 0 {
		t.Errorf("%d requests recorded, %d messages opened, expected none", n, r.opened)
	}
}

// TestCatAltered checks that not one byte of a changed object is written.
func TestCatAltered(t *testing.T) {
	r := newRig(t)
	s := r.seal("proxy1", 1, strings.Repeat("line\n", 10000), hour, hour)
	name := "/vault/" + vault.SegmentName(destruction, s.entry.Object, s.entry.Codec)
	data, err := vault.ReadAll(r.ctx, r.store, name[len("/vault/"):], 1<<20)
	r.must(err)
	data[len(data)-1] ^= 1
	r.overwrite(name, data)
	var b bytes.Buffer
	var integrity *IntegrityError
	_, err = Cat(r.ctx, r.options(""), CatRequest{Segments: []string{s.entry.Object.String()}, Case: "x"}, &b)
	if !errors.As(err, &integrity) || b.Len() > 0 {
		t.Errorf("got %v and %d bytes, expected an IntegrityError and none", err, b.Len())
	}
	if n := r.count(entry.TypeRequest); n != 1 {
		t.Errorf("%d request entries, expected the failed attempt to stay recorded", n)
	}
}

// TestCatUnrecorded checks that nothing is read when the record fails.
func TestCatUnrecorded(t *testing.T) {
	r := archiveOf(t)
	broken := errors.New("disk full")
	r.fail = func(string) error { return broken }
	var b bytes.Buffer
	if _, err := Cat(r.ctx, r.options(""), CatRequest{Segments: []string{"2"}, Case: "x"}, &b); !errors.Is(err, broken) || b.Len() > 0 || r.opened > 0 {
		t.Errorf("got %v, %d bytes, %d messages opened", err, b.Len(), r.opened)
	}
}
