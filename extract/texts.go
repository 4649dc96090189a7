package extract

import _ "embed"

// readmeText and checkScript are the files README.txt and check.py of every
// bundle of one vault; jointReadme is README.txt of every joint bundle, each
// part of which has the same check.py.
var (
	//go:embed readme.txt
	readmeText string
	//go:embed readme-joint.txt
	jointReadme string
	//go:embed check.py
	checkScript string
)
