//go:build !race

package ingest

// How much the tests that try many cases try.
const (
	defaultSeeds = 320
	faultSeeds   = 8
	flipEvery    = 3 // bytes
)
