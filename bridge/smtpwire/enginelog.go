package smtpwire

import (
	"fmt"
	"log/slog"
	"strings"
)

// An EngineLog is go-smtp's log: panics of sessions, failures to accept. Sessions whose client is gone, as those of health checks,
// are told at debug.
type EngineLog struct{ Log *slog.Logger }

// Printf is smtp.Logger.
func (l EngineLog) Printf(format string, v ...any) {
	if len(v) == 3 { // "panic serving %v: %v\n%s": the panic's value may be anything, the stack is code
		l.Log.Error("smtp session panicked", "peer", v[0], "stack", fmt.Sprintf("%s", v[2]))
		return
	}
	if len(v) == 2 && strings.HasPrefix(format, "error handling") { // a client that is gone, as many are
		l.Log.Debug("smtp session ended", "peer", v[0], "error", v[1])
		return
	}
	l.Log.Warn("smtp server", "event", format)
}

// Println is smtp.Logger; the server does not use it.
func (l EngineLog) Println(...any) {}
