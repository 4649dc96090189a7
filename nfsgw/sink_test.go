package nfsgw_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"

	"logvault/vault"
)

// memSink is a Sink in memory that keeps apart what is durable. crash gives
// what a power cut would leave. It judges its caller: a Write to an unknown
// stream or generation, or data that changes under it, is an error.
type memSink struct {
	mu      sync.Mutex
	streams map[vault.StreamID]*memStream
	meta    map[string][]byte
	full    error // returned by everything that stores, when set
	broken  error // the same, and final
	writes  int
	commits int
}

type memStream struct {
	info    vault.StreamInfo
	gens    map[int64]*memGen
	ended   map[int64]bool
	renames int
}

// memGen holds the bytes of a generation: what is written, and what of it is durable.
type memGen struct {
	data, durable       []byte
	have, haveDurable   []bool
	conflicts, lateness int
}

func newMemSink() *memSink {
	return &memSink{streams: make(map[vault.StreamID]*memStream), meta: make(map[string][]byte)}
}

// crash returns a sink as a power cut leaves it: nothing that was not synced.
func (m *memSink) crash() *memSink {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := newMemSink()
	for id, st := range m.streams {
		cp := &memStream{info: st.info, gens: make(map[int64]*memGen), ended: make(map[int64]bool)}
		for g, gen := range st.gens {
			d, h := bytes.Clone(gen.durable), append([]bool(nil), gen.haveDurable...)
			cp.gens[g] = &memGen{data: d, durable: bytes.Clone(d), have: h, haveDurable: append([]bool(nil), h...)}
		}
		for g := range st.ended {
			cp.ended[g] = true
		}
		out.streams[id] = cp
	}
	for k, v := range m.meta {
		out.meta[k] = bytes.Clone(v)
	}
	return out
}

func (m *memSink) state() error {
	if m.broken != nil {
		return m.broken
	}
	return m.full
}

func (m *memSink) Record(_ context.Context, c vault.Changes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.state(); err != nil {
		return err
	}
	for _, info := range c.Add {
		if m.streams[info.ID] == nil {
			info.Name = bytes.Clone(info.Name)
			m.streams[info.ID] = &memStream{info: info, gens: make(map[int64]*memGen), ended: make(map[int64]bool)}
		}
	}
	for _, info := range c.Rename {
		st := m.streams[info.ID]
		if st == nil {
			return fmt.Errorf("renaming unknown stream %s", info.ID)
		}
		st.info.Name = bytes.Clone(info.Name)
		st.renames++
	}
	for _, e := range c.End {
		st := m.streams[e.Stream]
		if st == nil {
			return fmt.Errorf("ending a generation of unknown stream %s", e.Stream)
		}
		if g := st.gens[e.Gen]; g != nil {
			g.sync()
		}
		st.ended[e.Gen] = true
	}
	for _, id := range c.Over {
		delete(m.streams, id) // the bytes too, which a spool keeps until they are sealed
	}
	for _, kv := range c.Set {
		if kv.Value == nil {
			delete(m.meta, kv.Key)
		} else {
			m.meta[kv.Key] = bytes.Clone(kv.Value)
		}
	}
	return nil
}

func (m *memSink) Write(_ context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.state(); err != nil {
		return err
	}
	st := m.streams[id]
	if st == nil || !client.IsValid() || gen < 0 {
		return fmt.Errorf("write to unknown stream %s, generation %d, by %s", id, gen, client)
	}
	m.writes++
	g := st.gens[gen]
	if g == nil {
		g = &memGen{}
		st.gens[gen] = g
	}
	if st.ended[gen] {
		g.lateness++
	}
	if end := int(off) + len(data); end > len(g.data) {
		g.data = append(g.data, make([]byte, end-len(g.data))...)
		g.have = append(g.have, make([]bool, end-len(g.have))...)
	}
	for i, b := range data {
		at := int(off) + i
		if g.have[at] && g.data[at] != b {
			g.conflicts++ // never overwritten
			continue
		}
		g.have[at], g.data[at] = true, b
	}
	if sync {
		g.sync()
	}
	return nil
}

func (g *memGen) sync() {
	g.durable = bytes.Clone(g.data)
	g.haveDurable = append([]bool(nil), g.have...)
}

func (m *memSink) Commit(_ context.Context, id vault.StreamID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.state(); err != nil {
		return err
	}
	m.commits++
	if m.streams[id] == nil {
		return fmt.Errorf("committing unknown stream %s", id)
	}
	for _, g := range m.streams[id].gens {
		g.sync()
	}
	return nil
}

func (m *memSink) Size(id vault.StreamID, gen int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if st := m.streams[id]; st != nil && st.gens[gen] != nil {
		return int64(len(st.gens[gen].data))
	}
	return 0
}

func (m *memSink) ReadAt(_ context.Context, id vault.StreamID, gen int64, p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.streams[id]
	if st == nil || st.gens[gen] == nil {
		return 0, io.EOF
	}
	return bytes.NewReader(st.gens[gen].data).ReadAt(p, off)
}

func (m *memSink) Meta(prefix string, fn func(vault.KV) error) error {
	m.mu.Lock()
	var kvs []vault.KV
	for k, v := range m.meta {
		if strings.HasPrefix(k, prefix) {
			kvs = append(kvs, vault.KV{Key: k, Value: bytes.Clone(v)})
		}
	}
	m.mu.Unlock()
	for _, kv := range kvs {
		if err := fn(kv); err != nil {
			return err
		}
	}
	return nil
}

func (m *memSink) Space() (total, free int64) { return 1 << 40, 1 << 39 }

// setFull makes the sink full, or not.
func (m *memSink) setFull(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = nil
	if full {
		m.full = fmt.Errorf("spool: %w", vault.ErrFull)
	}
}

var errDisk = errors.New("spool: sync failed")

// breakDisk makes every later call fail for good.
func (m *memSink) breakDisk() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = errDisk
}

// written returns the number of WRITEs so far.
func (m *memSink) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// content returns the bytes of the stream whose present name is name.
func (m *memSink) content(name string, gen int64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range m.streams {
		if string(st.info.Name) == name && st.gens[gen] != nil {
			return bytes.Clone(st.gens[gen].data)
		}
	}
	return nil
}
