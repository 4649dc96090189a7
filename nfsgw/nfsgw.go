// Package nfsgw is the NFS front of the gateway: a small NFSv3 and MOUNT3
// server (RFC 1813) over ONC RPC (RFC 5531) on TCP, made for one client, the
// Linux kernel's, and one use, proxies that append to log files.
//
// # What it keeps
//
// A file is an id, a name and a stream. The id is drawn once, never reused,
// and is what a handle names, so that handles outlive renames, removals and
// restarts. The stream is where the bytes go: a Sink (the spool) takes them in
// any order and keeps every byte it ever took. The gateway keeps no file
// contents and has no disk of its own; names and attributes are records of the
// Sink's metadata table under "nfs/" and are in memory while it runs.
//
// # Promises to the client
//
//   - A WRITE answered FILE_SYNC, and every WRITE before an answered COMMIT,
//     is durable. The write verifier is drawn at each start, so that a client
//     sends again what a crash may have lost.
//   - A changed name or attribute is durable before the reply, and with it, in
//     one record of the Sink, the end of a generation that goes with it and what
//     was answered. A CREATE, MKDIR, REMOVE, RMDIR, RENAME or SETATTR that is sent
//     again, with the same xid and arguments from the same address, is answered
//     as the first time and not done again, also by the next process.
//   - Nothing the client does removes stored bytes. Truncation to zero ends
//     the stream's generation and starts the next one; any other truncation is
//     refused. A removed file keeps its id for thirty days, so that late
//     writes through a held handle are archived too.
//   - A renamed directory takes the names in the archive of all files below it
//     along. Of a file that gets a silly name (.nfs…, what the client calls a file
//     that is removed while it is open) the archive keeps the old one.
//   - A passing state (no room, overload) is answered JUKEBOX after a delay,
//     which makes the client wait and try again. It is never NOSPC, IO or
//     STALE: on those the Linux client drops its dirty pages for good. The log
//     tells when it begins, every ten minutes while it lasts, and when it is over.
//   - When the Sink fails for good, nothing is answered any more and Serve
//     returns: a new process has a new verifier, and the client sends again.
//
// # What goes by itself
//
// Every ten minutes, as of Config.Now:
//
//   - A silly name goes after 24 hours without a write or another change: its
//     client has died. That is a removal like the client's own.
//   - A name goes when the last byte that the file received has expired
//     (Config.RetainUntil), from the Sink's records too. The id stays for thirty
//     days or as long as late writes come. Directories stay: they hold no bytes,
//     and a client may have mounted one.
//   - Removed files are forgotten after thirty days without a write, and the
//     oldest earlier if a source has more than its share of 2^15. Their handles
//     are STALE from then on.
//   - Answers are forgotten after ten minutes, which begin anew at a start.
//
// # Who may do what
//
// A source is a set of client addresses and has a tree of its own. Export
// "/NAME" is the root of source NAME; "/" is the root of the source to which
// the client's address belongs by the longest matching prefix; a path below
// either may be mounted too. Each call is
// checked: its handle must carry our MAC and be of a source that lists the
// peer. A handle of another source is refused with ACCES, also where RFC 1813
// does not list it, and tells nothing. A peer that no source lists is told so
// when it mounts, and dropped.
// AUTH_SYS is believed for ownership only; it is no protection between users
// of one client.
//
// # Limits
//
// One record is at most 1 MiB + 8 KiB and must arrive within two minutes; a
// WRITE carries at most 1 MiB. Names have at most 255 bytes, paths below a root
// 4096. A file ends before 2^53. A source has at most 2^14 names: the next one is
// refused with NOSPC, which is no passing state. One client address has at most 64
// connections, 512 calls running, and three eighths of Config.InFlight, so that it
// cannot take what the others need. There are no links, devices or locks: clients
// mount with vers=3,proto=tcp,port=P,mountport=P,nolock,hard.
package nfsgw

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"logvault/vault"
)

// Sink is what the gateway needs of the spool. Implementations are safe for
// concurrent use. Two errors are understood: one that wraps vault.ErrFull is a
// passing state, for which nothing was stored and the client is told to try
// again; any other error is final and stops the server.
type Sink interface {
	// Record changes streams and metadata: all or nothing, durable on return.
	// The changes of one call are small: at most 1 MiB with their names.
	Record(ctx context.Context, c vault.Changes) error
	// Write stores data at off. Writes come in any order, may overlap and may
	// repeat. With sync the bytes are durable on return. It does not keep data.
	// A late write to an ended generation is stored too.
	Write(ctx context.Context, id vault.StreamID, gen, off int64, data []byte, client netip.Addr, sync bool) error
	// Commit makes everything written to the stream before the call durable.
	Commit(ctx context.Context, id vault.StreamID) error
	// Size is the end of the highest byte ever written to the generation.
	Size(id vault.StreamID, gen int64) int64
	// ReadAt reads bytes that are still in the spool, io.EOF at the end. Its
	// errors concern this read only.
	ReadAt(ctx context.Context, id vault.StreamID, gen int64, p []byte, off int64) (int, error)
	// Meta calls fn for each record whose key has the prefix.
	Meta(prefix string, fn func(vault.KV) error) error
	// Space is the room for new bytes.
	Space() (total, free int64)
}

// Source is a named proxy, or group of proxies, and what it may do.
type Source struct {
	Name      vault.Source
	Clients   []netip.Prefix // its addresses; IPv4 also matches IPv4-mapped IPv6
	AllowRead bool           // READ of bytes still in the spool; logrotate's copytruncate needs it
}

