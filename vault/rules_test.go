package vault

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// powers is what the rules allow for each kind of object. A kind that is missing
// here fails the test: nobody may forget to decide.
var powers = map[Kind]struct{ put, replace, partial, remove bool }{
	KindMarker:         {put: true},
	KindSegment:        {put: true, remove: true},
	KindIndex:          {put: true, remove: true},
	KindWrap:           {put: true, remove: true},
	KindHoldKey:        {put: true, remove: true},
	KindCheckpoint:     {replace: true},
	KindTile:           {put: true},
	KindBundle:         {put: true},
	KindPartialTile:    {replace: true, partial: true},
	KindPartialBundle:  {replace: true, partial: true},
	KindKeptCheckpoint: {put: true},
	KindCosignature:    {put: true},
	KindTimestamp:      {put: true},
	KindRegister:       {put: true, remove: true},
}

func TestRules(t *testing.T) {
	for _, tt := range names {
		want, ok := powers[tt.want.Kind]
		if !ok {
			t.Fatalf("nothing is said about a %s", tt.want.Kind)
		}
		o, err := CheckPut(tt.name, 0)
		if (err == nil) != want.put {
			t.Errorf("%s: Put gives %v, allowed %v", tt.name, err, want.put)
		}
		if err == nil && (o.Kind != tt.want.Kind || o.Name != tt.name) {
			t.Errorf("%s: Put is told of %+v", tt.name, o)
		}
		for what, got := range map[string]struct {
			err  error
			want bool
		}{
			"Replace":       {CheckReplace(tt.name), want.replace},
			"RemovePartial": {CheckRemovePartial(tt.name), want.partial},
			"Remove":        {CheckRemove(tt.name), want.remove},
		} {
			if (got.err == nil) != got.want {
				t.Errorf("%s: %s gives %v, allowed %v", tt.name, what, got.err, got.want)
			}
		}
		// What can be stored once is never replaced, and what is replaced is never removed for good.
		if want.put && want.replace || want.replace && want.remove {
			t.Errorf("a %s has two powers that exclude each other", tt.want.Kind)
		}
	}
	for k := KindMarker; k <= KindRegister; k++ {
		if _, ok := powers[k]; !ok {
			t.Errorf("nothing is said about a %s", k)
		}
	}
}

func TestRulesRefuseForeignNames(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"", ".", "..", "/", "../VAULT", "VAULT/..", "segments", "ledger/", "lost+found", ".tmp-1", ".canary-1",
		"segments/2026/11/21/" + hexA + ".gz.pgp.tmp", "ledger/checkpoint\n", "ledger/tile/0/../checkpoint", strings.Repeat("a", 70000)} {
		_, put := CheckPut(name, 1)
		for what, err := range map[string]error{
			"Put": put, "Replace": CheckReplace(name), "RemovePartial": CheckRemovePartial(name), "Remove": CheckRemove(name),
			"RemoveTail": CheckRemoveTail(ctx, oneObject{name: "ledger/checkpoint", data: "o\n0\n", size: 4}, name),
		} {
			if err == nil {
				t.Errorf("%s of %.40q is allowed", what, name)
			} else if len(err.Error()) > 400 {
				t.Errorf("%s of %.40q: an error of %d bytes", what, name, len(err.Error()))
			}
		}
	}
	if _, err := CheckPut(MarkerName, -1); err == nil {
		t.Error("an object of -1 bytes may be stored")
	}
}

func TestCheckRemoveTail(t *testing.T) {
	ctx := context.Background()
	bundle := BundleName(LedgerPrefix, 1, TileWidth) // entries 256 to 511
	head := func(name, size string) oneObject {
		text := "origin\n" + size + "\nroot\n"
		return oneObject{name: name, data: text, size: int64(len(text))}
	}
	down := errors.New("store is down")
	for _, tt := range []struct {
		what, name string
		store      oneObject
		is         error // nil: any error
		ok         bool
	}{
		{what: "beyond the checkpoint", name: bundle, store: head("ledger/checkpoint", "511"), ok: true},
		{what: "covered", name: bundle, store: head("ledger/checkpoint", "512")},
		{what: "of a copy, by its own checkpoint", name: BundleName(CopyLogPrefix("b"), 1, TileWidth), store: head("copy/b/log/checkpoint", "300"), ok: true},
		{what: "of a copy, by another's checkpoint", name: BundleName(CopyLogPrefix("b"), 1, TileWidth), store: head("ledger/checkpoint", "300"), is: ErrNotExist},
		{what: "without a checkpoint", name: bundle, store: oneObject{}, is: ErrNotExist},
		{what: "unreachable", name: bundle, store: oneObject{err: down}, is: down},
		{what: "a checkpoint that is none", name: bundle, store: head("ledger/checkpoint", "many")},
		{what: "a huge checkpoint", name: bundle, store: oneObject{name: "ledger/checkpoint", size: maxCheckpoint + 1}},
		{what: "a partial bundle", name: BundleName(LedgerPrefix, 9, 5), store: head("ledger/checkpoint", "0")},
		{what: "a segment", name: SegmentName(day, hashA, Gzip), store: head("ledger/checkpoint", "0")},
		{what: "a kept head", name: KeptCheckpointName(LedgerPrefix, 9), store: head("ledger/checkpoint", "0")},
	} {
		err := CheckRemoveTail(ctx, tt.store, tt.name)
		if (err == nil) != tt.ok || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v", tt.what, err)
		}
		if err != nil && !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%s: %v does not say which object", tt.what, err)
		}
	}
}

func TestContentNamed(t *testing.T) {
	for _, tt := range names {
		k := tt.want.Kind
		if got, want := tt.want.IsContentNamed(), k == KindSegment || k == KindIndex || k == KindWrap; got != want {
			t.Errorf("a %s is named after its bytes: %v", k, got)
		}
	}
}

func TestLogPrefix(t *testing.T) {
	for _, tt := range names {
		prefix, _, inLog := strings.Cut(tt.name, "/log/")
		switch {
		case inLog && tt.want.LogPrefix() != prefix+"/log/":
			t.Errorf("%s belongs to %s", tt.name, tt.want.LogPrefix())
		case strings.HasPrefix(tt.name, LedgerPrefix) && tt.want.LogPrefix() != LedgerPrefix:
			t.Errorf("%s belongs to %s", tt.name, tt.want.LogPrefix())
		}
	}
}

// TestWeaker compares all levels with each other: the order is total, and what
// is unknown protects as little as none.
func TestWeaker(t *testing.T) {
	order := []Level{"", LevelNone, LevelMode, LevelFlag, LevelLock}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Weaker(b), i < j; got != want {
				t.Errorf("%q is weaker than %q: %v", a, b, got)
			}
		}
		if order[i].Weaker("unheard-of") || i > 1 && !Level("unheard-of").Weaker(a) {
			t.Errorf("a level that nobody knows beats %q", a)
		}
	}
}

// endless gives bytes without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestExactlyStops reads at most one byte more than was stated, however long the body is.
func TestExactlyStops(t *testing.T) {
	n, err := io.Copy(io.Discard, Exactly(context.Background(), endless{}, 1<<20))
	if n != 1<<20 || err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := Exactly(context.Background(), endless{}, 5).Read(nil); n != 0 || err != nil {
		t.Errorf("a read of nothing: %d, %v", n, err)
	}
}
