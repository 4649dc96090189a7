package entry

import (
	"errors"
	"fmt"

	"logvault/vault"
)

// maxPackets limits the packets of a public key or a signature in bytes.
const maxPackets = 8192

// Type returns TypeInit.
func (*Init) Type() Type { return TypeInit }

func (e *Init) members(c *codec) {
	c.text("vault", &e.Vault, checkID)
	c.text("origin", &e.Origin, checkOrigin)
	c.hash("marker", &e.Marker)
	c.text("key", &e.Key, checkNoteKey)
	c.text("recovery", &e.Recovery, checkNoteKey)
}

// Type returns TypePolicy.
func (*Policy) Type() Type { return TypePolicy }

func (e *Policy) members(c *codec) {
	objects(c, "classes", &e.Classes, 1, func(p *PolicyClass) string { return string(p.Name) }, func(c *codec, p *PolicyClass) {
		c.class("name", &p.Name)
		c.text("period", &p.Period, checkPeriod)
		c.optionalText("grace", &p.Grace, checkPeriod)
		c.text("zone", &p.Zone, checkZone)
		c.optionalText("basis", &p.Basis, limit(1024))
		c.optionalText("valid_until", &p.ValidUntil, func(s string) error {
			_, err := parseDay(s)
			return err
		})
	})
	c.texts("auditors", &e.Auditors, 1, checkFingerprint)
	objects(c, "sources", &e.Sources, 0, func(p *PolicySource) string { return string(p.Name) }, func(c *codec, p *PolicySource) {
		c.source("name", &p.Name)
		c.class("class", &p.Class)
	})
}

// Type returns TypeExtend.
func (*Extend) Type() Type { return TypeExtend }

func (e *Extend) members(c *codec) {
	e.Scope.members(c)
	c.time("retain_until", &e.RetainUntil)
	c.hash("commit", &e.Commit)
}

func (s *Scope) members(c *codec) {
	c.optionalClass("class", &s.Class)
	c.optionalSource("source", &s.Source)
	c.optionalStream("stream", &s.Stream)
	c.optionalTime("since", &s.Since)
	c.optionalTime("until", &s.Until)
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		c.fail("until", errors.New("not after since"))
	}
}

// Type returns TypeKey.
func (*Key) Type() Type { return TypeKey }

func (e *Key) members(c *codec) {
	c.class("class", &e.Class)
	c.day("day", &e.Day)
	c.binary("public", &e.Public, maxPackets)
	c.hash("public_hash", &e.PublicHash)
	c.hash("wrap", &e.Wrap)
	c.texts("recipients", &e.Recipients, 1, checkFingerprint)
	if c.err == nil && e.PublicHash != vault.HashOf(e.Public) {
		c.fail("public_hash", fmt.Errorf("%s, expected %s", e.PublicHash, vault.HashOf(e.Public)))
	}
}

// Type returns TypeRewrap.
func (*Rewrap) Type() Type { return TypeRewrap }

func (e *Rewrap) members(c *codec) {
	c.integer("key", &e.Key)
	c.hash("wrap", &e.Wrap)
	c.texts("recipients", &e.Recipients, 1, checkFingerprint)
}

// Type returns TypeSegment.
func (*Segment) Type() Type { return TypeSegment }