// lists reports whether addr is one of the source's addresses, and the length
// of the longest prefix that says so.
func (src *Source) lists(addr netip.Addr) (bits int, ok bool) {
	bits = -1
	for _, p := range src.Clients {
		if p.Contains(addr) && p.Bits() > bits {
			bits = p.Bits()
		}
	}
	return bits, bits >= 0
}

// Config is what a Server is made of. Sink, Key, Random, Now and Log must be set.
type Config struct {
	Sink     Sink
	Sources  []Source
	Key      [32]byte         // authenticates handles; a new key makes all handles stale
	Secure   bool             // refuse peers with a port of 1024 or more
	Random   io.Reader        // file ids, stream ids, the write verifier
	Now      func() time.Time // file times
	Log      *slog.Logger
	MaxConns int // connections at one time; 0 means 1024
	// RetainUntil tells until when bytes of a source that were received at a time
	// are kept; not ok: for ever, or nobody knows. A name expires with its last
	// byte. Nil: no name does.
	RetainUntil func(source vault.Source, received time.Time) (until time.Time, ok bool)
	InFlight    int64 // bytes of calls read and not yet answered, over all connections; 0 means 64 MiB
}

// Server is an NFS server. Its methods are safe for concurrent use.
type Server struct {
	cfg        Config
	handles    handleMaker
	verifier   [8]byte // new for each process
	budget     *budget // bytes of calls in flight
	replies    *replyCache
	buffers    bufferPool
	stats      counters
	fullDelay  time.Duration // how long a call waits before JUKEBOX
	timeouts   timeouts
	acceptLog  quietLog
	refuseLog  quietLog
	namesLog   quietLog
	recordLog  quietLog
	foreignLog quietLog
	alarm      alarm // the Sink has no room

	sources atomic.Pointer[[]Source] // never changed in place

	mu     sync.RWMutex                       // the maps below
	nodes  map[uint64]*node                   // by file id, tombstones included
	trees  map[vault.Source]*tree             // of every source ever mounted
	mounts map[netip.Addr]map[string]struct{} // paths, by peer

	rootMu sync.Mutex // held while a root is made; before mu

	connMu sync.Mutex
	conns  map[*conn]struct{}
	peers  map[netip.Addr]*peer // of conns

	failed  chan struct{} // closed when the Sink has failed for good
	failure error         // why; set before failed is closed
	failing sync.Once
}

// New makes a server and loads its names from the Sink. It fails if they
// cannot be read or were written by a newer version.
func New(cfg Config) (*Server, error) {
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 1024
	}
	if cfg.InFlight <= 0 {
		cfg.InFlight = 64 << 20
	}
	s := &Server{
		cfg:       cfg,
		handles:   newHandleMaker(cfg.Key),
		budget:    newBudget(max(cfg.InFlight, 4*maxRecord)),
		replies:   newReplyCache(cfg.Now),
		alarm:     alarm{log: cfg.Log, now: cfg.Now},
		fullDelay: time.Second,
		timeouts:  defaultTimeouts,
		nodes:     make(map[uint64]*node),
		trees:     make(map[vault.Source]*tree),
		mounts:    make(map[netip.Addr]map[string]struct{}),
		conns:     make(map[*conn]struct{}),
		peers:     make(map[netip.Addr]*peer),
		failed:    make(chan struct{}),
	}
	if _, err := io.ReadFull(cfg.Random, s.verifier[:]); err != nil {
		return nil, fmt.Errorf("drawing the write verifier: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.SetSources(cfg.Sources)
	return s, nil
}

// SetSources replaces the sources. Connections of peers that no source lists
// any more are closed, not answered: a client that hears nothing keeps its
// data and tries again.
func (s *Server) SetSources(sources []Source) {
	list := make([]Source, len(sources))
	for i, src := range sources {
		list[i] = src
		list[i].Clients = make([]netip.Prefix, len(src.Clients))
		for j, p := range src.Clients {
			list[i].Clients[j] = unmapPrefix(p)
		}
	}
	s.mu.Lock()
	s.sources.Store(&list)
	for _, t := range s.trees {
		t.source.Store(findSource(list, t.name))
	}
	s.mu.Unlock()

	s.connMu.Lock()
	defer s.connMu.Unlock()
	for c := range s.conns {
		if s.homeOf(c.peer) == nil {
			c.abort()
		}
	}
}

// unmapPrefix turns a prefix of IPv4-mapped IPv6 addresses into one of IPv4.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	return p.Masked()
}

func findSource(list []Source, name vault.Source) *Source {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// homeOf returns the source an address belongs to: the longest prefix wins,
// then the order of configuration. Nil means that no source lists it.
func (s *Server) homeOf(addr netip.Addr) *Source {
	list := *s.sources.Load()
	var home *Source
	best := -1
	for i := range list {
		if bits, ok := list[i].lists(addr); ok && bits > best {
			home, best = &list[i], bits
		}
	}
	return home
}

// fail stops the server: the Sink's state is unknown, so nothing is answered
// from now on.
func (s *Server) fail(err error) {
	s.failing.Do(func() {
		s.failure = err
		close(s.failed)
	})
}

// now returns the time in ns. A change of a node is never shown with a time
// that is not after the one before, whatever the clock does: see meta.touch.
func (s *Server) now() int64 { return s.cfg.Now().UnixNano() }
