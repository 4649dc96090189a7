package nfsgw

import "time"

// SetFullDelay sets how long a call waits before JUKEBOX.
func SetFullDelay(s *Server, d time.Duration) { s.fullDelay = d }
