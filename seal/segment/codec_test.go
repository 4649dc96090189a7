package segment

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"logvault/seal/pgp"
	"logvault/vault"

	"github.com/klauspost/compress/zstd"
)

// seal encrypts any text as if it were a segment's or an index's.
func seal(t testing.TB, k testKey, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := k.public.Encrypt(&out, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDecodeFindsEveryDamage(t *testing.T) {
	k := newTestKey(t)
	for _, codec := range []vault.Codec{vault.Gzip, vault.Zstd} {
		raw := squidLog(20)
		enc := mustEncode(t, newTestEncoder(t, codec, 1), raw, k)
		pkesk := 2 + int(enc.Segment[1]) // see the pgp package: a few redundant bits
		for i := range enc.Segment {
			flipped := bytes.Clone(enc.Segment)
			flipped[i] ^= 0x80
			var text bytes.Buffer
			_, err := Decode(&text, bytes.NewReader(flipped), k.secret, codec)
			if err == nil && (i >= pkesk || !bytes.Equal(text.Bytes(), raw)) {
				t.Fatalf("%s: byte %d flipped: not found", codec, i)
			}
			if _, err := Decode(io.Discard, bytes.NewReader(enc.Segment[:i]), k.secret, codec); err == nil {
				t.Fatalf("%s: cut at %d: not found", codec, i)
			}
		}
		for i := range enc.Index {
			flipped := bytes.Clone(enc.Index)
			flipped[i] ^= 0x01
			if ix, err := DecodeIndex(bytes.NewReader(flipped), k.secret); err == nil && (i >= pkesk || ix.Raw != int64(len(raw))) {
				t.Fatalf("%s: index byte %d flipped: not found", codec, i)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	k := newTestKey(t)
	enc := mustEncode(t, newTestEncoder(t, vault.Gzip, 1), squidLog(20), k)
	members := decryptText(t, enc.Segment, k)
	big := bytes.Repeat(gzipped(t, make([]byte, MemberSize)), 65)
	for name, c := range map[string]struct {
		text  []byte
		codec vault.Codec
	}{
		"nothing":         {nil, vault.Gzip},
		"not compressed":  {[]byte("a line\n"), vault.Gzip},
		"trailing":        {append(bytes.Clone(members), "junk"...), vault.Gzip},
		"other codec":     {members, vault.Zstd},
		"unknown codec":   {members, "br"},
		"over 64 MiB":     {big, vault.Gzip},
		"cut in a member": {members[:len(members)-3], vault.Gzip},
		"zstd trailing":   {append(zstdFrame(t, []byte("a\n"), 1<<20), 1, 2, 3), vault.Zstd},
		"zstd window":     {zstdFrame(t, bytes.Repeat([]byte("some text\n"), 1<<20), 8<<20), vault.Zstd},
	} {
		if _, err := Decode(io.Discard, bytes.NewReader(seal(t, k, c.text)), k.secret, c.codec); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	stranger := newTestKey(t)
	if _, err := Decode(io.Discard, bytes.NewReader(enc.Segment), stranger.secret, vault.Gzip); !errors.Is(err, pgp.ErrWrongKey) {
		t.Errorf("another key: %v, want ErrWrongKey", err)
	}
	if _, err := Decode(&brokenWriter{}, bytes.NewReader(enc.Segment), k.secret, vault.Gzip); !errors.Is(err, errBroken) {
		t.Errorf("full disk: %v", err)
	}
	if _, err := DecodeIndex(bytes.NewReader(seal(t, k, []byte("LVINDEX\n"))), k.secret); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an index of its magic only: %v", err)
	}
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (*brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestDecodeMembersRefuses(t *testing.T) {
	k := newTestKey(t)
	enc := mustEncode(t, newTestEncoder(t, vault.Gzip, 1), squidLog(30000), k)
	decode := func(change func(*Index), codec vault.Codec, members ...int) error {
		ix := mustIndex(t, enc, k)
		change(ix)
		return decodeMembers(bytes.NewReader(enc.Segment), k.secret, codec, ix, members, func(int, []byte) error { return nil })
	}
	same := func(*Index) {}
	if err := decode(same, vault.Gzip, 0, 2); err != nil {
		t.Fatal(err)
	}
	if err := decode(same, vault.Gzip); err != nil {
		t.Errorf("no members: %v", err)
	}
	for name, err := range map[string]error{
		"descending":   decode(same, vault.Gzip, 2, 1),
		"twice":        decode(same, vault.Gzip, 1, 1),
		"negative":     decode(same, vault.Gzip, -1),
		"too many":     decode(same, vault.Gzip, 99),
		"other codec":  decode(same, vault.Zstd, 0),
		"offset":       decode(func(ix *Index) { ix.Members[1].Offset++ }, vault.Gzip, 1),
		"short size":   decode(func(ix *Index) { ix.Members[1].Size-- }, vault.Gzip, 1),
		"long size":    decode(func(ix *Index) { ix.Members[1].Size++ }, vault.Gzip, 1),
		"short text":   decode(func(ix *Index) { ix.Members[2].RawSize-- }, vault.Gzip, 2),
		"long text":    decode(func(ix *Index) { ix.Members[len(ix.Members)-1].RawSize++ }, vault.Gzip, 3),
		"past the end": decode(func(ix *Index) { ix.Members[len(ix.Members)-1].Size += 100 }, vault.Gzip, 0),
		"member lost":  decode(func(ix *Index) { ix.Members = ix.Members[:2] }, vault.Gzip, 0),
	} {
		if err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	ix := mustIndex(t, enc, k)
	if err := decodeMembers(bytes.NewReader(enc.Segment), k.secret, vault.Gzip, ix, []int{0}, func(int, []byte) error { return errBroken }); !errors.Is(err, errBroken) {
		t.Errorf("the caller's error is lost: %v", err)
	}
}

func gzipped(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// zstdFrame streams, so that the frame has the window it says and no content size.
func zstdFrame(t testing.TB, text []byte, window int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for len(text) > 0 { // in parts, or the encoder knows the size
		n := min(len(text), 100<<10)
		if _, err := w.Write(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestOpenPlain(t *testing.T) {
	raw := squidLog(3000)
	for name, data := range map[string][]byte{
		"plain":            raw,
		"gzip":             gzipped(t, raw),
		"two gzip members": append(gzipped(t, raw[:1000]), gzipped(t, raw[1000:])...),
		"zstd":             zstdFrame(t, raw, 8<<20),
		"two zstd frames":  append(zstdFrame(t, raw[:1000], 1<<20), zstdFrame(t, raw[1000:], 1<<20)...),
	} {
		r, err := OpenPlain(iotest.HalfReader(bytes.NewReader(data)), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, short := range []string{"", "a", "ab\n"} {
		r, err := OpenPlain(bytes.NewReader([]byte(short)), "short")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != short {
			t.Errorf("%q: got %q, %v", short, got, err)
		}
	}
}

func TestOpenPlainReportsDamage(t *testing.T) {
	raw := squidLog(3000)
	broken := gzipped(t, raw)
	broken[len(broken)-6] ^= 1                                                     // the CRC
	wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0x01, 0x00, 0x00} // a window of 128 MiB, one empty block
	for name, data := range map[string][]byte{
		"cut gzip":     gzipped(t, raw)[:500],
		"damaged gzip": broken,
		"gzip header":  {0x1f, 0x8b, 8},
		"cut zstd":     zstdFrame(t, raw, 1<<20)[:500],
		"wide zstd":    wide,
	} {
		r, err := OpenPlain(bytes.NewReader(data), "access.log.gz")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte("access.log.gz: ")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenPlain(iotest.ErrReader(errBroken), "x"); !errors.Is(err, errBroken) {
		t.Errorf("read error: %v", err)
	}
}
