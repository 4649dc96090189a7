package segment

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"logvault/extract/logfmt"
)

// sampleSize is how much of a text its format is detected from.
const sampleSize = 64 << 10

// Check reads the whole text that ix describes and compares ix with what the
// encoder would have written: format, counts, event times, members and every
// token with its postings. The error says what differs, without content.
// Memory: one line and the tokens.
func (ix *Index) Check(raw io.Reader) error {
	r := bufio.NewReaderSize(raw, sampleSize)
	sample, err := r.Peek(sampleSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	w := &worker{tokens: newTokenTable(), first: -1, last: -1}
	format := logfmt.Detect(sample)
	members := make([]Member, len(ix.Members))
	var pos int64
	lines, err := eachLine(r, func(i int64, line []byte) {
		if end := pos + int64(len(line)); end <= ix.Raw && memberCount(end) <= len(members) {
			w.takeTokens(format, line, int(pos))
			takeMembers(members, i, pos, line)
		}
		pos += int64(len(line))
	})
	if err != nil {
		return err
	}
	w.tokens.sort()
	switch {
	case pos != ix.Raw:
		return differ("raw bytes", pos, ix.Raw)
	case lines != ix.Lines:
		return differ("lines", lines, ix.Lines)
	case string(format) != ix.Format:
		return differ("format", format, ix.Format)
	case w.unparsed != ix.Unparsed || w.unparsedIn != ix.unparsed:
		return differ("unparsed lines", w.unparsed, ix.Unparsed)
	}
	if err := checkEvents(w, ix); err != nil {
		return err
	}
	for i, m := range ix.Members {
		if got := members[i]; got.FirstLine != m.FirstLine || got.Lines != m.Lines || got.Lead != m.Lead {
			return fmt.Errorf("member %d: first line, lines and lead %d, %d, %d, the text has %d, %d, %d",
				i, m.FirstLine, m.Lines, m.Lead, got.FirstLine, got.Lines, got.Lead)
		}
	}
	return ix.checkTokens(w.tokens)
}

func differ(what string, text, index any) error {
	return fmt.Errorf("%s: %v, the text has %v", what, index, text)
}

// takeMembers notes what line i, which starts at pos, says of the members that
// it touches.
func takeMembers(members []Member, i, pos int64, line []byte) {
	end := pos + int64(len(line))
	if line[len(line)-1] == '\n' {
		members[(end-1)/MemberSize].Lines++
	}
	for m := (pos + MemberSize - 1) / MemberSize; m*MemberSize < end; m++ {
		start := m * MemberSize
		members[m].FirstLine = i
		if start > pos {
			members[m].Lead = min(end, start+MemberSize) - start
		}
	}
}

func checkEvents(w *worker, ix *Index) error {
	var first, last time.Time
	if w.first >= 0 {
		first, last = time.UnixMilli(w.first), time.UnixMilli(w.last)
	}
	if !first.Equal(ix.FirstEvent) || !last.Equal(ix.LastEvent) {
		return errors.New("event times: not those of the text")
	}
	return nil
}

// checkTokens compares the dictionary with the sorted tokens of the text.
func (ix *Index) checkTokens(t *tokenTable) error {
	var next [len(ix.tokens)]int
	bad := ""
	mergeTokens([]*tokenTable{t}, func(k logfmt.TokenKind, token []byte, members uint64) {
		d := ix.dictionary(k)
		n := next[k-logfmt.Client]
		next[k-logfmt.Client]++
		switch {
		case bad != "":
		case n >= len(d.ends):
			bad = fmt.Sprintf("%s token %d is not in the dictionary", k, n)
		case !bytes.Equal(d.token(n), token):
			bad = fmt.Sprintf("%s token %d is another one", k, n)
		case d.members[n] != members:
			bad = fmt.Sprintf("%s token %d has other postings", k, n)
		}
	})
	for i := range ix.tokens {
		if bad == "" && next[i] < len(ix.tokens[i].ends) {
			bad = fmt.Sprintf("%s tokens that the text does not have", logfmt.Client+logfmt.TokenKind(i))
		}
	}
	if bad != "" {
		return errors.New("dictionary: " + bad)
	}
	return nil
}
