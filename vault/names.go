package vault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The fixed names of a vault. All other names are made by the functions below:
//
//	VAULT                                          the marker
//	segments/2026/11/21/<object>.gz.pgp            a segment (.zst.pgp for zstd)
//	segments/2026/11/21/<index>.idx.pgp            its sealed index
//	keys/2026/11/21/<class>/<key>/<wrap>.pgp       a wrap of a period key
//	keys/holds/<hold>/<object>.pgp                 the session key of a held object
//	ledger/checkpoint                              the signed head
//	ledger/tile/<level>/<number>[.p/<width>]       hash tiles, C2SP tlog-tiles
//	ledger/tile/entries/<number>[.p/<width>]       entry bundles
//	ledger/checkpoints/<size>                      a kept head
//	ledger/cosignatures/<size>/<key id>            a cosignature of a kept head
//	ledger/timestamps/<size>.tsr                   a timestamp of a kept head
//	copy/<name>/log/…                              a copy's own log, as below ledger/
//	register/<class>/<commit>.pgp                  a record with personal data
//
// Hashes are 64 lower-case hex digits, numbers decimal without leading zeros; a
// tile's number is in groups of three digits, all but the last starting with
// "x" (x001/x234/067). Each thing has exactly one name.
const (
	MarkerName   = "VAULT"
	LedgerPrefix = "ledger/"
)

// maxSize is the largest ledger size a name can hold: numbers stay exact in JSON.
const maxSize = 1<<53 - 1

// TileWidth is the number of hashes in a full tile and of entries in a full bundle.
const TileWidth = 256

// maxLevel bounds a tile's level; C2SP tlog-tiles sets it.
const maxLevel = 63

// Kind tells what an object is, from its name.
type Kind int

// The kinds of objects. The zero Kind is none of them.
const (
	KindMarker Kind = iota + 1
	KindSegment
	KindIndex
	KindWrap
	KindHoldKey
	KindCheckpoint
	KindTile
	KindBundle
	KindPartialTile
	KindPartialBundle
	KindKeptCheckpoint
	KindCosignature
	KindTimestamp
	KindRegister
)

var kindNames = [...]string{
	KindMarker: "marker", KindSegment: "segment", KindIndex: "index", KindWrap: "wrap",
	KindHoldKey: "hold key", KindCheckpoint: "checkpoint", KindTile: "tile", KindBundle: "bundle",
	KindPartialTile: "partial tile", KindPartialBundle: "partial bundle",
	KindKeptCheckpoint: "kept checkpoint", KindCosignature: "cosignature",
	KindTimestamp: "timestamp", KindRegister: "register record",
}

// String returns the kind in words.
func (k Kind) String() string {
	if k <= 0 || int(k) >= len(kindNames) {
		return "kind " + strconv.Itoa(int(k))
	}
	return kindNames[k]
}

// Object is a parsed object name. Which fields are set follows from the kind.
type Object struct {
	Kind  Kind
	Name  string
	Day   Day   // segment, index, wrap: the destruction day
	Class Class // wrap, register record
	// Hash is the SHA-256 in the last part of the name: of the object's own
	// bytes for a segment, index or wrap; of the held segment for a hold key;
	// the commitment for a register record.
	Hash   Hash
	Key    Hash   // wrap: SHA-256 of the period key's public packets
	Codec  Codec  // segment
	Hold   string // hold key: the hold's id
	Copy   string // a copy log's name, "" for the main ledger
	Level  int    // tile: 0 is the leaf level
	Number int64  // tile, bundle
	Width  int    // tile, bundle: hashes or entries, 1 to 256
	Size   int64  // kept checkpoint, cosignature, timestamp: the head's size
	KeyID  string // cosignature
}

// SegmentName names a segment after the SHA-256 of its own bytes.
func SegmentName(day Day, object Hash, c Codec) string {
	return "segments/" + dayPath(day) + "/" + object.String() + "." + string(c) + ".pgp"
}

// IndexName names a sealed index after the SHA-256 of its own bytes.
func IndexName(day Day, index Hash) string {
	return "segments/" + dayPath(day) + "/" + index.String() + ".idx.pgp"
}

// WrapName names a wrap: key is the SHA-256 of the period key's public packets,
// wrap that of the wrap's own bytes.
func WrapName(day Day, class Class, key, wrap Hash) string {
	return "keys/" + dayPath(day) + "/" + string(class) + "/" + key.String() + "/" + wrap.String() + ".pgp"
}

