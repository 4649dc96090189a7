package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Run makes rounds until ctx is done or the spool fails: when inotify tells of a
// change in a watched directory, a second after something was in trouble, and
// every 10 seconds in any case. report hears
// after each round what is in trouble, nil for nothing. Run returns nil after
// ctx is done and closes the watched files.
func (w *Watcher) Run(ctx context.Context, report func(trouble error)) error {
	defer w.Close()
	n, err := newNotifier()
	if err == nil {
		defer n.close()
		for _, f := range w.sources {
			f.notify = n.add
		}
	}
	noNotify := err // then a round runs every 10 seconds and at no other time
	for {
		n.begin()
		more, trouble, err := w.Round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		report(errors.Join(noNotify, n.trouble(), trouble))
		switch {
		case more:
		case trouble != nil:
			n.wait(ctx, retry)
		default:
			n.wait(ctx, w.rescan)
		}
	}
}

// notifier is inotify on the directories that hold watched files.
type notifier struct {
	w   *fsnotify.Watcher
	now map[string]bool // directories of this round
	err error           // of the last one that could not be added
}

func newNotifier() (*notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching without inotify: %w", err)
	}
	return &notifier{w: w}, nil
}

func (n *notifier) close() { n.w.Close() } // nothing is pending

// begin starts a round: the directories that it lists are those to be told of.
func (n *notifier) begin() {
	if n == nil {
		return
	}
	for _, dir := range n.w.WatchList() {
		if n.now != nil && !n.now[dir] {
			_ = n.w.Remove(dir) // it may be gone, and its watch with it
		}
	}
	n.now, n.err = map[string]bool{}, nil
}

// add is called before a directory is listed, so that nothing is missed between.
// A directory that took the place of another is added as well: its inode differs.
func (n *notifier) add(dir string) {
	n.now[dir] = true
	if err := n.w.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.err = fmt.Errorf("watching %s without inotify: %w", dir, err)
	}
}

func (n *notifier) trouble() error {
	if n == nil {
		return nil
	}
	return n.err
}

// wait returns when a round is due, after left at most. Writes are gathered for a moment, so that one
// sync serves many; a file that was made, renamed or removed is looked at sooner,
// because it may be gone soon.
func (n *notifier) wait(ctx context.Context, left time.Duration) {
	var events chan fsnotify.Event
	var failures chan error
	if n != nil {
		events, failures = n.w.Events, n.w.Errors
	}
	due := time.NewTimer(left)
	defer due.Stop()
	sooner := func(d time.Duration) {
		if d < left {
			left = d
			due.Reset(d)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case e := <-events:
			if e.Has(fsnotify.Write) {
				sooner(pace)
			} else if !e.Has(fsnotify.Chmod) {
				sooner(pace / 10)
			}
		case <-failures:
			sooner(0) // the queue overflowed: what it held is found by looking
		}
	}
}
