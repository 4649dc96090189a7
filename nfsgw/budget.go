package nfsgw

import "sync"

// budget bounds a number of bytes in use. Who waits is served in order: one that
// wants a megabyte is not overtaken for ever by those that want little.
type budget struct {
	mu             sync.Mutex
	room           sync.Cond
	size           int64
	free           int64
	queued, served uint64 // calls of take so far, and how many of them have what they want
}

func newBudget(size int64) *budget {
	b := &budget{size: size, free: size}
	b.room.L = &b.mu
	return b
}

// take waits until n bytes are free and takes them. n must not exceed the size.
func (b *budget) take(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	turn := b.queued
	b.queued++
	for turn != b.served || b.free < int64(n) {
		b.room.Wait()
	}
	b.free -= int64(n)
	if b.served++; b.served < b.queued {
		b.room.Broadcast() // there may be enough for the next one too
	}
}

// tryTake takes n bytes if that needs no waiting.
func (b *budget) tryTake(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.served != b.queued || b.free < int64(n) {
		return false
	}
	b.free -= int64(n)
	return true
}

// give takes n bytes back.
func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += int64(n)
	b.room.Broadcast()
}

// bufferClasses are the sizes of pooled buffers: an idle pool must not pin a
// megabyte for each small call.
var bufferClasses = [...]int{1 << 10, 8 << 10, 64 << 10, maxRecord}

// bufferPool lends record buffers by class.
type bufferPool struct{ classes [len(bufferClasses)]sync.Pool }

// buffer is a pooled record buffer. Its capacity is that of its class.
type buffer struct {
	b     []byte
	class int
}

// classOf returns the class for n bytes; n is at most maxRecord.
func classOf(n int) int {
	class := 0
	for bufferClasses[class] < n {
		class++
	}
	return class
}

func (p *bufferPool) get(class int) *buffer {
	if v := p.classes[class].Get(); v != nil {
		return v.(*buffer)
	}
	return &buffer{b: make([]byte, bufferClasses[class]), class: class}
}

func (p *bufferPool) put(b *buffer) {
	b.b = b.b[:cap(b.b)]
	p.classes[b.class].Put(b)
}