func (e *Segment) members(c *codec) {
	c.source("source", &e.Source)
	c.stream("stream", &e.Stream)
	c.integer("gen", &e.Gen)
	c.integer("offset", &e.Offset)
	c.positive("span", &e.Span)
	c.positive("raw", &e.Raw)
	c.positive("lines", &e.Lines)
	c.optionalText("edit", &e.Edit, checkRole)
	c.optionalIndex("prev", &e.Prev)
	c.flag("closed", &e.Closed)
	if c.present("cut", e.Cut != "") {
		c.oneOf("cut", &e.Cut, CutEnd, CutLong)
	}
	c.flag("joined", &e.Joined)
	c.time("first_received", &e.FirstReceived)
	c.time("last_received", &e.LastReceived)
	c.optionalTime("first_event", &e.FirstEvent)
	c.optionalTime("last_event", &e.LastEvent)
	c.hash("object", &e.Object)
	c.oneOf("codec", (*string)(&e.Codec), string(vault.Gzip), string(vault.Zstd))
	c.positive("size", &e.Size)
	c.hash("index", &e.Index)
	c.positive("index_size", &e.IndexSize)
	c.integer("key", &e.Key)
	c.hash("root", &e.Root)
	c.class("class", &e.Class)
	c.day("day", &e.Day)
	c.time("retain_until", &e.RetainUntil)
	switch {
	case e.Edit == "" && e.Raw != e.Span:
		c.fail("raw", fmt.Errorf("%d, expected the span %d without an edit", e.Raw, e.Span))
	case e.FirstEvent.IsZero() != e.LastEvent.IsZero():
		c.fail("last_event", errors.New("expected both event times or none"))
	case e.LastEvent.Before(e.FirstEvent):
		c.fail("last_event", errors.New("before first_event"))
	}
	c.extent(e.Offset, e.Span)
}

// extent refuses a run of bytes that ends beyond the integers of an entry.
func (c *codec) extent(offset, span int64) {
	if c.err == nil && offset > MaxInt-span {
		c.fail("span", errors.New("ends beyond 2^53-1"))
	}
}

// Type returns TypeGap.
func (*Gap) Type() Type { return TypeGap }

func (e *Gap) members(c *codec) {
	c.source("source", &e.Source)
	c.stream("stream", &e.Stream)
	c.integer("gen", &e.Gen)
	c.integer("offset", &e.Offset)
	c.positive("span", &e.Span)
	c.optionalIndex("prev", &e.Prev)
	c.oneOf("reason", &e.Reason, GapHole, GapLost)
	c.extent(e.Offset, e.Span)
}

// Type returns TypeConflict.
func (*Conflict) Type() Type { return TypeConflict }

func (e *Conflict) members(c *codec) {
	c.source("source", &e.Source)
	c.stream("stream", &e.Stream)
	c.integer("gen", &e.Gen)
	c.integer("offset", &e.Offset)
	c.positive("span", &e.Span)
	c.stream("other", &e.Other)
	c.integer("other_gen", &e.OtherGen)
	c.extent(e.Offset, e.Span)
}

// Type returns TypeOrphan.
func (*Orphan) Type() Type { return TypeOrphan }

func (e *Orphan) members(c *codec) {
	c.hash("object", &e.Object)
	c.text("name", &e.Name, checkObjectName)
}

// Type returns TypeHold.
func (*Hold) Type() Type { return TypeHold }

func (e *Hold) members(c *codec) {
	e.Scope.members(c)
	c.text("hold", &e.Hold, checkID)
	c.hash("commit", &e.Commit)
}

// Type returns TypeRelease.
func (*Release) Type() Type { return TypeRelease }

func (e *Release) members(c *codec) {
	c.integer("hold", &e.Hold)
	c.hash("commit", &e.Commit)
	c.text("approver", &e.Approver, checkFingerprint)
	c.binary("signature", &e.Signature, maxPackets)
}

// Type returns TypeRequest.
func (*Request) Type() Type { return TypeRequest }

func (e *Request) members(c *codec) {
	c.hash("commit", &e.Commit)
	c.hash("object", &e.Object)
	c.class("class", &e.Class)
	c.oneOf("kind", &e.Kind, RequestExtract, RequestCat)
}

// Type returns TypeDisclosure.
func (*Disclosure) Type() Type { return TypeDisclosure }

func (e *Disclosure) members(c *codec) {
	c.integer("request", &e.Request)
	c.hash("commit", &e.Commit)
	c.integer("lines", &e.Lines)
	c.integer("segments", &e.Segments)
}

// Type returns TypeRotate.
func (*Rotate) Type() Type { return TypeRotate }

func (e *Rotate) members(c *codec) {
	c.text("old", &e.Old, checkNoteKey)
	c.text("new", &e.New, checkNoteKey)
	c.optionalText("recovery", &e.Recovery, checkNoteKey)
	c.oneOf("by", &e.By, RotateLog, RotateRecovery)
	c.binary("signature", &e.Signature, maxPackets)
}

