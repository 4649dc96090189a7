package segment

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"logvault/extract/logfmt"
	"logvault/vault"
)

// indexOf encodes a text and opens the index that was made.
func indexOf(t *testing.T, text string) *Index {
	t.Helper()
	k := newTestKey(t)
	return mustIndex(t, mustEncode(t, newTestEncoder(t, vault.Zstd, 1), []byte(text), k), k)
}

// TestCheckAcceptsWhatEncodeMade, for texts that touch every rule of members:
// lines over a boundary, lines longer than a member, no LF at the end.
func TestCheckAcceptsWhatEncodeMade(t *testing.T) {
	line := "1790000000.123    180 192.168.0.%d TCP_MISS/200 411 GET http://host%d.example/p user%d HIER_DIRECT/10.0.5.120 text/html\n"
	var squid strings.Builder
	for i := 0; squid.Len() < 3*MemberSize; i++ {
		fmt.Fprintf(&squid, line, i%250, i%1000, i%7)
	}
	for name, text := range map[string]string{
		"one line":             fmt.Sprintf(line, 1, 2, 3),
		"no LF":                "a line without end",
		"empty lines":          "\n\n\n",
		"members":              squid.String(),
		"long line":            strings.Repeat("x", 2*MemberSize+5) + "\nshort\n",
		"exactly a member":     strings.Repeat("x", MemberSize-1) + "\nnext\n",
		"long line without LF": "short\n" + strings.Repeat("y", 3*MemberSize),
	} {
		ix := indexOf(t, text)
		if err := ix.Check(strings.NewReader(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	text := strings.Repeat("1790000000.123    180 192.168.0.224 TCP_MISS/200 411 GET http://host.example/p alice HIER_DIRECT/10.0.5.120 text/html\nnot squid\n", 3)
	for name, change := range map[string]func(*Index, *string){
		"lines":      func(ix *Index, _ *string) { ix.Lines++ },
		"raw":        func(ix *Index, _ *string) { ix.Raw-- },
		"format":     func(ix *Index, _ *string) { ix.Format = string(logfmt.Common) },
		"unparsed":   func(ix *Index, _ *string) { ix.Unparsed = 0 },
		"event time": func(ix *Index, _ *string) { ix.LastEvent = ix.LastEvent.Add(time.Second) },
		"member":     func(ix *Index, _ *string) { ix.Members[0].Lines-- },
		"token altered": func(ix *Index, _ *string) {
			ix.tokens[0].text = bytes.Replace(ix.tokens[0].text, []byte("224"), []byte("225"), 1)
		},
		"token missing":    func(ix *Index, _ *string) { ix.tokens[0] = dictionary{} },
		"token too many":   func(ix *Index, _ *string) { ix.tokens[1] = ix.tokens[0] },
		"postings":         func(ix *Index, _ *string) { ix.tokens[0].members[0] = 2 },
		"no text":          func(_ *Index, text *string) { *text = "" },
		"text longer":      func(_ *Index, text *string) { *text += "more\n" },
		"another host":     func(_ *Index, text *string) { *text = strings.Replace(*text, "host.", "hose.", 1) },
		"text much longer": func(_ *Index, text *string) { *text += strings.Repeat("z", 2*MemberSize) },
	} {
		ix, got := indexOf(t, text), text
		change(ix, &got)
		if err := ix.Check(strings.NewReader(got)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
