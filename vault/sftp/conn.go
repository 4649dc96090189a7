package sftp

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"logvault/internal/deadline"
	"logvault/vault"
)

// ErrHostKey says that the server showed a host key that known_hosts does not
// have for it.
var ErrHostKey = errors.New("the server's host key is not the known one")

// session is one connection. Its goroutine, which keeps the line awake, ends
// with it.
type session struct {
	client *sftp.Client
	conn   *ssh.Client
	stop   chan struct{}
	once   sync.Once
	awake  sync.WaitGroup
}

func (s *session) close() error {
	s.once.Do(func() { close(s.stop) })
	err := s.conn.Close()
	s.awake.Wait()
	return err
}

// keepAwake asks for a sign of life three times within the timeout, after which
// the deadline of the connection ends a silence. It asks what serves the files: an
// sshd answers its own keep-alives also while a mount that is away holds the rest.
func (s *session) keepAwake(timeout time.Duration) {
	tick := time.NewTicker(timeout / 3)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if _, err := s.client.RealPath("."); broken(err) {
				return
			}
		}
	}
}

// do calls f with a connection. An error of the line drops the connection, so
// that the next call makes another, and wraps vault.ErrUnreachable.
func (s *Store) do(ctx context.Context, f func(*sftp.Client) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ses, err := s.connected(ctx)
	if err != nil {
		return err
	}
	return s.judge(ses, f(ses.client))
}

// judge tells a broken line from an answer.
func (s *Store) judge(ses *session, err error) error {
	if !broken(err) {
		return err
	}
	s.mu.Lock()
	if s.session == ses {
		s.session = nil
	}
	s.mu.Unlock()
	ses.close() // it is broken: that is the error to report
	return fmt.Errorf("%s: %w: %w", s.cfg.Addr, vault.ErrUnreachable, err)
}

// broken reports whether err is of the line rather than an answer of the
// server, or of the body of a Put.
func broken(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*bodyError](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, sftp.ErrSSHFxNoConnection) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
		return true
	}
	_, isNet := errors.AsType[net.Error](err) // with deadlines and closed connections
	return isNet
}

// connected returns the connection, made now if there is none.
func (s *Store) connected(ctx context.Context) (*session, error) {
	s.dialing.Lock()
	defer s.dialing.Unlock()
	s.mu.Lock()
	ses := s.session
	s.mu.Unlock()
	if ses != nil {
		return ses, nil
	}
	ses, err := s.dial(ctx)
	if ctx.Err() != nil && err != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to %s@%s: %w", s.cfg.User, s.cfg.Addr, err)
	}
	s.mu.Lock()
	s.session = ses
	s.mu.Unlock()
	return ses, nil
}

