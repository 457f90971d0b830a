#!/usr/bin/env bash
# test.sh: everything that must hold, in one command.
#   ./test.sh          install the real peers that are missing (as root on Debian), then run all of it
#   ./test.sh --fast   what needs no peers
set -euo pipefail
cd "$(dirname "$0")"
gofmt=$(gofmt -l .); [ -z "$gofmt" ] || { echo "gofmt differs: $gofmt"; exit 1; }
go vet ./...
go test ./...
