package verify_test

import (
	"testing"

	"logvault/verify"
)

func TestIntactVaultPasses(t *testing.T) {
	for _, depth := range []verify.Depth{verify.Chain, verify.Objects, verify.Content} {
		t.Run(depth.String(), func(t *testing.T) {
			s := theSample()
			o := s.options()
			o.Depth, o.Opener = depth, opener()
			list, sum := audit(t, o)
			clean(t, list)
			if !sum.Complete || sum.Depth != depth || sum.Errors+sum.Warnings+sum.Notes != 0 {
				t.Errorf("summary %+v, expected a complete audit without findings", sum)
			}
			if sum.Segments != 3 || sum.Lines != 4 || sum.Entries != s.world.Log.Checkpoint().Size {
				t.Errorf("%d segments, %d lines, %d entries, expected 3, 4, %d", sum.Segments, sum.Lines, sum.Entries, s.world.Log.Checkpoint().Size)
			}
			if want := int64(8); depth > verify.Chain && sum.Objects != want { // 3 segments, 3 indexes, a wrap, a record
				t.Errorf("%d objects read, expected %d", sum.Objects, want)
			}
			if sum.Witnessed != sum.Checkpoint.Size {
				t.Errorf("witnessed up to %d, expected %d", sum.Witnessed, sum.Checkpoint.Size)
			}
		})
	}
}
