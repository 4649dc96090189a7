package vault

import "fmt"

// TooLargeError says that an object exceeds the limit of what it claims to be.
type TooLargeError struct {
	Name        string
	Size, Limit int64
}

// Error names the object, its size and the limit, in bytes.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: %d bytes, expected at most %d", e.Name, e.Size, e.Limit)
}
