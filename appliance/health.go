package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"dimegate/appliance/config"
	"dimegate/vault/archive"
)

// A state is whether a vault takes mail.
type state struct {
	view   *config.Config
	ready  bool
	alarms []string // what somebody must look at, though mail goes on
	why    string   // not ready, in words that may be shown; empty for none
}

// faultWords is what is shown of why a vault takes no mail; all else only stands in the log.
var faultWords = []struct {
	err  error
	word string
}{
	{archive.ErrNoKey, "archive.keep is on, and no escrow key is in force"},
}

func faultWord(err error) string {
	for _, f := range faultWords {
		if errors.Is(err, f.err) {
			return f.word
		}
	}
	return ""
}

// maxAlarms bounds the lines about alarms.
const maxAlarms = 50

// health answers /livez and /readyz on loopback until ctx ends: the process lives, and it takes mail. Of several vaults one that does is
// enough, and those that do not are named; so is what somebody must look at; /readyz/NAME is about the organisation of that name or domain alone.
func health(ctx context.Context, ln net.Listener, states func() []state) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	answer := func(w http.ResponseWriter, of func(*config.Config) bool) {
		ready := false
		var down, alarms []string
		for _, s := range states() {
			switch {
			case !of(s.view):
			case s.ready:
				ready, alarms = true, append(alarms, s.alarms...)
			default:
				for _, o := range s.view.Organizations {
					down = append(down, strings.TrimSuffix(o.Name+": "+s.why, ": "))
				}
			}
		}
		if ctx.Err() != nil || !ready {
			http.Error(w, strings.Join(append([]string{"not ready"}, down...), "\n"), http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
		for _, name := range down {
			fmt.Fprintf(w, "not ready: %s\n", name)
		}
		for _, alarm := range alarms[:min(len(alarms), maxAlarms)] {
			fmt.Fprintf(w, "alarm: %s\n", alarm)
		}
	}
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, func(*config.Config) bool { return true })
	})
	mux.HandleFunc("GET /readyz/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if !slices.ContainsFunc(states(), func(s state) bool { return s.view.Serves(name) }) {
			http.NotFound(w, r)
			return
		}
		answer(w, func(view *config.Config) bool { return view.Serves(name) })
	})
	s := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
