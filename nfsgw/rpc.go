package nfsgw

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// credential is who a client says is calling.
type credential struct {
	uid, gid uint32
	gids     [16]uint32
	n        int // of gids
}

// nobody owns what is made under AUTH_NONE.
const nobody = 65534

func (cr *credential) inGroup(gid uint32) bool {
	if cr.gid == gid {
		return true
	}
	for _, g := range cr.gids[:cr.n] {
		if g == gid {
			return true
		}
	}
	return false
}

// call is one RPC from its record to its reply.
type call struct {
	conn    *conn
	record  *buffer
	xid     uint32
	program uint32
	proc    uint32
	cred    credential
	args    decoder
	reply   encoder     // begins with room for the record mark
	dead    bool        // the Sink failed: send nothing
	full    bool        // the Sink had no room: the answer is JUKEBOX
	entry   *replyEntry // of a procedure that must not be done twice
	made    uint64      // the file id that such a procedure made or opened
}

// callPool keeps calls with their reply buffers, of at most keepReply bytes.
var callPool = sync.Pool{New: func() any { return &call{reply: encoder{make([]byte, 0, 512)}} }}

const keepReply = 16 << 10

func newCall(c *conn, record *buffer) *call {
	cl := callPool.Get().(*call)
	*cl = call{conn: c, record: record, args: decoder{b: record.b}, reply: encoder{cl.reply.b[:0]}}
	return cl
}

// release gives the call's memory back. The reply must have been sent or copied.
func (c *call) release() {
	s := c.conn.server
	n := cap(c.record.b)
	s.buffers.put(c.record)
	s.budget.give(n)
	c.conn.share.budget.give(n)
	if cap(c.reply.b) > keepReply {
		c.reply.b = nil
	}
	c.record, c.conn, c.args = nil, nil, decoder{}
	callPool.Put(c)
}

// replyHead is the length of an accepted reply, with its record mark, before the result.
const replyHead = 28

// accepted starts the reply anew: an accepted one with the given status.
func (c *call) accepted(stat uint32) {
	c.head(replyAccepted)
	c.reply.u32(authNone) // verifier
	c.reply.u32(0)
	c.reply.u32(stat)
}

func (c *call) head(kind uint32) {
	c.reply.b = append(c.reply.b[:0], 0, 0, 0, 0) // record mark, see seal
	c.reply.u32(c.xid)
	c.reply.u32(rpcReply)
	c.reply.u32(kind)
}

// seal fills in the record mark.
func (c *call) seal() []byte {
	binary.BigEndian.PutUint32(c.reply.b, uint32(len(c.reply.b)-4)|lastFragment)
	return c.reply.b
}

// parse reads the call header. It returns false if there is nothing to run:
// then the reply is an error, or the record is no call and dead is set.
func (c *call) parse() (*procedure, bool) {
	d := &c.args
	c.xid = d.u32()
	kind, version := d.u32(), d.u32()
	if d.bad || kind != rpcCall {
		c.dead = true
		return nil, false
	}
	if version != rpcVersion {
		c.head(replyDenied)
		c.reply.u32(denyRPCMismatch)
		c.reply.u32(rpcVersion)
		c.reply.u32(rpcVersion)
		return nil, false
	}
	c.program = d.u32()
	progVersion := d.u32()
	c.proc = d.u32()
	credFlavor, credBody := d.u32(), d.opaque(maxCredBody)
	verfFlavor, verfBody := d.u32(), d.opaque(maxCredBody)
	switch {
	case d.bad:
		c.accepted(acceptGarbageArgs)
		return nil, false
	case !c.cred.decode(credFlavor, credBody):
		c.deny(authBadCred)
		return nil, false
	case verfFlavor != authNone || len(verfBody) != 0:
		c.deny(authBadVerf)
		return nil, false
	}
	table := programs[c.program]
	switch {
	case table == nil:
		c.accepted(acceptProgUnavail)
	case progVersion != version3:
		c.accepted(acceptProgMismatch)
		c.reply.u32(version3)
		c.reply.u32(version3)
	case c.proc >= uint32(len(table)):
		c.accepted(acceptProcUnavail)
	default:
		c.accepted(acceptSuccess)
		return &table[c.proc], true
	}
	return nil, false
}

func (c *call) deny(stat uint32) {
	c.head(replyDenied)
	c.reply.u32(denyAuthError)
	c.reply.u32(stat)
}

