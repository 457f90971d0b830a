// Command gateway is Dimegate: a DIME gateway between an organisation's mail server and the world.
//
// One file a subcommand. Exit codes: 0 fine, 1 the thing asked about is not fine, 2 wrong use or wrong configuration,
// 3 refused by policy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
)

// A command is one subcommand, or a family of them.
type command struct {
	name    string
	summary string // one line, shown in the list
	usage   string // what follows the name: flags and operands
	example string // one command line that works
	run     func(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error
	sub     []command // when set, the first operand picks one and run is nil
}

// stdio is where a command reads and writes, so that tests can run it in process.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// commands is the whole command line, in the order of the help text.
var commands = []command{
	initCommand,
	runCommand,
	demoCommand,
	configCommand,
	connectorCommand,
	signetCommand,
	recordCommand,
	trustCommand,
	messageCommand,
	importCommand,
	keysCommand,
	sealsCommand,
	escrowCommand,
	officerCommand,
	caseCommand,
	archivesCommand,
	holdCommand,
	evidenceCommand,
	policyCommand,
	queueCommand,
	auditCommand,
	backupCommand,
	rolesCommand,
	witnessCommand,
	versionCommand,
}

// A usageError is wrong use or wrong configuration: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// A refusedError is a refusal by policy, such as a hold, a quorum or a role: exit code 3.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// errReported ends a command with exit code 1 when it has said all there is to say itself.
var errReported = errors.New("not fine")

// errRefused is the same with exit code 3: policy refused all that failed.
var errRefused = errors.New("refused by policy")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := dispatch(ctx, stdio{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// dispatch runs one command line and returns the exit code.
func dispatch(ctx context.Context, std stdio, args []string) int {
	err := call(ctx, std, "gateway", commands, args)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errReported):
		return 1
	case err == errRefused:
		return 3
	}
	fmt.Fprintln(std.err, "gateway:", err)
	if _, ok := errors.AsType[refusedError](err); ok {
		return 3
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

// call finds the command that args name and runs it with its own flag set.
func call(ctx context.Context, std stdio, path string, list []command, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		printList(std.out, path, list)
		if len(args) == 0 {
			return usagef("no command given: see %q", path+" --help")
		}
		return nil
	}
	for _, c := range list {
		if c.name != args[0] {
			continue
		}
		path += " " + c.name
		if c.sub != nil {
			return call(ctx, std, path, c.sub, args[1:])
		}
		fs := flag.NewFlagSet(path, flag.ContinueOnError)
		fs.SetOutput(std.err)
		fs.Usage = func() { printHelp(std.out, path, c, fs) }
		return c.run(withLine(ctx, fs, args[1:]), std, fs, args[1:])
	}
	return usagef("%s: unknown command %q: see %q", path, args[0], path+" --help")
}

// parse reads flags anywhere among the operands and returns the operands. A wrong flag is wrong use.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var operands []string
	fs.SetOutput(io.Discard) // the error is ours to print, once
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, usagef("%s: %w: see %q", strings.TrimPrefix(fs.Name(), "gateway "), err, fs.Name()+" --help")
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return operands, nil
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(operands, rest...), nil
		}
		operands = append(operands, rest[0])
		args = rest[1:]
	}
}

func printList(w io.Writer, path string, list []command) {
	fmt.Fprintf(w, "Usage: %s COMMAND\n\n", path)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range list {
		fmt.Fprintf(tw, "  %s\t%s\n", c.name, c.summary)
	}
	tw.Flush()
	fmt.Fprintf(w, "\nSee %q for one of them.\n", path+" COMMAND --help")
}

func printHelp(w io.Writer, path string, c command, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s\n\nUsage: %s %s\n", c.summary, path, c.usage)
	any := false
	fs.VisitAll(func(*flag.Flag) { any = true })
	if any {
		fmt.Fprintln(w)
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
	if c.example != "" {
		fmt.Fprintf(w, "\nExample:\n  %s\n", c.example)
	}
}
