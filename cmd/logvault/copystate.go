package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"logvault/internal/config"
	"logvault/internal/vfs"
	"logvault/ledger"
	"logvault/replicate"
	"logvault/vault"
)

// copyState is the directory of a copy's keys and pinned trust. It names its files:
//
//	trust.toml   what is pinned; it is written last, so that without it there is no copy
//	copy.key     signs the copy log
//	cosign.key   cosigns the source's heads
//	name         of the copy
//	settled      what passes that were killed have brought to its end (see memory)
//	lock         held by the running pass
type copyState string

func (s copyState) file(name string) string { return filepath.Join(string(s), name) }
func (s copyState) trust() string           { return s.file("trust.toml") }

// copyStateOf finds the state: --state, or beside a destination in a directory.
func copyStateOf(c *cli.Context) (copyState, error) {
	if s := c.String("state"); s != "" {
		return copyState(s), nil
	}
	to := c.String("to")
	if strings.Contains(to, "://") && !strings.HasPrefix(to, "file://") {
		return "", usagef("replicate: --state is required: %s is not on this machine, and the copy's keys must not be there", to)
	}
	return copyState(strings.TrimRight(strings.TrimPrefix(to, "file://"), "/") + ".state"), nil
}

// lockCopy takes the lock of a copy. Its state exists, or is made for --init.
func (a *app) lockCopy(c *cli.Context, state copyState) (io.Closer, error) {
	switch exists := fileExists(a.fs, state.trust()); {
	case c.Bool("init") && exists:
		return nil, &codedError{codeRefused, "run it again without --init", fmt.Errorf("the state %s: %w: a copy was begun with it", string(state), vault.ErrNotEmpty)}
	case c.Bool("init"):
		if err := vfs.MkdirAll(a.fs, string(state), 0o700); err != nil {
			return nil, err
		}
	case !exists:
		return nil, &codedError{codeNoVault, "make the copy with --init and --trust; a lost --state directory is not made anew silently",
			fmt.Errorf("no copy state in %s for %s", string(state), c.String("to"))}
	}
	return vfs.LockOwn(a.fs, state.file("lock"))
}

// copyKeys are what a copy signs with.
type copyKeys struct{ name, origin, log, logV, cosign, cosignV string }

// newCopy is what --init is given, all of it checked before anything is made.
type newCopy struct {
	trust *ledger.Trust
	keys  copyKeys
}

func (a *app) checkInit(c *cli.Context, from vault.Reader) (*newCopy, error) {
	if err := need(c, "trust"); err != nil {
		return nil, err
	}
	name := c.String("name")
	if _, err := vault.ParseName(vault.CheckpointName(vault.CopyLogPrefix(name))); err != nil {
		return nil, usagef("replicate: --name %q: expected 1 to 32 of a-z, 0-9 and '-'", name)
	}
	trust, err := a.loadTrust(c.String("trust"))
	if err != nil {
		return nil, err
	}
	if _, err := ledger.OpenTree(c.Context, from, vault.LedgerPrefix, trust); err != nil {
		return nil, fmt.Errorf("opening the source's ledger: %w", err)
	}
	marker, _, err := vault.ReadMarker(c.Context, from)
	if err != nil {
		return nil, err
	}
	return &newCopy{trust, copyKeys{name: name, origin: marker.Origin + "/copy/" + name}}, nil
}

// initCopy creates the destination and the copy's state. After a crash it goes
// on with the keys that it finds:
//
//	the destination's place, the keys (one file each), marker and copy log, trust.toml
//
// Without keys only an absent or empty place is taken.
func (a *app) initCopy(c *cli.Context, from vault.Store, state copyState, n *newCopy) error {
	resumed := fileExists(a.fs, state.file("name"))
	to, err := a.stores().Create(c.Context, c.String("to"))
	if errors.Is(err, vault.ErrNotEmpty) && resumed {
		to, err = a.stores().Open(c.Context, c.String("to"))
	}
	if err != nil {
		return err
	}
	k := &n.keys
	if err := a.makeKeys(state, k); err != nil {
		return err
	}
	err = replicate.Init(c.Context, replicate.InitOptions{From: from, To: to, Trust: n.trust, Log: a.copyLog(to, *k), Name: k.name, Key: k.logV, Cosigner: k.cosignV,
		Actor: "replica", Now: a.now})
	if err != nil {
		return err
	}
	n.trust.Copies = append(n.trust.Copies, ledger.TrustKey{Name: k.name, Key: k.logV})
	n.trust.Witnesses = append(n.trust.Witnesses, ledger.TrustKey{Name: k.origin, Key: k.cosignV})
	text, err := config.EncodeTrust(n.trust)
	if err != nil {
		return err
	}
	if err := vfs.CreateFile(a.fs, state.trust(), text, 0o644); err != nil {
		return err
	}
	a.talk(c, "copy %s created; append this to everybody's trust.toml, that of the gateway's state too:\n\n[[copies]]\nname = '%s'\nkey = '%s'\n\n[[witnesses]]\nname = '%s'\nkey = '%s'\n",
		k.name, k.name, k.logV, k.origin, k.cosignV)
	return nil
}