func (s *Store) dial(ctx context.Context) (*session, error) {
	hosts, err := knownhosts.New(s.cfg.KnownHosts...)
	if err != nil {
		return nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	signers, done, err := s.signers(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	raw, err := deadline.Dial(ctx, "tcp", s.cfg.Addr, s.cfg.Timeout)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vault.ErrUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	login := &login{hosts: hosts, signers: signers}
	conn, chans, reqs, err := ssh.NewClientConn(raw, s.cfg.Addr, &ssh.ClientConfig{User: s.cfg.User, HostKeyCallback: login.hostKey,
		HostKeyAlgorithms: knownAlgorithms(hosts, s.cfg.Addr, raw.RemoteAddr()), Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(login.keys)}})
	if err != nil {
		raw.Close() // the cause is reported
		return nil, login.explain(err)
	}
	ses := &session{conn: ssh.NewClient(conn, chans, reqs), stop: make(chan struct{})}
	if ses.client, err = newClient(ses.conn); err != nil {
		ses.close() // the cause is reported
		return nil, fmt.Errorf("starting sftp: %w", errors.Join(vault.ErrUnreachable, err))
	}
	ses.awake.Go(func() { ses.keepAwake(s.cfg.Timeout) })
	return ses, nil
}

const (
	largePacket = 255 << 10 // what OpenSSH since 8.5 reads and writes in one request
	inFlight    = 16        // requests per file: 4 MiB
)

// newClient starts the sftp subsystem. Only a server that tells its limits is
// known to read more than 32 KiB at once: others answer less, which would be
// taken for the end of the file.
func newClient(conn *ssh.Client) (*sftp.Client, error) {
	options := []sftp.ClientOption{sftp.UseConcurrentWrites(true), sftp.UseFstat(true), sftp.MaxConcurrentRequestsPerFile(inFlight)}
	c, err := sftp.NewClient(conn, options...)
	if err != nil {
		return nil, err
	}
	if _, ok := c.HasExtension("limits@openssh.com"); !ok {
		return c, nil
	}
	large, err := sftp.NewClient(conn, append(options, sftp.MaxPacketUnchecked(largePacket))...)
	if err != nil {
		return c, nil // one session only: the small packets do
	}
	c.Close() // its errors are of no concern
	return large, nil
}

// login is one attempt to log in; it remembers how far it came.
type login struct {
	hosts    ssh.HostKeyCallback
	signers  []ssh.Signer
	badHost  error
	offering bool
}

func (l *login) hostKey(host string, remote net.Addr, key ssh.PublicKey) error {
	err := l.hosts(host, remote, key)
	if err == nil {
		return nil
	}
	what := "it is not in the known hosts"
	if e, ok := errors.AsType[*knownhosts.KeyError](err); !ok {
		what = err.Error()
	} else if len(e.Want) > 0 {
		what = fmt.Sprintf("expected %s of %s:%d", ssh.FingerprintSHA256(e.Want[0].Key), e.Want[0].Filename, e.Want[0].Line)
	}
	l.badHost = fmt.Errorf("%w: it shows %s %s, %s", ErrHostKey, key.Type(), ssh.FingerprintSHA256(key), what)
	return l.badHost
}

func (l *login) keys() ([]ssh.Signer, error) {
	l.offering = true
	return l.signers, nil
}

// explain tells apart a wrong host, a refused log-in and a broken line.
func (l *login) explain(err error) error {
	switch {
	case l.badHost != nil:
		return l.badHost
	case l.offering && !broken(err):
		return fmt.Errorf("%w: the server accepts none of %d keys: %w", fs.ErrPermission, len(l.signers), err)
	}
	return fmt.Errorf("%w: %w", vault.ErrUnreachable, err)
}

// knownAlgorithms returns the algorithms of the host keys that are known for an
// address, so that the server shows one of those and not another it has. Nil
// leaves the choice to the library: the host is unknown then, and refused.
func knownAlgorithms(hosts ssh.HostKeyCallback, addr string, remote net.Addr) []string {
	probe, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return nil
	}
	known, ok := errors.AsType[*knownhosts.KeyError](hosts(addr, remote, probe))
	if !ok {
		return nil
	}
	var names []string
	for _, k := range known.Want {
		add := []string{k.Key.Type()}
		if k.Key.Type() == ssh.KeyAlgoRSA {
			add = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, a := range add {
			if !slices.Contains(names, a) {
				names = append(names, a)
			}
		}
	}
	return names
}

// signers returns what can log in; done must be called after that.
func (s *Store) signers(ctx context.Context) (all []ssh.Signer, done func(), err error) {
	done = func() {}
	if s.cfg.Agent != "" && !s.cfg.OnlyKeys {
		if c, err := net.DialTimeout("unix", s.cfg.Agent, s.cfg.Timeout); err == nil {
			c = deadline.Wrap(c, s.cfg.Timeout)
			done = func() { c.Close() }
			if all, err = agent.NewClient(c).Signers(); err != nil {
				all = nil // as good as no agent
			}
		}
	}
	var skipped error
	for _, file := range s.cfg.Keys {
		signer, err := s.keyFile(ctx, file)
		switch {
		case err == nil:
			all = append(all, signer)
		case s.cfg.OnlyKeys:
			done()
			return nil, nil, err
		case !errors.Is(err, fs.ErrNotExist):
			skipped = err
		}
	}
	if len(all) == 0 {
		done()
		return nil, nil, errors.Join(fmt.Errorf("%w: no key to log in with: neither an agent's nor a key file", fs.ErrPermission), skipped)
	}
	return all, done, nil
}

func (s *Store) keyFile(ctx context.Context, file string) (ssh.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		if s.cfg.Passphrase == nil {
			return nil, fmt.Errorf("key %s: %w: encrypted, and nothing gives its passphrase", file, fs.ErrPermission)
		}
		phrase, perr := s.cfg.Passphrase(ctx, file)
		if perr != nil {
			return nil, fmt.Errorf("key %s: %w", file, perr)
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(data, phrase)
		clear(phrase)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w: %w", file, fs.ErrPermission, err)
	}
	return signer, nil
}
