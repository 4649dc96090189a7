package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// fieldError says which key of the file an invalid value stands under.
type fieldError struct {
	key string // "seal.level", or "class.1.zone" of the second [[class]]
	err error
}

// Error is that of the cause: the key is told by the line it stands on.
func (e *fieldError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *fieldError) Unwrap() error { return e.err }

// at notes the key of an error; nil stays nil, and the innermost key counts.
func at(key string, err error) error {
	if inner, ok := errors.AsType[*fieldError](err); ok || err == nil {
		if ok && strings.HasPrefix(inner.key, ".") { // of a part that does not know its place
			return &fieldError{key + inner.key, err}
		}
		return err
	}
	return &fieldError{key, err}
}

// lineOf finds the line on which the key of an error stands, or else the table
// that lacks it: 0 if neither does.
func lineOf(data []byte, err error) int {
	f, ok := errors.AsType[*fieldError](err)
	if !ok {
		return 0
	}
	lines := keyLines(data)
	for key := f.key; ; {
		if line := lines[key]; line > 0 {
			return line
		}
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			return 0
		}
		key = key[:dot]
	}
}

// keyLines finds the lines of all keys and tables of a document that was decoded
// before.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	seen := map[string]int{} // of each array of tables, how many came
	table := ""
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		line := 0
		for it := e.Key(); it.Next(); {
			k := it.Node()
			if line == 0 {
				line = p.Shape(k.Raw).Start.Line
			}
			parts = append(parts, string(k.Data))
		}
		key := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.Table:
			table = key + "."
		case unstable.ArrayTable:
			key, seen[key] = fmt.Sprintf("%s.%d", key, seen[key]), seen[key]+1
			table = key + "."
		default:
			key = table + key
		}
		lines[key] = line
	}
	return lines
}
