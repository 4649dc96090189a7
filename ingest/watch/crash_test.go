package watch

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"logvault/internal/vfs"
)

var (
	crashSeeds = flag.Int("crash.seeds", 400, "seeds of the crash test")
	crashFirst = flag.Uint64("crash.first", 1, "first seed of the crash test")
)

// TestCrash lets programs write and logrotate rotate, both ways, while the
// process is killed and the power is cut at random operations of the spool's
// disk. At the end every line that the host's files held must be archived once,
// in order per stream; a line that the power cut took from a file must not be.
func TestCrash(t *testing.T) {
	seeds := *crashSeeds
	if testing.Short() {
		seeds /= 16
	}
	var total model
	for i := range seeds {
		seed := *crashFirst + uint64(i)
		m := newModel(t, seed)
		if err := m.run(); err != nil {
			t.Fatalf("seed %d: %v (repeat: go test -run TestCrash -crash.first %d -crash.seeds 1)\n%s", seed, err, seed, m.log.String())
		}
		total.kills += m.kills
		total.cuts += m.cuts
		total.rotations += m.rotations
		total.lines += m.lines
	}
	t.Logf("%d seeds: %d kills, %d power cuts, %d rotations, %d lines", seeds, total.kills, total.cuts, total.rotations, total.lines)
	if seeds >= 25 && (total.kills == 0 || total.cuts == 0 || total.rotations == 0) {
		t.Error("the model did not reach what it is for")
	}
}

var errPower = errors.New("the process is dead")

// model is the host around a rig.
type model struct {
	*rig
	rng   *rand.Rand
	names bool // the pattern chooses a file before its rotation only
	fuse  int  // operations of the spool's disk until it goes off, <0: never
	power bool
	cut   *vfs.Mem
	blown bool
	logs  []*program

	must  map[string]bool // lines to be archived once
	loose map[string]bool // lines of a text of which a power cut took the copy: any number

	kills, cuts, rotations, lines int
}

// program writes one log.
type program struct {
	name   string
	node   *inode // that it holds open, nil: it opens its file at the next write
	copies bool   // its log is rotated by copytruncate
	next   int
	dead   []*gone
}

// gone is a text that is in no file of the program any more.
type gone struct {
	text string
	copy *inode // where it was copied to, or nil
}

func newModel(t testing.TB, seed uint64) *model {
	rng := rand.New(rand.NewPCG(seed, 3))
	pattern := []string{"w?.log", "w?.log*", "*"}[seed%3]
	m := &model{rig: newRig(t, pattern), names: pattern == "w?.log", rng: rng, fuse: -1, must: map[string]bool{}, loose: map[string]bool{}}
	for i := range 3 {
		m.logs = append(m.logs, &program{name: fmt.Sprintf("/log/w%d.log", i), copies: i%2 == 0})
	}
	m.hook = func(vfs.Op, string) error {
		if m.blown {
			return errPower
		}
		if m.fuse < 0 {
			return nil
		}
		if m.fuse--; m.fuse >= 0 {
			return nil
		}
		m.blown = true
		if m.power {
			m.cut = m.mem.CrashClone(m.rng)
		}
		return errPower
	}
	return m
}

func (m *model) say(format string, args ...any) { fmt.Fprintf(&m.log, format+"\n", args...) }

func (m *model) run() error {
	for range 60 {
		m.fuse = -1
		if m.rng.IntN(4) == 0 {
			m.fuse, m.power = m.rng.IntN(30), m.rng.IntN(2) == 0
		}
		if err := m.act(); err != nil {
			return err
		}
	}
	m.fuse = -1
	if err := m.again(m.rounds); err != nil {
		return err
	}
	m.pass(2 * ended) // so that generations end with their last line, whole or not
	if err := m.again(m.rounds); err != nil {
		return err
	}
	if err := m.again(m.seal); err != nil {
		return err
	}
	return m.judge()
}

func (m *model) rounds() error {
	_, err := m.step()
	return err
}

// again does a step until the process survives it.
func (m *model) again(step func() error) error {
	for {
		err := step()
		if err == nil && !m.blown {
			return nil
		}
		if !m.blown {
			return err
		}
		if err := m.recover(); err != nil {
			return err
		}
	}
}

// recover starts the process again, after a power cut with the disks as that left them.
func (m *model) recover() error {
	for {
		m.w.Close()
		if m.power {
			m.cuts++
			m.mem = m.cut
			m.cutHost()
		} else {
			m.kills++
		}
		m.say("dead, power cut %v", m.power)
		m.blown, m.fuse = false, -1
		if m.rng.IntN(3) == 0 { // the start dies too
			m.fuse, m.power = m.rng.IntN(20), m.rng.IntN(2) == 0
		}
		if err := m.start(); err == nil || !m.blown {
			return err
		}
	}
}

// cutHost cuts the power of the host: programs and their descriptors are gone.
func (m *model) cutHost() {
	m.host.power(m.rng)
	for _, p := range m.logs {
		p.node = nil
		if n := m.host.file(p.name); n != nil && len(n.data) > 0 && n.data[len(n.data)-1] != '\n' {
			m.host.append(p.name, "\n") // only so that the next line is one
		}
		for _, g := range p.dead {
			if g.copy == nil || len(g.copy.data) >= len(g.text) {
				continue
			}
			for line := range strings.Lines(g.text) {
				m.loose[line] = true
			}
			g.copy = nil
		}
	}
}

