// Package witness has the heads of a ledger cosigned by a third party.
//
// A witness (https://c2sp.org/tlog-witness) remembers, for each log it knows,
// the last head that it cosigned, and cosigns another one only with a proof
// that the log still contains it. So a history that was rolled back or forked
// gets no cosignature from it, whoever holds the ledger's key. The request is
//
//	POST <URL>/add-checkpoint
//
//	old 20852014
//	PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
//	…
//
//	<the signed checkpoint>
//
// with the size that it cosigned last, the RFC 6962 consistency proof from
// there, and an empty line. The answer 200 holds note signature lines, of which
// the one by the pinned key counts; 409 with the type text/x.tlog.size tells the
// size to prove from.
//
// A witness learns the ledger's origin, sizes and roots, and nothing else. It is
// not trusted: it can withhold a cosignature, and make none that verifies for a
// history it has not seen, unless its key is stolen as well.
package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"logvault/ledger"
)

const (
	// answerLimit bounds the answer of a witness in bytes.
	answerLimit = 16 << 10
	// rounds is how often a witness may name another size to prove from.
	rounds = 3
	// sizeType is the content type of an answer that names a size.
	sizeType = "text/x.tlog.size"
)

// Why a witness does not cosign. Errors of the network and of an overloaded
// witness are none of these.
var (
	// ErrAhead says that the witness has cosigned more entries than the ledger
	// has: the ledger was rolled back.
	ErrAhead = errors.New("the witness has cosigned a longer history of this ledger")
	// ErrForked says that the ledger does not contain what the witness cosigned.
	ErrForked = errors.New("the witness has cosigned another history of this ledger")
	// ErrUnknown says that the witness does not know the ledger or its key.
	ErrUnknown = errors.New("the witness does not know this ledger or its key")
	// ErrInvalid says that the witness answered something else than the protocol
	// allows, or without a valid cosignature by the pinned key.
	ErrInvalid = errors.New("invalid answer of the witness")
)

// Witness is a third party that cosigns.
type Witness struct {
	URL  string       // submission prefix
	Key  string       // its pinned cosignature/v1 verifier key
	HTTP *http.Client // makes the requests; its time-out bounds each
}

// Cosignature is the statement of a witness about one head.
type Cosignature struct {
	Line  []byte    // the note signature line, with its LF
	KeyID string    // of the witness's key
	Time  time.Time // by the witness's clock
}

// Cosign asks for a cosignature of the head that tree was opened at. last is the
// size that the witness is known to have cosigned, 0 if none is; the witness
// corrects it. The cosignature is verified with the pinned key.
func (w *Witness) Cosign(ctx context.Context, tree *ledger.Tree, last int64) (Cosignature, error) {
	for range rounds {
		if last > tree.Size() {
			return Cosignature{}, fmt.Errorf("%w: %d entries, the ledger has %d", ErrAhead, last, tree.Size())
		}
		body, err := request(ctx, tree, last)
		if err != nil {
			return Cosignature{}, err
		}
		status, kind, answer, err := w.post(ctx, body)
		if err != nil {
			return Cosignature{}, err
		}
		switch {
		case status == http.StatusOK:
			return w.cosignature(tree.Checkpoint(), answer)
		case status == http.StatusConflict && kind == sizeType:
			if last, err = parseSize(answer); err != nil {
				return Cosignature{}, err
			}
		default:
			return Cosignature{}, refusal(status, last)
		}
	}
	return Cosignature{}, fmt.Errorf("%w: it named another size %d times", ErrInvalid, rounds)
}

// refusal is the error that an answer without a cosignature means. A witness
// that cosigned this very size answers 409, one that cosigned less 422.
func refusal(status int, last int64) error {
	switch status {
	case http.StatusConflict, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: it does not contain the head of size %d that was cosigned (HTTP %d)", ErrForked, last, status)
	case http.StatusNotFound, http.StatusForbidden:
		return fmt.Errorf("%w (HTTP %d)", ErrUnknown, status)
	}
	return fmt.Errorf("the witness answered HTTP %d", status)
}

// request makes the body of add-checkpoint.
func request(ctx context.Context, tree *ledger.Tree, last int64) ([]byte, error) {
	proof, err := tree.ConsistencyProof(ctx, last)
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, "old %d\n", last)
	for _, h := range proof {
		b = fmt.Appendf(b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	return append(append(b, '\n'), tree.Checkpoint().Raw...), nil
}

// post sends a request. It follows no redirect: that would turn it into a GET.
func (w *Witness) post(ctx context.Context, body []byte) (status int, kind string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(w.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking the witness: %w", err)
	}
	client := *w.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking the witness: %w", err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, answerLimit+1))
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking the witness: %w", err)
	}
	if len(answer) > answerLimit {
		return 0, "", nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, answerLimit)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), answer, nil
}

// parseSize parses the answer that names the size cosigned last.
func parseSize(answer []byte) (int64, error) {
	text, ok := strings.CutSuffix(string(answer), "\n")
	size, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || size < 0 || strconv.FormatInt(size, 10) != text {
		return 0, fmt.Errorf("%w: size %.20q", ErrInvalid, answer)
	}
	return size, nil
}

// cosignature finds the line by the pinned key. Lines by others are ignored: a
// witness may have several keys.
func (w *Witness) cosignature(head ledger.Checkpoint, answer []byte) (Cosignature, error) {
	err := errors.New("no signature line")
	for line := range bytes.Lines(answer) {
		var at time.Time
		if at, err = ledger.VerifyCosignature(head, line, w.Key); err == nil {
			return Cosignature{Line: bytes.Clone(line), KeyID: strings.SplitN(w.Key, "+", 3)[1], Time: at}, nil
		}
	}
	return Cosignature{}, fmt.Errorf("%w: %w", ErrInvalid, err)
}
