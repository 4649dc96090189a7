package config

import (
	"strings"
	"testing"
)

func TestCopies(t *testing.T) {
	base := func(copies ...Copy) *Config {
		c, err := Parse("good", []byte(good))
		if err != nil {
			t.Fatal(err)
		}
		c.Copies = copies
		return c
	}
	c := base(Copy{Name: "primary", Site: "paris"}, Copy{Name: "lyon", Place: "s3://h/b", Media: "bucket"}, Copy{Name: "safe", Volumes: "/srv/volumes.json"})
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("x", text)
	if err != nil || len(got.Copies) != 3 || got.Copies[0].Media != "disk" || got.Copies[1].Media != "bucket" {
		t.Fatalf("%+v, %v", got, err)
	}
	for want, k := range map[string][]Copy{
		"no name":       {{}},
		"twice":         {{Name: "a"}, {Name: "a"}},
		"it is vault":   {{Name: "primary", Place: "/v"}},
		"both":          {{Name: "a", Place: "/v", Volumes: "/w"}},
		"absolute path": {{Name: "a", Place: "v"}},
		"catalogue":     {{Name: "a", Volumes: "v"}},
	} {
		text, err := base(k...).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("x", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %q", k, err, want)
		}
	}
}