func (m *model) act() error {
	p := m.logs[m.rng.IntN(len(m.logs))]
	switch n := m.rng.IntN(20); {
	case n < 8:
		m.write(p)
	case n < 13:
		m.say("rounds")
		return m.again(m.rounds)
	case n < 16:
		return m.rotate(p)
	case n < 17:
		d := []time.Duration{time.Second, settle, idle, ended}[m.rng.IntN(4)]
		m.say("pass %v", d)
		m.pass(d)
	case n < 19:
		m.say("seal")
		return m.again(m.seal)
	default:
		m.say("kill")
		m.blown, m.power = true, false
		return m.recover()
	}
	return nil
}

func (m *model) write(p *program) {
	n := 1 + m.rng.IntN(5)
	if m.rng.IntN(10) == 0 {
		n = 4000 // beyond a head
	}
	m.say("write %s %d to %d", p.name, p.next, p.next+n)
	for i := range n {
		m.lines++
		line := lines(p.name, p.next+i, 1)
		if p.node == nil {
			m.host.append(p.name, line)
			p.node = m.host.file(p.name)
			continue
		}
		m.host.held(p.node, line)
	}
	p.next += n
}

// rotate rotates as logrotate does with `rotate 2`. What falls off the end was
// read before: a file must not be removed while the gateway is down, nor renamed
// to what no pattern chooses before it was seen.
func (m *model) rotate(p *program) error {
	if m.host.file(p.name) == nil {
		return nil
	}
	m.rotations++
	if m.names || m.host.file(p.name+".2") != nil {
		if err := m.again(m.rounds); err != nil {
			return err
		}
	}
	if m.host.file(p.name+".2") != nil {
		if err := m.bury(p, p.name+".2"); err != nil {
			return err
		}
	}
	if m.host.file(p.name+".1") != nil {
		m.host.rename(p.name+".1", p.name+".2")
	}
	if !p.copies {
		m.say("rename %s", p.name)
		m.host.rename(p.name, p.name+".1")
		if m.rng.IntN(2) == 0 {
			m.write(p) // the program was not told yet
		}
		p.node = nil
		return m.between()
	}
	m.say("copytruncate %s", p.name)
	m.host.copy(p.name, p.name+".1")
	if err := m.between(); err != nil {
		return err
	}
	c := m.host.file(p.name + ".1")
	text := string(m.host.file(p.name).data)
	if string(c.data) != text { // a power cut between, of which both lost something
		for line := range strings.Lines(text + "\n" + string(c.data)) {
			m.loose[line] = true
		}
		c = nil
	}
	p.dead = append(p.dead, &gone{text, c})
	m.host.truncate(p.name, 0)
	return nil
}

// between lets the watcher look, or not.
func (m *model) between() error {
	if m.rng.IntN(2) == 0 {
		return m.again(m.rounds)
	}
	return nil
}

// bury removes a rotated file, or has it compressed, which gives the inode of the
// last compressed one to the new. That of copytruncate is in the list already.
func (m *model) bury(p *program, name string) error {
	if !p.copies {
		p.dead = append(p.dead, &gone{text: string(m.host.file(name).data)})
	}
	if zipped := name + ".gz"; m.rng.IntN(2) == 0 {
		m.say("compress %s", name)
		m.host.remove(zipped)
		for _, part := range []string{"", "\x1f\x8b\x08\n", "to be ignored\n"} {
			m.host.append(zipped, part)
			n := m.host.file(zipped)
			n.synced = len(n.data) // half a magic is not what this is about
			if err := m.between(); err != nil {
				return err
			}
		}
	}
	m.say("remove %s", name)
	m.host.remove(name)
	return nil
}

// judge compares what was archived with what the host's files held.
func (m *model) judge() error {
	must := map[string]int{}
	add := func(text string) {
		for line := range strings.Lines(text) {
			must[line]++
		}
	}
	for _, p := range m.logs {
		for _, g := range p.dead {
			add(g.text)
		}
		names := []string{p.name}
		if !p.copies {
			names = append(names, p.name+".1", p.name+".2")
		}
		for _, name := range names {
			if n := m.host.file(name); n != nil {
				add(string(n.data))
			}
		}
	}
	got := map[string]int{}
	for id, gens := range m.sealed {
		last := ""
		for _, g := range slices.Sorted(maps.Keys(gens)) {
			text := gens[g]
			for line := range strings.Lines(string(text)) {
				got[line]++
				if len(line) != 36 || m.loose[line] {
					continue
				}
				if line[17:] <= last {
					return fmt.Errorf("stream %v: %q after %q", id, line, last)
				}
				last = line[17:]
			}
		}
	}
	for line, n := range must {
		if got[line] != n && !m.loose[line] {
			return fmt.Errorf("line %q is archived %d times, expected %d: %v", line, got[line], n, m.holders(line))
		}
	}
	for line, n := range got {
		if must[line] != n && !m.loose[line] && !m.fragment(line) {
			return fmt.Errorf("line %q is archived %d times, the files held it %d times", line, n, must[line])
		}
	}
	return nil
}

// fragment tells whether a line is the beginning of a loose one.
func (m *model) fragment(line string) bool {
	for l := range m.loose {
		if strings.HasPrefix(l, strings.TrimSuffix(line, "\n")) {
			return true
		}
	}
	return false
}

// holders names the generations that hold a line.
func (m *model) holders(line string) (all []string) {
	for id, gens := range m.sealed {
		for g, text := range gens {
			if strings.Contains(string(text), line) {
				all = append(all, fmt.Sprintf("%s generation %d, %d bytes, named %s", id, g, len(text), m.rig.names[id]))
			}
		}
	}
	return all
}