// Type returns TypeClock.
func (*Clock) Type() Type { return TypeClock }

func (e *Clock) members(c *codec) {
	c.time("believed", &e.Believed)
	c.time("corrected", &e.Corrected)
	c.text("approver", &e.Approver, checkFingerprint)
	c.binary("signature", &e.Signature, maxPackets)
}

// Type returns TypeTimestamp.
func (*Timestamp) Type() Type { return TypeTimestamp }

func (e *Timestamp) members(c *codec) {
	c.integer("size", &e.Size)
	c.hash("root", &e.Root)
	c.hash("token", &e.Token)
	c.time("stamp", &e.Stamp)
}

// Type returns TypeReplica.
func (*Replica) Type() Type { return TypeReplica }

func (e *Replica) members(c *codec) {
	c.text("name", &e.Name, checkRole)
	c.text("key", &e.Key, checkNoteKey)
	c.text("log", &e.Log, checkNoteKey)
	c.flag("retired", &e.Retired)
}

// Type returns TypeSummary.
func (*Summary) Type() Type { return TypeSummary }

func (e *Summary) members(c *codec) {
	c.time("since", &e.Since)
	c.time("until", &e.Until)
	c.optionalSource("source", &e.Source)
	c.integer("segments", &e.Segments)
	c.integer("raw", &e.Raw)
	c.integer("stored", &e.Stored)
	c.integer("lines", &e.Lines)
	c.integer("gaps", &e.Gaps)
	c.integer("conflicts", &e.Conflicts)
}

// Type returns TypeCopyInit.
func (*CopyInit) Type() Type { return TypeCopyInit }

func (e *CopyInit) members(c *codec) {
	c.text("vault", &e.Vault, checkID)
	c.text("origin", &e.Origin, checkOrigin)
	c.text("name", &e.Name, checkRole)
	c.text("key", &e.Key, checkNoteKey)
	c.optionalText("cosigner", &e.Cosigner, checkNoteKey)
}

// Type returns TypeHeld.
func (*Held) Type() Type { return TypeHeld }

func (e *Held) members(c *codec) {
	c.integer("size", &e.Size)
	c.hash("root", &e.Root)
	c.integer("objects", &e.Objects)
	c.integer("bytes", &e.Bytes)
}

// Type returns TypeLock.
func (*Lock) Type() Type { return TypeLock }

func (e *Lock) members(c *codec) {
	c.integer("size", &e.Size)
	c.oneOf("mode", &e.Mode, LockMode, LockImmutable, LockObject)
	c.integer("objects", &e.Objects)
	c.optionalTime("until", &e.Until)
}

// Type returns TypeTime.
func (*ClockReading) Type() Type { return TypeTime }

func (e *ClockReading) members(c *codec) {
	c.time("clock", &e.Clock)
	c.time("system", &e.System)
	c.integer("boot", &e.Boot)
	c.optionalHash("proof", &e.Proof)
}

// Type returns TypeExpirePlan.
func (*ExpirePlan) Type() Type { return TypeExpirePlan }

func (e *ExpirePlan) members(c *codec) {
	c.integer("size", &e.Size)
	c.hash("root", &e.Root)
	c.time("clock", &e.Clock)
	c.hash("plan", &e.Plan)
	c.integers("keys", &e.Keys)
	c.integer("segments", &e.Segments)
	c.integer("bytes", &e.Bytes)
}

// Type returns TypeTombstone.
func (*Tombstone) Type() Type { return TypeTombstone }

func (e *Tombstone) members(c *codec) {
	c.integer("plan", &e.Plan)
	c.integer("key", &e.Key)
	c.integer("wraps", &e.Wraps)
	c.integer("segments", &e.Segments)
	c.integer("bytes", &e.Bytes)
}

// Type returns TypeFinding.
func (*Finding) Type() Type { return TypeFinding }

func (e *Finding) members(c *codec) {
	c.text("code", &e.Code, checkRole)
	c.oneOf("level", &e.Level, FindingNote, FindingWarning, FindingError)
	c.optionalText("object", &e.Object, checkObjectName)
	c.optionalIndex("entry", &e.Entry)
}