// HoldKeyName names the session key of a held object.
func HoldKeyName(hold string, object Hash) string {
	return "keys/holds/" + hold + "/" + object.String() + ".pgp"
}

// RegisterName names a record with personal data after its commitment.
func RegisterName(class Class, commit Hash) string {
	return "register/" + string(class) + "/" + commit.String() + ".pgp"
}

// CopyLogPrefix returns the prefix of a copy's own log, "copy/<name>/log/".
func CopyLogPrefix(copyName string) string { return "copy/" + copyName + "/log/" }

// CheckpointName names the signed head of the log under prefix, which is
// LedgerPrefix or made by CopyLogPrefix.
func CheckpointName(prefix string) string { return prefix + "checkpoint" }

// TileName names a hash tile of 1 to 256 hashes; less than 256 is a partial tile.
func TileName(prefix string, level int, number int64, width int) string {
	return prefix + "tile/" + strconv.Itoa(level) + "/" + tileNumber(number, width)
}

// BundleName names an entry bundle of 1 to 256 entries; less than 256 is partial.
func BundleName(prefix string, number int64, width int) string {
	return prefix + "tile/entries/" + tileNumber(number, width)
}

// KeptCheckpointName names a kept head.
func KeptCheckpointName(prefix string, size int64) string {
	return prefix + "checkpoints/" + strconv.FormatInt(size, 10)
}

// CosignatureName names a cosignature of a kept head. The key id is 8 to 64
// lower-case hex digits.
func CosignatureName(prefix string, size int64, keyID string) string {
	return prefix + "cosignatures/" + strconv.FormatInt(size, 10) + "/" + keyID
}

// TimestampName names an RFC 3161 token over a kept head.
func TimestampName(prefix string, size int64) string {
	return prefix + "timestamps/" + strconv.FormatInt(size, 10) + ".tsr"
}

// IsMutable reports whether name is one that Head.Replace may replace: a
// checkpoint, a partial tile or a partial bundle.
func IsMutable(name string) bool {
	o, err := ParseName(name)
	return err == nil && (o.Kind == KindCheckpoint || o.Kind == KindPartialTile || o.Kind == KindPartialBundle)
}

// IsPartial reports whether name is a partial tile or a partial bundle.
func IsPartial(name string) bool {
	o, err := ParseName(name)
	return err == nil && (o.Kind == KindPartialTile || o.Kind == KindPartialBundle)
}

// ParseName parses an object name. It accepts exactly the names that the
// functions above make from valid parts, so a name that parses never leaves
// the vault's root and never means two things.
func ParseName(name string) (Object, error) {
	o := Object{Name: name}
	if err := o.parse(name); err != nil {
		return Object{}, fmt.Errorf("object name %.200q: %w", name, err)
	}
	return o, nil
}

var errLayout = errors.New("not a name of the vault layout")

func (o *Object) parse(name string) error {
	if name == MarkerName {
		o.Kind = KindMarker
		return nil
	}
	part := strings.Split(name, "/")
	switch {
	case part[0] == "segments" && len(part) == 5:
		return o.parseSegment(part[1:])
	case part[0] == "keys" && len(part) == 4 && part[1] == "holds":
		o.Kind, o.Hold = KindHoldKey, part[2]
		return firstError(validLabel("hold", o.Hold), parsePGP(&o.Hash, part[3]))
	case part[0] == "keys" && len(part) == 7:
		return o.parseWrap(part[1:])
	case part[0] == "register" && len(part) == 3:
		o.Kind, o.Class = KindRegister, Class(part[1])
		return firstError(o.Class.Valid(), parsePGP(&o.Hash, part[2]))
	case part[0] == "ledger":
		return o.parseLog(part[1:])
	case part[0] == "copy" && len(part) > 3 && part[2] == "log":
		o.Copy = part[1]
		return firstError(validLabel("copy", o.Copy), o.parseLog(part[3:]))
	}
	return errLayout
}

func (o *Object) parseSegment(part []string) (err error) {
	if o.Day, err = parseDayPath(part); err != nil {
		return err
	}
	hash, kind, _ := strings.Cut(part[3], ".")
	switch kind {
	case "gz.pgp":
		o.Kind, o.Codec = KindSegment, Gzip
	case "zst.pgp":
		o.Kind, o.Codec = KindSegment, Zstd
	case "idx.pgp":
		o.Kind = KindIndex
	default:
		return fmt.Errorf("%w: suffix %.20q", errLayout, kind)
	}
	o.Hash, err = ParseHash(hash)
	return err
}