func (a *app) copyLog(to vault.Store, k copyKeys) ledger.Config {
	return ledger.Config{Prefix: vault.CopyLogPrefix(k.name), Origin: k.origin, SignerKey: k.log, Record: to, Now: a.now}
}

// makeKeys makes the copy's keys, or reads those that an earlier --init made.
// The name is written last.
func (a *app) makeKeys(state copyState, k *copyKeys) (err error) {
	logKey := func() (string, error) { s, _, err := ledger.GenerateKey(a.random, k.origin); return s, err }
	cosignKey := func() (string, error) { s, _, err := ledger.NewCosigner(a.random, k.origin); return s, err }
	if k.log, err = a.keyFile(state.file("copy.key"), logKey); err != nil {
		return err
	}
	if k.cosign, err = a.keyFile(state.file("cosign.key"), cosignKey); err != nil {
		return err
	}
	name, err := a.keyFile(state.file("name"), func() (string, error) { return k.name, nil })
	if err != nil {
		return err
	}
	if name != k.name {
		return usagef("replicate: an --init that did not end chose the name %s: repeat it with --name %s, or remove %s", name, name, string(state))
	}
	if k.logV, err = ledger.VerifierKey(k.log); err != nil {
		return fmt.Errorf("the copy's state: %s: %w", state.file("copy.key"), err)
	}
	if k.cosignV, err = ledger.VerifierKey(k.cosign); err != nil {
		return fmt.Errorf("the copy's state: %s: %w", state.file("cosign.key"), err)
	}
	return nil
}

// keyFile reads a file of the state, or makes it.
func (a *app) keyFile(file string, make func() (string, error)) (string, error) {
	text, err := a.readCopyState(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if text, err = make(); err != nil {
		return "", err
	}
	if err := vfs.CreateFile(a.fs, file, []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing the copy's state: %w", err)
	}
	return text, nil
}

func (a *app) readCopyState(file string) (string, error) {
	data, err := vfs.ReadFile(a.fs, file, 1<<16)
	if err != nil {
		return "", fmt.Errorf("reading the copy's state: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// memory is the file in which a pass remembers what it has brought to its end,
// one object a line, until it ends well: see docs/FORMAT.md. It is not synced;
// what a power cut takes from it is done again.
type memory struct {
	f    vfs.File
	seen map[vault.Hash]replicate.Reached
}

const (
	memoryMagic = "logvault-settled v1\n"
	memoryLimit = 1 << 30 // bytes: ten million objects
)

// openMemory opens or makes the file. One that this program did not write is as
// good as none.
func openMemory(fsys vfs.FS, name string) (*memory, error) {
	m := &memory{seen: make(map[vault.Hash]replicate.Reached)}
	data, err := vfs.ReadFile(fsys, name, memoryLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	body, known := bytes.CutPrefix(data, []byte(memoryMagic))
	if !known {
		if err := vfs.WriteFile(fsys, name, []byte(memoryMagic), 0o600); err != nil {
			return nil, err
		}
		data, body = []byte(memoryMagic), nil
	}
	for line := range bytes.Lines(body) {
		if h, r, ok := parseMemory(string(line)); ok {
			m.seen[h] = r
		}
	}
	if m.f, err = fsys.OpenRW(name); err != nil {
		return nil, err
	}
	if _, err = io.CopyN(io.Discard, m.f, int64(len(data))); err == nil && !bytes.HasSuffix(data, []byte("\n")) {
		_, err = m.f.Write([]byte("\n")) // a line that a crash tore
	}
	if err != nil {
		return nil, errors.Join(err, m.f.Close())
	}
	return m, nil
}

// parseMemory reads a line: hash, level, date.
func parseMemory(line string) (h vault.Hash, r replicate.Reached, ok bool) {
	part := strings.Split(line, " ")
	if len(part) != 3 {
		return h, r, false
	}
	h, err := vault.ParseHash(part[0])
	if err != nil {
		return h, r, false
	}
	r.Level = vault.Level(part[1])
	r.Until, err = time.Parse(time.RFC3339+"\n", part[2])
	return h, r, err == nil
}

// Recall implements replicate.Memory.
func (m *memory) Recall(h vault.Hash) (replicate.Reached, bool) {
	r, ok := m.seen[h]
	return r, ok
}

// Remember implements replicate.Memory.
func (m *memory) Remember(h vault.Hash, r replicate.Reached) error {
	m.seen[h] = r
	if _, err := fmt.Fprintf(m.f, "%s %s %s\n", h, r.Level, r.Until.UTC().Format(time.RFC3339)); err != nil {
		return fmt.Errorf("remembering what was done: %w", err)
	}
	return nil
}
