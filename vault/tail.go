package vault

import (
	"bytes"
	"fmt"
)

// IsTail reports whether name is a full tile or bundle that a log with the
// given published checkpoint does not cover: what a crash left of a batch that
// was never committed. It is the condition of Head.RemoveTail. The signature is
// not checked: a store guards against slips of the one writer, not against forgers.
func IsTail(name string, checkpoint []byte) (bool, error) {
	o, err := ParseName(name)
	if err != nil {
		return false, err
	}
	level := o.Level
	switch o.Kind {
	case KindBundle:
		level = 0
	case KindTile:
	default:
		return false, nil
	}
	size, err := checkpointSize(checkpoint)
	if err != nil {
		return false, err
	}
	// A full tile of level L covers 256^(L+1) entries. Shifting the size down
	// cannot overflow, as shifting the number up could.
	return o.Number >= size>>(8*(level+1)), nil
}

// LogPrefix returns the prefix of the log that an object belongs to.
func (o Object) LogPrefix() string {
	if o.Copy == "" {
		return LedgerPrefix
	}
	return CopyLogPrefix(o.Copy)
}

// checkpointSize reads the second line of a checkpoint.
func checkpointSize(checkpoint []byte) (int64, error) {
	_, rest, _ := bytes.Cut(checkpoint, []byte("\n"))
	line, _, ok := bytes.Cut(rest, []byte("\n"))
	size, err := parseNumber(string(line), maxSize)
	if !ok || err != nil {
		return 0, fmt.Errorf("checkpoint: size line %.20q, expected a number of 0 to 2^53-1", line)
	}
	return size, nil
}
