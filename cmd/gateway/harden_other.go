//go:build !linux

package main

// harden can do nothing here.
func harden() {}
