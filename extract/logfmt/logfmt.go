// Package logfmt recognises access-log formats and finds the tokens worth searching.
package logfmt

// Format names a log format that Parse understands.
type Format string

// The formats of version 1.
const (
	Squid    Format = "squid"
	Common   Format = "common"
	Combined Format = "combined"
	Text     Format = "text"
)

// TokenKind tells what a token of the index is.
type TokenKind byte

// The kinds of tokens. The numbers are part of the index format.
const (
	Client TokenKind = 1 + iota
	Port
	User
	Host
)

func (k TokenKind) String() string { panic("being written") }

// Fields are the parts of one line; slices of the line, nil = absent.
type Fields struct {
	UnixMilli                                            int64
	HasTime                                              bool
	Client, Port, User, Host, Method, URL, Status, Bytes []byte
}

// Detect guesses the format of a sample of whole lines.
func Detect(sample []byte) Format { panic("being written") }

// Parse splits one line into out. It returns false for a line that is not of format f.
func Parse(f Format, line []byte, out *Fields) bool { panic("being written") }
