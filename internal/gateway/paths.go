package gateway

import (
	"path/filepath"

	"logvault/internal/config"
)

// paths names what is in a state directory. docs/FORMAT.md describes each file.
//
//	STATE/
//	  logvault.toml  trust.toml  ledger.vkey       for people and auditors
//	  lock  control.sock                           one process owns the state
//	  ledger/...                                   the ledger of record
//	  keys/ledger.key  keys/handle.key             secrets, 0600
//	  keys/spool/                                  one key per spool file, 0600
//	  spool/                                       the encrypted intake
//	  auditors/<fingerprint>.asc                   public keys of the auditors
type paths string

func (p paths) at(elem ...string) string {
	return filepath.Join(append([]string{string(p)}, elem...)...)
}

func (p paths) config() string    { return p.at("logvault.toml") }
func (p paths) trust() string     { return p.at("trust.toml") }
func (p paths) vkey() string      { return p.at("ledger.vkey") }
func (p paths) lock() string      { return p.at("lock") }
func (p paths) socket() string    { return p.at("control.sock") }
func (p paths) keys() string      { return p.at("keys") }
func (p paths) ledgerKey() string { return p.at("keys", "ledger.key") }
func (p paths) handleKey() string { return p.at("keys", "handle.key") }
func (p paths) spoolKeys() string { return p.at("keys", "spool") }
func (p paths) spool() string     { return p.at("spool") }
func (p paths) auditors() string  { return p.at("auditors") }

// dirs are the directories of a state, parents first.
func (p paths) dirs() []string {
	return []string{string(p), p.keys(), p.spoolKeys(), p.spool(), p.auditors()}
}

func (p paths) auditor(fingerprint string) string { return p.at("auditors", fingerprint+".asc") }

// TrustFile is where a gateway keeps what its own reading commands pin.
func TrustFile(c *config.Config) string { return paths(c.State).trust() }
