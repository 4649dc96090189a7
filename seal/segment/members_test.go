package segment

import (
	"fmt"
	"io"

	"logvault/extract/logfmt"
	"logvault/seal/pgp"
	"logvault/vault"
)

// What the index of a segment promises to other readers of the format, by which
// the tests read single members and all tokens. A search opens whole segments:
// the proof of a line needs the hashes of all others.

// defaultLevel returns the level that a codec is measured with: gzip 6, zstd 1.
func defaultLevel(c vault.Codec) int {
	if c == vault.Zstd {
		return 1
	}
	return 6
}

// decodeMembers decompresses the given members of a segment, which must be in
// ascending order, and calls fn with the text of each, valid until fn returns.
// The whole message is decrypted and its end checked, but only these members
// are decompressed. What Decode says of unchecked text holds here too.
func decodeMembers(r io.Reader, s *pgp.Secret, c vault.Codec, ix *Index, members []int, fn func(member int, raw []byte) error) error {
	if c != ix.Codec {
		return fmt.Errorf("segment: codec %q, its index says %q", string(c), string(ix.Codec))
	}
	sealed, err := s.Decrypt(r)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	var position int64
	buf := make([]byte, 0, MemberSize)
	for n, i := range members {
		if i < 0 || i >= len(ix.Members) || n > 0 && i <= members[n-1] {
			return fmt.Errorf("segment: member %d at place %d: expected ascending numbers below %d", i, n, len(ix.Members))
		}
		m := &ix.Members[i]
		if err := discard(sealed, m.Offset-position); err != nil {
			return fmt.Errorf("segment: before member %d: %w", i, err)
		}
		if err := decodeMember(buf[:m.RawSize], io.LimitReader(sealed, m.Size), c); err != nil {
			return fmt.Errorf("segment: member %d: %w", i, err)
		}
		position = m.Offset + m.Size
		if err := fn(i, buf[:m.RawSize]); err != nil {
			return err
		}
	}
	last := &ix.Members[len(ix.Members)-1]
	if err := discard(sealed, last.Offset+last.Size-position); err != nil {
		return fmt.Errorf("segment: after member %d: %w", len(ix.Members)-1, err)
	}
	if extra, err := io.Copy(io.Discard, sealed); err != nil {
		return fmt.Errorf("segment: %w", err)
	} else if extra > 0 {
		return fmt.Errorf("segment: %w", corrupt("%d bytes after the last member", extra))
	}
	return nil
}

func discard(r io.Reader, n int64) error {
	got, err := io.CopyN(io.Discard, r, n)
	if err == io.EOF {
		return corrupt("ends %d bytes early", n-got)
	}
	return err
}

// decodeMember fills dst with a member's text, which must be exactly that long
// and use the whole of r.
func decodeMember(dst []byte, r io.Reader, c vault.Codec) error {
	text, err := decompressor(r, c, MemberSize)
	if err != nil {
		return err
	}
	defer text.Close() // frees memory; the stream's errors come from Read
	if _, err := io.ReadFull(text, dst); err != nil {
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			return corrupt("text shorter than %d bytes", len(dst))
		}
		return err
	}
	var one [1]byte
	if n, err := io.ReadFull(text, one[:]); n > 0 {
		return corrupt("text longer than %d bytes", len(dst))
	} else if err != io.EOF {
		return err
	}
	if extra, err := io.Copy(io.Discard, r); err != nil || extra > 0 {
		return corrupt("%d bytes behind the member: %v", extra, err)
	}
	return nil
}

// decodeLines calls fn for every line that lies wholly in the given ascending
// members, with the member that it starts in, its number and its text, valid
// until fn returns. Because the index lists a token under each member that its
// line touches, the members of a lookup always give its lines whole.
func decodeLines(r io.Reader, s *pgp.Secret, c vault.Codec, ix *Index, members []int, fn func(member int, line int64, text []byte) error) error {
	var open []byte // the start of a line that goes on in the next member
	openIn, previous := 0, -1
	return decodeMembers(r, s, c, ix, members, func(i int, raw []byte) error {
		m := &ix.Members[i]
		line := m.FirstLine
		if i != previous+1 {
			open = open[:0]
		}
		previous = i
		if m.Lead > 0 && len(open) == 0 { // its start is in a member that was not asked for
			raw = raw[m.Lead:]
			line++
		}
		for len(raw) > 0 {
			text := raw[:lineLength(raw)]
			raw = raw[len(text):]
			if text[len(text)-1] != '\n' && i < len(ix.Members)-1 {
				if len(open) == 0 {
					openIn = i
				}
				open = append(open, text...)
				return nil
			}
			start := i
			if len(open) > 0 {
				open = append(open, text...)
				text, start = open, openIn
			}
			if err := fn(start, line, text); err != nil {
				return err
			}
			open = open[:0]
			line++
		}
		return nil
	})
}

// allTokens calls fn for all tokens, by kind and then in the order of their bytes,
// until it returns false. token is valid for the life of the index and must not
// be changed.
func allTokens(ix *Index, fn func(k logfmt.TokenKind, token []byte, members []int) bool) {
	for _, k := range logfmt.Kinds {
		d := ix.dictionary(k)
		for i := range d.ends {
			if !fn(k, d.token(i), membersOf(d.members[i])) {
				return
			}
		}
	}
}
