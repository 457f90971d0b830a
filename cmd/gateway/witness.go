package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"dimegate/appliance"
	"dimegate/internal/safefile"
	"dimegate/vault/audit"
)

var witnessCommand = command{
	name:    "witness",
	summary: "on another machine: cosign gateways' logs as long as they only grow",
	sub: []command{
		{
			name: "init", summary: "make the witness's key and print its public half, for the gateway's audit.witnesses",
			usage:   "--key FILE --name NAME",
			example: "gateway witness init --key witness.key --name witness.example.net",
			run:     runWitnessInit,
		},
		{
			name: "run", summary: "cosign until it is told to stop",
			usage:   "--key FILE --state FOLDER --log KEY [--log KEY ...] [--listen ADDRESS] [--certificate FILE --certificate-key FILE]",
			example: "gateway witness run --key witness.key --state /var/lib/witness --log dimegate/01…+5f0c1a2b+ASx… --listen [::]:8427",
			run:     runWitness,
		},
	},
}

// A witnessFile is the key file.
type witnessFile struct {
	Name string `json:"name"`
	Seed []byte `json:"seed"` // 32 octets, base64
}

func runWitnessInit(_ context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("key", "", "`FILE` to make, mode 0600")
	name := fs.String("name", "", "`NAME` of the witness, such as a domain")
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || *path == "" || *name == "" {
		return usagef("witness init: --key and --name are needed, and nothing else")
	}
	f := witnessFile{*name, make([]byte, 32)}
	defer clear(f.Seed)
	rand.Read(f.Seed)
	k, err := audit.NewWitnessKey(f.Name, f.Seed)
	if err != nil {
		return usageError{err}
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	defer clear(b)
	if err := safefile.Create(*path, append(b, '\n')); errors.Is(err, os.ErrExist) {
		return usagef("%s: is there: a witness keeps its key", *path)
	} else if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, k.Verifier())
	return err
}

// maxWitnessFile bounds the key file, in octets.
const maxWitnessFile = 4096

func loadWitnessKey(path string) (audit.WitnessKey, error) {
	b, err := safefile.ReadSecret(path, maxWitnessFile)
	if errors.Is(err, fs.ErrNotExist) {
		return audit.WitnessKey{}, fmt.Errorf("%s: is not there: make it with \"gateway witness init\"", path)
	} else if err != nil {
		return audit.WitnessKey{}, err
	}
	defer clear(b)
	var f witnessFile
	defer func() { clear(f.Seed) }()
	if json.Unmarshal(b, &f) != nil {
		return audit.WitnessKey{}, fmt.Errorf("%s: not a witness's key file", path)
	}
	k, err := audit.NewWitnessKey(f.Name, f.Seed)
	if err != nil {
		return audit.WitnessKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func runWitness(ctx context.Context, std stdio, fs *flag.FlagSet, args []string) error {
	path := fs.String("key", "", "key `FILE`, as init made it")
	state := fs.String("state", "", "`FOLDER` for what was seen of each log: when it is lost, so is the witness's word")
	listen := fs.String("listen", "127.0.0.1:8427", "`ADDRESS` to listen on")
	cert := fs.String("certificate", "", "`FILE` with a certificate chain, for TLS")
	certKey := fs.String("certificate-key", "", "`FILE` with its key")
	var logs []string
	fs.Func("log", "public `KEY` of a log to cosign, as \"gateway audit checkpoint --json\" prints it; may be repeated", func(s string) error {
		logs = append(logs, s)
		return nil
	})
	if rest, err := parse(fs, args); err != nil {
		return err
	} else if len(rest) > 0 || *path == "" || *state == "" || len(logs) == 0 || (*cert == "") != (*certKey == "") {
		return usagef("witness run: --key, --state and --log are needed, and both of --certificate and --certificate-key or neither")
	}
	k, err := loadWitnessKey(*path)
	if err != nil {
		return usageError{err}
	}
	if st, err := os.Stat(*state); err != nil || !st.IsDir() {
		return usagef("--state: %s is not a folder: make it, once", *state)
	}
	w, err := audit.NewWitness(k, *state, logs)
	if err != nil {
		return usageError{err}
	}
	defer w.Close()
	var certificate *tls.Certificate
	if *cert != "" {
		c, err := tls.LoadX509KeyPair(*cert, *certKey)
		if err != nil {
			return usagef("--certificate: %w", err)
		}
		certificate = &c
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return usagef("--listen: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	log.Info("listening", "kind", "witness", "address", ln.Addr().String())
	return appliance.ServeWitness(ctx, ln, w, certificate, log)
}
