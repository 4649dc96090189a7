package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"logvault/ledger"
	"logvault/verify"
)

// TestEveryByte damages every byte of every file of a small vault in three
// ways. The audit must report an error that names the file, and not panic.
func TestEveryByte(t *testing.T) {
	everyByte(t, theSample(), 1)
}

// TestEveryByteUnpinned is the same for a reader whose trust file knows the
// ledger's key only, and nothing of the copy.
func TestEveryByteUnpinned(t *testing.T) {
	s := *theSample()
	s.trust = &ledger.Trust{Log: s.trust.Log, Origin: s.trust.Origin}
	everyByte(t, &s, 7)
}

func everyByte(t *testing.T, s *sample, stride int) {
	if testing.Short() || raceEnabled {
		stride = 41 // prime to the bit masks: all three are tried
	}
	type flip struct {
		name string
		at   int
		mask byte
	}
	flips := make(chan flip)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			files := s.files.Clone()
			for f := range flips {
				data := files[f.name]
				data[f.at] ^= f.mask
				o := s.options()
				o.Vault = files
				if wrong := named(o, f.name); wrong != "" {
					t.Errorf("%s, byte %d of %d ^ %#x: %s", f.name, f.at, len(data), f.mask, wrong)
				}
				data[f.at] ^= f.mask
			}
			for name, data := range files {
				if !bytes.Equal(data, s.files[name]) {
					t.Errorf("%s: the test did not undo its damage", name)
				}
			}
		})
	}
	n := 0
	for _, name := range s.files.Names() {
		for at := range s.files[name] {
			for _, mask := range []byte{0x01, 0x80, 0xFF} {
				if n++; n%stride == 0 {
					flips <- flip{name, at, mask}
				}
			}
		}
	}
	close(flips)
	workers.Wait()
	t.Logf("%d of %d flips in %d files", n/stride, n, len(s.files))
}

// named returns what is wrong with an audit that must report an error on the
// object, or "".
func named(o verify.Options, object string) (wrong string) {
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprintf("panic: %v", p)
		}
	}()
	var list []verify.Finding
	sum, err := verify.Run(context.Background(), o, func(f verify.Finding) { list = append(list, f) })
	if err != nil {
		return err.Error()
	}
	for _, f := range list {
		if f.Level == verify.Error && strings.Contains(f.Object, object) && sum.Errors > 0 {
			return ""
		}
	}
	return "no error names it:" + lines(list)
}
