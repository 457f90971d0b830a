package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts call this very program by its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gateway": main, "age-plugin-lab": labToken})
}

// TestScripts runs testdata/script: command lines as people type them, with what they print and how they end. VECTORS is the
// folder of libdime's files. A command of its own beside testscript's: "exits CODE COMMAND...", for an exit code that matters.
func TestScripts(t *testing.T) {
	folder, err := filepath.Abs(filepath.Join("..", "..", "testdata", "vectors", "libdime"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("VECTORS", folder)
			env.Setenv("SOON", time.Now().AddDate(0, 0, 30).Format(time.DateOnly))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "archive": archiveCommand, "enqueue": enqueueCommand,
			"keep": keepCommand, "freeport": freePort, "waitlisten": waitListen, "setvar": setVar, "smtp": smtpCommand, "splice": spliceCommand},
	})
}

// exits runs a command and compares its exit code; its output is there for stdout and stderr as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// exitCode is the exit code of a command that ended with err.
func exitCode(err error) string {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return "0"
	case ok:
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}
