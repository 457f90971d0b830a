// Package configs carries the commented configuration, so that "gateway init" can write it and "gateway config
// describe" can quote it.
package configs

import "embed"

// Gateway is gateway.toml: every key at its default, with a comment above it. Keys without a default are there behind
// a "#" without a blank.
//
//go:embed gateway.toml
var Gateway string

// Connector holds what "gateway connector print" fills in: connector/SERVER.tmpl, see package appliance/connector.
//
//go:embed connector
var Connector embed.FS
