package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"dimegate/appliance"
	"dimegate/appliance/config"
)

// A leakReport is what the leak test found.
type leakReport struct {
	Cases             []leakResult `json:"cases"`
	PlaintextBytes    int          `json:"plaintext_bytes_on_wire"` // over all cases and control_delivered
	Undecided         int          `json:"undecided"`
	ControlDelivered  bool         `json:"control_delivered"`
	ControlCanarySeen bool         `json:"control_canary_seen"`
	Controls          []leakResult `json:"controls"`
	CanarySentBy      string       `json:"control_canary_sent_by"` // who sent the canary that was seen
	Floor             string       `json:"floor"`                  // of the sending gateway: the weakest that this version has
	Pcap              string       `json:"pcap"`
	Streams           int          `json:"streams"` // directions of TCP connections in the capture
	OK                bool         `json:"ok"`
	Why               []string     `json:"why,omitempty"` // it is not
}

// A leakResult is one case.
type leakResult struct {
	Name        string `json:"name"`
	Does        string `json:"does"`
	FaultStruck bool   `json:"fault_struck"`
	Outcome     string `json:"outcome"` // held, bounced, delivered, refused; undecided
	Expected    string `json:"expected"`
	End         string `json:"end,omitempty"` // of what was held
	ExpectedEnd string `json:"expected_end,omitempty"`
	Reason      string `json:"reason,omitempty"` // as the gateway recorded it
	Plaintext   int    `json:"plaintext_bytes"`
	WireOctets  int    `json:"wire_octets"` // captured in this case
	Canary      string `json:"canary"`      // to look for in the capture
	OK          bool   `json:"ok"`
	Error       string `json:"error,omitempty"`
}

// A leakRun is what all cases of a run share.
type leakRun struct {
	capture *capture
	ca      *issuer
	gateway string // the program, as it is shipped
	self    string // this program
	floor   string
}

// casesAtOnce bounds the worlds that stand at one time: they mostly wait.
const casesAtOnce = 4

var leakCommand = command{
	"leak", "[--cases all|NAME,...] [--json] [--pcap FILE]",
	"attack the way between two organisations in every way that we know, and look for plaintext in what was captured\n" +
		"there; exit code 0 only if there is none and each case ends as it must (as root: it captures packets)",
	runLeak,
}

func runLeak(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("lab leak", flag.ContinueOnError)
	names := fs.String("cases", "all", "`NAMES` of the cases, with commas, or all")
	asJSON := fs.Bool("json", false, "print JSON")
	pcap := fs.String("pcap", "", "keep the capture in this `FILE`; else in a new one in the system's folder for such")
	if err := fs.Parse(args); err != nil {
		return errUsage
	}
	cases, err := chooseCases(*names)
	if err != nil {
		return err
	}
	if *pcap == "" {
		f, err := os.CreateTemp("", "leak-*.pcap")
		if err != nil {
			return err
		}
		*pcap = f.Name()
		f.Close()
	}
	report, err := leak(ctx, cases, *pcap)
	if err != nil {
		return err
	}
	return tell(out, *asJSON, "leak", report, report.OK, report.Why)
}

func chooseCases(names string) ([]leakCase, error) {
	if names == "all" {
		return leakCases, nil
	}
	var list []leakCase
	for name := range strings.SplitSeq(names, ",") {
		n := len(list)
		for _, c := range leakCases {
			if c.name == name {
				list = append(list, c)
			}
		}
		if len(list) == n {
			return nil, fmt.Errorf("leak: no case is called %q", name)
		}
	}
	return list, nil
}

// leak runs cases and controls, and then looks into the capture.
func leak(ctx context.Context, cases []leakCase, pcap string) (_ *leakReport, err error) {
	dir, err := os.MkdirTemp("", "leak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	run := &leakRun{}
	if run.gateway, err = Build(ctx, dir); err != nil {
		return nil, err
	}
	if run.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if run.ca, err = newIssuer(); err != nil {
		return nil, err
	}
	if run.floor, err = weakestFloor(ctx, run.gateway, dir); err != nil {
		return nil, err
	}
	if run.capture, err = startCapture(pcap); err != nil {
		return nil, err
	}
	all := append(append([]leakCase(nil), cases...), leakControls...)
	results := make([]leakResult, len(all))
	places := make(chan struct{}, casesAtOnce)
	var wg sync.WaitGroup
	for i, c := range all {
		places <- struct{}{}
		wg.Go(func() {
			results[i] = run.one(ctx, c)
			<-places
		})
	}
	wg.Wait()
	if err := run.capture.close(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	wire, err := readWire(pcap)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pcap, err)
	}
	if pcap, err = filepath.Abs(pcap); err != nil {
		return nil, err
	}
	r := &leakReport{Cases: results[:len(cases)], Controls: results[len(cases):], Pcap: pcap, Floor: run.floor, Streams: len(wire.streams)}
	r.judge(wire)
	return r, nil
}

