package volume_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"logvault/replicate/volume"
	"logvault/vault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden pins what people and other programs read of a volume, and a catalogue.
func TestGolden(t *testing.T) {
	sealed := regexp.MustCompile(`root [0-9a-f]{64}|[0-9]+ bytes`) // follow from the compressor
	for _, name := range []string{"VOLUME", "README.txt"} {
		s := newSafe(t, 1)
		s.room = 16 << 20
		if _, err := volume.Fill(ctx, s.options(1)); err != nil {
			t.Fatal(err)
		}
		got := sealed.ReplaceAllString(s.read("/disk1/"+name), "…")
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || got != string(want) {
			t.Errorf("%s is not as pinned (%v): %s", name, err, got)
		}
	}
	data, err := os.ReadFile("testdata/volumes.json")
	if err != nil {
		t.Fatal(err)
	}
	cat, err := volume.Parse(data)
	if err != nil || len(cat.Volumes) != 2 || cat.Volumes[1].Label != "bank, box 17" || !cat.Volumes[0].Full || cat.Next() != 9000 {
		t.Errorf("the pinned catalogue reads as %+v, %v", cat, err)
	}
	if _, err := vault.ParseHash(cat.Volumes[0].Sums); err != nil {
		t.Error(err)
	}
}