func (o *Object) parseWrap(part []string) (err error) {
	o.Kind, o.Class = KindWrap, Class(part[3])
	if o.Day, err = parseDayPath(part); err != nil {
		return err
	}
	if o.Key, err = ParseHash(part[4]); err != nil {
		return err
	}
	return firstError(o.Class.Valid(), parsePGP(&o.Hash, part[5]))
}

// parseLog parses the part of a name below ledger/ or copy/<name>/log/.
func (o *Object) parseLog(part []string) (err error) {
	switch {
	case len(part) == 1 && part[0] == "checkpoint":
		o.Kind = KindCheckpoint
		return nil
	case len(part) > 2 && part[0] == "tile" && part[1] == "entries":
		return o.parseTile(part[2:], KindBundle, KindPartialBundle)
	case len(part) > 2 && part[0] == "tile":
		level, err := parseNumber(part[1], maxLevel)
		o.Level = int(level)
		return firstError(err, o.parseTile(part[2:], KindTile, KindPartialTile))
	case len(part) == 2 && part[0] == "checkpoints":
		o.Kind = KindKeptCheckpoint
		o.Size, err = parseNumber(part[1], maxSize)
		return err
	case len(part) == 3 && part[0] == "cosignatures":
		o.Kind, o.KeyID = KindCosignature, part[2]
		o.Size, err = parseNumber(part[1], maxSize)
		return firstError(err, validKeyID(o.KeyID))
	case len(part) == 2 && part[0] == "timestamps":
		size, ok := strings.CutSuffix(part[1], ".tsr")
		if !ok {
			return errLayout
		}
		o.Kind = KindTimestamp
		o.Size, err = parseNumber(size, maxSize)
		return err
	}
	return errLayout
}

// parseTile parses a tile's number and width: x001/x234/067 or x001/x234/067.p/5.
func (o *Object) parseTile(part []string, full, partial Kind) error {
	o.Kind, o.Width = full, TileWidth
	if n := len(part); n > 1 {
		if last, ok := strings.CutSuffix(part[n-2], ".p"); ok {
			width, err := parseNumber(part[n-1], TileWidth-1)
			if err != nil || width == 0 {
				return fmt.Errorf("%w: width %.20q, expected 1 to 255", errLayout, part[n-1])
			}
			o.Kind, o.Width = partial, int(width)
			part = part[:n-1]
			part[n-2] = last
		}
	}
	for _, p := range part {
		digits := strings.TrimPrefix(p, "x")
		if len(digits) != 3 || !allDigits(digits) || o.Number > maxSize/1000 {
			return fmt.Errorf("%w: tile number", errLayout)
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return err
		}
		o.Number = o.Number*1000 + int64(n)
	}
	// One spelling only: the x's stand right and there is no leading group of zeros.
	if o.Number > maxSize/TileWidth || tileNumber(o.Number, TileWidth) != strings.Join(part, "/") {
		return fmt.Errorf("%w: tile number", errLayout)
	}
	return nil
}

func tileNumber(n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width != TileWidth {
		s += ".p/" + strconv.Itoa(width)
	}
	return s
}

func dayPath(d Day) string { return fmt.Sprintf("%04d/%02d/%02d", d.Year, d.Month, d.Day) }

// parseDayPath parses the first three parts as 2026, 11, 21.
func parseDayPath(part []string) (Day, error) {
	return ParseDay(part[0] + "-" + part[1] + "-" + part[2])
}

func parsePGP(h *Hash, s string) (err error) {
	hash, ok := strings.CutSuffix(s, ".pgp")
	if !ok {
		return errLayout
	}
	*h, err = ParseHash(hash)
	return err
}

// parseNumber parses a decimal number of at most limit without leading zeros.
func parseNumber(s string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > limit || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%w: number %.20q, expected 0 to %d", errLayout, s, limit)
	}
	return n, nil
}

func allDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// validLabel checks the name of a copy or a hold: 1 to 32 of a-z, 0-9 and '-'.
func validLabel(what, s string) error {
	if len(s) == 0 || len(s) > 32 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%w: %s %.40q, expected 1 to 32 of a-z, 0-9 and '-'", errLayout, what, s)
	}
	return nil
}

func validKeyID(s string) error {
	if len(s) < 8 || len(s) > 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: key id %.70q, expected 8 to 64 lower-case hex digits", errLayout, s)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
