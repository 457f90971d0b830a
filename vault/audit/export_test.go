package audit

import "time"

// SetEvery is how long Run waits for leaves.
func (l *Log) SetEvery(d time.Duration) { l.every = d }
