package ledger

import (
	"crypto/rand"
	"testing"
)

func TestCopyLogTakesTheLogKeyOfTheName(t *testing.T) {
	const origin = "logs.example/main"
	key := func(name string, make func() (string, string, error)) TrustKey {
		_, vkey, err := make()
		if err != nil {
			t.Fatal(err)
		}
		return TrustKey{Name: name, Key: vkey}
	}
	log := func(name string) func() (string, string, error) {
		return func() (string, string, error) { return GenerateKey(rand.Reader, name) }
	}
	cosigner := key("nas2", func() (string, string, error) { return NewCosigner(rand.Reader, origin+"/copy/nas2") })
	nas2 := key("nas2", log(origin+"/copy/nas2"))
	nas20 := key("nas20", log(origin+"/copy/nas20"))
	elsewhere := key("nas3", log("logs.example/other/copy/nas3"))
	trust := &Trust{Origin: origin, Copies: []TrustKey{cosigner, nas20, nas2, elsewhere}}
	if got := trust.CopyLog("nas2"); got == nil || got.Log != nas2.Key || got.Origin != origin+"/copy/nas2" {
		t.Errorf("nas2: %+v, expected %s", got, nas2.Key)
	}
	for _, name := range []string{"nas3", "nas", ""} {
		if got := trust.CopyLog(name); got != nil {
			t.Errorf("%q: %+v, expected none", name, got)
		}
	}
}
