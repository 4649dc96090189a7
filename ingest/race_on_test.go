//go:build race

package ingest

// How much the tests that try many cases try under the race detector, which is slow.
const (
	defaultSeeds = 30
	faultSeeds   = 3
	flipEvery    = 7 // bytes
)
