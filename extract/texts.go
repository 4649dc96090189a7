package extract

import _ "embed"

// readmeText and checkScript are the files README.txt and check.py of every
// bundle of this version.
var (
	//go:embed readme.txt
	readmeText string
	//go:embed check.py
	checkScript string
)
