//go:build race

package segment

// raceEnabled says that the race detector is on.
const raceEnabled = true
