package vault

import (
	"context"
	"fmt"
)

// The rules of names that every store applies before it acts.

// CheckPut returns an error unless an object of size bytes may be Put under name.
func CheckPut(name string, size int64) (Object, error) {
	o, err := ParseName(name)
	if err != nil {
		return Object{}, err
	}
	if IsMutable(name) {
		return Object{}, fmt.Errorf("storing %s: mutable, it can only be replaced", name)
	}
	if size < 0 {
		return Object{}, fmt.Errorf("storing %s: size %d, expected 0 or more", name, size)
	}
	return o, nil
}

// CheckReplace returns an error unless name may be Replaced.
func CheckReplace(name string) error {
	if !IsMutable(name) {
		return fmt.Errorf("replacing %.200q: not a mutable name", name)
	}
	return nil
}

// CheckRemovePartial returns an error unless RemovePartial may remove name.
func CheckRemovePartial(name string) error {
	if !IsPartial(name) {
		return fmt.Errorf("removing %.200q: not a partial tile or bundle", name)
	}
	return nil
}

// maxCheckpoint bounds what CheckRemoveTail reads of a checkpoint, in bytes.
const maxCheckpoint = 64 << 10

// CheckRemoveTail returns an error unless RemoveTail may remove name, by the
// published checkpoint of its log, which it reads from r.
func CheckRemoveTail(ctx context.Context, r Reader, name string) error {
	o, err := ParseName(name)
	if err != nil {
		return err
	}
	checkpoint, err := ReadAll(ctx, r, CheckpointName(o.LogPrefix()), maxCheckpoint)
	if err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	tail, err := IsTail(name, checkpoint)
	if err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	if !tail {
		return fmt.Errorf("removing %s: not a full tile or bundle beyond the checkpoint", name)
	}
	return nil
}

// CheckRemove returns an error unless a Remover may remove name: never the
// marker nor anything of a log.
func CheckRemove(name string) error {
	o, err := ParseName(name)
	if err != nil {
		return err
	}
	switch o.Kind {
	case KindSegment, KindIndex, KindWrap, KindHoldKey, KindRegister:
		return nil
	}
	return fmt.Errorf("removing %s: a %s is never removed", name, o.Kind)
}

// IsContentNamed reports whether the last part of the object's name is the
// SHA-256 of its own bytes.
func (o Object) IsContentNamed() bool {
	return o.Kind == KindSegment || o.Kind == KindIndex || o.Kind == KindWrap
}
