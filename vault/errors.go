package vault

import "fmt"

// TooLargeError says that an object exceeds the limit of what it claims to be.
type TooLargeError struct {
	Name        string
	Size, Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: %d bytes, expected at most %d", e.Name, e.Size, e.Limit)
}

// ReadError says that a stored object could not be read.
type ReadError struct {
	Name string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("reading %s: %v", e.Name, e.Err) }
func (e *ReadError) Unwrap() error { return e.Err }
