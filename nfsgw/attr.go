package nfsgw

// attr is a fattr3.
type attr struct {
	kind, mode, nlink, uid, gid uint32
	size, fsid, id              uint64
	atime, mtime, ctime         int64 // ns since 1970
}

// before is a wcc_attr: what a client compares with its cache.
type before struct {
	size         uint64
	mtime, ctime int64
}

func (a *attr) before() before { return before{a.size, a.mtime, a.ctime} }

// wcc is the state of an object just before and just after a change of ours,
// both taken under one lock. Without it the client drops its cache at each
// reply. The zero value encodes as "nothing known".
type wcc struct {
	node  *node
	known bool
	pre   before
	post  attr
}

func (e *encoder) attr(a *attr) {
	e.u32(a.kind)
	e.u32(a.mode)
	e.u32(a.nlink)
	e.u32(a.uid)
	e.u32(a.gid)
	e.u64(a.size)
	e.u64(a.size) // used
	e.u64(0)      // rdev
	e.u64(a.fsid)
	e.u64(a.id)
	e.time(a.atime)
	e.time(a.mtime)
	e.time(a.ctime)
}

// postOp encodes a post_op_attr; nil is "none".
func (e *encoder) postOp(a *attr) {
	e.flag(a != nil)
	if a != nil {
		e.attr(a)
	}
}

// postOpOf encodes the post_op_attr of a node as it is now; nil is "none".
func (e *encoder) postOpOf(n *node) {
	e.flag(n != nil)
	if n != nil {
		a := n.attrs()
		e.attr(&a)
	}
}

// wcc encodes a wcc_data.
func (e *encoder) wcc(w *wcc) {
	e.flag(w.known)
	if w.known {
		e.u64(w.pre.size)
		e.time(w.pre.mtime)
		e.time(w.pre.ctime)
	}
	e.flag(w.known)
	if w.known {
		e.attr(&w.post)
	}
}

// setAttr is a sattr3: what a client wants to set.
type setAttr struct {
	mode, uid, gid                   uint32
	size                             uint64
	atime, mtime                     int64
	setMode, setUID, setGID, setSize bool
	setAtime, setMtime               timeHow
}

type timeHow uint32

const (
	timeKeep   timeHow = 0
	timeServer timeHow = 1
	timeClient timeHow = 2
)

func (d *decoder) setAttr() (a setAttr) {
	if a.setMode = d.flag(); a.setMode {
		a.mode = d.u32()
	}
	if a.setUID = d.flag(); a.setUID {
		a.uid = d.u32()
	}
	if a.setGID = d.flag(); a.setGID {
		a.gid = d.u32()
	}
	if a.setSize = d.flag(); a.setSize {
		a.size = d.u64()
	}
	a.setAtime, a.atime = d.setTime()
	a.setMtime, a.mtime = d.setTime()
	return a
}

func (d *decoder) setTime() (how timeHow, ns int64) {
	switch how = timeHow(d.u32()); how {
	case timeKeep, timeServer:
	case timeClient:
		ns = d.time()
	default:
		d.bad = true
	}
	return how, ns
}