// decode reads an AUTH_NONE or AUTH_SYS credential; other flavours are refused.
func (cr *credential) decode(flavor uint32, body []byte) bool {
	switch flavor {
	case authNone:
		*cr = credential{uid: nobody, gid: nobody}
		return true
	case authSys:
		d := decoder{b: body}
		d.u32()       // stamp
		d.opaque(255) // machine name
		cr.uid, cr.gid = d.u32(), d.u32()
		n := d.u32()
		if d.bad || n > uint32(len(cr.gids)) {
			return false
		}
		cr.n = int(n)
		for i := range cr.n {
			cr.gids[i] = d.u32()
		}
		return !d.bad && len(d.b) == 0
	}
	return false
}

// procedure is a row of a program's table.
type procedure struct {
	// run reads the arguments and appends the result. False: the arguments
	// cannot be decoded, and what it appended is dropped.
	run func(*Server, *call) bool
	// quick procedures never wait and run on the connection's reader.
	quick bool
	// once: running it twice gives another answer, so that a repeated call is
	// answered from the cache.
	once bool
	// large: the reply may be.
	large bool
}

// programs holds the procedures by program and number.
var programs map[uint32][]procedure

func init() {
	null := procedure{run: func(*Server, *call) bool { return true }, quick: true}
	programs = map[uint32][]procedure{
		progNFS: {
			procNull:        null,
			procGetattr:     {run: (*Server).getattr, quick: true},
			procSetattr:     {run: (*Server).setattr, once: true},
			procLookup:      {run: (*Server).lookup, quick: true},
			procAccess:      {run: (*Server).access, quick: true},
			procReadlink:    {run: (*Server).readlink, quick: true},
			procRead:        {run: (*Server).read, large: true},
			procWrite:       {run: (*Server).write},
			procCreate:      {run: (*Server).create, once: true},
			procMkdir:       {run: (*Server).mkdir, once: true},
			procSymlink:     {run: (*Server).symlink, quick: true},
			procMknod:       {run: (*Server).mknod, quick: true},
			procRemove:      {run: (*Server).remove, once: true},
			procRmdir:       {run: (*Server).rmdir, once: true},
			procRename:      {run: (*Server).rename, once: true},
			procLink:        {run: (*Server).link, quick: true},
			procReaddir:     {run: (*Server).readdir, quick: true},
			procReaddirplus: {run: (*Server).readdirplus, quick: true},
			procFsstat:      {run: (*Server).fsstat},
			procFsinfo:      {run: (*Server).fsinfo, quick: true},
			procPathconf:    {run: (*Server).pathconf, quick: true},
			procCommit:      {run: (*Server).commit},
		},
		progMount: {
			mountNull:    null,
			mountMnt:     {run: (*Server).mnt},
			mountDump:    {run: (*Server).dump, quick: true},
			mountUmnt:    {run: (*Server).umnt, quick: true},
			mountUmntall: {run: (*Server).umntall, quick: true},
			mountExport:  {run: (*Server).export, quick: true},
		},
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// perform runs a parsed call and leaves its reply in c.reply.
func (s *Server) perform(c *call, p *procedure) {
	if !p.once {
		s.runOnce(c, p)
		return
	}
	key := replyKey{peer: c.conn.peer, xid: c.xid, proc: c.proc, argsSum: crc32.Checksum(c.args.b, castagnoli), argLen: uint32(len(c.args.b))}
	entry, first := s.replies.begin(key)
	for entry != nil && !first {
		<-entry.done
		if entry.kept {
			s.stats.duplicates.Add(1)
			s.repeat(c, entry.answer)
			return
		}
		entry, first = s.replies.begin(key) // that one was not carried out
	}
	if entry == nil { // overload, not want of room: no alarm
		s.stats.full.Add(1)
		s.pause(c.conn.ctx, s.fullDelay)
		s.repeat(c, answer{status: statusJukebox})
		return
	}
	c.entry = entry
	var a answer
	keep := false
	defer func() { s.replies.end(entry, a, keep) }()
	s.runOnce(c, p)
	if result := c.reply.b[replyHead:]; !c.dead && !c.full && len(result) >= 4 {
		a, keep = answer{status(binary.BigEndian.Uint32(result)), c.made}, true
	}
}

// runOnce runs the procedure. If there was no room it waits, which slows the
// client down; the call holds no lock any more.
func (s *Server) runOnce(c *call, p *procedure) {
	if !p.run(s, c) {
		s.stats.garbage.Add(1)
		c.accepted(acceptGarbageArgs)
	}
	if c.full {
		s.stats.full.Add(1)
		s.alarm.full()
		s.pause(c.conn.ctx, s.fullDelay)
	}
}
