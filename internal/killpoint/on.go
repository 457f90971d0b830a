//go:build killpoints

package killpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	trace = openTrace(os.Getenv(TraceVariable))
	armed = parseArm(os.Getenv(ArmVariable))
	left  atomic.Int64 // passings until the end
)

func openTrace(path string) *os.File {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic("killpoint: " + err.Error()) // a test bed that cannot see is of no use
	}
	return f
}

func parseArm(s string) Point {
	name, n, ok := strings.Cut(s, " ")
	if !ok {
		return ""
	}
	count, err := strconv.ParseInt(n, 10, 64)
	if err != nil || count < 1 {
		panic("killpoint: " + ArmVariable + " is not POINT N")
	}
	left.Store(count)
	return Point(name)
}

// Here notes that a point is passed, by whom and with what ("PID POINT ID" and, the last time, "killed": a line is one write,
// and what was written survives the process), and ends the process when its time has come.
func Here(p Point, id fmt.Stringer) {
	if trace == nil {
		return
	}
	name := "-"
	if id != nil {
		name = id.String()
	}
	end := ""
	if p == armed && left.Add(-1) == 0 {
		end = " killed"
	}
	fmt.Fprintf(trace, "%d %s %s%s\n", os.Getpid(), p, name, end)
	if end != "" {
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // the signal is on its way
	}
}
