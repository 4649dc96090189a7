package gateway

import (
	"context"
	"fmt"
	"time"

	"logvault/ledger"
	"logvault/ledger/entry"
	"logvault/vault"
)

// VaultStatus is the state of one vault at one moment, as its own signed ledger
// tells it to a reader who has no gateway state.
type VaultStatus struct {
	Vault string `json:"vault"`
	// Problem says why nothing or not all could be found out; Err is the same.
	Problem string `json:"problem,omitempty"`
	Err     error  `json:"-"`
	// Unpinned says that the key was read from the vault itself: nothing is proven.
	Unpinned bool   `json:"unpinned"`
	Origin   string `json:"origin,omitempty"`
	Size     int64  `json:"ledger_size"`
	Root     string `json:"ledger_root,omitempty"`
	// Behind is by how many entries another of the vaults has more of this ledger.
	Behind int64 `json:"behind_entries"`
	// LastEntry is the time of the newest entry.
	LastEntry time.Time `json:"last_entry,omitzero"`
	// Segments, and the sums over them; Received spans their bytes.
	Segments      int64     `json:"segments"`
	Lines         int64     `json:"lines"`
	Raw           int64     `json:"raw_bytes"`
	Stored        int64     `json:"stored_bytes"`
	FirstReceived time.Time `json:"first_received,omitzero"`
	LastReceived  time.Time `json:"last_received,omitzero"`
	Gaps          int64     `json:"gaps"`
	// Free and Total are the room of a vault whose store knows it, in bytes.
	Free  int64 `json:"vault_free_bytes"`
	Total int64 `json:"vault_total_bytes"`
}

// OpenVault opens a place and tells what is trusted about its ledger.
type OpenVault func(ctx context.Context, place string) (store vault.Store, trust *ledger.Trust, unpinned bool, err error)

// SurveyVaults looks at all places at the same time. It only reads. What cannot
// be found out about one place is its Problem and hides nothing of the others.
// A vault that shows another history than a longer one of the same ledger has
// ledger.ErrForked.
func SurveyVaults(ctx context.Context, places []string, open OpenVault) []VaultStatus {
	type seen struct {
		VaultStatus
		tree *ledger.Tree
	}
	all := Answers(ctx, len(places), vaultWait, func(ctx context.Context, i int) seen {
		k := seen{VaultStatus: VaultStatus{Vault: places[i]}}
		k.tree, k.Err = k.read(ctx, open)
		return k
	}, func(i int, err error) seen {
		return seen{VaultStatus: VaultStatus{Vault: places[i], Err: fmt.Errorf("%s: %w", places[i], err)}}
	})
	out := make([]VaultStatus, len(all))
	for i, k := range all {
		for j, other := range all {
			if i != j && k.Err == nil && other.Err == nil && other.Origin == k.Origin && other.Size >= k.Size {
				k.Behind = max(k.Behind, other.Size-k.Size)
				k.Err = continues(ctx, other.tree, k.tree)
			}
		}
		if k.Err != nil {
			k.Problem = k.Err.Error()
		}
		out[i] = k.VaultStatus
	}
	return out
}

// vaultWait bounds how long vaults are looked at: their ledgers are read as a whole.
const vaultWait = 10 * time.Minute

// continues tells whether long has the history of short.
func continues(ctx context.Context, long, short *ledger.Tree) error {
	root, err := long.RootAt(ctx, short.Size())
	if err == nil && root != short.Root() {
		err = fmt.Errorf("at size %d the roots are %s and %s: %w", short.Size(), short.Root(), root, ledger.ErrForked)
	}
	return err
}

// read reads the ledger and asks for the room. What it finds before an error stays.
func (k *VaultStatus) read(ctx context.Context, open OpenVault) (*ledger.Tree, error) {
	store, trust, unpinned, err := open(ctx, k.Vault)
	if err != nil {
		return nil, err
	}
	k.Unpinned = unpinned
	if m, ok := store.(measured); ok {
		if space, err := m.Space(); err == nil { // a matter of display
			k.Free, k.Total = space.Free, space.Total
		}
	}
	tree, err := ledger.OpenTree(ctx, store, vault.LedgerPrefix, trust)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger of %s: %w", k.Vault, err)
	}
	k.Origin, k.Size, k.Root = tree.Checkpoint().Origin, tree.Size(), tree.Root().String()
	err = tree.Entries(ctx, 0, tree.Size(), func(i int64, data []byte) error {
		e, err := entry.Decode(data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		k.add(e)
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ledger of %s: %w", k.Vault, err)
	}
	return tree, nil
}

func (k *VaultStatus) add(e entry.Entry) {
	k.LastEntry = e.Head().Time
	switch e := e.(type) {
	case *entry.Segment:
		k.Segments, k.Lines, k.Raw, k.Stored = k.Segments+1, k.Lines+e.Lines, k.Raw+e.Raw, k.Stored+e.Size
		if k.FirstReceived.IsZero() || e.FirstReceived.Before(k.FirstReceived) {
			k.FirstReceived = e.FirstReceived
		}
		if e.LastReceived.After(k.LastReceived) {
			k.LastReceived = e.LastReceived
		}
	case *entry.Gap:
		k.Gaps++
	}
}
