package nfsgw

import (
	"context"
	"errors"
	"strings"
	"time"

	"logvault/vault"
)

const (
	tidyEvery = 10 * time.Minute
	// sillyAge is how long a name that a client gave to a file removed while open
	// is kept without a write or another change: then the client has died. The
	// bytes are archived in any case, and late writes still are.
	sillyAge  = 24 * time.Hour
	tidyBatch = 64 // changes per record
)

// expiredName replaces a name whose bytes have expired.
const expiredName = "expired"

// tidyLoop tidies now and then until ctx is done, and looks whether the alarm is
// over when no call does.
func (s *Server) tidyLoop(ctx context.Context) {
	beat, look := time.NewTicker(tidyEvery), time.NewTicker(alarmCalm)
	defer beat.Stop()
	defer look.Stop()
	for {
		select {
		case <-beat.C:
			if err := s.tidy(ctx); err != nil && !errors.Is(err, vault.ErrFull) {
				s.fail(err)
			}
		case <-look.C:
			s.alarm.state()
		case <-ctx.Done():
			return
		case <-s.failed:
			return
		}
	}
}

// tidy takes away what nobody needs any more, as of now:
//
//   - the names of files that a client removed while they were open, if it has
//     died since;
//   - names whose last byte has expired. The file's id stays for as long as that
//     of a removed file, because a client may still hold it, and what comes late
//     is archived in the same stream, which has no name then;
//   - removed files whose time is over, and outdated answers.
//
// Directories stay: they hold no bytes, and a client may have mounted one.
// A crash leaves some of it undone; the next time does it.
func (s *Server) tidy(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // a change is made or not, as those of calls
	files := map[*tree][]fileState{}
	s.mu.RLock()
	for _, t := range s.trees {
		files[t] = nil
	}
	for _, n := range s.nodes {
		if n.kind == typeFile {
			files[n.tree] = append(files[n.tree], fileState{node: n})
		}
	}
	s.mu.RUnlock()
	for t, list := range files {
		if err := s.tidyTree(ctx, t, list); err != nil {
			return err
		}
	}
	return s.tidyReplies(ctx)
}

// tidyReplies takes the records of outdated answers out of the Sink's table.
func (s *Server) tidyReplies(ctx context.Context) error {
	for {
		slots := s.replies.outdated()
		if len(slots) == 0 {
			return nil
		}
		var c vault.Changes
		for _, slot := range slots {
			c.Set = append(c.Set, vault.KV{Key: replySlot(slot)})
		}
		err := s.cfg.Sink.Record(ctx, c)
		s.replies.dropped(slots, err == nil)
		if err != nil {
			return err
		}
	}
}

// fileState is what tidy judges a file by.
type fileState struct {
	node           *node
	name           string
	removed        bool
	written, ctime int64
}

func (s *Server) tidyTree(ctx context.Context, t *tree, files []fileState) error {
	due := s.judge(t, files)
	for len(due) > 0 {
		batch := due[:min(len(due), tidyBatch)]
		due = due[len(batch):]
		if err := s.takeNames(ctx, t, batch); err != nil {
			return err
		}
	}
	for {
		t.names.Lock()
		drop := s.forgettable(t, s.cfg.Now().UnixNano(), tidyBatch)
		var err error
		if len(drop) > 0 {
			if err = s.enact(ctx, t, &edits{drop: drop}); err != nil {
				t.unforget(drop)
			}
		}
		t.names.Unlock()
		if err != nil || len(drop) == 0 {
			return err
		}
	}
}

// judge returns those of a tree's files whose name has to go.
func (s *Server) judge(t *tree, all []fileState) []fileState {
	t.mu.Lock()
	for i := range all {
		f := &all[i]
		f.name, f.removed, f.written, f.ctime = f.node.name, f.node.removed, f.node.written, f.node.ctime
	}
	t.mu.Unlock()
	now := s.cfg.Now()
	var due []fileState
	for _, f := range all {
		if s.stale(&f, now) || s.expired(t, &f, now) {
			due = append(due, f)
		}
	}
	return due
}

// stale says that a silly name was left behind.
func (s *Server) stale(f *fileState, now time.Time) bool {
	return !f.removed && strings.HasPrefix(f.name, silly) && now.UnixNano()-f.ctime >= int64(sillyAge)
}

// expired says that the last byte of a file has expired, and its name has not.
func (s *Server) expired(t *tree, f *fileState, now time.Time) bool {
	if s.cfg.RetainUntil == nil || f.removed && f.name == expiredName {
		return false
	}
	until, ok := s.cfg.RetainUntil(t.name, time.Unix(0, f.written))
	return ok && now.After(until)
}

// takeNames takes names away, of the files that did not change since.
func (s *Server) takeNames(ctx context.Context, t *tree, batch []fileState) error {
	t.names.Lock()
	defer t.names.Unlock()
	e := &edits{}
	at := s.now()
	now := s.cfg.Now()
	for _, f := range batch {
		n := f.node
		if n.attrs().ctime != f.ctime || s.gone(n) {
			continue
		}
		if s.stale(&f, now) {
			e.dirOf(n, at)
			defer e.bury(n, at)()
			continue
		}
		e.streams.Rename = append(e.streams.Rename, vault.StreamInfo{ID: n.stream, Name: []byte(expiredName)})
		if !f.removed {
			e.dirOf(n, at)
		}
		e.nodes = append(e.nodes, change{node: n, edit: func(m *meta) {
			m.name = expiredName
			if !m.removed {
				m.removed = true
				m.touch(at)
			}
		}})
	}
	if len(e.nodes) == 0 {
		return nil
	}
	return s.enact(ctx, t, e)
}

// dirOf adds the new time of a file's directory, once.
func (e *edits) dirOf(n *node, now int64) {
	for _, ch := range e.nodes {
		if ch.node == n.up {
			return
		}
	}
	e.nodes = append(e.nodes, change{node: n.up, edit: modifyAt(now)})
}
