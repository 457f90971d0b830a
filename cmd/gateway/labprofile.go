//go:build labprofile

package main

import (
	"net"
	"net/http"
	_ "net/http/pprof" // into http.DefaultServeMux
	"os"
)

// Built with the tag labprofile, and only then, the gateway serves Go's profiles on the Unix socket that LAB_PROFILE names:
// cmd/lab looks there where processor time goes, and how many goroutines run. The shipped program has none of it.
func init() {
	path := os.Getenv("LAB_PROFILE")
	if path == "" {
		return
	}
	_ = os.Remove(path) // of a run that was killed
	ln, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	go http.Serve(ln, nil)
}
