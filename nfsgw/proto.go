package nfsgw

// Numbers of RFC 5531 (RPC) and RFC 1813 (NFSv3, MOUNT3).

const (
	rpcCall    = 0
	rpcReply   = 1
	rpcVersion = 2

	replyAccepted = 0
	replyDenied   = 1

	acceptSuccess      = 0
	acceptProgUnavail  = 1
	acceptProgMismatch = 2
	acceptProcUnavail  = 3
	acceptGarbageArgs  = 4

	denyRPCMismatch = 0
	denyAuthError   = 1

	authNone = 0
	authSys  = 1

	authBadCred = 1
	authBadVerf = 3

	progNFS   = 100003
	progMount = 100005
	version3  = 3
)

// status is an nfsstat3 or mountstat3; they share their numbers.
type status uint32

const (
	statusOK          status = 0
	statusPerm        status = 1
	statusNoEnt       status = 2
	statusIO          status = 5
	statusAcces       status = 13
	statusExist       status = 17
	statusXDev        status = 18
	statusNotDir      status = 20
	statusIsDir       status = 21
	statusInval       status = 22
	statusFBig        status = 27
	statusNoSpc       status = 28
	statusNameTooLong status = 63
	statusNotEmpty    status = 66
	statusStale       status = 70
	statusBadHandle   status = 10001
	statusNotSync     status = 10002
	statusTooSmall    status = 10005
	statusServerFault status = 10006
	statusJukebox     status = 10008
)

// NFSv3 procedures.
const (
	procNull = iota
	procGetattr
	procSetattr
	procLookup
	procAccess
	procReadlink
	procRead
	procWrite
	procCreate
	procMkdir
	procSymlink
	procMknod
	procRemove
	procRmdir
	procRename
	procLink
	procReaddir
	procReaddirplus
	procFsstat
	procFsinfo
	procPathconf
	procCommit
)

// MOUNT3 procedures.
const (
	mountNull = iota
	mountMnt
	mountDump
	mountUmnt
	mountUmntall
	mountExport
)

const (
	typeFile = 1
	typeDir  = 2

	unstable = 0
	dataSync = 1
	fileSync = 2

	createUnchecked = 0
	createGuarded   = 1
	createExclusive = 2

	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20

	maxName     = 255
	maxPath     = 1024 // of an export path, and of a name before it is judged
	maxHandle   = 64
	maxWrite    = 1 << 20
	maxRead     = 256 << 10
	maxReaddir  = 64 << 10
	maxRecord   = maxWrite + 8<<10
	maxCredBody = 400
)