// weakestFloor is the weakest way out that the gateway can be told to allow.
func weakestFloor(ctx context.Context, binary, dir string) (string, error) {
	for _, floor := range []string{"opportunistic", "dime"} {
		path := filepath.Join(dir, floor+".toml")
		text := fmt.Sprintf("[[organization]]\ndomains = [\"alpha.test\"]\n[policy]\nfloor = %q\n", floor)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return "", err
		}
		if _, err := (&Gateway{binary: binary}).Command(ctx, "config", "check", "--no-files", "--config", path); err == nil {
			return floor, nil
		}
	}
	return "", errors.New("leak: the gateway takes no floor that we know")
}

// judge counts what the capture shows and says whether all is as it must be.
func (r *leakReport) judge(w *wire) {
	bad := func(format string, args ...any) { r.Why = append(r.Why, fmt.Sprintf(format, args...)) }
	if w.gaps > 0 {
		bad("%d gaps in the captured streams", w.gaps)
	}
	for _, list := range [][]leakResult{r.Cases, r.Controls} {
		for i := range list {
			c := &list[i]
			c.Plaintext += w.find(c.Canary)
			shown := c.Name == controlCanarySeen
			if !shown {
				r.PlaintextBytes += c.Plaintext
			}
			if c.Outcome == undecided {
				r.Undecided++
			}
			c.OK = c.Error == "" && c.FaultStruck && c.WireOctets > 0 && c.Outcome == c.Expected && c.End == c.ExpectedEnd && (c.Plaintext > 0) == shown
			if !c.OK {
				bad("%s: fault struck %t, %s %s, expected %s %s, %d octets in clear of %d captured %s", c.Name, c.FaultStruck, c.Outcome, c.End,
					c.Expected, c.ExpectedEnd, c.Plaintext, c.WireOctets, c.Error)
			}
			switch c.Name {
			case controlDelivered:
				r.ControlDelivered = c.OK
			case controlCanarySeen:
				r.ControlCanarySeen, r.CanarySentBy = c.OK, c.Reason
			}
		}
	}
	if len(r.Cases) == 0 {
		bad("no case ran")
	}
	r.OK = len(r.Why) == 0 && r.PlaintextBytes == 0 && r.Undecided == 0 && r.ControlDelivered && r.ControlCanarySeen
}

func (r *leakReport) print(out io.Writer) {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "case\tstruck\toutcome\tin clear\tok\tthe gateway's reason")
	for _, list := range [][]leakResult{r.Cases, r.Controls} {
		for _, c := range list {
			fmt.Fprintf(tw, "%s\t%t\t%s %s\t%d\t%t\t%s\n", c.Name, c.FaultStruck, c.Outcome, c.End, c.Plaintext, c.OK, strings.ReplaceAll(c.Reason, "\n", "; "))
		}
	}
	tw.Flush()
	fmt.Fprintf(out, "plaintext on the wire: %d octets; undecided: %d; capture: %s\n", r.PlaintextBytes, r.Undecided, r.Pcap)
}

// runGatewayAt runs a gateway whose clock is ahead by what a file says, read at every look at it: the appliance as it is
// shipped under another main function, since no configuration can move the clock.
func runGatewayAt(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 2 {
		return errUsage
	}
	clockFile, configFile := args[0], args[1]
	c, err := config.Load(configFile)
	if err != nil {
		return err
	}
	now := func() time.Time {
		var ahead time.Duration
		if text, err := os.ReadFile(clockFile); err == nil {
			ahead, _ = time.ParseDuration(string(text)) // ours: see setClock
		}
		return time.Now().Add(ahead)
	}
	a, err := appliance.Open(ctx, c, appliance.Options{Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Now: now})
	if err != nil {
		return err
	}
	return errors.Join(a.Run(ctx), a.Close())
}
