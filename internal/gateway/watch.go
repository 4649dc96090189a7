package gateway

import (
	"logvault/ingest/watch"
	"logvault/vault"
)

// newWatcher makes the watcher of the configured directories, or nil if there
// are none.
func (s *Site) newWatcher() (*watch.Watcher, error) {
	c := s.Config()
	if len(c.Watches) == 0 {
		return nil, nil
	}
	var all []watch.Watch
	for _, w := range c.Watches {
		all = append(all, watch.Watch{Source: vault.Source(w.Source), Directory: w.Directory, Patterns: w.Patterns})
	}
	return watch.New(watch.Config{Sink: s.spool, Host: watch.Local{}, Watches: all, Random: s.env.Random, Boot: s.env.Boot, Log: s.env.Log})
}

// noteWatch notes what a round of the watcher could not do.
func (s *Site) noteWatch(err error) {
	if err != nil {
		s.trouble(watching, err)
	} else {
		s.better(watching)
	}
}
