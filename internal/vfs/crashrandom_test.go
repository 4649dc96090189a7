package vfs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// promised is what a disk owes: for each name what a crash may leave under it,
// and for each file which contents. It is kept by hand, apart from what Mem keeps.
type promised struct {
	live  map[string]int   // name to file, 0 is none
	names map[string][]int // what may be under a name: as of the last SyncDir, and since
	texts map[int][]string // what may be in a file: as of its last Sync, and since
	moved map[int]bool     // files with one name that since the last SyncDir were only renamed
}

// set gives a name a file.
func (p *promised) set(name string, file int) {
	p.live[name] = file
	p.names[name] = append(p.names[name], file)
}

// TestCrashOwesWhatWasSynced makes random calls in one directory and looks at
// crashes in between: under a name is what was there at the last SyncDir or came
// since, in a file what was in it at its last Sync or came since, and a durable
// file that was only renamed is there under exactly one name.
func TestCrashOwesWhatWasSynced(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 20
	}
	old, between := 0, 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 17))
		m := NewMem()
		p := &promised{live: map[string]int{}, names: map[string][]int{}, texts: map[int][]string{}, moved: map[int]bool{}}
		for _, name := range promisedNames {
			p.names[name] = []int{0}
		}
		for step := range 60 {
			p.call(t, m, rng, step+1)
			for range 3 {
				c := m.CrashClone(rng)
				if err := p.check(t, c, &old, &between); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
			}
		}
	}
	if old < 100 || between < 100 {
		t.Errorf("crashes left %d names as of the sync and %d newer ones where both could be: the test sees too little", old, between)
	}
}

var promisedNames = []string{"a", "b", "c", "d", "e"}

// call makes one random call, on m and in p.
func (p *promised) call(t *testing.T, m *Mem, rng *rand.Rand, step int) {
	name, other := promisedNames[rng.IntN(5)], promisedNames[rng.IntN(5)]
	file := p.live[name]
	switch k := rng.IntN(10); {
	case k == 0:
		must(t, m.SyncDir("/"))
		clear(p.moved)
		names := map[int]int{}
		for _, n := range promisedNames {
			p.names[n] = []int{p.live[n]}
			names[p.live[n]]++
			p.moved[p.live[n]] = names[p.live[n]] == 1
		}
	case file == 0:
		put(t, m, "/"+name, p.write(step, ""))
		p.set(name, step)
	case k < 3:
		f, err := m.OpenRW("/" + name)
		must(t, err)
		if k == 1 {
			_, err = f.WriteAt([]byte(p.write(file, fmt.Sprint(step))), 0)
			must(t, err)
		} else {
			must(t, f.Sync())
			p.texts[file] = p.texts[file][len(p.texts[file])-1:]
		}
		must(t, f.Close())
	case k < 6 && name != other && p.live[other] != file:
		must(t, m.Rename("/"+name, "/"+other))
		delete(p.moved, p.live[other])
		p.set(other, file)
		p.set(name, 0)
	case k < 7 && p.live[other] == 0:
		must(t, m.Link("/"+name, "/"+other))
		delete(p.moved, file)
		p.set(other, file)
	case k < 8:
		must(t, m.Remove("/"+name))
		delete(p.moved, file)
		p.set(name, 0)
	}
}

// write notes a new text of a file and returns it: it fills a sector and names the file.
func (p *promised) write(file int, what string) string {
	text := fmt.Sprintf("%d/%s/", file, what)
	text += strings.Repeat(".", sectorSize-len(text))
	if p.texts[file] == nil {
		p.texts[file] = []string{"", strings.Repeat("\x00", sectorSize)} // made, and grown
	}
	p.texts[file] = append(p.texts[file], text)
	return text
}

// check compares what a crash left with what was promised.
func (p *promised) check(t *testing.T, c *Mem, old, between *int) error {
	found := map[int]int{}
	for _, name := range promisedNames {
		got := read(t, c, "/"+name)
		if got == "-" {
			if !slices.Contains(p.names[name], 0) {
				return fmt.Errorf("%s is lost: %v may be there", name, p.names[name])
			}
			continue
		}
		at := slices.IndexFunc(p.names[name], func(file int) bool { return file != 0 && p.mayHold(file, got) })
		if at < 0 {
			return fmt.Errorf("%s holds %.20q; %v may be there", name, got, p.names[name])
		}
		if len(p.names[name]) > 1 && at == 0 {
			*old++
		} else if at > 0 {
			*between++
		}
		if id := strings.SplitN(got, "/", 2); len(id) == 2 {
			var file int
			if _, err := fmt.Sscan(id[0], &file); err != nil {
				return err
			}
			found[file]++
		}
	}
	for file, only := range p.moved {
		if only && file != 0 && len(p.texts[file]) == 1 && found[file] != 1 {
			return fmt.Errorf("file %d, durable and only renamed, has %d names", file, found[file])
		}
	}
	return nil
}

// mayHold reports whether a crash may leave this in a file. A sector is there or
// not, and so is part of a size that grew.
func (p *promised) mayHold(file int, got string) bool {
	return slices.ContainsFunc(p.texts[file], func(text string) bool {
		return got == text || len(p.texts[file]) > 1 && p.texts[file][0] == "" && strings.HasPrefix(text, got)
	})
}
