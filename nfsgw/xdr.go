package nfsgw

import "encoding/binary"

// decoder reads XDR from a record. Its error is sticky: after bad is set all
// values are zero, so that a caller checks once. Byte values are subslices of
// the record, and an announced length is only ever compared with what is there.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fixed(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u32() uint32 {
	if v := d.fixed(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.fixed(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// flag reads a boolean, which must be 0 or 1.
func (d *decoder) flag() bool {
	v := d.u32()
	if v > 1 {
		d.bad = true
	}
	return v == 1
}

// opaque reads variable-length bytes of at most limit, and their padding.
func (d *decoder) opaque(limit int) []byte {
	n := d.u32()
	if d.bad || n > uint32(limit) {
		d.bad = true
		return nil
	}
	v := d.fixed(int(n))
	d.fixed(padding(int(n)))
	if d.bad {
		return nil
	}
	return v
}

// time reads an nfstime3 as ns since 1970.
func (d *decoder) time() int64 {
	sec, nsec := d.u32(), d.u32()
	return int64(sec)*1e9 + int64(nsec)
}

func padding(n int) int { return -n & 3 }

// encoder appends XDR to b.
type encoder struct{ b []byte }

func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

func (e *encoder) flag(v bool) {
	if v {
		e.u32(1)
	} else {
		e.u32(0)
	}
}

func (e *encoder) status(st status) { e.u32(uint32(st)) }

func (e *encoder) opaque(v []byte) {
	e.u32(uint32(len(v)))
	e.b = append(e.b, v...)
	e.pad(len(v))
}

func (e *encoder) string(v string) {
	e.u32(uint32(len(v)))
	e.b = append(e.b, v...)
	e.pad(len(v))
}

func (e *encoder) pad(n int) { e.b = append(e.b, "\x00\x00\x00"[:padding(n)]...) }

func (e *encoder) time(ns int64) {
	e.u32(uint32(ns / 1e9))
	e.u32(uint32(ns % 1e9))
}
