package dir

import "logvault/vault"

// The powers of a store, apart.
var (
	_ vault.Reader  = (*Store)(nil)
	_ vault.Writer  = (*Store)(nil)
	_ vault.Head    = (*Store)(nil)
	_ vault.Remover = (*Store)(nil)
)
