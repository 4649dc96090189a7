package nfsgw

import "sync"

// budget bounds a number of bytes in use.
type budget struct {
	mu   sync.Mutex
	room sync.Cond
	size int64
	free int64
}

func newBudget(size int64) *budget {
	b := &budget{size: size, free: size}
	b.room.L = &b.mu
	return b
}

// take waits until n bytes are free and takes them. n must not exceed the size.
func (b *budget) take(n int) {
	b.mu.Lock()
	for b.free < int64(n) {
		b.room.Wait()
	}
	b.free -= int64(n)
	b.mu.Unlock()
}

func (b *budget) give(n int) {
	b.mu.Lock()
	b.free += int64(n)
	b.mu.Unlock()
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
